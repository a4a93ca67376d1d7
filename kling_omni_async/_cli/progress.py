"""Progress on stderr: none, a line now and then, or on a terminal two lines that move."""

from __future__ import annotations

import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Final, Self

from rich import progress
from rich.console import Group, OverflowMethod
from rich.live import Live
from rich.text import Text

from kling_omni_async._stats import SessionStats

from .cursor import shown_while_stopped
from .exit import OutputError
from .report import Tally
from .terminal import (
    has_room,
    is_screen,
    make_console,
    note,
    out_as_read,
    plain,
    room_in,
    wants_colour,
)
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

    # Eleven attributes: what draws (4), what is drawn (4), and the terminal (3).
    def __init__(self) -> None:
        self._console = make_console(None, colour=wants_colour(sys.stderr))
        plainly = self._console.options.ascii_only
        # No thread draws it: `beat` does, in the loop, as only there the session may be looked at.
        self._progress = progress.Progress(
            progress.SpinnerColumn("line" if plainly else "dots"),
            progress.MofNCompleteColumn(),
            progress.BarColumn(bar_width=20),
            progress.TimeElapsedColumn(),
            progress.TextColumn("{task.fields[left]}", markup=False),
            progress.TextColumn("{task.description}", markup=False),
            console=self._console,
            auto_refresh=False,
        )
        self._bar = self._progress.add_task("nothing yet", total=None, left="")
        # rich's ellipsis is one letter, which ASCII has not.
        overflow: OverflowMethod = "crop" if plainly else "ellipsis"
        self._line = Text(no_wrap=True, overflow=overflow)
        self._live = Live(
            Group(self._progress, self._line),
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
        )
        self._queries = Rate()
        self._ends = Rate(_LONG_WINDOW_S)
        self._tally = Tally(0)
        self._hiding = ExitStack()
        self._terminal = sys.stderr
        self._shares_terminal = _stdout_is_stderr()

    def __enter__(self) -> Self:
        self._hiding.enter_context(shown_while_stopped(self._terminal))
        self._live.start()  # drawn with the first beat, which knows what there is
        return self

    def __exit__(self, *_: object) -> None:
        with self._hiding, suppress(OSError):  # the terminal is gone: nobody is left to see it
            self._live.stop()

    def show(self, tally: Tally) -> None:
        """Keep the counts, which change as the work goes on; they are drawn with each beat."""
        self._tally = tally

    def beat(self, now: float, stats: SessionStats, oldest: str) -> None:
        """Draw, unless the terminal is held up: the polling does not wait for it."""
        tally = self._tally
        self._line.plain = second_line(stats, oldest, self._queries.add(now, stats.queries))
        ends = self._ends.add(now, tally.done)
        self._progress.update(
            self._bar,
            completed=tally.done,
            total=tally.total,
            description=tally.parts(),
            left=time_left(tally.total - tally.done, ends),
        )
        if has_room(self._terminal):
            with suppress(OSError):  # as at the end
                self._live.refresh()

    async def out(self, line: str) -> None:
        """Write a result to stdout, above the bar if that is on the same terminal."""
        if not self._shares_terminal:
            await out_as_read(line)
            return
        await room_in(self._terminal)
        # Through rich, which moves the bar out of the way: beside it lines would be torn.
        try:
            self._console.out(line, highlight=False)
        except OSError as error:
            raise OutputError("stdout", error) from None


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
    parts = [f"{rate:.1f} queries/s", f"next query {_due(stats)}"]
    if oldest and stats.oldest is not None:
        name = oldest if len(oldest) <= _LONGEST_ID else f"{oldest[: _LONGEST_ID - 1]}…"
        parts.append(f"oldest {plain(name)}, {human_time(int(stats.oldest))}")
    return "  " + " · ".join(parts)


def _due(stats: SessionStats) -> str:
    if stats.next_query is None:
        return "after an answer" if stats.in_flight else "none"
    return f"in {math.ceil(stats.next_query)} s" if stats.next_query else "now"


def _stdout_is_stderr() -> bool:
    if sys.stdout is None:
        return False
    return os.path.samestat(os.fstat(sys.stdout.fileno()), os.fstat(sys.stderr.fileno()))


def choose_view(*, quiet: bool, every: float = 10.0) -> Silent:
    """Choose how to show progress; between two plain lines are at least `every` s."""
    if quiet or sys.stderr is None:
        return Silent()
    return Bar() if is_screen(sys.stderr) else Lines(every)
