"""How many tasks are created at a time, decided without a clock."""

from __future__ import annotations

from random import Random

import pytest

from kling_omni_async._creating.slots import Backoff, SlotLimit


def test_it_begins_with_eight() -> None:
    """Or with what the user allows, if that is less."""
    assert SlotLimit(None).limit == SlotLimit(100).limit == 8
    assert SlotLimit(3).limit == 3
    assert repr(SlotLimit(None)) == "<SlotLimit 0 of 8>"


def test_what_fits() -> None:
    """So many places as are left; a task that needs more than there are goes alone."""
    limit = SlotLimit(None)
    assert limit.fits(9)
    limit.take(5)
    assert limit.fits(3)
    assert not limit.fits(4)
    limit.release(5)
    limit.take(9)
    assert not limit.fits(1)


def test_a_task_that_was_not_created_gives_its_places_back() -> None:
    """And no others."""
    limit = SlotLimit(None)
    limit.take(3)
    limit.take(5)
    limit.release(5)
    assert limit.held == 3


def test_there_are_as_many_places_as_are_held() -> None:
    """A large task that runs alone proves more of them than were believed."""
    limit = SlotLimit(None)
    limit.take(9)
    limit.take(1)
    limit.refused(1)
    assert (limit.held, limit.limit) == (9, 9)


def test_a_refusal_tells_the_limit() -> None:
    """There are fewer places than it would have taken, but one at least."""
    limit = SlotLimit(None)
    for _ in range(8):
        limit.take(1)
    for left in (7, 6, 5):
        limit.refused(1)
        assert (limit.held, limit.limit) == (left, left)
    for _ in range(5):
        limit.ended(1)
    limit.take(1)
    limit.refused(1)
    assert (limit.held, limit.limit) == (0, 1)


def test_a_refusal_of_a_large_task() -> None:
    """It says only that there are not so many places beside what is held."""
    limit = SlotLimit(None)
    limit.take(1)
    limit.take(9)
    limit.refused(9)
    assert (limit.held, limit.limit) == (1, 8)
    limit.take(4)
    limit.refused(4)
    assert (limit.held, limit.limit) == (1, 4)


@pytest.mark.parametrize(("most", "grown"), [(None, 9), (9, 9), (8, 8)])
def test_it_grows_slowly(most: int | None, grown: int) -> None:
    """One more after four times as many ends, up to what the user allows."""
    limit = SlotLimit(most)
    for number in range(32):
        assert limit.limit == 8
        limit.take(1)
        limit.ended(1)
        assert limit.held == 0
        assert limit.limit == (grown if number == 31 else 8)
    for _ in range(35):
        limit.take(1)
        limit.ended(1)
    assert limit.limit == grown
    limit.take(2)
    limit.take(1)
    limit.refused(1)
    assert (limit.held, limit.limit) == (2, 2)
    for _ in range(7):
        limit.ended(0)
    assert limit.limit == 2
    limit.ended(0)
    assert limit.limit == 3


def test_backoff() -> None:
    """Each pause is longer than the last, up to 30 s, and a success begins anew."""
    backoff = Backoff(Random(7))
    for base in (1, 2, 4, 8, 16, 20, 20):
        assert base <= backoff.next_s() <= 1.5 * base
    backoff.reset()
    assert backoff.next_s() <= 1.5
