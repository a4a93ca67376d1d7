"""What comes out of a stream, one outcome for each id and the counts of all, and its JSON form."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from decimal import Decimal
from types import UnionType
from typing import Any, Final, Self

import attrs
from cattrs.preconf.json import make_converter

from . import errors
from ._display import bar, card, counted, one_line
from ._models import ImageTask, SavedImage, TaskImage, TaskStatus
from ._order import ImageOrder, order_from_dict, order_to_dict
from .errors import ApiError, KlingOmniError, TaskFailedError, TaskNotFoundError, copy_error


@attrs.frozen(kw_only=True)
class TaskOutcome:
    """How the polling of one id ended.

    Attributes:
        task_id: The id as it was given, without white space around it; empty where no task was
            created, or none is known of.
        task: The last `ImageTask` seen, or None.
        error: Why there is no success, or None. Where the images were to be saved and were not
            all, it is a `DownloadError`, and `task` is the one that succeeded.
        saved: The images that are in the store that `poll` was given.
        queries: How many queries it took.
        elapsed: The time since the id was added, or its order taken, in s.
        order: What was ordered, where this library created the task, or None.
        external_task_id: The name that this library gave the task when it created it, or None.
        note: What a book keeps with the id, or None; no part of ``==``.
        deliveries: How often a book has handed it out, this time included; 0 without a book, and
            no part of ``==``.
    """

    task_id: str
    task: ImageTask | None = None
    error: KlingOmniError | None = None
    saved: tuple[SavedImage, ...] = ()
    queries: int = 0
    elapsed: float = 0.0
    order: ImageOrder | None = attrs.field(default=None, hash=False)
    external_task_id: str | None = attrs.field(default=None, hash=False)
    note: Any = attrs.field(default=None, eq=False, hash=False)
    deliveries: int = attrs.field(default=0, eq=False)

    @property
    def ok(self) -> bool:
        """Whether the task succeeded and has images, and they were saved if that was asked for.

        A type checker does not learn from it that `task` is there: `result` gives the task.
        """
        return self.error is None

    @property
    def settled(self) -> bool:
        """Whether asking, or ordering, again brings nothing new.

        The task succeeded, the API said that it failed, or that it does not know it; or it refused
        the contents of the order. What cannot be an id was never asked for: correct it.
        """
        if isinstance(self.error, TaskFailedError | TaskNotFoundError):
            return True
        return self.ok or (not self.task_id and type(self.error) is ApiError)

    @property
    def images(self) -> tuple[TaskImage, ...]:
        """The finished images; empty unless `ok`."""
        return self.task.images if self.ok and self.task else ()

    def result(self) -> ImageTask:
        """Return the task that succeeded.

        Raises:
            KlingOmniError: A copy of `error`, if there is one.
        """
        if self.error is not None:
            raise copy_error(self.error)
        if self.task is None:
            raise ValueError(f"an outcome with neither task nor error: {self.task_id!r}")
        return self.task

    def __str__(self) -> str:
        name = self.task_id or (f"order {self.external_task_id}" if self.external_task_id else "''")
        if self.error is not None:
            return one_line(f"{name}: {type(self.error).__name__}: {self.error}")
        images, saved = counted(len(self.images), "image"), counted(len(self.saved), "image")
        return one_line(f"{name}: succeed", images, saved and f"{saved} saved")

    def _repr_html_(self) -> str:
        """Show the outcome in a notebook, with thumbnails."""
        return card(str(self), (image.url for image in self.task.images) if self.task else ())

    def to_dict(self) -> dict[str, Any]:
        """Return the outcome as a dictionary that JSON can carry; `from_dict` reads it."""
        return {
            "task_id": self.task_id,
            "ok": self.ok,
            "task": task_to_dict(self.task),
            "error": error_to_dict(self.error),
            "saved": _converter.unstructure(self.saved, tuple[SavedImage, ...]),
            "queries": self.queries,
            "elapsed": self.elapsed,
            "order": order_to_dict(self.order),
            "external_task_id": self.external_task_id,
            "note": self.note,
            "deliveries": self.deliveries,
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
        given = data["task"]
        task = None if given is None else _converter.structure(given, ImageTask)
        error = error_from_dict(data["error"], task_id=task_id, task=task)
        if not isinstance(task_id, str) or (task is None and error is None):
            raise TypeError("neither a task nor an error of a task id")
        own_name = data.get("external_task_id")
        if not isinstance(own_name, str | None):
            raise TypeError("an external_task_id of a wrong type")
        return cls(
            task_id=task_id,
            task=task,
            error=error,
            # A journal of before images were saved has none.
            saved=_converter.structure(data.get("saved", ()), tuple[SavedImage, ...]),
            queries=int(data["queries"]),
            elapsed=float(data["elapsed"]),
            # Nor had one of before tasks were created here these.
            order=order_from_dict(data.get("order")),
            external_task_id=own_name,
            note=data.get("note"),
            deliveries=int(data.get("deliveries", 0)),
        )


@attrs.frozen(kw_only=True)
class Progress:
    """The counts of a stream at one moment.

    Attributes:
        total: Ids known so far, without repeats: always the sum of the others.
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

    def __str__(self) -> str:
        counts = f"{self.succeeded} succeeded, {self.failed} failed, {self.unresolved} unresolved"
        return f"{self.total - self.pending} of {self.total}: {counts}"

    def _repr_html_(self) -> str:
        """Show the counts in a notebook, with a bar."""
        return bar(str(self), done=self.total - self.pending, total=self.total)


