"""Records are frozen, slotted, hashable and plain."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import attrs
import pytest

from kling_omni_async import (
    ImageTask,
    PollPolicy,
    Progress,
    TaskImage,
    TaskOutcome,
    TaskStatus,
    TransportError,
)

IMAGE = TaskImage(url="https://a.example/1.png", index=0, watermark_url="https://a.example/w.png")
TASK = ImageTask(
    task_id="t-1",
    status=TaskStatus.SUCCEED,
    status_message="fine",
    images=(IMAGE,),
    external_task_id="mine-7",
    created_at=datetime(2026, 6, 26, 5, 4, 5, 512000, tzinfo=UTC),
    updated_at=datetime(2026, 6, 26, 5, 4, 46, 78000, tzinfo=UTC),
    final_unit_deduction=Decimal("0.5"),
    request_id="req-1",
    raw={"task_status": "succeed", "deep": [{"a": None}]},
)
RECORDS = [
    IMAGE,
    TASK,
    TaskOutcome(task_id="t-1", task=TASK, queries=3, elapsed=51.5),
    Progress(total=3, pending=1, succeeded=1, failed=1),
    PollPolicy(),
]
EVERY_RECORD = pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)


def pickled(record: Any) -> Any:
    """Send a record through pickle."""
    return pickle.loads(pickle.dumps(record))  # noqa: S301 - ours


@EVERY_RECORD
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickled])
def test_survives_copying_and_pickling(record: Any, duplicate: Callable[[Any], Any]) -> None:
    """A copy is equal, has the same hash, and has the same value in every field."""
    double = duplicate(record)
    assert double == record
    assert hash(double) == hash(record)
    assert attrs.asdict(double) == attrs.asdict(record)


@EVERY_RECORD
def test_is_frozen(record: Any) -> None:
    """No field can be set."""
    for field in attrs.fields(type(record)):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(record, field.name, None)


@EVERY_RECORD
def test_is_slotted(record: Any) -> None:
    """An instance has no dictionary, as a million of them must fit into memory."""
    assert not hasattr(record, "__dict__")


@EVERY_RECORD
def test_is_keyword_only(record: Any) -> None:
    """Fields are given by name, so that new ones can come in anywhere."""
    with pytest.raises(TypeError, match="positional"):
        type(record)("x")


def test_raw_is_apart() -> None:
    """Two tasks that differ in `raw` alone are equal; `raw` is in no hash and no repr."""
    other = attrs.evolve(TASK, raw={"secret": 1})
    assert other == TASK
    assert hash(other) == hash(TASK)
    assert "secret" not in repr(other)
    assert other.raw == {"secret": 1}


def test_every_other_field_counts() -> None:
    """Two tasks that differ in any field but `raw` are not equal."""
    for field in attrs.fields(ImageTask):
        change: dict[str, Any] = {field.name: None}
        changed = attrs.evolve(TASK, **change)
        assert (changed == TASK) is (field.name == "raw")


def test_defaults_of_a_task() -> None:
    """What the API did not say is None, and there are no images."""
    task = ImageTask(task_id="t-1", status=TaskStatus.SUBMITTED)
    values = attrs.asdict(task)
    assert values.pop("task_id") == "t-1"
    assert values.pop("status") is TaskStatus.SUBMITTED
    assert values.pop("images") == ()
    assert values.pop("raw") == {}
    assert set(values.values()) == {None}


def test_tasks_share_no_raw() -> None:
    """Each task made without `raw` has one of its own."""
    first, second = (ImageTask(task_id="t", status=TaskStatus.UNKNOWN) for _ in range(2))
    assert first.raw is not second.raw


@pytest.mark.parametrize(
    ("status", "word", "terminal"),
    [
        (TaskStatus.SUBMITTED, "submitted", False),
        (TaskStatus.PROCESSING, "processing", False),
        (TaskStatus.SUCCEED, "succeed", True),
        (TaskStatus.FAILED, "failed", True),
        (TaskStatus.UNKNOWN, "unknown", False),
    ],
)
def test_status(status: TaskStatus, word: str, *, terminal: bool) -> None:
    """A status is the wire's word, in text and JSON too, and knows whether it is the last."""
    assert status == word
    assert f"{status}" == word
    assert json.dumps(status) == f'"{word}"'
    assert status.is_terminal is terminal
    assert ImageTask(task_id="t", status=status).is_terminal is terminal


def test_statuses_are_five() -> None:
    """There is no status beyond the five."""
    assert len(TaskStatus) == 5


def test_outcomes_are_equal_by_their_error_object() -> None:
    """Errors compare by identity, and so do the outcomes that hold them."""
    error = TransportError("cut off")
    outcome = TaskOutcome(task_id="t", error=error)
    assert outcome == TaskOutcome(task_id="t", error=error)
    assert outcome != TaskOutcome(task_id="t", error=TransportError("cut off"))
    assert hash(outcome) == hash(TaskOutcome(task_id="t", error=error))
