"""The one task in which everything of a session runs: how it begins, fails and ends."""

# How a task begins is only visible inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

import pytest

from kling_omni_async import ConfigurationError, SessionClosedError, WrongLoopError
from kling_omni_async._engine import SLICE_S, Engine, _LateCoroutine, in_slices, run_slice

from .support import now, now_waiting
from .virtual_clock import VirtualClockLoop

pytestmark = pytest.mark.anyio

V = TypeVar("V")


class Part:
    """A part that notes what the engine does with it.

    Attributes:
        log: What was done, for all parts of a test.
        opening: Raised by `open`, or awaited there.
    """

    def __init__(
        self,
        log: list[object],
        name: str = "",
        *,
        binding: Exception | None = None,
        opening: BaseException | asyncio.Event | None = None,
        stopping: Exception | None = None,
        closing: Exception | None = None,
        steps: int = 1,
    ) -> None:
        self.log = log
        self.name = name
        self.binding = binding
        self.opening = opening
        self.stopping = stopping
        self.closing = closing
        self.steps = steps

    def bind(self) -> None:
        if self.binding:
            raise self.binding
        self.log.append(f"bind{self.name}")

    async def open(self) -> None:
        if isinstance(self.opening, asyncio.Event):
            await self.opening.wait()
        elif self.opening:
            raise self.opening
        self.log.append(f"open{self.name}")

    def stop(self) -> None:
        self.log.append(f"stop{self.name}")
        if self.stopping:
            raise self.stopping

    def tell_end(self, reason: BaseException) -> Iterator[None]:
        for _ in range(self.steps):
            self.log.append(reason)
            yield

    async def aclose(self) -> None:
        await asyncio.sleep(1.0)  # closing takes its time
        if self.closing:
            raise self.closing
        self.log.append(f"close{self.name}")


async def started(log: list[object], **part: Any) -> Engine:
    """Start an engine with one part, and let it open."""
    engine = Engine()
    engine.start(Part(log, **part))
    await now_waiting()
    return engine


def tasks_named(name: str) -> list[asyncio.Task[Any]]:
    """Return the tasks that run under a name."""
    return [task for task in asyncio.all_tasks() if task.get_name() == name]


def owner_task() -> asyncio.Task[Any]:
    """Return the one owner task that runs."""
    (owner,) = tasks_named("kling_omni_async.poller")
    return owner


async def ended() -> None:
    """Wait until the engine has ended: its owner is the last of its tasks."""
    if owners := tasks_named("kling_omni_async.poller"):
        await asyncio.wait(owners)


async def forever() -> None:
    """Wait for what never comes."""
    await asyncio.Event().wait()


def steps_of(count: int, done: list[object]) -> Iterator[None]:
    """Be a job that notes each of its steps."""
    for number in range(count):
        done.append(number)
        yield


def refuse(*_args: object, **_kwargs: object) -> Any:
    """Be a task factory that raises."""
    raise LookupError("no task today")


# Start.


async def test_parts_are_opened_in_order_and_closed_in_reverse() -> None:
    """All are checked first; each is told the end; all tasks have ended before the first closes."""
    log: list[object] = []
    engine = Engine()
    assert (engine.is_running_here(), repr(engine)) == (False, "<Engine not started>")
    engine.start(Part(log, "1"), Part(log, "2"))
    assert (engine.is_running_here(), repr(engine)) == (True, "<Engine running>")
    await now_waiting()
    assert log == ["bind1", "bind2", "open1", "open2"]
    log.clear()
    engine.start_soon(forever, name="worker")
    await engine.aclose()
    first, second = (each for each in log if isinstance(each, SessionClosedError))
    assert (first.__cause__, second.__cause__) == (None, None)
    assert log == ["stop1", "stop2", first, second, "close2", "close1"]
    assert (engine.closed, engine.close_reason, repr(engine)) == (True, None, "<Engine closed>")


async def test_a_part_that_cannot_run_here_stops_nothing() -> None:
    """The verb raises, and the next one starts the engine."""
    log: list[object] = []
    engine = Engine()
    with pytest.raises(ConfigurationError):
        engine.start(Part(log, binding=ConfigurationError("not here")))
    assert not engine.is_running_here()
    engine.start(Part(log))
    await engine.aclose()
    assert log[0] == "bind"


