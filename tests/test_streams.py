"""Streams of outcomes: each id exactly once, however the stream is fed, shared or left."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from collections.abc import Set as AbstractSet
from contextlib import suppress
from datetime import UTC, datetime
from itertools import chain
from typing import Any, Final

import pytest

from kling_omni_async import (
    AuthenticationError,
    InvalidTaskIdError,
    PollTimeoutError,
    Progress,
    SessionClosedError,
    TaskFailedError,
    TaskNotFoundError,
    TransportError,
)
from kling_omni_async.simulator import SimulatedCometAPI

from .support import all_of, new_session, now, now_waiting, open_session

pytestmark = pytest.mark.anyio

EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)  # ages are told in whole seconds of its clock


async def ids_of(api: SimulatedCometAPI, count: int, **task: Any) -> list[str]:
    """Create some tasks that are alike."""
    return [api.create_task(**task) for _ in range(count)]


async def test_500_ids_of_10_polls_come_out_once_each(comet_api: SimulatedCometAPI) -> None:
    """500 ids that take ten polls at 25 s each: 5,000 queries, every pause 25 s, no id twice."""
    task_ids = await ids_of(comet_api, 500, duration=225)
    async with open_session(comet_api, interval=(25, 25), max_rate=None) as session:
        outcomes = await all_of(session, task_ids)
    assert sorted(outcome.task_id for outcome in outcomes) == sorted(task_ids)
    assert all(outcome.ok and outcome.queries == 10 for outcome in outcomes)
    assert len(comet_api.queries) == 5000
    assert set(comet_api.gaps()) == {25.0}
    assert {query.started for query in comet_api.queries} == {25.0 * n for n in range(10)}
    assert comet_api.in_flight_peak <= 100
    assert now() == 225


@pytest.mark.usefixtures("seeded")
async def test_a_seed_gives_the_same_times_on_each_run() -> None:
    """300 ids of about ten polls at 20 to 30 s: every pause in bounds, two runs alike."""
    runs = []
    for _ in range(2):
        began = now()
        async with SimulatedCometAPI(seed=3, epoch=EPOCH) as api, open_session(api) as session:
            outcomes = await all_of(session, await ids_of(api, 300, duration=250))
            assert len({outcome.task_id for outcome in outcomes if outcome.ok}) == 300
            gaps = api.gaps()
            assert len(gaps) >= 300 * 8
            assert min(gaps) >= 20 - 1e-9
            assert max(gaps) <= 30.5  # the pace may put a query off
            runs.append([(q.task_id, round(q.started - began, 6)) for q in api.queries])
    assert runs[0] == runs[1]


async def test_outcomes_come_in_order_of_completion(comet_api: SimulatedCometAPI) -> None:
    """A task that ends sooner comes out sooner, whatever its place in the input."""
    slow = comet_api.create_task(duration=100)
    quick = comet_api.create_task(duration=0)
    async with open_session(comet_api) as session:
        assert [o.task_id for o in await all_of(session, [slow, quick])] == [quick, slow]


async def test_every_kind_of_end_is_a_record(comet_api: SimulatedCometAPI) -> None:
    """Success, failure, an unknown id, a malformed id and a time-out all come out, once each."""
    good = comet_api.create_task(duration=0)
    bad = comet_api.create_task(duration=0, fail="no")
    endless = comet_api.create_task(duration=10_000)
    task_ids = [good, bad, "404404", "a b", endless, good, "a b"]
    async with (
        open_session(comet_api, timeout=300) as session,
        session.poll(task_ids) as outcomes,
    ):
        seen = [outcome async for outcome in outcomes]
        progress = outcomes.progress
    found = {outcome.task_id: outcome for outcome in seen}
    assert len(seen) == 5
    assert {task_id: type(o.error) for task_id, o in found.items()} == {
        good: type(None),
        bad: TaskFailedError,
        "404404": TaskNotFoundError,
        "a b": InvalidTaskIdError,
        endless: PollTimeoutError,
    }
    assert progress == Progress(total=5, succeeded=1, failed=1, unresolved=3)
    assert found[good].queries == 1
    assert found["a b"].queries == 0
    assert 300 <= found[endless].elapsed <= 305


async def test_a_timeout_runs_from_the_first_query(comet_api: SimulatedCometAPI) -> None:
    """Ids that wait for their first query behind the pace do not time out meanwhile."""
    task_ids = await ids_of(comet_api, 20, duration=10_000)
    async with open_session(comet_api, max_rate=0.1) as session:
        outcomes = await all_of(session, task_ids, timeout=30)
    assert all(outcome.queries >= 1 for outcome in outcomes)
    assert all(isinstance(outcome.error, PollTimeoutError) for outcome in outcomes)


async def test_no_id_times_out_without_one_whole_query(comet_api: SimulatedCometAPI) -> None:
    """A first query that outlives its id's time limit is let finish; its answer counts."""
    quick = comet_api.create_task(duration=0)
    slow = comet_api.create_task(duration=0)
    comet_api.fail_next(quick, delay=12)
    comet_api.fail_next(slow, hang=True)
    async with open_session(comet_api) as session:
        outcomes = {o.task_id: o for o in await all_of(session, [quick, slow], timeout=1)}
    assert outcomes[quick].ok
    error = outcomes[slow].error
    assert isinstance(error, PollTimeoutError)
    assert isinstance(error.last_error, TransportError)
    assert outcomes[slow].queries == 1


