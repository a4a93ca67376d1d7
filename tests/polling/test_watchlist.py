"""The ids of a session and those who wait for them, step by step and without a clock."""

# What is kept, and when it is due, is only visible inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import sys
from random import Random
from typing import Any

import attrs
import pytest
from kling_omni_async._polling.timers import NEVER

from kling_omni_async import (
    AuthenticationError,
    ConfigurationError,
    ImageTask,
    InvalidTaskIdError,
    KlingOmniError,
    NoImagesError,
    PollPolicy,
    PollTimeoutError,
    SessionClosedError,
    TaskNotFoundError,
    TaskOutcome,
    TaskStatus,
)
from kling_omni_async._api.answers import Answer, read_answer
from kling_omni_async._polling.stream import Batch
from kling_omni_async._polling.verdicts import Judgement
from kling_omni_async._polling.waiters import End, Entry, WaitTicket, WatchTicket
from kling_omni_async._polling.watchlist import ALARMS_PER_PASS, GRACE_S, Watchlist

from . import scripted
from .scripted import IMAGELESS, NOT_FOUND, PENDING, RESET, SUBMITTED, SUCCEED, UNAUTHORIZED

pytestmark = pytest.mark.anyio


@attrs.define
class Desk:
    """A watchlist, who waits at it, and a clock that is set by hand."""

    watchlist: Watchlist
    now: float = 0.0

    def wait(self, task_id: str, *, timeout: float | None = None) -> WaitTicket:
        ticket = WaitTicket(added=self.now, deadline=self._deadline(timeout))
        self.watchlist.call(task_id, ticket, self.now)
        return ticket

    def watch(self, task_id: str, *, timeout: float | None = None) -> WatchTicket:
        ticket = WatchTicket(added=self.now, deadline=self._deadline(timeout))
        self.watchlist.call(task_id, ticket, self.now)
        return ticket

    def _deadline(self, timeout: float | None) -> float | None:
        return None if timeout is None else self.now + timeout

    def poll(self, *task_ids: str, timeout: float | None = None, ended: bool = True) -> Batch:
        batch = Batch(task_ids, timeout=timeout)
        batch.is_feed = not ended
        self.watchlist.batches[batch] = None
        for task_id in task_ids:
            self.watchlist.admit(batch, task_id, self.now)
        if ended:
            batch.input_ended()
        return batch

    def start(self) -> Entry:
        entry = self.watchlist.start(self.now)
        assert entry is not None
        return entry

    def say(self, entry: Entry, answer: Answer | KlingOmniError) -> None:
        if isinstance(answer, KlingOmniError):
            self.watchlist.settle(entry, answer, b"", self.now)
            return
        reply = read_answer(answer, entry.task_id, wall_s=0.0)
        self.watchlist.settle(entry, reply, answer.body, self.now)

    def ask(self, *answers: Answer | KlingOmniError) -> Entry:
        """Go to the next event for each answer, and give it there."""
        entry: Entry | None = None
        for answer in answers:
            self.now = max(self.now, self.watchlist.next_event())
            entry = self.start()
            self.say(entry, answer)
        assert entry is not None
        return entry

    def ring(self, now: float) -> bool:
        self.now = now
        return self.watchlist.ring(now)

    def entry(self, task_id: str) -> Entry:
        return self.watchlist._entries[task_id]

    @property
    def ids(self) -> set[str]:
        return set(self.watchlist._entries)


def new_desk(**policy: Any) -> Desk:
    """Make a desk at 0 s with random pauses that repeat."""
    return Desk(Watchlist(PollPolicy(**policy), Random(1)))


def error_of(ticket: WaitTicket) -> KlingOmniError | None:
    """Give the error that a call of `wait` would raise."""
    result = ticket.result.result()
    assert isinstance(result, Judgement)
    return result.error


def updates_of(ticket: WatchTicket) -> list[str]:
    """Take what a watch has not yet taken, by its words."""
    items = [ticket.updates.get_nowait() for _ in range(ticket.updates.qsize())]
    return [str(item.status) if isinstance(item, ImageTask) else "end" for item in items]


async def outcomes_of(batch: Batch, count: int) -> list[TaskOutcome]:
    """Take some outcomes of a stream."""
    return [await batch.take() for _ in range(count)]


