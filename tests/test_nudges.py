"""Callbacks: a task that may have changed is asked for sooner, but never too often."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
from aiohttp import web

from kling_omni_async import (
    CallbackHint,
    ConfigurationError,
    ImageOrder,
    InvalidTaskIdError,
    KlingOmniSession,
    PollTimeoutError,
    ResponseError,
    TaskStatus,
    read_callback,
)
from kling_omni_async.simulator import SimulatedCometAPI

from .support import all_of, now, now_waiting, open_session

pytestmark = pytest.mark.anyio


def starts(api: SimulatedCometAPI, task_id: str) -> list[float]:
    """Return when an id was asked for, in s of the virtual clock."""
    return [query.started for query in api.queries if query.task_id == task_id]


async def later(seconds: float) -> None:
    """Let virtual time pass."""
    await asyncio.sleep(seconds)


async def test_a_nudge_late_in_the_pause_asks_at_once(comet_api: SimulatedCometAPI) -> None:
    """The shortest pause is over, so the answer is there as soon as the callback."""
    task_id = comet_api.create_task(duration=11)
    # Of pauses up to a million s none that is drawn ends within 12.
    async with open_session(comet_api, interval=(10, 1e6), timeout=None) as session:
        waiting = asyncio.create_task(session.wait(task_id))
        await later(12.0)
        assert session.nudge(task_id)
        await waiting
    assert starts(comet_api, task_id) == [0.0, 12.0]


async def test_a_nudge_early_in_the_pause_asks_at_its_shortest_end(
    comet_api: SimulatedCometAPI,
) -> None:
    """No nudge makes a pause shorter than the policy says."""
    task_id = comet_api.create_task(duration=5)
    async with open_session(comet_api, interval=(20, 30)) as session:
        waiting = asyncio.create_task(session.wait(task_id))
        await later(6.0)
        assert all(session.nudge(task_id) for _ in range(100))
        await waiting
    assert starts(comet_api, task_id) == [0.0, 20.0]


async def test_a_nudge_while_a_query_is_under_way_asks_after_the_shortest_pause(
    comet_api: SimulatedCometAPI,
) -> None:
    """The answer that is on its way may be from before."""
    task_id = comet_api.create_task(duration=3)
    comet_api.fail_next(task_id, status=502, delay=4.0)
    async with open_session(comet_api, interval=(20, 30)) as session:
        waiting = asyncio.create_task(session.wait(task_id))
        await later(3.0)
        assert session.nudge(task_id)
        await waiting
    assert starts(comet_api, task_id) == [0.0, 24.0]


async def test_strangers_are_not_asked_for(comet_api: SimulatedCometAPI) -> None:
    """Of an id that nobody waits for, and of a status that is not final, nothing is kept."""
    task_id = comet_api.create_task(duration=50)
    async with open_session(comet_api) as session:
        assert not session.nudge("404404")
        waiting = asyncio.create_task(session.wait(task_id))
        await now_waiting(20)
        assert not session.nudge(CallbackHint(task_id, TaskStatus.PROCESSING))
        assert session.nudge(CallbackHint(task_id, TaskStatus.SUCCEED))
        with pytest.raises(InvalidTaskIdError):
            session.nudge("")
        waiting.cancel()
        await asyncio.wait([waiting])
    assert len(comet_api.queries) == 1


async def test_a_storm_of_forged_callbacks_sends_no_query_too_many(
    comet_api: SimulatedCometAPI,
) -> None:
    """100,000 hints, of strangers and of watched ids: pauses stay, and nothing is remembered."""
    task_ids = [comet_api.create_task(duration=100) for _ in range(10)]
    async with open_session(comet_api, interval=(20, 30), timeout=90) as session:
        polling = asyncio.create_task(all_of(session, task_ids))
        for turn in range(1000):
            await later(0.08)
            for _ in range(90):
                assert not session.nudge(f"stranger-{turn}")
            for task_id in task_ids:
                session.nudge(CallbackHint(task_id, TaskStatus.FAILED))
        await polling
        assert session.stats().watched == 0
    assert min(comet_api.gaps()) >= 20 - 1e-9


async def test_with_a_callback_expected_one_query_is_enough(comet_api: SimulatedCometAPI) -> None:
    """The first query waits for the callback, and finds the task finished."""
    task_id = comet_api.create_task(duration=31)
    async with open_session(comet_api) as session:
        waiting = asyncio.create_task(session.wait(task_id, expect_callback=60))
        await later(31.0)
        assert session.nudge(task_id)
        await waiting
        assert now() == pytest.approx(31.0)
    assert starts(comet_api, task_id) == [31.0]


async def test_a_stream_expects_callbacks_too(comet_api: SimulatedCometAPI) -> None:
    """Of a list and of a feed, each id waits for its own."""
    task_ids = [comet_api.create_task(duration=31) for _ in range(3)]
    async with open_session(comet_api) as session:
        polling = asyncio.create_task(all_of(session, task_ids, expect_callback=60))
        await later(31.0)
        for task_id in task_ids:
            assert session.nudge(task_id)
        outcomes = await polling
        assert now() < 32
    assert [outcome.queries for outcome in outcomes] == [1, 1, 1]


async def test_where_no_callback_comes_ids_are_asked_for_all_the_same(
    comet_api: SimulatedCometAPI, caplog: pytest.LogCaptureFixture
) -> None:
    """After three in a row that were missed, polling is as ever; that is said once."""
    async with open_session(comet_api) as session:
        for turn in range(5):
            began = now()
            await session.wait(comet_api.create_task(duration=1), expect_callback=60)
            waited = now() - began
            assert waited == pytest.approx(60.0) if turn < 3 else waited <= 30
    (line,) = [record for record in caplog.records if "callbacks in a row" in record.getMessage()]
    assert line.levelno == logging.WARNING


async def test_the_first_query_comes_at_the_deadline_at_the_latest(
    comet_api: SimulatedCometAPI,
) -> None:
    """A wait that is shorter than the callback's time still asks once."""
    async with open_session(comet_api) as session:
        done = comet_api.create_task(duration=1)
        await session.wait(done, timeout=5, expect_callback=60)
        assert now() == pytest.approx(5.0)
        with pytest.raises(PollTimeoutError):
            await session.wait(comet_api.create_task(duration=99), timeout=5, expect_callback=60)
    assert len(comet_api.queries) == 2


