"""Where the images of finished tasks are, and what is there.

Everything about the hosting of images belongs here: the rest knows only :func:`image_path` and
:func:`image_at`.
"""

from __future__ import annotations

from urllib.parse import quote, unquote

from attrs import frozen

from ._png import draw
from ._tasks import TaskBook

PREFIX = "/assets/"

_MARKED = "watermarked/"
_ENDING = ".png"


@frozen
class _Place:
    """The picture that a path names."""

    task_id: str
    index: int
    marked: bool


def image_path(task_id: str, index: int, *, watermarked: bool = False) -> str:
    """Name the path of one image.

    Args:
        task_id: The task that made it.
        index: Its place among the task's images, from 0.
        watermarked: Whether the copy with the watermark is meant.
    """
    return f"{PREFIX}{_MARKED if watermarked else ''}{quote(task_id, safe='')}-{index}{_ENDING}"


def image_at(path: str, tasks: TaskBook, *, now: float, seed: int) -> bytes | None:
    """Draw the image at a path.

    Args:
        path: A raw path that begins with :data:`PREFIX`.
        tasks: The tasks that exist.
        now: The time, in simulated seconds.
        seed: The simulator's seed; another one gives other pictures.

    Returns:
        A PNG file, or None where no image is (yet).
    """
    place = _place(path)
    if place is None or not _exists(place, tasks, now):
        return None
    return draw(f"{seed}/{place.task_id}/{place.index}", marked=place.marked)


def _place(path: str) -> _Place | None:
    name = path.removeprefix(PREFIX)
    task_id, _, index = name.removeprefix(_MARKED).removesuffix(_ENDING).rpartition("-")
    if not (name.endswith(_ENDING) and index.isascii() and index.isdigit()):
        return None
    return _Place(unquote(task_id), int(index[:4]), name.startswith(_MARKED))


def _exists(place: _Place, tasks: TaskBook, now: float) -> bool:
    task = tasks.get(place.task_id)
    return (
        task is not None
        and task.status(now) == "succeed"
        and place.index < task.images
        and (task.watermarked or not place.marked)
    )
