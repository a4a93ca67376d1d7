"""Who is asked next, and when: newcomers, queries by hand, pauses, and what holds them back."""

from __future__ import annotations

import math
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kling_omni_async._polling.timers import NEVER, Timed

from kling_omni_async import PollPolicy
from kling_omni_async._polling.schedule import HEAD_START, Schedule


def make(**policy: Any) -> Schedule[Timed]:
    """Make a schedule with random pauses that repeat."""
    return Schedule(PollPolicy(**policy), Random(1))


def everyone(_item: Timed) -> bool:
    """Want every item."""
    return True


def start(schedule: Schedule[Timed], now: float) -> Timed | None:
    """Start the item whose turn it is."""
    found = schedule.start(now, everyone)
    return None if found is None else found[0]


def put(schedule: Schedule[Timed], *times: float) -> list[Timed]:
    """Schedule new items."""
    items = [Timed() for _ in times]
    for item, when in zip(items, times, strict=True):
        schedule.put(item, when)
    return items


def close_gate(schedule: Schedule[Timed], *, now: float, pause_s: float) -> None:
    """Let a 429 begin a pause."""
    schedule.throttle.limited(now=now, started=now, retry_after=pause_s)


# Turns.


def test_nothing_to_do_is_never_due() -> None:
    """An empty schedule has no next start, and starts nothing."""
    schedule = make()
    assert schedule.next_start() == NEVER
    assert start(schedule, 1e9) is None


def test_an_item_starts_at_its_time() -> None:
    """A scheduled item is started at its time and not before."""
    schedule = make()
    (item,) = put(schedule, 5.0)
    assert schedule.next_start() == 5.0
    assert start(schedule, 4.9) is None
    assert start(schedule, 5.0) is item
    assert schedule.in_flight == 1


def test_an_item_that_was_dropped_is_not_started() -> None:
    """What was unscheduled never starts."""
    schedule = make()
    (item,) = put(schedule, 5.0)
    schedule.drop(item)
    assert start(schedule, 9.0) is None


def test_what_nobody_wants_is_passed_over() -> None:
    """Due items that nobody waits for cost neither a turn of the pace nor a place in flight."""
    schedule = make(max_rate=1.0)
    unwanted, wanted = put(schedule, 1.0, 2.0)
    assert schedule.start(9.0, lambda item: item is wanted) == (wanted, False)
    assert unwanted.when == NEVER
    assert schedule.in_flight == 1


def test_no_more_are_in_flight_than_allowed() -> None:
    """At the limit nothing starts, and nothing is due, until a query has ended."""
    schedule = make(max_concurrency=2, max_rate=None)
    first, second, third = put(schedule, 1.0, 1.0, 1.0)
    assert [start(schedule, 1.0) for _ in range(3)] == [first, second, None]
    assert schedule.next_start() == NEVER
    schedule.finish(4.0)
    assert start(schedule, 4.0) is third


def test_starts_are_spaced_at_the_rate() -> None:
    """Of many that are due at once one starts each quarter of a second at four a second."""
    schedule = make(max_rate=4.0)
    items = put(schedule, *[0.0] * 4)
    for turn, item in enumerate(items):
        now = turn / 4
        assert start(schedule, now) is item
        assert start(schedule, now) is None
        assert schedule.next_start() in {now + 0.25, NEVER}


@pytest.mark.parametrize("policy", [{"max_concurrency": 1}, {}], ids=["limit", "gate"])
def test_a_turn_lost_to_something_else_is_not_made_up_for(policy: dict[str, int]) -> None:
    """After the limit or a 429 held a turn back by some ms, the next gap is a full one."""
    schedule = make(max_rate=100.0, **policy)
    put(schedule, 0.0, 0.0, 0.0)
    if not policy:
        close_gate(schedule, now=-9.0, pause_s=9.0)
    _, probe = schedule.start(0.0, everyone) or (None, False)
    schedule.finish(0.015)
    schedule.throttle.answered(started=0.0, probe=probe, readable=True)
    assert start(schedule, 0.015) is not None
    schedule.finish(0.0151)
    assert start(schedule, 0.02) is None
    assert start(schedule, 0.025) is not None


def test_a_turn_lost_to_a_pause_is_not_made_up_for() -> None:
    """A probe that starts some ms after its turn, because of the pause, leaves a full gap."""
    schedule = make(max_rate=100.0)
    put(schedule, 0.0, 0.0)
    start(schedule, 9.99)
    close_gate(schedule, now=9.995, pause_s=0.01)
    assert start(schedule, 10.005) is not None
    schedule.ask(Timed())
    assert schedule.next_start() == pytest.approx(10.015)


