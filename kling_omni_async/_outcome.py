"""What comes out of a stream: one outcome for each id, and the counts of all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import attrs

from ._models import ImageTask, SavedImage, TaskImage
from ._serial import (
    error_from_dict,
    error_to_dict,
    saved_from_dicts,
    saved_to_dicts,
    task_from_dict,
    task_to_dict,
)
from .errors import KlingOmniError, copy_error


@attrs.frozen(kw_only=True)
class TaskOutcome:
    """How the polling of one id ended.

    Attributes:
        task_id: The id as it was given.
        task: The last `ImageTask` seen, or None.
        error: Why there is no success, or None. Where the images were to be saved and were not
            all, it is a `DownloadError`, and `task` is the one that succeeded.
        saved: The images that are in the store that `poll` was given.
        queries: How many queries it took.
        elapsed: The time since the id was added, in s.
    """

    task_id: str
    task: ImageTask | None = None
    error: KlingOmniError | None = None
    saved: tuple[SavedImage, ...] = ()
    queries: int = 0
    elapsed: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether the task succeeded and has images, and they were saved if that was asked for."""
        return self.error is None

    @property
    def images(self) -> tuple[TaskImage, ...]:
        """The finished images; empty unless `ok`."""
        return self.task.images if self.ok and self.task else ()

    def result(self) -> ImageTask:
        """Give the task that succeeded.

        Raises:
            KlingOmniError: A copy of `error`, if there is one.
        """
        if self.error is not None:
            raise copy_error(self.error)
        if self.task is None:
            raise ValueError(f"an outcome with neither task nor error: {self.task_id!r}")
        return self.task

    def to_dict(self) -> dict[str, Any]:
        """Give the outcome as a dictionary that JSON can carry; `from_dict` reads it."""
        return {
            "task_id": self.task_id,
            "ok": self.ok,
            "task": task_to_dict(self.task),
            "error": error_to_dict(self.error),
            "saved": saved_to_dicts(self.saved),
            "queries": self.queries,
            "elapsed": self.elapsed,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_dict` gave; keys of a later version are passed over.

        Args:
            data: The dictionary, straight or through JSON.

        Raises:
            ValueError: It is not the form of an outcome.
        """
        try:
            return cls._read(data)
        except Exception as error:  # noqa: BLE001 - whatever a wrong form provokes
            raise ValueError(
                f"not the form of a TaskOutcome ({type(error).__name__}: {error}); "
                "give what TaskOutcome.to_dict() returned"
            ) from None

    @classmethod
    def _read(cls, data: Mapping[str, Any]) -> Self:
        task_id = data["task_id"]
        task = task_from_dict(data["task"])
        error = error_from_dict(data["error"], task_id=task_id, task=task)
        if not isinstance(task_id, str) or (task is None and error is None):
            raise TypeError("neither a task nor an error of a task id")
        return cls(
            task_id=task_id,
            task=task,
            error=error,
            saved=saved_from_dicts(data.get("saved", ())),
            queries=int(data["queries"]),
            elapsed=float(data["elapsed"]),
        )


@attrs.frozen(kw_only=True)
class Progress:
    """The counts of a stream at one moment.

    Attributes:
        total: Ids read from the input so far, without repeats.
        pending: Ids not yet handed out.
        succeeded: Outcomes that are ok.
        failed: Outcomes where the API said that the task failed.
        unresolved: Outcomes with any other error.
    """

    total: int = 0
    pending: int = 0
    succeeded: int = 0
    failed: int = 0
    unresolved: int = 0
