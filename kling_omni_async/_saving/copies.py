"""Images that another store has, brought into the one where they are to be."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Protocol

import attrs

from kling_omni_async._models import SavedImage
from kling_omni_async._outcome import TaskOutcome
from kling_omni_async.errors import StorageError

from .files import Stored
from .formats import image_stems
from .stores import SavePlan
from .threads import in_thread


class Source(Protocol):
    """A store that can be read."""

    async def read(self, name: str, write: Callable[[bytes], object]) -> None:
        """Read an image piece by piece into what takes them, or raise `StorageError`."""
        ...


async def copy_images(
    outcome: TaskOutcome, source: Source, plan: SavePlan
) -> tuple[SavedImage, ...]:
    """Bring the images of an outcome from the store that has them into another one.

    Raises:
        StorageError: Not all of them are there any more, byte for byte, or one cannot be stored.
    """
    names = {stem_of(image.key): image for image in outcome.saved}
    images = () if outcome.task is None else outcome.task.images
    stems = image_stems(outcome.task_id, images, watermarked=plan.watermarked).values()
    copied: list[SavedImage] = []
    for stem in stems:
        if (image := names.get(stem)) is None:
            raise StorageError(f"{stem} was not saved", reason="store")
        stored = await _copy(image, source, plan, stem)
        copied.append(SavedImage(url=image.url, **attrs.asdict(stored)))
    return tuple(copied)


async def _copy(image: SavedImage, source: Source, plan: SavePlan, stem: str) -> Stored:
    begun = await plan.store.begin(stem, look=not plan.overwrite)
    if isinstance(begun, Stored):
        return begun
    try:
        await source.read(base_name(image.key), begun.write)
        _require_same(image, begun.content.sha256)
        return await plan.store.keep(begun, b"", stem, overwrite=plan.overwrite)
    except BaseException:
        await in_thread(begun.discard)
        raise


def _require_same(image: SavedImage, sha256: str) -> None:
    """Raise if what has come is another image by now, or half of it."""
    if sha256 != image.sha256:
        raise StorageError(f"{image.key} is not what was saved", reason="store")


def base_name(key: str) -> str:
    """Return the last part of a path of any system, or of a key in an object store."""
    return re.split(r"[/\\]", key)[-1]


def stem_of(key: str) -> str:
    """Return the name of an image without its ending."""
    return PurePosixPath(base_name(key)).stem
