"""What aiohttp raises for a POST, by a server of bare sockets, and what that proves."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.client_reqrep import ConnectionKey
from yarl import URL

from kling_omni_async import (
    ConfigurationError,
    CreateUncertainError,
    ImageOrder,
    KlingOmniError,
    KlingOmniSession,
    PollPolicy,
    TransportError,
)
from kling_omni_async._api.answers import Answer
from kling_omni_async._api.client import Client
from kling_omni_async._api.create import NotSent, Refused, read_created
from kling_omni_async._api.posting import OneTimeBody, PostLimit
from kling_omni_async._config import make_settings
from kling_omni_async.simulator import SimulatedCometAPI
from tests.support import now

from .raw_server import Line, RawServer, Script, client_context, raw_server, server_context

pytestmark = pytest.mark.anyio

KEY = "sk-secret"
BODY = b'{"prompt":"a fox"}'
CREATED = (
    b'{"code":0,"message":"SUCCEED","data":{"task_id":"831922345719271433",'
    b'"task_status":"submitted"}}'
)
OUTSIDE = "simulator.test"


class WatchedClient(Client):
    """Remembers what aiohttp raised."""

    raised: BaseException | None = None

    def _translate(
        self, http: aiohttp.ClientSession, error: BaseException, task_id: str | None
    ) -> KlingOmniError:
        self.raised = error
        return super()._translate(http, error, task_id)


@asynccontextmanager
async def opened(
    base_url: str, http: aiohttp.ClientSession | None = None
) -> AsyncGenerator[WatchedClient]:
    """Open a client."""
    client = WatchedClient(make_settings(KEY, base_url, None, allow_http=True), http)
    client.bind()
    await client.open()
    try:
        yield client
    finally:
        await client.aclose()


@asynccontextmanager
async def trusting() -> AsyncGenerator[aiohttp.ClientSession]:
    """Open an aiohttp session that trusts the certificate of the tests."""
    connector = aiohttp.TCPConnector(ssl=client_context())
    async with aiohttp.ClientSession(connector=connector) as http:
        yield http


async def post(
    client: Client, url: str, body: bytes = BODY, *, limit_s: float = 60.0
) -> NotSent | Answer | KlingOmniError:
    """Send one POST."""
    return await client.post(URL(url), body, PostLimit(limit_s))


def never_left(reply: object) -> bool:
    """Tell whether a reply proves that nothing was sent."""
    return isinstance(reply, NotSent)


# Scripts of a server.


async def say_nothing(line: Line) -> None:
    """Accept, and be silent."""
    await asyncio.get_running_loop().create_future()


async def close_at_once(line: Line) -> None:
    """Read nothing."""


async def reset_at_once(line: Line) -> None:
    """Read nothing, and reset."""
    line.reset()


async def close_after_head(line: Line) -> None:
    """Close when the headers have come."""
    await line.read_head()


async def close_after_body(line: Line) -> None:
    """Close when all has come."""
    await line.read_head()
    await line.read_body()


async def reset_after_head(line: Line) -> None:
    """Reset when the headers have come."""
    await line.read_head()
    line.reset()


async def reset_after_body(line: Line) -> None:
    """Reset when all has come."""
    await close_after_body(line)
    line.reset()


async def reset_half_way(line: Line) -> None:
    """Reset when half of it has come."""
    await line.read_head()
    await line.read_body(0.5)
    line.reset()


async def say_nonsense(line: Line) -> None:
    """Answer with what is no HTTP."""
    await close_after_body(line)
    await line.say(b"what?\r\n\r\n")


async def say_half(line: Line) -> None:
    """Answer with half a body."""
    await close_after_body(line)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (2 * len(CREATED))
    await line.say(head + CREATED)


async def say_created(line: Line) -> None:
    """Answer as the API does."""
    await close_after_body(line)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(CREATED)
    await line.say(head + CREATED)
    await say_nothing(line)


async def say_too_long(line: Line) -> None:
    """Answer 413 while the body is still under way, and read on."""
    await line.read_head()
    await line.read_body(0.1)
    await line.say(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    await line.reader.read(-1)


def say(answer: bytes, then: Script = close_at_once) -> Script:
    """Make the script of a proxy that answers a CONNECT."""

    async def script(line: Line) -> None:
        await line.read_head()
        assert line.head.startswith(b"CONNECT ")
        await line.say(answer)
        await then(line)

    return script


# Before there is a connection.


async def test_a_refused_connection() -> None:
    """It never left."""
    async with opened("http://127.0.0.1:9") as client:
        assert never_left(await post(client, "http://127.0.0.1:9/x"))
        assert type(client.raised) is aiohttp.ClientConnectorError


async def test_a_name_that_is_not_there() -> None:
    """It never left."""
    async with opened("http://no.such.invalid") as client:
        assert never_left(await post(client, "http://no.such.invalid/x"))
        assert type(client.raised) is aiohttp.ClientConnectorDNSError


async def test_no_url() -> None:
    """It never left."""
    async with opened("http://127.0.0.1:9") as client:
        assert never_left(await post(client, "http:///x"))
        assert isinstance(client.raised, aiohttp.InvalidURL)


async def test_tls_that_is_none() -> None:
    """It never left: nothing is sent before the handshake is over."""

    async def plain(line: Line) -> None:
        await line.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with raw_server(plain) as server:
        url = f"https://127.0.0.1:{server.port}"
        async with opened(url) as client:
            assert never_left(await post(client, f"{url}/x"))
            assert isinstance(client.raised, aiohttp.ClientConnectorError)


async def test_a_certificate_that_is_refused() -> None:
    """It never left, and does not pass by itself."""
    async with raw_server(say_created, tls=server_context()) as server:
        url = f"https://localhost:{server.port}"
        async with opened(url) as client:
            reply = await post(client, f"{url}/x")
            assert isinstance(reply, NotSent)
            assert isinstance(reply.error, TransportError)
            assert reply.error.reason == "certificate"
            assert type(client.raised) is aiohttp.ClientConnectorCertificateError
    assert all(line.head == b"" for line in server.lines)


async def test_a_handshake_that_hangs() -> None:
    """The limit that aiohttp has for connecting says that it never left; any other does not."""
    async with raw_server(say_nothing) as server:
        url = f"https://127.0.0.1:{server.port}"
        async with opened(url) as client:
            assert never_left(await post(client, f"{url}/x"))
            assert type(client.raised) is aiohttp.ConnectionTimeoutError
            assert now() == 15.0
            assert never_left(await post(client, f"{url}/x", limit_s=2.0))
            assert now() == 17.0
        async with aiohttp.ClientSession() as http:
            total = aiohttp.ClientTimeout(total=1.0)
            with pytest.raises(TimeoutError) as caught:
                await http.post(f"{url}/x", data=BODY, timeout=total)
            assert type(caught.value) is TimeoutError


async def test_a_place_of_a_given_connector_that_never_comes() -> None:
    """Who waits for one has sent nothing."""
    async with raw_server(say_nothing) as server:
        url = f"http://127.0.0.1:{server.port}"
        narrow = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1))
        async with narrow as http, opened(url, http) as client:
            busy = asyncio.ensure_future(post(client, f"{url}/x"))
            await asyncio.sleep(1.0)
            assert never_left(await post(client, f"{url}/x"))
            assert type(client.raised) is aiohttp.ConnectionTimeoutError
            assert not never_left(await busy)


# Proxies.


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give what makes a proxy of the environment of a server."""

    def use(server: RawServer | int) -> None:
        port = server if isinstance(server, int) else server.port
        for name in ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY"):
            monkeypatch.setenv(name, f"http://user:swordfish@127.0.0.1:{port}")

    return use


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_is_not_there(proxied: Any, scheme: str) -> None:
    """It never left."""
    proxied(9)
    async with opened(f"{scheme}://{OUTSIDE}") as client:
        reply = await post(client, f"{scheme}://{OUTSIDE}/x")
        assert isinstance(reply, NotSent)
        assert type(client.raised) is aiohttp.ClientProxyConnectionError
        assert "swordfish" not in str(reply.error)


