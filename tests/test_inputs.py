"""What `poll` reads, and what becomes of its input when the stream is left or ends."""

from __future__ import annotations

import asyncio
import gc
import itertools
import weakref
from collections.abc import AsyncIterator, Callable, Collection, Iterator

import pytest

from kling_omni_async import AuthenticationError, KlingOmniSession, SessionClosedError
from kling_omni_async.simulator import SimulatedCometAPI

from .support import all_of, new_session, now_waiting, open_session

pytestmark = pytest.mark.anyio

QUICK = {"interval": (0.3, 0.5), "max_rate": None}


class Feed:
    """A feed over a queue that notes what was read of it, and how it was closed."""

    def __init__(self, ids: Collection[str]) -> None:
        self.read: list[str] = []
        self.cancelled = 0
        self.closed = False
        self._ids = iter(ids)

    async def __aiter__(self) -> AsyncIterator[str]:
        try:
            for task_id in self._ids:
                self.read.append(task_id)
                yield task_id
            await asyncio.sleep(1e6)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            await self._close()
            self.closed = True

    async def _close(self) -> None:
        for _ in range(5):  # each await is where a group would cancel again
            try:
                await asyncio.sleep(0.1)
            except asyncio.CancelledError:
                self.cancelled += 1
                raise


@pytest.mark.parametrize("passes", range(8))
async def test_nothing_is_read_after_leaving(comet_api: SimulatedCometAPI, passes: int) -> None:
    """At whatever pass of the loop one leaves, the feed is read no more, and is closed."""
    feed = Feed([f"{number}" for number in range(100)])
    async with open_session(comet_api, **QUICK) as session:
        await session.query(comet_api.create_task())
        async with session.poll(feed):
            await now_waiting(passes)
        read = len(feed.read)
        await now_waiting(20)
        assert len(feed.read) == read
        assert feed.closed or not read


@pytest.mark.parametrize("passes", range(4))
async def test_an_endless_iterable_is_read_no_more_after_leaving(
    comet_api: SimulatedCometAPI, passes: int
) -> None:
    """A plain iterable without an end stops being read, too."""
    read = 0

    def ids() -> Iterator[str]:
        nonlocal read
        for read in itertools.count(1):
            yield f"{read}"

    async with open_session(comet_api, max_pending=50) as session:
        async with session.poll(ids()) as stream:
            await now_waiting(passes)
        before = read
        await now_waiting(20)
        assert read == before == len(stream.pending)


async def test_an_input_is_cancelled_once_and_waited_for(comet_api: SimulatedCometAPI) -> None:
    """A feed's `finally: await …` runs to its end before the stream's block is left."""
    feed = Feed([comet_api.create_task(duration=1e6)])
    async with open_session(comet_api, **QUICK) as session, session.poll(feed):
        await comet_api.wait_for_queries(1)
    assert feed.closed
    assert feed.cancelled == 1


@pytest.mark.parametrize("how", ["close the session", "cancel the owner", "a refused key"])
async def test_an_input_is_cancelled_once_whatever_ends_it(
    comet_api: SimulatedCometAPI, how: str
) -> None:
    """A session's end lets an input clean up in peace, and waits for it."""
    feed = Feed([comet_api.create_task(duration=1e6)])
    session = new_session(comet_api, **QUICK)
    if how == "a refused key":
        session = KlingOmniSession("another-key", base_url=comet_api.base_url)
    stream = session.poll(feed)
    step = asyncio.ensure_future(anext(stream))
    if how != "a refused key":
        await comet_api.wait_for_queries(1)
    if how == "cancel the owner":
        tasks = {task.get_name(): task for task in asyncio.all_tasks()}
        tasks["kling_omni_async.poller"].cancel()
    if how == "close the session":
        await session.aclose()
    with pytest.raises((SessionClosedError, AuthenticationError)):
        await step
    await stream.aclose()
    await session.aclose()
    assert feed.closed
    assert feed.cancelled == 1


