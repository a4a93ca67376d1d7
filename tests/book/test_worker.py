"""Workers of a book, against the simulator over real sockets on a virtual clock."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress
from itertools import pairwise

import pytest

from kling_omni_async import (
    AuthenticationError,
    BookError,
    ConfigurationError,
    ImageOrder,
    ImageTask,
    KlingOmniError,
    KlingOmniSession,
    PollPolicy,
    PollTimeoutError,
    SessionClosedError,
    TaskBook,
    TaskFailedError,
    TaskNotFoundError,
    TaskStatus,
)
from kling_omni_async._book.book import open_inside
from kling_omni_async._book.contract import Turn, Turned
from kling_omni_async._book.memory import MemoryShelf, MemoryStore
from kling_omni_async._book.opened import OpenBook
from kling_omni_async._book.work import BookWork
from kling_omni_async._book.worker import Identity, Worker
from kling_omni_async._doors import observe
from kling_omni_async._observer import Trace
from kling_omni_async.simulator import SimulatedCometAPI
from tests.support import freeze, new_session, now, now_waiting

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def worked(api: SimulatedCometAPI, **policy: object) -> AsyncGenerator[TaskBook]:
    """Open a book that a session of its own works."""
    async with TaskBook() as book, new_session(api, **policy) as session, session.work(book):
        yield book


async def work_for(session: KlingOmniSession, book: TaskBook, seconds: float) -> None:
    """Work a book for a while."""
    async with session.work(book):
        await asyncio.sleep(seconds)


def starts_of(api: SimulatedCometAPI, task_id: str) -> list[float]:
    """Return when the queries of an id came."""
    return [query.started for query in api.queries_of(task_id)]


async def test_a_task_that_is_added_is_brought_back(comet_api: SimulatedCometAPI) -> None:
    """`book.wait` gives the task once a worker of any session has seen it succeed."""
    task_id = comet_api.create_task(duration=40, images=2)
    async with worked(comet_api) as book:
        assert await book.add(task_id)
        task = await book.wait(task_id)
    assert task.status is TaskStatus.SUCCEED
    assert len(task.images) == 2
    assert 40 <= now() <= 71


async def test_pauses_are_those_of_the_policy(comet_api: SimulatedCometAPI) -> None:
    """Two queries of an id of a book are never closer than the shortest pause, nor much longer."""
    task_id = comet_api.create_task(duration=300)
    async with worked(comet_api) as book:
        await book.add(task_id)
        await book.wait(task_id)
    gaps = [b - a for a, b in pairwise(starts_of(comet_api, task_id))]
    assert len(gaps) > 8
    assert min(gaps) >= 20
    assert max(gaps) <= 30.5


async def test_an_end_has_the_apis_reason(comet_api: SimulatedCometAPI) -> None:
    """A task that failed raises the API's reason, and the entry of the book holds it."""
    task_id = comet_api.create_task(duration=1, fail="Image pixel is invalid")
    async with worked(comet_api) as book:
        await book.add(task_id, note=[1])
        with pytest.raises(TaskFailedError, match="Image pixel is invalid"):
            await book.wait(task_id)
        entry = await book.get(task_id)
    assert entry is not None
    assert entry.outcome is not None
    assert entry.outcome.settled
    assert entry.note == [1]


async def test_an_unknown_id_is_believed_after_two_answers(comet_api: SimulatedCometAPI) -> None:
    """`task_not_exist` ends an id of a book when it was said twice, a pause apart."""
    async with worked(comet_api) as book:
        await book.add("404404")
        with pytest.raises(TaskNotFoundError):
            await book.wait("404404")
    assert len(comet_api.queries_of("404404")) == 2
    assert 20 <= now() <= 31


