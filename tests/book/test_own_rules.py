"""Outcomes that one reader alone is to have: the rules, over each kind of store."""

from __future__ import annotations

import pytest

from kling_omni_async import TaskOutcome
from kling_omni_async._book.contract import Ack, Addition, Receipt, Said, Settle, State
from kling_omni_async._book.forms import outcome_to_json
from kling_omni_async._book.memory import READER_S
from kling_omni_async.errors import KlingOmniError

from .stores import StoreBook
from .test_contract import book, clock

__all__ = ["book", "clock"]

pytestmark = pytest.mark.anyio


async def end(book: StoreBook, key: str) -> None:
    """Let a worker bring the final word of an id."""
    outcome = TaskOutcome(task_id=key, error=KlingOmniError("x"))
    settle = Settle(
        key=key,
        token=-1,
        said=Said.FINAL,
        outcome=outcome_to_json(outcome),
        count="unresolved",
        is_word=True,
    )
    await book.turn(settle)


async def keys(book: StoreBook, reader: str) -> list[str]:
    """Return what a reader gets."""
    return [parcel.key for parcel in (await book.take(reader=reader, want=9)).parcels]


async def test_it_is_kept_for_its_reader(book: StoreBook) -> None:
    """Whether that was said before the end, with the addition, or behind the end."""
    await book.take(reader="own")
    await book.add("with", holder="own")
    await book.add("before", "behind", "free")
    await book.take(reader="own", keep=["before", "unknown"])
    for key in ("with", "before", "behind", "free"):
        await end(book, key)
    await book.take(reader="own", keep=["behind"])
    assert await keys(book, "other") == ["free"]
    assert await keys(book, "own") == []


async def test_what_a_create_has_made_is_kept_for_its_reader(book: StoreBook) -> None:
    """From the moment on at which it is in the book."""
    await book.take(reader="own")
    await book.intend("name")
    made = (await book.found("name")).row
    assert made.holder is None
    await book.store.created("name", Addition("x", holder="own", order="{}"))
    assert (await book.found("name")).row.holder == "own"
    await end(book, "x")
    assert await keys(book, "other") == []


async def test_a_reader_that_leaves_lets_others_have_it(book: StoreBook) -> None:
    """What has ended, and what ends behind that, at once and as if never handed out."""
    await book.take(reader="own")
    await book.add("one", "two", holder="own")
    await end(book, "one")
    assert await keys(book, "other") == []
    await book.take(reader="own", is_leaving=True)
    await end(book, "two")
    parcels = (await book.take(reader="other", want=9)).parcels
    assert [(parcel.key, parcel.deliveries) for parcel in parcels] == [("one", 0), ("two", 0)]


async def test_a_reader_that_dies_lets_others_have_it(book: StoreBook) -> None:
    """Both as above, once it was not heard of for long."""
    await book.take(reader="own")
    await book.add("one", "two", holder="own")
    await end(book, "one")
    book.clock.spend(READER_S + 1)
    assert await keys(book, "other") == ["one"]
    await end(book, "two")
    assert await keys(book, "other") == ["two"]


async def test_what_is_released_is_for_others(book: StoreBook) -> None:
    """Whether it has ended or not; of what is another's nothing is changed."""
    await book.take(reader="own")
    await book.add("open", "ended", holder="own")
    await end(book, "ended")
    await book.take(reader="stranger", release=["open", "ended", "unknown"])
    assert await keys(book, "other") == []
    await book.take(reader="own", release=["open", "ended"])
    assert (await book.found("open")).row.holder is None
    await end(book, "open")
    assert await keys(book, "other") == ["ended", "open"]


async def test_who_comes_first_has_it(book: StoreBook) -> None:
    """A second reader gets it only when the first is there no more."""
    await book.take(reader="one")
    await book.take(reader="two")
    await book.add("x", holder="one")
    await book.take(reader="two", keep=["x"])
    assert (await book.found("x")).row.holder == "one"
    await book.take(reader="one", is_leaving=True)
    await book.take(reader="two", keep=["x"])
    await end(book, "x")
    assert (await book.found("x")).row.holder == "two"
    assert await keys(book, "other") == []


async def test_what_was_read_is_nobodys(book: StoreBook) -> None:
    """To keep an outcome that was acknowledged changes nothing."""
    await book.take(reader="own")
    await book.add("x", holder="own")
    await end(book, "x")
    number = (await book.found("x")).row.number
    await book.take(Receipt("x", number, Ack.DONE), reader="own")
    await book.take(reader="own", keep=["x"])
    row = (await book.found("x")).row
    assert (row.state, row.holder) == (State.READ, None)
