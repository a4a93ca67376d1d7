"""When a task is asked for first that a session creates into a book: by what the book knows."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Final, NamedTuple, Protocol

import attrs

from kling_omni_async._policy import PollPolicy
from kling_omni_async._polling.hints import MOST_MISSED
from kling_omni_async._polling.timing import PLAN_PAUSE_S, Timing

from .contract import FAR, Desk, Lesson, Row, Store

MOST_AWAITED: Final = 100
"""Of how many tasks it is looked up at a time whether their callbacks came: some tell of all."""

CLOCKS_S: Final = 0.05
"""How well it is known when a query began, in s: its worker's clock is not the book's."""


class Learned:
    """How long tasks take, as far as a book has taught it."""

    def __init__(self, policy: PollPolicy, rng: Random) -> None:
        self.timing = Timing(policy.interval, rng, learned=policy.timing == "learned")
        self.taught = 0  # the number of the last lesson

    def learn_anew(self) -> None:
        """Learn from the first lesson on, beside what is known: the book has lost those before."""
        self.taught = 0

    def learn(self, lessons: Iterable[Lesson]) -> None:
        """Learn from what all workers of the book have seen."""
        for lesson in lessons:
            if lesson.number > self.taught:
                self.taught = lesson.number
                kind = lesson.kind or None
                self.timing.learn(lesson.after_s, lesson.until_s, kind, ended_s=lesson.ended_s)


class Callbacks(Protocol):
    """What a session knows of callbacks, of its plain ids as of those in books."""

    @property
    def awaits_callbacks(self) -> bool:
        """Whether they do come, as far as is known."""
        ...

    def callback_told(self, *, came: bool) -> None:
        """Note whether one came that was waited for."""


class _Awaited(NamedTuple):
    wait_s: float  # for its callback at most
    until: float  # in s of the loop


class BookPlanner:
    """Says when the tasks of one session are asked for first that it creates into one book."""

    def __init__(self, store: Store, callbacks: Callbacks, policy: PollPolicy, rng: Random) -> None:
        self._store = store
        self._callbacks = callbacks
        self._policy = policy
        self._random = rng
        self._learned = Learned(policy, rng)
        self._looks_at = -FAR  # at lessons
        self._awaited: dict[str, _Awaited] = {}

    def adopt(self, desk: Desk) -> None:
        """Plan by the pauses in force, and see whether the book has lost what it taught."""
        if desk.number < self._learned.taught:
            self._learned.learn_anew()
        terms = desk.terms
        if terms is not None and terms.interval != self._policy.interval:
            self._policy = attrs.evolve(self._policy, interval=terms.interval)
            self._learned, self._looks_at = Learned(self._policy, self._random), -FAR

    async def look(self, now: float) -> None:
        """Learn what the book has come to know since, whoever polls it, in which process ever.

        Raises:
            BookError: The book cannot be reached.
        """
        if now >= self._looks_at and self._learned.timing.learns:
            self._looks_at = now + PLAN_PAUSE_S  # plans are made anew no more often
            self._learned.learn(await self._store.lessons_after(self._learned.taught))
        over = [key for key, awaited in self._awaited.items() if awaited.until <= now]
        for task_id in over[:MOST_MISSED]:
            await self._look_up(task_id)

    async def _look_up(self, task_id: str) -> None:
        """Find out whether the callback of a task came, which its book shows by the first query."""
        if (awaited := self._awaited.pop(task_id, None)) is None:  # another call looks it up
            return
        found = await self._store.find(task_id)
        if found is None:
            return
        if _is_unasked(found.row):
            self._awaited[task_id] = awaited
        elif _came(found.row, awaited.wait_s):
            self._callbacks.callback_told(came=True)
        elif found.row.is_settled and found.row.queries == 1:
            self._callbacks.callback_told(came=False)

    def first_look_s(
        self, task_id: str, kind: str | None, now: float, expects_s: float | None
    ) -> float:
        """Return how long to wait with the first query of a task that was created now, in s."""
        if expects_s is None or not self._callbacks.awaits_callbacks:
            return self._learned.timing.first_look(now, now, kind) - now
        if len(self._awaited) < MOST_AWAITED:
            self._awaited[task_id] = _Awaited(expects_s, now + expects_s)
        return expects_s


def _is_unasked(row: Row) -> bool:
    return row.first is None and row.ended is None


def _came(row: Row, wait_s: float) -> bool:
    """Whether a task was asked for sooner than at the end of the wait: somebody has nudged it."""
    asked = row.due if row.first is None else row.first  # that is kept by what does not end it
    return asked < row.added + wait_s - CLOCKS_S
