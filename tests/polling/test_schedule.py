"""Who is asked next, and when: due order, newcomers, queries by hand, and what holds them back."""

# How many rows the heap keeps is visible only inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise
from random import Random
from typing import Any, Final, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kling_omni_async import PollPolicy, RateLimitError
from kling_omni_async._polling.limits import NEVER, LentPace
from kling_omni_async._polling.schedule import Schedule, Scheduled, Timed, TimerHeap
from tests.plans import share_of

SLACK_S: Final = 1e-9
"""What times that were added up may differ by, in s."""

Item = TypeVar("Item", bound=Scheduled)
TIMES = st.integers(0, 9).map(float)
HEAP_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.integers(0, 5), TIMES),
        st.tuples(st.just("discard"), st.integers(0, 5), TIMES),
        st.tuples(st.just("pop"), st.integers(0, 5), TIMES),
    ),
    max_size=60,
)


def make(*, limit: int = 100, seed: int = 1, **policy: Any) -> Schedule[Scheduled]:
    """Make a schedule with random pauses that repeat."""
    return Schedule(PollPolicy(**policy), Random(seed), limit=limit)


def start(schedule: Schedule[Item], now: float, *, unwanted: Collection[Item] = ()) -> Item | None:
    """Start the item whose turn it is, and pass over what nobody wants."""
    while (found := schedule.pop(now)) is not None:
        if found[0] not in unwanted:
            schedule.launch(*found, now)
            return found[0]
    return None


def starts(schedule: Schedule[Scheduled], number: int, now: float) -> list[Scheduled | None]:
    """Start items one behind the other, each as soon as the schedule says from a time on."""
    found: list[Scheduled | None] = []
    for _ in range(number):
        now = max(now, schedule.next_start())
        found.append(start(schedule, now))
    return found


def some(number: int) -> list[Scheduled]:
    """Make items."""
    return [Scheduled() for _ in range(number)]


def put(schedule: Schedule[Scheduled], *times: float) -> list[Scheduled]:
    """Schedule new items."""
    items = some(len(times))
    for item, when in zip(items, times, strict=True):
        schedule.put(item, when)
    return items


def add_newcomers(schedule: Schedule[Scheduled], number: int, now: float) -> list[Scheduled]:
    """Queue new items as newcomers."""
    items = some(number)
    for item in items:
        schedule.add_newcomer(item, now)
    return items


def lay_out(schedule: Schedule[Scheduled], number: int, now: float) -> list[Scheduled]:
    """Schedule new items as those of a list that is read at once."""
    items = some(number)
    turn = None
    for item in items:
        turn = schedule.lay_out(item, now, turn)
    return items


def close_gate(schedule: Schedule[Scheduled], *, now: float, pause_s: float) -> None:
    """Let a 429 begin a pause."""
    error = RateLimitError("too many requests", retry_after=pause_s)
    schedule.throttle.limited(error, started=now, now=now)


# The heap of times.


def drained(heap: TimerHeap[Timed], now: float) -> list[Timed]:
    """Remove all that is due."""
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
    assert (len(heap), heap.first) == (1, 9.0)


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
    assert (heap.first, heap.pop_due(1e9), heap.pop_due(NEVER)) == (NEVER, None, None)


@pytest.mark.parametrize("when", [3.0, 8.0])
def test_an_item_that_was_moved_counts_once(when: float) -> None:
    """Moving an item, forwards or back, leaves no trace of the place where it was."""
    heap: TimerHeap[Timed] = TimerHeap()
    item = Timed()
    heap.set(item, 5.0)
    heap.set(item, when)
    assert (len(heap), heap.first) == (1, when)
    assert drained(heap, 9.0) == [item]


def test_an_item_taken_back_is_gone() -> None:
    """After `discard` an item is nowhere, and a second `discard` does nothing."""
    heap: TimerHeap[Timed] = TimerHeap()
    item = Timed()
    heap.set(item, 5.0)
    heap.discard(item)
    heap.discard(item)
    assert (len(heap), heap.first, item.when, drained(heap, 9.0)) == (0, NEVER, NEVER, [])


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


