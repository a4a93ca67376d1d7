"""The simulator fails on demand: what holds for queries and for images alike, and for queries."""

from __future__ import annotations

import asyncio
import inspect
import json
import math
from typing import Any

import aiohttp
import pytest

from kling_omni_async.simulator import SimulatedCometAPI

from .client import IMAGE, QUERY, Kind, ask, client, each_kind, fetch, statuses, url_of

pytestmark = pytest.mark.anyio


@each_kind
async def test_faults_queue_up(kind: Kind) -> None:
    """Faults happen in the order they were planned, each as often as it was told, else once."""
    async with SimulatedCometAPI() as api:
        task_id = api.create_task(duration=0)
        kind.fail_next(api, task_id, status=502, times=2)
        kind.fail_next(api, task_id, status=500)
        assert await statuses(api, kind, task_id, 4) == [502, 502, 500, 200]


@each_kind
async def test_own_faults_come_before_those_of_any_id(kind: Kind) -> None:
    """A fault without an id hits whichever request comes next, after the faults of that id."""
    async with SimulatedCometAPI() as api:
        first, second = api.create_task(duration=0), api.create_task(duration=0)
        kind.fail_next(api, status=500, times=2)
        kind.fail_next(api, first, status=502)
        assert await statuses(api, kind, first, 2) == [502, 500]
        assert await statuses(api, kind, second, 2) == [500, 200]


@each_kind
async def test_standing_faults_last_until_cleared(kind: Kind) -> None:
    """With ``times=None`` a fault lasts; counted ones still come through, whosever they are."""
    async with SimulatedCometAPI() as api:
        task_id = api.create_task(duration=0)
        kind.fail_next(api, task_id, status=503, times=None)
        kind.fail_next(api, status=500)
        assert await statuses(api, kind, task_id, 4) == [500, 503, 503, 503]
        kind.clear(api)
        assert await statuses(api, kind, task_id, 2) == [200, 200]


@each_kind
async def test_faults_of_one_id_can_be_cleared(kind: Kind) -> None:
    """Clearing one id leaves the faults of others alone; clearing what is not there is fine."""
    async with SimulatedCometAPI() as api:
        first, second = api.create_task(duration=0), api.create_task(duration=0)
        kind.fail_next(api, first, status=500, times=None)
        kind.fail_next(api, second, status=500)
        kind.fail_next(api, status=503)
        kind.clear(api, first)
        kind.clear(api, "nobody")
        assert await statuses(api, kind, first, 2) == [503, 200]
        assert await statuses(api, kind, second) == [500]


@each_kind
async def test_each_kind_has_faults_of_its_own(kind: Kind) -> None:
    """A fault of images spoils no query and one of queries no image, nor are they cleared."""
    other = IMAGE if kind is QUERY else QUERY
    async with SimulatedCometAPI() as api:
        task_id = api.create_task(duration=0)
        kind.fail_next(api, task_id, status=502)
        assert await statuses(api, other, task_id) == [200]
        other.clear(api)
        other.clear(api, task_id)
        assert await statuses(api, kind, task_id) == [502]


@each_kind
@pytest.mark.parametrize(
    ("fault", "status", "body", "content_type"),
    [
        (
            {"status": 502},
            502,
            b"<html><body><center><h1>502</h1></center></body></html>",
            "text/html",
        ),
        ({"status": 429}, 429, b"", ""),
        ({"retry_after": 7}, 429, b"", ""),
        ({"status": 301}, 301, b"", ""),
        ({"status": 204}, 204, b"", ""),
        ({"status": 999, "body": "?"}, 999, b"?", "text/plain"),
        ({"body": b"\xff\xfe"}, 200, b"\xff\xfe", "text/plain"),
        ({"body": " [1]"}, 200, b" [1]", "application/json"),
        ({"body": {"code": 1303}, "status": 429}, 429, b'{"code": 1303}', "application/json"),
        ({"body": ""}, 200, b"", ""),
        ({"body": "", "headers": {"content-type": "a/b"}}, 200, b"", "a/b"),
        ({"body": "<p>", "headers": {"content-type": "a/b"}}, 200, b"<p>", "a/b"),
        ({"body": "abcd", "malformed": True}, 200, b"ab", "text/plain"),
        ({"redirect_to": "/elsewhere"}, 302, b"", ""),
    ],
)
async def test_any_status_body_and_headers(
    kind: Kind, fault: dict[str, Any], status: int, body: bytes, content_type: str
) -> None:
    """Status, body and headers are sent as they are given, or as they usually come together."""
    async with SimulatedCometAPI() as api, client(api) as session:
        kind.fail_next(api, **fault)
        assert await fetch(session, kind.url(api, "x")) == (status, body, content_type)
        assert [request.status for request in kind.seen(api)] == [status]


