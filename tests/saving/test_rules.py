"""What may be saved, what an answer means, and when it is tried again."""

from __future__ import annotations

import attrs
import pytest

from kling_omni_async import (
    AssetExpiredError,
    ConfigurationError,
    DownloadError,
    ImageTask,
    KlingOmniError,
    NoImagesError,
    PollTimeoutError,
    StorageError,
    TaskFailedError,
    TaskImage,
    TaskOutcome,
    TaskStatus,
)
from kling_omni_async._saving.rules import (
    READY_WITHIN_S,
    is_not_ready,
    pause_before_retry,
    require_bytes,
    require_good,
    task_to_save,
)

EXPIRED = "the URL has expired, or its image was cleared"

# Answers.


@pytest.mark.parametrize(
    ("status", "kind", "text", "reason", "transient"),
    [
        (403, AssetExpiredError, f"HTTP 403: {EXPIRED}", "expired", False),
        (404, AssetExpiredError, f"HTTP 404: {EXPIRED}", "expired", False),
        (410, AssetExpiredError, f"HTTP 410: {EXPIRED}", "expired", False),
        (407, DownloadError, "the proxy refuses", "proxy", True),
        (201, DownloadError, "HTTP 201 instead of an image", "http", False),
        (206, DownloadError, "HTTP 206 instead of an image", "http", False),
        (302, DownloadError, "HTTP 302 instead of an image", "http", False),
        (401, DownloadError, "HTTP 401 instead of an image", "http", False),
        (408, DownloadError, "HTTP 408 instead of an image", "http", True),
        (425, DownloadError, "HTTP 425 instead of an image", "http", True),
        (429, DownloadError, "HTTP 429 instead of an image", "http", True),
        (500, DownloadError, "HTTP 500 instead of an image", "http", True),
        (503, DownloadError, "HTTP 503 instead of an image", "http", True),
    ],
)
def test_what_a_status_says(
    status: int, kind: type[DownloadError], text: str, reason: str, *, transient: bool
) -> None:
    """Each status but 200 is an error of its kind, which says whether it may pass."""
    with pytest.raises(DownloadError) as caught:
        require_good(status)
    error = caught.value
    assert type(error) is kind
    assert (str(error), error.http_status) == (text, status)
    assert (error.reason, error.transient) == (reason, transient)
    assert error.retry_after is None
    with pytest.raises(DownloadError) as waiting:
        require_good(status, retry_after=7.5)
    assert waiting.value.retry_after == 7.5


def test_a_good_status() -> None:
    """200 is good, as soon as there are bytes."""
    require_good(200, retry_after=5.0)
    require_bytes(1)


def test_a_good_answer_without_bytes() -> None:
    """It is no image, and says so."""
    with pytest.raises(DownloadError, match=r"^an empty answer$") as caught:
        require_bytes(0)
    assert (caught.value.http_status, caught.value.reason) == (200, "empty")
    assert not caught.value.transient


# Tries.


def pauses_of(
    error: DownloadError, *, seen_s: float = 0.0, most: int = 5, jitter: float = 1.0
) -> list[float]:
    """Give the pauses of one whose every try ends so, by the clock that passes with them."""
    pauses: list[float] = []
    while True:
        pause_s = pause_before_retry(
            error, tries=len(pauses) + 1, most=most, seen_s=seen_s, jitter=jitter
        )
        if pause_s is None:
            return pauses
        pauses.append(pause_s)
        seen_s += pause_s


def case_id(case: object) -> str | None:
    """Name a case of a test by its error."""
    if isinstance(case, DownloadError):
        return f"{type(case).__name__}-{case.reason}-{case.http_status}"
    return None


FAULTS = [
    DownloadError(reason="reset"),
    DownloadError(reason="descriptors"),
    DownloadError(reason="http", http_status=503),
    DownloadError(reason="http", http_status=429),
    DownloadError(reason="proxy", http_status=407),
    StorageError(reason="descriptors"),
    StorageError(reason="busy"),
]
FINAL = [
    DownloadError(reason="http", http_status=401),
    DownloadError(reason="http", http_status=204),
    DownloadError(reason="not-an-image", http_status=200),
    StorageError(reason="store"),
    StorageError(reason="exists"),
    AssetExpiredError(reason="expired", http_status=410),
]
NOT_READY = [
    AssetExpiredError(reason="expired", http_status=403),
    AssetExpiredError(reason="expired", http_status=404),
    DownloadError(reason="http", http_status=202),
    DownloadError(reason="empty", http_status=200),
]


