"""`generate`: from a wish to stored images, or an error that names what was paid for."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from kling_omni_async import (
    ConfigurationError,
    CreateUncertainError,
    DownloadError,
    ImageOrder,
    ImageTask,
    KlingOmniError,
    PollTimeoutError,
    SessionClosedError,
    TaskFailedError,
)
from kling_omni_async._doors import observe
from kling_omni_async._saving.wing import Saving
from kling_omni_async.simulator import SimulatedCometAPI
from tests.support import new_session, now, open_session

from .test_create import posts, warnings_in

pytestmark = pytest.mark.anyio

FOX = ImageOrder("a fox", n=2, key="invoice-42/1")


async def test_from_a_wish_to_images(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """The outcome is ok and has task, order, external id and what was saved."""
    async with open_session(comet_api) as session:
        outcome = await session.generate(FOX, save_to=tmp_path)
    assert outcome.ok
    assert outcome.task is not None
    assert outcome.order == FOX
    (bill,) = comet_api.billed
    assert (outcome.task_id, outcome.external_task_id) == (bill.task_id, bill.external_task_id)
    assert len(outcome.saved) == 2
    assert {Path(image.key).parent for image in outcome.saved} == {tmp_path}
    assert outcome.elapsed == pytest.approx(now())
    assert outcome.queries == len(comet_api.queries_of(outcome.task_id))


async def test_without_a_store(comet_api: SimulatedCometAPI) -> None:
    """Its images have their URLs, and nothing is fetched."""
    async with open_session(comet_api) as session:
        outcome = await session.generate(FOX)
    assert (len(outcome.images), outcome.saved) == (2, ())
    assert comet_api.image_requests == ()


async def test_a_store_that_cannot_be_used(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """It is refused before anything is paid, also where that shows only when it is tried."""
    file = tmp_path / "file"
    file.write_bytes(b"")
    wrong: Any
    async with open_session(comet_api) as session:
        for wrong in (7, file / "images"):
            with pytest.raises(ConfigurationError):
                await session.generate(FOX, save_to=wrong)
            with pytest.raises(ConfigurationError):
                await anext(session.generate_many([FOX], save_to=wrong))
    assert comet_api.queries == ()


async def test_a_failure_names_its_task(comet_api: SimulatedCometAPI) -> None:
    """The API's reason, with the id of the task that was created."""
    async with open_session(comet_api, timing="uniform") as session:
        generating = asyncio.ensure_future(session.generate(FOX))
        await comet_api.wait_for_queries(2)
        task_id = comet_api.billed[0].task_id
        failed = {"task_id": task_id, "task_status": "failed", "task_status_msg": "bad pixel"}
        comet_api.fail_next(task_id, body={"code": 0, "data": failed})
        with pytest.raises(TaskFailedError, match="bad pixel") as caught:
            await generating
    assert caught.value.task_id == task_id


async def test_a_create_that_is_answered_with_a_failed_task(comet_api: SimulatedCometAPI) -> None:
    """Nothing is asked any more."""
    failed = {"task_id": "t-1", "task_status": "failed", "task_status_msg": "bad pixel"}
    comet_api.fail_next_create(body={"code": 0, "data": failed})
    async with open_session(comet_api) as session:
        with pytest.raises(TaskFailedError, match="bad pixel") as caught:
            await session.generate(FOX)
    assert caught.value.task_id == "t-1"
    assert len(comet_api.queries) == 1


async def test_doubt(comet_api: SimulatedCometAPI) -> None:
    """It is raised as by `create`."""
    comet_api.fail_next_create(reset=True)
    async with open_session(comet_api) as session:
        with pytest.raises(CreateUncertainError):
            await session.generate(FOX)


async def test_the_time_limit_counts_from_the_call(comet_api: SimulatedCometAPI) -> None:
    """A create that takes long leaves the less, and is not cut short."""
    comet_api.fail_next_create(delay=30.0)
    async with open_session(comet_api) as session:
        with pytest.raises(PollTimeoutError) as caught:
            await session.generate(FOX, timeout=45)
        assert 45 <= now() <= 50
        assert caught.value.task_id == comet_api.billed[0].task_id
        (await session.wait(comet_api.billed[0].task_id))
        outcome = await session.generate(FOX, timeout=None)
        assert outcome.task_id == comet_api.billed[0].task_id


