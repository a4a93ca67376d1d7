"""One bounded GET: what aiohttp and the network do becomes an answer or one of our errors."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import os
import resource
import ssl
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from kling_omni_async import (
    ConfigurationError,
    KlingOmniSession,
    PollPolicy,
    ResponseError,
    ServerError,
    TransportError,
)
from kling_omni_async._api.answers import Answer
from kling_omni_async._api.client import Client, _connections
from kling_omni_async._api.create import NotSent
from kling_omni_async._api.posting import PostLimit
from kling_omni_async._config import make_settings
from kling_omni_async.simulator import SimulatedCometAPI
from tests.support import all_of, freeze, now, now_waiting, open_session

pytestmark = pytest.mark.anyio

KEY = "sk-key-of-a-test"


async def test_the_request_is_what_the_api_documents(comet_api: SimulatedCometAPI) -> None:
    """A query is a GET of the documented path with the key as bearer."""
    task_id = comet_api.create_task()
    async with open_session(comet_api) as session:
        await session.query(task_id)
    (query,) = comet_api.queries
    assert (query.method, query.authorised) == ("GET", True)
    assert query.path == f"/kling/v1/images/omni-image/{task_id}"


async def test_one_connection_serves_query_after_query(comet_api: SimulatedCometAPI) -> None:
    """Queries one after the other share a connection."""
    async with open_session(comet_api) as session:
        for _ in range(5):
            await session.query(comet_api.create_task())
    assert comet_api.connections_opened == 1


async def test_no_more_than_max_concurrency_in_flight(comet_api: SimulatedCometAPI) -> None:
    """Queries in flight, and connections, never exceed the policy's bound."""
    comet_api.fail_next(times=None, delay=1)
    task_ids = [comet_api.create_task(duration=0) for _ in range(40)]
    async with open_session(comet_api, max_concurrency=7, max_rate=None) as session:
        await all_of(session, task_ids)
    assert comet_api.in_flight_peak == 7
    assert comet_api.connections_opened == 7


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"hang": True}, "timeout"),
        ({"bytes_per_second": 1}, "timeout"),
        ({"cut_after": 20}, "cut-off"),
        ({"reset": True, "times": None}, "reset"),
        ({"raw": b"HTP/9 nonsense\r\n\r\n"}, "protocol"),
        ({"raw": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000 + b"\r\n\r\n"}, "protocol"),
        (
            {"raw": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope"},
            "cut-off",
        ),
    ],
    ids=str,
)
async def test_no_answer_is_a_transport_error_with_a_reason(
    comet_api: SimulatedCometAPI, fault: dict[str, Any], reason: str
) -> None:
    """Whatever keeps an answer from coming is a `TransportError` that says what it was."""
    task_id = comet_api.create_task()
    comet_api.fail_next(task_id, **fault)
    async with open_session(comet_api) as session:
        with pytest.raises(TransportError) as caught:
            await session.query(task_id)
    assert caught.value.reason == reason
    assert caught.value.task_id == task_id
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert now() <= 15.1


async def test_a_late_query_leaves_nothing_behind(comet_api: SimulatedCometAPI) -> None:
    """What ended a late query goes with it: its frames, which hold the key, are in no cycle."""
    comet_api.fail_next(hang=True)
    async with open_session(comet_api) as session:
        gc.disable()
        try:
            before = _time_outs_in_memory()
            with pytest.raises(TransportError):
                await session.query(comet_api.create_task())
            assert _time_outs_in_memory() == before
        finally:
            gc.enable()


def _time_outs_in_memory() -> int:
    return sum(type(thing) is TimeoutError for thing in gc.get_objects())


