"""Which hosts are asked for images, and by which way: DNS, proxies, certificates."""

from __future__ import annotations

import asyncio
import errno
import gzip
import os
import socket
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest

from kling_omni_async import DownloadError, PollPolicy
from kling_omni_async._config import make_settings
from kling_omni_async._saving.download import (
    WRITE_BYTES,
    Downloader,
    GuardedResolver,
    OwnThreadResolver,
    RefusedAddressError,
    before_stall,
    guarded_socket,
)
from kling_omni_async.errors import ConfigurationError

pytestmark = pytest.mark.anyio

IMAGE = "https://images.example/1.png?signature=secret"

Hear = Callable[[bytes], bytes]


@pytest.fixture
async def downloader() -> AsyncGenerator[Downloader]:
    """Give what fetches images for a session with the real API."""
    settings = make_settings("sk-secret", None, PollPolicy(), allow_http=False)
    made = Downloader(settings)
    yield made
    await made.aclose()


def ignore(_: bytes) -> None:
    """Write a piece of an image nowhere."""


async def fault_of(downloader: Downloader, url: str) -> DownloadError:
    """Fetch what cannot be had."""
    with pytest.raises(DownloadError) as caught:
        await downloader.fetch(url, ignore)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    return caught.value


@asynccontextmanager
async def server(answer: bytes) -> AsyncGenerator[tuple[int, list[bytes]]]:
    """Answer each request with the same bytes; gives the port, and what was heard."""
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(65_536))
        writer.write(answer)
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1], heard


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
    """Let every name have these addresses and ports."""

    def getaddrinfo(*_: Any, **__: Any) -> list[Any]:
        return [
            (
                socket.AF_INET6 if ":" in host else socket.AF_INET,
                socket.SOCK_STREAM,
                socket.IPPROTO_TCP,
                "",
                (host, port, 0, 0) if ":" in host else (host, port),
            )
            for host, port in addresses
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize(
    "addresses",
    [
        ("127.0.0.1",),
        ("10.1.2.3",),
        ("169.254.169.254",),
        ("::1",),
        ("fd00:ec2::254",),
        ("::ffff:10.0.0.1",),
        ("10.1.2.3", "192.168.0.1", "::1"),
    ],
    ids=str,
)
async def test_a_name_of_a_private_address(
    addresses: tuple[str, ...], downloader: Downloader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address is refused after DNS, on the socket: a harmless name does not help."""
    async with server(b"") as (port, heard):
        resolve_to(monkeypatch, *((address, port) for address in addresses))
        error = await fault_of(downloader, IMAGE)
    assert (error.reason, error.transient) == ("address", False)
    assert str(error) == (
        f"its host images.example ({addresses[0]}) is in a private network; if you trust it, add "
        "it to PollPolicy.allow_hosts"
    )
    assert heard == []


class Connections:
    """What is connected to, in the network's place; the guard of sockets is asked first.

    Args:
        error: What connecting to a public address ends in.

    Attributes:
        tried: The addresses.
    """

    def __init__(self, error: Exception) -> None:
        self._error = error
        self.tried: list[str] = []

    async def start(
        self, addr_infos: list[Any], socket_factory: Callable[..., socket.socket] | None, **_: Any
    ) -> socket.socket:
        self.tried.append(addr_infos[0][4][0])
        if socket_factory is not None:
            socket_factory(addr_infos[0]).close()
        raise self._error


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> Connections:
    """Give a network in which every certificate is refused."""
    made = Connections(ssl.SSLCertVerificationError("Hostname mismatch"))
    monkeypatch.setattr("aiohttp.connector.aiohappyeyeballs.start_connection", made.start)
    return made


@pytest.mark.parametrize(
    "addresses", [("8.8.8.8", "10.0.0.1"), ("10.0.0.1", "8.8.8.8"), ("::1", "8.8.8.8", "fd00::1")]
)
async def test_the_true_reason_behind_mixed_addresses(
    addresses: tuple[str, ...],
    downloader: Downloader,
    monkeypatch: pytest.MonkeyPatch,
    connections: Connections,
) -> None:
    """Where DNS gives public and private addresses, the public one says why there is no image."""
    resolve_to(monkeypatch, *((address, 443) for address in addresses))
    error = await fault_of(downloader, IMAGE)
    assert (error.reason, error.transient) == ("certificate", False)
    assert "Hostname mismatch" in str(error)
    assert connections.tried == ["8.8.8.8"]


async def test_fake_addresses_of_a_proxy(
    downloader: Downloader, monkeypatch: pytest.MonkeyPatch, connections: Connections
) -> None:
    """An address of 198.18.0.0/15 is connected to when DNS has given it, and not as a literal."""
    resolve_to(monkeypatch, ("198.18.0.7", 443))
    assert (await fault_of(downloader, IMAGE)).reason == "certificate"
    assert connections.tried == ["198.18.0.7"]
    assert (await fault_of(downloader, "https://198.18.0.7/1.png")).reason == "address"
    assert connections.tried == ["198.18.0.7"]


@pytest.mark.parametrize(
    "url",
    [IMAGE, "https://IMAGES.example./1.png", "https://10.1.2.3/1.png", "https://a.minio/1.png"],
)
async def test_hosts_that_the_policy_allows(
    url: str, monkeypatch: pytest.MonkeyPatch, connections: Connections
) -> None:
    """A host of `allow_hosts` may be on any address; others may not."""
    policy = PollPolicy(allow_hosts=("Images.Example", "10.1.2.3", "*.minio"))
    own = Downloader(make_settings("k", None, policy, allow_http=False))
    resolve_to(monkeypatch, ("10.1.2.3", 443))
    assert (await fault_of(own, url)).reason == "certificate"
    assert connections.tried == ["10.1.2.3"]
    for other in ("https://other.example/1.png", "https://10.1.2.4/1.png"):
        assert (await fault_of(own, other)).reason == "address"
    assert connections.tried == ["10.1.2.3"]
    await own.aclose()


@pytest.mark.parametrize("host", ["b\u00fccher.example", "xn--bcher-kva.example"])
async def test_hosts_of_other_letters(
    host: str, downloader: Downloader, monkeypatch: pytest.MonkeyPatch, connections: Connections
) -> None:
    """DNS is asked for the form in ASCII, whichever form a URL has."""
    asked: list[str] = []

    def getaddrinfo(name: str, *_: Any, **__: Any) -> list[Any]:
        asked.append(name)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", 443))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert (await fault_of(downloader, f"https://{host}/1.png")).reason == "certificate"
    assert asked == ["xn--bcher-kva.example"]
    assert connections.tried == ["8.8.8.8"]


async def test_a_name_without_any_address(
    downloader: Downloader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resolver that gives nothing at all is an error of that image alone."""
    resolve_to(monkeypatch)
    with pytest.raises(DownloadError):
        await downloader.fetch(IMAGE, ignore)


def test_the_guard_of_sockets() -> None:
    """It makes sockets for public addresses, and for no others."""
    with guarded_socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("8.8.8.8", 443))) as made:
        assert made.family == socket.AF_INET
    for address in ("127.0.0.1", "", "nonsense"):
        with pytest.raises(RefusedAddressError):
            guarded_socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, 443)))


