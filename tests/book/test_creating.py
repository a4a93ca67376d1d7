"""`create` into a book: kept before its POST, in the book when it returns, and paid for once."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import pytest

from kling_omni_async import (
    ApiError,
    BookError,
    ConfigurationError,
    CreateUncertainError,
    ImageOrder,
    KlingOmniSession,
    RateLimitError,
    SessionClosedError,
    TaskBook,
    TaskOutcome,
    TaskStatus,
)
from kling_omni_async._book import sqlite
from kling_omni_async._book.book import open_inside
from kling_omni_async._book.book_clock import Clocks
from kling_omni_async._book.contract import Store
from kling_omni_async._doors import external_id_in
from kling_omni_async.errors import copy_error
from kling_omni_async.simulator import SimulatedCometAPI
from tests.creating.test_create import looks, posts, warnings_in
from tests.support import new_session, now, open_session

pytestmark = pytest.mark.anyio

FOX = ImageOrder("a fox", n=2)
KEYED = ImageOrder("a fox", n=2, key="invoice-42/1")


@pytest.fixture(params=["memory", "sqlite"])
async def book(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[TaskBook]:
    """Give a book of each store, on the clock of the test."""
    monkeypatch.setattr(
        sqlite, "Clocks", lambda: Clocks(since_boot=asyncio.get_running_loop().time)
    )
    where = None if request.param == "memory" else tmp_path / "tasks.db"
    async with TaskBook(where) as book:
        yield book


@pytest.fixture
async def memory_book() -> AsyncGenerator[TaskBook]:
    """Give a book in memory."""
    async with TaskBook() as book:
        yield book


async def store_of(book: TaskBook) -> Store:
    """Give the store of a book."""
    return (await open_inside(book)).store


@attrs.define
class Hook:
    """Does something before a step of a store, or in its place."""

    inner: Callable[..., Awaitable[Any]]
    before: Callable[[], Awaitable[object]]

    async def __call__(self, *args: Any) -> Any:
        await self.before()
        return await self.inner(*args)


async def hook(
    book: TaskBook,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    before: Callable[[], Awaitable[object]],
) -> None:
    """Let something happen before each call of a step of the store."""
    store = await store_of(book)
    monkeypatch.setattr(store, step, Hook(getattr(store, step), before))


def failing(*errors: BookError | None) -> Callable[[], Awaitable[object]]:
    """Raise errors, one at each call; None lets a call pass, and so do all behind the last one."""
    left = list(errors)

    async def fail() -> None:
        if left and (error := left.pop(0)) is not None:
            raise copy_error(error)

    return fail


FULL = BookError("the disk is full", transient=True)
BROKEN = BookError("the file is damaged")


async def read_one(book: TaskBook, api: SimulatedCometAPI, **policy: object) -> TaskOutcome:
    """Work a book until the first outcome comes out."""
    async with new_session(api, **policy) as session, session.poll(book) as outcomes:
        return await anext(outcomes)


# What is kept.


async def test_the_task_is_in_the_book_when_create_returns(
    comet_api: SimulatedCometAPI, book: TaskBook
) -> None:
    """With its note, its name and what was answered; its outcome has the order, too."""
    async with open_session(comet_api) as session:
        task = await session.create(FOX, book=book, note={"chat": 42})
        entry = await book.get(task.task_id)
        assert entry is not None
        assert entry == await book.get(task.external_task_id or "")
    assert (entry.state, entry.note, entry.task) == ("open", {"chat": 42}, task)
    assert entry.external_task_id == task.external_task_id
    assert [bill.task_id for bill in comet_api.billed] == [task.task_id]
    outcome = await read_one(book, comet_api)
    assert (outcome.task_id, outcome.note, outcome.order) == (task.task_id, {"chat": 42}, FOX)
    assert outcome.external_task_id == task.external_task_id
    assert outcome.ok


async def test_it_is_kept_before_it_is_sent(comet_api: SimulatedCometAPI, book: TaskBook) -> None:
    """While the POST is under way the book knows the order by its name, and no task of it."""
    comet_api.fail_next_create(delay=5.0)
    async with open_session(comet_api) as session:
        name = external_id_in(session, KEYED)
        creating = asyncio.ensure_future(session.create(KEYED, book=book, note=[1]))
        await comet_api.wait_for_queries(1)
        entry = await book.get(name)
        assert entry is not None
        assert (entry.state, entry.task_id, entry.note) == ("open", "", [1])
        task = await creating
        again = await book.get(name)
    assert again is not None
    assert again.task_id == task.task_id
    assert (await book.progress()).pending == 1


async def test_nobody_looks_while_it_is_sent(
    comet_api: SimulatedCometAPI, memory_book: TaskBook
) -> None:
    """However long the answer takes, and while the creator looks for its task itself."""
    comet_api.fail_next_create(delay=59.0, reset=True, created=True)
    async with new_session(comet_api) as one, new_session(comet_api) as two:
        name = external_id_in(one, KEYED)
        comet_api.fail_next(name, times=2, status=502)
        async with two.work(memory_book):
            await one.create(KEYED, book=memory_book)
            assert 79 <= now() <= 85
    assert [round(query.started) for query in comet_api.queries_of(name)] == [59, 64, 79]


async def test_a_refused_order_leaves_nothing(comet_api: SimulatedCometAPI, book: TaskBook) -> None:
    """What is proved to have made nothing is in no book; a 429 is sent again under its name."""
    comet_api.fail_next_create(status=400, body={"code": 1201, "message": "bad ratio"})
    async with open_session(comet_api) as session:
        name = external_id_in(session, KEYED)
        with pytest.raises(ApiError, match="bad ratio"):
            await session.create(KEYED, book=book)
        assert await book.get(name) is None
        comet_api.fail_next_create(times=3, status=429)
        with pytest.raises(RateLimitError):
            await session.create(KEYED, book=book)
        assert await book.get(name) is None
        comet_api.fail_next_create(status=429)
        task = await session.create(KEYED, book=book)
    assert posts(comet_api) == {name: 6}
    assert [bill.task_id for bill in comet_api.billed] == [task.task_id]
    assert (await book.progress()).pending == 1


async def test_no_bytes_and_no_secret_are_kept(
    comet_api: SimulatedCometAPI, memory_book: TaskBook
) -> None:
    """Of an image its digest, of a callback the host; the note as it is."""
    png = b"\x89PNG\r\n\x1a\nfox" + bytes(200_000)
    order = ImageOrder("a fox", images=[png], callback_url="http://127.0.0.1:1/secret-path/x")
    store = await store_of(memory_book)
    comet_api.fail_next_create(delay=1.0)
    async with open_session(comet_api) as session:
        creating = asyncio.ensure_future(session.create(order, book=memory_book, note="n"))
        await comet_api.wait_for_queries(1)
        (intent,) = await store.list("", 5)
        task = await creating
    found = await store.find(task.task_id)
    assert found is not None
    for order_json in (intent.order, found.order):
        assert order_json is not None
        assert len(order_json) < 500
        assert "127.0.0.1:1" in order_json
        assert "secret" not in order_json
        assert "sha256:" in order_json


async def test_what_cannot_be_kept_is_refused(comet_api: SimulatedCometAPI) -> None:
    """A note without a book, a bad note, an order that is too long, what is no book: all free."""
    wrong: Any
    async with open_session(comet_api) as session, TaskBook() as book:
        for call in (session.create, session.generate):
            with pytest.raises(ConfigurationError, match=r"write book="):
                await call(FOX, note=1)
            with pytest.raises(ConfigurationError, match=r"^note cannot be kept"):
                await call(FOX, book=book, note={1})
            for wrong in ("tasks.db", book.get):
                with pytest.raises(ConfigurationError, match=r"book=TaskBook\('tasks.db'\)$"):
                    await call(FOX, book=wrong)
            with pytest.raises(ConfigurationError, match=r"ImageOrder has 7.* bytes as JSON"):
                await call(ImageOrder("a fox", extra={"x": "y" * 70_000}), book=book)
        assert (await book.progress()).pending == 0
    assert comet_api.queries == ()


async def test_a_book_of_another_api(comet_api: SimulatedCometAPI, memory_book: TaskBook) -> None:
    """Once a worker has said of which API a book is, nothing is created there by another."""
    async with new_session(comet_api) as session, session.work(memory_book):
        await asyncio.sleep(1)
    async with KlingOmniSession("k", base_url="http://127.0.0.1:1") as session:
        with pytest.raises(ConfigurationError, match="give each API a book"):
            await session.create(FOX, book=memory_book)
    assert comet_api.queries == ()


# Keys.


async def test_a_key_that_the_book_knows_sends_nothing(
    comet_api: SimulatedCometAPI, book: TaskBook
) -> None:
    """Another session gets the known task: while it is open, and when it has ended."""
    async with open_session(comet_api) as session:
        task = await session.create(KEYED, book=book, note=1)
    async with open_session(comet_api) as session:
        assert await session.create(KEYED, book=book, note=2) == task
    await read_one(book, comet_api)
    async with open_session(comet_api) as session:
        ended = await session.create(KEYED, book=book)
    assert (ended.task_id, ended.status) == (task.task_id, TaskStatus.SUCCEED)
    assert sum(posts(comet_api).values()) == 1
    entry = await book.get(task.task_id)
    assert entry is not None
    assert entry.note == 1


async def test_a_key_outlives_its_entry(comet_api: SimulatedCometAPI) -> None:
    """What was dropped or removed is in the book again, and not created again."""
    async with TaskBook(keep=100) as book:
        async with open_session(comet_api) as session:
            task = await session.create(KEYED, book=book)
        await read_one(book, comet_api)
        async with new_session(comet_api) as session, session.work(book):
            await asyncio.sleep(150)
        assert await book.get(task.task_id) is None
        async with open_session(comet_api) as session:
            again = await session.create(KEYED, book=book, note="again")
        assert (again.task_id, again.status) == (task.task_id, TaskStatus.UNKNOWN)
        assert again.external_task_id == task.external_task_id
        outcome = await read_one(book, comet_api)
        assert (outcome.ok, outcome.note, outcome.order) == (True, "again", KEYED)
    assert sum(posts(comet_api).values()) == 1


async def test_a_key_with_another_order(comet_api: SimulatedCometAPI, book: TaskBook) -> None:
    """It is refused, as nobody could tell which one was meant."""
    async with open_session(comet_api) as session:
        await session.create(KEYED, book=book)
    async with open_session(comet_api) as session:
        with pytest.raises(
            ConfigurationError, match="'invoice-42/1' names another order of this b"
        ):
            await session.create(attrs.evolve(KEYED, n=3), book=book)
    assert sum(posts(comet_api).values()) == 1


async def test_a_wish_of_this_session_gets_into_the_book(
    comet_api: SimulatedCometAPI, book: TaskBook
) -> None:
    """A create without a book comes first; the second one pays nothing, and is kept."""
    async with open_session(comet_api) as session:
        task = await session.create(KEYED)
        await asyncio.sleep(15)
        assert await session.create(KEYED, book=book) == task
        assert await session.create(KEYED, book=book) == task
    found = await (await store_of(book)).find(task.task_id)
    assert found is not None
    assert found.row.born is None  # nobody knows how old it is: it is asked for at once
    assert found.row.at <= now()
    assert sum(posts(comet_api).values()) == 1


# The same wish in two processes.


@asynccontextmanager
async def two_sessions(
    api: SimulatedCometAPI, **policy: object
) -> AsyncGenerator[tuple[KlingOmniSession, KlingOmniSession]]:
    """Open two sessions, which know of each other by a book alone."""
    async with new_session(api, **policy) as one, new_session(api, **policy) as two:
        yield one, two


async def test_who_comes_second_waits_for_the_task(
    comet_api: SimulatedCometAPI, book: TaskBook
) -> None:
    """The create that is under way brings one task for both."""
    comet_api.fail_next_create(delay=30.0)
    async with two_sessions(comet_api) as (one, two):
        first = asyncio.ensure_future(one.create(KEYED, book=book))
        await comet_api.wait_for_queries(1)
        second = asyncio.ensure_future(two.create(KEYED, book=book))
        assert await first == await second
        assert 30 <= now() <= 36
    assert sum(posts(comet_api).values()) == 1
    assert len(looks(comet_api)) == 1


async def test_who_comes_second_sends_what_was_refused(
    comet_api: SimulatedCometAPI, book: TaskBook
) -> None:
    """Where the first one has made nothing, the second order is its own."""
    comet_api.fail_next_create(delay=30.0, status=400, body={"code": 1201, "message": "no"})
    async with two_sessions(comet_api) as (one, two):
        first = asyncio.ensure_future(one.create(KEYED, book=book))
        await comet_api.wait_for_queries(1)
        second = asyncio.ensure_future(two.create(KEYED, book=book))
        with pytest.raises(ApiError):
            await first
        task = await second
    assert [bill.task_id for bill in comet_api.billed] == [task.task_id]
    assert sum(posts(comet_api).values()) == 2


async def test_who_comes_second_shares_a_doubt(
    comet_api: SimulatedCometAPI, book: TaskBook
) -> None:
    """It has waited for `create_timeout`, looked twice, and sends nothing; so do later calls."""
    comet_api.fail_next_create(delay=40.0, reset=True, created=False)
    async with two_sessions(comet_api, create_timeout=50) as (one, two):
        first = asyncio.ensure_future(one.create(KEYED, book=book))
        await comet_api.wait_for_queries(1)
        began = now()
        with pytest.raises(CreateUncertainError, match="has not said what came") as caught:
            await two.create(KEYED, book=book)
        assert 50 <= now() - began <= 51
        with pytest.raises(CreateUncertainError):
            await first
    assert (caught.value.order, caught.value.external_task_id) == (
        KEYED,
        comet_api.queries[0].external_task_id,
    )
    assert sum(posts(comet_api).values()) == 1
    # Three of the first, two of the second, of which one before the POST had ended.
    assert len(looks(comet_api)) == 5


async def test_a_doubt_of_another_process_may_pass(
    comet_api: SimulatedCometAPI, memory_book: TaskBook
) -> None:
    """Where its POST is refused in the end, who has waited for it in vain may create."""
    comet_api.fail_next_create(delay=40.0, status=400, body={"code": 1201, "message": "no"})
    async with (
        new_session(comet_api) as one,
        new_session(comet_api, create_timeout=10) as two,
    ):
        first = asyncio.ensure_future(one.create(KEYED, book=memory_book))
        await comet_api.wait_for_queries(1)
        with pytest.raises(CreateUncertainError):
            await two.create(KEYED, book=memory_book)
        with pytest.raises(ApiError):
            await first
        task = await two.create(KEYED, book=memory_book)
    assert [bill.task_id for bill in comet_api.billed] == [task.task_id]


async def test_a_doubt_is_found_by_a_later_call(
    comet_api: SimulatedCometAPI, book: TaskBook
) -> None:
    """The free look comes before the error; what it finds is in the book."""
    async with open_session(comet_api) as session:
        name = external_id_in(session, KEYED)
        comet_api.fail_next_create(reset=True, created=True)
        comet_api.fail_next(name, times=3, status=502)
        with pytest.raises(CreateUncertainError):
            await session.create(KEYED, book=book, note=7)
    entry = await book.get(name)
    assert entry is not None
    assert entry.task_id == ""
    async with open_session(comet_api) as session:
        task = await session.create(KEYED, book=book)
    entry = await book.get(name)
    assert entry is not None
    assert (entry.task_id, entry.note) == (task.task_id, 7)
    assert [bill.task_id for bill in comet_api.billed] == [task.task_id]


async def test_what_a_later_call_finds_and_cannot_keep(
    comet_api: SimulatedCometAPI, memory_book: TaskBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the task, which the next call finds again."""
    async with open_session(comet_api) as session:
        comet_api.fail_next_create(reset=True, created=True)
        comet_api.fail_next(external_id_in(session, KEYED), times=3, status=502)
        with pytest.raises(CreateUncertainError):
            await session.create(KEYED, book=memory_book)
    await hook(memory_book, monkeypatch, "created", failing(BROKEN))
    async with open_session(comet_api) as session:
        with pytest.raises(BookError, match="damaged") as caught:
            await session.create(KEYED, book=memory_book)
        assert caught.value.task_id == comet_api.billed[0].task_id
        assert (await session.create(KEYED, book=memory_book)).task_id == caught.value.task_id


