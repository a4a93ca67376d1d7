"""Whatever bytes come, they become a task or one of our errors, in bounded time."""

from __future__ import annotations

import copy
import json
import math
import pickle
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from kling_omni_async import ImageTask, KlingOmniError, TaskOutcome
from kling_omni_async._api.answers import Answer, foreign_id, read_answer, read_task, status_word
from kling_omni_async.errors import ApiError
from tests.plans import share_of
from tests.test_errors import facts

ASKED = "878106242831892487"
URL = "https://a.example/1.png"

KEYS = [
    "code", "message", "request_id", "data", "error", "success", "status", "task_status",
    "task_status_msg", "task_info", "external_task_id", "task_result", "images", "series_images",
    "url", "index", "watermark_url", "final_unit_deduction", "created_at", "updated_at",
    "task_id", "fail_reason", "submit_time", "finish_time",
]  # fmt: skip
WORDS = [
    "", " ", "succeed", "failed", "processing", "SUCCESS", "FAILURE", "IN_PROGRESS", "success",
    "task_not_exist", "insufficient_user_quota", "invalid_request", "1102", "8", "0.5", "NaN",
    "1e999", "1782450245512", URL, "https://", "\ud800", "\x00", "task not found (request id: a1)",
]  # fmt: skip
NUMBERS = [0, 1, -1, 1102, 1203, 1302, 5000, 429, 2**31, 2**63, 10**400, 0.5, 1e308, 1782450245512]

SCALARS = st.sampled_from([None, True, False, *NUMBERS, *WORDS]) | st.text(max_size=5)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5)
        | st.fixed_dictionaries({"url": inner, "index": inner, "watermark_url": inner})
    ),
    max_leaves=12,
)
STATUS_WORDS = st.sampled_from(["submitted", "processing", "succeed", "failed", "SUCCESS", "x"])


