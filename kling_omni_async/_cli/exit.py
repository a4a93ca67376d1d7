"""How the program ends, and the one line that says why."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final

from kling_omni_async import errors
from kling_omni_async._config import BASE_URL_VARIABLE, KEY_VARIABLE, Names
from kling_omni_async._hints import Hint


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


IN_OPTIONS: Final = Names(
    base_url="--base-url",
    give_key=f"write export {KEY_VARIABLE}=… in the shell, with the key of your account",
    allow_http="--allow-http",
)

_BASE_URL: Final = f"--base-url or {BASE_URL_VARIABLE}"
_HINTS: Final[Mapping[str, str]] = {
    Hint.BASE_URL: f"check {_BASE_URL}",
    Hint.CONNECTION: f"check {_BASE_URL}, the network and the proxy",
    Hint.PORT: f"check {_BASE_URL}: something else may be behind a wrong port",
    Hint.CERTIFICATE: f"check {_BASE_URL}, the clock and the certificates of this machine",
    Hint.TASK_ID: f"check the id, and that {KEY_VARIABLE} is of the account that made the task",
    Hint.OVERWRITE: "move it away, or give --overwrite",
    Hint.ALLOW_HOSTS: "if you trust it, add it to --allow-hosts",
    Hint.IMAGE_BYTES: "--max-image-bytes allows no more",
}

# The library itself tries again, so it has no words for these.
_PASSING: Final[Mapping[type[errors.KlingOmniError], str]] = {
    errors.RateLimitError: "try again later, or with a lower --max-rate",
    errors.ServerError: "try again later",
}


def described(error: Ending) -> str:
    """Return the line that tells what ended a command, and what can be done."""
    hint = hint_of(error) if isinstance(error, errors.KlingOmniError) else ""
    return f"{in_words(error)}; {hint}" if hint else in_words(error)


def hint_of(error: errors.KlingOmniError) -> str:
    """Return what can be done, in the words of the command line; empty where nothing can."""
    return _HINTS.get(error.hint, error.hint) or _PASSING.get(type(error), "")


def in_words(error: Ending) -> str:
    """Return what ended a command, as its user sees it."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    text = error.what if isinstance(error, errors.KlingOmniError) else str(error)
    return f"the key is refused: {text}" if isinstance(error, errors.AuthenticationError) else text
