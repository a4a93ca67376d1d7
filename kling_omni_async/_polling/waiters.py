"""Who waits for what: an entry for each id, a ticket for each one who waits for it."""

from __future__ import annotations

import asyncio
from typing import Final, NoReturn, TypeVar

import attrs

from kling_omni_async._models import ImageTask, TaskStatus
from kling_omni_async.errors import KlingOmniError, TaskFailedError, copy_error

from .timers import NEVER, Timed
from .verdicts import Judgement

Ending = BaseException
"""Why all waiting ended: one of our errors, or a defect that nobody foresaw."""


@attrs.frozen
class End:
    """The last thing in a queue; each consumer puts it back for the next one.

    Attributes:
        reason: What every further step raises, or None for a plain end.
    """

    reason: Ending | None = None

    def throw(self) -> NoReturn:
        """Raise the reason, or `StopAsyncIteration` for a plain end."""
        if self.reason is None:
            raise StopAsyncIteration
        raise_ending(self.reason)


V = TypeVar("V")
Result = asyncio.Future[V | Ending]
"""Never holds an exception but as its value, so none is "never retrieved"."""


class Ticket(Timed):
    """One who waits for one id. ``when`` is the time of its alarm.

    Attributes:
        entry: The id's entry while the ticket waits, else None.
        added: When the wait began, in s.
        deadline: When it ends at the latest, in s, or None.
        queries_before: The entry's count of queries when the wait began.
    """

    __slots__ = ("added", "deadline", "entry", "queries_before")

    added: float
    deadline: float | None
    entry: Entry | None
    queries_before: int

    must_query = False
    """Whether at least one query has to be completed before a time-out."""

    def __init__(self, *, added: float, deadline: float | None) -> None:
        self.when = NEVER
        self.entry = None
        self.added = added
        self.deadline = deadline
        self.queries_before = 0

    @property
    def alive(self) -> bool:
        """Whether somebody still wants the result."""
        return True

    def queried(self, now: float) -> None:
        """Note that a query of the id has started."""

    def seen(self, task: ImageTask) -> None:
        """Take a task that is not final."""

    def finish(self, entry: Entry, judgement: Judgement, now: float, /) -> None:
        """Take the final word."""
        raise NotImplementedError

    def abort(self, reason: Ending) -> None:
        """Take the reason why all waiting ended."""
        raise NotImplementedError


class WaitTicket(Ticket):
    """A call of `wait`.

    Attributes:
        result: The final word.
    """

    __slots__ = ("result",)

    def __init__(self, *, added: float, deadline: float | None) -> None:
        super().__init__(added=added, deadline=deadline)
        self.result: Result[Judgement] = asyncio.get_running_loop().create_future()

    def finish(self, _entry: Entry, judgement: Judgement, _now: float, /) -> None:
        """Hand the final word to the caller."""
        resolve(self.result, judgement)

    def abort(self, reason: Ending) -> None:
        """Hand the reason to the caller."""
        resolve(self.result, reason)


class WatchTicket(Ticket):
    """An iterator of `watch`.

    Attributes:
        updates: What the iterator has not yet taken.
    """

    __slots__ = ("_status", "updates")

    def __init__(self, *, added: float, deadline: float | None) -> None:
        super().__init__(added=added, deadline=deadline)
        self.updates: asyncio.Queue[ImageTask | End] = asyncio.Queue()
        self._status: TaskStatus | None = None

    def seen(self, task: ImageTask) -> None:
        """Pass on the first answer and each change of status."""
        if task.status is not self._status:
            self._status = task.status
            self.updates.put_nowait(task)

    def finish(self, _entry: Entry, judgement: Judgement, _now: float, /) -> None:
        """Pass on the final word: a failed task is an answer, all else is raised."""
        if judgement.error is None or isinstance(judgement.error, TaskFailedError):
            if judgement.task is not None:
                self.updates.put_nowait(judgement.task)
            self.updates.put_nowait(End())
        else:
            self.updates.put_nowait(End(judgement.error))

    def abort(self, reason: Ending) -> None:
        """Pass on the reason."""
        self.updates.put_nowait(End(reason))


class Entry(Timed):
    """One id that is, or lately was, waited for. ``when`` is the time of its next query.

    Attributes:
        task_id: The id.
        started: When the query in flight started, in s, or None.
        body: The bytes of the last answer that was a task: a quarter of what the record
            would hold.
        status: The status in `body`.
        fault: What the last query met, or a final word not yet believed; None after a good answer.
        doubt: A final word that was not believed yet, and how often it was said in a row.
        queries: Queries completed.
    """

    __slots__ = (
        "_tickets",
        "body",
        "doubt",
        "fault",
        "queries",
        "started",
        "status",
        "task_id",
    )

    def __init__(self, task_id: str) -> None:
        self.when = NEVER
        self.task_id: str = task_id
        self.started: float | None = None
        self.body: bytes | None = None
        self.status: TaskStatus | None = None
        self.fault: KlingOmniError | None = None
        self.doubt: Doubt | None = None
        self.queries: int = 0
        self._tickets: Ticket | dict[Ticket, None] | None = None

    def __repr__(self) -> str:
        return f"<Entry {self.task_id!r} {self.status} queries={self.queries} due={self.when}>"

    @property
    def is_watched(self) -> bool:
        """Whether somebody holds a ticket."""
        return bool(self._tickets)

    @property
    def is_wanted(self) -> bool:
        """Whether somebody who holds a ticket still wants the result."""
        if isinstance(self._tickets, dict):
            return any(ticket.alive for ticket in self._tickets)
        return self._tickets is not None and self._tickets.alive

    def tickets(self) -> tuple[Ticket, ...]:
        """Give all tickets, oldest first."""
        if isinstance(self._tickets, dict):
            return tuple(self._tickets)
        return () if self._tickets is None else (self._tickets,)

    def join(self, ticket: Ticket) -> bool:
        """Add a ticket, and tell whether it is the only one, which then needs no container."""
        ticket.entry = self
        ticket.queries_before = self.queries
        if self._tickets is None:
            self._tickets = ticket
            return True
        if isinstance(self._tickets, dict):
            self._tickets[ticket] = None
        else:
            self._tickets = {self._tickets: None, ticket: None}
        return False

    def leave(self, ticket: Ticket) -> None:
        """Remove a ticket."""
        ticket.entry = None
        if isinstance(self._tickets, dict):
            self._tickets.pop(ticket, None)
            self._tickets = self._tickets or None
        elif self._tickets is ticket:
            self._tickets = None


@attrs.frozen
class Doubt:
    """A final word that has to be said again before it is believed.

    Attributes:
        kind: The class of its error.
        count: How often it was said in a row.
    """

    kind: type[KlingOmniError]
    count: int


DOUBT_NOTHING: Final = Doubt(KlingOmniError, 0)


def resolve(result: Result[V], value: V | Ending) -> None:
    """Hand a value to one who waits, unless he has left."""
    if not result.done():
        result.set_result(value)


def about(reason: Ending, task_id: str) -> Ending:
    """Give the reason why all waiting ended to one who waited for a certain id."""
    if isinstance(reason, KlingOmniError):
        reason = copy_error(reason)
        reason.task_id = task_id
    return reason


def raise_ending(reason: Ending) -> NoReturn:
    """Raise why all waiting ended: one of ours as a copy, a defect as it is."""
    raise copy_error(reason) if isinstance(reason, KlingOmniError) else reason