def payloads(**required: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Draw a `data` object with some fields as they should be and others as they should not."""
    images = st.lists(st.fixed_dictionaries({"url": st.just(URL) | SCALARS}, optional={
        "index": SCALARS, "watermark_url": SCALARS}), max_size=3)  # fmt: skip
    result = st.fixed_dictionaries({}, optional={"images": images, "series_images": images})
    fields = {key: VALUES for key in KEYS if key not in required}
    return st.fixed_dictionaries(required, optional={**fields, "task_result": result | VALUES})


def enveloped(data: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Draw the envelope of a success around it."""
    return st.fixed_dictionaries(
        {"data": data}, optional={"code": st.sampled_from([0, "success"]), "request_id": VALUES}
    )


PLAIN = payloads(task_status=STATUS_WORDS)
WRAPPED = payloads(status=STATUS_WORDS, data=PLAIN | enveloped(PLAIN) | VALUES)
TASK_BODIES = enveloped(PLAIN | WRAPPED).map(lambda value: json.dumps(value).encode())
JSON_BODIES = VALUES.map(lambda value: json.dumps(value).encode())
BODIES = st.binary(max_size=50) | JSON_BODIES | st.builds(bytes.__add__, JSON_BODIES, JSON_BODIES)
STATUSES = st.sampled_from([200, 200, 301, 400, 401, 403, 404, 407, 429, 500, 503]) | st.integers(
    100, 999
)
HEADER_NAMES = st.sampled_from(["Retry-After", "Location", "X-Oneapi-Request-Id", "Content-Type"])
HEADER_TEXTS = st.text(max_size=20) | st.sampled_from(
    ["5", "-1", "nan", "1e9", "Sun, 03 May 2026 03:10:07 GMT", "Sun May  3 03:10:07 2026", "\udcff"]
)
HEADERS = st.dictionaries(HEADER_NAMES | st.text(max_size=5), HEADER_TEXTS, max_size=4)

BOUNDED = settings(
    max_examples=share_of(150), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def through_json(outcome: TaskOutcome) -> TaskOutcome:
    """Write an outcome down and read it back."""
    return TaskOutcome.from_dict(json.loads(json.dumps(outcome.to_dict(), allow_nan=False)))


def pickled(value: Any) -> Any:
    """Send something through pickle."""
    return pickle.loads(pickle.dumps(value))  # noqa: S301 - ours


def check_error(error: KlingOmniError) -> None:
    """Check what holds for every error that an answer becomes."""
    assert error.task_id == ASKED
    assert str(error)
    if isinstance(error, ApiError):
        assert error.retry_after is None or 0 < error.retry_after < math.inf
        assert error.code is None or type(error.code) in {int, str}
        assert str(error).encode()
    for double in (copy.copy(error), pickled(error)):
        assert facts(double) == facts(error)
    outcome = TaskOutcome(task_id=ASKED, error=error)
    back = through_json(outcome)
    assert back.to_dict() == outcome.to_dict()
    assert back.error is not None
    assert facts(back.error) == facts(error)


def check_task(task: ImageTask, body: bytes) -> None:
    """Check what holds for every task that an answer becomes."""
    assert task.task_id == ASKED
    assert status_word(task).isascii()
    assert foreign_id(task) != ASKED
    texts = (task.status_message, task.external_task_id, task.request_id)
    assert all(text is None or (text.strip() and text.encode()) for text in texts)
    assert len({image.url for image in task.images}) == len(task.images)
    assert read_task(body, ASKED) == task
    for double in (copy.copy(task), copy.deepcopy(task), pickled(task)):
        assert (double, hash(double), double.raw) == (task, hash(task), task.raw)
    outcome = TaskOutcome(task_id=ASKED, task=task)
    back = through_json(outcome)
    assert back == outcome
    assert back.to_dict() == outcome.to_dict()
    assert back.task is not None
    assert back.task.raw == task.raw


@BOUNDED
@given(BODIES | TASK_BODIES, STATUSES, HEADERS)
@example(b"", 200, {})
@example(b'{"code": 1' + b"0" * 4300 + b"}", 400, {})
@example(b'{"code": 1' + b"0" * 4200 + b"}", 400, {})
@example(b"\xff\xfe{\x00}\x00", 200, {})
@example(b"", 302, {"Location": "\udcff"})
def test_any_answer(body: bytes, status: int, headers: dict[str, str]) -> None:
    """Any bytes under any status with any headers are a task or one of our errors."""
    reply = read_answer(Answer(status, body, CIMultiDict(headers)), ASKED, wall_s=1.7e9)
    if isinstance(reply, ImageTask):
        assert status == 200
        check_task(reply, body)
    else:
        check_error(reply)


@BOUNDED
@given(TASK_BODIES)
def test_any_payload(body: bytes) -> None:
    """A success answer is a task whatever else is in it, and that record survives all travels."""
    reply = read_answer(Answer(200, body), ASKED, wall_s=0.0)
    if isinstance(reply, ImageTask):
        check_task(reply, body)
    else:
        assert b"task_not_exist" in body


HOSTILE_DEPTH = 200_000


@pytest.mark.parametrize(
    "around", [b"%b", b'{"code": 0, "data": {"task_status": "succeed", "x": %b}}'], ids=["", "task"]
)
@pytest.mark.parametrize("opener", [b"[", b'{"a":', b'[{"a":', b"[[],"])
@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("status", [200, 500])
def test_hostile_depth(around: bytes, opener: bytes, status: int, *, closed: bool) -> None:
    """So many nested brackets are no JSON, found out in a moment."""
    closer = opener.translate(bytes.maketrans(b"[{", b"]}"), b'":a,')[::-1]
    tail = b"1" + closer * HOSTILE_DEPTH if closed else b""
    body = around % (opener * HOSTILE_DEPTH + tail)
    began = time.process_time()
    reply = read_answer(Answer(status, body), ASKED, wall_s=0.0)
    assert time.process_time() - began < 2.0
    assert type(reply).__name__ == ("ResponseError" if status == 200 else "ServerError")


@pytest.mark.parametrize(
    "text",
    ["9" * 10**6, "0." + "0" * 10**6, " " * 10**6, "(request id: " * 80_000, "not " * 250_000,
     "not" + " " * 10**6, "be no such task n't_" * 50_000, "https://" + "a" * 10**6 + " ",
     "[" * 10**6, "\u3000" * 300_000],
    ids=lambda text: text[:12],
)  # fmt: skip
def test_hostile_length(text: str) -> None:
    """No text of a whole answer's length takes long, wherever it stands."""
    data: dict[str, Any] = dict.fromkeys(KEYS, text) | {"task_status": "succeed"}
    data |= {"task_result": {"images": [text, {"url": text, "watermark_url": text}]}}
    bodies = [{"code": 0, "data": data}, {"code": 1201, "message": text, "request_id": text}]
    for body in bodies:
        answer = Answer(200, json.dumps(body).encode())
        began = time.process_time()
        read_answer(answer, ASKED, wall_s=0.0)
        assert time.process_time() - began < 2.0
