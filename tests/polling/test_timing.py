"""Learned timing: what is learned of durations, when to look, and how a crowd is spread."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from random import Random
from statistics import mean
from typing import Final, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_omni_async._polling.timing import (
    LEARNED_BEFORE_PLAN,
    MOST_KINDS,
    MOST_UNITS,
    PLAN_PAUSE_S,
    PLANNED,
    UNITS_PER_LOW,
    Crowd,
    Durations,
    Plan,
    Timing,
    _prior_density,
    _prior_share,
    plan,
)

Draw = Callable[[Random], float]
INTERVAL: Final = (20.0, 30.0)
SLACK_S: Final = 1e-9
"""What times that were added up may differ by, in s."""


def make(
    interval: tuple[float, float] = INTERVAL, *, learned: bool = True, seed: int = 1
) -> Timing:
    """Make the timing of a session."""
    return Timing(interval, Random(seed), learned=learned)


def taught(*spans: tuple[float, float], times: int = 400) -> Durations:
    """Make durations that were learned from spans, each many times."""
    durations = Durations(1.0)
    for _ in range(times):
        for after, until in spans:
            assert durations.learn(after, until)
    return durations


def share_between(durations: Durations, low: int, high: int) -> float:
    """Return the share of tasks that end between two ages below `PLANNED`."""
    return sum(durations.weights[low:high]) / sum(durations.weights)


def looks(found: Plan, start: float) -> list[float]:
    """Return the ages of the looks of a plan after one at an age."""
    ages = [start]
    while ages[-1] < PLANNED:
        ages.append(ages[-1] + found.pauses[int(ages[-1])])
    return ages[1:]


# What is learned.


def test_before_anything_was_seen_an_image_takes_24_to_41_s() -> None:
    """The prior is what is known of the API: most end there, some later, hardly any before 10 s."""
    durations = Durations(1.0)
    assert share_between(durations, 24, 41) > 0.55
    assert 0.1 < share_between(durations, 41, 70) < 0.3
    assert 0.0 < share_between(durations, 0, 10) < 0.01
    assert 0.0 < sum(durations.weights[PLANNED:]) / sum(durations.weights) < 0.01
    assert sum(durations.weights) == pytest.approx(12.0, abs=0.1)


@pytest.mark.parametrize(
    ("age", "density"),
    [
        (0.0, 0.004),
        (9.5, 0.004),
        (17.0, 0.1285),  # an eighth, halfway up
        (23.9999, 1.0),
        (24.0, 1.0),
        (41.0, 1.0),
        (41.5, 0.9956961),
        (55.5, 0.0353125),  # 45° down the slope
        (69.9999, 0.02),
        (70.0, 0.02),
        (130.0, 0.02 / math.e),
    ],
)
def test_how_likely_an_end_is_before_anything_was_seen(age: float, density: float) -> None:
    """Hardly before 10 s, most at 24 to 41 s, then fewer and fewer, a few of them after minutes."""
    assert _prior_density(age) == pytest.approx(density, abs=5e-5)


@pytest.mark.parametrize(("age", "whole"), [(0.0, 0), (1.0, 1), (30.0, 30), (600.0, 600)])
def test_what_has_ended_at_an_age_is_all_that_ended_before(age: float, whole: int) -> None:
    """Second for second, as if none took more than ten minutes."""
    ends = [_prior_density(second + 0.5) for second in range(600)]
    assert _prior_share(age) == pytest.approx(sum(ends[:whole]) / sum(ends))


def test_what_has_ended_grows_within_a_second_too() -> None:
    """A quarter of what ends within a second has ended after a quarter of it."""
    before, after = _prior_share(30.0), _prior_share(31.0)
    assert _prior_share(30.25) == pytest.approx(before + (after - before) / 4)
    assert _prior_share(599.5) < _prior_share(600.5) == 1.0


def test_nothing_is_impossible() -> None:
    """Each bin has some weight from the start."""
    assert min(Durations(1.0).weights) >= 1e-4


def test_the_prior_falls_off_without_a_cliff() -> None:
    """From one second to the next no duration becomes a tenth as likely."""
    weights = Durations(1.0).weights[24:PLANNED]
    assert all(after > before / 10 for before, after in pairwise(weights))


def test_the_prior_is_in_seconds_where_the_interval_is_real() -> None:
    """In units of half a second, 24 to 41 s are twice as many units."""
    assert share_between(Durations(0.5), 48, 82) > 0.55


def test_what_is_seen_outweighs_the_prior() -> None:
    """After many tasks of 50 to 60 s nearly all are expected there."""
    assert share_between(taught((50.0, 60.0)), 50, 60) > 0.99


def test_what_is_new_outweighs_what_is_old() -> None:
    """A hundred tasks of another kind, and most of what was learned before is forgotten."""
    durations = taught((50.0, 60.0))
    for _ in range(100):
        durations.learn(20.0, 30.0)
    assert share_between(durations, 20, 30) > 0.8


def test_an_end_between_two_looks_is_put_where_tasks_do_end() -> None:
    """Self-consistency: what is known only roughly follows what is known better."""
    durations = taught((30.0, 31.0), (0.0, 60.0))
    assert share_between(durations, 30, 31) > 0.9


def test_parts_of_bins_count_as_parts() -> None:
    """A span within a bin teaches of that bin, and one over two halves of each alike."""
    durations = Durations(1.0)
    before = list(durations.weights)
    assert durations.learn(30.25, 30.75)
    assert durations.weights[30] == pytest.approx(before[30] + 1.0)
    durations = Durations(1.0)
    assert durations.learn(30.5, 31.5)
    assert durations.weights[30] == pytest.approx(before[30] + 0.5)
    assert durations.weights[31] == pytest.approx(before[31] + 0.5)
    assert durations.weights[32:] == before[32:]


LAST_EDGES: Final = Durations(1.0).edges[-2:]


@pytest.mark.parametrize(
    ("after", "until"),
    [
        (5.0, 5.0),
        (6.0, 5.0),
        (-1.0, 5.0),
        (10.0, 1e6),
        (10.0, LAST_EDGES[-1]),
        (float("nan"), 5.0),
    ],
)
def test_nonsense_teaches_nothing(after: float, until: float) -> None:
    """Ages that cannot be, or are out of all range, change nothing."""
    durations = Durations(1.0)
    before = list(durations.weights)
    assert not durations.learn(after, until)
    assert durations.weights == before


def test_an_end_in_the_last_bin_is_learned() -> None:
    """All that is within the bins counts."""
    assert Durations(1.0).learn(LAST_EDGES[0], mean(LAST_EDGES))


def test_what_is_new_weighs_as_much_after_weights_were_scaled_down() -> None:
    """A fiftieth of all that was learned, as before."""
    durations = Durations(1.0)
    before = 0.0
    while durations.weights[30] > before:
        before = durations.weights[30]
        durations.learn(30.25, 30.75)
    durations.learn(60.25, 60.75)
    assert share_between(durations, 60, 61) == pytest.approx(0.02, rel=0.01)


def test_weights_stay_finite() -> None:
    """However many outcomes come, what they weigh is scaled down in time."""
    durations = Durations(1.0)
    for _ in range(30_000):
        durations.learn(30.0, 40.0)
    assert 0 < sum(durations.weights) < 1e200
    assert share_between(durations, 30, 40) > 0.99


def test_a_long_task_is_learned_beyond_what_is_planned() -> None:
    """Bins grow beyond the plan, so that tasks of an hour are kept too."""
    durations = taught((3500.0, 3600.0))
    assert sum(durations.weights[PLANNED:]) / sum(durations.weights) > 0.99


def test_the_median_is_where_half_of_what_is_left_has_ended() -> None:
    """Of tasks of 30 and 60 s, one of 40 s takes 20 s more."""
    durations = taught((30.0, 31.0), (60.0, 61.0))
    left = durations.median_left(40.0)
    assert left == pytest.approx(20.5, abs=0.6)
    start = durations.median_left(0.0)
    assert start is not None
    assert 30 <= start <= 61


def test_nothing_is_known_of_what_never_took_so_long() -> None:
    """At an age beyond all bins there is no median."""
    assert Durations(1.0).median_left(1e6) is None


# The plan.


def test_tasks_of_one_duration_are_looked_at_right_after_it() -> None:
    """Where all end at 33, a first look comes there; after one at 0, the second pause is short."""
    found = plan(taught((33.0, 33.5)), 30.0)
    assert 34 <= found.first <= 36
    assert looks(found, 0.0)[:2] == [21.0, 42.0]
    assert any(33.5 < age <= 37 for age in looks(found, 10.0))


def test_two_kinds_get_a_look_each() -> None:
    """Where half end at 27 and half at 55, there is a look soon behind each."""
    found = plan(taught((27.0, 28.0), (55.0, 56.0)), 30.0)
    assert 28 <= found.first <= 30
    assert any(56 <= age <= 59 for age in looks(found, found.first))


@given(
    spans=st.lists(
        st.tuples(st.integers(0, 150), st.integers(1, 40)), min_size=1, max_size=5, unique=True
    ),
    high=st.floats(22.0, 60.0),
)
def test_every_planned_pause_is_within_the_interval(
    spans: list[tuple[int, int]], high: float
) -> None:
    """Whatever was learned, no pause leaves the interval, with room for the jitter."""
    durations = taught(*((float(low), float(low + width)) for low, width in spans), times=30)
    found = plan(durations, high)
    assert len(found.pauses) == PLANNED
    assert all(UNITS_PER_LOW + 1 <= pause <= high - 1 for pause in found.pauses)
    assert 1 <= found.first < PLANNED


def test_of_two_equal_plans_the_one_with_fewer_looks_is_taken() -> None:
    """Where nothing can end for long, pauses are the longest."""
    found = plan(taught((150.0, 151.0)), 30.0)
    assert found.pauses[0] == 29.0


# A session's timing.


@given(
    seed=st.integers(0, 2**32),
    low=st.floats(0.1, 60.0),
    factor=st.floats(1.0, 4.0),
    ages=st.lists(st.floats(-5.0, 400.0), min_size=1, max_size=30),
    learned=st.booleans(),
)
def test_no_pause_ever_leaves_the_interval(
    seed: int, low: float, factor: float, ages: list[float], *, learned: bool
) -> None:
    """Whatever the age, the crowd, the interval and what was learned."""
    timing = make((low, low * factor), learned=learned, seed=seed)
    for turn, age_s in enumerate(ages):
        now = turn * 0.01
        for when in (timing.next_look(now, age_s), timing.even(now)):
            assert low - SLACK_S <= when - now <= low * factor + SLACK_S
        timing.learn(age_s, age_s + low)


def test_pauses_are_drawn_anew_each_time() -> None:
    """Nothing marches in step: a hundred pauses are a hundred different ones."""
    timing = make()
    assert len({timing.next_look(0.0, 5.0) for _ in range(100)}) == 100
    assert len({timing.even(0.0) for _ in range(100)}) == 100


@pytest.mark.parametrize(
    ("interval", "learns"),
    [
        ((20.0, 30.0), True),
        ((0.2, 0.3), True),
        ((20.0, 22.0), True),
        ((20.0, 60.0), True),
        ((20.0, 21.0), False),
        ((20.0, 20.0), False),
        ((20.0, 61.0), False),
        ((20.0, 200.0), False),
        ((0.0, 5.0), False),
    ],
)
def test_where_there_is_too_little_or_too_much_to_choose_pauses_are_even(
    interval: tuple[float, float], *, learns: bool
) -> None:
    """A choice needs a width of a tenth, and a table that is fine enough."""
    timing = make(interval)
    assert timing.learns is learns
    assert make(interval, learned=False).learns is False
    low, high = interval
    pauses = [timing.next_look(0.0, low * 0.5) for _ in range(200)]
    assert all(low - SLACK_S <= pause <= high + SLACK_S for pause in pauses)


def test_uniform_is_uniform() -> None:
    """With `timing="uniform"` an age changes nothing."""
    timing = make(learned=False)
    pauses = [timing.next_look(0.0, 5.0) for _ in range(2000)]
    assert mean(pauses) == pytest.approx(25.0, abs=0.3)
    assert timing.first_look(7.0, 0.0) == 7.0
    timing.learn(1.0, 2.0)
    assert timing.left_s(5.0) is None


def test_ages_out_of_range_are_asked_evenly() -> None:
    """Clocks that differ, and tasks of an hour, get even pauses."""
    for age_s in (-0.001, float(PLANNED), 1e9, float("nan")):
        timing = make()
        pauses = [timing.next_look(0.0, age_s) for _ in range(2000)]
        assert mean(pauses) == pytest.approx(25.0, abs=0.3)


def test_the_last_age_of_the_plan_is_one_of_its_ages() -> None:
    """Of some intervals it is rounded up to the first age that has no plan."""
    low = 89.3880926952111
    timing = make((low, low * 1.5))
    age_s = math.nextafter(PLANNED * (low / 20), 0.0)
    assert age_s < PLANNED * (low / 20)
    assert low - SLACK_S <= timing.next_look(0.0, age_s) <= low * 1.5 + SLACK_S


def test_compressed_time_behaves_alike() -> None:
    """With an interval of a hundredth, all is as a hundredth of it."""
    real, fast = make(), make((0.2, 0.3))
    assert fast.next_look(0.0, 0.05) == pytest.approx(real.next_look(0.0, 5.0) / 100)
    assert fast.first_look(0.0, 0.0) == pytest.approx(real.first_look(0.0, 0.0) / 100)
    assert fast.left_s(0.1) == pytest.approx(cast("float", real.left_s(10.0)) / 100)


def test_what_is_learned_in_compressed_time_counts_alike() -> None:
    """Outcomes, their ends, and a crowd at many moments: each look is at a hundredth."""
    real, fast = make(), make((0.2, 0.3))
    for _ in range(60):
        real.learn(50.0, 60.0)
        fast.learn(0.5, 0.6)
        real.learn(0.0, 60.0, ended_s=45.2)
        fast.learn(0.0, 0.6, ended_s=0.452)
    assert fast.left_s(0.0) == pytest.approx(cast("float", real.left_s(0.0)) / 100)
    for turn in range(300):
        now = 1000.0 + turn * 0.25
        expected = (real.next_look(now, 5.0) - now) / 100
        assert fast.next_look(now / 100, 0.05) - now / 100 == pytest.approx(expected)
        expected = (real.first_look(now, now - 5.0) - now) / 100
        assert fast.first_look(now / 100, (now - 5.0) / 100) - now / 100 == pytest.approx(expected)


@pytest.mark.parametrize("interval", [(15.0, 22.5), (20.0, 30.0), (40.0, 60.0)])
def test_what_is_known_of_the_api_is_in_seconds(interval: tuple[float, float]) -> None:
    """Whatever the unit, half of the tasks have ended after some 35 s."""
    assert make(interval).left_s(0.0) == pytest.approx(35.0, abs=2.0)


def test_two_runs_from_one_seed_are_alike() -> None:
    """Whatever the loop's clock said when they began, a crowd is spread over the same moments."""
    early, late = make(), make()
    for turn in range(200):
        now = turn * 0.01
        expected = early.next_look(now, 5.0) - now
        assert late.next_look(1000.25 + now, 5.0) - 1000.25 - now == pytest.approx(expected)