@pytest.mark.parametrize("status", [b"407 Auth", b"502 Bad", b"403 No"])
async def test_a_proxy_that_refuses_to_connect(proxied: Any, status: bytes) -> None:
    """It never left."""
    script = say(b"HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n" % status)
    async with raw_server(script) as server:
        proxied(server)
        async with opened(f"https://{OUTSIDE}") as client:
            assert never_left(await post(client, f"https://{OUTSIDE}/x"))
            assert type(client.raised) is aiohttp.ClientHttpProxyError


async def test_a_proxy_that_connects_to_nothing(proxied: Any) -> None:
    """It says 200 and closes: the handshake fails, so it never left."""
    async with raw_server(say(b"HTTP/1.1 200 OK\r\n\r\n")) as server:
        proxied(server)
        async with opened(f"https://{OUTSIDE}") as client:
            assert never_left(await post(client, f"https://{OUTSIDE}/x"))
            assert isinstance(client.raised, aiohttp.ClientConnectorError)


async def test_a_proxy_that_hangs(proxied: Any) -> None:
    """Its CONNECT is part of connecting: it never left."""
    async with raw_server(say_nothing) as server:
        proxied(server)
        async with opened(f"https://{OUTSIDE}") as client:
            assert never_left(await post(client, f"https://{OUTSIDE}/x"))
            assert type(client.raised) is aiohttp.ConnectionTimeoutError


