"""`book`: what a book holds, and what is added to it and taken from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

from cyclopts import Group, Parameter

from kling_omni_async._book.contract import Found, State, Store
from kling_omni_async._book.sqlite import SqliteStore

from . import options
from .book_ids import NewIds, new_ids, read_note
from .book_list import Show, open_listing, pages, show_all
from .books import Place, opened, place_of, require_absent
from .exit import Exit, UsageError
from .inputs import require_ids
from .signals import heed_signals, run
from .terminal import note as tell
from .terminal import out, plain, without_passwords
from .units import plural

_FLAG: Final = Parameter(show_default=False)
_TASKS: Final = Group("Which tasks", sort_key=1)

Flag: TypeAlias = Annotated[bool, _FLAG, Parameter(group=_TASKS)]
StateName: TypeAlias = Literal["open", "done", "parked"]


def progress(
    book: options.Book,
    /,
    *words: Annotated[str, Parameter(show=False)],
    name: options.BookName = None,
) -> None:
    """Print what a book holds.

    Args:
        book: The file of the book, or a URL of Redis.
        words: What is no command.
        name: Which book of that Redis; tasks by default.
    """
    if words:
        there = ", ".join(sorted(options.BOOK_ACTIONS))
        word = without_passwords(words[0])
        raise UsageError(f"nothing is called {word!r:.60} here: behind BOOK write {there}")
    place = place_of(book, name)
    place.require_there()
    out(run(partial(_counts, place)))


async def _counts(place: Place) -> str:
    async with opened(place) as (book, _):
        return str(await book.progress())


def add(
    book: options.Book,
    /,
    *ids: options.Ids,
    name: options.BookName = None,
    source: options.IdFile = None,
    column: options.Column = None,
    note: Annotated[str | None, Parameter(metavar="JSON", group=_TASKS)] = None,
) -> None:
    """Add tasks to a book; what is there keeps its note.

    Args:
        book: The file of the book, which is made if it is missing; or a URL of Redis.
        ids: The task ids.
        name: Which book of that Redis; tasks by default.
        source: A file with more ids: one a line, CSV or JSON; - for stdin, as they come.
        column: The column of the file that has the ids, by name or number; task_id by default.
        note: What is kept with each of them, and comes out with its outcome.
    """
    require_ids(ids, source, column, "book BOOK add")
    place, kept = place_of(book, name), read_note(note)
    with new_ids(ids, source, column) as given:
        heed_signals()
        try:
            run(partial(_add, place, given, kept))
        finally:
            if given.given:
                known = plural(given.given - given.new, "was", "were")
                tell(f"{given.new:,} added; {known} there already")


async def _add(place: Place, given: NewIds, note: object) -> None:
    async with opened(place) as (book, _):
        await given.add_to(book, note)


def list_(
    book: options.Book,
    /,
    *,
    name: options.BookName = None,
    state: Annotated[StateName | None, Parameter(group=_TASKS)] = None,
    jsonl: options.JournalFile = None,
) -> None:
    """Print the tasks of a book: a table on a terminal, their ids elsewhere.

    Args:
        book: The file of the book, or a URL of Redis.
        name: Which book of that Redis; tasks by default.
        state: Only those that are open, done or parked.
        jsonl: A new file for all that is known of them, as JSON lines; - for stdout.
    """
    place = place_of(book, name)
    place.require_there()
    heed_signals()
    with open_listing(jsonl) as show:
        run(partial(_list, place, state, show))


async def _list(place: Place, state: str | None, show: Show) -> None:
    async with opened(place) as (_, inside):
        await show_all(inside.store, state, show)


def remove(book: options.Book, /, *ids: options.Ids, name: options.BookName = None) -> Exit:
    """Remove tasks from a book: they are polled no further, and come out nowhere.

    Args:
        book: The file of the book, or a URL of Redis.
        ids: The task ids, or external ids.
        name: Which book of that Redis; tasks by default.
    """
    if not ids:
        raise UsageError("no ids: give some")
    place = place_of(book, name)
    place.require_there()
    return run(partial(_remove, place, ids))


async def _remove(place: Place, ids: Sequence[str]) -> Exit:
    async with opened(place) as (book, _):
        number = await _done(book.remove, ids, "it is not in the book")
    tell(f"{number:,} removed")
    return Exit.OK if number == len(ids) else Exit.NOT_ALL


def retry(
    book: options.Book,
    /,
    *ids: options.Ids,
    name: options.BookName = None,
    parked: Flag = False,
    unsettled: Flag = False,
) -> Exit:
    """Poll tasks of a book again whose end was not settled; hand parked outcomes out again.

    Args:
        book: The file of the book, or a URL of Redis.
        ids: The task ids, or external ids.
        name: Which book of that Redis; tasks by default.
        parked: All whose outcome was handed out ten times and never acknowledged.
        unsettled: All that were given up: timed out, or not understood.
    """
    if not (ids or parked or unsettled):
        raise UsageError("nothing to retry: give ids, --parked or --unsettled")
    place = place_of(book, name)
    place.require_there()

    def is_wanted(found: Found) -> bool:
        if found.row.state is State.PARKED:
            return parked
        return unsettled and found.row.state is not State.OPEN and not found.row.is_settled

    heed_signals()
    return run(partial(_retry, place, ids, is_wanted if parked or unsettled else None))


async def _retry(
    place: Place, ids: Sequence[str], is_wanted: Callable[[Found], bool] | None
) -> Exit:
    async with opened(place) as (book, inside):
        why_not = "it is not in the book, is still polled, or its end is settled"
        of_ids = await _done(book.retry, ids, why_not)
        number = of_ids + await _retry_all(inside.store, is_wanted)
    tell(f"{plural(number, 'task is', 'tasks are')} polled or handed out again")
    return Exit.OK if of_ids == len(ids) else Exit.NOT_ALL


async def _retry_all(store: Store, is_wanted: Callable[[Found], bool] | None) -> int:
    """Retry all that is wanted, and count it."""
    if is_wanted is None:
        return 0
    number = 0
    async for page in pages(store, is_wanted):
        for found in page:
            number += await store.retry(found.row.key)
    return number


async def _done(act: Callable[[str], Awaitable[bool]], ids: Sequence[str], why_not: str) -> int:
    """Do something with each id, tell where it could not be done, and count where it could."""
    number = 0
    for task_id in ids:
        if await act(task_id):
            number += 1
        else:
            tell(f"{plain(task_id)}: {why_not}")
    return number


def backup(
    book: options.Book, file: Annotated[options.FileName, Parameter(metavar="FILE")], /
) -> None:
    """Copy a book as it is at one moment, also while others use it.

    Args:
        book: The file of the book.
        file: A path where nothing is.
    """
    place = place_of(book, None)
    if not place.is_file:
        raise UsageError("a book in Redis is backed up by Redis itself, such as by its BGSAVE")
    place.require_there()
    require_absent(file)
    run(partial(_back_up, place, file))
    tell(f"backed up to {file}")


async def _back_up(place: Place, file: str) -> None:
    async with opened(place) as (_, inside):
        assert isinstance(inside.store, SqliteStore)  # noqa: S101 - a file is of no other kind
        await inside.store.backup(Path(file))
