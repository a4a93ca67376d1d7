"""What wakes a loop: an event that is waited for until a time."""

from __future__ import annotations

import asyncio

from kling_omni_async._results import Result, resolve


class Bell:
    """An event with a time limit for each wait, in s of the loop.

    `asyncio.timeout` would throw into whoever waits each time that nothing has happened.
    """

    def __init__(self) -> None:
        self._is_rung = False
        self._waiters: set[Result[None]] = set()

    def __repr__(self) -> str:
        return f"<Bell rung={self._is_rung} waiters={len(self._waiters)}>"

    @property
    def is_rung(self) -> bool:
        """Whether it was rung, and not been silenced since then."""
        return self._is_rung

    def ring(self) -> None:
        """Wake who waits, now and from now on."""
        self._is_rung = True
        for waiter in self._waiters:
            resolve(waiter, None)

    def silence(self) -> None:
        """Let who waits from now on wait for the next ring."""
        self._is_rung = False

    async def wait(self, until: float | None = None) -> bool:
        """Wait until it rings, or a time has come; return whether it rang."""
        if not self._is_rung:
            loop = asyncio.get_running_loop()
            waiter: Result[None] = loop.create_future()
            timer = None if until is None else loop.call_at(until, resolve, waiter, None)
            self._waiters.add(waiter)
            try:
                await waiter
            finally:
                self._waiters.discard(waiter)
                if timer is not None:
                    timer.cancel()
        return self._is_rung
