"""Every error that this library raises.

::

    KlingOmniError
    ├── ConfigurationError (ValueError)     key, base URL, policy or aiohttp session unusable
    ├── InvalidTaskIdError (ValueError)     refused before anything is sent
    ├── SessionClosedError (RuntimeError)   closed, before or while waiting
    ├── WrongLoopError (RuntimeError)       used from another event loop than its own
    ├── TransportError                      no answer came                         transient
    ├── ResponseError                       an answer that is not the API's        transient
    ├── ApiError                            the API said no
    │   ├── AuthenticationError             the key is not accepted
    │   ├── PermissionDeniedError           the key may not do this
    │   ├── AccountError                    balance, quota or plan
    │   ├── DuplicateOrderError             the vendor knows this order already
    │   ├── TaskNotFoundError               unknown, foreign or expired id
    │   ├── RateLimitError                  too many requests                      transient
    │   └── ServerError                     trouble at the API's side              transient
    ├── TaskFailedError                     the API said that the task failed
    ├── NoImagesError                       succeeded without one usable URL
    ├── DownloadError                       an image was not brought into the store
    │   ├── AssetExpiredError               its URL gives it no more
    │   └── StorageError                    the store did not take it
    ├── CreateUncertainError                a create whose end is not known
    ├── BookError                           a book that cannot be used or reached
    ├── NotInBookError (LookupError)        an id that a book does not hold
    └── PollTimeoutError (TimeoutError)     no final answer before the deadline

What to write::

    try:
        task = await session.wait(task_id)
    except TaskFailedError as error:
        print("failed:", error)             # the API's own reason
    except PollTimeoutError as error:
        print("not yet:", error)            # poll the id again; never create a second task
    except KlingOmniError as error:
        print("gave up:", error)

``transient`` says whether the trouble may pass by itself; for a `DownloadError` that depends on its
reason. Each error can be pickled and copied.
"""

from __future__ import annotations

import copy
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from ._hints import Hint

if TYPE_CHECKING:
    from ._models import ImageTask
    from ._order import ImageOrder

__all__ = [
    "AccountError",
    "ApiError",
    "AssetExpiredError",
    "AuthenticationError",
    "BookError",
    "ConfigurationError",
    "CreateUncertainError",
    "DownloadError",
    "DuplicateOrderError",
    "InvalidTaskIdError",
    "KlingOmniError",
    "NoImagesError",
    "NotInBookError",
    "PermissionDeniedError",
    "PollTimeoutError",
    "RateLimitError",
    "ResponseError",
    "ServerError",
    "SessionClosedError",
    "StorageError",
    "TaskFailedError",
    "TaskNotFoundError",
    "TransportError",
    "WrongLoopError",
]


class KlingOmniError(Exception):
    """Base of every error of this library.

    Its text says what happened, and where something can be done about that, what.

    Attributes:
        task_id: The id that was asked for, or None where no single id is concerned.
        transient: Whether the trouble may pass by itself.
    """

    transient: bool = False

    def __init__(self, message: str = "", *, task_id: str | None = None) -> None:
        super().__init__(message)
        self.task_id = task_id

    @property
    def what(self) -> str:
        """What happened, which is the text without the hint."""
        return str(self.args[0]) if self.args else ""

    @property
    def hint(self) -> str:
        """What to look at, such as ``check base_url``; empty where there is nothing."""
        return Hint.NONE

    def __str__(self) -> str:
        return f"{self.what}; {self.hint}" if self.hint else self.what


class ConfigurationError(KlingOmniError, ValueError):
    """Raised when an argument cannot be used: key, base URL, policy, aiohttp session, store."""


class InvalidTaskIdError(KlingOmniError, ValueError):
    """Raised when an id cannot be a task id; nothing was sent."""


class SessionClosedError(KlingOmniError, RuntimeError):
    """Raised when the session was closed before the call or while it waited."""


class WrongLoopError(KlingOmniError, RuntimeError):
    """Raised when a session is used from another event loop than its own, or where none runs."""


