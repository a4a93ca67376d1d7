"""How the polling of a book goes, on stderr: nothing, a line now and then, or lines that move."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Final, Self

from rich import progress

from kling_omni_async._book.book import TaskBook
from kling_omni_async._book.records import BookProgress
from kling_omni_async._session import KlingOmniSession
from kling_omni_async._stats import SessionStats
from kling_omni_async.errors import BookError

from .board import Board
from .following import repeating
from .progress import Rate, due
from .terminal import is_screen, note, out_as_read

LINES_EVERY_S: Final = 10.0


class SilentBook:
    """Shows nothing."""

    every_s: float | None = None  # how often `beat` is to be called; None for never

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Remove what is shown."""

    def beat(self, now: float, stats: SessionStats, counts: BookProgress) -> None:
        """Show how it goes, at a time in s."""

    async def out(self, line: str) -> None:
        """Write a result to stdout."""
        await out_as_read(line)


class BookLines(SilentBook):
    """Writes the counts as a plain line where they have changed."""

    every_s = LINES_EVERY_S

    def __init__(self) -> None:
        self._shown: BookProgress | None = None

    def beat(self, now: float, stats: SessionStats, counts: BookProgress) -> None:  # noqa: ARG002 - as that of others
        """Write a line, unless it would say what the last one says."""
        if counts != self._shown:
            self._shown = counts
            note(str(counts))


class BookBoard(SilentBook):
    """Draws two lines: what the book holds; and how fast it is polled here."""

    every_s = 0.25

    def __init__(self) -> None:
        self._board = Board()
        self._first = progress.Progress(
            progress.SpinnerColumn("line" if self._board.is_ascii else "dots"),
            progress.TimeElapsedColumn(),
            progress.TextColumn("{task.description}", markup=False),
            console=self._board.console,
            auto_refresh=False,
        )
        self._bar = self._first.add_task("", total=None)
        self._board.first = self._first
        self._queries = Rate()

    def __enter__(self) -> Self:
        self._board.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._board.stop()

    def beat(self, now: float, stats: SessionStats, counts: BookProgress) -> None:
        """Draw."""
        self._first.update(self._bar, description=str(counts))
        self._board.second.plain = pace_line(stats, self._queries.add(now, stats.queries))
        self._board.draw()

    async def out(self, line: str) -> None:
        """Write a result to stdout, above the lines if that is on the same terminal."""
        await self._board.out(line)


def pace_line(stats: SessionStats, rate: float) -> str:
    """Return the second line: what this process does, with its queries a second."""
    parts = [f"{rate:.1f} queries/s", f"{stats.in_flight} in flight", f"next query {due(stats)}"]
    return "  " + " · ".join(parts)


def choose_book_view(*, quiet: bool) -> SilentBook:
    """Choose how to show the polling of a book."""
    if quiet or sys.stderr is None:
        return SilentBook()
    return BookBoard() if is_screen(sys.stderr) else BookLines()


@asynccontextmanager
async def shown(
    book: TaskBook, session: KlingOmniSession, view: SilentBook
) -> AsyncGenerator[None]:
    """Show the counts of a book, and of the session that polls it, now and then."""
    loop = asyncio.get_running_loop()
    counts = BookProgress()

    async def beat() -> None:
        nonlocal counts
        with suppress(BookError):  # out of reach: the last counts stay
            counts = await book.progress()
        view.beat(loop.time(), session.stats(), counts)

    async with repeating(beat, view.every_s):
        yield
