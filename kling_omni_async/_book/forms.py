"""How what a book keeps becomes JSON, and back: notes, tasks, errors, outcomes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, cast

import attrs

from kling_omni_async._models import ImageTask
from kling_omni_async._order import ImageOrder, order_from_dict, order_to_dict
from kling_omni_async._outcome import TaskOutcome, task_from_dict, task_to_dict
from kling_omni_async.errors import BookError, ConfigurationError, CreateUncertainError

from .contract import Found, Parcel, State
from .records import BookEntry, EntryState

MOST_NOTE_BYTES: Final = 65_536
MOST_ORDER_BYTES: Final = 65_536

_DIGEST: Final = "digest"
"""Beside the fields of an order, where there is one of it."""

_STATES: Final[Mapping[State, EntryState]] = {
    State.OPEN: "open",
    State.UNREAD: "done",
    State.READ: "done",
    State.PARKED: "parked",
}


def note_to_json(note: object) -> str | None:
    """Return a note as it is kept.

    Raises:
        ConfigurationError: JSON cannot carry it, or it is too long.
    """
    if note is None:
        return None
    try:
        text = json.dumps(note, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
        _require_names(note)
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        said = f"{type(error).__name__}: {error}"
        raise ConfigurationError(
            f"note cannot be kept ({said}); give what JSON can carry, without NaN"
        ) from None
    if size > MOST_NOTE_BYTES:
        raise ConfigurationError(
            f"note has {size:,} bytes as JSON; keep at most {MOST_NOTE_BYTES:,}, or a key to them"
        )
    return text


def _require_names(note: object) -> None:
    """Raise where a key would come back as another one: JSON makes text of numbers."""
    if isinstance(note, dict):
        for key, value in cast("dict[object, object]", note).items():
            if not isinstance(key, str):
                raise TypeError(f"key {key!r:.40} is no str")
            _require_names(value)
    elif isinstance(note, list | tuple):
        for value in cast("Sequence[object]", note):
            _require_names(value)


def note_from_json(text: str | None) -> Any:
    """Return a note as it was given."""
    return None if text is None else json.loads(text)


def _dumps(value: object) -> str:
    """Return what an API said as JSON, with half of a surrogate pair as stores can keep it."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"))
    return text


def order_to_json(order: ImageOrder, digest: str) -> str:
    """Return an order as it is kept: without bytes of images, and of its callback the host.

    Raises:
        ConfigurationError: It is too long.
    """
    text = _dumps({**(order_to_dict(order) or {}), _DIGEST: digest})
    if (size := len(text.encode())) > MOST_ORDER_BYTES:
        raise ConfigurationError(
            f"ImageOrder has {size:,} bytes as JSON without its images' bytes; a book keeps "
            f"{MOST_ORDER_BYTES:,} at most: shorten its URLs, its key or extra"
        )
    return text


def task_to_json(task: ImageTask) -> str:
    """Return a task as it is kept."""
    return _dumps(task_to_dict(task))


def task_from_json(text: str | None) -> ImageTask | None:
    """Return a task that was kept."""
    return None if text is None else task_from_dict(json.loads(text))


def outcome_to_json(outcome: TaskOutcome) -> str:
    """Return an outcome as it is kept: its note and order are kept beside it."""
    bare = attrs.evolve(outcome, note=None, order=None)
    return _dumps(bare.to_dict())


def outcome_of(found: Found) -> TaskOutcome | None:
    """Return the outcome of an entry, if it has ended."""
    text = found.row.outcome
    if text is None:
        return None
    return _outcome(text, found.note, found.order, deliveries=found.row.deliveries)


def outcome_of_parcel(parcel: Parcel) -> TaskOutcome:
    """Return the outcome that a reader gets."""
    return _outcome(parcel.outcome, parcel.note, parcel.order, deliveries=parcel.deliveries)


def _outcome(text: str, note: str | None, order: str | None, *, deliveries: int) -> TaskOutcome:
    try:
        outcome = TaskOutcome.from_dict(json.loads(text))
        form = None if order is None else json.loads(order)
        ordered = order_from_dict(form)
        if isinstance(outcome.error, CreateUncertainError) and form is not None:
            outcome.error.order, outcome.error.digest = ordered, form.get(_DIGEST, "")
        return attrs.evolve(
            outcome, note=note_from_json(note), order=ordered, deliveries=deliveries
        )
    except (TypeError, ValueError) as error:
        raise BookError(f"the book holds an outcome that cannot be read: {error}") from None


def entry_of(found: Found) -> BookEntry:
    """Return an entry as users see it."""
    row = found.row
    outcome = outcome_of(found)
    return BookEntry(
        task_id="" if row.is_intent else row.key,
        external_task_id=row.external_id,
        note=note_from_json(found.note),
        added_at=datetime.fromtimestamp(row.added_at, UTC),
        state=_STATES[row.state],
        task=outcome.task if outcome else task_from_json(row.task),
        outcome=outcome,
    )
