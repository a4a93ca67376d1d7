"""Which id is queried next, and when: no clock, no await; `now` is an argument."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Iterator
from enum import Enum
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Final, Generic, TypeVar

from kling_omni_async._policy import PollPolicy

from .limits import NEVER, LentPace, RateLimit, Throttle

_SPARE_ROWS: Final = 64


class Turn(Enum):
    """Why it is an item's turn."""

    BY_HAND = "its query was asked for"
    NEWCOMER = "it is its first query"
    OVERDUE = "its time has come"


# As names, which Python 3.11 looks up faster: each query comes by here.
BY_HAND: Final = Turn.BY_HAND
NEWCOMER: Final = Turn.NEWCOMER
OVERDUE: Final = Turn.OVERDUE


class Timed:
    """Something that stands in at most one `TimerHeap`, at the time ``when`` in s, or nowhere."""

    __slots__ = ("when",)

    def __init__(self) -> None:
        self.when: float = NEVER


T = TypeVar("T", bound=Timed)


class TimerHeap(Generic[T]):
    """Items by time, in a binary heap with lazy deletion; equal times keep their order.

    A row counts only while its time is its item's, so moving an item is one push. Rows that
    no longer count are dropped when they surface, or when they are most of the heap.
    """

    def __init__(self) -> None:
        self.first: float = NEVER  # the earliest time in s; the row at the top always counts
        self._rows: list[tuple[float, int, T]] = []
        self._serial: Iterator[int] = count()
        self._live = 0

    def __len__(self) -> int:
        return self._live

    def __repr__(self) -> str:
        return f"<TimerHeap of {self._live}, first at {self.first}>"

    # A dozen of lines without a call, as each id comes by here three times.
    def set(self, item: T, when: float) -> None:
        """Put an item in at a time in s, or move it there; at its own time it keeps its place."""
        before = item.when
        if before == when:
            return
        item.when = when
        heappush(self._rows, (when, next(self._serial), item))
        if before == NEVER:
            self._live += 1
        else:
            self._drop_stale_rows()
        if when < self.first:
            self.first = when
        elif before == self.first:
            self._find_first()

    def discard(self, item: T) -> None:
        """Remove an item, if it is in."""
        before, item.when = item.when, NEVER
        if before != NEVER:
            self._live -= 1
            self._drop_stale_rows()
            if before == self.first:
                self._find_first()

    def pop_due(self, now: float) -> T | None:
        """Remove and return the earliest item if its time has come."""
        if self.first > now or not self._live:
            return None
        item = heappop(self._rows)[2]
        item.when = NEVER
        self._live -= 1
        self._find_first()
        return item

    def _find_first(self) -> None:
        rows = self._rows
        while rows and rows[0][0] != rows[0][2].when:
            heappop(rows)
        self.first = rows[0][0] if rows else NEVER

    def _drop_stale_rows(self) -> None:
        if len(self._rows) > 2 * self._live + _SPARE_ROWS:
            self._rows = [row for row in self._rows if row[0] == row[2].when]
            heapify(self._rows)


class Scheduled(Timed):
    """Something that can be queried. ``when`` is the time from which on its next query is due."""

    __slots__ = ("flight",)

    def __init__(self) -> None:
        super().__init__()
        # The schedule sets it, and nobody else remembers a query under way.
        self.flight: Flight | None = None


class Flight:
    """One query under way: since when, and since when it was due, in s."""

    __slots__ = ("due", "started")

    def __init__(self, started: float, due: float) -> None:
        self.started: float = started
        self.due: float = due


S = TypeVar("S", bound=Scheduled)