async def test_a_name_that_does_not_exist_is_dns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host name that cannot be resolved is a `TransportError` of the reason dns."""

    async def nothing(*_args: object, **_kwargs: object) -> list[Any]:
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr("aiohttp.resolver.ThreadedResolver.resolve", nothing)
    monkeypatch.setattr("aiohttp.connector.DefaultResolver", aiohttp.ThreadedResolver)
    async with KlingOmniSession(KEY, base_url="https://no-such-host.invalid") as session:
        with pytest.raises(TransportError) as caught:
            await session.query("1")
    assert caught.value.reason == "dns"


async def test_a_redirect_is_named_and_not_followed(comet_api: SimulatedCometAPI) -> None:
    """A 3xx is a `ResponseError` with its target, and nothing is sent there."""
    task_id = comet_api.create_task()
    comet_api.fail_next(task_id, status=302, headers={"Location": f"{comet_api.base_url}/else"})
    async with open_session(comet_api) as session:
        with pytest.raises(ResponseError) as caught:
            await session.query(task_id)
    assert caught.value.location == f"{comet_api.base_url}/else"
    assert len(comet_api.queries) == 1


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
async def test_a_long_answer_is_not_read_on(comet_api: SimulatedCometAPI, packed: bool) -> None:  # noqa: FBT001
    """An answer over the bound, also one that unpacks to it, is refused with its beginning."""
    body = b" " * 10 + b"x" * 3_000_000
    headers = {"Content-Type": "application/json"}
    if packed:
        body, headers["Content-Encoding"] = gzip.compress(body), "gzip"
    task_id = comet_api.create_task()
    comet_api.fail_next(task_id, status=200, body=body, headers=headers)
    async with open_session(comet_api, max_response_bytes=100_000) as session:
        with pytest.raises(ResponseError, match="100000 bytes") as caught:
            await session.query(task_id)
        assert (await session.query(task_id)).task_id == task_id
    assert caught.value.snippet == " " * 10 + "x" * 190


async def test_an_answer_of_just_the_bound_is_read(comet_api: SimulatedCometAPI) -> None:
    """The bound itself is still accepted."""
    body = b'{"code":0,"data":{"task_status":"submitted"}}'
    comet_api.fail_next(status=200, body=body)
    async with open_session(comet_api, max_response_bytes=len(body)) as session:
        assert (await session.query("1")).raw == {"task_status": "submitted"}


async def test_a_given_session_is_used_and_left_open(comet_api: SimulatedCometAPI) -> None:
    """A given aiohttp session serves the queries, unchanged and open afterwards."""
    async with aiohttp.ClientSession(
        raise_for_status=True, headers={"Authorization": "Basic x", "X-Mine": "1"}
    ) as http:
        session = KlingOmniSession(comet_api.api_key, base_url=comet_api.base_url, http=http)
        async with session:
            await session.query(comet_api.create_task())
            comet_api.fail_next(status=500)
            with pytest.raises(ServerError):
                await session.query(comet_api.create_task())
        assert not http.closed
        assert dict(http.headers) == {"Authorization": "Basic x", "X-Mine": "1"}
    assert all(query.authorised for query in comet_api.queries)


@pytest.mark.parametrize("limits", [{"limit": 3}, {"limit": 50, "limit_per_host": 3}], ids=str)
async def test_a_given_connectors_limit_is_kept(
    comet_api: SimulatedCometAPI, limits: dict[str, Any]
) -> None:
    """No more queries are in flight than the given session's connector has connections."""
    comet_api.fail_next(times=None, delay=14)
    task_ids = [comet_api.create_task(duration=0) for _ in range(12)]
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(**limits)) as http:
        session = KlingOmniSession(comet_api.api_key, base_url=comet_api.base_url, http=http)
        async with session:
            outcomes = await all_of(session, task_ids)
    assert all(outcome.ok and outcome.queries == 1 for outcome in outcomes)
    assert comet_api.in_flight_peak == 3


async def test_a_connector_without_limit_leaves_the_policys(comet_api: SimulatedCometAPI) -> None:
    """A connector that knows no limit leaves `max_concurrency` to decide."""
    comet_api.fail_next(times=None, delay=1)
    task_ids = [comet_api.create_task(duration=0) for _ in range(12)]
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        session = KlingOmniSession(
            comet_api.api_key,
            base_url=comet_api.base_url,
            http=http,
            policy=PollPolicy(max_concurrency=5, max_rate=None),
        )
        async with session:
            await all_of(session, task_ids)
    assert comet_api.in_flight_peak == 5


@pytest.mark.filterwarnings("ignore:.* deprecated and will be removed:DeprecationWarning")
@pytest.mark.parametrize("clash", ["auth", "trust_env"])
async def test_a_session_that_clashes_is_refused(clash: str) -> None:
    """Default auth and `trust_env` clash with the key and are refused at once."""
    value = True if clash == "trust_env" else aiohttp.BasicAuth("a", "b")
    options: dict[str, Any] = {clash: value}
    async with aiohttp.ClientSession(**options) as http:
        with pytest.raises(ConfigurationError, match=clash):
            KlingOmniSession(KEY, http=http)


