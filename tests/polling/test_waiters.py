"""Those who wait: tickets, the entry that they share, and the inside of a stream."""

# What is kept is only visible inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio

import pytest

from kling_omni_async import (
    ApiError,
    AuthenticationError,
    ImageTask,
    InvalidTaskIdError,
    KlingOmniError,
    Progress,
    TaskFailedError,
    TaskImage,
    TaskOutcome,
    TaskStatus,
)
from kling_omni_async._polling.stream import TAKES_PER_PASS, Batch, BatchTicket
from kling_omni_async._polling.verdicts import Judgement, Meaning, judge
from kling_omni_async._polling.waiters import (
    End,
    Entry,
    Ticket,
    WaitTicket,
    WatchTicket,
    about,
    raise_ending,
    resolve,
)

pytestmark = pytest.mark.anyio

SUBMITTED = ImageTask(task_id="a", status=TaskStatus.SUBMITTED)
PROCESSING = ImageTask(task_id="a", status=TaskStatus.PROCESSING)
SUCCEED = ImageTask(
    task_id="a", status=TaskStatus.SUCCEED, images=(TaskImage(url="https://img.example/0.png"),)
)
FAILED = ImageTask(task_id="a", status=TaskStatus.FAILED)
DEFECT = ZeroDivisionError("a defect")
REFUSAL = ApiError("no such model")


def new_ticket() -> Ticket:
    """Make a ticket of no kind."""
    return Ticket(added=0.0, deadline=None)


def new_batch(*, timeout: float | None = None) -> Batch:
    """Make the inside of an empty stream."""
    return Batch([], timeout=timeout)


def updates_of(ticket: WatchTicket) -> list[ImageTask | End]:
    """Take what a watch has not yet taken."""
    return [ticket.updates.get_nowait() for _ in range(ticket.updates.qsize())]


def outcome(task_id: str, error: KlingOmniError | None = None) -> TaskOutcome:
    """Make an outcome."""
    return TaskOutcome(task_id=task_id, task=SUCCEED, error=error)


def filled(*task_ids: str) -> Batch:
    """Give a batch that holds an outcome for each id."""
    batch = new_batch()
    for task_id in task_ids:
        batch.is_new(task_id)
        batch.put(outcome(task_id))
    return batch


# Ends.


def test_a_plain_end_stops_an_iteration() -> None:
    """An end without a reason is the end of the iteration."""
    with pytest.raises(StopAsyncIteration):
        End().throw()


def test_an_error_of_ours_is_raised_as_a_copy() -> None:
    """Many who wait for one reason share no traceback."""
    with pytest.raises(ApiError) as caught:
        End(REFUSAL).throw()
    assert caught.value is not REFUSAL
    assert str(caught.value) == str(REFUSAL)
    assert REFUSAL.__traceback__ is None


def test_a_defect_is_raised_as_it_is() -> None:
    """A defect is not ours to copy or to wrap."""
    with pytest.raises(ZeroDivisionError) as caught:
        raise_ending(DEFECT)
    assert caught.value is DEFECT


def test_a_reason_names_the_id_of_the_one_who_gets_it() -> None:
    """Each one who waited gets a copy of his own; a defect is passed on as it is."""
    reason = ApiError("no such model", task_id="b")
    given = about(reason, "a")
    assert isinstance(given, ApiError)
    assert (given.task_id, str(given), reason.task_id) == ("a", str(reason), "b")
    assert about(DEFECT, "a") is DEFECT


async def test_a_result_that_nobody_wants_is_dropped() -> None:
    """Handing a value to one who has left does nothing, and the first value stays."""
    result: asyncio.Future[int | BaseException] = asyncio.get_running_loop().create_future()
    resolve(result, 1)
    resolve(result, 2)
    assert await result == 1


# Tickets.