async def test_an_id_in_two_streams_shares_its_queries(comet_api: SimulatedCometAPI) -> None:
    """Two streams of one session get an outcome each from the same queries."""
    task_id = comet_api.create_task(duration=50)
    async with open_session(comet_api) as session:
        first, second = await asyncio.gather(all_of(session, [task_id]), all_of(session, [task_id]))
    assert first[0].task == second[0].task
    assert min(comet_api.gaps(task_id)) >= 20


async def test_several_consumers_share_a_stream(comet_api: SimulatedCometAPI) -> None:
    """Each outcome goes to one of several consumers, and all of them see the end."""
    task_ids = await ids_of(comet_api, 30, duration=0)
    async with open_session(comet_api) as session, session.poll(task_ids) as outcomes:

        async def consume() -> list[str]:
            return [outcome.task_id async for outcome in outcomes]

        parts = await asyncio.gather(*[consume() for _ in range(3)])
    assert sorted(chain.from_iterable(parts)) == sorted(task_ids)


async def test_pending_is_a_live_view(comet_api: SimulatedCometAPI) -> None:
    """`pending` holds what was not yet handed out, is a set, and stays readable."""
    task_ids = await ids_of(comet_api, 3, duration=0)
    async with open_session(comet_api) as session:
        async with session.poll(task_ids) as outcomes:
            pending = outcomes.pending
            first = await anext(outcomes)
            assert isinstance(pending, AbstractSet)
            assert pending == set(task_ids) - {first.task_id}
            assert first.task_id not in pending
            assert pending & {task_ids[0], task_ids[1]} <= set(task_ids)
            assert len(pending) == 2
        assert len(outcomes.pending) == 2
        assert outcomes.progress.pending == 2
        assert repr(pending) == "<PendingIds of 2>"
        assert repr(outcomes).startswith("<OutcomeStream closed Progress(")


async def test_breaking_out_drops_the_ids(comet_api: SimulatedCometAPI) -> None:
    """After the block no id of the stream is asked for again."""
    task_ids = await ids_of(comet_api, 10, duration=0)
    endless = await ids_of(comet_api, 10, duration=10_000)
    async with open_session(comet_api) as session:
        async with session.poll(task_ids + endless) as outcomes:
            async for _ in outcomes:
                break
        await now_waiting(10)
        asked = len(comet_api.queries)
        await asyncio.sleep(200)
        assert len(comet_api.queries) == asked
        assert "ids=0" in repr(session)