async def test_a_closed_session_is_refused(comet_api: SimulatedCometAPI) -> None:
    """A closed aiohttp session is refused when given, at first use, and in the middle."""
    http = aiohttp.ClientSession()
    early = KlingOmniSession(KEY, base_url=comet_api.base_url, http=http)
    running = KlingOmniSession(comet_api.api_key, base_url=comet_api.base_url, http=http)
    waiting = asyncio.ensure_future(running.wait(comet_api.create_task(duration=1000)))
    await comet_api.wait_for_queries(1)
    await now_waiting(10)
    await http.close()
    with pytest.raises(ConfigurationError, match="closed"):
        KlingOmniSession(KEY, http=http)
    with pytest.raises(ConfigurationError, match="closed"):
        await early.query("1")
    with pytest.raises(ConfigurationError, match="closed"):
        await waiting
    await running.aclose()


async def test_a_session_of_another_loop_is_refused(comet_api: SimulatedCometAPI) -> None:
    """An aiohttp session made in another event loop is refused at first use."""

    def make_elsewhere() -> aiohttp.ClientSession:
        async def make() -> aiohttp.ClientSession:
            http = aiohttp.ClientSession()
            await http.connector.close() if http.connector else None
            return http

        return asyncio.run(make())

    http = await asyncio.to_thread(make_elsewhere)
    http._connector = aiohttp.TCPConnector()  # open again, but not of its loop
    session = KlingOmniSession(KEY, base_url=comet_api.base_url, http=http)
    with pytest.raises(ConfigurationError, match="another event loop"):
        await session.query("1")
    await http.close()


async def test_whatever_a_middleware_raises_is_typed(comet_api: SimulatedCometAPI) -> None:
    """An exception out of the caller's own middleware is a `TransportError`, not a crash."""

    async def broken(_request: Any, _handler: Any) -> Any:
        raise LookupError("no token today")

    async with aiohttp.ClientSession(middlewares=[broken]) as http:
        session = KlingOmniSession(comet_api.api_key, base_url=comet_api.base_url, http=http)
        async with session:
            with pytest.raises(TransportError, match="no token today") as caught:
                await session.query("1")
    assert caught.value.reason == "network"


@asynccontextmanager
async def serving(handler: Any) -> AsyncGenerator[str]:
    """Serve one handler for every path on loopback; gives the base URL."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_a_proxy_of_the_environment_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A plain request for a host that is not this machine goes through `HTTP_PROXY`."""
    asked: list[tuple[str, str | None]] = []

    async def proxy(request: web.Request) -> web.Response:
        asked.append((str(request.url), request.headers.get("Proxy-Authorization")))
        return web.json_response({"code": 0, "data": {"task_status": "submitted"}})

    async with serving(proxy) as url:
        monkeypatch.setenv("HTTP_PROXY", url.replace("://", "://user:secret@"))
        monkeypatch.setenv("http_proxy", url.replace("://", "://user:secret@"))
        session = KlingOmniSession(KEY, base_url="http://api.invalid", allow_http=True)
        async with session:
            await session.query("1")
    assert asked == [("http://api.invalid/kling/v1/images/omni-image/1", "Basic dXNlcjpzZWNyZXQ=")]


async def test_a_proxy_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead proxy is a `TransportError` of the reason proxy, without its password."""
    monkeypatch.setenv("http_proxy", "http://user:secret@127.0.0.1:9")
    session = KlingOmniSession(KEY, base_url="http://api.invalid", allow_http=True)
    async with session:
        with pytest.raises(TransportError) as caught:
            await session.query("1")
    assert caught.value.reason == "proxy"
    assert "secret" not in str(caught.value)


async def test_a_proxy_that_cannot_be_used_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A SOCKS proxy in the environment is a `ConfigurationError` that names the variable."""
    monkeypatch.setenv("https_proxy", "socks5://127.0.0.1:9")
    session = KlingOmniSession(KEY)
    with pytest.raises(ConfigurationError, match="HTTPS_PROXY"):
        await session.query("1")