async def test_what_was_seen_never_ends_as_not_found(comet_api: SimulatedCometAPI) -> None:
    """An id that was once seen as a task ends by its time, however often the API denies it."""
    task_id = comet_api.create_task(duration=1000)
    async with worked(comet_api, timeout=200) as book:
        await book.add(task_id)
        await comet_api.wait_for_queries(1, task_id)
        comet_api.expire(task_id)
        with pytest.raises(PollTimeoutError) as caught:
            await book.wait(task_id)
    assert isinstance(caught.value.last_error, TaskNotFoundError)
    assert caught.value.task is not None


async def test_an_id_is_given_up_by_a_query_behind_its_deadline(
    comet_api: SimulatedCometAPI,
) -> None:
    """The time of an id runs from its first query, and its last query ends behind the deadline."""
    task_id = comet_api.create_task(duration=1000)
    async with worked(comet_api, timeout=100) as book:
        await asyncio.sleep(500)
        await book.add(task_id)
        with pytest.raises(PollTimeoutError, match="its status was processing"):
            await book.wait(task_id)
    assert 600 <= now() <= 621
    assert starts_of(comet_api, task_id)[-1] >= 600


async def test_two_workers_share_ids_and_pace(comet_api: SimulatedCometAPI) -> None:
    """Two sessions on one book ask for each id in its turn, together as fast as one."""
    ids = [comet_api.create_task(duration=45) for _ in range(60)]
    async with TaskBook() as book:
        await book.add_many(ids)
        async with (
            new_session(comet_api, max_rate=10) as one,
            new_session(comet_api, max_rate=10) as two,
            one.work(book),
            two.work(book),
        ):
            for task_id in ids:
                await book.wait(task_id)
            progress = await book.progress()
    assert progress.succeeded == 60
    times = sorted(query.started for query in comet_api.queries)
    for first, eleventh in zip(times, times[11:], strict=False):
        assert eleventh - first >= 0.99
    for task_id in ids:
        gaps = [b - a for a, b in pairwise(starts_of(comet_api, task_id))]
        assert min(gaps) >= 20


async def test_what_a_worker_that_leaves_had_claimed_others_take_at_once(
    comet_api: SimulatedCometAPI,
) -> None:
    """Who leaves gives its claims back: an id whose query is cut off is due after one pause."""
    task_id = comet_api.create_task(duration=1)
    comet_api.fail_next(task_id, hang=True)
    async with TaskBook() as book:
        await book.add(task_id)
        async with new_session(comet_api) as session, session.work(book):
            await comet_api.wait_for_queries(1, task_id)
        async with new_session(comet_api) as session, session.work(book):
            await book.wait(task_id)
    assert 20 <= now() <= 22


async def test_a_session_that_is_closed_gives_its_claims_back(
    comet_api: SimulatedCometAPI,
) -> None:
    """The end of a session is the end of its workers, also where the block is still open."""
    task_id = comet_api.create_task(duration=1)
    comet_api.fail_next(task_id, hang=True)
    async with TaskBook() as book:
        await book.add(task_id)
        session = new_session(comet_api)
        async with session.work(book):
            await comet_api.wait_for_queries(1, task_id)
            await session.aclose()
        async with new_session(comet_api) as other, other.work(book):
            await book.wait(task_id)
        with pytest.raises(SessionClosedError):
            await work_for(session, book, 0)
    assert 20 <= now() <= 22


async def slow_turns(book: TaskBook, *, before_s: float = 0.0, after_s: float = 0.0) -> None:
    """Let each step of a worker take its time, before it is made or after."""
    store = (await open_inside(book)).store
    make = store.turn

    async def slow(turn: Turn) -> Turned:
        await asyncio.sleep(before_s)
        reply = await make(turn)
        await asyncio.sleep(after_s)
        return reply

    store.turn = slow  # type: ignore[method-assign]


