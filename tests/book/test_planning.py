"""When a task is asked for first that was created into a book: by what the book knows."""

from __future__ import annotations

import asyncio
import logging
from random import Random
from typing import Any

import pytest

from kling_omni_async import ImageOrder, PollPolicy, TaskBook
from kling_omni_async._book.contract import Addition, Desk, Said, Terms
from kling_omni_async._book.memory import MemoryStore
from kling_omni_async._book.planning import CLOCKS_S, MOST_AWAITED, BookPlanner
from kling_omni_async._polling.timing import PLAN_PAUSE_S, Timing
from kling_omni_async.simulator import SimulatedCometAPI
from tests.support import new_session, now

from .pure import KEEP_S, TERMS, WON
from .stores import Clock, StoreBook
from .test_creating import book

__all__ = ["book"]

pytestmark = pytest.mark.anyio

CALLS = ImageOrder("a fox", callback_url="https://hooks.example/")
PLAIN = ImageOrder("a fox")
WAIT_S = 60.0


def lines_of_callbacks(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Give what the log says of callbacks that did not come."""
    return [each for each in caplog.records if "callbacks in a row" in each.getMessage()]


async def first_query_of(api: SimulatedCometAPI, made: Any, book: TaskBook) -> float:
    """Wait for a task; give how long after its creation it was asked for first, in s."""
    task = await made
    await book.wait(task.task_id)
    bill = next(bill for bill in api.billed if bill.task_id == task.task_id)
    return api.queries_of(task.task_id)[0].started - bill.created


@pytest.mark.parametrize("where", ["here", "elsewhere"])
async def test_where_no_callback_comes_a_books_tasks_are_asked_for_as_without_them(
    comet_api: SimulatedCometAPI, book: TaskBook, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    """After three in a row, whoever polls the book; that is said once."""
    async with (
        new_session(comet_api) as one,
        new_session(comet_api) as two,
        (one if where == "here" else two).work(book),
    ):
        firsts = [
            await first_query_of(comet_api, one.create(CALLS, book=book), book) for _ in range(5)
        ]
    assert firsts[:3] == pytest.approx([WAIT_S] * 3, abs=0.3)
    assert max(firsts[3:]) < 50
    assert [line.levelno for line in lines_of_callbacks(caplog)] == [logging.WARNING]


async def test_the_plain_ids_of_a_session_count_with_those_of_its_books(
    comet_api: SimulatedCometAPI, book: TaskBook, caplog: pytest.LogCaptureFixture
) -> None:
    """Three in a row are three, wherever they were waited for; then none is, here and there."""
    async with new_session(comet_api) as session, session.work(book):
        for _ in range(2):
            await session.wait(comet_api.create_task(duration=1), expect_callback=WAIT_S)
        assert await first_query_of(comet_api, session.create(CALLS, book=book), book) > 55
        assert not lines_of_callbacks(caplog)
        assert await first_query_of(comet_api, session.create(CALLS, book=book), book) < 50
        assert len(lines_of_callbacks(caplog)) == 1
        began = now()
        await session.wait(comet_api.create_task(duration=1), expect_callback=WAIT_S)
        assert now() - began < 50


async def test_where_nudges_come_they_are_waited_for(
    comet_api: SimulatedCometAPI, book: TaskBook, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where two in a row do not, time and again: one that comes makes good for those."""
    async with new_session(comet_api) as session, session.work(book):
        for turn in range(9):
            making = asyncio.ensure_future(session.create(CALLS, book=book))
            asked = asyncio.ensure_future(first_query_of(comet_api, making, book))
            if turn % 3 == 2:
                task = await making
                await asyncio.sleep(45)
                assert await book.nudge(task.task_id)
                assert await asked == pytest.approx(45, abs=0.5)
            else:
                assert await asked == pytest.approx(WAIT_S, abs=0.5)
    assert not lines_of_callbacks(caplog)


async def test_the_first_look_goes_by_what_the_workers_of_a_book_have_learned(
    book: TaskBook,
) -> None:
    """A session that has polled nothing itself asks when tasks of that kind have ended so far."""
    async with SimulatedCometAPI(durations=lambda random: 8 + random.random()) as api:
        async with new_session(api) as before, before.work(book):
            tasks = [await before.create(PLAIN, book=book) for _ in range(60)]
            for task in tasks:
                await book.wait(task.task_id)
        async with new_session(api) as session, session.work(book):
            known = await first_query_of(api, session.create(PLAIN, book=book), book)
            other = ImageOrder("a fox", resolution="2k")
            unknown = await first_query_of(api, session.create(other, book=book), book)
    assert 8 < known < 14
    assert unknown > 20


# The planner itself.


class Heard:
    """What was said of callbacks."""

    def __init__(self) -> None:
        self.awaits_callbacks = True
        self.told: list[bool] = []

    def callback_told(self, *, came: bool) -> None:
        self.told.append(came)


class Planned:
    """A planner, and the book in memory that it looks at, whose time is that of the loop."""

    def __init__(self) -> None:
        clock = Clock()
        self.store = MemoryStore(clock=clock.read, wall_clock=clock.read_wall, keep_s=KEEP_S)
        self.store.shelf.desk.terms = TERMS
        self.book = StoreBook(self.store, clock)
        self.heard = Heard()
        self.planner = BookPlanner(self.store, self.heard, PollPolicy(), Random(7))

    @property
    def now(self) -> float:
        return self.book.clock.now

    async def expect(self, task_id: str) -> None:
        """Add a task whose first query waits for a callback."""
        first_s = self.planner.first_look_s(task_id, None, self.now, WAIT_S)
        await self.store.add([Addition(task_id, first_s=first_s)])

    async def end(self, task_id: str, **how: Any) -> None:
        """Bring the answer to the query of a task."""
        (claim,) = (await self.book.turn(want=1)).claims
        assert claim.row.key == task_id
        await self.book.settle(claim, **{**WON, **how})

    async def look(self, after_s: float = 0.0) -> list[bool]:
        """Let time pass and look; give what was said so far."""
        self.book.clock.spend(after_s)
        await self.planner.look(self.now)
        return self.heard.told


async def planned() -> Planned:
    """Give a planner, and a book whose policy a worker has brought."""
    it = Planned()
    await it.book.begin()
    return it


async def test_a_callback_is_missed_where_the_task_had_ended() -> None:
    """It is asked for at the end of the wait, and its first answer is the last."""
    it = await planned()
    await it.expect("a")
    it.book.clock.spend(WAIT_S)
    assert await it.look() == []  # nobody has asked yet
    await it.end("a")
    assert await it.look() == [False]
    assert await it.look(WAIT_S) == [False]


async def test_it_came_where_the_task_was_asked_for_sooner() -> None:
    """Whatever the answer was: of one that ended, and of one that did not."""
    it = await planned()
    for task_id, said in (("a", Said.FINAL), ("b", Said.PENDING)):
        await it.expect(task_id)
        it.book.clock.spend(WAIT_S - 1.0)
        assert await it.store.nudge(task_id)
        await it.end(task_id, **({} if said is Said.FINAL else {"said": said, "pause_s": 1e3}))
    assert await it.look(WAIT_S) == [True, True]


@pytest.mark.parametrize(("early_s", "told"), [(CLOCKS_S / 2, []), (CLOCKS_S * 2, [True])])
async def test_clocks_that_differ_a_little_make_no_callback(
    early_s: float, told: list[bool]
) -> None:
    """A query that began a little early, as it seems, was not nudged; it had not ended, too."""
    it = await planned()
    await it.expect("a")
    it.book.clock.spend(WAIT_S)
    await it.end("a", said=Said.PENDING, started_ago=early_s, pause_s=1e3)
    assert await it.look() == told


@pytest.mark.parametrize(
    "how",
    [
        {"said": Said.PENDING, "pause_s": 20.0},
        {"said": Said.FAULT, "pause_s": 20.0},
        {"is_settled": False},
    ],
)
async def test_what_had_not_ended_or_is_not_known_says_nothing(how: dict[str, Any]) -> None:
    """No callback was due, or nobody knows: and so it is when a later query finds the end."""
    it = await planned()
    await it.expect("a")
    it.book.clock.spend(WAIT_S)
    await it.end("a", **how)
    if "said" in how:
        it.book.clock.spend(25.0)
        await it.end("a")
    assert await it.look() == []
    assert await it.look(WAIT_S) == []


async def test_a_task_that_was_removed_says_nothing() -> None:
    """It is forgotten."""
    it = await planned()
    await it.expect("a")
    await it.store.remove("a")
    assert await it.look(WAIT_S) == []


async def test_some_are_looked_up_at_a_time() -> None:
    """Three by each look, and no more than a hundred are remembered."""
    it = await planned()
    for number in range(MOST_AWAITED + 1):
        await it.expect(str(number))
        await it.store.remove(str(number))
        await it.store.add([Addition(str(number), first_s=WAIT_S)])
    it.book.clock.spend(WAIT_S)
    for number in range(MOST_AWAITED + 1):
        await it.end(str(number))
    assert len(await it.look()) == 3
    for _ in range(MOST_AWAITED):
        await it.look()
    assert len(it.heard.told) == MOST_AWAITED


async def test_two_looks_at_once_count_a_task_and_a_lesson_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What one of them has taken up is no longer there for the other."""
    it = await planned()
    for task_id in ("a", "b"):
        await it.expect(task_id)
    it.book.clock.spend(WAIT_S)
    await it.end("a", lesson=("", 20.0, 45.0, 30.0))
    await it.end("b")
    find, lessons_after, learned = it.store.find, it.store.lessons_after, list[float]()

    async def find_late(key: str) -> Any:
        await asyncio.sleep(1.0)
        return await find(key)

    async def teach_late(number: int) -> Any:
        await asyncio.sleep(1.0)
        return await lessons_after(number)

    monkeypatch.setattr(it.store, "find", find_late)
    monkeypatch.setattr(it.store, "lessons_after", teach_late)
    monkeypatch.setattr(Timing, "learn", lambda _, after_s, *__, **___: learned.append(after_s))
    await asyncio.gather(it.planner.look(it.now), it.planner.look(it.now + PLAN_PAUSE_S))
    assert it.heard.told == [False, False]
    assert learned == [20.0]


async def test_where_none_is_awaited_a_task_is_planned() -> None:
    """By its likely duration."""
    it = await planned()
    it.heard.awaits_callbacks = False
    assert 20 < it.planner.first_look_s("a", None, it.now, WAIT_S) < 50


async def test_lessons_are_fetched_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most every 5 s, from the last known one on; never where nothing is learned."""
    it = await planned()
    asked: list[int] = []
    lessons_after = it.store.lessons_after

    async def noted(number: int) -> Any:
        asked.append(number)
        return await lessons_after(number)

    monkeypatch.setattr(it.store, "lessons_after", noted)
    await it.book.ended("a", lesson=("", 20.0, 45.0, 30.0))
    await it.look()
    await it.look(4.9)
    assert asked == [0]
    await it.look(0.2)
    assert asked[1] > 0
    it.planner.adopt(Desk(number=9, terms=Terms((15.0, 30.0), 1.0, 2, None)))
    await it.look()  # other pauses: all is learned anew
    it.planner.adopt(Desk(number=9, terms=Terms((15.0, 30.0), 9.0, 2, None)))
    it.planner.adopt(Desk(number=9))
    await it.look()
    assert asked[2:] == [0]
    it.planner.adopt(Desk())  # it has lost all that it held, and counts from 1 again
    await it.look(5.1)
    assert asked[3:] == [0]
    it.planner = BookPlanner(it.store, it.heard, PollPolicy(timing="uniform"), Random(7))
    await it.look()
    assert len(asked) == 4
    assert it.planner.first_look_s("b", None, it.now, None) == 0.0
