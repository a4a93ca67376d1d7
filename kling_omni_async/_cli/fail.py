"""Errors that end a command: one line for the user, or all of it with ``--debug``."""

from __future__ import annotations

import traceback

from kling_omni_async.errors import KlingOmniError

from .exit import CliError, Exit, code_of, described
from .terminal import report


def ending(error: Exception | KeyboardInterrupt, *, debug: bool) -> Exit:
    """Tell what ended a command, with its notes, on stderr.

    Args:
        error: What ended it.
        debug: Whether its traceback comes first.

    Returns:
        The exit code.
    """
    text, code = _told(error)
    where = _traceback(error) if debug and not isinstance(error, KeyboardInterrupt) else []
    notes: list[str] = getattr(error, "__notes__", [])
    told = [line for note in notes for line in note.split("\n")]
    report([*where, f"kling-omni: {text}", *told])
    return code


def _told(error: Exception | KeyboardInterrupt) -> tuple[str, Exit]:
    if isinstance(error, CliError | KlingOmniError | KeyboardInterrupt):
        return described(error), code_of(error)
    if isinstance(error, OSError):  # such as a full disk behind the help
        return f"{error.strerror or error}; --debug shows where", Exit.NOT_ALL
    what = f"a defect of this program ({type(error).__name__}: {error})"
    return f"{what}; please report it with what --debug shows", Exit.NOT_ALL


def _traceback(error: BaseException) -> list[str]:
    """Give the traceback line by line; the notes, which may be a million ids, are told apart."""
    shown = traceback.TracebackException.from_exception(error)
    shown.__notes__ = []
    return "".join(shown.format()).splitlines()