async def test_an_image_that_is_not_saved(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """The error names the task, so that it can be saved again."""
    comet_api.fail_next_image(times=None, status=400)
    async with open_session(comet_api) as session:
        with pytest.raises(DownloadError) as caught:
            await session.generate(FOX, save_to=tmp_path)
        assert caught.value.task_id == comet_api.billed[0].task_id
        comet_api.clear_image_faults()
        again = await session.generate(FOX, save_to=tmp_path)
        assert len(again.saved) == 2
    assert sum(posts(comet_api).values()) == 1


async def test_leaving_names_the_task(
    comet_api: SimulatedCometAPI, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever leaves while he waits has been told of no id: the log tells it."""
    async with open_session(comet_api) as session:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10):
                await session.generate(FOX)
        (line,) = warnings_in(caplog)
    assert comet_api.billed[0].task_id in line
    assert str(comet_api.billed[0].external_task_id) in line


async def test_closing_names_the_task(comet_api: SimulatedCometAPI) -> None:
    """The error has the id of what was created."""
    session = new_session(comet_api)
    generating = asyncio.ensure_future(session.generate(FOX))
    await comet_api.wait_for_queries(2)
    await session.aclose()
    with pytest.raises(SessionClosedError) as caught:
        await generating
    assert caught.value.task_id == comet_api.billed[0].task_id


async def test_a_good_create_shows_that_the_set_up_is_right(comet_api: SimulatedCometAPI) -> None:
    """A web page that comes behind it is a passing fault, and ends no wait."""
    async with open_session(comet_api) as session:
        comet_api.fail_next(html=True)
        assert (await session.generate(FOX)).ok


@pytest.mark.parametrize(
    ("callback_url", "expects", "first"),
    [(None, None, None), ("https://hooks.example/", None, 60.0), (None, 70.0, 70.0)],
)
async def test_a_callback_is_waited_for(
    comet_api: SimulatedCometAPI,
    callback_url: str | None,
    expects: float | None,
    first: float | None,
) -> None:
    """By default where the order has one: the first query comes as late as said."""
    order = ImageOrder("a fox", callback_url=callback_url)
    async with open_session(comet_api) as session:
        one = await session.generate(order, expect_callback=expects)
        many = session.generate_many([order], expect_callback=expects)
        for outcome in (one, *[outcome async for outcome in many]):
            bill = next(bill for bill in comet_api.billed if bill.task_id == outcome.task_id)
            asked = comet_api.queries_of(outcome.task_id)[0].started - bill.created
            assert asked == pytest.approx(first, abs=0.1) if first else asked < 50


async def test_closing_while_the_store_is_tried(
    comet_api: SimulatedCometAPI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is paid, and nobody waits for ever."""
    async with open_session(comet_api) as session:
        await session.create(ImageOrder("a hen"))
        tried = Saving.tried_plan

        async def slowly(self: Saving, *args: Any, **kwargs: Any) -> Any:
            plan = await tried(self, *args, **kwargs)
            await asyncio.sleep(1.0)
            return plan

        monkeypatch.setattr(Saving, "tried_plan", slowly)
        generating = asyncio.ensure_future(session.generate(FOX, save_to=tmp_path))
        await asyncio.sleep(0.5)
        await session.aclose()
        with pytest.raises(SessionClosedError):
            await asyncio.wait_for(generating, 100.0)
    assert len(comet_api.billed) == 1


# One who looks on, and is broken.


class Onlooker:
    """Looks on and does nothing; whoever is broken overrides one of these."""

    follows_queries = False

    def queried(self, **_: object) -> None:
        """See a query."""

    def ended(self, error: KlingOmniError | None, *, queries: int) -> None:
        """See an end."""

    def seen(self, task: ImageTask, age_s: float | None) -> None:
        """See a final answer."""

    def throttled(self, pause_s: float) -> None:
        """See a pause."""

    def created(self, error: BaseException | None) -> None:
        """See a create."""

    def saved(self, size: int) -> None:
        """See an image."""

    def of(self, task_id: str) -> None:
        """Hear the task of a trace."""

    @contextmanager
    def trace(self, name: str, task_id: str) -> Generator[Onlooker]:
        """Follow nothing."""
        yield self

    def hushed(self) -> AbstractContextManager[None]:
        """Hush nobody."""
        return nullcontext()


async def test_an_onlooker_that_breaks_at_a_create_loses_no_task(
    comet_api: SimulatedCometAPI,
) -> None:
    """Its error closes the session, but who paid has the task."""

    class Broken(Onlooker):
        def created(self, error: BaseException | None) -> None:
            raise RuntimeError("broken")

    async with open_session(comet_api) as session:
        observe(session, Broken())
        task = await session.create(FOX)
        assert [task.task_id] == [each.task_id for each in comet_api.billed]


async def test_an_onlooker_that_breaks_at_a_task_lets_it_be_named(
    comet_api: SimulatedCometAPI, caplog: pytest.LogCaptureFixture
) -> None:
    """What was paid for by a `generate` that raises is in the log."""

    class Broken(Onlooker):
        def of(self, task_id: str) -> None:
            raise RuntimeError("broken")

    async with open_session(comet_api) as session:
        observe(session, Broken())
        with pytest.raises(RuntimeError, match="broken"):
            await session.generate(FOX)
    (task,) = comet_api.billed
    assert any(task.task_id in record.getMessage() for record in caplog.records)
    assert {record.levelname for record in caplog.records} == {"WARNING"}
