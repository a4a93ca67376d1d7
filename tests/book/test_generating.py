"""`generate` with a book: its outcome is for the call alone, and nobody's loss."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from kling_omni_async import (
    AuthenticationError,
    BookError,
    ConfigurationError,
    DownloadError,
    ImageOrder,
    NotInBookError,
    PollTimeoutError,
    SessionClosedError,
    TaskBook,
    TaskFailedError,
)
from kling_omni_async.simulator import SimulatedCometAPI
from tests.creating.test_create import posts
from tests.support import new_session, now, now_waiting

from .test_creating import BROKEN, FOX, KEYED, book, failing, hook, memory_book, read_one

__all__ = ["book", "memory_book"]

pytestmark = pytest.mark.anyio


async def is_handled(book: TaskBook, task_id: str) -> bool:
    """Whether the outcome of a task was acknowledged."""
    entry = await book.get(task_id)
    assert entry is not None
    return entry.state == "done" and (await book.progress()).unread == 0


async def test_from_a_wish_to_images(
    comet_api: SimulatedCometAPI, book: TaskBook, tmp_path: Path
) -> None:
    """The outcome has all of it, and was acknowledged when the call returned."""
    async with new_session(comet_api) as session:
        outcome = await session.generate(FOX, book=book, note={"a": 1}, save_to=tmp_path / "out")
        (bill,) = comet_api.billed
        assert (outcome.task_id, outcome.external_task_id) == (bill.task_id, bill.external_task_id)
        assert (outcome.ok, outcome.order, outcome.note) == (True, FOX, {"a": 1})
        assert (len(outcome.saved), outcome.deliveries) == (2, 1)
        assert outcome.elapsed == pytest.approx(now(), abs=1.0)
        assert outcome.queries == len(comet_api.queries_of(bill.task_id)) > 0
        assert await is_handled(book, bill.task_id)
        assert (await book.progress()).workers == 0


async def test_no_reader_gets_it(comet_api: SimulatedCometAPI, book: TaskBook) -> None:
    """Whoever reads the book meanwhile gets everything else, also where he works it."""
    other = comet_api.create_task(duration=100)
    async with new_session(comet_api) as one, new_session(comet_api) as two:
        await book.add(other)
        async with two.poll(book, until_empty=True) as outcomes:
            generating = asyncio.ensure_future(one.generate(FOX, book=book))
            assert [outcome.task_id async for outcome in outcomes] == [other]
        assert (await generating).ok


async def test_a_failure_is_raised_and_acknowledged(
    comet_api: SimulatedCometAPI, memory_book: TaskBook
) -> None:
    """The API's reason, with the id of the task."""
    async with new_session(comet_api) as session:
        generating = asyncio.ensure_future(session.generate(FOX, book=memory_book))
        await comet_api.wait_for_queries(1)
        await now_waiting(50)
        task_id = comet_api.billed[0].task_id
        failed = {"task_id": task_id, "task_status": "failed", "task_status_msg": "bad pixel"}
        comet_api.fail_next(task_id, body={"code": 0, "data": failed})
        with pytest.raises(TaskFailedError, match="bad pixel") as caught:
            await generating
        assert caught.value.task_id == task_id
        assert await is_handled(memory_book, task_id)


async def test_an_image_that_is_not_saved(
    comet_api: SimulatedCometAPI, memory_book: TaskBook, tmp_path: Path
) -> None:
    """The error names the task, which is there to be saved again by its key."""
    async with new_session(comet_api) as session:
        comet_api.fail_next_image(status=403, times=None)
        with pytest.raises(DownloadError) as caught:
            await session.generate(KEYED, book=memory_book, save_to=tmp_path)
        task_id = comet_api.billed[0].task_id
        assert caught.value.task_id == task_id
        assert await is_handled(memory_book, task_id)
        comet_api.clear_image_faults()
        outcome = await session.generate(KEYED, book=memory_book, save_to=tmp_path)
        assert len(outcome.saved) == 2
    assert sum(posts(comet_api).values()) == 1


async def test_behind_its_deadline_it_is_the_readers(
    comet_api: SimulatedCometAPI, book: TaskBook
) -> None:
    """The task stays in the book, and comes out there when it has ended."""
    async with new_session(comet_api) as session:
        with pytest.raises(PollTimeoutError) as caught:
            await session.generate(FOX, book=book, timeout=10)
        assert now() == pytest.approx(10, abs=0.5)
    assert caught.value.task_id == comet_api.billed[0].task_id
    assert caught.value.task is not None
    outcome = await read_one(book, comet_api)
    assert (outcome.task_id, outcome.order) == (caught.value.task_id, FOX)
    assert outcome.deliveries == 1


