"""`each` over the outcomes of a session: handlers run some at once, and none is left behind."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any

import pytest

from kling_omni_async import ConfigurationError, SessionClosedError, TaskOutcome
from kling_omni_async._handlers import Handler, Handlers
from kling_omni_async._results import End, Outlet
from kling_omni_async.simulator import SimulatedCometAPI

from .support import new_session, now, now_waiting, open_session

pytestmark = pytest.mark.anyio


class Handling:
    """A handler that takes its time, and raises where it is told to."""

    def __init__(
        self, seconds: float = 0.0, raises: Callable[[TaskOutcome], Exception | None] | None = None
    ) -> None:
        self.seconds = seconds
        self.raises = raises
        self.began: list[str] = []
        self.done: list[str] = []
        self.cancelled: list[str] = []
        self.running = 0
        self.peak = 0

    async def __call__(self, outcome: TaskOutcome) -> None:
        """Handle an outcome."""
        self.began.append(outcome.task_id)
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled.append(outcome.task_id)
            raise
        finally:
            self.running -= 1
        if self.raises is not None and (error := self.raises(outcome)) is not None:
            raise error
        self.done.append(outcome.task_id)


def outlet_of(*task_ids: str) -> Outlet:
    """Return an outlet that holds outcomes."""
    outlet = Outlet()
    for task_id in task_ids:
        outlet.put(TaskOutcome(task_id=task_id))
    return outlet


async def run(outlet: Outlet, handler: Handler, limit: int = 8) -> None:
    """Handle what an outlet gives."""

    async def take(others: Collection[asyncio.Future[Any]], most: int) -> TaskOutcome | None:
        return await outlet.take_unless(others, most=most)

    await Handlers(outlet, handler, limit).run(take)


async def test_each_outcome_is_handled_once(comet_api: SimulatedCometAPI) -> None:
    """It ends with the stream, behind the last handler; no more run at once than the limit says."""
    task_ids = [comet_api.create_task() for _ in range(20)]
    handle = Handling(5)
    async with open_session(comet_api) as session, session.poll(task_ids) as outcomes:
        await outcomes.each(handle, limit=6)
        assert sorted(handle.done) == sorted(task_ids)
        with pytest.raises(StopAsyncIteration):
            await anext(outcomes)
    assert handle.peak == 6
    assert (outcomes.progress.succeeded, outcomes.progress.pending) == (20, 0)


async def test_it_needs_no_block(comet_api: SimulatedCometAPI) -> None:
    """A stream of ids begins with the first step, and that of `each` is one; `ack` does nothing."""
    task_ids = [comet_api.create_task() for _ in range(3)]
    async with open_session(comet_api) as session:
        outcomes = session.poll(task_ids)

        async def handle(outcome: TaskOutcome) -> None:
            await outcomes.ack(outcome)
            done.append(outcome.task_id)

        done: list[str] = []
        await outcomes.each(handle)
        assert sorted(done) == sorted(task_ids)


async def test_what_a_handler_raises_is_raised_behind_the_others(
    comet_api: SimulatedCometAPI,
) -> None:
    """Nothing more is taken then, not even by one that waits for an endless feed."""
    quick, slow = comet_api.create_task(), comet_api.create_task(duration=500)
    error = ZeroDivisionError("no")
    handle = Handling(5, lambda outcome: error if outcome.task_id == quick else None)

    async def feed() -> AsyncIterator[str]:
        yield quick
        yield slow
        await asyncio.Event().wait()

    async with open_session(comet_api) as session, session.poll(feed()) as outcomes:
        with pytest.raises(ZeroDivisionError) as raised:
            await outcomes.each(handle)
        assert raised.value is error
        assert handle.began == [quick]
        assert set(outcomes.pending) == {slow}
        assert (await anext(outcomes)).task_id == slow  # the stream goes on


async def test_handlers_that_run_come_to_their_end_before_a_fault_is_raised(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The first fault is raised; what others raise meanwhile is logged."""
    outlet = outlet_of("a", "b", "c", "d")
    times = iter([1.0, 2.0, 3.0])
    done = []

    async def handle(outcome: TaskOutcome) -> None:
        await asyncio.sleep(next(times))
        done.append((outcome.task_id, now()))
        if outcome.task_id != "c":
            raise ValueError(outcome.task_id)

    with pytest.raises(ValueError, match=r"^a$"):
        await run(outlet, handle, 3)
    assert done == [("a", 1.0), ("b", 2.0), ("c", 3.0)]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert caplog.messages == ["the handler raised for 'b' too"]
    assert (await outlet.take()).task_id == "d"


async def test_the_end_of_the_session_waits_for_the_handlers(comet_api: SimulatedCometAPI) -> None:
    """They come to their end, then the error of the stream is raised."""
    task_ids = [comet_api.create_task(duration=0), comet_api.create_task(duration=500)]
    handle = Handling(5)
    session = new_session(comet_api)
    async with session.poll(task_ids) as outcomes:
        each = asyncio.create_task(outcomes.each(handle))
        await asyncio.sleep(1)
        await session.aclose()
        with pytest.raises(SessionClosedError):
            await each
        assert handle.done == [task_ids[0]]
        assert now() >= 5.0