def test_a_ticket_of_no_kind_cannot_end() -> None:
    """It hears of queries and answers, but each kind has to say itself how it takes its end."""
    ticket = new_ticket()
    ticket.queried(1.0)
    ticket.seen(PROCESSING)
    with pytest.raises(NotImplementedError):
        ticket.finish(Entry("a"), judge(SUCCEED), 0.0)
    with pytest.raises(NotImplementedError):
        ticket.abort(DEFECT)


async def test_wait_gets_the_final_word() -> None:
    """The first final word is the one that counts."""
    ticket = WaitTicket(added=0.0, deadline=None)
    ticket.seen(PROCESSING)
    assert not ticket.result.done()
    ticket.finish(Entry("a"), judge(SUCCEED), 1.0)
    ticket.abort(DEFECT)
    assert await ticket.result == judge(SUCCEED)


async def test_wait_gets_the_reason_of_an_abort_as_a_value() -> None:
    """An exception as a value is never reported as one that nobody retrieved."""
    ticket = WaitTicket(added=0.0, deadline=None)
    ticket.abort(DEFECT)
    assert await ticket.result is DEFECT


async def test_watch_gets_changes_only() -> None:
    """The first answer and each change of status come through, repeats do not."""
    ticket = WatchTicket(added=0.0, deadline=None)
    for task in (SUBMITTED, SUBMITTED, PROCESSING, PROCESSING, SUBMITTED):
        ticket.seen(task)
    assert updates_of(ticket) == [SUBMITTED, PROCESSING, SUBMITTED]


@pytest.mark.parametrize("task", [SUCCEED, FAILED], ids=["succeed", "failed"])
async def test_watch_gives_the_final_task_and_ends(task: ImageTask) -> None:
    """A failed task is an answer like any other."""
    ticket = WatchTicket(added=0.0, deadline=None)
    ticket.finish(Entry("a"), judge(task), 1.0)
    assert updates_of(ticket) == [task, End()]


async def test_watch_ends_even_without_a_task() -> None:
    """A final word that has no task is an end, not a hole in the iteration."""
    ticket = WatchTicket(added=0.0, deadline=None)
    ticket.finish(Entry("a"), Judgement(Meaning.FINAL), 1.0)
    assert updates_of(ticket) == [End()]


async def test_watch_raises_every_other_end() -> None:
    """A refusal and an abort come as ends with a reason."""
    ticket = WatchTicket(added=0.0, deadline=None)
    ticket.finish(Entry("a"), judge(REFUSAL), 1.0)
    ticket.abort(DEFECT)
    assert updates_of(ticket) == [End(REFUSAL), End(DEFECT)]


# Entries.


@pytest.mark.parametrize("count", [1, 2, 3])
def test_an_entry_knows_its_tickets_in_order(count: int) -> None:
    """One ticket or many: they are given oldest first, and know their entry."""
    entry = Entry("a")
    entry.queries = 4
    tickets = [new_ticket() for _ in range(count)]
    for ticket in tickets:
        entry.join(ticket)
        assert (ticket.entry, ticket.queries_before) == (entry, 4)
    assert entry.tickets() == tuple(tickets)
    assert entry.is_watched
    assert entry.is_wanted


@pytest.mark.parametrize("count", [1, 2, 3])
def test_an_entry_that_all_have_left_is_unwatched(count: int) -> None:
    """When the last ticket has gone nobody watches; a stranger's leaving changes nothing."""
    entry = Entry("a")
    tickets = [new_ticket() for _ in range(count)]
    for ticket in tickets:
        entry.join(ticket)
    entry.leave(new_ticket())
    for ticket in tickets:
        assert entry.is_watched
        entry.leave(ticket)
        assert ticket.entry is None
    assert (entry.is_watched, entry.is_wanted, entry.tickets()) == (False, False, ())


def test_an_entry_can_be_joined_again() -> None:
    """After all have left the next one is like the first."""
    entry = Entry("a")
    for _ in range(2):
        pair = new_ticket(), new_ticket()
        for ticket in pair:
            entry.join(ticket)
        assert entry.tickets() == pair
        for ticket in pair:
            entry.leave(ticket)


