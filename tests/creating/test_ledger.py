"""What outlives the process: it knows of each POST before that is sent, and what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

import anyio
import attrs
import pytest

from kling_omni_async import (
    CreateUncertainError,
    ImageOrder,
    ImageTask,
    KlingOmniSession,
    SessionClosedError,
    TaskStatus,
)
from kling_omni_async._api.create import CreateRequest
from kling_omni_async._creating.ledger import NamedOrder
from kling_omni_async._doors import create_named, external_id_in, generate_named
from kling_omni_async.simulator import SimulatedCometAPI
from tests.support import new_session, now_waiting, open_session

from .test_create import posts, warnings_in

pytestmark = pytest.mark.anyio

FOX = ImageOrder("a fox")


@attrs.define
class Notes:
    """A ledger that keeps all in memory, and can be made to misbehave."""

    api: SimulatedCometAPI
    steps: list[str] = attrs.field(factory=list[str])
    known: ImageTask | None = None
    on_open: Callable[[], object] | None = None
    fails: Exception | None = None

    async def open(self, request: CreateRequest) -> ImageTask | None:
        self.steps.append(f"open after {posts(self.api)[request.external_id]}")
        if self.on_open is not None:
            with anyio.CancelScope(shield=True):  # as one that writes to a disk or a network
                self.on_open()
                await now_waiting()
        return self.known

    async def close(self, request: CreateRequest, task: ImageTask | None, *, is_new: bool) -> None:
        if self.fails is not None:
            raise self.fails
        self.steps.append(task.task_id if task else "nothing")


async def create(session: KlingOmniSession, notes: Notes) -> ImageTask:
    """Create a fox under a name of its own."""
    return await create_named(session, NamedOrder(FOX, "x"), notes)


async def test_each_post_is_kept_before_it_is_sent(comet_api: SimulatedCometAPI) -> None:
    """Also the second one after a refusal, which is kept as nothing."""
    notes = Notes(comet_api)
    comet_api.fail_next_create(status=429)
    async with open_session(comet_api) as session:
        task = await create(session, notes)
    assert notes.steps == ["open after 0", "nothing", "open after 1", task.task_id]


async def test_what_is_found_after_a_doubt_is_kept(comet_api: SimulatedCometAPI) -> None:
    """What is not found is not closed: nobody knows."""
    notes = Notes(comet_api)
    comet_api.fail_next_create(reset=True, created=True)
    async with open_session(comet_api) as session:
        task = await create(session, notes)
        assert notes.steps == ["open after 0", task.task_id]
        comet_api.fail_next_create(reset=True, created=False)
        other = Notes(comet_api)
        with pytest.raises(CreateUncertainError):
            await create_named(session, NamedOrder(FOX, "y"), other)
    assert len(comet_api.billed) == 1
    assert other.steps == ["open after 0"]


async def test_a_task_that_is_known_is_not_created(comet_api: SimulatedCometAPI) -> None:
    """An earlier process may have done so."""
    known = ImageTask(task_id="7", status=TaskStatus.SUBMITTED)
    notes = Notes(comet_api, known=known)
    async with open_session(comet_api) as session:
        assert await create(session, notes) is known
    assert posts(comet_api) == {}


async def test_nothing_is_sent_once_the_session_is_closed_meanwhile(
    comet_api: SimulatedCometAPI,
) -> None:
    """What was kept is kept as nothing."""
    session, closing = new_session(comet_api), list[asyncio.Task[None]]()
    notes = Notes(comet_api)
    notes.on_open = lambda: closing.append(asyncio.create_task(session.aclose()))
    with pytest.raises(SessionClosedError):
        await create(session, notes)
    await asyncio.wait(closing)
    assert (notes.steps, posts(comet_api)) == (["open after 0", "nothing"], {})


@pytest.mark.parametrize("is_made", [True, False])
async def test_a_ledger_that_fails_ends_the_session_and_names_the_task(
    comet_api: SimulatedCometAPI, caplog: pytest.LogCaptureFixture, *, is_made: bool
) -> None:
    """What was paid for is in the log, and in doubt for who waits."""
    notes = Notes(comet_api, fails=OSError("no space left"))
    if not is_made:
        comet_api.fail_next_create(status=429)
    session = new_session(comet_api)
    with pytest.raises(CreateUncertainError if is_made else OSError):
        await create(session, notes)
    with pytest.raises(SessionClosedError):
        await session.create(FOX)
    await session.aclose()
    assert len(comet_api.billed) == is_made
    assert [bill.task_id in warnings_in(caplog)[0] for bill in comet_api.billed] == [True] * is_made


async def test_a_stream_takes_what_is_created_already(comet_api: SimulatedCometAPI) -> None:
    """It is polled, and holds its places: what is new waits for them."""
    known = comet_api.create_task(duration=30.0)
    notes = Notes(comet_api)
    task = ImageTask(task_id=known, status=TaskStatus.SUBMITTED)

    async def orders() -> AsyncGenerator[NamedOrder]:
        yield NamedOrder(FOX, "known", task)
        yield NamedOrder(FOX, "x")

    async with open_session(comet_api) as session:
        async with generate_named(session, orders(), notes, max_tasks=1) as outcomes:
            found = [outcome async for outcome in outcomes]
        assert external_id_in(session, FOX) != external_id_in(session, FOX)
    assert [outcome.external_task_id for outcome in found] == ["known", "x"]
    assert [outcome.order for outcome in found] == [FOX, FOX]
    assert found[0].task_id == known
    assert notes.steps == ["open after 0", found[1].task_id]
    (bill,) = comet_api.billed
    assert bill.created >= 30.0
