"""A time-out for many tasks whose work may all take equally long, at the price of one timer."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from types import TracebackType
from typing import Any


class SharedTimeout:
    """Does what `asyncio.timeout` does, around any number of tasks at once.

    What began first is due first, so the tasks stand in the order of their deadlines, and the
    loop's heap of timers is spared two steps for each query.

    Args:
        limit_s: How long each may take, in s.
    """

    __slots__ = ("_limit_s", "_overdue", "_running", "_timer")

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._running: OrderedDict[asyncio.Task[Any], float] = OrderedDict()
        self._overdue: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = self._running[_this_task(loop)] = loop.time() + self._limit_s
        if self._timer is None:
            self._timer = loop.call_at(deadline, self._ring)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Turn our own cancellation into an exception, and leave everybody else's alone.

        Raises:
            TimeoutError: The time was up.
        """
        task = _this_task(asyncio.get_running_loop())
        self._running.pop(task, None)
        if not self._running and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if task in self._overdue:
            self._overdue.remove(task)
            if not task.uncancel() and exc_type is asyncio.CancelledError:
                raise TimeoutError from exc

    def _ring(self) -> None:
        """Cancel the tasks whose time is up, and wait for the next one's."""
        loop = asyncio.get_running_loop()
        self._timer = None
        while self._running:
            task, deadline = next(iter(self._running.items()))
            if deadline > loop.time():
                self._timer = loop.call_at(deadline, self._ring)
                return
            del self._running[task]
            self._overdue.add(task)
            task.cancel()


def _this_task(loop: asyncio.AbstractEventLoop) -> asyncio.Task[Any]:
    task = asyncio.current_task(loop)
    assert task is not None  # noqa: S101 - queries run in workers
    return task
