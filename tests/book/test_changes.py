"""Who waits in one process for what changes in a book, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from kling_omni_async import BookError, TaskBook
from kling_omni_async._book.book import open_inside
from kling_omni_async._book.memory import MemoryStore
from tests.support import now

pytestmark = pytest.mark.anyio


async def test_a_listener_is_called_until_it_stops_listening() -> None:
    """A callback comes with each change of the book, and none comes after `unlisten`."""
    async with TaskBook() as book:
        changes = (await open_inside(book)).changes
        called: list[float] = []

        def call() -> None:
            called.append(now())

        changes.listen(call)
        await asyncio.sleep(1)
        called.clear()
        await book.add("1")
        await asyncio.sleep(1)
        assert called
        changes.unlisten(call)
        called.clear()
        await book.add("2")
        await asyncio.sleep(20)
        assert not called
        assert "expected=0" in repr(changes)


async def test_who_waits_for_an_entry_waits_so_long_at_most() -> None:
    """Without an end, a wait for one is over when its time is."""
    async with TaskBook() as book:
        changes = (await open_inside(book)).changes
        await changes.ended("1", 1.0)  # the first look wakes all: it knows of no end before it
        await asyncio.gather(changes.ended("1", 3.0), changes.ended("1", 2.0))
        assert now() == pytest.approx(3.0, abs=0.01)


async def test_a_closed_book_tells_who_waits() -> None:
    """`aclose` ends a wait with a `BookError`."""
    book = TaskBook()
    await book.add("1")
    waiting = asyncio.ensure_future(book.wait("1"))
    await asyncio.sleep(1)
    await book.aclose()
    with pytest.raises(BookError, match="is closed; open a new TaskBook"):
        await waiting


class Away(MemoryStore):
    """A book in memory that cannot tell for a while what has ended."""

    calls = 0

    async def ended_after(self, number: int) -> tuple[int, Sequence[str]]:
        self.calls += 1
        if self.calls in {2, 3}:
            raise BookError("the file is locked", transient=True)
        return await super().ended_after(number)


async def test_an_outage_only_costs_the_watcher_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a book is out of reach its watcher looks again each second, and then goes on."""
    monkeypatch.setattr("kling_omni_async._book.memory.MemoryStore", Away)
    async with TaskBook() as book:
        changes = (await open_inside(book)).changes
        called: list[float] = []
        changes.listen(lambda: called.append(now()))
        await asyncio.sleep(0.5)
        await book.add("1")
        await asyncio.sleep(20)
    behind = [at for at in called if at > 0.5]
    assert behind[0] == pytest.approx(1.5, abs=0.01)
    assert len(behind) < 10
    assert called[-1] > 10
