"""One bounded HTTP request by aiohttp, and one timer that bounds all of them."""

from __future__ import annotations

import asyncio
import codecs
import importlib
from collections import OrderedDict
from collections.abc import Mapping
from http.cookies import SimpleCookie
from typing import Any, Final

import aiohttp
import attrs
from multidict import CIMultiDict
from yarl import URL

from kling_omni_async._config import Settings
from kling_omni_async._http import MOST_HEADER_BYTES, USER_AGENT, detail_of, never_left, reason_of
from kling_omni_async._ids import path_segment
from kling_omni_async._observer import Door
from kling_omni_async.errors import (
    ConfigurationError,
    KlingOmniError,
    ResponseError,
    TransportError,
)

from .answers import SNIPPET_LENGTH, Answer, Echo, snippet_of
from .create import NotSent
from .posting import OneTimeBody, PostLimit
from .values import Secret

KEEP_ALIVE_S: Final = 45.0
"""Longer than one interval, so that each poll does not shake hands anew."""

_CHUNK_BYTES: Final = 65_536

_BOUNDS: Final[Mapping[str, Any]] = {
    "raise_for_status": False,
    "timeout": aiohttp.ClientTimeout(),  # a timer for each would cost more than ours
    "auto_decompress": True,
    "max_line_size": MOST_HEADER_BYTES,
    "max_field_size": MOST_HEADER_BYTES,
}
"""What our own session is made with, and each request over a given one has."""

Reply = Answer | KlingOmniError

# Python would import these when the first name is looked up. It cannot where no file descriptor is
# left, and would hold the codec to be unknown from then on.
codecs.lookup("idna")
importlib.import_module("concurrent.futures.thread")


