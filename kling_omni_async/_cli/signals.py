"""Ctrl-C and SIGTERM: they end the work in good order, at whatever moment they come.

Where nothing is under way a signal raises KeyboardInterrupt. In a loop it only cancels: an
exception that comes up between any two instructions would tear tasks, and an outcome that is
written would still be pending.

`kling_omni_async.__main__` imports this module before any other, so it imports next to nothing.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")
Handler = Callable[[int, FrameType | None], None]

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """Raised by a signal.

    A class of our own: where code that was made from text raises KeyboardInterrupt itself,
    Python later dies of SIGINT, even if that was caught.
    """


class Once:
    """Interrupts at the first signal, from `heed_signals` on; what comes after it does nothing.

    Modules that are being imported and pending ids that are being told are left in peace:
    ``timeout`` and terminals may send a signal twice.
    """

    error: type[BaseException] = Interrupted
    came = False
    heeded = False  # whether the first one interrupts
    waits = False  # whether any one interrupts

    def __call__(self, _: int, __: FrameType | None) -> None:
        """Handle a signal."""
        interrupts = self.waits or (self.heeded and not self.came)
        self.came = True
        self.waits = False
        if interrupts:
            raise self.error


class _Canceller:
    """Cancels a task at each signal, before, while and after it runs."""

    came = False
    waits = False  # whether the next one raises where it comes
    task: asyncio.Task[Any] | None = None  # none before it runs, and after

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def __call__(self, _: int, __: FrameType | None) -> None:
        """Handle a signal."""
        interrupts, self.waits = self.waits, False
        self.came = True
        if interrupts:
            raise self.error
        if self.task is not None:
            self.task.cancel()
            # A handler runs between two instructions, and the loop may be asleep in its selector.
            self.task.get_loop().call_soon_threadsafe(lambda: None)


@contextmanager
def interruptible(handler: Handler, *, for_good: bool = False) -> Generator[None]:
    """Have a handler for both signals, even if a shell set them to be ignored."""
    before = [signal.signal(number, handler) for number in SIGNALS]
    try:
        yield
    finally:
        # What is for good stays until the process ends: no moment is left to Python's own handlers.
        if not for_good:
            for number, old in zip(SIGNALS, before, strict=True):
                signal.signal(number, old)


def ignore_signals() -> None:
    """Keep signals from spoiling the exit code while Python takes the process down."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def heed_signals() -> None:
    """Heed signals from here on: they interrupt, those that have come already too."""
    handler = signal.getsignal(signal.SIGINT)
    if isinstance(handler, Once):
        handler.heeded = True
        if handler.came:
            raise handler.error


@contextmanager
def waiting(*, anew: bool = False) -> Generator[None]:
    """Wait, unless a signal breaks that off, also one that came before it (but not if `anew`)."""
    handler = signal.getsignal(signal.SIGINT)
    if not isinstance(handler, Once | _Canceller):
        yield
        return
    handler.waits = True
    try:
        # Looked at only now: a signal between a look and `waits` would be lost.
        if handler.came and not anew:
            raise handler.error
        yield
    finally:
        handler.waits = False


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine function in a loop of its own; each signal cancels it once."""
    import asyncio  # noqa: PLC0415 - it takes its time, and signals are not taken over before

    heed_signals()
    canceller = _Canceller(asyncio.CancelledError)

    async def cancellable() -> T:
        canceller.task = asyncio.current_task()
        if canceller.came:
            raise canceller.error
        try:
            return await main()
        finally:
            canceller.task = None

    try:
        with interruptible(canceller):
            return asyncio.run(cancellable())
    except asyncio.CancelledError:
        # The signal was the first of the whole command too: none after it may raise once more.
        outer = signal.getsignal(signal.SIGINT)
        if isinstance(outer, Once):
            outer.came = True
        raise Interrupted from None
