"""What all commands on books share: where one is, how it is opened, and what is told of it."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from typing import Final

import attrs

from kling_omni_async._book.book import TaskBook, open_inside
from kling_omni_async._book.opened import OpenBook
from kling_omni_async._book.records import BookProgress
from kling_omni_async.errors import BookError

from .exit import CliError, Exit, UsageError, described

_FROM_ENVIRONMENT: Final = "env:"


@attrs.frozen
class Place:
    """Where a book is: a path, or a URL of Redis and the name of the book there."""

    where: str = attrs.field(repr=False)  # a URL may have a password
    given: str = attrs.field(repr=False)  # as the user wrote it
    name: str | None

    @property
    def is_file(self) -> bool:
        """Whether it is no URL."""
        return "://" not in self.where

    def require_there(self) -> None:
        """Raise `UsageError` for a file that is not there: a wrong path makes no empty book."""
        is_there = os.path.isfile(self.where)  # noqa: PTH113 - a Path's raises for some
        if self.is_file and not is_there:
            raise UsageError(
                f"there is no book {self.given}: check the path; kling-omni book {self.given} add "
                "makes one"
            )


def place_of(book: str, name: str | None) -> Place:
    """Return where a book is; ``env:NAME`` is what the environment variable NAME has.

    Other users of the machine see what stands in a command, passwords too.
    """
    if not book.startswith(_FROM_ENVIRONMENT):
        return Place(book, book, name)
    variable = book.removeprefix(_FROM_ENVIRONMENT)
    if where := os.environ.get(variable):
        return Place(where, book, name)
    raise UsageError(
        f"the environment variable {variable!r:.60} is not set: env:NAME is the book whose path or "
        "URL the variable NAME has"
    )


def require_absent(path: str) -> None:
    """Raise `UsageError` where something has a name already: nothing of others is replaced."""
    if os.path.lexists(path):
        raise UsageError(f"{path} is there already: move it away, or give another name")


@asynccontextmanager
async def opened(place: Place) -> AsyncGenerator[tuple[TaskBook, OpenBook]]:
    """Open a book; give its inside too, which lists and backs up.

    Raises:
        CliError: It cannot be opened.
    """
    async with aclosing(TaskBook(place.where, name=place.name)) as book:
        try:
            inside = await open_inside(book)
        except BookError as error:
            # What does not pass by itself is the path, or a file of another kind.
            code = Exit.NOT_ALL if error.transient else Exit.USAGE
            raise CliError(described(error), code=code) from None
        yield book, inside


@attrs.define
class LastCounts:
    """What a book held when the work on it ended, as far as it could be asked."""

    counts: BookProgress | None = None

    @asynccontextmanager
    async def taken(self, book: TaskBook) -> AsyncGenerator[None]:
        """Take the counts at the end of a block, however that ends."""
        try:
            yield
        finally:
            with suppress(BookError):
                self.counts = await book.progress()

    @contextmanager
    def noted(self, left_of: Callable[[BookProgress], int]) -> Generator[None]:
        """Note on what ends a block early how much is left, and how to go on with it."""
        try:
            yield
        except BaseException as error:
            if self.counts is not None and (left := left_of(self.counts)):
                error.add_note(f"{left:,} left; run the same command to go on")
            raise