def test_what_is_left_is_told_from_the_first_moment_on() -> None:
    """At age 0 too, and not where nothing is known."""
    timing = make()
    assert timing.left_s(0.0) is not None
    assert timing.left_s(-0.001) is None
    assert timing.left_s(1e6) is None


def test_a_plan_is_made_anew_when_enough_was_learned_and_some_time_has_passed() -> None:
    """Not after each outcome, as a plan costs as much as some hundred of them."""
    timing = make()
    before = timing.next_look(0.0, 0.0)
    assert before == pytest.approx(28.0, abs=1.01)
    for _ in range(LEARNED_BEFORE_PLAN - 1):
        timing.learn(20.0, 21.0)
    assert timing.next_look(100.0, 0.0) - 100.0 == pytest.approx(28.0, abs=1.01)
    timing.learn(20.0, 21.0)
    assert timing.next_look(100.0, 0.0) - 100.0 == pytest.approx(22.0, abs=1.01)
    for _ in range(20 * LEARNED_BEFORE_PLAN):
        timing.learn(28.0, 28.5)
    soon = 100.0 + PLAN_PAUSE_S
    assert timing.next_look(soon - 0.1, 0.0) - soon + 0.1 == pytest.approx(22.0, abs=1.01)
    assert timing.next_look(soon, 0.0) - soon == pytest.approx(29.0, abs=1.01)


