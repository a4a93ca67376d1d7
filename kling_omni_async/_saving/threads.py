"""Work that blocks, such as that of a file system, beside the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import ContextVar
from typing import Final, TypeVar, TypeVarTuple

import anyio

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

MOST_THREADS: Final = 32

own_threads: Final[ContextVar[Executor | None]] = ContextVar("own_threads", default=None)
"""The threads of the running task; by default those of its loop."""


async def in_thread(
    work: Callable[[*Ts], T], *args: *Ts, undo: Callable[[T], object] | None = None
) -> T:
    """Run work in a thread, and wait for its end even if cancelled: it may hold a file.

    Args:
        work: What blocks.
        args: For it.
        undo: Takes a result that nobody can take any more.
    """
    running = asyncio.get_running_loop().run_in_executor(own_threads.get(), work, *args)
    try:
        await _ended(running)
    except asyncio.CancelledError:  # by a task's own `cancel`, which no scope keeps off
        await _ended(running)
        if running.exception() is None and undo is not None:
            undo(running.result())
        raise
    return running.result()


async def _ended(running: asyncio.Future[T]) -> None:
    with anyio.CancelScope(shield=True):
        await asyncio.wait([running])
