"""Measures a book in a file, and prints what it found.

Run as ``python -m tests.book.program_book_rates FOLDER [COUNT]``; prints one JSON object. What is
kept is on the disk when it counts, so the figures are those of the disk, too.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from kling_omni_async import TaskBook
from kling_omni_async._book.contract import Addition, Claim, Said, Settle
from kling_omni_async._book.sqlite import SqliteStore
from kling_omni_async._book.worker import LEAST_GAP_S

from .sqlite_support import TERMS, done, succeeded, take, turn

AT_ONCE = 200
WANTED = 20


async def rate(number: int, work: Awaitable[object]) -> float:
    """Give how many a second a work has done."""
    began = time.perf_counter()
    await work
    return round(number / (time.perf_counter() - began), 1)


async def in_ms(work: Callable[[], Awaitable[object]], times: int = 100) -> float:
    """Give how long a work takes, in ms: the median."""
    spans = list[float]()
    for _ in range(times):
        began = time.perf_counter()
        await work()
        spans.append(time.perf_counter() - began)
    return round(median(spans) * 1000, 3)


async def add_one_by_one(store: SqliteStore, callers: int, each: int) -> None:
    """Let callers add an id after the other, at the same time."""

    async def add(caller: int) -> None:
        for number in range(each):
            await store.add([Addition(f"{callers}-{caller}-{number}")])

    await asyncio.gather(*map(add, range(callers)))


class Work:
    """A worker that takes its turns, one settle for each claim."""

    def __init__(self, store: SqliteStore, name: str) -> None:
        self._store = store
        self._name = name
        self._seq = 0
        self._claims: list[Claim] = []

    async def wait_on(self, want: int = WANTED) -> None:
        """Bring back that all claims are pending, and claim others."""
        settles = [
            Settle(key=claim.row.key, token=claim.row.token, said=Said.PENDING, pause_s=15.0)
            for claim in self._claims
        ]
        await self._turn(settles, want)

    async def idle(self) -> None:
        """Bring nothing, and want nothing."""
        await self._turn([], 0)

    async def end(self, number: int) -> None:
        """Let so many ids end."""
        for _ in range(number // AT_ONCE + 1):
            settles = [succeeded(claim, '{"task":"done"}') for claim in self._claims]
            await self._turn(settles, AT_ONCE)

    async def _turn(self, settles: list[Settle], want: int) -> None:
        self._seq += 1
        terms = TERMS if self._seq == 1 else None
        given = turn(self._seq, settles, worker=self._name, want=want, terms=terms)
        self._claims = list((await self._store.turn(given)).claims)


async def share_of_a_core(store: SqliteStore, rate: float, seconds: float = 5.0) -> float:
    """Give which part of a core the book takes, by turns as often as a worker takes them."""
    work, loop = Work(store, "share"), asyncio.get_running_loop()
    began, used = loop.time(), time.process_time()
    while loop.time() < began + seconds:
        await work.wait_on(round(rate * LEAST_GAP_S))
        await asyncio.sleep(LEAST_GAP_S)
    return round((time.process_time() - used) / (loop.time() - began), 4)


async def read_all(store: SqliteStore) -> None:
    """Take all outcomes and acknowledge each piece with the next one."""
    seq, parcels = 1, (await store.take(take(1, want=AT_ONCE))).parcels
    while parcels:
        seq += 1
        receipts = [done(parcel) for parcel in parcels]
        parcels = (await store.take(take(seq, receipts, want=AT_ONCE))).parcels


async def fill(store: SqliteStore, path: Path, count: int) -> dict[str, object]:
    """Fill a book, and measure how fast."""
    async with TaskBook(path) as book:
        return {
            "adds_a_second_by_1": await rate(300, add_one_by_one(store, 1, 300)),
            "adds_a_second_by_50": await rate(5_000, add_one_by_one(store, 50, 100)),
            "adds_a_second_by_add_many": await rate(
                count, book.add_many(f"id-{number}" for number in range(count))
            ),
        }


async def use(store: SqliteStore) -> dict[str, object]:
    """Poll and read a book that is full, and measure how fast."""
    work = Work(store, "work")
    return {
        f"turn_of_{WANTED}_ms": await in_ms(work.wait_on),
        "share_of_a_core_at_100_queries_a_second": await share_of_a_core(store, 100.0),
        "idle_turn_ms": await in_ms(work.idle),
        "ends_a_second": await rate(4_000, Work(store, "end").end(4_000)),
        "read_a_second": await rate(4_000, read_all(store)),
    }


async def measure(path: Path, count: int) -> dict[str, object]:
    """Measure all."""
    found: dict[str, object] = {"load": round(os.getloadavg()[0], 2), "ids": count}
    store = SqliteStore(path, keep_s=1e6)
    await store.open()
    found |= await fill(store, path, count)
    await store.aclose()
    store = SqliteStore(path, keep_s=1e6)
    began = time.perf_counter()
    await store.open()
    found["open_s"] = round(time.perf_counter() - began, 4)
    found |= await use(store)
    await store.aclose()
    return found


def main(folder: str, count: str = "100000") -> None:
    """Measure in a folder of its own, and print it."""
    with TemporaryDirectory(dir=folder) as own:
        print(json.dumps(asyncio.run(measure(Path(own) / "rates.db", int(count))), indent=1))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