class Schedule(Generic[S]):
    """The ids of one session in the order in which they are queried, and what holds them back.

    Load is served in order of due time, and no pause is stretched: when more is due than the
    pace or the places in flight can carry, each id waits for its turn, so gaps grow evenly and
    shrink at once when the crowd is gone. A newcomer goes before the overdue, but where both
    wait it has at most every second start, so that neither ever starves the other.
    """

    def __init__(self, policy: PollPolicy, rng: random.Random, *, limit: int) -> None:
        self.limit = limit  # the most queries in flight
        self.in_flight = 0
        self.starts = 0
        self.throttle = Throttle(rng)
        self._own_rate = RateLimit(policy.max_rate)
        self._rate: RateLimit | LentPace = self._own_rate
        self.lent: LentPace | None = None  # the same, where a book lends the pace
        self._dues: TimerHeap[S] = TimerHeap()
        # Ordered, as one who leaves must be removed at once, from wherever in the queue.
        self._newcomers: OrderedDict[S, float] = OrderedDict()
        self._asked: OrderedDict[S, int] = OrderedDict()
        self._newcomer_went = False

    def __repr__(self) -> str:
        queued = f"newcomers={len(self._newcomers)} asked={len(self._asked)}"
        return f"<Schedule in_flight={self.in_flight} due={len(self._dues)} {queued}>"

    def put(self, item: S, when: float) -> None:
        """Schedule the next query of an item for the end of its pause, in s."""
        self._dues.set(item, when)

    def add_newcomer(self, item: S, now: float) -> None:
        """Queue the first query of an item, ahead of what is overdue."""
        self._dues.discard(item)
        self._newcomers.setdefault(item, now)

    def lay_out(self, item: S, now: float, turn: float | None) -> float:
        """Schedule a first query of a list: its first id as a newcomer, the others at the pace.

        Returns the turn of the next, in s, which the call for that one is given.
        """
        if turn is None:
            self.add_newcomer(item, now)
            return now + self._rate.gap_s
        # A list that is read more slowly than the pace has not lost its turns, nor gathers any.
        turn = max(turn, now)
        self._dues.set(item, min(item.when, turn))
        return turn + self._rate.gap_s

    def ask(self, item: S) -> None:
        """Queue a query that was asked for by hand; it goes before all scheduled ones."""
        self._asked[item] = self._asked.get(item, 0) + 1

    def withdraw(self, item: S) -> None:
        """Undo one `ask`; a query that nobody asks for any more is not sent."""
        askers = self._asked.get(item, 0)
        if askers > 1:
            self._asked[item] = askers - 1
        elif askers:
            del self._asked[item]

    def drop(self, item: S) -> None:
        """Unschedule an item."""
        self._dues.discard(item)
        self._newcomers.pop(item, None)

    def has_turn(self, item: S, now: float) -> bool:
        """Whether the scheduled query of an item could start now, but for what holds all back."""
        return item.when <= now or item in self._newcomers

    def lend(self, pace: LentPace | None) -> None:
        """Take starts from a book from now on, or keep an own pace again."""
        self.lent = pace
        self._rate = pace or self._own_rate

    def ready(self, now: float) -> int:
        """Return how many starts could be used now; of what is overdue one is counted."""
        overdue = self._dues.first <= now
        is_open = self.throttle.next_start <= now
        return len(self._asked) + (len(self._newcomers) + overdue if is_open else 0)

    def reserve(self, now: float) -> float:
        """Take the next start for what is no query of an item; return its time in s."""
        return self._rate.reserve(now)

    def next_start(self) -> float:
        """Return the time in s at which `pop` may next give something, or infinity."""
        if self.in_flight >= self.limit:
            return NEVER
        opens = self._rate.next_start if self.lent is None else self.lent.opens
        if self._asked:
            return opens
        due = -NEVER if self._newcomers else self._dues.first
        return max(opens, self.throttle.next_start, due)

    def pop(self, now: float) -> tuple[S, Turn, float] | None:
        """Remove the item whose turn it is; return it, why, and since when, for `launch`.

        What nobody wants any more is not launched, and has used up no turn.
        """
        if self.in_flight >= self.limit:
            return None
        if self._rate.next_start > now:
            if self.lent is not None and self.ready(now):
                self.lent.want()
            return None
        if self._asked:
            item, _ = self._asked.popitem(last=False)
            self.drop(item)
            return item, BY_HAND, now
        if self.throttle.next_start > now:
            return None
        overdue = self._dues.first
        if self._newcomers and not (self._newcomer_went and overdue <= now):
            item, since = self._newcomers.popitem(last=False)
            return item, NEWCOMER, since
        due = self._dues.pop_due(now)
        return None if due is None else (due, OVERDUE, overdue)

    def launch(self, item: S, turn: Turn, due: float, now: float) -> None:
        """Start the query of an item that `pop` gave, with what it gave; `now` is in s."""
        item.flight = Flight(now, due)
        self.in_flight += 1
        self.starts += 1
        throttle = self.throttle
        if self._rate.gap_s:
            self._rate.spend(now, max(due, throttle.until))
        if turn is BY_HAND:
            return
        # Here and not in `pop`: ids that were left stay till their pause is over, and a crowd of
        # them would use up the turns of those who wait.
        self._newcomer_went = turn is NEWCOMER
        if throttle.closed:
            throttle.started(item.flight)

    def finish(self, item: S, now: float) -> None:
        """Note that the query of an item is no longer in flight."""
        item.flight = None
        if self._rate.gap_s and (self.in_flight >= self.limit or self.throttle.next_start > now):
            self._rate.skip(now)
        self.in_flight -= 1