class Client:
    """Requests to the API over one aiohttp session, the caller's or one of our own."""

    def __init__(
        self,
        settings: Settings,
        http: aiohttp.ClientSession | None,
        *,
        door: Door | None = None,
    ) -> None:
        self._settings = settings
        self._given = http
        self._door = door or Door()
        self._pool: _Pool | None = None
        self._posting: aiohttp.ClientSession | None = None  # our own for creates, once there is one
        self._closing: set[asyncio.Task[None]] = set()
        self._limit = SharedTimeout(settings.policy.query_timeout)
        self._secret = Secret(settings.api_key)
        authorization = f"Bearer {settings.api_key}"
        # For each request: what a session has by itself goes to proxies too.
        headers = {"Authorization": authorization, "Accept": "application/json"}
        self._options: dict[str, Any] = {
            "headers": CIMultiDict(headers, **{"User-Agent": USER_AGENT}),
            "allow_redirects": False,
        }

    def __repr__(self) -> str:
        return f"<Client of {self._settings.base_url}>"

    def bind(self) -> None:
        """Check what is known only in a running loop."""
        self._options["proxy"] = self._settings.proxy()
        if self._given is not None:
            require_usable(self._given)
            # The public property of the same name warns that it is deprecated.
            if getattr(self._given, "_loop", None) is not asyncio.get_running_loop():
                text = "the given aiohttp session is bound to another event loop"
                raise ConfigurationError(f"{text}; make it in this one")
            self._options |= _BOUNDS
            # Those of a request replace those of the session, which nothing public tells.
            own = getattr(self._given, "_middlewares", ())
            self._options["middlewares"] = (*own, _drop_cookies)

    async def open(self) -> int | None:
        """Open a session unless one was given; return the most connections of a given one."""
        if self._given is not None:
            self._pool = _Pool(self._given)
            return _connections(self._given.connector)
        self._pool = self._new_pool()
        return None

    async def aclose(self) -> None:
        """Close the session if it is our own."""
        if self._given is None and self._pool is not None:
            await self._pool.http.close()
        if self._posting is not None:
            await self._posting.close()
        if self._closing:
            await asyncio.wait(self._closing)

    def give_up_idle(self) -> None:
        """Close our idle connections, so that their file descriptors serve somebody else."""
        old = self._pool
        if self._given is None and old is not None and old.has_served:
            # aiohttp cannot close idle connections alone: who is under way keeps his until its end.
            self._pool = self._new_pool()
            old.is_retired = True
            if not old.in_flight:
                self._close(old)

    async def fetch(self, task_id: str) -> Reply:
        """Send one query; return the answer, whatever it says, or why there is none."""
        plain = task_id.isalnum() and task_id.isascii()  # nearly all of them
        url = self._settings.task_url(task_id if plain else path_segment(task_id))
        return await self.request("GET", url, task_id=task_id)

    async def request(self, method: str, url: URL, *, task_id: str | None = None) -> Reply:
        """Send one request with the key, bounded in time and in the bytes of its answer."""
        pool = self._pool
        task = asyncio.current_task()
        assert pool is not None  # noqa: S101 - opened by the owner task
        assert task is not None  # noqa: S101 - and used in tasks
        failure: BaseException
        self._limit.start(task)
        pool.in_flight += 1
        try:
            reply = await self._exchange(pool.http, method, url, task_id, self._options)
            pool.has_served = True
            return reply  # noqa: TRY300 - what is in between cannot fail
        except asyncio.CancelledError as error:
            if self._limit.stop(task):
                text = f"no full answer within {self._settings.policy.query_timeout:g} s"
                return TransportError(text, task_id=task_id, reason="timeout")
            if task.cancelling():
                raise
            # By nobody: aiohttp cancels what waits for a connector's place when it is closed.
            failure = error
        except Exception as error:  # noqa: BLE001 - all that is not an answer is translated
            failure = error
        finally:
            self._limit.stop(task)
            pool.in_flight -= 1
            if pool.is_retired and not pool.in_flight:
                self._close(pool)
        try:
            # Behind the clauses, so that a defect in it is logged without what it was about.
            return self._translate(pool.http, failure, task_id)
        finally:
            del failure  # and its frames, which hold the key

    async def post(self, url: URL, body: bytes, limit: PostLimit) -> NotSent | Reply:
        """Send one POST on a connection of its own, never again by itself; say if it never left."""
        http = self._http_for_posts()
        if http.closed:
            return NotSent(ConfigurationError("the given aiohttp session was closed"))
        try:
            return await limit.bound(self._post(http, url, OneTimeBody(body, limit.begun), limit))
        except TimeoutError:
            text = f"no full answer within {limit.limit_s:g} s"
            return TransportError(text, reason="timeout")

    async def _post(
        self, http: aiohttp.ClientSession, url: URL, body: OneTimeBody, limit: PostLimit
    ) -> NotSent | Reply:
        connect = aiohttp.ClientTimeout(connect=limit.connect_s)
        # The name makes another key in a given session's pool, so that no idle connection is used.
        own = {"timeout": connect, "server_hostname": url.raw_host, "data": body}
        failure: BaseException
        try:
            return await self._exchange(http, "POST", url, None, self._options | own)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            failure = error
        except Exception as error:  # noqa: BLE001 - as for a query
            failure = error
        finally:
            body.hang_up()
        try:
            told = self._translate(http, failure, None)
            # A middleware of a given session may have met it when it sent for the second time.
            return NotSent(told) if never_left(failure) and not body.has_left else told
        finally:
            del failure

    def _http_for_posts(self) -> aiohttp.ClientSession:
        if self._given is not None:
            return self._given
        if self._posting is None:
            connector = aiohttp.TCPConnector(force_close=True)
            self._posting = _own_session(connector)
        return self._posting

    async def _exchange(
        self,
        http: aiohttp.ClientSession,
        method: str,
        url: URL,
        task_id: str | None,
        options: dict[str, Any],
    ) -> Reply:
        if self._door.observer is None:
            response = await http.request(method, url, **options)
        else:
            with self._door.hushed():
                response = await http.request(method, url, **options)
        try:
            # `readany` would unpack all that came, however much that is (aiohttp 3.14.0).
            body = await response.content.read(_CHUNK_BYTES)
            if not response.content.at_eof():
                body = await self._read_on(response, body)
        finally:
            if not response.closed:  # by its end, after which there is nothing to release
                response.release()
        if len(body) > self._settings.policy.max_response_bytes:
            return self._too_long(response.status, body, task_id)
        if self._secret.is_in(body):
            body = Echo(body)
            body.secret = self._secret
        return Answer(response.status, body, response.headers, self._secret)

    async def _read_on(self, response: aiohttp.ClientResponse, first: bytes) -> bytes:
        """Read the rest of a body, but not far beyond the longest that is accepted."""
        most = self._settings.policy.max_response_bytes
        content = response.content
        chunks = [first]
        size = len(first)
        while not content.at_eof():
            if size > most:
                response.close()
                break
            chunks.append(await content.read(_CHUNK_BYTES))
            size += len(chunks[-1])
        return b"".join(chunks)

    def _new_pool(self) -> _Pool:
        limit = self._settings.policy.max_concurrency
        connector = _Connector(limit=limit, keepalive_timeout=KEEP_ALIVE_S)
        return _Pool(_own_session(connector))

    def _close(self, pool: _Pool) -> None:
        """Close a retired session beside what goes on."""
        task = asyncio.create_task(_closed(pool.http), name="kling_omni_async.close")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _too_long(self, status: int, body: bytes, task_id: str | None) -> ResponseError:
        most = self._settings.policy.max_response_bytes
        text = f"HTTP {status}: an answer of more than {most} bytes was not read on"
        snippet = snippet_of(body, self._secret)
        return ResponseError(text, task_id=task_id, http_status=status, snippet=snippet)

    def _translate(
        self, http: aiohttp.ClientSession, error: BaseException, task_id: str | None
    ) -> KlingOmniError:
        """Say in our words why there is no answer."""
        # Foreign errors are not chained: they hold request headers and proxy credentials.
        if http.closed:
            return ConfigurationError("the given aiohttp session was closed", task_id=task_id)
        reason = reason_of(error)
        detail = self._secret.redact(detail_of(error))[:SNIPPET_LENGTH]
        text = f"{reason}: {detail or type(error).__name__}"
        return TransportError(text, task_id=task_id, reason=reason)


