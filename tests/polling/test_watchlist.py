"""The ids of a session and those who wait for them: what is decided, without a clock."""

# What is kept, and when it is due, is only visible inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from random import Random
from typing import Any, TypeVar

import attrs
import pytest

from kling_omni_async import (
    AuthenticationError,
    ConfigurationError,
    ImageTask,
    InvalidTaskIdError,
    KlingOmniError,
    NoImagesError,
    PollPolicy,
    PollTimeoutError,
    RateLimitError,
    ResponseError,
    TaskNotFoundError,
    TaskOutcome,
    TaskStatus,
)
from kling_omni_async._api.answers import Answer, read_answer
from kling_omni_async._polling.limits import NEVER
from kling_omni_async._polling.stream import IdState, StreamState
from kling_omni_async._polling.verdicts import Reply, Verdict, VerdictKind
from kling_omni_async._polling.waiters import (
    Entry,
    QueryWaiter,
    ResultWaiter,
    UpdatesWaiter,
    Waiter,
)
from kling_omni_async._polling.watchlist import (
    FROZEN_S,
    GRACE_S,
    STEPS_PER_PASS,
    Decision,
    Told,
    Watchlist,
)
from kling_omni_async._results import End, Outlet
from kling_omni_async._stats import SessionStats

from . import scripted
from .scripted import (
    BAD_REQUEST,
    FAILED,
    IMAGELESS,
    NOT_FOUND,
    PENDING,
    RESET,
    SUBMITTED,
    SUCCEED,
    UNAUTHORIZED,
    WEB_PAGE,
)

pytestmark = pytest.mark.anyio

W = TypeVar("W", bound=Waiter)


class Shelf(Outlet):
    """An outlet whose outcomes can be looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.outcomes: list[TaskOutcome] = []

    def put(self, outcome: TaskOutcome) -> None:
        self.outcomes.append(outcome)


@attrs.define
class Desk:
    """A watchlist, who waits at it, and a clock that is set by hand."""

    watchlist: Watchlist
    now: float = 0.0
    looks: list[str] = attrs.Factory(list)

    # Who comes.

    def wait(self, task_id: str, *, timeout: float | None = None) -> ResultWaiter:
        return self._call(task_id, ResultWaiter(added=self.now, deadline=self._deadline(timeout)))

    def watch(self, task_id: str, *, timeout: float | None = None) -> UpdatesWaiter:
        return self._call(task_id, UpdatesWaiter(added=self.now, deadline=self._deadline(timeout)))

    def query(self, task_id: str) -> QueryWaiter:
        return self._call(task_id, QueryWaiter(added=self.now))

    def _call(self, task_id: str, waiter: W) -> W:
        self.tell(self.watchlist.call(task_id, waiter, self.now))
        return waiter

    def _deadline(self, timeout: float | None) -> float | None:
        return None if timeout is None else self.now + timeout

    def poll(self, *task_ids: str, timeout: float | None = None) -> StreamState:
        """Poll a list to its end."""
        stream = StreamState(task_ids, timeout=timeout, outlet=Shelf(), most_pending=9)
        stream.begin()
        for task_id in task_ids:
            self.admit(stream, task_id)
        stream.input_ended(None)
        return stream

    def feed(self, *task_ids: str, timeout: float | None = None) -> StreamState:
        """Poll what a feed has given so far."""
        stream = StreamState(endless(), timeout=timeout, outlet=Shelf(), most_pending=9)
        stream.begin()
        for task_id in task_ids:
            self.admit(stream, task_id)
        return stream

    def admit(self, stream: StreamState, given: object) -> None:
        self.tell(self.watchlist.admit(stream, given, self.now))

    # What happens.

    def tell(self, told: list[Told]) -> None:
        for waiter, entry, verdict in told:
            assert waiter.entry is None or not is_end(verdict)  # who gets an end has gone
            waiter.told(entry, verdict, self.now)
        self.watchlist.all_told()

    def start(self) -> Entry:
        entry = self.start_if_due()
        assert entry is not None
        return entry

    def start_if_due(self) -> Entry | None:
        entry, next_event = self.watchlist.next_query(self.now)
        assert next_event == self.watchlist.next_event()
        return entry

    def say(self, entry: Entry, answer: Answer | KlingOmniError) -> Decision:
        reply: Reply
        body = None
        if isinstance(answer, Answer):
            reply = read_answer(answer, entry.task_id, wall_s=0.0)
            body = answer.body
        else:
            reply = answer
        decision = self.watchlist.answered(entry, reply, body, self.now)
        self.tell(decision.told)
        return decision

    def ask(self, *answers: Answer | KlingOmniError) -> Entry:
        """Go to the next event for each answer, and give it there."""
        entry: Entry | None = None
        for answer in answers:
            self.now = max(self.now, self.watchlist.next_event())
            entry = self.start()
            self.say(entry, answer)
        assert entry is not None
        return entry

    def pass_time(self, now: float) -> int:
        """Go to a time, and note what is asked then; return how many got word of their time-out."""
        self.now = now
        due = self.watchlist.pass_time(now)
        self.looks = [entry.task_id for entry in due.queries]
        self.tell(due.told)
        assert due.next_event == self.watchlist.next_event()
        return len(due.told)

    # What is kept.

    def entry(self, task_id: str) -> Entry:
        return self.watchlist._entries[task_id]

    def due(self, *task_ids: str) -> list[float]:
        return [self.entry(task_id).when for task_id in task_ids]

    @property
    def ids(self) -> set[str]:
        return set(self.watchlist._entries)

    @property
    def watched(self) -> int:
        return self.watchlist._watched


async def endless() -> AsyncIterator[str]:
    """Be the source of a feed that is given by hand."""
    yield "never"


def is_end(verdict: Verdict) -> bool:
    """Whether a verdict says that nothing more will come."""
    return verdict.kind is VerdictKind.FINAL


def new_desk(**policy: Any) -> Desk:
    """Make a desk at 0 s with random pauses that repeat."""
    made = PollPolicy(**policy)
    return Desk(Watchlist(made, Random(1), limit=made.max_concurrency))


def error_of(waiter: ResultWaiter) -> KlingOmniError | None:
    """Return the error that a call of `wait` would raise."""
    result = waiter.result.result()
    assert isinstance(result, Verdict)
    return result.error


def timeout_of(waiter: ResultWaiter) -> PollTimeoutError:
    """Return the time-out of a call of `wait`."""
    error = error_of(waiter)
    assert isinstance(error, PollTimeoutError)
    return error


def updates_of(waiter: UpdatesWaiter) -> list[str]:
    """Take what a watch has not yet taken, by its words."""
    items = [waiter.updates.get_nowait() for _ in range(waiter.updates.qsize())]
    return [str(item.status) if isinstance(item, ImageTask) else "end" for item in items]


def outcomes_of(stream: StreamState) -> list[TaskOutcome]:
    """Take the outcomes of a stream that are ready."""
    assert isinstance(stream.outlet, Shelf)
    outcomes, stream.outlet.outcomes = stream.outlet.outcomes, []
    return outcomes


def answer_for(task_id: str) -> Answer:
    """Answer with a finished task that names an id."""
    body = json.loads(SUCCEED.body)
    body["data"]["task_id"] = task_id
    return scripted.answer(200, body)


# Coming.


async def test_a_newcomer_is_due_at_once() -> None:
    """The first query of a wait may start when it comes."""
    desk = new_desk()
    desk.wait("a")
    assert desk.watchlist.next_event() <= desk.now
    assert desk.start().task_id == "a"


async def test_all_who_wait_for_an_id_share_its_query() -> None:
    """One query serves a wait, a watch and a stream, and the id counts once."""
    desk = new_desk()
    waiter, watcher, stream = desk.wait("a"), desk.watch("a"), desk.poll("a")
    assert desk.watched == 1
    desk.ask(SUCCEED)
    assert error_of(waiter) is None
    assert updates_of(watcher) == ["succeed", "end"]
    assert [outcome.ok for outcome in outcomes_of(stream)] == [True]
    assert (desk.watched, desk.watchlist.schedule.starts) == (0, 1)


async def test_a_list_lays_its_first_queries_out() -> None:
    """The first id of a list is a newcomer, the others follow at the pace."""
    desk = new_desk(max_rate=4.0)
    desk.now = 10.0
    desk.poll(*"abcd")
    assert desk.start().task_id == "a"
    assert desk.due(*"bcd") == [10.25, 10.5, 10.75]


async def test_each_id_of_a_feed_is_a_newcomer() -> None:
    """What a feed brings goes ahead of the overdue; nothing of it is laid out."""
    desk = new_desk(max_rate=4.0)
    desk.feed("a", "b")
    assert desk.due("a", "b") == [NEVER, NEVER]
    assert desk.start().task_id == "a"


async def test_who_waits_for_a_place_far_ahead_gets_a_turn_at_once() -> None:
    """A wait, and a second list, put an id ahead of the place that a long list gave it."""
    desk = new_desk(max_rate=0.1, max_concurrency=9)
    desk.poll(*"abcde")
    assert desk.due("e") == [40.0]
    desk.wait("e", timeout=20.0)
    desk.poll("d", "c")
    assert desk.due("c") == [10.0]
    desk.now = 100.0
    assert {desk.start().task_id, desk.entry("d").flight} == {"a", None}
    desk.now = 110.0
    assert desk.start().task_id == "b"  # overdue ones have every second start
    desk.now = 120.0
    assert desk.start().task_id == "e"


async def test_a_second_list_does_not_send_an_id_back() -> None:
    """An id keeps the place that one list gave it when that is earlier than another's."""
    desk = new_desk(max_rate=0.1)
    desk.poll("a", "b")
    desk.poll("c", "d", "e", "b")
    assert desk.due("b") == [10.0]


