"""The verbs of a book in memory that no other test calls so, in virtual time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from kling_omni_async import (
    BookError,
    BookProgress,
    CallbackHint,
    ConfigurationError,
    InvalidTaskIdError,
    PollTimeoutError,
    TaskBook,
    TaskStatus,
)
from kling_omni_async._book.book import open_inside
from kling_omni_async._book.contract import Found, Turn
from kling_omni_async._book.memory import MemoryShelf, MemoryStore
from tests.book.pure import TERMS
from tests.support import now

pytestmark = pytest.mark.anyio


async def test_many_ids_are_kept_some_hundreds_at_a_time() -> None:
    """`add_many` takes more ids than one step, and an async iterable, and counts the new ones."""

    async def feed() -> AsyncIterator[str | tuple[str, int]]:
        yield "0"
        yield "later", 7

    async with TaskBook() as book:
        assert await book.add_many(str(number) for number in range(1201)) == 1201
        assert await book.add_many(feed()) == 1
        assert (await book.progress()).pending == 1202


async def test_a_callback_nudges_where_its_status_is_final() -> None:
    """`nudge` of a hint asks for its task, unless the hint says that it goes on."""
    async with TaskBook() as book:
        await book.add("1")
        done = CallbackHint(task_id="1", status=TaskStatus.SUCCEED)
        going = CallbackHint(task_id="1", status=TaskStatus.PROCESSING)
        assert await book.nudge(done)
        assert not await book.nudge(going)


async def test_a_note_that_is_too_long_is_refused() -> None:
    """A note of more than 64 KiB is refused, with what to keep instead."""
    async with TaskBook() as book:
        with pytest.raises(ConfigurationError, match="or a key to them"):
            await book.add("1", note="x" * 65_536)
        assert await book.get("1") is None


class Slow(MemoryStore):
    """A store that needs a second to open."""

    async def open(self) -> None:
        await asyncio.sleep(1)


async def test_a_book_is_opened_once_by_all_who_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """First calls at the same time open one store."""
    monkeypatch.setattr("kling_omni_async._book.memory.MemoryStore", Slow)
    book = TaskBook()
    assert await asyncio.gather(*(book.add("1") for _ in range(5))) == [True, *[False] * 4]
    await book.aclose()
    assert now() == pytest.approx(1.0, abs=0.01)


async def test_who_waits_alone_is_warned_once(caplog: pytest.LogCaptureFixture) -> None:
    """After 30 s without any worker `wait` says that nobody polls, and says it once."""
    async with TaskBook() as book:
        await book.add("1")
        with (
            caplog.at_level(logging.WARNING, "kling_omni_async.book"),
            pytest.raises(PollTimeoutError, match="its status was never seen"),
        ):
            await book.wait("1", timeout=200)
    assert now() == pytest.approx(200, abs=0.1)
    assert caplog.text.count("nobody polls the book in memory") == 1


async def test_a_wait_that_looks_while_the_book_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would wake it any more: it ends, and does not look for ever."""
    looks, is_closed = asyncio.Event(), asyncio.Event()
    async with TaskBook() as book:
        await book.add("1")
        store = (await open_inside(book)).store
        found = await store.find("1")

        async def find(_: str) -> Found | None:
            looks.set()
            await is_closed.wait()
            return found

        monkeypatch.setattr(store, "find", find)
        waiting = asyncio.ensure_future(book.wait("1"))
        await looks.wait()
    is_closed.set()
    with pytest.raises(BookError, match="the book is closed"):
        await waiting


async def test_nobody_is_warned_while_somebody_works(caplog: pytest.LogCaptureFixture) -> None:
    """A worker that is heard of is enough, whatever it brings."""
    async with TaskBook() as book:
        await book.add("1")
        store = (await open_inside(book)).store

        async def live() -> None:
            for seq in range(1, 20):
                await store.turn(Turn(worker="w", seq=seq, terms=TERMS))
                await asyncio.sleep(10)

        working = asyncio.ensure_future(live())
        with pytest.raises(PollTimeoutError):
            await book.wait("1", timeout=150)
        working.cancel()
        await asyncio.wait([working])
    assert "nobody polls" not in caplog.text


def test_progress_in_words() -> None:
    """The counts of a book read as a line."""
    text = str(BookProgress(pending=2, succeeded=1, unread=1, workers=3))
    assert text == "2 pending, 1 succeeded, 0 failed, 0 unresolved; 1 unread, 0 parked; workers: 3"


def test_to_drop_what_is_not_there_does_nothing() -> None:
    """A shelf forgets an entry that it does not hold without a word, as a table does."""
    shelf = MemoryShelf()
    shelf.drop("1")
    assert shelf.row("1") is None


@pytest.mark.parametrize("keep", [0, -1.0, float("inf"), float("nan"), True, "7 days"])
def test_how_long_is_kept_is_a_number_of_seconds(keep: Any) -> None:
    """Anything else says what to write."""
    with pytest.raises(ConfigurationError, match="keep must be a number of seconds"):
        TaskBook(keep=keep)


async def test_what_is_no_pair_is_no_task() -> None:
    """A tuple of one, or of three, is no id with its note."""
    bad: Any = [("1",)]
    async with TaskBook() as book:
        with pytest.raises(InvalidTaskIdError):
            await book.add_many(bad)
