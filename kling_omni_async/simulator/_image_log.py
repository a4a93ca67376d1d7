"""What is remembered of a request for an image."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen


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