@pytest.mark.parametrize("live", [2, 100])
def test_rows_that_no_longer_count_are_dropped_all_at_once(live: int) -> None:
    """That is done when they outnumber the others by 64, as each time costs a walk over all."""
    heap: TimerHeap[Timed] = TimerHeap()
    items = [Timed() for _ in range(live)]
    for item in items:
        heap.set(item, 0.0)
    sizes: list[int] = []
    for when in range(1, live + 66):
        heap.set(items[-1], float(when))
        sizes.append(len(heap._rows))
    assert sizes == [*range(live + 1, 2 * live + 65), live]


def test_the_heap_says_in_one_line_how_it_is() -> None:
    """The repr tells how many items there are and when the first is due."""
    heap: TimerHeap[Timed] = TimerHeap()
    heap.set(Timed(), 2.5)
    assert repr(heap) == "<TimerHeap of 1, first at 2.5>"


@given(HEAP_STEPS)
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
        assert heap.first == min(model.values(), default=NEVER)
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


# Turns.


def test_nothing_to_do_is_never_due() -> None:
    """An empty schedule has no next start, and starts nothing."""
    schedule = make()
    assert schedule.next_start() == NEVER
    assert start(schedule, 1e9) is None
    assert (schedule.in_flight, schedule.starts) == (0, 0)


def test_an_item_starts_at_its_time() -> None:
    """A scheduled item is started at its time and not before."""
    schedule = make()
    (item,) = put(schedule, 5.0)
    assert schedule.next_start() == 5.0
    assert start(schedule, 4.9) is None
    assert start(schedule, 5.0) is item


def test_one_flight_stands_for_a_query_under_way() -> None:
    """From its start to its end the item has it; it knows since when it is under way."""
    schedule = make(max_rate=None)
    item, other = put(schedule, 5.0, 6.0)
    assert item.flight is None
    start(schedule, 6.0)
    assert item.flight is not None
    assert (item.flight.started, schedule.in_flight, schedule.starts) == (6.0, 1, 1)
    start(schedule, 6.0)
    schedule.finish(item, 7.0)
    assert item.flight is None
    assert other.flight is not None
    assert (schedule.in_flight, schedule.starts) == (1, 2)


def test_an_item_that_was_dropped_is_not_started() -> None:
    """What was unscheduled never starts, whether it had a time or was a newcomer."""
    schedule = make()
    (item,) = put(schedule, 5.0)
    (newcomer,) = add_newcomers(schedule, 1, 5.0)
    schedule.drop(item)
    schedule.drop(newcomer)
    assert (schedule.next_start(), start(schedule, 9.0)) == (NEVER, None)


def test_what_nobody_wants_is_passed_over() -> None:
    """Due items that nobody waits for cost neither a turn of the pace nor a place in flight."""
    schedule = make(max_rate=1.0)
    unwanted, wanted = put(schedule, 1.0, 2.0)
    assert start(schedule, 9.0, unwanted=[unwanted]) is wanted
    assert (unwanted.when, unwanted.flight) == (NEVER, None)
    assert schedule.in_flight == 1


def test_no_more_are_in_flight_than_allowed() -> None:
    """At the limit nothing starts, and nothing is due, until a query has ended."""
    schedule = make(limit=2, max_rate=None)
    first, second, third = put(schedule, 1.0, 1.0, 1.0)
    assert [start(schedule, 1.0) for _ in range(3)] == [first, second, None]
    assert schedule.next_start() == NEVER
    schedule.finish(first, 4.0)
    assert start(schedule, 4.0) is third


def test_the_limit_holds_for_newcomers_and_queries_by_hand_too() -> None:
    """Neither of them goes beyond the places in flight."""
    schedule = make(limit=1, max_rate=None)
    add_newcomers(schedule, 2, 1.0)
    start(schedule, 1.0)
    schedule.ask(Scheduled())
    assert (schedule.next_start(), start(schedule, 1.0)) == (NEVER, None)


