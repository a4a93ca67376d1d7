"""The simulator remembers what it was asked, queries and images apart."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from attrs.exceptions import FrozenInstanceError
from yarl import URL

from kling_omni_async.simulator import ImageRequest, Query, SimulatedCometAPI
from kling_omni_async.simulator._log import RequestLog

from .client import (
    COLLECTION,
    IMAGE,
    QUERY,
    Kind,
    ask,
    client,
    each_kind,
    fetch,
    image_of,
    image_urls,
    statuses,
    url_of,
)

pytestmark = pytest.mark.anyio


async def test_remembers_what_was_queried_and_when() -> None:
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
        assert api.image_requests == ()


async def test_remembers_what_was_downloaded_and_when() -> None:
    """A record tells image, path, connection, times, status and bytes; it is no query."""
    async with SimulatedCometAPI() as api, client(api) as session:
        task_id = api.create_task(duration=0, task_id="a/b", images=2, watermarked=True)
        await asyncio.sleep(3.0)
        started = asyncio.get_running_loop().time()
        url = URL(f"{api.base_url}/assets/watermarked/a%2Fb-1.png?q=%7e+%3d", encoded=True)
        api.fail_next_image(delay=0.5)
        _, body, _ = await fetch(session, url)
        (request,) = api.image_requests
        assert request == ImageRequest(
            task_id=task_id,
            index=1,
            watermarked=True,
            path="/assets/watermarked/a%2Fb-1.png?q=%7e+%3d",
            headers=request.headers,
            connection=1,
            started=started,
            finished=started + 0.5,
            status=200,
            body_bytes=len(body),
        )
        assert api.queries == ()


@each_kind
async def test_finds_the_requests_of_one_id(kind: Kind) -> None:
    """What one id was asked for is found among the others, in order of arrival."""
    async with SimulatedCometAPI() as api:
        for task_id in "aba":
            await statuses(api, kind, task_id)
        first, other, second = kind.seen(api)
        assert kind.seen_of(api, "a") == (first, second)
        assert kind.seen_of(api, "b") == (other,)
        assert kind.seen_of(api, "nobody") == ()


@each_kind
async def test_remembers_the_last_ones_only(kind: Kind) -> None:
    """Each log is bounded; a request that has left it while in flight is forgotten."""
    other = IMAGE if kind is QUERY else QUERY
    async with SimulatedCometAPI(log_size=2) as api, client(api) as session:
        await statuses(api, other, "z")
        kind.fail_next(api, "slow", delay=60.0)
        slow = asyncio.ensure_future(fetch(session, kind.url(api, "slow")))
        await kind.arrived(api, 1, "slow")
        for task_id in "abc":
            await statuses(api, kind, task_id)
        await slow
        assert [request.task_id for request in kind.seen(api)] == ["b", "c"]
        assert None not in [request.status for request in kind.seen(api)]
        assert [request.task_id for request in other.seen(api)] == ["z"]
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


@each_kind
async def test_counts_what_is_in_flight(kind: Kind) -> None:
    """The highest number of requests at the same time is kept, for each kind by itself."""
    other = IMAGE if kind is QUERY else QUERY
    async with SimulatedCometAPI() as api, client(api) as session:
        kind.fail_next(api, times=5, delay=1.0)
        crowd = asyncio.gather(*(fetch(session, kind.url(api, str(n))) for n in range(5)))
        await kind.arrived(api, 5)
        assert (api.in_flight, kind.peak(api)) == (5 if kind is QUERY else 0, 5)
        await statuses(api, other, "a")
        await crowd
        await statuses(api, kind, "a")
        assert (api.in_flight, kind.peak(api), other.peak(api)) == (0, 5, 1)


async def test_latency_is_of_queries() -> None:
    """``latency`` delays the answer of each query, and no image."""
    async with SimulatedCometAPI(latency=1.0) as api:
        await statuses(api, QUERY, "a")
        await statuses(api, IMAGE, "a")
        for record, took in ((api.queries[0], 1.0), (api.image_requests[0], 0.0)):
            assert record.finished == record.started + took


async def test_unread_big_images_are_in_flight() -> None:
    """An image beyond 64 KiB is in flight until its client has taken it."""
    async with SimulatedCometAPI() as api, client(api) as session:
        (url,) = await image_urls(api, api.create_task(duration=0, image_bytes=50_000_000))
        async with session.get(url):
            assert [request.finished for request in api.image_requests] == [None]
            async with session.get(url):
                assert api.image_downloads_peak == 2


@each_kind
async def test_counts_connections(kind: Kind) -> None:
    """A client that keeps its connection opens one; a new client opens another."""
    async with SimulatedCometAPI() as api:
        await statuses(api, kind, "a", 3)
        await statuses(api, kind, "a")
        assert api.connections_opened == 2
        assert [request.connection for request in kind.seen(api)] == [1, 1, 1, 2]


@each_kind
async def test_waits_for_arrivals(kind: Kind) -> None:
    """A test can wait until a request has arrived, answered or not, without sleeping."""
    async with SimulatedCometAPI() as api, client(api) as session:
        kind.fail_next(api, "a", hang=True)
        hung = asyncio.ensure_future(fetch(session, kind.url(api, "a")))
        await kind.arrived(api, task_id="a")
        (request,) = kind.seen(api)
        assert (request.finished, request.status) == (None, None)
        await statuses(api, kind, "b")
        await kind.arrived(api, 2)
        hung.cancel()
        await asyncio.wait([hung])


async def test_remembers_headers() -> None:
    """Headers are found by any spelling of their names, and nothing of a record can be changed."""
    async with SimulatedCometAPI() as api, client(api) as session:
        await fetch(session, image_of(api, "x"))
        (request,) = api.image_requests
        assert request.headers["AUTHORIZATION"] == f"Bearer {api.api_key}"
        assert request.headers["authorization"] == request.headers["Authorization"]
        changeable: Any = request
        with pytest.raises(TypeError):
            changeable.headers["Authorization"] = ""
        with pytest.raises(FrozenInstanceError):
            changeable.status = 200
        assert api.api_key not in repr(request)
        assert {request} == set(api.image_requests)


@pytest.mark.parametrize(
    "name",
    ["", "x", "x-.png", "-0.png", "x-a.png", "x-10000.png", "a/x-0.png", "hop-x/x-0.png"],
)
async def test_remembers_paths_of_no_image(name: str) -> None:
    """A path that names no image has neither task nor index, is 404 and meets no fault."""
    async with SimulatedCometAPI() as api, client(api) as session:
        api.fail_next_image(status=502)
        assert await fetch(session, f"{api.base_url}/assets/{name}") == (404, b"", "")
        (request,) = api.image_requests
        assert (request.task_id, request.index, request.watermarked) == (None, None, False)
        assert (request.path, request.status) == (f"/assets/{name}", 404)


def query_of(task_id: str) -> Query:
    """Make a record of a query."""
    return Query(
        task_id=task_id, method="GET", path="/", authorised=True, connection=1, started=0.0
    )


def test_log_is_sorted_once_between_changes() -> None:
    """Asking for every id of a long log sorts it by id once; what changes is seen all the same."""
    log = RequestLog[Query](size=1000)
    numbers = [log.begin(query_of(str(number % 10))) for number in range(100)]
    groups = log._grouped()
    assert [len(log.of(str(number))) for number in range(10)] == [10] * 10
    assert log._grouped() is groups
    log.end(numbers[3], finished=1.0, status=200)
    assert [query.status for query in log.of("3")] == [200] + [None] * 9
    log.begin(query_of("3"))
    assert len(log.of("3")) == 11


async def test_who_waits_no_more_is_left_alone() -> None:
    """A wait that was cancelled is told nothing, and the others are."""
    async with SimulatedCometAPI() as api:
        waits = [asyncio.create_task(api.wait_for_queries()) for _ in range(2)]
        await asyncio.sleep(0)
        waits[0].cancel()
        await ask(api, "1")
        await waits[1]
        assert waits[0].cancelled()
