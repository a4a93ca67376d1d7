"""What time and answers do to the ids of a session: no clock, no await, no network.

The poller tells it that time has passed or that an answer has come; it tells the poller which
id to query next and when to look again.
"""

from __future__ import annotations

import random
from typing import Final

from kling_omni_async._models import ImageTask
from kling_omni_async._policy import PollPolicy
from kling_omni_async.errors import KlingOmniError, PollTimeoutError, RateLimitError

from .roster import Roster
from .snapshot import Pulse
from .stream import Batch
from .verdicts import Judgement, Meaning, Reply, Setup, is_readable, judge
from .waiters import DOUBT_NOTHING, Doubt, Entry, Ticket, resolve

GRACE_S: Final = 5.0
"""How long a query in flight may run on after a deadline, in s."""

ALARMS_PER_PASS: Final = 500


class Watchlist(Roster):
    """The ids of a session: queried in their turn, judged by their answers, timed out."""

    def __init__(self, policy: PollPolicy, rng: random.Random) -> None:
        super().__init__(policy, rng)
        self._policy = policy
        self._setup = Setup(policy.interval[0])
        self._probe: Entry | None = None

    def next_event(self) -> float:
        """Give the time in s at which there is something to do, or infinity."""
        return min(self.schedule.next_start(), self._alarms.first())

    def pulse(self, task_id: str, now: float) -> Pulse:
        """Tell how the polling goes, without looking at more ids than one.

        Args:
            task_id: Whose wait is told.
            now: In s.
        """
        entry = self._entries.get(task_id)
        tickets = entry.tickets() if entry else ()
        return Pulse(
            now=now,
            starts=self.schedule.starts,
            in_flight=self.schedule.in_flight,
            next_in=max(0.0, self.schedule.next_start() - now),
            watched=now - tickets[0].added if tickets else None,
        )

    def start(self, now: float) -> Entry | None:
        """Give the id to query now, if there is one."""
        found = self.schedule.start(now, self._is_wanted)
        if found is None:
            return None
        entry, probe = found
        entry.started = now
        if probe:
            self._probe = entry  # one of an earlier pause counts no more
        for ticket in entry.tickets():
            self._queried(ticket, now)
        return entry

    def _is_wanted(self, entry: Entry) -> bool:
        """Tell whether a due id is to be queried; what nobody waits for is forgotten here."""
        wanted = entry.is_wanted
        if not wanted:
            self._drop_if_idle(entry)
        return wanted

    def settle(self, entry: Entry, reply: Reply, body: bytes, now: float) -> None:
        """Take the reply to a query.

        Args:
            entry: The id that was queried.
            reply: What came.
            body: Its bytes, for a task.
            now: In s.
        """
        started = now if entry.started is None else entry.started
        entry.started = None
        entry.queries += 1
        self.schedule.finish(now)
        self._tell_throttle(entry, reply, started=started, now=now)
        self._answer_asked(entry, reply)
        judgement = self._remember(entry, reply, body)
        pause_s = self.schedule.pause(stretched=judgement.meaning is not Meaning.FINAL)
        self.schedule.put(entry, now + pause_s)
        if not self.being_read:  # the number of ids is not known yet
            self._reports.stretched(self.schedule.stretch)
        if self._setup.is_wrong(reply, started=started, now=now):
            self.end_all(judgement.error or KlingOmniError())
        else:
            self._pass_on(entry, judgement, now)

    def _tell_throttle(self, entry: Entry, reply: Reply, *, started: float, now: float) -> None:
        throttle = self.schedule.throttle
        probe = entry is self._probe
        if probe:
            self._probe = None
        if not isinstance(reply, RateLimitError):
            throttle.answered(started=started, probe=probe, readable=is_readable(reply))
            return
        pause_s = throttle.limited(now=now, started=started, retry_after=reply.retry_after)
        self._reports.throttled(pause_s)

    def _answer_asked(self, entry: Entry, reply: Reply) -> None:
        for result in self._asked.pop(entry.task_id, ()):
            resolve(result, reply)

    def _remember(self, entry: Entry, reply: Reply, body: bytes) -> Judgement:
        """Keep what a reply says of its id; gives FINAL only for what is to be believed."""
        judgement = judge(reply)
        self._reports.replied(entry, reply)
        if isinstance(reply, ImageTask):
            entry.body, entry.status = body, reply.status
        unsure = judgement.meaning in {Meaning.FAULT, Meaning.DOUBTFUL}
        entry.fault = judgement.error if unsure else None
        return judgement if judgement.meaning is Meaning.FAULT else self._confirm(entry, judgement)

    def _confirm(self, entry: Entry, judgement: Judgement) -> Judgement:
        """Believe a doubtful final word only when it was said often enough in a row."""
        if judgement.meaning is not Meaning.DOUBTFUL or judgement.error is None:
            entry.doubt = None
            return judgement
        kind = type(judgement.error)
        doubt = entry.doubt or DOUBT_NOTHING
        count = doubt.count + 1 if doubt.kind is kind else 1
        entry.doubt = Doubt(kind, count)
        if count < self._policy.confirmations:
            return judgement
        return Judgement(Meaning.FINAL, judgement.task, judgement.error)

    def _pass_on(self, entry: Entry, judgement: Judgement, now: float) -> None:
        if judgement.meaning is Meaning.FINAL and entry.is_watched:
            self._reports.ended(entry.task_id, judgement.error, queries=entry.queries)
        for ticket in entry.tickets():
            if judgement.meaning is Meaning.FINAL:
                self._finish(entry, ticket, judgement, now)
                continue
            if judgement.meaning is Meaning.PENDING and judgement.task:
                ticket.seen(judgement.task)
            if ticket.deadline is not None and ticket.deadline <= now:
                self._time_out(entry, ticket, now)

    def ring(self, now: float) -> bool:
        """Let waits end whose time is up, at most some hundreds.

        Returns:
            Whether there are more.
        """
        for _ in range(ALARMS_PER_PASS):
            item = self._alarms.pop_due(now)
            if item is None:
                return False
            if isinstance(item, Batch):
                self._ring_batch(item, now)
            else:
                assert item.entry is not None  # noqa: S101 - who leaves takes his alarm along
                self._time_out(item.entry, item, now)
        return True

    def _ring_batch(self, batch: Batch, now: float) -> None:
        first = batch.next_running()
        if first is not None and first.entry is not None and (first.deadline or 0.0) <= now:
            batch.running.popleft()
            self._time_out(first.entry, first, now)
        self._set_batch_alarm(batch)

    def _time_out(self, entry: Entry, ticket: Ticket, now: float) -> None:
        """End a wait at its deadline, but let a query in flight have its grace."""
        if entry.started is not None:
            if ticket.must_query and entry.queries == ticket.queries_before:
                return  # its end will bring us back here
            grace_ends = (ticket.deadline or 0.0) + GRACE_S
            if now < grace_ends:
                self._alarms.set(ticket, grace_ends)
                return
        judgement = self._timed_out(entry, ticket, now)
        self._reports.ended(entry.task_id, judgement.error, queries=entry.queries)
        self._finish(entry, ticket, judgement, now)

    def _timed_out(self, entry: Entry, ticket: Ticket, now: float) -> Judgement:
        task = self._known_task(entry)
        state = f"its status was {task.status}" if task else "its status was never seen"
        fault = f"; last fault: {entry.fault}" if entry.fault else ""
        error = PollTimeoutError(
            f"no final answer in {now - ticket.added:.1f} s; {state}{fault}",
            task_id=entry.task_id,
            task=task,
            last_error=entry.fault,
        )
        return Judgement(Meaning.FINAL, task, error)
