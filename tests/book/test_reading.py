"""Readers of a book, over the one in memory and on a virtual clock: what comes again, and when."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, suppress
from pathlib import Path
from threading import Thread

import pytest

from kling_omni_async import (
    BookError,
    OutcomeStream,
    Progress,
    TaskBook,
    TaskOutcome,
    WrongLoopError,
)
from kling_omni_async._book.book import host_of, open_inside
from kling_omni_async._book.contract import Ack, Take
from tests.support import freeze, now, now_waiting

from .ends import Ender, ended, kept_in, troubled

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["memory", "file"])
async def book(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[TaskBook]:
    """Open a book in memory or in a file, and prove that closing it leaves no task behind."""
    before = asyncio.all_tasks()
    async with TaskBook() if request.param == "memory" else kept_in(tmp_path) as opened:
        yield opened
    left = {task for task in asyncio.all_tasks() - before if "kling" in task.get_name()}
    assert not left


in_memory = pytest.mark.parametrize("book", ["memory"], indirect=True)


async def unread(book: TaskBook) -> int:
    """Return how many outcomes nobody has acknowledged."""
    return (await book.progress()).unread


async def next_of(book: TaskBook) -> tuple[str, int, float]:
    """Read one outcome and give it back: its id, its deliveries, and how long it took to come."""
    began = now()
    async with book.outcomes() as outcomes:
        outcome = await anext(outcomes)
        return outcome.task_id, outcome.deliveries, now() - began


# Plain steps.


async def test_asking_for_the_next_one_acknowledges(book: TaskBook) -> None:
    """While the loop has an outcome it is unread; once it asks for the next it never returns."""
    await ended(book, ["a", "b"])
    async with book.outcomes() as outcomes:
        first = await anext(outcomes)
        assert (first.task_id, await unread(book)) == ("a", 2)
        second = await anext(outcomes)
        assert (second.task_id, await unread(book)) == ("b", 1)
    assert await next_of(book) == ("b", 1, 0.0)


async def test_a_batch_ends_by_itself_and_all_is_acknowledged(book: TaskBook) -> None:
    """`until_empty` waits for what is open and ends behind the last; nothing is unread then."""
    ender = await ended(book, ["a"])
    await book.add("b", note={"chat": 42})
    asyncio.get_running_loop().call_later(50, lambda: tasks.append(end_soon(ender, "b")))
    tasks: list[asyncio.Task[None]] = []
    async with book.outcomes(until_empty=True) as outcomes:
        seen = [(o.task_id, o.note, o.deliveries, now()) async for o in outcomes]
        with pytest.raises(StopAsyncIteration):
            await anext(outcomes)
    assert seen == [("a", None, 1, 0.0), ("b", {"chat": 42}, 1, 50.0)]
    assert await unread(book) == 0
    assert repr(outcomes).startswith("<OutcomeStream closed")


def end_soon(ender: Ender, task_id: str) -> asyncio.Task[None]:
    """Let a task end from a callback."""
    return asyncio.get_running_loop().create_task(ender.end(task_id))


async def test_a_batch_of_nothing_ends_at_once(book: TaskBook) -> None:
    """With nothing open and nothing unread there is no outcome to wait for."""
    async with book.outcomes(until_empty=True) as outcomes:
        assert [outcome async for outcome in outcomes] == []
    assert now() == 0


async def test_a_batch_waits_for_what_another_reader_has(book: TaskBook) -> None:
    """What others hold is unread: it may come again, and so the batch does not end before."""
    await ended(book, ["a"])
    async with book.outcomes() as other:
        await anext(other)
        async with book.outcomes(until_empty=True) as outcomes:
            step = asyncio.ensure_future(anext(outcomes))
            await asyncio.sleep(100)
            assert not step.done()
            await other.aclose()
            assert (await step).task_id == "a"


async def test_break_gives_back_at_once(book: TaskBook) -> None:
    """Who leaves without an exception has not handled it: it is there again, as if never had."""
    await ended(book, ["a", "b"])
    async with book.outcomes() as outcomes:
        async for outcome in outcomes:
            assert outcome.task_id == "a"
            break
    assert await next_of(book) == ("a", 1, 0.0)


async def test_an_exception_makes_it_come_again_after_its_pause(book: TaskBook) -> None:
    """From its hand-out on 1 s, then 2 s, then 4 s, while others pass by; it counts."""
    await ended(book, ["a", "b"])
    seen = []
    for _ in range(4):
        with suppress(ZeroDivisionError):
            async with book.outcomes() as outcomes:
                async for outcome in outcomes:
                    seen.append((outcome.task_id, outcome.deliveries, now()))
                    if outcome.task_id == "a":
                        raise ZeroDivisionError
    assert seen == [("a", 1, 0.0), ("b", 1, 0.0), ("a", 2, 1.0), ("a", 3, 3.0), ("a", 4, 7.0)]


async def test_an_exception_that_the_loop_itself_caught_is_acknowledged(book: TaskBook) -> None:
    """Whoever catches it and asks for the next one has handled it, in whichever way."""
    await ended(book, ["a"])
    async with book.outcomes(until_empty=True) as outcomes:
        async for _ in outcomes:
            with suppress(ZeroDivisionError):
                raise ZeroDivisionError
    assert await unread(book) == 0


async def test_cancellation_gives_back_at_once(book: TaskBook) -> None:
    """A consumer that is cancelled in the middle of an outcome has not failed on it."""
    await ended(book, ["a"])

    async def consume() -> None:
        async with book.outcomes() as outcomes:
            async for _ in outcomes:
                await asyncio.sleep(60)

    task = asyncio.create_task(consume())
    await asyncio.sleep(1)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert await next_of(book) == ("a", 1, 0.0)


@pytest.mark.parametrize(
    ("error", "again"),
    [(None, (1, 0.0)), (ZeroDivisionError, (2, 1.0)), (asyncio.CancelledError, (1, 0.0))],
)
async def test_a_book_that_is_closed_before_its_stream_gives_back_as_that_would(
    tmp_path: Path, error: type[BaseException] | None, again: tuple[int, float]
) -> None:
    """The order in which a stack of blocks is left changes nothing for an outcome in hand."""
    book = kept_in(tmp_path)
    await ended(book, ["a"])
    with suppress(ZeroDivisionError, asyncio.CancelledError):
        async with AsyncExitStack() as stack:
            outcomes = await stack.enter_async_context(book.outcomes())
            await stack.enter_async_context(book)
            await anext(outcomes)
            if error is not None:
                raise error
    async with kept_in(tmp_path) as later:
        assert await next_of(later) == ("a", *again)


async def test_a_book_that_is_closed_under_a_consumer_keeps_what_it_has_handled(
    tmp_path: Path,
) -> None:
    """What was acknowledged does not come again; what is in hand does, and the next step says why.

    A handler that is done only then is too late: nobody can be told.
    """
    book = kept_in(tmp_path)
    await ended(book, ["a", "b", "c"])
    handling = asyncio.Event()

    async def handle(outcome: TaskOutcome) -> None:
        if outcome.task_id != "a":
            handling.set()
            await book.aclose()

    async with book.outcomes() as outcomes:
        with pytest.raises(BookError, match="the book is closed"):
            await outcomes.each(handle, limit=1)
    assert handling.is_set()
    async with kept_in(tmp_path) as later, later.outcomes(until_empty=True) as outcomes:
        came = [(outcome.task_id, outcome.deliveries) async for outcome in outcomes]
    assert came == [("b", 1), ("c", 1)]


async def test_a_generator_that_is_closed_gives_back_at_once(book: TaskBook) -> None:
    """Closing a generator around the block is leaving, and no failure."""
    await ended(book, ["a"])

    async def names() -> AsyncIterator[str]:
        async with book.outcomes() as outcomes:
            async for outcome in outcomes:
                yield outcome.task_id

    async with aclosing(names()) as given:  # type: ignore[type-var]
        assert await anext(given) == "a"
    assert await next_of(book) == ("a", 1, 0.0)


async def test_a_step_needs_the_block(book: TaskBook) -> None:
    """Without `async with` nobody gives back what was not handled: the text shows the line."""
    line = r"async with book\.outcomes\(\) as outcomes:"
    with pytest.raises(RuntimeError, match=f"has to be entered; write: {line}"):
        await anext(book.outcomes())
    with pytest.raises(RuntimeError, match=f"has to be entered; write: {line}"):
        await book.outcomes().each(ignore)
    stream: object = book.outcomes()
    with pytest.raises(TypeError, match=f"write: {line} async for outcome in outcomes:$"):
        iter(stream)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"task = await book\.wait\(task_id\)"):
        await stream  # type: ignore[misc]


async def ignore(outcome: TaskOutcome) -> None:
    """Handle an outcome by doing nothing."""


async def test_a_second_consumer_is_refused(book: TaskBook) -> None:
    """A second concurrent step raises, and the first goes on as if nothing had been."""
    ender = await ended(book, [])
    async with book.outcomes() as outcomes:
        first = asyncio.create_task(anext_of(outcomes))
        await now_waiting()
        with pytest.raises(RuntimeError, match=r"one consumer.*open one stream for each"):
            await anext(outcomes)
        with pytest.raises(RuntimeError, match="open one stream for each"):
            await outcomes.each(ignore)
        await book.add("a")
        await ender.end("a")
        assert (await first).task_id == "a"
        assert await unread(book) == 1


async def anext_of(outcomes: OutcomeStream) -> TaskOutcome:
    """Take one step."""
    return await anext(outcomes)


async def test_a_step_beside_each_is_refused(book: TaskBook) -> None:
    """Also while `each` waits for a free place it is the one consumer."""
    await ended(book, ["a", "b"])
    async with book.outcomes() as outcomes:
        each = asyncio.create_task(outcomes.each(hang, limit=1))
        await now_waiting(10)
        with pytest.raises(RuntimeError, match="open one stream for each"):
            await anext(outcomes)
        each.cancel()
        await asyncio.wait([each])


async def hang(outcome: TaskOutcome) -> None:
    """Never finish."""
    await asyncio.Event().wait()


async def test_a_step_with_a_time_limit_loses_nothing(book: TaskBook) -> None:
    """`wait_for(anext(…))` runs the step in a task of its own; cancelled, its result is kept."""
    ender = await ended(book, [])
    store = await troubled(book)
    store.latency_s = 4.0
    async with book.outcomes() as outcomes:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(outcomes), 10)
        await book.add("a")
        await ender.end("a")
        with pytest.raises(TimeoutError):  # the step is under way by then
            await asyncio.wait_for(anext(outcomes), 2)
        await asyncio.sleep(60)
        assert outcomes.progress == Progress(total=1, pending=1)
        assert set(outcomes.pending) == {"a"}
        outcome = await asyncio.wait_for(anext(outcomes), 1)
        assert (outcome.task_id, outcome.deliveries) == ("a", 1)
        assert outcomes.progress == Progress(total=1, failed=1)


async def test_what_was_kept_for_the_next_step_is_given_back(book: TaskBook) -> None:
    """An outcome that the consumer never saw is there at once when the stream is left."""
    await ended(book, ["a"])
    store = await troubled(book)
    store.latency_s = 4.0
    with suppress(ZeroDivisionError):
        async with book.outcomes() as outcomes:
            with suppress(TimeoutError):
                await asyncio.wait_for(anext(outcomes), 1)
            await asyncio.sleep(10)
            raise ZeroDivisionError
    assert (await next_of(book))[:2] == ("a", 1)


async def test_a_stream_that_is_left_in_the_middle_of_a_step_gives_back(book: TaskBook) -> None:
    """What a step brings that was under way when the stream was left goes back at once."""
    await ended(book, ["a"])
    store = await troubled(book)
    store.latency_s = 4.0
    async with book.outcomes() as outcomes:
        step = asyncio.create_task(anext_of(outcomes))
        await asyncio.sleep(1)
    with pytest.raises(StopAsyncIteration):
        await step
    store.latency_s = 0.0
    assert await next_of(book) == ("a", 1, 0.0)


# What a stream says of itself.


async def test_progress_counts_what_the_stream_has_handed_out(book: TaskBook) -> None:
    """The counts are the stream's own, and say the same after it was left."""
    await ended(book, ["a", "b", "c"])
    async with book.outcomes() as outcomes:
        assert outcomes.progress == Progress()
        await anext(outcomes)
        await anext(outcomes)
        assert outcomes.eta is None
        assert repr(host_of(book)) == "<Readers streams=1>"
        assert repr(outcomes).startswith("<OutcomeStream open")
    assert outcomes.progress == Progress(total=2, failed=2)
    assert not outcomes.pending


