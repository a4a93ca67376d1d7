"""`each` over a book: handlers run some at once, and what became of each outcome is kept."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextvars import ContextVar
from pathlib import Path

import pytest

from kling_omni_async import (
    AuthenticationError,
    BookError,
    OutcomeStream,
    SessionClosedError,
    TaskBook,
    TaskOutcome,
)
from kling_omni_async._book.book import FROM_POLLED_BOOK, host_of, reading_of
from kling_omni_async._book.contract import Ack
from kling_omni_async._book.opened import OpenBook
from tests.support import now, now_waiting

from .ends import ended, ender_of, kept_in, troubled

pytestmark = pytest.mark.anyio

chat: ContextVar[str] = ContextVar("chat", default="")


@pytest.fixture(params=["memory", "file"])
async def book(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[TaskBook]:
    """Open a book in memory or in a file, and prove that closing it leaves no task behind."""
    before = asyncio.all_tasks()
    async with TaskBook() if request.param == "memory" else kept_in(tmp_path) as opened:
        yield opened
    left = {task for task in asyncio.all_tasks() - before if "kling" in task.get_name()}
    assert not left


in_memory = pytest.mark.parametrize("book", ["memory"], indirect=True)


class Handling:
    """A handler that notes what it does, and takes its time."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.began: list[tuple[str, int, float]] = []
        self.done: list[str] = []
        self.cancelled: list[str] = []
        self.running = 0
        self.peak = 0

    async def __call__(self, outcome: TaskOutcome) -> None:
        """Handle an outcome."""
        self.began.append((outcome.task_id, outcome.deliveries, now()))
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            await asyncio.sleep(self.seconds)
            self.check(outcome)
            self.done.append(outcome.task_id)
        except asyncio.CancelledError:
            await asyncio.sleep(0.5)
            self.cancelled.append(outcome.task_id)
            raise
        finally:
            self.running -= 1

    def check(self, outcome: TaskOutcome) -> None:
        """Raise what a handler raises, if it is to."""


class Failing(Handling):
    """A handler that fails for one id, some times or always."""

    def __init__(self, task_id: str, times: float, seconds: float = 0.0) -> None:
        super().__init__(seconds)
        self.task_id = task_id
        self.left = times

    def check(self, outcome: TaskOutcome) -> None:
        """Raise for the one id."""
        if outcome.task_id == self.task_id and self.left > 0:
            self.left -= 1
            raise ZeroDivisionError("out of luck")


async def unread(book: TaskBook) -> int:
    """Return how many outcomes nobody has acknowledged."""
    return (await book.progress()).unread


async def test_what_is_handled_is_acknowledged(book: TaskBook) -> None:
    """`limit` handlers run at once, in order of ending, each outcome once; all is read then."""
    await ended(book, [f"t{n}" for n in range(20)])
    handle = Handling(10)
    async with book.outcomes(until_empty=True) as outcomes:
        await outcomes.each(handle, limit=8)
        assert await unread(book) == 0
        await asyncio.sleep(1)
        assert repr(host_of(book)) == "<Readers streams=0>"  # left, as it has ended
    assert [task_id for task_id, _, _ in handle.began] == [f"t{n}" for n in range(20)]
    assert [at for _, _, at in handle.began] == [0.0] * 8 + [10.0] * 8 + [20.0] * 4
    assert handle.peak == 8
    assert outcomes.progress.failed == 20


async def test_many_are_taken_in_one_step(book: TaskBook) -> None:
    """As many as there are free places come with one step, and what is done goes with the next."""
    await ended(book, [f"t{n}" for n in range(20)])
    store = await troubled(book)
    async with book.outcomes(until_empty=True) as outcomes:
        await outcomes.each(Handling(10), limit=10)
    brought = [(len(take.receipts), take.want) for _, take in store.takes if take.receipts]
    assert len(store.takes) < 12
    assert brought[0] == (10, 10)


async def test_no_more_are_taken_than_there_are_free_places(book: TaskBook) -> None:
    """What a reader cannot handle yet is for the others."""
    ender = await ended(book, ["a"])
    store = await troubled(book)
    async with book.outcomes() as outcomes:
        each = asyncio.create_task(outcomes.each(Handling(100), limit=3))
        await asyncio.sleep(1)
        await book.add_many(["b", "c", "d"])
        await ender.end("b", "c", "d")
        await asyncio.sleep(1)
        assert outcomes.progress.failed == 3
        async with book.outcomes() as others:
            assert (await anext(others)).task_id == "d"
        assert max(take.want for _, take in store.takes if take.seq > 1) <= 2
        each.cancel()
        await asyncio.wait([each])


