"""Images from hosts that are not the API's, by an aiohttp client of our own."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from typing import Any, Final, TypeVar
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies_environment

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from kling_omni_async._config import Settings, proxy_for
from kling_omni_async._http import USER_AGENT, detail_of, reason_of
from kling_omni_async.errors import AssetExpiredError, DownloadError, KlingOmniError

from .addresses import connects_to_public, names_private
from .files import Taker
from .threads import MOST_THREADS

T = TypeVar("T")

MAX_REDIRECTS: Final = 5

STALL_S: Final = 30.0
"""The time for an answer to begin, and for each `PIECE_BYTES` of it, in s."""

PIECE_BYTES: Final = 32_768

_BUFFER_BYTES: Final = 262_144
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_GONE: Final = frozenset({403, 404, 410})
_LONGEST_TEXT: Final = 200
_HOST = re.compile(r"[A-Za-z0-9._:-]+")
"""No more: some proxies read ``%31.0.0.1`` and digits beyond ASCII as addresses."""


class RefusedAddressError(OSError):
    """Raised where a socket would lead into a private network.

    An ``OSError`` with the same text each time: several of them come out of aiohttp as one.
    """

    def __init__(self) -> None:
        super().__init__("its address is private")


def guarded_socket(address: tuple[int, int, int, str, tuple[Any, ...]]) -> socket.socket:
    """Make a socket for a public address.

    Raises:
        RefusedAddressError: The address is not public.
    """
    family, kind, protocol, _, target = address
    if not connects_to_public(str(target[0])):
        raise RefusedAddressError
    return socket.socket(family, kind, protocol)


class Names(AbstractResolver):
    """DNS in threads of its own: slow names of strangers must not keep the API's waiting.

    Args:
        most: How many names may be looked up at a time.
    """

    def __init__(self, most: int) -> None:
        self._threads = ThreadPoolExecutor(min(most, MOST_THREADS), "kling_omni_async.dns")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Give the addresses of a name.

        Raises:
            OSError: It has none.
        """
        ask = partial(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM)
        found = await asyncio.get_running_loop().run_in_executor(self._threads, ask)
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
        """Let the threads go; a look-up that still runs is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class Downloader:
    """Fetches images, without the API's key, without cookies and without a Referer.

    Direct connections are refused to addresses that are not public, after DNS. Through a proxy
    only hosts that are literal addresses can be checked: the proxy does the rest.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._most = settings.policy.max_image_bytes
        self._timeout_s = settings.policy.download_timeout
        self._clients: dict[bool, aiohttp.ClientSession] = {}
        self._names = Names(settings.policy.max_downloads)
        self._proxies: Mapping[str, str] | None = None

    def __repr__(self) -> str:
        return f"<Downloader {len(self._clients)} clients>"

    async def aclose(self) -> None:
        """Close what was opened."""
        for client in self._clients.values():
            await client.close()
        await self._names.close()

    async def fetch(self, url: str, take: Taker) -> str | None:
        """Bring the bytes of an image.

        Args:
            url: Its URL, used byte for byte.
            take: Takes them; a `DownloadError` that it raises comes out of here.

        Returns:
            The Content-Type.

        Raises:
            DownloadError: They did not all come.
            ConfigurationError: A proxy of the environment cannot be used.
        """
        failure: Exception
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._follow(url, take)
        except KlingOmniError:
            raise
        except Exception as error:  # noqa: BLE001 - all that is not an image is translated
            failure = error
        raise self._translated(failure)

    async def _follow(self, url: str, take: Taker) -> str | None:
        """Follow redirects, each checked as the first URL is."""
        for _ in range(MAX_REDIRECTS + 1):
            target = _parsed(url)
            client, proxy = self._route(target)
            asked = client.get(target, proxy=proxy, allow_redirects=False)
            async with await before_stall(asked) as response:
                location = response.headers.get("Location")
                if response.status not in _REDIRECTS or not location:
                    return await self._read(response, take)
            url = _joined(url, location)
        raise DownloadError(f"more than {MAX_REDIRECTS} redirects", reason="redirects")

    def _route(self, target: URL) -> tuple[aiohttp.ClientSession, URL | None]:
        """Choose the client and the proxy for a URL that may be fetched."""
        if self._settings.is_own_loopback(target):
            return self._client(guarded=False), None
        if target.scheme != "https":
            raise DownloadError(f"its URL is no https, but {target.scheme}", reason="url")
        if names_private(target.host or ""):
            raise _private()
        if self._proxies is None:
            self._proxies = getproxies_environment()
        proxy = proxy_for(target, self._proxies)
        return self._client(guarded=proxy is None), proxy

    def _client(self, *, guarded: bool) -> aiohttp.ClientSession:
        """Give the client that may connect to public addresses only, or to any."""
        if guarded not in self._clients:
            self._clients[guarded] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=self._settings.policy.max_downloads,
                    resolver=self._names,
                    socket_factory=guarded_socket if guarded else None,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
                timeout=aiohttp.ClientTimeout(total=None),
                read_bufsize=_BUFFER_BYTES,
            )
        return self._clients[guarded]

    async def _read(self, response: aiohttp.ClientResponse, take: Taker) -> str | None:
        _require_good(response)
        size = response.content_length or 0
        if size <= self._most:
            size = 0
            while piece := await before_stall(_piece(response.content)):
                size += len(piece)
                if size > self._most:
                    break
                await take(piece)
            else:
                return response.headers.get("Content-Type")
        raise DownloadError(
            f"more than {self._most} bytes; PollPolicy.max_image_bytes allows no more",
            http_status=response.status,
            reason="too-long",
        )

    def _translated(self, error: Exception) -> DownloadError:
        """Say in our words why an image did not come; foreign errors are not chained."""
        if isinstance(getattr(error, "os_error", None), RefusedAddressError):
            return _private()
        reason = reason_of(error)
        if isinstance(error, TimeoutError):
            text = f"not all of it came within {self._timeout_s:g} s"
        else:
            text = f"{reason}: {detail_of(error) or type(error).__name__}"[:_LONGEST_TEXT]
            text = text if text.isprintable() else ascii(text)[1:-1]  # a host's own words
        return DownloadError(text, reason=reason)