# Acknowledging by hand.


async def test_ack_is_kept_when_it_returns(book: TaskBook) -> None:
    """An outcome that was acknowledged by hand does not come again, whatever happens then."""
    await ended(book, ["a"])
    store = await troubled(book)
    store.latency_s = 4.0
    began = 0.0
    with suppress(ZeroDivisionError):
        async with book.outcomes() as outcomes:
            outcome = await anext(outcomes)
            began = now()
            await outcomes.ack(outcome)
            assert (now() - began, await unread(book)) == (4.0, 0)
            await outcomes.ack(outcome)  # once more does no harm
            raise ZeroDivisionError
    assert now() - began == 8.0


async def test_ack_waits_for_the_step_that_is_under_way(book: TaskBook) -> None:
    """What the step before has acknowledged is kept when `ack` returns, not only asked for."""
    await ended(book, ["a"])
    store = await troubled(book)
    async with book.outcomes() as outcomes:
        outcome = await anext(outcomes)
        store.latency_s = 4.0
        step = asyncio.create_task(anext_of(outcomes))
        await asyncio.sleep(1)
        await outcomes.ack(outcome)
        assert (now(), await unread(book)) == (4.0, 0)
        step.cancel()
        await asyncio.wait([step])


async def test_an_outcome_of_another_stream_is_not_acknowledged(book: TaskBook) -> None:
    """Only what this stream gave is: an outcome that is equal may be another end of the task."""
    await ended(book, ["a"])
    async with book.outcomes() as outcomes:
        outcome = await anext(outcomes)
        await outcomes.ack(TaskOutcome.from_dict(outcome.to_dict()))
        assert await unread(book) == 1