async def test_an_id_keeps_the_turn_that_has_come() -> None:
    """Joining an id that is overdue neither sends it back nor takes a turn of a list."""
    desk = new_desk(max_rate=0.1)
    desk.poll("a", "b")
    desk.now = 10.0
    desk.wait("b")
    assert (desk.due("b"), len(desk.watchlist.schedule._newcomers)) == ([10.0], 1)
    stream = desk.poll("b", "c")
    assert (desk.due("b"), stream.turn) == ([10.0], 20.0)


async def test_a_malformed_id_becomes_an_outcome() -> None:
    """It comes out with the reason and without a query; the others are polled."""
    desk = new_desk()
    stream = desk.poll("not an id", "a")
    (outcome,) = outcomes_of(stream)
    assert isinstance(outcome.error, InvalidTaskIdError)
    assert (outcome.task_id, outcome.queries, desk.ids) == ("not an id", 0, {"a"})


async def test_nothing_is_admitted_to_a_stream_that_was_left() -> None:
    """What an input still gives when its stream is over is not polled."""
    desk = new_desk()
    stream = desk.feed("a")
    stream.cut(End())
    desk.admit(stream, "b")
    assert (set(stream.ids), desk.ids) == ({"a"}, {"a"})


# Going.


async def test_an_id_that_was_never_asked_for_is_forgotten() -> None:
    """Who leaves before the first query leaves nothing behind, and may leave twice."""
    desk = new_desk()
    waiter = desk.wait("a", timeout=60.0)
    desk.watchlist.leave(waiter)
    desk.watchlist.leave(waiter)
    assert (desk.ids, desk.watchlist.next_event(), desk.watched) == (set(), NEVER, 0)


async def test_one_who_leaves_leaves_the_others() -> None:
    """The id goes on for who still waits."""
    desk = new_desk()
    first, second = desk.wait("a"), desk.wait("a")
    desk.watchlist.leave(first)
    assert desk.watched == 1
    desk.ask(SUCCEED)
    assert (first.result.done(), error_of(second)) == (False, None)


async def test_an_id_keeps_its_pause_when_all_have_left() -> None:
    """Leaving and coming back never polls faster: the due time stays what it was."""
    desk = new_desk()
    waiter = desk.wait("a")
    due = desk.ask(PENDING).when
    desk.watchlist.leave(waiter)
    desk.now = 1.0
    desk.wait("a")
    desk.poll("a")
    assert desk.due("a") == [due]
    desk.now = due - 0.001
    assert desk.start_if_due() is None
    desk.now = due
    assert desk.start_if_due() is desk.entry("a")


async def test_the_pause_of_one_alone_is_its_own() -> None:
    """After a crowd of a thousand has left, an id is asked when its own pause is over."""
    desk = new_desk(interval=(0.3, 0.5), max_rate=100.0)
    stream = desk.poll(*map(str, range(1000)))
    desk.ask(*[PENDING] * 3)
    stream.cut(End())
    list(desk.watchlist.leaving(stream))
    desk.wait("2", timeout=5.0)
    (due,) = desk.due("2")
    assert desk.now + 0.3 <= due <= desk.now + 0.5
    desk.now = due
    assert desk.start_if_due() is desk.entry("2")


async def test_an_id_is_forgotten_when_its_pause_is_over() -> None:
    """What nobody waits for is not asked for, and not kept for ever."""
    desk = new_desk()
    waiter = desk.wait("a")
    desk.now = desk.ask(PENDING).when
    desk.watchlist.leave(waiter)
    assert desk.ids == {"a"}
    assert desk.start_if_due() is None
    assert (desk.ids, desk.watchlist.next_event()) == (set(), NEVER)


async def test_an_id_that_is_left_in_flight_keeps_the_answer() -> None:
    """The answer to a query that nobody waits for any more serves whoever comes back."""
    desk = new_desk()
    waiter = desk.wait("a")
    entry = desk.start()
    desk.watchlist.leave(waiter)
    desk.say(entry, SUCCEED)
    assert error_of(desk.wait("a")) is None


async def test_whoever_comes_back_gets_the_last_answer() -> None:
    """Within the pause `watch` gets the last answer, `wait` and a stream only a final one."""
    desk = new_desk()
    first = desk.wait("a")
    desk.ask(SUBMITTED)
    desk.watchlist.leave(first)
    watcher = desk.watch("a")
    assert updates_of(watcher) == ["submitted"]
    assert watcher.entry is desk.entry("a")
    assert not desk.wait("a").result.done()
    desk.ask(SUCCEED)
    assert updates_of(desk.watch("a")) == ["succeed", "end"]
    assert [outcome.queries for outcome in outcomes_of(desk.poll("a"))] == [0]
    assert (desk.watched, desk.watchlist._alarms.first) == (0, NEVER)


async def test_a_failed_task_is_a_last_answer_too() -> None:
    """Who comes back within the pause is told that the task has failed."""
    desk = new_desk()
    desk.wait("a")
    desk.ask(FAILED)
    assert str(error_of(desk.wait("a"))) == "the prompt was refused"


async def test_an_unconfirmed_last_answer_is_not_passed_on() -> None:
    """A success without images that nobody has confirmed is no answer for a newcomer."""
    desk = new_desk()
    desk.wait("a")
    desk.ask(IMAGELESS)
    assert updates_of(desk.watch("a")) == []
    assert not desk.wait("a").result.done()