async def test_who_leaves_expects_nothing_any_more(comet_api: SimulatedCometAPI) -> None:
    """A wait that was cancelled leaves nothing behind, and its id is a stranger again."""
    task_id = comet_api.create_task(duration=1)
    async with open_session(comet_api) as session:
        waiting = asyncio.create_task(session.wait(task_id, expect_callback=60))
        await now_waiting(20)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert not session.nudge(task_id)
    assert not comet_api.queries


async def test_who_expects_a_callback_makes_nobody_else_wait_for_it(
    comet_api: SimulatedCometAPI,
) -> None:
    """Of several who wait for an id, the least patient one says when it is asked for first."""
    async with open_session(comet_api) as session:
        task_id = comet_api.create_task(duration=1)
        first = asyncio.create_task(session.wait(task_id, timeout=5, expect_callback=60))
        await now_waiting(20)
        second = asyncio.create_task(session.wait(task_id, expect_callback=600))
        polling = asyncio.create_task(all_of(session, [task_id], expect_callback=900))
        await first
        assert now() == pytest.approx(5.0)
        await asyncio.gather(second, polling)
        assert now() == pytest.approx(5.0)


async def test_who_expects_a_callback_leaves_a_list_its_place(
    comet_api: SimulatedCometAPI,
) -> None:
    """The first query of an id of a list, which is laid out at the pace, comes when it would."""
    task_ids = [comet_api.create_task(duration=1) for _ in range(5)]
    async with open_session(comet_api, max_rate=0.1) as session:
        polling = asyncio.create_task(all_of(session, task_ids))
        await now_waiting(20)
        await session.wait(task_ids[-1], expect_callback=3000)
        assert now() < 100
        await polling