async def test_ack_after_the_stream_was_left_counts(book: TaskBook) -> None:
    """Whoever has handled an outcome all the same says so late: it does not come again."""
    await ended(book, ["a"])
    async with book.outcomes() as outcomes:
        outcome = await anext(outcomes)
    await outcomes.ack(outcome)
    assert await unread(book) == 0


async def test_ack_after_the_book_was_closed_raises(book: TaskBook) -> None:
    """What cannot be kept is not acknowledged."""
    await ended(book, ["a"])
    async with book.outcomes() as outcomes:
        outcome = await anext(outcomes)
    await book.aclose()
    with pytest.raises(BookError, match="book is closed"):
        await outcomes.ack(outcome)


# Trouble.


async def test_a_book_out_of_reach_loses_nothing(
    book: TaskBook, caplog: pytest.LogCaptureFixture
) -> None:
    """The same step is sent again after 0.5, 1, 2, 5, 5 s; it is said once, and order is kept."""
    await ended(book, ["a", "b"])
    store = await troubled(book)
    store.after = lambda _: BookError("locked", transient=True) if now() < 13 else None
    async with book.outcomes(until_empty=True) as outcomes:
        seen = [(o.task_id, o.deliveries, now()) async for o in outcomes]
    assert seen == [("a", 1, 13.5), ("b", 1, 13.5)]
    first = [at for at, take in store.takes if take.seq == 1]
    assert first == [0.0, 0.5, 1.5, 3.5, 8.5, 13.5]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "out of reach, its outcomes come when it is back: locked" in caplog.text


