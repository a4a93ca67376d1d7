"""Images from hosts that are not the API's, by an aiohttp client of our own."""

from __future__ import annotations

import asyncio
import codecs
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final, Protocol, TypeVar
from urllib.request import getproxies_environment

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from kling_omni_async._config import proxy_for
from kling_omni_async._http import (
    MOST_HEADER_BYTES,
    USER_AGENT,
    detail_of,
    reason_of,
    retry_after_s,
)
from kling_omni_async._observer import Door
from kling_omni_async._policy import PollPolicy
from kling_omni_async.errors import DownloadError, KlingOmniError

from .hosts import (
    fetchable_url,
    is_allowed,
    may_connect,
    names_private,
    plain_host,
    private_host_error,
    redirected,
)
from .rules import require_bytes, require_good
from .threads import OwnThreads, in_thread

T = TypeVar("T")
Writer = Callable[[bytes], object]

# Python imports what this finds with the first look-up of a name: by then files may have run out.
codecs.lookup("idna")

MAX_REDIRECTS: Final = 5

STALL_S: Final = 30.0
"""The time for an answer to begin, and for each `PIECE_BYTES` of it, in s."""

PIECE_BYTES: Final = 32_768

WRITE_BYTES: Final = 262_144
"""How many bytes are held before they are written, if so many come."""

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_LONGEST_TEXT: Final = 200


class RefusedAddressError(OSError):
    """Raised where all addresses of a host lead into a private network.

    Args:
        address: One of them.
        host: Which host.
    """

    def __init__(self, address: str, host: str) -> None:
        super().__init__("its address is private")
        self.address = address
        self.host = host


def guarded_socket(address: tuple[int, int, int, str, tuple[Any, ...]]) -> socket.socket:
    """Make a socket for an address, or raise `RefusedAddressError` if it is not public."""
    family, kind, protocol, _, target = address
    if not may_connect(str(target[0])):
        raise RefusedAddressError(str(target[0]), str(target[0]))
    return socket.socket(family, kind, protocol)


class OwnThreadResolver(AbstractResolver):
    """DNS in threads of its own: slow names of strangers must not keep the API's waiting."""

    def __init__(self, most: int) -> None:
        self._threads = OwnThreads("kling_omni_async.dns", most)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of a name, or raise an OSError."""
        # Without addresses of a family that this machine has no way to: what fails there last
        # would hide why the other one failed, such as a certificate.
        flags = socket.AI_ADDRCONFIG
        ask = partial(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM, flags=flags)
        found = await asyncio.get_running_loop().run_in_executor(self._threads.pool, ask)
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST,
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """Release the threads; a look-up that still runs is not waited for."""
        self._threads.close()


class GuardedResolver(AbstractResolver):
    """DNS that leaves out what leads into a private network, and refuses where nothing is left.

    Not left to the sockets alone: what fails at the last of several addresses would be taken for
    the reason, although another one had the true one.
    """

    def __init__(self, inner: AbstractResolver) -> None:
        self._inner = inner

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of a name that may be connected to, or raise an OSError."""
        found = await self._inner.resolve(host, port, family)
        kept = [each for each in found if may_connect(each["host"])]
        if found and not kept:
            raise RefusedAddressError(found[0]["host"], host)
        return kept

    async def close(self) -> None:
        """Do nothing: it holds nothing."""


class SaveSettings(Protocol):
    """How images are fetched, and whose: a session's settings, or what a book knows."""

    @property
    def policy(self) -> PollPolicy:
        """The limits of a download."""
        ...

    def is_own_loopback(self, url: URL) -> bool:
        """Whether a URL is on the very host and port of an API that is on this machine."""
        ...


