"""The one task in which everything of a session runs: its loop, its tasks, its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator, Sequence
from contextlib import AsyncExitStack, suppress
from contextvars import Context, ContextVar
from functools import partial
from itertools import islice
from threading import current_thread
from time import perf_counter
from typing import Any, Final, NamedTuple, Protocol, TypeVarTuple, cast

import anyio
from anyio.abc import TaskGroup

from .errors import KlingOmniError, SessionClosedError, WrongLoopError

Ts = TypeVarTuple("Ts")

SLICE_S: Final = 0.01
"""How long one piece of a long job may hold the loop, in s."""

STEPS_PER_SLICE: Final = 256
"""How many steps one piece may have: one that wakes a waiter is short, what he does then is not."""

logger: Final = logging.getLogger("kling_omni_async.engine")

_DONE: Final = object()
_owned_by: ContextVar[Engine | None] = ContextVar("_owned_by", default=None)


class Part(Protocol):
    """What runs in an engine, such as the poller."""

    def bind(self) -> None:
        """Check what can be checked in the running loop only; may raise."""

    async def open(self) -> None:
        """Get ready inside the owner task."""

    def stop(self) -> None:
        """Stop what must not be cancelled again and again, as a task group does."""

    def tell_end(self, reason: BaseException) -> Iterator[None]:
        """Tell all who wait why there will be nothing more, one at each step."""
        ...

    async def aclose(self) -> None:
        """Release everything; all tasks have ended by then."""


class Owner(NamedTuple):
    """Whose engine it is, for the words of its errors."""

    name: str
    task: str  # the name of its owner task
    maker: str  # what is written to get a new one
    call: str  # one of its verbs, as it is written
    closed: type[KlingOmniError]


OF_SESSION: Final = Owner(
    "session", "poller", "KlingOmniSession", "session.wait(task_id)", SessionClosedError
)


class Engine:
    """The owner task of a session, inside which all its other tasks live.

    It is bound to a loop and started by `start`. No cancel scope and no task group is open
    anywhere else, so users may enter and leave in any of their tasks (PEP 789).
    """

    # Thirteen attributes: state (3), whose it is, what runs in it and where (5), what is kept for
    # later (4).
    def __init__(self, owner: Owner = OF_SESSION) -> None:
        self.of = owner
        self.closed = False
        self.close_reason: BaseException | None = None  # stays None after a plain `aclose`
        self._parts: list[Part] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = ""  # the name of the loop's, for whoever comes from another
        self._owner: asyncio.Task[None] | None = None
        self._tasks: TaskGroup | None = None
        # All of it runs in here, so that no variables of whoever is first leak into it.
        self.context = Context()
        self._left = False
        self._to_start: list[Callable[[], None]] = []
        self._wake = asyncio.Event()
        self._untold: list[Iterator[None]] | None = None

    def __repr__(self) -> str:
        return f"<Engine {self.state}>"

    @property
    def state(self) -> str:
        """How far it is, in a word or two."""
        return "closed" if self.closed else "running" if self._owner else "not started"

    # What the session calls; none of it waits.

    def is_running_here(self) -> bool:
        """Whether a verb may be used now, else raise; False where it has yet to be started."""
        here = _loop_here(self.of)
        if self._loop is not None and self._loop is not here and not self._left:
            raise WrongLoopError(_wrong_loop(self.of, self._loop, self._thread))
        if self.closed:
            raise self.closed_error()
        return self._loop is not None

    def start(self, *parts: Part) -> None:
        """Bind to the running loop and start the owner task; the first part is closed last.

        Where a part cannot run here, it raises, and the engine can be started later.
        """
        for part in parts:
            part.bind()
        loop = asyncio.get_running_loop()
        self.context.run(_owned_by.set, self)
        # Both are known before the task begins: an eager one runs at once.
        self._parts, self._loop = list(parts), loop
        self._thread = current_thread().name
        try:
            self._owner = loop.create_task(
                _LateCoroutine(self._own),
                name=f"kling_omni_async.{self.of.task}",
                context=self.context,
            )
        except BaseException:  # by a task factory of the user's
            self._parts, self._loop = [], None
            raise
        self._owner.add_done_callback(self._ended)

    def add(self, part: Part) -> None:
        """Add a part that needs no opening, if the engine runs already."""
        if self._loop is not None:
            part.bind()
            self._parts.append(part)

    def start_soon(self, work: Callable[[*Ts], Awaitable[None]], *args: *Ts, name: str) -> None:
        """Start a task beside the others, from wherever; once all ends, do nothing."""
        # The owner starts it: a task group can be used from a task only (sniffio, where it is
        # installed, knows no library in a callback), and nobody's context leaks into it.
        self._to_start.append(partial(self._start, work, args, name))
        self._wake.set()

    def _start(self, work: Callable[[*Ts], Awaitable[None]], args: tuple[*Ts], name: str) -> None:
        assert self._tasks is not None  # noqa: S101 - the owner has opened it
        make = partial(self._guarded, work, args)
        self._tasks.start_soon(_LateCoroutine, make, self._cancelled_by_others, name=name)

    async def _guarded(self, work: Callable[[*Ts], Awaitable[None]], args: tuple[*Ts]) -> None:
        try:
            await work(*args)
        except asyncio.CancelledError:
            self._cancelled_by_others()
            raise
        except BaseException as defect:
            self.fail(defect)  # before the group cancels the others because of it
            raise

    def _cancelled_by_others(self) -> None:
        """End everything, unless it ends already: somebody would wait for that task for ever."""
        self.fail(_stopped_by_others())

    def do(self, steps: Iterator[None], *, name: str) -> None:
        """Do a long job: at once if it is short, else in slices beside everything else."""
        if not run_slice(steps):
            self.start_soon(in_slices, steps, name=name)

    def fail(self, reason: BaseException) -> None:
        """Begin to end everything because of a defect, or as somebody else cancelled a task."""
        if not self.closed:
            self.close_reason = reason
            self.cancel()
        elif self.close_reason is None:
            _log_defect(reason)  # of a plain end: nobody hears of it otherwise

    def guarded(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Return a callback of a timer: no task runs there that a defect could end."""

        def call() -> None:
            try:
                callback()
            except Exception as defect:  # noqa: BLE001 - it reaches all who wait
                self.fail(defect)

        return call

    def cancel(self) -> None:
        """Begin to end everything."""
        was_closed, self.closed = self.closed, True
        owner = self._owner
        if was_closed or owner is None or owner.get_loop().is_closed():
            return
        # An owner that ends by itself is not cancelled: that would cut its winding up short.
        if owner is not asyncio.current_task():
            owner.cancel()

    def call_from_anywhere(self, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        """Run a callback in the loop, from any thread and from ``__del__``."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop has gone, and with it all that ran there
                self._loop.call_soon_threadsafe(callback, *args)

    async def aclose(self) -> None:
        """End everything and wait until it has ended; more calls do no harm."""
        owner = self._owner
        if self._loop is not None and self._loop.is_closed():
            owner = None  # all that ran there has gone with it
        if not self.closed and owner is not None and not owner.done():
            self.is_running_here()
        self._left = True
        self.cancel()
        # An input that closes its own session must not wait for itself.
        if owner is not None and not owner.done() and _owned_by.get() is not self:
            await asyncio.wait([owner])  # not the task itself: its cancellation is not its closer's

    async def wait_for(self, event: asyncio.Event) -> None:
        """Wait for an event that a task in here sets, or for the end of all tasks in here."""
        if self._owner is None or self._owner.done():
            return
        waiting = asyncio.ensure_future(event.wait())
        try:
            await asyncio.wait([waiting, self._owner], return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            await asyncio.wait([waiting])

    def closed_error(self) -> KlingOmniError:
        """Return the error of what can be used no more, with what closed it."""
        error = self.of.closed(f"the {self.of.name} is closed; open a new {self.of.maker}")
        error.__cause__ = self.close_reason
        return error

    # The owner task.

    async def _own(self) -> None:
        try:
            await self._run()
        except asyncio.CancelledError:
            self._note(_stopped_by_others())  # unless it was us
            raise
        except BaseException as error:  # noqa: BLE001 - reaches all who wait
            self._note(_unwrapped(error))
        finally:
            await self._wind_up()

    async def _run(self) -> None:
        for part in self._parts:
            await part.open()
        async with anyio.create_task_group() as self._tasks:
            try:
                while True:
                    await self._wake.wait()
                    self._wake.clear()
                    while self._to_start:
                        self._to_start.pop(0)()
            except Exception as defect:
                self.fail(defect)  # such as of a user's task factory
                raise
            finally:
                self._note(_stopped_by_others())
                for part in self._parts:
                    self._stop(part)
                # Before the inputs are closed: in its clean-up one may wait for somebody who waits
                # here. Shielded, as a group that a defect has ended cancels at each await.
                with anyio.CancelScope(shield=True):
                    await self._tell_end()

    def _stop(self, part: Part) -> None:
        try:
            part.stop()
        except Exception as defect:  # noqa: BLE001 - those who wait are told all the same
            self.fail(defect)

    def _note(self, reason: BaseException) -> None:
        """Keep why it ends, if nobody has said so before."""
        if not self.closed:
            self.close_reason = reason
        self.closed = True

    async def _wind_up(self) -> None:
        _log_defect(self.close_reason)
        async with AsyncExitStack() as closing:  # all are closed, whatever one of them raises
            for part in self._parts:
                closing.push_async_callback(part.aclose)
            await self._tell_end()

    async def _tell_end(self) -> None:
        for steps in self._endings():
            await in_slices(steps)

    def _endings(self) -> list[Iterator[None]]:
        if self._untold is None:
            reason = self.close_reason
            if reason is None or isinstance(reason, _StoppedByOthersError):
                reason = self.closed_error()
            self._untold = [part.tell_end(reason) for part in self._parts]
        return self._untold

    def _ended(self, owner: asyncio.Task[None]) -> None:
        """Tell those whom a cancelled owner could not tell any more."""
        if not owner.cancelled():
            _log_defect(owner.exception())  # of winding up: what came before it is known
        self.closed = True
        for steps in self._endings():
            for _ in steps:
                pass


def _loop_here(of: Owner) -> asyncio.AbstractEventLoop:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise WrongLoopError(
            f"no event loop runs in thread {current_thread().name!r}; call it in the {of.name}'s "
            f"own loop, or hand it over by a portal of anyio: portal.call({_bare(of)})"
        ) from None


def _bare(of: Owner) -> str:
    """Return a verb that takes nothing, as it is handed over."""
    return "session.stats" if of is OF_SESSION else of.call.partition("(")[0]


def _wrong_loop(of: Owner, loop: asyncio.AbstractEventLoop, thread: str) -> str:
    """Say which loop it belongs to, and what to write instead."""
    this, maker = f"this {of.name} belongs to", of.maker
    if loop.is_closed():
        return (
            f"{this} an event loop that has ended, as each asyncio.run makes a new "
            f"one; make one {maker} for each, inside the function that asyncio.run is "
            f"given: async with {maker}() as {of.name}:"
        )
    if loop.is_running():  # a thread runs one loop at a time
        return (
            f"{this} the event loop of thread {thread!r}, not to that of "
            f"{current_thread().name!r}; make one {maker} for each, or hand the call "
            f"over: asyncio.run_coroutine_threadsafe({of.call}, loop)"
        )
    return (
        f"{this} another event loop, which stands still now; make one "
        f"{maker} for each, or use one loop for all calls"
    )


class _LateCoroutine(Coroutine[Any, Any, None]):
    """A coroutine that is made at its first step.

    A task that is cancelled before its first step never begins its coroutine; where the loop ends
    just then, Python would complain of one that was never awaited (anyio closes it neither).
    """

    def __init__(
        self,
        make: Callable[[], Coroutine[Any, Any, None]],
        lost: Callable[[], object] | None = None,
    ) -> None:
        self._make = make
        self._lost = lost  # is called where there was no first step
        self._made: Coroutine[Any, Any, None] | None = None

    def __await__(self) -> Generator[Any, Any, None]:
        self._made = self._make()
        return self._made.__await__()

    def send(self, value: Any, /) -> Any:
        """Make it, if this is its first step, and do a step."""
        if self._made is None:
            self._made = self._make()
        return self._made.send(value)

    def throw(self, *error: Any) -> Any:
        """Raise inside it, or in its place."""
        if self._made is None:
            raise error[0]
        return self._made.throw(*error)

    def close(self) -> None:
        """Close it, if it was made."""
        if self._made is not None:
            self._made.close()

    def __del__(self) -> None:
        """Say that nobody does its work; no other way tells of a task that never began."""
        if self._made is None and self._lost is not None:
            self._lost()


class _StoppedByOthersError(RuntimeError):
    """Says that somebody cancelled a task that is not his."""


def _stopped_by_others() -> _StoppedByOthersError:
    return _StoppedByOthersError("a task of the session was cancelled from outside it")


def _log_defect(reason: BaseException | None) -> None:
    if reason is not None and not isinstance(reason, _StoppedByOthersError):
        name = type(reason).__name__
        logger.error("a defect has ended the session: %s", name, exc_info=reason)


def run_slice(steps: Iterator[None]) -> bool:
    """Do a part of a job that takes `SLICE_S`; tells whether that was all."""
    until = perf_counter() + SLICE_S  # in real time, also on a virtual clock
    for _ in islice(steps, STEPS_PER_SLICE):
        if perf_counter() >= until:
            return False
    return next(steps, _DONE) is _DONE


async def in_slices(steps: Iterator[None]) -> None:
    """Do a job, and let the loop run after each slice."""
    while not run_slice(steps):  # noqa: ASYNC110 - no event is waited for
        await asyncio.sleep(0)


def _unwrapped(defect: BaseException) -> BaseException:
    """Return the one exception inside a task group's, or the group of several."""
    inner = cast("Sequence[BaseException]", getattr(defect, "exceptions", ()))
    return _unwrapped(inner[0]) if len(inner) == 1 else defect
