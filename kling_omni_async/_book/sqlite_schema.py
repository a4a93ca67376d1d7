"""The form of a book in SQLite: its tables, and how older ones become like it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Final

import attrs

from .contract import Row

APPLICATION_ID: Final = 0x4B4C_4F42
"""By which SQLite and `file` tell a book from other databases: "KLOB"."""

FORM: Final = 1
"""The version of the tables, kept as `user_version`."""

COLUMNS: Final = tuple(field.name for field in attrs.fields(Row))

# Before that a wrong type would be kept; it is ours to write none.
_STRICT: Final = "STRICT" if sqlite3.sqlite_version_info >= (3, 37) else ""

# No index holds what a claim leaves alone but `entries_by_at`, as each costs a page a commit.
TABLES: Final = (
    """
    CREATE TABLE entries (
        key TEXT NOT NULL PRIMARY KEY, state TEXT NOT NULL, at REAL NOT NULL,
        number INTEGER NOT NULL, is_new INTEGER NOT NULL, due REAL NOT NULL,
        token INTEGER NOT NULL, added REAL NOT NULL, added_at REAL NOT NULL, external_id TEXT,
        kind TEXT, queries INTEGER NOT NULL, first REAL, seen REAL, answered REAL NOT NULL,
        doubt TEXT, fault TEXT, task TEXT, born REAL, looked REAL, is_nudged INTEGER NOT NULL,
        ended REAL, outcome TEXT, count TEXT, is_settled INTEGER NOT NULL, holder TEXT,
        deliveries INTEGER NOT NULL, handed REAL
    ) STRICT
    """,
    "CREATE INDEX entries_by_at ON entries (state, is_new, at, number)",
    "CREATE INDEX entries_by_holder ON entries (holder) WHERE holder IS NOT NULL",
    """
    CREATE INDEX entries_by_end ON entries (ended, number) WHERE state IN ('unread', 'parked')
    """,
    "CREATE INDEX entries_by_number ON entries (number) WHERE ended IS NOT NULL",
    # Apart from the entries, so that a claim does not write a note of 64 kB anew.
    "CREATE TABLE contents (key TEXT NOT NULL PRIMARY KEY, note TEXT, brief TEXT) STRICT",
    """
    CREATE TABLE wishes (
        external_id TEXT NOT NULL PRIMARY KEY, digest TEXT NOT NULL, task_id TEXT,
        is_keyed INTEGER NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE members (
        name TEXT NOT NULL PRIMARY KEY, kind TEXT NOT NULL, seq INTEGER NOT NULL,
        heard REAL NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE lessons (
        number INTEGER PRIMARY KEY, kind TEXT NOT NULL, after_s REAL NOT NULL,
        until_s REAL NOT NULL, ended_s REAL
    ) STRICT
    """,
    # One row: what is known beside the entries, and the clocks of its last step.
    """
    CREATE TABLE desk (
        id INTEGER PRIMARY KEY CHECK (id = 1), desk TEXT NOT NULL, boot TEXT NOT NULL,
        ahead REAL NOT NULL, clock REAL NOT NULL, wall REAL NOT NULL
    ) STRICT
    """,
)

Migration = Callable[[sqlite3.Connection], None]

MIGRATIONS: Final[dict[int, Migration]] = {}
"""By the form that it changes: each makes the next one of it."""


def create(connection: sqlite3.Connection) -> None:
    """Make the tables of a new book, within a transaction."""
    for table in TABLES:
        connection.execute(table.replace("STRICT", _STRICT))
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {FORM}")


def migrate(connection: sqlite3.Connection, form: int) -> None:
    """Make the form of today of an older one, within a transaction."""
    for older in range(form, FORM):
        MIGRATIONS[older](connection)
    connection.execute(f"PRAGMA user_version = {FORM}")