def test_an_id_of_a_closed_stream_is_watched_but_not_wanted() -> None:
    """No query is made for a stream that was left, though its tickets are let go later."""
    batch, entry = new_batch(), Entry("a")
    entry.join(BatchTicket(batch, added=0.0))
    batch.cut(End())
    assert (entry.is_watched, entry.is_wanted) == (True, False)


def test_an_entry_shows_its_state() -> None:
    """The repr tells the id, the last status, the queries and the next time."""
    assert repr(Entry("a")) == "<Entry 'a' None queries=0 due=inf>"


# Tickets of a stream.


async def test_the_time_of_an_id_runs_from_its_first_query() -> None:
    """The deadline of a stream's id is set by its first query and moved by no other."""
    batch = new_batch(timeout=60.0)
    ticket = BatchTicket(batch, added=1.0)
    ticket.queried(100.0)
    ticket.queried(130.0)
    assert (ticket.deadline, list(batch.running)) == (160.0, [ticket])


async def test_an_id_of_a_stream_may_have_no_deadline() -> None:
    """Without a time limit nothing is kept for one."""
    batch = new_batch()
    ticket = BatchTicket(batch, added=1.0)
    ticket.queried(100.0)
    assert (ticket.deadline, len(batch.running)) == (None, 0)


async def test_a_final_word_becomes_an_outcome() -> None:
    """It counts the queries and the time since the id was added; an abort adds nothing."""
    batch, entry = new_batch(), Entry("a")
    batch.is_new("a")
    batch.polling = 1
    entry.queries = 3
    ticket = BatchTicket(batch, added=10.0)
    entry.join(ticket)
    entry.queries = 5
    ticket.finish(entry, judge(SUCCEED), 25.0)
    ticket.abort(DEFECT)
    expected = TaskOutcome(task_id="a", task=SUCCEED, queries=2, elapsed=15.0)
    assert (await batch.take(), batch.polling) == (expected, 0)


# The inside of a stream.


async def test_an_outcome_is_pending_until_it_is_taken() -> None:
    """An id counts as pending while its outcome lies ready, and no longer."""
    batch = filled("a", "b")
    assert batch.pending == {"a", "b"}
    assert (await batch.take()).task_id == "a"
    assert batch.pending == {"b"}


@pytest.mark.parametrize("is_feed", [False, True])
async def test_an_id_that_is_pending_is_not_taken_again(is_feed: bool) -> None:  # noqa: FBT001 - two kinds of input
    """Neither a list nor a feed gets an id twice while it is under way."""
    batch = new_batch()
    batch.is_feed = is_feed
    assert batch.is_new("a")
    assert not batch.is_new("a")
    assert batch.total == 1


@pytest.mark.parametrize("is_feed", [False, True])
async def test_only_a_feed_takes_an_id_anew(is_feed: bool) -> None:  # noqa: FBT001 - as above
    """After it was handed out, an id counts anew on a feed and is a repeat in a list."""
    batch = new_batch()
    batch.is_feed = is_feed
    batch.is_new("a")
    batch.put(outcome("a"))
    await batch.take()
    assert batch.is_new("a") is is_feed


async def test_counts_each_kind_of_outcome() -> None:
    """Success, a failed task and any other error are counted apart."""
    batch = new_batch()
    errors = [None, None, TaskFailedError("no"), InvalidTaskIdError("no"), REFUSAL]
    for number, error in enumerate(errors):
        batch.is_new(str(number))
        batch.put(outcome(str(number), error))
    await batch.take()
    expected = Progress(total=5, pending=4, succeeded=2, failed=1, unresolved=2)
    assert batch.progress == expected
    assert repr(batch) == f"<Batch {expected}>"


