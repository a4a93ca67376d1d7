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


def _interrupt(_: int, __: FrameType | None) -> None:
    raise Interrupted


def _cancel_here(_: int, __: FrameType | None) -> None:
    raise asyncio.CancelledError


class Once:
    """Interrupts at the first signal; what follows on that is left in peace.

    ``timeout`` and terminals may send a signal twice.

    Attributes:
        spent: Whether signals have no effect any more.
    """

    def __init__(self) -> None:
        self.spent = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        if not self.spent:
            self.spent = True
            _interrupt(number, frame)


@contextmanager
def interruptible(handler: _Handler = _interrupt, *, for_good: bool = False) -> Generator[None]:
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


@contextmanager
def waiting() -> Generator[None]:
    """Let a signal break off a wait, also one that came a moment before it."""
    outer = signal.getsignal(signal.SIGINT)
    if not isinstance(outer, _Work):
        with interruptible():
            yield
        return
    with interruptible(_cancel_here):
        if outer.cancelled:
            raise asyncio.CancelledError
        yield


def ignore_signals() -> None:
    """Let no signal spoil the exit code while Python takes the process down."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine function in a loop of its own; each signal cancels it once.

    Raises:
        KeyboardInterrupt: A signal came before it had ended.
    """
    work = _Work(main)
    try:
        with interruptible(work):
            return asyncio.run(work.run())
    except asyncio.CancelledError:
        signal.raise_signal(signal.SIGINT)  # so that `Once` knows of it
        raise Interrupted from None


class _Work(Generic[T]):
    """A coroutine function that signals can cancel before, while and after it runs."""

    def __init__(self, main: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self.cancelled = False
        self._main = main
        self._task: asyncio.Task[Any] | None = None

    async def run(self) -> T:
        self._task = asyncio.current_task()
        if self.cancelled:
            raise asyncio.CancelledError
        try:
            return await self._main()
        finally:
            self._task = None

    def __call__(self, _: int, __: FrameType | None) -> None:
        self.cancelled = True
        if self._task is not None:
            self._task.cancel()
            self._task.get_loop().call_soon_threadsafe(lambda: None)  # wakes the loop