async def test_a_stream_that_was_left_is_swept_id_by_id() -> None:
    """Its ids are let go one at each step; one that others wait for stays, whoever they are."""
    desk = new_desk(max_rate=None)
    stream, other = desk.poll("a", "b", "c"), desk.poll("b")
    desk.wait("c")
    waiters = list(stream.ids.values())
    stream.cut(End())
    steps = desk.watchlist.leaving(stream)
    next(steps)
    assert (desk.ids, desk.watched) == ({"b", "c"}, 2)
    assert len(list(steps)) == 2
    assert (desk.ids, desk.watched) == ({"b", "c"}, 2)
    assert set(stream.ids.items()) == {(each, IdState.UNREAD) for each in "abc"}
    assert all(isinstance(each, Waiter) and each.entry is None for each in waiters)
    assert set(other.ids) == {"b"}


async def test_what_is_in_the_outlet_is_not_swept() -> None:
    """Leaving a stream touches none of the ids whose outcomes are there."""
    desk = new_desk(max_rate=None)
    stream = desk.poll("a", "b")
    desk.ask(SUCCEED)
    stream.cut(End())
    list(desk.watchlist.leaving(stream))
    assert stream.ids == {"a": IdState.DONE, "b": IdState.UNREAD}


async def test_an_id_of_a_stream_that_was_left_is_not_asked_for() -> None:
    """Between leaving and the sweep no query is made, and a newcomer revives the id."""
    desk = new_desk()
    stream = desk.poll("a")
    stream.cut(End())
    assert desk.start_if_due() is None
    desk.wait("a")
    assert desk.start().task_id == "a"


async def test_a_crowd_that_was_left_is_passed_over_in_portions() -> None:
    """Other tasks have a turn between some hundreds of ids that nobody wants any more."""
    desk = new_desk(max_rate=None)
    stream = desk.feed(*map(str, range(STEPS_PER_PASS)))
    desk.wait("a")
    stream.cut(End())
    assert desk.start_if_due() is None
    assert desk.watchlist.next_event() <= desk.now
    assert desk.start().task_id == "a"


async def test_coming_and_going_for_ever_takes_no_memory() -> None:
    """Ten thousand waits that come and go leave no entries and a handful of rows."""
    desk = new_desk()
    for number in range(10_000):
        desk.watchlist.leave(desk.wait(f"id-{number % 7}", timeout=60.0))
    schedule = desk.watchlist.schedule
    assert (desk.ids, len(schedule._newcomers), len(schedule._dues)) == (set(), 0, 0)
    assert len(desk.watchlist._alarms._rows) <= 70


# Queries by hand.


async def test_a_query_by_hand_is_shared_with_all() -> None:
    """Everybody who asks gets its reply, those who wait too, and the pause starts anew."""
    desk = new_desk(max_rate=None)
    waiter = desk.wait("a")
    desk.ask(PENDING)
    desk.now = 10.0
    calls = [desk.query("a") for _ in range(2)]
    desk.say(desk.start(), SUCCEED)
    assert all(isinstance(call.result.result(), ImageTask) for call in calls)
    assert error_of(waiter) is None
    assert 30.0 <= desk.entry("a").when <= 40.0


async def test_a_query_by_hand_joins_the_one_in_flight() -> None:
    """No second query is made for an id that is being asked for."""
    desk = new_desk(max_rate=None)
    desk.wait("a")
    entry = desk.start()
    call = desk.query("a")
    assert desk.start_if_due() is None
    desk.say(entry, PENDING)
    assert isinstance(call.result.result(), ImageTask)
    assert (call.entry, desk.watched) == (None, 1)


async def test_a_query_by_hand_never_gets_the_last_answer() -> None:
    """Who asks by hand wants to know how it is now."""
    desk = new_desk(max_rate=None)
    desk.wait("a")
    desk.ask(SUCCEED)
    call = desk.query("a")
    assert not call.result.done()
    assert desk.start().task_id == "a"


async def test_a_query_that_all_have_left_is_not_sent() -> None:
    """It is taken back when the last one who asked has gone, and only then."""
    desk = new_desk()
    first, second = desk.query("a"), desk.query("a")
    desk.watchlist.leave(first)
    assert desk.watchlist.next_event() < NEVER
    desk.watchlist.leave(second)
    desk.watchlist.leave(second)
    assert (desk.watchlist.next_event(), desk.ids) == (NEVER, set())


async def test_a_query_taken_back_leaves_the_schedule_alone() -> None:
    """Who waits for the id goes on waiting for its turn."""
    desk = new_desk()
    desk.wait("a")
    desk.watchlist.leave(desk.query("a"))
    assert desk.start().task_id == "a"


async def test_who_stops_waiting_takes_no_query_back() -> None:
    """A wait that ends leaves the query that somebody asked for by hand."""
    desk = new_desk()
    call, waiter = desk.query("a"), desk.wait("a")
    desk.watchlist.leave(waiter)
    desk.say(desk.start(), PENDING)
    assert isinstance(call.result.result(), ImageTask)


async def test_a_query_that_is_left_in_flight_can_be_asked_again() -> None:
    """After all have left one in flight, the next who asks still gets its answer."""
    desk = new_desk()
    first = desk.query("a")
    entry = desk.start()
    desk.watchlist.leave(first)
    second = desk.query("a")
    desk.say(entry, PENDING)
    assert not first.result.done()
    assert isinstance(second.result.result(), ImageTask)


async def test_a_query_by_hand_gets_what_is_not_believed_yet() -> None:
    """`query` confirms nothing: the first refusal is its answer."""
    desk = new_desk()
    waiter, call = desk.wait("a"), desk.query("a")
    desk.ask(NOT_FOUND)
    assert isinstance(call.result.result(), TaskNotFoundError)
    assert not waiter.result.done()


# What a reply does.


@pytest.mark.parametrize("answer", [RESET, PENDING, NOT_FOUND], ids=["fault", "task", "doubt"])
async def test_every_answer_costs_one_pause_from_its_end(
    answer: Answer | KlingOmniError,
) -> None:
    """Whatever came, the id is due a pause after it came, and nobody's waiting has ended."""
    desk = new_desk()
    waiter = desk.wait("a")
    entry = desk.start()
    desk.now = 14.0
    decision = desk.say(entry, answer)
    assert 34.0 <= entry.when <= 44.0
    assert (entry.flight, entry.queries, decision.told, decision.pause_s) == (None, 1, [], 0.0)
    assert not waiter.result.done()


async def test_a_refusal_ends_its_id_alone() -> None:
    """What the API will say again is the end of one id and of no other."""
    desk = new_desk(max_rate=None)
    waiter, other = desk.wait("a"), desk.wait("b")
    entry = desk.start()
    decision = desk.say(entry, BAD_REQUEST)
    assert decision.verdict.error is decision.reply is error_of(waiter)
    assert (decision.ends_all, other.result.done()) == (False, False)
    assert (entry.fault, entry.unconfirmed) == (None, None)


async def test_pauses_are_not_stretched() -> None:
    """However many ids there are, a pause is drawn from the interval."""
    desk = new_desk(max_rate=0.01)
    desk.poll(*"abcdef")
    entry = desk.ask(PENDING)
    assert 20.0 <= entry.when - desk.now <= 30.0


@pytest.mark.parametrize(
    ("count", "rate", "stretch"), [(2, 0.1, 1.0), (3, 0.1, 1.2), (5, 0.1, 2.0), (9, None, 1.0)]
)
async def test_tells_by_how_much_gaps_have_grown(
    count: int, rate: float | None, stretch: float
) -> None:
    """The ids that are watched, over those that the pace carries in a mean interval."""
    desk = new_desk(max_rate=rate)
    stream = desk.poll(*map(str, range(count)))
    assert desk.watchlist.stretch == stretch
    assert desk.say(desk.start(), PENDING).stretch == stretch
    stream.cut(End())
    list(desk.watchlist.leaving(stream))
    assert desk.watchlist.stretch == 1.0