def test_starts_are_spaced_at_the_rate() -> None:
    """Of many that are due at once one starts each quarter of a second at four a second."""
    schedule = make(max_rate=4.0)
    items = put(schedule, *[0.0] * 4)
    for turn, item in enumerate(items):
        now = turn / 4
        assert schedule.next_start() == now
        assert start(schedule, now) is item
        assert start(schedule, now) is None
    assert schedule.next_start() == NEVER


@pytest.mark.parametrize("limit", [1, 100], ids=["limit", "gate"])
def test_a_turn_lost_to_something_else_is_not_made_up_for(limit: int) -> None:
    """After the limit or a 429 held a turn back by some ms, the next gap is a full one."""
    schedule = make(limit=limit, max_rate=100.0)
    first, second, _ = put(schedule, 0.0, 0.0, 0.0)
    if limit > 1:
        close_gate(schedule, now=-9.0, pause_s=9.0)
    assert start(schedule, 0.0) is first
    flight = first.flight
    schedule.finish(first, 0.015)
    schedule.throttle.answered(flight, started=0.0, readable=True)
    assert start(schedule, 0.015) is second
    schedule.finish(second, 0.0151)
    assert start(schedule, 0.02) is None
    assert start(schedule, 0.025) is not None


def test_a_turn_lost_to_nothing_is_made_up_for() -> None:
    """The end of a query that held nobody back does not move the turn that a timer missed."""
    schedule = make(max_rate=100.0)
    first, *_ = put(schedule, 0.0, 0.0)
    start(schedule, 0.0)
    schedule.finish(first, 0.015)
    start(schedule, 0.015)
    schedule.ask(Scheduled())
    assert schedule.next_start() == 0.02


def test_a_turn_lost_to_a_pause_is_not_made_up_for() -> None:
    """A probe that starts some ms after its turn, because of the pause, leaves a full gap."""
    schedule = make(max_rate=100.0)
    put(schedule, 0.0, 0.0)
    start(schedule, 9.99)
    close_gate(schedule, now=9.995, pause_s=0.01)
    assert start(schedule, 10.005) is not None
    schedule.ask(Scheduled())
    assert schedule.next_start() == pytest.approx(10.015)


@pytest.mark.parametrize("now", [0.015, 10.1, 100.3, 777.77])
def test_a_newcomer_to_an_idle_pace_starts_a_new_rhythm(now: float) -> None:
    """A newcomer that finds the pace free leaves a full gap behind it."""
    schedule = make(max_rate=100.0)
    add_newcomers(schedule, 1, now - 0.015)
    start(schedule, now - 0.015)
    add_newcomers(schedule, 2, now)
    start(schedule, now)
    assert schedule.next_start() == pytest.approx(now + 0.01)


def test_a_newcomer_that_waited_for_its_turn_keeps_the_rhythm() -> None:
    """One who came before its turn, and is late by a timer's ms, does not move the turns."""
    schedule = make(max_rate=100.0)
    add_newcomers(schedule, 3, 1.0)
    start(schedule, 1.0)
    start(schedule, 1.015)
    assert schedule.next_start() == pytest.approx(1.02)


# Load: in order of due time.


def test_load_is_served_in_order_of_due_time() -> None:
    """Of a crowd that is overdue, the one goes first that has been due for longest."""
    schedule = make(max_rate=4.0)
    items = put(schedule, 3.0, 1.0, 4.0, 2.0)
    found = starts(schedule, 4, now=10.0)
    assert found == [items[1], items[3], items[0], items[2]]


def gaps_of(
    schedule: Schedule[Scheduled], items: list[Scheduled], *, now: float, until: float
) -> list[float]:
    """Let items be asked and answered at once for a time; return the gaps between their starts."""
    last: dict[Scheduled, float] = {}
    gaps: list[float] = []
    pauses = Random(7)
    while (now := max(now, schedule.next_start())) < until:
        item = start(schedule, now)
        assert item is not None
        schedule.finish(item, now)
        schedule.put(item, now + pauses.uniform(2.0, 3.0))
        if item in last:
            gaps.append(now - last[item])
        last[item] = now
    assert set(last) == set(items)
    return gaps