def test_a_first_look_waits_for_what_is_planned() -> None:
    """Where a creation is known, a look comes when it is likely done, or now if it is late."""
    timing = make()
    first = timing.first_look(100.0, 100.0)
    assert 24 < first - 100.0 < 45
    assert timing.first_look(110.0, 100.0) == pytest.approx(first, abs=2.1)
    assert timing.first_look(500.0, 100.0) == 500.0


def test_a_first_look_whose_time_has_just_come_is_now() -> None:
    """Not within the unit that others may be spread over."""
    timing = make()
    planned = plan(Durations(1.0), 30.0).first
    assert timing.first_look(100.0 + planned, 100.0) == 100.0 + planned
    assert timing.first_look(99.0 + planned, 100.0) > 99.0 + planned


def test_first_looks_of_a_crowd_are_spread_by_a_unit_more_at_most() -> None:
    """A thousand tasks that were created at once are not looked at later for that."""
    timing = make()
    planned = plan(Durations(1.0), 30.0).first
    assert max(timing.first_look(0.0, 0.0) for _ in range(1000)) <= planned + 1.0


def test_kinds_are_learned_apart() -> None:
    """What 4k images take says nothing of what others take."""
    timing = make()
    for _ in range(400):
        timing.learn(100.0, 101.0, "4k")
    assert timing.first_look(1000.0, 1000.0, "4k") - 1000.0 == pytest.approx(102.0, abs=2.1)
    assert timing.first_look(1000.0, 1000.0, "1k") - 1000.0 < 45
    for age_s in (73.0, 76.0, 79.0):  # all are to see it at 102 s
        pause_s = timing.next_look(2000.0, age_s, "4k") - 2000.0
        assert age_s + pause_s == pytest.approx(102.0, abs=1.01)
    assert timing.left_s(0.0, "4k") == pytest.approx(100.5, abs=0.6)


