"""What holds queries back: the pace of starts, and the gate that a 429 closes."""

from __future__ import annotations

import math
from random import Random
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_omni_async import RateLimitError
from kling_omni_async._policy import MAX_RETRY_AFTER_S
from kling_omni_async._polling.limits import (
    CATCH_UP_S,
    STALE_S,
    LentPace,
    RateLimit,
    Throttle,
)

SPANS = st.lists(st.floats(0.0, 3.0), min_size=2, max_size=60)
PROBE: Final = "the flight of the probe"
BY_HAND: Final = "the flight of a query by hand"


def too_many(retry_after: float | None = None) -> RateLimitError:
    """Make a 429."""
    return RateLimitError("too many requests", http_status=429, retry_after=retry_after)


def closed_gate(*, retry_after: float | None = 10.0, seed: int = 1) -> Throttle:
    """Make a gate that a 429 closed at 100 s."""
    throttle = Throttle(Random(seed))
    throttle.limited(too_many(retry_after), started=100.0, now=100.0)
    return throttle


# The pace.


def test_a_new_pace_lets_the_first_query_go_at_once() -> None:
    """Nothing holds the first start back, whatever the clock shows."""
    assert RateLimit(100.0).next_start == -math.inf


def test_a_start_moves_the_next_one_by_one_gap() -> None:
    """At four a second the next start is a quarter of a second later."""
    pace = RateLimit(4.0)
    assert pace.gap_s == 0.25
    pace.spend(10.0, 10.0)
    assert pace.next_start == 10.25


def test_a_start_in_advance_takes_its_place_in_the_row() -> None:
    """At once after a quiet time, else behind those before; the next one is a gap later."""
    pace = RateLimit(4.0)
    assert [pace.reserve(now) for now in (10.0, 10.0, 10.1, 20.0)] == [10.0, 10.25, 10.5, 20.0]
    assert pace.next_start == 20.25


def test_no_rate_is_no_pace() -> None:
    """Without a rate any number of queries may start at one time."""
    pace = RateLimit(None)
    assert pace.gap_s == 0.0
    pace.spend(10.0, 10.0)
    assert pace.next_start == 10.0


def test_an_idle_pace_saves_nothing_up() -> None:
    """After a quiet minute there is no burst: the gap counts from the start that was made."""
    pace = RateLimit(4.0)
    pace.spend(10.0, 10.0)
    pace.spend(70.0, 70.0)
    assert pace.next_start == 70.25


@pytest.mark.parametrize(("late", "following"), [(0.009, 10.5), (0.02, 10.52)])
def test_makes_up_for_coarse_timers_only(late: float, following: float) -> None:
    """A turn that a timer missed by some ms does not move the next turn; a longer wait does."""
    pace = RateLimit(4.0)
    pace.spend(10.0, 10.0)
    pace.spend(10.25 + late, 10.1)
    assert pace.next_start == pytest.approx(following)


@pytest.mark.parametrize("now", [0.005, 0.01])
def test_a_query_that_became_due_at_its_turn_has_waited(now: float) -> None:
    """Due at its very turn and started up to 10 ms late, it leaves the turns where they were."""
    pace = RateLimit(100.0)
    pace.spend(-0.01, -0.01)
    assert pace.next_start == 0.0
    pace.spend(now, 0.0)
    assert pace.next_start == 0.01


def test_a_query_that_became_due_late_starts_a_new_rhythm() -> None:
    """Only what was due before its turn has missed it."""
    pace = RateLimit(4.0)
    pace.spend(10.0, 10.0)
    pace.spend(10.255, 10.255)
    assert pace.next_start == 10.505


def test_a_turn_that_was_blocked_is_lost() -> None:
    """After something else held all queries back, the next gap is a full one."""
    pace = RateLimit(4.0)
    pace.spend(10.0, 10.0)
    pace.skip(10.255)
    pace.spend(10.255, 10.1)
    assert pace.next_start == 10.505


def test_skipping_never_brings_a_turn_forward() -> None:
    """A turn that is still to come is not moved by what was blocked before it."""
    pace = RateLimit(4.0)
    pace.spend(10.0, 10.0)
    pace.skip(10.1)
    assert pace.next_start == 10.25


