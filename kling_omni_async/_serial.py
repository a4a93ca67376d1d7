"""Records and errors as plain dictionaries that JSON can carry, and back."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from cattrs import Converter

from . import errors
from ._models import ImageTask, SavedImage
from .errors import KlingOmniError

_APART = frozenset({"task", "task_id", "message", "last_error"})


def _make_converter() -> Converter:
    converter = Converter(detailed_validation=False)
    converter.register_unstructure_hook(datetime, datetime.isoformat)
    converter.register_structure_hook(datetime, lambda text, _: datetime.fromisoformat(text))
    converter.register_unstructure_hook(Decimal, str)
    converter.register_structure_hook(Decimal, lambda text, _: Decimal(text))
    return converter


_converter = _make_converter()


def task_to_dict(task: ImageTask | None) -> dict[str, Any] | None:
    """Give a task as JSON can carry it."""
    return None if task is None else _converter.unstructure(task, ImageTask)


def task_from_dict(data: Mapping[str, Any] | None) -> ImageTask | None:
    """Read what `task_to_dict` gave.

    Raises:
        Exception: The data is of another form; of any class.
    """
    return None if data is None else _converter.structure(data, ImageTask)


def saved_to_dicts(saved: Iterable[SavedImage]) -> list[dict[str, Any]]:
    """Give saved images as JSON can carry them."""
    return [_converter.unstructure(image, SavedImage) for image in saved]


def saved_from_dicts(data: Iterable[Mapping[str, Any]]) -> tuple[SavedImage, ...]:
    """Read what `saved_to_dicts` gave.

    Raises:
        Exception: The data is of another form; of any class.
    """
    return tuple(_converter.structure(image, SavedImage) for image in data)


def error_to_dict(error: KlingOmniError | None) -> dict[str, Any] | None:
    """Give an error as JSON can carry it, without its id and its task."""
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
    """Read what `error_to_dict` gave; a class of tomorrow becomes a plain `KlingOmniError`.

    Args:
        data: The dictionary.
        task_id: The id that the error is about.
        task: The record for an error that carries one.
    """
    if data is None:
        return None
    kind = _class_named(data["type"])
    attributes: dict[str, Any] = {**data, "task_id": task_id, "task": task}
    attributes["last_error"] = error_from_dict(data.get("last_error"), task_id=task_id, task=task)
    known = inspect.signature(kind).parameters
    return kind(**{name: value for name, value in attributes.items() if name in known})


def _class_named(name: str) -> type[KlingOmniError]:
    known: type[KlingOmniError] = (
        getattr(errors, name) if name in errors.__all__ else KlingOmniError
    )
    return known