async def test_an_acknowledgement_does_not_wait_for_the_next_outcome(book: TaskBook) -> None:
    """A handler that returned is known to the book at once, though nothing more comes."""
    await ended(book, ["a", "b"])
    handle = Handling(10)
    async with book.outcomes() as outcomes:
        each = asyncio.create_task(outcomes.each(handle, limit=1))
        await asyncio.sleep(10.1)
        assert await unread(book) == 1
        await asyncio.sleep(10)
        assert await unread(book) == 0
        each.cancel()
        await asyncio.wait([each])


async def test_what_a_handler_fails_on_comes_again(
    book: TaskBook, caplog: pytest.LogCaptureFixture
) -> None:
    """After 1, 2, 4 s from its hand-out, while others pass by; each time it is logged."""
    await ended(book, ["a", "b", "c"])
    handle = Failing("a", times=3)
    async with book.outcomes(until_empty=True) as outcomes:
        await outcomes.each(handle, limit=1)
    assert handle.began == [
        ("a", 1, 0.0),
        ("b", 1, 0.0),
        ("c", 1, 0.0),
        ("a", 2, 1.0),
        ("a", 3, 3.0),
        ("a", 4, 7.0),
    ]
    assert handle.done == ["b", "c", "a"]
    records = [record for record in caplog.records if record.name == "kling_omni_async.book"]
    assert [record.levelno for record in records] == [logging.ERROR] * 3
    assert records[0].getMessage() == (
        "the handler raised for 'a', delivery 1; it comes again later"
    )
    assert records[0].exc_info is not None
    assert records[0].exc_info[0] is ZeroDivisionError


async def test_what_is_no_exception_ends_each(book: TaskBook) -> None:
    """What a handler raises that is no `Exception` is raised, and its outcome comes again."""
    await ended(book, ["a"])

    async def handle(outcome: TaskOutcome) -> None:
        pytest.fail(f"{outcome.task_id} is wrong")

    async def read() -> None:
        async with book.outcomes() as outcomes:
            await outcomes.each(handle)

    with pytest.raises(pytest.fail.Exception, match="a is wrong"):
        await read()
    async with book.outcomes() as outcomes:
        assert (await anext(outcomes)).deliveries == 2
    assert now() == 1.0


@in_memory
async def test_a_poison_outcome_is_parked(book: TaskBook, caplog: pytest.LogCaptureFixture) -> None:
    """After ten deliveries it comes no more: the batch ends, the rest was handled long before."""
    await ended(book, ["a", "b"])
    handle = Failing("a", times=float("inf"))
    async with book.outcomes(until_empty=True) as outcomes:
        await outcomes.each(handle)
    assert [number for task_id, number, _ in handle.began if task_id == "a"] == list(range(1, 11))
    assert handle.done == ["b"]
    assert "the outcome of 'a' was handed out 10 times in vain" in caplog.text
    progress = await book.progress()
    assert (progress.unread, progress.parked) == (0, 1)


async def test_a_handler_that_is_down_for_a_minute_loses_nothing(book: TaskBook) -> None:
    """All that ended meanwhile comes again until it is handled, soon after the minute is over."""
    await ended(book, [f"t{n}" for n in range(10)])

    class Down(Handling):
        def check(self, outcome: TaskOutcome) -> None:
            if now() < 60:
                raise ConnectionError("the chat is down")

    handle = Down()
    async with book.outcomes(until_empty=True) as outcomes:
        await outcomes.each(handle)
    assert sorted(handle.done) == sorted(f"t{n}" for n in range(10))
    assert now() < 128


async def test_cancelling_gives_back_at_once(book: TaskBook) -> None:
    """Handlers are cancelled and awaited; theirs is there again, what was handled is not."""
    await ended(book, ["a", "b", "c"])
    handle = Handling(10)
    async with book.outcomes() as outcomes:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(15):
                await outcomes.each(handle, limit=2)
        assert now() == 15.5  # their clean-up was waited for
        assert (sorted(handle.done), handle.cancelled) == (["a", "b"], ["c"])
        again = await anext(outcomes)
        assert (again.task_id, again.deliveries, now()) == ("c", 1, 15.5)


async def test_handlers_are_awaited_however_often_it_is_cancelled(book: TaskBook) -> None:
    """Cancelled again in the clean-up of a handler, it still leaves none behind."""
    await ended(book, ["a"])
    handle = Handling(10)
    async with book.outcomes() as outcomes:
        each = asyncio.create_task(outcomes.each(handle))
        for _ in range(3):
            await asyncio.sleep(0.1)
            each.cancel()
        await asyncio.wait([each])
        assert each.cancelled()
        assert handle.cancelled == ["a"]
        assert (await anext(outcomes)).task_id == "a"