@pytest.mark.parametrize("now", [0.015, 10.1, 100.3, 777.77])
def test_a_newcomer_to_an_idle_pace_starts_a_new_rhythm(now: float) -> None:
    """A newcomer that finds the pace free leaves a full gap behind it."""
    schedule = make(max_rate=100.0)
    schedule.put_first(Timed(), now - 0.015)
    assert start(schedule, now - 0.015) is not None
    for _ in range(2):
        schedule.put_first(Timed(), now)
    assert start(schedule, now) is not None
    assert schedule.next_start() == pytest.approx(now + 0.01)


# Newcomers and queries by hand.


def test_a_newcomer_goes_before_a_crowd_that_is_overdue() -> None:
    """One who has just come does not queue behind ids that are asked for the tenth time."""
    schedule = make()
    put(schedule, *[0.0] * 50)
    newcomer = Timed()
    schedule.put_first(newcomer, 10.0)
    assert start(schedule, 10.0) is newcomer


def test_newcomers_keep_their_order() -> None:
    """Of two newcomers the first one goes first."""
    schedule = make(max_rate=None)
    newcomers = [Timed() for _ in range(3)]
    for newcomer in newcomers:
        schedule.put_first(newcomer, 10.0)
    assert [start(schedule, 10.0) for _ in newcomers] == newcomers


@pytest.mark.parametrize(("watched", "longest"), [(1, 30.0), (5000, 60.0)])
def test_newcomers_cannot_starve_an_overdue_id(watched: int, longest: float) -> None:
    """An id that is overdue by more than two of the longest pauses goes before a newcomer."""
    schedule = make(interval=(20.0, 30.0), max_rate=100.0)
    schedule.watched = watched
    overdue, starving = put(schedule, 2.0, 0.0)
    now = HEAD_START * longest + 1.0
    newcomer = Timed()
    schedule.put_first(newcomer, now)
    assert [start(schedule, now + turn) for turn in range(3)] == [starving, newcomer, overdue]


def test_a_query_by_hand_goes_first() -> None:
    """What was asked for by hand goes before all that is due, in the order of asking."""
    schedule = make(max_rate=None)
    (due,) = put(schedule, 0.0)
    asked = put(schedule, 50.0, 60.0)
    for item in asked:
        schedule.ask(item)
    assert schedule.next_start() <= 1.0
    assert [start(schedule, 1.0) for _ in range(3)] == [*asked, due]


def test_a_query_by_hand_takes_the_place_of_the_scheduled_one() -> None:
    """Its item has no turn left in the schedule until it is given a new one."""
    schedule = make()
    (item,) = put(schedule, 5.0)
    schedule.ask(item)
    assert start(schedule, 0.0) is item
    assert (item.when, start(schedule, 9.0)) == (NEVER, None)


def test_a_query_by_hand_keeps_to_the_pace() -> None:
    """It waits for its turn like all others, and moves the turns behind it."""
    schedule = make(max_rate=1.0)
    put(schedule, 0.0, 0.0)
    start(schedule, 0.0)
    schedule.ask(Timed())
    assert schedule.next_start() == 1.0
    assert start(schedule, 0.5) is None
    assert start(schedule, 1.0) is not None
    assert schedule.next_start() == 2.0


def test_a_query_by_hand_can_be_taken_back() -> None:
    """What was withdrawn is not started; withdrawing it again does nothing."""
    schedule = make()
    item = Timed()
    schedule.ask(item)
    schedule.withdraw(item)
    schedule.withdraw(item)
    assert (schedule.next_start(), start(schedule, 9.0)) == (NEVER, None)


# The gate.


def test_a_429_holds_scheduled_queries_back_but_not_those_by_hand() -> None:
    """In a pause only what was asked for by hand starts, and it is no probe."""
    schedule = make(max_rate=None)
    put(schedule, 0.0)
    close_gate(schedule, now=0.0, pause_s=10.0)
    assert schedule.next_start() == 10.0
    assert start(schedule, 5.0) is None
    by_hand = Timed()
    schedule.ask(by_hand)
    assert schedule.start(5.0, everyone) == (by_hand, False)


def test_after_a_pause_one_goes_first() -> None:
    """The first query after a pause is a probe; the others wait until it has been answered."""
    schedule = make(max_rate=None)
    first, second = put(schedule, 0.0, 0.0)
    close_gate(schedule, now=0.0, pause_s=10.0)
    assert schedule.start(10.0, everyone) == (first, True)
    assert (schedule.next_start(), start(schedule, 11.0)) == (NEVER, None)
    schedule.throttle.answered(started=10.0, probe=True, readable=True)
    assert schedule.start(11.0, everyone) == (second, False)