@pytest.mark.parametrize("word", [NOT_FOUND, IMAGELESS], ids=["not found", "no images"])
@pytest.mark.parametrize("confirmations", [1, 2, 3])
async def test_a_word_is_believed_when_it_was_said_often_enough(
    word: Answer, confirmations: int
) -> None:
    """It takes as many in a row as the policy says, and faults between do not count."""
    desk = new_desk(confirmations=confirmations)
    waiter = desk.wait("a")
    for _ in range(confirmations - 1):
        desk.ask(word, RESET)
        assert not waiter.result.done()
    desk.ask(word)
    assert isinstance(error_of(waiter), NoImagesError | TaskNotFoundError)


@pytest.mark.parametrize(
    "between", [PENDING, IMAGELESS], ids=["an answer", "a doubt of another kind"]
)
async def test_doubts_count_only_in_a_row(between: Answer) -> None:
    """Another word between two doubtful ones makes the second one a first."""
    desk = new_desk()
    waiter = desk.wait("a")
    desk.ask(NOT_FOUND, between, NOT_FOUND)
    assert not waiter.result.done()
    desk.ask(NOT_FOUND)
    assert isinstance(error_of(waiter), TaskNotFoundError)


@pytest.mark.parametrize(("apart", "believed"), [(19.9, False), (20.0, True)])
async def test_answers_within_one_pause_count_as_one(apart: float, *, believed: bool) -> None:
    """Asking by hand in between does not make a doubtful word believed sooner."""
    desk = new_desk()
    waiter = desk.wait("a")
    desk.ask(NOT_FOUND)
    desk.now = apart
    desk.query("a")
    desk.say(desk.start(), NOT_FOUND)
    assert waiter.result.done() is believed


async def test_a_final_error_carries_the_last_task() -> None:
    """An id that vanished comes out with what was last seen of it."""
    desk = new_desk()
    stream = desk.poll("a")
    desk.ask(PENDING, NOT_FOUND, NOT_FOUND)
    (outcome,) = outcomes_of(stream)
    assert isinstance(outcome.error, TaskNotFoundError)
    assert outcome.task is not None
    assert (outcome.task.status, outcome.queries) == (TaskStatus.PROCESSING, 3)


async def test_watch_follows_what_is_not_final() -> None:
    """A watch hears of each task that is being worked on, but of no doubt and no fault."""
    desk = new_desk()
    watcher = desk.watch("a")
    desk.ask(SUBMITTED, IMAGELESS, RESET, PENDING, SUCCEED)
    assert updates_of(watcher) == ["submitted", "processing", "succeed", "end"]


async def test_a_429_holds_all_ids_back() -> None:
    """No id is due before the end of the pause that one of them has met, and one goes first."""
    desk = new_desk(interval=(60.0, 60.0), max_rate=None)
    desk.wait("a")
    desk.wait("b")
    desk.wait("c")
    decision = desk.say(desk.start(), scripted.limited("40"))
    assert (decision.pause_s, desk.watchlist.next_event()) == (40.0, 40.0)
    desk.now = 40.0
    entry = desk.start()
    assert (entry.task_id, desk.start_if_due()) == ("b", None)
    assert desk.say(entry, RESET).pause_s == 0.0  # it says nothing of the limit: another probe
    entry = desk.start()
    assert (entry.task_id, desk.start_if_due()) == ("c", None)
    desk.say(entry, PENDING)
    desk.now = 100.0
    assert [desk.start().task_id for _ in "abc"] == ["a", "b", "c"]


# Whose answer it is.


async def test_an_answer_about_another_watched_id_is_refused() -> None:
    """Another id's images, sent unasked on an idle connection, are nobody's success."""
    desk = new_desk(max_rate=None)
    first, second = desk.wait("a"), desk.wait("b")
    decision = desk.say(desk.start(), PENDING)
    assert (decision.foreign_id, decision.ends_all) == (None, False)
    decision = desk.say(desk.start(), answer_for("a"))
    error = decision.reply
    assert decision.foreign_id == "a"
    assert isinstance(error, ResponseError)
    assert str(error) == "the answer is about task 'a', which is polled here too"
    assert (error.task_id, error.http_status) == ("b", 200)
    assert (first.result.done(), second.result.done(), decision.ends_all) == (False, False, False)
    assert (desk.entry("b").last_task(), desk.entry("b").fault) == (None, error)


@pytest.mark.parametrize(("named", "foreign"), [("a", None), ("b", "b")])
async def test_an_id_that_nobody_watches_may_stand_in_an_answer(
    named: str, foreign: str | None
) -> None:
    """Gateways put their provider's id there; the id that was asked for is as good."""
    desk = new_desk()
    waiter = desk.wait("a")
    desk.ask(PENDING)
    desk.now = desk.watchlist.next_event()
    decision = desk.say(desk.start(), answer_for(named))
    assert (decision.foreign_id, decision.ends_all) == (foreign, False)
    assert error_of(waiter) is None


# The set-up.


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (UNAUTHORIZED, AuthenticationError),
        (WEB_PAGE, ResponseError),
        (ConfigurationError("the given aiohttp session was closed"), ConfigurationError),
    ],
    ids=["key", "web page", "aiohttp session"],
)
async def test_a_wrong_setup_ends_all_waiting(
    answer: Answer | KlingOmniError, kind: type[KlingOmniError]
) -> None:
    """It is said so, and only who asked by hand is told: that is his answer in any case."""
    desk = new_desk(max_rate=None)
    waiter, watcher, stream = desk.wait("a"), desk.watch("a"), desk.poll("a")
    call, other = desk.query("a"), desk.query("b")
    decision = desk.say(desk.start(), answer)
    assert decision.ends_all
    assert isinstance(decision.verdict.error, kind)
    assert call.result.result() is decision.verdict.error
    assert [told[0] for told in decision.told] == [call]
    assert (waiter.result.done(), updates_of(watcher), outcomes_of(stream)) == (False, [], [])
    assert (other.result.done(), desk.watched) == (False, 2)


async def test_a_wrong_setup_is_no_timeout() -> None:
    """A 401 in the grace of a wait ends it as what it is."""
    desk = new_desk()
    waiter = desk.wait("a", timeout=0.0)
    entry = desk.start()
    desk.pass_time(0.0)
    desk.now = 2.0
    assert desk.say(entry, UNAUTHORIZED).ends_all
    assert list(desk.watchlist.ending(2.0, queries=False)) == [(waiter, "a")]


async def test_a_401_that_lasts_ends_all_waiting() -> None:
    """Once the API has answered it takes a second one to a query an interval later."""
    desk = new_desk()
    desk.wait("a")
    desk.ask(PENDING, UNAUTHORIZED)
    desk.now += 1.0
    desk.query("b")
    assert not desk.say(desk.start(), UNAUTHORIZED).ends_all
    desk.now = desk.watchlist.next_event()
    assert desk.say(desk.start(), UNAUTHORIZED).ends_all


async def test_ending_returns_all_who_wait() -> None:
    """Each is returned with his id, one at each step; nothing is kept of who is let go."""
    desk = new_desk()
    first, second = desk.wait("a", timeout=60.0), desk.watch("a")
    call, stream = desk.query("b"), desk.poll("c", timeout=60.0)
    of_stream = stream.ids["c"]
    stream.cut(End())  # as each is told before its waiters are let go
    steps = desk.watchlist.ending(NEVER, queries=True)
    assert next(steps) == (first, "a")
    rest = list(steps)
    assert rest == [(second, "a"), (call, "b"), (of_stream, "c")]
    for waiter in (first, *(each for each, _ in rest)):
        desk.watchlist.leave(waiter)
    assert (desk.ids, desk.watched, desk.watchlist.next_event()) == (set(), 0, NEVER)