# Coming.


async def test_a_newcomer_is_due_at_once() -> None:
    """The first query of a wait is due when it comes."""
    desk = new_desk()
    desk.wait("a")
    assert desk.watchlist.next_event() <= desk.now
    assert desk.start().task_id == "a"


async def test_all_who_wait_for_an_id_share_its_query() -> None:
    """One query serves a wait, a watch and a stream, and the id counts once."""
    desk = new_desk()
    ticket, watcher, batch = desk.wait("a"), desk.watch("a"), desk.poll("a")
    assert desk.watchlist.schedule.watched == 1
    desk.ask(SUCCEED)
    assert error_of(ticket) is None
    assert updates_of(watcher) == ["succeed", "end"]
    assert [outcome.ok for outcome in await outcomes_of(batch, 1)] == [True]
    assert desk.watchlist.schedule.watched == 0
    assert desk.watchlist.batches == {}


async def test_a_batch_lays_its_first_queries_out() -> None:
    """The first id of a stream is due at once, the others follow at the pace."""
    desk = new_desk(max_rate=4.0)
    desk.now = 10.0
    desk.poll(*"abcd")
    assert desk.entry("a").when <= 10.0
    assert [desk.entry(task_id).when for task_id in "bcd"] == [10.25, 10.5, 10.75]


async def test_a_batch_is_not_laid_out_without_a_pace() -> None:
    """With no rate all first queries are due at once."""
    desk = new_desk(max_rate=None)
    desk.poll(*"abc")
    assert [desk.start().task_id for _ in "abc"] == list("abc")


async def test_an_id_that_comes_later_has_not_lost_its_place() -> None:
    """On a feed that was quiet the next id is a newcomer again, due at once."""
    desk = new_desk(max_rate=4.0)
    batch = desk.poll("a", ended=False)
    desk.now = 60.0
    desk.watchlist.admit(batch, "b", 60.0)
    assert desk.entry("b").when <= 0.0


async def test_a_wait_does_not_queue_behind_the_layout_of_a_stream() -> None:
    """Who waits for an id that a stream has put far ahead gets its first query at once."""
    desk = new_desk(max_rate=0.1)
    desk.poll(*"abcde")
    assert desk.entry("e").when == 40.0
    desk.wait("e", timeout=20.0)
    assert desk.start().task_id == "e"


async def test_a_second_stream_does_not_queue_behind_the_layout_of_the_first() -> None:
    """A small stream gives an id that a large one put far ahead a place of its own."""
    desk = new_desk(max_rate=0.1)
    desk.poll(*"abcde")
    desk.poll("e", "d", "a")
    assert desk.entry("e").when <= 0.0
    assert [desk.entry(task_id).when for task_id in "bcd"] == [10.0, 20.0, 10.0]


async def test_a_second_stream_does_not_send_an_id_back() -> None:
    """An id keeps the place that one stream gave it when that is earlier than another's."""
    desk = new_desk(max_rate=0.1)
    desk.poll("a", "b")
    desk.poll("c", "d", "e", "b")
    assert desk.entry("b").when == 10.0


async def test_an_id_keeps_the_place_that_is_due() -> None:
    """Joining an id whose first query is overdue does not send it to the back."""
    desk = new_desk()
    desk.wait("a")
    due = desk.entry("a").when
    desk.now = 5.0
    desk.wait("a")
    desk.poll("a")
    assert desk.entry("a").when == due


async def test_a_malformed_id_becomes_an_outcome() -> None:
    """It comes out with the reason and without a query; the others are polled."""
    desk = new_desk()
    batch = desk.poll("not an id", "a")
    (outcome,) = await outcomes_of(batch, 1)
    assert isinstance(outcome.error, InvalidTaskIdError)
    assert (outcome.task_id, outcome.queries, desk.ids) == ("not an id", 0, {"a"})


async def test_an_id_that_comes_after_the_end_stays_pending() -> None:
    """What an input still gives when its stream is over is neither polled nor lost."""
    desk = new_desk()
    batch = desk.poll("a", ended=False)
    batch.cut(End())
    desk.watchlist.admit(batch, "b", 0.0)
    assert (batch.pending, desk.ids) == ({"a", "b"}, {"a"})


