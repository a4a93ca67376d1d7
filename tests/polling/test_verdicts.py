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
    Unconfirmed,
    Verdict,
    VerdictKind,
    is_readable,
    say_again,
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
UNKNOWN_ID = TaskNotFoundError("task_not_exist", http_status=400, code="task_not_exist")
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
    verdict = verdict_on(failed(reason))
    assert (verdict.kind, verdict.task) == (VerdictKind.FINAL, failed(reason))
    assert isinstance(verdict.error, TaskFailedError)
    assert (str(verdict.error), verdict.error.task) == (text, verdict.task)
    assert verdict.error.task_id == "a"


def test_success_without_images_is_unconfirmed() -> None:
    """It is met in practice shortly before the images are there."""
    verdict = verdict_on(IMAGELESS)
    assert (verdict.kind, verdict.task) == (VerdictKind.UNCONFIRMED, IMAGELESS)
    assert isinstance(verdict.error, NoImagesError)
    assert (verdict.error.task_id, verdict.error.task) == ("a", IMAGELESS)
    assert str(verdict.error) == "the task succeeded without one usable image URL"


def test_an_unknown_id_is_unconfirmed() -> None:
    """An id that was just created may be unknown for a moment."""
    assert verdict_on(UNKNOWN_ID) == Verdict(VerdictKind.UNCONFIRMED, error=UNKNOWN_ID)


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


# Said again.


def confirmed_at(*times: float, interval_s: float = 20.0) -> Unconfirmed:
    """Count answers that came at these times, each of which says that the id is unknown."""
    said: Unconfirmed | None = None
    for now in times:
        said = say_again(said, UNKNOWN_ID, now=now, interval_s=interval_s)
    assert said is not None
    return said


def test_a_word_is_counted_from_the_first_time_on() -> None:
    """Said once it counts as one, and what it says is known by the class of its error."""
    assert confirmed_at(5.0) == Unconfirmed(TaskNotFoundError, 1, 5.0)


@pytest.mark.parametrize(
    ("times", "count", "counted_at"),
    [
        ((5.0, 24.9), 1, 5.0),
        ((5.0, 5.0, 5.0), 1, 5.0),
        ((5.0, 25.0), 2, 25.0),
        ((5.0, 15.0, 24.0, 25.0, 35.0), 2, 25.0),
        ((5.0, 30.0, 49.0), 2, 30.0),
        ((5.0, 30.0, 50.0), 3, 50.0),
    ],
)
def test_answers_less_than_a_pause_apart_count_as_one(
    times: tuple[float, ...], count: int, counted_at: float
) -> None:
    """Whoever asked: queries by hand in between neither confirm a word nor put that off."""
    assert confirmed_at(*times) == Unconfirmed(TaskNotFoundError, count, counted_at)


def test_without_a_pause_each_answer_counts() -> None:
    """Where the policy's shortest pause is 0, two answers at one time are two."""
    assert confirmed_at(5.0, 5.0, interval_s=0.0).count == 2


def test_another_word_is_counted_anew() -> None:
    """Success without images confirms nothing about an id that was unknown, at whatever time."""
    unknown = confirmed_at(5.0, 30.0)
    no_images = NoImagesError("no images")
    for now in (31.0, 90.0):
        said = say_again(unknown, no_images, now=now, interval_s=20.0)
        assert said == Unconfirmed(NoImagesError, 1, now)


# For the session.


def heard() -> SetupCheck:
    """Make the check of a session that has had a readable answer, with pauses of 20 s."""
    setup = SetupCheck(20.0)
    setup.is_wrong(PENDING, started=0.0, now=1.0)
    return setup


