"""Which id is queried next, and when: no clock, no await; `now` is an argument."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from kling_omni_async._policy import PollPolicy

from .limits import Pace, Throttle
from .timers import NEVER, Timed, TimerHeap

T = TypeVar("T", bound=Timed)

HEAD_START: Final = 2.0
"""How many of the longest pauses a newcomer goes ahead of the ids that are overdue."""


class Schedule(Generic[T]):
    """The ids of one session by the time of their next query, and what holds them back.

    Attributes:
        limit: The most queries in flight.
        in_flight: Queries in flight now.
        first_gap: The distance in s at which a batch lays out its first queries.
        starts: Queries started so far.
        watched: Ids that somebody waits for; they stretch each other's pauses.
        throttle: The gate that a 429 closes.
    """

    def __init__(self, policy: PollPolicy, rng: random.Random) -> None:
        self.limit = policy.max_concurrency
        self.in_flight = 0
        self.starts = 0
        self.watched = 0
        self.throttle = Throttle(rng)
        self._pace = Pace(policy.max_rate)
        self._policy = policy
        self._random = rng
        self._dues: TimerHeap[T] = TimerHeap()
        self._asked: deque[T] = deque()
        self.first_gap = 0.0 if policy.max_rate is None else 1.0 / policy.max_rate

    def __repr__(self) -> str:
        return (
            f"<Schedule watched={self.watched} in_flight={self.in_flight} "
            f"scheduled={len(self._dues)} asked={len(self._asked)}>"
        )

    @property
    def stretch(self) -> float:
        """The factor on all pauses: above 1 when the pace cannot serve all ids in time."""
        if self._policy.max_rate is None:
            return 1.0
        return max(1.0, self.watched / (self._policy.max_rate * self._policy.mean_interval))

    def pause(self, *, stretched: bool = True) -> float:
        """Draw the pause to the next query of an id, in s."""
        factor = self.stretch if stretched else 1.0
        low, high = self._policy.interval
        return self._random.uniform(low * factor, high * factor)

    def put(self, item: T, when: float) -> None:
        """Schedule an item for a time in s."""
        self._dues.set(item, when)

    def put_first(self, item: T, now: float) -> None:
        """Schedule a newcomer for now, ahead of a crowd that is overdue.

        The head start is bounded, so a stream of newcomers cannot starve the others.
        """
        self._pace.skip(now)
        self._dues.set(item, now - HEAD_START * self._policy.interval[1] * self.stretch)

    def ask(self, item: T) -> None:
        """Queue a query that was asked for by hand; it goes before all scheduled ones."""
        self._asked.append(item)

    def withdraw(self, item: T) -> None:
        """Take back what `ask` queued, if it has not started."""
        if item in self._asked:
            self._asked.remove(item)

    def drop(self, item: T) -> None:
        """Unschedule an item."""
        self._dues.discard(item)

    def next_start(self) -> float:
        """Give the time in s at which `start` may next give something, or infinity."""
        if self.in_flight >= self.limit:
            return NEVER
        if self._asked:
            return self._pace.next_start
        return max(self._pace.next_start, self.throttle.next_start(), self._dues.first())

    def start(self, now: float, wanted: Callable[[T], bool]) -> tuple[T, bool] | None:
        """Take the item whose turn it is, if there is one.

        Args:
            now: In s.
            wanted: Tells whether an item still needs a query; others are dropped here.

        Returns:
            The item and whether its query is the one that tries a closed gate, or None.
        """
        if self.in_flight >= self.limit or self._pace.next_start > now:
            return None
        if self._asked:
            item = self._asked.popleft()
            self._dues.discard(item)
            return self._count(item, now, due=now, probe=False)
        return self._start_scheduled(now, wanted)

    def finish(self, now: float) -> None:
        """Note that a query is no longer in flight."""
        if self.in_flight >= self.limit or self.throttle.next_start() > now:
            self._pace.skip(now)
        self.in_flight -= 1

    def _start_scheduled(self, now: float, wanted: Callable[[T], bool]) -> tuple[T, bool] | None:
        while self.throttle.next_start() <= now:
            due = self._dues.first()
            item = self._dues.pop_due(now)
            if item is None:
                return None
            if wanted(item):
                due = max(due, self.throttle.until)
                return self._count(item, now, due=due, probe=self.throttle.started())
        return None

    def _count(self, item: T, now: float, *, due: float, probe: bool) -> tuple[T, bool]:
        self._pace.spend(now, due)
        self.in_flight += 1
        self.starts += 1
        return item, probe