async def test_a_dropped_stream_polls_no_more(comet_api: SimulatedCometAPI) -> None:
    """A stream that was never closed ends its polling when nobody can read it any more."""
    endless = await ids_of(comet_api, 3, duration=10_000)
    async with open_session(comet_api) as session:
        async for _ in session.poll([*endless, comet_api.create_task(duration=0)]):
            break
        gc.collect()
        await now_waiting(10)
        asked = len(comet_api.queries)
        await asyncio.sleep(200)
        assert len(comet_api.queries) == asked


async def test_a_dropped_watch_polls_no_more(comet_api: SimulatedCometAPI) -> None:
    """So does an iterator of `watch`."""
    task_id = comet_api.create_task(duration=10_000)
    async with open_session(comet_api) as session:
        async for _ in session.watch(task_id):
            break
        gc.collect()
        await asyncio.sleep(200)
    assert len(comet_api.queries) == 1


async def test_leaving_a_watch_ends_it_for_all(comet_api: SimulatedCometAPI) -> None:
    """Closing an iterator of `watch` wakes a task that waits for its next record."""
    task_id = comet_api.create_task(duration=10_000)
    async with open_session(comet_api) as session:
        updates = session.watch(task_id)
        await anext(updates)
        waiting = asyncio.ensure_future(anext(updates, None))
        await now_waiting()
        await updates.aclose()
        assert await waiting is None
        assert repr(updates) == f"<TaskUpdates closed of {task_id!r}>"
    await session.watch("1").aclose()  # never started


async def test_steps_after_the_end_end_again(comet_api: SimulatedCometAPI) -> None:
    """A stream that has ended, or was left, ends again at every further step."""
    task_id = comet_api.create_task(duration=0)
    async with open_session(comet_api) as session:
        stream = session.poll([task_id])
        assert [outcome.task_id async for outcome in stream] == [task_id]
        assert await anext(stream, None) is None
        left = session.poll([task_id])
        await left.aclose()
        assert await anext(left, None) is None
        assert await anext(left, None) is None


async def test_a_stream_that_runs_may_be_entered(comet_api: SimulatedCometAPI) -> None:
    """After its first step a block begins nothing anew, and leaves the stream at its end."""
    task_ids = await ids_of(comet_api, 3, duration=0)
    async with open_session(comet_api) as session:
        stream = session.poll(task_ids)
        seen = [await anext(stream)]
        async with stream:
            seen.append(await anext(stream))
        assert await anext(stream, None) is None
    assert {outcome.task_id for outcome in seen} | stream.pending == set(task_ids)
    assert len(comet_api.queries) <= 3


async def test_an_empty_input_ends_at_once(comet_api: SimulatedCometAPI) -> None:
    """No ids, no outcomes, no queries."""
    async with open_session(comet_api) as session:
        assert await all_of(session, []) == []
        assert await all_of(session, iter(())) == []
    assert comet_api.queries == ()


@pytest.mark.parametrize("task_ids", [b"123", bytearray(b"1"), None, 7], ids=repr)
async def test_an_input_that_is_no_collection_is_refused(
    comet_api: SimulatedCometAPI, task_ids: Any
) -> None:
    """A bare str or bytes raises at the call, with the list to write; so does what is no input."""
    async with open_session(comet_api) as session:
        with pytest.raises(InvalidTaskIdError, match=r"poll"):
            session.poll(task_ids)
        with pytest.raises(InvalidTaskIdError, match=r"poll\(\['123'\]\)"):
            session.poll("123")  # type: ignore[deprecated]


