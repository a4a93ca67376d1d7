"""Every error says what happened, and survives being copied and sent to another process."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest

from kling_omni_async import ImageOrder, ImageTask, TaskStatus, errors
from kling_omni_async.errors import ApiError, KlingOmniError, copy_error

TASK = ImageTask(task_id="t-1", status=TaskStatus.PROCESSING, raw={"task_status": "processing"})


def samples() -> dict[str, KlingOmniError]:
    """Give one error of each class, with every attribute set to something of its own."""
    made: list[KlingOmniError] = [
        errors.KlingOmniError("text", task_id="t-1"),
        errors.ConfigurationError("text", task_id="t-1"),
        errors.InvalidTaskIdError("text", task_id="t-1"),
        errors.SessionClosedError("text", task_id="t-1"),
        errors.WrongLoopError("text", task_id="t-1"),
        errors.TransportError("text", task_id="t-1", reason="dns"),
        errors.ResponseError(
            "text", task_id="t-1", http_status=301, snippet="<html>", location="https://b.example/"
        ),
        errors.TaskFailedError("text", task_id="t-1", task=TASK),
        errors.NoImagesError("text", task_id="t-1", task=TASK),
        errors.CreateUncertainError(
            "text", task_id="t-1", external_task_id="e-1", order="d1", digest="d1"
        ),
        errors.BookError("text", task_id="t-1", transient=False),
        errors.NotInBookError("text", task_id="t-1"),
        errors.DuplicateOrderError(
            "text",
            task_id="t-1",
            http_status=400,
            code=1201,
            request_id="req-1",
            retry_after=2.5,
            external_task_id="e-1",
        ),
        errors.PollTimeoutError(
            "text",
            task_id="t-1",
            task=TASK,
            last_error=errors.ServerError("Bad Gateway", task_id="t-1", http_status=502),
        ),
    ]
    made += [
        kind(
            "text",
            task_id="t-1",
            url="https://img.example/1.png",
            http_status=404,
            reason="expired",
            detail="gone",
        )
        for kind in (errors.DownloadError, errors.AssetExpiredError, errors.StorageError)
    ]
    made += [
        kind(
            "text",
            task_id="t-1",
            http_status=429,
            code=1303,
            request_id="req-1",
            retry_after=2.5,
        )
        for kind in (
            errors.ApiError,
            errors.AuthenticationError,
            errors.PermissionDeniedError,
            errors.AccountError,
            errors.TaskNotFoundError,
            errors.RateLimitError,
            errors.ServerError,
        )
    ]
    return {type(error).__name__: error for error in made}


def facts(error: KlingOmniError) -> dict[str, object]:
    """Give everything that an error says, so that two of them can be compared."""
    attributes = dict(vars(error))
    if isinstance(error, errors.PollTimeoutError) and error.last_error is not None:
        attributes["last_error"] = facts(error.last_error)
    return {"class": type(error), "args": error.args, "text": str(error), **attributes}


SAMPLES = samples()
EVERY_CLASS = pytest.mark.parametrize("name", errors.__all__)


@EVERY_CLASS
def test_every_class_has_a_sample(name: str) -> None:
    """The samples of these tests leave no class out."""
    assert type(SAMPLES[name]) is getattr(errors, name)


@EVERY_CLASS
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_survives_pickling(name: str, protocol: int) -> None:
    """A pickled error comes back with its class, text and attributes."""
    error = SAMPLES[name]
    assert facts(pickle.loads(pickle.dumps(error, protocol))) == facts(error)  # noqa: S301 - ours


@EVERY_CLASS
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, copy_error])
def test_survives_copying(name: str, duplicate: Callable[[KlingOmniError], KlingOmniError]) -> None:
    """A copy is another object that says the same."""
    error = SAMPLES[name]
    double = duplicate(error)
    assert double is not error
    assert facts(double) == facts(error)


def test_an_uncertain_create_keeps_its_order_but_in_pickles() -> None:
    """Its copies have the order; in another process its digest stands for it."""
    order = ImageOrder("a fox", callback_url="https://hooks.example/secret")
    error = errors.CreateUncertainError("text", external_task_id="e-1", order=order, digest="d1")
    error.__cause__ = errors.ServerError(http_status=502)
    assert copy_error(error).order is order
    assert copy_error(error).__cause__ is error.__cause__
    pickled = pickle.dumps(error)
    assert b"secret" not in pickled
    assert pickle.loads(pickled).order == "d1"  # noqa: S301 - ours
    bare = errors.CreateUncertainError("text", order=order)
    assert pickle.loads(pickle.dumps(bare)).order is None  # noqa: S301 - ours


def test_a_copy_shares_no_traceback() -> None:
    """The copy that is raised starts without the frames of the one that was kept."""
    kept = errors.ServerError("text", http_status=500)
    with pytest.raises(errors.ServerError):
        raise kept
    assert kept.__traceback__ is not None
    assert copy_error(kept).__traceback__ is None


class CodedError(Exception):
    """Makes its text of what it is given."""

    def __init__(self, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code


class WideError(Exception):
    """Its own rules make no copy of it."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


