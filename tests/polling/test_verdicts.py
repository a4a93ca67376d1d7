"""What an answer means: for its id, and for the whole session."""

from __future__ import annotations

import pytest

from kling_omni_async import (
    AccountError,
    ApiError,
    AuthenticationError,
    ConfigurationError,
    ImageTask,
    KlingOmniError,
    NoImagesError,
    PermissionDeniedError,
    RateLimitError,
    ResponseError,
    ServerError,
    TaskFailedError,
    TaskImage,
    TaskNotFoundError,
    TaskStatus,
    TransportError,
)
from kling_omni_async._polling.verdicts import (
    Reply,
    SetupCheck,
    Verdict,
    VerdictKind,
    is_readable,
    verdict_on,
)

IMAGES = (TaskImage(url="https://img.example/0.png"),)
PENDING = ImageTask(task_id="a", status=TaskStatus.PROCESSING)
SUCCEED = ImageTask(task_id="a", status=TaskStatus.SUCCEED, images=IMAGES)
IMAGELESS = ImageTask(task_id="a", status=TaskStatus.SUCCEED)
NO_KEY = AuthenticationError("no", http_status=401, code=1000)
NO_BALANCE = AccountError("no", http_status=429, code=1102)
WEB_PAGE = ResponseError("a web page")
RESET = TransportError("reset", reason="reset")
CERTIFICATE = TransportError("refused", reason="certificate")
API_TROUBLE = ServerError("trouble", http_status=500, code=5000)
GATEWAY_TROUBLE = ServerError("bad gateway", http_status=502)
HTTP_CLOSED = ConfigurationError("the given aiohttp session was closed")


def failed(reason: str | None) -> ImageTask:
    """Make a failed task."""
    return ImageTask(task_id="a", status=TaskStatus.FAILED, status_message=reason)


def name_of(value: object) -> str:
    """Name a parameter by its kind."""
    if isinstance(value, ImageTask):
        return f"{value.status}-{len(value.images)}"
    return f"{type(value).__name__}-{value}" if isinstance(value, KlingOmniError) else str(value)


# For its id.


@pytest.mark.parametrize(
    "status", [TaskStatus.SUBMITTED, TaskStatus.PROCESSING, TaskStatus.UNKNOWN]
)
def test_a_task_that_is_not_finished_is_pending(status: TaskStatus) -> None:
    """Submitted, processing and any word of tomorrow mean: ask again."""
    task = ImageTask(task_id="a", status=status)
    assert verdict_on(task) == Verdict(VerdictKind.PENDING, task)


def test_success_with_images_is_final() -> None:
    """A finished task that has images ends the wait without an error."""
    assert verdict_on(SUCCEED) == Verdict(VerdictKind.FINAL, SUCCEED)


@pytest.mark.parametrize(
    ("reason", "text"),
    [("the prompt was refused", "the prompt was refused"), (None, "the API gave no reason")],
)
def test_a_failed_task_is_final_and_says_why(reason: str | None, text: str) -> None:
    """A failed task ends the wait with the API's own reason, and the error carries the task."""
    judgement = verdict_on(failed(reason))
    assert (judgement.kind, judgement.task) == (VerdictKind.FINAL, failed(reason))
    assert isinstance(judgement.error, TaskFailedError)
    assert (str(judgement.error), judgement.error.task) == (text, judgement.task)
    assert judgement.error.task_id == "a"


def test_success_without_images_is_doubtful() -> None:
    """It is met in practice shortly before the images are there."""
    judgement = verdict_on(IMAGELESS)
    assert (judgement.kind, judgement.task) == (VerdictKind.UNCONFIRMED, IMAGELESS)
    assert isinstance(judgement.error, NoImagesError)
    assert (judgement.error.task_id, judgement.error.task) == ("a", IMAGELESS)


def test_an_unknown_id_is_doubtful() -> None:
    """An id that was just created may be unknown for a moment."""
    error = TaskNotFoundError("task_not_exist")
    assert verdict_on(error) == Verdict(VerdictKind.UNCONFIRMED, error=error)


@pytest.mark.parametrize(
    "error",
    [
        *(RESET, CERTIFICATE, WEB_PAGE, API_TROUBLE, RateLimitError("slow down")),
        *(NO_KEY, NO_BALANCE, HTTP_CLOSED),
    ],
    ids=name_of,
)
def test_a_fault_says_nothing_about_the_task(error: KlingOmniError) -> None:
    """What may pass, and what concerns the whole session, never ends a single id."""
    assert verdict_on(error) == Verdict(VerdictKind.FAULT, error=error)