# Going.


async def test_an_id_that_was_never_asked_for_is_forgotten() -> None:
    """Who leaves before the first query leaves nothing behind."""
    desk = new_desk()
    ticket = desk.wait("a", timeout=60.0)
    desk.watchlist.leave(ticket)
    desk.watchlist.leave(ticket)
    assert (desk.ids, desk.watchlist.next_event()) == (set(), NEVER)
    assert desk.watchlist.schedule.watched == 0


async def test_an_id_keeps_its_pause_when_all_have_left() -> None:
    """Leaving and coming back never polls faster: the due time stays what it was."""
    desk = new_desk()
    ticket = desk.wait("a")
    due = desk.ask(PENDING).when
    desk.watchlist.leave(ticket)
    desk.now = 1.0
    desk.wait("a")
    assert desk.entry("a").when == due >= 20.0


async def test_an_id_is_forgotten_when_its_pause_is_over() -> None:
    """What nobody waits for is not asked for, and not kept for ever."""
    desk = new_desk()
    ticket = desk.wait("a")
    desk.now = desk.ask(PENDING).when
    desk.watchlist.leave(ticket)
    assert desk.watchlist.start(desk.now) is None
    assert (desk.ids, desk.watchlist.next_event()) == (set(), NEVER)


async def test_an_id_that_is_left_in_flight_keeps_the_answer() -> None:
    """The answer to a query that nobody waits for any more serves whoever comes back."""
    desk = new_desk()
    ticket = desk.wait("a")
    entry = desk.start()
    desk.watchlist.leave(ticket)
    desk.say(entry, SUCCEED)
    assert error_of(desk.wait("a")) is None


async def test_whoever_comes_back_gets_the_last_answer() -> None:
    """Within the pause `watch` gets the last answer, `wait` only a final one."""
    desk = new_desk()
    first = desk.wait("a")
    desk.ask(SUBMITTED)
    desk.watchlist.leave(first)
    assert updates_of(desk.watch("a")) == ["submitted"]
    assert not desk.wait("a").result.done()
    desk.ask(SUCCEED)
    assert updates_of(desk.watch("a")) == ["succeed", "end"]
    batch = desk.poll("a")
    assert [outcome.queries for outcome in await outcomes_of(batch, 1)] == [0]


async def test_a_doubtful_last_answer_is_not_passed_on() -> None:
    """A success without images that nobody has confirmed is no answer for a newcomer."""
    desk = new_desk()
    desk.wait("a")
    desk.ask(IMAGELESS)
    watcher = desk.watch("a")
    assert updates_of(watcher) == []


async def test_a_closed_stream_is_swept_ticket_by_ticket() -> None:
    """Its ids are let go one by one; an id that others wait for stays, whoever they are."""
    desk = new_desk(max_rate=None)
    batch, other = desk.poll("a", "b", "c"), desk.poll("b")
    desk.wait("c")
    batch.cut(End())
    desk.watchlist.close_batch(batch)
    assert list(desk.watchlist.unswept) == [batch]
    for task_id in (*batch.pending, "unknown"):
        desk.watchlist.leave_one_of(batch, task_id)
    assert (desk.ids, desk.watchlist.schedule.watched) == ({"b", "c"}, 2)
    assert list(desk.watchlist.batches) == [other]


async def test_closing_a_stream_twice_sweeps_it_once() -> None:
    """Leaving a stream that is over changes nothing."""
    desk = new_desk()
    batch = desk.poll("a")
    desk.watchlist.close_batch(batch)
    desk.watchlist.close_batch(batch)
    assert len(desk.watchlist.unswept) == 1


async def test_an_id_of_a_closed_stream_is_not_asked_for_before_it_is_swept() -> None:
    """Between the closing and the sweep no query is made, and a newcomer revives the id."""
    desk = new_desk()
    batch = desk.poll("a")
    batch.cut(End())
    desk.watchlist.close_batch(batch)
    assert desk.watchlist.start(0.0) is None
    desk.wait("a")
    assert desk.start().task_id == "a"