async def test_an_input_may_close_its_own_stream(comet_api: SimulatedCometAPI) -> None:
    """It does not wait for itself."""
    task_id = comet_api.create_task(duration=1e6)
    async with open_session(comet_api, **QUICK) as session:

        async def feed() -> AsyncIterator[str]:
            yield task_id
            await stream.aclose()
            yield "2"

        stream = session.poll(feed())
        assert [outcome async for outcome in stream] == []
        assert stream.pending == {task_id}


@pytest.mark.parametrize("closes", ["the stream", "the session"])
async def test_an_input_that_left_its_own_stream_is_ended_by_others(
    comet_api: SimulatedCometAPI, closes: str
) -> None:
    """It goes on in peace until somebody else closes it, who waits for its clean-up."""
    task_id = comet_api.create_task(duration=1e6)
    log: list[str] = []
    session = new_session(comet_api, **QUICK)

    async def feed() -> AsyncIterator[str]:
        try:
            yield task_id
            await stream.aclose()
            log.append("left")
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.1)
            log.append("closed")

    stream = session.poll(feed())
    assert [outcome async for outcome in stream] == []
    await asyncio.sleep(1.0)
    assert log == ["left"]
    if closes == "the stream":
        await stream.aclose()
    else:
        await session.aclose()
    assert log == ["left", "closed"]
    await session.aclose()


async def test_nothing_disturbs_an_input_that_cleans_up(comet_api: SimulatedCometAPI) -> None:
    """Who closes a stream that its input has left already waits for it, and cancels nothing."""
    task_id = comet_api.create_task(duration=1e6)
    log: list[str] = []

    async def feed() -> AsyncIterator[str]:
        try:
            yield task_id
            await stream.aclose()
            yield "2"
        finally:
            await asyncio.sleep(1.0)
            log.append("closed")

    async with open_session(comet_api, **QUICK) as session:
        stream = session.poll(feed())
        async with stream:
            assert [outcome async for outcome in stream] == []
        assert log == ["closed"]


