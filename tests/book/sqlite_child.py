"""A process that uses a book in a file, until it is killed or dies at a point that matters."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from pathlib import Path

from kling_omni_async import BookError
from kling_omni_async._book.contract import Addition
from kling_omni_async._book.sqlite import SqliteStore

from .sqlite_support import done, end, keys, succeeded, take, turn

DIED = 9


class Death:
    """Ends the process at a point, once it is armed."""

    def __init__(self, point: str) -> None:
        self.point = point
        self.is_armed = False

    def __call__(self, point: str) -> None:
        if self.is_armed and point == self.point:
            os._exit(DIED)


def say(text: str) -> None:
    """Write a line that the parent waits for."""
    print(text, flush=True)  # noqa: T201


async def die(store: SqliteStore, death: Death, what: str) -> None:
    """Make a step, and die at its point."""
    if what == "add":
        death.is_armed = True
        await store.add([Addition("new")])
    await store.add([Addition("old")])
    claims = (await store.turn(turn(1))).claims
    if what == "settle":
        death.is_armed = True
    await store.turn(turn(2, [succeeded(claim) for claim in claims], want=0))
    parcels = (await store.take(take(1))).parcels
    death.is_armed = True
    await store.take(take(2, [done(parcel) for parcel in parcels]))


async def add_for_ever(store: SqliteStore, name: str) -> None:
    """Add ids, and say each that is kept."""
    for number in range(1_000_000):
        await store.add([Addition(f"{name}-{number}")])
        say(f"{name}-{number}")


async def work_for_ever(store: SqliteStore, name: str) -> None:
    """Let ids end and read them; say each that is acknowledged."""
    seq = 0
    while True:
        seq += 1
        await end(store, *(f"{name}-{seq}-{each}" for each in range(5)), worker=f"{name}-{seq}")
        parcels = (await store.take(take(2 * seq, reader=name))).parcels
        await store.take(take(2 * seq + 1, [done(each) for each in parcels], reader=name, want=0))
        for key in keys(parcels):
            say(key)


async def fork(store: SqliteStore) -> None:
    """Fork while the book is open, and use it on either side."""
    await store.add([Addition("before")])
    if not (child := os.fork()):
        try:
            await store.add([Addition("in the child")])
        except BookError as error:
            say(str(error))
        await store.aclose()
        del store
        gc.collect()
        os._exit(0)  # a loop that is closed in a child no longer wakes that of its parent
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    await store.add([Addition("after")])
    say(f"the child ended with {status}")


async def main(what: str, path: str, name: str) -> None:
    """Do what is asked for."""
    death = Death(name)
    store = SqliteStore(Path(path), keep_s=1e6, at=death)
    await store.open()
    if what == "add-for-ever":
        await add_for_ever(store, name)
    elif what == "work-for-ever":
        await work_for_ever(store, name)
    elif what == "fork":
        await fork(store)
    elif what != "open":
        await die(store, death, what)
    await store.aclose()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
