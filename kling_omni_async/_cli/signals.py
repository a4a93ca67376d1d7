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

from .once import Interrupted, Once, interruptible

T = TypeVar("T")


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
