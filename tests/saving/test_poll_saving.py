"""`poll(save_to=…)`: each outcome after its images, and the polling never held up by them."""

from __future__ import annotations

import asyncio
import errno
import math
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from kling_omni_async import (
    AssetExpiredError,
    AuthenticationError,
    ConfigurationError,
    DownloadError,
    KlingOmniSession,
    OutcomeStream,
    PollPolicy,
    Progress,
    SessionClosedError,
    StorageError,
    TaskFailedError,
    TaskOutcome,
    TaskStatus,
)
from kling_omni_async._saving.files import LocalStore
from kling_omni_async.simulator import SimulatedCometAPI
from tests.support import all_of, now, open_session

pytestmark = pytest.mark.anyio

INTERVAL = (20.0, 30.0)


def names_in(folder: Path) -> list[str]:
    """Give the names of all files, hidden ones too."""
    return sorted(path.name for path in folder.iterdir())


async def test_each_outcome_comes_after_its_images(
    comet_api: SimulatedCometAPI, tmp_path: Path
) -> None:
    """When an outcome is handed out, its images are in the store and named in it."""
    task_ids = [comet_api.create_task(images=count) for count in (1, 2, 4)]
    async with (
        open_session(comet_api) as session,
        session.poll(task_ids, save_to=tmp_path) as outcomes,
    ):
        async for outcome in outcomes:
            assert outcome.ok
            assert [image.url for image in outcome.saved] == [image.url for image in outcome.images]
            there = names_in(tmp_path)
            assert all(Path(image.key).name in there for image in outcome.saved)
            assert all(image.size for image in outcome.saved)
    assert len(names_in(tmp_path)) == 7
    assert outcomes.progress == Progress(total=3, succeeded=3)


async def test_what_did_not_succeed_is_not_fetched(
    comet_api: SimulatedCometAPI, tmp_path: Path
) -> None:
    """Failed, unknown and malformed ids come out as ever, with nothing saved."""
    failing = comet_api.create_task(fail="too dark")
    async with open_session(comet_api) as session:
        outcomes = await all_of(session, [failing, "unknown", "no id"], save_to=tmp_path / "new")
    assert {type(outcome.error).__name__ for outcome in outcomes} == {
        "TaskFailedError",
        "TaskNotFoundError",
        "InvalidTaskIdError",
    }
    assert all(outcome.saved == () for outcome in outcomes)
    assert comet_api.image_requests == ()
    assert names_in(tmp_path) == []


async def test_polling_goes_on_beside_slow_downloads(
    comet_api: SimulatedCometAPI, tmp_path: Path
) -> None:
    """Images that take minutes delay neither a query nor the outcome of another id."""
    slow = [comet_api.create_task(duration=1.0) for _ in range(20)]
    quick = comet_api.create_task(duration=130.0, fail="in the end")
    comet_api.fail_next_image(times=None, delay=25.0)
    async with (
        open_session(comet_api, max_downloads=2) as session,
        session.poll([*slow, quick], save_to=tmp_path) as outcomes,
    ):
        times = {outcome.task_id: now() async for outcome in outcomes}
    assert 130.0 <= times[quick] <= 161.0
    assert max(times[task_id] for task_id in slow) >= 250.0
    gaps = comet_api.gaps()
    assert min(gaps) >= INTERVAL[0] - 0.01
    assert max(gaps) <= INTERVAL[1] + 0.01
    assert comet_api.image_downloads_peak == 2


