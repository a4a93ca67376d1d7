"""`generate_many` as the session sees it: the streams of orders, a part of its engine."""

from __future__ import annotations

from collections.abc import Iterator

from kling_omni_async._engine import Engine
from kling_omni_async._polling.poller import Poller
from kling_omni_async._results import End, Ending

from .creator import Creator
from .stream import Means, OrderStream


class Ordering:
    """The streams of `generate_many` of a session: a part of its engine."""

    def __init__(self, engine: Engine, poller: Poller, creator: Creator) -> None:
        self._means = Means(engine, poller, creator)
        self._streams: dict[OrderStream, None] = {}

    def __repr__(self) -> str:
        return f"<Ordering streams={len(self._streams)}>"

    # What the streams call.

    def open_stream(self, stream: OrderStream) -> None:
        """Begin to create what a stream wants."""
        self._streams[stream] = None
        stream.open(self._means)

    def leave_stream(self, stream: OrderStream) -> None:
        """Drop a stream that nobody reads any more, or that has been read to its end."""
        stream.cut(End())
        if (reader := stream.intake.task) is None:
            self._streams.pop(stream, None)
        else:  # an input that left its own stream is cancelled by the end of the session
            reader.add_done_callback(lambda _: self._streams.pop(stream, None))

    def drop_stream(self, stream: OrderStream) -> None:
        """Leave a stream that was dropped, by whichever thread collects the garbage."""
        self._means.engine.call_from_anywhere(self.leave_stream, stream)

    def stream_eta_s(self, stream: OrderStream) -> float | None:
        """Return how long the youngest task of a stream needs still, in s, or None."""
        if stream.youngest is None or not stream.ids:
            return None
        return self._means.poller.left_s(stream.youngest)

    # What the engine calls.

    def bind(self) -> None:
        """Do nothing: it is made in the loop where it runs."""

    async def open(self) -> None:
        """Do nothing: the poller has opened the client."""

    def stop(self) -> None:
        """Cancel the inputs that are being read, each once."""
        for stream in self._streams:
            stream.stop()

    def tell_end(self, reason: Ending) -> Iterator[None]:
        """Tell all who read a stream why there will be nothing more."""
        for stream in list(self._streams):
            stream.cut(End(reason))
            if stream.intake.task is None:  # else it is closed when its clean-up is done
                stream.intake.close(whole=False)
            yield

    async def aclose(self) -> None:
        """Do nothing: all has ended by then."""
