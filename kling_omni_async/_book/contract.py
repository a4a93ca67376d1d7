"""What a book keeps, and what is asked of it in one step: records, and what a store has to do.

Times are in s of the book's own clock, which never runs back; spans that a message holds count
back or on from the moment of the step, as the clocks of those who ask are not the book's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum, StrEnum
from typing import Final, Literal, Protocol

import attrs

from kling_omni_async._stats import Count

FAR: Final = 1e15
"""A time that never comes: infinity has no place in JSON."""

INTENT: Final = "#"
"""The first character of the key of an intent; the rest is its external id.

No task id has it: `_ids.require_id` refuses it.
"""

MOST_AT_ONCE: Final = 200
"""How many claims, settles or outcomes one step takes at most."""


class State(StrEnum):
    """How far an entry is."""

    OPEN = "open"
    UNREAD = "unread"  # it has ended, and nobody has acknowledged its outcome
    READ = "read"
    PARKED = "parked"  # it was handed out too often
    REMOVED = "removed"  # remembered until its pause or lease is over


# More than ten attributes, as this is all that is known of an id.
@attrs.define
class Row:
    """One entry of a book: an id, or the intent to create a task."""

    key: str
    state: State = State.OPEN
    # The one score: from then on it may be claimed, handed out or forgotten, by its state.
    at: float = 0.0
    number: int = 0  # of its coming or its end: rows of one moment keep their order
    is_new: bool = True  # no query of it has ended
    due: float = 0.0  # when its pause is over, whatever a lease says
    token: int = 0  # of the claim that is open, or 0
    added: float = 0.0
    added_at: float = 0.0  # in s of the wall clock
    external_id: str | None = None
    kind: str | None = None  # what tells tasks of different durations apart
    # What queries have brought.
    queries: int = 0
    first: float | None = None  # start of the first query
    seen: float | None = None  # when it was last seen as a task
    answered: float = -FAR  # end of the last query, at the latest
    doubt: Doubt | None = None
    fault: str | None = None  # that the last query met, as JSON
    task: str | None = None  # the last that was seen of it, as JSON
    born: float | None = None  # when the task was created
    looked: float | None = None  # the last look at which it had not ended
    is_nudged: bool = False
    # What came of it.
    ended: float | None = None
    outcome: str | None = None  # as JSON, without its note
    count: Count | None = None
    is_settled: bool = False
    holder: str | None = None  # the reader that has it, or that is to have it at its end
    deliveries: int = 0  # how often it was handed out
    handed: float | None = None  # when, while it is handed out and not acknowledged

    @property
    def is_intent(self) -> bool:
        """Whether it is a task that may have been created."""
        return self.key.startswith(INTENT)


@attrs.frozen
class Doubt:
    """A final word that is not believed yet."""

    kind: str  # the name of its error
    count: int
    counted: float  # the last time


@attrs.frozen
class Terms:
    """The policy in force: of the worker that started last."""

    interval: tuple[float, float]
    max_rate: float | None
    confirmations: int
    timeout: float | None


@attrs.define
class Gate:
    """What a 429 closes: then one claim probes before the others go on."""

    is_closed: bool = False
    until: float = -FAR
    step: int = 0
    probe: int = 0  # the token of the claim that goes first, or 0
    probe_until: float = -FAR  # then it is void


@attrs.define
class Desk:
    """What a book knows beside its entries."""

    origin: str | None = None  # of the API
    number: int = 0  # the last that was given
    purged: float = -FAR  # when what is over was last forgotten
    clock: float = 0.0  # the latest time of a step
    next_start: float = -FAR  # of the pace
    line: int = 0  # who had the last start, by its place in `claims.Line`
    gate: Gate = attrs.field(factory=Gate)
    terms: Terms | None = None
    accounts: tuple[str, ...] = ()  # prints of the keys by which a task was seen
    is_read: bool = False  # somebody has asked for its outcomes, ever
    open: int = 0
    unread: int = 0
    parked: int = 0
    succeeded: int = 0
    failed: int = 0
    unresolved: int = 0


@attrs.define
class Member:
    """A worker or a reader of a book."""

    name: str
    kind: Literal["worker", "reader"]
    seq: int = 0  # of its last step
    heard: float = 0.0  # when that was


@attrs.frozen
class Wish:
    """What was ordered by a name: kept for ever, so that it is never paid for twice."""

    external_id: str
    digest: str
    task_id: str | None = None
    is_keyed: bool = False  # the caller has named it


@attrs.frozen
class Lesson:
    """How long a task has taken: it ended between two ages, and at which one if that is known."""

    number: int  # in order of coming
    kind: str
    after_s: float
    until_s: float
    ended_s: float | None


class Said(Enum):
    """What became of a claim."""

    PENDING = "the task is being worked on"
    FINAL = "nothing more will come"
    DOUBT = "final, if it is said again"
    FAULT = "no word about the task"
    UNASKED = "no query was sent"
    CUT = "a query was sent and given up"
    FOUND = "an intent has made a task"


# More than ten attributes: all that a query can bring.
@attrs.frozen(kw_only=True)
class Settle:
    """What became of one claim; spans are in s before the step that brings it."""

    key: str
    token: int
    said: Said
    started_ago: float = 0.0
    ended_ago: float = 0.0
    pause_s: float = 0.0  # from the end of the query to the next
    doubt: tuple[str, int, float] | None = None
    """A word that is not believed yet: its error's name, how often, and since when in s."""
    is_not_found: bool = False  # the API does not know the id
    is_readable: bool = False  # the API's own word, said to a key that it accepts
    fault: str | None = None
    is_task: bool = False  # the task was seen
    task: str | None = None  # as JSON, where it has changed
    born_ago: float | None = None
    outcome: str | None = None
    count: Count | None = None
    is_settled: bool = False  # asking again brings nothing new
    is_word: bool = False  # a final word of the API, and not our giving up
    is_limited: bool = False  # a 429
    limit_s: float | None = None  # that it asked for
    jitter: float = 1.0  # a factor on the backoff, from 1 to 1.5
    lesson: tuple[str, float, float, float | None] | None = None
    task_id: str | None = None  # that an intent has made