class TransportError(KlingOmniError):
    """Raised when no answer came: the network, TLS, a proxy or the time limit of one query.

    Attributes:
        reason: One word of ``dns``, ``connect``, ``reset``, ``certificate``, ``tls``, ``proxy``,
            ``timeout``, ``cut-off``, ``protocol``, ``network``, or ``descriptors``: this process,
            or the machine, has no file descriptor left.
    """

    transient: bool = True

    def __init__(
        self, message: str = "", *, task_id: str | None = None, reason: str = "network"
    ) -> None:
        super().__init__(message, task_id=task_id)
        self.reason = reason

    @property
    def hint(self) -> str:
        """What to look at, by the reason."""
        return _OF_TRANSPORT.get(self.reason, Hint.NETWORK)


_OF_TRANSPORT: Final = {
    **dict.fromkeys(("dns", "connect", "reset", "timeout"), Hint.CONNECTION),
    **dict.fromkeys(("tls", "protocol"), Hint.PORT),
    "certificate": Hint.CERTIFICATE,
    "proxy": Hint.PROXY,
    "descriptors": Hint.DESCRIPTORS,
}


class ResponseError(KlingOmniError):
    """Raised when an answer came that is not the API's: a web page, a redirect, no JSON.

    Attributes:
        http_status: The HTTP status.
        snippet: At most the first 200 characters of the body.
        location: Where a redirect points, or None. It is never followed.
    """

    transient: bool = True

    def __init__(
        self,
        message: str = "",
        *,
        task_id: str | None = None,
        http_status: int = 0,
        snippet: str = "",
        location: str | None = None,
    ) -> None:
        super().__init__(message, task_id=task_id)
        self.http_status = http_status
        self.snippet = snippet
        self.location = location

    @property
    def hint(self) -> str:
        """What to look at, unless the answer is the API's by its form."""
        seems_ours = self.http_status == HTTPStatus.OK and not self.snippet
        return Hint.NONE if seems_ours else Hint.BASE_URL


class ApiError(KlingOmniError):
    """Raised when the API said no, and none of the classes below says it better.

    Attributes:
        http_status: The HTTP status.
        code: The API's own code, a number or a word, or None.
        message: The API's own words, which may be Chinese or empty.
        request_id: The API's name for this request, to quote to its support, or None.
        retry_after: How long the API asks to wait, in s, or None.
    """

    def __init__(
        self,
        message: str = "",
        *,
        task_id: str | None = None,
        http_status: int = 0,
        code: int | str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, task_id=task_id)
        self.message = message
        self.http_status = http_status
        self.code = code
        self.request_id = request_id
        self.retry_after = retry_after

    @property
    def what(self) -> str:
        """What happened, by status, code and the API's words."""
        code = "" if self.code is None else f", code {self.code}"
        return f"HTTP {self.http_status}{code}: {self.message or _phrase(self.http_status)}"


class AuthenticationError(ApiError):
    """Raised when the key is not accepted; a key whose own quota has run out looks the same."""

    @property
    def hint(self) -> str:
        """What to look at."""
        return Hint.KEY


class PermissionDeniedError(ApiError):
    """Raised when the key is known but may not do this."""

    @property
    def hint(self) -> str:
        """What to look at."""
        return Hint.PERMISSION


class AccountError(ApiError):
    """Raised when the account's balance, quota or plan does not allow it."""

    @property
    def hint(self) -> str:
        """What to look at."""
        return Hint.ACCOUNT


class DuplicateOrderError(ApiError):
    """Raised when the vendor knows this order already, and `recover` has not found its task.

    Nothing new was created, nothing more is billed.

    Attributes:
        external_task_id: The name under which the vendor has it.
    """

    def __init__(
        self,
        message: str = "",
        *,
        task_id: str | None = None,
        http_status: int = 0,
        code: int | str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        external_task_id: str | None = None,
    ) -> None:
        super().__init__(
            message,
            task_id=task_id,
            http_status=http_status,
            code=code,
            request_id=request_id,
            retry_after=retry_after,
        )
        self.external_task_id = external_task_id


