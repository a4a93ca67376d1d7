"""Simulated time."""

from __future__ import annotations

import asyncio


class Clock:
    """Simulated seconds: those of an event loop since the first start, times a factor."""

    def __init__(self, *, scale: float) -> None:
        self._scale = scale
        self._loop: asyncio.AbstractEventLoop | None = None
        self._origin = 0.0

    def start(self) -> None:
        """Count from now on, by the running loop; a second start changes nothing."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._origin = self._loop.time()

    def loop_time(self) -> float:
        """Tell the seconds of the event loop's clock.

        Raises:
            RuntimeError: It has never been started.
        """
        if self._loop is None:
            raise RuntimeError("start it first: async with SimulatedCometAPI() as api: ...")
        return self._loop.time()

    def now(self) -> float:
        """Tell the simulated seconds since the first start.

        Raises:
            RuntimeError: It has never been started.
        """
        return (self.loop_time() - self._origin) * self._scale
