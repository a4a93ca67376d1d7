"""What was asked of the simulator, and when."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Generic, TypeVar

from attrs import evolve, field, frozen


@frozen(kw_only=True)
class Query:
    """One request to the API's host, images left out.

    Attributes:
        task_id: The id that a query asks for; None for a create request or an unknown path.
        method: The HTTP method.
        path: Path and query string, still percent-encoded, as they came.
        authorised: Whether it carried the right key.
        connection: Which TCP connection it came on, counted from 1.
        started: When it arrived, in seconds of the event loop's clock.
        finished: When it was answered or had ended otherwise; None while it is in flight.
        status: The HTTP status answered; None while in flight, or if no answer was sent.
        external_task_id: What a create request names its task.
    """

    task_id: str | None
    method: str
    path: str
    authorised: bool
    connection: int
    started: float
    finished: float | None = None
    status: int | None = None
    external_task_id: str | None = None


@frozen(kw_only=True)
class BilledTask:
    """One task that a create request has made, and that costs money.

    Attributes:
        task_id: Its id.
        external_task_id: The caller's own name for it, or None.
        images: How many images were ordered.
        units: What it costs, in units.
        created: When it was made, in seconds of the event loop's clock.
    """

    task_id: str
    external_task_id: str | None
    images: int
    units: int
    created: float


# More than ten attributes: a record for the tests of others, who sort and count by any of them.
@frozen(kw_only=True)
class ImageRequest:
    """One request for an image.

    Attributes:
        task_id: The task that the path names, known or not; None if it names no image.
        index: The image's place among those of the task, from 0; None as above.
        watermarked: Whether the copy with the watermark was asked for.
        path: Path and query string, still percent-encoded, as they came.
        headers: The headers of the request, whatever the case of their names.
        connection: Which TCP connection it came on, counted from 1.
        started: When it arrived, in seconds of the event loop's clock.
        finished: When it was answered or had ended otherwise; None while it is in flight.
        status: The HTTP status answered; None while in flight, or if no answer was sent.
        body_bytes: How many bytes of body were sent by its end.
    """

    task_id: str | None
    index: int | None
    watermarked: bool
    path: str
    headers: Mapping[str, str] = field(hash=False, repr=False)
    connection: int
    started: float
    finished: float | None = None
    status: int | None = None
    body_bytes: int = 0


R = TypeVar("R", bound=Query | ImageRequest)


class RequestLog(Generic[R]):
    """The last requests of one kind, in order of arrival."""

    def __init__(self, *, size: int) -> None:
        self.requests: deque[R] = deque(maxlen=size)
        self.begun = 0
        self._by_task: dict[str | None, list[R]] | None = None
        self._waiting: list[asyncio.Future[None]] = []
        self.in_flight = 0
        self.in_flight_peak = 0

    def begin(self, request: R) -> int:
        """Note a request that has arrived, and return its number for :meth:`end`."""
        self.requests.append(request)
        self._by_task = None
        self.begun += 1
        self.in_flight += 1
        self.in_flight_peak = max(self.in_flight_peak, self.in_flight)
        waiting, self._waiting = self._waiting, []
        for arrival in waiting:
            # who was cancelled waits no more
            if not arrival.done():
                arrival.set_result(None)
        return self.begun

    def end(self, number: int, **changes: Any) -> None:
        """Note that a request is over, and what is known of it by then."""
        self.in_flight -= 1
        self._by_task = None
        index = number - 1 - self.begun + len(self.requests)
        # below zero: it has left the bounded log while it was in flight
        if index >= 0:
            self.requests[index] = evolve(self.requests[index], **changes)

    def all(self) -> tuple[R, ...]:
        """Return the requests that are still in the log."""
        return tuple(self.requests)

    def of(self, task_id: str) -> tuple[R, ...]:
        """Return the requests of one id that are still in the log."""
        return tuple(self._grouped().get(task_id, ()))

    def gaps(self, task_id: str | None) -> list[float]:
        """Return the pauses between requests of one id, or of every id."""
        names = self._grouped() if task_id is None else [task_id]
        # one still in flight overlaps with the next: below zero for certain
        return [
            after.started - (math.inf if before.finished is None else before.finished)
            for name in names
            if name is not None  # as create requests have it
            for before, after in pairwise(self.of(name))
        ]

    async def arrivals(self, count: int, task_id: str | None) -> None:
        """Wait until the log holds ``count`` requests."""
        while len(self.requests if task_id is None else self.of(task_id)) < count:
            arrival = asyncio.get_running_loop().create_future()
            self._waiting.append(arrival)
            await arrival

    def _grouped(self) -> dict[str | None, list[R]]:
        """Return the log by id, sorted once for all calls between two changes."""
        if self._by_task is None:
            self._by_task = {}
            for request in self.requests:
                self._by_task.setdefault(request.task_id, []).append(request)
        return self._by_task