async def test_each_trouble_is_said_once(book: TaskBook, caplog: pytest.LogCaptureFixture) -> None:
    """A book that was well in between is said to be out of reach anew."""
    await ended(book, ["a", "b"])
    store = await troubled(book)
    odd = iter(range(1_000))
    store.before = lambda _: BookError("no", transient=True) if next(odd) % 2 == 0 else None
    async with book.outcomes() as outcomes:
        await anext(outcomes)
        assert len(caplog.records) == 1
        await anext(outcomes)
        assert len(caplog.records) == 2


async def test_a_broken_book_is_raised(book: TaskBook) -> None:
    """What does not pass is raised out of the step, and out of every further one and `ack`."""
    await ended(book, ["a"])
    store = await troubled(book)
    async with book.outcomes() as outcomes:
        outcome = await anext(outcomes)
        store.before = lambda _: BookError("the file was replaced")
        ack = asyncio.create_task(outcomes.ack(outcome))
        with pytest.raises(BookError, match="replaced"):
            await ack
        for _ in range(2):
            with pytest.raises(BookError, match="replaced"):
                await anext(outcomes)
        with pytest.raises(BookError, match="replaced"):
            await outcomes.ack(outcome)
        assert await unread(book) == 1
        store.before = lambda _: None
        await outcomes.ack(outcome)
        assert await unread(book) == 0


