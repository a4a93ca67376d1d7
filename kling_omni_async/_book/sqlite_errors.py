"""What SQLite says is wrong, in words for whoever keeps a book in a file."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from kling_omni_async.errors import BookError

OF_ONE_STEP: Final = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.ProgrammingError,
    sqlite3.InterfaceError,
)
"""A value cannot be kept: no fault of the file, and none of the steps beside it."""

_DAMAGED: Final = "is damaged; go back to a backup, or take out what it still holds by `.recover`"

_CLOSED: Final = (
    "cannot be opened; check the path, the permissions of the file and its folder, the mount, and "
    "the limit of open files"
)

# By the primary code: what is wrong, what to do, and whether the same call may work later.
_TEXTS: Final[Mapping[int, tuple[str, bool]]] = {
    sqlite3.SQLITE_PERM: ("may not be used by this process; check its permissions", False),
    sqlite3.SQLITE_BUSY: ("is locked by another program for too long; end that, or wait", True),
    sqlite3.SQLITE_LOCKED: ("is locked by another program for too long; end that, or wait", True),
    sqlite3.SQLITE_PROTOCOL: ("is locked by another program for too long; end that, or wait", True),
    sqlite3.SQLITE_READONLY: (
        "cannot be written; check the permissions of the file and its folder, and the mount",
        False,
    ),
    sqlite3.SQLITE_IOERR: ("cannot be read or written; check the disk", True),
    sqlite3.SQLITE_CORRUPT: (_DAMAGED, False),
    sqlite3.SQLITE_NOTADB: ("is no SQLite database; give another path", False),
    sqlite3.SQLITE_FULL: ("cannot grow, as the disk is full; make room", True),
    sqlite3.SQLITE_CANTOPEN: (_CLOSED, False),
}


def in_our_words(error: Exception, path: Path) -> Exception:
    """Return the error of a book for one of SQLite or of the system, and any other as it is."""
    if isinstance(error, sqlite3.Error):
        return _of_sqlite(error, path)
    if isinstance(error, UnicodeError | OverflowError):
        return BookError(f"a value cannot be kept in the book {path} ({error})")
    if isinstance(error, OSError):
        return BookError(f"the book {path} cannot be used ({error})", transient=True)
    return error


def _of_sqlite(error: sqlite3.Error, path: Path) -> BookError:
    # Neither is there where Python itself has found what is wrong.
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    said = f"{getattr(error, 'sqlite_errorname', type(error).__name__)}: {error}"
    text, is_transient = _TEXTS.get(code & 0xFF, ("cannot be used", False))
    return BookError(f"the book {path} {text} ({said})", transient=is_transient)