class OfSystemError(OSError):
    """Neither its own rules nor ours make a copy of it."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(code, text)


@pytest.mark.parametrize(
    "error", [CodedError(5), WideError("text", 5), LookupError("text")], ids=repr
)
def test_a_copy_of_a_foreign_error_says_the_same(error: Exception) -> None:
    """However its class makes its text, and whatever its `__init__` wants."""
    error.add_note("a note")
    error.__context__ = LookupError("before it")
    double = copy_error(error)
    assert double is not error
    assert type(double) is type(error)
    assert str(double) == str(error)
    assert vars(double) == vars(error)
    assert double.__context__ is error.__context__
    double.add_note("of one who got it")
    assert error.__notes__ == ["a note"]


def test_what_cannot_be_copied_is_raised_itself() -> None:
    """An error that keeps something inside is better than half a copy."""
    error = OfSystemError("text", 5)
    assert copy_error(error) is error


@EVERY_CLASS
def test_transient_classes(name: str) -> None:
    """Exactly four classes say that the trouble may pass by itself."""
    transient = {"TransportError", "ResponseError", "RateLimitError", "ServerError"}
    assert SAMPLES[name].transient is (name in transient)


def test_a_book_says_itself_whether_its_trouble_may_pass() -> None:
    """Of a `BookError` that is known where it is raised, and kept in a copy and a pickle."""
    error = errors.BookError("the disk is full", transient=True)
    assert error.transient
    assert copy_error(error).transient
    assert pickle.loads(pickle.dumps(error)).transient  # noqa: S301 - ours
    assert not errors.BookError("text").transient


@pytest.mark.parametrize(
    ("reason", "http_status", "transient"),
    [
        ("reset", None, True),
        ("timeout", None, True),
        ("stalled", 200, True),
        ("cut-off", 200, True),
        ("http", 408, True),
        ("http", 429, True),
        ("http", 500, True),
        ("http", 503, True),
        ("http", 401, False),
        ("http", 499, False),
        ("http", None, False),
        ("expired", 404, False),
        ("certificate", None, False),
        ("address", None, False),
        ("not-an-image", 200, False),
        ("exists", None, False),
    ],
)
def test_transience_of_downloads(*, reason: str, http_status: int | None, transient: bool) -> None:
    """Whether a download may do better later depends on what went wrong, also after a copy."""
    error = errors.DownloadError("text", reason=reason, http_status=http_status)
    assert error.transient is transient
    assert copy.copy(error).transient is transient


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("ConfigurationError", ValueError),
        ("InvalidTaskIdError", ValueError),
        ("SessionClosedError", RuntimeError),
        ("WrongLoopError", RuntimeError),
        ("PollTimeoutError", TimeoutError),
        ("PollTimeoutError", OSError),
    ],
)
def test_builtin_bases(name: str, builtin: type[Exception]) -> None:
    """Code that knows only Python's own errors catches ours too."""
    with pytest.raises(builtin, match="text"):
        raise SAMPLES[name]