async def test_a_stream_is_left_although_its_book_is_out_of_reach(
    book: TaskBook, caplog: pytest.LogCaptureFixture
) -> None:
    """After 5 s it is left with a warning, and what it had given back once the book is well."""
    await ended(book, ["a"])
    store = await troubled(book)
    async with book.outcomes() as outcomes:
        await anext(outcomes)
        store.before = lambda _: BookError("locked", transient=True) if now() < 50 else None
    assert now() == 5.0
    assert (
        "was not told what became of outcomes: it did not answer within 5 s; those come again"
    ) in caplog.messages[-1]
    async with book.outcomes() as others:
        again = await anext(others)
        assert (again.task_id, again.deliveries) == ("a", 1)
        assert 50.0 <= now() <= 60.0


async def test_what_a_book_out_of_reach_was_not_told_may_be_said_late(book: TaskBook) -> None:
    """`ack` raises as long as it is, and counts as soon as it is back."""
    await ended(book, ["a"])
    store = await troubled(book)
    async with book.outcomes() as outcomes:
        outcome = await anext(outcomes)
        store.before = lambda _: BookError("locked", transient=True) if now() < 50 else None
    with pytest.raises(BookError, match="locked"):
        await outcomes.ack(outcome)
    await asyncio.sleep(45)
    await outcomes.ack(outcome)
    assert await unread(book) == 0


async def test_a_reader_that_has_left_takes_nothing_more(book: TaskBook) -> None:
    """A step that the book has not made by then is made for what it says, and brings nothing."""
    await ended(book, ["a"])
    store = await troubled(book)
    store.before = lambda _: BookError("locked", transient=True) if now() < 20 else None
    async with book.outcomes() as outcomes:
        with suppress(TimeoutError):
            await asyncio.wait_for(anext(outcomes), 1)
    with pytest.raises(BookError, match="locked"):
        await outcomes.ack(TaskOutcome(task_id="a"))
    assert [take.want for at, take in store.takes if at >= 1.0] == [0] * (len(store.takes) - 2)
    await asyncio.sleep(30)
    assert await next_of(book) == ("a", 1, 0.0)


