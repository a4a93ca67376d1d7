"""Reads the inputs of streams: lists of a million ids, and feeds without an end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable, Iterable
from inspect import isasyncgen
from time import perf_counter
from typing import Final

import anyio

from kling_omni_async._ids import require_str
from kling_omni_async.errors import InvalidTaskIdError

from .stream import Batch
from .waiters import End, Ending
from .watchlist import Watchlist

SLICE_S: Final = 0.01
"""How long one piece of a long job may hold the loop, in s."""


class Reader:
    """Takes ids from the inputs of streams into the watchlist.

    Args:
        watchlist: Takes them.
        now: Gives the time in s.
        attend: Sees to it that ids that were taken are queried.
        wake: Wakes the owner.
    """

    def __init__(
        self,
        watchlist: Watchlist,
        *,
        now: Callable[[], float],
        attend: Callable[[], None],
        wake: Callable[[], None],
    ) -> None:
        self._watchlist = watchlist
        self._now = now
        self._attend = attend
        self._wake = wake

    async def feed(self, batch: Batch) -> None:
        """Read a stream's input to its end."""
        reason: Ending | None = None
        with anyio.CancelScope() as batch.feeding:
            reason = await self._read(batch)
        self._input_ended(batch, reason)

    def _input_ended(self, batch: Batch, reason: Ending | None) -> None:
        batch.input_ended(reason)
        if isinstance(reason, InvalidTaskIdError):
            batch.close(End(reason))  # a defect of the caller's: say so at once
            self._watchlist.close_batch(batch)
        self._watchlist.complete_if_done(batch)
        self._wake()

    async def _read(self, batch: Batch) -> Exception | None:
        """Read an input; gives the exception that it raised, if any."""
        try:
            if isinstance(batch.source, AsyncIterable):
                await self._read_feed(batch, batch.source)
            else:
                await self._read_whole(batch, batch.source)
        except asyncio.CancelledError:
            if _is_cancelled():
                raise
            return RuntimeError("the input of task ids was cancelled from within")
        except Exception as error:  # noqa: BLE001 - whatever it is, the stream raises it
            return error
        return None

    async def _read_whole(self, batch: Batch, source: Iterable[str]) -> None:
        slices, now = Slices(), self._now()
        self._watchlist.being_read += 1
        try:
            for task_id in source:
                self._watchlist.admit(batch, require_str(task_id), now)
                if perf_counter() >= slices.until:
                    self._attend()
                    await slices.give_way()
                    now = self._now()
        finally:
            self._watchlist.being_read -= 1

    async def _read_feed(self, batch: Batch, source: AsyncIterable[str]) -> None:
        slices = Slices()
        try:
            async for task_id in source:
                self._watchlist.admit(batch, require_str(task_id), self._now())
                self._attend()
                if perf_counter() >= slices.until:
                    await slices.give_way()
        finally:
            if isasyncgen(source):
                await source.aclose()

    async def sweep(self, batch: Batch) -> None:
        """Let the tickets of a closed stream go, in slices."""
        slices = Slices()
        for task_id in tuple(batch.pending):
            self._watchlist.leave_one_of(batch, task_id)
            if perf_counter() >= slices.until:
                await slices.give_way()


class Slices:
    """Work cut into pieces of `SLICE_S`, measured in real time also on a virtual clock.

    Attributes:
        until: When it is another task's turn, by `time.perf_counter`, in s.
    """

    __slots__ = ("until",)

    def __init__(self) -> None:
        self.until = perf_counter() + SLICE_S

    async def give_way(self) -> None:
        """Let the loop run once."""
        await asyncio.sleep(0)
        self.until = perf_counter() + SLICE_S


def _is_cancelled() -> bool:
    """Whether somebody asked the running task to end, and not only what it awaits."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
