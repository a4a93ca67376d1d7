"""What a book has promised, kept apart from how it keeps it: times are in s of the book."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

from kling_omni_async._book.contract import (
    INTENT,
    Ack,
    Claim,
    Desk,
    Found,
    Parcel,
    Receipt,
    Said,
    Settle,
    State,
    Turn,
    Turned,
)

from .pure import KEEP_S, LEASE_S, LOW_S, PROBE_S

QUERY_S: Final = 15.0
START_WITHIN_S: Final = 2.0
HORIZON_S: Final = 0.2
PROVED_S: Final = 3600.0
AGAIN_S: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 300.0)
MOST_DELIVERIES: Final = 10
SLACK_S: Final = 1e-6

UNREAD: Final = (State.UNREAD, State.PARKED)
ENDED: Final = (*UNREAD, State.READ)


@attrs.define(eq=False)
class Query:
    """One query, as the server sees it: it may have ended unseen, but for its time-out."""

    key: str
    started: float
    ended: float | None = None

    def end_by(self, now: float) -> float:
        """Return when it has ended at the latest."""
        if self.ended is not None:
            return self.ended
        return min(now, self.started + QUERY_S)


class Server:
    """Sees the queries of all workers: of an id never two at a time, and none without a pause."""

    def __init__(self) -> None:
        self.last: dict[str, Query] = {}

    def start(self, key: str, now: float) -> Query:
        """Note a query, and that it may be made."""
        before = self.last.get(key)
        if before is not None:
            is_over = before.ended is not None or now >= before.started + QUERY_S
            assert is_over, f"two queries of {key} at a time"
            pause_s = now - before.end_by(now)
            assert pause_s >= LOW_S - SLACK_S, f"{key} is asked again after {pause_s} s"
        self.last[key] = query = Query(key, now)
        return query

    def may_start(self, key: str) -> float:
        """Return when an id that nobody has claimed may be asked for at the earliest."""
        before = self.last.get(key)
        if before is None:
            return 0.0
        return (before.started + QUERY_S if before.ended is None else before.ended) + LOW_S

    def rename(self, intent: str, task_id: str) -> None:
        """Let the looks for what an intent has made count as queries of its task."""
        if intent in self.last:
            self.last.setdefault(task_id, self.last[intent])


@attrs.define(eq=False)
class Entry:
    """One id, or intent, as its users see it."""

    state: State = State.OPEN
    token: int = 0  # of the claim that counts
    seen: float | None = None  # when it was last seen as a task
    outcome: str | None = None
    count: str | None = None
    is_settled: bool = False
    ended: float = 0.0
    number: int | None = None  # of its end, once somebody was told
    holder: str | None = None
    handed: float | None = None
    deliveries: int = 0
    available: float = 0.0  # from when on it may be taken
    comes_again: bool = False


class Ledger:
    """What became of each entry, by what the book was told and in that order."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.leases: dict[str, tuple[int, float]] = {}  # by key: the token, and until when
        self.accounts: set[str] = set()
        self.wishes: dict[str, str | None] = {}
        self.readers: set[str] = set()  # that are known to the book
        self.now = 0.0

    # Users.

    def add(self, *keys: str, seen: float | None = None) -> list[bool]:
        """Return which ids are new."""
        return [self._add(key, seen) for key in keys]

    def _add(self, key: str, seen: float | None) -> bool:
        if key in self.entries:
            return False
        self.entries[key] = Entry(seen=seen)
        return True

    def key_of(self, name: str) -> str | None:
        """Return the key of an id or of an external id, if its entry is there."""
        keys = (name, INTENT + name, self.wishes.get(name) or "")
        return next((key for key in keys if key in self.entries), None)

    def remove(self, name: str) -> bool:
        """Return whether there was something to remove."""
        key = self.key_of(name)
        if key is not None:
            del self.entries[key]
        return key is not None

    def retry(self, name: str) -> bool:
        """Return whether something is to be tried again."""
        entry = self.entries.get(self.key_of(name) or "")
        if entry is None:
            return False
        if entry.state is State.PARKED:
            entry.state, entry.deliveries, entry.available = State.UNREAD, 0, self.now
            entry.comes_again = True
            return True
        if entry.state not in ENDED or entry.is_settled:
            return False
        fresh = Entry(seen=entry.seen)
        self.entries[self.key_of(name) or ""] = fresh
        return True

    def nudge(self, name: str) -> bool:
        """Return whether an id is open."""
        key = self.key_of(name) or ""
        is_open = key in self.entries and self.entries[key].state is State.OPEN
        return is_open and not key.startswith(INTENT)

    # Intents: each external id has one task.

    def intend(self, name: str) -> bool:
        """Return whether the wish is new."""
        if name in self.wishes:
            return False
        self.wishes[name] = None
        self.entries[INTENT + name] = Entry()
        return True

    def created(self, name: str, task_id: str | None) -> None:
        """Note what an intent has made."""
        key = INTENT + name
        if task_id is None:
            if name in self.wishes and self.wishes[name] is None:
                del self.wishes[name]
                self.entries.pop(key, None)
            return
        was_known = self.wishes.get(name) == task_id
        if name in self.wishes:
            self.wishes[name] = task_id
        if self.entries.pop(key, None) is not None or not was_known:
            self._add(task_id, self.now)
            entry = self.entries[task_id]
            entry.seen = self.now if entry.seen is None else entry.seen

    # Workers.

    def turned(self, turn: Turn) -> None:
        """Note what a worker brings."""
        for settle in turn.settles:
            self._settle(settle, turn.account)

    def _settle(self, settle: Settle, account: str) -> None:
        if settle.is_task:
            self.accounts.add(account)
        token, _ = self.leases.get(settle.key, (0, 0.0))
        if token == settle.token:
            del self.leases[settle.key]
        entry = self.entries.get(settle.key)
        if entry is None:
            return
        if settle.said is Said.FOUND:
            assert settle.task_id is not None
            self.created(settle.key.removeprefix(INTENT), settle.task_id)
            return
        if entry.state is not State.OPEN:
            return
        is_mine = entry.token == settle.token
        is_final = settle.said is Said.FINAL and self._is_believed(entry, settle, account)
        if settle.is_task and (is_mine or (is_final and settle.is_word) or entry.seen is None):
            entry.seen = self.now - settle.ended_ago
        if is_final and (is_mine or settle.is_word):
            self._end(entry, settle)
        elif is_mine:
            entry.token = 0

    def _is_believed(self, entry: Entry, settle: Settle, account: str) -> bool:
        if not settle.is_not_found:
            return True
        is_stranger = bool(self.accounts) and account not in self.accounts
        if settle.is_settled:  # it says that nobody knows the task
            return not is_stranger and entry.seen is None
        seen_lately = entry.seen is not None and self.now - entry.seen < PROVED_S
        return not (is_stranger and seen_lately)

    def _end(self, entry: Entry, settle: Settle) -> None:
        entry.state, entry.token = State.UNREAD, 0
        entry.outcome, entry.count = settle.outcome, settle.count
        entry.is_settled, entry.ended = settle.is_settled, self.now
        entry.available, entry.number, entry.comes_again = self.now, None, False
        if entry.holder not in self.readers:  # who was to have it has gone
            entry.holder = None

    def claimed(self, claim: Claim) -> None:
        """Note a claim: nobody else has one of that id."""
        key, token = claim.row.key, claim.row.token
        _, until = self.leases.get(key, (0, 0.0))
        assert until <= self.now + SLACK_S, f"{key} is claimed twice"
        entry = self.entries[key]
        assert entry.state is State.OPEN
        entry.token = token
        self.leases[key] = token, self.now + LEASE_S

    def void(self) -> None:
        """Note that the machine was booted: nobody has a claim any more."""
        self.leases.clear()
        for entry in self.entries.values():
            entry.token = 0

    def dropped(self, keys: Sequence[str]) -> None:
        """Note unread outcomes whose time was over, and said to be so."""
        for key in keys:
            entry = self.entries.pop(key)
            assert entry.state in UNREAD
            assert self.now > entry.ended + KEEP_S

    # Readers.

    def received(self, reader: str, receipt: Receipt) -> list[str]:
        """Note what became of an outcome; return its key if that parks it."""
        entry = self.entries.get(receipt.key)
        if entry is None or entry.number != receipt.number or entry.state not in UNREAD:
            return []
        if receipt.ack is Ack.DONE:
            entry.state, entry.holder, entry.handed = State.READ, None, None
        elif entry.holder != reader:
            return []
        elif receipt.ack is Ack.HANDED:
            self._hand(entry)
        else:
            return self._give_back(receipt.key, entry, receipt.ack)
        return []

    def _hand(self, entry: Entry) -> None:
        if entry.handed is None:
            entry.handed, entry.deliveries = self.now, entry.deliveries + 1

    def _give_back(self, key: str, entry: Entry, ack: Ack) -> list[str]:
        handed, entry.handed, entry.holder = entry.handed, None, None
        entry.comes_again |= ack is Ack.FAILED
        if ack is Ack.BACK:
            entry.deliveries -= handed is not None
            entry.available = entry.ended
            return []
        if entry.deliveries >= MOST_DELIVERIES:
            entry.state = State.PARKED
            return [key]
        pause_s = AGAIN_S[max(0, entry.deliveries - 1)]
        entry.available = (self.now if handed is None else handed) + pause_s
        return []

    def gone(self, reader: str) -> list[str]:
        """Note that a reader gives all back; return what is parked for that."""
        parked: list[str] = []
        self.readers.discard(reader)
        for key, entry in self.entries.items():
            if entry.holder == reader and entry.state is State.UNREAD:
                ack = Ack.BACK if entry.handed is None else Ack.FAILED
                parked += self._give_back(key, entry, ack)
        return parked

    def keep(self, reader: str, key: str) -> None:
        """Note that a reader alone is to have an outcome."""
        entry = self.entries.get(key)
        if entry is not None and entry.state in (State.OPEN, State.UNREAD):
            entry.holder = entry.holder if entry.holder in self.readers else reader

    def release(self, reader: str, key: str) -> None:
        """Note that others may have it, too."""
        entry = self.entries.get(key)
        if entry is None or entry.holder != reader:
            return
        if entry.state is State.UNREAD:
            self._give_back(key, entry, Ack.BACK)
        entry.holder = None

    def taken(self, reader: str, parcel: Parcel, *, is_handed: bool) -> None:
        """Note an outcome that was given: it was free, and it is what the id has ended with."""
        entry = self.entries[parcel.key]
        assert entry.state is State.UNREAD, f"{parcel.key} comes again"
        assert entry.holder is None, f"{parcel.key} is with {entry.holder}"
        assert entry.available <= self.now + SLACK_S
        assert parcel.outcome == entry.outcome
        entry.holder, entry.number = reader, parcel.number
        if is_handed:
            self._hand(entry)
        assert parcel.deliveries == entry.deliveries

    def taken_in_order(self, parcels: Sequence[Parcel]) -> None:
        """See that outcomes come in the order of their ends, but for those that come again."""
        first = [each.number for each in parcels if not self.entries[each.key].comes_again]
        assert first == sorted(first)

    def free(self) -> list[str]:
        """Return the outcomes that somebody could take now."""
        return [
            key
            for key, entry in self.entries.items()
            if entry.state is State.UNREAD
            and entry.holder is None
            and entry.available <= self.now - SLACK_S
        ]

    # What the book says.

    def has(self, state: State) -> bool:
        """Return whether an entry is so far."""
        return any(entry.state is state for entry in self.entries.values())

    @property
    def is_empty(self) -> bool:
        """Whether nothing is open and nothing unread."""
        return not (self.has(State.OPEN) or self.has(State.UNREAD))

    def compare(self, found: dict[str, Found]) -> None:
        """Hold all entries against what the book has."""
        for key in self.entries.keys() - found.keys():
            entry = self.entries.pop(key)
            assert entry.state is State.READ, f"{key} is lost"
            assert self.now >= entry.ended + KEEP_S, f"{key} is forgotten too early"
        assert found.keys() == self.entries.keys()
        for key, entry in self.entries.items():
            row = found[key].row
            assert row.state is entry.state, (key, row, entry)
            assert row.outcome == entry.outcome, f"another word has won for {key}"
            assert (row.count, row.holder) == (entry.count, entry.holder)
            assert row.deliveries == entry.deliveries
            assert (row.seen is None) == (entry.seen is None)
            if entry.number is not None:
                assert row.number == entry.number

    def count(self, desk: Desk) -> None:
        """Hold the counts of a book against a recount."""
        states = [entry.state for entry in self.entries.values()]
        assert desk.open == states.count(State.OPEN)
        assert desk.unread == states.count(State.UNREAD)
        assert desk.parked == states.count(State.PARKED)
        ends = [entry.count for entry in self.entries.values() if entry.state in ENDED]
        for name in ("succeeded", "failed", "unresolved"):
            assert getattr(desk, name) == ends.count(name), name