@pytest.mark.filterwarnings("error")
async def test_a_task_factory_that_raises_stops_nothing() -> None:
    """The verb raises; when the factory has been taken away, the next one starts the engine."""
    log: list[object] = []
    engine, loop = Engine(), asyncio.get_running_loop()
    loop.set_task_factory(refuse)
    with pytest.raises(LookupError):
        engine.start(Part(log))
    loop.set_task_factory(None)
    gc.collect()  # no coroutine was left that was never awaited
    assert not engine.is_running_here()
    engine.start(Part(log))
    await now_waiting()
    assert log == ["bind", "bind", "open"]
    await engine.aclose()


async def test_a_task_factory_that_raises_later_ends_all(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Without its task somebody would wait for ever: all who wait are told."""
    log: list[object] = []
    engine, loop = await started(log), asyncio.get_running_loop()
    loop.set_task_factory(refuse)
    engine.start_soon(forever, name="worker")
    await ended()
    loop.set_task_factory(None)
    assert isinstance(engine.close_reason, LookupError)
    assert engine.close_reason in log
    assert log[-1] == "close"
    assert "LookupError" in caplog.text


async def test_what_is_started_before_all_is_open_waits_for_it() -> None:
    """Tasks begin when the parts are open, in their order."""
    log: list[object] = []
    opening = asyncio.Event()
    engine = await started(log, opening=opening)

    async def work(name: str) -> None:
        log.append(name)

    engine.start_soon(work, "a", name="worker")
    engine.start_soon(work, "b", name="worker")
    await now_waiting(5)
    assert log == ["bind"]
    opening.set()
    await now_waiting(5)
    assert log == ["bind", "open", "a", "b"]
    engine.start_soon(work, "c", name="worker")
    await now_waiting(5)
    assert log[-1] == "c"
    await engine.aclose()
    engine.start_soon(work, "d", name="worker")
    await ended()
    assert "d" not in log


async def test_a_part_may_be_added_later() -> None:
    """It needs no opening, is checked at once, and takes part in the end."""
    log: list[object] = []
    engine = Engine()
    engine.add(Part(log, "0"))  # before the start it would be given to `start`
    engine.start(Part(log, "1"))
    await now_waiting()
    engine.add(Part(log, "2"))
    await engine.aclose()
    assert [each for each in log if isinstance(each, str)] == [
        *("bind1", "open1", "bind2"),
        *("stop1", "stop2", "close2", "close1"),
    ]


# What runs inside.


async def test_tasks_run_in_a_context_of_the_engines_own() -> None:
    """Neither the first caller's variables nor one task's reach another."""
    variable: ContextVar[str] = ContextVar("variable", default="clean")
    seen: list[str] = []
    variable.set("dirty")
    engine = await started([])

    async def work(*, value: str = "a task's") -> None:
        seen.append(variable.get())
        variable.set(value)

    for _ in range(2):
        engine.start_soon(work, name="worker")
    await now_waiting()
    assert seen == ["clean"] * 2
    assert variable not in engine.context
    await engine.aclose()


async def test_a_short_job_is_done_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long one goes on beside everything else, in slices."""
    ticks = itertools.count(0.0, SLICE_S * 0.3)
    monkeypatch.setattr("kling_omni_async._engine.perf_counter", lambda: next(ticks))
    engine = await started([])
    done: list[object] = []
    engine.do(steps_of(3, done), name="job")
    assert done == [0, 1, 2]
    done.clear()
    engine.do(steps_of(10, done), name="job")
    assert done == [0, 1, 2, 3]
    for _ in range(9):
        await now_waiting(1)
        assert len(done) in {4, 8, 10}
    assert done == list(range(10))
    await engine.aclose()


async def test_a_slice_is_no_longer_than_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """After its time the next step is left for the next slice, and other tasks run between."""
    ticks = itertools.count(0.0, SLICE_S * 0.6)
    monkeypatch.setattr("kling_omni_async._engine.perf_counter", lambda: next(ticks))
    done: list[object] = []
    steps = steps_of(5, done)
    assert run_slice(steps) is False
    assert done == [0, 1]
    asyncio.get_running_loop().call_soon(done.append, "another")
    await in_slices(steps)
    assert done == [0, 1, 2, 3, "another", 4]
    assert run_slice(steps) is True


# Defects.


async def test_a_defect_while_nobody_waits_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """With its traceback, once; later verbs say that the session is closed, and why."""
    log: list[object] = []
    engine = await started(log)

    async def break_down() -> None:
        raise ZeroDivisionError("a defect")

    engine.start_soon(forever, name="bystander")
    engine.start_soon(break_down, name="worker")
    await ended()
    reason = engine.close_reason
    assert isinstance(reason, ZeroDivisionError)
    assert log[2:] == ["stop", reason, "close"]
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("kling_omni_async.engine", logging.ERROR)
    assert record.getMessage() == "a defect has ended the session: ZeroDivisionError"
    assert "in break_down" in caplog.text
    with pytest.raises(SessionClosedError, match="open a new KlingOmniSession") as caught:
        engine.is_running_here()
    assert caught.value.__cause__ is reason


@pytest.mark.parametrize("wrap", [False, True])
async def test_a_defect_in_opening_ends_all(*, wrap: bool) -> None:
    """Who waits gets the one exception itself, and what is open is closed."""
    log: list[object] = []
    defect = ZeroDivisionError("a defect")
    group = ExceptionGroup("of one", [ExceptionGroup("of one", [defect])])
    engine = await started(log, opening=group if wrap else defect)
    await ended()
    assert engine.close_reason is defect
    assert log == ["bind", defect, "close"]


async def test_several_defects_are_told_together() -> None:
    """A group of several is passed on as it is."""
    group = ExceptionGroup("of two", [ZeroDivisionError(), LookupError()])
    engine = await started([], opening=group)
    await ended()
    assert engine.close_reason is group


async def test_a_defect_in_closing_is_logged_and_closes_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nobody waits for it any more, so that the log alone can tell."""
    log: list[object] = []
    engine = Engine()
    engine.start(Part(log, "1"), Part(log, "2", closing=ZeroDivisionError("a defect")))
    await now_waiting()
    await engine.aclose()
    assert log[-1] == "close1"
    assert "ZeroDivisionError: a defect" in caplog.text
    assert engine.close_reason is None


async def test_a_defect_while_a_session_is_closed_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Of a plain end nobody else would hear of it; those who wait are told all the same."""
    log: list[object] = []
    engine = Engine()
    engine.start(Part(log, "1", stopping=ZeroDivisionError("a defect")), Part(log, "2"))
    await now_waiting()
    await engine.aclose()
    assert [str(each) for each in log[4:]] == [
        "stop1",
        "stop2",
        *["the session is closed; open a new KlingOmniSession"] * 2,
        "close2",
        "close1",
    ]
    (record,) = caplog.records
    assert record.exc_info
    assert str(record.exc_info[1]) == "a defect"
    assert engine.close_reason is None


async def test_the_first_reason_counts(caplog: pytest.LogCaptureFixture) -> None:
    """What breaks down while all ends changes nothing."""
    log: list[object] = []
    engine = await started(log)
    first, second = ZeroDivisionError("first"), ZeroDivisionError("second")
    engine.fail(first)
    engine.fail(second)
    await ended()
    assert engine.close_reason is first
    assert [record.exc_info and record.exc_info[1] for record in caplog.records] == [first]


# Outsiders.


async def test_an_outsider_that_cancels_all_but_the_owner_ends_all(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is told once to each part as a closed session, and is no defect."""
    log: list[object] = []
    engine = await started(log)
    for _ in range(120):
        engine.start_soon(forever, name="worker")
    await now_waiting()
    for task in tasks_named("worker"):
        task.cancel()
    await ended()
    reason = log[3]
    assert isinstance(reason, SessionClosedError)
    assert log[2:] == ["stop", reason, "close"]
    assert reason.__cause__ is engine.close_reason
    text = "a task of the session was cancelled from outside it"
    assert str(engine.close_reason) == text
    assert caplog.messages == []


async def test_an_outsider_that_cancels_the_owner_lets_it_wind_up() -> None:
    """All are told, and all parts are closed, as at the end of `asyncio.run`."""
    log: list[object] = []
    engine = await started(log)
    owner_task().cancel()
    await ended()
    assert isinstance(log[3], SessionClosedError)
    assert log[4:] == ["close"]
    assert "cancelled from outside" in str(engine.close_reason)


async def test_an_owner_that_is_cancelled_again_tells_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever stops it between two slices: all are told once, and all parts are closed."""
    ticks = itertools.count(0.0, SLICE_S)
    monkeypatch.setattr("kling_omni_async._engine.perf_counter", lambda: next(ticks))
    log: list[object] = []
    engine = await started(log, steps=9)
    engine.cancel()
    await now_waiting(5)
    told = len(log)
    owner = owner_task()
    owner.cancel()
    await asyncio.wait([owner])
    assert 3 < told < 12
    assert log.count(log[3]) == 9
    assert "close" in log
    assert owner.cancelled()


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
async def test_a_task_that_is_cancelled_before_its_first_step_ends_all() -> None:
    """What it was to do is done by nobody: all are told why."""
    log: list[object] = []
    engine = await started(log)
    engine.start_soon(forever, name="worker")
    while not (tasks := tasks_named("worker")):  # the owner starts it in one of the next passes
        await now_waiting(1)
    tasks.pop().cancel()
    del tasks
    await ended()
    gc.collect()
    assert "cancelled from outside" in str(engine.close_reason)
    assert log[4:] == ["close"]


async def test_a_coroutine_that_is_made_late_says_that_it_never_began() -> None:
    """One that was made is closed with its clean-up, and says nothing."""
    log: list[str] = []

    async def work() -> None:
        try:
            await forever()
        finally:
            log.append("cleaned up")

    never, begun = (_LateCoroutine(work, lambda: log.append("lost")) for _ in range(2))
    never.close()
    del never
    assert log == ["lost"]
    begun.send(None)
    begun.close()
    del begun
    assert log == ["lost", "cleaned up"]


# The end.


async def test_an_owner_that_never_began_tells_the_end() -> None:
    """Closed in the very pass of the start, it tells everyone from its own end."""
    log: list[object] = []
    engine = Engine()
    engine.start(Part(log, steps=2))
    await engine.aclose()
    reason = log[1]
    assert isinstance(reason, SessionClosedError)
    assert log == ["bind", reason, reason]


async def test_closing_waits_and_may_be_repeated() -> None:
    """Who closes waits for the end, each one who does; one that never started has none."""
    log: list[object] = []
    engine = await started(log)
    await asyncio.gather(engine.aclose(), engine.aclose())
    assert log[-1] == "close"
    assert now() == 1.0
    await engine.aclose()
    await Engine().aclose()


async def test_closing_from_inside_does_not_wait_for_itself() -> None:
    """A task of the engine's own, such as an input, can close it."""
    log: list[object] = []
    engine = await started(log)

    async def close() -> None:
        await engine.aclose()
        log.append("went on")

    engine.start_soon(close, name="input")
    await ended()
    assert "went on" in log
    assert (log[-1], engine.close_reason) == ("close", None)


async def test_closing_the_session_of_another_waits() -> None:
    """A task of one engine may close another, and waits for that."""
    log: list[object] = []
    outer, inner = await started([]), await started(log)

    async def close() -> None:
        await inner.aclose()
        log.append("went on")

    outer.start_soon(close, name="input")
    await asyncio.sleep(5.0)
    assert log[-2:] == ["close", "went on"]
    await outer.aclose()


def run_in(loop: asyncio.AbstractEventLoop, main: Coroutine[Any, Any, V]) -> V:
    """Run a coroutine in a loop, and leave the loop as it is."""
    return loop.run_until_complete(main)


def test_an_engine_whose_loop_is_gone_can_be_closed() -> None:
    """A loop that was closed under it has taken all that ran there along."""
    log: list[object] = []
    first, second = VirtualClockLoop(), VirtualClockLoop()
    engine = run_in(first, started(log))
    with pytest.raises(WrongLoopError):
        run_in(second, engine.aclose())
    first.close()
    engine.call_from_anywhere(log.append, "never")
    run_in(second, engine.aclose())
    second.close()
    assert (engine.closed, log) == (True, ["bind", "open"])


def test_a_verb_in_another_loop_says_so() -> None:
    """Until it is closed the loop is what matters; afterwards, that it is closed."""
    first, second = VirtualClockLoop(), VirtualClockLoop()
    engine = run_in(first, started([]))

    async def ask() -> bool:
        return engine.is_running_here()

    with pytest.raises(WrongLoopError, match="one KlingOmniSession for each"):
        run_in(second, ask())
    assert run_in(first, ask()) is True
    run_in(first, engine.aclose())
    with pytest.raises(SessionClosedError):
        run_in(second, ask())
    first.close()
    second.close()


async def test_calls_come_in_from_any_thread() -> None:
    """A callback of another thread runs in the loop; before the start there is none."""
    threads: list[int] = []

    def note() -> None:
        threads.append(threading.get_ident())

    Engine().call_from_anywhere(note)
    engine = await started([])
    call: Callable[[], None] = lambda: engine.call_from_anywhere(note)  # noqa: E731 - for a thread
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    await now_waiting()
    assert threads == [threading.get_ident()]
    await engine.aclose()
