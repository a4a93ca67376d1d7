"""What holds queries back: an even pace, and a gate that a 429 closes."""

from __future__ import annotations

import random
from typing import Final

from .timers import NEVER

CATCH_UP_S: Final = 0.01
"""How much lateness of the loop's timers the pace makes up for, in s."""

MAX_RETRY_AFTER_S: Final = 120.0
_BACKOFF_S: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 20.0)
_JITTER: Final = 1.5
"""The greatest factor on a backoff, so that none is over 30 s."""


class Pace:
    """Even spacing of starts: the generic cell rate algorithm without a burst (ATM Forum TM 4.0).

    Attributes:
        next_start: From when on the next query may start, in s.
    """

    __slots__ = ("_gap_s", "next_start")

    def __init__(self, rate: float | None) -> None:
        self._gap_s = 0.0 if rate is None else 1.0 / rate
        self.next_start = -NEVER

    def spend(self, now: float, due: float) -> None:
        """Count a start that had been due since a time in s.

        A query that waited for its turn and started late because timers are coarse does not
        move the turns behind it; otherwise a high rate would never be reached.
        """
        waited = due <= self.next_start and now - self.next_start <= CATCH_UP_S
        self.next_start = (self.next_start if waited else now) + self._gap_s

    def skip(self, now: float) -> None:
        """Let turns go by that nothing could have used, so that nothing makes up for them."""
        self.next_start = max(self.next_start, now)


class Throttle:
    """The gate of a session: a 429 closes it for a while, then one query goes first.

    Backoff with bounded jitter, after the API's ``Retry-After`` if there is one.

    Attributes:
        until: The end of the last pause, in s.
    """

    __slots__ = ("_closed", "_probing", "_random", "_step", "until")

    def __init__(self, rng: random.Random) -> None:
        self.until = -NEVER
        self._closed = False
        self._probing = False
        self._step = 0
        self._random = rng

    def next_start(self) -> float:
        """Give the time in s from when on a scheduled query may start."""
        if not self._closed:
            return -NEVER
        return NEVER if self._probing else self.until

    def started(self) -> bool:
        """Note a scheduled query; tells whether it is the one that goes first."""
        self._probing = self._closed
        return self._probing

    def answered(self, *, started: float, probe: bool, readable: bool) -> None:
        """Note an answer that is no 429.

        Args:
            started: When its query started, in s.
            probe: What `started` told of it.
            readable: Whether it was the API's own, which opens the gate.
        """
        if started < self.until:
            return
        if probe:
            self._probing = False
        if readable:
            self._closed = False
            self._step = 0

    def limited(self, *, now: float, started: float, retry_after: float | None) -> float:
        """Note a 429; gives the length of the pause it began, in s, or 0.

        Answers to queries that started before the last pause was over belong to the same
        burst: they neither lengthen the pause nor raise the backoff. A probe from before a
        new pause is none any more: another one goes first after it.
        """
        if started < self.until:
            return 0.0
        pause_s = self._pause_s(retry_after)
        self._closed, self._probing = True, False
        self.until = now + pause_s
        return pause_s

    def _pause_s(self, retry_after: float | None) -> float:
        if retry_after is not None:
            return min(retry_after, MAX_RETRY_AFTER_S)
        base = _BACKOFF_S[min(self._step, len(_BACKOFF_S) - 1)]
        self._step += 1
        return base * self._random.uniform(1.0, _JITTER)