async def test_a_failed_save_loses_nothing(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """The outcome has the task, the error and what was stored; the next run saves the rest."""
    good, bad = (comet_api.create_task(images=3) for _ in range(2))
    comet_api.fail_next_image(bad, index=1, html=True)
    async with open_session(comet_api) as session:
        first = {
            each.task_id: each for each in await all_of(session, [good, bad], save_to=tmp_path)
        }
    outcome = first[bad]
    assert first[good].ok
    assert not outcome.ok
    assert isinstance(outcome.error, DownloadError)
    assert outcome.error.task_id == bad
    assert outcome.task is not None
    assert outcome.task.status is TaskStatus.SUCCEED
    assert outcome.error.url == outcome.task.images[1].url
    assert [Path(image.key).name for image in outcome.saved] == [f"{bad}-0.png", f"{bad}-2.png"]
    assert TaskOutcome.from_dict(outcome.to_dict()).to_dict() == outcome.to_dict()
    async with open_session(comet_api) as session:
        second = await all_of(session, [good, bad], save_to=tmp_path)
    assert all(outcome.ok and len(outcome.saved) == 3 for outcome in second)
    assert len(comet_api.image_requests) == 6 + 1
    assert len(names_in(tmp_path)) == 6


async def test_the_counts_of_a_failed_save(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """A task whose images could not be saved counts as unresolved."""
    task_id = comet_api.create_task()
    comet_api.expire_images(task_id, status=410)
    async with (
        open_session(comet_api) as session,
        session.poll([task_id], save_to=tmp_path) as outcomes,
    ):
        (outcome,) = [outcome async for outcome in outcomes]
    assert isinstance(outcome.error, AssetExpiredError)
    assert outcomes.progress == Progress(total=1, unresolved=1)


async def test_a_store_that_fails(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """A store that takes nothing gives each outcome its error; the tasks are all there."""
    task_ids = [comet_api.create_task() for _ in range(3)]
    async with (
        open_session(comet_api) as session,
        session.poll(task_ids, save_to=tmp_path / "images") as stream,
    ):
        (tmp_path / "images").touch()
        outcomes = [outcome async for outcome in stream]
    assert len(outcomes) == 3
    for outcome in outcomes:
        assert isinstance(outcome.error, StorageError)
        assert outcome.task is not None
        assert outcome.task.images


async def test_a_store_that_refuses_stops_nobody_else(
    comet_api: SimulatedCometAPI, tmp_path: Path
) -> None:
    """Something else under an image's name is told with its task, and all others are saved."""
    taken, free = (comet_api.create_task(duration=0) for _ in range(2))
    (tmp_path / f"{taken}-0.png").write_bytes(b"")
    async with open_session(comet_api) as session:
        outcomes = {o.task_id: o for o in await all_of(session, [taken, free], save_to=tmp_path)}
        task = await session.wait(taken)
        with pytest.raises(StorageError) as caught:
            await session.save(task, tmp_path)
        (saved,) = await session.save(task, tmp_path, overwrite=True)
    assert caught.value.reason == "exists"
    assert isinstance(outcomes[taken].error, StorageError)
    assert outcomes[taken].task
    assert outcomes[free].ok
    assert saved.size == (tmp_path / f"{taken}-0.png").stat().st_size


async def test_no_copy_to_save(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """An outcome without the copy that was asked for ends the stream like any other."""
    task_ids = [comet_api.create_task(watermarked=marked) for marked in (True, False)]
    async with open_session(comet_api) as session:
        first, second = await all_of(session, task_ids, save_to=tmp_path, watermarked=True)
    ok, missing = sorted((first, second), key=lambda outcome: not outcome.ok)
    assert [Path(image.key).name for image in ok.saved] == [f"{ok.task_id}-0-watermarked.png"]
    assert isinstance(missing.error, DownloadError)
    assert missing.error.reason == "no-watermark"


async def test_overwrite_reaches_the_store(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """`overwrite` of `poll` is that of `save`."""
    task_id = comet_api.create_task()
    path = tmp_path / f"{task_id}-0.png"
    path.write_bytes(b"mine")
    async with open_session(comet_api) as session:
        (refused,) = await all_of(session, [task_id], save_to=tmp_path)
        assert isinstance(refused.error, StorageError)
        assert path.read_bytes() == b"mine"
        (done,) = await all_of(session, [task_id], save_to=tmp_path, overwrite=True)
    assert done.ok
    assert path.stat().st_size == done.saved[0].size


async def test_the_time_of_saving_counts(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """`elapsed` ends when the images are stored."""
    task_id = comet_api.create_task(duration=0.0)
    comet_api.fail_next_image(task_id, delay=12.0)
    async with open_session(comet_api) as session:
        (outcome,) = await all_of(session, [task_id], save_to=tmp_path)
    assert outcome.elapsed == pytest.approx(12.0, abs=0.5)


async def test_a_store_that_is_none(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """A wrong `save_to` is told at the call, before anything is asked."""
    (tmp_path / "file").write_text("mine")
    async with open_session(comet_api) as session:
        for store in ("", 5, tmp_path / "file"):
            with pytest.raises(ConfigurationError):
                session.poll(["1"], save_to=store)  # type: ignore[arg-type]
    assert comet_api.queries == ()


async def test_a_feed_is_saved_too(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """An id that a feed gives again after it came out is polled anew, and fetched once."""
    task_id = comet_api.create_task(duration=0.0)
    came_out = asyncio.Event()

    async def feed() -> AsyncGenerator[str]:
        yield task_id
        await came_out.wait()
        yield task_id

    outcomes: list[TaskOutcome] = []
    async with (
        open_session(comet_api) as session,
        session.poll(feed(), save_to=tmp_path) as stream,
    ):
        async for outcome in stream:
            outcomes.append(outcome)
            came_out.set()
    assert [outcome.saved for outcome in outcomes] == [outcomes[0].saved] * 2
    assert len(comet_api.image_requests) == 1


async def test_one_save_goes_ahead_of_a_stream(
    comet_api: SimulatedCometAPI, tmp_path: Path
) -> None:
    """A call of `save` is not queued behind the images of a batch."""
    crowd = [comet_api.create_task(duration=0.0) for _ in range(30)]
    single = comet_api.create_task(duration=0.0)
    comet_api.fail_next_image(times=None, delay=10.0)
    async with open_session(comet_api, max_downloads=1, max_rate=None) as session:
        task = await session.query(single)
        async with session.poll(crowd, save_to=tmp_path) as outcomes:
            await anext(outcomes)
            began = now()
            await session.save(task, tmp_path)
            assert now() - began <= 21.0


# The store before the first query.


class Trial:
    """The try of a store, held until a test lets it go.

    Attributes:
        reached: How often a store was tried.
        go_on: Lets it go.
        error: What it ends in.
    """

    def __init__(self) -> None:
        self.reached = 0
        self.go_on = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self) -> None:
        self.reached += 1
        await self.go_on.wait()
        if self.error is not None:
            raise self.error


@pytest.fixture
def trial(monkeypatch: pytest.MonkeyPatch) -> Trial:
    """Give the try of every local store."""
    made = Trial()
    monkeypatch.setattr(LocalStore, "try_out", lambda _: made())
    return made


async def test_a_store_is_tried_before_the_first_query(
    comet_api: SimulatedCometAPI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing can be written, entry and first step say so and nothing is asked."""
    task_ids = [comet_api.create_task() for _ in range(3)]
    opened = os.open

    def fail(path: Path, *rest: Any) -> int:
        if str(path).startswith(str(tmp_path)):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return opened(path, *rest)

    async with open_session(comet_api) as session:
        stream = session.poll(iter(task_ids), save_to=tmp_path / "new")
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", fail)
            for _ in range(2):
                with pytest.raises(ConfigurationError, match="Permission denied; choose another"):
                    await anext(stream)
                with pytest.raises(ConfigurationError, match="Permission denied; choose another"):
                    async with stream:
                        pytest.fail("it was entered")
        await asyncio.sleep(100.0)
        assert comet_api.queries == ()
        assert names_in(tmp_path) == []
        assert not session.closed
        assert len([outcome async for outcome in stream]) == 3
    assert len(names_in(tmp_path / "new")) == 3


async def test_closing_while_a_store_is_tried(
    comet_api: SimulatedCometAPI, tmp_path: Path, trial: Trial
) -> None:
    """Whoever waits for a store is told of the end at once, and no task is left."""
    async with open_session(comet_api) as session:
        stream = session.poll(["1"], save_to=tmp_path)
        entering = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(1.0)
        assert trial.reached == 1
        await session.aclose()
        with pytest.raises(SessionClosedError):
            await entering
        assert set(stream.pending) == {"1"}
    assert comet_api.queries == ()


async def test_leaving_while_a_store_is_tried(
    comet_api: SimulatedCometAPI, tmp_path: Path, trial: Trial
) -> None:
    """One who gives up waiting can come again; a stream that was closed meanwhile asks nothing."""
    task_id = comet_api.create_task(duration=0.0)
    async with open_session(comet_api) as session:
        stream = session.poll([task_id], save_to=tmp_path)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stream), 1.0)
        closed = session.poll([task_id], save_to=tmp_path)
        waiting = asyncio.ensure_future(anext(closed))
        await asyncio.sleep(1.0)
        await closed.aclose()
        trial.go_on.set()
        with pytest.raises(StopAsyncIteration):
            await waiting
        assert comet_api.queries == ()
        assert set(closed.pending) == {task_id}
        assert (await anext(stream)).ok
    assert len(comet_api.queries) == 1


async def test_consumers_share_a_stream_that_is_tried(
    comet_api: SimulatedCometAPI, tmp_path: Path, trial: Trial
) -> None:
    """Several may take the first step at the same time; polling begins once."""
    task_ids = [comet_api.create_task(duration=0.0) for _ in range(3)]
    async with open_session(comet_api) as session:
        stream = session.poll(task_ids, save_to=tmp_path)
        steps = [asyncio.ensure_future(anext(stream)) for _ in task_ids]
        await asyncio.sleep(1.0)
        trial.go_on.set()
        outcomes = await asyncio.gather(*steps)
    assert {outcome.task_id for outcome in outcomes} == set(task_ids)
    assert len(comet_api.queries) == 3


async def test_downloads_do_not_hold_up_a_try(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """A store is tried at once, also where all places for images are busy."""
    slow, quick = (comet_api.create_task(duration=0.0) for _ in range(2))
    comet_api.fail_next_image(slow, delay=100.0)
    async with (
        open_session(comet_api, max_downloads=1) as session,
        session.poll([slow], save_to=tmp_path / "a"),
    ):
        await comet_api.wait_for_image_requests(1)
        began = now()
        async with session.poll([quick], save_to=tmp_path / "b"):
            assert now() - began < 1.0


async def test_the_unforeseen_in_a_try(
    comet_api: SimulatedCometAPI, tmp_path: Path, trial: Trial
) -> None:
    """It reaches who asked for it, and ends nothing else."""
    trial.error = LookupError("a bug")
    trial.go_on.set()
    async with open_session(comet_api) as session:
        with pytest.raises(LookupError, match="a bug"):
            await anext(session.poll(["1"], save_to=tmp_path))
        assert not session.closed


# Lifetimes.


async def started(stream: OutcomeStream) -> None:
    """Let a stream begin by waiting for its first outcome in a task, and end that task."""
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.wait([waiting], timeout=10.0)
    waiting.cancel()
    await asyncio.wait([waiting])


async def test_an_id_is_pending_while_it_is_saved(
    comet_api: SimulatedCometAPI, tmp_path: Path
) -> None:
    """Until its outcome is handed out an id is in `pending`, also after its last query."""
    task_id = comet_api.create_task(duration=0.0)
    comet_api.fail_next_image(task_id, delay=20.0)
    async with (
        open_session(comet_api) as session,
        session.poll([task_id], save_to=tmp_path) as outcomes,
    ):
        await started(outcomes)
        assert set(outcomes.pending) == {task_id}
        assert outcomes.progress == Progress(total=1, pending=1)
        assert (await anext(outcomes)).ok
        assert set(outcomes.pending) == set()


async def test_leaving_stops_the_downloads(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """A stream that is left fetches nothing more, and leaves no half file behind."""
    task_ids = [comet_api.create_task(duration=0.0, images=3) for _ in range(4)]
    comet_api.fail_next_image(times=None, bytes_per_second=1_500.0)
    async with (
        open_session(comet_api, max_downloads=2) as session,
        session.poll(task_ids, save_to=tmp_path) as outcomes,
    ):
        waiting = asyncio.ensure_future(anext(outcomes))
        await comet_api.wait_for_image_requests(3)
        await outcomes.aclose()
        with pytest.raises(StopAsyncIteration):
            await waiting
        await asyncio.sleep(100.0)
        assert set(outcomes.pending) == set(task_ids)
        assert len(comet_api.image_requests) == 3
        assert all(not name.startswith(".") for name in names_in(tmp_path))
        comet_api.clear_image_faults()
        assert len(await all_of(session, task_ids, save_to=tmp_path)) == 4


async def test_a_dropped_stream_stops_its_downloads(
    comet_api: SimulatedCometAPI, tmp_path: Path
) -> None:
    """So does one that nobody holds any more."""
    task_id = comet_api.create_task(duration=0.0)
    comet_api.fail_next_image(task_id, times=None, hang=True)
    async with open_session(comet_api) as session:
        stream = session.poll([task_id], save_to=tmp_path)
        await stream.__aenter__()
        await comet_api.wait_for_image_requests(1)
        del stream
        await asyncio.sleep(600.0)
    assert len(comet_api.image_requests) == 1
    assert names_in(tmp_path) == []


async def test_closing_the_session(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """`aclose` ends a stream that is saving; what was not handed out stays pending."""
    task_id = comet_api.create_task(duration=0.0)
    comet_api.fail_next_image(task_id, times=None, hang=True)
    async with open_session(comet_api) as session:
        stream = session.poll([task_id], save_to=tmp_path)
        waiting = asyncio.ensure_future(anext(stream))
        await comet_api.wait_for_image_requests(1)
        await session.aclose()
        for _ in range(2):
            with pytest.raises(SessionClosedError):
                await waiting
            waiting = asyncio.ensure_future(anext(stream))
        waiting.cancel()
    assert set(stream.pending) == {task_id}
    assert names_in(tmp_path) == []


async def refused(
    api: SimulatedCometAPI, session: KlingOmniSession, folder: Path
) -> tuple[OutcomeStream, str]:
    """Begin to poll two ids: one is being saved when the key is refused for the other."""
    saving = api.create_task(duration=0.0, image_bytes=200_000)
    running = api.create_task(duration=math.inf)
    api.fail_next_image(saving, bytes_per_second=2_000.0)
    stream = session.poll([saving, running], save_to=folder)
    await stream.__aenter__()
    await api.wait_for_image_requests(1)
    api.fail_next(times=None, status=401)
    return stream, saving


async def test_a_refused_key_waits_for_what_is_being_saved(
    comet_api: SimulatedCometAPI, tmp_path: Path
) -> None:
    """A fault of the set-up ends the stream behind the images of tasks that had succeeded."""
    async with open_session(comet_api) as session:
        stream, saving = await refused(comet_api, session, tmp_path)
        outcome = await anext(stream)
        assert (outcome.task_id, outcome.ok) == (saving, True)
        for _ in range(2):
            with pytest.raises(AuthenticationError):
                await anext(stream)
        assert len(stream.pending) == 1


async def test_closing_behind_a_refused_key(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """Closing does not wait for those images: the stream raises what had ended it."""
    async with open_session(comet_api) as session:
        stream, _ = await refused(comet_api, session, tmp_path)
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(70.0)
        assert not waiting.done()
        await session.aclose()
        with pytest.raises(AuthenticationError):
            await waiting
        assert len(stream.pending) == 2


async def test_leaving_behind_a_refused_key(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """A stream may be left while it waits for those images."""
    async with open_session(comet_api) as session:
        stream, _ = await refused(comet_api, session, tmp_path)
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(70.0)
        await stream.aclose()
        with pytest.raises(AuthenticationError):
            await waiting
        await asyncio.sleep(100.0)
        assert names_in(tmp_path) == []


async def test_dropping_behind_a_refused_key(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """A stream that nobody holds any more fetches nothing, also after its end is known."""
    async with open_session(comet_api) as session:
        stream, _ = await refused(comet_api, session, tmp_path)
        await asyncio.sleep(70.0)
        del stream
        await asyncio.sleep(1.0)
        assert names_in(tmp_path) == []
        assert comet_api.image_requests[0].finished is not None


async def test_streams_that_were_left_hold_nothing(
    comet_api: SimulatedCometAPI, tmp_path: Path
) -> None:
    """What waits for a free place goes with its stream, though all places are busy."""
    task_ids = [comet_api.create_task(duration=0.0) for _ in range(20)]
    comet_api.fail_next_image(times=None, bytes_per_second=200.0)
    async with (
        open_session(comet_api, max_downloads=1, max_rate=None) as session,
        session.poll(task_ids[:1], save_to=tmp_path) as first,
    ):
        await comet_api.wait_for_image_requests(1)
        async with session.poll(task_ids[1:], save_to=tmp_path) as second:
            await asyncio.sleep(5.0)
            assert len(second.pending) == 19
        assert len(session._wings.saving_wing()._saver._queue) == 0
        assert len(first.pending) == 1


async def test_the_error_of_an_input_comes_behind_the_images(
    comet_api: SimulatedCometAPI, tmp_path: Path
) -> None:
    """If the input raises, ids already read come out with their images, then its exception."""
    task_id = comet_api.create_task(duration=0.0)

    async def feed() -> AsyncGenerator[str]:
        yield task_id
        raise LookupError("the cursor broke")

    async with open_session(comet_api) as session:
        stream = session.poll(feed(), save_to=tmp_path)
        outcome = await anext(stream)
        assert len(outcome.saved) == 1
        with pytest.raises(LookupError, match="the cursor broke"):
            await anext(stream)


async def test_a_failed_task_beside_saving(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """Outcomes come in the order in which they are ready, not in that of the last answers."""
    saved = comet_api.create_task(duration=0.0)
    failing = comet_api.create_task(duration=0.0, fail="too dark")
    comet_api.fail_next_image(saved, delay=5.0)
    async with open_session(comet_api) as session:
        first, second = await all_of(session, [saved, failing], save_to=tmp_path)
    assert isinstance(first.error, TaskFailedError)
    assert second.ok


async def test_a_defect_of_a_store_reaches_the_stream(
    comet_api: SimulatedCometAPI, tmp_path: Path
) -> None:
    """A store of the caller's own that breaks is an error of each outcome, not of the session."""

    class Broken:
        async def get_async(self, path: str, *, options: None = None) -> object:
            raise LookupError(f"no {path}")

        async def put_async(self, path: str, file: Path) -> object:
            raise AssertionError("never reached")

    task_id = comet_api.create_task(duration=0.0)
    policy = PollPolicy(interval=(1.0, 2.0))
    session = KlingOmniSession(comet_api.api_key, base_url=comet_api.base_url, policy=policy)
    async with session:
        (outcome,) = await all_of(session, [task_id], save_to=Broken())
        assert isinstance(outcome.error, StorageError)
        assert "no " in str(outcome.error)
        assert not session.closed