async def test_who_leaves_lets_others_have_it(
    comet_api: SimulatedCometAPI, memory_book: TaskBook
) -> None:
    """One of two calls is cancelled: its outcome comes out at a reader, the other's does not."""
    async with new_session(comet_api) as one, new_session(comet_api) as two:
        left = asyncio.ensure_future(one.generate(FOX, book=memory_book))
        stays = asyncio.ensure_future(one.generate(FOX, book=memory_book))
        await comet_api.wait_for_queries(2)
        await asyncio.sleep(5)
        assert (await memory_book.progress()).workers == 1
        left.cancel()
        async with two.poll(memory_book, until_empty=True) as outcomes:
            found = [outcome.task_id async for outcome in outcomes]
        assert left.cancelled()
        kept = await stays
    assert sorted([*found, kept.task_id]) == sorted(bill.task_id for bill in comet_api.billed)
    assert len(found) == 1


async def test_who_is_cancelled_while_it_saves(
    comet_api: SimulatedCometAPI, memory_book: TaskBook, tmp_path: Path
) -> None:
    """What has ended and was not handed out comes out at a reader at once."""
    comet_api.fail_next_image(delay=60, times=None)
    async with new_session(comet_api) as session:
        generating = asyncio.ensure_future(
            session.generate(FOX, book=memory_book, save_to=tmp_path)
        )
        await comet_api.wait_for_image_requests(1)
        generating.cancel()
        await asyncio.wait([generating])
        assert (await memory_book.progress()).unread == 1
        async with memory_book.outcomes() as outcomes:
            assert (await anext(outcomes)).task_id == comet_api.billed[0].task_id


@pytest.mark.parametrize("is_saving", [False, True])
async def test_a_session_that_is_closed_meanwhile(
    comet_api: SimulatedCometAPI, memory_book: TaskBook, tmp_path: Path, *, is_saving: bool
) -> None:
    """The call is told so, with its task, and the outcome comes out at a reader."""
    if is_saving:
        comet_api.fail_next_image(delay=60, times=None)
    session = new_session(comet_api)
    where = tmp_path if is_saving else None
    generating = asyncio.ensure_future(session.generate(FOX, book=memory_book, save_to=where))
    await (comet_api.wait_for_image_requests(1) if is_saving else comet_api.wait_for_queries(2))
    await session.aclose()
    with pytest.raises(SessionClosedError) as caught:
        await generating
    assert caught.value.task_id == comet_api.billed[0].task_id
    outcome = await read_one(memory_book, comet_api)
    assert outcome.task_id == caught.value.task_id


async def test_a_key_that_is_known_brings_its_outcome(
    comet_api: SimulatedCometAPI, book: TaskBook
) -> None:
    """From another session, before and after it was read; nothing is sent."""
    async with new_session(comet_api) as session:
        task = await session.create(KEYED, book=book)
    async with new_session(comet_api) as session:
        first = await session.generate(KEYED, book=book)
        queries = len(comet_api.queries)
        again = await session.generate(KEYED, book=book)
    assert first.task_id == again.task_id == task.task_id
    assert again.ok
    assert len(comet_api.queries) == queries
    assert sum(posts(comet_api).values()) == 1


async def test_one_wish_of_two_calls(comet_api: SimulatedCometAPI, book: TaskBook) -> None:
    """Both get the outcome, no reader does, and it is paid for once."""
    async with new_session(comet_api) as one, new_session(comet_api) as two:
        found = await asyncio.gather(one.generate(KEYED, book=book), two.generate(KEYED, book=book))
    assert found[0].task_id == found[1].task_id
    assert len(comet_api.billed) == 1
    assert (await book.progress()).unread == 0


async def test_a_wrong_setup_is_raised(comet_api: SimulatedCometAPI, memory_book: TaskBook) -> None:
    """As `wait` would do; the task is in the book for others."""
    comet_api.fail_next(status=401, times=None)
    async with new_session(comet_api) as session:
        with pytest.raises(AuthenticationError) as caught:
            await session.generate(FOX, book=memory_book)
    task_id = comet_api.billed[0].task_id
    assert caught.value.task_id == task_id
    comet_api.clear_faults()
    assert (await read_one(memory_book, comet_api)).task_id == task_id


