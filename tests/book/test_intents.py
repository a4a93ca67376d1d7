"""Creates whose process died: workers look for what they have made."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import logging
from itertools import pairwise

import pytest

from kling_omni_async import (
    AuthenticationError,
    CreateUncertainError,
    KlingOmniSession,
    TaskBook,
    TaskOutcome,
)
from kling_omni_async._api.create import make_request
from kling_omni_async._book.contract import Intent
from kling_omni_async._book.forms import order_to_json
from kling_omni_async._book.memory import MemoryStore
from kling_omni_async._doors import external_id_in
from kling_omni_async.simulator import SimulatedCometAPI
from tests.creating.test_create import posts
from tests.support import new_session, now

from .test_creating import FOX, KEYED, book, memory_book, read_one, store_of

__all__ = ["book", "memory_book"]

pytestmark = pytest.mark.anyio

LEASE_S = 100.0


async def die_posting(book: TaskBook, name: str = "wish-1", *, note: str = "7") -> str:
    """Leave in a book what a process leaves that dies while its POST is under way."""
    request = make_request(FOX, [], name)
    order = order_to_json(FOX, request.digest)
    intent = Intent(name, request.digest, is_keyed=False, note=note, order=order, lease_s=LEASE_S)
    assert await (await store_of(book)).intend(intent) is None
    return name


def looks_for(api: SimulatedCometAPI, name: str) -> list[float]:
    """Give when a task was looked for."""
    return [query.started for query in api.queries_of(name)]


async def test_a_task_that_was_made_is_found(comet_api: SimulatedCometAPI, book: TaskBook) -> None:
    """Once its process had its time, by one look; then it is polled like any id."""
    name = await die_posting(book)
    task_id = comet_api.create_task(duration=150, external_task_id=name)
    outcome = await read_one(book, comet_api)
    assert (outcome.task_id, outcome.external_task_id) == (task_id, name)
    assert (outcome.ok, outcome.note, outcome.order) == (True, 7, FOX)
    (look,) = looks_for(comet_api, name)
    assert look >= LEASE_S
    asked = [query.started for query in comet_api.queries_of(task_id)]
    assert min(b - a for a, b in pairwise([look, *asked])) >= 20
    assert posts(comet_api) == {}
    entry = await book.get(name)
    assert entry is not None
    assert entry.task_id == task_id


async def test_what_is_not_found_is_told(
    comet_api: SimulatedCometAPI, book: TaskBook, caplog: pytest.LogCaptureFixture
) -> None:
    """After three looks, a pause apart; with the order, its digest and its name."""
    name = await die_posting(book)
    outcome = await read_one(book, comet_api)
    first, second, third = looks_for(comet_api, name)
    assert first >= LEASE_S
    assert min(second - first, third - second) >= 20
    assert (outcome.task_id, outcome.external_task_id, outcome.note) == ("", name, 7)
    error = outcome.error
    assert isinstance(error, CreateUncertainError)
    assert (error.external_task_id, error.order, outcome.order) == (name, FOX, FOX)
    assert error.digest == make_request(FOX, [], name).digest
    assert not outcome.settled
    assert outcome.queries == 3
    warned = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert any("'wish-1'" in each.getMessage() for each in warned)
    again = TaskOutcome.from_dict(outcome.to_dict())
    assert isinstance(again.error, CreateUncertainError)
    assert again.error.digest == error.digest


async def test_a_task_that_turns_up_replaces_the_doubt(
    comet_api: SimulatedCometAPI, book: TaskBook
) -> None:
    """By `retry`, which looks again as often as at first."""
    name = await die_posting(book)
    await read_one(book, comet_api)
    assert await book.retry(name)
    await read_one(book, comet_api)
    assert len(looks_for(comet_api, name)) == 6
    task_id = comet_api.create_task(duration=0, external_task_id=name)
    assert await book.retry(name)
    outcome = await read_one(book, comet_api)
    assert (outcome.task_id, outcome.ok, outcome.note) == (task_id, True, 7)
    progress = await book.progress()
    assert (progress.succeeded, progress.unresolved, progress.pending) == (1, 0, 0)


async def test_a_create_that_ended_late_replaces_the_doubt(
    comet_api: SimulatedCometAPI, book: TaskBook
) -> None:
    """A further call with the key finds the task, where workers have given up."""
    async with new_session(comet_api) as session:
        name = external_id_in(session, KEYED)
        comet_api.fail_next_create(reset=True, created=False)
        with pytest.raises(CreateUncertainError):
            await session.create(KEYED, book=book)
    assert isinstance((await read_one(book, comet_api)).error, CreateUncertainError)
    async with new_session(comet_api) as session:
        with pytest.raises(CreateUncertainError):
            await session.create(KEYED, book=book)
        comet_api.create_task(duration=0, external_task_id=name)
        task = await session.create(KEYED, book=book)
    assert (await read_one(book, comet_api)).task_id == task.task_id
    assert posts(comet_api) == {name: 1}


async def test_an_api_that_refuses_names(comet_api: SimulatedCometAPI, book: TaskBook) -> None:
    """A plain no counts as a look: such an API would never find it."""
    name = await die_posting(book)
    comet_api.fail_next(name, times=None, status=400, body={"code": 1201, "message": "bad id"})
    outcome = await read_one(book, comet_api)
    assert isinstance(outcome.error, CreateUncertainError)
    assert "bad id" in str(outcome.error)
    assert len(looks_for(comet_api, name)) == 3


async def test_faults_are_no_looks(comet_api: SimulatedCometAPI, book: TaskBook) -> None:
    """A gateway that is down proves nothing, and is waited for."""
    name = await die_posting(book)
    comet_api.fail_next(name, times=5, status=502)
    task_id = comet_api.create_task(duration=0, external_task_id=name)
    assert (await read_one(book, comet_api)).task_id == task_id
    assert len(looks_for(comet_api, name)) == 6


async def test_faults_end_by_the_time(comet_api: SimulatedCometAPI, book: TaskBook) -> None:
    """A web page in place of each answer is no reason to look for ever, nor a wrong set-up."""
    name = await die_posting(book)
    comet_api.fail_next(name, times=None, html=True)
    outcome = await read_one(book, comet_api, timeout=100)
    assert isinstance(outcome.error, CreateUncertainError)
    assert LEASE_S + 100 <= now() <= LEASE_S + 135


async def test_without_a_time_it_is_looked_for_on(
    comet_api: SimulatedCometAPI, memory_book: TaskBook
) -> None:
    """No `timeout` waits for ever."""
    name = await die_posting(memory_book)
    comet_api.fail_next(name, times=None, status=502)
    async with new_session(comet_api, timeout=None) as session, session.work(memory_book):
        await asyncio.sleep(5000)
    assert (await memory_book.progress()).pending == 1
    assert len(looks_for(comet_api, name)) > 150


async def test_a_429_holds_all_back(comet_api: SimulatedCometAPI, memory_book: TaskBook) -> None:
    """A look counts for the gate as any query does."""
    name = await die_posting(memory_book)
    comet_api.fail_next(name, retry_after=60)
    async with new_session(comet_api) as session, session.work(memory_book):
        await asyncio.sleep(LEASE_S + 10)
        other = comet_api.create_task(duration=0)
        await memory_book.add(other)
        await memory_book.wait(other)
    (look, *_) = looks_for(comet_api, name)
    assert comet_api.queries_of(other)[0].started >= look + 60


async def test_a_wrong_key_ends_its_worker(
    comet_api: SimulatedCometAPI, memory_book: TaskBook
) -> None:
    """The intent is there for a worker with the right one."""
    name = await die_posting(memory_book)
    session = KlingOmniSession("sk-wrong", base_url=comet_api.base_url)
    async with session:
        with pytest.raises(AuthenticationError):
            async with session.work(memory_book):
                await asyncio.sleep(LEASE_S + 1)
    entry = await memory_book.get(name)
    assert entry is not None
    assert entry.state == "open"
    task_id = comet_api.create_task(duration=0, external_task_id=name)
    assert (await read_one(memory_book, comet_api)).task_id == task_id


async def test_looks_of_a_strange_key_do_not_count(
    comet_api: SimulatedCometAPI, memory_book: TaskBook
) -> None:
    """Where tasks were seen by another key, "not found" by this one says nothing."""
    known = comet_api.create_task(duration=0)
    await memory_book.add(known)
    await read_one(memory_book, comet_api)
    name = await die_posting(memory_book)
    async with (
        SimulatedCometAPI(seed=9) as other,
        KlingOmniSession(other.api_key, base_url=other.base_url) as session,
    ):
        store = await store_of(memory_book)
        assert isinstance(store, MemoryStore)
        store.shelf.desk.origin = None  # so that another account can be played by another API
        async with session.work(memory_book):
            await asyncio.sleep(LEASE_S + 300)
        assert len(other.queries_of(name)) > 5
    entry = await memory_book.get(name)
    assert entry is not None
    assert entry.state == "open"