@pytest.mark.parametrize(
    "error", [PermissionDeniedError("no"), ApiError("bad request")], ids=name_of
)
def test_a_refusal_is_final(error: KlingOmniError) -> None:
    """What the API refuses for good ends the id."""
    assert verdict_on(error) == Verdict(VerdictKind.FINAL, error=error)


# For the session.


@pytest.mark.parametrize(
    ("reply", "readable"),
    [
        (PENDING, True),
        (failed(None), True),
        (TaskNotFoundError("task_not_exist", code="task_not_exist"), True),
        (ApiError("bad request"), True),
        (PermissionDeniedError("no"), True),
        (API_TROUBLE, True),
        (RateLimitError("slow down", code=1302), True),
        (RateLimitError("", http_status=429), False),
        (GATEWAY_TROUBLE, False),
        (NO_KEY, False),
        (NO_BALANCE, False),
        (WEB_PAGE, False),
        (RESET, False),
        (HTTP_CLOSED, False),
    ],
    ids=name_of,
)
def test_readable_is_what_only_the_api_itself_says(reply: Reply, readable: bool) -> None:  # noqa: FBT001 - a column of the table
    """A task or a refusal is; a gateway's 502, a bare 429 or a refused key is not."""
    assert is_readable(reply) is readable


@pytest.mark.parametrize(
    "reply", [NO_KEY, NO_BALANCE, CERTIFICATE, WEB_PAGE, HTTP_CLOSED], ids=name_of
)
def test_a_first_answer_can_show_a_wrong_setup(reply: Reply) -> None:
    """Key, account, certificate and base URL are wrong at once if nothing readable ever came."""
    assert SetupCheck(20.0).is_wrong(reply, started=0.0, now=1.0)


@pytest.mark.parametrize(
    "reply", [RESET, GATEWAY_TROUBLE, API_TROUBLE, PENDING, ApiError("no")], ids=name_of
)
def test_a_first_answer_can_be_weather(reply: Reply) -> None:
    """A 502 or a refused connection does not show that the set-up is wrong."""
    setup = SetupCheck(20.0)
    assert not setup.is_wrong(reply, started=0.0, now=1.0)
    assert setup.heard is is_readable(reply)


@pytest.mark.parametrize("reply", [WEB_PAGE, CERTIFICATE, RESET], ids=name_of)
def test_after_a_readable_answer_all_else_is_weather(reply: Reply) -> None:
    """Once the API was heard, a web page in its place passes, however often it comes."""
    setup = SetupCheck(20.0)
    setup.is_wrong(PENDING, started=0.0, now=1.0)
    assert not any(setup.is_wrong(reply, started=at, now=at) for at in (30.0, 60.0, 90.0))


def test_a_given_session_that_was_closed_is_no_weather() -> None:
    """Without its aiohttp session nothing will ever come again, whatever came before."""
    setup = SetupCheck(20.0)
    setup.is_wrong(PENDING, started=0.0, now=1.0)
    assert setup.is_wrong(HTTP_CLOSED, started=30.0, now=30.0)


@pytest.mark.parametrize(("started", "wrong"), [(30.0, False), (49.9, False), (50.0, True)])
def test_a_refused_key_is_believed_when_it_comes_again(started: float, wrong: bool) -> None:  # noqa: FBT001 - as above
    """A 401 in the middle counts only with a second one, to a query of an interval later."""
    setup = SetupCheck(20.0)
    setup.is_wrong(PENDING, started=0.0, now=1.0)
    assert not setup.is_wrong(NO_KEY, started=29.0, now=30.0)
    assert setup.is_wrong(NO_BALANCE, started=started, now=started + 1.0) is wrong


def test_a_good_answer_between_clears_the_key() -> None:
    """Two 401s with a good answer between them are two first ones."""
    setup = SetupCheck(20.0)
    setup.is_wrong(PENDING, started=0.0, now=1.0)
    setup.is_wrong(NO_KEY, started=29.0, now=30.0)
    setup.is_wrong(PENDING, started=40.0, now=41.0)
    assert not setup.is_wrong(NO_KEY, started=60.0, now=61.0)


def test_after_a_verdict_the_next_401_is_a_first_one() -> None:
    """Whoever waits anew after everything ended gets the same two chances."""
    setup = SetupCheck(20.0)
    setup.is_wrong(PENDING, started=0.0, now=1.0)
    setup.is_wrong(NO_KEY, started=29.0, now=30.0)
    assert setup.is_wrong(NO_KEY, started=55.0, now=56.0)
    assert not setup.is_wrong(NO_KEY, started=57.0, now=58.0)