async def test_what_an_input_raises_in_its_clean_up_is_logged(
    comet_api: SimulatedCometAPI, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody reads the stream any more, so that the log alone can tell."""

    async def feed() -> AsyncIterator[str]:
        try:
            yield comet_api.create_task()
            await asyncio.sleep(1e6)
        finally:
            raise LookupError("the cursor broke")

    async with open_session(comet_api, **QUICK) as session, session.poll(feed()):
        await comet_api.wait_for_queries(1)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.exc_info
    assert str(record.exc_info[1]) == "the cursor broke"


async def test_all_that_was_given_is_pending_from_the_start(comet_api: SimulatedCometAPI) -> None:
    """Of a long list nothing is missing in `pending`, also in a view taken before entry."""
    given = [f"{number}" for number in range(50_000)]
    async with open_session(comet_api) as session:
        stream = session.poll(given)
        view = stream.pending
        async with stream:
            assert view == stream.pending == set(given)
    assert view == stream.pending == set(given)


async def test_a_stream_that_was_left_does_not_begin(comet_api: SimulatedCometAPI) -> None:
    """Entered after it was closed it reads and asks nothing; all that was given is pending."""
    async with open_session(comet_api) as session:
        stream = session.poll(["1", "2"])
        await stream.aclose()
        async with stream:
            assert [outcome async for outcome in stream] == []
            await asyncio.sleep(1.0)
    assert comet_api.queries == ()
    assert stream.pending == {"1", "2"}


@pytest.mark.parametrize("kind", [list, set, tuple, dict.fromkeys, "lines"])
async def test_a_container_may_change_under_a_stream(
    comet_api: SimulatedCometAPI, kind: Callable[[list[str]], Collection[str]] | str
) -> None:
    """It was copied at entry: what is taken from it meanwhile comes out all the same."""
    given = [comet_api.create_task(duration=0.0) for _ in range(300)]
    todo = set(given) if isinstance(kind, str) else kind(given)
    source = dict.fromkeys(todo).keys() if isinstance(kind, str) else todo
    seen: list[str] = []
    async with open_session(comet_api, **QUICK) as session:
        async for outcome in session.poll(source):
            seen.append(outcome.task_id)
            if isinstance(todo, set):
                todo.discard(outcome.task_id)
            if isinstance(todo, dict):
                todo.pop(outcome.task_id, None)
    assert sorted(seen) == sorted(given)


class Sizes:
    """A container that is no `Collection`, and says anything of its size."""

    def __init__(self, ids: list[str], size: int | None) -> None:
        self.ids = ids
        self._size = size

    def __len__(self) -> int:
        return len(self.ids) if self._size is None else self._size

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)


@pytest.mark.parametrize("size", [None, 0, -1, 2**40, 2**62])
async def test_a_container_need_not_know_its_size(
    comet_api: SimulatedCometAPI, size: int | None
) -> None:
    """Whatever has a size is copied at entry, and what it says of its size does not count."""
    given = [comet_api.create_task(duration=0.0) for _ in range(3)]
    source = Sizes(list(given), size)
    async with open_session(comet_api, **QUICK) as session, session.poll(source) as stream:
        source.ids.clear()
        assert stream.progress.total == stream.progress.pending == 3
        assert stream.pending == set(given)
        assert sorted([outcome.task_id async for outcome in stream]) == sorted(given)


class Odd(str):
    """Text that cannot be a key, and shows itself as something else."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return False

    def __format__(self, spec: str, /) -> str:
        return "something else"


async def test_text_of_a_class_of_its_own_is_an_id(comet_api: SimulatedCometAPI) -> None:
    """It is taken as what it holds: an odd one must not end the session, nor ask for another id."""
    first, second = (comet_api.create_task(duration=0.0) for _ in range(2))
    async with open_session(comet_api, **QUICK) as session:
        given = [Odd(first), Odd(f"{second}\n"), first]
        assert {outcome.task_id for outcome in await all_of(session, given)} == {first, second}
        async with session.poll(given) as stream:
            assert stream.pending == {first, second}
        task = await session.wait(Odd(first))
    assert type(task.task_id) is str


async def test_a_refused_key_leaves_all_ids_pending() -> None:
    """Whatever ends a stream, all that was given and not handed out is in `pending`."""
    given = [f"{number}" for number in range(20_000)]
    async with SimulatedCometAPI(seed=1) as api:
        session = KlingOmniSession("another-key", base_url=api.base_url)
        stream = session.poll(given)
        for _ in range(2):
            with pytest.raises(AuthenticationError):
                await anext(stream)
        await session.aclose()
    assert stream.pending == set(given)
    assert stream.progress.total == stream.progress.pending == len(given)


async def test_leaving_after_the_first_leaves_the_others_pending(
    comet_api: SimulatedCometAPI,
) -> None:
    """Left after one outcome of a long list: all others are pending, that one is not."""
    first = comet_api.create_task(duration=0.0)
    given = [first, *(f"{number} {number}" for number in range(30_000)), first]
    async with open_session(comet_api, **QUICK) as session, session.poll(given) as stream:
        outcome = await anext(stream)
    assert stream.pending == set(given) - {outcome.task_id}
    progress = stream.progress
    assert progress.total == 30_001
    assert progress.pending == 30_000
    assert progress.succeeded + progress.unresolved == 1


async def test_the_counts_add_up_at_each_moment(comet_api: SimulatedCometAPI) -> None:
    """What is finished and not yet taken is pending, and counted nowhere else."""
    given = [comet_api.create_task(duration=0.0) for _ in range(3)]
    async with open_session(comet_api, **QUICK) as session, session.poll(given) as stream:
        await asyncio.sleep(5.0)
        for taken in range(4):
            progress = stream.progress
            assert (progress.total, progress.pending, progress.succeeded) == (3, 3 - taken, taken)
            assert len(stream.pending) == progress.pending
            if taken < 3:
                await anext(stream)


async def test_an_input_waits_for_a_consumer_that_is_far_behind(
    comet_api: SimulatedCometAPI,
) -> None:
    """No more than `max_pending` ids are read ahead; all come out in the end."""
    given = [comet_api.create_task(duration=0.0) for _ in range(40)]
    most = 0
    seen: list[str] = []
    async with (
        open_session(comet_api, **QUICK, max_pending=7) as session,
        session.poll(iter(given)) as stream,
    ):
        await asyncio.sleep(10.0)
        assert len(stream.pending) == 7
        async for outcome in stream:
            most = max(most, len(stream.pending))
            seen.append(outcome.task_id)
    assert sorted(seen) == sorted(given)
    assert most <= 7


async def test_the_error_of_an_input_is_raised_at_each_step_and_does_not_grow(
    comet_api: SimulatedCometAPI,
) -> None:
    """Its own `InvalidTaskIdError`, too, comes behind the ids that were read before it."""
    good = comet_api.create_task(duration=0.0)

    async def feed() -> AsyncIterator[str]:
        yield good
        raise LookupError("the cursor broke")

    lengths: list[int] = []
    async with open_session(comet_api, **QUICK) as session, session.poll(feed()) as stream:
        assert (await anext(stream)).task_id == good
        for _ in range(5):
            with pytest.raises(LookupError, match="the cursor broke") as caught:
                await anext(stream)
            lengths.append(len(list(caught.traceback)))
            assert caught.traceback[-1].name == "feed"
    assert len(set(lengths)) == 1


async def test_consumers_share_no_error(comet_api: SimulatedCometAPI) -> None:
    """Each of several consumers gets an exception of its own, with the same words."""

    async def feed() -> AsyncIterator[str]:
        if comet_api.base_url:
            raise LookupError("the cursor broke")
        yield ""

    async with open_session(comet_api, **QUICK) as session, session.poll(feed()) as stream:
        first, second = await asyncio.gather(anext(stream), anext(stream), return_exceptions=True)
    assert isinstance(first, LookupError)
    assert isinstance(second, LookupError)
    assert first is not second


async def test_nothing_keeps_an_input_that_was_read(comet_api: SimulatedCometAPI) -> None:
    """A generator that has ended, or whose stream was left, is freed without the collector."""

    def ids() -> Iterator[str]:
        yield comet_api.create_task(duration=0.0)

    async with open_session(comet_api, **QUICK) as session:
        ended, left = ids(), ids()
        refs = [weakref.ref(ended), weakref.ref(left)]
        outcomes, streams = await all_of(session, ended), [session.poll(left)]
        async with streams[0]:
            pass
        gc.disable()
        try:
            del ended, left
            await now_waiting(5)
            assert [ref() for ref in refs] == [None, None]
        finally:
            gc.enable()
    assert len(outcomes) == 1


@pytest.mark.parametrize("leaves", [False, True])
async def test_what_an_input_raises_as_it_is_closed_is_logged(
    comet_api: SimulatedCometAPI,
    caplog: pytest.LogCaptureFixture,
    leaves: bool,  # noqa: FBT001 - whether it leaves its stream itself
) -> None:
    """Nobody reads the stream any more: its clean-up's own fault goes to the log."""

    async def feed() -> AsyncIterator[str]:
        try:
            yield comet_api.create_task(duration=1e6)
            if leaves:
                await stream.aclose()
            else:
                await asyncio.sleep(1e6)
        finally:
            raise LookupError("the rollback failed")

    async with open_session(comet_api, **QUICK) as session:
        stream = session.poll(feed())
        async with stream:
            await now_waiting(20)
    (record,) = [line for line in caplog.records if "raised as it was closed" in line.message]
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], LookupError)
