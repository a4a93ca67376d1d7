"""Work that blocks, in threads of its own, and waited for to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextvars import ContextVar
from typing import Final, TypeVar, TypeVarTuple

import anyio

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_MOST_THREADS: Final = 32


class OwnThreads:
    """Threads for one kind of work, so that a slow disk or DNS holds up nothing else.

    They are made with the first work: a pool that was made before `os.fork` has no threads in the
    child, and would wait for them.
    """

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = min(most, _MOST_THREADS)
        self._pool: ThreadPoolExecutor | None = None

    @property
    def pool(self) -> Executor:
        """The threads."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._most, self._name)
        return self._pool

    def close(self) -> None:
        """Release them; work that still runs is not waited for, work that waits is dropped."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)


own_threads: Final[ContextVar[OwnThreads | None]] = ContextVar("own_threads", default=None)
"""The threads of the running task; by default those of its loop."""


async def in_thread(
    work: Callable[[*Ts], T], *args: *Ts, undo: Callable[[T], object] | None = None
) -> T:
    """Run work in a thread, and wait for its end even if cancelled: it may hold a file.

    A result that nobody can take any more goes to `undo`.
    """
    # Not anyio's: a plain `task.cancel()` would leave its thread running, with the file in it.
    own = own_threads.get()
    pool = None if own is None else own.pool
    running = asyncio.get_running_loop().run_in_executor(pool, work, *args)
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
