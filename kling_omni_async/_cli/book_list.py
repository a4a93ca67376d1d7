"""What a book holds, in pages: as a table, as ids, or as JSON lines."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from kling_omni_async._book.contract import Found, State, Store
from kling_omni_async._book.forms import entry_of
from kling_omni_async._book.records import BookEntry
from kling_omni_async._outcome import task_to_dict

from .books import require_absent
from .exit import Exit, OutputError
from .report import kind_of
from .terminal import json_line, out_as_read, plain, rendered

PAGE: Final = 200
_PART: Final = ".part"
_COLOURS: Final = {"good": "green", "bad": "red", "unsure": "yellow"}

Show: TypeAlias = Callable[[Sequence[BookEntry]], Awaitable[None]]


async def pages(store: Store, is_wanted: Callable[[Found], bool]) -> AsyncGenerator[list[Found]]:
    """Yield what a book holds and is wanted, some of it at a time, in the order of ids."""
    after = ""
    while found := await store.list(after, PAGE):
        yield [each for each in found if each.row.state is not State.REMOVED and is_wanted(each)]
        after = found[-1].row.key


async def show_all(store: Store, state: str | None, show: Show) -> None:
    """Show the entries of a book that are of a state, or all of them."""
    async for page in pages(store, lambda _: True):
        entries = [entry_of(each) for each in page]
        await show([each for each in entries if state in {None, each.state}])


@contextmanager
def open_listing(jsonl: str | None) -> Generator[Show]:
    """Open the place for a listing: a new file, stdout, or a table where that is a terminal."""
    if jsonl == "-":
        yield _json_out
    elif jsonl is not None:
        with _new_file(jsonl) as write:
            yield write
    else:
        is_terminal = sys.stdout is not None and sys.stdout.isatty()
        yield Listing().show if is_terminal else _ids_out


async def _ids_out(entries: Sequence[BookEntry]) -> None:
    for entry in entries:
        await out_as_read(plain(_name(entry)))


async def _json_out(entries: Sequence[BookEntry]) -> None:
    for entry in entries:
        await out_as_read(json_line(entry_to_dict(entry)))


@contextmanager
def _new_file(path: str) -> Generator[Show]:
    """Open a file that gets its name when all of it is there; none is replaced."""
    require_absent(path)
    part = f"{path}{_PART}"
    try:
        file = open(part, "w", encoding="ascii")  # noqa: PTH123, SIM115 - closed below
    except (OSError, ValueError) as error:  # the latter for what no path can hold
        raise OutputError(path, error, code=Exit.USAGE) from None

    async def write(entries: Sequence[BookEntry]) -> None:
        file.writelines(f"{json_line(entry_to_dict(entry))}\n" for entry in entries)

    try:
        with file:
            yield write
        os.replace(part, path)  # noqa: PTH105 - as it was opened
    except OSError as error:
        raise OutputError(path, error) from None
    finally:
        Path(part).unlink(missing_ok=True)


def entry_to_dict(entry: BookEntry) -> dict[str, Any]:
    """Return an entry as JSON can carry it."""
    return {
        "task_id": entry.task_id,
        "external_task_id": entry.external_task_id,
        "state": entry.state,
        "added_at": entry.added_at.isoformat(),
        "note": entry.note,
        "task": task_to_dict(entry.task),
        "outcome": entry.outcome and entry.outcome.to_dict(),
    }


class Listing:
    """A table whose rows come in pages: their columns have the same widths."""

    def __init__(self) -> None:
        self._has_begun = False

    async def show(self, entries: Sequence[BookEntry]) -> None:
        """Draw some rows, the first ones below a header."""
        if not entries:
            return
        table = Table(
            box=SIMPLE_HEAD, pad_edge=False, show_edge=False, show_header=not self._has_begun
        )
        self._has_begun = True
        table.add_column("task", overflow="fold", width=24)
        table.add_column("state", width=6)
        table.add_column("how", width=11)
        table.add_column("added", width=15)
        table.add_column("note", overflow="fold")
        for entry in entries:
            added = f"{entry.added_at.astimezone():%d %b %H:%M:%S}"
            note = "" if entry.note is None else json_line(entry.note)
            table.add_row(Text(plain(_name(entry))), entry.state, _how(entry), added, Text(note))
        await out_as_read(rendered(table, sys.stdout))


def _how(entry: BookEntry) -> Text:
    """Return how an entry has ended, or what it was last seen as."""
    if entry.outcome is not None:
        kind = kind_of(entry.outcome)
        return Text(kind, _COLOURS[kind.style])
    return Text("" if entry.task is None else plain(entry.task.status))


def _name(entry: BookEntry) -> str:
    return entry.task_id or entry.external_task_id or ""
