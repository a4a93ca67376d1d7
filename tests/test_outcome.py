"""What comes out of a stream can be used at once, or written down and read back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import attrs
import pytest

from kling_omni_async import (
    ImageTask,
    KlingOmniError,
    PollTimeoutError,
    Progress,
    ResponseError,
    SavedImage,
    ServerError,
    TaskFailedError,
    TaskOutcome,
    TaskStatus,
    errors,
)

from .test_errors import SAMPLES, facts
from .test_models import IMAGE, TASK

SAVED = SavedImage(
    key="images/t-1-0.png",
    url="https://a.example/1.png",
    size=3_000,
    sha256="ab" * 32,
    content_type="image/png",
)
SUCCESS = TaskOutcome(task_id="t-1", task=TASK, saved=(SAVED,), queries=3, elapsed=51.5)


def through_json(outcome: TaskOutcome) -> TaskOutcome:
    """Write an outcome down and read it back."""
    return TaskOutcome.from_dict(json.loads(json.dumps(outcome.to_dict(), allow_nan=False)))


def test_success() -> None:
    """An outcome without error is ok and gives its task and images."""
    assert SUCCESS.ok
    assert SUCCESS.images == (IMAGE,)
    assert SUCCESS.result() is TASK


def test_trouble() -> None:
    """An outcome with an error is not ok and has no images, whatever its task has."""
    outcome = attrs.evolve(SUCCESS, error=errors.ServerError("down", http_status=502))
    assert not outcome.ok
    assert outcome.images == ()


@pytest.mark.parametrize("name", errors.__all__)
def test_settled(name: str) -> None:
    """Asking again brings nothing new where the API has said its last word, and nowhere else."""
    assert SUCCESS.settled
    outcome = attrs.evolve(SUCCESS, error=SAMPLES[name])
    assert outcome.settled is (name in {"TaskFailedError", "TaskNotFoundError"})


@pytest.mark.parametrize("name", errors.__all__)
def test_settled_without_a_task(name: str) -> None:
    """Of an order that made no task a refusal of its contents is the last word, too."""
    outcome = TaskOutcome(task_id="", error=SAMPLES[name])
    assert outcome.settled is (name in {"ApiError", "TaskFailedError", "TaskNotFoundError"})


def test_result_raises_a_copy() -> None:
    """`result` raises the same each time, and the kept error gathers no traceback."""
    error = errors.TaskNotFoundError("task_not_exist", task_id="t-1", http_status=400)
    outcome = TaskOutcome(task_id="t-1", error=error)
    for _ in range(2):
        with pytest.raises(errors.TaskNotFoundError) as caught:
            outcome.result()
        assert caught.value is not error
        assert facts(caught.value) == facts(error)
    assert error.__traceback__ is None


def test_result_of_nothing() -> None:
    """An outcome made with neither task nor error says which id it is about."""
    outcome = TaskOutcome(task_id="t-9")
    assert outcome.images == ()
    with pytest.raises(ValueError, match="neither task nor error: 't-9'"):
        outcome.result()


def test_form_of_a_success() -> None:
    """The dictionary has plain values under stable names."""
    assert SUCCESS.to_dict() == {
        "task_id": "t-1",
        "ok": True,
        "task": {
            "task_id": "t-1",
            "status": "succeed",
            "status_message": "fine",
            "images": [
                {
                    "url": "https://a.example/1.png",
                    "index": 0,
                    "watermark_url": "https://a.example/w.png",
                }
            ],
            "external_task_id": "mine-7",
            "created_at": "2026-06-26T05:04:05.512000+00:00",
            "updated_at": "2026-06-26T05:04:46.078000+00:00",
            "final_unit_deduction": "0.5",
            "request_id": "req-1",
            "raw": {"task_status": "succeed", "deep": [{"a": None}]},
        },
        "error": None,
        "saved": [
            {
                "key": "images/t-1-0.png",
                "url": "https://a.example/1.png",
                "size": 3_000,
                "sha256": "ab" * 32,
                "content_type": "image/png",
            }
        ],
        "queries": 3,
        "elapsed": 51.5,
        "order": None,
        "external_task_id": None,
        "note": None,
        "deliveries": 0,
    }


def test_form_of_an_error() -> None:
    """An error is its class's name, its message and its attributes, without task and id."""
    outcome = TaskOutcome(task_id="t-1", error=SAMPLES["RateLimitError"])
    assert outcome.to_dict()["error"] == {
        "type": "RateLimitError",
        "message": "text",
        "http_status": 429,
        "code": 1303,
        "request_id": "req-1",
        "retry_after": 2.5,
    }


def test_success_through_json() -> None:
    """A success comes back equal, `raw` included."""
    back = through_json(SUCCESS)
    assert back == SUCCESS
    assert back.task is not None
    assert back.task.raw == TASK.raw
    assert back.to_dict() == SUCCESS.to_dict()


def test_a_form_of_before_images_were_saved() -> None:
    """A journal written by a version that saved no images can still be read."""
    data = SUCCESS.to_dict()
    del data["saved"]
    assert TaskOutcome.from_dict(data) == attrs.evolve(SUCCESS, saved=())


@pytest.mark.parametrize("name", errors.__all__)
@pytest.mark.parametrize("task", [None, TASK], ids=["no task", "task"])
def test_error_through_json(name: str, task: ImageTask | None) -> None:
    """An error of each class comes back with its text and attributes."""
    outcome = TaskOutcome(task_id="t-1", task=task, error=SAMPLES[name], queries=2, elapsed=0.25)
    back = through_json(outcome)
    assert back.to_dict() == outcome.to_dict()
    assert back.error is not None
    expected = facts(SAMPLES[name])
    if "task" in expected:
        expected["task"] = task
    assert facts(back.error) == expected


