"""Reads the inputs of streams: lists of a million ids, and feeds without an end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable, Sized
from inspect import isasyncgen, isgenerator
from time import perf_counter
from typing import Protocol, TypeVar

import anyio

from kling_omni_async import _engine
from kling_omni_async._results import logger

from .stream import ENDED, Intake, Phase


class Reading(Protocol):
    """A stream whose input is read."""

    input_of: str  # what it gives, in words
    intake: Intake
    phase: Phase
    room: asyncio.Event | None  # is set when it can take more

    @property
    def ids(self) -> Sized:
        """All that was taken and not yet handed out."""
        ...

    @property
    def most_pending(self) -> float:
        """How many of them there may be; the input waits beyond it."""
        ...

    def input_ended(self, error: Exception | None) -> None:
        """Note that nothing more comes, and why if the input raised something."""


R = TypeVar("R", bound=Reading)
Take = Callable[[R, object, float], None]
"""Takes what an input gave, and the time in s."""


async def read_input(stream: R, take: Take[R]) -> None:
    """Read the input of a stream to its end, or until the stream is left."""
    intake = stream.intake
    if intake.closed.is_set():
        return  # left before it began
    intake.task = _this_task()
    error: Exception | None = None
    try:
        # Our task group cancels again and again; an input is cancelled once, by its stream.
        with anyio.CancelScope(shield=True):
            error = await _read(stream, take)
    except BaseException:
        intake.close(whole=False)
        raise
    if error is not None and stream.phase is ENDED:
        text = "an input of %s raised as it was closed"
        logger.warning(text, stream.input_of, exc_info=error)
    stream.input_ended(error)


async def _read(stream: R, take: Take[R]) -> Exception | None:
    """Read an input; return the exception that it raised, if any."""
    source = stream.intake.source
    try:
        if isinstance(source, AsyncIterable):
            await _read_feed(stream, source, take)
        else:
            await _read_iterable(stream, take)
    except asyncio.CancelledError:
        if stream.phase is ENDED:
            _this_task().uncancel()
            return None
        if _this_task().cancelling():  # and not only what it awaits
            raise
        return RuntimeError(f"the input of {stream.input_of} was cancelled from within")
    except Exception as error:  # noqa: BLE001 - whatever it is, the stream raises it
        return error
    return None


async def _read_iterable(stream: R, take: Take[R]) -> None:
    slices = _Slices()
    ids = stream.intake.ids()
    try:
        for given in ids:
            # One float for many ids, of which there may be a million.
            take(stream, given, slices.began)
            if slices.is_over(stream):
                await slices.give_way(stream)
            if stream.phase is ENDED:
                return
    finally:
        if isgenerator(ids):  # what else it is, such as a file, is its owner's to close
            ids.close()
    if stream.intake.error is not None:
        raise stream.intake.error


async def _read_feed(stream: R, source: AsyncIterable[object], take: Take[R]) -> None:
    slices = _Slices()
    loop = asyncio.get_running_loop()
    ids = aiter(source)
    try:
        while stream.phase is not ENDED:
            try:
                given = await anext(ids)
            except StopAsyncIteration:
                return
            take(stream, given, loop.time())
            if slices.is_over(stream):
                await slices.give_way(stream)
    finally:
        stream.intake.source = None
        if isasyncgen(ids):  # as above
            await ids.aclose()


class _Slices:
    """Reading cut into pieces of `SLICE_S`, measured in real time also on a virtual clock."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self.began = asyncio.get_running_loop().time()  # of the running piece, in s of the loop
        self._until = perf_counter() + _engine.SLICE_S

    def is_over(self, stream: Reading) -> bool:
        """Whether it is time to let the loop run, or to wait for consumers that are far behind."""
        return perf_counter() >= self._until or len(stream.ids) >= stream.most_pending

    async def give_way(self, stream: Reading) -> None:
        """Let the loop run, and wait until consumers have caught up."""
        await asyncio.sleep(0)
        self._begin()
        while len(stream.ids) >= stream.most_pending:
            stream.room = asyncio.Event()
            await stream.room.wait()
            self._begin()


def _this_task() -> asyncio.Task[object]:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - a coroutine runs in one
    return task
