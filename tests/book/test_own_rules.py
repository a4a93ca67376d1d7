"""Outcomes that one reader alone is to have: the rules, without a clock."""

from __future__ import annotations

import pytest

from kling_omni_async import TaskOutcome
from kling_omni_async._book import claims, entries, handing
from kling_omni_async._book.contract import (
    Ack,
    Addition,
    Receipt,
    Said,
    Settle,
    State,
    Take,
    Taken,
    Turn,
)
from kling_omni_async._book.forms import outcome_to_json
from kling_omni_async._book.memory import READER_S, MemoryShelf
from kling_omni_async.errors import KlingOmniError

KEEP_S = 1000.0


class Desk:
    """A shelf, its time, and the steps of its readers."""

    def __init__(self) -> None:
        self.shelf = MemoryShelf()
        self.now = 100.0
        self._seq = 0

    def take(self, reader: str, **what: object) -> Taken:
        self._seq += 1
        given = Take(reader=reader, seq=self._seq, **what)  # type: ignore[arg-type]
        return handing.take(self.shelf, given, self.now, keep_s=KEEP_S)

    def add(self, key: str, holder: str | None = None) -> None:
        entries.add(self.shelf, [Addition(key, holder=holder)], self.now, 0.0)

    def end(self, key: str) -> None:
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
        self._seq += 1
        turn = Turn(worker="w", seq=self._seq, settles=[settle])
        claims.turn(self.shelf, turn, self.now, wall_s=0.0, keep_s=KEEP_S)

    def keys(self, reader: str) -> list[str]:
        """Return what a reader gets."""
        return [parcel.key for parcel in self.take(reader, want=9).parcels]


@pytest.fixture
def desk() -> Desk:
    """Give a shelf with nothing on it."""
    return Desk()


def test_it_is_kept_for_its_reader(desk: Desk) -> None:
    """Whether that was said before the end, with the addition, or behind the end."""
    desk.take("own")
    desk.add("with", holder="own")
    for key in ("before", "behind", "free"):
        desk.add(key)
    desk.take("own", keep=["before", "unknown"])
    for key in ("with", "before", "behind", "free"):
        desk.end(key)
    desk.take("own", keep=["behind"])
    assert desk.keys("other") == ["free"]
    assert desk.keys("own") == []


def test_a_reader_that_leaves_lets_others_have_it(desk: Desk) -> None:
    """What has ended, and what ends behind that, at once and as if never handed out."""
    desk.take("own")
    desk.add("one", holder="own")
    desk.add("two", holder="own")
    desk.end("one")
    assert desk.keys("other") == []
    desk.take("own", is_leaving=True)
    desk.end("two")
    parcels = desk.take("other", want=9).parcels
    assert [(parcel.key, parcel.deliveries) for parcel in parcels] == [("one", 0), ("two", 0)]


def test_a_reader_that_dies_lets_others_have_it(desk: Desk) -> None:
    """Both as above, once it was not heard of for long."""
    desk.take("own")
    desk.add("one", holder="own")
    desk.add("two", holder="own")
    desk.end("one")
    desk.now += READER_S + 1
    assert desk.keys("other") == ["one"]
    desk.end("two")
    assert desk.keys("other") == ["two"]


def test_what_is_released_is_for_others(desk: Desk) -> None:
    """Whether it has ended or not; of what is another's nothing is changed."""
    desk.take("own")
    for key in ("open", "ended"):
        desk.add(key, holder="own")
    desk.end("ended")
    desk.take("stranger", release=["open", "ended", "unknown"])
    assert desk.keys("other") == []
    desk.take("own", release=["open", "ended"])
    desk.end("open")
    assert desk.keys("other") == ["ended", "open"]


def test_who_comes_first_has_it(desk: Desk) -> None:
    """A second reader gets it only when the first is there no more."""
    desk.take("one")
    desk.take("two")
    desk.add("x", holder="one")
    desk.take("two", keep=["x"])
    desk.take("one", is_leaving=True)
    desk.take("two", keep=["x"])
    desk.end("x")
    row = desk.shelf.row("x")
    assert row is not None
    assert (row.holder, desk.keys("other")) == ("two", [])


def test_what_was_read_is_nobodys(desk: Desk) -> None:
    """To keep an outcome that was acknowledged changes nothing."""
    desk.take("own")
    desk.add("x", holder="own")
    desk.end("x")
    row = desk.shelf.row("x")
    assert row is not None
    desk.take("own", receipts=[Receipt("x", row.number, Ack.DONE)])
    desk.take("own", keep=["x"])
    row = desk.shelf.row("x")
    assert row is not None
    assert (row.state, row.holder) == (State.READ, None)