async def test_a_worker_whose_turns_take_long_keeps_the_pace(
    comet_api: SimulatedCometAPI,
) -> None:
    """Its starts are given out while the turn before is under way: 300 ms cost it none."""
    ids = [comet_api.create_task(duration=3600) for _ in range(200)]
    async with TaskBook() as book, new_session(comet_api, max_rate=20.0) as session:
        await book.add_many(ids)
        async with session.work(book):
            await slow_turns(book, before_s=0.15, after_s=0.15)
            await asyncio.sleep(1.0)
            before = len(comet_api.queries)
            await asyncio.sleep(5.0)
            assert len(comet_api.queries) - before == pytest.approx(100, abs=1)


async def test_a_session_that_is_closed_in_a_step_loses_no_answer(
    comet_api: SimulatedCometAPI,
) -> None:
    """What a step was to bring when its session was closed is kept: nobody asks again."""
    task_id = comet_api.create_task(duration=0)
    async with TaskBook() as book:
        await book.add(task_id)
        session = new_session(comet_api)
        async with session.work(book):
            await comet_api.wait_for_queries(1, task_id)
            await slow_turns(book, before_s=1.0)
            await asyncio.sleep(0.5)
            await session.aclose()
        assert (await book.wait(task_id, timeout=0)).status is TaskStatus.SUCCEED
    assert len(comet_api.queries) == 1


async def test_a_session_that_is_closed_while_its_book_is_out_of_reach_loses_no_answer(
    comet_api: SimulatedCometAPI,
) -> None:
    """What waits for the book is brought with the last step, if that comes through."""
    task_id = comet_api.create_task(duration=0)
    async with TaskBook() as book:
        await book.add(task_id)
        store = (await open_inside(book)).store
        make = store.turn

        async def fail(turn: Turn) -> Turned:
            raise BookError("locked", transient=True)

        session = new_session(comet_api)
        async with session.work(book):
            await comet_api.wait_for_queries(1, task_id)
            store.turn = fail  # type: ignore[method-assign]
            await asyncio.sleep(0.3)
            store.turn = make  # type: ignore[method-assign]
            await session.aclose()
        assert (await book.wait(task_id, timeout=0)).status is TaskStatus.SUCCEED


async def test_a_session_that_is_closed_in_a_step_gives_back_what_that_brings(
    comet_api: SimulatedCometAPI,
) -> None:
    """An id that was claimed by then is anybody's at once, and not when a lease is over."""
    async with TaskBook() as book:
        session = new_session(comet_api)
        async with session.work(book):
            await slow_turns(book, after_s=1.0)
            task_id = comet_api.create_task(duration=0)
            await book.add(task_id)
            await asyncio.sleep(0.5)
            await session.aclose()
        closed = now()
        async with new_session(comet_api) as other, other.work(book):
            await book.wait(task_id)
        assert now() <= closed + 10  # of 37
    assert len(comet_api.queries) == 1


