"""What is logged of answers: each warning once, each change, and nothing twice."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from kling_omni_async import (
    ApiError,
    AuthenticationError,
    ConfigurationError,
    ImageTask,
    KlingOmniError,
    RateLimitError,
    ResponseError,
    ServerError,
    TaskImage,
    TaskStatus,
    TransportError,
)
from kling_omni_async._polling.log import MAX_REMEMBERED, PollingLog
from kling_omni_async._polling.verdicts import Reply, verdict_on
from kling_omni_async._polling.waiters import Entry
from kling_omni_async._polling.watchlist import Decision

LOGGER = "kling_omni_async.poller"
ASKED_AGAIN = "the id is asked again after its pause, if somebody still waits"
ALL_ENDS = "the set-up is wrong: all waiting ends"
NO_KEY = AuthenticationError("no such key", http_status=401)


@pytest.fixture(autouse=True)
def _all_levels(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, LOGGER)


def said(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    """Return what was logged at one level, and forget all."""
    found = [record.getMessage() for record in caplog.records if record.levelno == level]
    caplog.clear()
    return found


def tell(
    log: PollingLog,
    reply: Reply,
    *,
    before: TaskStatus | None = None,
    queries: int = 1,
    pause_s: float = 0.0,
    foreign_id: str | None = None,
    ends_all: bool = False,
) -> None:
    """Log an answer about the id "a"."""
    entry = Entry("a")
    entry.queries = queries
    decision = Decision(
        reply=reply,
        verdict=verdict_on(reply),
        told=[],
        pause_s=pause_s,
        foreign_id=foreign_id,
        ends_all=ends_all,
        stretch=1.0,
    )
    log.answered(entry, decision, before)


def a_task(status: TaskStatus = TaskStatus.PROCESSING, /, **raw: Any) -> ImageTask:
    """Make a task."""
    return ImageTask(task_id="a", status=status, raw=raw)


def with_images(
    *urls: str | None, task_id: str = "a", status: TaskStatus = TaskStatus.SUCCEED
) -> ImageTask:
    """Make a task as it is read from an answer with these images; None is one without a URL."""
    images = tuple(TaskImage(url=url) for url in urls if url is not None)
    raw = {"task_status": str(status), "task_result": {"images": [{"url": url} for url in urls]}}
    return ImageTask(
        task_id=task_id, status=status, images=images, status_message="a message", raw=raw
    )


# Each answer.


def test_every_reply_is_there_for_a_debugger(caplog: pytest.LogCaptureFixture) -> None:
    """At DEBUG each query is one line with its number, its id and what came."""
    log = PollingLog()
    tell(log, a_task(), queries=3)
    tell(log, with_images("https://img.example/0.png"), queries=4)
    tell(log, ApiError("no such model", http_status=400, code=1201), queries=5)
    assert said(caplog, logging.DEBUG) == [
        "query 3 of 'a': processing, 0 images",
        "query 4 of 'a': succeed, 1 images",
        "query 5 of 'a': ApiError: HTTP 400, code 1201: no such model",
    ]


def test_a_change_of_status_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """At INFO the first status and each new one is a line, a repeat or a fault is none."""
    log = PollingLog()
    tell(log, a_task(TaskStatus.SUBMITTED))
    tell(log, a_task(TaskStatus.SUBMITTED), before=TaskStatus.SUBMITTED)
    tell(log, ServerError("", http_status=502), before=TaskStatus.SUBMITTED)
    tell(log, a_task(), before=TaskStatus.SUBMITTED)
    assert said(caplog, logging.INFO) == [
        "task 'a' is submitted",
        "task 'a' is processing (was submitted)",
    ]


def test_silence_costs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Without INFO and DEBUG answers are not written."""
    caplog.set_level(logging.WARNING, LOGGER)
    tell(PollingLog(), a_task())
    assert caplog.records == []


# Faults.


def test_the_first_fault_of_each_kind_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Kinds are told apart by reason and HTTP status; the same kind is never told twice."""
    faults = [
        TransportError("reset by peer", reason="reset"),
        TransportError("no such host", reason="dns"),
        ServerError("", http_status=502),
        ServerError("", http_status=503),
        ResponseError("a web page", http_status=200),
        RateLimitError("", http_status=429),
        NO_KEY,
    ]
    log = PollingLog()
    for fault in (*faults, *faults):
        tell(log, fault)
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


def test_a_fault_that_passes_says_what_comes_next(caplog: pytest.LogCaptureFixture) -> None:
    """It names its kind, what came, and that nothing has to be done."""
    tell(PollingLog(), TransportError("reset by peer", reason="reset"))
    assert said(caplog, logging.WARNING) == [
        f"first TransportError (reset): reset by peer; {ASKED_AGAIN}"
    ]


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (NO_KEY, "AuthenticationError (HTTP 401): HTTP 401: no such key; check COMETAPI_KEY"),
        (ConfigurationError("it was closed"), "ConfigurationError: it was closed"),
    ],
    ids=["key", "session"],
)
def test_a_fault_that_ends_everything_says_so(
    caplog: pytest.LogCaptureFixture, fault: KlingOmniError, text: str
) -> None:
    """The log promises no query where none comes, and says what to look at; it is told once."""
    log = PollingLog()
    for _ in range(2):
        tell(log, fault, ends_all=True)
    assert said(caplog, logging.WARNING) == [f"{text}; {ALL_ENDS}"]


def test_an_end_is_told_although_its_kind_had_passed_before(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A refused key is asked again at first; when it ends everything, that is a line of its own."""
    log = PollingLog()
    for ends_all in (False, True, False):
        tell(log, NO_KEY, ends_all=ends_all)
    assert said(caplog, logging.WARNING) == [
        f"first AuthenticationError (HTTP 401): HTTP 401: no such key; {ASKED_AGAIN}",
        f"AuthenticationError (HTTP 401): HTTP 401: no such key; check COMETAPI_KEY; {ALL_ENDS}",
    ]


