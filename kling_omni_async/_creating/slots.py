"""How many tasks are created at a time: no clock, no await.

An account has some places for tasks that run, and nothing tells how many. What is refused costs a
request, what stands empty costs time: additive increase as in TCP's congestion avoidance (Jacobson
1988), but so slow that few are refused; a refusal tells the number itself, so nothing is halved.
"""

from __future__ import annotations

import random
from typing import Final

FIRST_LIMIT: Final = 8
ROUNDS: Final = 4
"""So many times its places must have been used before there is one more."""

_BACKOFF_S: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 20.0)
_JITTER: Final = 1.5
"""The greatest factor on a pause, so that none is over 30 s."""


class SlotLimit:
    """The places of an account that one stream believes to be its own; `most` is a ceiling."""

    def __init__(self, most: int | None) -> None:
        self.limit = FIRST_LIMIT if most is None else min(most, FIRST_LIMIT)
        self.held = 0
        self._most = most
        self._ended = 0

    def __repr__(self) -> str:
        return f"<SlotLimit {self.held} of {self.limit}>"

    def fits(self, slots: int) -> bool:
        """Whether a task of so many places may be created; a large one may when it is alone."""
        return not self.held or self.held + slots <= self.limit

    def take(self, slots: int) -> None:
        """Note that a task is being created."""
        self.held += slots

    def release(self, slots: int) -> None:
        """Note that there is no such task."""
        self.held -= slots

    def refused(self, slots: int) -> None:
        """Note that it was too many: there are fewer places than it would have taken."""
        # Of a task with one place that is what is held now. One with nine says no more than that
        # there are not nine beside those; to fall back to what is held would starve all others.
        self.held -= slots
        self.limit = max(1, self.held, min(self.limit, self.held + slots - 1))
        self._ended = 0

    def ended(self, slots: int) -> None:
        """Note the end of a task; every so many of them there is one place more to be tried."""
        self.held -= slots
        self._ended += 1
        if self._ended >= ROUNDS * self.limit and (self._most is None or self.limit < self._most):
            self.limit += 1
            self._ended = 0


class Backoff:
    """Pauses between tries that nothing else holds apart, each longer than the one before."""

    def __init__(self, rng: random.Random) -> None:
        self._random = rng
        self._step = 0

    def next_s(self) -> float:
        """Return the next pause, in s."""
        base = _BACKOFF_S[min(self._step, len(_BACKOFF_S) - 1)]
        self._step += 1
        return base * self._random.uniform(1.0, _JITTER)

    def reset(self) -> None:
        """Begin anew, as something went well."""
        self._step = 0
