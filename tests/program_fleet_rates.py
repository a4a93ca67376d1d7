"""Measures a book in a real Redis, and prints what an id costs there.

``python -m tests.program_fleet_rates`` starts a redis-server of its own; some two minutes.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any, Final

from kling_omni_async._book.contract import Addition, Claim, Said, Settle, Take, Terms, Turn, Turned
from kling_omni_async._book.redis import RedisStore

from .fleet.books import new_store
from .fleet.server import RedisServer
from .support import say

IDS: Final = 100_000
SPAN_S: Final = 10.0
WORKERS: Final = 4
PENDING: Final = (
    '{"task_id":"t","status":"processing","status_message":null,"images":[],'
    '"created_at":"2026-01-01T00:00:00+00:00","raw":{"prompt":"a long one"}}'
)


class Player:
    """A worker that says at once what it has claimed: each task is pending."""

    def __init__(self, store: RedisStore, name: str) -> None:
        self._store = store
        self._name = name
        self._seq = count(1)

    async def turn(self, claims: Sequence[Claim] = (), want: int = 0, **fields: Any) -> Turned:
        settles = [
            Settle(
                key=claim.row.key,
                token=claim.row.token,
                said=Said.PENDING,
                started_ago=0.1,
                pause_s=20.0,
                is_task=True,
                is_readable=True,
                task=PENDING,
            )
            for claim in claims
        ]
        return await self._store.turn(
            Turn(
                worker=self._name,
                seq=next(self._seq),
                settles=settles,
                want=want,
                lease_s=37.0,
                probe_s=18.0,
                account="a",
                **fields,
            )
        )


async def bytes_an_id(server: RedisServer, kind: str) -> None:
    """Say how much memory open ids need, before and after their first query."""
    async with server.client() as client:
        await client.flushall()
        before = int((await client.info("memory"))["used_memory"])
        store = new_store(server.url)
        await store.open()
        began = time.perf_counter()
        for first in range(0, IDS, 500):
            numbers = range(first, first + 500)
            ids = [f"{number:018}" if kind == "18 digits" else uuid(number) for number in numbers]
            await store.add([Addition(task_id) for task_id in ids])
        spent = time.perf_counter() - began
        added = int((await client.info("memory"))["used_memory"]) - before
        player = Player(store, "w")
        await player.turn(terms=Terms((15.0, 30.0), None, 3, None))
        claims: Sequence[Claim] = ()
        while True:
            claims = (await player.turn(claims, want=200)).claims
            if not claims:
                break
        asked = int((await client.info("memory"))["used_memory"]) - before
        say(
            f"ids of {kind}: {added / IDS:.0f} bytes each when added, {asked / IDS:.0f} "
            "when asked; "
            f"{IDS / spent:,.0f} added a second"
        )
        await store.aclose()


def uuid(number: int) -> str:
    """Return an id as long as a UUID."""
    return f"{number:08x}-0000-4000-8000-{number:012x}"


async def rates(server: RedisServer) -> None:
    """Say how many steps Redis makes a second with many open ids."""
    async with server.client() as client:
        await client.flushall()
        store = new_store(server.url)
        await store.open()
        for first in range(0, IDS, 500):
            await store.add([Addition(f"{each:018}") for each in range(first, first + 500)])
        player = Player(store, "w")
        await player.turn(terms=Terms((0.0, 0.0), None, 3, None))
        for want in (1, 20, 200):
            used, began, claims, turns, number = await cpu_s(client), time.perf_counter(), (), 0, 0
            given: Sequence[Claim] = claims
            while time.perf_counter() < began + SPAN_S / 2:
                given = (await player.turn(given, want=want)).claims
                turns, number = turns + 1, number + len(given)
            spent, cpu = time.perf_counter() - began, await cpu_s(client) - used
            say(
                f"turns of {want} claims and settles, {IDS:,} ids, one after the other: "
                f"{turns / spent:,.0f} turns a second, {number / spent:,.0f} claims a second, "
                f"{cpu / number * 1e6:.0f} us of Redis a claim, {cpu / turns * 1e6:.0f} us a turn"
            )
            await player.turn(given)
        await store.aclose()


async def cpu_s(client: Any) -> float:
    """Return what Redis has used of a processor, in s."""
    found = await client.info("cpu")
    return float(found["used_cpu_user"] + found["used_cpu_sys"])


async def share(server: RedisServer, rate: float) -> None:
    """Say which share of a core Redis needs for so many queries a second by some workers."""
    async with server.client() as client:
        await client.flushall()
        stores = [new_store(server.url) for _ in range(WORKERS)]
        for store in stores:
            await store.open()
        for first in range(0, IDS, 500):
            await stores[0].add([Addition(f"{each:018}") for each in range(first, first + 500)])
        players = [Player(store, f"w{place}") for place, store in enumerate(stores)]
        await players[0].turn(terms=Terms((15.0, 30.0), rate, 3, None))
        used, began = await cpu_s(client), time.perf_counter()
        watching = [asyncio.create_task(watch(store)) for store in stores]
        asked = await asyncio.gather(*(work(player, began + SPAN_S) for player in players))
        spent, cpu = time.perf_counter() - began, await cpu_s(client) - used
        for each in watching:
            each.cancel()
        await asyncio.wait(watching)
        say(
            f"{WORKERS} workers at {rate:.0f} queries a second, {IDS:,} ids: "
            f"{sum(asked) / spent:.0f} a second, {cpu / spent:.1%} of a core of Redis, "
            f"{cpu / sum(asked) * 1e6:.0f} us a query"
        )
        for store in stores:
            await store.aclose()


async def work(player: Player, until: float) -> int:
    """Make turns as a worker does, 20 a second at most; return how many ids were asked."""
    asked, held = 0, deque[Claim]()
    while time.perf_counter() < until:
        claims = (await player.turn(held, want=200)).claims
        held.clear()
        held.extend(claims)
        asked += len(claims)
        await asyncio.sleep(0.05)
    return asked


async def watch(store: RedisStore) -> None:
    """Look for what has ended at each change, as a book does that is open."""
    number = 0
    while True:
        await store.changed(5.0)
        number, _ = await store.ended_after(number)


async def outcomes(server: RedisServer) -> None:
    """Say how many outcomes Redis hands out a second, 20 and 200 at a time."""
    async with server.client() as client:
        await client.flushall()
        store = new_store(server.url)
        await store.open()
        player, number = Player(store, "w"), 20_000
        await player.turn(terms=Terms((0.0, 0.0), None, 3, None))
        for first in range(0, number, 500):
            await store.add([Addition(f"{each:018}") for each in range(first, first + 500)])
        while claims := (await player.turn(want=200)).claims:
            ends = [
                Settle(
                    key=claim.row.key,
                    token=claim.row.token,
                    said=Said.FINAL,
                    outcome='"' + "x" * 1_000 + '"',
                    count="succeeded",
                    is_settled=True,
                    is_word=True,
                )
                for claim in claims
            ]
            await store.turn(Turn(worker="ends", seq=int(time.time() * 1e6), settles=ends))
        for want in (20, 200):
            began, taken, seq = time.perf_counter(), 0, count(1)
            while taken < number // 2:
                take = Take(reader=f"r{want}", seq=next(seq), want=want, is_handed=True)
                taken += len((await store.take(take)).parcels)
            spent = time.perf_counter() - began
            say(f"outcomes of 1 kB, {want} a call: {taken / spent:,.0f} a second")
        await store.aclose()


async def main() -> None:
    """Measure all."""
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(Path(folder))
        try:
            await server.start()
            await server.ready()
            for kind in ("18 digits", "a UUID"):
                await bytes_an_id(server, kind)
            await rates(server)
            await outcomes(server)
            for rate in (100.0, 500.0):
                await share(server, rate)
        finally:
            server.kill()


if __name__ == "__main__":
    asyncio.run(main())