async def test_coming_and_going_for_ever_takes_no_memory() -> None:
    """Ten thousand waits that come and go leave no entries and a handful of rows."""
    desk = new_desk()
    for number in range(10_000):
        desk.watchlist.leave(desk.wait(f"id-{number % 7}", timeout=60.0))
    heaps = desk.watchlist.schedule._dues, desk.watchlist._alarms
    assert desk.ids == set()
    assert all(len(heap._rows) <= 70 for heap in heaps)


# Queries by hand.


async def test_a_query_by_hand_is_shared_with_all() -> None:
    """Everybody who asks gets its reply, those who wait too, and the pause starts anew."""
    desk = new_desk(max_rate=None)
    ticket = desk.wait("a")
    desk.ask(PENDING)
    desk.now = 10.0
    results = [desk.watchlist.ask("a") for _ in range(2)]
    desk.say(desk.start(), SUCCEED)
    assert all(isinstance(result.result(), ImageTask) for result in results)
    assert error_of(ticket) is None
    assert desk.entry("a").when >= 30.0


async def test_a_query_by_hand_joins_the_one_in_flight() -> None:
    """No second query is made for an id that is being asked for."""
    desk = new_desk(max_rate=None)
    desk.wait("a")
    entry = desk.start()
    result = desk.watchlist.ask("a")
    assert desk.watchlist.start(desk.now) is None
    desk.say(entry, PENDING)
    assert isinstance(result.result(), ImageTask)


async def test_a_query_that_all_have_left_is_not_sent() -> None:
    """It is taken back when the last one who asked has gone, and only then."""
    desk = new_desk()
    first, second = desk.watchlist.ask("a"), desk.watchlist.ask("a")
    desk.watchlist.forget("a", first)
    assert desk.watchlist.next_event() < NEVER
    desk.watchlist.forget("a", second)
    desk.watchlist.forget("a", second)
    assert (desk.watchlist.next_event(), desk.ids) == (NEVER, set())


async def test_a_query_taken_back_leaves_the_schedule_alone() -> None:
    """Who waits for the id goes on waiting for its turn."""
    desk = new_desk()
    desk.wait("a")
    desk.watchlist.forget("a", desk.watchlist.ask("a"))
    assert desk.start().task_id == "a"


async def test_a_query_that_is_left_in_flight_can_be_asked_again() -> None:
    """After all have left one in flight, the next who asks still gets its answer."""
    desk = new_desk()
    first = desk.watchlist.ask("a")
    entry = desk.start()
    desk.watchlist.forget("a", first)
    second = desk.watchlist.ask("a")
    desk.say(entry, PENDING)
    desk.watchlist.forget("a", second)
    assert not first.done()
    assert isinstance(second.result(), ImageTask)


# What a reply does.


@pytest.mark.parametrize("answer", [RESET, PENDING, NOT_FOUND], ids=["fault", "task", "doubt"])
async def test_every_answer_costs_one_pause_from_its_end(
    answer: Answer | KlingOmniError,
) -> None:
    """Whatever came, the id is due a pause after it came, and nobody's waiting has ended."""
    desk = new_desk()
    ticket = desk.wait("a")
    entry = desk.start()
    desk.now = 14.0
    desk.say(entry, answer)
    assert 34.0 <= entry.when <= 44.0
    assert not ticket.result.done()


async def test_a_final_answer_is_kept_for_a_plain_pause() -> None:
    """However many ids stretch the pauses, what is done is kept no longer than ever."""
    desk = new_desk(max_rate=0.01)
    desk.poll(*"abcdef")
    assert desk.watchlist.schedule.stretch > 10.0
    entry = desk.ask(SUCCEED)
    assert 20.0 <= entry.when - desk.now <= 30.0


@pytest.mark.parametrize("word", [NOT_FOUND, IMAGELESS], ids=["not found", "no images"])
@pytest.mark.parametrize("confirmations", [1, 2, 3])
async def test_a_doubtful_word_is_believed_when_it_was_said_often_enough(
    word: Answer, confirmations: int
) -> None:
    """It takes as many in a row as the policy says, and faults between do not count."""
    desk = new_desk(confirmations=confirmations)
    ticket = desk.wait("a")
    for _ in range(confirmations - 1):
        desk.ask(word, RESET)
        assert not ticket.result.done()
    desk.ask(word)
    assert isinstance(error_of(ticket), NoImagesError | TaskNotFoundError)


