"""What is logged: each warning once, each change, and nothing twice."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from kling_omni_async import (
    ApiError,
    AuthenticationError,
    ImageTask,
    KlingOmniError,
    RateLimitError,
    ResponseError,
    ServerError,
    TaskFailedError,
    TaskStatus,
    TransportError,
)
from kling_omni_async._polling.log import MAX_REMEMBERED, Reports
from kling_omni_async._polling.waiters import Entry

LOGGER = "kling_omni_async.poller"


@pytest.fixture(autouse=True)
def _all_levels(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, LOGGER)


def said(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    """Give what was logged at one level, and forget all."""
    found = [record.getMessage() for record in caplog.records if record.levelno == level]
    caplog.clear()
    return found


def a_task(status: TaskStatus, **raw: Any) -> ImageTask:
    """Make a task."""
    return ImageTask(task_id="a", status=status, raw=raw)


def a_word(**raw: str) -> ImageTask:
    """Make a task whose status is a word of tomorrow."""
    return ImageTask(task_id="a", status=TaskStatus.UNKNOWN, raw=raw)


def test_every_reply_is_there_for_a_debugger(caplog: pytest.LogCaptureFixture) -> None:
    """At DEBUG each query is one line with its number, its id and what came."""
    reports, entry = Reports(), Entry("a")
    entry.queries = 3
    reports.replied(entry, a_task(TaskStatus.PROCESSING))
    reports.replied(entry, ApiError("no such model", http_status=400, code=1201))
    assert said(caplog, logging.DEBUG) == [
        "query 3 of 'a': processing, 0 images",
        "query 3 of 'a': ApiError: HTTP 400, code 1201: no such model",
    ]


def test_a_change_of_status_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """At INFO the first status and each new one is a line, a repeat is none."""
    reports, entry = Reports(), Entry("a")
    for status in (TaskStatus.SUBMITTED, TaskStatus.SUBMITTED, TaskStatus.PROCESSING):
        reports.replied(entry, a_task(status))
        entry.status = status
    assert said(caplog, logging.INFO) == [
        "task 'a' is submitted",
        "task 'a' is processing (was submitted)",
    ]


@pytest.mark.parametrize(
    ("error", "word"),
    [(None, "succeeded"), (TaskFailedError("refused"), "TaskFailedError: refused")],
    ids=["success", "failure"],
)
def test_an_end_is_told(
    caplog: pytest.LogCaptureFixture, error: KlingOmniError | None, word: str
) -> None:
    """At INFO the end of an id says how it ended and after how many queries."""
    for queries in (4, 1):
        Reports().ended("a", error, queries=queries)
    assert said(caplog, logging.INFO) == [
        f"task 'a': {word} after 4 queries",
        f"task 'a': {word} after 1 query",
    ]


def test_silence_costs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Without INFO and DEBUG neither replies nor ends are written."""
    caplog.set_level(logging.WARNING, LOGGER)
    Reports().replied(Entry("a"), a_task(TaskStatus.PROCESSING))
    Reports().ended("a", None, queries=1)
    assert caplog.records == []


def test_the_first_fault_of_each_kind_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Kinds are told apart by reason and HTTP status; the same kind is never told twice."""
    faults = [
        TransportError("reset by peer", reason="reset"),
        TransportError("no such host", reason="dns"),
        ServerError("", http_status=502),
        ServerError("", http_status=503),
        ResponseError("a web page", http_status=200),
        RateLimitError("", http_status=429),
        AuthenticationError("no", http_status=401),
    ]
    reports = Reports()
    for fault in (*faults, *faults):
        reports.replied(Entry("a"), fault)
    warnings = said(caplog, logging.WARNING)
    assert [text.split(":")[0].removeprefix("first ") for text in warnings] == [
        "TransportError (reset)",
        "TransportError (dns)",
        "ServerError (HTTP 502)",
        "ServerError (HTTP 503)",
        "ResponseError (HTTP 200)",
        "RateLimitError (HTTP 429)",
        "AuthenticationError (HTTP 401)",
    ]
    assert all("asked again after its pause" in text for text in warnings)


def test_a_fault_without_a_kind_of_its_own_is_told_by_its_class(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What is neither an answer nor a missing one is named by its class alone."""

    class PassingError(KlingOmniError):
        transient = True

    Reports().replied(Entry("a"), PassingError("soon over"))
    (warning,) = said(caplog, logging.WARNING)
    assert warning.startswith("first PassingError: soon over;")


def test_a_refusal_is_no_fault(caplog: pytest.LogCaptureFixture) -> None:
    """What ends its id is told to who waits for it, not as a warning."""
    Reports().replied(Entry("a"), ApiError("no such model", http_status=400))
    assert said(caplog, logging.WARNING) == []


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        ({"task_status": "queued"}, "'queued'"),
        ({"status": "\u5c31\u7eea"}, r"'\u5c31\u7eea'"),
    ],
    ids=["plain", "wrapped"],
)
def test_an_unknown_word_is_a_warning_once(
    caplog: pytest.LogCaptureFixture, raw: dict[str, str], word: str
) -> None:
    """A word of tomorrow is told once, however often it comes."""
    reports = Reports()
    for _ in range(3):
        reports.replied(Entry("a"), a_word(**raw))
    assert said(caplog, logging.WARNING) == [f"unknown task status {word}: taken as not finished"]


def test_a_hostile_server_cannot_fill_memory(caplog: pytest.LogCaptureFixture) -> None:
    """At most 32 words are remembered and told."""
    reports = Reports()
    for number in range(100):
        reports.replied(Entry("a"), a_word(task_status=f"word {number}"))
    assert len(said(caplog, logging.WARNING)) == MAX_REMEMBERED == 32


def test_a_foreign_id_is_a_warning_once(caplog: pytest.LogCaptureFixture) -> None:
    """An answer that names another id is told once for the session, as gateways do it always."""
    reports = Reports()
    for foreign in ("b", "c"):
        reports.replied(Entry("a"), a_task(TaskStatus.PROCESSING, task_id=foreign))
    assert said(caplog, logging.WARNING) == [
        "asked for task 'a', the answer names 'b'; the id that was asked for is kept"
    ]


def test_a_pause_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Each pause of all queries is told with its length; a 429 that began none is not."""
    reports = Reports()
    for pause_s in (1.25, 0.0):
        reports.throttled(pause_s)
    assert said(caplog, logging.WARNING) == ["throttled by the API: no scheduled query for 1.2 s"]


def test_stretching_is_told_when_it_begins_and_doubles(caplog: pytest.LogCaptureFixture) -> None:
    """A growing crowd is a few warnings, not one for each id."""
    reports = Reports()
    for factor in (1.0, 1.1, 1.5, 2.1, 2.3, 4.5, 4.7, 1.0, 3.0):
        reports.stretched(factor)
    factors = [text.rsplit(" ", 1)[1] for text in said(caplog, logging.WARNING)]
    assert factors == ["1.10", "2.30", "4.70"]