async def test_a_handler_that_ends_while_it_is_cancelled_counts(
    book: TaskBook, caplog: pytest.LogCaptureFixture
) -> None:
    """One that returns all the same has handled its outcome; one that raises has not."""
    await ended(book, ["a", "b"])

    async def handle(outcome: TaskOutcome) -> None:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            if outcome.task_id == "b":
                raise ZeroDivisionError from None

    async with book.outcomes() as outcomes:
        each = asyncio.create_task(outcomes.each(handle))
        await asyncio.sleep(1)
        each.cancel()
        await asyncio.wait([each])
        again = await anext(outcomes)
        assert (again.task_id, again.deliveries) == ("b", 2)
    assert "the handler raised for 'b', delivery 1; it comes again later" in caplog.text


async def test_a_handler_that_somebody_else_cancels_has_failed(book: TaskBook) -> None:
    """Given back at once, its outcome would be cancelled again and again: it comes later."""
    await ended(book, ["a"])
    times = []

    async def handle(outcome: TaskOutcome) -> None:
        times.append(now())
        if outcome.deliveries < 3:
            raise asyncio.CancelledError

    async with book.outcomes(until_empty=True) as outcomes:
        await outcomes.each(handle)
    assert times == [0.0, 1.0, 3.0]


async def test_handlers_see_the_callers_context(book: TaskBook) -> None:
    """Each runs in a copy of it: what it sets there is its own."""
    await ended(book, ["a", "b"])
    seen = []

    async def handle(outcome: TaskOutcome) -> None:
        seen.append(chat.get())
        chat.set(outcome.task_id)

    token = chat.set("mine")
    async with book.outcomes(until_empty=True) as outcomes:
        await outcomes.each(handle)
    assert (seen, chat.get()) == (["mine", "mine"], "mine")
    chat.reset(token)


async def test_ack_inside_of_a_handler(book: TaskBook, caplog: pytest.LogCaptureFixture) -> None:
    """What a handler has acknowledged by hand does not come again, though it raises then."""
    await ended(book, ["a"])

    async def handle(outcome: TaskOutcome) -> None:
        await outcomes.ack(outcome)
        assert await unread(book) == 0
        raise ZeroDivisionError

    async with book.outcomes(until_empty=True) as outcomes:
        await outcomes.each(handle)
    assert "the handler raised for 'a', delivery 1; it is acknowledged already" in caplog.text


async def test_a_handler_that_is_not_async_ends_it(book: TaskBook) -> None:
    """It would fail on each outcome: it is refused with the line to write, and nothing is lost."""
    await ended(book, ["a"])

    def answer(outcome: TaskOutcome) -> None:
        del outcome

    with pytest.raises(TypeError, match=r"write: async def answer\(outcome\)"):
        async with book.outcomes() as outcomes:
            await outcomes.each(answer)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert await unread(book) == 1


async def test_a_broken_book_waits_for_the_handlers(book: TaskBook) -> None:
    """They come to their end, then the error is raised; what they did comes again."""
    ender = await ended(book, ["a"])
    store = await troubled(book)
    handle = Handling(10)
    async with book.outcomes() as outcomes:
        each = asyncio.create_task(outcomes.each(handle))
        await asyncio.sleep(1)
        store.before = lambda _: BookError("the file was deleted")
        await book.add("b")
        await ender.end("b")
        with pytest.raises(BookError, match="deleted"):
            await each
        assert (handle.done, now()) == (["a"], 10.0)
    assert await unread(book) == 2


async def test_a_handler_that_closes_its_own_stream(book: TaskBook) -> None:
    """It does not wait for itself, and what it returns counts though the stream was left."""
    await ended(book, ["a", "b"])

    async def handle(outcome: TaskOutcome) -> None:
        del outcome
        await outcomes.aclose()

    async with book.outcomes() as outcomes:
        await outcomes.each(handle, limit=1)
    await now_waiting(10)
    assert await unread(book) == 1


async def test_a_late_word_to_a_closed_book_is_dropped(book: TaskBook) -> None:
    """A handler that goes on after the stream and the book were closed harms nobody."""
    await ended(book, ["a"])
    handle = Handling(10)
    async with book.outcomes() as outcomes:
        each = asyncio.create_task(outcomes.each(handle))
        await asyncio.sleep(1)
        await book.aclose()
        with pytest.raises(BookError, match="closed"):
            await each
    assert handle.done == ["a"]