@given(spans=SPANS, rate=st.floats(0.5, 200.0))
def test_starts_never_outrun_the_rate(spans: list[float], rate: float) -> None:
    """Any n starts that keep to their turns take (n - 1) gaps, but for one timer's lateness."""
    pace = RateLimit(rate)
    now = 0.0
    starts: list[float] = []
    for span in spans:
        now = max(now + span, pace.next_start)
        pace.spend(now, now - span)
        starts.append(now)
    for first, start in enumerate(starts):
        for count, later in enumerate(starts[first:]):
            assert later - start >= count * pace.gap_s - CATCH_UP_S - 1e-9


# The gate.


def test_an_open_gate_holds_nothing_back() -> None:
    """Before any 429 scheduled queries may start at any time."""
    throttle = Throttle(Random(1))
    assert (throttle.closed, throttle.next_start, throttle.error) == (False, -math.inf, None)


@pytest.mark.parametrize(("asked", "pause"), [(3.5, 3.5), (120.0, 120.0), (86_400.0, 120.0)])
def test_pauses_as_long_as_the_api_asks(asked: float, pause: float) -> None:
    """``Retry-After`` is kept to, but never beyond two minutes."""
    throttle = Throttle(Random(1))
    assert throttle.limited(too_many(asked), started=49.0, now=50.0) == pause
    assert throttle.next_start == throttle.until == 50.0 + pause
    assert pause <= MAX_RETRY_AFTER_S


@given(seed=st.integers(0, 2**32))
def test_backs_off_with_jitter_up_to_30_s(seed: int) -> None:
    """Without ``Retry-After`` the pauses are 1, 2, 4, 8, 16, 20, 20 s, up to half as long again."""
    throttle = Throttle(Random(seed))
    now = 0.0
    for base in (1.0, 2.0, 4.0, 8.0, 16.0, 20.0, 20.0):
        pause = throttle.limited(too_many(), started=now, now=now)
        assert base <= pause <= 1.5 * base <= 30.0
        now += pause


def test_a_pause_the_api_asks_for_is_no_step_of_the_backoff() -> None:
    """After three pauses by ``Retry-After`` the first one of our own is still the shortest."""
    throttle = Throttle(Random(1))
    for now in (0.0, 10.0, 20.0):
        throttle.limited(too_many(5.0), started=now, now=now)
    assert throttle.limited(too_many(), started=30.0, now=30.0) <= 1.5


@pytest.mark.parametrize("started", [90.0, 100.0, 105.0, 109.999])
def test_a_burst_of_429s_is_one_step(started: float) -> None:
    """A 429 to a query from before the end of the pause neither lengthens nor raises it."""
    throttle = closed_gate()
    assert throttle.limited(too_many(60.0), started=started, now=112.0) == 0.0
    assert throttle.until == 110.0


def test_remembers_what_the_api_said() -> None:
    """The 429 that began the last pause is kept: who runs into a time-out may be told why."""
    throttle = Throttle(Random(1))
    first, same_burst, second = too_many(3.0), too_many(3.0), too_many(3.0)
    throttle.limited(first, started=0.0, now=1.0)
    throttle.limited(same_burst, started=0.5, now=1.5)
    assert throttle.error is first
    throttle.limited(second, started=4.0, now=5.0)
    assert throttle.error is second


def test_a_late_success_does_not_open_the_gate() -> None:
    """A good answer to a query from before the end of the pause says nothing about now."""
    throttle = closed_gate()
    throttle.answered(BY_HAND, started=109.0, readable=True)
    assert throttle.next_start == 110.0


def test_one_query_tries_the_gate_alone() -> None:
    """While the first query after a pause is under way, no other scheduled one may start."""
    throttle = closed_gate()
    assert (throttle.closed, throttle.next_start) == (True, 110.0)
    throttle.started(PROBE)
    assert throttle.next_start == math.inf


def test_success_of_the_first_query_opens_the_gate() -> None:
    """A readable answer to the probe lets all go, and the backoff begins anew."""
    throttle = closed_gate(retry_after=None)
    throttle.started(PROBE)
    throttle.answered(PROBE, started=throttle.until, readable=True)
    assert (throttle.closed, throttle.next_start) == (False, -math.inf)
    assert throttle.limited(too_many(), started=200.0, now=200.0) <= 1.5


def test_an_unreadable_probe_lets_another_one_go() -> None:
    """A 502 on the probe leaves the gate shut and sends one more query alone."""
    throttle = closed_gate()
    throttle.started(PROBE)
    throttle.answered(PROBE, started=110.0, readable=False)
    assert (throttle.closed, throttle.next_start) == (True, 110.0)
    throttle.started("another flight")
    assert throttle.next_start == math.inf


