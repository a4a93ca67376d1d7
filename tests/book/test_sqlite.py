"""A book in a file of SQLite: what is kept there, and by whom."""

from __future__ import annotations

from pathlib import Path

import pytest

from kling_omni_async import TaskBook

pytestmark = pytest.mark.anyio


async def test_what_was_added_is_there_when_the_book_is_opened_again(tmp_path: Path) -> None:
    """An id and its note outlive the book object that has kept them."""
    async with TaskBook(tmp_path / "tasks.db") as book:
        assert await book.add("one", note={"chat": 42})
        assert not await book.add("one", note="another")
    async with TaskBook(str(tmp_path / "tasks.db")) as book:
        entry = await book.get("one")
        assert entry is not None
        assert entry.note == {"chat": 42}
        assert (await book.progress()).pending == 1
