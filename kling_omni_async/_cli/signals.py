"""Ctrl-C and SIGTERM: the first ends the work in good order, the second ends the program at once.

`kling_omni_async.__main__` imports this module before any other, so it imports next to nothing.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")

SIGNALS = (signal.SIGINT, signal.SIGTERM)

SAME_S: Final = 0.1
"""How long, in s, another signal is still the first one: ``timeout`` sends it twice."""

_STDERR: Final = 2
_INTERRUPTED: Final = 130  # `exit.Exit` would import all errors


class Interrupted(KeyboardInterrupt):
    """Raised by a signal.

    A class of our own: where code that was made from text raises KeyboardInterrupt itself,
    Python later dies of SIGINT, even if that was caught.
    """


def hold() -> None:
    """Do nothing yet: the signal is remembered."""


def _interrupt() -> NoReturn:
    raise Interrupted


class Signals:
    """The handler of both signals: what `first` does at the first one, and the end at the second.

    Modules that are being imported are left in peace, so `first` is to hold until `heed`.
    """

    def __init__(
        self,
        *,
        end: Callable[[int], object] = os._exit,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.first: Callable[[], object] = hold
        self.came_at: float | None = None
        self.farewell = b""  # is written to stderr at a hard end
        self._end = end
        self._clock = clock

    def __call__(self, _: int, __: FrameType | None) -> None:
        """Handle a signal."""
        now = self._clock()
        if self.came_at is None:
            self.came_at = now
            self.first()
        elif now - self.came_at > SAME_S:
            self._end_at_once()

    def _end_at_once(self) -> None:
        ignore_signals()  # a third one would begin here anew
        # Nothing of Python's: whatever is held up may hold a lock of it. And no wait for a reader.
        with suppress(OSError):
            if select.select((), (_STDERR,), (), 0)[1]:
                os.write(_STDERR, self.farewell + b"kling-omni: ended at once\n")
        self._end(_INTERRUPTED)

    def heed(self) -> None:
        """Interrupt at the first signal from here on, and now if it has come already."""
        self.first = _interrupt
        if self.came_at is not None:
            raise Interrupted

    def install(self) -> None:
        """Become the handler, even if a shell set the signals to be ignored."""
        for number in SIGNALS:
            signal.signal(number, self)

    @contextmanager
    def cancelling(self, task: asyncio.Task[Any]) -> Generator[None]:
        """Cancel a task at the first signal.

        An exception that comes up between any two instructions would tear tasks, and an outcome
        that is written would still be pending.
        """
        loop = task.get_loop()
        once = [task.cancel]

        def cancel() -> None:
            # The loop is told of each signal, those too that came while it stood still.
            while once:
                once.pop()()

        try:
            for number in SIGNALS:
                # It wakes a loop that is about to sleep, which a handler of Python's does not.
                loop.add_signal_handler(number, cancel)
        except NotImplementedError:  # Windows
            self.first = partial(loop.call_soon_threadsafe, cancel)
        # Over the loop's: a second signal ends a loop too that stands still.
        self.install()
        try:
            if self.came_at is not None:
                cancel()
            yield
        finally:
            self.first = hold
            for number in SIGNALS:
                with suppress(NotImplementedError), _blocked():
                    loop.remove_signal_handler(number)  # which leaves Python's own behind
                    self.install()


@contextmanager
def _blocked() -> Generator[None]:
    """Let signals wait, where the system can do that."""
    if not hasattr(signal, "pthread_sigmask"):  # pragma: no cover - Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def interruptible(signals: Signals, *, for_good: bool = False) -> Generator[Signals]:
    """Have a handler for both signals."""
    before = [signal.getsignal(number) for number in SIGNALS]
    signals.install()
    try:
        yield signals
    finally:
        # What is for good stays until the process ends: no moment is left to Python's own handlers.
        if not for_good:
            for number, old in zip(SIGNALS, before, strict=True):
                signal.signal(number, old)


def ignore_signals() -> None:
    """Keep signals from spoiling the exit code while Python takes the process down."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def installed() -> Signals:
    """Return the handler of both signals; one that nobody calls where there is none of ours."""
    handler = signal.getsignal(signal.SIGINT)
    return handler if isinstance(handler, Signals) else Signals()


def heed_signals() -> None:
    """Interrupt at the first signal from here on, and now if it has come already."""
    installed().heed()


def hold_signals() -> None:
    """Let the first signal wait from here on; what is being told or closed is to end whole."""
    installed().first = hold


@contextmanager
def waiting() -> Generator[None]:
    """Heed signals while something is waited for that may never come."""
    signals = installed()
    before = signals.first
    try:
        signals.heed()
        yield
    finally:
        signals.first = before


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine function in a loop of its own; the first signal cancels it."""
    import asyncio  # noqa: PLC0415 - it takes its time, and signals are not taken over before

    from .threads import UnwaitedThreads  # noqa: PLC0415 - as above

    async def cancellable() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine of `asyncio.run` has one
        loop.set_default_executor(UnwaitedThreads())
        with signals.cancelling(task):
            await asyncio.sleep(0)  # what came before cancels here, before anything has begun
            return await main()

    with interruptible(installed()) as signals:
        signals.heed()
        # While the loop is made nothing may be broken off.
        signals.first = hold
        try:
            return asyncio.run(cancellable())
        except asyncio.CancelledError:
            raise Interrupted from None
        finally:
            signals.first = _interrupt