@each_kind
@pytest.mark.parametrize("status", [400, 404, 500, 520])
async def test_other_errors_have_the_body_of_the_gateway(kind: Kind, status: int) -> None:
    """Where no body is given, errors of the gateway come as its own JSON."""
    async with SimulatedCometAPI() as api, client(api) as session:
        kind.fail_next(api, status=status)
        answered, body, _ = await fetch(session, kind.url(api, "x"))
        assert answered == status
        assert json.loads(body)["error"] == {
            "code": "",
            "message": f"upstream said {status}",
            "type": "comet_api_error",
        }


@each_kind
@pytest.mark.parametrize(
    ("fault", "status", "sign"),
    [({"html": True}, 200, b"Sign in"), ({"not_found": True}, 400, b"task_not_exist")],
)
async def test_answers_with_names_of_their_own(
    kind: Kind, fault: dict[str, Any], status: int, sign: bytes
) -> None:
    """A web page, and what the API says of an id that nobody knows, come without being spelt."""
    async with SimulatedCometAPI() as api, client(api) as session:
        kind.fail_next(api, **fault)
        answered, body, _ = await fetch(session, kind.url(api, api.create_task(duration=0)))
        assert answered == status
        assert sign in body


@each_kind
async def test_success_keeps_the_true_body(kind: Kind) -> None:
    """A success without a body of its own carries the truth, under other headers if wanted."""
    async with SimulatedCometAPI() as api, client(api) as session:
        url = kind.url(api, api.create_task(duration=0))
        _, truth, _ = await fetch(session, url)
        kind.fail_next(api, status=206, headers={"X-Note": "a", "content-type": "image/webp"})
        async with session.get(url) as response:
            assert (response.status, response.headers["X-Note"]) == (206, "a")
            assert response.content_type == "image/webp"
            body = await response.read()
        assert kind.mark in body
        assert len(body) == len(truth)


@each_kind
@pytest.mark.parametrize(
    ("fault", "status", "header"),
    [
        ({"retry_after": 7}, 429, "7"),
        ({"retry_after": math.nan}, 429, "nan"),
        ({"retry_after": "Fri, 26 Jun 2026 05:04:05 GMT", "status": 503}, 503, "Fri, 26"),
    ],
)
async def test_retry_after(kind: Kind, fault: dict[str, Any], status: int, header: str) -> None:
    """``retry_after`` sets the header, sensible or not, and a 429 unless told otherwise."""
    async with SimulatedCometAPI() as api, client(api) as session:
        kind.fail_next(api, **fault)
        async with session.get(kind.url(api, "x")) as response:
            assert response.status == status
            assert response.headers["Retry-After"].startswith(header)


@each_kind
@pytest.mark.parametrize("sent", [0, 20])
async def test_cut_off_body(kind: Kind, sent: int) -> None:
    """A cut-off answer announces more than it sends, then the connection ends."""
    async with SimulatedCometAPI() as api, client(api) as session:
        kind.fail_next(api, cut_after=sent)
        async with session.get(kind.url(api, api.create_task(duration=0))) as response:
            assert response.status == 200
            with pytest.raises(aiohttp.ClientPayloadError):
                await response.read()
        assert [request.status for request in kind.seen(api)] == [200]


@each_kind
async def test_slow_body_comes_whole(kind: Kind) -> None:
    """A slow body takes its length over the rate, by the loop's clock."""
    async with SimulatedCometAPI() as api, client(api) as session:
        kind.fail_next(api, body="x" * 100, bytes_per_second=5)
        _, body, _ = await fetch(session, kind.url(api, "x"))
        assert body == b"x" * 100
        (request,) = kind.seen(api)
        assert request.finished == pytest.approx(request.started + 20.0)


@each_kind
async def test_slow_body_can_be_cut_too(kind: Kind) -> None:
    """Slowness and cutting go together."""
    async with SimulatedCometAPI() as api, client(api) as session:
        kind.fail_next(api, body="x" * 100, bytes_per_second=20, cut_after=10)
        with pytest.raises(aiohttp.ClientPayloadError):
            await fetch(session, kind.url(api, "x"))
        (request,) = kind.seen(api)
        assert request.finished == pytest.approx(request.started + 0.5)


