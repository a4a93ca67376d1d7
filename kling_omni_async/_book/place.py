"""Where a book lies: what a user gives is checked at once, and the store is made at first use."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

import attrs

from kling_omni_async.errors import ConfigurationError

from .contract import Store
from .redis_client import RedisClient, redis_place
from .redis_url import IS_URL

Where: TypeAlias = str | Path | RedisClient | None

# One of Redis without its slashes, or in quotes, may have a password, which a path would show.
_URL: Final = re.compile(
    r"\W*(file|rediss?|unix):|.*[a-z][a-z0-9+.-]+://", re.IGNORECASE | re.DOTALL
)


@attrs.frozen
class Place:
    """Where a book lies."""

    text: str  # for people, without a password
    make: Callable[[float], Store]
    """Makes the store within the event loop that uses it, for how long ends are kept in s."""


def place_of(where: object, name: object) -> Place:
    """Return where a book lies.

    Raises:
        ConfigurationError: The place or the name cannot be used.
    """
    if isinstance(where, RedisClient) and not isinstance(where, type):
        return Place(*redis_place(where, name))
    path = _require_path(where)
    if isinstance(path, str):
        return Place(*redis_place(path, name))
    if name is not None:
        raise ConfigurationError(
            "name tells books in Redis apart; a file holds one book: give another path instead"
        )
    if path is None:
        return Place("in memory", _memory_store)
    return Place(str(path), partial(_sqlite_store, path))


def _require_path(where: object) -> Path | str | None:
    """Return the path of a book, the URL of Redis, or None for memory."""
    if where is None:
        return None
    try:
        text = os.fspath(where)  # type: ignore[call-overload]
    except TypeError:
        text = b""
    if not isinstance(text, str):
        kind = type(where).__name__
        raise ConfigurationError(
            f'where must be the path of a file, such as "tasks.db", a URL of Redis, or a client of '
            f"redis.asyncio, not {kind}"
        )
    if IS_URL.match(url := text.strip()):  # as a line of a file has it
        return url
    if not text or text == ":memory:":
        raise ConfigurationError("where names no file; leave it out for a book in memory")
    if _URL.match(text) or "\0" in text:
        raise ConfigurationError(
            'where must be the path of a file, such as "tasks.db", or a URL such as '
            "redis://host:6379/0, and no other URL"
        )
    return Path(text).absolute()  # a later `os.chdir` changes nothing


# Each store is imported for those who use it.


def _memory_store(keep_s: float) -> Store:
    from .memory import MemoryStore  # noqa: PLC0415 - each store for those who use it

    clock = asyncio.get_running_loop().time
    return MemoryStore(clock=clock, wall_clock=time.time, keep_s=keep_s)


def _sqlite_store(path: Path, keep_s: float) -> Store:
    from .sqlite import SqliteStore  # noqa: PLC0415 - as above

    return SqliteStore(path, keep_s=keep_s)
