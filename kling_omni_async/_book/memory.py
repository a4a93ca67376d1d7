"""A book in memory: the simplest shelf, by which the others are measured, and its store."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from itertools import islice
from typing import Final, TypeVar

from . import claims, entries, handing
from .claims import WORKER_S
from .contract import (
    Addition,
    Desk,
    Found,
    Intent,
    Known,
    Lesson,
    Member,
    Row,
    State,
    Take,
    Taken,
    Turn,
    Turned,
    Wish,
)

ENDS_KEPT: Final = 1_000
NOT_ACKNOWLEDGED: Final = (State.UNREAD, State.PARKED)
READER_S: Final = 30.0
"""How long a reader keeps what it has without a step, in s, where nothing else tells it is dead."""

R = TypeVar("R")
Place = tuple[float, int, str]


class MemoryShelf:
    """The rows of a book in dictionaries, and a sorted list for each state."""

    def __init__(self) -> None:
        self.desk = Desk()
        self._rows: dict[str, Row] = {}
        self._places: dict[tuple[State, bool], list[Place]] = {}
        self._unread: list[Place] = []  # the same for what nobody has acknowledged, by its end
        self._held: dict[str, set[str]] = {}
        self._keys: list[str] = []  # in order, or empty until that is asked for
        self._contents: dict[str, tuple[str | None, str | None]] = {}
        self._wishes: dict[str, Wish] = {}
        self._members: dict[str, Member] = {}
        self._lessons: list[Lesson] = []
        self._ends: list[tuple[int, str]] = []

    def row(self, key: str) -> Row | None:
        """Return a copy: what is changed in it counts once it is put back."""
        found = self._rows.get(key)
        return None if found is None else copy(found)

    def put(self, row: Row) -> None:
        if (before := self._rows.get(row.key)) is not None:
            self._take_out(before)
        else:
            self._keys = []
        self._rows[row.key] = kept = copy(row)
        if row.ended is not None and (not self._ends or row.number > self._ends[-1][0]):
            self._ends.append((row.number, row.key))
            del self._ends[:-ENDS_KEPT]
        insort(self._places.setdefault((row.state, row.is_new), []), _place(kept))
        if row.state in NOT_ACKNOWLEDGED:
            insort(self._unread, _place_by_end(kept))
            if row.holder is not None:
                self._held.setdefault(row.holder, set()).add(row.key)

    def drop(self, key: str) -> None:
        if (before := self._rows.pop(key, None)) is not None:
            self._take_out(before)
            self._keys = []
        self._contents.pop(key, None)

    def _take_out(self, row: Row) -> None:
        _discard(self._places[row.state, row.is_new], _place(row))
        if row.state in NOT_ACKNOWLEDGED:
            _discard(self._unread, _place_by_end(row))
            if row.holder is not None:
                self._held[row.holder].discard(row.key)
                if not self._held[row.holder]:
                    del self._held[row.holder]

    def due(self, state: State, until: float, limit: int, *, is_new: bool = False) -> list[Row]:
        places = self._places.get((state, is_new), [])
        number = bisect_right(places, (until, 1 << 62, ""))
        return self._copies(places[: min(number, limit)])

    def first_at(self, state: State, *, is_new: bool = False) -> float | None:
        places = self._places.get((state, is_new))
        return places[0][0] if places else None

    def claimed(self) -> list[Row]:
        return [copy(row) for row in self._rows.values() if row.token and row.state is State.OPEN]

    def held(self, reader: str) -> list[Row]:
        return self._copies(sorted(_place(self._rows[key]) for key in self._held.get(reader, ())))

    def ended_before(self, when: float, limit: int) -> list[Row]:
        number = bisect_left(self._unread, (when, -1, ""))
        return self._copies(self._unread[: min(number, limit)])

    def _copies(self, places: Iterable[Place]) -> list[Row]:
        return [copy(self._rows[key]) for _, _, key in places]

    def contents(self, key: str) -> tuple[str | None, str | None]:
        return self._contents.get(key, (None, None))

    def put_contents(self, key: str, note: str | None, order: str | None) -> None:
        self._contents[key] = note, order

    def wish(self, external_id: str) -> Wish | None:
        return self._wishes.get(external_id)

    def put_wish(self, wish: Wish) -> None:
        self._wishes[wish.external_id] = wish

    def drop_wish(self, external_id: str) -> None:
        self._wishes.pop(external_id, None)

    def member(self, name: str) -> Member | None:
        return self._members.get(name)

    def put_member(self, member: Member) -> None:
        self._members[member.name] = member

    def drop_member(self, name: str) -> None:
        self._members.pop(name, None)

    def members(self) -> list[Member]:
        return list(self._members.values())

    def is_dead(self, reader: Member, now: float) -> bool:
        """Tell by its silence: a loop that stands still for so long is dead to the others."""
        return reader.heard < now - READER_S

    def add_lesson(self, lesson: Lesson, keep: int) -> None:
        self._lessons.append(lesson)
        del self._lessons[:-keep]

    def lessons_after(self, number: int) -> list[Lesson]:
        return [lesson for lesson in self._lessons if lesson.number > number]

    def ended_after(self, number: int) -> list[str]:
        return [key for _, key in self._ends[bisect_right(self._ends, (number, "\U0010ffff")) :]]

    def found_after(self, after: str, limit: int) -> list[Found]:
        """Return entries by key, from the first behind one on."""
        if not self._keys:
            self._keys = sorted(self._rows)
        keys = islice(self._keys, bisect_right(self._keys, after), None)
        there = (key for key in keys if self._rows[key].state is not State.REMOVED)
        return [Found(copy(self._rows[key]), *self.contents(key)) for key in islice(there, limit)]


def _place(row: Row) -> Place:
    return row.at, row.number, row.key


def _place_by_end(row: Row) -> Place:
    return row.ended or 0.0, row.number, row.key


def _discard(places: list[Place], place: Place) -> None:
    del places[bisect_left(places, place)]


class MemoryStore:
    """A book of one process: it ends with it.

    `clock` and `wall_clock` return the time in s; the first never runs back.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        keep_s: float,
    ) -> None:
        self.shelf = MemoryShelf()
        self._clock = clock
        self._wall_clock = wall_clock
        self._keep_s = keep_s
        self._replies: dict[str, tuple[int, Turned | Taken]] = {}
        self._change = asyncio.Event()

    async def open(self) -> None:
        """Do nothing."""

    def clock(self) -> float:
        return self._clock()

    async def turn(self, turn: Turn) -> Turned:
        if isinstance(known := self._known(turn.worker, turn.seq), Turned):
            return known
        now, wall_s = self._clock(), self._wall_clock()
        reply = claims.turn(self.shelf, turn, now, wall_s=wall_s, keep_s=self._keep_s)
        self._keep_reply(turn.worker, turn.seq, reply, is_leaving=turn.is_leaving)
        if turn.settles or turn.terms is not None or reply.dropped:
            self._changes()
        return reply

    async def take(self, take: Take) -> Taken:
        if isinstance(known := self._known(take.reader, take.seq), Taken):
            return known
        reply = handing.take(self.shelf, take, self._clock(), keep_s=self._keep_s)
        self._keep_reply(take.reader, take.seq, reply, is_leaving=take.is_leaving)
        if take.receipts or take.is_leaving:
            self._changes()
        return reply

    async def add(self, additions: Sequence[Addition]) -> list[bool]:
        now, wall_s = self._clock(), self._wall_clock()
        return self._changed(entries.add(self.shelf, additions, now, wall_s))

    async def find(self, key: str) -> Found | None:
        return entries.find(self.shelf, key)

    async def remove(self, key: str) -> bool:
        return self._changed(entries.remove(self.shelf, key, self._clock()))

    async def retry(self, key: str) -> bool:
        return self._changed(entries.retry(self.shelf, key, self._clock()))

    async def nudge(self, key: str) -> bool:
        return self._changed(entries.nudge(self.shelf, key, self._clock()))

    async def intend(self, intent: Intent) -> Known | None:
        now, wall_s = self._clock(), self._wall_clock()
        return self._changed(entries.intend(self.shelf, intent, now, wall_s))

    async def created(self, external_id: str, made: Addition | None) -> None:
        now, wall_s = self._clock(), self._wall_clock()
        entries.created(self.shelf, external_id, made, now, wall_s)
        self._changes()

    async def progress(self) -> tuple[Desk, int]:
        since = max(self.shelf.desk.clock, self._clock()) - WORKER_S
        members = self.shelf.members()
        workers = [each for each in members if each.kind == "worker" and each.heard >= since]
        return copy(self.shelf.desk), len(workers)

    async def list(self, after: str, limit: int) -> list[Found]:
        return self.shelf.found_after(after, limit)

    async def ended_after(self, number: int) -> tuple[int, Sequence[str]]:
        return self.shelf.desk.number, self.shelf.ended_after(number)

    async def lessons_after(self, number: int) -> Sequence[Lesson]:
        return self.shelf.lessons_after(number)

    async def changed(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._change.wait()
        except TimeoutError:
            pass

    async def aclose(self) -> None:
        """Let those go who wait for changes."""
        self._changes()

    def _known(self, name: str, seq: int) -> Turned | Taken | None:
        """Return the reply to a step that was made before, of a member that is still known."""
        kept, member = self._replies.get(name), self.shelf.member(name)
        return kept[1] if kept is not None and member is not None and kept[0] == seq else None

    def _keep_reply(self, name: str, seq: int, reply: Turned | Taken, *, is_leaving: bool) -> None:
        if is_leaving:
            self._replies.pop(name, None)
        elif name not in self._replies or self._replies[name][0] < seq:  # no step of long ago
            self._replies[name] = seq, reply

    def _changed(self, value: R) -> R:
        self._changes()
        return value

    def _changes(self) -> None:
        change, self._change = self._change, asyncio.Event()
        change.set()
