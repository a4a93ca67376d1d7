"""The simulator fails on demand."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

import aiohttp
import pytest

from kling_omni_async.simulator import SimulatedCometAPI

from .client import ask, client, fetch, url_of

pytestmark = pytest.mark.anyio


async def statuses(api: SimulatedCometAPI, task_id: str, count: int) -> list[int]:
    """Ask one after the other, and return the HTTP statuses."""
    async with client(api) as session:
        return [(await fetch(session, url_of(api, task_id)))[0] for _ in range(count)]


async def test_spoils_the_next_query_only() -> None:
    """A fault happens once unless more is said."""
    async with SimulatedCometAPI() as api:
        task_id = api.create_task()
        api.fail_next(task_id, status=502)
        assert await statuses(api, task_id, 3) == [502, 200, 200]


async def test_faults_queue_up() -> None:
    """Faults happen in the order they were planned, each as often as it was told."""
    async with SimulatedCometAPI() as api:
        task_id = api.create_task()
        api.fail_next(task_id, status=502, times=2)
        api.fail_next(task_id, status=500)
        assert await statuses(api, task_id, 4) == [502, 502, 500, 200]


async def test_own_faults_come_before_those_of_any_id() -> None:
    """A fault without an id hits whichever query comes next, after the faults of that id."""
    async with SimulatedCometAPI() as api:
        first, second = api.create_task(), api.create_task()
        api.fail_next(status=500, times=2)
        api.fail_next(first, status=502)
        assert await statuses(api, first, 2) == [502, 500]
        assert await statuses(api, second, 2) == [500, 200]


async def test_standing_faults_last_until_cleared() -> None:
    """With ``times=None`` a fault lasts; counted ones still come through."""
    async with SimulatedCometAPI() as api:
        task_id = api.create_task()
        api.fail_next(status=503, times=None)
        api.fail_next(status=500)
        assert await statuses(api, task_id, 4) == [500, 503, 503, 503]
        api.clear_faults()
        assert await statuses(api, task_id, 2) == [200, 200]


async def test_faults_of_one_id_can_be_cleared() -> None:
    """Clearing one id leaves the faults of others alone; clearing what is not there is fine."""
    async with SimulatedCometAPI() as api:
        first, second = api.create_task(), api.create_task()
        api.fail_next(first, status=500, times=None)
        api.fail_next(second, status=500)
        api.clear_faults(first)
        api.clear_faults("nobody")
        assert await statuses(api, first, 1) == [200]
        assert await statuses(api, second, 1) == [500]


@pytest.mark.parametrize(
    ("fault", "status", "body", "kind"),
    [
        (
            {"status": 502},
            502,
            b"<html><body><center><h1>502</h1></center></body></html>",
            "text/html",
        ),
        ({"status": 429}, 429, b"", ""),
        ({"status": 301}, 301, b"", ""),
        ({"status": 204}, 204, b"", ""),
        ({"status": 999, "body": "?"}, 999, b"?", "text/plain"),
        ({"body": b"\xff\xfe"}, 200, b"\xff\xfe", "text/plain"),
        ({"body": " [1]"}, 200, b" [1]", "application/json"),
        ({"body": {"code": 1303}, "status": 429}, 429, b'{"code": 1303}', "application/json"),
        ({"body": ""}, 200, b"", ""),
        ({"body": "", "headers": {"content-type": "a/b"}}, 200, b"", "a/b"),
        ({"body": "<p>", "headers": {"content-type": "a/b"}}, 200, b"<p>", "a/b"),
    ],
)
async def test_any_status_body_and_headers(
    fault: dict[str, Any], status: int, body: bytes, kind: str
) -> None:
    """Status, body and headers are sent as they are given, or as they usually come together."""
    async with SimulatedCometAPI() as api, client(api) as session:
        api.fail_next(**fault)
        assert await fetch(session, url_of(api, "x")) == (status, body, kind)


@pytest.mark.parametrize("status", [400, 404, 500, 520])
async def test_other_errors_have_the_body_of_the_gateway(status: int) -> None:
    """Where no body is given, errors of the gateway come as its own JSON."""
    async with SimulatedCometAPI() as api:
        api.fail_next(status=status)
        answered, body = await ask(api, api.create_task())
        assert answered == status
        assert body["error"]["type"] == "comet_api_error"


async def test_success_keeps_the_true_body() -> None:
    """A 201 without a body of its own carries the task."""
    async with SimulatedCometAPI() as api:
        api.fail_next(status=201)
        status, body = await ask(api, api.create_task())
        assert (status, body["data"]["task_status"]) == (201, "submitted")


@pytest.mark.parametrize(
    ("fault", "status", "header"),
    [
        ({"retry_after": 7}, 429, "7"),
        ({"retry_after": math.nan}, 429, "nan"),
        ({"retry_after": "Fri, 26 Jun 2026 05:04:05 GMT", "status": 503}, 503, "Fri, 26"),
    ],
)
async def test_retry_after(fault: dict[str, Any], status: int, header: str) -> None:
    """``retry_after`` sets the header, sensible or not, and a 429 unless told otherwise."""
    async with SimulatedCometAPI() as api, client(api) as session:
        api.fail_next(**fault)
        async with session.get(url_of(api, "x")) as response:
            assert response.status == status
            assert response.headers["Retry-After"].startswith(header)


@pytest.mark.parametrize(("more", "status"), [({}, 400), ({"status": 404}, 404)])
async def test_not_found_for_a_moment(more: dict[str, Any], status: int) -> None:
    """A task that exists can be denied for a moment, under any status."""
    async with SimulatedCometAPI() as api:
        task_id = api.create_task()
        api.fail_next(task_id, not_found=True, **more)
        answered, body = await ask(api, task_id)
        assert (answered, body["code"]) == (status, "task_not_exist")
        assert (await ask(api, task_id))[0] == 200


async def test_malformed_json() -> None:
    """A malformed answer is a whole HTTP answer whose JSON stops in the middle."""
    async with SimulatedCometAPI() as api, client(api) as session:
        api.fail_next(malformed=True)
        status, body, kind = await fetch(session, url_of(api, api.create_task()))
        assert (status, kind) == (200, "application/json")
        with pytest.raises(json.JSONDecodeError):
            json.loads(body)


@pytest.mark.parametrize("sent", [0, 20])
async def test_cut_off_body(sent: int) -> None:
    """A cut-off answer announces more than it sends, then the connection ends."""
    async with SimulatedCometAPI() as api, client(api) as session:
        api.fail_next(cut_after=sent)
        async with session.get(url_of(api, api.create_task())) as response:
            assert response.status == 200
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()
        assert api.queries[0].status == 200


async def test_slow_body_comes_whole() -> None:
    """A slow body takes its length over the rate, by the loop's clock."""
    async with SimulatedCometAPI() as api, client(api) as session:
        api.fail_next(body="x" * 100, bytes_per_second=5)
        loop = asyncio.get_running_loop()
        started = loop.time()
        _, body, _ = await fetch(session, url_of(api, "x"))
        assert body == b"x" * 100
        assert loop.time() - started == pytest.approx(20.0)