def test_gaps_grow_evenly_and_shrink_at_once() -> None:
    """A hundred ids at ten a second are asked each 10 s or so, the last five as the policy says."""
    schedule = make(max_rate=10.0, interval=(2.0, 3.0))
    items = put(schedule, *[0.0] * 100)
    gaps_of(schedule, items, now=0.0, until=20.0)
    crowded = gaps_of(schedule, items, now=20.0, until=100.0)
    assert 9.0 <= min(crowded) <= max(crowded) <= 11.0
    for item in items[5:]:
        schedule.drop(item)
    alone = gaps_of(schedule, items[:5], now=100.0, until=200.0)
    assert 2.0 <= min(alone) <= max(alone) <= 3.0 + 4 * 0.1


# Newcomers.


def test_a_newcomer_starts_at_once() -> None:
    """Where nothing holds it back, its first query is due when it comes."""
    schedule = make()
    (newcomer,) = add_newcomers(schedule, 1, 10.0)
    assert schedule.next_start() <= 10.0
    assert start(schedule, 10.0) is newcomer


def test_a_newcomer_goes_before_a_crowd_that_is_overdue() -> None:
    """One who has just come does not queue behind ids that are asked for the tenth time."""
    schedule = make()
    put(schedule, *[0.0] * 50)
    (newcomer,) = add_newcomers(schedule, 1, 10.0)
    assert start(schedule, 10.0) is newcomer


@pytest.mark.parametrize("rate", [None, 4.0])
def test_where_both_wait_newcomers_and_the_overdue_go_by_turns(rate: float | None) -> None:
    """Each have every second start, at any rate, so neither starves the other."""
    schedule = make(max_rate=rate)
    overdue = put(schedule, 1.0, 2.0, 3.0)
    newcomers = add_newcomers(schedule, 5, 10.0)
    found = starts(schedule, 8, now=10.0)
    assert found[:6:2] == newcomers[:3]
    assert found[1:6:2] == overdue
    assert found[6:] == newcomers[3:]


def test_what_is_not_yet_due_takes_no_turn_from_newcomers() -> None:
    """Where nobody is overdue, newcomers go one behind the other."""
    schedule = make(max_rate=None)
    put(schedule, 10.1)
    newcomers = add_newcomers(schedule, 3, 10.0)
    assert [start(schedule, 10.0) for _ in newcomers] == newcomers


def test_who_is_due_at_this_very_moment_is_overdue() -> None:
    """After a newcomer's turn one that has become due just now goes before the next newcomer."""
    schedule = make(max_rate=None)
    (due,) = put(schedule, 10.0)
    first, second = add_newcomers(schedule, 2, 10.0)
    assert [start(schedule, 10.0) for _ in range(3)] == [first, due, second]


def test_one_that_nobody_wants_takes_no_turn_from_its_kind() -> None:
    """Newcomers and overdue ids that were left are passed over, the next of their kind goes."""
    schedule = make(max_rate=None)
    *gone, overdue, other = put(schedule, 1.0, 1.0, 1.0, 2.0, 3.0)
    *left, first, second = add_newcomers(schedule, 5, 10.0)
    found = [start(schedule, 10.0, unwanted=[*gone, *left]) for _ in range(4)]
    assert found == [first, overdue, second, other]


def test_an_id_is_a_newcomer_once() -> None:
    """It had a time of its own, and is called a newcomer again: it keeps its place, goes once."""
    schedule = make(max_rate=None)
    (first,) = put(schedule, 5.0)
    schedule.add_newcomer(first, 10.0)
    (second,) = add_newcomers(schedule, 1, 10.0)
    schedule.add_newcomer(first, 10.0)
    assert [start(schedule, 10.0) for _ in range(3)] == [first, second, None]


@pytest.mark.parametrize(("when", "has_turn"), [(9.0, True), (10.0, True), (10.1, False)])
def test_who_is_due_has_a_turn(when: float, has_turn: bool) -> None:  # noqa: FBT001 - a column of the table
    """It could start but for what holds all back; one whose time is to come could not."""
    schedule = make()
    (item,) = put(schedule, when)
    assert schedule.has_turn(item, 10.0) is has_turn