@pytest.mark.parametrize(
    "between", [PENDING, IMAGELESS], ids=["an answer", "a doubt of another kind"]
)
async def test_doubts_count_only_in_a_row(between: Answer) -> None:
    """Another word between two doubtful ones makes the second one a first."""
    desk = new_desk()
    ticket = desk.wait("a")
    desk.ask(NOT_FOUND, between, NOT_FOUND)
    assert not ticket.result.done()
    desk.ask(NOT_FOUND)
    assert isinstance(error_of(ticket), TaskNotFoundError)


async def test_a_final_error_carries_the_last_task() -> None:
    """An id that vanished comes out with what was last seen of it."""
    desk = new_desk()
    batch = desk.poll("a")
    desk.ask(PENDING, NOT_FOUND, NOT_FOUND)
    (outcome,) = await outcomes_of(batch, 1)
    assert isinstance(outcome.error, TaskNotFoundError)
    assert outcome.task is not None
    assert (outcome.task.status, outcome.queries) == (TaskStatus.PROCESSING, 3)


async def test_a_429_holds_all_ids_back() -> None:
    """No id is due before the end of the pause that one of them has met."""
    desk = new_desk(max_rate=None)
    desk.wait("a")
    desk.wait("b")
    desk.ask(scripted.limited("40"))
    assert desk.watchlist.next_event() == desk.now + 40.0


@pytest.mark.parametrize(("being_read", "warnings"), [(0, 1), (1, 0)])
async def test_stretching_is_told_when_the_number_of_ids_is_known(
    caplog: pytest.LogCaptureFixture, being_read: int, warnings: int
) -> None:
    """While a list of ids is still being read, its growth is not told step by step."""
    desk = new_desk(max_rate=0.01)
    desk.poll(*"abc")
    desk.watchlist.being_read = being_read
    desk.ask(PENDING)
    assert sum("stretched" in text for text in caplog.messages) == warnings


# The set-up.


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (UNAUTHORIZED, AuthenticationError),
        (ConfigurationError("the given aiohttp session was closed"), ConfigurationError),
    ],
    ids=["key", "aiohttp session"],
)
async def test_a_wrong_setup_ends_all_waiting(
    answer: Answer | KlingOmniError, kind: type[KlingOmniError]
) -> None:
    """Waits and watches are told; a stream gives what was finished, then raises; all else waits."""
    desk = new_desk(max_rate=None)
    batch, ticket, watcher = desk.poll("a", "not an id"), desk.wait("b"), desk.watch("c")
    asked = desk.watchlist.ask("d")
    desk.start()
    desk.say(desk.start(), answer)
    assert isinstance(ticket.result.result(), kind)
    assert updates_of(watcher) == ["end"]
    assert [outcome.task_id for outcome in await outcomes_of(batch, 1)] == ["not an id"]
    with pytest.raises(kind):
        await batch.take()
    assert batch.pending == {"a"}
    assert not asked.done()


async def test_a_wrong_setup_is_no_timeout() -> None:
    """A 401 in the grace of a wait is told as what it is."""
    desk = new_desk()
    ticket = desk.wait("a", timeout=0.0)
    entry = desk.start()
    desk.ring(0.0)
    desk.now = 2.0
    desk.say(entry, UNAUTHORIZED)
    assert isinstance(ticket.result.result(), AuthenticationError)


# Deadlines.


async def test_a_deadline_ends_a_wait() -> None:
    """It says what was last seen, and that the last query was answered."""
    desk = new_desk()
    ticket = desk.wait("a", timeout=10.0)
    desk.ask(PENDING)
    assert desk.watchlist.next_event() == 10.0
    assert desk.ring(10.0) is False
    error = error_of(ticket)
    assert isinstance(error, PollTimeoutError)
    assert (error.task_id, error.last_error) == ("a", None)
    assert error.task is not None
    assert str(error) == "no final answer in 10.0 s; its status was processing"


