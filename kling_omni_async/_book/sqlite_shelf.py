"""The rows of a book in the tables of SQLite, within the transaction that is open."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable
from copy import copy
from operator import attrgetter
from typing import Any, Final

import attrs
from cattrs.preconf.json import make_converter

from kling_omni_async.errors import BookError

from .book_clock import Anchor, BookClock
from .claims import void_leases
from .contract import Desk, Doubt, Found, Lesson, Member, Row, State, Wish
from .sqlite_schema import COLUMNS

ENDS_SHOWN: Final = 1_000

HEARD_S: Final = 8.0
"""For how long a member counts as heard of, in s, before a look of it is worth a commit."""

_NAMES: Final = ", ".join(COLUMNS)
_SELECT: Final = f"SELECT {_NAMES} FROM entries "  # noqa: S608 - of our own names
# Not the key: SQLite would write its index anew.
_CHANGES: Final = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS if name != "key")
_PUT: Final = (
    f"INSERT INTO entries ({_NAMES}) VALUES ({', '.join('?' * len(COLUMNS))}) "  # noqa: S608 - names of ours alone
    f"ON CONFLICT (key) DO UPDATE SET {_CHANGES}"
)
_LIST: Final = (
    f"SELECT {', '.join(f'e.{name}' for name in COLUMNS)}, c.note, c.brief FROM entries AS e "  # noqa: S608 - names of ours alone
    "LEFT JOIN contents AS c ON c.key = e.key "
    "WHERE e.key > ? AND e.state <> 'removed' ORDER BY e.key LIMIT ?"
)

_converter = make_converter(detailed_validation=False)

Values = tuple[Any, ...]


class MustWriteError(Exception):
    """Raised where a look has met something to write: the step is to be made in earnest."""


class SqliteShelf:
    """What lies in the tables, for one step after the other."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        clock: BookClock,
        is_dead: Callable[[Member, float], bool],
    ) -> None:
        self.desk = Desk()
        self._connection = connection
        self._clock = clock
        self._is_dead = is_dead
        self.is_look = False  # what would write raises
        self._before = self.desk  # as it was when the step began

    # What the file does around steps.

    def begin(self, *, is_look: bool) -> None:
        """Read what is known beside the entries, as another process may have changed it."""
        self.is_look = is_look
        found = self._rows("SELECT desk, boot, ahead, clock, wall FROM desk")
        if not found:
            self.desk = Desk()
            self._clock.begin()
            return
        text, *anchor = found[0]
        try:
            self.desk = _converter.loads(text, Desk)
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged("counts", error) from None
        is_booted = self._clock.follow(Anchor(*anchor), self.desk.clock)
        if is_booted and not is_look:
            void_leases(self, self._clock.now(), up_s=self._clock.since_boot())

    def end(self) -> None:
        """Write what is known beside the entries, once for all steps of a transaction."""
        anchor = attrs.astuple(self._clock.anchor())
        text = _converter.dumps(self.desk)
        self._write("INSERT OR REPLACE INTO desk VALUES (1, ?, ?, ?, ?, ?)", text, *anchor)

    def begin_step(self) -> None:
        """Remember what is known, should a step fail."""
        self._before = attrs.evolve(self.desk, gate=copy(self.desk.gate))

    def undo_step(self) -> None:
        """Know again what was known before the step."""
        self.desk = self._before

    def require_unchanged(self) -> None:
        """Raise `MustWriteError` if a look has changed what is known, but for the time."""
        same = attrs.evolve(self._before, clock=self.desk.clock, purged=self.desk.purged)
        if same != self.desk:
            raise MustWriteError

    def _rows(self, sql: str, *values: object) -> list[Values]:
        # All at once: a query that stays open would keep the log from being taken over.
        return self._connection.execute(sql, values).fetchall()

    def _write(self, sql: str, *values: object) -> None:
        if self.is_look:
            raise MustWriteError
        self._connection.execute(sql, values)

    # Entries.

    def row(self, key: str) -> Row | None:
        found = self._rows(_SELECT + "WHERE key = ?", key)
        return _row(found[0]) if found else None

    def put(self, row: Row) -> None:
        self._write(_PUT, *_values(row))

    def drop(self, key: str) -> None:
        self._write("DELETE FROM entries WHERE key = ?", key)
        self._write("DELETE FROM contents WHERE key = ?", key)

    def due(self, state: State, until: float, limit: int, *, is_new: bool = False) -> list[Row]:
        where = "WHERE state = ? AND is_new = ? AND at <= ? ORDER BY at, number LIMIT ?"
        return _all(self._rows(_SELECT + where, state, is_new, until, limit))

    def first_at(self, state: State, *, is_new: bool = False) -> float | None:
        sql = "SELECT min(at) FROM entries WHERE state = ? AND is_new = ?"
        first: float | None = self._rows(sql, state, is_new)[0][0]
        return first

    def claimed(self) -> list[Row]:
        return _all(self._rows(_SELECT + "WHERE state = ? AND token <> 0", State.OPEN))

    def held(self, reader: str) -> list[Row]:
        where = "WHERE holder = ? AND state IN ('unread', 'parked') ORDER BY at, number"
        return _all(self._rows(_SELECT + where, reader))

    def ended_before(self, when: float, limit: int) -> list[Row]:
        where = "WHERE state IN ('unread', 'parked') AND ended < ? ORDER BY ended, number LIMIT ?"
        return _all(self._rows(_SELECT + where, when, limit))

    def ended_after(self, number: int) -> list[str]:
        sql = (
            "SELECT key FROM entries WHERE ended IS NOT NULL AND number > ? "
            "ORDER BY number DESC LIMIT ?"
        )
        return [key for (key,) in reversed(self._rows(sql, number, ENDS_SHOWN))]

    def found_after(self, after: str, limit: int) -> list[Found]:
        """Return entries by key, from the first behind one on."""
        found = self._rows(_LIST, after, limit)
        return [Found(_row(values[:-2]), *values[-2:]) for values in found]

    # What belongs to them.

    def contents(self, key: str) -> tuple[str | None, str | None]:
        found = self._rows("SELECT note, brief FROM contents WHERE key = ?", key)
        return (found[0][0], found[0][1]) if found else (None, None)

    def put_contents(self, key: str, note: str | None, order: str | None) -> None:
        if note is None and order is None:
            self._write("DELETE FROM contents WHERE key = ?", key)
        else:
            self._write("INSERT OR REPLACE INTO contents VALUES (?, ?, ?)", key, note, order)

    def wish(self, external_id: str) -> Wish | None:
        found = self._rows("SELECT * FROM wishes WHERE external_id = ?", external_id)
        if not found:
            return None
        name, digest, task_id, is_keyed = found[0]
        return Wish(name, digest, task_id, bool(is_keyed))

    def put_wish(self, wish: Wish) -> None:
        values = attrs.astuple(wish)
        self._write("INSERT OR REPLACE INTO wishes VALUES (?, ?, ?, ?)", *values)

    def drop_wish(self, external_id: str) -> None:
        self._write("DELETE FROM wishes WHERE external_id = ?", external_id)

    # Workers and readers.

    def member(self, name: str) -> Member | None:
        found = self._rows("SELECT * FROM members WHERE name = ?", name)
        return Member(*found[0]) if found else None

    def put_member(self, member: Member) -> None:
        before = self.member(member.name) if self.is_look else None
        if before is not None and member.heard < before.heard + HEARD_S:
            return
        values = member.name, member.kind, member.seq, member.heard
        self._write("INSERT OR REPLACE INTO members VALUES (?, ?, ?, ?)", *values)

    def drop_member(self, name: str) -> None:
        self._write("DELETE FROM members WHERE name = ?", name)

    def members(self) -> list[Member]:
        return [Member(*values) for values in self._rows("SELECT * FROM members ORDER BY name")]

    def is_dead(self, reader: Member, now: float) -> bool:
        return self._is_dead(reader, now)

    # Lessons.

    def add_lesson(self, lesson: Lesson, keep: int) -> None:
        values = attrs.astuple(lesson)
        self._write("INSERT OR REPLACE INTO lessons VALUES (?, ?, ?, ?, ?)", *values)
        last = "SELECT number FROM lessons ORDER BY number DESC LIMIT 1 OFFSET ?"
        self._write(f"DELETE FROM lessons WHERE number <= ({last})", keep)  # noqa: S608 - names of ours alone

    def lessons_after(self, number: int) -> list[Lesson]:
        sql = "SELECT * FROM lessons WHERE number > ? ORDER BY number"
        return [Lesson(*values) for values in self._rows(sql, number)]


_attributes: Final[Callable[[Row], Values]] = attrgetter(*COLUMNS)


def _values(row: Row) -> Values:
    values = _attributes(row)
    if row.doubt is None:
        return values
    doubt = json.dumps(attrs.astuple(row.doubt))
    return *values[:_DOUBT], doubt, *values[_DOUBT + 1 :]


_DOUBT: Final = COLUMNS.index("doubt")


def _row(values: Values) -> Row:
    row = Row(*values)
    row.is_new, row.is_nudged = bool(row.is_new), bool(row.is_nudged)
    row.is_settled = bool(row.is_settled)
    try:
        row.state = State(row.state)
        if (doubt := values[_DOUBT]) is not None:
            row.doubt = Doubt(*json.loads(doubt))
    except (TypeError, ValueError) as error:
        raise _damaged("an entry", error) from None
    return row


def _damaged(what: str, error: Exception) -> BookError:
    text = f"the book holds {what} that cannot be read; go back to a backup"
    return BookError(f"{text} ({type(error).__name__}: {error})")


def _all(found: Iterable[Values]) -> list[Row]:
    return [_row(values) for values in found]