def test_kinds_are_bounded() -> None:
    """Only so many are remembered; the oldest goes first."""
    timing = make()
    for kind in range(MOST_KINDS + 10):
        timing.learn(1.0, 2.0, kind)
    assert len(timing._kinds) == MOST_KINDS
    assert 0 not in timing._kinds


def test_a_known_end_teaches_more_than_two_looks() -> None:
    """Where it is known when a task ended, that counts."""
    timing = make()
    for _ in range(400):
        timing.learn(0.0, 60.0, ended_s=45.2)
    assert timing.first_look(1000.0, 1000.0) - 1000.0 == pytest.approx(46.5, abs=2.1)


@pytest.mark.parametrize("before_s", [44.8, 45.7])
def test_an_end_by_a_clock_that_differs_a_little_is_believed(before_s: float) -> None:
    """What is given in whole s may lie half a one before the look that did not show it."""
    timing = make()
    timing.learn(before_s, 70.0, ended_s=45.2)
    for _ in range(400):
        timing.learn(0.0, 60.0, ended_s=45.2)
    assert share_between(timing._kind(None).durations, 44, 46) > 0.99


def test_a_gateway_that_is_told_late_is_believed_by_its_looks() -> None:
    """A task that a look did not show although it had ended: its end says nothing of the others."""
    timing = make()
    timing.learn(50.0, 70.0, ended_s=45.0)
    for _ in range(400):
        timing.learn(50.0, 60.0, ended_s=55.0)
        timing.learn(58.0, 60.0)
    assert timing.first_look(1000.0, 1000.0) - 1000.0 == pytest.approx(61.0, abs=2.1)
    assert share_between(timing._kind(None).durations, 58, 60) > 0.95


