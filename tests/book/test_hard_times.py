"""A book in a file in hard times: handlers that fail, ids that are removed, boots and wrong clocks.

Real queries to the simulator, the real file, and clocks that a test sets.
"""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from kling_omni_async import BookProgress, TaskBook, TaskOutcome
from kling_omni_async._book.book_clock import Clocks
from kling_omni_async._book.sqlite import SqliteStore
from kling_omni_async.simulator import SimulatedCometAPI
from tests.support import new_session, now

from .ends import ended

pytestmark = pytest.mark.anyio


class Machine:
    """A machine on the virtual clock, which is booted now and then, and whose wall clock is set."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._booted = -1_000.0
        self._boots = 0
        self.wall_ahead = 1_800_000_000.0

    def boot(self) -> None:
        """Begin to count anew."""
        self._boots += 1
        self._booted = self._loop.time()

    @property
    def clocks(self) -> Clocks:
        return Clocks(
            lambda: str(self._boots),
            lambda: self._loop.time() - self._booted,
            lambda: self._loop.time() + self.wall_ahead,
        )

    def book(self, path: Path) -> TaskBook:
        """Give a book that is not open yet."""

        def make() -> SqliteStore:
            return SqliteStore(path, keep_s=7 * 86_400.0, clocks=self.clocks)

        book = TaskBook(path)
        book._make_store = make  # type: ignore[method-assign]
        return book


@asynccontextmanager
async def in_a_file(folder: Path) -> AsyncGenerator[TaskBook]:
    """Open a book in a file."""
    async with Machine().book(folder / "tasks.db") as book:
        yield book


async def all_of(book: TaskBook) -> list[TaskOutcome]:
    """Read a book until it is empty."""
    async with book.outcomes(until_empty=True) as outcomes:
        return [outcome async for outcome in outcomes]


def require_pauses(api: SimulatedCometAPI, least: float = 20.0) -> None:
    """Require that no id was asked for again within its shortest pause."""
    assert min(api.gaps(), default=least) >= least


# Handlers.


async def test_a_poison_outcome_at_the_head(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """All others are handled at once, it alone comes again until it is parked, unasked for."""
    ids = [comet_api.create_task(duration=1) for _ in range(10)]
    times = defaultdict[str, list[float]](list)

    async def handle(outcome: TaskOutcome) -> None:
        times[outcome.task_id].append(now())
        if outcome.task_id == first:
            raise ValueError

    async with in_a_file(tmp_path) as book, new_session(comet_api) as session:
        await book.add_many(ids)
        async with session.work(book):
            for task_id in ids:
                with suppress(Exception):
                    await book.wait(task_id)
        asked = len(comet_api.queries)
        async with book.outcomes() as outcomes:
            first = (await anext(outcomes)).task_id
        async with session.poll(book, until_empty=True) as outcomes:
            await outcomes.each(handle, limit=1)
        assert len(comet_api.queries) == asked
        assert [len(times[task_id]) for task_id in ids if task_id != first] == [1] * 9
        assert len(times[first]) == 10
        began = times[first][0]
        assert max(times[task_id][0] for task_id in ids) < began + 1
        assert [round(at - began) for at in times[first]] == [0, 1, 3, 7, 15, 31, 63, 127, 255, 555]
        assert (await book.progress()).parked == 1
        assert await book.retry(first)
        (again,) = await all_of(book)
        assert (again.task_id, again.deliveries) == (first, 1)


async def test_a_handler_that_is_down_for_a_minute(
    comet_api: SimulatedCometAPI, tmp_path: Path
) -> None:
    """All outcomes fail for a minute; then each is handled once, soon, and none is parked."""
    ids = [comet_api.create_task(duration=4 * number) for number in range(12)]
    handled: dict[str, int] = {}
    went_up = 0.0

    async def handle(outcome: TaskOutcome) -> None:
        if not went_up:
            raise ConnectionError
        assert outcome.task_id not in handled
        handled[outcome.task_id] = outcome.deliveries

    async with in_a_file(tmp_path) as book, new_session(comet_api) as session:
        await book.add_many(ids)
        reading = asyncio.ensure_future(session.poll(book, until_empty=True).__aenter__())
        async with await reading as outcomes:
            working = asyncio.ensure_future(outcomes.each(handle))
            await comet_api.wait_for_queries(1)
            await asyncio.sleep(120)
            went_up = now()
            await working
        assert set(handled) == set(ids)
        assert max(handled.values()) <= 8
        assert now() <= went_up + 64.5
        assert (await book.progress()).parked == 0
    require_pauses(comet_api)


async def test_steps_with_a_time_limit(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """`wait_for(anext(…))`, over and over: each outcome comes once, and nothing ends the stream."""
    ids = [comet_api.create_task(duration=20 * number) for number in range(8)]
    found: list[TaskOutcome] = []
    gave_up = 0
    async with (
        in_a_file(tmp_path) as book,
        new_session(comet_api) as session,
        session.poll(book) as outcomes,
    ):
        await book.add_many(ids)
        while len(found) < len(ids):
            try:
                found.append(await asyncio.wait_for(anext(outcomes), 0.9))
            except TimeoutError:
                gave_up += 1
        assert await book.progress() == BookProgress(succeeded=8, unread=1, workers=1)
    assert gave_up > 100
    assert {outcome.task_id for outcome in found} == set(ids)
    assert all(outcome.deliveries == 1 for outcome in found)


@pytest.mark.parametrize(("error", "deliveries"), [(SystemExit, 2), (KeyboardInterrupt, 1)])
def test_a_handler_that_ends_its_program(
    tmp_path: Path, error: type[BaseException], deliveries: int
) -> None:
    """Its outcome was handed out in vain, so that it is parked some day; one of Ctrl-C was not."""

    async def handle(outcome: TaskOutcome) -> None:
        raise error

    async def read() -> None:
        async with TaskBook(tmp_path / "tasks.db") as book:
            await ended(book, ["a"])
            async with book.outcomes() as outcomes:
                await outcomes.each(handle)

    async def read_again() -> TaskOutcome:
        async with TaskBook(tmp_path / "tasks.db") as book, book.outcomes() as outcomes:
            return await anext(outcomes)

    with pytest.raises(error), asyncio.Runner() as runner:
        runner.run(read())
    assert asyncio.run(read_again()).deliveries == deliveries


# Removing.


async def test_an_id_that_is_removed_while_it_is_asked_for(
    comet_api: SimulatedCometAPI, tmp_path: Path
) -> None:
    """Its answer is nobody's; added again it is asked for after its pause, and comes out once."""
    task_id = comet_api.create_task(duration=0)
    comet_api.fail_next(task_id, delay=5.0)
    async with (
        in_a_file(tmp_path) as book,
        new_session(comet_api) as session,
        session.poll(book, until_empty=True) as outcomes,
    ):
        await book.add(task_id, note="old")
        other = comet_api.create_task(duration=200)
        await book.add(other)
        await comet_api.wait_for_queries(1, task_id)
        assert await book.remove(task_id)
        assert not await book.remove(task_id)
        assert await book.get(task_id) is None
        await asyncio.sleep(10)
        assert (await book.progress()).succeeded == 0
        assert await book.add(task_id, note="new")
        found = [outcome async for outcome in outcomes]
    assert [(outcome.task_id, outcome.note) for outcome in found] == [
        (task_id, "new"),
        (other, None),
    ]
    assert len(comet_api.queries_of(task_id)) == 2
    require_pauses(comet_api)