async def test_ending_returns_who_was_let_go_but_not_told() -> None:
    """A defect between the two leaves nobody waiting; who was told is not told again."""
    desk = new_desk()
    waiter = desk.wait("a")
    reply = read_answer(SUCCEED, "a", wall_s=0.0)
    decision = desk.watchlist.answered(desk.start(), reply, SUCCEED.body, desk.now)
    assert [told[0] for told in decision.told] == [waiter]
    assert list(desk.watchlist.ending(NEVER, queries=True)) == [(waiter, "a")]
    desk.watchlist.all_told()
    assert list(desk.watchlist.ending(NEVER, queries=True)) == []


async def test_ending_leaves_who_came_later_and_who_asks_by_hand() -> None:
    """An end concerns those who waited then, and leaves calls of `query` their own answers."""
    desk = new_desk()
    desk.now = 5.0
    waiter = desk.wait("a")
    desk.query("a")
    desk.now = 5.001
    desk.wait("a")
    assert list(desk.watchlist.ending(5.0, queries=False)) == [(waiter, "a")]


# Deadlines.


async def test_a_deadline_ends_a_wait() -> None:
    """It says what was last seen, and that the last query was answered."""
    desk = new_desk()
    desk.now = 1.0
    waiter = desk.wait("a", timeout=10.0)
    desk.ask(PENDING)
    assert desk.watchlist.next_event() == 11.0
    assert desk.pass_time(10.999) == 0
    assert desk.pass_time(11.0) == 1
    error = timeout_of(waiter)
    assert (error.task_id, error.last_error) == ("a", None)
    assert error.task is not None
    assert error.task.status is TaskStatus.PROCESSING
    assert waiter.result.result() == Verdict(VerdictKind.FINAL, error.task, error)
    assert str(error) == "no final answer in 10.0 s; its status was processing"
    assert (desk.watched, desk.ids) == (0, {"a"})


async def test_a_deadline_forgets_what_was_never_asked() -> None:
    """An id whose only wait ends before its first query leaves nothing behind."""
    desk = new_desk(max_concurrency=1)
    desk.wait("a")
    desk.start()
    desk.wait("b", timeout=9.0)
    assert desk.pass_time(9.0) == 1
    assert (desk.ids, desk.watchlist.next_event()) == ({"a"}, NEVER)


async def test_a_deadline_tells_of_the_last_fault() -> None:
    """It tells "the API is down" from "the task is still being worked on"."""
    desk = new_desk()
    waiter = desk.wait("a", timeout=10.0)
    desk.ask(RESET)
    desk.pass_time(10.0)
    error = timeout_of(waiter)
    assert (error.last_error, error.task) == (RESET, None)
    text = "no final answer in 10.0 s; its status was never seen; last fault: reset by peer"
    assert str(error) == text


async def test_a_deadline_tells_of_a_doubt() -> None:
    """A refusal that nobody has confirmed is the last fault, until another answer comes."""
    desk = new_desk()
    desk.wait("b")
    desk.ask(SUBMITTED)
    first, second = desk.wait("a", timeout=25.0), desk.wait("a", timeout=55.0)
    desk.now = 0.01
    desk.say(desk.start(), NOT_FOUND)
    assert isinstance(desk.entry("a").fault, TaskNotFoundError)
    desk.pass_time(15.0)
    desk.query("a")
    desk.say(desk.start(), PENDING)
    assert (first.result.done(), second.result.done()) == (False, False)
    assert desk.entry("a").fault is None


async def test_a_deadline_tells_that_the_pace_held_the_id_back() -> None:
    """More ids were due than the policy carries: the id was not asked although it was its turn."""
    desk = new_desk(max_rate=0.1, max_concurrency=7)
    desk.wait("a")
    desk.start()
    waiter = desk.wait("b", timeout=5.0)
    desk.pass_time(5.0)
    error = timeout_of(waiter)
    held = "more ids were due than max_rate=0.1 and max_concurrency=7 carry"
    assert str(error) == (f"no final answer in 5.0 s; its status was never seen; held back: {held}")
    assert type(error.last_error) is KlingOmniError
    assert (str(error.last_error), error.last_error.task_id) == (held, "b")


async def test_a_deadline_tells_that_a_429_held_the_id_back() -> None:
    """The API's own words are the last error, as they concern this id too."""
    desk = new_desk(max_rate=None)
    desk.wait("a")
    waiter = desk.wait("b", timeout=5.0)
    desk.say(desk.start(), scripted.limited("40"))
    desk.pass_time(5.0)
    error = timeout_of(waiter)
    assert isinstance(error.last_error, RateLimitError)
    assert (error.last_error.task_id, error.last_error.retry_after) == ("b", 40.0)
    assert str(error).endswith(f"never seen; held back: {error.last_error}")


async def test_a_429_that_is_over_holds_nothing_back() -> None:
    """After its pause it is the pace again that an id waits for."""
    desk = new_desk(max_rate=0.1)
    desk.wait("a")
    desk.say(desk.start(), scripted.limited("5"))
    waiter = desk.wait("b", timeout=5.0)
    assert (desk.pass_time(5.0), desk.looks) == (1, [])
    assert type(timeout_of(waiter).last_error) is KlingOmniError


async def test_a_fault_counts_more_than_what_held_the_id_back() -> None:
    """Both are told, and the fault is the last error."""
    desk = new_desk(interval=(1.0, 1.0), max_rate=0.25)
    waiter = desk.wait("a", timeout=3.0)
    desk.ask(RESET)
    desk.pass_time(3.0)
    error = timeout_of(waiter)
    assert error.last_error is RESET
    assert "last fault: reset by peer; held back: more ids were due" in str(error)


async def test_what_was_just_asked_was_not_held_back() -> None:
    """A wait that ends with its query's answer is told nothing of the pace."""
    desk = new_desk(interval=(0.0, 1e-300))
    waiter = desk.wait("a", timeout=1.0)
    entry = desk.start()
    desk.now = 1.0
    desk.say(entry, PENDING)
    assert timeout_of(waiter).last_error is None


@pytest.mark.parametrize(
    ("answer", "kind"),
    [(SUCCEED, type(None)), (PENDING, PollTimeoutError), (RESET, PollTimeoutError)],
    ids=["succeed", "pending", "fault"],
)
async def test_a_query_in_flight_may_run_on(
    answer: Answer | KlingOmniError, kind: type[object]
) -> None:
    """A final answer within the grace wins; any other one ends the wait at once."""
    desk = new_desk()
    waiter = desk.wait("a", timeout=10.0)
    entry = desk.start()
    desk.pass_time(10.0)
    assert not waiter.result.done()
    desk.now = 12.0
    desk.say(entry, answer)
    assert isinstance(error_of(waiter), kind)


async def test_an_answer_at_the_deadline_is_the_last() -> None:
    """A watch whose time is up with an answer gets that answer, then the end."""
    desk = new_desk()
    watcher, stays = desk.watch("a", timeout=10.0), desk.watch("a", timeout=10.001)
    entry = desk.start()
    desk.now = 10.0
    desk.say(entry, PENDING)
    assert updates_of(watcher) == ["processing", "end"]
    assert updates_of(stays) == ["processing"]


async def test_the_grace_is_five_seconds() -> None:
    """After it a wait ends though its query is still under way."""
    desk = new_desk()
    waiter = desk.wait("a", timeout=10.0)
    desk.start()
    assert desk.pass_time(10.0) == 0
    assert desk.watchlist.next_event() == 10.0 + GRACE_S == 15.0
    desk.pass_time(15.0)
    text = "no final answer in 15.0 s; its status was never seen"
    assert str(timeout_of(waiter)) == text