@pytest.mark.parametrize("high", [30.0, 60.0])
@pytest.mark.parametrize("number", [100, 300])
def test_a_crowd_of_one_moment_is_spread(high: float, number: int) -> None:
    """Of 300 ids of one moment, at most 80 are due in any second."""
    for seed in range(10):
        timing = make((20.0, high), seed=seed)
        times = sorted(timing.next_look(0.0, 5.0) for _ in range(number))
        most = max(sum(at <= other < at + 1.0 for other in times) for at in times)
        assert most <= 80


def test_after_a_crowd_pauses_are_planned_again() -> None:
    """The wider spread goes back to that of a few when the crowd has gone."""
    timing = make()
    for _ in range(1000):
        timing.next_look(0.0, 5.0)
    for turn in range(400):
        timing.next_look(1000.0 + turn, 0.0)
    pauses = [timing.next_look(5000.0 + turn, 0.0) - 5000.0 - turn for turn in range(100)]
    assert max(pauses) - min(pauses) <= 2.0 + SLACK_S


class Draws(Random):
    """Random numbers that were written down.

    Args:
        draws: They.
    """

    def __init__(self, *draws: float) -> None:
        super().__init__(0)
        self.draws = list(draws)

    def random(self) -> float:
        """Return the next one."""
        return self.draws.pop(0)