@attrs.frozen(kw_only=True)
class Turn:
    """What a worker brings, and what it wants."""

    worker: str
    seq: int
    settles: Sequence[Settle] = ()
    want: int = 0  # claims
    reserve: int = 0  # starts of the pace for what is no claim, within the next 0.2 s
    ahead_s: float = 0.0  # by how much earlier than usual it needs its starts
    lease_s: float = 0.0  # of a claim
    probe_s: float = 0.0  # after which a probe is void
    account: str = ""  # a print of its key
    origin: str | None = None
    terms: Terms | None = None  # of its own, with its first turn
    limits: Sequence[tuple[float, float | None, float]] = ()
    """429s that met no claim: the start's span before the step, what was asked for, the jitter."""
    lessons_after: int = 0  # the number of the last one that it knows
    is_leaving: bool = False


@attrs.frozen
class Claim:
    """An id that a worker may query, once, `start_s` after the step."""

    row: Row  # as it is kept, for this claim alone
    start_s: float


@attrs.frozen(kw_only=True)
class Turned:
    """What a worker gets."""

    now: float  # the time of the step
    claims: Sequence[Claim] = ()
    reserved: Sequence[float] = ()  # starts, in s after the step; ask again for those missing
    next_s: float | None = None  # when there may be more to claim, in s after the step
    gate_s: float = 0.0  # how long nobody may start what was claimed before, in s after the step
    terms: Terms | None = None
    lessons: Sequence[Lesson] = ()
    is_stranger: bool = False  # its key is of another account
    differs: bool = False  # its terms were others than those in force
    other_origin: str | None = None  # for which the book is, and not for the worker's
    dropped: Sequence[str] = ()  # unread outcomes whose time was over
    is_read: bool = False  # somebody has asked for outcomes of the book, ever

    @property
    def needs_terms(self) -> bool:
        """Whether the step was not made, as the book knows no policy: it has lost all it held."""
        return self.terms is None and self.other_origin is None