class Downloader:
    """Fetches images, without the API's key, without cookies and without a Referer.

    Direct connections are refused to addresses that are not public, after DNS, but for hosts that
    the policy allows. Through a proxy only hosts that are literal addresses can be checked: the
    proxy does the rest. `wall_clock`, in s since the epoch, is for a ``Retry-After`` that is a
    date.
    """

    def __init__(
        self,
        settings: SaveSettings,
        *,
        wall_clock: Callable[[], float] = time.time,
        door: Door | None = None,
    ) -> None:
        self._settings = settings
        self._door = door or Door()
        self._allowed = frozenset(map(plain_host, settings.policy.allow_hosts))
        self._wall_clock = wall_clock
        # Two, as the guard is on all sockets of a client: proxies, and an API on this machine, may
        # have private addresses.
        self._clients: dict[bool, aiohttp.ClientSession] = {}
        self._resolver = OwnThreadResolver(settings.policy.max_downloads)
        self._proxies: Mapping[str, str] | None = None

    def __repr__(self) -> str:
        return f"<Downloader {len(self._clients)} clients>"

    async def aclose(self) -> None:
        """Close what was opened."""
        for client in self._clients.values():
            await client.close()
        await self._resolver.close()

    async def fetch(self, url: str, write: Writer) -> bytes:
        """Bring the bytes of an image: all but the last are written, those are returned.

        Raises:
            DownloadError: They did not all come.
            ConfigurationError: A proxy of the environment cannot be used.
            KlingOmniError: What `write` raises.
        """
        # Raised behind the handler: else a foreign error, which may quote a signed URL, goes along.
        failure: Exception
        try:
            async with asyncio.timeout(self._settings.policy.download_timeout):
                return await self._follow(url, write)
        except KlingOmniError:
            raise
        except Exception as error:  # noqa: BLE001 - all that is not an image is translated
            failure = error
        raise self._translated(failure)

    async def _follow(self, url: str, write: Writer) -> bytes:
        """Follow redirects, each checked as the first URL is."""
        place = url
        for _ in range(MAX_REDIRECTS + 1):
            target = fetchable_url(place)
            client, proxy = self._route(target)
            # aiohttp would follow by itself, past all checks.
            asked = client.get(
                target,
                proxy=proxy,
                allow_redirects=False,
                max_line_size=MOST_HEADER_BYTES,
                max_field_size=MOST_HEADER_BYTES,
            )
            with self._door.hushed():
                response = await before_stall(asked)
            async with response:
                location = response.headers.get("Location")
                if response.status not in _REDIRECTS or not location:
                    return await self._read(response, write)
            place = redirected(place, location)
        raise DownloadError(f"more than {MAX_REDIRECTS} redirects", reason="redirects")

    def _route(self, target: URL) -> tuple[aiohttp.ClientSession, URL | None]:
        """Choose the client and the proxy for a URL that may be fetched."""
        if self._settings.is_own_loopback(target):
            return self._client(guarded=False), None
        if target.scheme != "https":
            raise DownloadError(f"its URL is no https, but {target.scheme}", reason="url")
        host = target.raw_host or ""
        allowed = is_allowed(host, self._allowed)
        if names_private(host) and not allowed:
            raise private_host_error(host)
        if self._proxies is None:
            self._proxies = getproxies_environment()
        proxy = proxy_for(target, self._proxies)
        return self._client(guarded=proxy is None and not allowed), proxy

    def _client(self, *, guarded: bool) -> aiohttp.ClientSession:
        """Return the client that may connect to public addresses only, or to any."""
        if guarded not in self._clients:
            self._clients[guarded] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=self._settings.policy.max_downloads,
                    resolver=GuardedResolver(self._resolver) if guarded else self._resolver,
                    socket_factory=guarded_socket if guarded else None,
                ),
                # What one host sets is nothing to another, and nothing to the next image.
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
                # `fetch` and `before_stall` keep the time: by bytes, not by reads, of which a
                # host that trickles could make one a second for ever.
                timeout=aiohttp.ClientTimeout(total=None),
                read_bufsize=WRITE_BYTES,
            )
        return self._clients[guarded]

    async def _read(self, response: aiohttp.ClientResponse, write: Writer) -> bytes:
        """Read a body, write it in large pieces, and return what is left behind them."""
        asked_s = retry_after_s(response.headers.get("Retry-After"), self._wall_clock())
        require_good(response.status, retry_after=asked_s)
        most = self._settings.policy.max_image_bytes
        # What is announced may be a lie: it is believed only where it is too much.
        size, announced = 0, response.content_length or 0
        held = bytearray()
        while max(size, announced) <= most:
            # A small image needs no thread of its own: the one that names it writes it, too.
            if len(held) >= WRITE_BYTES:
                await in_thread(write, bytes(held))
                held.clear()
            piece = await before_stall(_piece(response.content))
            if not piece:
                require_bytes(size)
                return bytes(held)
            held += piece
            size += len(piece)
        raise DownloadError(
            f"more than {most} bytes", http_status=response.status, reason="too-long"
        )

    def _translated(self, error: Exception) -> DownloadError:
        """Say in our words why an image did not come; foreign errors are not chained."""
        refused = getattr(error, "os_error", None)
        if isinstance(refused, RefusedAddressError):
            return private_host_error(refused.host, refused.address)
        reason = reason_of(error)
        if isinstance(error, TimeoutError):
            text = f"not all of it came within {self._settings.policy.download_timeout:g} s"
        else:
            text = f"{reason}: {detail_of(error) or type(error).__name__}"[:_LONGEST_TEXT]
            text = text if text.isprintable() else ascii(text)[1:-1]  # a host's own words
        return DownloadError(text, reason=reason)


async def before_stall(work: Awaitable[T]) -> T:
    """Wait for a piece of an answer, or for its beginning, but not for ever."""
    limit = asyncio.timeout(STALL_S)
    try:
        async with limit:
            return await work
    except TimeoutError:
        if not limit.expired():
            raise
    raise DownloadError(f"it stalled: too little came in {STALL_S:g} s", reason="stalled")


async def _piece(content: aiohttp.StreamReader) -> bytes:
    """Collect `PIECE_BYTES` or more of a body, less only at its end."""
    chunks: list[bytes] = []
    size = 0
    # Not `readany`: with it aiohttp 3.14.0 unpacks a compressed body whole.
    while size < PIECE_BYTES and (chunk := await content.read(PIECE_BYTES)):
        chunks.append(chunk)
        size += len(chunk)
    return b"".join(chunks)
