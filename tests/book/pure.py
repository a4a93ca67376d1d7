"""A book without a store: its pure steps on a shelf in memory, at times that a test sets."""

from __future__ import annotations

from itertools import count
from typing import Any, Final

from kling_omni_async._book import claims, entries, handing
from kling_omni_async._book.contract import (
    INTENT,
    Ack,
    Addition,
    Claim,
    Desk,
    Found,
    Intent,
    Known,
    Parcel,
    Receipt,
    Row,
    Said,
    Settle,
    Take,
    Taken,
    Terms,
    Turn,
    Turned,
)
from kling_omni_async._book.memory import MemoryShelf

LOW_S: Final = 20.0
TERMS: Final = Terms((LOW_S, 30.0), max_rate=None, confirmations=2, timeout=3600.0)
LEASE_S: Final = 37.0  # 2 s + a query's 15 s + the pause
PROBE_S: Final = 18.0
KEEP_S: Final = 600.0
WALL_S: Final = 1.7e9
START_S: Final = 1000.0

WON: Final[dict[str, Any]] = {
    "said": Said.FINAL,
    "outcome": "{}",
    "count": "succeeded",
    "is_settled": True,
    "is_word": True,
    "is_task": True,
    "is_readable": True,
}
GAVE_UP: Final[dict[str, Any]] = {"said": Said.FINAL, "outcome": '"up"', "count": "unresolved"}
DENIED: Final[dict[str, Any]] = {
    **GAVE_UP,
    "outcome": '"denied"',
    "is_settled": True,
    "is_not_found": True,
    "is_readable": True,
}
"""Final words: an image, our giving up, and "not found" said often enough."""


class PureBook:
    """A book, and a worker and a reader that use it one step after the other."""

    def __init__(self, terms: Terms | None = TERMS) -> None:
        self.shelf = MemoryShelf()
        self.now = START_S
        self._seqs = count(1)
        if terms is not None:
            self.turn(terms=terms)

    @property
    def desk(self) -> Desk:
        return self.shelf.desk

    def row(self, key: str) -> Row:
        found = self.shelf.row(key)
        assert found is not None
        return found

    def at(self, key: str) -> float:
        """Return when the score of an entry comes, in s from now."""
        return self.row(key).at - self.now

    # Users.

    def add(self, *ids: str, **fields: Any) -> list[bool]:
        additions = [Addition(task_id, **fields) for task_id in ids]
        return entries.add(self.shelf, additions, self.now, WALL_S)

    def remove(self, key: str) -> bool:
        return entries.remove(self.shelf, key, self.now)

    def retry(self, key: str) -> bool:
        return entries.retry(self.shelf, key, self.now)

    def nudge(self, key: str) -> bool:
        return entries.nudge(self.shelf, key, self.now)

    def find(self, key: str) -> Found | None:
        return entries.find(self.shelf, key)

    def found(self, key: str) -> Found:
        """Return an entry that is there."""
        found = self.find(key)
        assert found is not None
        return found

    def intend(self, external_id: str = "x", **fields: Any) -> Known | None:
        given: dict[str, Any] = {
            "digest": "d",
            "is_keyed": False,
            "note": None,
            "order": None,
            "lease_s": 60.0,
        }
        intent = Intent(external_id, **{**given, **fields})
        return entries.intend(self.shelf, intent, self.now, WALL_S)

    def created(self, external_id: str, task_id: str | None, **fields: Any) -> None:
        made = None if task_id is None else Addition(task_id, **fields)
        entries.created(self.shelf, external_id, made, self.now, WALL_S)

    # Workers.

    def turn(self, *settles: Settle, worker: str = "w", **fields: Any) -> Turned:
        given: dict[str, Any] = {
            "seq": next(self._seqs),
            "lease_s": LEASE_S,
            "probe_s": PROBE_S,
            "account": "a",
        }
        turn = Turn(worker=worker, settles=settles, **{**given, **fields})
        return claims.turn(self.shelf, turn, self.now, wall_s=WALL_S, keep_s=KEEP_S)

    def claim(self, worker: str = "w") -> Claim:
        (claim,) = self.turn(want=1, worker=worker).claims
        return claim

    def settle(self, claim: Claim, worker: str = "w", account: str = "a", **fields: Any) -> Turned:
        return self.turn(settle(claim, **fields), worker=worker, account=account)

    def ended(self, key: str = "t", **fields: Any) -> Row:
        """Add an id and end it now."""
        self.add(key)
        self.settle(self.claim(), **{**WON, **fields})
        return self.row(key)

    def lost_intent(self, external_id: str = "x", **fields: Any) -> Row:
        """Keep an intent, and end it as nobody knows what it has made."""
        self.intend(external_id, **fields)
        self.now += 60.0
        self.settle(self.claim(), **GAVE_UP)
        return self.row(INTENT + external_id)

    # Readers.

    def take(self, *receipts: Receipt, reader: str = "r", **fields: Any) -> Taken:
        take = Take(reader=reader, receipts=receipts, **{"seq": next(self._seqs), **fields})
        return handing.take(self.shelf, take, self.now, keep_s=KEEP_S)

    def hand(self, reader: str = "r") -> Parcel:
        """Hand one outcome out."""
        (parcel,) = self.take(reader=reader, want=1, is_handed=True).parcels
        return parcel


def settle(claim: Claim, **fields: Any) -> Settle:
    """Return what became of a claim: the task is worked on, if nothing else is said."""
    given: dict[str, Any] = {"said": Said.PENDING}
    return Settle(key=claim.row.key, token=claim.row.token, **{**given, **fields})


def receipt(parcel: Parcel, ack: Ack) -> Receipt:
    """Return what became of an outcome."""
    return Receipt(parcel.key, parcel.number, ack)