@pytest.mark.parametrize("script", [close_after_head, reset_after_head])
async def test_a_proxy_that_leaves_at_connect(proxied: Any, script: Script) -> None:
    """It never left, but looks as what did: doubt."""
    async with raw_server(script) as server:
        proxied(server)
        async with opened(f"https://{OUTSIDE}") as client:
            reply = await post(client, f"https://{OUTSIDE}/x")
            assert isinstance(reply, TransportError)
            kinds = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)
            assert isinstance(client.raised, kinds)


# Behind the connection.


BIG = b"x" * 10_000_000


@pytest.mark.parametrize(
    ("script", "body", "kinds"),
    [
        *(
            (script, BODY, (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError))
            for script in (
                *(close_at_once, reset_at_once, close_after_head, close_after_body),
                *(reset_after_head, reset_after_body),
            )
        ),
        (reset_half_way, BIG, (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)),
        (say_nonsense, BODY, (aiohttp.ClientResponseError,)),
        (say_half, BODY, (aiohttp.ClientPayloadError,)),
    ],
)
async def test_what_may_have_been_sent(
    script: Script, body: bytes, kinds: tuple[type[BaseException], ...]
) -> None:
    """Before, in and behind the body it looks alike: nothing is proved, and nothing sent again."""
    async with raw_server(script) as server:
        url = f"http://127.0.0.1:{server.port}"
        async with opened(url) as client:
            reply = await post(client, f"{url}/x", body)
            assert isinstance(reply, TransportError)
            assert isinstance(client.raised, kinds)
        assert len(server.lines) == 1


async def test_a_server_that_wants_a_certificate_of_the_client() -> None:
    """With TLS 1.3 that shows only when all was sent: doubt."""
    tls = server_context(wants_certificate=True)
    async with raw_server(say_created, tls=tls) as server, trusting() as http:
        url = f"https://localhost:{server.port}"
        async with opened(url, http) as client:
            reply = await post(client, f"{url}/x")
            assert isinstance(reply, TransportError)
            kinds = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)
            assert isinstance(client.raised, kinds)


async def test_a_body_that_is_too_long() -> None:
    """A 413 that comes while it is sent arrives as one."""
    async with raw_server(say_too_long) as server:
        url = f"http://127.0.0.1:{server.port}"
        async with opened(url) as client:
            reply = await post(client, f"{url}/x", BIG)
            assert isinstance(reply, Answer)
            assert reply.status == 413
            assert isinstance(read_created(reply, "e", wall_s=0.0), Refused)


async def test_no_answer() -> None:
    """It ends after the time of a create, counted from its start, and proves nothing."""
    async with raw_server(say_nothing) as server:
        url = f"http://127.0.0.1:{server.port}"
        async with opened(url) as client:
            reply = await post(client, f"{url}/x")
            assert isinstance(reply, TransportError)
            assert (reply.what, reply.reason) == ("no full answer within 60 s", "timeout")
            assert now() == 60.0


async def test_an_answer_that_is_too_long() -> None:
    """It is not read on, and proves nothing."""

    async def endless(request: web.Request) -> web.Response:
        return web.Response(body=bytes(2_000_000), status=400)

    app = web.Application()
    app.router.add_post("/x", endless)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async with opened(url) as client:
        reply = await post(client, f"{url}/x")
    assert isinstance(reply, KlingOmniError)
    await runner.cleanup()


# A connection of its own.


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("tls", [False, True])
async def test_each_post_has_a_connection_of_its_own(*, given: bool, tls: bool) -> None:
    """Also where the server would keep it open, and whoever owns the aiohttp session."""
    scheme = "https" if tls else "http"
    context = server_context() if tls else None
    async with raw_server(say_created, tls=context) as server, trusting() as http:
        url = f"{scheme}://localhost:{server.port}"
        async with opened(url, http if given else None) as client:
            if not given:
                posting = client._http_for_posts()
                connector = aiohttp.TCPConnector(force_close=True, ssl=client_context())
                client._posting = aiohttp.ClientSession(connector=connector)
                await posting.close()
            for _ in range(3):
                assert isinstance(await post(client, f"{url}/x"), Answer)
        await asyncio.sleep(1.0)
        assert len(server.lines) == 3
        assert all(line.body == BODY for line in server.lines)
        assert all(line.reader.at_eof() or line.reader.exception() for line in server.lines)


