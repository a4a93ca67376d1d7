"""Who speaks to Redis for a book: clients of its own by a URL, or one that the caller has made."""

from __future__ import annotations

from collections.abc import Callable
from inspect import isawaitable
from typing import Any, Final, Protocol, runtime_checkable

import attrs

from kling_omni_async.errors import ConfigurationError

from .contract import Store
from .redis_url import no_url, require_url

BLOCK_S: Final = 5.0
"""How long one call waits for changes at most, in s."""

CALL_S: Final = 5.0
"""How long an answer may take that is not waited for, in s; twice that for what waits."""

MOST_CALLS: Final = 16
"""How many calls of one book are under way at once: each has a connection of its own."""

DEFAULT_NAME: Final = "tasks"
LONGEST_NAME: Final = 100
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
    calls: int = MOST_CALLS  # steps under way at once, so that its pool has a place for each
    call_s: float | None = None  # how long an answer may take where the client waits for ever
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
    kept, place = require_name(name), require_url(where) if isinstance(where, str) else _kind(where)
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
    if isinstance(name, str) and 0 < len(name) <= LONGEST_NAME and _is_plain(name):
        return name
    raise ConfigurationError(
        f"name must be 1 to {LONGEST_NAME} characters that can be printed, without braces and "
        f'spaces, such as "{DEFAULT_NAME}"'
    )


def _is_plain(name: str) -> bool:
    return name.isprintable() and not any(each in "{}" or each.isspace() for each in name)


def clients_of(where: str | RedisClient) -> Clients:
    """Return who speaks to the Redis of a URL, or of a ready client, which is never closed here.

    Raises:
        ConfigurationError: The URL or the client cannot be used, or the extra is missing.
    """
    if isinstance(where, str):
        require_url(where)
        steps, watch = _client(where, CALL_S), _client(where, BLOCK_S + CALL_S)
        calls = min(MOST_CALLS, _most_connections(steps))
        return Clients(steps, watch, _block_s(watch), calls, own=(steps, watch))
    most = _most_connections(where)
    if most == 1:
        raise ConfigurationError(
            "where: this client has a single connection, and whoever waits for changes holds it "
            "meanwhile; give one that may have several"
        )
    calls, is_patient = min(MOST_CALLS, most - 1), _timeout_of(where) is None
    return Clients(where, where, _block_s(where), calls, CALL_S if is_patient else None)


def _client(url: str, timeout_s: float) -> OwnClient:
    try:
        from redis import asyncio as library  # noqa: PLC0415 - the extra may be missing
    except ImportError:
        raise ConfigurationError(_EXTRA) from None
    anything: Any = library
    try:
        client: Any = anything.Redis.from_url(
            url,
            protocol=2,
            socket_timeout=timeout_s,
            socket_connect_timeout=CALL_S,
        )
        # It would send a step again by itself; workers and readers do, by the same number.
        never: dict[str, object] = {"retry": None, "retry_on_timeout": False, "retry_on_error": []}
        client.connection_pool.connection_kwargs.update(never)
        client.connection_pool.make_connection()
    # Its texts quote the URL, and with it the password.
    except (ValueError, TypeError, AttributeError, anything.RedisError):
        raise no_url("redis-py does not take its options") from None
    own: OwnClient = client
    return own


def _settings_of(client: object) -> dict[str, Any]:
    pool = getattr(client, "connection_pool", client)
    settings: dict[str, Any] = getattr(pool, "connection_kwargs", {})
    return settings


def _timeout_of(client: object) -> float | None:
    limit: float | None = _settings_of(client).get("socket_timeout")
    return limit


def _block_s(client: object) -> float:
    """Return how long a client may wait for an answer that is long in coming."""
    limit = _timeout_of(client)
    return BLOCK_S if limit is None else min(BLOCK_S, limit / 2)


def _most_connections(client: object) -> int:
    """Return how many connections a client may have; a great number where it does not say."""
    if getattr(client, "single_connection_client", False):
        return 1
    pool = getattr(client, "connection_pool", client)
    most = getattr(pool, "max_connections", _settings_of(client).get("max_connections"))
    return most if isinstance(most, int) else 2 * MOST_CALLS


async def answer_of(client: RedisClient, name: str, *rest: object) -> Any:
    """Give a command to a client, and return what Redis answers, whatever it makes of texts."""
    words = [each if isinstance(each, int) else str(each).encode() for each in rest]
    try:
        asked = client.execute_command(name, *words, NEVER_DECODE=True)
    except TypeError:  # such as of a PubSub
        asked = None
    if not isawaitable(asked):
        raise not_for_books(client)
    return await asked


def not_for_books(client: object) -> ConfigurationError:
    """Return the error for what answers in another way than a client of `redis.asyncio`."""
    return ConfigurationError(
        "where must be a client of redis.asyncio, such as Redis or RedisCluster, "
        f"not {type(client).__module__}.{type(client).__name__}"
    )


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
