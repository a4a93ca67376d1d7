"""What holds queries back: an even pace, and a gate that a 429 closes."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from kling_omni_async._policy import MAX_RETRY_AFTER_S
from kling_omni_async.errors import RateLimitError

NEVER: Final = math.inf

CATCH_UP_S: Final = 0.01
"""How much lateness of the loop's timers the pace makes up for, in s."""

STALE_S: Final = 0.2
"""How long a start that was lent may be used late, in s."""

BACKOFF_S: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 20.0)
MAX_JITTER: Final = 1.5
"""The greatest factor on a backoff, so that none is over 30 s."""


class RateLimit:
    """Even spacing of starts: the generic cell rate algorithm (ATM Forum TM 4.0), no burst."""

    def __init__(self, rate: float | None) -> None:
        # 0 where nothing limits the starts.
        self.gap_s: float = 0.0 if rate is None else 1.0 / rate
        self.next_start = -NEVER

    def spend(self, now: float, due: float) -> None:
        """Count a start that had been due since a time in s."""
        # A query that waited for its turn and started late because timers are coarse does not
        # move the turns behind it; otherwise a high rate would never be reached.
        waited = due <= self.next_start and now - self.next_start <= CATCH_UP_S
        self.next_start = (self.next_start if waited else now) + self.gap_s

    def reserve(self, now: float) -> float:
        """Take the next start, for whatever it is; return its time in s."""
        start = max(now, self.next_start)
        self.next_start = start + self.gap_s
        return start

    def skip(self, now: float) -> None:
        """Let turns go by that nothing could have used, so that nothing makes up for them."""
        self.next_start = max(self.next_start, now)


class LentPace:
    """Starts that a book lends: its pace is for all who ask the API with one key.

    The session's own queries ask for starts when they need some; what cannot wait, such as a
    create, takes one in advance, and the book is told afterwards.
    """

    def __init__(self, gap_s: float, ask: Callable[[], object]) -> None:
        self.gap_s: float = gap_s
        self.debt = 0  # starts that were taken in advance
        self.limits: list[float] = []  # 429s of this session that the book has to know, in s
        self.is_wanted = False
        self._ask = ask
        self._starts: deque[float] = deque()
        self._last = -NEVER

    @property
    def next_start(self) -> float:
        """The time in s of the next start that is there, or infinity."""
        return self._starts[0] if self._starts else NEVER

    @property
    def opens(self) -> float:
        """When to look whether something can start, in s: at once, unless starts were asked for."""
        if self._starts:
            return self._starts[0]
        return NEVER if self.is_wanted else -NEVER

    def want(self) -> None:
        """Ask the book for starts, as something is due."""
        if not self.is_wanted:
            self.is_wanted = True
            self._ask()

    def grant(self, starts: Iterable[float], now: float) -> None:
        """Take starts that the book lends, in s; the first ones pay the debt."""
        given = list(starts)
        paid, self.debt = min(self.debt, len(given)), max(0, self.debt - len(given))
        while self._starts and self._starts[0] < now - STALE_S:
            self._starts.popleft()  # what wanted it has gone
        self._starts.extend(given[paid:])
        self.is_wanted = False

    def spend(self, now: float, due: float) -> None:  # noqa: ARG002 - as of a rate limit
        """Count a start."""
        self._starts.popleft()

    def reserve(self, now: float) -> float:
        """Take a start for what is no query; return its time in s."""
        if self._starts:
            return max(now, self._starts.popleft())
        self.debt += 1
        self._last = max(now, self._last + self.gap_s)
        self._ask()
        return self._last

    def skip(self, now: float) -> None:
        """Do nothing: what is not used is dropped with the next starts."""


class Throttle:
    """The gate of a session: a 429 closes it for a while, then one query, the probe, goes first.

    Backoff with bounded jitter, or what the API's ``Retry-After`` asks for. Times are in s.
    """

    def __init__(self, rng: random.Random) -> None:
        self.closed = False  # until a good answer has come
        self.next_start = -NEVER
        self.until = -NEVER  # the end of the last pause
        self.error: RateLimitError | None = None  # of the last 429
        self._probe: object = None
        self._step = 0
        self._random = rng

    def hold(self, until: float) -> None:
        """Start nothing before a time in s, as the gate of a book is closed."""
        self.next_start = max(self.next_start, until)

    def started(self, flight: object) -> None:
        """Note the scheduled query that goes first behind a closed gate, and hold the others."""
        self._probe = flight
        self.next_start = NEVER

    def answered(self, flight: object, *, started: float, readable: bool) -> None:
        """Note an answer that is no 429; the API's own, a readable one, opens the gate."""
        if started < self.until:
            return
        # A strict gate: one goes at a time until the API itself has answered. If the network is
        # down meanwhile little is lost, as an id's time runs from its first query.
        if flight is self._probe:
            self._probe = None
            self.next_start = self.until
        if readable:
            self.closed = False
            self.next_start = -NEVER
            self._step = 0

    def limited(self, error: RateLimitError, *, started: float, now: float) -> float:
        """Note a 429; return the length of the pause that it began, in s, or 0."""
        # Answers to queries that started before the last pause was over belong to the same
        # burst: they neither lengthen the pause nor raise the backoff.
        if started < self.until:
            return 0.0
        pause_s = self._pause_s(error.retry_after)
        self.closed = True
        self._probe = None  # one from before a new pause is none any more: another goes first
        self.error = error
        self.until = self.next_start = now + pause_s
        return pause_s

    def _pause_s(self, retry_after: float | None) -> float:
        if retry_after is not None:
            return min(retry_after, MAX_RETRY_AFTER_S)
        base = BACKOFF_S[min(self._step, len(BACKOFF_S) - 1)]
        self._step += 1
        return base * self._random.uniform(1.0, MAX_JITTER)