async def test_a_wait_without_time_has_its_grace() -> None:
    """It asks once, and gives up five seconds later, at whatever time that is."""
    desk = new_desk()
    waiter = desk.wait("a", timeout=0.0)
    assert (desk.pass_time(0.0), desk.looks) == (0, ["a"])
    assert desk.watchlist.next_event() == GRACE_S
    desk.say(desk.entry("a"), SUCCEED)
    assert error_of(waiter) is None


async def test_each_wait_has_its_own_deadline() -> None:
    """One that times out leaves the others of the same id alone."""
    desk = new_desk()
    short, long = desk.wait("a", timeout=10.0), desk.wait("a", timeout=50.0)
    desk.ask(PENDING)
    desk.pass_time(10.0)
    assert (short.result.done(), long.result.done(), desk.watched) == (True, False, 1)


async def test_no_id_of_a_stream_times_out_without_a_query() -> None:
    """A first query that outlives the deadline is waited for, however long it takes."""
    desk = new_desk()
    stream = desk.poll("a", timeout=1.0)
    entry = desk.start()
    desk.pass_time(1.0)
    assert desk.watchlist.next_event() == NEVER  # its answer or its time limit will come
    desk.now = 14.0
    desk.say(entry, RESET)
    (outcome,) = outcomes_of(stream)
    assert isinstance(outcome.error, PollTimeoutError)
    assert (outcome.queries, outcome.elapsed) == (1, 14.0)


async def test_an_id_of_a_stream_has_its_grace() -> None:
    """A second query in flight at the deadline gets five seconds, not more."""
    desk = new_desk(interval=(20.0, 20.0))
    stream = desk.poll("a", timeout=25.0)
    desk.ask(PENDING)
    desk.now = 20.0
    desk.start()
    desk.pass_time(25.0)
    desk.pass_time(29.999)
    assert outcomes_of(stream) == []
    desk.pass_time(30.0)
    assert len(outcomes_of(stream)) == 1


async def test_who_joins_a_query_in_flight_has_his_time_from_then() -> None:
    """The time of a stream's id runs from a query that was already under way."""
    desk = new_desk()
    desk.wait("a")
    entry = desk.start()
    desk.now = 3.0
    stream = desk.poll("a", timeout=5.0)
    desk.say(entry, PENDING)
    desk.pass_time(8.0)
    assert [outcome.queries for outcome in outcomes_of(stream)] == [1]


async def test_one_alarm_serves_a_whole_stream() -> None:
    """It is set for the first deadline, and moves on past ids that are done."""
    desk = new_desk(interval=(500.0, 500.0), max_rate=None)
    stream = desk.poll("a", "b", "c", timeout=60.0)
    for answer in (PENDING, SUCCEED, PENDING):
        desk.say(desk.start(), answer)
        desk.now += 1.0
    assert (len(desk.watchlist._alarms), stream.when) == (1, 60.0)
    assert desk.pass_time(60.0) == 1
    assert stream.when == 62.0
    assert desk.pass_time(62.0) == 1
    assert [outcome.task_id for outcome in outcomes_of(stream)] == ["b", "a", "c"]
    assert len(desk.watchlist._alarms) == 0


async def test_the_alarm_of_one_who_is_done_ends_nobody_else() -> None:
    """The next deadline of a stream is kept when the one before it needs no alarm any more."""
    desk = new_desk(interval=(500.0, 500.0), max_rate=None)
    stream = desk.feed("a", "b", timeout=100.0)
    first = desk.start()
    desk.now = 50.0
    second = desk.start()
    desk.say(first, SUCCEED)
    desk.say(second, PENDING)
    assert stream.when == 100.0
    assert desk.pass_time(100.0) == 0
    assert desk.pass_time(149.9) == 0
    assert desk.pass_time(150.0) == 1


async def test_many_deadlines_at_once_are_taken_in_portions() -> None:
    """Other tasks have a turn between some hundreds of waits that time out together."""
    desk = new_desk()
    desk.wait("a")
    desk.ask(PENDING)
    waiters = [desk.wait("a", timeout=5.0) for _ in range(STEPS_PER_PASS + 1)]
    assert desk.pass_time(5.0) == STEPS_PER_PASS
    assert desk.watchlist.next_event() <= desk.now
    assert desk.pass_time(5.0) == 1
    assert all(waiter.result.done() for waiter in waiters)


# A process that stood still.


@pytest.mark.parametrize(("late", "look_ends"), [(FROZEN_S, 7.0), (1.5, 8.5), (60.0, 67.0)])
async def test_after_a_freeze_the_query_in_flight_may_still_bring_its_answer(
    late: float, look_ends: float
) -> None:
    """What comes later than an alarm ever does has stood still: its answer may be there."""
    desk = new_desk()
    waiter = desk.wait("a", timeout=2.0)
    entry = desk.start()
    desk.pass_time(2.0 + late)
    assert desk.watchlist.next_event() == look_ends
    desk.say(entry, SUCCEED)
    assert error_of(waiter) is None


async def test_after_a_freeze_an_overdue_id_is_looked_at_once() -> None:
    """Its query starts before anything times out, and has the whole grace from then."""
    desk = new_desk(interval=(1.0, 1.0))
    waiter = desk.wait("a", timeout=2.0)
    desk.ask(PENDING)
    assert (desk.pass_time(10.0), desk.looks) == (0, ["a"])
    assert desk.watchlist.next_event() == 10.0 + GRACE_S
    desk.say(desk.entry("a"), SUCCEED)
    assert error_of(waiter) is None


async def test_after_a_freeze_one_who_has_to_queue_gets_his_look() -> None:
    """Of many that are overdue each has the grace to get his turn; then his time is up."""
    desk = new_desk(interval=(3.0, 3.0), max_rate=0.5)
    first, second = desk.wait("a", timeout=6.0), desk.wait("b", timeout=6.0)
    desk.ask(PENDING, PENDING)
    assert (desk.pass_time(10.0), desk.looks) == (0, ["a"])
    assert (desk.pass_time(12.0), desk.looks) == (0, ["b"])
    desk.say(desk.entry("b"), SUCCEED)
    assert error_of(second) is None
    assert desk.pass_time(15.0) == 1
    assert isinstance(error_of(first), PollTimeoutError)


async def test_after_a_freeze_nothing_is_asked_before_its_pause_is_over() -> None:
    """An id whose turn has not come was not kept from being asked: its time is up."""
    desk = new_desk()
    waiter = desk.wait("a", timeout=2.0)
    desk.ask(PENDING)
    assert (desk.pass_time(10.0), desk.looks) == (1, [])
    assert timeout_of(waiter).last_error is None


@pytest.mark.parametrize(
    ("interval", "now"),
    [((3.0, 3.0), 10.0), ((5.0, 5.0), 10.0), ((3.0, 4.9), 4.0)],
    ids=["soon", "at the end of the grace", "after the shortest pause"],
)
async def test_an_answer_from_before_a_freeze_is_no_last_look(
    interval: tuple[float, float], now: float
) -> None:
    """More would have been asked in that time: the wait goes on to the look that is due soon."""
    desk = new_desk(interval=interval)
    waiter = desk.wait("a", timeout=2.0)
    entry = desk.start()
    desk.now = now
    desk.say(entry, PENDING)
    assert not waiter.result.done()
    desk.ask(SUCCEED)
    assert error_of(waiter) is None


@pytest.mark.parametrize(
    ("noticed", "answered", "ends"),
    [(10.0, 10.5, False), (2.5, 3.5, True)],
    ids=["of a freeze", "of a query"],
)
async def test_an_answer_within_a_grace_is_the_last_look_where_nothing_stood_still(
    noticed: float, answered: float, *, ends: bool
) -> None:
    """After a standstill the wait goes on to the look that is due soon."""
    desk = new_desk(interval=(3.0, 3.0))
    waiter = desk.wait("a", timeout=2.0)
    entry = desk.start()
    assert desk.pass_time(noticed) == 0
    desk.now = answered
    desk.say(entry, PENDING)
    assert waiter.result.done() is ends