def test_failed_task_through_json() -> None:
    """The task of a `TaskFailedError` is the outcome's, so it is written once."""
    task = attrs.evolve(TASK, status=TaskStatus.FAILED, images=(), status_message="refused")
    error = TaskFailedError("refused", task_id="t-1", task=task)
    outcome = TaskOutcome(task_id="t-1", task=task, error=error)
    assert json.dumps(outcome.to_dict()).count('"status"') == 1
    back = through_json(outcome).error
    assert isinstance(back, TaskFailedError)
    assert back.task == task


def test_last_error_through_json() -> None:
    """The fault inside a `PollTimeoutError`, even a time-out in a time-out, comes back."""
    inner = PollTimeoutError("inner", last_error=ServerError("down", http_status=502, code="x"))
    outcome = TaskOutcome(task_id="t-1", error=PollTimeoutError("outer", last_error=inner))
    back = through_json(outcome)
    assert back.to_dict() == outcome.to_dict()
    assert isinstance(back.error, PollTimeoutError)
    assert isinstance(back.error.last_error, PollTimeoutError)
    last = back.error.last_error.last_error
    assert isinstance(last, ServerError)
    assert (last.http_status, last.code, last.message) == (502, "x", "down")


def test_strangers_on_an_error_are_left_out() -> None:
    """Notes and attributes that others hang on an error do not get into its form."""
    error = ResponseError("a page", http_status=200)
    error.add_note("seen at night")
    vars(error)["mine"] = object()
    outcome = TaskOutcome(task_id="t-1", error=error)
    assert through_json(outcome).to_dict() == outcome.to_dict()
    assert set(outcome.to_dict()["error"]) == {
        "type",
        "message",
        "http_status",
        "snippet",
        "location",
    }


def test_keys_of_a_later_version_are_passed_over() -> None:
    """Unknown keys at every level do no harm."""
    data = TaskOutcome(task_id="t-1", task=TASK, error=SAMPLES["ServerError"]).to_dict()
    expected = json.loads(json.dumps(data))
    data["new"] = data["task"]["new"] = data["task"]["images"][0]["new"] = data["error"]["new"] = 1
    assert TaskOutcome.from_dict(data).to_dict() == expected


@pytest.mark.parametrize("kind", ["OfTomorrow", "object", "fresh", "", 5, None])
def test_error_class_of_a_later_version(kind: object) -> None:
    """A class that this version does not have becomes the base class with the same text."""
    data: dict[str, Any] = {**SUCCESS.to_dict(), "error": {"type": kind, "message": "m", "x": 1}}
    error = TaskOutcome.from_dict(data).error
    assert type(error) is KlingOmniError
    assert (str(error), error.task_id) == ("m", "t-1")


@pytest.mark.parametrize(
    "change",
    [
        {"task_id": 5},
        {"task_id": None},
        {"task": None},
        {"task": {}},
        {"task": []},
        {"task": {"task_id": "t-1", "status": 5}},
        {"error": {}},
        {"error": "down"},
        {"error": {"type": "DownloadError", "message": "m", "reason": 5}},
        {"error": {"type": "StorageError", "message": "m", "detail": []}},
        {"error": {"type": "ServerError", "message": "m", "http_status": "502"}},
        {"error": {"type": "ServerError", "message": None}},
        {"external_task_id": []},
        {"queries": "many"},
        {"queries": None},
        {"queries": float("inf")},
        {"elapsed": None},
        {"saved": None},
        {"saved": [{"key": "images/t-1-0.png"}]},
    ],
    ids=repr,
)
def test_another_form_is_refused(change: Mapping[str, object]) -> None:
    """What is not the form of an outcome raises `ValueError` that says what to give instead."""
    with pytest.raises(ValueError, match=r"not the form .* give what TaskOutcome\.to_dict\(\)"):
        TaskOutcome.from_dict({**SUCCESS.to_dict(), **change})


def test_an_outcome_of_nothing_is_refused() -> None:
    """The reason is said where a form has neither task nor error."""
    with pytest.raises(
        ValueError, match=r"\(TypeError: neither a task nor an error of a task id\)"
    ):
        TaskOutcome.from_dict({**SUCCESS.to_dict(), "task": None})


@pytest.mark.parametrize("data", [{}, [], None, "text", 5])
def test_no_form_at_all_is_refused(data: Any) -> None:
    """So does anything else that a file may hold."""
    with pytest.raises(ValueError, match="not the form of a TaskOutcome"):
        TaskOutcome.from_dict(data)


def test_hostile_depth_is_refused() -> None:
    """A chain of a million last errors is no form of an outcome either."""
    deep: dict[str, Any] = {"type": "PollTimeoutError", "message": "m"}
    for _ in range(1_000_000):
        deep = {"type": "PollTimeoutError", "message": "m", "last_error": deep}
    with pytest.raises(ValueError, match="RecursionError"):
        TaskOutcome.from_dict({**SUCCESS.to_dict(), "error": deep})


def test_a_subclass_reads_itself() -> None:
    """`from_dict` of a subclass gives that subclass."""

    class Mine(TaskOutcome):
        pass

    assert type(Mine.from_dict(SUCCESS.to_dict())) is Mine


def test_progress_starts_at_nothing() -> None:
    """All counts of a new stream are 0."""
    assert attrs.astuple(Progress()) == (0, 0, 0, 0, 0)