async def test_a_waiter_may_leave(comet_api: SimulatedCometAPI, memory_book: TaskBook) -> None:
    """Who waits for another process's create can be cancelled, and its session closed."""
    comet_api.fail_next_create(delay=30.0)
    async with two_sessions(comet_api) as (one, two):
        first = asyncio.ensure_future(one.create(KEYED, book=memory_book))
        await comet_api.wait_for_queries(1)
        second = asyncio.ensure_future(two.create(KEYED, book=memory_book))
        third = asyncio.ensure_future(two.create(KEYED, book=memory_book))
        await asyncio.sleep(5)
        second.cancel()
        await two.aclose()
        with pytest.raises(SessionClosedError):
            await third
        assert second.cancelled()
        task = await first
    assert [bill.task_id for bill in comet_api.billed] == [task.task_id]


# Leaving, and books out of reach.


async def test_who_leaves_while_it_is_kept_takes_it_back(
    comet_api: SimulatedCometAPI, memory_book: TaskBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was sent, and so there is nothing to look for."""
    await hook(memory_book, monkeypatch, "intend", lambda: asyncio.sleep(5))
    async with open_session(comet_api) as session:
        creating = asyncio.ensure_future(session.create(KEYED, book=memory_book))
        await asyncio.sleep(3)
        creating.cancel()
        with suppress(asyncio.CancelledError):
            await creating
        await asyncio.sleep(3)
        assert await memory_book.get(external_id_in(session, KEYED)) is None
    assert comet_api.queries == ()


async def test_a_book_out_of_reach_stops_the_create_alone(
    comet_api: SimulatedCometAPI, memory_book: TaskBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is sent that cannot be kept; the session goes on."""
    await hook(memory_book, monkeypatch, "intend", failing(FULL, BROKEN))
    async with open_session(comet_api) as session:
        for text in ("full", "damaged"):
            with pytest.raises(BookError, match=text) as caught:
                await session.create(KEYED, book=memory_book)
            assert caught.value.task_id is None
        assert comet_api.queries == ()
        await session.create(KEYED, book=memory_book)


async def test_what_came_of_a_post_is_told_again(
    comet_api: SimulatedCometAPI, memory_book: TaskBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full for a moment loses nothing."""
    await hook(memory_book, monkeypatch, "created", failing(FULL, FULL, FULL))
    async with open_session(comet_api) as session:
        task = await session.create(KEYED, book=memory_book)
        entry = await memory_book.get(task.task_id)
    assert entry is not None


@pytest.mark.parametrize("fault", [BROKEN, FULL])
async def test_a_task_that_could_not_be_kept_is_named(
    comet_api: SimulatedCometAPI,
    memory_book: TaskBook,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: BookError,
) -> None:
    """By the error and the log; workers find it when the book is well again."""
    await hook(memory_book, monkeypatch, "created", failing(*[fault] * 4))
    async with open_session(comet_api) as session:
        with pytest.raises(BookError, match="add it there") as caught:
            await session.create(FOX, book=memory_book, note=5)
        (bill,) = comet_api.billed
        assert caught.value.task_id == bill.task_id
        assert not caught.value.transient  # a generic retry must not pay again
        assert bill.task_id in warnings_in(caplog)[0]
        assert await memory_book.get(bill.task_id) is None
        assert (await session.query(bill.task_id)).task_id == bill.task_id
    outcome = await read_one(memory_book, comet_api)
    assert (outcome.task_id, outcome.note, outcome.order) == (bill.task_id, 5, FOX)


async def test_a_refusal_that_could_not_be_kept(
    comet_api: SimulatedCometAPI, memory_book: TaskBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order is not sent again, as the book takes the first one for under way."""
    await hook(memory_book, monkeypatch, "created", failing(BROKEN))
    comet_api.fail_next_create(status=429)
    async with open_session(comet_api) as session:
        with pytest.raises(BookError, match="damaged"):
            await session.create(FOX, book=memory_book)
    assert sum(posts(comet_api).values()) == 1
    assert comet_api.billed == ()


async def test_a_find_that_could_not_be_kept(
    comet_api: SimulatedCometAPI, memory_book: TaskBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The creator has found its task after a doubt, and names it."""
    comet_api.fail_next_create(reset=True, created=True)
    await hook(memory_book, monkeypatch, "created", failing(BROKEN))
    async with open_session(comet_api) as session:
        with pytest.raises(BookError) as caught:
            await session.create(FOX, book=memory_book)
    assert caught.value.task_id == comet_api.billed[0].task_id


# When it is asked.


@pytest.mark.parametrize(
    ("order", "earliest", "latest"),
    [
        (FOX, 15.0, 35.0),
        (ImageOrder("a fox", callback_url="http://127.0.0.1:1/x"), 60.0, 61.0),
    ],
)
async def test_the_first_look_is_planned(
    comet_api: SimulatedCometAPI,
    memory_book: TaskBook,
    order: ImageOrder,
    earliest: float,
    latest: float,
) -> None:
    """As for a task of this session: by what is known of durations, or of callbacks."""
    async with new_session(comet_api) as session, session.work(memory_book):
        task = await session.create(order, book=memory_book)
        await memory_book.wait(task.task_id)
    first = comet_api.queries_of(task.task_id)[0]
    assert earliest <= first.started <= latest


async def test_what_has_failed_at_once_is_asked_at_once(
    comet_api: SimulatedCometAPI, memory_book: TaskBook
) -> None:
    """A create can be answered with a failed task; its outcome need not wait."""
    failed = {"task_id": "77", "task_status": "failed", "task_status_msg": "bad"}
    comet_api.fail_next_create(body={"code": 0, "data": failed}, created=False)
    comet_api.create_task(task_id="77", duration=0, fail="bad")
    async with open_session(comet_api) as session:
        task = await session.create(FOX, book=memory_book)
    assert task.status is TaskStatus.FAILED
    await read_one(memory_book, comet_api)
    assert now() < 5
