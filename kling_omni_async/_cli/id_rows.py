"""The ids of an input, whichever form it has, and what stands beside them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Final

import attrs

from kling_omni_async._ids import WHITE_SPACE, quoted, trimmed

from .exit import UsageError
from .records import FaultyInputError, Record, RecordReader, without_comment

ID_COLUMN: Final = "task_id"
_NO_LETTERS: Final = re.compile(r"[\W_]+")
_FORMULA: Final = re.compile(r"""=?(["'])(.*)\1""")  # how a spreadsheet is kept off a number
_ROUNDED: Final = re.compile(r"\d+[.,]\d+[eE]\+?\d+|\d+[eE]\+\d+|\d{6,}\.0+|\d{1,3}(?:,\d{3}){2,}")
_EXACT_DIGITS: Final = 15  # of a number in a spreadsheet
_LONGEST_NAME: Final = 40
_MOST_SHOWN: Final = 10
_MOST_COLUMNS: Final = 1000
_AS_TEXT: Final = "set the column to text before the ids are put in, and save it again"


@attrs.frozen
class IdRow:
    """An id, its line, and all cells of that row in the order of `IdRows.names`."""

    task_id: str
    line: int
    cells: tuple[str, ...] = ()


class IdRows:
    """Turns the bytes of an input into ids, each as soon as its row is whole.

    The column of ids is `column`, a name or a number from 1, else ``task_id``. Without a header
    it is the first one.
    """

    def __init__(self, source: str, column: str | None = None, *, with_cells: bool = True) -> None:
        self.names: list[str] = []
        self.id_at = 0
        self.count = 0
        self.without_id = 0  # rows where only other cells are filled
        self._source = source
        self._column = column
        self._with_cells = with_cells
        self._records = RecordReader()
        self._header: tuple[str, ...] | None = None
        self._begun = False

    def feed(self, data: bytes, *, last: bool = False) -> list[IdRow]:
        """Return the ids that end in the next piece of an input.

        Raises:
            UsageError: It cannot be read on; it says which line, and what to do.
        """
        try:
            records = self._records.feed(data, last=last)
            rows = [row for row in map(self._row, records) if row is not None]
        except FaultyInputError as error:
            raise UsageError(
                f"cannot read ids from {self._source}, line {error.line}: {error}"
            ) from None
        self.count += len(rows)
        return rows

    def _row(self, record: Record) -> IdRow | None:
        if record.names is not None:
            return self._of_object(record, record.names)
        cells = tuple(map(trimmed, record.cells))
        if not any(cells):
            return None
        if not self._begun:
            self._begun = True
            if self._is_header(record.line, cells):
                self._header = cells
                self.names = [name or _number(at) for at, name in enumerate(cells)]
                return None
            self.names = list(map(_number, range(len(cells))))
            self.names[self.id_at] = ID_COLUMN
        # Files that were joined have it again.
        if cells == self._header:
            return None
        if len(cells) > len(self.names):
            self.names += map(_number, range(len(self.names), len(cells)))
        return self._id_row(record.line, cells, self.id_at)

    def _is_header(self, line: int, cells: tuple[str, ...]) -> bool:
        """Return whether the first row is names of columns, and note which one has the ids."""
        at = find_name(self._column or ID_COLUMN, cells)
        if at is not None:
            self.id_at = at
            return True
        if self._column is not None:
            at = _place_of(self._column)
            if at is None or at >= len(cells):
                raise FaultyInputError(
                    line, f"no column {self._column!r:.60} here; there is {listed(cells)}"
                )
            self.id_at = at
            return not _has_digit(cells[at])
        self.id_at, first = next((at, cell) for at, cell in enumerate(cells) if cell)
        if not _has_digit(first) and len(first) <= _LONGEST_NAME:
            raise FaultyInputError(
                line,
                f"{first!r} is no task id; if this line is a header, say which column has the "
                f"ids, such as --column {shlex.quote(first)}",
            )
        return False

    def _of_object(self, record: Record, names: tuple[str, ...]) -> IdRow | None:
        at = find_name(self._column or ID_COLUMN, names)
        if at is None:
            raise FaultyInputError(
                record.line,
                f"no {quoted(self._column or ID_COLUMN)} here; there is {listed(names)}: say with "
                "--column which one is the id",
            )
        cells = record.cells
        if list(names) != self.names:  # nearly all have the names of the one before
            cells = self._in_order(names, cells)
        self.id_at = self.names.index(names[at])
        return self._id_row(record.line, cells, self.id_at)

    def _in_order(self, names: tuple[str, ...], cells: tuple[str, ...]) -> tuple[str, ...]:
        """Return cells in the order of all names so far, to which new ones are added."""
        if len(self.names) < _MOST_COLUMNS:  # each object of an endless input may have others
            known = set(self.names)
            self.names += [name for name in names if name not in known]
        given = dict(zip(names, cells, strict=True))
        return tuple(given.get(name, "") for name in self.names)

    def _id_row(self, line: int, cells: tuple[str, ...], at: int) -> IdRow | None:
        task_id = _bare_id(cells[at]) if at < len(cells) else ""
        if not task_id:
            self.without_id += any(cells)
            return None
        if not task_id.isalnum() or len(cells) > at + 1:
            # Where numbers have a comma, that one looks like the end of a cell.
            _refuse_number(line, task_id, ",".join(cells[at : at + 2]))
        return IdRow(task_id, line, cells if self._with_cells else ())


def _refuse_number(line: int, *texts: str) -> None:
    """Raise for what a spreadsheet has made of an id."""
    for text in texts:
        if _ROUNDED.fullmatch(text):
            raise FaultyInputError(
                line, f"a spreadsheet has made the number {quoted(text)} of an id; {_AS_TEXT}"
            )


def _bare_id(cell: str) -> str:
    if cell.isalnum():
        return cell
    cell = without_comment(cell)
    found = _FORMULA.fullmatch(cell)
    return (found[2] if found else cell.removeprefix("'")).strip(WHITE_SPACE)


def find_name(name: str, names: Sequence[str]) -> int | None:
    """Return the place of a name: as it is written, else but for case and what is no letter."""
    if name in names:
        return names.index(name)
    plain = [_plain_name(each) for each in names]
    return plain.index(_plain_name(name)) if _plain_name(name) in plain else None


def _plain_name(name: str) -> str:
    return _NO_LETTERS.sub("", name).casefold()


def _place_of(column: str) -> int | None:
    return int(column) - 1 if column.isdecimal() and int(column) > 0 else None


def _has_digit(cell: str) -> bool:
    return any(map(str.isdigit, cell))


def _number(at: int) -> str:
    """Return the name of a column that has none."""
    return f"column_{at + 1}"


def listed(names: Sequence[str]) -> str:
    return ", ".join(map(quoted, names[:_MOST_SHOWN])) + (" …" if len(names) > _MOST_SHOWN else "")


def refuse_rounded(source: str, rows: Sequence[IdRow]) -> None:
    """Raise `UsageError` for ids that a spreadsheet has rounded: their last digits are all zero."""
    long = [each for each in rows if each.task_id.isdecimal() and len(each.task_id) > _EXACT_DIGITS]
    if len({each.task_id for each in long}) < 2:  # noqa: PLR2004 - one may end so by chance
        return
    if not any(each.task_id[_EXACT_DIGITS:].strip("0") for each in long):
        raise UsageError(
            f"cannot read ids from {source}, line {long[0].line}: a spreadsheet has rounded the "
            f"ids, all of them end in zeros, such as {quoted(long[0].task_id)}; {_AS_TEXT}"
        )
