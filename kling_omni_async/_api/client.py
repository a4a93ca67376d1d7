"""One bounded GET by aiohttp."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from kling_omni_async._config import Settings
from kling_omni_async._http import USER_AGENT, detail_of, reason_of
from kling_omni_async._ids import path_segment
from kling_omni_async.errors import (
    ConfigurationError,
    KlingOmniError,
    ResponseError,
    TransportError,
)

from .answers import SNIPPET_LENGTH, Answer

KEEP_ALIVE_S: Final = 45.0
"""Longer than one interval, so that each poll does not shake hands anew."""

_CHUNK_BYTES: Final = 65_536
_REDACTED: Final = "[redacted]"
_NO_TIMEOUT: Final = aiohttp.ClientTimeout()
"""The library's own costs less than a timer for each query."""


class Client:
    """Queries over one aiohttp session, the caller's or one of our own."""

    def __init__(self, settings: Settings, http: aiohttp.ClientSession | None) -> None:
        self._settings = settings
        self._given = http
        self._http = http
        self._proxy: URL | None = None
        self._time_limit = SharedTimeout(settings.policy.query_timeout)
        self._key = settings.api_key.encode()
        # For each request: what a session has by itself goes to proxies too.
        self._headers = CIMultiDict(
            {
                "Authorization": f"Bearer {settings.api_key}",
                "Accept": "application/json",
                "User-Agent": USER_AGENT,
            }
        )

    def __repr__(self) -> str:
        return f"<Client to {self._settings.base_url}>"

    def bind(self) -> None:
        """Check what is known only in a running loop.

        Raises:
            ConfigurationError: The given session is closed or of another loop, or a proxy of
                the environment cannot be used.
        """
        self._proxy = self._settings.proxy()
        if self._given is not None:
            require_usable(self._given)
            _require_this_loop(self._given)

    async def open(self) -> int | None:
        """Open a session of our own unless one was given.

        Returns:
            The most connections that the given session's connector has, or None.
        """
        if self._given is not None:
            return _connections(self._given.connector)
        limit = self._settings.policy.max_concurrency
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=limit, keepalive_timeout=KEEP_ALIVE_S),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return None

    async def aclose(self) -> None:
        """Close the session if it is our own."""
        if self._given is None and self._http is not None:
            await self._http.close()

    async def fetch(self, task_id: str) -> Answer | KlingOmniError:
        """Send one query.

        Returns:
            The answer, whatever it says, or why there is none.
        """
        url = self._settings.task_url(path_segment(task_id))
        try:
            with self._time_limit:
                return await self._get(url, task_id)
        except Exception as error:  # noqa: BLE001 - all that is not an answer is translated
            return self._translate(error, task_id)  # kept in no frame: its own hold the key

    async def _get(self, url: URL, task_id: str) -> Answer | KlingOmniError:
        assert self._http is not None  # noqa: S101 - opened by the owner task
        response = await self._http.get(
            url,
            headers=self._headers,
            proxy=self._proxy,
            allow_redirects=False,
            raise_for_status=False,
            timeout=_NO_TIMEOUT,
            auto_decompress=True,
        )
        try:
            body = await self._read(response)
            headers = self._redacted_headers(response.headers)
        finally:
            response.release()
        if len(body) > self._settings.policy.max_response_bytes:
            return self._too_long(response.status, body, task_id)
        return Answer(response.status, self._redacted(body), headers)

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        """Read a body, but not far beyond the longest that is accepted."""
        most = self._settings.policy.max_response_bytes
        content = response.content
        chunks = [await content.read(_CHUNK_BYTES)]
        size = len(chunks[0])
        while not content.at_eof():
            if size > most:
                response.close()
                break
            chunks.append(await content.read(_CHUNK_BYTES))
            size += len(chunks[-1])
        return b"".join(chunks)

    def _too_long(self, status: int, body: bytes, task_id: str) -> ResponseError:
        most = self._settings.policy.max_response_bytes
        snippet = self._redacted(body[:SNIPPET_LENGTH]).decode("utf-8", "replace")
        return ResponseError(
            f"HTTP {status}: an answer of more than {most} bytes was not read on",
            task_id=task_id,
            http_status=status,
            snippet=snippet,
        )

    def _redacted(self, body: bytes) -> bytes:
        """Take the key out of a body that echoes it."""
        return body.replace(self._key, _REDACTED.encode()) if self._key in body else body

    def _redacted_headers(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        key = self._settings.api_key
        if key not in "\n".join(headers.values()):
            return headers
        pairs = {name: value.replace(key, _REDACTED) for name, value in headers.items()}
        return CIMultiDict(pairs)

    def _translate(self, error: Exception, task_id: str) -> KlingOmniError:
        """Say in our words why there is no answer.

        Foreign errors are not chained: they hold request headers and proxy credentials.
        """
        if self._http is None or self._http.closed:
            return ConfigurationError("the given aiohttp session was closed", task_id=task_id)
        reason = reason_of(error)
        detail = detail_of(error).replace(self._settings.api_key, _REDACTED)[:SNIPPET_LENGTH]
        text = f"{reason}: {detail or type(error).__name__}"
        if reason == "timeout":
            text = f"no full answer within {self._settings.policy.query_timeout:g} s"
        return TransportError(text, task_id=task_id, reason=reason)


def require_usable(http: aiohttp.ClientSession) -> None:
    """Refuse a session that would clash with our header, or that cannot send.

    Raises:
        ConfigurationError: It has default auth or ``trust_env=True``, or it is closed.
    """
    if http.closed:
        raise ConfigurationError("the given aiohttp session is closed; give an open one")
    if http.auth is not None:
        raise ConfigurationError(
            "the given aiohttp session has default auth, which clashes with the API key; "
            "give one that was made without auth="
        )
    if http.trust_env:
        raise ConfigurationError(
            "the given aiohttp session has trust_env=True, so netrc may clash with the API key; "
            "give one without it, proxies of the environment are used all the same"
        )


def _require_this_loop(http: aiohttp.ClientSession) -> None:
    # The public property of the same name warns that it is deprecated.
    if getattr(http, "_loop", None) is not asyncio.get_running_loop():
        raise ConfigurationError(
            "the given aiohttp session is bound to another event loop; make it in this one"
        )


def _connections(connector: aiohttp.BaseConnector | None) -> int | None:
    """Give the most connections that a connector opens to one host, or None for no limit."""
    if connector is None:
        return None
    limits = [limit for limit in (connector.limit, connector.limit_per_host) if limit]
    return min(limits, default=None)


class SharedTimeout:
    """Does what `asyncio.timeout` does, around any number of tasks at once.

    What began first is due first, so the tasks stand in the order of their deadlines, and the
    loop's heap of timers is spared two steps for each query.

    Args:
        limit_s: How long each may take, in s.
    """

    __slots__ = ("_limit_s", "_overdue", "_running", "_timer")

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._running: OrderedDict[asyncio.Task[Any], float] = OrderedDict()
        self._overdue: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = self._running[_this_task(loop)] = loop.time() + self._limit_s
        if self._timer is None:
            self._timer = loop.call_at(deadline, self._ring)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Turn our own cancellation into an exception, and leave everybody else's alone.

        Raises:
            TimeoutError: The time was up.
        """
        task = _this_task(asyncio.get_running_loop())
        self._running.pop(task, None)
        if not self._running and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if task in self._overdue:
            self._overdue.remove(task)
            if not task.uncancel() and exc_type is asyncio.CancelledError:
                raise TimeoutError from exc

    def _ring(self) -> None:
        """Cancel the tasks whose time is up, and wait for the next one's."""
        loop = asyncio.get_running_loop()
        self._timer = None
        while self._running:
            task, deadline = next(iter(self._running.items()))
            if deadline > loop.time():
                self._timer = loop.call_at(deadline, self._ring)
                return
            del self._running[task]
            self._overdue.add(task)
            task.cancel()


def _this_task(loop: asyncio.AbstractEventLoop) -> asyncio.Task[Any]:
    task = asyncio.current_task(loop)
    assert task is not None  # noqa: S101 - queries run in workers
    return task