@pytest.mark.parametrize(
    ("interval", "started", "now"),
    [((3.0, 3.0), 1.0, 4.0), ((5.5, 5.5), 0.0, 10.0), ((1.0, 1.0), 0.0, 2.0 + FROZEN_S)],
    ids=["within a pause", "next look is too late", "no standstill"],
)
async def test_after_a_freeze_without_a_look_to_come_a_wait_ends(
    interval: tuple[float, float], started: float, now: float
) -> None:
    """Nothing more would have been asked, or the next look is farther away than a grace."""
    desk = new_desk(interval=interval)
    waiter = desk.wait("a", timeout=2.0)
    desk.now = started
    entry = desk.start()
    desk.now = now
    desk.say(entry, PENDING)
    assert isinstance(error_of(waiter), PollTimeoutError)


async def test_at_a_moment_all_starts_that_can_be_made_are_made() -> None:
    """Of those that are due as many as the limit carries, in their order."""
    desk = new_desk(max_rate=None, max_concurrency=3)
    for task_id in "abcd":
        desk.wait(task_id)
    assert (desk.pass_time(0.0), desk.looks) == (0, ["a", "b", "c"])


# What is shown.


async def test_says_in_one_line_how_it_is() -> None:
    """The repr tells how many ids there are, and how many somebody waits for."""
    desk = new_desk()
    desk.wait("a")
    desk.watchlist.leave(desk.wait("b"))
    text = "<Watchlist ids=1 watched=1 <Schedule in_flight=0 due=0 newcomers=1 asked=0>>"
    assert repr(desk.watchlist) == text


def stats_beside(count: int) -> tuple[SessionStats, int]:
    """Look at some ids, while the first is asked; return the steps it took too."""
    desk = new_desk(max_rate=10.0, interval=(20, 30), timeout=None)
    desk.now = 3.0
    desk.poll(*map(str, range(count)))
    desk.start()
    desk.now = 3.04
    steps: list[object] = []

    def profile(_: object, event: str, function: object) -> None:
        if event in {"call", "c_call"}:
            steps.append(function)

    sys.setprofile(profile)
    stats = desk.watchlist.stats(desk.now)
    sys.setprofile(None)
    return stats, len(steps)


async def test_stats_look_at_no_id() -> None:
    """They take as many steps beside 200 ids as beside three."""
    (_, steps), (_, as_many) = map(stats_beside, (3, 200))
    assert steps == as_many


async def test_stats_tell_of_all_ids() -> None:
    """They tell queries, flights, the next turn and the longest wait, beside many ids too."""
    (few, _), (many, _) = map(stats_beside, (3, 200))
    assert attrs.evolve(many, watched=3) == few
    assert (few.queries, few.in_flight, few.stretch) == (1, 1, 1.0)
    assert [few.oldest, few.next_query] == pytest.approx([0.04, 0.06])


async def test_stats_tell_by_how_much_gaps_are_longer_than_intervals() -> None:
    """Where there are more ids than turns."""
    desk = new_desk(max_rate=0.1, interval=(20, 30))
    desk.poll(*"abcde")
    assert desk.watchlist.stats(0.0).stretch == 2.0


async def test_stats_of_nothing() -> None:
    """With nothing to do there is no next turn; a turn that has come is now."""
    desk = new_desk()
    stats = desk.watchlist.stats(0.0)
    assert (stats.oldest, stats.next_query, stats.queries) == (None, None, 0)
    desk.wait("1")
    desk.now = 3.0
    assert desk.watchlist.stats(3.0).next_query == 0.0
    desk.ask(SUCCEED)
    assert desk.watchlist.stats(3.0).oldest is None


async def test_stats_tell_how_long_all_is_held_and_which_faults_there_were() -> None:
    """Faults by their kind; the pause from now to its end, and none when it is over."""
    desk = new_desk(max_rate=None)
    for task_id in "abc":
        desk.wait(task_id)
    for reply in (RESET, RESET, RateLimitError("slow", http_status=429, retry_after=8.0)):
        desk.say(desk.start(), reply)
    stats = [desk.watchlist.stats(now) for now in (0.0, 3.0, 8.0, 20.0)]
    assert [each.throttled for each in stats] == [8.0, 5.0, 0.0, 0.0]
    assert stats[0].faults == {"TransportError (reset)": 2, "RateLimitError (HTTP 429)": 1}
    assert stats[0].faults is not desk.watchlist.faults
    assert desk.watchlist.stats(0.0, others_next=2.5).next_query == 2.5


async def test_the_longest_wait_is_that_of_who_came_first() -> None:
    """Also where others have come since."""
    desk = new_desk()
    desk.wait("a")
    desk.now = 3.0
    desk.wait("b")
    assert desk.watchlist.oldest_s(5.0) == 5.0


# What is known of a task, and callbacks.


async def test_the_last_that_is_known_of_a_task() -> None:
    """Its last answer, else what its create said, else nothing."""
    desk = new_desk()
    watchlist = desk.watchlist
    assert watchlist.peek("a", 0.0) is None
    desk.wait("a")
    assert watchlist.peek("a", 0.0) is None
    created = ImageTask(task_id="b", status=TaskStatus.SUBMITTED)
    watchlist.planner.own.add(created, 0.0, None)
    assert watchlist.peek("b", 10.0) is created
    assert watchlist.peek("b", 10_000.0) is None
    desk.ask(PENDING)
    known = watchlist.peek("a", 1.0)
    assert known is not None
    assert (known.task_id, known.status) == ("a", TaskStatus.PROCESSING)


async def test_an_answer_tells_how_old_its_task_is() -> None:
    """By the date in its headers: from then on its age is known."""
    desk = new_desk(interval=(20, 30))
    desk.wait("a")
    desk.now = 100.0
    created = datetime(2026, 5, 3, 3, 9, 37, tzinfo=UTC)
    task = ImageTask(task_id="a", status=TaskStatus.PROCESSING, created_at=created)
    date = {"Date": "Sun, 03 May 2026 03:09:47 GMT"}
    decision = desk.watchlist.answered(desk.start(), task, b"", 101.0, date)
    assert not decision.gives_up_callbacks
    assert desk.entry("a").born == 101.0 - 10.5


async def test_how_long_a_task_needs_still() -> None:
    """Known of an own task, by its age and kind, and of one that somebody waits for since then."""
    desk = new_desk(interval=(20, 30))
    watchlist = desk.watchlist
    desk.wait("a")
    assert watchlist.eta_s("a", 0.0) is None
    watchlist.planner.own.add(ImageTask(task_id="b", status=TaskStatus.SUBMITTED), 0.0, None)
    young, old = watchlist.eta_s("b", 0.0), watchlist.eta_s("b", 10.0)
    assert young is not None
    assert old is not None
    assert 20 < old < young < 40
    desk.wait("b")
    assert watchlist.eta_s("b", 10.0) == old
    assert watchlist.eta_s("b", 4000.0) is not None  # by when it was born, as it is forgotten


async def test_a_stream_that_expects_callbacks_waits_for_them() -> None:
    """Each id is asked when its callback should have come, or when somebody wants it sooner."""
    desk = new_desk(interval=(20, 30))
    for now, expects in ((5.0, 60.0), (6.0, 90.0)):
        desk.now = now
        stream = StreamState(
            endless(), timeout=None, outlet=Shelf(), most_pending=9, expects=expects
        )
        stream.begin()
        desk.admit(stream, "a")
        assert desk.due("a") == [65.0]
    assert desk.watchlist.planner.expected


