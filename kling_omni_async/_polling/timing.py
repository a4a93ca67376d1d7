"""When to ask next, within the pauses that are allowed: learned from how long tasks have taken.

Checking times after Barlow, Hunter and Proschan, "Optimum checking procedures" (J. SIAM 11, 1963),
by backward recursion over a histogram of durations; that is learned from what is known between two
looks by one self-consistency step for each outcome (Turnbull 1976). Ages are in units of a
twentieth of the shortest pause, so that compressed time behaves alike.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate, pairwise
from typing import Final, NamedTuple

UNITS_PER_LOW: Final = 20
PLANNED: Final = 180
"""Up to this age, in units, looks are planned; beyond it the bins grow and pauses are even."""

LEAST_HIGH: Final = 1.1
MOST_HIGH: Final = 3.0
"""The longest pause, as a factor on the shortest, for which there is a plan."""

MOST_KINDS: Final = 32
MOST_UNITS: Final = int(MOST_HIGH * UNITS_PER_LOW)

LEARNED_BEFORE_PLAN: Final = 20
PLAN_PAUSE_S: Final = 5.0

_GROWTH: Final = 1.15  # of the bins beyond `PLANNED`
_LONGEST: Final = 20_000.0
_PRIOR_OUTCOMES: Final = 12.0
_AT_LEAST: Final = 1e-4  # in each bin: nothing is impossible
_MEMORY: Final = 50  # outcomes: what is older weighs less than a third
_GAIN: Final = 1 / (1 - 1 / _MEMORY)
_TOO_HEAVY: Final = 1e100
_EXACT: Final = 0.5  # how well the end of a task is known at best, in units
_QUERY_COST: Final = 0.05  # of one more look, in units of delay: of two equal plans the calmer one
_USUAL: Final = (24.0, 41.0)  # how long tasks take, in s
_SLOW: Final = 70.0
_REAL_TIME_S: Final = 15.0  # from this shortest pause on the prior is in s

_JITTER: Final = UNITS_PER_LOW / 10
_CROWD_PER_UNIT: Final = 40
_WIDER: Final = 1.25
_NARROWER: Final = 0.99


class Durations:
    """How long tasks have taken: a histogram in which new outcomes weigh more than old ones."""

    def __init__(self, prior_unit: float) -> None:
        self.edges: list[float] = list(_edges())
        bounds = [_prior_share(edge * prior_unit) for edge in self.edges]
        self.weights: list[float] = [
            _PRIOR_OUTCOMES * (above - below) + _AT_LEAST for below, above in pairwise(bounds)
        ]
        self._gain = 1.0

    def learn(self, after: float, until: float) -> bool:
        """Note a task that ended between two ages; return whether that says anything."""
        if not 0.0 <= after < until < self.edges[-1]:
            return False
        first, last = self._bin(after), self._bin(until)
        known = self.weights[first : last + 1]
        known[0] = self._weight_within(first, after, until)
        known[-1] = self._weight_within(last, after, until)
        # Self-consistency: it ended where tasks do end, as far as that is known.
        share = self._gain / sum(known)
        whole = 1 + share
        self.weights[first + 1 : last] = [weight * whole for weight in known[1:-1]]
        self.weights[first] += known[0] * share
        if last > first:
            self.weights[last] += known[-1] * share
        self._gain *= _GAIN  # instead of making all old ones lighter
        if self._gain > _TOO_HEAVY:
            self.weights = [weight / self._gain for weight in self.weights]
            self._gain = 1.0
        return True

    def median_left(self, age: float) -> float | None:
        """Return how many units a task of an age needs still, by the median, if that is known."""
        left = [self._weight_within(i, age, _LONGEST) for i in range(len(self.weights))]
        half = sum(left) / 2
        if not half:
            return None
        i = bisect_right(list(accumulate(left)), half)
        middle = (self.edges[i] + self.edges[i + 1]) / 2
        return max(0.0, middle - age)

    def _bin(self, age: float) -> int:
        return bisect_right(self.edges, age) - 1

    def _weight_within(self, i: int, after: float, until: float) -> float:
        low, high = self.edges[i], self.edges[i + 1]
        return self.weights[i] * max(0.0, min(high, until) - max(low, after)) / (high - low)


class Plan(NamedTuple):
    """When to look, in units."""

    first: float  # of a task whose creation is known
    pauses: list[float]  # by the age at the look before, up to `PLANNED`


def plan(durations: Durations, high: float) -> Plan:
    """Return the looks with the least mean delay, for pauses from `UNITS_PER_LOW` to `high`.

    A look at `b` after one at `a` costs what those wait that end between them; where a task goes
    on, so do the looks. With F for the share that has ended and M for its first moment that is
    ``b F(b) - M(b) + W(b) - b F(a) + M(a)``. From look to look each M is taken off again, and
    behind the last planned age all have the same ahead: neither says which looks are best.
    """
    total = sum(durations.weights)
    ended = [0.0]
    for age in range(PLANNED):
        ended.append(ended[-1] + durations.weights[age] / total)
    nearest, farthest = UNITS_PER_LOW + 1, int(high) - 1
    costs = [0.0] * PLANNED
    costs += [over * ended[-1] for over in range(int(high) + 1)]
    pauses = [0.0] * PLANNED
    for a in reversed(range(PLANNED)):
        looks = range(a + nearest, a + farthest + 1)
        best, b = min((_jittered(costs, b) - b * ended[a], b) for b in looks)
        pauses[a] = float(b - a)
        costs[a] = a * ended[a] + best + _QUERY_COST * (1 - ended[a])
    _, first = min((_jittered(costs, b), b) for b in range(1, PLANNED))
    return Plan(float(first), pauses)


def _jittered(costs: list[float], b: int) -> float:
    """Return the mean cost of a look that comes up to a unit before or after `b`."""
    return (costs[b - 1] + 2 * costs[b] + costs[b + 1]) / 4


class Crowd:
    """How many ids are due in each unit of time, in a ring: a crowd of one moment is spread."""

    def __init__(self, rng: random.Random, size: int) -> None:
        self._random = rng
        self._width = _JITTER  # as wide as the last crowd needed
        self._counts = [0] * size
        self._units = [-1] * size  # which unit of time a slot is about

    def place(self, low: float, wish: float, high: float) -> float:
        """Return a time near a wish within bounds, and count it; all are in units."""
        width = min(self._width, high - low)
        when = self._draw(low, wish, high, width)
        slot = self._slot(when)
        if self._counts[slot] >= _CROWD_PER_UNIT:
            self._width = min(width * _WIDER, high - low)
            other = self._draw(low, wish, high, self._width)
            # The emptier one of two draws is nearly as good as looking at all.
            if self._counts[self._slot(other)] < self._counts[slot]:
                when, slot = other, self._slot(other)
        elif self._width > _JITTER:
            self._width *= _NARROWER
        self._counts[slot] += 1
        return when

    def _draw(self, low: float, wish: float, high: float, width: float) -> float:
        below = min(max(wish - width / 2, low), high - width)
        return below + width * self._random.random()

    def _slot(self, when: float) -> int:
        unit = int(when)
        slot = unit % len(self._units)
        if self._units[slot] != unit:
            self._units[slot] = unit
            self._counts[slot] = 0
        return slot


class Timing:
    """The pauses of one session: drawn evenly, or where a task is likely to have ended.

    Ages and times are in s of the loop. A kind is what tells tasks of different durations apart.
    """

    def __init__(self, interval: tuple[float, float], rng: random.Random, *, learned: bool) -> None:
        self._low_s, high_s = interval
        self._width_s = high_s - self._low_s
        self._random = rng
        # Else there is nothing to choose, or so much that the table of ages would be too coarse.
        choice = high_s / self._low_s if self._low_s else 0.0
        self.learns = learned and LEAST_HIGH <= choice <= MOST_HIGH
        self._unit_s = self._low_s / UNITS_PER_LOW if self.learns else 1.0
        self._high = high_s / self._unit_s
        self._crowd = Crowd(rng, PLANNED + 2 * MOST_UNITS if self.learns else 1)
        self._kinds: dict[object, _Kind] = {}
        self._first: float | None = None  # when a pause was first planned, in s of the loop

    def even(self, now: float) -> float:
        """Return when to look again, drawn evenly from the interval."""
        return now + self._low_s + self._width_s * self._random.random()

    def next_look(self, now: float, age_s: float, kind: object = None) -> float:
        """Return when to look again at a task of an age that has not ended, within the interval."""
        age = age_s / self._unit_s
        if not (self.learns and 0 <= age < PLANNED):
            return self.even(now)
        pauses = self._kind(kind).plan_at(now, self._high).pauses
        at = self._units_since_first(now)
        wish = at + pauses[int(age)]
        when = self._crowd.place(at + UNITS_PER_LOW, wish, at + self._high)
        pause_s = (when - at) * self._unit_s
        return now + min(max(pause_s, self._low_s), self._low_s + self._width_s)

    def first_look(self, now: float, born: float, kind: object = None) -> float:
        """Return when to look first at a task that was created at `born`."""
        if not self.learns:
            return now
        at = self._units_since_first(now)
        wish = at + (born - now) / self._unit_s + self._kind(kind).plan_at(now, self._high).first
        if wish <= at:
            return now
        return now + (self._crowd.place(at, wish, wish + 1) - at) * self._unit_s

    def learn(
        self,
        after_s: float,
        until_s: float,
        kind: object = None,
        *,
        ended_s: float | None = None,
    ) -> None:
        """Note a task that ended between two ages, and at which one, if that is known."""
        if self.learns:
            unit_s = self._unit_s
            ended = None if ended_s is None else ended_s / unit_s
            self._kind(kind).learn(after_s / unit_s, until_s / unit_s, ended)

    def left_s(self, age_s: float, kind: object = None) -> float | None:
        """Return how long a task of an age needs still, by the median, if that is known."""
        if not self.learns or age_s < 0:
            return None
        left = self._kind(kind).durations.median_left(age_s / self._unit_s)
        return None if left is None else left * self._unit_s

    def _units_since_first(self, now: float) -> float:
        # Not since the loop's own zero: two runs from one seed are alike.
        if self._first is None:
            self._first = now
        return (now - self._first) / self._unit_s

    def _kind(self, name: object) -> _Kind:
        kind = self._kinds.get(name)
        if kind is None:
            if len(self._kinds) >= MOST_KINDS:
                self._kinds.pop(next(iter(self._kinds)))
            in_real_time = self._low_s >= _REAL_TIME_S
            kind = self._kinds[name] = _Kind(self._unit_s if in_real_time else 1.0)
        return kind


class _Kind:
    """Tasks of like durations, and the plan for them."""

    def __init__(self, prior_unit: float) -> None:
        self.durations = Durations(prior_unit)
        self._plan: Plan | None = None
        self._planned_at = 0.0
        self._learned = 0
        self._is_told_late = False

    def learn(self, after: float, until: float, ended: float | None) -> None:
        """Note a task that ended between two ages, and at which one, if that is known."""
        if ended is not None and ended < after - _EXACT:
            # It had ended at the look before, which did not show it: a gateway that refreshes now
            # and then. When it ended says little of when that can be seen.
            self._is_told_late = True
        if ended is not None and not self._is_told_late:
            after, until = max(after, ended - _EXACT), min(until, ended + _EXACT)
        self._learned += self.durations.learn(after, until)

    def plan_at(self, now: float, high: float) -> Plan:
        """Return the plan, made anew where enough was learned since."""
        stale = self._learned >= LEARNED_BEFORE_PLAN and now >= self._planned_at + PLAN_PAUSE_S
        if self._plan is None or stale:
            self._plan = plan(self.durations, high)
            self._planned_at, self._learned = now, 0
        return self._plan


def _edges() -> Iterator[float]:
    yield from map(float, range(PLANNED + 1))
    edge = float(PLANNED)
    while edge < _LONGEST:
        edge *= _GROWTH
        yield edge


def _prior_density(age: float) -> float:
    """Return how likely a task is to end at an age, before anything was seen.

    An image takes 24 to 41 s, a refused one 2 s (seen). It falls off smoothly to 70 s: with a cliff
    at 41 s, those of 43 s would wait for nearly a whole pause.
    """
    if age < _USUAL[0]:
        return 0.004 + 0.996 * max(0.0, (age - 10) / 14) ** 3
    if age < _SLOW:
        fall = max(0.0, age - _USUAL[1]) / (_SLOW - _USUAL[1])
        return 0.02 + 0.98 * math.cos(fall * math.pi / 2) ** 12
    return 0.02 * math.exp((_SLOW - age) / 60)


_PRIOR: Final = list(accumulate((_prior_density(age + 0.5) for age in range(600)), initial=0.0))


def _prior_share(age: float) -> float:
    """Return the share of tasks that have ended at an age, before anything was seen."""
    whole = int(age)
    if whole >= len(_PRIOR) - 1:
        return 1.0
    return (_PRIOR[whole] + (age - whole) * (_PRIOR[whole + 1] - _PRIOR[whole])) / _PRIOR[-1]