def _parsed(url: str) -> URL:
    """Parse a URL without changing a byte of it."""
    try:
        urlsplit(url)  # stricter with brackets
        parsed = URL(url, encoded=True)
        host, _ = parsed.host or "", parsed.port  # either may raise
        if ":" in host:
            ipaddress.IPv6Address(host)
    except (ValueError, IndexError):
        host = ""
    else:
        if _HOST.fullmatch(host) and url.isprintable() and " " not in url:
            return parsed
    raise DownloadError("its URL is none that can be fetched", reason="url")


def _joined(url: str, location: str) -> str:
    """Give the URL that a redirect names."""
    try:
        return urljoin(url, location)
    except ValueError:
        raise DownloadError("a redirect names no URL", reason="url") from None


def _private() -> DownloadError:
    return DownloadError("its host is in a private network", reason="address")


async def before_stall(work: Awaitable[T]) -> T:
    """Wait for a piece of an answer, or for its beginning, but not for ever.

    Raises:
        DownloadError: It took too long.
    """
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
    while size < PIECE_BYTES and (chunk := await content.readany()):
        chunks.append(chunk)
        size += len(chunk)
    return b"".join(chunks)


def _require_good(response: aiohttp.ClientResponse) -> None:
    """Raise why a status brings no image.

    Raises:
        DownloadError: It is not 200.
    """
    status = response.status
    if status in _GONE:
        raise AssetExpiredError(
            f"HTTP {status}: the URL has expired, or its image was cleared",
            http_status=status,
            reason="expired",
        )
    if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        raise DownloadError("the proxy refuses", http_status=status, reason="proxy")
    if status != HTTPStatus.OK:
        raise DownloadError(f"HTTP {status} instead of an image", http_status=status, reason="http")