class TaskNotFoundError(ApiError):
    """Raised when the API does not know the id: unknown, expired, or of another account."""

    @property
    def hint(self) -> str:
        """What to look at."""
        return Hint.TASK_ID


class RateLimitError(ApiError):
    """Raised when the API asks to send fewer requests."""

    transient: bool = True


class ServerError(ApiError):
    """Raised when the API, or a gateway before it, has trouble of its own."""

    transient: bool = True


class _TaskError(KlingOmniError):
    """An error that carries the record it is about."""

    def __init__(
        self, message: str = "", *, task_id: str | None = None, task: ImageTask | None = None
    ) -> None:
        super().__init__(message, task_id=task_id)
        self.task = task


class TaskFailedError(_TaskError):
    """Raised when the API said that the task failed; the text is the API's reason.

    Attributes:
        task: The failed `ImageTask`.
    """


class NoImagesError(_TaskError):
    """Raised when the task succeeded, again and again, without one usable image URL.

    Attributes:
        task: The `ImageTask` without images.
    """


class PollTimeoutError(_TaskError, TimeoutError):
    """Raised when no final answer came before the deadline. The id can be polled again.

    ``TimeoutError`` is an ``OSError`` in Python: an ``except OSError`` catches this too.

    Attributes:
        task: The last `ImageTask` seen, or None.
        last_error: The fault that the last query met, the refusal that was still to be
            confirmed, or what held the id back: a 429 pause, or more ids than the limits carry.
            None if the last query was answered well. This tells "the API is down" from "the task
            is still being worked on".
    """

    def __init__(
        self,
        message: str = "",
        *,
        task_id: str | None = None,
        task: ImageTask | None = None,
        last_error: KlingOmniError | None = None,
    ) -> None:
        super().__init__(message, task_id=task_id, task=task)
        self.last_error = last_error


class CreateUncertainError(KlingOmniError):
    """Raised when a create was sent and nobody knows whether it made a task, which would be billed.

    Its ``__cause__`` is what the create met. Do not send the order again before
    ``await session.recover(error.external_task_id)`` has said that there is none, and not within
    the first minute: where that finds nothing, only your account's list can tell.

    Attributes:
        external_task_id: The name under which the task can be found, if there is one.
        order: The `ImageOrder`; after pickling only its digest, a str.
        digest: The SHA-256 of what was ordered, in hexadecimal.
    """

    def __init__(
        self,
        message: str = "",
        *,
        task_id: str | None = None,
        external_task_id: str = "",
        order: ImageOrder | str | None = None,
        digest: str = "",
    ) -> None:
        super().__init__(message, task_id=task_id)
        self.external_task_id = external_task_id
        self.order = order
        self.digest = digest

    def __reduce__(self) -> tuple[Any, ...]:
        # The order may hold 100 MB of images, and its callback's URL a secret.
        state = {**vars(self), "order": self.digest or None}
        return type(self), self.args, state

    def __copy__(self) -> Self:
        twin = type(self)(*self.args)
        twin.__dict__.update(self.__dict__)
        return twin


class BookError(KlingOmniError):
    """Raised when a book cannot be used or reached: nothing of the call was kept.

    The text says why, and what to do. What the book holds is not touched.

    Attributes:
        transient: Whether the same call may work later, such as where the disk is full now.
    """

    def __init__(
        self, message: str = "", *, task_id: str | None = None, transient: bool = False
    ) -> None:
        super().__init__(message, task_id=task_id)
        self.transient: bool = transient


class NotInBookError(KlingOmniError, LookupError):
    """Raised when a book does not hold an id: it was never added, was removed, or is long over."""