async def test_a_session_may_be_closed_at_any_pass_of_the_loop(
    comet_api: SimulatedCometAPI, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever had begun by then: at once nobody holds a claim, and nothing has gone wrong."""
    ids = [comet_api.create_task(duration=0) for _ in range(5)]
    for passes in range(40):
        async with TaskBook() as book:
            await book.add_many(ids)
            session = new_session(comet_api)
            async with session.work(book):
                began = now()
                await asyncio.sleep(0.1 * (passes % 2))
                await now_waiting(passes)
                await session.aclose()
            assert now() < began + 1
            rows = [found.row for found in await (await open_inside(book)).store.list("", 9)]
            assert [row.key for row in rows if row.token] == []
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_a_wrong_key_ends_its_worker_alone(comet_api: SimulatedCometAPI) -> None:
    """A key that is refused is raised on leaving, and the other worker brings the task back."""
    task_id = comet_api.create_task(duration=40)
    wrong = KlingOmniSession("sk-wrong", base_url=comet_api.base_url)
    async with TaskBook() as book, wrong:
        await book.add(task_id)
        working = asyncio.ensure_future(work_for(wrong, book, 60))
        await comet_api.wait_for_queries(1)
        with pytest.raises(AuthenticationError):
            await book.wait(task_id)
        with pytest.raises(AuthenticationError):
            await working
        async with new_session(comet_api) as session, session.work(book):
            assert (await book.wait(task_id)).status is TaskStatus.SUCCEED
        assert not wrong.closed


async def test_a_book_that_has_lost_all(
    comet_api: SimulatedCometAPI, caplog: pytest.LogCaptureFixture
) -> None:
    """Its workers go on by the policy that was in force, with what is added from then on."""
    lost, kept = comet_api.create_task(duration=900), comet_api.create_task(duration=100)
    async with worked(comet_api, max_rate=5.0) as book:
        await book.add(lost)
        await comet_api.wait_for_queries(2)
        store = (await open_inside(book)).store
        assert isinstance(store, MemoryStore)
        store.shelf = MemoryShelf()
        await book.add(kept)
        assert (await book.wait(kept)).status is TaskStatus.SUCCEED
        assert (await book.progress()).workers == 1
        terms = store.shelf.desk.terms
        assert terms is not None
        assert terms.max_rate == 5.0
    assert caplog.text.count("has lost all that it held: add the ids again") == 1


async def test_an_error_of_the_block_goes_before_that_of_the_worker(
    comet_api: SimulatedCometAPI,
) -> None:
    """What the block raises is not replaced by what ended its worker."""
    wrong = KlingOmniSession("sk-wrong", base_url=comet_api.base_url)
    async with TaskBook() as book, wrong:
        await book.add("1")

        async def fail() -> None:
            async with wrong.work(book) as work:
                assert "TaskBook" in repr(work)
                await comet_api.wait_for_queries(1)
                await now_waiting(30)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()


async def test_a_work_is_entered_once(comet_api: SimulatedCometAPI) -> None:
    """A second time is refused, inside of the first one too: nothing is left that polls."""
    async with TaskBook() as book, new_session(comet_api) as session:
        work = session.work(book)

        async def enter() -> None:
            async with work:
                pass

        async with work:
            with pytest.raises(RuntimeError, match="each time"):
                await enter()
            await now_waiting(30)
            assert (await book.progress()).workers == 1
        assert (await book.progress()).workers == 0
        with pytest.raises(RuntimeError, match="each time"):
            await enter()


async def test_another_accounts_key_makes_no_id_unknown(comet_api: SimulatedCometAPI) -> None:
    """A key that knows none of the tasks that others see ends its worker, and no id."""
    async with SimulatedCometAPI(api_key="sk-other") as other_api:
        ids = [comet_api.create_task(duration=400) for _ in range(5)]
        async with TaskBook() as book, new_session(comet_api) as session, session.work(book):
            await book.add_many(ids)
            for task_id in ids:
                await comet_api.wait_for_queries(1, task_id)
            foreign = new_session(other_api)

            def make(inside: OpenBook) -> Worker:
                worker = foreign._book_worker(3600.0, inside)
                worker._identity = Identity("another", comet_api.base_url)  # the same host
                return worker

            async def work() -> None:
                async with foreign, BookWork(book, make):
                    await asyncio.sleep(60)

            with pytest.raises(ConfigurationError, match="of another account"):
                await work()
            (await open_inside(book)).fault = None
            for task_id in ids:
                await book.wait(task_id)


async def test_a_book_is_for_one_api(comet_api: SimulatedCometAPI) -> None:
    """A worker for another base URL than the first one's is refused, and nothing is asked there."""
    async with SimulatedCometAPI() as other, TaskBook() as book:
        async with new_session(comet_api) as session, session.work(book):
            await now_waiting(30)
        await book.add("1")
        async with new_session(other) as session:
            with pytest.raises(ConfigurationError, match="give each API a book"):
                await work_for(session, book, 60)
        assert not other.queries


async def test_the_policy_of_who_starts_last_is_in_force(
    comet_api: SimulatedCometAPI, caplog: pytest.LogCaptureFixture
) -> None:
    """Pauses are those of the last worker, for all workers, and a warning tells of the change."""
    ids = [comet_api.create_task(duration=500) for _ in range(4)]
    async with TaskBook() as book:
        await book.add_many(ids)
        async with (
            new_session(comet_api) as one,
            new_session(comet_api, interval=(100, 120)) as two,
            one.work(book),
        ):
            await asyncio.sleep(65)
            changed = now()
            with caplog.at_level(logging.WARNING, "kling_omni_async.book"):
                await work_for(two, book, 400)
    assert "the policy of the book" in caplog.text
    later = [[at for at in starts_of(comet_api, each) if at > changed + 30] for each in ids]
    assert all(len(each) >= 2 for each in later)
    assert all(b - a >= 100 for each in later for a, b in pairwise(each))


async def test_a_429_holds_all_workers_back(comet_api: SimulatedCometAPI) -> None:
    """After a 429 no worker starts a query until the pause is over, and then one goes first."""
    ids = [comet_api.create_task(duration=500) for _ in range(40)]
    comet_api.fail_next(ids[0], status=429, retry_after=50)
    async with (
        TaskBook() as book,
        new_session(comet_api, max_rate=20) as one,
        new_session(comet_api, max_rate=20) as two,
        one.work(book),
        two.work(book),
    ):
        await book.add_many(ids)
        await comet_api.wait_for_queries(1, ids[0])
        refused = starts_of(comet_api, ids[0])[0]
        await asyncio.sleep(80)
    during = [
        query.started for query in comet_api.queries if refused + 0.3 < query.started < refused + 50
    ]
    assert not during
    behind = sorted(query.started for query in comet_api.queries if query.started >= refused + 50)
    assert len(behind) > 10


async def test_the_sessions_own_verbs_start_by_the_pace_of_the_book(
    comet_api: SimulatedCometAPI,
) -> None:
    """`wait` beside a crowd in a book: both together keep to the pace, and both go on."""
    ids = [comet_api.create_task(duration=100) for _ in range(30)]
    own = [comet_api.create_task(duration=30) for _ in range(30)]
    async with (
        TaskBook() as book,
        new_session(comet_api, max_rate=10) as session,
        session.work(book),
    ):
        await book.add_many(ids)
        await asyncio.gather(*map(session.wait, own))
        await asyncio.gather(*map(book.wait, ids))
    times = sorted(query.started for query in comet_api.queries)
    for first, later in zip(times, times[13:], strict=False):
        assert later - first >= 0.99


async def test_a_429_of_a_plain_verb_closes_the_gate_of_the_book(
    comet_api: SimulatedCometAPI,
) -> None:
    """A 429 that meets `session.wait` holds the ids of the book back, too."""
    ids = [comet_api.create_task(duration=500) for _ in range(10)]
    mine = comet_api.create_task(duration=1)
    comet_api.fail_next(mine, status=429, retry_after=100)
    async with (
        TaskBook() as book,
        new_session(comet_api) as session,
        session.work(book),
    ):
        await book.add_many(ids)
        await comet_api.wait_for_queries(10)
        await session.wait(mine)
    refused = starts_of(comet_api, mine)[0]
    others = [
        query.started
        for query in comet_api.queries
        if refused + 0.3 < query.started < refused + 100
    ]
    assert not others


async def test_a_nudge_asks_as_soon_as_the_pause_allows(comet_api: SimulatedCometAPI) -> None:
    """`book.nudge` asks for an id at the end of its shortest pause; of a stranger it is False."""
    task_id = comet_api.create_task(duration=1000)
    async with worked(comet_api, interval=(20, 60), timing="uniform") as book:
        await book.add(task_id)
        await comet_api.wait_for_queries(1, task_id)
        await asyncio.sleep(1)
        comet_api.finish(task_id)
        assert await book.nudge(task_id)
        assert not await book.nudge("5")
        await book.wait(task_id)
    assert 20 <= now() <= 20.5


async def test_a_claim_that_was_held_too_long_is_not_asked(comet_api: SimulatedCometAPI) -> None:
    """A worker that stands still between claim and start leaves the start to others."""
    ids = [comet_api.create_task(duration=1) for _ in range(2)]
    async with worked(comet_api, max_rate=5) as book:
        await book.add_many(ids)
        await comet_api.wait_for_queries(1)
        await now_waiting(5)
        freeze(10)  # the second was claimed for a start 0.2 s later
        for task_id in ids:
            await book.wait(task_id)
    assert all(len(comet_api.queries_of(task_id)) <= 2 for task_id in ids)


class Unreachable(MemoryStore):
    """A book in memory that is out of reach now and then."""

    is_away = False
    error = BookError("the disk is full", transient=True)

    async def turn(self, turn: Turn) -> Turned:
        if self.is_away:
            raise self.error
        return await super().turn(turn)


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let books in memory be ones that can be out of reach."""
    monkeypatch.setattr("kling_omni_async._book.memory.MemoryStore", Unreachable)


async def store_of(book: TaskBook) -> Unreachable:
    """Return the store of a book."""
    inside: OpenBook = await open_inside(book)
    assert isinstance(inside.store, Unreachable)
    return inside.store


@pytest.mark.usefixtures("unreachable")
async def test_a_book_out_of_reach_loses_nothing(
    comet_api: SimulatedCometAPI, caplog: pytest.LogCaptureFixture
) -> None:
    """What was asked before an outage is brought back behind it, and meanwhile nothing starts."""
    ids = [comet_api.create_task(duration=1) for _ in range(5)]
    async with worked(comet_api) as book:
        store = await store_of(book)
        for task_id in ids:
            comet_api.fail_next(task_id, delay=1.0)
        await book.add_many(ids)
        await comet_api.wait_for_queries(5)
        store.is_away = True
        await asyncio.sleep(100)
        assert len(comet_api.queries) == 5
        store.is_away = False
        for task_id in ids:
            await book.wait(task_id)
        assert len(comet_api.queries) <= 10
    assert caplog.text.count("is out of reach") == 1


@pytest.mark.usefixtures("unreachable")
async def test_plain_verbs_go_on_while_the_book_is_out_of_reach(
    comet_api: SimulatedCometAPI,
) -> None:
    """`session.wait` needs no book: it goes on by a pace of its own."""
    task_id = comet_api.create_task(duration=1)
    async with TaskBook() as book, new_session(comet_api) as session, session.work(book):
        store = await store_of(book)
        store.is_away = True
        await book.add("1")
        await asyncio.sleep(20)
        assert (await session.wait(task_id)).status is TaskStatus.SUCCEED
        assert now() < 60
        store.is_away = False


@pytest.mark.usefixtures("unreachable")
async def test_a_book_that_is_broken_ends_the_worker(comet_api: SimulatedCometAPI) -> None:
    """What does not pass, such as a file that was replaced, is raised on leaving."""
    async with TaskBook() as book, new_session(comet_api) as session:
        store = await store_of(book)
        store.error, store.is_away = BookError("the file was replaced"), True
        with pytest.raises(BookError, match="was replaced"):
            await work_for(session, book, 1)
        store.is_away = False


async def test_only_a_book_can_be_worked(comet_api: SimulatedCometAPI) -> None:
    """`work` of anything else says what to write."""
    async with new_session(comet_api) as session:
        with pytest.raises(ConfigurationError, match="book must be a TaskBook"):
            session.work("tasks.db")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def test_books_learn_from_all_workers(comet_api: SimulatedCometAPI) -> None:
    """What one session has seen of durations is the book's: the next one plans by it."""
    async with TaskBook() as book:
        async with new_session(comet_api) as session, session.work(book):
            ids = [comet_api.create_task(duration=33) for _ in range(60)]
            await book.add_many(ids)
            for task_id in ids:
                await book.wait(task_id)
        inside = await open_inside(book)
        lessons = (await inside.store.turn(Turn(worker="w", seq=1))).lessons
    assert len(lessons) == 60
    assert PollPolicy().timing == "learned"


async def test_plain_verbs_know_no_pace_where_the_book_has_none(
    comet_api: SimulatedCometAPI,
) -> None:
    """With `max_rate=None` a book lends no starts, and a session's own verbs need none."""
    task_id = comet_api.create_task(duration=1)
    async with (
        TaskBook() as book,
        new_session(comet_api, max_rate=None) as session,
        session.work(book),
    ):
        await asyncio.sleep(1)
        assert (await session.query(task_id)).task_id == task_id
        assert now() < 1.01


async def test_one_book_alone_lends_its_pace(comet_api: SimulatedCometAPI) -> None:
    """A session that works two books takes its own starts from the first; both are polled."""
    ids = [comet_api.create_task(duration=1) for _ in range(3)]
    async with (
        TaskBook() as one,
        TaskBook() as two,
        new_session(comet_api) as session,
        session.work(one),
        session.work(two),
    ):
        await one.add(ids[0])
        await two.add(ids[1])
        await one.wait(ids[0])
        await two.wait(ids[1])
        await session.wait(ids[2])
    assert now() < 70


async def test_the_pace_that_is_lent_follows_the_policy_in_force(
    comet_api: SimulatedCometAPI,
) -> None:
    """When another worker brings another `max_rate`, the session's own verbs start by that one."""
    own = [comet_api.create_task(duration=1) for _ in range(20)]
    async with (
        TaskBook() as book,
        new_session(comet_api, max_rate=50) as one,
        new_session(comet_api, max_rate=2) as two,
        one.work(book),
        two.work(book),
    ):
        await asyncio.sleep(15)
        began = now()
        await asyncio.gather(*map(one.query, own))
    assert now() - began >= 9.4


async def test_a_worker_that_stood_still_asks_nothing_twice(
    comet_api: SimulatedCometAPI,
) -> None:
    """An id that is claimed anew while its first query is under way is asked only once."""
    task_id, other = comet_api.create_task(duration=1), comet_api.create_task(duration=1)
    comet_api.fail_next(task_id, hang=True)
    async with worked(comet_api, query_timeout=60.0, interval=(1.0, 1.5)) as book:
        await book.add(other)
        await book.wait(other)
        await book.add(task_id)
        await comet_api.wait_for_queries(1, task_id)
        store = (await open_inside(book)).store
        assert isinstance(store, MemoryStore)
        row = store.shelf.row(task_id)
        assert row is not None
        row.at = 0.0  # as if its lease were over
        store.shelf.put(row)
        await book.add("7")
        await asyncio.sleep(30)
        assert len(comet_api.queries_of(task_id)) == 1
        await book.wait(task_id)


async def test_the_first_reason_to_end_counts(comet_api: SimulatedCometAPI) -> None:
    """A worker that ends for one reason is told of no other, and one that leaves has none."""
    async with TaskBook() as book, new_session(comet_api) as session:
        inside = await open_inside(book)
        worker = session._book_worker(None, inside)
        worker._fail(KlingOmniError("first"))
        worker._fail(KlingOmniError("second"))
        worker._end_with_session()
        assert str(worker.fault) == "first"
        leaving = session._book_worker(None, inside)
        leaving._leave.ring()
        leaving._end_with_session()
        assert leaving.fault is None
        assert "holds=0" in repr(leaving)


@pytest.mark.parametrize(("is_read", "level"), [(False, logging.INFO), (True, logging.WARNING)])
async def test_outcomes_that_nobody_acknowledged_in_time_are_named(
    comet_api: SimulatedCometAPI,
    caplog: pytest.LogCaptureFixture,
    *,
    is_read: bool,
    level: int,
) -> None:
    """What is dropped unread is said with its id: a warning where somebody has read the book.

    In a backend, where handlers only wait, nothing is meant to be read, whatever `generate` does.
    """
    caplog.set_level(logging.INFO)
    task_id = comet_api.create_task(duration=1)
    async with TaskBook(keep=100.0) as book, new_session(comet_api) as session, session.work(book):
        if is_read:
            async with book.outcomes() as outcomes:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(outcomes), 1.0)
        await session.generate(ImageOrder("a fox"), book=book)
        await book.add(task_id)
        await book.wait(task_id)
        await asyncio.sleep(200)
        assert await book.get(task_id) is None
    (line,) = [each for each in caplog.records if "never acknowledged" in each.getMessage()]
    text = f"1 outcomes of the book in memory were never acknowledged and are dropped: '{task_id}'"
    assert (line.levelno, line.getMessage()) == (level, text)