async def test_slow_body_can_be_cut_too() -> None:
    """Slowness and cutting go together."""
    async with SimulatedCometAPI() as api, client(api) as session:
        api.fail_next(body="x" * 100, bytes_per_second=20, cut_after=10)
        with pytest.raises(aiohttp.ClientPayloadError):
            await fetch(session, url_of(api, "x"))


async def test_delay_comes_first() -> None:
    """A delayed answer is the true one of that later moment."""
    async with SimulatedCometAPI() as api:
        task_id = api.create_task(duration=10.0)
        api.fail_next(delay=12.0)
        _, body = await ask(api, task_id)
        assert body["data"]["task_status"] == "succeed"
        (query,) = api.queries
        assert query.finished == query.started + 12.0


async def test_hang_never_answers() -> None:
    """A query that hangs ends when its client gives up, and is logged without a status."""
    async with SimulatedCometAPI() as api:
        task_id = api.create_task()
        api.fail_next(task_id, hang=True)
        async with client(api) as session:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(100.0):
                    await fetch(session, url_of(api, task_id))
        assert (await ask(api, task_id))[0] == 200
        (hung, good) = api.queries
        assert (hung.status, good.status) == (None, 200)
        assert hung.finished == hung.started + 100.0


async def test_reset_on_a_fresh_connection() -> None:
    """A reset reaches the client as a reset; the second one, as aiohttp asks once more."""
    async with SimulatedCometAPI() as api, client(api) as session:
        api.fail_next(reset=True, times=2)
        with pytest.raises(aiohttp.ClientOSError, match="reset by peer"):
            await fetch(session, url_of(api, "x"))
        assert [(query.connection, query.status) for query in api.queries] == [(1, None), (2, None)]


