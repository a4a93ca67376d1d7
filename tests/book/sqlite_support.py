"""What the tests of a book in a file share: a machine whose clocks they set, and steps in short."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from kling_omni_async._book.book_clock import Clocks
from kling_omni_async._book.contract import (
    Ack,
    Addition,
    Claim,
    Parcel,
    Receipt,
    Said,
    Settle,
    Take,
    Terms,
    Turn,
)
from kling_omni_async._book.sqlite import SqliteStore

T = TypeVar("T")

TERMS = Terms((15.0, 30.0), None, 3, None)


class Machine:
    """The clocks of a machine, which stand still but for what a test lets pass."""

    def __init__(self) -> None:
        self.boot = "first"
        self.since_boot = 1_000.0
        self.wall = 1_800_000_000.0
        self.clocks = Clocks(lambda: self.boot, lambda: self.since_boot, lambda: self.wall)

    def pass_time(self, span: float) -> None:
        """Let time pass, in s."""
        self.since_boot += span
        self.wall += span

    def reboot(self, *, off_s: float, wall_step: float = 0.0) -> None:
        """Boot the machine after some time, its wall clock set by the way."""
        self.boot += " and next"
        self.since_boot = 5.0
        self.wall += off_s + wall_step


def new_store(
    path: Path, machine: Machine, at: Callable[[str], None] | None = None, keep_s: float = 1_000.0
) -> SqliteStore:
    """Give a store that is not open yet."""
    return SqliteStore(path, keep_s=keep_s, clocks=machine.clocks, at=at)


@asynccontextmanager
async def opened(
    path: Path,
    machine: Machine | None = None,
    at: Callable[[str], None] | None = None,
    keep_s: float = 1_000.0,
) -> AsyncIterator[SqliteStore]:
    """Open a store, and close it."""
    store = new_store(path, machine or Machine(), at, keep_s)
    await store.open()
    try:
        yield store
    finally:
        await store.aclose()


async def in_its_thread(store: SqliteStore, do: Callable[[sqlite3.Connection], T]) -> T:
    """Do something with the connection of a store."""
    return await store._do(store._thread.calls, lambda: do(store._file._db))


async def run_sql(store: SqliteStore, sql: str) -> list[Any]:
    """Run SQL on the connection of a store."""
    return await in_its_thread(store, lambda db: db.execute(sql).fetchall())


def outside(path: Path, sql: str) -> list[Any]:
    """Run SQL as another program does."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


async def add(store: SqliteStore, *ids: str) -> list[bool]:
    """Keep ids."""
    return await store.add([Addition(each) for each in ids])


NO_PAUSE = Terms((0.0, 0.0), None, 2, None)


def turn(seq: int, settles: Sequence[Settle] = (), *, worker: str = "worker", **more: Any) -> Turn:
    """Give one step of a worker that wants all it can get; its first one brings its policy."""
    given: dict[str, Any] = {"want": 9, "lease_s": 20.0, "account": "a", "origin": "api"} | more
    if seq == 1:
        given.setdefault("terms", NO_PAUSE)
    return Turn(worker=worker, seq=seq, settles=settles, **given)


def succeeded(claim: Claim, outcome: str = "{}") -> Settle:
    """Give the final word for a claim."""
    return Settle(
        key=claim.row.key,
        token=claim.row.token,
        said=Said.FINAL,
        outcome=outcome,
        count="succeeded",
        is_settled=True,
        is_word=True,
        is_task=True,
    )


async def end(store: SqliteStore, *ids: str, worker: str = "ender") -> None:
    """Add ids and let them end."""
    await add(store, *ids)
    claims = (await store.turn(turn(1, worker=worker, want=len(ids)))).claims
    settles = [succeeded(claim) for claim in claims]
    await store.turn(turn(2, settles, worker=worker, want=0, is_leaving=True))


def take(
    seq: int, receipts: Sequence[Receipt] = (), *, reader: str = "reader", **more: Any
) -> Take:
    """Give one step of a reader that wants all it can get."""
    given: dict[str, Any] = {"want": 9} | more
    return Take(reader=reader, seq=seq, receipts=receipts, **given)


def done(parcel: Parcel) -> Receipt:
    """Acknowledge an outcome."""
    return Receipt(parcel.key, parcel.number, Ack.DONE)


def keys(found: Sequence[Claim] | Sequence[Parcel]) -> list[str]:
    """Give the ids of claims or parcels."""
    return [each.row.key if isinstance(each, Claim) else each.key for each in found]