async def test_an_observer_sees_the_queries_of_a_book(comet_api: SimulatedCometAPI) -> None:
    """Queries, ends and ages of a book's ids reach the session's observer and its counts."""
    ids = [comet_api.create_task(duration=1), comet_api.create_task(duration=1, fail="no")]
    async with TaskBook() as book, new_session(comet_api) as session:
        seen = Seen()
        observe(session, seen)
        async with session.work(book):
            comet_api.fail_next(ids[0], status=502)
            await book.add_many([*ids, "404404"])
            for task_id in [*ids, "404404"]:
                with suppress(KlingOmniError):
                    await book.wait(task_id)
        stats = session.stats()
    assert sorted(seen.ends) == ["None", "TaskFailedError", "TaskNotFoundError"]
    assert len(seen.queries) == len(comet_api.queries) == stats.queries
    assert len(seen.ages) == 2
    assert (stats.succeeded, stats.failed, stats.unresolved) == (1, 1, 1)
    assert stats.faults == {"ServerError (HTTP 502)": 1}


async def test_a_connection_that_breaks_costs_one_pause(comet_api: SimulatedCometAPI) -> None:
    """A claim that got no answer is asked again after its pause."""
    task_id = comet_api.create_task(duration=1)
    comet_api.fail_next(task_id, reset=True)
    async with worked(comet_api) as book:
        await book.add(task_id)
        await book.wait(task_id)
    assert 20 <= now() <= 31


