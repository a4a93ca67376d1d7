"""The table of results: the rows of the input as CSV, with what came of each id behind them."""

from __future__ import annotations

import csv
import io
import os
import stat
import sys
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Final

from kling_omni_async._outcome import TaskOutcome

from .exit import Exit, OutputError, UsageError
from .id_rows import ID_COLUMN, IdRow, IdRows
from .locked_file import LockedFile
from .report import kind_of
from .terminal import note

COLUMNS: Final = ("result", "images", "reason")
PENDING: Final = "pending"

_PREFIX: Final = "kling_"
_PART: Final = ".part"
_HEAD_BYTES: Final = 1 << 16
_ROWS_AT_ONCE: Final = 1000
_STEERING: Final = ("=", "+", "-", "@", "\t", "\r")


class Table:
    """Writes a row for each row of the input, once its id has ended.

    Ids that stand in no row get one of their own.
    """

    def __init__(self, file: LockedFile, given: IdRows | None = None) -> None:
        self.is_empty = True
        self._file = file
        self._given = given
        self._header: list[str] = []
        self._id_at = 0
        self._rows: dict[str, list[tuple[str, ...]]] = {}

    def expect(self, row: IdRow) -> None:
        """Keep the cells of a row until its id has ended."""
        self._rows.setdefault(row.task_id, []).append(row.cells)

    def add(self, outcome: TaskOutcome) -> None:
        """Write what came of an id."""
        self._write(self._rows_of(outcome.task_id, result_of(outcome)))

    def add_pending(self, task_ids: Iterable[str]) -> None:
        """Write the ids that have not ended, if any has."""
        if self.is_empty:
            return
        rows = (row for each in task_ids for row in self._rows_of(each, (PENDING, "", "")))
        while some := list(islice(rows, _ROWS_AT_ONCE)):
            self._write(some)

    def _write(self, rows: list[list[str]]) -> None:
        self._file.append(_csv([self._header, *rows] if self.is_empty else rows))
        self.is_empty = False

    def _rows_of(self, task_id: str, result: Sequence[str]) -> list[list[str]]:
        if not self._header:  # not before: the first rows tell which columns there are
            self._header = header_of(() if self._given is None else self._given.names)
            self._id_at = 0 if self._given is None else self._given.id_at
        own = len(self._header) - len(COLUMNS)
        rows: list[list[str]] = []
        for cells in self._rows.pop(task_id, [()]):
            row = [*cells, *[""] * own][:own]
            row[self._id_at] = task_id
            rows.append([*row, *result])
        return rows


def header_of(names: Sequence[str]) -> list[str]:
    """Return the columns of the input, and ours under names that it has not."""
    header = list(names) or [ID_COLUMN]
    for name in COLUMNS:
        while name in header:
            name = f"{_PREFIX}{name}"  # noqa: PLW2901 - the next one to try
        header.append(name)
    return header


def result_of(outcome: TaskOutcome) -> tuple[str, str, str]:
    """Return the word for an outcome, its images and the reason."""
    images = [image.key for image in outcome.saved] or [image.url for image in outcome.images]
    reason = "" if outcome.error is None else " ".join(str(outcome.error).split())
    return kind_of(outcome).value, _tame(" ".join(images)), _tame(reason)


def _tame(text: str) -> str:
    """Return what an API sent so that no spreadsheet takes it for a formula."""
    return f"'{text}" if text.startswith(_STEERING) else text


def _csv(rows: Iterable[Sequence[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    # A lone half of a letter, as JSON may hold it, is no reason to lose the row.
    return text.getvalue().encode(errors="backslashreplace")


@contextmanager
def open_table(path: str, given: IdRows | None = None) -> Generator[Table]:
    """Open a table that gets its name when the run has come to its end.

    One of this program that has that name already is replaced then; anything else is refused.
    """
    if path in {"", "-"}:
        raise UsageError("--csv writes a file: give its name")
    if Path(path).is_symlink():
        path = os.path.realpath(path)  # the link stays, and leads to the table
    if _is_written_through(path):
        file = LockedFile(path)
        try:
            yield from _kept(file, Table(file, given))
        finally:
            file.release()
        return
    _refuse_foreign(path)
    part = f"{path}{_PART}"
    _refuse_foreign(part)
    file = LockedFile(part)
    file.cut(0)
    table, ended = Table(file, given), False
    try:
        yield from _kept(file, table)
        ended = True
    finally:
        with _locked_until_named(file):
            _name(part, path, table, ended=ended)


def _kept(file: LockedFile, table: Table) -> Generator[Table]:
    failed = True
    try:
        yield table
        failed = False
    finally:
        file.keep(failed=failed)


@contextmanager
def _locked_until_named(file: LockedFile) -> Generator[None]:
    """Release a file once it has its name: until then another run must not begin to write it."""
    if sys.platform == "win32":  # pragma: no cover - there no open file gets another name
        file.release()
        yield
    else:
        try:
            yield
        finally:
            file.release()


def _name(part: str, path: str, table: Table, *, ended: bool) -> None:
    """Give the table its name, unless it would replace a better one."""
    try:
        if table.is_empty:
            Path(part).unlink(missing_ok=True)
        elif ended or not Path(path).exists():
            os.replace(part, path)  # noqa: PTH105 - as it stands beside it
        else:
            note(f"{path} is left as it was; the rows so far are in {part}")
    except OSError as error:
        raise OutputError(path, error) from None


def require_apart(path: str | None, journal: str | None) -> None:
    """Raise `UsageError` if a table, or its parts, would replace the journal."""
    if path is None or journal is None:
        return
    try:
        table, target = os.path.realpath(path), Path(os.path.realpath(journal))
    except OSError:  # no working directory: that is told where a file is opened
        return
    # What is no file, such as /dev/null, is not replaced.
    is_kept = target.exists() and not target.is_file()
    if str(target) in {table, f"{table}{_PART}"} and not is_kept:
        raise UsageError("--csv and --jsonl name the same file: give each one of its own")


def _is_written_through(path: str) -> bool:
    """Return whether something has that name that is no file, such as a pipe."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116 - as it stands beside it
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:  # the latter for what no path can hold
        raise OutputError(path, error, code=Exit.USAGE) from None


def _refuse_foreign(path: str) -> None:
    """Raise `UsageError` if there is a file that is no table of this program."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - as it stands beside it
            head = file.read(_HEAD_BYTES).decode(errors="replace")
    except FileNotFoundError:
        return
    except OSError as error:
        raise OutputError(path, error, code=Exit.USAGE) from None
    first = next(csv.reader(io.StringIO(head)), list[str]())
    if head and [name.removeprefix(_PREFIX) for name in first[-len(COLUMNS) :]] != list(COLUMNS):
        raise UsageError(f"{path} is there and is no table of this program: give another name")
