"""One SQLite file that holds a book: its connection, and its transactions."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import attrs

from kling_omni_async.errors import BookError, copy_error

from .book_clock import BookClock
from .contract import Member
from .sqlite_errors import OF_ONE_STEP, book_error
from .sqlite_schema import FORM, create
from .sqlite_shelf import SqliteShelf
from .sqlite_thread import Work

BUSY_S: Final = 5.0
"""For how long SQLite waits in s where another process writes."""


class Place(NamedTuple):
    """What tells a file from another one that has its name later."""

    device: int
    inode: int


@attrs.frozen
class Answer:
    """What is to be told to one who waits, once all is kept."""

    work: Work
    result: object
    error: Exception | None

    def tell(self) -> None:
        """Tell it."""
        if self.error is None:
            self.work.answer(self.result)
        else:
            self.work.fail(self.error)


class SqliteFile:
    """Used in the thread of its store alone, but for `news`, `path` and `shelf`."""

    def __init__(
        self,
        path: Path,
        clock: BookClock,
        is_dead: Callable[[Member, float], bool],
        at: Callable[[str], None],
    ) -> None:
        self.path = path
        self.news = 0  # how many of its commits may be waited for
        self._clock = clock
        self._is_dead = is_dead
        self._at = at
        self._place: Place | None = None
        self._fault: BookError | None = None  # nothing is written after it
        self._connection: sqlite3.Connection | None = None
        self._shelf: SqliteShelf | None = None

    @property
    def shelf(self) -> SqliteShelf:
        """The rows, while a transaction is open."""
        assert self._shelf is not None  # noqa: S101 - it is open
        return self._shelf

    @property
    def _db(self) -> sqlite3.Connection:
        assert self._connection is not None  # noqa: S101 - it is open
        return self._connection

    def open(self) -> None:
        """Open the file, and make it a book if there is none."""
        try:
            self._open()
        except BaseException as error:
            self.close()
            if isinstance(error, sqlite3.Error):
                raise book_error(error, self.path) from None
            raise

    def _open(self) -> None:
        self._connection = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None)
        self._place = _place(self.path)
        self._db.execute("PRAGMA journal_mode = WAL").fetchall()
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA wal_autocheckpoint = 0").fetchall()
        self._shelf = SqliteShelf(self._db, self._clock, self._is_dead)
        self._db.execute("BEGIN IMMEDIATE")
        if self._value("PRAGMA user_version") == 0:
            create(self._db)
        self.shelf.begin(is_look=False)
        self.shelf.end()
        self._db.execute("COMMIT")

    def close(self) -> None:
        """Close the file; the last of all processes takes its log over."""
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = self._shelf = None

    def _value(self, sql: str) -> object:
        return self._db.execute(sql).fetchone()[0]

    def version(self) -> tuple[object, int]:
        """Return what changes with each commit of others, and with those of our own."""
        return self._value("PRAGMA data_version"), self.news

    # Transactions.

    def look(self, works: Sequence[Work]) -> None:
        """Do and answer what only reads."""
        try:
            self._begin("BEGIN", is_look=True)
            answers = [self._looked(work) for work in works]
            self._db.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - whoever waits gets it
            self._fail(works, error)
        else:
            _tell(answers)

    def write(self, works: Sequence[Work]) -> None:
        """Do what writes in one transaction, and answer when it is kept."""
        try:
            self._begin("BEGIN IMMEDIATE", is_look=False)
            self._at("begun")
            answers = [self._step(work) for work in works]
            self.shelf.end()
            self._at("stepped")
            self._require_place()
            self._db.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - whoever waits gets it
            self._fail(works, error)
        else:
            self.news += 1
            self._at("committed")
            _tell(answers)

    def idle(self) -> None:
        """Take the log over."""

    def _begin(self, sql: str, *, is_look: bool) -> None:
        if self._fault is not None:
            raise copy_error(self._fault)
        self._db.execute(sql)
        self._require_form()
        self.shelf.begin(is_look=is_look)

    def _looked(self, work: Work) -> Answer:
        """Make a step that has nothing to write, or find that it has."""
        self.shelf.begin_step()
        try:
            result = work.do()
            self.shelf.require_unchanged()
        except Exception as error:  # noqa: BLE001 - whoever waits gets it
            self.shelf.undo_step()
            return Answer(work, None, self._of_one_step(error))
        return Answer(work, result, None)

    def _step(self, work: Work) -> Answer:
        """Make one step; one that fails leaves nothing, and those beside it alone."""
        self.shelf.begin_step()
        self._db.execute("SAVEPOINT step")
        try:
            result = work.do()
        except Exception as error:  # noqa: BLE001 - whoever waits gets it
            told = self._of_one_step(error)
            self._db.execute("ROLLBACK TO step")
            self._db.execute("RELEASE step")
            self.shelf.undo_step()
            return Answer(work, None, told)
        self._db.execute("RELEASE step")
        return Answer(work, result, None)

    def _of_one_step(self, error: Exception) -> Exception:
        """Return what one step has met, or raise what concerns all of them."""
        if isinstance(error, sqlite3.Error) and not isinstance(error, OF_ONE_STEP):
            raise error
        return self._in_our_words(error)

    def _in_our_words(self, error: Exception) -> Exception:
        return book_error(error, self.path) if isinstance(error, sqlite3.Error) else error

    def _fail(self, works: Sequence[Work], error: Exception) -> None:
        with suppress(sqlite3.Error):
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        for work in works:
            work.fail(copy_error(self._in_our_words(error)))

    # What may have happened to the file meanwhile.

    def _require_form(self) -> None:
        form = self._value("PRAGMA user_version")
        if form != FORM:
            raise BookError(f"the book {self.path} has been changed by a newer version ({form})")

    def _require_place(self) -> None:
        if _place(self.path) != self._place:
            self._fault = BookError(f"the book {self.path} was deleted or replaced while open")
            raise copy_error(self._fault)


def _tell(answers: Sequence[Answer]) -> None:
    for answer in answers:
        answer.tell()


def _place(path: Path) -> Place | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return Place(found.st_dev, found.st_ino)