def test_a_flood_of_faults_hides_no_end(caplog: pytest.LogCaptureFixture) -> None:
    """A server that shows a hundred kinds of faults does not keep the log from telling the end."""
    log = PollingLog()
    for status in range(500, 600):
        tell(log, ServerError("", http_status=status))
    tell(log, NO_KEY, ends_all=True)
    *faults, end = said(caplog, logging.WARNING)
    assert len(faults) == MAX_REMEMBERED
    assert end.endswith(ALL_ENDS)


def test_a_refusal_is_no_fault(caplog: pytest.LogCaptureFixture) -> None:
    """What ends its id is told to who waits for it, not as a warning."""
    tell(PollingLog(), ApiError("no such model", http_status=400))
    assert said(caplog, logging.WARNING) == []


def test_a_pause_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Each pause of all queries is told with its length; a 429 that began none is not."""
    log = PollingLog()
    for pause_s in (1.25, 0.0, 1.25):
        tell(log, RateLimitError("", http_status=429), pause_s=pause_s)
    pauses = [text for text in said(caplog, logging.WARNING) if not text.startswith("first")]
    assert pauses == ["throttled by the API: no scheduled query for 1.2 s"] * 2


# Oddities.


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
    """A word of tomorrow is told once, however often it comes; a word of today is not."""
    log = PollingLog()
    for _ in range(3):
        tell(log, a_task(TaskStatus.UNKNOWN, **raw))
    tell(log, a_task(task_status="processing"))
    assert said(caplog, logging.WARNING) == [f"unknown task status {word}: taken as not finished"]


def test_a_hostile_server_cannot_fill_memory(caplog: pytest.LogCaptureFixture) -> None:
    """At most 32 words are remembered and told."""
    log = PollingLog()
    for number in range(100):
        tell(log, a_task(TaskStatus.UNKNOWN, task_status=f"word {number}"))
    assert len(said(caplog, logging.WARNING)) == MAX_REMEMBERED == 32


def test_a_foreign_id_is_a_warning_once(caplog: pytest.LogCaptureFixture) -> None:
    """An answer that names another id is told once for the session, as gateways do it always."""
    log = PollingLog()
    for named in (None, "b", "c"):
        tell(log, a_task(), foreign_id=named)
    assert said(caplog, logging.WARNING) == [
        "asked for task 'a', the answer names 'b'; the id that was asked for is kept"
    ]


def test_unusable_images_are_a_warning_for_each_task(caplog: pytest.LogCaptureFixture) -> None:
    """A success that lacks some of its images names the task and their number, once."""
    log = PollingLog()
    usable = "https://img.example/0.png"
    for _ in range(2):
        tell(log, with_images(usable, None, None))
        tell(log, with_images(usable, None, task_id="b"))
    tell(log, with_images(usable, task_id="c"))
    tell(log, with_images(usable, None, task_id="d", status=TaskStatus.PROCESSING))
    assert said(caplog, logging.WARNING) == [
        "task 'a': images without a usable URL: 2",
        "task 'b': images without a usable URL: 1",
    ]


# Load.


def test_stretching_is_told_when_it_begins_and_doubles(caplog: pytest.LogCaptureFixture) -> None:
    """A growing crowd is a few warnings, not one for each id."""
    log = PollingLog()
    for factor in (1.0, 1.1, 1.5, 2.2, 2.3, 4.3, 4.5, 1.0, 3.0):
        log.stretched(factor)
    assert said(caplog, logging.WARNING) == [
        f"more ids than max_rate can serve: they are asked at {factor} times their intervals"
        for factor in ("1.10", "2.20", "4.50")
    ]


# What else there is to know.


def test_callbacks_that_do_not_come_are_told(caplog: pytest.LogCaptureFixture) -> None:
    """With their number: somebody's endpoint cannot be reached."""
    PollingLog().no_callbacks()
    assert said(caplog, logging.WARNING) == [
        "3 callbacks in a row did not come: ids are asked for as without them"
    ]


def test_a_loop_that_stood_still_is_told_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """By how long, from 2 s on; what is a bit late is no word."""
    log = PollingLog()
    for late_s, now in ((2.0, 0.0), (3.0, 1.0), (4.0, 60.9), (5.0, 61.0), (6.0, 62.0)):
        log.stood_still(late_s, now)
    assert said(caplog, logging.WARNING) == [
        f"the event loop stood still for {late_s} s: it is blocked, or the machine slept"
        for late_s in (3.0, 5.0)
    ]
