"""From prompts to stored Kling Omni images of CometAPI: an asyncio polling SDK.

`KlingOmniSession` is where to start; ``README.md`` shows it at work.

Each name is imported when it is first used, as the command line has to take signals over before
aiohttp and all the rest are imported.
"""

# ruff: noqa: F403, F405 - a list in `errors` says which names the star stands for

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import errors as errors
    from ._api.callbacks import CallbackHint, read_callback
    from ._book.book import TaskBook
    from ._book.records import BookEntry, BookProgress
    from ._models import ImageTask, SavedImage, TaskImage, TaskStatus
    from ._order import ImageOrder
    from ._outcome import Progress, TaskOutcome
    from ._policy import PollPolicy
    from ._session import KlingOmniSession
    from ._stats import SessionStats
    from ._streams import OutcomeStream, TaskUpdates
    from ._version import __version__
    from .errors import *

__all__ = [
    "AccountError",
    "ApiError",
    "AssetExpiredError",
    "AuthenticationError",
    "BookEntry",
    "BookError",
    "BookProgress",
    "CallbackHint",
    "ConfigurationError",
    "CreateUncertainError",
    "DownloadError",
    "DuplicateOrderError",
    "ImageOrder",
    "ImageTask",
    "InvalidTaskIdError",
    "KlingOmniError",
    "KlingOmniSession",
    "NoImagesError",
    "NotInBookError",
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
    "SessionStats",
    "StorageError",
    "TaskBook",
    "TaskFailedError",
    "TaskImage",
    "TaskNotFoundError",
    "TaskOutcome",
    "TaskStatus",
    "TaskUpdates",
    "TransportError",
    "WrongLoopError",
    "__version__",
    "read_callback",
]

_HOMES = (
    *("_version", "errors", "_models", "_policy", "_order", "_outcome", "_stats"),
    *("_api.callbacks", "_book.records", "_streams", "_session", "_book.book"),
)
"""Where the names are looked for, in this order, as the later ones import more."""

if not TYPE_CHECKING:  # pragma: no branch - a type checker would take any name for one of ours

    def __getattr__(name: str) -> object:
        if name == "errors":
            return import_module(f"{__name__}.errors")
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        homes = (import_module(f"{__name__}.{home}") for home in _HOMES)
        value = globals()[name] = next(getattr(home, name) for home in homes if hasattr(home, name))
        return value

    def __dir__() -> list[str]:
        return sorted({"errors", *__all__, *(name for name in globals() if name[:2] == "__")})
