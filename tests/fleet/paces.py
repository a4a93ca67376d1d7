"""How many queries came in a second, and how late each was after the moment it was given."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

import attrs

from kling_omni_async.simulator import Query
from tests.book.child import Line, each_of

SPAN_S: Final = 1.0
SHARE: Final = 0.05
"""By how much of the rate a second may hold more."""

LATE_S: Final = 0.04
"""A second in which no query was later than this holds no more than that: what was given out for
so long before it may come into it."""


@attrs.frozen
class Start:
    """One query: when it was to start, when it was sent and when it arrived, in s of one clock."""

    given: float
    sent: float
    arrived: float

    @property
    def late_s(self) -> float:
        """How much later it arrived than it was to start."""
        return self.arrived - self.given


@attrs.frozen
class Pace:
    """How many queries the seconds of a story held.

    Attributes:
        given: Most that the book gave out in a second.
        sent: Most that were sent in a second.
        arrived: Most that arrived in a second.
        arrived_in_time: Most that arrived in a second in which no query was late.
        in_time: The share of such seconds.
        earliest_s: How long after its start a query was sent at least.
        latest_s: The latest query.
    """

    given: int
    sent: int
    arrived: int
    arrived_in_time: int
    in_time: float
    earliest_s: float
    latest_s: float

    def __str__(self) -> str:
        return (
            f"in a second at most {self.given} starts were given out, {self.sent} sent and "
            f"{self.arrived} arrived; {self.arrived_in_time} where none was later than "
            f"{LATE_S * 1e3:.0f} ms, as in {self.in_time:.0%} of the seconds; the latest was late "
            f"by {self.latest_s:.2f} s"
        )


def starts_of(lines: list[Line], queries: Iterable[Query]) -> list[Start]:
    """Find for each query that arrived when it was to start, by a book that counts real time."""
    ahead = time.time() - time.monotonic()
    arrived = defaultdict[str, list[float]](list)
    for query in queries:
        if query.task_id is not None:
            arrived[query.task_id].append(query.started)
    starts: list[Start] = []
    for line in each_of(lines, "asks"):
        times = arrived[line.task_id]
        place = bisect_left(times, line.time)
        if place < len(times):  # else its process died first
            starts.append(Start(line.extra - ahead, line.time, times.pop(place)))
    return starts


def most_in_a_second(times: Iterable[float]) -> int:
    """Return how many there are at most in a second, wherever that begins."""
    found = sorted(times)
    return max(bisect_left(found, each + SPAN_S) - place for place, each in enumerate(found))


def pace_of(starts: Sequence[Start]) -> Pace:
    """Count."""
    by_arrival = sorted(starts, key=lambda start: start.arrived)
    arrived = [start.arrived for start in by_arrival]
    in_time: list[int] = []
    for place, first in enumerate(arrived):
        some = by_arrival[place : bisect_left(arrived, first + SPAN_S)]
        if max(start.late_s for start in some) <= LATE_S:
            in_time.append(len(some))
    return Pace(
        given=most_in_a_second(start.given for start in starts),
        sent=most_in_a_second(start.sent for start in starts),
        arrived=most_in_a_second(arrived),
        arrived_in_time=max(in_time, default=0),
        in_time=len(in_time) / len(arrived),
        earliest_s=min(start.sent - start.given for start in starts),
        latest_s=max(start.late_s for start in starts),
    )