def test_a_newcomer_has_a_turn() -> None:
    """It needs no time for that; who is not in the schedule at all has none."""
    schedule = make()
    (newcomer,) = add_newcomers(schedule, 1, 10.0)
    assert schedule.has_turn(newcomer, 10.0)
    assert not schedule.has_turn(Scheduled(), 10.0)


# Lists.


@pytest.mark.parametrize(("rate", "gap"), [(100.0, 0.01), (0.5, 2.0), (None, 0.0)])
def test_first_queries_of_a_list_are_laid_out_at_the_pace(rate: float | None, gap: float) -> None:
    """They are as far apart as the pace wants them, so a list leaves room between its turns."""
    schedule = make(max_rate=rate)
    items = lay_out(schedule, 4, 10.0)
    assert [item.when for item in items[1:]] == [10.0 + gap, 10.0 + 2 * gap, 10.0 + 3 * gap]


def test_the_first_id_of_a_list_is_a_newcomer() -> None:
    """It goes before the overdue; the others of its list wait for their turns as all do."""
    schedule = make(max_rate=4.0)
    overdue = put(schedule, 1.0, 2.0)
    first, second = lay_out(schedule, 2, 10.0)
    assert starts(schedule, 4, now=10.0) == [first, *overdue, second]


def test_a_list_that_is_read_slowly_loses_no_turn_and_saves_none_up() -> None:
    """Ids that are read behind their turns are due at once, and the next a gap later."""
    schedule = make(max_rate=4.0)
    first, second, third, fourth = some(4)
    turn = schedule.lay_out(first, 10.0, None)
    turn = schedule.lay_out(second, 10.1, turn)
    assert (second.when, turn) == (10.25, 10.5)
    turn = schedule.lay_out(third, 17.0, turn)
    assert (third.when, turn) == (17.0, 17.25)
    schedule.lay_out(fourth, 17.0, turn)
    assert fourth.when == 17.25


@pytest.mark.parametrize(("when", "kept"), [(10.1, 10.1), (99.0, 10.25)])
def test_an_id_of_two_lists_has_the_earlier_turn(when: float, kept: float) -> None:
    """A second list never puts the first query of an id off."""
    schedule = make(max_rate=4.0)
    (item,) = put(schedule, when)
    schedule.lay_out(item, 10.0, 10.25)
    assert item.when == kept


# Queries by hand.


def test_a_query_by_hand_goes_first() -> None:
    """What was asked for by hand goes before all others, in the order of asking."""
    schedule = make(max_rate=None)
    (due,) = put(schedule, 0.0)
    (newcomer,) = add_newcomers(schedule, 1, 0.0)
    asked = put(schedule, 50.0, 60.0)
    for item in asked:
        schedule.ask(item)
    assert schedule.next_start() <= 1.0
    assert [start(schedule, 1.0) for _ in range(4)] == [*asked, newcomer, due]


def test_a_query_by_hand_takes_the_place_of_the_scheduled_one() -> None:
    """Its item has no turn left in the schedule until it is given a new one."""
    schedule = make(max_rate=None)
    (item,) = put(schedule, 5.0)
    (newcomer,) = add_newcomers(schedule, 1, 0.0)
    schedule.ask(item)
    schedule.ask(newcomer)
    assert [start(schedule, 0.0) for _ in range(2)] == [item, newcomer]
    assert (item.when, start(schedule, 9.0)) == (NEVER, None)


def test_a_query_by_hand_keeps_to_the_pace() -> None:
    """It waits for its turn like all others, and moves the turns behind it."""
    schedule = make(max_rate=1.0)
    put(schedule, 0.0, 0.0)
    start(schedule, 0.0)
    schedule.ask(Scheduled())
    assert schedule.next_start() == 1.0
    assert start(schedule, 0.5) is None
    assert start(schedule, 1.0) is not None
    assert schedule.next_start() == 2.0


def test_a_query_by_hand_starts_the_rhythm_at_its_own_start() -> None:
    """When it had become due is not known, so it never makes up for a turn that was missed."""
    schedule = make(max_rate=100.0)
    for now in (0.0, 0.015):
        schedule.ask(Scheduled())
        start(schedule, now)
    schedule.ask(Scheduled())
    assert schedule.next_start() == 0.025


