"""How the program ends, and the one line that says why."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from kling_omni_async import errors


class Exit(IntEnum):
    """The exit codes."""

    OK = 0
    NOT_ALL = 1
    USAGE = 2
    KEY_REFUSED = 3
    INTERRUPTED = 130


class CliError(Exception):
    """Raised when the program cannot go on; its text is one line for the user."""

    def __init__(self, message: str, *, code: Exit) -> None:
        super().__init__(message)
        self.code = code


class UsageError(CliError):
    """Raised when what was asked for makes no sense; nothing was done."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code=Exit.USAGE)


class OutputError(CliError):
    """Raised when results cannot be written."""

    def __init__(self, target: str, error: Exception, *, code: Exit = Exit.NOT_ALL) -> None:
        reason = getattr(error, "strerror", None) or error
        super().__init__(f"cannot write to {target}: {reason}", code=code)


Ending = CliError | errors.KlingOmniError | KeyboardInterrupt


def code_of(error: Ending) -> Exit:
    """Return the exit code for what ended a command."""
    if isinstance(error, CliError):
        return error.code
    if isinstance(error, KeyboardInterrupt):
        return Exit.INTERRUPTED
    if isinstance(error, errors.AuthenticationError):
        return Exit.KEY_REFUSED
    if isinstance(error, errors.ConfigurationError | errors.InvalidTaskIdError):
        return Exit.USAGE
    return Exit.NOT_ALL


# What a library's user writes, and what a user of the command line does.
_IN_OPTIONS: Final = (
    (
        "give KlingOmniSession(api_key=…) or set COMETAPI_KEY",
        "write export COMETAPI_KEY=… in the shell, with the key of your account",
    ),
    ("allow_http=True", "--allow-http"),
    ("base_url ", "--base-url "),
)

_HINTS: Final[dict[type[errors.KlingOmniError], str]] = {
    errors.AccountError: "look at the balance and the plan of your account",
    errors.AuthenticationError: "look at COMETAPI_KEY",
    errors.RateLimitError: "try again later, or with a lower --max-rate",
    errors.ResponseError: "check --base-url or COMETAPI_BASE_URL",
    errors.ServerError: "try again later",
    errors.TaskNotFoundError: (
        "check the id, and that COMETAPI_KEY is of the account that made the task"
    ),
    errors.TransportError: "check the network, the proxy and COMETAPI_BASE_URL",
}


def described(error: Ending) -> str:
    """Return the line that tells what ended a command, and what can be done."""
    hints = [hint for kind, hint in _HINTS.items() if isinstance(error, kind)]
    return "; ".join([in_words(error), *hints])


def in_words(error: Ending) -> str:
    """Return what ended a command, as its user sees it."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    text = str(error)
    if isinstance(error, errors.AuthenticationError):
        text = f"the key is refused: {text}"
    if isinstance(error, errors.ConfigurationError):
        for written, option in _IN_OPTIONS:
            text = text.replace(written, option)
    return text