async def test_to_remove_and_to_add_polls_no_faster(
    comet_api: SimulatedCometAPI, tmp_path: Path
) -> None:
    """Whoever does it each second has each id asked for at its pace."""
    ids = [comet_api.create_task(duration=1000) for _ in range(5)]
    async with (
        in_a_file(tmp_path) as book,
        new_session(comet_api) as session,
        session.work(book),
    ):
        for _ in range(60):
            for task_id in ids:
                await book.remove(task_id)
            await book.add_many(ids)
            await asyncio.sleep(1)
        assert (await book.progress()).pending == 5
    assert all(2 <= len(comet_api.queries_of(task_id)) <= 3 for task_id in ids)
    require_pauses(comet_api)


async def test_an_outcome_that_is_removed_while_it_is_handled(
    comet_api: SimulatedCometAPI, tmp_path: Path
) -> None:
    """Its acknowledgement is nobody's; what is added again is polled anew, and handed out once."""
    task_id = comet_api.create_task(duration=0)
    async with (
        in_a_file(tmp_path) as book,
        new_session(comet_api) as session,
        session.poll(book) as outcomes,
    ):
        await book.add(task_id)
        first = await anext(outcomes)
        assert await book.remove(task_id)
        assert await book.add(task_id)
        await outcomes.ack(first)
        second = await anext(outcomes)
        assert second.task_id == task_id
        await outcomes.ack(second)
        progress = await book.progress()
        assert (progress.succeeded, progress.unread, progress.pending) == (1, 0, 0)
    require_pauses(comet_api)


