"""An own account of polling, by which the machine judges it: words, gate, set-up, order, freezes.

Nothing here is taken from the library's inside: what it promises is worked out a second time.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs

from kling_omni_async import (
    AccountError,
    ApiError,
    AuthenticationError,
    ImageTask,
    KlingOmniError,
    NoImagesError,
    OutcomeStream,
    PollPolicy,
    ResponseError,
    TaskFailedError,
    TaskNotFoundError,
    TaskOutcome,
    TransportError,
)
from kling_omni_async._api.answers import Answer
from kling_omni_async._polling.stream import StreamState

from . import scripted
from .scripted import Line

NEVER: Final = math.inf
GRACE_S: Final = 5.0
SLACK_S: Final = 1e-6
"""What times that were added up may differ by, in s."""

IDS: Final = ("a", "b", "c", "d", "e")
GIVEN: Final[Mapping[object, str]] = {
    **dict(zip(IDS, IDS, strict=True)),
    " a": "a",
    "b\r\n": "b",
    "\ufeffc ": "c",
    "not an id": "not an id",
    "": "",
    17: "17 (int)",
    None: "None (NoneType)",
}
"""What inputs give, and the name under which it is pending and comes out."""


@attrs.frozen(eq=False)
class Word:
    """What the machine knows of an answer, whatever the library makes of it.

    Attributes:
        answer: What comes over the wire.
        final: The class of the error that ends the id's waiting, `ImageTask` for success, or
            None where the word ends nothing.
        doubtful: Whether it has to be said again.
        readable: Whether the API itself said it, to a key that it accepts.
        is_fault: Whether it says nothing about the task.
        fault_of_setup: The class that ends all waiting as long as nothing readable came.
        of_key: Whether it ends all waiting later too, if it is confirmed.
        limits: Whether it closes the gate.
        retry_after: The pause that it asks for, in s.
        names: The id that it names, if that is told; of another that is watched it is no word.
    """

    answer: Answer | KlingOmniError
    final: type[object] | None = None
    doubtful: bool = False
    readable: bool = False
    is_fault: bool = False
    fault_of_setup: type[KlingOmniError] | None = None
    of_key: bool = False
    limits: bool = False
    retry_after: float | None = None
    names: str | None = None


def _fault(
    answer: Answer | KlingOmniError,
    *,
    readable: bool = False,
    fault_of_setup: type[KlingOmniError] | None = None,
    of_key: bool = False,
) -> Word:
    return Word(
        answer, is_fault=True, readable=readable, fault_of_setup=fault_of_setup, of_key=of_key
    )


def _limit(answer: Answer, retry_after: float | None = None, *, readable: bool = True) -> Word:
    return Word(answer, is_fault=True, readable=readable, limits=True, retry_after=retry_after)


WORDS: Final = {
    "pending": Word(scripted.PENDING, readable=True),
    "submitted": Word(scripted.SUBMITTED, readable=True),
    "succeed": Word(scripted.SUCCEED, ImageTask, readable=True),
    "failed": Word(scripted.FAILED, TaskFailedError, readable=True),
    "bad request": Word(scripted.BAD_REQUEST, ApiError, readable=True),
    "no images": Word(scripted.IMAGELESS, NoImagesError, doubtful=True, readable=True),
    "not found": Word(scripted.NOT_FOUND, TaskNotFoundError, doubtful=True, readable=True),
    "about a": Word(
        scripted.task("succeed", images=1, of="a"), ImageTask, readable=True, names="a"
    ),
    "about b": Word(scripted.task("processing", of="b"), readable=True, names="b"),
    "502": _fault(scripted.BAD_GATEWAY),
    "5000": _fault(scripted.API_TROUBLE, readable=True),
    "429": _limit(scripted.limited()),
    "429 for 40 s": _limit(scripted.limited("40"), 40.0),
    "429 for a day": _limit(scripted.limited("86400"), 120.0),
    "bare 429": _limit(Answer(429, b""), readable=False),
    "401": _fault(scripted.UNAUTHORIZED, fault_of_setup=AuthenticationError, of_key=True),
    "no balance": _fault(scripted.NO_BALANCE, fault_of_setup=AccountError, of_key=True),
    "web page": _fault(scripted.WEB_PAGE, fault_of_setup=ResponseError),
    "certificate": _fault(scripted.BAD_CERTIFICATE, fault_of_setup=TransportError),
    "reset": _fault(scripted.RESET),
}
TIMED_OUT: Final = _fault(scripted.TIMED_OUT.answer)
STRAY: Final = _fault(scripted.WEB_PAGE, fault_of_setup=ResponseError)
"""What an answer means that is about another id of the session."""


@attrs.frozen
class Spoken(Line):
    """A line of a script together with what it means."""

    word: Word = TIMED_OUT


Saying = tuple[str, float, int]
"""A word, after how many s, and how often in a row."""


def spoken(sayings: Iterable[Saying]) -> deque[Line]:
    """Make a script."""
    return deque(
        Spoken(WORDS[name].answer, after, None, WORDS[name])
        for name, after, times in sayings
        for _ in range(times)
    )


def name_of(line: Line) -> str:
    """Return the name of the word that a line says."""
    names = [name for name, word in WORDS.items() if word.answer is line.answer]
    return names[0] if names else "no answer in time"


# Who waits.


@attrs.define(eq=False)
class Call:
    """A call of `wait`, `watch` or `query`.

    Attributes:
        told: "final" if an answer has come that ends it, "all" if one has ended all waiting,
            "maybe" if it may have been told from memory.
    """

    verb: str
    task_id: str
    timeout: float | None
    called: float
    task: asyncio.Task[None] | None = None
    begun: float | None = None
    ended: float | None = None
    result: object = None
    told: str = ""

    @property
    def deadline(self) -> float:
        return NEVER if self.timeout is None else self.called + self.timeout

    @property
    def is_under_way(self) -> bool:
        return self.begun is not None and self.ended is None

    def surely_waits(self, now: float) -> bool:
        """Whether the library, too, must know it as one who waits."""
        assert self.task is not None
        return (
            self.is_under_way
            and not self.told
            and not self.task.cancelling()
            and now < self.deadline
        )


class InputFailedError(Exception):
    """What an input raises at its end."""


@attrs.define(eq=False)
class Reader:
    """A stream, who reads it, what it was given, and what came out.

    Attributes:
        kind: What its input is: a list, an iterable or a feed.
        queue: What a feed or an iterable gives next; None ends it.
        expected: How often each id has to come out, or to be pending.
        joined: Since when at the latest an id of it has been waited for.
        first_query: When the first query of an id started.
        told: Ids whose final word has come.
        cancelled: How often the input was.
        open_inputs: Inputs that were begun and are not closed.
    """

    kind: str
    timeout: float | None
    clean_up_s: float = 0.0
    input_ended: bool = False
    stream: OutcomeStream | None = None
    state: StreamState = attrs.field(init=False)
    queue: asyncio.Queue[Any] = attrs.Factory(asyncio.Queue)
    unpaused: asyncio.Event = attrs.Factory(asyncio.Event)
    task: asyncio.Task[None] | None = None
    expected: Counter[str] = attrs.Factory(Counter)
    out: list[tuple[float, TaskOutcome]] = attrs.Factory(list)
    counts: Counter[str] = attrs.Factory(Counter)
    joined: dict[str, float] = attrs.Factory(dict)
    first_query: dict[str, float] = attrs.Factory(dict)
    told: set[str] = attrs.Factory(set)
    input_error: InputFailedError | None = None
    cancelled: int = 0
    open_inputs: int = 0
    begun: bool = False
    is_left: bool = False
    end: BaseException | None = None

    @property
    def is_open(self) -> bool:
        return self.begun and not self.state.is_left

    @property
    def pending(self) -> set[str]:
        """The ids that were given and are not out, by the own account."""
        return {task_id for task_id, times in self.expected.items() if self.counts[task_id] < times}

    def waits_for(self, task_id: str) -> bool:
        """Whether it is open and waits for an id that its input may have given already."""
        return self.is_open and task_id in self.pending and task_id not in self.told

    def surely_waits_since(self, task_id: str, now: float) -> float | None:
        """Return since when the library must know it as one who waits for an id."""
        deadline = self.first_query.get(task_id, NEVER) + (self.timeout or NEVER)
        if self.timeout == 0.0:
            deadline = self.first_query.get(task_id, NEVER)
        if not self.waits_for(task_id) or now >= deadline:
            return None
        return self.joined.get(task_id)

    def got(self, outcome: TaskOutcome, at: float) -> None:
        """Note an outcome."""
        self.out.append((at, outcome))
        self.counts[outcome.task_id] += 1
        self.told.discard(outcome.task_id)
        self.joined.pop(outcome.task_id, None)


# What holds queries back.


@attrs.define(eq=False)
class Query:
    """A query from the decision to start it to its end."""

    task_id: str
    at: float
    by_hand: bool
    ended: float | None = None


class Gate:
    """When a 429 holds scheduled queries back."""

    def __init__(self) -> None:
        self.closed = False
        self.since = -NEVER
        self.until = -NEVER
        self.pause: tuple[float, float, float] | None = None
        self._step = 0

    def hear(self, word: Word, query: Query, at: float) -> None:
        if query.at < self.until:
            return
        if not word.limits:
            if word.readable:
                self.closed, self._step = False, 0
            return
        base = min(2.0**self._step, 20.0)
        if word.retry_after is None:
            self._step += 1
            self.pause = (at, base, 1.5 * base)
        else:
            self.pause = (at, word.retry_after, word.retry_after)
        self.closed, self.since = True, at

    def read(self, until: float) -> str | None:
        """Note how long the pause is that a 429 began; say so if it cannot be that long."""
        if self.pause is None:
            return None
        at, least, most = self.pause
        self.pause, self.until = None, until
        if least - 1e-9 <= until - at <= most + 1e-9:
            return None
        return f"a pause of {until - at} s, not {least} to {most}"

    def lets_through(self, now: float, flying: Iterable[Query]) -> bool:
        """Whether a scheduled query may start now."""
        if not self.closed:
            return True
        return now >= self.until and all(each.by_hand or each.at < self.until for each in flying)


class Setup:
    """When the set-up is taken for wrong."""

    def __init__(self, interval_s: float) -> None:
        self._heard = False
        self._suspect_since: float | None = None
        self._interval_s = interval_s

    def is_wrong(self, word: Word, query: Query, at: float) -> bool:
        if word.readable:
            self._heard, self._suspect_since = True, None
            return False
        if not self._heard:
            return word.fault_of_setup is not None
        if not word.of_key:
            return False
        if self._suspect_since is None:
            self._suspect_since = at
            return False
        confirmed = query.at >= self._suspect_since + self._interval_s
        if confirmed:
            self._suspect_since = None
        return confirmed


class Doubts:
    """What has to be said again before it is believed."""

    def __init__(self, policy: PollPolicy) -> None:
        self._policy = policy
        self._said: dict[str, tuple[type[object], int, float]] = {}

    def forget(self, task_id: str) -> None:
        self._said.pop(task_id, None)

    def final(self, task_id: str, word: Word, at: float) -> type[object] | None:
        """Return what ends the waiting for an id now, if anything."""
        if word.is_fault:
            return None
        if not word.doubtful or word.final is None:
            self.forget(task_id)
            return word.final
        kind, count, counted_at = self._said.get(task_id, (word.final, 0, -NEVER))
        if kind is not word.final:
            count, counted_at = 0, -NEVER
        if at >= counted_at + self._policy.interval[0]:
            count, counted_at = count + 1, at
        self._said[task_id] = (word.final, count, counted_at)
        return word.final if count >= self._policy.confirmations else None


# Whose turn it is.


@attrs.frozen
class Claim:
    """What one who certainly waits can claim.

    Attributes:
        since: From when on it is due at the earliest, in s.
        due: From when on it is due at the latest, in s.
    """

    since: float
    due: float


@attrs.frozen
class Claims:
    """Who certainly waits for a query at a moment: ids never asked, and ids whose pause is over."""

    newcomers: Mapping[str, Claim]
    returners: Mapping[str, Claim]

    def kind_of(self, task_id: str) -> str | None:
        if task_id in self.newcomers:
            return "newcomer"
        return "returner" if task_id in self.returners else None

    def all_due(self, now: float) -> list[str]:
        """Return the ids that could be asked now, but for what holds all back."""
        claims = {**self.newcomers, **self.returners}
        return [task_id for task_id, claim in claims.items() if claim.due <= now]


class Order:
    """Load is served in order of due time; newcomers and the overdue take turns."""

    def __init__(self) -> None:
        self._previous: str | None = None

    def unknown(self) -> None:
        """Note a start of which it is not known whether it was a newcomer's."""
        self._previous = None

    def start(self, task_id: str, claims: Claims, now: float) -> list[str]:
        """Note a scheduled start; return which promises it breaks."""
        kind, previous = claims.kind_of(task_id), self._previous
        self._previous = kind
        if kind == "newcomer":
            claim = claims.newcomers[task_id]
            wrongs = [
                f"{task_id} goes before {other}, which came before it"
                for other, its in claims.newcomers.items()
                if its.since < claim.since
            ]
            if previous == "newcomer":
                wrongs += [
                    f"{task_id} is the second newcomer in a row, and {other} is overdue"
                    for other, its in claims.returners.items()
                    if its.due <= now
                ]
            return wrongs
        if kind == "returner":
            claim = claims.returners[task_id]
            wrongs = [
                f"{task_id} goes before {other}, which is longer overdue"
                for other, its in claims.returners.items()
                if its.due < claim.since - 1e-9
            ]
            if previous == "returner":
                wrongs += [
                    f"{task_id} is the second overdue one in a row, and {other} is new"
                    for other in claims.newcomers
                ]
            return wrongs
        return []


