"""What may be saved, what an answer means, when an image is tried again: no I/O is in it."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from kling_omni_async._ids import quoted
from kling_omni_async._models import ImageTask, TaskStatus
from kling_omni_async._outcome import TaskOutcome
from kling_omni_async._policy import MAX_RETRY_AFTER_S
from kling_omni_async.errors import (
    AssetExpiredError,
    ConfigurationError,
    DownloadError,
    NoImagesError,
    TaskFailedError,
)

LONGEST_PAUSE_S: Final = 30.0
"""The longest pause between two tries, before jitter, in s; the first is 1 s, each doubles."""

READY_WITHIN_S: Final = 180.0
"""How long a host may need to have an image that has just been made, in s (seen: 150 s)."""

_NOT_READY: Final = frozenset({202, 403, 404})
"""What hosts answer while they do not have an image: some object stores say 403 for that."""

_GONE: Final = frozenset({403, 404, 410})


def task_to_save(given: object) -> ImageTask:
    """Return the task, or that of an outcome, whose images are to be saved.

    Raises:
        ConfigurationError: It is neither, or the task has not succeeded yet.
        NoImagesError: The task has no images.
        KlingOmniError: The task failed, or the outcome's own error.
    """
    task = given
    if isinstance(given, TaskOutcome):
        # One whose images could not be saved is what one wants to save again.
        task = given.task if isinstance(given.error, DownloadError) else given.result()
    if not isinstance(task, ImageTask):
        raise ConfigurationError(
            f"save takes an ImageTask or a TaskOutcome, not {type(given).__name__}"
        )
    if task.status is TaskStatus.FAILED:
        raise TaskFailedError(task.status_message or "", task_id=task.task_id, task=task)
    if task.status is not TaskStatus.SUCCEED:
        raise ConfigurationError(
            f"task {quoted(task.task_id)} is {task.status}: wait for it before its images "
            "are saved",
            task_id=task.task_id,
        )
    if not task.images:
        raise NoImagesError("the task has no images to save", task_id=task.task_id, task=task)
    return task


def require_good(status: int, *, retry_after: float | None = None) -> None:
    """Raise why an HTTP status brings no image, if it is not 200; `retry_after` is in s."""
    if status == HTTPStatus.OK:
        return
    kind, text, reason = DownloadError, f"HTTP {status} instead of an image", "http"
    # Signed URLs answer 403 once they have expired (S3 and its kin), cleared ones 404 or 410.
    if status in _GONE:
        kind, reason = AssetExpiredError, "expired"
        text = f"HTTP {status}: the URL has expired, or its image was cleared"
    elif status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        text, reason = "the proxy refuses", "proxy"
    raise kind(text, http_status=status, reason=reason, retry_after=retry_after)


def require_bytes(size: int) -> None:
    """Raise that a host has sent no image yet, where a good answer has no bytes."""
    if not size:
        raise DownloadError("an empty answer", http_status=HTTPStatus.OK, reason="empty")


def is_not_ready(error: DownloadError) -> bool:
    """Return whether an answer may say that the host does not have the image yet."""
    return error.reason == "empty" or error.http_status in _NOT_READY


def pause_before_retry(
    error: DownloadError, *, tries: int, most: int, seen_s: float, jitter: float
) -> float | None:
    """Return the pause before an image is fetched again, in s, or None to give it up.

    `tries` counts those that ended alike, `seen_s` is the time since success was first seen, and
    `jitter` a factor from 1 on. What a host asks for is kept, as far as the API's word is.
    """
    pause_s = jitter * min(2.0 ** min(tries - 1, 9), LONGEST_PAUSE_S)
    asked_s = min(error.retry_after or 0.0, MAX_RETRY_AFTER_S)
    if is_not_ready(error):
        left_s = READY_WITHIN_S - seen_s
        return max(min(pause_s, left_s), asked_s) if left_s > 0 else None
    return max(pause_s, asked_s) if error.transient and tries < most else None