async def test_a_book_that_is_closed_out_of_reach_keeps_nobody(book: TaskBook) -> None:
    """Closing it takes a second for a reader that cannot say its last words, not longer."""
    await ended(book, ["a"])
    store = await troubled(book)
    async with book.outcomes() as outcomes:
        await anext(outcomes)
        store.before = lambda _: BookError("locked", transient=True)
    await book.aclose()
    assert now() == 6.0


async def test_a_stream_is_left_while_a_step_waits_for_its_next_try(book: TaskBook) -> None:
    """The step that was under way is sent again first, as nobody knows what came of it."""
    await ended(book, ["a"])
    store = await troubled(book)
    store.after = lambda take: BookError("lost", transient=True) if now() < 0.4 else None
    async with book.outcomes() as outcomes:
        step = asyncio.create_task(anext_of(outcomes))
        await asyncio.sleep(0.45)
        assert [take.seq for _, take in store.takes] == [1]
    with suppress(StopAsyncIteration):
        await step
    assert [take.seq for _, take in store.takes] == [1, 1, 2]
    assert now() == 0.45
    assert await next_of(book) == ("a", 1, 0.0)


# Living and dying.


async def test_a_slow_reader_keeps_what_it_has(book: TaskBook) -> None:
    """It is heard of now and then, so that nobody else gets its outcome, however long it takes."""
    await ended(book, ["a"])
    async with book.outcomes() as outcomes, book.outcomes() as others:
        await anext(outcomes)
        step = asyncio.create_task(anext_of(others))
        await asyncio.sleep(100)
        assert not step.done()
        step.cancel()
        await asyncio.wait([step])


@in_memory
async def test_a_reader_that_has_nothing_costs_nothing(book: TaskBook) -> None:
    """Where nothing is held and nothing waited for, nothing is said."""
    await ended(book, ["a"])
    store = await troubled(book)
    async with book.outcomes() as outcomes:
        await outcomes.ack(await anext(outcomes))
        count = len(store.takes)
        await asyncio.sleep(600)
        assert len(store.takes) == count


@in_memory
async def test_a_loop_that_stands_still_is_dead_to_the_others(book: TaskBook) -> None:
    """Its outcome goes to another reader; its own late word counts all the same."""
    await ended(book, ["a"])
    async with book.outcomes() as outcomes:
        outcome = await anext(outcomes)
        freeze(31)
        store = (await open_inside(book)).store
        reply = await store.take(Take(reader="other", seq=1, want=1, is_handed=True))
        assert [(each.key, each.deliveries) for each in reply.parcels] == [("a", 2)]
        await outcomes.ack(outcome)
        assert await unread(book) == 0


@in_memory
async def test_what_comes_back_to_the_reader_that_handles_it_is_not_handed_out_twice(
    book: TaskBook,
) -> None:
    """Taken for dead and alive again, it gets its own outcome back: the handler still runs."""
    await ended(book, ["a", "b"])
    handled = []

    async def handle(outcome: TaskOutcome) -> None:
        handled.append(outcome.task_id)
        if outcome.task_id == "a":
            await asyncio.sleep(40)

    async with book.outcomes(until_empty=True) as outcomes:
        each = asyncio.create_task(outcomes.each(handle, limit=2))
        await asyncio.sleep(1)
        freeze(31)
        store = (await open_inside(book)).store
        await store.take(Take(reader="other", seq=1, is_leaving=True))  # somebody who looks
        await each
    assert sorted(handled) == ["a", "b"]
    assert await unread(book) == 0


async def test_a_stream_that_nobody_holds_any_more_gives_back(book: TaskBook) -> None:
    """Where the block is never left, as its task was lost, the garbage collector does it."""
    await ended(book, ["a"])
    outcomes = book.outcomes()
    await outcomes.__aenter__()
    await anext(outcomes)
    del outcomes
    gc.collect()
    await now_waiting(20)
    assert await next_of(book) == ("a", 1, 0.0)