async def test_reset_only_on_a_reused_connection() -> None:
    """With ``on="reused"`` fresh connections are left alone; aiohttp then asks once more."""
    async with SimulatedCometAPI() as api, client(api) as session:
        url = url_of(api, api.create_task())
        api.fail_next(reset=True, on="reused")
        assert [(await fetch(session, url))[0] for _ in range(2)] == [200, 200]
        assert [(query.connection, query.status) for query in api.queries] == [
            (1, 200),
            (1, None),
            (2, 200),
        ]


async def test_fault_only_on_a_fresh_connection() -> None:
    """With ``on="fresh"`` reused connections are left alone."""
    async with SimulatedCometAPI() as api, client(api) as session:
        url = url_of(api, "x")
        await fetch(session, url)
        api.fail_next(status=502, on="fresh")
        assert (await fetch(session, url))[0] == 400
        async with client(api) as other:
            assert (await fetch(other, url))[0] == 502


async def test_raw_bytes() -> None:
    """Any bytes at all can be the answer."""
    async with SimulatedCometAPI() as api, client(api) as session:
        api.fail_next(raw=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
        with pytest.raises(aiohttp.ClientError):
            await fetch(session, url_of(api, "x"))
        api.fail_next(raw=b"HTTP/1.0 200 Fine\r\n\r\nhello")
        assert (await fetch(session, url_of(api, "x")))[:2] == (200, b"hello")


async def test_faults_come_before_the_key() -> None:
    """The network fails for wrong keys too; other requests meet no fault."""
    async with SimulatedCometAPI() as api, client(api) as session:
        api.fail_next(status=502)
        assert (await fetch(session, f"{api.base_url}/"))[0] == 200
        session.headers.clear()
        assert (await fetch(session, url_of(api, "x")))[0] == 502
        assert (await fetch(session, url_of(api, "x")))[0] == 401


@pytest.mark.parametrize(
    ("arguments", "error", "named"),
    [
        ({}, ValueError, "say what goes wrong"),
        ({"on": "fresh"}, ValueError, "say what goes wrong"),
        ({"status": 502, "times": 0}, ValueError, "times"),
        ({"status": 502, "times": 1.5}, TypeError, "times"),
        ({"status": 199}, ValueError, "status"),
        ({"status": 1000}, ValueError, "status"),
        ({"status": "502"}, TypeError, "status"),
        ({"body": 7}, TypeError, "body"),
        ({"headers": "x"}, TypeError, "headers"),
        ({"headers": {"X-Number": 1}}, TypeError, "headers"),
        ({"retry_after": b"7"}, TypeError, "retry_after"),
        ({"cut_after": -1}, ValueError, "cut_after"),
        ({"bytes_per_second": 0}, ValueError, "bytes_per_second"),
        ({"delay": -1}, ValueError, "delay"),
        ({"raw": "text"}, TypeError, "raw"),
        ({"status": 502, "on": "old"}, ValueError, "on"),
        ({"hang": True, "reset": True}, ValueError, "hang, reset"),
        ({"reset": True, "status": 502}, ValueError, "reset, status"),
        ({"not_found": True, "body": ""}, ValueError, "together: body, not_found"),
    ],
)
async def test_bad_faults_are_named(
    arguments: dict[str, Any], error: type[Exception], named: str
) -> None:
    """A fault that makes no sense is refused by the name of its argument."""
    api = SimulatedCometAPI()
    with pytest.raises(error, match=named):
        api.fail_next(**arguments)
