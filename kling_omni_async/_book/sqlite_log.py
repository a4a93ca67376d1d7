"""When what SQLite has logged is taken over into the file: by us, between transactions."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from typing import Final

QUIET_S: Final = 2.0
"""How long nothing was written, in s, when the log is taken over and cut."""

_MUCH: Final = 1_000
"""About how many pages in the log are too many to read through."""

_SOME: Final = 64
_PAGES_OF_A_COMMIT: Final = 4
_WAIT_MS: Final = 250  # shorter than for a commit, as others stand still meanwhile

# Where its fix was brought into an older line: from this version on, before that one.
_MENDED: Final = (((3, 44, 6), (3, 45)), ((3, 50, 7), (3, 51)), ((3, 51, 3), (1 << 30,)))

Version = tuple[int, ...]

logger: Final = logging.getLogger("kling_omni_async.book")


def has_reset_bug(version: Version) -> bool:
    """Return whether SQLite may overlook a part of its log that another process begins anew.

    It takes a second checkpoint at the moment of that. All before 3.51.3 have the fault but 3.44.6
    and 3.50.7 and what came after those in their lines.
    """
    return not any(since <= version < before for since, before in _MENDED)


# One that holds the write lock meets no commit that begins the log anew, so the fault never shows;
# one that does not lets others write meanwhile.
_MODE: Final = "FULL" if has_reset_bug(sqlite3.sqlite_version_info) else "PASSIVE"

_named: Final[set[Version]] = set()


def name_reset_bug(version: Version) -> None:
    """Say once if SQLite has that fault."""
    if version not in _named and has_reset_bug(version):
        _named.add(version)
        text = (
            "SQLite %s has the WAL-reset bug, which 3.51.3 mends: books keep clear of it, but let "
            "no other program write to their files"
        )
        logger.info(text, ".".join(map(str, version)))


class LogKeeper:
    """Keeps the log of one connection short.

    Args:
        clock: Returns a time in s.
        busy_ms: How long SQLite waits otherwise where another process writes.
    """

    def __init__(self, clock: Callable[[], float], busy_ms: int) -> None:
        self._clock = clock
        self._busy_ms = busy_ms
        self._changes = 0  # ever
        self._pages = 0  # about, since the log was last taken over
        self._wrote = 0.0  # when that was last

    def wrote(self, connection: sqlite3.Connection) -> None:
        """Note a commit."""
        changes, self._changes = self._changes, connection.total_changes
        self._pages += self._changes - changes + _PAGES_OF_A_COMMIT
        self._wrote = self._clock()

    def rest(self, connection: sqlite3.Connection) -> float | None:
        """Take the log over if it is time; return when to come again at the latest, in s."""
        if self._pages >= _MUCH:
            self._take_over(connection, _MODE)
        if self._pages < _SOME:
            return None
        left_s = self._wrote + QUIET_S - self._clock()
        if left_s > 0.0:
            return left_s
        self._take_over(connection, "TRUNCATE")
        return None

    def _take_over(self, connection: sqlite3.Connection, mode: str) -> None:
        # Also where it fails: it is tried again when as much has come, and nothing is lost.
        self._pages = 0
        with suppress(sqlite3.Error):
            connection.execute(f"PRAGMA busy_timeout = {_WAIT_MS}").fetchall()
            connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
        with suppress(sqlite3.Error):
            connection.execute(f"PRAGMA busy_timeout = {self._busy_ms}").fetchall()