def test_two_who_ask_share_one_query() -> None:
    """Asked for twice, an id is queried once."""
    schedule = make(max_rate=None)
    item = Scheduled()
    schedule.ask(item)
    schedule.ask(item)
    assert [start(schedule, 1.0), start(schedule, 1.0)] == [item, None]


def test_a_query_that_somebody_still_asks_for_is_sent() -> None:
    """Of three who asked two may take that back; only the third one's leaving ends it."""
    schedule = make()
    item = Scheduled()
    for _ in range(3):
        schedule.ask(item)
    for _ in range(2):
        schedule.withdraw(item)
        assert schedule.next_start() < 9.0
    schedule.withdraw(item)
    schedule.withdraw(item)
    assert (schedule.next_start(), start(schedule, 9.0)) == (NEVER, None)


def test_taking_back_a_query_by_hand_leaves_the_scheduled_one() -> None:
    """Who asks and leaves has not changed when the id is due."""
    schedule = make()
    (item,) = put(schedule, 5.0)
    schedule.ask(item)
    schedule.withdraw(item)
    assert schedule.next_start() == 5.0
    assert start(schedule, 5.0) is item


# The gate.


def test_a_429_holds_all_back_but_queries_by_hand() -> None:
    """In a pause neither the overdue nor a newcomer starts, and a query by hand is no probe."""
    schedule = make(max_rate=None)
    (overdue,) = put(schedule, 0.0)
    (newcomer,) = add_newcomers(schedule, 1, 0.0)
    close_gate(schedule, now=0.0, pause_s=10.0)
    assert schedule.next_start() == 10.0
    assert start(schedule, 5.0) is None
    by_hand = Scheduled()
    schedule.ask(by_hand)
    assert start(schedule, 5.0) is by_hand
    assert schedule.next_start() == 10.0
    assert start(schedule, 10.0) is newcomer
    assert not schedule.has_turn(newcomer, 10.0)
    assert schedule.has_turn(overdue, 10.0)


def test_after_a_pause_one_goes_first() -> None:
    """The first query after a pause is a probe; the others wait until one has a good answer."""
    schedule = make(max_rate=None)
    first, second, third = put(schedule, 0.0, 0.0, 0.0)
    close_gate(schedule, now=0.0, pause_s=10.0)
    for probe, readable in ((first, False), (second, True)):
        assert start(schedule, 10.0) is probe
        assert (schedule.next_start(), start(schedule, 10.0)) == (NEVER, None)
        schedule.throttle.answered(probe.flight, started=10.0, readable=readable)
    assert start(schedule, 10.0) is third


def test_says_in_one_line_how_it_is() -> None:
    """The repr tells how many ids are in flight, scheduled, newcomers and asked for."""
    schedule = make()
    put(schedule, 1.0, 2.0, 3.0)
    add_newcomers(schedule, 2, 0.0)
    start(schedule, 1.0)
    schedule.ask(Scheduled())
    assert repr(schedule) == "<Schedule in_flight=1 due=3 newcomers=1 asked=1>"


# All together.


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                *("put", "first", "list", "ask", "withdraw", "leave", "lapse"),
                *("finish", "finish", "limited", "wait"),
            ]
        ),
        st.floats(0.0, 2.0),
        st.integers(0, 9),
    ),
    max_size=80,
)


class Watched(Scheduled):
    """An id of the model.

    Attributes:
        wanted: Whether somebody waits for it.
        rounds: How many scheduled queries it still takes.
        ended: When its last query ended, in s.
    """

    def __init__(self) -> None:
        super().__init__()
        self.wanted = True
        self.rounds = 2
        self.ended = -NEVER