async def test_a_deadline_tells_of_the_last_fault() -> None:
    """It tells "the API is down" from "the task is still being worked on"."""
    desk = new_desk()
    ticket = desk.wait("a", timeout=10.0)
    desk.ask(RESET)
    desk.ring(10.0)
    error = error_of(ticket)
    assert isinstance(error, PollTimeoutError)
    assert (error.last_error, error.task) == (RESET, None)
    text = "no final answer in 10.0 s; its status was never seen; last fault: reset by peer"
    assert str(error) == text


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
    ticket = desk.wait("a", timeout=10.0)
    entry = desk.start()
    desk.ring(10.0)
    assert not ticket.result.done()
    desk.now = 12.0
    desk.say(entry, answer)
    assert isinstance(error_of(ticket), kind)


async def test_the_grace_is_five_seconds() -> None:
    """After it a wait ends though its query is still under way."""
    desk = new_desk()
    ticket = desk.wait("a", timeout=10.0)
    desk.start()
    desk.ring(10.0)
    assert desk.watchlist.next_event() == 10.0 + GRACE_S == 15.0
    desk.ring(15.0)
    assert isinstance(error_of(ticket), PollTimeoutError)


async def test_each_wait_has_its_own_deadline() -> None:
    """One that times out leaves the others of the same id alone."""
    desk = new_desk()
    short, long = desk.wait("a", timeout=10.0), desk.wait("a", timeout=50.0)
    desk.ask(PENDING)
    desk.ring(10.0)
    assert (short.result.done(), long.result.done()) == (True, False)


async def test_no_id_of_a_stream_times_out_without_a_query() -> None:
    """A first query that outlives the deadline is waited for, however long it takes."""
    desk = new_desk()
    batch = desk.poll("a", timeout=1.0)
    entry = desk.start()
    desk.ring(14.0)
    assert batch.progress.unresolved == 0
    desk.say(entry, RESET)
    (outcome,) = await outcomes_of(batch, 1)
    assert isinstance(outcome.error, PollTimeoutError)
    assert outcome.queries == 1


async def test_one_alarm_serves_a_whole_stream() -> None:
    """It is set for the first deadline, and moves on past ids that are done."""
    desk = new_desk(max_rate=None)
    batch = desk.poll("a", "b", "c", timeout=60.0)
    for answer in (PENDING, SUCCEED, PENDING):
        desk.say(desk.start(), answer)
        desk.now += 1.0
    assert (len(desk.watchlist._alarms), batch.when) == (1, 60.0)
    desk.ring(60.0)
    assert (await outcomes_of(batch, 2))[1].task_id == "a"
    assert batch.when == 62.0
    desk.ring(62.0)
    assert (len(desk.watchlist._alarms), desk.watchlist.batches) == (0, {})


async def test_an_alarm_for_an_id_that_is_done_ends_nobody() -> None:
    """When all of a stream's timed ids are done, its alarm finds nothing to do."""
    desk = new_desk(max_rate=None)
    batch = desk.poll("a", timeout=60.0, ended=False)
    desk.ask(SUCCEED)
    desk.ring(60.0)
    assert (batch.progress.succeeded, batch.progress.unresolved, batch.when) == (1, 0, NEVER)


async def test_an_id_of_a_stream_has_its_grace() -> None:
    """A second query in flight at the deadline gets five seconds, not more."""
    desk = new_desk(interval=(20.0, 20.0))
    batch = desk.poll("a", timeout=25.0)
    desk.ask(PENDING)
    desk.now = 20.0
    desk.start()
    desk.ring(25.0)
    assert batch.progress.unresolved == 0
    desk.ring(30.0)
    assert batch.progress.unresolved == 1


async def test_a_closed_stream_takes_its_alarm_along() -> None:
    """Nothing wakes for the deadlines of a stream that was left."""
    desk = new_desk()
    batch = desk.poll("a", timeout=60.0)
    desk.ask(PENDING)
    assert batch.when == 60.0
    desk.watchlist.close_batch(batch)
    assert (batch.when, len(desk.watchlist._alarms)) == (NEVER, 0)