def test_an_unreadable_answer_to_a_query_by_hand_changes_nothing() -> None:
    """A 502 to a query that is not the probe neither opens the gate nor sends another probe."""
    throttle = closed_gate()
    throttle.started(PROBE)
    throttle.answered(BY_HAND, started=111.0, readable=False)
    assert throttle.next_start == math.inf


def test_a_429_on_the_probe_is_the_next_step() -> None:
    """A probe that meets a 429 begins a longer pause, and the next probe waits for its end."""
    throttle = closed_gate(retry_after=None)
    throttle.started(PROBE)
    now = throttle.until
    pause = throttle.limited(too_many(), started=now, now=now)
    assert 2.0 <= pause <= 3.0
    assert throttle.next_start == now + pause


def test_a_query_by_hand_after_the_pause_opens_the_gate_too() -> None:
    """Any readable answer to a query from after the pause shows that the API serves us again."""
    throttle = closed_gate()
    throttle.started(PROBE)
    throttle.answered(BY_HAND, started=111.0, readable=True)
    assert throttle.next_start == -math.inf


def test_a_probe_of_an_earlier_pause_is_none_any_more() -> None:
    """A probe that outlived its pause neither lets a second one go nor keeps the next waiting."""
    throttle = closed_gate()
    throttle.started(PROBE)
    throttle.answered(BY_HAND, started=111.0, readable=True)
    throttle.limited(too_many(3.0), started=111.5, now=112.0)
    assert throttle.next_start == 115.0
    throttle.started("another flight")
    throttle.answered(PROBE, started=110.0, readable=False)
    assert throttle.next_start == math.inf


def test_a_new_pause_does_not_wait_for_the_old_probe() -> None:
    """A 429 to a query by hand begins a pause of its own, with a probe of its own."""
    throttle = closed_gate()
    throttle.started(PROBE)
    throttle.limited(too_many(3.0), started=111.0, now=112.0)
    assert throttle.next_start == 115.0
    throttle.answered(PROBE, started=110.0, readable=True)
    assert throttle.next_start == 115.0


# A pace that is lent.


def test_a_lent_pace_starts_by_what_was_granted() -> None:
    """There is no start until the book has lent one; then each is used once."""
    asked: list[None] = []
    pace = LentPace(0.1, lambda: asked.append(None))
    assert pace.opens == -math.inf
    assert pace.next_start == math.inf
    pace.want()
    pace.want()
    assert len(asked) == 1
    assert pace.opens == math.inf
    pace.grant([5.0, 5.1], 5.0)
    assert (pace.opens, pace.next_start) == (5.0, 5.0)
    pace.spend(5.0, 5.0)
    pace.skip(99.0)
    assert pace.next_start == 5.1
    assert not pace.is_wanted


def test_what_was_lent_and_not_used_is_dropped() -> None:
    """Starts of long ago are none: what wanted them has gone."""
    pace = LentPace(0.1, list)
    pace.grant([1.0, 2.0, 2.9], 1.0)
    pace.grant([3.0], 3.0)
    assert pace.next_start == 2.9


def test_a_start_that_was_lent_may_be_used_a_bit_late() -> None:
    """Up to a fifth of a second; a new pace has nothing of which the book is to be told."""
    pace = LentPace(0.1, list)
    pace.grant([1.0], 1.0)
    pace.grant([9.0], 1.0 + STALE_S)
    assert pace.next_start == 1.0
    assert pace.limits == []


def test_what_cannot_wait_takes_a_start_in_advance() -> None:
    """A create takes what is there, else starts in advance, which the next ones pay for."""
    pace = LentPace(0.5, list)
    pace.grant([4.0], 3.0)
    assert pace.reserve(3.0) == 4.0
    assert [pace.reserve(3.0), pace.reserve(3.0)] == [3.0, 3.5]
    assert pace.debt == 2
    pace.grant([6.0, 6.5, 7.0], 6.0)
    assert pace.debt == 0
    assert pace.next_start == 7.0
    pace = LentPace(0.5, list)
    pace.reserve(0.0)
    pace.grant([], 0.0)
    assert pace.debt == 1


def test_the_gate_of_a_book_holds_scheduled_queries() -> None:
    """`hold` moves the next start, and never to an earlier time."""
    throttle = Throttle(Random(1))
    throttle.hold(5.0)
    throttle.hold(3.0)
    assert throttle.next_start == 5.0
    assert not throttle.closed
