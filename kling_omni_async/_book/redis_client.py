"""Who speaks to Redis for a book: clients of its own by a URL, or one that the caller has made."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, Protocol, runtime_checkable
from urllib.parse import urlsplit

import attrs

from kling_omni_async.errors import ConfigurationError

from .contract import Store

BLOCK_S: Final = 5.0
"""How long one call waits for changes at most, in s."""

CALL_S: Final = 5.0
"""How long an answer may take that is not waited for, in s; twice that for what waits."""

DEFAULT_NAME: Final = "tasks"
IS_URL: Final = re.compile("(redis|rediss|unix)://", re.IGNORECASE)
_NAME: Final = re.compile(r"[^\s{}\x00-\x1f]{1,100}")
_EXTRA: Final = "books in Redis need the extra fleet: in the checkout, pip install '.[fleet]'"


@runtime_checkable
class RedisClient(Protocol):
    """A client of `redis.asyncio`: of one server, of Sentinel's primary, or of a cluster."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command, and return what is to be awaited for its answer."""
        ...


class OwnClient(RedisClient, Protocol):
    """A client that is closed here."""

    async def aclose(self) -> None:
        """Close its connections."""


@attrs.frozen
class Clients:
    """Who makes steps, and who waits for changes, which holds its connection meanwhile."""

    steps: RedisClient
    watch: RedisClient
    block_s: float
    own: tuple[OwnClient, ...] = ()

    async def aclose(self) -> None:
        """Close the clients that are the book's own."""
        for client in self.own:
            await client.aclose()


def redis_place(where: str | RedisClient, name: object) -> tuple[str, Callable[[float], Store]]:
    """Return what a book in Redis is called, and what makes its store.

    Raises:
        ConfigurationError: The URL or the name cannot be used, or the extra is missing.
    """
    clients_of(where)  # which raises what is wrong with a URL
    kept, place = require_name(name), redacted(where) if isinstance(where, str) else _kind(where)
    text = f"{kept!r} in {place}"

    def make(keep_s: float) -> Store:
        from .redis import RedisStore  # noqa: PLC0415 - for those who use it

        return RedisStore(clients_of(where), kept, place=text, keep_s=keep_s)

    return text, make


def _kind(client: object) -> str:
    return f"Redis by a {type(client).__name__}"


def require_name(name: object) -> str:
    """Return the name of a book in Redis."""
    if name is None:
        return DEFAULT_NAME
    if isinstance(name, str) and _NAME.fullmatch(name):
        return name
    raise ConfigurationError(
        f'name must be 1 to 100 characters without braces and spaces, such as "{DEFAULT_NAME}"'
    )


def clients_of(where: str | RedisClient) -> Clients:
    """Return who speaks to the Redis of a URL, or of a ready client, which is never closed here.

    Raises:
        ConfigurationError: The URL cannot be used, or the extra is missing.
    """
    if not isinstance(where, str):
        return Clients(where, where, _block_s(where))
    steps, watch = _client(where, CALL_S), _client(where, BLOCK_S + CALL_S)
    return Clients(steps, watch, BLOCK_S, (steps, watch))


def redacted(url: str) -> str:
    """Return a URL without what may be secret in it: the user and the query."""
    bare = url.partition("#")[0].partition("?")[0]
    scheme, mark, rest = bare.partition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}"


def _client(url: str, timeout_s: float) -> OwnClient:
    try:
        from redis import asyncio as library  # noqa: PLC0415 - the extra may be missing
    except ImportError:
        raise ConfigurationError(_EXTRA) from None
    anything: Any = library
    try:
        _ = urlsplit(url).port
        client: OwnClient = anything.Redis.from_url(
            url,
            protocol=2,
            # It would send a step again by itself; workers and readers do, by the same number.
            retry=None,
            socket_timeout=timeout_s,
            socket_connect_timeout=CALL_S,
        )
    # Its texts quote the URL, and with it the password.
    except (ValueError, TypeError, AttributeError):
        raise ConfigurationError(
            f"where: {redacted(url)} is no URL of Redis; write one such as redis://host:6379/0"
        ) from None
    return client


def _block_s(client: object) -> float:
    """Return how long a ready client may wait for an answer that is long in coming."""
    pool = getattr(client, "connection_pool", client)
    settings: Any = getattr(pool, "connection_kwargs", {})
    limit: float | None = settings.get("socket_timeout")
    return BLOCK_S if limit is None else min(BLOCK_S, limit / 2)


def text_of(value: str | bytes) -> str:
    """Return a text, whichever way a client was told to decode it."""
    return value if isinstance(value, str) else value.decode()


def last_id(found: Any) -> str | None:
    """Return the id of the last change in an answer of XREAD, in either protocol's form."""
    if not found:
        return None
    by_stream: Any = getattr(found, "values", None)
    changes: Any = found[0][1] if by_stream is None else next(iter(by_stream()))
    while changes and isinstance(changes[0], list) and isinstance(changes[0][0], list | tuple):
        changes = changes[0]
    return text_of(changes[-1][0])
