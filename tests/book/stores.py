"""The stores of a book: to prove another one by the same tests is one line here."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, Final

import attrs

from kling_omni_async._book.book_clock import Clocks
from kling_omni_async._book.contract import (
    Addition,
    Claim,
    Desk,
    Found,
    Intent,
    Known,
    Parcel,
    Receipt,
    Settle,
    Store,
    Take,
    Taken,
    Turn,
    Turned,
)
from kling_omni_async._book.memory import MemoryStore
from kling_omni_async._book.reader_locks import ReaderSilence
from kling_omni_async._book.sqlite import SqliteStore

from .pure import KEEP_S, LEASE_S, PROBE_S, START_S, TERMS, WALL_S, WON, settle

UP_S: Final = 5.0
"""How long a machine is up that was booted, in s."""


@attrs.define
class Clock:
    """The clocks of a machine, as a test sets them, in s."""

    now: float = START_S
    wall: float = WALL_S
    boots: int = 0

    def read(self) -> float:
        return self.now

    def read_wall(self) -> float:
        return self.wall

    def read_boot(self) -> str:
        return f"boot {self.boots}"

    def spend(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        self.wall += seconds

    def boot(self, off_s: float) -> None:
        """Start the machine anew: it counts from nothing, and was off for so long."""
        self.boots += 1
        self.now = UP_S
        self.wall += off_s


Maker = Callable[[Path, Clock], Store]


def new_memory(_: Path, clock: Clock) -> Store:
    """Return a book in memory."""
    return MemoryStore(clock=clock.read, wall_clock=clock.read_wall, keep_s=KEEP_S)


def new_sqlite(folder: Path, clock: Clock) -> Store:
    """Return a book in a file, whose readers are dead by their silence."""
    clocks = Clocks(clock.read_boot, clock.read, clock.read_wall)
    path = folder / "tasks.db"
    return SqliteStore(path, keep_s=KEEP_S, clocks=clocks, lives=ReaderSilence())


STORES: Final[dict[str, Maker]] = {
    "memory": new_memory,
    "sqlite": new_sqlite,
}
LASTING: Final = ("sqlite",)
"""Those whose books outlive their process."""


class StoreBook:
    """A book in a store, and workers and readers that use it one step after the other."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store = store
        self.clock = clock
        self._seqs = count(1)

    async def begin(self, **terms: Any) -> None:
        """Open it, and put a policy in force."""
        await self.store.open()
        await self.turn(terms=attrs.evolve(TERMS, **terms))

    # Users.

    async def add(self, *ids: str, **fields: Any) -> list[bool]:
        return await self.store.add([Addition(task_id, **fields) for task_id in ids])

    async def found(self, key: str) -> Found:
        """Return an entry that is there."""
        found = await self.store.find(key)
        assert found is not None
        return found

    async def at(self, key: str) -> float:
        """Return when the score of an entry comes, in s from now."""
        return (await self.found(key)).row.at - self.clock.now

    async def desk(self) -> Desk:
        """Return what is known beside the entries."""
        return (await self.store.progress())[0]

    async def counts(self) -> tuple[int, ...]:
        """Return what is counted: open, unread, parked, and the three ends."""
        desk = await self.desk()
        ends = desk.succeeded, desk.failed, desk.unresolved
        return (desk.open, desk.unread, desk.parked, *ends)

    async def intend(self, external_id: str = "x", **fields: Any) -> Known | None:
        given: dict[str, Any] = {
            "digest": "d",
            "is_keyed": False,
            "note": None,
            "order": None,
            "lease_s": 60.0,
        }
        return await self.store.intend(Intent(external_id, **{**given, **fields}))

    # Workers.

    def new_turn(self, *settles: Settle, worker: str = "w", **fields: Any) -> Turn:
        given: dict[str, Any] = {
            "seq": next(self._seqs),
            "lease_s": LEASE_S,
            "probe_s": PROBE_S,
            "account": "a",
        }
        return Turn(worker=worker, settles=settles, **{**given, **fields})

    async def turn(self, *settles: Settle, **fields: Any) -> Turned:
        return await self.store.turn(self.new_turn(*settles, **fields))

    async def claim(self, worker: str = "w") -> Claim:
        (claim,) = (await self.turn(want=1, worker=worker)).claims
        return claim

    async def settle(
        self, claim: Claim, worker: str = "w", account: str = "a", **fields: Any
    ) -> Turned:
        return await self.turn(settle(claim, **fields), worker=worker, account=account)

    async def ended(self, key: str = "t", **fields: Any) -> None:
        """Add an id and end it now."""
        await self.add(key)
        await self.settle(await self.claim(), **{**WON, **fields})

    # Readers.

    def new_take(self, *receipts: Receipt, reader: str = "r", **fields: Any) -> Take:
        return Take(reader=reader, receipts=receipts, **{"seq": next(self._seqs), **fields})

    async def take(self, *receipts: Receipt, **fields: Any) -> Taken:
        return await self.store.take(self.new_take(*receipts, **fields))

    async def hand(self, reader: str = "r") -> Parcel:
        """Hand one outcome out."""
        (parcel,) = (await self.take(reader=reader, want=1, is_handed=True)).parcels
        return parcel