_converter = make_converter(detailed_validation=False)
_converter.register_unstructure_hook(Decimal, str)
_converter.register_structure_hook(Decimal, lambda text, _: Decimal(text))
# From cattrs 24.2 on a str enum is left as it is, and its repr would get into the form.
_converter.register_unstructure_hook(TaskStatus, lambda status: status.value)

_STATUSES = frozenset(map(str, TaskStatus))
# A word of tomorrow is no reason to lose the outcome that has it.
_converter.register_structure_hook(TaskStatus, lambda word, _: _status_of(word))

_APART = frozenset({"task", "task_id", "message", "last_error", "order"})
"""Parameters of errors that have a place of their own in the form, or are written once for all."""

_TEXT: Final = ("message", "reason", "url", "snippet", "digest")
_KINDS: Final[Mapping[str, type | UnionType]] = {
    **dict.fromkeys(_TEXT, str),
    **dict.fromkeys(("detail", "location", "request_id", "external_task_id"), str | None),
    "http_status": int | None,
    "code": int | str | None,
    "retry_after": int | float | None,
}
"""What errors hold, and whoever reads them counts on."""


def _status_of(word: Any) -> TaskStatus:
    is_later = isinstance(word, str) and word not in _STATUSES
    return TaskStatus.UNKNOWN if is_later else TaskStatus(word)


def task_to_dict(task: ImageTask | None) -> dict[str, Any] | None:
    """Return a task as JSON can carry it."""
    return None if task is None else _converter.unstructure(task, ImageTask)


def task_from_dict(data: Mapping[str, Any]) -> ImageTask:
    """Read what `task_to_dict` gave; raises whatever a wrong form provokes."""
    return _converter.structure(data, ImageTask)


def error_to_dict(error: KlingOmniError | None) -> dict[str, Any] | None:
    """Return an error as JSON can carry it, without its id and its task."""
    if error is None:
        return None
    known = inspect.signature(type(error)).parameters.keys() - _APART
    attributes = {name: value for name, value in vars(error).items() if name in known}
    form = {"type": type(error).__name__, "message": str(error.args[0]), **attributes}
    if isinstance(error, errors.PollTimeoutError):
        form["last_error"] = error_to_dict(error.last_error)
    return form


def error_from_dict(
    data: Mapping[str, Any] | None, *, task_id: str, task: ImageTask | None
) -> KlingOmniError | None:
    """Read what `error_to_dict` gave; a class of tomorrow becomes a plain `KlingOmniError`."""
    if data is None:
        return None
    odd = [name for name in _KINDS.keys() & data.keys() if not isinstance(data[name], _KINDS[name])]
    if odd:
        raise TypeError(f"an error whose {odd[0]} is of a wrong type")
    name = data["type"]
    kind: type[KlingOmniError] = getattr(errors, name) if name in errors.__all__ else KlingOmniError
    attributes: dict[str, Any] = {**data, "task_id": task_id, "task": task}
    attributes["order"] = data.get("digest") or None  # as in a pickle
    attributes["last_error"] = error_from_dict(data.get("last_error"), task_id=task_id, task=task)
    known = inspect.signature(kind).parameters
    return kind(**{name: value for name, value in attributes.items() if name in known})