@pytest.mark.parametrize("as_feed", [False, True])
async def test_what_is_no_text_is_an_outcome_and_the_others_go_on(
    comet_api: SimulatedCometAPI, *, as_feed: bool
) -> None:
    """A number among the ids comes out with what to write instead; it ends nothing."""
    good = comet_api.create_task(duration=0.0)
    ids: Any = [17, f"  {good}\n", b"17", "17 17"]

    async def feed() -> AsyncIterator[str]:
        for task_id in ids:
            yield task_id

    async with open_session(comet_api) as session:
        outcomes = {
            outcome.task_id: outcome
            for outcome in await all_of(session, feed() if as_feed else ids)
        }
    assert outcomes.keys() == {good, "17 (int)", "b'17' (bytes)", "17 17"}
    assert outcomes[good].ok
    error = outcomes["17 (int)"].error
    assert isinstance(error, InvalidTaskIdError)
    assert "write str(17)" in str(error)
    assert error.task_id == "17 (int)"


async def test_an_async_input_is_polled_while_it_is_read(comet_api: SimulatedCometAPI) -> None:
    """Ids of a feed are polled as they come, and one that was handed out may come again."""
    first = comet_api.create_task(duration=0)
    second = comet_api.create_task(duration=0)

    async def feed() -> AsyncIterator[str]:
        yield first
        yield first
        await asyncio.sleep(40)
        yield second
        yield first

    async with open_session(comet_api) as session, session.poll(feed()) as outcomes:
        seen = [(outcome.task_id, round(now())) async for outcome in outcomes]
    assert sorted(seen) == sorted([(first, 0), (second, 40), (first, 40)])
    assert len(comet_api.queries_of(first)) == 2


async def test_leaving_a_stream_closes_its_generator(comet_api: SimulatedCometAPI) -> None:
    """A generator that feeds a stream is closed when the stream is left."""
    closed: list[bool] = []

    async def feed() -> AsyncIterator[str]:
        try:
            yield comet_api.create_task(duration=0)
            await asyncio.sleep(1000)
            yield "never"
        finally:
            closed.append(True)

    async with open_session(comet_api) as session:
        async with session.poll(feed()) as outcomes:
            await anext(outcomes)
        await now_waiting(5)
    assert closed == [True]
    assert now() < 1000


class Feed:
    """An async iterable that is no generator."""

    def __init__(self, *task_ids: str) -> None:
        self.left = list(task_ids)

    def __aiter__(self) -> Feed:
        return self

    async def __anext__(self) -> str:
        if not self.left:
            raise StopAsyncIteration
        return self.left.pop(0)


async def test_any_async_iterable_will_do(comet_api: SimulatedCometAPI) -> None:
    """An async iterable need not be a generator."""
    task_ids = await ids_of(comet_api, 3, duration=0)
    async with open_session(comet_api) as session:
        outcomes = await all_of(session, Feed(*task_ids))
    assert {outcome.task_id for outcome in outcomes} == set(task_ids)


def breaking(*task_ids: str) -> Iterator[str]:
    """Give some ids, then raise."""
    yield from task_ids
    raise LookupError("the database has gone")


async def test_an_input_that_raises_gives_its_ids_first(comet_api: SimulatedCometAPI) -> None:
    """Ids read before the input raised come out, then its exception, again at each step."""
    task_ids = await ids_of(comet_api, 3, duration=30)
    async with open_session(comet_api) as session, session.poll(breaking(*task_ids)) as outcomes:
        seen = [(await anext(outcomes)).task_id for _ in task_ids]
        for _ in range(2):
            with pytest.raises(LookupError, match="database"):
                await anext(outcomes)
    assert sorted(seen) == sorted(task_ids)


async def test_a_feed_that_cancels_itself_hangs_nobody(comet_api: SimulatedCometAPI) -> None:
    """A `CancelledError` out of the input ends the stream with an error that says so."""

    async def feed() -> AsyncIterator[str]:
        yield comet_api.create_task(duration=0)
        raise asyncio.CancelledError

    async with open_session(comet_api) as session, session.poll(feed()) as outcomes:
        assert (await anext(outcomes)).ok
        with pytest.raises(RuntimeError, match="cancelled"):
            await anext(outcomes)


