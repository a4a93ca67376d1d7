"""Ids that are to be added to a book: those of arguments and files, and those of a stream."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import aclosing, contextmanager
from typing import Any, NoReturn

import attrs

from kling_omni_async._book.book import TaskBook
from kling_omni_async._book.forms import note_to_json
from kling_omni_async._ids import id_fault, require_id

from .exit import UsageError
from .id_rows import IdRow, IdRows
from .inputs import IdInput, open_ids


def _nowhere(_: IdRow) -> None:
    pass


@attrs.define
class NewIds:
    """Ids for a book, and how many of them were added.

    Attributes:
        ids: Those that are known already.
        stream: Where more of them come from.
        rows: The form of the file or stream, if there is one.
        known_rows: Those of a file.
        given: How many were brought to the book.
        new: How many of them it did not hold.
    """

    ids: Sequence[str]
    stream: IdInput | None = None
    rows: IdRows | None = None
    known_rows: Sequence[IdRow] = ()
    given: int = 0
    new: int = 0

    async def add_to(
        self, book: TaskBook, note: object = None, *, expect: Callable[[IdRow], object] = _nowhere
    ) -> None:
        """Bring them all to a book, those of a stream as they come."""
        await self._add(book, self.ids, note)
        if self.stream is not None:
            async with aclosing(self.stream.pieces()) as pieces:
                async for rows in pieces:
                    for row in rows:
                        expect(row)
                    await self._add(book, [row.task_id for row in rows], note)

    async def _add(self, book: TaskBook, ids: Sequence[str], note: object) -> None:
        self.new += await book.add_many([(task_id, note) for task_id in ids])
        self.given += len(ids)


@contextmanager
def new_ids(
    ids: Iterable[str],
    source: str | None,
    column: str | None,
    *,
    with_cells: bool = False,
) -> Generator[NewIds]:
    """Read ids of arguments and of a file.

    Raises:
        UsageError: The file cannot be read, or has what is no id.
        InvalidTaskIdError: An argument is none.
    """
    known = [require_id(each) for each in ids]
    if source is None:
        yield NewIds(known)
        return
    with open_ids(source, column, with_cells=with_cells) as given:
        if not given.is_file:
            yield NewIds(known, given, given.rows)
            return
        rows = given.read_all()
        for row in rows:
            _require_id_in(source, row)
        yield NewIds([*known, *(row.task_id for row in rows)], None, given.rows, rows)


def _require_id_in(source: str, row: IdRow) -> None:
    if (fault := id_fault(row.task_id)) is not None:
        raise UsageError(f"cannot read ids from {source}, line {row.line}: {fault.what}")


def read_note(text: str | None) -> Any:
    """Return a note that was given as JSON.

    Raises:
        UsageError: It is none.
        ConfigurationError: It is too long.
    """
    if text is None:
        return None
    try:
        note = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise UsageError(
            f"--note cannot be {text!r:.60}: write JSON, such as '{{\"chat\": 42}}' or '\"a text\"'"
        ) from None
    note_to_json(note)
    return note


def _refuse(_: str) -> NoReturn:
    raise ValueError
