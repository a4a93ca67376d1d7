"""The heap of times: what is first, what is due, and how little it keeps."""

# How many rows the heap keeps is visible only inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kling_omni_async._polling.timers import NEVER, Timed, TimerHeap

TIMES = st.integers(0, 9).map(float)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.integers(0, 5), TIMES),
        st.tuples(st.just("discard"), st.integers(0, 5), TIMES),
        st.tuples(st.just("pop"), st.integers(0, 5), TIMES),
    ),
    max_size=60,
)


def drained(heap: TimerHeap[Timed], now: float) -> list[Timed]:
    """Take out all that is due."""
    found: list[Timed] = []
    while (item := heap.pop_due(now)) is not None:
        found.append(item)
    return found


def test_gives_items_in_the_order_of_their_times() -> None:
    """What is due comes out earliest first, and what is not due stays."""
    heap: TimerHeap[Timed] = TimerHeap()
    items = [Timed() for _ in range(4)]
    for item, when in zip(items, (3.0, 1.0, 2.0, 9.0), strict=True):
        heap.set(item, when)
    assert drained(heap, 3.0) == [items[1], items[2], items[0]]
    assert (len(heap), heap.first()) == (1, 9.0)


def test_equal_times_come_in_the_order_in_which_they_were_set() -> None:
    """Nobody is passed over: of two items for one time the first set is the first out."""
    heap: TimerHeap[Timed] = TimerHeap()
    items = [Timed() for _ in range(50)]
    for item in items:
        heap.set(item, 5.0)
    assert drained(heap, 5.0) == items


def test_an_item_is_due_at_its_very_time() -> None:
    """An item for 5 s is out at 5 s, and not a moment before."""
    heap: TimerHeap[Timed] = TimerHeap()
    item = Timed()
    heap.set(item, 5.0)
    assert heap.pop_due(4.999) is None
    assert heap.pop_due(5.0) is item
    assert item.when == NEVER


def test_an_empty_heap_has_nothing_due() -> None:
    """Whatever the time is, even infinity, an empty heap gives nothing."""
    heap: TimerHeap[Timed] = TimerHeap()
    assert (heap.first(), heap.pop_due(1e9), heap.pop_due(NEVER)) == (NEVER, None, None)


@pytest.mark.parametrize("when", [3.0, 8.0])
def test_an_item_that_was_moved_counts_once(when: float) -> None:
    """Moving an item, forwards or back, leaves no trace of the place where it was."""
    heap: TimerHeap[Timed] = TimerHeap()
    item = Timed()
    heap.set(item, 5.0)
    heap.set(item, when)
    assert (len(heap), heap.first()) == (1, when)
    assert drained(heap, 9.0) == [item]


def test_an_item_taken_back_is_gone() -> None:
    """After `discard` an item is nowhere, and a second `discard` does nothing."""
    heap: TimerHeap[Timed] = TimerHeap()
    item = Timed()
    heap.set(item, 5.0)
    heap.discard(item)
    heap.discard(item)
    assert (len(heap), heap.first(), item.when, drained(heap, 9.0)) == (0, NEVER, NEVER, [])


@pytest.mark.parametrize("times", [[5.0], [5.0, 7.0], [9.0, 8.0, 7.0]], ids=str)
def test_moving_one_item_for_ever_takes_no_memory(times: list[float]) -> None:
    """Rows that no longer count are dropped, also when the time is the same again and again."""
    heap: TimerHeap[Timed] = TimerHeap()
    item = Timed()
    for _ in range(300):
        for when in times:
            heap.set(item, when)
    assert len(heap._rows) <= 70


def test_coming_and_going_for_ever_takes_no_memory() -> None:
    """A thousand items that are set and taken back leave a handful of rows."""
    heap: TimerHeap[Timed] = TimerHeap()
    stays = Timed()
    heap.set(stays, 500.0)
    for when in range(1000):
        item = Timed()
        heap.set(item, float(when))
        heap.discard(item)
    assert len(heap._rows) <= 70
    assert drained(heap, 1000.0) == [stays]


@pytest.mark.parametrize("live", [1, 100])
def test_rows_that_no_longer_count_are_dropped_all_at_once(live: int) -> None:
    """That is done when they outnumber the others by 64, as each time costs a walk over all."""
    heap: TimerHeap[Timed] = TimerHeap()
    items = [Timed() for _ in range(live)]
    for item in items:
        heap.set(item, 0.0)
    sizes: list[int] = []
    for when in range(1, live + 66):
        heap.set(items[0], float(when))
        sizes.append(len(heap._rows))
    assert sizes == [*range(live + 1, 2 * live + 65), live]


def test_says_in_one_line_how_it_is() -> None:
    """The repr tells how many items there are and when the first is due."""
    heap: TimerHeap[Timed] = TimerHeap()
    heap.set(Timed(), 2.5)
    assert repr(heap) == "<TimerHeap of 1, first at 2.5>"


@given(STEPS)
def test_is_a_sorted_list_of_what_is_in(steps: list[tuple[str, int, float]]) -> None:
    """Under any order of steps the heap knows each item's time, the first, and their number."""
    heap: TimerHeap[Timed] = TimerHeap()
    items = [Timed() for _ in range(6)]
    model: dict[Timed, float] = {}
    for word, index, when in steps:
        item = items[index]
        if word == "set":
            heap.set(item, when)
            model[item] = when
        elif word == "discard":
            heap.discard(item)
            model.pop(item, None)
        else:
            popped = heap.pop_due(when)
            expected = min(model.values(), default=NEVER)
            assert (popped is None) == (expected > when)
            assert popped is None or model.pop(popped) == expected
        assert len(heap) == len(model)
        assert heap.first() == min(model.values(), default=NEVER)
        assert [each.when for each in items] == [model.get(each, NEVER) for each in items]


@given(st.lists(TIMES, max_size=30))
def test_comes_out_sorted(times: list[float]) -> None:
    """Whatever order items go in, they come out by their times."""
    heap: TimerHeap[Timed] = TimerHeap()
    when_of: dict[Timed, float] = {}
    for when in times:
        item = Timed()
        when_of[item] = when
        heap.set(item, when)
    found = [when_of[item] for item in drained(heap, 10.0)]
    assert len(found) == len(times)
    assert all(before <= after for before, after in pairwise(found))
