"""How a file becomes an open book: what is there is looked at before anything is written."""

from __future__ import annotations

import logging
import os
import sqlite3
import stat
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

from kling_omni_async.errors import BookError

from .mounts import mounted, remote_kind
from .sqlite_schema import APPLICATION_ID, FORM, create, migrate

BUSY_S: Final = 5.0
"""For how long SQLite waits where another process writes, in s."""

_AGAIN_S: Final = 0.02

logger: Final = logging.getLogger("kling_omni_async.book")


def connect(path: Path) -> sqlite3.Connection:
    """Open a file as a book, and make it one if there is nothing in it.

    Raises:
        BookError: It cannot be one; nothing was changed.
        sqlite3.Error: SQLite says that it cannot be used.
    """
    require_place(path)
    with suppress(sqlite3.Error):  # whatever that is, the next opening meets it too
        _look(path)
    connection = sqlite3.connect(
        uri(path, "mode=rwc"), timeout=BUSY_S, isolation_level=None, uri=True
    )
    try:
        _prepare(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def require_place(path: Path) -> None:
    """Raise `BookError` where no book can lie."""
    folder = path.parent
    if not folder.is_dir():
        raise BookError(f"the folder of the book {path} does not exist; make it first")
    with suppress(OSError):
        if not stat.S_ISREG(path.stat().st_mode):
            raise BookError(f"the book {path} is no file; give the path of a file")
    if (kind := remote_kind(folder, mounted())) is not None:
        raise BookError(
            f"the book {path} lies on a network file system ({kind}), where SQLite loses data; "
            "put it on a disk of this machine"
        )


def uri(path: Path, options: str) -> str:
    """Return by which name SQLite opens a file with options."""
    return f"file:{quote(os.fsencode(path))}?{options}"


def log_path(path: Path) -> Path:
    """Return where SQLite keeps what is not in the file yet."""
    return path.with_name(path.name + "-wal")


def _look(path: Path) -> None:
    """Raise `BookError` if a file is no book for this version, without a trace in its folder."""
    if not path.exists():
        return
    # Without a log the file is whole by itself, and SQLite need not make files beside it.
    options = "mode=ro" if log_path(path).exists() else "immutable=1"
    with closing(sqlite3.connect(uri(path, options), timeout=BUSY_S, uri=True)) as connection:
        connection.execute("BEGIN")
        form_of(connection, path)


def form_of(connection: sqlite3.Connection, path: Path) -> int | None:
    """Return the form of a book, None where nothing is; raise `BookError` for anything else.

    Within a transaction: of what another process makes at this moment all is seen, or nothing.
    """
    application = value(connection, "PRAGMA application_id")
    form: int = value(connection, "PRAGMA user_version")
    if not application and not value(connection, "SELECT count(*) FROM sqlite_master"):
        return None
    if application != APPLICATION_ID:
        raise BookError(f"{path} is a database of another program; give the book another path")
    if form > FORM:
        raise BookError(
            f"the book {path} was made by a newer version of kling-omni-async (form {form}; this "
            f"one knows {FORM}); upgrade this one"
        )
    return form


def value(connection: sqlite3.Connection, sql: str) -> int:
    """Return the one number that a query gives."""
    number: int = connection.execute(sql).fetchone()[0]
    return number


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("BEGIN")
    form = form_of(connection, path)
    connection.execute("COMMIT")
    mode = _use_log(connection)
    if mode != "wal":
        raise BookError(
            f"the book {path} lies where SQLite can keep no log (journal mode {mode}); put it on "
            "a disk of this machine"
        )
    connection.execute("PRAGMA synchronous = FULL")
    # By our own thread between transactions instead: see `LogKeeper`.
    connection.execute("PRAGMA wal_autocheckpoint = 0").fetchall()
    if form is None or form < FORM:
        _bring_up(connection, path, form)


def _use_log(connection: sqlite3.Connection) -> str:
    """Let commits go to a log; return what SQLite does.

    It waits by itself for those who write, but not for another process that does the same now.
    """
    until = time.monotonic() + BUSY_S
    while True:
        try:
            mode: str = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(_AGAIN_S)
        else:
            return mode


def _bring_up(connection: sqlite3.Connection, path: Path, form: int | None) -> None:
    """Make the tables, or change older ones, of which a copy is kept beside the file."""
    copy = None if form is None else _copy(connection, path, form)
    connection.execute("BEGIN IMMEDIATE")
    form = form_of(connection, path)  # another process may have been first
    if form is None:
        create(connection)
    elif form < FORM:
        migrate(connection, form)
    connection.execute("COMMIT")
    if copy is not None:
        text = "the book %s has now the form of this version; as it was, it lies in %s"
        logger.warning(text, path, copy)


def _copy(connection: sqlite3.Connection, path: Path, form: int) -> Path:
    copy = path.with_name(f"{path.name}-form{form}")
    part = path.with_name(f"{copy.name}.{os.getpid()}.part")
    part.unlink(missing_ok=True)
    connection.execute("VACUUM INTO ?", (str(part),))
    part.replace(copy)
    return copy