class Driver:
    """Runs a schedule by its own word, beside a model of what it has to do.

    The model keeps lists and sorts them; it knows no pace and no gate, which are asked for by
    what they allow.
    """

    def __init__(self, schedule: Schedule[Watched], interval_s: float) -> None:
        self.schedule = schedule
        self.interval_s = interval_s
        self.now = 0.0
        self.pauses = Random(7)
        self.items: list[Watched] = []
        self.dues: dict[Watched, float] = {}
        self.newcomers: list[Watched] = []
        self.asked: list[Watched] = []
        self.flying: list[Watched] = []
        self.starts: list[float] = []
        self.newcomer_went = False

    # What the schedule has to start.

    def expected(self) -> Watched | None:
        if self.asked:
            return self.asked[0]
        if self.schedule.throttle.next_start > self.now:
            return None
        newcomers = [item for item in self.newcomers if item.wanted]
        by_time = sorted(self.dues, key=self.dues.__getitem__)
        overdue = [item for item in by_time if item.wanted and self.dues[item] <= self.now]
        if newcomers and overdue:  # by turns
            return overdue[0] if self.newcomer_went else newcomers[0]
        return next(iter(newcomers + overdue), None)

    def run_for(self, span: float) -> None:
        end = self.now + span
        while (at := max(self.now, self.schedule.next_start())) <= end:
            self.now = at
            self.start()
        self.now = end

    def start(self) -> None:
        expected = self.expected()
        unwanted = [item for item in self.items if not item.wanted]
        size = repr(self.schedule)
        found = start(self.schedule, self.now, unwanted=unwanted)
        assert found is expected
        assert repr(self.schedule) != size, "next_start promised something"
        if found is None:
            return
        if found in self.asked:
            self.asked = [item for item in self.asked if item is not found]
        else:
            self.newcomer_went = found in self.newcomers
            assert self.now - found.ended >= self.interval_s - SLACK_S
        self.forget(found)
        self.starts.append(self.now)
        self.flying.append(found)
        assert self.schedule.in_flight == len(self.flying) <= self.schedule.limit

    def forget(self, item: Watched) -> None:
        self.dues.pop(item, None)
        if item in self.newcomers:
            self.newcomers.remove(item)

    # What happens to it.

    def step(self, word: str, span: float, index: int) -> None:
        idle = [item for item in self.items if item.flight is None and item.wanted]
        item = idle[index % len(idle)] if idle else self.new()
        if word == "put":
            self.put(self.new(), self.now + span)
        elif word == "first":
            self.add_newcomer(self.new())
        elif word == "list":
            self.lay_out(index)
        elif word == "ask":
            self.schedule.ask(item)
            self.asked.append(item)
        elif word == "withdraw":
            self.withdraw(item)
        elif word == "leave":
            self.leave(item)
        elif word == "lapse":
            item.wanted = item in self.asked
        elif word != "wait":
            self.land(limited=word == "limited")
        self.run_for(span if word == "wait" else 0.0)

    def new(self) -> Watched:
        self.items.append(Watched())
        return self.items[-1]

    def put(self, item: Watched, when: float) -> None:
        self.schedule.put(item, when)
        self.dues[item] = when

    def add_newcomer(self, item: Watched) -> None:
        self.schedule.add_newcomer(item, self.now)
        self.newcomers.append(item)

    def lay_out(self, number: int) -> None:
        turn = None
        for _ in range(number):
            item = self.new()
            if turn is None:
                self.newcomers.append(item)
            else:
                self.dues[item] = turn
            turn = self.schedule.lay_out(item, self.now, turn)

    def withdraw(self, item: Watched) -> None:
        self.schedule.withdraw(item)
        if item in self.asked:
            # The one who asked last: the others keep their place.
            del self.asked[len(self.asked) - 1 - self.asked[::-1].index(item)]

    def leave(self, item: Watched) -> None:
        self.schedule.drop(item)
        self.forget(item)
        item.wanted = item in self.asked

    def land(self, *, limited: bool = False) -> None:
        if not self.flying:
            return
        item = self.flying.pop(0)
        flight = item.flight
        assert flight is not None
        self.schedule.finish(item, self.now)
        throttle = self.schedule.throttle
        if limited:
            throttle.limited(RateLimitError(""), started=flight.started, now=self.now)
        else:
            throttle.answered(flight, started=flight.started, readable=True)
        item.ended = self.now
        item.rounds -= 1
        if item.rounds > 0:
            self.schedule.put(item, self.now + self.interval_s * self.pauses.uniform(1.0, 1.5))
            self.dues[item] = item.when


