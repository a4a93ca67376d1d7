"""The table of failures: grouped by reason, bounded, at the end."""

from __future__ import annotations

import io

import pytest

from kling_omni_async import (
    AccountError,
    AssetExpiredError,
    DownloadError,
    ImageTask,
    InvalidTaskIdError,
    KlingOmniError,
    NoImagesError,
    PollTimeoutError,
    ResponseError,
    ServerError,
    StorageError,
    TaskFailedError,
    TaskNotFoundError,
    TaskStatus,
    TransportError,
)
from kling_omni_async._cli.exit import Exit
from kling_omni_async._cli.report import Failures, Kind, reason_of
from kling_omni_async._cli.terminal import rendered
from kling_omni_async.simulator import SimulatedCometAPI

from .support import Call, create

PROCESSING = ImageTask(task_id="1", status=TaskStatus.PROCESSING)
DOWN = ServerError("down", http_status=502)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TaskFailedError("Image pixel is invalid"), "Image pixel is invalid"),
        (TaskFailedError(""), "no reason given"),
        (TaskFailedError("x" * 999), "x" * 200),
        (TaskNotFoundError("task_not_exist", http_status=400), "HTTP 400: task_not_exist"),
        (AccountError("no money", http_status=402, code=7), "HTTP 402, code 7: no money"),
        (InvalidTaskIdError("'a b' is none"), "cannot be a task id; nothing was asked"),
        (
            TransportError("dns: api.test: no such", reason="dns"),
            "no answer: dns: api.test: no such",
        ),
        (DownloadError("tls: i.test: no", reason="tls"), "tls: i.test: no"),
        (
            DownloadError("its host x (10.0.0.1) is in a private network", reason="address"),
            "its host x (10.0.0.1) is in a private network",
        ),
        (DownloadError("it stalled", reason="stalled"), "stalled"),
        (ResponseError("<html>", http_status=200), "HTTP 200: the answer is not the API's"),
        (AssetExpiredError("x", reason="expired", http_status=403), "expired, HTTP 403"),
        (AssetExpiredError("x", reason="expired"), "expired"),
        (
            StorageError(
                "cannot store in /x: No", reason="store", detail="No space left on device"
            ),
            "No space left on device",
        ),
        (StorageError("x", reason="exists", detail="something has it"), "something has it"),
        (StorageError("x was not saved", reason="store"), "store"),
        (NoImagesError("none"), "NoImagesError"),
        (PollTimeoutError("no final answer in 61.2 s"), "its status was never seen"),
        (PollTimeoutError("in 61.2 s", task=PROCESSING), "still processing"),
        (
            PollTimeoutError("in 3.1 s", task=PROCESSING, last_error=DOWN),
            "still processing; last fault: HTTP 502: down",
        ),
    ],
)
def test_a_reason_has_nothing_of_its_id(error: KlingOmniError, reason: str) -> None:
    """Times, ids and numbers of images are left out, so that equal reasons meet in one row."""
    assert reason_of(error) == reason


def test_equal_reasons_are_one_row() -> None:
    """Each row has a count, the word, the reason and the first id; the greatest comes first."""
    failures = Failures()
    failures.add(Kind.FAILED, TaskFailedError("no"), "1")
    for number in range(3):
        failures.add(Kind.TIMED_OUT, PollTimeoutError(f"in {number} s"), f"late-{number}")
    failures.add_earlier(Kind.FAILED, "no", "2")
    failures.add_earlier(Kind.FAILED, "no faces", "3")
    assert list(failures.rows()) == [
        (3, Kind.TIMED_OUT, "its status was never seen", "late-0"),
        (2, Kind.FAILED, "no", "1"),
        (1, Kind.FAILED, "no faces", "3"),
    ]


def test_many_reasons_stay_few_rows() -> None:
    """An API that tells each task another reason fills neither the memory nor the screen."""
    failures = Failures()
    for number in range(5000):
        failures.add(Kind.FAILED, TaskFailedError(f"reason {number}"), str(number))
    rows = list(failures.rows())
    assert len(rows) == 1001
    assert rows[0] == (4000, Kind.FAILED, "other reasons", "1000")
    lines = rendered(failures.table(), io.StringIO()).splitlines()
    assert len(lines) == 2 + 20 + 1
    assert lines[-1].split() == ["981", "for", "981", "more", "reasons"]


def test_foreign_words_cannot_steer_the_terminal() -> None:
    """What the API says is escaped, and is no markup."""
    failures = Failures()
    failures.add(Kind.FAILED, TaskFailedError("[red]no[/red]\x1b[2J\n"), "\x07")
    text = rendered(failures.table(), io.StringIO())
    assert "[red]no[/red]\\x1b[2J\\n" in text
    assert "\\x07" in text
    assert "\x1b" not in text


def test_a_run_ends_with_its_failures(api: SimulatedCometAPI, call: Call) -> None:
    """The table stands on stderr before the counts; without failures, or quiet, there is none."""
    good = create(api, duration=0.0)
    bad = create(api, 2, duration=0.0, fail="Image pixel is invalid")
    code, _, stderr = call("poll", *good, *bad)
    assert code == Exit.NOT_ALL
    lines = stderr.splitlines()
    code, _, stderr = call("poll", *bad, "--quiet")
    assert (code, stderr) == (Exit.NOT_ALL, "")
    code, _, stderr = call("poll", *good)
    assert (code, "failed" in stderr) == (Exit.OK, False)
    row = next(line for line in lines if "Image pixel" in line)
    assert row.split()[:2] == ["2", "failed"]
    assert row.split()[-1] in bad
    assert lines[-1] == "kling-omni: 3 of 3 done: 1 succeeded, 2 failed"