class Ack(Enum):
    """What became of an outcome at its reader."""

    DONE = "it is acknowledged"
    HANDED = "it is handed out from now on"
    BACK = "it is given back as if it had not been handed out"
    FAILED = "it comes again later"


@attrs.frozen
class Receipt:
    """What became of one outcome."""

    key: str
    number: int  # of its end: one that has ended anew is another
    ack: Ack


@attrs.frozen(kw_only=True)
class Take:
    """What a reader brings, and what it wants."""

    reader: str
    seq: int
    after: int = 0  # the last step of which it has had the answer: a book that lacks it lost some
    receipts: Sequence[Receipt] = ()
    keep: Sequence[str] = ()  # keys of which it alone is to have the outcomes, unless another is
    release: Sequence[str] = ()  # such keys no longer
    want: int = 0
    is_handed: bool = False  # what it gets it hands out at once
    is_leaving: bool = False


@attrs.frozen
class Parcel:
    """An outcome for one reader."""

    key: str
    number: int
    outcome: str
    note: str | None
    order: str | None
    deliveries: int


@attrs.frozen(kw_only=True)
class Taken:
    """What a reader gets."""

    parcels: Sequence[Parcel] = ()
    next_s: float | None = None  # when one comes again, in s after the step
    is_empty: bool = False  # nothing is open, and nothing unread
    parked: Sequence[str] = ()  # by this step
    lost: Sequence[str] = ()  # what it was to hand out and does not have any more
    origin: str | None = None  # of the API


@attrs.frozen
class Addition:
    """An id to be kept."""

    task_id: str
    note: str | None = None  # as JSON
    external_id: str | None = None
    task: str | None = None  # of the create's answer, as JSON
    kind: str | None = None
    age_s: float | None = None  # of the task, where it was created here
    first_s: float = 0.0  # until its first query
    order: str | None = None  # as JSON
    holder: str | None = None  # the reader that is to have its outcome


@attrs.frozen
class Intent:
    """What is about to be created."""

    external_id: str
    digest: str
    is_keyed: bool
    note: str | None
    order: str | None  # as JSON
    lease_s: float  # until it may be looked for
    kind: str | None = None


@attrs.frozen
class Known:
    """What a book knows of a wish."""

    wish: Wish
    row: Row | None  # of its task, or of its intent, if it was not removed
    now: float = attrs.field(default=0.0, eq=False)  # the time of the step


@attrs.frozen
class Found:
    """An entry, as `get` and `wait` see it."""

    row: Row
    note: str | None
    order: str | None


