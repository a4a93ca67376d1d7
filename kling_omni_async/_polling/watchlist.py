"""What time and answers do to the ids of a session: no clock, no await, no network.

The poller says that somebody comes or goes, that time has passed or that an answer has come; what
is returned says who is to be told what, and when to look again.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

import attrs

from kling_omni_async._models import FINAL_STATUS, ImageTask
from kling_omni_async._policy import PollPolicy
from kling_omni_async._stats import SessionStats
from kling_omni_async.errors import KlingOmniError, RateLimitError, for_task

from .limits import NEVER
from .planner import Planner
from .schedule import Flight, Schedule
from .stream import ENDED, UNREAD, StreamState, StreamWaiter
from .verdicts import (
    FAULT,
    FINAL,
    PENDING,
    UNCONFIRMED,
    Reply,
    SetupCheck,
    Verdict,
    is_readable,
    kind_of,
    verdict_on,
)
from .waiters import Alarms, Entry, Waiter
from .words import foreign_id_in, remember, stray, timed_out

GRACE_S: Final = 5.0
"""How long a query in flight may run on after a deadline, in s; one that starts only then, after
a standstill, has as long from its own start."""

FROZEN_S: Final = 1.0
"""An alarm that comes later than this, in s, has not been late: the process stood still."""

_SPARE_WAITERS: Final = 64

STEPS_PER_PASS: Final = 500
"""How many waits may end, or ids be passed over, before the loop runs again."""

Told = tuple[Waiter, Entry, Verdict]
"""Who is to be told, for which id, and what."""


@attrs.define
class Decision:
    """What is to be done after an answer."""

    reply: Reply  # as it counts
    verdict: Verdict
    told: list[Told]
    pause_s: float  # that a 429 began, or 0
    foreign_id: str | None  # that the answer names
    ends_all: bool  # as the set-up is wrong
    stretch: float  # the factor by which gaps are longer than intervals
    gives_up_callbacks: bool = False  # as too many in a row did not come


class Due(NamedTuple):
    """What there is to do at a moment."""

    queries: list[Entry]
    told: list[Told]  # as their time is up
    next_event: float  # when to look again, in s, or infinity


class Watchlist:
    """Every id of a session and all who wait for it: queried in turn, judged, timed out."""

    def __init__(self, policy: PollPolicy, rng: random.Random, *, limit: int) -> None:
        self.schedule: Schedule[Entry] = Schedule(policy, rng, limit=limit)
        self._policy = policy
        self.planner = Planner(policy, rng)
        self.faults: dict[str, int] = {}
        self._waiting = 0
        self._oldest: deque[Waiter] = deque()  # who waits, and some who have left
        self._setup = SetupCheck(policy.interval[0])
        self._entries: dict[str, Entry] = {}
        # Not in the schedule's heap: a closed gate would hide the deadlines behind it.
        self._alarms: Alarms = Alarms()
        self._watched = 0
        self._untold: list[tuple[Waiter, str]] = []
        rate = policy.max_rate
        self._turns = NEVER if rate is None else rate * policy.mean_interval

    def __repr__(self) -> str:
        return f"<Watchlist ids={len(self._entries)} watched={self._watched} {self.schedule!r}>"

    @property
    def stretch(self) -> float:
        """The factor by which gaps are longer than intervals, as there are more ids than turns."""
        return self._watched / self._turns if self._watched > self._turns else 1.0

    def next_event(self) -> float:
        """Return the time in s at which there is something to do, or infinity."""
        return min(self.schedule.next_start(), self._alarms.first)

    def heard(self) -> None:
        """Note a readable answer of the API that no query brought."""
        self._setup.heard = True

    def oldest_s(self, now: float) -> float | None:
        """Return how long the longest wait has lasted, in s, or None where nobody waits."""
        # Whoever is first waits, and nothing is changed: metrics are read in a thread of their own.
        try:
            return now - self._oldest[0].added
        except IndexError:
            return None

    def stats(self, now: float, others_next: float = NEVER) -> SessionStats:
        """Return what is being done, without looking at the ids.

        Args:
            now: The time in s.
            others_next: When others schedule a query, in s.
        """
        next_start = min(self.schedule.next_start(), others_next)
        return SessionStats(
            watched=self._watched,
            in_flight=self.schedule.in_flight,
            oldest=self.oldest_s(now),
            next_query=None if next_start == NEVER else max(0.0, next_start - now),
            queries=self.schedule.starts,
            stretch=self.stretch,
            throttled=max(0.0, self.schedule.throttle.until - now),
            faults=dict(self.faults),
        )

    def peek(self, task_id: str, now: float) -> ImageTask | None:
        """Return the last that is known of a task, or None."""
        entry, own = self._entries.get(task_id), self.planner.own.get(task_id, now)
        task = entry.last_task() if entry else None
        return task or (own.task if own else None)

    def eta_s(self, task_id: str, now: float) -> float | None:
        """Return how long a task needs still, in s, by the median, or None if that is unknown."""
        return self.planner.left_s(self._entries.get(task_id), task_id, now)

    # Who comes and who goes.

    def call(
        self, task_id: str, waiter: Waiter, now: float, expects_s: float | None = None
    ) -> list[Told]:
        """Let a call of `wait`, `watch` or `query` wait for an id."""
        if (deadline := waiter.deadline) is not None:
            self._alarms.set(waiter, deadline)
        entry = self._entry(task_id)
        if waiter.once:
            # One in flight will do: its answer is some ms older than the call, and the gateway
            # refreshes every 15 s.
            if entry.flight is None:
                self.schedule.ask(entry)
        elif not self._has_turn(entry, now):
            first = self.planner.first_look(entry, now, expects_s, deadline)
            if first > now:
                self.schedule.put(entry, min(first, entry.when))  # others may want it sooner
            else:
                self.schedule.add_newcomer(entry, now)
        return self._join(entry, waiter, now) or self._created(entry, waiter, now)

    def admit(self, stream: StreamState, given: object, now: float) -> list[Told]:
        """Add what the input of a stream gave."""
        if stream.phase is ENDED or (task_id := stream.read(given)) is None:
            return []
        entry = self._entries.get(task_id)
        if is_new := entry is None:
            entry = self._entries[task_id] = Entry(task_id)
        if is_new or not self._has_turn(entry, now):
            first = now
            if self.planner.knows_more(stream.expects):
                first = self.planner.first_look(entry, now, stream.expects)
            if first > now:
                self.schedule.put(entry, min(first, entry.when))
            elif stream.intake.is_feed:
                self.schedule.add_newcomer(entry, now)
            else:
                stream.turn = self.schedule.lay_out(entry, now, stream.turn)
        return self._join(entry, stream.add(task_id, now), now)

    def nudge(self, task_id: str, now: float) -> bool:
        """Ask for an id soon, as it may have changed; return whether it is one of ours."""
        entry = self._entries.get(task_id)
        is_watched = entry is not None and entry.is_watched
        if not is_watched and not self.planner.nudge_own(task_id, now):
            return False
        if entry is None:
            return True
        # Also where nobody waits now: who comes back has to keep what is left of its pause.
        when = self.planner.nudge(entry, now)
        if when is not None and when <= now:
            self.schedule.add_newcomer(entry, now)
        elif when is not None:
            self.schedule.put(entry, when)
        return True

    def leave(self, waiter: Waiter) -> None:
        """Let one who waits go."""
        if (entry := waiter.entry) is not None:
            self._let_go(entry, waiter)
            if waiter.once:
                self.schedule.withdraw(entry)
            self._drop_if_idle(entry)

    def leaving(self, stream: StreamState) -> Iterator[None]:
        """Let all go who wait for the ids of a stream, one at each step."""
        for task_id, waiter in list(stream.ids.items()):
            if isinstance(waiter, StreamWaiter):
                self.leave(waiter)
                stream.ids[task_id] = UNREAD  # pending still, and no cycle is left behind
            yield

    def ending(self, since: float, *, queries: bool) -> Iterator[tuple[Waiter, str]]:
        """Return each who waits with his id, to be told and let go; `query` only if asked to."""
        yield from self._untold
        for entry in list(self._entries.values()):
            for waiter in entry.waiters():
                # Who came later waits on: there may be a million before him.
                if waiter.added <= since and not waiter.goes_on and (queries or not waiter.once):
                    yield waiter, entry.task_id

    def all_told(self) -> None:
        """Note that all who were to be told know."""
        self._untold.clear()

    def _entry(self, task_id: str) -> Entry:
        entry = self._entries.get(task_id)
        if entry is None:
            entry = self._entries[task_id] = Entry(task_id)
        return entry

    def _has_turn(self, entry: Entry, now: float) -> bool:
        """Tell whether an id has a pause to keep, or a turn that has come."""
        if entry.flight is not None or (entry.queries and entry.when != NEVER):
            return True
        # A list lays its first queries out far ahead: who joins need not wait for such a place.
        return self.schedule.has_turn(entry, now)

    def _join(self, entry: Entry, waiter: Waiter, now: float) -> list[Told]:
        self._watched += entry.join(waiter)
        if entry.born is not None:
            waiter.aged(entry.born)
        self._waiting += 1
        self._oldest.append(waiter)
        if entry.flight is not None:
            waiter.queried(now, self._alarms)
        return [] if entry.body is None or waiter.once else self._last_word(entry, waiter)

    def _created(self, entry: Entry, waiter: Waiter, now: float) -> list[Told]:
        """Return what a create has said of a task, for one who wants each word."""
        own = self.planner.own.get(entry.task_id, now) if waiter.follows else None
        if own is None or entry.body is not None:
            return []
        verdict = verdict_on(own.task)
        if verdict.kind is UNCONFIRMED:
            return []
        if verdict.kind is FINAL:  # a create can be answered with a failed task
            self._release(entry, waiter)
        return [(waiter, entry, verdict)]

    def _last_word(self, entry: Entry, waiter: Waiter) -> list[Told]:
        """Return what a newcomer is told: the last answer if that is final, or he wants any."""
        if not waiter.follows and entry.status not in FINAL_STATUS:
            return []
        task = entry.last_task()
        verdict = verdict_on(task) if task else None
        if verdict is None or verdict.kind is UNCONFIRMED:
            return []
        if verdict.kind is FINAL:
            self._release(entry, waiter)
        return [(waiter, entry, verdict)]

    def _release(self, entry: Entry, waiter: Waiter) -> None:
        """Let one go who is to be told; a defect in between must not leave him waiting."""
        self._untold.append((waiter, entry.task_id))
        self._let_go(entry, waiter)

    def _let_go(self, entry: Entry, waiter: Waiter) -> None:
        self._watched -= entry.leave(waiter)
        waiter.left(self._alarms)
        self._waiting -= 1
        # Lazy deletion: who has left goes when he surfaces, or when most have left.
        while self._oldest and self._oldest[0].entry is None:
            self._oldest.popleft()
        if len(self._oldest) > 2 * self._waiting + _SPARE_WAITERS:
            self._oldest = deque(other for other in self._oldest if other.entry is not None)

    def _drop_if_idle(self, entry: Entry) -> None:
        """Drop an entry that nobody waits for and that has no pause to remember."""
        # One with a pause stays until that is over: leaving and coming back must not poll faster.
        if entry.is_watched or entry.flight is not None:
            return
        if entry.queries == 0 or entry.when == NEVER:
            self.schedule.drop(entry)
            self.planner.expected.discard(entry.task_id)
            self._entries.pop(entry.task_id, None)

    # Queries.

    def pass_time(self, now: float) -> Due:
        """Start the queries whose turn it is, then end the waits whose time is up."""
        # In this order: after a standstill, what is overdue gets its look before it times out.
        queries: list[Entry] = []
        while (entry := self._start(now)) is not None:
            queries.append(entry)
        told = self._expire(now) if self._alarms.first <= now else []
        return Due(queries, told, self.next_event())

    def next_query(self, now: float) -> tuple[Entry | None, float]:
        """Start the query whose turn it is, if there is one; return it and when to look again."""
        return self._start(now), min(self.schedule.next_start(), self._alarms.first)

    def _start(self, now: float) -> Entry | None:
        # Not without a bound: a crowd that was left may be due at once, as after a long pause.
        for _ in range(STEPS_PER_PASS):
            found = self.schedule.pop(now)
            if found is None:
                return None
            entry, turn, due = found
            if entry.queried(now, self._alarms):
                self.schedule.launch(entry, turn, due, now)
                return entry
            self._drop_if_idle(entry)  # nobody waits for it, and its pause is over
        return None

    def answered(
        self,
        entry: Entry,
        reply: Reply,
        body: bytes | None,
        now: float,
        headers: Mapping[str, str] | None = None,
    ) -> Decision:
        """Note the reply to a query, and its bytes if it is a task; decide what is to be done."""
        flight = entry.flight
        assert flight is not None  # noqa: S101 - it was started
        started = flight.started
        self.schedule.finish(entry, now)
        entry.queries += 1
        entry.answered = now
        foreign = foreign_id_in(entry, reply)
        if foreign in self._entries:
            reply = stray(entry, foreign)
        verdict = verdict_on(reply)
        self._remember(entry, reply, body, verdict, now)
        self.schedule.put(entry, self.planner.next_look(entry, verdict, now, headers))
        pause_s = 0.0
        if self.schedule.throttle.closed or isinstance(reply, RateLimitError):
            pause_s = self._throttle(reply, flight, started=started, now=now)
        wrong = False
        if verdict.task is None or not self._setup.is_fine:
            wrong = self._setup.is_wrong(reply, started=started, now=now)
        gives_up = False
        if self.planner.expected:
            ended = verdict.kind is FINAL
            gives_up = self.planner.expected.answered(entry.task_id, ended=ended, started=started)
        told = self._told(entry, verdict, started=started, now=now, wrong=wrong)
        return Decision(reply, verdict, told, pause_s, foreign, wrong, self.stretch, gives_up)

    def _throttle(self, reply: Reply, flight: Flight, *, started: float, now: float) -> float:
        throttle = self.schedule.throttle
        if isinstance(reply, RateLimitError):
            return throttle.limited(reply, started=started, now=now)
        throttle.answered(flight, started=started, readable=is_readable(reply))
        return 0.0

    def _remember(
        self, entry: Entry, reply: Reply, body: bytes | None, verdict: Verdict, now: float
    ) -> None:
        if isinstance(reply, ImageTask):
            entry.body, entry.status = body, reply.status
        remember(entry, verdict, self._policy, now)
        self.count_fault(verdict)

    def count_fault(self, verdict: Verdict) -> None:
        """Count a fault that may pass, by its kind."""
        if verdict.kind is FAULT:
            kind = kind_of(verdict.error or KlingOmniError())
            self.faults[kind] = self.faults.get(kind, 0) + 1

    def _told(
        self, entry: Entry, verdict: Verdict, *, started: float, now: float, wrong: bool
    ) -> list[Told]:
        told: list[Told] = []
        late = now - self._alarms.first > FROZEN_S
        final = verdict.kind is FINAL
        for waiter in entry.waiters():
            if waiter.once or (final and not wrong):
                self._release(entry, waiter)
                told.append((waiter, entry, verdict))
            elif not wrong:  # else the end of all waiting reaches the others
                if waiter.follows and verdict.kind is PENDING:
                    told.append((waiter, entry, verdict))
                deadline = waiter.deadline
                if deadline is None or deadline > now:
                    continue
                if self._was_frozen(waiter, deadline, started=started, now=now, late=late):
                    self._alarms.set(waiter, entry.when + GRACE_S)
                else:
                    self._release(entry, waiter)
                    told.append(self._timed_out(entry, waiter, now, held=None))
        return told

    def _was_frozen(
        self, waiter: Waiter, deadline: float, *, started: float, now: float, late: bool
    ) -> bool:
        """Tell whether an answer is from before a standstill in which more would have been asked.

        It is no look then: that is still to come, if it need not be waited for longer than a grace.
        `late` tells that no alarm was looked at yet.
        """
        assert waiter.entry is not None  # noqa: S101 - it waits
        if waiter.entry.when > now + GRACE_S:
            return False
        granted = max(deadline, started) + GRACE_S < waiter.when < NEVER  # by `_look_or_time_out`
        return (late or granted) and now - started > self._policy.interval[0]

    # Deadlines.

    def _expire(self, now: float) -> list[Told]:
        """Return whose time is up, at most some hundreds; `next_event` tells if there are more."""
        told: list[Told] = []
        for _ in range(STEPS_PER_PASS):
            due = self._alarms.first
            item = self._alarms.pop_due(now)
            if item is None:
                break
            waiter = item.due(now, self._alarms)
            if waiter is not None and waiter.entry is not None:
                told += self._look_or_time_out(waiter.entry, waiter, now, late_s=now - due)
        return told

    def _look_or_time_out(
        self, entry: Entry, waiter: Waiter, now: float, *, late_s: float
    ) -> list[Told]:
        """End a wait at its deadline, unless a query has its grace, or nobody could ask."""
        if now < waiter.when < NEVER:
            return []  # it has been given a look
        flight = entry.flight
        if flight is not None and waiter.must_query and entry.queries == waiter.queries_before:
            return []  # the end of its first query brings us back
        look_ends = now
        if flight is not None:
            look_ends = max(waiter.deadline or 0.0, flight.started) + GRACE_S
        # A process that stood still looks once before it gives up: time in which nobody could
        # ask is no answer. The answer to a query from before may lie in its socket.
        if late_s > FROZEN_S and (flight is not None or self.schedule.has_turn(entry, now)):
            look_ends = now + GRACE_S
        if look_ends > now:
            self._alarms.set(waiter, look_ends)
            return []
        self._release(entry, waiter)
        told = self._timed_out(entry, waiter, now, held=self._held_back(entry, now))
        self._drop_if_idle(entry)
        return [told]

    def _timed_out(
        self, entry: Entry, waiter: Waiter, now: float, *, held: KlingOmniError | None
    ) -> Told:
        task = entry.last_task()
        error = timed_out(entry, task, now - waiter.added, held=held)
        return waiter, entry, Verdict(FINAL, task, error)

    def _held_back(self, entry: Entry, now: float) -> KlingOmniError | None:
        """Return what kept an id from being asked although it was its turn."""
        if entry.flight is not None or not self.schedule.has_turn(entry, now):
            return None
        throttle = self.schedule.throttle
        if throttle.error is not None and throttle.next_start > now:
            return for_task(throttle.error, entry.task_id)
        limits = f"max_rate={self._policy.max_rate} and max_concurrency={self.schedule.limit}"
        return KlingOmniError(f"more ids were due than {limits} carry", task_id=entry.task_id)