async def test_a_long_input_leaves_the_loop_to_others(comet_api: SimulatedCometAPI) -> None:
    """Other tasks run while a long iterable or a feed that never waits is read."""
    many = [f"{number}" for number in range(20_000)]

    async def feed() -> AsyncIterator[str]:
        for task_id in many:
            yield task_id

    for source in (iter(many), feed()):  # of a list all is known at once
        async with open_session(comet_api) as session, session.poll(source) as outcomes:
            passes = 0
            while outcomes.progress.total < len(many):
                passes += 1
                await asyncio.sleep(0)
            assert passes > 3


async def test_a_record_survives_a_timeout_in_the_pass_of_its_delivery(
    comet_api: SimulatedCometAPI,
) -> None:
    """A consumer's `asyncio.timeout` that fires as a record is delivered loses nothing."""
    task_ids = await ids_of(comet_api, 20, duration=0)
    seen: list[str] = []
    async with open_session(comet_api, max_rate=1) as session, session.poll(task_ids) as outcomes:
        while len(seen) < len(task_ids):
            with suppress(TimeoutError):
                async with asyncio.timeout_at(int(now()) + 1):
                    seen.append((await anext(outcomes)).task_id)
    assert sorted(seen) == sorted(task_ids)


async def test_a_session_closed_under_a_stream_tells_it(comet_api: SimulatedCometAPI) -> None:
    """`aclose` wakes every consumer with `SessionClosedError`, and each further step too."""
    endless = await ids_of(comet_api, 3, duration=10_000)
    session = new_session(comet_api)
    stream = session.poll([*endless, comet_api.create_task(duration=0)])
    await anext(stream)
    waiting = [asyncio.ensure_future(anext(stream)) for _ in range(2)]
    wait = asyncio.ensure_future(session.wait(endless[0]))
    query = asyncio.ensure_future(session.query(endless[1]))
    watch = session.watch(endless[2])
    await anext(watch)
    comet_api.fail_next(endless[1], hang=True)
    await now_waiting(10)
    await session.aclose()
    for call in (*waiting, wait, query):
        with pytest.raises(SessionClosedError):
            await call
    for iterator in (stream, watch):
        for _ in range(2):
            with pytest.raises(SessionClosedError):
                await anext(iterator)
    assert len(stream.pending) == 3


async def test_a_consumer_of_many_ready_outcomes_gives_way(comet_api: SimulatedCometAPI) -> None:
    """Who takes many outcomes that are ready lets other tasks run now and then."""
    bad = [f"{number} {number}" for number in range(1000)]
    passes = 0

    async def count() -> None:
        nonlocal passes
        while True:
            passes += 1
            await asyncio.sleep(0)

    async with open_session(comet_api) as session, session.poll(bad) as outcomes:
        while outcomes.progress.total < len(bad):  # noqa: ASYNC110 - a pass is the unit here
            await asyncio.sleep(0)
        counter = asyncio.ensure_future(count())
        seen = [outcome async for outcome in outcomes]
        counter.cancel()
    assert len(seen) == 1000
    assert 10 <= passes <= 50


async def test_leaving_a_long_stream_leaves_the_loop_to_others(
    comet_api: SimulatedCometAPI,
) -> None:
    """The ids of a stream that is left are let go in slices, and all of them are."""
    async with open_session(comet_api, max_rate=0.1) as session:
        async with session.poll(f"{number}" for number in range(30_000)) as outcomes:
            while outcomes.progress.total < 30_000:  # noqa: ASYNC110 - a pass is the unit here
                await asyncio.sleep(0)
        passes = 0
        while "watched=0" not in repr(session):
            passes += 1
            await asyncio.sleep(0)
        assert passes > 3
    assert len(comet_api.queries) <= 1


async def test_a_consumer_learns_why_a_shared_stream_ended(comet_api: SimulatedCometAPI) -> None:
    """A stream that ended with an error raises it for a second consumer after the first left."""
    comet_api.fail_next(status=401)
    async with open_session(comet_api) as session:
        stream = session.poll([comet_api.create_task()])
        with pytest.raises(AuthenticationError):
            async with stream:
                await anext(stream)
        with pytest.raises(AuthenticationError):
            await anext(stream)
