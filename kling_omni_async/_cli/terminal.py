"""Text for people and pipes: nothing that an API sent can steer a terminal."""

from __future__ import annotations

import errno
import json
import select
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Protocol, TextIO

from .exit import OutputError
from .signals import waiting

_BYTES_AT_ONCE = getattr(select, "PIPE_BUF", 512)  # a pipe takes as much whole or not at all
_CHARS_AT_ONCE = _BYTES_AT_ONCE // 4  # in UTF-8
_GLANCE_S = 0.5
"""A signal that comes just before the system call does not end it: Python looks in between."""


class _Raw(Protocol):
    def write(self, data: bytes, /) -> int | None: ...


def plain(text: str) -> str:
    """Escape line breaks, control characters and what else does not show."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def json_line(data: Mapping[str, Any]) -> str:
    """Give a dictionary as one line of JSON, all printable ASCII."""
    return json.dumps(data).replace("\x7f", "\\u007f")


def note(text: str) -> None:
    """Write a line to stderr."""
    tell([f"kling-omni: {text}"])


def tell(lines: list[str]) -> None:
    """Write lines to stderr."""
    _to_stderr("".join(f"{plain(line)}\n" for line in lines))


def tell_drawn(text: str) -> None:
    """Write to stderr what was drawn already, colours and all."""
    _to_stderr(f"{text}\n")


def report(lines: list[str]) -> None:
    """Write lines to stderr at the end of a run; if nobody reads them, a signal is enough."""
    text = "".join(f"{plain(line)}\n" for line in lines)
    with suppress(KeyboardInterrupt):
        for at in range(0, len(text), _CHARS_AT_ONCE):
            if sys.stderr is not None and not has_room(sys.stderr):
                with waiting(anew=True):
                    has_room(sys.stderr, timeout=None)
            _to_stderr(text[at : at + _CHARS_AT_ONCE])


def _to_stderr(text: str) -> None:
    """Write to stderr; if that does not work, nobody can be told so."""
    if sys.stderr is not None:
        with suppress(OSError):
            sys.stderr.write(text)
            sys.stderr.flush()


def out(line: str) -> None:
    """Write a line to stdout at once.

    Raises:
        OutputError: It cannot be written.
    """
    try:
        _write(f"{line}\n")
    except OSError as error:
        raise OutputError("stdout", error) from None


def _write(text: str) -> None:
    """Write past the buffer: what stays in it after an error would be tried again at exit."""
    if sys.stdout is None:
        raise OSError(errno.EBADF, "it is closed")
    data = text.encode(sys.stdout.encoding, "backslashreplace")
    raw: _Raw = getattr(sys.stdout.buffer, "raw", sys.stdout.buffer)
    while data:
        with waiting():
            has_room(sys.stdout, timeout=None)
        data = data[raw.write(data[:_BYTES_AT_ONCE]) or 0 :]


def has_room(file: TextIO, *, timeout: float | None = 0.0) -> bool:
    """Wait until a write is not held up; what cannot be waited for counts as ready.

    Args:
        file: What is to be written to.
        timeout: The longest wait in s; None for no end.
    """
    with suppress(OSError, ValueError):
        while True:
            ready = select.select((), (file,), (), _GLANCE_S if timeout is None else timeout)[1]
            if ready or timeout is not None:
                return bool(ready)
    return True