async def test_no_such_host(downloader: Downloader, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that DNS does not know may be known later."""

    def fail(*_: Any, **__: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    error = await fault_of(downloader, IMAGE)
    assert (error.reason, error.transient) == ("dns", True)
    assert "signature" not in str(error)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
@pytest.mark.parametrize("where", ["dns", "socket"])
async def test_no_descriptor_for_a_connection(
    where: str, number: int, downloader: Downloader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that cannot be asked for want of descriptors may be asked later, and it says so."""

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    if where == "dns":
        monkeypatch.setattr(socket, "getaddrinfo", fail)
    else:
        resolve_to(monkeypatch, ("8.8.8.8", 443), ("1.1.1.1", 443))
        monkeypatch.setattr("kling_omni_async._saving.download.guarded_socket", fail)
    error = await fault_of(downloader, IMAGE)
    assert (error.reason, error.transient) == ("descriptors", True)
    assert os.strerror(number) in str(error)


async def test_a_proxy_is_asked(downloader: Downloader, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment's proxy is asked for the host, which DNS here need not know."""
    async with server(b"HTTP/1.1 403 Forbidden\r\n\r\n") as (port, heard):
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:pw@127.0.0.1:{port}")
        error = await fault_of(downloader, IMAGE)
        assert (await fault_of(downloader, IMAGE)).reason == "proxy"
    assert (error.reason, error.transient) == ("proxy", True)
    assert len(heard) == 2
    for request in heard:
        assert request.startswith(b"CONNECT images.example:443 HTTP/1.1\r\n")
        assert b"sk-secret" not in request
    assert "pw" not in str(error)


@pytest.mark.parametrize("host", ["10.0.0.1", "[::1]", "127.1", "localhost", "a.localhost."])
async def test_a_proxy_is_not_asked_for_private_hosts(
    host: str, downloader: Downloader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A literal address, or a name of this machine, is refused before a proxy hears of it."""
    async with server(b"HTTP/1.1 403 Forbidden\r\n\r\n") as (port, heard):
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        error = await fault_of(downloader, f"https://{host}/1.png")
    assert error.reason == "address"
    assert heard == []


async def test_no_proxy(downloader: Downloader, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that the environment exempts is asked directly, and so is guarded."""
    async with server(b"HTTP/1.1 403 Forbidden\r\n\r\n") as (port, heard):
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("NO_PROXY", "images.example")
        resolve_to(monkeypatch, ("127.0.0.1", port))
        error = await fault_of(downloader, IMAGE)
    assert error.reason == "address"
    assert heard == []


async def test_a_proxy_that_is_none(
    downloader: Downloader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable that names no proxy is an error of the set-up."""
    monkeypatch.setenv("HTTPS_PROXY", "socks5://127.0.0.1:1")
    with pytest.raises(ConfigurationError, match="HTTPS_PROXY"):
        await downloader.fetch(IMAGE, ignore)


async def test_a_proxy_that_wants_a_password() -> None:
    """407 is the proxy's word, also where it stands for the host's own answer."""
    answer = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
    async with server(answer) as (port, _):
        base = f"http://127.0.0.1:{port}"
        own = Downloader(make_settings("k", base, PollPolicy(), allow_http=False))
        error = await fault_of(own, f"{base}/1.png")
        await own.aclose()
    assert (error.reason, error.http_status, error.transient) == ("proxy", 407, True)


async def test_a_compressed_body_is_unpacked() -> None:
    """A host that packs images although nobody asked for that does no harm."""
    packed = bytes.fromhex("1f8b08000000000002ff4b4c4a06 00c241243503000000".replace(" ", ""))
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Type: image/png\r\n"
    answer = head + b"Content-Length: %d\r\n\r\n" % len(packed) + packed
    pieces: list[bytes] = []
    async with server(answer) as (port, heard):
        base = f"http://127.0.0.1:{port}"
        own = Downloader(make_settings("k", base, PollPolicy(), allow_http=False))
        rest = await own.fetch(f"{base}/1.png", pieces.append)
        await own.aclose()
    assert pieces == []  # so little is written with the name
    assert rest == b"abc"
    assert b"Accept-Encoding: identity\r\n" in heard[0]


@asynccontextmanager
async def own_host(answer: bytes, **policy: Any) -> AsyncGenerator[tuple[Downloader, str]]:
    """Serve one answer as an API on this machine would; gives a downloader, and the URL."""
    async with server(answer) as (port, _):
        base = f"http://127.0.0.1:{port}"
        made = Downloader(make_settings("k", base, PollPolicy(**policy), allow_http=False))
        yield made, f"{base}/1.png"
        await made.aclose()


async def test_a_body_without_an_announced_length() -> None:
    """The limit on bytes holds while they come, where no length says how many there will be."""
    answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + bytes(50_000)
    async with own_host(answer, max_image_bytes=49_999) as (downloader, url):
        error = await fault_of(downloader, url)
    assert error.reason == "too-long"
    async with own_host(answer, max_image_bytes=50_000) as (downloader, url):
        await downloader.fetch(url, ignore)


async def test_a_bomb_is_not_unpacked() -> None:
    """The limit is on the bytes behind the decompression; what is over it is not read on."""
    packed = gzip.compress(bytes(50_000_000))
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    pieces: list[int] = []

    def write(piece: bytes) -> None:
        pieces.append(len(piece))

    async with own_host(head % len(packed) + packed, max_image_bytes=1_000_000) as (own, url):
        with pytest.raises(DownloadError) as caught:
            await own.fetch(url, write)
    assert caught.value.reason == "too-long"
    assert 0 < sum(pieces) <= 1_000_000


async def test_large_bodies_are_written_on_the_way() -> None:
    """What is held of an image never grows with it; what was written and the rest are all of it."""
    image = Random(1).randbytes(3_000_000)
    pieces: list[bytes] = []
    head = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nConnection: close\r\n\r\n"
    async with own_host(head + image) as (downloader, url):
        rest = await downloader.fetch(url, pieces.append)
    assert b"".join([*pieces, rest]) == image
    assert all(WRITE_BYTES <= len(piece) < 4 * WRITE_BYTES for piece in pieces)
    assert len(rest) < 4 * WRITE_BYTES


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"Content-Length: abc\r\n", "Content-Length"),
        (b"Content-Encoding: br\r\n", "decode content-encoding: br"),
        (b"X-Long: " + b"a" * 70_000 + b"\r\n", "more than 65536 bytes"),
        (b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", "chunk"),
    ],
    ids=["length", "encoding", "headers", "chunks"],
)
async def test_what_cannot_be_read_says_what_it_is(head: bytes, words: str) -> None:
    """A host that says 200 is not told as HTTP 400, which is aiohttp's own number."""
    answer = b"HTTP/1.1 200 OK\r\n" + head + b"\r\nabc"
    async with own_host(answer) as (downloader, url):
        error = await fault_of(downloader, url)
    assert str(error).startswith("protocol: the answer cannot be read: ")
    assert words in str(error)
    assert "400" not in str(error)
    assert (error.reason, error.http_status, error.transient) == ("protocol", None, True)


async def test_long_headers_are_read() -> None:
    """Headers of up to 64 KiB are no reason to lose an image."""
    head = b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 60_000 + b"\r\nConnection: close\r\n\r\n"
    async with own_host(head + b"abc") as (downloader, url):
        assert await downloader.fetch(url, ignore) == b"abc"


async def test_a_date_to_wait_for() -> None:
    """A `Retry-After` that is a date is read by the clock of this machine, as HTTP has it."""
    answer = b"HTTP/1.1 503 No\r\nRetry-After: Sun, 03 May 2026 03:10:07 GMT\r\n\r\n"
    async with server(answer) as (port, _):
        base = f"http://127.0.0.1:{port}"
        settings = make_settings("k", base, PollPolicy(), allow_http=False)
        own = Downloader(settings, wall_clock=lambda: 1_777_777_777.0)
        error = await fault_of(own, f"{base}/1.png")
        await own.aclose()
    assert error.retry_after == 30.0


async def test_the_resolver_holds_nothing() -> None:
    """Closing the guard leaves what it asks to its owner."""
    inner = OwnThreadResolver(1)
    await GuardedResolver(inner).close()
    assert await inner.resolve("127.0.0.1", 80)
    await inner.close()


async def test_a_time_out_that_is_not_ours() -> None:
    """A connection that the system gives up is no stall."""

    async def give_up() -> None:
        raise TimeoutError(errno.ETIMEDOUT, "Connection timed out")

    with pytest.raises(TimeoutError, match="Connection timed out"):
        await before_stall(give_up())


async def test_its_repr(downloader: Downloader) -> None:
    """It tells its state and no secret."""
    assert repr(downloader) == "<Downloader 0 clients>"