class Seen:
    """An observer that notes what it is told."""

    follows_queries = False

    def __init__(self) -> None:
        self.queries: list[float] = []
        self.ends: list[str] = []
        self.ages: list[float | None] = []

    def queried(
        self,
        *,
        took_s: float,
        late_s: float,
        error: KlingOmniError | None,
        traces: Sequence[Trace],
    ) -> None:
        assert not traces
        assert late_s >= 0
        assert error is None or error.what
        self.queries.append(took_s)

    def ended(self, error: KlingOmniError | None, *, queries: int) -> None:
        assert queries
        self.ends.append("None" if error is None else type(error).__name__)

    def seen(self, task: ImageTask, age_s: float | None) -> None:
        assert task.is_terminal
        self.ages.append(age_s)

    def throttled(self, pause_s: float) -> None:
        """Note nothing."""

    def created(self, error: BaseException | None) -> None:
        """Note nothing."""

    def saved(self, size: int) -> None:
        """Note nothing."""

    def trace(self, name: str, task_id: str) -> AbstractContextManager[Trace]:
        raise NotImplementedError

    def hushed(self) -> AbstractContextManager[None]:
        return nullcontext()


async def test_the_counts_of_a_session_have_its_queries_of_a_book(
    comet_api: SimulatedCometAPI,
) -> None:
    """How many there were, when the next one is due, and none any more once the work is left."""
    task_id = comet_api.create_task(duration=100)
    async with TaskBook() as book, new_session(comet_api) as session:
        await book.add(task_id)
        async with session.work(book):
            await asyncio.sleep(10.0)
            stats = session.stats()
            assert (stats.queries, stats.in_flight) == (1, 0)
            assert stats.next_query is not None
            assert 9.5 < stats.next_query <= 20.0
            await book.wait(task_id)
        assert session.stats().queries == len(comet_api.queries)
        assert session.stats().next_query is None
