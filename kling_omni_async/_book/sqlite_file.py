"""One SQLite file that holds a book: its connection, and its transactions."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import attrs

from kling_omni_async.errors import BookError, copy_error

from .book_clock import BookClock
from .reader_locks import Lives
from .sqlite_errors import OF_ONE_STEP, in_our_words
from .sqlite_log import LogKeeper, name_reset_bug
from .sqlite_opening import BUSY_S, connect, log_path, value
from .sqlite_schema import FORM
from .sqlite_shelf import SqliteShelf
from .sqlite_thread import Kind, Work


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
        lives: Lives,
        at: Callable[[str], None],
    ) -> None:
        self.path = path
        self._log_path = log_path(path)
        self.news = 0  # how many of its commits may be waited for
        self._clock = clock
        self._lives = lives
        self._at = at
        self._places: tuple[Place | None, Place | None] | None = None
        self._log = LogKeeper(clock.since_boot, int(BUSY_S * 1000))
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
        name_reset_bug(sqlite3.sqlite_version_info)
        try:
            self._connection = connect(self.path)
            self._shelf = SqliteShelf(self._db, self._clock, self._lives.is_gone)
            # The first commit, so that the log is there, and a boot of the machine is noted.
            self._begin("BEGIN IMMEDIATE", is_look=False)
            self.shelf.end()
            self._db.execute("COMMIT")
            self._places = self._places_now()
        except Exception as error:  # noqa: BLE001 - whoever opens it gets it
            self.close()
            raise in_our_words(error, self.path) from None

    def close(self) -> None:
        """Close the file; the last of all processes takes the log over."""
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = self._shelf = None
        self._lives.close()

    def version(self) -> tuple[int, int]:
        """Return what changes with each commit of others, and with those of our own."""
        return value(self._db, "PRAGMA data_version"), self.news

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
            self._require_places()
            self._db.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - whoever waits gets it
            self._fail(works, error)
        else:
            self.news += any(work.kind is Kind.NEWS for work in works)
            self._log.wrote(self._db)
            self._at("committed")
            _tell(answers)

    def rest(self) -> float | None:
        """Keep the log short; return in how many s to come again at the latest."""
        if self._connection is None or self._fault is not None:
            return None
        return self._log.rest(self._connection)

    def _begin(self, sql: str, *, is_look: bool) -> None:
        if self._fault is not None:
            raise copy_error(self._fault)
        self._db.execute(sql)
        self._require_places()
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
        return in_our_words(error, self.path)

    def _fail(self, works: Sequence[Work], error: Exception) -> None:
        with suppress(sqlite3.Error):
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        for work in works:
            work.fail(copy_error(in_our_words(error, self.path)))

    # What may have happened to the file meanwhile.

    def _require_form(self) -> None:
        form = value(self._db, "PRAGMA user_version")
        if form != FORM:
            raise BookError(
                f"the book {self.path} was changed by another version of kling-omni-async while "
                f"it was open (form {form}; this one knows {FORM}); start that version here, too"
            )

    def _require_places(self) -> None:
        """Raise where the file or its log is another than was opened: others do not see ours."""
        if self._places not in (None, self._places_now()):
            self._fault = BookError(
                f"the book {self.path} was deleted, moved or replaced while it was open; nothing "
                "more is written; put it back, and open it anew"
            )
            raise copy_error(self._fault)

    def _places_now(self) -> tuple[Place | None, Place | None]:
        return _place(self.path), _place(self._log_path)


def _tell(answers: Sequence[Answer]) -> None:
    for answer in answers:
        answer.tell()


def _place(path: Path) -> Place | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return Place(found.st_dev, found.st_ino)
