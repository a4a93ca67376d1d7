"""Books in Redis whose clocks a test sets."""

from __future__ import annotations

from typing import Any

from kling_omni_async._book.redis import RedisStore
from kling_omni_async._book.redis_client import clients_of
from tests.book.pure import KEEP_S
from tests.book.stores import Clock, StoreBook


def new_store(where: Any, clock: Clock | None = None, *, name: str = "tasks") -> RedisStore:
    """Give a store that is not open yet, at the time of Redis or of a test."""
    clocks = {} if clock is None else {"now": clock.read, "wall": clock.read_wall}
    return RedisStore(clients_of(where), name, place=name, keep_s=KEEP_S, **clocks)


def new_book(where: Any, clock: Clock, *, name: str = "tasks") -> StoreBook:
    """Give a book that is not open yet."""
    return StoreBook(new_store(where, clock, name=name), clock)