async def test_loopback_never_uses_a_proxy(
    comet_api: SimulatedCometAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A simulator on this machine is asked directly whatever the environment says."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    async with open_session(comet_api) as session:
        await session.query(comet_api.create_task())


class TestCertificates:
    """What TLS refuses."""

    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            (ssl.SSLCertVerificationError("self-signed"), "certificate"),
            (ssl.SSLError("handshake"), "tls"),
        ],
        ids=["certificate", "handshake"],
    )
    async def test_a_refusal_of_tls_is_typed(
        self, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
    ) -> None:
        """A certificate that is refused is told from a handshake that failed."""

        async def refuse(*_args: object, **_kwargs: object) -> Any:
            raise error

        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "create_connection", refuse)
        monkeypatch.setattr("aiohappyeyeballs.start_connection", refuse)
        monkeypatch.setattr("aiohttp.connector.aiohappyeyeballs.start_connection", refuse)
        async with KlingOmniSession(KEY, base_url="https://127.0.0.1:9") as session:
            with pytest.raises(TransportError) as caught:
                await session.query("1")
        assert caught.value.reason == reason

    async def test_a_refused_certificate_ends_a_wait_at_once(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A certificate refused before any good answer is a wrong set-up."""

        async def refuse(*_args: object, **_kwargs: object) -> Any:
            raise ssl.SSLCertVerificationError("self-signed")

        monkeypatch.setattr("aiohttp.connector.aiohappyeyeballs.start_connection", refuse)
        async with KlingOmniSession(KEY, base_url="https://127.0.0.1:9") as session:
            with pytest.raises(TransportError):
                await session.wait("1")
        assert now() == 0


def test_a_client_shows_where_it_sends() -> None:
    """The repr of a client names the base URL and no key."""
    client = Client(make_settings(KEY, "http://127.0.0.1:9", None, allow_http=False), None)
    assert repr(client) == "<Client of http://127.0.0.1:9>"


def test_a_connector_that_has_gone_sets_no_limit() -> None:
    """A session that was closed in between has no connector; its next query tells of it."""
    assert _connections(None) is None


async def test_cookies_of_a_given_session_stay_as_they_are(comet_api: SimulatedCometAPI) -> None:
    """No answer of ours changes a given session's cookie jar; what is in it is sent as ever."""
    comet_api.fail_next(status=502, headers={"Set-Cookie": "a=b"}, times=2)
    seen: list[str] = []

    async def look(request: aiohttp.ClientRequest, handler: Any) -> Any:
        seen.append(request.headers.get("Cookie", ""))
        return await handler(request)

    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(cookie_jar=jar, middlewares=[look]) as http:
        jar.update_cookies({"mine": "1"}, URL(comet_api.base_url))
        session = KlingOmniSession(comet_api.api_key, base_url=comet_api.base_url, http=http)
        async with session:
            with pytest.raises(ServerError):
                await session.query("1")
        assert [cookie.key for cookie in jar] == ["mine"]
    assert seen == ["mine=1"]
    async with open_session(comet_api) as own:
        with pytest.raises(ServerError):
            await own.query("1")
        assert len(comet_api.queries) == 2


@asynccontextmanager
async def opened(base_url: str, http: Any = None, **policy: Any) -> AsyncGenerator[Client]:
    """Open a client by itself."""
    settings = make_settings(KEY, base_url, PollPolicy(**policy), allow_http=True)
    client = Client(settings, http)
    client.bind()
    await client.open()
    try:
        yield client
    finally:
        await client.aclose()


ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b"


class Wire:
    """A server that says what it is told to, and counts its connections.

    Attributes:
        opened: Connections so far.
        closed: Those of them that the client has closed.
    """

    def __init__(self, *scripts: tuple[bytes, ...]) -> None:
        self.opened = self.closed = 0
        self._scripts = scripts

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        script = self._scripts[min(self.opened, len(self._scripts) - 1)]
        self.opened += 1
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            for parts in script:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(parts)
            await reader.read()
        self.closed += 1
        writer.close()


@asynccontextmanager
async def speaking(wire: Wire) -> AsyncGenerator[str]:
    """Run such a server on loopback; gives its base URL."""
    async with await asyncio.start_server(wire.serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def said(body: bytes) -> bytes:
    """Make the bytes of an answer."""
    return ANSWER % (len(body), body)


async def test_an_answer_that_nobody_asked_for_is_no_answer() -> None:
    """What came on an idle connection is never read: that connection is closed, not used."""
    wire = Wire((said(b"first") + said(b"of another"), b""), (said(b"second"),))
    async with speaking(wire) as url, opened(url) as client:
        assert body_of(await client.fetch("1")) == b"first"
        assert body_of(await client.fetch("2")) == b"second"
        assert wire.opened == 2


async def test_an_answer_that_comes_later_is_no_answer() -> None:
    """So it is where it comes when the first answer has long been read."""
    late = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said(b"own" if late.is_set() else b"first"))
        if not late.is_set():
            await late.wait()
            writer.write(said(b"of another"))
        await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with opened(url) as client:
            assert body_of(await client.fetch("1")) == b"first"
            late.set()
            await asyncio.sleep(1)
            assert body_of(await client.fetch("2")) == b"own"


def body_of(reply: Any) -> bytes:
    """Return the body of an answer."""
    assert isinstance(reply, Answer), reply
    return reply.body


async def test_idle_connections_can_be_given_up() -> None:
    """Idle connections are closed when asked for; one that is in use ends its query first."""
    hold = asyncio.Event()

    async def handle(request: web.Request) -> web.Response:
        if request.path.endswith("slow"):
            await hold.wait()
        return web.Response(text=str(id(request.transport)))

    async with serving(handle) as url, opened(url) as client:
        client.give_up_idle()
        first = await client.fetch("1")
        assert body_of(await client.fetch("2")) == body_of(first)
        client.give_up_idle()
        client.give_up_idle()
        second = await client.fetch("3")
        assert body_of(second) != body_of(first)
        slow = asyncio.create_task(client.fetch("slow"))
        await now_waiting(20)
        client.give_up_idle()
        third = await client.fetch("4")
        hold.set()
        assert body_of(await slow) == body_of(second)
        assert body_of(third) != body_of(second)
        await now_waiting(20)
        assert not client._closing


async def test_what_is_given_up_is_closed_with_the_client() -> None:
    """A client that is closed at once leaves no task behind."""
    wire = Wire((said(b"a"),))
    async with speaking(wire) as url:
        async with opened(url) as client:
            await client.fetch("1")
            client.give_up_idle()
            assert client._closing
        assert not client._closing
        await now_waiting(20)
        assert (wire.opened, wire.closed) == (1, 1)


async def test_a_given_sessions_connections_are_left_alone() -> None:
    """Nothing of a given session is given up."""
    wire = Wire((said(b"a"), said(b"b")))
    async with speaking(wire) as url, aiohttp.ClientSession() as http:
        async with opened(url, http) as client:
            await client.fetch("1")
            client.give_up_idle()
            await client.fetch("2")
        assert (wire.opened, wire.closed) == (1, 0)


async def test_a_client_can_be_made_anywhere() -> None:
    """Nothing is opened or bound before `bind` and `open`, so a process may fork before them."""
    settings = make_settings(KEY, "http://127.0.0.1:9", None, allow_http=False)
    client = await asyncio.to_thread(Client, settings, None)
    await client.aclose()
    assert client._pool is None


async def test_no_descriptor_left_is_a_fault_that_passes(comet_api: SimulatedCometAPI) -> None:
    """Where no file can be opened any more, a query is a transient fault that says so."""
    async with opened(comet_api.base_url) as client:
        with no_descriptors():
            reply = await client.fetch("1")
        assert isinstance(reply, TransportError)
        assert (reply.reason, reply.transient) == ("descriptors", True)
        assert isinstance(await client.fetch("1"), Answer)


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Let this process open no more files for a while."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("length", [9_000, 60_000])
@pytest.mark.parametrize("given", [False, True], ids=["own", "given"])
async def test_long_headers_are_read(length: int, *, given: bool) -> None:
    """A header of up to 64 KiB is no fault, over a given session neither."""
    body = b'{"code":0,"data":{"task_status":"submitted"}}'
    head = b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * length + b"\r\n"
    wire = Wire((head + b"Content-Length: %d\r\n\r\n" % len(body) + body,))
    async with speaking(wire) as url, aiohttp.ClientSession() as http:
        session = KlingOmniSession(KEY, base_url=url, http=http if given else None)
        async with session:
            assert (await session.query("1")).task_id == "1"


@pytest.mark.parametrize("value", ["x", aiohttp.ClientSession, object(), 0])
def test_what_is_no_session_is_refused(value: Any) -> None:
    """Anything else for `http` is refused with what to write instead."""
    with pytest.raises(
        ConfigurationError, match=r"^http must be an aiohttp session, not .*; write"
    ):
        KlingOmniSession(KEY, http=value)


@asynccontextmanager
async def crowded(api: SimulatedCometAPI) -> AsyncGenerator[aiohttp.ClientSession]:
    """Give a session whose connector has one place, taken by its user."""
    api.fail_next("taken", hang=True)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as http:
        url = f"{api.base_url}/kling/v1/images/omni-image/taken"
        own = asyncio.ensure_future(http.get(url))
        await api.wait_for_queries(1)
        yield http
        own.cancel()
        with suppress(asyncio.CancelledError, aiohttp.ClientError):
            await own


async def test_a_session_closed_under_a_query_that_waits_for_a_place(
    comet_api: SimulatedCometAPI,
) -> None:
    """A given session that its user closes while a query waits for a connection is named."""
    async with crowded(comet_api) as http:
        session = KlingOmniSession(comet_api.api_key, base_url=comet_api.base_url, http=http)
        async with session:
            query = asyncio.ensure_future(session.query("1"))
            await now_waiting(20)
            await http.close()
            with pytest.raises(ConfigurationError, match="closed"):
                await query
            assert not session.closed


async def test_a_cancellation_of_aiohttps_own_is_a_fault(comet_api: SimulatedCometAPI) -> None:
    """One that comes from within while the session is open is a fault like any other."""

    async def broken(_request: Any, _handler: Any) -> Any:
        raise asyncio.CancelledError

    async with (
        aiohttp.ClientSession(middlewares=[broken]) as http,
        opened(comet_api.base_url, http) as client,
    ):
        reply = await client.fetch("1")
    assert isinstance(reply, TransportError)
    assert (reply.reason, reply.what) == ("network", "network: CancelledError")


async def test_a_real_cancellation_goes_through(comet_api: SimulatedCometAPI) -> None:
    """A query that is cancelled is cancelled, also if its session is closed in the same moment."""
    async with crowded(comet_api) as http, opened(comet_api.base_url, http) as client:
        query = asyncio.ensure_future(client.fetch("1"))
        await now_waiting(5)
        query.cancel()
        await http.close()
        with pytest.raises(asyncio.CancelledError):
            await query
        assert query.cancelled()
        assert client._pool is not None
        assert client._pool.in_flight == 0


async def test_a_post(comet_api: SimulatedCometAPI) -> None:
    """A body is sent with the key, and within the same bounds; one that never left says so."""

    async def echo(request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == f"Bearer {KEY}"
        assert request.content_type == "application/json"
        return web.Response(text=f"{request.method} {await request.text()}", status=201)

    async with serving(echo) as url, opened(url) as client:
        reply = await client.post(URL(f"{url}/x"), b'{"a": 1}', PostLimit(60.0))
        assert isinstance(reply, Answer)
        assert (reply.status, reply.body) == (201, b'POST {"a": 1}')
    async with opened("http://127.0.0.1:9") as client:
        never = await client.post(URL("http://127.0.0.1:9/x"), b"{}", PostLimit(60.0))
        assert isinstance(never, NotSent)
        assert isinstance(never.error, TransportError)
        assert (never.error.reason, never.error.task_id) == ("connect", None)


@pytest.mark.parametrize("frozen_s", [0.9, 1.1, 100.0])
async def test_what_came_while_the_process_was_frozen_is_read(
    comet_api: SimulatedCometAPI, frozen_s: float
) -> None:
    """A query whose answer waits in its socket when a frozen process wakes is no time-out."""
    comet_api.fail_next(times=None, delay=14.9)
    async with opened(comet_api.base_url) as client:
        query = asyncio.ensure_future(client.fetch(comet_api.create_task()))
        await asyncio.sleep(14.5)
        freeze(0.5 + frozen_s)
        reply = await query
        assert isinstance(reply, Answer if frozen_s > 1 else TransportError)


async def test_a_dead_server_is_a_time_out_after_a_freeze(comet_api: SimulatedCometAPI) -> None:
    """What does not come in the second after it is a time-out all the same."""
    comet_api.fail_next(hang=True)
    async with opened(comet_api.base_url) as client:
        query = asyncio.ensure_future(client.fetch("1"))
        await asyncio.sleep(14.5)
        freeze(8.5)
        reply = await query
        assert isinstance(reply, TransportError)
        assert reply.reason == "timeout"
        assert now() == pytest.approx(24.0)


def test_nothing_is_imported_or_opened_on_the_way_of_an_answer() -> None:
    """Answers of all families are read without one import and without one file being opened."""
    command = [sys.executable, "-m", "tests.api.program_audit"]
    done = subprocess.run(command, capture_output=True, check=True)
    kinds, events = json.loads(done.stdout)
    assert events == []
    assert len(kinds) == 24
