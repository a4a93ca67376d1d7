"""Who may enter, leave, cancel, close and forget what, where and when."""

# That a stream cannot be ended is brought about inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import anyio
import pytest

from kling_omni_async import (
    KlingOmniSession,
    OutcomeStream,
    SessionClosedError,
    TaskStatus,
    TransportError,
    WrongLoopError,
)
from kling_omni_async.simulator import SimulatedCometAPI

from .support import all_of, new_session, now, now_waiting, open_session
from .virtual_clock import VirtualClockLoop

pytestmark = pytest.mark.anyio


def the_owner() -> asyncio.Task[Any]:
    """Give the one owner task that runs."""
    (owner,) = (t for t in asyncio.all_tasks() if t.get_name() == "kling_omni_async.poller")
    return owner


async def in_a_task(make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine in a task of its own."""
    return await asyncio.create_task(make())


async def test_enter_and_leave_in_different_tasks(comet_api: SimulatedCometAPI) -> None:
    """A session, a stream and a watch may be entered in one task and left in another."""
    task_id = comet_api.create_task(duration=30)
    session = new_session(comet_api)
    await in_a_task(session.__aenter__)
    stream, updates = session.poll([task_id]), session.watch(task_id)
    await in_a_task(stream.__aenter__)
    await in_a_task(updates.__aenter__)
    assert (await in_a_task(stream.__anext__)).ok
    assert (await in_a_task(updates.__anext__)).task_id == task_id
    await in_a_task(lambda: updates.__aexit__(None, None, None))
    await in_a_task(lambda: stream.__aexit__(None, None, None))
    await in_a_task(session.aclose)
    assert "kling" not in repr(asyncio.all_tasks())


async def test_an_abandoned_generator_cancels_no_bystander(comet_api: SimulatedCometAPI) -> None:
    """A generator around a stream that is dropped half-way leaves its consumer's task alone."""
    task_ids = [comet_api.create_task(duration=0) for _ in range(3)]

    async with open_session(comet_api) as session:

        async def found() -> AsyncIterator[str]:
            async with session.poll(task_ids) as outcomes:
                async for outcome in outcomes:
                    yield outcome.task_id

        async for _ in found():
            break
        gc.collect()
        await asyncio.sleep(100)
        assert (await session.wait(task_ids[0])).status is TaskStatus.SUCCEED


async def test_a_cancelled_wait_leaves_the_task_alone(comet_api: SimulatedCometAPI) -> None:
    """A cancelled wait stops the asking; the id can be waited for again, at its old time."""
    task_id = comet_api.create_task(duration=40)
    async with open_session(comet_api) as session:
        waiting = asyncio.ensure_future(session.wait(task_id))
        await comet_api.wait_for_queries(1)
        await asyncio.sleep(5)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (await session.wait(task_id)).status is TaskStatus.SUCCEED
    assert min(comet_api.gaps(task_id)) >= 20


async def test_an_id_that_nobody_waits_for_is_not_asked(comet_api: SimulatedCometAPI) -> None:
    """When the last one leaves, the id is asked no more and soon forgotten."""
    task_id = comet_api.create_task(duration=1000)
    async with open_session(comet_api) as session:
        with anyio.move_on_after(50):
            await session.wait(task_id)
        asked = len(comet_api.queries)
        await asyncio.sleep(100)
        assert len(comet_api.queries) == asked
        assert "ids=0" in repr(session)


async def test_an_unasked_id_is_forgotten_with_its_wait(comet_api: SimulatedCometAPI) -> None:
    """A wait that is cancelled before its first query leaves nothing behind."""
    first, second = comet_api.create_task(), comet_api.create_task()
    async with open_session(comet_api, max_rate=0.01) as session:
        await session.query(first)
        with anyio.move_on_after(5):
            await session.wait(second)
        await asyncio.sleep(200)
    assert comet_api.queries_of(second) == ()


async def test_a_wait_cancelled_in_flight_keeps_the_answer(comet_api: SimulatedCometAPI) -> None:
    """A query under way when its last waiter leaves ends normally and its answer is kept."""
    task_id = comet_api.create_task(duration=0)
    comet_api.fail_next(task_id, delay=3)
    async with open_session(comet_api) as session:
        with anyio.move_on_after(1):
            await session.wait(task_id)
        await asyncio.sleep(5)
        assert (await session.wait(task_id)).status is TaskStatus.SUCCEED
    assert len(comet_api.queries) == 1


async def test_closing_in_mid_query_leaves_nothing(comet_api: SimulatedCometAPI) -> None:
    """A session closed while queries hang ends at once, with no task and no connection left."""
    comet_api.fail_next(times=None, hang=True)
    session = new_session(comet_api)
    stream = session.poll([comet_api.create_task() for _ in range(5)])
    waiting = asyncio.ensure_future(anext(stream))
    await comet_api.wait_for_queries(5)
    await asyncio.gather(session.aclose(), session.aclose())
    with pytest.raises(SessionClosedError):
        await waiting
    assert now() < 1
    assert "kling" not in repr(asyncio.all_tasks())


async def test_a_closer_that_is_cancelled_stays_cancelled(comet_api: SimulatedCometAPI) -> None:
    """`aclose` never swallows its caller's own cancellation, and the session still ends."""
    session = new_session(comet_api)
    waiting = asyncio.ensure_future(session.wait(comet_api.create_task()))
    await now_waiting()
    closing = asyncio.ensure_future(session.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    with pytest.raises(SessionClosedError):
        await waiting


async def test_a_session_closed_before_its_owner_ran(comet_api: SimulatedCometAPI) -> None:
    """Closing in the very loop pass of the first call ends that call too."""
    session = new_session(comet_api)
    calls = asyncio.gather(
        session.wait("1"), session.query("1"), session.aclose(), return_exceptions=True
    )
    first, second, _ = await calls
    assert isinstance(first, SessionClosedError)
    assert isinstance(second, SessionClosedError)


async def test_a_stream_left_before_the_owner_ran_is_left(comet_api: SimulatedCometAPI) -> None:
    """Closing it does not wait for a reader that, as the session was closed too, never begins."""
    session = new_session(comet_api)

    async def enter_and_leave() -> None:
        async with session.poll(["1"]):
            pass

    await asyncio.gather(enter_and_leave(), session.aclose())


async def test_what_had_come_out_survives_the_session(comet_api: SimulatedCometAPI) -> None:
    """A stream that was done when its session was closed gives what it holds, then ends."""
    session = new_session(comet_api)
    task_id = comet_api.create_task(duration=0)
    async with session.poll([task_id]) as stream:
        await asyncio.sleep(5)
        await session.aclose()
        assert [outcome.task_id async for outcome in stream] == [task_id]


@pytest.mark.parametrize("victim", ["poller", "query", "feed"])
async def test_an_outsider_that_cancels_our_tasks_ends_the_session(
    comet_api: SimulatedCometAPI, victim: str
) -> None:
    """Whichever of our tasks is cancelled from outside: everyone is told, nobody hangs."""

    async def feed() -> AsyncIterator[str]:
        yield comet_api.create_task(duration=1000)
        await asyncio.sleep(10_000)

    session = new_session(comet_api)
    stream = session.poll(feed())
    waiting = asyncio.ensure_future(anext(stream))
    comet_api.fail_next(hang=True)
    await comet_api.wait_for_queries(1)
    (task,) = (t for t in asyncio.all_tasks() if t.get_name() == f"kling_omni_async.{victim}")
    task.cancel()
    with pytest.raises(SessionClosedError):
        await waiting
    assert session.closed
    await session.aclose()
    assert "kling" not in repr(asyncio.all_tasks())


async def test_a_defect_reaches_everyone_unwrapped(
    comet_api: SimulatedCometAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception that nobody foresaw ends all waiting as itself and closes the session."""

    def broken(*_args: object, **_kwargs: object) -> None:
        raise ZeroDivisionError("a defect")

    session = new_session(comet_api)
    monkeypatch.setattr("kling_omni_async._polling.poller.read_answer", broken)
    calls = [
        asyncio.ensure_future(call)
        for call in (
            session.wait(comet_api.create_task()),
            session.query(comet_api.create_task()),
            anext(session.poll([comet_api.create_task()])),
        )
    ]
    for call in calls:
        with pytest.raises(ZeroDivisionError, match="a defect"):
            await call
    with pytest.raises(SessionClosedError):
        await session.wait("1")
    await session.aclose()


@pytest.mark.parametrize(
    "where",
    [
        "_polling.watchlist.Watchlist._timed_out",
        "_polling.watchlist.Decision.__init__",
        "_polling.log.PollingLog.answered",
        "_polling.poller.log_end",
        "_polling.waiters.QueryWaiter.told",
        "_polling.waiters.ResultWaiter.told",
        "_polling.waiters.Waiter.left",
        "_polling.stream.StreamState.finished",
        "_polling.stream.StreamWaiter.left",
        "_polling.watchlist.Watchlist.call",
        "_polling.watchlist.Watchlist.leave",
        "_polling.watchlist.Watchlist.leaving",
        "_polling.watchlist.Watchlist._join",
    ],
)
async def test_a_defect_at_any_place_hangs_nobody(
    comet_api: SimulatedCometAPI,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    where: str,
) -> None:
    """Also who was let go already and not yet told is told; it is logged, and the reason known."""

    def broken(*_args: object, **_kwargs: object) -> None:
        raise ZeroDivisionError("a defect")

    session = new_session(comet_api, interval=(1.0, 2.0))
    soon, late = comet_api.create_task(duration=10.0), comet_api.create_task(duration=1e6)
    silent = comet_api.create_task()
    comet_api.fail_next(silent, delay=9.0)
    calls = [
        session.wait(soon),
        session.wait(soon),
        session.wait(late),
        session.wait(late, timeout=20.0),
        _last(session.watch(late)),
        _last(session.poll([soon, late])),
        _last(session.poll([late])),
        session.query(silent),
    ]
    tasks = [asyncio.ensure_future(call) for call in calls]
    await asyncio.sleep(2.0)
    monkeypatch.setattr(f"kling_omni_async.{where}", broken)
    tasks += [asyncio.ensure_future(_look_in(session.poll([late, "1"]))) for _ in range(2)]
    await asyncio.sleep(5.0)
    tasks[2].cancel()
    await asyncio.sleep(1.0)
    if not session.closed:
        tasks.append(asyncio.ensure_future(session.wait(late)))
    async with asyncio.timeout(100.0):
        await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(session.close_reason, ZeroDivisionError)
    await session.aclose()
    assert [record.levelname for record in caplog.records].count("ERROR") == 1


async def test_a_stream_that_cannot_be_ended_keeps_no_other_waiting(
    comet_api: SimulatedCometAPI, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What breaks down while a session is closed is logged, and the others are told."""

    def broken(*_args: object) -> None:
        raise ZeroDivisionError("a defect")

    session = new_session(comet_api)
    odd, good = session.poll([comet_api.create_task()]), session.poll([comet_api.create_task()])
    calls = [asyncio.ensure_future(anext(stream)) for stream in (odd, good)]
    await comet_api.wait_for_queries(2)
    monkeypatch.setattr(odd._state.outlet, "cut", broken)
    await session.aclose()
    with pytest.raises(SessionClosedError):
        await calls[1]
    assert "a defect" in caplog.text
    calls[0].cancel()


async def _look_in(stream: OutcomeStream) -> None:
    async with stream:
        await asyncio.sleep(3.0)


async def _last(items: AsyncIterator[object]) -> None:
    async for _ in items:
        pass


async def test_an_input_may_close_its_own_session(comet_api: SimulatedCometAPI) -> None:
    """A generator that feeds a stream can close the session without a deadlock."""
    session = new_session(comet_api)

    async def feed() -> AsyncIterator[str]:
        yield comet_api.create_task(duration=1000)
        await session.aclose()
        await asyncio.sleep(1000)

    with pytest.raises(SessionClosedError):
        await all_of(session, feed())
    await session.aclose()
    assert now() == 0


async def test_polling_runs_in_a_context_of_its_own(comet_api: SimulatedCometAPI) -> None:
    """Context variables of whoever calls first do not leak into the tasks that poll."""
    variable = contextvars.ContextVar("variable", default="clean")
    seen: list[str] = []

    async def feed() -> AsyncIterator[str]:
        seen.append(variable.get())
        yield comet_api.create_task(duration=0)

    variable.set("dirty")
    async with open_session(comet_api) as session:
        await all_of(session, feed())
    assert seen == ["clean"]


async def test_a_forgotten_session_ends_its_tasks(comet_api: SimulatedCometAPI) -> None:
    """A session that was never closed ends its tasks when nobody can use it any more."""
    session = new_session(comet_api)
    await session.query(comet_api.create_task())
    owner = the_owner()
    gone = weakref.ref(session)
    del session
    gc.collect()
    assert gone() is None
    await asyncio.wait([owner])
    assert owner.done()


def run_virtual(main: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine in a new loop with a virtual clock."""
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        return runner.run(main)


async def use(session: KlingOmniSession) -> None:
    """Bind a session to the running loop, against a port where nobody is."""
    with pytest.raises(TransportError):
        await session.query("1")


def test_a_session_belongs_to_one_loop() -> None:
    """Used in a second `asyncio.run` without closing, each verb raises `WrongLoopError`."""
    session = KlingOmniSession("sk-key-of-a-test", base_url="http://127.0.0.1:9")
    run_virtual(use(session))

    async def again() -> None:
        with pytest.raises(WrongLoopError):
            await session.query("1")
        with pytest.raises(WrongLoopError):
            await anext(session.poll(["1"]))
        await session.aclose()
        with pytest.raises(SessionClosedError):
            await session.query("1")

    run_virtual(again())


def test_a_closed_session_says_so_in_any_loop() -> None:
    """After `aclose` another loop gets `SessionClosedError`, and may close again."""
    session = KlingOmniSession("sk-key-of-a-test", base_url="http://127.0.0.1:9")

    async def first() -> None:
        await use(session)
        await session.aclose()

    async def second() -> None:
        await session.aclose()
        with pytest.raises(SessionClosedError):
            await session.query("1")

    run_virtual(first())
    run_virtual(second())


async def test_a_second_loop_in_another_thread_is_refused(comet_api: SimulatedCometAPI) -> None:
    """A running session is neither used nor closed from another thread's loop."""
    refusals: list[BaseException] = []

    async def intrude() -> None:
        for call in (session.query("1"), session.aclose()):
            try:
                await call
            except WrongLoopError as error:
                refusals.append(error)

    task_id = comet_api.create_task(duration=0)
    async with open_session(comet_api) as session:
        await session.query(task_id)
        thread = threading.Thread(target=run_virtual, args=(intrude(),))
        thread.start()
        thread.join()
        assert len(refusals) == 2
        assert (await session.wait(task_id)).task_id == task_id


def test_a_stream_dropped_after_its_loop_is_silent() -> None:
    """A stream and a watch that outlive their loop are dropped without a sound."""
    kept: list[object] = []

    async def main() -> None:
        async with SimulatedCometAPI() as api:
            session = new_session(api)
            stream = session.poll([api.create_task(duration=1000), api.create_task(duration=0)])
            updates = session.watch(api.create_task(duration=1000))
            await anext(stream)
            await anext(updates)
            kept.extend([stream, updates, session])

    run_virtual(main())
    kept.clear()
    gc.collect()


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="Python 3.12 brought it")
async def test_eager_tasks_change_nothing(comet_api: SimulatedCometAPI) -> None:
    """With tasks that start eagerly everything comes out as without."""
    eager: Any = vars(asyncio)["eager_task_factory"]
    asyncio.get_running_loop().set_task_factory(eager)
    task_ids = [comet_api.create_task(duration=30) for _ in range(20)]
    async with open_session(comet_api) as session:
        waited, outcomes = await asyncio.gather(
            session.wait(task_ids[0]), all_of(session, task_ids)
        )
    assert waited.status is TaskStatus.SUCCEED
    assert all(outcome.ok for outcome in outcomes)


async def test_a_defect_in_taking_an_id_is_not_the_inputs_own(
    comet_api: SimulatedCometAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nobody foresaw while an id is taken from an input closes the session, as any defect."""

    def broken(*_args: object) -> None:
        raise LookupError("nobody foresaw this")

    monkeypatch.setattr("kling_omni_async._polling.watchlist.Watchlist.admit", broken)
    session = new_session(comet_api)
    with pytest.raises(LookupError, match="nobody foresaw this"):
        await anext(session.poll([comet_api.create_task()]))
    assert session.closed
    assert isinstance(session.close_reason, LookupError)
    await session.aclose()
