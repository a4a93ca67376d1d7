"""A book in Redis: any number of hosts share it, and each step of it is one script there."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeAlias

from redis import exceptions

from kling_omni_async.errors import BookError, ConfigurationError, copy_error

from .book_clock import since_boot
from .contract import (
    MOST_AT_ONCE,
    Addition,
    Desk,
    Found,
    Intent,
    Known,
    Lesson,
    Take,
    Taken,
    Turn,
    Turned,
)
from .redis_client import Clients, RedisClient, answer_of, last_id, not_for_books
from .redis_errors import FAULTS, book_error, loop_error
from .redis_script import COMMANDS, LOG, PARTS, digest_of, key_names, script_of
from .redis_wire import (
    addition_form,
    desk_from,
    dumps,
    found_from,
    intent_form,
    known_from,
    lessons_from,
    take_form,
    taken_from,
    turn_form,
    turned_from,
)

LEAST_WAKE_S: Final = 0.05
"""Between two wakes by what others do at least, in s: what comes meanwhile shares one."""

Keys: TypeAlias = list[str]

logger: Final = logging.getLogger("kling_omni_async.book")


class RedisStore:
    """A book in Redis.

    Args:
        clients: Who speaks to Redis.
        name: Tells books of one Redis apart.
        place: What the book is called in texts.
        keep_s: How long an outcome stays after its end, in s.
        now: The time of Redis in s, in tests; its own otherwise.
        wall: The wall clock of this process.
    """

    # More than ten attributes, as a store is its client, its script and what it has seen.
    def __init__(
        self,
        clients: Clients,
        name: str,
        *,
        place: str,
        keep_s: float,
        now: Callable[[], float] | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._clients = clients
        self._place = place
        self._prefix = f"{{kling:{name}}}:"
        self._keys = key_names(name)
        self._keep_s = keep_s
        self._now = now
        self._wall = wall
        self._script = script_of(*PARTS, "steps")
        self._digest = digest_of(self._script)
        self._calls = asyncio.Semaphore(clients.calls)
        self._last = "0-0"  # the id of the last change that was seen
        self._woke = 0.0  # in s of the loop
        self._listed: Keys = []  # all keys in order, as the last listing has found them
        self._is_closed = False
        self._late: BookError | None = None  # of the last answer that did not come in time

    async def open(self) -> None:
        """Try the rights that steps need, and read how Redis is set up."""
        tried = f"{self._prefix}try"
        commands = [[name, tried, *rest] for name, rest in COMMANDS.items()]
        try:
            found = await self._step("open", {"try": tried, "commands": commands}, tried)
            self._last = str(found["last"])
            self._require_rights(found["missing"])
            self._require_policy(found["policy"])
        except BaseException:
            await self.aclose()
            raise

    def _require_rights(self, missing: Sequence[str]) -> None:
        if missing:
            names = ", ".join(name.upper() for name in missing)
            raise BookError(
                f"the book {self._place} cannot be used: its user in Redis may not use {names} on "
                f"the keys {self._prefix}*; grant that"
            )

    def _require_policy(self, policy: str | None) -> None:
        """Refuse a Redis that throws away what it likes."""
        text = f"Redis is to evict keys (maxmemory-policy {policy})"
        if policy is not None and policy.startswith("allkeys-"):
            raise ConfigurationError(
                f"where: the book {self._place} would lose entries: {text}; give books a Redis "
                "with noeviction"
            )
        if policy is not None and policy.startswith("volatile-"):
            advice = "a step may be made twice then; give books a Redis with noeviction"
            logger.warning("the book %s: %s: %s", self._place, text, advice)

    async def aclose(self) -> None:
        """Close the connections that are this store's own; they would open again by a call."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._clients.own:  # whoever closes a connection under a call breaks redis-py
            for _ in range(self._clients.calls):
                await self._calls.acquire()
        with suppress(*FAULTS):  # nobody waits for the answer
            await self._clients.aclose()

    def clock(self) -> float:
        return since_boot()

    # Steps.

    async def turn(self, turn: Turn) -> Turned:
        form = await self._step("turn", turn_form(turn), self._reply_key(turn.worker))
        return turned_from(form)

    async def take(self, take: Take) -> Taken:
        form = await self._step("take", take_form(take), self._reply_key(take.reader))
        return taken_from(form)

    def _reply_key(self, name: str) -> str:
        return f"{self._prefix}reply:{name}"

    async def add(self, additions: Sequence[Addition]) -> list[bool]:
        are_new: list[bool] = []
        for first in range(0, len(additions), MOST_AT_ONCE):
            some = additions[first : first + MOST_AT_ONCE]
            forms = [addition_form(each) for each in some]
            are_new += await self._step("add", {"additions": forms})
        return are_new

    async def remove(self, key: str) -> bool:
        return bool(await self._step("remove", {"key": key}))

    async def retry(self, key: str) -> bool:
        return bool(await self._step("retry", {"key": key}))

    async def nudge(self, key: str) -> bool:
        return bool(await self._step("nudge", {"key": key}))

    async def intend(self, intent: Intent) -> Known | None:
        return known_from(await self._step("intend", intent_form(intent)))

    async def created(self, external_id: str, made: Addition | None) -> None:
        form: dict[str, object] = {"external_id": external_id}
        if made is not None:
            form["made"] = addition_form(made)
        await self._step("created", form)

    # Looks.

    async def find(self, key: str) -> Found | None:
        return found_from(await self._step("find", {"key": key}))

    async def progress(self) -> tuple[Desk, int]:
        form = await self._step("progress", {})
        return desk_from(form), int(form["workers"])

    async def ended_after(self, number: int) -> tuple[int, Sequence[str]]:
        last, keys = await self._step("ended_after", {"number": number})
        return int(last), list(keys)

    async def lessons_after(self, number: int) -> Sequence[Lesson]:
        return lessons_from(await self._step("lessons_after", {"number": number}))

    async def list(self, after: str, limit: int) -> list[Found]:
        """Return entries by key; those that came since a listing began may be missing in it."""
        if not after or not self._listed:
            self._listed = await self._all_keys()
        first = bisect_right(self._listed, after)
        listed: list[Found] = []
        while len(listed) < limit and first < len(self._listed):
            some = self._listed[first : first + min(limit - len(listed), MOST_AT_ONCE)]
            first += len(some)
            forms = await self._step("list", {"keys": some})
            listed += [found for form in forms if (found := found_from(form)) is not None]
        return listed

    async def _all_keys(self) -> Keys:
        """Return the keys of all entries, some at a time: there is no order by key in Redis."""
        keys, cursor = set[str](), "0"
        while True:
            cursor, some = await self._step("scan", {"cursor": cursor})
            keys.update(some)
            if cursor == "0":
                return sorted(keys)

    # Changes.

    async def changed(self, timeout_s: float) -> None:
        """Wait until something may have changed; one caller at a time, who misses nothing."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._woke + LEAST_WAKE_S - loop.time()))
        block_s = min(timeout_s, self._clients.block_s)
        block = "BLOCK", max(1, int(block_s * 1_000))
        since = ("STREAMS", self._keys[LOG], self._last)
        watch = self._clients.watch
        found = await self._call(watch, "XREAD", *block, *since, blocked_s=block_s)
        self._last = last_id(found) or self._last
        self._woke = loop.time()

    # Calls.

    async def _step(self, verb: str, form: Mapping[str, object], *more: str) -> Any:
        """Make one step of the script, and return what it answers."""
        wall, now = repr(self._wall()), "" if self._now is None else repr(self._now())
        keys = [*self._keys, *more]
        rest = [len(keys), *keys, verb, dumps(form), wall, repr(self._keep_s), now]
        client, late = self._clients.steps, self._late
        async with self._calls:
            # While this stood in line: behind one another all of them would wait as long.
            if self._late is not None and self._late is not late:
                raise copy_error(self._late)
            try:
                text = await self._call(client, "EVALSHA", self._digest, *rest)
            except exceptions.NoScriptError:
                text = await self._call(client, "EVAL", self._script, *rest)
        if not isinstance(text, str | bytes):
            raise not_for_books(client)
        return json.loads(text)

    async def _call(
        self, client: RedisClient, name: str, *rest: object, blocked_s: float = 0.0
    ) -> Any:
        """Give a command to a client, and return the answer of Redis."""
        if self._is_closed:
            raise BookError(f"the book {self._place} is closed; make another TaskBook")
        limit_s = self._clients.call_s
        try:
            async with asyncio.timeout(None if limit_s is None else limit_s + blocked_s):
                return await answer_of(client, name, *rest)
        except exceptions.NoScriptError:
            raise
        except FAULTS as error:
            raise self._told(error) from None
        except RuntimeError as error:
            raise loop_error(error, self._place) from None

    def _told(self, error: Exception) -> BookError:
        told = book_error(error, self._place)
        if isinstance(error, exceptions.TimeoutError | TimeoutError):
            self._late = copy_error(told)
        return told
