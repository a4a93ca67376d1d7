"""What `poll` and `watch` give: async iterators that may be left at any moment, in any task."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import suppress
from types import TracebackType
from typing import Self

from ._models import ImageTask
from ._outcome import Progress, TaskOutcome
from ._polling.poller import Poller
from ._polling.stream import Batch
from ._polling.waiters import End, WatchTicket


class PendingIds(AbstractSet[str]):
    """A live, read-only view of the ids that a stream has not yet handed out.

    Copy it (``set(stream.pending)``) before the stream moves on while you iterate.
    """

    __slots__ = ("_ids",)

    def __init__(self, ids: set[str]) -> None:
        self._ids = ids

    def __contains__(self, task_id: object) -> bool:
        return task_id in self._ids

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)

    def __repr__(self) -> str:
        return f"<PendingIds of {len(self._ids)}>"

    @classmethod
    def _from_iterable(cls, it: object) -> AbstractSet[str]:  # type: ignore[override]
        return frozenset(it)  # type: ignore[call-overload,no-any-return]


class _Leavable(ABC):
    """An async iterator that begins with its first step or its block, and ends by `aclose`."""

    @abstractmethod
    def _start(self) -> object:
        """Begin, unless it has begun."""

    @abstractmethod
    async def aclose(self) -> None:
        """Leave."""

    def __aiter__(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        self._start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


class OutcomeStream(_Leavable):
    """The outcomes of `KlingOmniSession.poll`, in the order in which they become known.

    An async iterator and an async context manager. Nothing is asked before the block is entered
    or the first step is taken. Several consumers may share a stream; each outcome goes to one.
    """

    def __init__(self, poller: Callable[[], Poller], batch: Batch) -> None:
        self._find_poller = poller
        self._poller: Poller | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._batch = batch

    def __repr__(self) -> str:
        state = "closed" if self._batch.closed else "open" if self._poller else "not started"
        return f"<OutcomeStream {state} {self.progress}>"

    @property
    def pending(self) -> AbstractSet[str]:
        """The ids not yet handed out, as a live view that is readable after closing too."""
        return PendingIds(self._batch.pending)

    @property
    def progress(self) -> Progress:
        """The counts at this moment, readable after closing too."""
        return self._batch.progress

    async def __anext__(self) -> TaskOutcome:
        """Wait for the next outcome.

        Raises:
            StopAsyncIteration: All ids have come out, or the stream was closed.
            InvalidTaskIdError: The input held something that is no str.
            AuthenticationError: The key is not accepted; so do other faults of the set-up.
            SessionClosedError: The session was closed.
        """
        if not self._batch.closed:
            self._start()
        return await self._batch.take()

    async def aclose(self) -> None:
        """Leave: the ids that are still pending are dropped at once."""
        self._batch.cut(End())
        if self._poller is not None:
            self._poller.abandon(self._batch)

    def _start(self) -> None:
        if self._loop is asyncio.get_running_loop():
            return  # what ended it since then is told behind what it holds
        poller = self._find_poller()
        self._poller = poller
        self._loop = asyncio.get_running_loop()
        poller.open_batch(self._batch)

    def __del__(self) -> None:
        """Drop the ids of a stream that nobody can read any more."""
        loop, poller = self._loop, self._poller
        unread = not self._batch.closed or bool(self._batch.orders)
        if loop is not None and poller is not None and unread:
            call_soon(loop, poller.abandon, self._batch)


class TaskUpdates(_Leavable):
    """The answers of `KlingOmniSession.watch`: the first, each change of status, the final one.

    An async iterator and an async context manager. Nothing is asked before the block is entered
    or the first step is taken.
    """

    def __init__(
        self,
        poller: Callable[[], Poller],
        task_id: str,
        *,
        timeout: float | None,
        called_at: float | None,
    ) -> None:
        self._find_poller = poller
        self._task_id = task_id
        self._timeout = timeout
        self._called_at = called_at
        self._poller: Poller | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ticket: WatchTicket | None = None
        self._end: End | None = None

    def __repr__(self) -> str:
        state = "closed" if self._end else "open" if self._poller else "not started"
        return f"<TaskUpdates {state} of {self._task_id!r}>"

    async def __anext__(self) -> ImageTask:
        """Wait for the next change.

        Raises:
            StopAsyncIteration: The final answer was given, or the iterator was closed.
            KlingOmniError: There will be no final answer; the class says why.
        """
        item = self._end or await self._start().updates.get()
        if isinstance(item, End):
            self._finish(item)
            item.throw()
        return item

    async def aclose(self) -> None:
        """Leave; the remote task is not touched."""
        self._finish(End())
        if self._poller is not None and self._ticket is not None:
            self._poller.leave(self._ticket)

    def _start(self) -> WatchTicket:
        if self._ticket is None or self._loop is not asyncio.get_running_loop():
            poller = self._find_poller()
            self._poller, self._loop = poller, asyncio.get_running_loop()
            added = poller.now() if self._called_at is None else self._called_at
            deadline = None if self._timeout is None else added + self._timeout
            self._ticket = WatchTicket(added=added, deadline=deadline)
            poller.call(self._task_id, self._ticket)
        return self._ticket

    def _finish(self, end: End) -> None:
        self._end = self._end or end
        if self._ticket is not None:
            self._ticket.updates.put_nowait(end)  # wakes another consumer that waits

    def __del__(self) -> None:
        """Leave for somebody who dropped the iterator."""
        if self._loop and self._poller and self._ticket and not self._end:
            call_soon(self._loop, self._poller.leave, self._ticket)


def call_soon(
    loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *args: object
) -> None:
    """Run a callback in a loop from any thread, if the loop is still there."""
    with suppress(RuntimeError):  # the loop has gone, and with it all that polled
        loop.call_soon_threadsafe(callback, *args)