# Clocks.


@pytest.mark.parametrize("off_s", [1.0, 300.0])
@pytest.mark.parametrize("step_s", [-3600.0, 0.0, 3600.0])
async def test_a_boot_in_between(
    comet_api: SimulatedCometAPI, tmp_path: Path, off_s: float, step_s: float
) -> None:
    """The machine is booted, and its wall clock is an hour off: no pause is shorter for that.

    Ids that were claimed at that moment are asked for again soon, and none is lost or given up.
    """
    ids = [comet_api.create_task(duration=100) for _ in range(10)]
    machine, path = Machine(), tmp_path / "tasks.db"
    book = machine.book(path)
    session = new_session(comet_api, timeout=7200)
    async with session.work(book):
        await book.add_many(ids)
        await comet_api.wait_for_queries(20)
        comet_api.fail_next(times=3, hang=True)
        await comet_api.wait_for_queries(26)
        # The power goes: what was claimed stays so.
        copy = tmp_path / "after.db"
        await (await book._ready()).store.backup(copy)  # type: ignore[attr-defined]
    await session.aclose()
    await book.aclose()
    asked = len(comet_api.queries)
    await asyncio.sleep(off_s)
    machine.boot()
    machine.wall_ahead += step_s
    await asyncio.sleep(5)
    booted = now()
    async with (
        machine.book(copy) as book,
        new_session(comet_api, timeout=7200) as session,
        session.poll(book, until_empty=True) as outcomes,
    ):
        found = [outcome async for outcome in outcomes]
    assert {outcome.task_id for outcome in found} == set(ids)
    assert all(outcome.ok for outcome in found)
    require_pauses(comet_api)
    assert {query.task_id for query in comet_api.queries[asked:]} == set(ids)
    assert now() <= max(booted, 100) + 60


@pytest.mark.parametrize("step_s", [-3600.0, 3600.0])
async def test_a_wall_clock_that_is_set(
    comet_api: SimulatedCometAPI, tmp_path: Path, step_s: float
) -> None:
    """An hour off, either way, while a book is worked: nothing is early, late or given up."""
    ids = [comet_api.create_task(duration=150) for _ in range(20)]
    machine = Machine()
    async with (
        machine.book(tmp_path / "tasks.db") as book,
        new_session(comet_api, timeout=300) as session,
        session.poll(book, until_empty=True) as outcomes,
    ):
        await book.add_many(ids)
        await comet_api.wait_for_queries(30)
        machine.wall_ahead += step_s
        found = [outcome async for outcome in outcomes]
    assert all(outcome.ok for outcome in found)
    assert {outcome.task_id for outcome in found} == set(ids)
    assert now() <= 185
    require_pauses(comet_api)