def miss(desk: Desk, task_id: str, answer: Answer, *, early: bool = False) -> bool:
    """Ask an id when its callback should have come, or before; return whether all are given up."""
    waiter = ResultWaiter(added=desk.now, deadline=None)
    desk.tell(desk.watchlist.call(task_id, waiter, desk.now, 9.0))
    if early:
        desk.query(task_id)
    else:
        desk.now += 9.0
    decision = desk.say(desk.start(), answer)
    desk.watchlist.leave(waiter)
    return decision.gives_up_callbacks


async def test_three_callbacks_in_a_row_that_did_not_come_are_told() -> None:
    """Of tasks that had ended; one that is worked on has no callback yet."""
    desk = new_desk(max_rate=None)
    missed = [miss(desk, each, answer_for(each)) for each in "ab"]
    missed.append(miss(desk, "c", PENDING))
    missed.append(miss(desk, "d", answer_for("d"), early=True))
    assert missed == [False] * 4
    assert miss(desk, "e", answer_for("e"))


@pytest.mark.parametrize("is_feed", [False, True])
async def test_a_stream_asks_an_own_task_when_it_is_likely_done(*, is_feed: bool) -> None:
    """And a stranger among them at once."""
    desk = new_desk(interval=(20, 30))
    created = ImageTask(task_id="b", status=TaskStatus.SUBMITTED)
    desk.watchlist.planner.own.add(created, 0.0, None)
    (desk.feed if is_feed else desk.poll)("a", "b")
    assert 24.0 < desk.due("b")[0] < 45.0
    assert desk.entry("b").born == 0.0
    assert desk.start().task_id == "a"


async def test_a_watch_of_an_own_task_begins_with_what_its_create_said() -> None:
    """For an hour; who waits for the end alone, or watches a stranger, is told nothing yet."""
    desk = new_desk(interval=(20, 30))
    desk.watchlist.planner.own.add(ImageTask(task_id="a", status=TaskStatus.SUBMITTED), 0.0, None)
    assert updates_of(desk.watch("a")) == ["submitted"]
    assert updates_of(desk.watch("b")) == []
    assert not desk.wait("a").result.done()
    desk.now = 3600.0
    assert updates_of(desk.watch("a")) == []


async def test_a_watch_of_a_task_that_failed_when_it_was_created_ends_at_once() -> None:
    """Nobody has to be told again that it ended."""
    desk = new_desk()
    failed = ImageTask(task_id="a", status=TaskStatus.FAILED)
    desk.watchlist.planner.own.add(failed, 0.0, None)
    watcher = desk.watch("a")
    assert updates_of(watcher) == ["failed", "end"]
    assert (watcher.entry, desk.watched) == (None, 0)


async def test_a_create_that_said_succeed_without_images_is_not_believed_yet() -> None:
    """As of any answer that needs a second one."""
    desk = new_desk()
    doubtful = ImageTask(task_id="a", status=TaskStatus.SUCCEED)
    desk.watchlist.planner.own.add(doubtful, 0.0, None)
    watcher = desk.watch("a")
    assert updates_of(watcher) == []
    assert desk.watched == 1


async def test_a_callback_is_waited_for_no_longer_than_a_call_waits() -> None:
    """The first look comes at its deadline at the latest."""
    desk = new_desk()
    waiter = ResultWaiter(added=0.0, deadline=5.0)
    desk.tell(desk.watchlist.call("a", waiter, 0.0, 60.0))
    assert desk.due("a") == [5.0]
    assert desk.watchlist.planner.expected
    desk.watchlist.leave(waiter)
    assert not desk.watchlist.planner.expected


async def test_the_longest_wait_is_known_among_many_that_come_and_go() -> None:
    """And those who have left are not kept for it."""
    desk = new_desk()
    first = desk.wait("first")
    for turn in range(1, 500):
        desk.now = float(turn)
        waiter = desk.wait(f"{turn}")
        if turn != 7:
            desk.watchlist.leave(waiter)
    assert desk.watchlist.oldest_s(1000.0) == 1000.0
    assert len(desk.watchlist._oldest) <= 2 * 2 + 65
    desk.watchlist.leave(first)
    assert desk.watchlist.oldest_s(1000.0) == 993.0


async def test_a_nudge_of_a_stranger_changes_nothing() -> None:
    """Nobody waits for it, and no create has made it."""
    desk = new_desk()
    assert not desk.watchlist.nudge("a", 0.0)
    assert desk.ids == set()


async def test_a_nudge_of_an_own_task_counts_when_somebody_waits_for_it() -> None:
    """Its first look is then at once, and not when it is likely done."""
    desk = new_desk(interval=(20, 30))
    for task_id in ("a", "b"):
        task = ImageTask(task_id=task_id, status=TaskStatus.SUBMITTED)
        desk.watchlist.planner.own.add(task, 0.0, None)
    assert desk.watchlist.nudge("a", 1.0)
    assert not desk.watchlist.nudge("a", 10_000.0)  # it was forgotten
    desk.watchlist.planner.own.add(ImageTask(task_id="c", status=TaskStatus.SUBMITTED), 0.0, None)
    assert desk.watchlist.nudge("c", 1.0)
    desk.now = 2.0
    desk.wait("c")
    assert desk.start().task_id == "c"


async def test_a_nudge_before_the_first_query_makes_it_a_newcomer() -> None:
    """It has every second start from then on, ahead of the place that a list gave it."""
    desk = new_desk(max_rate=4.0)
    desk.poll(*"abcde")
    assert desk.due("e") == [1.0]
    assert desk.watchlist.nudge("e", 0.1)
    assert desk.due("e") == [NEVER]
    assert desk.watchlist.schedule.has_turn(desk.entry("e"), 0.1)
    asked: list[str] = []
    for turn in range(3):
        desk.now = 0.1 + turn * 0.25
        asked.append(desk.start().task_id)
    assert asked == ["a", "b", "e"]


async def test_a_nudge_asks_as_soon_as_the_shortest_pause_allows() -> None:
    """At its end if that is to come, and at once if it is over or just over."""
    for nudged, due in ((5.0, 20.0), (19.0, 20.0), (20.0, NEVER), (25.0, NEVER)):
        desk = new_desk(interval=(20, 1000), timeout=None)
        desk.wait("a")
        desk.ask(PENDING)
        assert desk.due("a")[0] > 25.0
        assert desk.watchlist.nudge("a", nudged)
        assert desk.due("a") == [due]
        assert desk.watchlist.schedule.has_turn(desk.entry("a"), nudged) is (due == NEVER)


async def test_a_nudge_while_a_query_is_under_way_counts_behind_its_answer() -> None:
    """Nothing is put into the schedule meanwhile."""
    desk = new_desk(interval=(20, 1000), timeout=None)
    desk.wait("a")
    entry = desk.start()
    assert desk.watchlist.nudge("a", 1.0)
    assert desk.due("a") == [NEVER]
    assert desk.watchlist.next_event() == NEVER
    desk.now = 2.0
    desk.say(entry, PENDING)
    assert desk.due("a") == [22.0]


async def test_a_nudge_where_nobody_waits_any_more_is_of_no_id_of_ours() -> None:
    """Its pause is kept as it is."""
    desk = new_desk(interval=(20, 1000), timeout=None)
    waiter = desk.wait("a")
    desk.ask(PENDING)
    desk.watchlist.leave(waiter)
    before = desk.due("a")
    assert not desk.watchlist.nudge("a", 5.0)
    assert desk.due("a") == before


async def test_an_answer_to_something_else_proves_the_set_up() -> None:
    """Once the API has answered a create, a web page ends nothing."""
    desk = new_desk()
    desk.wait("a")
    desk.watchlist.heard()
    assert not desk.say(desk.start(), WEB_PAGE).ends_all
