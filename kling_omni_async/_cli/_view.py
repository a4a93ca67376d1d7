"""Progress on stderr: a live bar on a terminal, a line now and then elsewhere, or none."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from ._summary import Tally
from ._terminal import note, out


class Silent:
    """Shows no progress."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take down what is shown."""

    def show(self, tally: Tally) -> None:
        """Show the counts."""

    def out(self, line: str) -> None:
        """Write a result to stdout.

        Raises:
            OutputError: It cannot be written.
        """
        out(line)


class Lines(Silent):
    """Writes the counts as plain lines.

    Args:
        every: The least time between two lines, in s.
        clock: Gives s.
    """

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
    """Draws a bar that moves while nothing happens, and is gone at the end."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._progress = Progress(
            SpinnerColumn(),
            MofNCompleteColumn(),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
            console=self._console,
            transient=True,
            redirect_stdout=False,
        )
        self._bar = self._progress.add_task("nothing yet", total=None)
        self._shares_terminal = _stdout_is_stderr()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def show(self, tally: Tally) -> None:
        """Move the bar."""
        self._progress.update(
            self._bar, completed=tally.done, total=tally.total, description=tally.parts()
        )

    def out(self, line: str) -> None:
        """Write a result to stdout, above the bar if that is on the same terminal."""
        if self._shares_terminal:
            self._console.out(line, highlight=False)
        else:
            out(line)


def _stdout_is_stderr() -> bool:
    if sys.stdout is None:
        return False
    return os.path.samestat(os.fstat(sys.stdout.fileno()), os.fstat(sys.stderr.fileno()))


def choose_view(*, quiet: bool, every: float = 10.0) -> Silent:
    """Choose how to show progress.

    Args:
        quiet: Not at all.
        every: The least time between two plain lines, in s.
    """
    if quiet or sys.stderr is None:
        return Silent()
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        return Bar()
    return Lines(every)
