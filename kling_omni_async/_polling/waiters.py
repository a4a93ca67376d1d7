"""Who waits for what: an entry for each id, and a waiter for each one who waits for it."""

from __future__ import annotations

import asyncio
from typing import TypeAlias

from kling_omni_async._api.answers import read_task
from kling_omni_async._models import ImageTask, TaskStatus
from kling_omni_async._observer import Trace
from kling_omni_async._results import End, Ending, Result, resolve
from kling_omni_async.errors import KlingOmniError, TaskFailedError, for_task

from .limits import NEVER
from .schedule import Flight, Scheduled, Timed, TimerHeap
from .verdicts import PENDING, Reply, Unconfirmed, Verdict


class Alarm(Timed):
    """Something with a deadline. ``when`` is the time at which it is looked at."""

    __slots__ = ()

    def due(self, now: float, alarms: Alarms) -> Waiter | None:
        """Return who may have to give up, now that its time has come."""
        raise NotImplementedError


Alarms: TypeAlias = TimerHeap[Alarm]
"""The deadlines of all who wait."""


class Waiter(Alarm):
    """One who waits for one id. ``when`` is the time of its alarm.

    What differs from one way to wait to another is a method here; the watchlist asks nobody
    what he is.
    """

    __slots__ = ("added", "entry", "queries_before")

    added: float  # in s, as `deadline`
    entry: Entry | None  # while it waits
    queries_before: int  # of the entry, when the wait began

    once = False  # any answer will do, also one that says nothing of the task
    follows = False  # answers that are not final are wanted too
    must_query = False  # at least one query has to be completed before a time-out
    trace: Trace | None = None  # of the call that waits, where somebody looks on

    def __init__(self, *, added: float) -> None:
        self.when = NEVER
        self.entry = None
        self.added = added
        self.queries_before = 0

    @property
    def deadline(self) -> float | None:
        """When it gives up, in s; None for never, or not yet known."""
        return None

    def due(self, now: float, alarms: Alarms) -> Waiter | None:  # noqa: ARG002 - as the base
        """Return itself: it has an alarm of its own."""
        return self

    def queried(self, now: float, alarms: Alarms) -> bool:  # noqa: ARG002 - as above
        """Note that a query of the id starts, and return whether it is wanted."""
        return True

    @property
    def goes_on(self) -> bool:
        """Whether it came after the end of all waiting, in the same moment."""
        return False

    def left(self, alarms: Alarms) -> None:
        """Remove the alarm of one who waits no longer."""
        if self.when != NEVER:
            alarms.discard(self)

    def told(self, entry: Entry, verdict: Verdict, now: float) -> None:
        """Pass an answer, or the end, on to whom it concerns."""
        raise NotImplementedError

    def end(self, reason: Ending, task_id: str) -> None:
        """Pass the reason on why all waiting ended."""
        raise NotImplementedError

    def aged(self, born: float) -> None:
        """Note when the task was created, in s of the loop."""


class TimedWaiter(Waiter):
    """One who waits until a time of his own."""

    __slots__ = ("deadline",)

    deadline: float | None  # a slot in place of the property

    def __init__(self, *, added: float, deadline: float | None) -> None:
        super().__init__(added=added)
        self.deadline = deadline  # pyright: ignore[reportIncompatibleMethodOverride] - as above


class ResultWaiter(TimedWaiter):
    """A call of `wait`; its result is the final word."""

    __slots__ = ("queries", "result", "trace")

    def __init__(self, *, added: float, deadline: float | None, trace: Trace | None = None) -> None:
        super().__init__(added=added, deadline=deadline)
        self.trace = trace
        self.result: Result[Verdict] = asyncio.get_running_loop().create_future()
        self.queries = 0  # that were completed in the meantime, in the end

    def told(self, entry: Entry, verdict: Verdict, now: float) -> None:  # noqa: ARG002 - as the base
        self.queries = entry.queries - self.queries_before
        resolve(self.result, verdict)

    def end(self, reason: Ending, task_id: str) -> None:
        resolve(self.result, for_task(reason, task_id))