async def test_a_fault_behind_the_end_of_the_stream_is_raised() -> None:
    """Also where nothing more would have come."""
    outlet = outlet_of("a")
    outlet.end(End())
    with pytest.raises(ZeroDivisionError):
        await run(outlet, Handling(5, lambda _: ZeroDivisionError()))


async def test_cancelling_cancels_the_handlers() -> None:
    """They are awaited; nothing is taken any more, and nobody else's cancellation is swallowed."""
    outlet = outlet_of("a", "b", "c")
    handle = Handling(5)
    each = asyncio.create_task(run(outlet, handle, 2))
    await asyncio.sleep(1)
    each.cancel()
    await asyncio.wait([each])
    assert each.cancelled()
    assert sorted(handle.cancelled) == ["a", "b"]
    assert (await outlet.take()).task_id == "c"


async def test_a_fault_while_it_is_cancelled_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Its place is that of the cancellation, so it would be lost."""
    outlet = outlet_of("a")

    async def handle(outcome: TaskOutcome) -> None:
        try:
            await asyncio.sleep(5)
        finally:
            raise ZeroDivisionError(outcome.task_id)

    each = asyncio.create_task(run(outlet, handle, 2))
    await asyncio.sleep(1)
    each.cancel()
    await asyncio.wait([each])
    assert each.cancelled()
    assert caplog.messages == ["a handler raised, and `each` was cancelled"]


async def test_a_handler_that_somebody_else_cancels_is_a_fault() -> None:
    """Otherwise its outcome would be lost in silence."""
    outlet = outlet_of("a", "b")

    async def handle(outcome: TaskOutcome) -> None:
        raise asyncio.CancelledError(outcome.task_id)

    with pytest.raises(RuntimeError, match="the handler was cancelled by somebody else"):
        await run(outlet, handle, 1)


async def test_what_is_no_exception_is_raised_as_it_is() -> None:
    """A handler may raise what is no `Exception`, as `pytest.fail` does: nothing more is taken."""
    outlet = outlet_of("a", "b")

    async def handle(outcome: TaskOutcome) -> None:
        raise GeneratorExit(outcome.task_id)

    with pytest.raises(GeneratorExit, match="a"):
        await run(outlet, handle, 1)
    assert (await outlet.take()).task_id == "b"


async def test_consumers_beside_each_lose_nothing() -> None:
    """One that waits beside gets what comes when a handler's end has woken `each` in that pass."""
    outlet = outlet_of("a")
    handle = Handling(5)
    each = asyncio.create_task(run(outlet, handle, 2))
    await asyncio.sleep(1)
    other = asyncio.create_task(outlet.take())
    asyncio.get_running_loop().call_at(5.0, outlet.put, TaskOutcome(task_id="b"))
    asyncio.get_running_loop().call_at(5.0, outlet.put, TaskOutcome(task_id="c"))
    await asyncio.sleep(20)
    assert {*handle.done, (await other).task_id} == {"a", "b", "c"}
    outlet.end(End())
    await each


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, "8", None])
async def test_a_limit_that_is_none_is_refused(comet_api: SimulatedCometAPI, limit: object) -> None:
    """The text says what to write, and nothing is asked."""
    async with open_session(comet_api) as session, session.poll(["a"]) as outcomes:
        with pytest.raises(ConfigurationError, match="limit must be a whole number above 0"):
            await outcomes.each(Handling(), limit=limit)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def test_a_handler_that_is_not_async_is_refused() -> None:
    """Whatever is called: the text shows what to write."""
    outlet = outlet_of("a", "b")

    class Answer:
        def __call__(self, outcome: TaskOutcome) -> None:
            del outcome

    with pytest.raises(TypeError, match=r"write: async def Answer\(outcome\)"):
        await run(outlet, Answer(), 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert (await outlet.take()).task_id == "b"


async def test_a_handler_may_return_any_awaitable() -> None:
    """Such as a future of its own."""
    outlet = outlet_of("a")
    outlet.end(End())
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(3, future.set_result, None)

    await run(outlet, lambda _: future, 1)
    assert now() == 3.0
    await now_waiting()


@pytest.mark.parametrize("end", [SystemExit, KeyboardInterrupt])
def test_a_handler_that_ends_the_program_does_so(end: type[BaseException]) -> None:
    """It is no fault of an outcome: it goes through the loop, and no handler is left."""
    ended = []

    async def handle(outcome: TaskOutcome) -> None:
        if outcome.task_id == "a":
            raise end
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(outcome.task_id)

    with pytest.raises(end):
        asyncio.run(run(outlet_of("b", "a"), handle))
    assert ended == ["b"]
