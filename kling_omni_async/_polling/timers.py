"""A heap of times that can be moved and taken back: a binary heap with lazy deletion."""

from __future__ import annotations

import math
from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Final, Generic, TypeVar

NEVER: Final = math.inf
_SPARE_ROWS: Final = 64


class Timed:
    """Something that stands in at most one `TimerHeap`.

    Attributes:
        when: The time of its one valid row in s, or `NEVER`.
    """

    __slots__ = ("when",)

    def __init__(self) -> None:
        self.when: float = NEVER


T = TypeVar("T", bound=Timed)


class TimerHeap(Generic[T]):
    """Items by time; equal times keep the order in which they were set.

    A row counts only while its time is its item's, so moving an item is one push. Rows that
    no longer count are dropped when they surface, or when they are most of the heap.
    """

    __slots__ = ("_live", "_rows", "_serial")

    def __init__(self) -> None:
        self._rows: list[tuple[float, int, T]] = []
        self._serial: Iterator[int] = count()
        self._live = 0

    def __len__(self) -> int:
        return self._live

    def __repr__(self) -> str:
        return f"<TimerHeap of {self._live}, first at {self.first()}>"

    def set(self, item: T, when: float) -> None:
        """Put an item in at a time in s, or move it there; at its own time it keeps its place."""
        if item.when == when:
            return
        moved, item.when = item.when != NEVER, when
        heappush(self._rows, (when, next(self._serial), item))
        if moved:
            self._drop_stale_rows()
        else:
            self._live += 1

    def discard(self, item: T) -> None:
        """Take an item out, if it is in."""
        if item.when != NEVER:
            item.when = NEVER
            self._live -= 1
            self._drop_stale_rows()

    def first(self) -> float:
        """Give the earliest time in s, or `NEVER`."""
        rows = self._rows
        while rows and rows[0][0] != rows[0][2].when:
            heappop(rows)
        return rows[0][0] if rows else NEVER

    def pop_due(self, now: float) -> T | None:
        """Take the earliest item out if its time has come."""
        if self.first() > now or not self._rows:
            return None
        item = heappop(self._rows)[2]
        item.when = NEVER
        self._live -= 1
        return item

    def _drop_stale_rows(self) -> None:
        if len(self._rows) > 2 * self._live + _SPARE_ROWS:
            self._rows = [row for row in self._rows if row[0] == row[2].when]
            heapify(self._rows)
