"""One POST that is never sent twice: a body for one connection alone, and its time limit."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from aiohttp import Payload
from aiohttp.abc import AbstractStreamWriter

T = TypeVar("T")

CONNECT_S: Final = 15.0
"""The longest time for connecting."""

_PIECE_BYTES: Final = 65_536
_FROZEN_S: Final = 1.0
_READ_S: Final = 1.0


class OneTimeBody(Payload):
    """The body of a POST: it tells when it leaves, and leaves only once."""

    # aiohttp's own for bytes warns of a body over 1 MB, which it writes in one piece.
    def __init__(self, body: bytes, begun: Callable[[], object]) -> None:
        super().__init__(body, content_type="application/json")
        self._body = body
        self._begun = begun
        self._transport: object = None
        self.has_left = False  # or some of it

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return len(self._body)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return the body as text, for whoever logs requests."""
        return self._body.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Send the body over a connection; a second time nothing of it is sent."""
        # Such as by a middleware of a given session that sends again what has failed.
        if self.has_left:
            raise RuntimeError("a create is never sent twice")
        self.has_left = True
        self._transport = getattr(writer, "transport", None)
        self._begun()
        whole = memoryview(self._body)
        for start in range(0, len(whole), _PIECE_BYTES):
            await writer.write(whole[start : start + _PIECE_BYTES])

    def hang_up(self) -> None:
        """Close the connection that the body went over: no other request may meet it."""
        # Not all transports are asyncio's own.
        if (abort := getattr(self._transport, "abort", None)) is not None:
            abort()


class PostLimit:
    """The time limit of one POST; a process that stood still gets a moment to read its answer."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._timeout: asyncio.Timeout | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._started = 0.0
        self._latest = math.inf  # the end of it, in s of the loop, once it was shortened

    async def bound(self, request: Coroutine[Any, Any, T]) -> T:
        """Wait for a request; raise `TimeoutError` at the end of the time."""
        self._started = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(None) as self._timeout:
                # While it connects aiohttp's own limit alone tells that nothing was sent; this one
                # is for what connects for ever in spite of it, such as a middleware of the user's.
                self._set(self._started + CONNECT_S + self.limit_s)
                return await request
        finally:
            self._timeout = None
            if self._timer is not None:
                self._timer.cancel()

    @property
    def connect_s(self) -> float:
        """The longest time for connecting."""
        return min(CONNECT_S, self.limit_s)

    def begun(self) -> None:
        """Let the limit count from the start, now that the request leaves."""
        self._set(min(self._started + self.limit_s, self._latest))

    def shorten(self, left_s: float) -> None:
        """End it after some s at the latest."""
        end = asyncio.get_running_loop().time() + left_s
        if self._timer is not None and end < self._timer.when():
            self._latest = end
            self._set(end)

    def _set(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._timeout is not None:
            self._timer = asyncio.get_running_loop().call_at(when, self._expire, when)

    def _expire(self, when: float) -> None:
        now = asyncio.get_running_loop().time()
        if self._timeout is None or self._timeout.expired():
            return
        if now - when > _FROZEN_S:
            self._set(now + _READ_S)
        else:
            self._timeout.reschedule(now)