def test_a_few_in_a_unit_are_no_crowd() -> None:
    """Up to forty are drawn within two units around their wish, the next from a quarter more."""
    crowd = Crowd(Draws(*[0.5] * 40, 0.5, 0.9, 0.0), 100)
    assert {crowd.place(0.0, 10.5, 60.0) for _ in range(40)} == {10.5}
    assert crowd.place(0.0, 10.5, 60.0) == pytest.approx(11.5)
    assert crowd.place(0.0, 30.5, 60.0) == pytest.approx(30.5 - 1.25)


def test_of_two_units_that_are_as_full_the_first_is_taken() -> None:
    """Only an emptier one is worth a change."""
    crowd = Crowd(Draws(*[0.5] * 80, 0.5, 0.9), 100)
    for wish in (10.5, 11.5):
        assert {crowd.place(0.0, wish, 60.0) for _ in range(40)} == {wish}
    assert crowd.place(0.0, 10.5, 60.0) == 10.5


def test_without_a_crowd_the_spread_stays_as_it_is() -> None:
    """One look after another comes up to a unit before or behind its wish."""
    crowd = Crowd(Draws(*[0.0] * 3), 100)
    assert [crowd.place(0.0, wish, 60.0) for wish in (10.5, 20.5, 30.5)] == [9.5, 19.5, 29.5]


@given(
    seed=st.integers(0, 99),
    spans=st.lists(
        st.tuples(st.floats(0, 50), st.floats(1, 60), st.floats(0, 1)), min_size=1, max_size=5
    ),
)
def test_no_crowd_is_spread_over_its_bounds(
    seed: int, spans: list[tuple[float, float, float]]
) -> None:
    """However many come, and however wide those before them had to be spread."""
    crowd = Crowd(Random(seed), PLANNED)
    for low, width, part in spans:
        high = low + width
        for _ in range(100):
            when = crowd.place(low, low + part * width, high)
            assert low - SLACK_S <= when <= high + SLACK_S


def test_each_unit_that_a_look_may_be_in_is_counted_apart() -> None:
    """From now to the last planned age and a longest pause on."""
    assert len(make()._crowd._units) > PLANNED + MOST_UNITS


# How soon a finished task is seen.


def even(rng: Random) -> float:
    """Draw a duration as they are on an even day."""
    return rng.uniform(24.0, 41.0)


def two_kinds(rng: Random) -> float:
    """Draw a duration where there are quick and slow tasks."""
    return rng.gauss(27.0, 1.5) if rng.random() < 0.5 else rng.gauss(55.0, 3.0)


def delays(timing: Timing, draw: Draw, *, number: int, learned: bool) -> list[float]:
    """Return how long tasks lie there unseen, one behind the other, looked at from the start."""
    rng = Random(5)
    found: list[float] = []
    for turn in range(number):
        born, ends = turn * 100.0, draw(rng)
        age = before = 0.0
        while age < ends:
            now = born + age
            when = timing.next_look(now, age) if learned else timing.even(now)
            before, age = age, when - born
        if learned:
            timing.learn(before, age)
        found.append(age - ends)
    return found


@pytest.mark.parametrize(("draw", "most_s"), [(even, 10.6), (two_kinds, 7.0)])
def test_images_are_seen_sooner_than_with_even_pauses(draw: Draw, most_s: float) -> None:
    """Within the same bounds the mean delay is that much smaller."""
    uniform = mean(delays(make(), draw, number=600, learned=False))
    assert uniform > 13.5
    assert mean(delays(make(), draw, number=600, learned=True)) <= most_s


# The plan, worked out a second time by what it means.


