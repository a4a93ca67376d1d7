"""A book in Redis keeps the contract of all books: the same tests, with a real Redis."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Final

import pytest

from tests.book import test_contract as contract
from tests.book.pure import LEASE_S
from tests.book.stores import STORES, Clock, StoreBook

from .books import new_book, new_store
from .server import RedisServer

pytestmark = pytest.mark.anyio

OTHERWISE: Final = {
    # Below: Redis absorbs what its clock is set back by.
    "test_time_never_runs_back",
    # Its clock is no machine's that boots: what was claimed waits for its lease.
    "test_a_boot_voids_leases_but_no_pauses",
    # Below, as their books are made by the kind of store.
    "test_all_is_there_after_a_restart",
    "test_two_openings_share_one_book",
}
FACTS: Final = {name: fact for name, fact in vars(contract).items() if name.startswith("test_")}
assert FACTS.keys() >= OTHERWISE
globals().update({name: fact for name, fact in FACTS.items() if name not in OTHERWISE})


@pytest.fixture
def clock() -> Clock:
    """Give the clocks of a machine."""
    return Clock()


@pytest.fixture
async def book(server: RedisServer, clock: Clock) -> AsyncGenerator[StoreBook]:
    """Open an empty book."""
    made = new_book(server.url, clock)
    await made.begin()
    yield made
    await made.store.aclose()


@pytest.mark.parametrize(
    "fact", [contract.test_all_is_there_after_a_restart, contract.test_two_openings_share_one_book]
)
async def test_what_outlives_a_process(
    fact: Callable[[str, Path, Clock], Awaitable[None]],
    server: RedisServer,
    clock: Clock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All is there for whoever opens it again, and for whoever has opened it beside."""
    monkeypatch.setitem(STORES, "redis", lambda _, clock: new_store(server.url, clock))
    await fact("redis", tmp_path, clock)


@pytest.mark.parametrize("by_s", [0.5, 600.0])
async def test_time_that_is_set_back_goes_on(book: StoreBook, by_s: float) -> None:
    """A TIME that jumps back, by a failover or a correction, makes no pause or lease longer."""
    await book.add("t")
    await book.claim()
    before = (await book.turn()).now
    book.clock.now -= by_s
    reply = await book.turn(want=1)
    assert (reply.now, reply.next_s) == (before, LEASE_S)
    book.clock.spend(LEASE_S - 1.0)
    assert not (await book.turn(want=1)).claims
    book.clock.spend(1.0)
    (claim,) = (await book.turn(want=1)).claims
    assert claim.row.key == "t"
    assert (await book.turn()).now == before + LEASE_S