@pytest.mark.parametrize("seconds", [-1, float("nan"), "soon"])
async def test_a_bad_time_is_told_with_its_name(
    comet_api: SimulatedCometAPI, seconds: object
) -> None:
    """The error names the argument."""
    async with open_session(comet_api) as session:
        with pytest.raises(ConfigurationError, match="expect_callback must be"):
            await session.wait("1", expect_callback=seconds)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="expect_callback must be"):
            session.poll(["1"], expect_callback=seconds)  # type: ignore[call-overload]


# What is known without a query.


async def test_peek_gives_the_last_answer_and_asks_nothing(comet_api: SimulatedCometAPI) -> None:
    """None before there is one, then the task as it was last seen."""
    task_id = comet_api.create_task(duration=50)
    async with open_session(comet_api) as session:
        assert session.peek(task_id) is None
        waiting = asyncio.create_task(session.wait(task_id))
        await later(1.0)
        seen = session.peek(task_id)
        assert seen is not None
        assert seen.status is TaskStatus.SUBMITTED or seen.status is TaskStatus.PROCESSING
        assert len(comet_api.queries) == 1
        task = await waiting
        assert session.peek(task_id) == task
        assert session.peek("404404") is None
        with pytest.raises(InvalidTaskIdError):
            session.peek("")


async def test_an_eta_is_the_median_of_what_is_left(comet_api: SimulatedCometAPI) -> None:
    """It is unknown before an answer, and then grows shorter."""
    task_id = comet_api.create_task(duration=60)
    async with open_session(comet_api) as session, session.watch(task_id) as updates:
        assert updates.eta is None
        await anext(updates)
        first = updates.eta
        assert first is not None
        assert 25 < first < 45
        await later(10.0)
        second = updates.eta
        assert second is not None
        assert second == pytest.approx(first - 10.0, abs=1.0)


async def test_a_stream_has_an_eta_too(comet_api: SimulatedCometAPI) -> None:
    """That of its youngest task; unknown before an answer and when there is nothing left."""
    task_ids = [comet_api.create_task(duration=40) for _ in range(3)]
    async with open_session(comet_api) as session, session.poll(task_ids) as outcomes:
        assert outcomes.eta is None
        reading = asyncio.create_task(anext(outcomes))
        await later(1.0)
        eta = outcomes.eta
        assert eta is not None
        assert 25 < eta < 45
        await reading
        async for _ in outcomes:
            pass
        assert outcomes.eta is None
        assert session.poll(["1"]).eta is None


async def test_uniform_timing_has_no_eta(comet_api: SimulatedCometAPI) -> None:
    """Nothing is learned, so nothing is known."""
    task_id = comet_api.create_task(duration=60)
    async with (
        open_session(comet_api, timing="uniform") as session,
        session.watch(task_id) as updates,
    ):
        await anext(updates)
        assert updates.eta is None


# What a session is doing.


async def test_stats_of_a_session(comet_api: SimulatedCometAPI) -> None:
    """Counts of ids, queries and faults, and the oldest wait, at every moment."""
    good = comet_api.create_task(duration=50)
    bad = comet_api.create_task(duration=50, fail="no")
    comet_api.fail_next(good, status=502)
    async with open_session(comet_api, confirmations=1) as session:
        stats = session.stats()
        assert (stats.watched, stats.queries, stats.oldest, stats.next_query) == (0, 0, None, None)
        polling = asyncio.create_task(all_of(session, [good, bad, "404404"]))
        await later(10.0)
        stats = session.stats()
        assert (stats.watched, stats.queries, stats.in_flight) == (2, 3, 0)
        assert stats.oldest == pytest.approx(10.0)
        assert stats.next_query is not None
        assert 9 < stats.next_query < 21
        assert stats.faults == {"ServerError (HTTP 502)": 1}
        assert (stats.stretch, stats.throttled, stats.saving, stats.creating) == (1.0, 0.0, 0, 0)
        await polling
        stats = session.stats()
        assert (stats.watched, stats.oldest) == (0, None)
        assert (stats.succeeded, stats.failed, stats.unresolved) == (1, 1, 1)