@EVERY_CLASS
def test_needs_no_arguments(name: str) -> None:
    """Each class can be made bare, and then concerns no id."""
    error: KlingOmniError = getattr(errors, name)()
    assert error.task_id is None
    assert error.args == ("",)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (errors.TransportError, {"reason": "network"}),
        (errors.ResponseError, {"http_status": 0, "snippet": "", "location": None}),
        (
            errors.RateLimitError,
            {
                "message": "",
                "http_status": 0,
                "code": None,
                "request_id": None,
                "retry_after": None,
            },
        ),
        (errors.TaskFailedError, {"task": None}),
        (errors.PollTimeoutError, {"task": None, "last_error": None}),
    ],
)
def test_defaults(kind: type[KlingOmniError], expected: dict[str, object]) -> None:
    """What is not said is empty."""
    assert vars(kind()) == {"task_id": None, **expected}


@EVERY_CLASS
def test_carries_the_id(name: str) -> None:
    """Each class takes the id that it is about."""
    assert SAMPLES[name].task_id == "t-1"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ApiError("no such model", http_status=503, code="x"), "HTTP 503, code x: no such model"),
        (ApiError("no such model", http_status=503), "HTTP 503: no such model"),
        (ApiError(http_status=404, code=1200), "HTTP 404, code 1200: Not Found"),
        (ApiError(http_status=520), "HTTP 520: no message"),
        (ApiError("余额不足", http_status=429, code=1102), "HTTP 429, code 1102: 余额不足"),
    ],
)
def test_text_of_an_api_error(error: ApiError, text: str) -> None:
    """The text names the status, the code if there is one, and the API's or HTTP's own words."""
    assert str(error) == text


def test_message_is_the_apis_own() -> None:
    """`ApiError.message` holds the API's words alone."""
    assert ApiError("quota", http_status=403, code="x").message == "quota"


def test_failed_task_text_is_the_reason() -> None:
    """The text of `TaskFailedError` is the API's reason and nothing else."""
    assert str(errors.TaskFailedError("Image pixel is invalid")) == "Image pixel is invalid"


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (errors.TransportError("x", reason="dns"), "check base_url, the network and the proxy"),
        (errors.TransportError("x", reason="connect"), "check base_url, the network and the proxy"),
        (
            errors.TransportError("x", reason="tls"),
            "check base_url: something else may be behind a wrong port",
        ),
        (
            errors.TransportError("x", reason="certificate"),
            "check base_url, the clock and the certificates of this machine",
        ),
        (errors.TransportError("x", reason="cut-off"), "check the network"),
        (errors.ResponseError("x", http_status=404), "check base_url"),
        (errors.ResponseError("x", http_status=200, snippet="<html>"), "check base_url"),
        (errors.ResponseError("x", http_status=200), ""),
        (errors.PermissionDeniedError("x"), "check what the key may do"),
        (errors.AuthenticationError("x"), "check COMETAPI_KEY"),
        (errors.AccountError("x"), "check the balance and the plan of the account"),
        (
            errors.TaskNotFoundError("x"),
            "check the id, and that the key is of the account that made the task",
        ),
        (errors.StorageError("x", reason="exists"), "move it away, or pass overwrite=True"),
        (errors.StorageError("x", reason="store"), ""),
        (
            errors.DownloadError("x", reason="address"),
            "if you trust it, add it to PollPolicy.allow_hosts",
        ),
        (
            errors.DownloadError("x", reason="too-long"),
            "PollPolicy.max_image_bytes allows no more",
        ),
        (errors.ServerError("x"), ""),
        (errors.TaskFailedError("x"), ""),
        (errors.PollTimeoutError("x"), ""),
    ],
)
def test_an_error_says_what_to_look_at(error: KlingOmniError, hint: str) -> None:
    """Its text is what happened, then what to do where something can be done, and both apart."""
    assert error.hint == hint
    assert str(error) == (f"{error.what}; {hint}" if hint else error.what)
    assert "x" in error.what


def test_an_error_without_a_text_has_none() -> None:
    """Classes of users that pass nothing on still have a text."""
    error = KlingOmniError()
    error.args = ()
    assert (error.what, str(error)) == ("", "")