# Time in which nothing ran.


@attrs.frozen
class Freeze:
    """A time in which the loop did not run.

    Attributes:
        due: Ids whose turn had come when it was over.
        flying: Ids whose query was under way, and since when.
    """

    began: float
    ended: float
    due: frozenset[str]
    flying: Mapping[str, float]

    def goes_over(self, task_id: str, deadline: float) -> bool:
        """Whether a wait would have ended in it, and not only in its last second."""
        if task_id in self.flying and deadline <= self.began:
            deadline = max(deadline, self.flying[task_id]) + GRACE_S
        elif task_id not in self.due and task_id not in self.flying:
            return False
        return self.began < deadline < self.ended - 1.0 - SLACK_S


class Freezes:
    """All of them, and what they allow and ask for."""

    def __init__(self) -> None:
        self._all: list[Freeze] = []

    def add(self, freeze: Freeze) -> None:
        self._all.append(freeze)

    def has_just_ended(self, now: float) -> bool:
        """Whether what is heard now may have been said before it."""
        return bool(self._all) and now == self._all[-1].ended

    def latest_end(self, bound: float) -> float:
        """Return when a wait is over at the latest that were over at `bound` but for them."""
        for freeze in self._all:
            if freeze.began <= bound:
                bound = max(bound, freeze.ended + 2 * GRACE_S)
        return bound

    def owed_look(self, task_id: str, deadline: float) -> float | None:
        """Return when a freeze ended after which an id has to be looked at once more."""
        ends = [each.ended for each in self._all if each.goes_over(task_id, deadline)]
        return min(ends, default=None)
