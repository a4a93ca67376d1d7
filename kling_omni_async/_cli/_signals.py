"""Ctrl-C and SIGTERM: they end the work in good order, at whatever moment they come.

Where nothing is under way a signal raises KeyboardInterrupt. In a loop it only cancels: an
exception that comes up between any two instructions would tear tasks, and an outcome that is
written would still be pending.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Generic, TypeVar

T = TypeVar("T")
_Handler = Callable[[int, FrameType | None], None]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """Raised by a signal.

    A class of our own: where code that was made from text raises KeyboardInterrupt itself,
    Python later dies of SIGINT, even if that was caught.
    """


class Once:
    """Interrupts at the first signal, from `heed_signals` on; what comes after it does nothing.

    Modules that are being imported and pending ids that are being told are left in peace:
    ``timeout`` and terminals may send a signal twice.

    Attributes:
        came: Whether a signal has come.
        heeded: Whether the first one interrupts.
        waits: Whether any one interrupts.
    """

    error: type[BaseException] = Interrupted

    def __init__(self) -> None:
        self.came = False
        self.heeded = False
        self.waits = False

    def __call__(self, _: int, __: FrameType | None) -> None:
        """Handle a signal."""
        interrupts = self.waits or (self.heeded and not self.came)
        self.came = True
        self.waits = False
        if interrupts:
            raise self.error


class _Work(Generic[T]):
    """A coroutine function that signals can cancel before, while and after it runs."""

    error: type[BaseException] = asyncio.CancelledError

    def __init__(self, main: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self.came = False
        self.waits = False
        self._main = main
        self._task: asyncio.Task[Any] | None = None

    async def run(self) -> T:
        self._task = asyncio.current_task()
        if self.came:
            raise self.error
        try:
            return await self._main()
        finally:
            self._task = None

    def __call__(self, _: int, __: FrameType | None) -> None:
        interrupts, self.waits = self.waits, False
        self.came = True
        if interrupts:
            raise self.error
        if self._task is not None:
            self._task.cancel()
            self._task.get_loop().call_soon_threadsafe(lambda: None)  # wakes the loop


@contextmanager
def interruptible(handler: _Handler, *, for_good: bool = False) -> Generator[None]:
    """Have a handler for both signals, even if a shell set them to be ignored.

    Args:
        handler: What is called.
        for_good: Keep it until the process ends.
    """
    before = [signal.signal(number, handler) for number in _SIGNALS]
    try:
        yield
    finally:
        if not for_good:
            for number, old in zip(_SIGNALS, before, strict=True):
                signal.signal(number, old)


def ignore_signals() -> None:
    """Let no signal spoil the exit code while Python takes the process down."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def heed_signals() -> None:
    """Let signals interrupt from here on, those that have come already too.

    Raises:
        KeyboardInterrupt: A signal has come.
    """
    handler = signal.getsignal(signal.SIGINT)
    if isinstance(handler, Once):
        handler.heeded = True
        if handler.came:
            raise handler.error


@contextmanager
def waiting(*, anew: bool = False) -> Generator[None]:
    """Let a signal break off a wait, also one that came before it.

    Args:
        anew: Forget those that came before it.
    """
    handler = signal.getsignal(signal.SIGINT)
    if not isinstance(handler, Once | _Work):
        yield
        return
    handler.waits = True
    try:
        if handler.came and not anew:
            raise handler.error
        yield
    finally:
        handler.waits = False


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine function in a loop of its own; each signal cancels it once.

    Raises:
        KeyboardInterrupt: A signal came before it had ended.
    """
    heed_signals()
    work = _Work(main)
    try:
        with interruptible(work):
            return asyncio.run(work.run())
    except asyncio.CancelledError:
        outer = signal.getsignal(signal.SIGINT)
        if isinstance(outer, Once):
            outer.came = True
        raise Interrupted from None