async def test_stats_count_what_is_saved_and_created(
    comet_api: SimulatedCometAPI, tmp_path: Path
) -> None:
    """Tasks whose images are on their way, and those whose create is."""
    task_id = comet_api.create_task(duration=1)
    comet_api.fail_next_image(delay=40.0)
    comet_api.fail_next_create(delay=40.0)
    async with open_session(comet_api) as session:
        polling = asyncio.create_task(all_of(session, [task_id], save_to=tmp_path))
        creating = asyncio.create_task(session.create(ImageOrder("a fox")))
        await later(35.0)
        stats = session.stats()
        assert (stats.saving, stats.creating) == (1, 1)
        (outcome,) = await polling
        assert outcome.ok
        await creating
        stats = session.stats()
        assert (stats.saving, stats.creating) == (0, 0)


async def test_stats_tell_a_pause_of_the_api(comet_api: SimulatedCometAPI) -> None:
    """After a 429 they say how long it still lasts."""
    task_id = comet_api.create_task(duration=1)
    comet_api.fail_next(task_id, status=429, retry_after=60)
    async with open_session(comet_api) as session:
        waiting = asyncio.create_task(session.wait(task_id))
        await later(10.0)
        assert session.stats().throttled == pytest.approx(50.0, abs=1)
        await waiting
        assert session.stats().throttled == 0.0


async def test_the_oldest_wait_is_known_although_many_came_and_went(
    comet_api: SimulatedCometAPI,
) -> None:
    """A thousand short waits do not hide the first, and are not kept."""
    task_id = comet_api.create_task(duration=10_000)
    async with open_session(comet_api, timeout=None) as session:
        first = asyncio.create_task(session.wait(task_id))
        await later(1.0)
        for _ in range(1000):
            other = asyncio.create_task(session.wait(task_id))
            await now_waiting(2)
            other.cancel()
            await asyncio.wait([other])
        assert session._wings.poller is not None
        assert len(session._wings.poller._watchlist._oldest) < 100
        await later(9.0)
        assert session.stats().oldest == pytest.approx(10.0)
        first.cancel()
        await asyncio.wait([first])
        assert session.stats().oldest is None