async def test_a_book_that_is_closed_out_of_reach_ends_its_readers(book: TaskBook) -> None:
    """The same where they are read still: one step that is not answered ends it."""
    await ended(book, ["a"])
    store = await troubled(book)
    async with book.outcomes() as outcomes:
        outcome = await anext(outcomes)
        store.before = lambda _: BookError("locked", transient=True)
        await book.aclose()
        assert now() == 1.0
        with pytest.raises(BookError, match="the book is closed"):
            await outcomes.ack(outcome)


async def test_closing_the_book_ends_its_readers(book: TaskBook) -> None:
    """A step that waits raises `BookError`, and so does the next; what was held is given back."""
    await ended(book, ["a"])
    store = await troubled(book)
    async with book.outcomes() as outcomes:
        await anext(outcomes)
        async with book.outcomes() as others:
            step = asyncio.create_task(anext_of(others))
            await now_waiting(5)
            await book.aclose()
            for _ in range(2):
                with pytest.raises(BookError, match="the book is closed"):
                    await step
                step = asyncio.create_task(anext_of(others))
            with pytest.raises(BookError, match="the book is closed"):
                await step
        with pytest.raises(BookError, match="the book is closed"):
            await anext(outcomes)
    acks = {receipt.ack for _, take in store.takes for receipt in take.receipts}
    assert acks == {Ack.BACK}
    with pytest.raises(BookError, match="the book is closed"):
        await book.outcomes().__aenter__()


async def test_another_loop_is_refused() -> None:
    """A stream belongs to the loop of its book."""
    book = TaskBook()
    async with book, book.outcomes() as outcomes:
        raised: list[BaseException] = []

        async def use() -> None:
            for step in (anext(outcomes), outcomes.each(ignore), book.outcomes().__aenter__()):
                try:
                    await step
                except WrongLoopError as error:
                    raised.append(error)

        thread = Thread(target=asyncio.run, args=(use(),))
        thread.start()
        thread.join()
        assert len(raised) == 3
        assert "this book belongs to the event loop of thread" in str(raised[0])


async def test_a_fork_is_refused(book: TaskBook, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the process of a child the book is another's."""
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(BookError, match="make one TaskBook in each process"):
        await book.outcomes().__aenter__()
    monkeypatch.undo()


@in_memory
async def test_an_outcome_that_cannot_be_read_blocks_nobody(
    book: TaskBook, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said, passed by, and parked in the end, so that `book.get` shows that something is."""
    ender = await ended(book, [])
    await book.add_many(["a", "b"])
    await ender.end_as("a", "{}")
    await ender.end("b")
    async with book.outcomes(until_empty=True) as outcomes:
        assert [outcome.task_id async for outcome in outcomes] == ["b"]
    said = [record for record in caplog.records if "cannot be read" in record.getMessage()]
    assert len(said) == 10
    assert said[0].getMessage().startswith("the outcome of 'a' is given back: the book holds")
    assert (await book.progress()).parked == 1


@in_memory
async def test_what_was_parked_comes_again_when_that_is_asked_for(
    book: TaskBook, caplog: pytest.LogCaptureFixture
) -> None:
    """After ten deliveries in vain it is parked, said at ERROR; `retry` counts anew."""
    await ended(book, ["a"])
    for _ in range(10):
        with suppress(ZeroDivisionError):
            async with book.outcomes() as outcomes:
                await anext(outcomes)
                raise ZeroDivisionError
    entry = await book.get("a")
    assert entry is not None
    assert entry.state == "parked"
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert caplog.messages == [
        "the outcome of 'a' was handed out 10 times in vain; it is parked, see book.retry"
    ]
    assert now() == 1 + 2 + 4 + 8 + 16 + 32 + 64 + 128 + 300
    assert await book.retry("a")
    assert await next_of(book) == ("a", 1, 0.0)
