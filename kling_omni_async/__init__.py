"""Brings paid Kling Omni image tasks back from CometAPI: an asyncio polling SDK.

`KlingOmniSession` is where to start; ``README.md`` shows it at work.

Each name is imported when it is first used, as the command line has to take signals over before
aiohttp and all the rest are imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import errors as errors
    from ._models import ImageTask, SavedImage, TaskImage, TaskStatus
    from ._outcome import Progress, TaskOutcome
    from ._policy import PollPolicy
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

_HOMES = {
    "ImageTask": "_models",
    "KlingOmniSession": "_session",
    "OutcomeStream": "_streams",
    "PollPolicy": "_policy",
    "Progress": "_outcome",
    "SavedImage": "_models",
    "TaskImage": "_models",
    "TaskOutcome": "_outcome",
    "TaskStatus": "_models",
    "TaskUpdates": "_streams",
    "__version__": "_version",
}
"""The modules of the names; all others are errors."""

if not TYPE_CHECKING:  # pragma: no branch - a type checker would take any name for one of ours

    def __getattr__(name: str) -> object:
        if name == "errors":
            return import_module(f"{__name__}.errors")
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        home = import_module(f"{__name__}.{_HOMES.get(name, 'errors')}")
        value = globals()[name] = getattr(home, name)
        return value

    def __dir__() -> list[str]:
        return sorted({"errors", *__all__, *(name for name in globals() if name[:2] == "__")})