@attrs.define(eq=False)
class _Pool:
    """An aiohttp session with its connections, and the requests under way over it."""

    http: aiohttp.ClientSession
    in_flight: int = 0
    has_served: bool = False  # so a connection may be idle
    is_retired: bool = False  # to be closed when nothing is under way any more


class _Connector(aiohttp.TCPConnector):
    """Uses no connection on which something came that nobody asked for."""

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout
    ) -> aiohttp.connector.Connection:
        # An answer that waits there already would be taken for the answer to the next request.
        while True:
            connection = await _connect(self, req, traces, timeout)
            protocol = connection.protocol
            if protocol is None or not protocol.should_close:
                return connection
            connection.close()


_connect = aiohttp.TCPConnector.connect  # not by `super`, which is made anew each time


def _own_session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    jar = aiohttp.DummyCookieJar()
    return aiohttp.ClientSession(connector=connector, cookie_jar=jar, **_BOUNDS)


async def _closed(http: aiohttp.ClientSession) -> None:
    assert http.connector is not None  # noqa: S101 - only `aclose` closes it, and not a retired one
    await http.connector.close(abort_ssl=True)  # a farewell could hold descriptors for 30 s
    await http.close()


async def _drop_cookies(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    response = await handler(request)
    response.cookies = SimpleCookie()  # what stands here is what the jar takes
    return response


def require_usable(http: object) -> None:
    """Refuse a session that would clash with our header, or that cannot send."""
    if not isinstance(http, aiohttp.ClientSession):
        raise ConfigurationError(
            f"http must be an aiohttp session, not {type(http).__name__}; "
            "write http=aiohttp.ClientSession(), made in a running event loop"
        )
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


def _connections(connector: aiohttp.BaseConnector | None) -> int | None:
    """Return the most connections that a connector opens to one host, or None for no limit."""
    if connector is None:
        return None
    limits = [limit for limit in (connector.limit, connector.limit_per_host) if limit]
    return min(limits, default=None)


FROZEN_S: Final = 1.0
"""A timer that comes later than this tells that nobody could read meanwhile."""

READ_S: Final = 1.0
"""The least time to read what waits in the sockets after that."""


class SharedTimeout:
    """Does what `asyncio.timeout` does, around any number of tasks at once.

    What began first is due first, so the tasks stand in the order of their deadlines, and the
    loop's heap of timers is spared two steps for each query.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._running: OrderedDict[asyncio.Task[Any], float] = OrderedDict()
        self._spared: OrderedDict[asyncio.Task[Any], float] = OrderedDict()
        self._overdue: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def start(self, task: asyncio.Task[Any]) -> None:
        """Cancel a task, the current one, when its time is up."""
        loop = asyncio.get_running_loop()
        deadline = self._running[task] = loop.time() + self._limit_s
        if self._timer is None:
            self._arm(loop, deadline)

    def stop(self, task: asyncio.Task[Any]) -> bool:
        """Leave a task alone; return whether its cancellation was ours alone, and take it back."""
        if self._running.pop(task, None) is None:
            self._spared.pop(task, None)
        if self._timer is not None and not self._running and not self._spared:
            self._timer.cancel()
            self._timer = None
        if task not in self._overdue:
            return False
        self._overdue.remove(task)
        return not task.uncancel()

    def _arm(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self._due = due
        self._timer = loop.call_at(due, self._expire)

    def _expire(self) -> None:
        """Cancel the tasks whose time is up, and wait for the next one's."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        if now - self._due > FROZEN_S:
            self._spare(now)
        for tasks in (self._spared, self._running):
            while tasks and next(iter(tasks.values())) <= now:
                task, _ = tasks.popitem(last=False)
                self._overdue.add(task)
                task.cancel()
        self._timer = None
        following = [next(iter(tasks.values())) for tasks in (self._spared, self._running) if tasks]
        if following:
            self._arm(loop, min(following))

    def _spare(self, now: float) -> None:
        """Add the time for which the loop stood still, once for each task."""
        # Their answers may wait in the sockets: what was no time for reading is no time-out.
        late = now - self._due
        for task, deadline in self._running.items():
            if deadline - self._limit_s <= self._due:  # not begun since
                self._spared[task] = max(deadline + late, now + READ_S)
        for task in self._spared:
            self._running.pop(task, None)