async def test_a_late_word_that_is_not_heard_is_raised(book: TaskBook) -> None:
    """Where the book is out of reach by then, `each` says that, and the outcome comes again."""
    await ended(book, ["a"])
    store = await troubled(book)
    async with book.outcomes() as outcomes:
        each = asyncio.create_task(outcomes.each(Handling(10)))
        await asyncio.sleep(1)
        await outcomes.aclose()
        store.before = lambda _: BookError("locked", transient=True)
        with pytest.raises(BookError, match="locked"):
            await each
    assert await unread(book) == 1


# What polls beside.


class Polling:
    """What polls a book while it is read, and ends by itself on command."""

    def __init__(self, inside: OpenBook) -> None:
        self.fault: BaseException | None = None
        self.inside = inside
        self.steps: list[str] = []

    def start(self) -> None:
        """Begin."""
        self.steps.append("start")

    def fail(self, fault: BaseException) -> None:
        """End by itself."""
        self.fault = fault
        self.inside.fail(fault)

    async def aclose(self) -> None:
        """Stop, which takes a while."""
        self.steps.append("stop")
        await asyncio.sleep(2)
        self.steps.append("stopped")


class Polled:
    """A stream of a book that something polls as long as it is read."""

    def __init__(self, book: TaskBook, *, until_empty: bool = False) -> None:
        self.polling: Polling | None = None
        reading = reading_of(book, self._make, saving=None, most_saving=8, until_empty=until_empty)
        self.stream = OutcomeStream(lambda: host_of(book), reading, origin=FROM_POLLED_BOOK)

    def _make(self, inside: OpenBook) -> Polling:
        self.polling = Polling(inside)
        return self.polling


async def test_what_polls_is_started_and_left_with_the_stream(book: TaskBook) -> None:
    """It begins on entry, and has stopped when the block is left: its last word is kept by then."""
    polled = Polled(book, until_empty=True)
    async with polled.stream as outcomes:
        assert polled.polling is not None
        assert polled.polling.steps == ["start"]
        await outcomes.each(Handling())
    assert polled.polling.steps == ["start", "stop", "stopped"]
    with pytest.raises(RuntimeError, match=r"write: async with session\.poll\(book\) as outcomes:"):
        await anext(Polled(book).stream)


async def test_a_fault_of_what_polls_comes_behind_the_outcomes(book: TaskBook) -> None:
    """What was there comes out first; then the fault is raised, at each further step again."""
    await ended(book, ["a", "b"])
    polled = Polled(book)
    async with polled.stream as outcomes:
        assert polled.polling is not None
        polled.polling.fail(AuthenticationError("key refused", http_status=401))
        assert [(await anext(outcomes)).task_id for _ in range(2)] == ["a", "b"]
        for _ in range(2):
            with pytest.raises(AuthenticationError, match="key refused"):
                await anext(outcomes)
    assert await unread(book) == 0


async def test_a_fault_wakes_who_waits(book: TaskBook) -> None:
    """`each` is told at once, though no outcome comes; its handlers come to their end first."""
    await ended(book, ["a"])
    polled, handle = Polled(book), Handling(10)
    async with polled.stream as outcomes:
        each = asyncio.create_task(outcomes.each(handle))
        await asyncio.sleep(1)
        assert polled.polling is not None
        polled.polling.fail(SessionClosedError("the session is closed"))
        with pytest.raises(SessionClosedError):
            await each
        assert (handle.done, now()) == (["a"], 10.0)
        assert await unread(book) == 0


async def test_closing_the_book_stops_what_polls(book: TaskBook) -> None:
    """What it brings at its end still finds the book open."""
    polled = Polled(book)
    async with polled.stream:
        assert polled.polling is not None
        await book.aclose()
        assert polled.polling.steps == ["start", "stop", "stopped"]


@in_memory
async def test_more_handlers_than_one_step_carries(book: TaskBook) -> None:
    """A stream with 450 outcomes in hand gives them back in steps of 200 at most."""
    await ended(book, [])
    ender = await ender_of(book)
    for hundred in range(5):
        task_ids = [f"t{hundred}-{n}" for n in range(90)]
        await book.add_many(task_ids)
        await ender.end(*task_ids)
    store = await troubled(book)
    async with book.outcomes() as outcomes:
        each = asyncio.create_task(outcomes.each(Handling(10), limit=1_000))
        await asyncio.sleep(1)
        assert outcomes.progress.failed == 450
        await outcomes.aclose()
        receipts = [receipt for _, take in store.takes for receipt in take.receipts]
        assert max(len(take.receipts) for _, take in store.takes) == 200
        assert len(receipts) == 450
        assert {receipt.ack for receipt in receipts} == {Ack.BACK}
        each.cancel()
        await asyncio.wait([each])
    assert [take.is_leaving for _, take in store.takes if take.receipts] == [False, False, True]
