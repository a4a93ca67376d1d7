"""What a user gives to the verbs of a book, and who is told of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kling_omni_async import InvalidTaskIdError, NotInBookError, TaskBook
from kling_omni_async._book.contract import INTENT
from tests.support import now, now_waiting

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("tasks", "text"),
    [
        ("abc", r"for a single one write add\('abc'\)"),
        (b"abc", "for a single one"),
        (5, "an iterable or async iterable, not int"),
        (None, "not NoneType"),
    ],
)
async def test_what_is_not_many_is_refused(tasks: Any, text: str) -> None:
    """One id is no list of its letters."""
    async with TaskBook() as book:
        with pytest.raises(InvalidTaskIdError, match=text):
            await book.add_many(tasks)
        assert (await book.progress()).pending == 0


async def test_no_id_passes_for_an_intent() -> None:
    """What marks the entry of a create that may have made a task is in no id."""
    async with TaskBook() as book:
        with pytest.raises(InvalidTaskIdError):
            await book.add(f"{INTENT}abc")


async def test_who_waits_for_what_is_removed_is_told_at_once() -> None:
    """Nobody has to look again by himself."""
    async with TaskBook() as book:
        await book.add_many(["a", "b"])
        waiting = [asyncio.create_task(book.wait(task_id, timeout=60)) for task_id in "ab"]
        await asyncio.sleep(1)
        await book.remove("a")
        with pytest.raises(NotInBookError, match="'a'"):
            await waiting[0]
        assert now() == 1
        assert not waiting[1].done()
        waiting[1].cancel()
        await now_waiting()