async def test_a_loop_that_stands_still_is_told_of_once_a_minute(
    comet_api: SimulatedCometAPI, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody who blocks the loop finds it in the log."""
    task_id = comet_api.create_task(duration=300)
    loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()

    async def blocked() -> int:
        return sum("stood still" in record.getMessage() for record in caplog.records)

    async with open_session(comet_api) as session:
        waiting = asyncio.create_task(session.wait(task_id))
        await later(1.0)
        assert await blocked() == 0
        for wanted, seconds in ((1, 35.0), (1, 35.0), (2, 100.0)):
            loop.freeze(seconds)  # type: ignore[attr-defined]
            await later(0.1)
            assert await blocked() == wanted
        waiting.cancel()
        await asyncio.wait([waiting])


async def test_a_closed_session_answers_none_of_these(comet_api: SimulatedCometAPI) -> None:
    """They raise as every verb does."""
    session = KlingOmniSession(comet_api.api_key, base_url=comet_api.base_url)
    await session.aclose()
    for verb in (session.stats, lambda: session.peek("1"), lambda: session.nudge("1")):
        with pytest.raises(RuntimeError, match="closed"):
            verb()


# Tasks that the session has created itself.


async def test_an_own_task_is_looked_at_when_it_is_likely_to_be_done(
    comet_api: SimulatedCometAPI,
) -> None:
    """Its age is known, so the first query need not come at once."""
    async with open_session(comet_api) as session:
        task = await session.create(ImageOrder("a fox"))
        await session.wait(task.task_id)
    (first, *_) = starts(comet_api, task.task_id)
    assert 20 < first < 45


async def test_an_own_task_is_known_before_it_was_asked_for(comet_api: SimulatedCometAPI) -> None:
    """`peek` gives what the create said, and an eta is there at once."""
    async with open_session(comet_api) as session:
        task = await session.create(ImageOrder("a fox"))
        assert session.peek(task.task_id) == task
        async with session.watch(task.task_id) as updates:
            assert await anext(updates) == task
            eta = updates.eta
            assert eta is not None
            assert 20 < eta < 45
        assert session.stats().queries == 0


async def test_a_nudge_before_anybody_waits_counts_when_they_do(
    comet_api: SimulatedCometAPI,
) -> None:
    """A callback may be quicker than the program that handles it."""
    async with open_session(comet_api) as session:
        task = await session.create(ImageOrder("a fox"))
        await later(60.0)
        assert session.nudge(task.task_id)
        await session.wait(task.task_id, expect_callback=60)
        assert now() == pytest.approx(60.0)


async def test_a_nudge_between_two_waits_counts_too(comet_api: SimulatedCometAPI) -> None:
    """Of a task of our own: who comes back within the pause waits for its shortest end alone."""
    async with open_session(comet_api, interval=(20, 1e6), timeout=None) as session:
        task = await session.create(ImageOrder("a fox"))
        with pytest.raises(PollTimeoutError):
            await session.wait(task.task_id, timeout=10)
        assert len(starts(comet_api, task.task_id)) == 1
        await later(2.0)
        assert session.nudge(task.task_id)
        waiting = asyncio.create_task(session.wait(task.task_id))
        await later(30.0)
        assert starts(comet_api, task.task_id)[1:] == [pytest.approx(20.0, abs=0.1)]
        waiting.cancel()


async def test_a_nudge_under_the_query_of_one_who_left_counts_too(
    comet_api: SimulatedCometAPI,
) -> None:
    """The answer on its way may be from before; who comes back asks after the shortest pause."""
    async with open_session(comet_api, interval=(20, 1e6), timeout=None) as session:
        task = await session.create(ImageOrder("a fox"))
        comet_api.fail_next(task.task_id, status=502, delay=4.0)
        waiting = asyncio.create_task(session.wait(task.task_id))
        await later(1.0)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert session.nudge(task.task_id)
        waiting = asyncio.create_task(session.wait(task.task_id))
        await later(30.0)
        assert starts(comet_api, task.task_id)[1:] == [pytest.approx(24.0, abs=0.1)]
        waiting.cancel()


async def test_watching_an_own_task_begins_with_what_its_create_said(
    comet_api: SimulatedCometAPI,
) -> None:
    """It is there at once, long before the first query, and is not said again."""
    async with open_session(comet_api) as session:
        task = await session.create(ImageOrder("a fox"))
        began = now()
        statuses: list[TaskStatus] = []
        async with session.watch(task.task_id) as updates:
            async for update in updates:
                if not statuses:
                    assert (update, now()) == (task, began)
                statuses.append(update.status)
    assert statuses[0] is TaskStatus.SUBMITTED
    assert statuses[-1] is TaskStatus.SUCCEED
    assert len(set(statuses)) == len(statuses)


@pytest.mark.parametrize(("status", "queries"), [("failed", 0), ("succeed", 1)])
async def test_watching_a_task_that_ended_with_its_create(
    comet_api: SimulatedCometAPI, status: str, queries: int
) -> None:
    """A failure is the end, without a query; a success without images is asked for."""
    task_id = comet_api.create_task(duration=0)
    ended = {"task_id": task_id, "task_status": status}
    comet_api.fail_next_create(body={"code": 0, "data": ended})
    async with open_session(comet_api) as session:
        task = await session.create(ImageOrder("a fox"))
        updates = [update async for update in session.watch(task.task_id)]
    assert [update.status for update in updates] == [TaskStatus(status)]
    assert len(starts(comet_api, task_id)) == queries


async def test_orders_have_an_eta(comet_api: SimulatedCometAPI) -> None:
    """That of the youngest task that was created."""
    orders = [ImageOrder("a fox") for _ in range(2)]
    async with open_session(comet_api) as session, session.generate_many(orders) as outcomes:
        assert outcomes.eta is None
        reading = asyncio.create_task(anext(outcomes))
        await later(2.0)
        eta = outcomes.eta
        assert eta is not None
        assert 20 < eta < 45
        await reading
        async for _ in outcomes:
            pass
        assert outcomes.eta is None


# Callbacks of a server that is as unreliable as the real one may be.


@asynccontextmanager
async def calling_back(
    api: SimulatedCometAPI, **policy: Any
) -> AsyncGenerator[tuple[KlingOmniSession, str]]:
    """Open a session with an endpoint beside it, as a web backend has; gives its URL too."""
    async with open_session(api, **policy) as session:

        async def hear(request: web.Request) -> web.Response:
            session.nudge(read_callback(await request.read()))
            return web.Response(status=204)

        app = web.Application()
        app.router.add_post("/secret", hear)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield session, f"http://127.0.0.1:{runner.addresses[0][1]}/secret"
        finally:
            await runner.cleanup()


@pytest.mark.parametrize("callbacks", ["once", "repeated", "shuffled"])
@pytest.mark.parametrize("duration", [2.0, 31.0, 59.0])
async def test_with_callbacks_a_result_is_there_at_once_by_one_query(
    callbacks: Any, duration: float
) -> None:
    """Each change, each twice, or all at the end in reverse: 0 s of delay, one query a task."""
    async with SimulatedCometAPI(callbacks=callbacks) as api:
        async with calling_back(api, max_rate=None) as (session, url):
            ids = [api.create_task(duration=duration, callback_url=url) for _ in range(20)]
            await asyncio.gather(*(session.wait(each, expect_callback=60) for each in ids))
            assert now() == pytest.approx(duration, abs=1e-6)
        assert [len(starts(api, each)) for each in ids] == [1] * 20


async def test_of_orders_too() -> None:
    """`generate` waits for the callback of what it has created, by one query."""
    async with SimulatedCometAPI(callbacks="shuffled") as api, calling_back(api) as (session, url):
        outcome = await session.generate(ImageOrder("a fox", callback_url=url))
    assert outcome.queries == 1
    assert outcome.task is not None
    assert outcome.task.created_at is not None
    assert outcome.task.updated_at is not None
    took = (outcome.task.updated_at - outcome.task.created_at).total_seconds()
    assert outcome.elapsed == pytest.approx(took, abs=0.01)


async def test_where_callbacks_stop_polling_goes_on_as_ever() -> None:
    """The first three tasks wait for 60 s, all others are looked at within their pauses."""
    delays: list[float] = []
    async with SimulatedCometAPI(callbacks="none") as api, calling_back(api) as (session, url):
        for _ in range(6):
            began = now()
            outcome = await session.generate(ImageOrder("a fox", callback_url=url))
            delays.append(starts(api, outcome.task_id)[0] - began)
    assert delays[:3] == pytest.approx([60.0] * 3, abs=0.01)
    assert max(delays[3:]) < 45


async def test_a_storm_of_bodies_is_believed_in_nothing(comet_api: SimulatedCometAPI) -> None:
    """100,000 bodies, with nonsense, forged results and URLs: no query too many, nothing kept."""
    rng = Random(5)
    watched = [comet_api.create_task(duration=100) for _ in range(5)]
    kinds: list[Callable[[int], bytes]] = [
        lambda turn: rng.randbytes(60),
        lambda turn: b'{"task_id": ' + b"[" * 500,
        lambda turn: json.dumps({"task_id": f"stranger-{turn}", "task_status": "succeed"}).encode(),
        lambda turn: json.dumps(forged(rng.choice(watched), "succeed")).encode(),
        lambda turn: json.dumps(forged(rng.choice(watched), "processing")).encode(),
        lambda turn: b"x" * 70_000 if turn % 1000 == 0 else b"",
    ]
    refused = 0
    async with open_session(comet_api, interval=(20, 30)) as session:
        polling = asyncio.create_task(all_of(session, watched))
        for turn in range(100_000):
            if turn % 1000 == 0:
                await later(0.5)
            try:
                session.nudge(read_callback(rng.choice(kinds)(turn)))
            except ResponseError:
                refused += 1
        assert session.stats().watched == 5
        poller = session._wings.poller
        assert poller is not None
        assert len(poller._watchlist._entries) == 5
        assert poller._watchlist.planner.own.number == 0
        outcomes = await polling
    assert refused > 40_000
    assert all(outcome.ok for outcome in outcomes)
    assert not any("evil" in image.url for outcome in outcomes for image in outcome.images)
    assert min(comet_api.gaps()) >= 20 - 1e-9


def forged(task_id: str, status: str) -> dict[str, Any]:
    """Make the body of a callback that a stranger sends."""
    images = [{"index": 0, "url": "https://evil.example/1.png"}]
    return {"task_id": task_id, "task_status": status, "task_result": {"images": images}}