@each_kind
async def test_delay_comes_first(kind: Kind) -> None:
    """A delayed answer is the true one of that later moment."""
    async with SimulatedCometAPI() as api, client(api) as session:
        task_id = api.create_task(duration=10.0)
        kind.fail_next(api, delay=12.0)
        _, body, _ = await fetch(session, kind.url(api, task_id))
        assert kind.mark in body
        (request,) = kind.seen(api)
        assert request.finished == request.started + 12.0


@each_kind
async def test_hang_never_answers(kind: Kind) -> None:
    """A request that hangs ends when its client gives up, and is logged without a status."""
    async with SimulatedCometAPI() as api:
        task_id = api.create_task(duration=0)
        kind.fail_next(api, task_id, hang=True)
        async with client(api) as session:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(100.0):
                    await fetch(session, kind.url(api, task_id))
        assert await statuses(api, kind, task_id) == [200]
        (hung, good) = kind.seen(api)
        assert (hung.status, good.status) == (None, 200)
        assert hung.finished == hung.started + 100.0


@each_kind
async def test_reset_on_a_fresh_connection(kind: Kind) -> None:
    """A reset reaches the client as a reset; the second one, as aiohttp asks once more."""
    async with SimulatedCometAPI() as api, client(api) as session:
        kind.fail_next(api, reset=True, times=2)
        with pytest.raises(aiohttp.ClientOSError, match="reset by peer"):
            await fetch(session, kind.url(api, "x"))
        assert [(each.connection, each.status) for each in kind.seen(api)] == [(1, None), (2, None)]