# Pauses.


@given(seed=st.integers(0, 2**32), low=st.floats(0.0, 60.0), width=st.floats(0.1, 60.0))
def test_a_pause_is_within_the_interval(seed: int, low: float, width: float) -> None:
    """No pause is shorter or longer than the policy says."""
    schedule: Schedule[Timed] = Schedule(PollPolicy(interval=(low, low + width)), Random(seed))
    assert low <= schedule.pause() <= low + width


def test_pauses_are_drawn_anew_each_time() -> None:
    """Nothing marches in step: a hundred pauses are a hundred different ones."""
    schedule = make()
    assert len({schedule.pause() for _ in range(100)}) == 100


@pytest.mark.parametrize(
    ("watched", "rate", "stretch"),
    [(2500, 100.0, 1.0), (5000, 100.0, 2.0), (1_000_000, 100.0, 400.0), (10**6, None, 1.0)],
)
def test_load_stretches_pauses(watched: int, rate: float | None, stretch: float) -> None:
    """With more ids than the pace can serve all pauses grow by the same factor."""
    schedule = make(max_rate=rate)
    schedule.watched = watched
    assert schedule.stretch == stretch
    assert 20.0 * stretch <= schedule.pause() <= 30.0 * stretch
    assert 20.0 <= schedule.pause(stretched=False) <= 30.0


@pytest.mark.parametrize(("rate", "gap"), [(100.0, 0.01), (0.5, 2.0), (None, 0.0)])
def test_first_queries_are_laid_out_at_the_pace(rate: float | None, gap: float) -> None:
    """The first queries of a batch are as far apart as the pace wants them."""
    assert make(max_rate=rate).first_gap == gap


def test_says_in_one_line_how_it_is() -> None:
    """The repr tells how many ids are watched, in flight, scheduled and asked for."""
    schedule = make()
    put(schedule, 1.0, 2.0)
    schedule.ask(Timed())
    start(schedule, 1.0)
    schedule.ask(Timed())
    assert repr(schedule) == "<Schedule watched=0 in_flight=1 scheduled=2 asked=1>"


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "first", "ask", "finish", "limited", "wait"]),
        st.floats(0.0, 2.0),
    ),
    max_size=80,
)


class Driver:
    """Runs a schedule by its own word: it is asked again when it said that something may start."""

    def __init__(self, schedule: Schedule[Timed]) -> None:
        self.schedule = schedule
        self.now = 0.0
        self.starts: list[float] = []
        self.flying: list[tuple[float, bool]] = []
        self.given_in = 0

    def run_for(self, span: float) -> None:
        end = self.now + span
        while (at := max(self.now, self.schedule.next_start())) <= end:
            self.now = at
            found = self.schedule.start(at, everyone)
            assert found is not None, "next_start promised something"
            self.starts.append(at)
            self.flying.append((at, found[1]))
            assert self.schedule.in_flight == len(self.flying) <= self.schedule.limit
        self.now = end

    def give_in(self, word: str, span: float) -> None:
        self.given_in += 1
        item = Timed()
        if word == "put":
            self.schedule.put(item, self.now + span)
        elif word == "first":
            self.schedule.put_first(item, self.now)
        else:
            self.schedule.ask(item)

    def land(self, *, limited: bool = False) -> None:
        if not self.flying:
            return
        started, probe = self.flying.pop(0)
        self.schedule.finish(self.now)
        throttle = self.schedule.throttle
        if limited:
            throttle.limited(now=self.now, started=started, retry_after=None)
        else:
            throttle.answered(started=started, probe=probe, readable=True)


@settings(max_examples=200)
@given(
    steps=STEPS,
    rate=st.sampled_from([None, 1.0, 4.0, 100.0]),
    limit=st.sampled_from([1, 2, 100]),
)
def test_any_order_of_events_keeps_the_limits(
    steps: list[tuple[str, float]], rate: float | None, limit: int
) -> None:
    """Whatever comes and goes: the rate, the places in flight, and each item started once."""
    driver = Driver(make(max_rate=rate, max_concurrency=limit))
    for word, span in steps:
        if word in {"finish", "limited"}:
            driver.land(limited=word == "limited")
        elif word != "wait":
            driver.give_in(word, span)
        driver.run_for(span if word == "wait" else 0.0)
    for _ in range(2 * len(steps) + 2):
        driver.run_for(1000.0)
        driver.land()
    assert len(driver.starts) == driver.given_in
    gap = 0.0 if rate is None else 1 / rate
    assert all(after - before >= gap - 1e-9 for before, after in pairwise(driver.starts))
    assert driver.schedule.next_start() == math.inf