@settings(max_examples=share_of(200))
@given(
    steps=STEPS,
    rate=st.sampled_from([None, 1.0, 4.0, 100.0]),
    limit=st.sampled_from([1, 2, 100]),
)
def test_any_order_of_events_keeps_the_limits(
    steps: list[tuple[str, float, int]], rate: float | None, limit: int
) -> None:
    """Whatever comes and goes: order and turns, the rate, the places in flight, the pauses.

    Each start is the one that the model names, no two are nearer than the rate allows, no more
    are in flight than the limit, no scheduled query comes before its id's pause is over, and in
    the end nothing is left over.
    """
    policy = PollPolicy(interval=(1.0, 1.5), max_rate=rate)
    driver = Driver(Schedule(policy, Random(1), limit=limit), policy.interval[0])
    for word, span, index in steps:
        driver.step(word, span, index)
    while driver.flying or driver.schedule.next_start() < NEVER:
        driver.run_for(1000.0)
        driver.land()
    assert not driver.asked
    assert not [item for item in (*driver.newcomers, *driver.dues) if item.wanted]
    gap = 0.0 if rate is None else 1 / rate
    assert all(after - before >= gap - SLACK_S for before, after in pairwise(driver.starts))


# What a book lends, and what is no query.


def test_a_lent_pace_stands_in_place_of_the_own_one() -> None:
    """From the moment it is lent until it is taken back."""
    schedule = make(max_rate=10.0)
    pace = LentPace(5.0, list)
    schedule.lend(pace)
    pace.grant([7.0], 1.0)
    assert schedule.lent is pace
    assert schedule.reserve(1.0) == 7.0
    schedule.lend(None)
    assert schedule.lent is None
    assert [schedule.reserve(1.0) for _ in range(2)] == pytest.approx([1.0, 1.1])


def test_a_lent_pace_is_asked_for_starts_when_something_is_due() -> None:
    """Once, and not for what is due later; until they come there is nothing to look for."""
    asked: list[None] = []
    schedule = make(max_rate=10.0)
    schedule.lend(LentPace(5.0, lambda: asked.append(None)))
    (item,) = put(schedule, 5.0)
    assert schedule.next_start() == 5.0
    assert (schedule.pop(4.0), asked) == (None, [])
    assert [schedule.pop(5.0) for _ in range(2)] == [None, None]
    assert asked == [None]
    assert schedule.next_start() == NEVER
    assert schedule.lent is not None
    schedule.lent.grant([6.0], 5.5)
    assert schedule.next_start() == 6.0
    assert start(schedule, 6.0) is item


def test_a_flight_knows_when_it_started_and_since_when_it_was_due() -> None:
    """Both are told of it."""
    schedule = make(max_rate=None)
    (item,) = put(schedule, 5.0)
    assert start(schedule, 7.0) is item
    flight = item.flight
    assert flight is not None
    assert (flight.started, flight.due) == (7.0, 5.0)


def test_how_many_starts_could_be_used() -> None:
    """All asked for by hand, all newcomers, and one for whatever is overdue."""
    schedule = make()
    assert schedule.ready(5.0) == 0
    put(schedule, 5.0, 5.0, 9.0)
    assert [schedule.ready(now) for now in (4.9, 5.0, 9.0)] == [0, 1, 1]
    add_newcomers(schedule, 3, 5.0)
    assert [schedule.ready(now) for now in (4.9, 5.0)] == [3, 4]
    schedule.ask(Scheduled())
    assert schedule.ready(5.0) == 5


def test_behind_a_closed_gate_only_queries_by_hand_could_be_used() -> None:
    """Until its pause is over."""
    schedule = make()
    add_newcomers(schedule, 3, 5.0)
    close_gate(schedule, now=5.0, pause_s=2.0)
    assert [schedule.ready(now) for now in (6.9, 7.0)] == [0, 3]
    for _ in range(2):
        schedule.ask(Scheduled())
    assert [schedule.ready(now) for now in (6.9, 7.0)] == [2, 5]