class Shelf(Protocol):
    """Where the rows of a book lie while one step is made; all of it is kept, or nothing."""

    @property
    def desk(self) -> Desk:
        """What is known beside the entries; it is kept as the step leaves it."""
        ...

    def row(self, key: str) -> Row | None:
        """Return an entry; what is changed in it counts once it is put back."""
        ...

    def put(self, row: Row) -> None:
        """Keep an entry."""

    def drop(self, key: str) -> None:
        """Forget an entry with its note and order."""

    def due(self, state: State, until: float, limit: int, *, is_new: bool = False) -> list[Row]:
        """Return the first entries of a state whose `at` is not after a time, by `at`, `number`."""
        ...

    def first_at(self, state: State, *, is_new: bool = False) -> float | None:
        """Return the earliest `at` of a state, or None."""
        ...

    def claimed(self) -> list[Row]:
        """Return the open entries that are claimed, however long ago."""
        ...

    def held(self, reader: str) -> list[Row]:
        """Return the outcomes that a reader has."""
        ...

    def ended_before(self, when: float, limit: int) -> list[Row]:
        """Return entries that ended before a time and that nobody has acknowledged."""
        ...

    def contents(self, key: str) -> tuple[str | None, str | None]:
        """Return the note and the order of an entry, as JSON."""
        ...

    def put_contents(self, key: str, note: str | None, order: str | None) -> None:
        """Keep the note and the order of an entry."""

    def wish(self, external_id: str) -> Wish | None:
        """Return what was ordered by a name."""
        ...

    def put_wish(self, wish: Wish) -> None:
        """Keep what was ordered by a name."""

    def drop_wish(self, external_id: str) -> None:
        """Forget a name under which nothing was made."""

    def member(self, name: str) -> Member | None:
        """Return a worker or a reader."""
        ...

    def put_member(self, member: Member) -> None:
        """Keep a worker or a reader."""

    def drop_member(self, name: str) -> None:
        """Forget a worker or a reader."""

    def members(self) -> list[Member]:
        """Return all workers and readers."""
        ...

    def is_dead(self, reader: Member, now: float) -> bool:
        """Whether a reader will never come back for what it has."""
        ...

    def ended_after(self, number: int) -> list[str]:
        """Return the keys of the last ends behind a number, in order."""
        ...

    def add_lesson(self, lesson: Lesson, keep: int) -> None:
        """Keep how long a task has taken, and the last ones before it."""

    def lessons_after(self, number: int) -> list[Lesson]:
        """Return what was kept after a number, in order."""
        ...


class Store(Protocol):
    """Keeps a book: each step is made whole or not at all, one after the other.

    Raises `BookError` where it cannot be reached; then the step may be sent again as it is.
    """

    async def open(self) -> None:
        """Get ready; what is there is checked."""

    def clock(self) -> float:
        """Return a time in s of this process that goes on while the machine sleeps."""
        ...

    async def turn(self, turn: Turn) -> Turned:
        """Make one step of a worker; the same `seq` gives the same answer."""
        ...

    async def take(self, take: Take) -> Taken:
        """Make one step of a reader; the same `seq` gives the same answer."""
        ...

    async def add(self, additions: Sequence[Addition]) -> list[bool]:
        """Keep ids; return which of them are new."""
        ...

    async def find(self, key: str) -> Found | None:
        """Return an entry by its key or its external id."""
        ...

    async def remove(self, key: str) -> bool:
        """Remove an entry; return whether it was there."""
        ...

    async def retry(self, key: str) -> bool:
        """Poll an unsettled end again, or hand a parked outcome out again."""
        ...

    async def nudge(self, key: str) -> bool:
        """Ask for an id soon; return whether it is open."""
        ...

    async def intend(self, intent: Intent) -> Known | None:
        """Keep that a task is about to be created; return what is known already of that wish."""
        ...

    async def created(self, external_id: str, made: Addition | None) -> None:
        """Keep which task an intent has made; None where it is certain that it made none."""

    async def progress(self) -> tuple[Desk, int]:
        """Return the counts, and how many workers there are."""
        ...

    async def list(self, after: str, limit: int) -> list[Found]:
        """Return entries by key, from the first behind one on, but for removed ones."""
        ...

    async def ended_after(self, number: int) -> tuple[int, Sequence[str]]:
        """Return the last number given, and the keys of the last ends behind another one.

        Some hundreds at least; what ended longer ago may be missing.
        """
        ...

    async def lessons_after(self, number: int) -> Sequence[Lesson]:
        """Return how long tasks have taken, as was kept after a number, in order."""
        ...

    async def changed(self, timeout_s: float) -> None:
        """Wait until something may have changed, by whomever, at most so long."""

    async def aclose(self) -> None:
        """Release everything; more calls do no harm."""


def plain_ids(keys: Iterable[str]) -> list[str]:
    """Return task ids and intents' external ids, without the mark of an intent."""
    return [key.removeprefix(INTENT) for key in keys]
