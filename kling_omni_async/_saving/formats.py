"""Image files: known by their first bytes, named after their task."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

import attrs

from kling_omni_async._models import TaskImage
from kling_omni_async.errors import DownloadError

HEAD_BYTES: Final = 64
"""How many first bytes tell the kind of an image."""

WATERMARKED: Final = "-watermarked"
"""What stands behind the number in the name of a watermarked copy."""

_SHOWN_BYTES = 24
_LONGEST_PLAIN_ID = 120
_LONGEST_READABLE = 60
_PLAIN_ID = re.compile(r"[a-z0-9_][a-z0-9_-]*")
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")


@attrs.frozen
class ImageKind:
    """A format that is accepted: its ending without the dot, and its type as in HTTP."""

    ending: str
    content_type: str


PNG: Final = ImageKind("png", "image/png")
JPEG: Final = ImageKind("jpg", "image/jpeg")
WEBP: Final = ImageKind("webp", "image/webp")
GIF: Final = ImageKind("gif", "image/gif")
AVIF: Final = ImageKind("avif", "image/avif")

KINDS: Final = (PNG, JPEG, WEBP, GIF, AVIF)
"""All formats, the likeliest first: every published answer of the API has PNG files."""


def kind_of(head: bytes) -> ImageKind | None:
    """Return the format of a file by its first bytes, or None if it is no image."""
    # Not by what a host calls it: an expired URL often gives a page and says 200, and one type is
    # often told for all files. The ending is a promise to programs that only see the name.
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return PNG
    if head.startswith(b"\xff\xd8\xff"):
        return JPEG
    if head.startswith((b"GIF87a", b"GIF89a")):
        return GIF
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return WEBP
    return AVIF if _brands(head) & {b"avif", b"avis"} else None


def _brands(head: bytes) -> set[bytes]:
    """Return the brands of an ISO base media file (ISO/IEC 14496-12, 4.3)."""
    if head[4:8] != b"ftyp":
        return set()
    box = head[: int.from_bytes(head[:4])]
    return {box[8:12], *(box[at : at + 4] for at in range(16, len(box), 4))}


def require_image(head: bytes, *, whole: bool) -> ImageKind:
    """Return the format of an image that has come as a whole, by its first bytes.

    Raises:
        DownloadError: It is none, such as a web page, or its end is missing.
    """
    kind = kind_of(head)
    if kind is None:
        raise DownloadError(
            f"what came is no image; it begins with {head[:_SHOWN_BYTES]!r}",
            http_status=HTTPStatus.OK,
            reason="not-an-image",
        )
    if not whole:
        raise DownloadError(
            "the end of the image is missing", http_status=HTTPStatus.OK, reason="cut-off"
        )
    return kind


def image_stem(task_id: str, number: int, *, watermarked: bool) -> str:
    """Return the name of an image without its ending: ``<task_id>-<number>``."""
    # Watermarked copies have names of their own, so that both can be kept in one place.
    return f"{_file_id(task_id)}-{number}{WATERMARKED if watermarked else ''}"


def _file_id(task_id: str) -> str:
    # An id that some file system could take for another one (by its case, its length, a path in
    # it) has its digest in the name.
    if len(task_id) <= _LONGEST_PLAIN_ID and _PLAIN_ID.fullmatch(task_id):
        return task_id
    digest = hashlib.sha256(task_id.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    readable = _UNSAFE.sub("_", task_id[:_LONGEST_READABLE]).strip("_-")
    return f"{readable or 'id'}_.{digest}"  # no plain id has a dot


def image_stems(task_id: str, images: Sequence[TaskImage], *, watermarked: bool) -> dict[int, str]:
    """Return the numbers of a task's images, in their order, and their names without ending."""
    # An index stays with its image in whatever order an answer has them. A place does not, and is
    # taken only where indices don't tell.
    indices = [image.index for image in images if image.index is not None]
    numbers = indices if len(set(indices)) == len(images) else range(len(images))
    return {number: image_stem(task_id, number, watermarked=watermarked) for number in numbers}