class DownloadError(KlingOmniError):
    """Raised when an image was not brought into the store; what was stored stays there.

    Save the task again: images that are there are left alone.

    Attributes:
        url: The image's URL without its query, which may hold a signature, and without user info.
        http_status: The HTTP status of the image's host, or None if none came or it was well.
        reason: One word. No image came: a word of `TransportError`, or ``http`` (its status says
            no), ``stalled`` (too slow). What came is none: ``not-an-image``, ``empty``,
            ``too-long``. It may not be fetched: ``address`` (in a private network), ``url`` (not
            https), ``redirects`` (too many), ``no-watermark`` (the task has no such copy). Of
            `AssetExpiredError`: ``expired``. Of `StorageError`: ``exists`` (something else has its
            name), ``store``, ``busy`` (the file system says that this may pass).
            ``descriptors``: this process, or the machine, has no file descriptor left.
            ``unforeseen`` is a defect of ours; the log names it.
        retry_after: How long the image's host asks to wait, in s, or None.
        detail: Why, in the words of the system or the store, such as ``No space left on device``,
            without what differs from image to image; or None.
    """

    def __init__(
        self,
        message: str = "",
        *,
        task_id: str | None = None,
        url: str = "",
        http_status: int | None = None,
        reason: str = "network",
        retry_after: float | None = None,
        detail: str | None = None,
    ) -> None:
        super().__init__(message, task_id=task_id)
        self.url = url
        self.http_status = http_status
        self.reason = reason
        self.retry_after = retry_after
        self.detail = detail
        status = http_status or 0
        may_pass = status in {408, 425, 429} or status >= HTTPStatus.INTERNAL_SERVER_ERROR
        self.transient: bool = reason in _PASSING or (reason == "http" and may_pass)

    @property
    def hint(self) -> str:
        """What to do, by the reason."""
        return _OF_DOWNLOAD.get(self.reason, Hint.NONE)


_OF_DOWNLOAD: Final = {
    "address": Hint.ALLOW_HOSTS,
    "descriptors": Hint.DESCRIPTORS,
    "exists": Hint.OVERWRITE,
    "too-long": Hint.IMAGE_BYTES,
}
_PASSING: Final = {
    *("busy", "connect", "cut-off", "descriptors", "dns", "network"),
    *("protocol", "proxy", "reset", "stalled", "timeout"),
}


class AssetExpiredError(DownloadError):
    """Raised when an image's host says 403, 404 or 410: its URL has expired or was cleared."""


class StorageError(DownloadError):
    """Raised when the store did not take an image, or holds something else under its name."""


def _phrase(http_status: int) -> str:
    """Return the standard words for a status, for an answer that has none of its own."""
    try:
        return HTTPStatus(http_status).phrase
    except ValueError:
        return "no message"


E = TypeVar("E", bound=BaseException)


def copy_error(error: E) -> E:
    """Return a copy to raise, so that many who wait share no traceback.

    An exception of a user's own class may have neither a copy by its own rules nor one by ours;
    then it is returned itself.
    """
    if (copied := _by_own_rules(error) or _without_init(error)) is None:
        return error
    if notes := getattr(error, "__notes__", None):
        copied.__notes__ = list(notes)  # who gets it may add his own
    copied.__cause__ = error.__cause__
    if isinstance(error, KlingOmniError):
        return copied  # our frames tell a user nothing, and hold the key
    copied.__context__ = error.__context__
    copied.__suppress_context__ = error.__suppress_context__
    return copied.with_traceback(error.__traceback__)


def _by_own_rules(error: E) -> E | None:
    """Return a copy that says the same, if its class makes one."""
    # Copying calls `__init__` with the final `args`, which often makes another text of them.
    try:
        copied = copy.copy(error)
        same = type(copied) is type(error) and copied is not error and copied.args == error.args
    except Exception:  # noqa: BLE001 - whatever the class does when it is copied
        return None
    return copied if same else None


def _without_init(error: E) -> E | None:
    try:
        copied = BaseException.__new__(type(error), *error.args)
    except TypeError:  # such as of a class of `OSError`, which keeps more than `args`
        return None
    copied.__dict__.update(error.__dict__)
    return copied


def for_task(error: E, task_id: str) -> E:
    """Return a copy of an error that is about a whole session, for one who waited for an id."""
    copied = copy_error(error)
    if isinstance(copied, KlingOmniError):
        copied.task_id = task_id
    return copied