@each_kind
async def test_raw_bytes(kind: Kind) -> None:
    """Any bytes at all can be the answer; they have no status."""
    async with SimulatedCometAPI() as api, client(api) as session:
        kind.fail_next(api, raw=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
        with pytest.raises(aiohttp.ClientError):
            await fetch(session, kind.url(api, "x"))
        kind.fail_next(api, raw=b"HTTP/1.0 200 Fine\r\n\r\nhello")
        assert (await fetch(session, kind.url(api, "x")))[:2] == (200, b"hello")
        assert [request.status for request in kind.seen(api)] == [None, None]


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
        url = url_of(api, api.create_task())
        _, truth, _ = await fetch(session, url)
        api.fail_next(malformed=True)
        status, body, content_type = await fetch(session, url)
        assert (status, content_type) == (200, "application/json")
        assert len(body) == len(truth) // 2
        with pytest.raises(json.JSONDecodeError):
            json.loads(body)


async def test_reset_only_on_a_reused_connection() -> None:
    """With ``on="reused"`` fresh connections are left alone; aiohttp then asks once more."""
    async with SimulatedCometAPI() as api:
        task_id = api.create_task()
        api.fail_next(reset=True, on="reused")
        assert await statuses(api, QUERY, task_id, 2) == [200, 200]
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
        assert await statuses(api, QUERY, "x") == [502]


async def test_the_arguments_are_shown() -> None:
    """An editor and ``help()`` see each argument of a fault, in place of one record."""
    shown = inspect.signature(SimulatedCometAPI().fail_next).parameters
    assert list(shown)[:3] == ["task_id", "times", "status"]
    more = set(inspect.signature(SimulatedCometAPI().fail_next_image).parameters) - set(shown)
    assert more == {"index", "redirects", "size"}


async def test_faults_come_before_the_key() -> None:
    """The network fails for wrong keys too; other requests meet no fault."""
    async with SimulatedCometAPI() as api, client(api) as session:
        api.fail_next(status=502)
        assert (await fetch(session, f"{api.base_url}/"))[0] == 200
        session.headers.clear()
        assert (await fetch(session, url_of(api, "x")))[0] == 502
        assert (await fetch(session, url_of(api, "x")))[0] == 401


NONSENSE: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({}, ValueError, "say what goes wrong"),
    ({"status": 502, "times": 0}, ValueError, "times"),
    ({"status": 502, "times": 1.5}, TypeError, "times"),
    ({"status": 199}, ValueError, "status must be at least 200, got 199"),
    ({"status": 1000}, ValueError, "status must be from 200 to 999, got 1000"),
    ({"status": "502"}, TypeError, "status"),
    ({"body": 7}, TypeError, "body"),
    ({"headers": "x"}, TypeError, "headers"),
    ({"headers": {"X-Number": 1}}, TypeError, "headers"),
    ({"headers": {"X\nA": "1"}}, ValueError, "headers must be names such as 'X-Reason'"),
    ({"headers": {"": "1"}}, ValueError, "headers must be names"),
    ({"headers": {"X-A": "1\r\nX-B: 2"}}, ValueError, "and texts on one line"),
    ({"body": "\ud800"}, ValueError, "body must be text that UTF-8 can carry"),
    ({"body": {"a": {1}}}, ValueError, "or a mapping that JSON can"),
    ({"retry_after": "7\r\nX: y"}, ValueError, "retry_after must be on one line"),
    ({"hang": "no"}, TypeError, "hang must be True or False, got 'no'"),
    ({"task_id": "\ud800", "reset": True}, ValueError, "task_id must be text that UTF-8 can"),
    ({"status": 502, "on": 1}, ValueError, "^on must be one of any, fresh, reused, got 1$"),
    ({"retry_after": b"7"}, TypeError, "retry_after"),
    ({"cut_after": -1}, ValueError, "cut_after"),
    ({"bytes_per_second": 0}, ValueError, "bytes_per_second"),
    ({"delay": -1}, ValueError, "delay"),
    ({"raw": "text"}, TypeError, "^raw must be bytes, got 'text'$"),
    ({"content_length": -1}, ValueError, "content_length"),
    ({"content_length": 1.5}, TypeError, "content_length"),
    ({"redirect_to": ""}, ValueError, "redirect_to must be a URL on one line"),
    ({"redirect_to": "/x\r\nA: b"}, ValueError, "redirect_to must be a URL on one line"),
    ({"redirect_to": b"/x"}, TypeError, "redirect_to"),
    ({"on": "fresh"}, ValueError, "say what goes wrong"),
    ({"status": 502, "on": "old"}, ValueError, "on"),
    ({"task_id": 7, "status": 502}, TypeError, "task_id"),
    ({"status": 502, "of": 1}, TypeError, r"\(\) takes no 'of': it takes task_id, times, status, "),
    ({"not_found": True, "body": ""}, ValueError, "do not go together: body, not_found"),
    ({"hang": True, "html": True}, ValueError, "do not go together: hang, html"),
    ({"raw": b"", "content_length": 1}, ValueError, "together: raw, content_length"),
    ({"redirect_to": "/", "cut_after": 0}, ValueError, "together: cut_after, redirect_to"),
    ({"hang": True, "reset": True}, ValueError, "do not go together: hang, reset"),
    ({"reset": True, "status": 502}, ValueError, "do not go together: reset, status"),
]
NONSENSE_FOR_QUERIES: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"status": 502, "index": 1}, TypeError, "'index'"),
    ({"redirects": 1}, TypeError, "'redirects'"),
    ({"size": 100}, TypeError, "'size'"),
]
NONSENSE_FOR_IMAGES: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"index": 1}, ValueError, "say what goes wrong"),
    ({"redirects": 0}, ValueError, "say what goes wrong"),
    ({"status": 502, "index": -1}, ValueError, "index"),
    ({"status": 502, "index": "1"}, TypeError, "index"),
    ({"redirects": -1}, ValueError, "redirects"),
    ({"redirects": True}, TypeError, "redirects"),
    ({"size": 88}, ValueError, "size must be at least 89, got 88"),
    ({"size": 1e9}, TypeError, "size"),
    ({"html": True, "size": 100, "body": ""}, ValueError, "together: body, html, size"),
    ({"redirects": 1, "redirect_to": "/"}, ValueError, "together: redirect_to, redirects"),
    ({"redirects": 1, "status": 301}, ValueError, "together: redirects, status"),
]


@pytest.mark.parametrize(
    ("kind", "arguments", "error", "named"),
    [
        *((kind, *case) for kind in (QUERY, IMAGE) for case in NONSENSE),
        *((QUERY, *case) for case in NONSENSE_FOR_QUERIES),
        *((IMAGE, *case) for case in NONSENSE_FOR_IMAGES),
    ],
    ids=lambda value: value.name if isinstance(value, Kind) else None,
)
async def test_bad_faults_are_named(
    kind: Kind, arguments: dict[str, Any], error: type[Exception], named: str
) -> None:
    """A fault that makes no sense is refused by the names of its arguments."""
    api = SimulatedCometAPI()
    with pytest.raises(error, match=named):
        kind.fail_next(api, **arguments)
