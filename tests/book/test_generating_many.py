"""`generate_many` with a book: acknowledged one by one, and what is left is for its readers."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path
from typing import Any

import pytest

from kling_omni_async import (
    ApiError,
    AuthenticationError,
    BookError,
    ConfigurationError,
    CreateUncertainError,
    ImageOrder,
    KlingOmniSession,
    NotInBookError,
    SessionClosedError,
    TaskBook,
    TaskOutcome,
)
from kling_omni_async.simulator import SimulatedCometAPI
from tests.creating.test_create import posts, warnings_in
from tests.support import new_session, now, now_waiting

from .test_creating import BROKEN, FULL, book, failing, hook, memory_book, read_one

__all__ = ["book", "memory_book"]

pytestmark = pytest.mark.anyio


def orders(number: int) -> list[ImageOrder]:
    """Give orders with keys."""
    return [ImageOrder("a fox", key=f"row-{each}") for each in range(number)]


async def all_left(book: TaskBook, api: SimulatedCometAPI) -> list[TaskOutcome]:
    """Work and read a book until it is empty."""
    async with new_session(api) as session, session.poll(book, until_empty=True) as outcomes:
        return [outcome async for outcome in outcomes]


def ids(outcomes: Iterable[TaskOutcome]) -> Counter[str]:
    """Count the ids of outcomes."""
    return Counter(outcome.task_id for outcome in outcomes)


async def test_each_order_comes_out_and_is_acknowledged(
    comet_api: SimulatedCometAPI, book: TaskBook, tmp_path: Path
) -> None:
    """With its note, its order and its images; nothing is left for readers."""
    async with new_session(comet_api) as session:
        stream = session.generate_many(
            orders(12), book=book, note={"job": 7}, save_to=tmp_path / "out", max_tasks=5
        )
        async with stream as outcomes:
            found = [outcome async for outcome in outcomes]
            assert outcomes.progress.succeeded == 12
    assert {outcome.order for outcome in found} == set(orders(12))
    assert ids(found) == Counter(bill.task_id for bill in comet_api.billed)
    for outcome in found:
        assert (outcome.note, outcome.deliveries, len(outcome.saved)) == ({"job": 7}, 1, 1)
        assert outcome.external_task_id
    progress = await book.progress()
    assert (progress.pending, progress.unread, progress.workers) == (0, 0, 0)
    assert await all_left(book, comet_api) == []


async def test_a_run_that_stops_is_gone_on_with(
    comet_api: SimulatedCometAPI, book: TaskBook
) -> None:
    """The same keys again bring what is there, and only what is missing is created."""
    async with (
        new_session(comet_api) as session,
        session.generate_many(orders(6), book=book, max_tasks=2) as outcomes,
    ):
        first = [await anext(outcomes), await anext(outcomes)]
    async with (
        new_session(comet_api) as session,
        session.generate_many(orders(6), book=book) as outcomes,
    ):
        found = [outcome async for outcome in outcomes]
    assert len(comet_api.billed) == 6
    assert len(ids(found)) == 6
    assert ids(first) <= ids(found)
    assert max(posts(comet_api).values()) == 1
    assert (await book.progress()).unread == 0


async def test_what_is_left_comes_out_at_readers(
    comet_api: SimulatedCometAPI, memory_book: TaskBook, caplog: pytest.LogCaptureFixture
) -> None:
    """`break` gives the last one back at once; open tasks are polled on, and none is named lost."""
    async with (
        new_session(comet_api) as session,
        session.generate_many(orders(4), book=memory_book) as outcomes,
    ):
        first = await anext(outcomes)
        second = await anext(outcomes)
    left = await all_left(memory_book, comet_api)
    assert ids(left) == Counter(
        bill.task_id for bill in comet_api.billed if bill.task_id != first.task_id
    )
    assert second.task_id in ids(left)
    assert {outcome.deliveries for outcome in left} == {1}
    assert all(outcome.order in orders(4) for outcome in left)
    assert warnings_in(caplog) == []


async def test_an_exception_lets_it_come_again_later(
    comet_api: SimulatedCometAPI, memory_book: TaskBook
) -> None:
    """The outcome that was in hand counts as handed out in vain."""

    async def fail(session: KlingOmniSession) -> None:
        async with session.generate_many(orders(1), book=memory_book) as outcomes:
            await anext(outcomes)
            raise ZeroDivisionError

    async with new_session(comet_api) as session:
        with pytest.raises(ZeroDivisionError):
            await fail(session)
    began = now()
    outcome = await read_one(memory_book, comet_api)
    assert outcome.deliveries == 2
    assert 0.9 <= now() - began <= 1.5


async def test_each_acknowledges_what_was_handled(
    comet_api: SimulatedCometAPI, memory_book: TaskBook
) -> None:
    """What a handler fails for comes out at a reader, and the others go on."""
    handled: list[str] = []

    async def handle(outcome: TaskOutcome) -> None:
        handled.append(outcome.task_id)
        if len(handled) == 1:
            raise ValueError("poison")

    async with (
        new_session(comet_api) as session,
        session.generate_many(orders(5), book=memory_book) as outcomes,
    ):
        await outcomes.each(handle, limit=2)
    assert len(set(handled)) == 5
    (again,) = await all_left(memory_book, comet_api)
    assert (again.task_id, again.deliveries) == (handled[0], 2)


async def test_a_handler_that_is_cancelled_gives_back(
    comet_api: SimulatedCometAPI, memory_book: TaskBook
) -> None:
    """As if the outcome had never been handed out."""

    async def handle(_: TaskOutcome) -> None:
        await asyncio.sleep(1000)

    async with (
        new_session(comet_api) as session,
        session.generate_many(orders(1), book=memory_book) as outcomes,
    ):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(100):
                await outcomes.each(handle)
    assert (await read_one(memory_book, comet_api)).deliveries == 1


async def test_ack_keeps_at_once(comet_api: SimulatedCometAPI, memory_book: TaskBook) -> None:
    """Also twice, and after the stream was left; what is in no book needs none."""
    comet_api.fail_next_create(status=400, body={"code": 1201, "message": "no"})
    async with new_session(comet_api) as session:
        async with session.generate_many(orders(3), book=memory_book) as outcomes:
            refused = await anext(outcomes)
            first, second = await anext(outcomes), await anext(outcomes)
            await outcomes.ack(refused)
            unread = (await memory_book.progress()).unread
            await outcomes.ack(second)
            await outcomes.ack(second)
            assert (await memory_book.progress()).unread == unread - 1
        assert refused.task_id == ""
        await outcomes.ack(first)
    assert await all_left(memory_book, comet_api) == []


async def test_a_late_handler_acknowledges(
    comet_api: SimulatedCometAPI, memory_book: TaskBook
) -> None:
    """What was given back when the stream was left is acknowledged all the same."""
    async with new_session(comet_api) as session:
        async with session.generate_many(orders(1), book=memory_book) as outcomes:
            outcome = await anext(outcomes)
        assert (await memory_book.progress()).unread == 1
        await outcomes.ack(outcome)
        assert (await memory_book.progress()).unread == 0


async def test_orders_that_make_no_task(
    comet_api: SimulatedCometAPI, memory_book: TaskBook
) -> None:
    """A refusal and a doubt come out of the stream; workers of the book settle the doubt."""
    comet_api.fail_next_create(status=400, body={"code": 1201, "message": "no"})
    comet_api.fail_next_create(reset=True, created=False)
    async with (
        new_session(comet_api) as session,
        session.generate_many(orders(3), book=memory_book, max_tasks=1) as outcomes,
    ):
        found = [outcome async for outcome in outcomes]
    kinds = Counter(type(outcome.error) for outcome in found)
    assert kinds == {ApiError: 1, CreateUncertainError: 1, type(None): 1}
    (doubt,) = await all_left(memory_book, comet_api)
    assert isinstance(doubt.error, CreateUncertainError)
    assert doubt.order in orders(3)


async def test_it_has_one_consumer_and_a_block(
    comet_api: SimulatedCometAPI, memory_book: TaskBook
) -> None:
    """As every stream of a book: else nobody knew what is acknowledged."""
    async with new_session(comet_api) as session:
        with pytest.raises(RuntimeError, match=r"async with session\.generate_many\(orders, book"):
            await anext(session.generate_many(orders(1), book=memory_book))
        async with session.generate_many(orders(1), book=memory_book) as outcomes:
            first = asyncio.ensure_future(anext(outcomes))
            await now_waiting()
            with pytest.raises(RuntimeError, match="one consumer"):
                await anext(outcomes)
            assert (await first).ok


async def test_what_is_wrong_is_told_at_once(comet_api: SimulatedCometAPI) -> None:
    """A note without a book, a bad note, what is no book."""
    wrong: Any = "tasks.db"
    async with new_session(comet_api) as session, TaskBook() as book:
        with pytest.raises(ConfigurationError, match=r"write book="):
            session.generate_many(orders(1), note=1)
        with pytest.raises(ConfigurationError, match=r"^note cannot be kept"):
            session.generate_many(orders(1), book=book, note={1})
        with pytest.raises(ConfigurationError, match=r"book=TaskBook\('tasks.db'\)$"):
            session.generate_many(orders(1), book=wrong)


async def test_an_entry_that_is_removed_meanwhile(
    comet_api: SimulatedCometAPI, memory_book: TaskBook
) -> None:
    """It comes out as what it is, and makes room for the next order."""
    async with new_session(comet_api) as session:
        stream = session.generate_many(orders(2), book=memory_book, max_tasks=1)
        async with stream as outcomes:
            await comet_api.wait_for_queries(1)
            await asyncio.sleep(1)
            removed = comet_api.billed[0].task_id
            await memory_book.remove(removed)
            first, second = [outcome async for outcome in outcomes]
    assert (first.task_id, type(first.error)) == (removed, NotInBookError)
    assert first.order == orders(2)[0]
    assert second.ok


async def test_a_session_that_is_closed_meanwhile(
    comet_api: SimulatedCometAPI, memory_book: TaskBook
) -> None:
    """The consumer is told so, and all tasks are for the readers of the book."""
    session = new_session(comet_api)
    async with session.generate_many(orders(3), book=memory_book) as outcomes:
        await comet_api.wait_for_queries(3)
        await asyncio.sleep(1)
        await session.aclose()
        with pytest.raises(SessionClosedError):
            await anext(outcomes)
    left = await all_left(memory_book, comet_api)
    assert ids(left) == Counter(bill.task_id for bill in comet_api.billed)
    assert len(left) == 3


async def test_a_wrong_setup_ends_it(comet_api: SimulatedCometAPI, memory_book: TaskBook) -> None:
    """As it does without a book; the tasks are there for others."""
    comet_api.fail_next(status=401, times=None)
    async with (
        new_session(comet_api) as session,
        session.generate_many(orders(3), book=memory_book) as outcomes,
    ):
        with pytest.raises(AuthenticationError):
            await anext(outcomes)
    comet_api.clear_faults()
    assert len(await all_left(memory_book, comet_api)) == 3


async def test_a_book_out_of_reach_is_waited_for(
    comet_api: SimulatedCometAPI, memory_book: TaskBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is sent meanwhile, and all orders go on when it is back."""
    await hook(memory_book, monkeypatch, "intend", failing(None, *[FULL] * 5))
    async with (
        new_session(comet_api) as session,
        session.generate_many(orders(3), book=memory_book) as outcomes,
    ):
        assert [outcome.ok async for outcome in outcomes] == [True] * 3
    assert max(posts(comet_api).values()) == 1


