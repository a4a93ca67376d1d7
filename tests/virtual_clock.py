"""An asyncio loop whose clock jumps to the next timer once real I/O has gone quiet."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeVarTuple, Unpack

Ts = TypeVarTuple("Ts")


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self, *, stall_s: float) -> None:
        super().__init__()
        self.now_s = 0.0
        self.threads_busy = 0
        self._stall_s = stall_s

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if events or (timeout is not None and timeout <= 0):
            return events  # there is work: time stands still
        if self.threads_busy:
            return super().select(0.001)  # a worker thread will wake us
        if timeout is None:  # no timer is set: only I/O can help
            if not (events := super().select(self._stall_s)):
                raise RuntimeError("deadlock: no timer is set and no I/O is under way")
            return events
        self.now_s += timeout  # all quiet: jump to the next timer
        return events


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """The real sockets of the loopback, and a clock that costs nothing."""

    def __init__(self, *, stall_s: float = 5.0) -> None:
        self._jumping = _JumpingSelector(stall_s=stall_s)
        super().__init__(self._jumping)
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self._jumping.now_s

    def freeze(self, seconds: float) -> None:
        """Let time pass while nothing runs."""
        self._jumping.now_s += seconds

    def pass_unnoticed(self, span: float) -> None:
        """Let time pass, in s, in which the loop does not run."""
        self._jumping.now_s += span

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], Any], *args: *Ts
    ) -> asyncio.Future[Any]:
        future = super().run_in_executor(executor, func, *args)
        self._jumping.threads_busy += 1
        future.add_done_callback(self._thread_done)
        return future

    def _thread_done(self, _: asyncio.Future[Any]) -> None:
        self._jumping.threads_busy -= 1

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Join the worker threads in real time: a limit on this clock would have passed at once."""
        executor: Executor | None = getattr(self, "_default_executor", None)
        if executor is not None:
            executor.shutdown(wait=True)