class Pace:
    """Sees all starts that were given out: none nearer to the one before than the pace says."""

    def __init__(self) -> None:
        self.gap_s = 0.0
        self._last = -1e9

    def started(self, reply: Turned) -> None:
        """Note the starts of one step."""
        offsets = sorted([claim.start_s for claim in reply.claims] + list(reply.reserved))
        for offset in offsets:
            assert 0.0 <= offset <= HORIZON_S + SLACK_S
            start = reply.now + offset
            assert start >= self._last + self.gap_s - SLACK_S, "starts are too near"
            self._last = start


class Gate:
    """What a 429 closes."""

    def __init__(self) -> None:
        self.is_closed = False
        self._until = -1e9
        self._probe: tuple[int, float] | None = None

    def turned(self, turn: Turn, now: float) -> None:
        """Note what a worker brings; how long a pause is only the book knows."""
        for settle in turn.settles:
            started = now - settle.started_ago
            if settle.is_limited:
                self._limited(started, settle.limit_s, now)
                continue
            if self._probe is not None and settle.token == self._probe[0]:
                self._probe = None
            if settle.is_readable and started >= self._until:
                self.is_closed, self._probe = False, None
        for started_ago, asked_s, _ in turn.limits:
            self._limited(now - started_ago, asked_s, now)

    def _limited(self, started: float, asked_s: float | None, now: float) -> None:
        if started < self._until:
            return
        assert asked_s is not None
        self.is_closed, self._until, self._probe = True, now + min(asked_s, 120.0), None

    def claimed(self, reply: Turned) -> None:
        """Note the claims of one step: none in a pause, and then one at a time."""
        if not self.is_closed or not reply.claims:
            return
        assert reply.now >= self._until, "a claim in a pause"
        assert self._probe is None or reply.now >= self._probe[1], "two go first"
        assert len(reply.claims) == 1
        self._probe = reply.claims[0].row.token, reply.now + PROBE_S

    def is_open(self, now: float) -> bool:
        """Return whether nothing of it could hold a claim back."""
        return not self.is_closed or (
            now >= self._until and (self._probe is None or now >= self._probe[1])
        )