@pytest.mark.parametrize("error", FAULTS, ids=case_id)
@pytest.mark.parametrize("seen_s", [0.0, 1e6])
def test_what_may_pass_has_pauses(error: DownloadError, seen_s: float) -> None:
    """As many tries as the policy says, with pauses that double up to 30 s, new images or old."""
    assert not is_not_ready(error)
    assert pauses_of(error, seen_s=seen_s) == [1.0, 2.0, 4.0, 8.0]
    assert pauses_of(error, seen_s=seen_s, most=1) == []
    assert pauses_of(error, seen_s=seen_s, most=8) == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert pauses_of(error, seen_s=seen_s, jitter=1.5, most=3) == [1.5, 3.0]
    assert pauses_of(error, seen_s=seen_s, most=5000)[-1] == 30.0


@pytest.mark.parametrize("error", FINAL, ids=case_id)
def test_what_will_not_pass_has_none(error: DownloadError) -> None:
    """One try, also of an image that has just been made."""
    assert not is_not_ready(error)
    assert pauses_of(error) == []


@pytest.mark.parametrize("error", NOT_READY, ids=case_id)
def test_an_image_that_is_not_there_yet(error: DownloadError) -> None:
    """For three minutes from the first sight of success, then it is final; the last try is then."""
    assert is_not_ready(error)
    pauses = pauses_of(error)
    assert pauses[:7] == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert sum(pauses) == READY_WITHIN_S == 180.0
    assert sum(pauses_of(error, jitter=1.5)) == READY_WITHIN_S
    assert pauses_of(error, most=1) == pauses
    assert pauses_of(error, seen_s=179.5) == [0.5]
    assert pauses_of(error, seen_s=180.0) == []
    assert pauses_of(error, seen_s=1e6) == []


@pytest.mark.parametrize(("asked_s", "kept_s"), [(0.5, 1.5), (20.0, 20.0), (1e9, 120.0)])
def test_what_a_host_asks_for_is_kept(asked_s: float, kept_s: float) -> None:
    """A longer wait than ours is kept, up to two minutes, in each pause of ours."""
    busy = DownloadError(reason="http", http_status=429, retry_after=asked_s)
    assert pauses_of(busy, jitter=1.5)[0] == kept_s
    assert len(pauses_of(busy)) == 4
    early = DownloadError(reason="http", http_status=202, retry_after=asked_s)
    assert pauses_of(early, jitter=1.5)[0] == kept_s
    assert pauses_of(early, seen_s=179.0)[0] == max(1.0, min(asked_s, 120.0))
    refused = DownloadError(reason="http", http_status=401, retry_after=asked_s)
    assert pauses_of(refused) == []


# What can be saved.


def task(status: TaskStatus = TaskStatus.SUCCEED, *, images: int = 1) -> ImageTask:
    """Give a task."""
    pictures = tuple(TaskImage(url=f"https://host/{n}") for n in range(images))
    return ImageTask(task_id="7", status=status, status_message="too dark", images=pictures)


def test_what_can_be_saved() -> None:
    """A task that has succeeded, its outcome, and an outcome whose images were not saved."""
    good = task()
    assert task_to_save(good) is good
    for error in (None, DownloadError("cut off"), StorageError("full")):
        assert task_to_save(TaskOutcome(task_id="7", task=good, error=error)) is good


@pytest.mark.parametrize(
    ("given", "kind", "text"),
    [
        (task(TaskStatus.FAILED), TaskFailedError, "too dark"),
        (attrs.evolve(task(TaskStatus.FAILED), status_message=None), TaskFailedError, ""),
        (
            task(TaskStatus.SUBMITTED),
            ConfigurationError,
            "task '7' is submitted: wait for it before its images are saved",
        ),
        (task(images=0), NoImagesError, "the task has no images to save"),
        (
            TaskOutcome(task_id="7", error=PollTimeoutError("too long", task_id="7")),
            PollTimeoutError,
            "too long",
        ),
    ],
)
def test_what_cannot_be_saved(given: object, kind: type[KlingOmniError], text: str) -> None:
    """Each raises why there are no images, with the task."""
    with pytest.raises(kind) as caught:
        task_to_save(given)
    assert str(caught.value) == text
    assert caught.value.task_id == "7"
    if isinstance(caught.value, (TaskFailedError, NoImagesError)):
        assert caught.value.task is given


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("7", "str"),
        (None, "NoneType"),
        ([task()], "list"),
        (TaskOutcome(task_id="7", error=DownloadError("but no task")), "TaskOutcome"),
    ],
)
def test_what_is_nothing_to_save(given: object, name: str) -> None:
    """What is no task, and has none, is told with what it is."""
    with pytest.raises(ConfigurationError) as caught:
        task_to_save(given)
    assert str(caught.value) == f"save takes an ImageTask or a TaskOutcome, not {name}"