async def test_the_next_one_waits_for_the_acknowledgement(
    comet_api: SimulatedCometAPI, memory_book: TaskBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the disk is full nothing more is handed out: what was followed never comes again."""
    async with (
        new_session(comet_api) as session,
        session.generate_many(orders(2), book=memory_book) as outcomes,
    ):
        first = await anext(outcomes)
        await asyncio.sleep(60)
        began = now()
        await hook(memory_book, monkeypatch, "take", failing(*[FULL] * 6))
        second = await anext(outcomes)
        assert now() - began >= 4
    assert first.task_id not in ids(await all_left(memory_book, comet_api))
    assert second.ok


async def test_an_acknowledgement_that_cannot_be_kept(
    comet_api: SimulatedCometAPI, memory_book: TaskBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken book ends the stream."""
    async with (
        new_session(comet_api) as session,
        session.generate_many(orders(2), book=memory_book) as outcomes,
    ):
        await anext(outcomes)
        await hook(memory_book, monkeypatch, "take", failing(*[BROKEN] * 50))
        with pytest.raises(BookError, match="damaged"):
            await anext(outcomes)


async def test_a_book_out_of_reach_for_too_long(
    comet_api: SimulatedCometAPI, memory_book: TaskBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Orders have their time, of which that is a part."""
    await hook(memory_book, monkeypatch, "intend", failing(*[FULL] * 500))
    async with new_session(comet_api) as session:
        stream = session.generate_many(orders(1), book=memory_book, timeout=100)
        async with stream as outcomes:
            (outcome,) = [outcome async for outcome in outcomes]
    assert isinstance(outcome.error, BookError)
    assert 100 <= now() <= 102
    assert comet_api.queries == ()


async def test_what_comes_behind_a_wrong_setup(
    comet_api: SimulatedCometAPI, memory_book: TaskBook
) -> None:
    """Once the API takes the key again, the next call has a worker of its own at once."""
    comet_api.fail_next(status=401, times=None)
    async with new_session(comet_api) as session:
        async with session.generate_many(orders(1), book=memory_book) as outcomes:
            with pytest.raises(AuthenticationError):
                await anext(outcomes)
            comet_api.clear_faults()
            assert (await session.generate(ImageOrder("b"), book=memory_book)).ok
        assert repr(session._wings.own_readers) == "<OwnReaders []>"


async def test_a_stream_that_was_told_nothing_yet(
    comet_api: SimulatedCometAPI, memory_book: TaskBook
) -> None:
    """Who comes while another one's worker has ended has a new one, whoever leaves first."""
    comet_api.fail_next(status=401, times=None)
    async with new_session(comet_api) as session:
        async with session.generate_many(orders(1), book=memory_book) as outcomes:
            await asyncio.sleep(60)
            comet_api.clear_faults()
            generating = asyncio.ensure_future(session.generate(ImageOrder("b"), book=memory_book))
            await now_waiting(50)
            with pytest.raises(AuthenticationError):
                await anext(outcomes)
        assert (await generating).ok
        assert repr(session._wings.own_readers) == "<OwnReaders []>"


async def test_who_enters_twice_enters_once(
    comet_api: SimulatedCometAPI, memory_book: TaskBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one finds the book open, and nothing of it is left behind."""
    await hook(memory_book, monkeypatch, "progress", lambda: asyncio.sleep(1))
    async with new_session(comet_api) as session:
        stream = session.generate_many(orders(1), book=memory_book)
        await asyncio.gather(stream.__aenter__(), stream.__aenter__())
        outlet: Any = stream._state.outlet
        assert not outlet.has_ended
        assert (await anext(stream)).ok
        await stream.aclose()
        assert outlet.has_ended
        assert repr(session._wings.own_readers) == "<OwnReaders []>"


async def test_a_broken_book_ends_creating(
    comet_api: SimulatedCometAPI, memory_book: TaskBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each order comes out with why; nothing was sent."""
    await hook(memory_book, monkeypatch, "intend", failing(BROKEN))
    async with (
        new_session(comet_api) as session,
        session.generate_many(orders(20), book=memory_book, max_tasks=1) as outcomes,
    ):
        found = [outcome async for outcome in outcomes]
    assert [type(outcome.error) for outcome in found] == [BookError] * 20
    assert comet_api.queries == ()


async def test_a_task_that_could_not_be_kept(
    comet_api: SimulatedCometAPI, memory_book: TaskBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its outcome has its id, as it is paid for."""
    await hook(memory_book, monkeypatch, "created", failing(BROKEN))
    async with (
        new_session(comet_api) as session,
        session.generate_many(orders(1), book=memory_book) as outcomes,
    ):
        (outcome,) = [outcome async for outcome in outcomes]
    assert isinstance(outcome.error, BookError)
    assert outcome.task_id == comet_api.billed[0].task_id
    assert not outcome.settled


@pytest.mark.parametrize("step", ["take", "progress"])
async def test_a_book_that_cannot_be_opened(
    comet_api: SimulatedCometAPI,
    memory_book: TaskBook,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    """Entering raises; nothing of it is left, and it can be entered later."""
    await hook(memory_book, monkeypatch, step, failing(BROKEN))
    async with new_session(comet_api) as session:
        stream = session.generate_many(orders(1), book=memory_book)
        with pytest.raises(BookError, match="damaged"):
            await stream.__aenter__()
        assert repr(session._wings.own_readers) == "<OwnReaders []>"
        async with stream as outcomes:
            assert (await anext(outcomes)).ok


async def test_a_store_that_cannot_be_used(
    comet_api: SimulatedCometAPI, memory_book: TaskBook, tmp_path: Path
) -> None:
    """It is tried before the book is worked."""
    (tmp_path / "file").write_bytes(b"")
    async with new_session(comet_api) as session:
        with pytest.raises(ConfigurationError):
            async with session.generate_many(
                orders(1), book=memory_book, save_to=tmp_path / "file" / "x"
            ):
                pass
    assert (await memory_book.progress()).workers == 0


async def test_a_stream_that_is_closed_before_it_begins(
    comet_api: SimulatedCometAPI, memory_book: TaskBook
) -> None:
    """Nothing is opened for it."""
    async with new_session(comet_api) as session:
        stream = session.generate_many(orders(1), book=memory_book)
        await stream.aclose()
        async with stream as outcomes:
            assert [outcome async for outcome in outcomes] == []
        await now_waiting()
        assert (await memory_book.progress()).workers == 0
    assert comet_api.queries == ()


async def test_a_stream_that_is_closed_while_it_begins(
    comet_api: SimulatedCometAPI, memory_book: TaskBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker leaves when it has come."""
    await hook(memory_book, monkeypatch, "progress", lambda: asyncio.sleep(5))
    async with new_session(comet_api) as session:
        stream = session.generate_many(orders(1), book=memory_book)
        entering = asyncio.ensure_future(stream.__aenter__())
        await asyncio.sleep(1)
        await stream.aclose()
        await entering
        assert repr(session._wings.own_readers) == "<OwnReaders []>"
        assert [outcome async for outcome in stream] == []
    assert comet_api.queries == ()


async def test_an_endless_feed_shares_the_worker(
    comet_api: SimulatedCometAPI, memory_book: TaskBook
) -> None:
    """One worker and one reader for the streams and calls of a session at a book."""

    async def feed() -> AsyncGenerator[ImageOrder]:
        yield ImageOrder("a")
        await asyncio.sleep(200)
        yield ImageOrder("b")

    async with (
        new_session(comet_api) as session,
        session.generate_many(feed(), book=memory_book) as outcomes,
    ):
        first = await anext(outcomes)
        outcome = await session.generate(ImageOrder("c"), book=memory_book)
        assert (await memory_book.progress()).workers == 1
        second = await anext(outcomes)
        kept: Any = outcomes._state
        assert repr(kept._kept) == "<KeptOrders in <TaskBook in memory running> unacknowledged=1>"
    found = [first, second, outcome]
    assert ids(found) == Counter(bill.task_id for bill in comet_api.billed)


async def test_a_dropped_stream_gives_back(
    comet_api: SimulatedCometAPI, memory_book: TaskBook
) -> None:
    """Nobody can read it any more."""

    async def begin(session: KlingOmniSession) -> None:
        stream = session.generate_many(orders(1), book=memory_book)
        await stream.__aenter__()
        await anext(stream)

    async with new_session(comet_api) as session:
        await begin(session)
        await asyncio.sleep(1)
        async with memory_book.outcomes() as outcomes:
            assert (await anext(outcomes)).ok