async def test_an_entry_that_is_removed_meanwhile(
    comet_api: SimulatedCometAPI, memory_book: TaskBook
) -> None:
    """Nobody will bring its outcome."""
    async with new_session(comet_api) as session:
        generating = asyncio.ensure_future(session.generate(FOX, book=memory_book))
        await comet_api.wait_for_queries(1)
        await asyncio.sleep(1)
        task_id = comet_api.billed[0].task_id
        assert await memory_book.remove(task_id)
        with pytest.raises(NotInBookError) as caught:
            await generating
    assert caught.value.task_id == task_id


async def test_an_outcome_that_cannot_be_acknowledged(
    comet_api: SimulatedCometAPI,
    memory_book: TaskBook,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is returned all the same, and may come again."""
    async with new_session(comet_api) as session:
        task = await session.create(KEYED, book=memory_book)
        async with session.work(memory_book):
            await memory_book.wait(task.task_id)
        # The steps: the reader joins, takes the task for its own, and acknowledges it, also when it
        # is woken and when it leaves.
        await hook(memory_book, monkeypatch, "take", failing(None, None, *[BROKEN] * 3))
        assert (await session.generate(KEYED, book=memory_book)).ok
    assert "does not know what became of outcomes, they may come again: the file" in caplog.text
    async with memory_book.outcomes() as outcomes:
        assert (await anext(outcomes)).task_id == task.task_id


@pytest.mark.parametrize(("steps", "faults"), [(0, 1), (0, 50), (1, 50), (3, 50)])
async def test_a_book_that_breaks(
    comet_api: SimulatedCometAPI,
    memory_book: TaskBook,
    monkeypatch: pytest.MonkeyPatch,
    steps: int,
    faults: int,
) -> None:
    """Before the create, before the wait, or while it waits: an error at once, and no hang."""
    comet_api.fail_next_create(delay=1.0)
    await hook(memory_book, monkeypatch, "take", failing(*[None] * steps, *[BROKEN] * faults))
    async with new_session(comet_api) as session:
        with pytest.raises(BookError, match="damaged"):
            await session.generate(FOX, book=memory_book)
        assert len(comet_api.billed) == bool(steps)


async def test_a_disk_that_is_full_for_a_while(
    comet_api: SimulatedCometAPI, memory_book: TaskBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that is not heard of for a moment goes on."""
    full = BookError("the disk is full", transient=True)
    await hook(memory_book, monkeypatch, "take", failing(None, None, *[full] * 4))
    async with new_session(comet_api) as session:
        assert (await session.generate(FOX, book=memory_book)).ok
        assert await is_handled(memory_book, comet_api.billed[0].task_id)


async def test_options_are_checked_before_anything_is_paid(
    comet_api: SimulatedCometAPI, memory_book: TaskBook
) -> None:
    """A wrong time or store is refused."""
    wrong: Any
    async with new_session(comet_api) as session:
        for wrong in ({"timeout": -1}, {"expect_callback": -1}, {"save_to": 7}):
            with pytest.raises(ConfigurationError):
                await session.generate(FOX, book=memory_book, **wrong)
    assert comet_api.queries == ()


async def test_a_callback_may_be_expected(
    comet_api: SimulatedCometAPI, memory_book: TaskBook
) -> None:
    """The first query waits for `book.nudge`."""
    async with new_session(comet_api) as session:
        generating = asyncio.ensure_future(
            session.generate(ImageOrder("x"), book=memory_book, expect_callback=300)
        )
        await asyncio.sleep(200)
        assert len(comet_api.queries) == 1
        assert await memory_book.nudge(comet_api.billed[0].task_id)
        await generating
        assert now() < 202


async def test_who_reads_for_calls_shows_itself(
    comet_api: SimulatedCometAPI, memory_book: TaskBook
) -> None:
    """By the number of calls and the book, and no key."""
    async with new_session(comet_api) as session:
        calls = [asyncio.ensure_future(session.generate(FOX, book=memory_book)) for _ in range(2)]
        await comet_api.wait_for_queries(2)
        assert repr(session._wings.own_readers) == "<OwnReaders [<OwnReader of in memory users=2>]>"
        await asyncio.gather(*calls)
        assert repr(session._wings.own_readers) == "<OwnReaders []>"
