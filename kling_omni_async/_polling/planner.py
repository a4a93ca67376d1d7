"""When an id is asked: as was learned of durations, as a callback says, or as one is expected."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import NamedTuple

from kling_omni_async._api.answers import age_of
from kling_omni_async._models import ImageTask
from kling_omni_async._policy import PollPolicy

from .hints import Expected, OwnTasks
from .limits import NEVER
from .timing import Timing
from .verdicts import FINAL, PENDING, Verdict
from .waiters import Entry


class Lesson(NamedTuple):
    """How long a task has taken: it ended between two ages, and at which one, if that is known."""

    after_s: float
    until_s: float
    ended_s: float | None


class Planner:
    """Says when each id of a session is to be asked, first and then again; times are in s."""

    def __init__(self, policy: PollPolicy, rng: random.Random) -> None:
        self.timing = Timing(policy.interval, rng, learned=policy.timing == "learned")
        self.own = OwnTasks()
        self.expected = Expected()
        self._low_s = policy.interval[0]
        self._nudged: set[str] = set()  # in flight, when a callback came

    def knows_more(self, expects_s: float | None) -> bool:
        """Whether a first look may come later than at once: most sessions know nothing of ids."""
        return expects_s is not None or self.own.number > 0

    def first_look(
        self, entry: Entry, now: float, expects_s: float | None, deadline: float | None = None
    ) -> float:
        """Return when an id is to be asked first: now, unless more is known of it."""
        latest = NEVER if deadline is None else deadline
        own = self.own.get(entry.task_id, now)
        if own is not None:
            entry.born = own.created
            if own.is_nudged:
                own.is_nudged = False
                return now
        if expects_s is not None and self.expected.comes:
            first = min(now + expects_s, latest)
            self.expected.add(entry.task_id, first)
            return first
        if own is None:
            return now
        return min(self.timing.first_look(now, own.created, own.kind), latest)

    def next_look(
        self, entry: Entry, verdict: Verdict, now: float, headers: Mapping[str, str] | None
    ) -> float:
        """Return when an id is due again after an answer, and learn of its end."""
        if self._nudged and entry.task_id in self._nudged:
            self._nudged.discard(entry.task_id)
            return now + self._low_s
        own = self.own.get(entry.task_id, now) if entry.born is not None else None
        kind = None if own is None else own.kind
        when, lesson = look_again(
            self.timing, entry, verdict, now, headers, kind=kind, is_own=own is not None
        )
        if lesson is not None:
            self.timing.learn(lesson.after_s, lesson.until_s, kind, ended_s=lesson.ended_s)
        return when

    def nudge_own(self, task_id: str, now: float) -> bool:
        """Note that a task may have changed that nobody waits for; return whether it is ours."""
        own = self.own.get(task_id, now)
        if own is None:
            return False
        own.is_nudged = True  # counts when somebody waits for it
        self.expected.nudged(task_id)
        return True

    def nudge(self, entry: Entry, now: float) -> float | None:
        """Return when an id is to be asked as it may have changed; None while a query is under way.

        One that may be asked at once gets a time that is not after `now`.
        """
        self.expected.nudged(entry.task_id)
        if entry.flight is not None:
            self._nudged.add(entry.task_id)  # its answer may be from before
            return None
        return entry.answered + self._low_s if entry.queries else now

    def left_s(self, entry: Entry | None, task_id: str, now: float) -> float | None:
        """Return how long a task needs still, in s, by the median, or None if that is unknown."""
        if (own := self.own.get(task_id, now)) is not None:
            return self.timing.left_s(now - own.created, own.kind)
        if entry is None or entry.born is None:
            return None
        return self.timing.left_s(now - entry.born)


def look_again(
    timing: Timing,
    entry: Entry,
    verdict: Verdict,
    now: float,
    headers: Mapping[str, str] | None,
    *,
    kind: object,
    is_own: bool,
) -> tuple[float, Lesson | None]:
    """Return when an id is due again after an answer, and what its end teaches."""
    if entry.born is None:
        # Once for an id: its first answer tells when it was created.
        pending = verdict.task if verdict.kind is PENDING else None
        age_s = age_of(pending, headers) if pending and headers and timing.learns else None
        if age_s is None:
            return timing.even(now), None
        entry.born = now - age_s
        for waiter in entry.waiters():
            waiter.aged(entry.born)
    age_s = now - entry.born
    if verdict.kind is PENDING:
        entry.looked = now
        return timing.next_look(now, age_s, kind), None
    if verdict.task is None or verdict.kind is not FINAL:
        return timing.even(now), None  # faults teach nothing
    # When it ended counts only where its age is by our own clock: theirs differ.
    ended_s = _took_s(verdict.task) if is_own else None
    return timing.even(now), Lesson(max(0.0, entry.looked - entry.born), age_s, ended_s)


def _took_s(task: ImageTask) -> float | None:
    if task.created_at is None or task.updated_at is None:
        return None
    return (task.updated_at - task.created_at).total_seconds()
