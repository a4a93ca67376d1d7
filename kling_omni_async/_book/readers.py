"""The streams of a book: their host, and a part of the book's engine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Final

from kling_omni_async._engine import Engine
from kling_omni_async._results import End, Ending

from .bell import Bell
from .reading import Reading

CLOSING_S: Final = 1.0
"""How long readers try to give back what they have where the whole book is closed, in s."""


class Readers:
    """The streams of a book that are open."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._open: dict[Reading, None] = {}

    def __repr__(self) -> str:
        return f"<Readers streams={len(self._open)}>"

    # What the streams call.

    def open_stream(self, stream: Reading) -> None:
        """Begin to read for a stream."""
        self._open[stream] = None
        stream.open(self._open.pop)

    def leave_stream(self, stream: Reading) -> None:
        """Let a stream give back what it has."""
        stream.leave()

    def drop_stream(self, stream: Reading) -> None:
        """Leave a stream that was dropped, by whichever thread collects the garbage."""
        self._engine.call_from_anywhere(stream.leave)

    def stream_eta_s(self, stream: Reading) -> float | None:
        """Return None: others poll."""

    def leaving(self, error: BaseException | None) -> None:
        """Note why the book is left, for streams that its block was to outlive."""
        for stream in self._open:
            stream.outlet.leaving(error)

    # What the engine calls.

    def bind(self) -> None:
        """Do nothing: it is made for one book."""

    async def open(self) -> None:
        """Do nothing: the store is open already."""

    def stop(self) -> None:
        """Do nothing: a reader may be cancelled as a task group does."""

    def tell_end(self, reason: Ending) -> Iterator[None]:
        """Tell all who read why nothing more comes."""
        for stream in list(self._open):
            stream.cut(End(reason))
            yield

    async def aclose(self) -> None:
        """Give back what the readers have, while the store is still open."""
        stop = Bell()
        timer = asyncio.get_running_loop().call_later(CLOSING_S, stop.ring)
        for stream in list(self._open):
            await stream.give_back(CLOSING_S, stop)
        timer.cancel()
