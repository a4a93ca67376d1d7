"""Who waits for which id: those who come, those who leave, and what they are told at the end."""

from __future__ import annotations

import asyncio
import random
from collections import deque

from kling_omni_async._api.answers import read_task
from kling_omni_async._ids import id_fault
from kling_omni_async._models import ImageTask
from kling_omni_async._outcome import TaskOutcome
from kling_omni_async._policy import PollPolicy
from kling_omni_async._saving.saver import SaveOrder

from .log import Reports
from .schedule import Schedule
from .stream import Batch, BatchTicket
from .timers import NEVER, TimerHeap
from .verdicts import Judgement, Meaning, Reply, judge
from .waiters import End, Ending, Entry, Result, Ticket, about, resolve


class Roster:
    """Every id of a session and all who wait for it.

    Attributes:
        schedule: The order of the queries.
        batches: The streams that are being polled.
        unswept: Closed streams whose tickets are still to be let go.
        being_read: How many inputs that will end soon are being read.
    """

    def __init__(self, policy: PollPolicy, rng: random.Random) -> None:
        self.schedule: Schedule[Entry] = Schedule(policy, rng)
        self.batches: dict[Batch, None] = {}
        self.unswept: deque[Batch] = deque()
        self.being_read = 0
        self._entries: dict[str, Entry] = {}
        self._alarms: TimerHeap[Ticket | Batch] = TimerHeap()
        self._callers: dict[Ticket, str] = {}
        self._asked: dict[str, list[Result[Reply]]] = {}
        self._reports = Reports()

    def __repr__(self) -> str:
        return (
            f"<Watchlist ids={len(self._entries)} callers={len(self._callers)} "
            f"batches={len(self.batches)} {self.schedule!r}>"
        )

    def call(self, task_id: str, ticket: Ticket, now: float) -> None:
        """Let a call of `wait` or `watch` wait for an id."""
        self._callers[ticket] = task_id
        if ticket.deadline is not None:
            self._alarms.set(ticket, ticket.deadline)
        entry = self._entry(task_id)
        if _has_no_turn(entry, now):
            self.schedule.put_first(entry, now)
        self._join(entry, ticket, now)

    def admit(self, batch: Batch, task_id: str, now: float) -> None:
        """Take an id of a stream's input."""
        if not batch.is_new(task_id) or batch.closed:
            return  # what an input gives after the end stays pending
        if fault := id_fault(task_id):
            self._reports.ended(task_id, fault, queries=0)
            batch.put(TaskOutcome(task_id=task_id, error=fault))
            return
        batch.polling += 1
        entry = self._entries.get(task_id)
        if entry is None or _has_no_turn(entry, now):
            entry = entry or self._entry(task_id)
            self._lay_out(batch, entry, now)
        self._join(entry, BatchTicket(batch, added=now), now)

    def ask(self, task_id: str) -> Result[Reply]:
        """Queue one query that was asked for by hand, or join the one that is under way."""
        entry = self._entry(task_id)
        result: Result[Reply] = asyncio.get_running_loop().create_future()
        if task_id not in self._asked:
            self._asked[task_id] = []
            if entry.started is None:
                self.schedule.ask(entry)
        self._asked[task_id].append(result)
        return result

    def forget(self, task_id: str, result: Result[Reply]) -> None:
        """Let a call of `query` go; a query that nobody asks for any more is not sent."""
        results = self._asked.get(task_id, [])
        if result not in results:
            return
        results.remove(result)
        entry = self._entries[task_id]
        if not results and entry.started is None:
            del self._asked[task_id]
            self.schedule.withdraw(entry)
            self._drop_if_idle(entry)

    def leave(self, ticket: Ticket) -> None:
        """Let one who waits go."""
        self._callers.pop(ticket, None)
        self._alarms.discard(ticket)
        if (entry := ticket.entry) is not None:
            entry.leave(ticket)
            if not entry.is_watched:
                self.schedule.watched -= 1
                self._drop_if_idle(entry)

    def leave_one_of(self, batch: Batch, task_id: str) -> None:
        """Let the ticket of a closed stream go for one of its ids."""
        entry = self._entries.get(task_id)
        for ticket in entry.tickets() if entry else ():
            if isinstance(ticket, BatchTicket) and ticket.batch is batch:
                self.leave(ticket)

    def close_batch(self, batch: Batch) -> None:
        """Forget a stream; what it still waits for is let go by `sweep`."""
        if batch in self.batches:
            del self.batches[batch]
            self._alarms.discard(batch)
            if batch.polling:
                self.unswept.append(batch)

    def saved(self, batch: Batch, order: SaveOrder, outcome: TaskOutcome) -> None:
        """Take an outcome of a stream whose images were saved or given up."""
        if outcome.error is not None:
            self._reports.ended(outcome.task_id, outcome.error, queries=outcome.queries)
        batch.saved(order, outcome)
        self.complete_if_done(batch)

    def complete_if_done(self, batch: Batch) -> None:
        """End a stream that has given or holds all its outcomes."""
        if batch.is_complete and batch in self.batches:
            batch.complete()
            self.close_batch(batch)

    def end_all(self, reason: Ending) -> None:
        """End all waiting for one reason; calls of `query` get their own answers."""
        for ticket, task_id in tuple(self._callers.items()):
            ticket.abort(about(reason, task_id))
            self.leave(ticket)
        for batch in tuple(self.batches):
            batch.close(End(reason))
            self.close_batch(batch)

    def shut(self, reason: Ending) -> None:
        """End everything, calls of `query` too: nothing more will be asked."""
        for batch in tuple(self.batches):
            batch.cut(End(reason))
        self.end_all(reason)
        for task_id, results in self._asked.items():
            for result in results:
                resolve(result, about(reason, task_id))
        self._asked.clear()
        self._entries.clear()
        self.unswept.clear()

    def _entry(self, task_id: str) -> Entry:
        entry = self._entries.get(task_id)
        if entry is None:
            entry = self._entries[task_id] = Entry(task_id)
        return entry

    def _lay_out(self, batch: Batch, entry: Entry, now: float) -> None:
        """Give a first query its place: the first at once, the others at the pace."""
        gap_s = self.schedule.first_gap
        if batch.next_first is None or (gap_s and batch.next_first <= now):
            self.schedule.put_first(entry, now)
            batch.next_first = now + gap_s
            return
        self.schedule.put(entry, min(entry.when, batch.next_first))
        batch.next_first += gap_s

    def _join(self, entry: Entry, ticket: Ticket, now: float) -> None:
        self.schedule.watched += entry.join(ticket)
        if entry.started is not None:
            self._queried(ticket, now)
        if entry.body is not None:
            self._show_last(entry, ticket, now)

    def _show_last(self, entry: Entry, ticket: Ticket, now: float) -> None:
        """Give a newcomer what is known: all of it if that is final, else the last answer."""
        judgement = judge(self._last_task(entry))
        if judgement.meaning is Meaning.FINAL:
            self._reports.ended(entry.task_id, judgement.error, queries=entry.queries)
            self._finish(entry, ticket, judgement, now)
        elif judgement.meaning is Meaning.PENDING and judgement.task:
            ticket.seen(judgement.task)

    def _drop_if_idle(self, entry: Entry) -> None:
        """Drop an entry that nobody waits for and that has no pause to remember."""
        if entry.is_watched or entry.task_id in self._asked or entry.started is not None:
            return
        if entry.queries == 0 or entry.when == NEVER:
            self.schedule.drop(entry)
            self._entries.pop(entry.task_id, None)

    def _queried(self, ticket: Ticket, now: float) -> None:
        ticket.queried(now)
        if isinstance(ticket, BatchTicket) and ticket.batch.when == NEVER:
            self._set_batch_alarm(ticket.batch)

    def _set_batch_alarm(self, batch: Batch) -> None:
        first = batch.next_running()
        if first is not None and not batch.closed:
            self._alarms.set(batch, first.deadline or 0.0)

    def _finish(self, entry: Entry, ticket: Ticket, judgement: Judgement, now: float) -> None:
        if judgement.task is None:
            judgement = Judgement(Meaning.FINAL, self._known_task(entry), judgement.error)
        ticket.finish(entry, judgement, now)
        self.leave(ticket)
        if isinstance(ticket, BatchTicket):
            ticket.batch.next_running()  # lets the done ones go
            self.complete_if_done(ticket.batch)

    def _known_task(self, entry: Entry) -> ImageTask | None:
        return None if entry.body is None else self._last_task(entry)

    def _last_task(self, entry: Entry) -> ImageTask:
        return read_task(entry.body or b"", entry.task_id)


def _has_no_turn(entry: Entry, now: float) -> bool:
    """Tell whether an id has neither a pause to keep nor a turn that has come.

    A stream lays its first queries out far ahead: who joins need not wait for such a place.
    """
    ahead = entry.when == NEVER or (entry.queries == 0 and entry.when > now)
    return ahead and entry.started is None
