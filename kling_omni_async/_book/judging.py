"""What an answer means for a claim: the same verdicts and pauses as for a plain list. No clock."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from random import Random
from typing import Final, NamedTuple

import attrs

from kling_omni_async import errors
from kling_omni_async._models import ImageTask, TaskStatus
from kling_omni_async._outcome import TaskOutcome, error_from_dict, error_to_dict
from kling_omni_async._policy import PollPolicy
from kling_omni_async._polling.limits import MAX_JITTER
from kling_omni_async._polling.planner import look_again
from kling_omni_async._polling.timing import Timing
from kling_omni_async._polling.verdicts import (
    Reply,
    SetupCheck,
    Unconfirmed,
    Verdict,
    VerdictKind,
    is_readable,
    verdict_on,
)
from kling_omni_async._polling.waiters import Entry
from kling_omni_async._polling.watchlist import Decision
from kling_omni_async._polling.words import foreign_id_in, remember, stray, timed_out
from kling_omni_async._stats import count_of
from kling_omni_async.errors import (
    CreateUncertainError,
    KlingOmniError,
    RateLimitError,
    ResponseError,
    TaskNotFoundError,
)

from .contract import Claim, Lesson, Row, Said, Settle, Terms
from .forms import outcome_to_json, task_from_json, task_to_json
from .planning import Learned

LOOKS_FOR_INTENT: Final = 3
"""How often a task is looked for that a create may have made, before its end is called unknown."""


class Query(NamedTuple):
    """One query of a claim: when it began and ended, in s of the loop."""

    started: float
    ended: float


@attrs.define(eq=False)
class Held:
    """A claim at its worker, and its id as polling knows it."""

    claim: Claim
    entry: Entry
    book_time: float  # of the loop's zero, in s of the book

    @property
    def row(self) -> Row:
        """The id as the book kept it when it was claimed."""
        return self.claim.row


class Judged(NamedTuple):
    """What is to be done after an answer: what the book is told, and what the log is."""

    settle: Settle
    decision: Decision
    outcome: TaskOutcome | None
    before: TaskStatus | None


class Looked(NamedTuple):
    """What the book is told after a look for a task that a create may have made."""

    settle: Settle
    fault: KlingOmniError | None  # that shows a wrong set-up


class Judge:
    """Says what answers mean for the claims of one worker."""

    def __init__(self, policy: PollPolicy, rng: Random) -> None:
        self.policy = policy
        self.setup = SetupCheck(policy.interval[0])
        self._random = rng
        self._learned = Learned(policy, rng)

    def adopt(self, terms: Terms) -> None:
        """Poll by the policy in force."""
        policy = attrs.evolve(
            self.policy,
            interval=terms.interval,
            max_rate=terms.max_rate,
            confirmations=terms.confirmations,
            timeout=terms.timeout,
        )
        if policy == self.policy:
            return
        self.policy, heard = policy, self.setup.heard
        self.setup = SetupCheck(policy.interval[0])
        self.setup.heard = heard
        self._learned = Learned(policy, self._random)

    @property
    def timing(self) -> Timing:
        """When to look, as far as that was learned."""
        return self._learned.timing

    @property
    def taught(self) -> int:
        """The number of the last lesson that it knows."""
        return self._learned.taught

    def learn_anew(self) -> None:
        """Learn from the first lesson on: the book has lost those before."""
        self._learned.learn_anew()

    def learn(self, lessons: Collection[Lesson]) -> None:
        """Learn from what all workers of the book have seen."""
        self._learned.learn(lessons)

    # Tasks.

    def judge(
        self,
        held: Held,
        reply: Reply,
        query: Query,
        headers: Mapping[str, str] | None,
        others: Collection[str],
    ) -> Judged:
        """Return what a reply means for its claim; `others` are the ids that are held besides."""
        entry, row, now = held.entry, held.row, query.ended
        before = entry.status
        foreign = foreign_id_in(entry, reply)
        if foreign in others:
            reply = stray(entry, foreign)
        verdict = verdict_on(reply)
        if isinstance(reply, TaskNotFoundError) and row.seen is not None:
            # What was once seen as a task never ends as not found.
            verdict = Verdict(VerdictKind.FAULT, error=reply)
        entry.queries += 1
        if isinstance(reply, ImageTask):
            entry.status = reply.status
        remember(entry, verdict, self.policy, now)
        kind = row.kind
        when, lesson = look_again(
            self.timing, entry, verdict, now, headers, kind=kind, is_own=row.external_id is not None
        )
        when = self._give_up_or_wait(held, verdict, query, when)
        wrong = self.setup.is_wrong(reply, started=query.started, now=now)
        outcome = self._outcome(held, verdict, now) if verdict.kind is VerdictKind.FINAL else None
        settle = self._settle(held, reply, verdict, query, when - now)
        if outcome is not None:
            is_word = isinstance(reply, ImageTask) and outcome.settled
            settle = _ended(settle, outcome, is_word=is_word)
        if lesson is not None:
            taught = (kind or "", lesson.after_s, lesson.until_s, lesson.ended_s)
            settle = attrs.evolve(settle, lesson=taught)
        decision = Decision(reply, verdict, [], 0.0, foreign, wrong, 1.0)
        return Judged(settle, decision, outcome, before)

    def _give_up_or_wait(self, held: Held, verdict: Verdict, query: Query, when: float) -> float:
        """Return when to look again; a query that ended after the deadline gives its id up."""
        timeout, row = self.policy.timeout, held.row
        if timeout is None or verdict.kind is VerdictKind.FINAL:
            return when
        first = query.started if row.first is None else row.first - held.book_time
        if query.ended < first + timeout:
            return max(query.ended + self.policy.interval[0], min(when, first + timeout))
        task = verdict.task or task_from_json(row.task)
        verdict.error = timed_out(held.entry, task, query.ended - first)
        verdict.kind, verdict.task = VerdictKind.FINAL, task
        return when

    def _outcome(self, held: Held, verdict: Verdict, now: float) -> TaskOutcome:
        row = held.row
        return TaskOutcome(
            task_id=row.key,
            task=verdict.task or task_from_json(row.task),
            error=verdict.error,
            queries=held.entry.queries,
            elapsed=max(0.0, now + held.book_time - row.added),
            external_task_id=row.external_id,
        )

    def _settle(
        self, held: Held, reply: Reply, verdict: Verdict, query: Query, pause_s: float
    ) -> Settle:
        entry, limited = held.entry, isinstance(reply, RateLimitError)
        seen = reply if isinstance(reply, ImageTask) else None
        is_new = seen is not None and (held.row.task is None or _status_in(held.row) != seen.status)
        return Settle(
            key=held.row.key,
            token=held.row.token,
            said=_SAID[verdict.kind],
            started_ago=query.ended - query.started,
            pause_s=pause_s,
            doubt=_doubt_of(entry, query.ended),
            is_not_found=isinstance(reply, TaskNotFoundError),
            is_readable=is_readable(reply),
            fault=None if entry.fault is None else json.dumps(error_to_dict(entry.fault)),
            is_task=seen is not None,
            task=task_to_json(seen) if seen is not None and is_new else None,
            born_ago=None if entry.born is None else query.ended - entry.born,
            is_limited=limited,
            limit_s=reply.retry_after if isinstance(reply, RateLimitError) else None,
            jitter=self._random.uniform(1.0, MAX_JITTER) if limited else 1.0,
        )

    # Intents.

    def judge_intent(
        self, held: Held, found: ImageTask | KlingOmniError | None, query: Query
    ) -> Looked:
        """Return what a look means for a task that a create may have made; None found nothing."""
        entry, now = held.entry, query.ended
        reply = _no_task(held.row) if found is None else found
        verdict = verdict_on(reply)
        entry.queries += 1
        entry.fault = None if isinstance(reply, ImageTask) else reply
        looks = 0 if entry.unconfirmed is None else entry.unconfirmed.count
        # An API that refuses to look by a name will never find it.
        if isinstance(reply, KlingOmniError) and verdict.kind is not VerdictKind.FAULT:
            looks += 1
            entry.unconfirmed = Unconfirmed(type(reply), looks, now)
            verdict.kind = VerdictKind.UNCONFIRMED
        settle = self._settle(held, reply, verdict, query, self.timing.even(now) - now)
        if isinstance(reply, ImageTask):
            settle = attrs.evolve(settle, said=Said.FOUND, task_id=reply.task_id)
        elif looks >= LOOKS_FOR_INTENT or self._is_too_late(held, query):
            settle = _ended(settle, _uncertain(held, query), is_word=False)
        is_ours = not isinstance(reply, ResponseError)  # that may be of this one route
        wrong = is_ours and self.setup.is_wrong(reply, started=query.started, now=now)
        return Looked(settle, entry.fault if wrong else None)

    def _is_too_late(self, held: Held, query: Query) -> bool:
        timeout, first = self.policy.timeout, held.row.first
        if timeout is None or first is None:
            return False
        return query.ended + held.book_time >= first + timeout


_SAID: Final = {
    VerdictKind.PENDING: Said.PENDING,
    VerdictKind.FINAL: Said.FINAL,
    VerdictKind.UNCONFIRMED: Said.DOUBT,
    VerdictKind.FAULT: Said.FAULT,
}


def hold(claim: Claim, book_now: float, now: float) -> Held:
    """Return a claim as its worker holds it; `now` is the time of the loop then."""
    row, book_time = claim.row, book_now - now
    entry = Entry(row.key)
    entry.queries = row.queries
    entry.status = _status_in(row)
    if row.doubt is not None:
        kind = getattr(errors, row.doubt.kind, KlingOmniError)
        entry.unconfirmed = Unconfirmed(kind, row.doubt.count, row.doubt.counted - book_time)
    if row.fault is not None:
        entry.fault = error_from_dict(json.loads(row.fault), task_id=row.key, task=None)
    if row.born is not None:
        entry.born = row.born - book_time
        entry.looked = (row.born if row.looked is None else row.looked) - book_time
    return Held(claim, entry, book_time)


def unasked(held: Held) -> Settle:
    """Return the settle of a claim of which no query was sent."""
    return Settle(key=held.row.key, token=held.row.token, said=Said.UNASKED)


def cut(held: Held, pause_s: float) -> Settle:
    """Return the settle of a claim whose query was given up."""
    return Settle(key=held.row.key, token=held.row.token, said=Said.CUT, pause_s=pause_s)


def aged(settle: Settle, by_s: float) -> Settle:
    """Return a settle as it is sent some time after it was made."""
    doubt, born = settle.doubt, settle.born_ago
    return attrs.evolve(
        settle,
        started_ago=settle.started_ago + by_s,
        ended_ago=settle.ended_ago + by_s,
        doubt=None if doubt is None else (*doubt[:2], doubt[2] + by_s),
        born_ago=None if born is None else born + by_s,
    )


def _status_in(row: Row) -> TaskStatus | None:
    if row.task is None:
        return None
    return TaskStatus(json.loads(row.task)["status"])


def _doubt_of(entry: Entry, now: float) -> tuple[str, int, float] | None:
    doubt = entry.unconfirmed
    return None if doubt is None else (doubt.kind.__name__, doubt.count, now - doubt.counted_at)


def _ended(settle: Settle, outcome: TaskOutcome, *, is_word: bool) -> Settle:
    """Return a settle that says how its id ended; a word is the API's own."""
    return attrs.evolve(
        settle,
        said=Said.FINAL,
        outcome=outcome_to_json(outcome),
        count=count_of(outcome.error),
        is_settled=outcome.settled,
        is_word=is_word,
    )


def _no_task(row: Row) -> TaskNotFoundError:
    return TaskNotFoundError(http_status=200, message=f"no task is named {row.external_id}")


def _uncertain(held: Held, query: Query) -> TaskOutcome:
    row, fault = held.row, held.entry.fault
    name = row.external_id or ""
    text = f"nobody knows whether the order {name} has made a task: it was not found ({fault})"
    return TaskOutcome(
        task_id="",
        error=CreateUncertainError(text, external_task_id=name),
        queries=held.entry.queries,
        elapsed=max(0.0, query.ended + held.book_time - row.added),
        external_task_id=name,
    )
