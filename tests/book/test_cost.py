"""A step of a book costs the same whatever the book holds: calls are counted, not time."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType

from kling_omni_async._book.contract import Ack

from .pure import KEEP_S, WON, PureBook, receipt, settle


def calls_of(work: Callable[[], object]) -> int:
    """Return how many functions a work calls, those of C too."""
    number = 0

    def count(_: FrameType, event: str, __: object) -> None:
        nonlocal number
        number += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return number


def full(size: int) -> PureBook:
    """Return a book with so many open ids, claims, unread outcomes, held ones and read ones."""
    book = PureBook()
    for kind in ("held", "read", "unread", "claimed", "open"):
        book.add(*(f"{kind}{number:05}" for number in range(size)))
        if kind == "open":
            continue
        while claims := book.turn(want=200).claims:
            if kind != "claimed":
                book.turn(*(settle(claim, **WON) for claim in claims))
        while kind in ("held", "read") and (parcels := book.take(want=200, reader="s").parcels):
            if kind == "read":
                book.take(*(receipt(parcel, Ack.DONE) for parcel in parcels), reader="s")
    return book


def costs(size: int) -> dict[str, int]:
    """Return what each kind of step costs in a book of so many entries."""
    book = full(size)
    found: dict[str, int] = {}
    claims = book.turn(want=4).claims
    settles = [settle(claim, **WON) for claim in claims]
    found["turn"] = calls_of(lambda: book.turn(*settles, want=4))
    found["idle turn"] = calls_of(lambda: book.turn(want=0))
    parcels = book.take(want=4).parcels
    receipts = [receipt(parcel, Ack.DONE) for parcel in parcels]
    found["take"] = calls_of(lambda: book.take(*receipts, want=4))
    found["add"] = calls_of(lambda: book.add("new"))
    found["remove"] = calls_of(lambda: book.remove("open00049"))
    found["nudge"] = calls_of(lambda: book.nudge("open00048"))
    found["find"] = calls_of(lambda: book.find("read00001"))
    found["leave"] = calls_of(lambda: book.take(is_leaving=True))
    return found


def test_a_step_looks_at_no_more_entries_than_it_gives() -> None:
    """In a book ten times as large it calls as many functions."""
    assert costs(500) == costs(50)


def test_forgetting_is_bounded() -> None:
    """Of very much that is over, a step forgets a part."""
    book = full(500)
    book.now += KEEP_S + 1.0
    first = calls_of(book.turn)
    second = calls_of(book.turn)
    assert len(book.turn().dropped) == 200
    assert second <= first