@pytest.mark.parametrize(
    ("reply", "readable"),
    [
        (PENDING, True),
        (failed(None), True),
        (UNKNOWN_ID, True),
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
def test_a_first_answer_can_be_a_passing_fault(reply: Reply) -> None:
    """A 502 or a refused connection does not show that the set-up is wrong."""
    setup = SetupCheck(20.0)
    assert not setup.is_wrong(reply, started=0.0, now=1.0)
    assert setup.heard is is_readable(reply)


@pytest.mark.parametrize("reply", [RESET, GATEWAY_TROUBLE], ids=name_of)
def test_until_something_readable_comes_the_setup_can_be_wrong(reply: Reply) -> None:
    """A session that had only faults so far ends at the first refused key."""
    setup = SetupCheck(20.0)
    setup.is_wrong(reply, started=0.0, now=1.0)
    assert setup.is_wrong(NO_KEY, started=2.0, now=3.0)


def test_a_setup_is_fine_from_a_good_answer_to_a_refused_key() -> None:
    """In between one more good answer changes nothing; a fault that passes is none against it."""
    setup = SetupCheck(20.0)
    fine = [setup.is_fine]
    replies: list[Reply] = [RESET, PENDING, RESET, WEB_PAGE, NO_KEY, RESET, PENDING]
    for at, reply in enumerate(replies):
        setup.is_wrong(reply, started=at, now=at)
        fine.append(setup.is_fine)
    assert fine == [False, False, True, True, True, False, False, True]


def test_a_setup_that_was_found_wrong_is_not_fine() -> None:
    """It takes a good answer to be fine again."""
    setup = heard()
    setup.is_wrong(NO_KEY, started=29.0, now=30.0)
    setup.is_wrong(NO_KEY, started=55.0, now=56.0)
    assert not setup.is_fine


@pytest.mark.parametrize("reply", [WEB_PAGE, CERTIFICATE, RESET], ids=name_of)
def test_after_a_readable_answer_all_else_is_a_passing_fault(reply: Reply) -> None:
    """Once the API was heard, a web page in its place passes, however often it comes."""
    setup = heard()
    assert not any(setup.is_wrong(reply, started=at, now=at) for at in (30.0, 60.0, 90.0))


def test_a_given_session_that_was_closed_is_no_passing_fault() -> None:
    """Without its aiohttp session nothing will ever come again, whatever came before."""
    setup = heard()
    assert setup.is_wrong(HTTP_CLOSED, started=30.0, now=30.0)


@pytest.mark.parametrize(("started", "wrong"), [(30.0, False), (49.9, False), (50.0, True)])
def test_a_refused_key_is_believed_when_it_comes_again(started: float, wrong: bool) -> None:  # noqa: FBT001 - as above
    """A 401 in the middle counts only with a second one, to a query of an interval later."""
    setup = heard()
    assert not setup.is_wrong(NO_KEY, started=29.0, now=30.0)
    assert setup.is_wrong(NO_BALANCE, started=started, now=started + 1.0) is wrong


@pytest.mark.parametrize("reply", [NO_KEY, RESET, WEB_PAGE], ids=name_of)
def test_what_is_no_good_answer_clears_nothing(reply: Reply) -> None:
    """A 401 that came too early, or a passing fault between two of them, changes nothing."""
    setup = heard()
    setup.is_wrong(NO_KEY, started=29.0, now=30.0)
    assert not setup.is_wrong(reply, started=35.0, now=36.0)
    assert setup.is_wrong(NO_KEY, started=50.0, now=51.0)


def test_a_good_answer_between_clears_the_key() -> None:
    """Two 401s with a good answer between them are two first ones."""
    setup = heard()
    setup.is_wrong(NO_KEY, started=29.0, now=30.0)
    setup.is_wrong(PENDING, started=40.0, now=41.0)
    assert not setup.is_wrong(NO_KEY, started=60.0, now=61.0)


def test_after_a_verdict_the_next_401_is_a_first_one() -> None:
    """Whoever waits anew after everything ended gets the same two chances."""
    setup = heard()
    setup.is_wrong(NO_KEY, started=29.0, now=30.0)
    assert setup.is_wrong(NO_KEY, started=55.0, now=56.0)
    assert not setup.is_wrong(NO_KEY, started=57.0, now=58.0)
