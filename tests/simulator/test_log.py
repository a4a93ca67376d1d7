"""The simulator remembers what it was asked."""

from __future__ import annotations

import asyncio
import math

import pytest

from kling_omni_async.simulator import Query, SimulatedCometAPI
from kling_omni_async.simulator._log import RequestLog

from .client import COLLECTION, ask, client, fetch, url_of

pytestmark = pytest.mark.anyio


async def test_remembers_what_and_when() -> None:
    """A record tells id, path, method, connection, times, status and whether the key was right."""
    async with SimulatedCometAPI(latency=0.5) as api:
        await asyncio.sleep(3.0)
        before = asyncio.get_running_loop().time()
        await ask(api, "a/b")
        assert api.queries == (
            Query(
                task_id="a/b",
                method="GET",
                path=f"{COLLECTION}/a%2Fb",
                authorised=True,
                connection=1,
                started=before,
                finished=before + 0.5,
                status=400,
            ),
        )
        assert api.queries_of("a/b") == api.queries
        assert api.queries_of("nobody") == ()


async def test_remembers_the_last_ones_only() -> None:
    """The log is bounded; a query that has left it while in flight is forgotten."""
    async with SimulatedCometAPI(log_size=2) as api, client(api) as session:
        api.fail_next("slow", delay=60.0)
        slow = asyncio.ensure_future(fetch(session, url_of(api, "slow")))
        await api.wait_for_queries(1, "slow")
        for task_id in "abc":
            await ask(api, task_id)
        await slow
        assert [query.task_id for query in api.queries] == ["b", "c"]
        assert [query.status for query in api.queries] == [400, 400]
        assert api.in_flight == 0


async def test_gaps_run_from_end_to_start() -> None:
    """A gap is the pause between the end of a query and the start of the next of its id."""
    async with SimulatedCometAPI(latency=1.0) as api:
        for pause in (20.0, 30.0, 0.0):
            await ask(api, "a")
            await asyncio.sleep(pause / 2)
            await ask(api, "b")
            await asyncio.sleep(pause / 2)
        assert api.gaps("a") == pytest.approx([21.0, 31.0])
        assert api.gaps("b") == pytest.approx([26.0, 16.0])
        assert sorted(api.gaps()) == sorted(api.gaps("a") + api.gaps("b"))
        assert api.gaps("nobody") == []


async def test_overlapping_queries_have_a_gap_below_zero() -> None:
    """Two queries of one id at the same time are seen as such, even before they end."""
    async with SimulatedCometAPI(latency=1.0) as api, client(api) as session:
        both = asyncio.gather(*(fetch(session, url_of(api, "a")) for _ in range(2)))
        await api.wait_for_queries(2)
        assert api.gaps("a") == [-math.inf]
        await both
        assert api.gaps("a") == pytest.approx([-1.0])


async def test_counts_queries_in_flight() -> None:
    """With latency, queries overlap, and the highest number of them is kept."""
    async with SimulatedCometAPI(latency=1.0) as api, client(api) as session:
        crowd = asyncio.gather(*(fetch(session, url_of(api, str(n))) for n in range(5)))
        await api.wait_for_queries(5)
        assert (api.in_flight, api.in_flight_peak) == (5, 5)
        await crowd
        await ask(api, "a")
        assert (api.in_flight, api.in_flight_peak) == (0, 5)


async def test_counts_connections() -> None:
    """A client that keeps its connection opens one; a new client opens another."""
    async with SimulatedCometAPI() as api:
        async with client(api) as session:
            for _ in range(3):
                await fetch(session, url_of(api, "a"))
        await ask(api, "a")
        assert api.connections_opened == 2
        assert [query.connection for query in api.queries] == [1, 1, 1, 2]


async def test_waits_for_arrivals() -> None:
    """A test can wait until a query has arrived, answered or not, without sleeping."""
    async with SimulatedCometAPI() as api, client(api) as session:
        api.fail_next("a", hang=True)
        hung = asyncio.ensure_future(fetch(session, url_of(api, "a")))
        await api.wait_for_queries(task_id="a")
        assert (api.queries[0].finished, api.in_flight) == (None, 1)
        await ask(api, "b")
        await api.wait_for_queries(2)
        hung.cancel()
        await asyncio.wait([hung])


def test_grouping_is_kept_between_changes() -> None:
    """Asking for every id of a long log sorts it once."""
    log = RequestLog[Query](size=1000)
    for number in range(100):
        query = Query(
            task_id=str(number % 10),
            method="GET",
            path="/",
            authorised=True,
            connection=1,
            started=number,
        )
        log.end(log.begin(query), finished=number, status=200)
    groups = [log.of(str(n)) for n in range(10)]
    assert {len(group) for group in groups} == {10}
    assert log.of("3")[0] is log.all()[3]
