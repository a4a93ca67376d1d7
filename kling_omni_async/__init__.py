"""Brings paid Kling Omni image tasks back from CometAPI: an asyncio polling SDK.

`KlingOmniSession` is where to start; ``README.md`` shows it at work.
"""

from __future__ import annotations

from ._outcome import Progress, TaskOutcome
from ._policy import PollPolicy
from ._records import ImageTask, SavedImage, TaskImage, TaskStatus
from ._session import KlingOmniSession
from ._streams import OutcomeStream, TaskUpdates
from ._version import __version__
from .errors import (
    AccountError,
    ApiError,
    AssetExpiredError,
    AuthenticationError,
    ConfigurationError,
    DownloadError,
    InvalidTaskIdError,
    KlingOmniError,
    NoImagesError,
    PermissionDeniedError,
    PollTimeoutError,
    RateLimitError,
    ResponseError,
    ServerError,
    SessionClosedError,
    StorageError,
    TaskFailedError,
    TaskNotFoundError,
    TransportError,
    WrongLoopError,
)

__all__ = [
    "AccountError",
    "ApiError",
    "AssetExpiredError",
    "AuthenticationError",
    "ConfigurationError",
    "DownloadError",
    "ImageTask",
    "InvalidTaskIdError",
    "KlingOmniError",
    "KlingOmniSession",
    "NoImagesError",
    "OutcomeStream",
    "PermissionDeniedError",
    "PollPolicy",
    "PollTimeoutError",
    "Progress",
    "RateLimitError",
    "ResponseError",
    "SavedImage",
    "ServerError",
    "SessionClosedError",
    "StorageError",
    "TaskFailedError",
    "TaskImage",
    "TaskNotFoundError",
    "TaskOutcome",
    "TaskStatus",
    "TaskUpdates",
    "TransportError",
    "WrongLoopError",
    "__version__",
]