async def test_a_stale_connection_of_a_given_session_is_not_used() -> None:
    """One that a query has left behind, and that dies when it is used, makes no doubt."""

    async def answer_once(line: Line) -> None:
        await line.read_head()
        if line.head.startswith(b"POST"):
            await line.read_body()
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(CREATED)
        await line.say(head + CREATED)
        await line.reader.read(1)
        line.reset()

    async with raw_server(answer_once) as server, aiohttp.ClientSession() as http:
        url = f"http://127.0.0.1:{server.port}"
        async with opened(url, http) as client:
            assert isinstance(await client.fetch("1"), Answer)
            assert isinstance(await post(client, f"{url}/x"), Answer)
        assert len(server.lines) == 2


async def test_a_middleware_that_sends_again() -> None:
    """A given session's own cannot make a POST leave twice."""

    async def again(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        response = await handler(request)
        response.close()
        return await handler(request)

    async with (
        raw_server(say_created) as server,
        aiohttp.ClientSession(middlewares=[again]) as http,
    ):
        url = f"http://127.0.0.1:{server.port}"
        async with opened(url, http) as client:
            assert isinstance(await post(client, f"{url}/x"), TransportError)
        assert [line.body for line in server.lines if line.body] == [BODY]


async def test_a_middleware_that_finds_nobody_the_second_time() -> None:
    """That the second try never left proves nothing: the first has left."""

    async def again(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        try:
            return await handler(request)
        except aiohttp.ClientError:
            raise NEVER_LEFT[0] from None

    async with (
        raw_server(reset_after_body) as server,
        aiohttp.ClientSession(middlewares=[again]) as http,
    ):
        url = f"http://127.0.0.1:{server.port}"
        async with opened(url, http) as client:
            assert isinstance(await post(client, f"{url}/x"), TransportError)
        assert [line.body for line in server.lines] == [BODY]


async def test_a_middleware_that_hangs() -> None:
    """It ends some time after all that could be waited for."""

    async def hang(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        await asyncio.get_running_loop().create_future()
        return await handler(request)

    url = "http://127.0.0.1:9"
    async with aiohttp.ClientSession(middlewares=[hang]) as http, opened(url, http) as client:
        assert isinstance(await post(client, f"{url}/x"), TransportError)
        assert now() == 75.0


async def test_a_middleware_that_swallows_what_was_cancelled() -> None:
    """A cancellation that is nobody's is an error like any other."""

    async def cancelled(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        raise asyncio.CancelledError

    url = "http://127.0.0.1:9"
    async with aiohttp.ClientSession(middlewares=[cancelled]) as http, opened(url, http) as client:
        assert isinstance(await post(client, f"{url}/x"), TransportError)


async def test_a_given_session_that_was_closed() -> None:
    """Nothing was sent, and the text says why."""
    http = aiohttp.ClientSession()
    async with opened("http://127.0.0.1:9", http) as client:
        await http.close()
        reply = await post(client, "http://127.0.0.1:9/x")
        assert isinstance(reply, NotSent)
        assert isinstance(reply.error, ConfigurationError)


KEY_OF_A_HOST = ConnectionKey("api", 443, True, True, None, None, None)  # noqa: FBT003 - a tuple
NEVER_LEFT: list[Exception] = [
    aiohttp.ClientConnectorError(KEY_OF_A_HOST, OSError(111, "refused")),
    aiohttp.ClientConnectorDNSError(KEY_OF_A_HOST, OSError(0, "no such host")),
    aiohttp.ClientConnectorSSLError(KEY_OF_A_HOST, OSError(0, "handshake")),
    aiohttp.ClientConnectorCertificateError(KEY_OF_A_HOST, ssl.SSLCertVerificationError("bad")),
    aiohttp.ClientProxyConnectionError(KEY_OF_A_HOST, OSError(111, "refused")),
    aiohttp.ConnectionTimeoutError(),
    aiohttp.InvalidURL("x"),
    aiohttp.InvalidUrlClientError("x"),
]
DOUBTFUL: list[Exception] = [
    aiohttp.ClientOSError(104, "reset"),
    aiohttp.ServerDisconnectedError(),
    aiohttp.ClientPayloadError(),
    aiohttp.ClientConnectionError(),
    aiohttp.ServerTimeoutError(),
    aiohttp.SocketTimeoutError(),
    aiohttp.ClientError(),
    *(TimeoutError(), OSError(24, "no descriptor"), ssl.SSLError("x"), RuntimeError("closed")),
    *(ValueError("x"), KeyError("x"), MemoryError(), AssertionError(), UnicodeError()),
]


@pytest.mark.parametrize("error", [*NEVER_LEFT, *DOUBTFUL], ids=lambda error: type(error).__name__)
async def test_any_exception(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is in the closed list proves that nothing was sent; nothing else is raised."""

    async def fail(*_: object) -> None:
        raise error

    async with opened("http://127.0.0.1:9") as client:
        monkeypatch.setattr(client, "_exchange", fail)
        reply = await post(client, "http://127.0.0.1:9/x")
        assert isinstance(reply, NotSent if error in NEVER_LEFT else TransportError)


async def test_the_body_as_text() -> None:
    """Whoever logs requests can read it."""
    body = OneTimeBody(BODY, lambda: None)
    assert (body.decode(), body.size) == (BODY.decode(), len(BODY))
    assert body.content_type == "application/json"
    body.hang_up()


async def test_a_limit_that_has_passed() -> None:
    """Shortening it changes nothing before, behind, and where it would be longer."""
    limit = PostLimit(10.0)
    limit.shorten(1.0)
    limit.begun()

    async def work() -> str:
        limit.begun()
        limit.shorten(20.0)
        limit.shorten(5.0)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            limit.begun()
            await asyncio.sleep(50.0)
        return "never"

    with pytest.raises(TimeoutError):
        await limit.bound(work())
    assert now() == 55.0
    limit.shorten(1.0)
    limit.begun()


async def test_a_limit_that_was_shortened_while_it_connects() -> None:
    """That the request leaves then gives it no more time."""
    limit = PostLimit(60.0)

    async def work() -> str:
        limit.shorten(5.0)
        await asyncio.sleep(1.0)
        limit.begun()
        await asyncio.get_running_loop().create_future()
        return "never"

    with pytest.raises(TimeoutError):
        await limit.bound(work())
    assert now() == 5.0


# Through the session.


@pytest.mark.parametrize(
    "script", [close_after_body, reset_after_body, say_nonsense, say_half], ids=lambda s: s.__name__
)
async def test_doubt_reaches_the_caller(script: Script) -> None:
    """One POST, three looks, which meet the same, and the error that names the order."""
    async with raw_server(script) as server:
        url = f"http://127.0.0.1:{server.port}"
        async with KlingOmniSession(KEY, base_url=url) as session:
            with pytest.raises(CreateUncertainError) as caught:
                await session.create(ImageOrder("a fox"))
    heads = [line.head[:4] for line in server.lines]
    assert heads.count(b"POST") == 1
    assert caught.value.external_task_id.encode() in server.lines[0].body
    assert KEY not in f"{caught.value!r} {caught.value.__cause__!r}"


async def test_the_limit_for_connecting_through_the_session() -> None:
    """Three times 15 s, and it is certain that nothing was created."""
    async with raw_server(say_nothing) as server:
        url = f"https://127.0.0.1:{server.port}"
        async with KlingOmniSession(KEY, base_url=url) as session:
            with pytest.raises(TransportError) as caught:
                await session.create(ImageOrder("a fox"))
    assert caught.value.reason == "timeout"
    assert 50.0 <= now() <= 53.0
    assert len(server.lines) == 3


async def test_a_certificate_is_refused_once() -> None:
    """It does not pass by itself, so it is not tried again."""
    async with raw_server(say_created, tls=server_context()) as server:
        url = f"https://localhost:{server.port}"
        async with KlingOmniSession(KEY, base_url=url) as session:
            with pytest.raises(TransportError) as caught:
                await session.create(ImageOrder("a fox"))
    assert caught.value.reason == "certificate"
    assert now() < 1.0


async def test_a_given_session_creates(comet_api: SimulatedCometAPI) -> None:
    """An order goes through the user's own aiohttp session, which keeps no cookie of it."""
    comet_api.fail_next_create(headers={"Set-Cookie": "a=b"})
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
        async with KlingOmniSession(
            comet_api.api_key, base_url=comet_api.base_url, http=http, policy=PollPolicy()
        ) as session:
            task = await session.create(
                ImageOrder("a fox", images=[b"\x89PNG\r\n\x1a\n" * 200_000])
            )
            await session.wait(task.task_id)
        assert len(http.cookie_jar) == 0
    assert len(comet_api.billed) == 1


def test_the_certificate_of_the_tests() -> None:
    """It is one that a client can be made to trust."""
    assert isinstance(client_context(), ssl.SSLContext)
