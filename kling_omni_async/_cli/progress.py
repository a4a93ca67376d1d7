"""Progress on stderr: none, a line now and then, or on a terminal two lines that move."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Self

from rich import progress

from kling_omni_async._stats import SessionStats

from .board import Board
from .report import Tally
from .terminal import is_screen, note, out_as_read, plain
from .units import human_time

# What the rate is the mean of: about one interval, so that it does not swing with the pauses.
_WINDOW_S: Final = 30.0
# For what is left: tasks end in bursts, and a time that jumps about tells nothing.
_LONG_WINDOW_S: Final = 120.0
_LONGEST_ID: Final = 24


class Silent:
    """Shows no progress."""

    every_s: float | None = None  # how often `beat` is to be called; None for never

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Remove what is shown."""

    def show(self, tally: Tally) -> None:
        """Show the counts."""

    def beat(self, now: float, stats: SessionStats, oldest: str) -> None:
        """Show how the polling goes, at a time in s."""

    async def out(self, line: str) -> None:
        """Write a result to stdout."""
        await out_as_read(line)


class Lines(Silent):
    """Writes the counts as plain lines, `every` s at most."""

    def __init__(self, every: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._every = every
        self._clock = clock
        self._next = clock()

    def show(self, tally: Tally) -> None:
        """Write a line, if the last one is old enough and the summary is not due."""
        if tally.done < tally.total and (now := self._clock()) >= self._next:
            self._next = now + self._every
            note(tally.line())


class Bar(Silent):
    """Draws two lines: how many ids have ended how; how fast, the oldest id, the next query."""

    every_s = 0.25

    def __init__(self) -> None:
        self._board = Board()
        self._progress = progress.Progress(
            progress.SpinnerColumn("line" if self._board.is_ascii else "dots"),
            progress.MofNCompleteColumn(),
            progress.BarColumn(bar_width=20),
            progress.TimeElapsedColumn(),
            progress.TextColumn("{task.fields[left]}", markup=False),
            progress.TextColumn("{task.description}", markup=False),
            console=self._board.console,
            auto_refresh=False,
        )
        self._bar = self._progress.add_task("nothing yet", total=None, left="")
        self._board.first = self._progress
        self._queries = Rate()
        self._ends = Rate(_LONG_WINDOW_S)
        self._tally = Tally(0)

    def __enter__(self) -> Self:
        self._board.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._board.stop()

    def show(self, tally: Tally) -> None:
        """Keep the counts, which change as the work goes on; they are drawn with each beat."""
        self._tally = tally

    def beat(self, now: float, stats: SessionStats, oldest: str) -> None:
        """Draw."""
        tally = self._tally
        rate = self._queries.add(now, stats.queries)
        self._board.second.plain = second_line(stats, oldest, rate)
        ends = self._ends.add(now, tally.done)
        self._progress.update(
            self._bar,
            completed=tally.done,
            total=tally.total,
            description=tally.parts(),
            left=time_left(tally.total - tally.done, ends),
        )
        self._board.draw()

    async def out(self, line: str) -> None:
        """Write a result to stdout, above the bar if that is on the same terminal."""
        await self._board.out(line)


class Rate:
    """How often something happens a second, from counts that are told now and then."""

    def __init__(self, window: float = _WINDOW_S) -> None:
        self._window = window  # in s; older counts are forgotten
        self._samples: deque[tuple[float, int]] = deque()

    def add(self, now: float, count: int) -> float:
        """Add how often it has happened until `now`, in s, and return the rate."""
        samples = self._samples
        samples.append((now, count))
        while samples[0][0] < now - self._window:
            samples.popleft()
        since, before = samples[0]
        return (count - before) / (now - since) if now > since else 0.0


def time_left(count: int, rate: float) -> str:
    """Return how long `count` more take at a rate a second; empty where nobody can say."""
    return f"~{human_time(max(1, round(count / rate)))} left" if count and rate else ""


def second_line(stats: SessionStats, oldest: str, rate: float) -> str:
    """Return the second line of the view; `oldest` is empty if every id has an outcome.

    It is named once it is polled.
    """
    parts = [f"{rate:.1f} queries/s", f"next query {due(stats)}"]
    if oldest and stats.oldest is not None:
        name = oldest if len(oldest) <= _LONGEST_ID else f"{oldest[: _LONGEST_ID - 1]}…"
        parts.append(f"oldest {plain(name)}, {human_time(int(stats.oldest))}")
    return "  " + " · ".join(parts)


def due(stats: SessionStats) -> str:
    """Return when the next query starts."""
    if stats.next_query is None:
        return "after an answer" if stats.in_flight else "none"
    return f"in {math.ceil(stats.next_query)} s" if stats.next_query else "now"


def choose_view(*, quiet: bool, every: float = 10.0) -> Silent:
    """Choose how to show progress; between two plain lines are at least `every` s."""
    if quiet or sys.stderr is None:
        return Silent()
    return Bar() if is_screen(sys.stderr) else Lines(every)
