"""What a request for an image is answered, as long as nothing is spoilt."""

from __future__ import annotations

from http import HTTPStatus

from ._answers import Answer
from ._assets import Place, Target, signature
from ._content import Content
from ._png import draw, draw_sized
from ._tasks import SimulatedTask, TaskBook

XML_TYPE = "application/xml"

_DENIED = b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code></Error>'


def picture(place: Place, size: int | None, *, seed: int) -> Answer:
    """Answer with the picture of a place, whether a task has made it or not.

    Args:
        place: The image.
        size: Bytes of the file; None for the usual one.
        seed: The simulator's seed; another one gives other pictures.
    """
    name = f"{seed}/{place.task_id}/{place.index}"
    body: Content = draw(name, marked=place.watermarked)
    if size is not None:
        body = draw_sized(name, size, marked=place.watermarked)
    return Answer(body=body, content_type="image/png")


def moved(location: str) -> Answer:
    """Send the client elsewhere."""
    return Answer(status=302, headers={"Location": location})


def image_answer(target: Target | None, tasks: TaskBook, *, now: float, seed: int) -> Answer:
    """Answer one request for an image.

    Args:
        target: What the request names; None for no image.
        tasks: The tasks that exist.
        now: The time, in simulated seconds.
        seed: The simulator's seed.
    """
    task = None if target is None else _maker(target.place, tasks)
    if target is None or task is None:
        return Answer(status=404)
    if target.hops:
        return moved(target.via(target.hops - 1))
    refusal = _refusal(target, task, now=now, seed=seed)
    return picture(target.place, task.image_bytes, seed=seed) if refusal is None else refusal


def _maker(place: Place, tasks: TaskBook) -> SimulatedTask | None:
    """Find the task that has such an image, made already or not."""
    task = tasks.get(place.task_id)
    if task is None or place.index >= task.images or (place.watermarked and not task.watermarked):
        return None
    return task


def _refusal(target: Target, task: SimulatedTask, *, now: float, seed: int) -> Answer | None:
    if task.expiry is not None:
        return _gone(task.expiry.status)
    if task.status(now) != "succeed":
        return _gone(HTTPStatus.NOT_FOUND)
    if task.signed and target.query != signature(target.place, seed):
        return _gone(HTTPStatus.FORBIDDEN)
    return None


def _gone(status: int) -> Answer:
    if status == HTTPStatus.FORBIDDEN:
        return Answer(status=status, body=_DENIED, content_type=XML_TYPE)
    return Answer(status=status)