class QueryWaiter(Waiter):
    """A call of `query`; its result is what the next query brings."""

    __slots__ = ("result",)

    once = True

    def __init__(self, *, added: float) -> None:
        super().__init__(added=added)
        self.result: Result[Reply] = asyncio.get_running_loop().create_future()

    def told(self, entry: Entry, verdict: Verdict, now: float) -> None:  # noqa: ARG002 - as the base
        """Hand the answer to the caller: a task, also a failed one, or an error."""
        reply = verdict.task or verdict.error
        assert reply is not None  # noqa: S101 - a verdict is on one of them
        resolve(self.result, reply)

    def end(self, reason: Ending, task_id: str) -> None:
        resolve(self.result, for_task(reason, task_id))


class UpdatesWaiter(TimedWaiter):
    """An iterator of `watch`; its updates are what it has not yet taken."""

    __slots__ = ("_status", "updates")

    follows = True

    def __init__(self, *, added: float, deadline: float | None) -> None:
        super().__init__(added=added, deadline=deadline)
        self.updates: asyncio.Queue[ImageTask | End] = asyncio.Queue()
        self._status: TaskStatus | None = None

    def told(self, entry: Entry, verdict: Verdict, now: float) -> None:  # noqa: ARG002 - as the base
        """Pass on changes of status and the final word; a failed task is an answer, too."""
        if verdict.kind is PENDING:
            self._changed(verdict.task)
        elif verdict.error is None or isinstance(verdict.error, TaskFailedError):
            self._changed(verdict.task)
            self.updates.put_nowait(End())
        else:
            self.updates.put_nowait(End(verdict.error))

    def _changed(self, task: ImageTask | None) -> None:
        if task is not None and task.status is not self._status:
            self._status = task.status
            self.updates.put_nowait(task)

    def end(self, reason: Ending, task_id: str) -> None:
        self.updates.put_nowait(End(for_task(reason, task_id)))


class Entry(Scheduled):
    """One id that is, or lately was, waited for. ``when`` is the time of its next query."""

    # One for each of a million ids: every slot counts.
    __slots__ = (
        *("_waiters", "answered", "body", "born", "fault", "looked", "queries", "status"),
        *("task_id", "unconfirmed"),
    )

    def __init__(self, task_id: str) -> None:
        self.when = NEVER
        self.flight: Flight | None = None
        self.task_id: str = task_id
        # Of the last answer that was a task: a quarter of what the record would hold.
        self.body: bytes | None = None
        self.status: TaskStatus | None = None  # in that body
        # What the last query met, or a final word not yet believed; none after a good answer.
        self.fault: KlingOmniError | None = None
        self.unconfirmed: Unconfirmed | None = None
        self.queries: int = 0  # completed
        # In s of the loop: the creation, the last look at which it had not ended, any last answer.
        self.born: float | None = None
        self.looked: float = 0.0
        self.answered: float = 0.0
        # Nearly all ids have one who waits, who then needs no container.
        self._waiters: Waiter | dict[Waiter, None] | None = None

    def __repr__(self) -> str:
        return f"<Entry {self.task_id!r} {self.status} queries={self.queries} due={self.when}>"

    @property
    def is_watched(self) -> bool:
        """Whether somebody waits."""
        return bool(self._waiters)

    def waiters(self) -> tuple[Waiter, ...]:
        """Return all who wait, the first who came first."""
        if isinstance(self._waiters, dict):
            return tuple(self._waiters)
        return () if self._waiters is None else (self._waiters,)

    def queried(self, now: float, alarms: Alarms) -> bool:
        """Tell all who wait that a query starts; return whether anybody wants it."""
        waiters = self._waiters
        if isinstance(waiters, dict):
            return any([waiter.queried(now, alarms) for waiter in waiters])  # noqa: C419 - all are told
        return waiters is not None and waiters.queried(now, alarms)

    def join(self, waiter: Waiter) -> bool:
        """Add one who waits, and return whether he is the only one."""
        waiter.entry = self
        waiter.queries_before = self.queries
        if self._waiters is None:
            self._waiters = waiter
            return True
        if isinstance(self._waiters, dict):
            self._waiters[waiter] = None
        else:
            self._waiters = {self._waiters: None, waiter: None}
        return False

    def leave(self, waiter: Waiter) -> bool:
        """Remove one who waits, and return whether he was the last."""
        waiter.entry = None
        if isinstance(self._waiters, dict):
            self._waiters.pop(waiter, None)
            self._waiters = self._waiters or None
        elif self._waiters is waiter:
            self._waiters = None
        return self._waiters is None

    def last_task(self) -> ImageTask | None:
        """Return the last answer that was a task, if there is one."""
        return None if self.body is None else read_task(self.body, self.task_id)
