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
    │   ├── TaskNotFoundError               unknown, foreign or expired id
    │   ├── RateLimitError                  too many requests                      transient
    │   └── ServerError                     trouble at the API's side              transient
    ├── TaskFailedError                     the API said that the task failed
    ├── NoImagesError                       succeeded without one usable URL
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

``transient`` says whether the trouble may pass by itself. Each error can be pickled and copied.
"""

from __future__ import annotations

import copy
from http import HTTPStatus
from typing import TYPE_CHECKING, ClassVar, TypeVar

if TYPE_CHECKING:
    from ._records import ImageTask

__all__ = [
    "AccountError",
    "ApiError",
    "AuthenticationError",
    "ConfigurationError",
    "InvalidTaskIdError",
    "KlingOmniError",
    "NoImagesError",
    "PermissionDeniedError",
    "PollTimeoutError",
    "RateLimitError",
    "ResponseError",
    "ServerError",
    "SessionClosedError",
    "TaskFailedError",
    "TaskNotFoundError",
    "TransportError",
    "WrongLoopError",
]


class KlingOmniError(Exception):
    """Base of every error of this library.

    Attributes:
        task_id: The id that was asked for, or None where no single id is concerned.
        transient: Whether the trouble may pass by itself.
    """

    transient: ClassVar[bool] = False

    def __init__(self, message: str = "", *, task_id: str | None = None) -> None:
        super().__init__(message)
        self.task_id = task_id


class ConfigurationError(KlingOmniError, ValueError):
    """Raised when the key, the base URL, the policy or a given aiohttp session cannot be used."""


class InvalidTaskIdError(KlingOmniError, ValueError):
    """Raised when an id cannot be a task id; nothing was sent."""


class SessionClosedError(KlingOmniError, RuntimeError):
    """Raised when the session was closed before the call or while it waited."""


class WrongLoopError(KlingOmniError, RuntimeError):
    """Raised when a session is used from another event loop than the one it is bound to."""


class TransportError(KlingOmniError):
    """Raised when no answer came: the network, TLS, a proxy or the time limit of one query.

    Attributes:
        reason: One word of ``dns``, ``connect``, ``reset``, ``certificate``, ``tls``, ``proxy``,
            ``timeout``, ``cut-off``, ``protocol``, ``network``.
    """

    transient: ClassVar[bool] = True

    def __init__(
        self, message: str = "", *, task_id: str | None = None, reason: str = "network"
    ) -> None:
        super().__init__(message, task_id=task_id)
        self.reason = reason


class ResponseError(KlingOmniError):
    """Raised when an answer came that is not the API's: a web page, a redirect, no JSON.

    Attributes:
        http_status: The HTTP status.
        snippet: At most the first 200 characters of the body.
        location: Where a redirect points, or None. It is never followed.
    """

    transient: ClassVar[bool] = True

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

    def __str__(self) -> str:
        code = "" if self.code is None else f", code {self.code}"
        return f"HTTP {self.http_status}{code}: {self.message or _phrase(self.http_status)}"


class AuthenticationError(ApiError):
    """Raised when the key is not accepted; a key whose own quota has run out looks the same."""


class PermissionDeniedError(ApiError):
    """Raised when the key is known but may not do this."""


class AccountError(ApiError):
    """Raised when the account's balance, quota or plan does not allow it."""


class TaskNotFoundError(ApiError):
    """Raised when the API does not know the id: unknown, expired, or of another account."""


class RateLimitError(ApiError):
    """Raised when the API asks to send fewer requests."""

    transient: ClassVar[bool] = True


class ServerError(ApiError):
    """Raised when the API, or a gateway before it, has trouble of its own."""

    transient: ClassVar[bool] = True


class _TaskError(KlingOmniError):
    """An error that carries the record it is about."""

    def __init__(
        self,
        message: str = "",
        *,
        task_id: str | None = None,
        task: ImageTask | None = None,
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
        last_error: The fault that the last query met, or the refusal that was still to be
            confirmed; None if it was answered well. This tells "the API is down" from "the task
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


def _phrase(http_status: int) -> str:
    """Give the standard words for a status, for an answer that has none of its own."""
    try:
        return HTTPStatus(http_status).phrase
    except ValueError:
        return "no message"


_ErrorT = TypeVar("_ErrorT", bound=KlingOmniError)


def fresh(error: _ErrorT) -> _ErrorT:
    """Give a copy to raise, so that many who wait share no traceback."""
    return copy.copy(error)
