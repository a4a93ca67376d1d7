"""What a reader says to its book and what it takes for its own: decisions alone, no I/O."""

from __future__ import annotations

import pytest

from kling_omni_async._book.bell import Bell
from kling_omni_async._book.contract import MOST_AT_ONCE, Ack, Parcel, Taken
from kling_omni_async._book.reader import HEARD_S, LEAST_S, Reader
from kling_omni_async._book.saving import SavedAhead
from kling_omni_async._outcome import TaskOutcome
from kling_omni_async._results import Outlet


def parcel(key: str, number: int = 1) -> Parcel:
    """Return an outcome for a reader."""
    return Parcel(key, number, "{}", None, None, 1)


def acks(reader: Reader) -> list[tuple[str, int, Ack]]:
    """Return what a reader says with its next step."""
    return [(each.key, each.number, each.ack) for each in reader.next_take().receipts]


def reader_with(*parcels: Parcel) -> Reader:
    """Return a reader whose consumer has some outcomes."""
    reader = Reader("reader", ahead=0)
    reader.wanted = len(parcels)
    reader.next_take()
    reader.took(Taken(parcels=parcels))
    for each in parcels:
        reader.gave(each)
    reader.wanted = 0
    return reader


def test_it_wants_what_its_consumer_wants() -> None:
    """Less what is ready for him, and no more than one step carries."""
    reader = Reader("reader", ahead=0)
    assert (reader.want, reader.is_idle) == (0, True)
    reader.wanted = 3
    reader.took(Taken(parcels=[parcel("a")]))
    assert (reader.want, reader.is_idle) == (2, False)
    reader.wanted = 1_000
    assert reader.want == MOST_AT_ONCE
    assert repr(reader) == "<Reader taken=0 ready=1 out=0>"


@pytest.mark.parametrize(
    ("next_s", "rest_s"), [(None, HEARD_S), (0.0, LEAST_S), (3.5, 3.5), (100.0, HEARD_S)]
)
def test_it_rests_until_something_comes_again(next_s: float | None, rest_s: float) -> None:
    """And is heard of now and then, for as long as it wants or has something."""
    reader = Reader("reader", ahead=0)
    assert reader.rest_s(next_s) is None
    reader.wanted = 1
    assert reader.rest_s(next_s) == rest_s
    reader = reader_with(parcel("a"))
    assert reader.rest_s(next_s) == HEARD_S


def test_steps_are_numbered() -> None:
    """So that the book knows one that is sent again."""
    reader = Reader("reader", ahead=0)
    assert [reader.next_take().seq, *(take.seq for take in reader.last_takes())] == [1, 2]


def test_an_end_that_is_another_one_is_told_apart() -> None:
    """A word about the old end of a task says nothing of its new one, but for being handled."""
    old, new = parcel("a", 1), parcel("a", 2)
    reader = reader_with(old)
    reader.took(Taken(parcels=[new]))
    reader.gave(new)
    reader.settle(old, Ack.FAILED)
    assert acks(reader) == []
    reader.settle(old, Ack.DONE)
    reader.settle(new, Ack.FAILED)
    assert acks(reader) == [("a", 1, Ack.DONE), ("a", 2, Ack.FAILED)]


def test_what_was_ready_and_has_ended_anew_is_handed_out_twice() -> None:
    """The consumer may get the old end still; the new one stays ready for him."""
    old, new = parcel("a", 1), parcel("a", 2)
    reader = Reader("reader", ahead=0)
    reader.took(Taken(parcels=[old]))
    reader.took(Taken(parcels=[new]))
    reader.gave(old)
    assert list(reader.ready.values()) == [new]
    reader.gave(new)
    assert not reader.ready


def test_what_comes_back_is_no_news() -> None:
    """A reader that was taken for dead gets what it has again: it is not handed out twice."""
    reader = reader_with(parcel("a"))
    assert reader.took(Taken(parcels=[parcel("a")])).to_hand_out == []


def test_what_is_saved_late_is_not_handed_out() -> None:
    """Once all was given back, what a saver ends still is nobody's."""
    reader = Reader("reader", ahead=2)
    (taken,) = reader.took(Taken(parcels=[parcel("a")])).to_save
    reader.give_back(failed=False)
    reader.saved(taken)
    reader.wanted = 1
    assert acks(reader) == [("a", 1, Ack.BACK)]
    assert not reader.has_news


def test_a_hand_out_that_crosses_a_new_end_is_dropped() -> None:
    """What was to be handed out is lost, and its new end is saved in its place."""
    reader = Reader("reader", ahead=2)
    (old,) = reader.took(Taken(parcels=[parcel("a", 1)])).to_save
    reader.saved(old)
    reader.wanted = 1
    assert acks(reader) == [("a", 1, Ack.HANDED)]
    reader.taken["a"] = parcel("a", 2)  # of a step before it
    got = reader.took(Taken(lost=["a"]))
    assert (got.to_hand_out, list(reader.taken.values())) == ([], [parcel("a", 2)])


def test_an_old_end_that_was_saved_makes_room_for_the_new_one() -> None:
    """It is not handed out any more: a word that it is lost must not fall on the new one."""
    reader = Reader("reader", ahead=2)
    (old,) = reader.took(Taken(parcels=[parcel("a", 1)])).to_save
    reader.saved(old)
    (new,) = reader.took(Taken(parcels=[parcel("a", 2)])).to_save
    reader.saved(new)
    reader.wanted = 2
    assert acks(reader) == [("a", 2, Ack.HANDED)]
    assert reader.took(Taken()).to_hand_out == [new]


def test_what_saves_ahead_says_what_it_has() -> None:
    """For whoever debugs it."""
    ahead = SavedAhead(Outlet(), 4)
    ahead.save(parcel("a"), TaskOutcome(task_id="a"), None)
    assert repr(ahead) == "<SavedAhead 1 under way, 0 saved>"
    ahead.forget(["b"])
    assert repr(Bell()) == "<Bell rung=False waiters=0>"


def test_a_reader_says_which_step_was_answered_last() -> None:
    """A book that does not know that step has lost it; what is here already it gives in vain."""
    reader = Reader("reader", ahead=0)
    assert (reader.next_take().after, reader.next_take().after) == (0, 0)
    reader.took(Taken(parcels=[parcel("a")]))
    take = reader.next_take()
    assert (take.seq, take.after) == (3, 2)
    assert reader.took(Taken(parcels=[parcel("a"), parcel("b")])).to_hand_out == [parcel("b")]
