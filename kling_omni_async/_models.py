"""What the API says of a task, as frozen records without I/O."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

import attrs

from ._display import card, counted, one_line


class TaskStatus(StrEnum):
    """How far a task is; the values are the wire's own words (CometAPI docs).

    UNKNOWN stands for a word that this version does not know: such a task is not finished.
    """

    SUBMITTED = "submitted"
    PROCESSING = "processing"
    SUCCEED = "succeed"
    FAILED = "failed"
    UNKNOWN = "unknown"

    @property
    def is_terminal(self) -> bool:
        """Whether the status never changes again."""
        return self in FINAL_STATUS


# As names, which Python 3.11 looks up faster: each answer is compared with them.
SUCCEED: Final = TaskStatus.SUCCEED
FAILED: Final = TaskStatus.FAILED
UNKNOWN: Final = TaskStatus.UNKNOWN

FINAL_STATUS: Final = frozenset({SUCCEED, FAILED})


@attrs.frozen(kw_only=True)
class TaskImage:
    """One finished image. Its URL can expire: store the image soon (CometAPI docs).

    Attributes:
        url: To be used byte for byte; as the API gave it, but for white space and a missing
            scheme, which are mended as browsers do.
        index: The image's place in its series, from 0, or None.
        watermark_url: The same image with a watermark, or None.
    """

    url: str
    index: int | None = None
    watermark_url: str | None = None


@attrs.frozen(kw_only=True)
class SavedImage:
    """An image that is whole in the user's own storage.

    Attributes:
        key: Its path in a directory, or its key in an object store.
        url: Where it came from, byte for byte.
        size: In bytes.
        sha256: The digest of its bytes, in hexadecimal.
        content_type: Such as ``image/png``.
    """

    key: str
    url: str
    size: int
    sha256: str
    content_type: str


@attrs.frozen(kw_only=True)
class ImageTask:
    """A task as the API described it in one answer.

    Attributes:
        task_id: The id that was asked for.
        status: How far the task is.
        status_message: The reason when the task failed; when it succeeded, how many of its images
            have no usable URL; else None.
        images: The finished images in order; empty until the task has succeeded.
        external_task_id: The name that the creator gave the task, or None.
        created_at: In UTC, or None.
        updated_at: In UTC, or None.
        final_unit_deduction: What the task cost, in units, or None.
        request_id: The API's name for the answer, or None.
        raw: The answer's ``data`` object as it came, but for the API key and numbers that are
            none; no part of ``==``, hash and repr.
    """

    task_id: str
    status: TaskStatus
    status_message: str | None = None
    images: tuple[TaskImage, ...] = ()
    external_task_id: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    final_unit_deduction: Decimal | None = None
    request_id: str | None = None
    raw: Mapping[str, Any] = attrs.field(factory=dict[str, Any], eq=False, repr=False)

    @property
    def is_terminal(self) -> bool:
        """Whether the API has said its last word on this task."""
        return self.status.is_terminal

    def __str__(self) -> str:
        images = counted(len(self.images), "image")
        return one_line(f"{self.task_id}: {self.status}", images, self.status_message or "")

    def _repr_html_(self) -> str:
        """Show the task in a notebook, with thumbnails."""
        return card(str(self), (image.url for image in self.images))