async def test_ends_behind_what_it_holds() -> None:
    """A complete stream gives what is there, then ends, at every further step."""
    batch = filled("a")
    batch.input_ended()
    assert batch.is_complete
    batch.complete()
    assert (await batch.take()).task_id == "a"
    for _ in range(2):
        with pytest.raises(StopAsyncIteration):
            await batch.take()


async def test_the_exception_of_an_input_comes_behind_its_ids() -> None:
    """Ids already read come out first, then what the input raised, at every further step."""
    batch = filled("a")
    batch.input_ended(DEFECT)
    batch.complete()
    await batch.take()
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            await batch.take()


async def test_the_ids_of_an_input_that_has_ended_are_not_kept() -> None:
    """What was needed to drop repeats is given back when nothing more is read."""
    batch = filled("a", "b")
    await batch.take()
    assert batch._handed_out == {"a"}
    batch.input_ended()
    await batch.take()
    assert batch._handed_out == set()


async def test_a_feed_remembers_nothing_that_was_handed_out() -> None:
    """A feed may go on for ever, so that what it has given is not kept."""
    batch = filled("a")
    batch.is_feed = True
    await batch.take()
    assert batch._handed_out == set()


@pytest.mark.parametrize(("reading", "polling"), [(True, 0), (False, 1), (True, 1)])
async def test_is_not_complete_while_something_may_come(reading: bool, polling: int) -> None:  # noqa: FBT001 - as above
    """While input is read or an id is polled the stream goes on."""
    batch = new_batch()
    batch.reading, batch.polling = reading, polling
    assert not batch.is_complete


async def test_closed_takes_nothing_more_in() -> None:
    """An outcome that comes after the end stays pending and uncounted; the first end counts."""
    batch = filled("a")
    batch.is_new("b")
    batch.close(End(AuthenticationError("no")))
    batch.close(End())
    batch.put(outcome("b"))
    assert (await batch.take()).task_id == "a"
    with pytest.raises(AuthenticationError):
        await batch.take()
    assert batch.progress == Progress(total=2, pending=1, succeeded=1)


@pytest.mark.parametrize(
    ("first", "raised"), [(End(REFUSAL), ApiError), (None, StopAsyncIteration)]
)
async def test_cut_gives_nothing_more_out(first: End | None, raised: type[Exception]) -> None:
    """What was ready but not taken stays pending, and the end is the first that was given."""
    batch = filled("a", "b")
    if first:
        batch.close(first)
    batch.cut(End())
    batch.input_ended(DEFECT)
    batch.cut(End(DEFECT))
    for _ in range(2):
        with pytest.raises(raised):
            await batch.take()
    assert batch.pending == {"a", "b"}


async def test_an_end_reaches_every_consumer() -> None:
    """Of several consumers that wait each one gets the end."""
    batch = new_batch()
    takes = [asyncio.ensure_future(batch.take()) for _ in range(3)]
    await asyncio.sleep(1.0)
    batch.cut(End(DEFECT))
    results = await asyncio.gather(*takes, return_exceptions=True)
    assert results == [DEFECT] * 3


async def test_a_cancelled_consumer_loses_no_outcome() -> None:
    """A consumer that is cancelled in the pass of the delivery leaves it to the next one."""
    batch = new_batch()
    batch.is_new("a")
    take = asyncio.ensure_future(batch.take())
    await asyncio.sleep(1.0)
    batch.put(outcome("a"))
    take.cancel()
    with pytest.raises(asyncio.CancelledError):
        await take
    assert (await batch.take()).task_id == "a"


async def test_a_consumer_of_much_gives_way() -> None:
    """Other tasks have a turn while a consumer takes what is ready."""
    batch = filled(*map(str, range(TAKES_PER_PASS + 1)))
    turns: list[int] = []
    asyncio.get_running_loop().call_soon(turns.append, 1)
    for _ in range(TAKES_PER_PASS - 1):
        await batch.take()
    assert turns == []
    await batch.take()
    assert turns == [1]
