"""Processes that die while they create into a book: nothing is billed twice, nothing is lost."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest

from kling_omni_async import CreateUncertainError, TaskBook, TaskOutcome
from kling_omni_async.simulator import SimulatedCometAPI

from .creating_child import DIED, MANY, ORDERS, new_session, shorten_leases

pytestmark = [pytest.mark.anyio, pytest.mark.many]

ROOT = Path(__file__).parents[2]


@pytest.fixture
def anyio_backend() -> str:
    """Let processes share the real time."""
    return "asyncio"


@pytest.fixture
def comet_api_options() -> dict[str, Any]:
    """Let tasks take less than a second."""
    return {"time_scale": 100.0}


@pytest.fixture(autouse=True)
def _short_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_leases(monkeypatch)


async def start(
    verb: str, point: str, path: Path, api: SimulatedCometAPI
) -> asyncio.subprocess.Process:
    """Start a process that creates."""
    arguments = [verb, point, str(path), api.base_url, api.api_key]
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.book.creating_child", *arguments),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


async def let_die(verb: str, point: str, path: Path, api: SimulatedCometAPI) -> list[str]:
    """Let a process die at a point; give the lines that it has written."""
    child = await start(verb, point, path, api)
    written, errors = await child.communicate()
    assert child.returncode == DIED, errors
    return written.decode().split()


async def let_die_posting(verb: str, path: Path, api: SimulatedCometAPI, *, made: bool) -> None:
    """Kill a process while its POST is under way."""
    api.fail_next_create(hang=True, created=made)
    child = await start(verb, "", path, api)
    await api.wait_for_queries(1)
    child.kill()
    await child.communicate()


async def left_in(path: Path, api: SimulatedCometAPI) -> list[TaskOutcome]:
    """Work and read the book until it is empty."""
    async with (
        TaskBook(path) as book,
        new_session(api.base_url, api.api_key) as session,
        session.poll(book, until_empty=True) as outcomes,
    ):
        return [outcome async for outcome in outcomes]


def posts(api: SimulatedCometAPI) -> int:
    """Count the creates that reached the API."""
    return sum(query.method == "POST" for query in api.queries)


async def create_again(path: Path, api: SimulatedCometAPI) -> str:
    """Create the same order once more, as after a restart."""
    async with TaskBook(path) as book, new_session(api.base_url, api.api_key) as session:
        return (await session.create(ORDERS[0], book=book)).task_id


@pytest.mark.parametrize("verb", ["create", "generate"])
async def test_before_the_intent(comet_api: SimulatedCometAPI, tmp_path: Path, verb: str) -> None:
    """Nothing was kept, and nothing sent: the order is created as if for the first time."""
    path = tmp_path / "tasks.db"
    await let_die(verb, "before the intent", path, comet_api)
    assert await left_in(path, comet_api) == []
    task_id = await create_again(path, comet_api)
    assert [bill.task_id for bill in comet_api.billed] == [task_id]


@pytest.mark.parametrize("is_read_first", [True, False])
@pytest.mark.parametrize("point", ["behind the intent", "in the POST"])
@pytest.mark.parametrize("verb", ["create", "generate"])
async def test_a_doubt(
    comet_api: SimulatedCometAPI, tmp_path: Path, verb: str, point: str, *, is_read_first: bool
) -> None:
    """Where nobody knows whether a task was made, none is made again, and all are told."""
    path = tmp_path / "tasks.db"
    if point == "in the POST":
        await let_die_posting(verb, path, comet_api, made=False)
    else:
        await let_die(verb, point, path, comet_api)
    sent = posts(comet_api)
    left = await left_in(path, comet_api) if is_read_first else []
    with pytest.raises(CreateUncertainError):
        await create_again(path, comet_api)
    left += await left_in(path, comet_api)
    (outcome,) = left
    assert isinstance(outcome.error, CreateUncertainError)
    assert (outcome.order, outcome.note, outcome.error.order) == (ORDERS[0], 1, ORDERS[0])
    assert comet_api.billed == ()
    assert posts(comet_api) == sent


@pytest.mark.parametrize("is_read_first", [True, False])
@pytest.mark.parametrize(
    "point", ["in the POST", "behind the answer", "behind the created task", "behind all of it"]
)
@pytest.mark.parametrize("verb", ["create", "generate"])
async def test_a_task_that_was_made(
    comet_api: SimulatedCometAPI, tmp_path: Path, verb: str, point: str, *, is_read_first: bool
) -> None:
    """It comes out of the book once, and a further create gives it and pays nothing."""
    path = tmp_path / "tasks.db"
    if point == "in the POST":
        await let_die_posting(verb, path, comet_api, made=True)
    else:
        await let_die(verb, point, path, comet_api)
    left = await left_in(path, comet_api) if is_read_first else []
    (bill,) = comet_api.billed
    assert await create_again(path, comet_api) == bill.task_id
    left += await left_in(path, comet_api)
    if (verb, point) == ("generate", "behind all of it"):  # the call had its outcome
        assert left == []
    else:
        (outcome,) = left
        assert (outcome.task_id, outcome.order, outcome.note) == (bill.task_id, ORDERS[0], 1)
        assert outcome.ok
    assert len(comet_api.billed) == posts(comet_api) == 1


@pytest.mark.parametrize("is_told", [False, True])
async def test_around_the_acknowledgement(
    comet_api: SimulatedCometAPI, tmp_path: Path, *, is_told: bool
) -> None:
    """Before it the outcome is for a reader, behind it for nobody."""
    path = tmp_path / "tasks.db"
    where = "behind" if is_told else "before"
    await let_die("generate", f"{where} the acknowledgement", path, comet_api)
    left = await left_in(path, comet_api)
    task_ids = [bill.task_id for bill in comet_api.billed]
    assert [outcome.task_id for outcome in left] == ([] if is_told else task_ids)


async def test_a_stream_of_orders(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """What was followed by the next one is acknowledged; the rest comes out at a reader."""
    path = tmp_path / "tasks.db"
    first, second = await let_die("generate_many", "", path, comet_api)
    left = [outcome.task_id for outcome in await left_in(path, comet_api)]
    assert len(left) == len(set(left))
    assert {*left, first} == {bill.task_id for bill in comet_api.billed}
    assert second in left
    assert first not in left
    async with (
        TaskBook(path) as book,
        new_session(comet_api.base_url, comet_api.api_key) as session,
        session.generate_many(ORDERS, book=book) as outcomes,
    ):
        found = [outcome.task_id async for outcome in outcomes]
    assert set(found) == {bill.task_id for bill in comet_api.billed}
    assert len(comet_api.billed) == posts(comet_api) == len(ORDERS)


@pytest.mark.parametrize("processes", [1, 3])
async def test_kills_at_random_moments_bill_nothing_twice(
    comet_api: SimulatedCometAPI, tmp_path: Path, processes: int
) -> None:
    """Processes with the same orders are killed again and again, then one goes to the end."""
    path, random, acknowledged = tmp_path / "tasks.db", Random(processes), set[str]()
    for _ in range(5):
        children = [await start("all", "", path, comet_api) for _ in range(processes)]
        for child in children:
            assert child.stdout is not None
            await child.stdout.readline()  # it is ready
            await asyncio.sleep(random.uniform(0.0, 1.5) / processes)
            with suppress(ProcessLookupError):  # it has come to its end before, beside a busy one
                child.kill()
        for child in children:
            written, _ = await child.communicate()
            acknowledged.update(written.decode().split("\n")[:-1])
    # Doubts come out of the streams, and of the book when its workers have looked in vain.
    left = [outcome.task_id for outcome in await left_in(path, comet_api) if outcome.task_id]
    billed = {bill.task_id for bill in comet_api.billed}
    assert len(left) == len(set(left))
    assert not acknowledged & set(left)
    assert acknowledged & billed
    # Each process may have been killed before it could say what it had acknowledged.
    assert len(billed - acknowledged - set(left)) <= 5 * processes
    async with (
        TaskBook(path) as book,
        new_session(comet_api.base_url, comet_api.api_key) as session,
        session.generate_many(MANY, book=book) as outcomes,
    ):
        found = {outcome.external_task_id: outcome async for outcome in outcomes}
    bills = {bill.external_task_id: bill.task_id for bill in comet_api.billed}
    assert len(bills) == len(comet_api.billed)
    assert len(found) == len(MANY)
    for name, outcome in found.items():
        if name in bills:
            assert (outcome.ok, outcome.task_id) == (True, bills[name])
        else:
            assert isinstance(outcome.error, CreateUncertainError)
    assert [outcome for outcome in await left_in(path, comet_api) if outcome.task_id] == []
