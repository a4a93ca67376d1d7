"""What the poller keeps of one stream; the stream itself may be dropped at any time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterable
from typing import Final

import anyio

from kling_omni_async._outcome import Progress, TaskOutcome
from kling_omni_async._saving.saver import SaveOrder
from kling_omni_async._saving.stores import SavePlan
from kling_omni_async.errors import TaskFailedError

from .timers import NEVER, Timed
from .verdicts import Judgement
from .waiters import End, Ending, Entry, Ticket

TAKES_PER_PASS: Final = 64
"""How many outcomes a consumer gets in a row before other tasks have a turn."""

TaskIds = Iterable[str] | AsyncIterable[str]


class BatchTicket(Ticket):
    """An id of a stream.

    Attributes:
        batch: The stream's inside.
    """

    __slots__ = ("batch",)
    must_query = True

    def __init__(self, batch: Batch, *, added: float) -> None:
        self.when = NEVER  # not by way of two base classes: there may be a million of them
        self.entry: Entry | None = None
        self.added = added
        self.deadline = None
        self.queries_before = 0
        self.batch: Batch = batch

    @property
    def alive(self) -> bool:
        """Whether the stream is still there."""
        return not self.batch.closed

    def queried(self, now: float) -> None:
        """Let the id's time run from the start of its first query."""
        timeout = self.batch.timeout
        if self.deadline is None and timeout is not None:
            self.deadline = now + timeout
            self.batch.running.append(self)

    def finish(self, entry: Entry, judgement: Judgement, now: float, /) -> None:
        """Put the outcome into the stream."""
        self.batch.polling -= 1
        self.batch.conclude(
            TaskOutcome(
                task_id=entry.task_id,
                task=judgement.task,
                error=judgement.error,
                queries=entry.queries - self.queries_before,
                elapsed=now - self.added,
            )
        )

    def abort(self, reason: Ending) -> None:
        """Do nothing: the batch is told as a whole."""


class Batch(Timed):
    """The inside of a stream. ``when`` is the alarm of its first deadline.

    Attributes:
        source: Where the ids come from.
        is_feed: Whether an id that was handed out may come again; otherwise repeats are dropped.
        timeout: The time for each id from the start of its first query, in s, or None.
        pending: Ids not yet handed out.
        polling: Tickets that wait.
        reading: Whether the input has not ended.
        running: Tickets in the order of their deadlines; some may be done.
        closed: Whether nothing more may be put in.
        feeding: What stops the reading of the input once that has begun.
        next_first: When the next first query of this batch may start, in s.
        plan: Where the images go, or None where they are not saved.
        save: Begins to save the images of an outcome.
        orders: Outcomes whose images are being saved.
    """

    __slots__ = (
        "_counts",
        "_cut",
        "_end",
        "_handed_out",
        "_queue",
        "_taken",
        "closed",
        "feeding",
        "is_feed",
        "next_first",
        "orders",
        "pending",
        "plan",
        "polling",
        "reading",
        "running",
        "save",
        "source",
        "timeout",
        "total",
    )

    def __init__(
        self, source: TaskIds, *, timeout: float | None, plan: SavePlan | None = None
    ) -> None:
        super().__init__()
        self.source: TaskIds = source
        self.is_feed: bool = isinstance(source, AsyncIterable)
        self.plan: SavePlan | None = plan
        self.save: Callable[[TaskOutcome], None] | None = None
        self.orders: set[SaveOrder] = set()
        self.timeout: float | None = timeout
        self.pending: set[str] = set()
        self.polling: int = 0
        self.reading: bool = True
        self.running: deque[BatchTicket] = deque()
        self.closed: bool = False
        self.feeding: anyio.CancelScope | None = None
        self.next_first: float | None = None
        self.total: int = 0
        self._handed_out: set[str] = set()
        self._queue: asyncio.Queue[TaskOutcome | End] = asyncio.Queue()
        self._end = End()
        self._cut: End | None = None
        self._taken = 0
        self._counts = {"succeeded": 0, "failed": 0, "unresolved": 0}

    def __repr__(self) -> str:
        return f"<Batch {self.progress}>"

    @property
    def progress(self) -> Progress:
        """The counts at this moment."""
        return Progress(total=self.total, pending=len(self.pending), **self._counts)

    def is_new(self, task_id: str) -> bool:
        """Take an id up, unless it is a repeat."""
        if task_id in self.pending or task_id in self._handed_out:
            return False
        self.pending.add(task_id)
        self.total += 1
        return True

    def conclude(self, outcome: TaskOutcome) -> None:
        """Take the outcome of an id, and save its images first if that was asked for."""
        if self.save is not None and outcome.ok and not self.closed:
            self.save(outcome)
        else:
            self.put(outcome)

    def put(self, outcome: TaskOutcome) -> None:
        """Add an outcome that a consumer may take, unless the stream is closed."""
        if not self.closed:
            self._add(outcome)

    def saved(self, order: SaveOrder, outcome: TaskOutcome) -> None:
        """Add an outcome whose images were saved or given up, also behind a fault of the set-up."""
        self.orders.discard(order)
        self._add(outcome)
        self._end_if_saved()

    def _add(self, outcome: TaskOutcome) -> None:
        self._counts[_kind_of(outcome)] += 1
        self._queue.put_nowait(outcome)

    def _end_if_saved(self) -> None:
        if self.closed and not self.orders:
            self._queue.put_nowait(self._end)

    def input_ended(self, reason: Ending | None = None) -> None:
        """Note that no more ids come, because of the input's own exception if there is one."""
        self.reading = False
        self._handed_out = set()
        if not self.closed:
            self._end = End(reason)

    def next_running(self) -> BatchTicket | None:
        """Give the ticket whose deadline is next, and let go of those before it that are done."""
        running = self.running
        while running and running[0].entry is None:
            running.popleft()
        return running[0] if running else None

    @property
    def is_complete(self) -> bool:
        """Whether all that was read has an outcome and nothing more will be read."""
        return not self.reading and not self.polling and not self.orders

    def complete(self) -> None:
        """End the stream behind what it holds."""
        self.close(self._end)

    def close(self, end: End) -> None:
        """Take nothing more in; consumers get what is there or being saved, then the end."""
        if self.closed:
            return
        self.closed = True
        self._end = end
        if self.feeding is not None:
            self.feeding.cancel()
        self._end_if_saved()

    def cut(self, end: End) -> None:
        """Take nothing more in; consumers get the end at once, or the one it had before."""
        self.close(end)
        self._cut = self._end
        self._queue.put_nowait(self._end)  # wakes who waits for what is being saved

    async def take(self) -> TaskOutcome:
        """Wait for the next outcome and count it as handed out.

        Raises:
            StopAsyncIteration: There is none any more.
            BaseException: Why there is none any more.
        """
        self._taken += 1
        if self._taken % TAKES_PER_PASS == 0:
            await asyncio.sleep(0)
        item = self._cut or await self._queue.get()
        if isinstance(item, End):
            self._queue.put_nowait(item)  # for the next step, of this consumer or another
            item.throw()
        self.pending.discard(item.task_id)
        if self.reading and not self.is_feed:
            self._handed_out.add(item.task_id)
        return item


def _kind_of(outcome: TaskOutcome) -> str:
    if outcome.ok:
        return "succeeded"
    return "failed" if isinstance(outcome.error, TaskFailedError) else "unresolved"