class Oracle:
    """What looks cost: the mean delay, by adding up every duration and every jitter."""

    def __init__(self, durations: Durations, high: float) -> None:
        total = sum(durations.weights)
        self.mass = [weight / total for weight in durations.weights[:PLANNED]]
        self.high = high
        self.found = plan(durations, high)
        self.ahead = [0.0] * PLANNED  # what all looks behind an age cost
        for age in reversed(range(PLANNED)):
            self.ahead[age] = self.after(age, int(self.found.pauses[age]))

    def after(self, age: int, pause: int) -> float:
        """Return what a pause costs behind a look at an age, and all that follows."""
        return sum(
            share * (self.delays(age, age + pause + off) + self.rest(age + pause + off))
            for off, share in ((-1, 0.25), (0, 0.5), (1, 0.25))
        )

    def delays(self, age: int, look: int) -> float:
        """Return how long those wait that end between two looks."""
        ends = range(age, min(look, PLANNED))
        return sum(self.mass[end] * (look - end - 0.5) for end in ends)

    def rest(self, look: int) -> float:
        """Return what those cost that have not ended at a look."""
        if look >= PLANNED:
            return (1 - sum(self.mass)) * (UNITS_PER_LOW + self.high) / 4
        return self.ahead[look] + 0.05 * (1 - sum(self.mass[:look]))


SPANS = st.lists(
    st.tuples(st.integers(0, 170), st.integers(1, 40)), min_size=1, max_size=4, unique=True
)


@given(spans=SPANS, high=st.sampled_from([22.0, 30.0, 33.3, 60.0]))
def test_no_other_pause_is_better_than_the_planned_one(
    spans: list[tuple[int, int]], high: float
) -> None:
    """At each age, and for the first look, the plan is the cheapest of all that may be."""
    durations = taught(*((float(low), float(low + width)) for low, width in spans), times=20)
    oracle = Oracle(durations, high)
    for age in range(0, PLANNED, 7):
        others = [oracle.after(age, pause) for pause in range(UNITS_PER_LOW + 1, int(high))]
        assert oracle.ahead[age] == pytest.approx(min(others), abs=1e-9)
    first = [oracle.after(0, look) for look in range(1, PLANNED)]
    assert first[int(oracle.found.first) - 1] == pytest.approx(min(first), abs=1e-9)


def test_of_pauses_that_cost_the_same_the_shortest_is_planned() -> None:
    """Where all has ended for certain, nothing is gained by waiting."""
    durations = Durations(1.0)
    durations.weights = [1.0] + [0.0] * (len(durations.weights) - 1)
    found = plan(durations, 30.0)
    assert set(found.pauses[1:]) == {21.0}
    assert found.first == 2.0  # a unit later, as it may come a unit sooner


@given(
    spans=st.lists(st.tuples(st.floats(0.0, 400.0), st.floats(0.01, 300.0)), min_size=1, max_size=8)
)
def test_what_an_outcome_teaches_is_put_where_it_may_have_ended(
    spans: list[tuple[float, float]],
) -> None:
    """Each adds its whole weight, in proportion to what was known, and nothing elsewhere."""
    durations = Durations(1.0)
    gain = 1.0
    for after, width in spans:
        until = after + width
        before = list(durations.weights)
        assert durations.learn(after, until)
        edges = durations.edges
        parts = [
            weight * max(0.0, min(high, until) - max(low, after)) / (high - low)
            for weight, (low, high) in zip(before, pairwise(edges), strict=True)
        ]
        wanted = [
            weight + gain * part / sum(parts) for weight, part in zip(before, parts, strict=True)
        ]
        assert durations.weights == pytest.approx(wanted)
        gain *= 50 / 49


def test_the_bins_of_durations() -> None:
    """One for each unit up to the plan's end, then each longer by a bit more than a seventh."""
    edges = Durations(1.0).edges
    assert edges[: PLANNED + 1] == [float(edge) for edge in range(PLANNED + 1)]
    assert all(high == pytest.approx(low * 1.15) for low, high in pairwise(edges[PLANNED:]))
    assert edges[-2] < 20_000 <= edges[-1]
    assert len(Durations(1.0).weights) == len(edges) - 1


def test_the_median_counts_parts_of_bins() -> None:
    """Of what may end in one bin alone, half is left in its middle."""
    durations = Durations(1.0)
    durations.weights = [0.0] * len(durations.weights)
    durations.weights[30], durations.weights[40] = 2.0, 3.0
    assert durations.median_left(0.0) == pytest.approx(40.5)
    assert durations.median_left(30.5) == pytest.approx(10.0)
    assert durations.median_left(40.75) == 0.0
    assert durations.median_left(41.0) is None
