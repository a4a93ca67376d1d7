"""Ctrl-C and SIGTERM: the first one ends the work in good order, a second one at once."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")
_Handler = Callable[[int, FrameType | None], None]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def interruptible(handler: _Handler = _interrupt) -> Generator[None]:
    """Have a handler for both signals, even if a shell set them to be ignored."""
    before = [signal.signal(number, handler) for number in _SIGNALS]
    try:
        yield
    finally:
        for number, old in zip(_SIGNALS, before, strict=True):
            signal.signal(number, old)


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine function in a loop of its own; the first signal cancels it.

    Raises:
        KeyboardInterrupt: A signal came.
    """
    try:
        return asyncio.run(_cancelled_by_signal(main))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


async def _cancelled_by_signal(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    loop = asyncio.get_running_loop()
    task = asyncio.current_task(loop)
    seen: list[int] = []

    def cancel(number: int, frame: FrameType | None) -> None:
        if seen or task is None:
            _interrupt(number, frame)
        else:
            seen.append(number)
            task.cancel()
            loop.call_soon_threadsafe(lambda: None)  # wakes the loop

    with interruptible(cancel):
        return await main()