async def test_a_closed_stream_sets_no_alarm() -> None:
    """An id that others wait for too is asked for, but the stream's clock has stopped."""
    desk = new_desk()
    batch = desk.poll("a", timeout=60.0)
    desk.wait("a")
    batch.cut(End())
    desk.watchlist.close_batch(batch)
    desk.start()
    assert batch.when == NEVER


async def test_what_is_done_does_not_wait_for_its_deadline() -> None:
    """A stream without an end keeps nothing of the ids that it has given out."""
    desk = new_desk(max_rate=None)
    batch = desk.poll("a", "b", "c", timeout=3600.0)
    first, second, _ = (desk.start() for _ in "abc")
    desk.say(second, SUCCEED)
    assert len(batch.running) == 3  # in the order of their deadlines
    desk.say(first, SUCCEED)
    assert [ticket.entry and ticket.entry.task_id for ticket in batch.running] == ["c"]


async def test_the_alarm_of_one_who_is_done_ends_nobody_else() -> None:
    """The next deadline of a stream is kept when the one before it needs no alarm any more."""
    desk = new_desk(max_rate=None)
    batch = desk.poll("a", "b", timeout=100.0, ended=False)
    first = desk.start()
    desk.now = 50.0
    second = desk.start()
    desk.say(first, SUCCEED)
    desk.say(second, PENDING)
    desk.ring(100.0)
    assert (await batch.take()).ok
    assert batch.pending == {"b"}
    desk.ring(149.9)
    assert batch.polling == 1
    desk.ring(150.0)
    assert isinstance((await batch.take()).error, PollTimeoutError)


async def test_many_deadlines_at_once_are_taken_in_portions() -> None:
    """Other tasks have a turn between some hundreds of waits that time out together."""
    desk = new_desk()
    tickets = [desk.wait("a", timeout=5.0) for _ in range(ALARMS_PER_PASS + 1)]
    assert desk.ring(5.0) is True
    assert sum(ticket.result.done() for ticket in tickets) == ALARMS_PER_PASS
    assert desk.ring(5.0) is False
    assert all(ticket.result.done() for ticket in tickets)


# The end of everything.


async def test_shut_tells_everyone() -> None:
    """Waits, watches, queries and streams all get the reason, and nothing is kept."""
    desk = new_desk()
    ticket, watcher, batch = desk.wait("a"), desk.watch("b"), desk.poll("c", "not an id")
    asked = desk.watchlist.ask("d")
    desk.watchlist.shut(SessionClosedError("closed"))
    for result, task_id in ((ticket.result.result(), "a"), (asked.result(), "d")):
        assert isinstance(result, SessionClosedError)
        assert result.task_id == task_id
    assert updates_of(watcher) == ["end"]
    with pytest.raises(SessionClosedError):
        await batch.take()
    assert batch.pending == {"c", "not an id"}
    assert (desk.ids, len(desk.watchlist.unswept)) == (set(), 0)


def test_says_in_one_line_how_it_is() -> None:
    """The repr tells how many ids, calls and streams there are."""
    text = "<Watchlist ids=0 callers=0 batches=0 <Schedule "
    assert repr(new_desk().watchlist).startswith(text)


@pytest.mark.parametrize("count", [3, 3000])
async def test_a_pulse_looks_at_one_id_only(count: int) -> None:
    """It tells starts, flights, the next turn and one wait, by as many steps at any size."""
    desk = new_desk(max_rate=10.0, interval=(20, 30))
    desk.poll(*map(str, range(count)))
    desk.start()
    desk.now = 0.04
    steps: list[object] = []

    def profile(_: object, event: str, function: object) -> None:
        if event in {"call", "c_call"}:
            steps.append(function)

    sys.setprofile(profile)
    pulse = desk.watchlist.pulse("1", desk.now)
    sys.setprofile(None)
    assert (pulse.starts, pulse.in_flight, pulse.watched) == (1, 1, 0.04)
    assert pulse.next_in == pytest.approx(0.06)
    assert len(steps) < 30


async def test_a_pulse_of_a_stranger_has_no_wait() -> None:
    """An id that nobody waits for was not watched; with nothing to do the next turn is never."""
    desk = new_desk()
    pulse = desk.watchlist.pulse("1", 0.0)
    assert (pulse.watched, pulse.next_in, pulse.starts) == (None, NEVER, 0)
