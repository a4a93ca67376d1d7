"""The files of an order, read beside the loop, once for each call."""

from __future__ import annotations

import asyncio
from pathlib import Path

from kling_omni_async._api.create import CreateRequest, digest_of, make_request
from kling_omni_async._order import MOST_IMAGE_BYTES, ImageOrder, require_image
from kling_omni_async.errors import ConfigurationError


async def prepare(order: ImageOrder, external_id: str) -> CreateRequest:
    """Return the request of an order, with all its images in it.

    Raises:
        ConfigurationError: A file cannot be read, or is none that the API takes.
    """
    if any(isinstance(image, Path | bytes) for image in order.images):
        return await asyncio.to_thread(_request, order, external_id)
    return _request(order, external_id)


def digest_of_files(order: ImageOrder) -> str:
    """Return the digest of what an order wants; its files are read where the caller is.

    Raises:
        ConfigurationError: A file cannot be read, or is none that the API takes.
    """
    return digest_of(order, _images(order))


def _request(order: ImageOrder, external_id: str) -> CreateRequest:
    return make_request(order, _images(order), external_id)


def _images(order: ImageOrder) -> list[str | bytes]:
    return [
        _read(f"ImageOrder.images[{index}]", image) if isinstance(image, Path) else image
        for index, image in enumerate(order.images)
    ]


def _read(field: str, path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            # No more of it, however long it is: one byte too many shows that it is too long.
            content = file.read(MOST_IMAGE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigurationError(f"{field}: {str(path)!r} cannot be read: {reason}") from None
    return require_image(f"{field}, {str(path)!r},", content)
