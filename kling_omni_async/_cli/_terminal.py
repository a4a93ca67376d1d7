"""Text for people and pipes: nothing that an API sent can steer a terminal."""

from __future__ import annotations

import errno
import json
import select
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Protocol, TextIO

from ._exit import OutputError
from ._signals import waiting

_AT_ONCE = getattr(select, "PIPE_BUF", 512)  # a pipe takes as much whole or not at all


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
    """Write lines to stderr; if that does not work, nobody can be told so."""
    if sys.stderr is not None:
        with suppress(OSError):
            sys.stderr.write("".join(f"{plain(line)}\n" for line in lines))
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
        _wait_for_room(sys.stdout)
        data = data[raw.write(data[:_AT_ONCE]) or 0 :]


def _wait_for_room(file: TextIO) -> None:
    """Let a signal break off the wait for a reader, but never a write."""
    with waiting(), suppress(OSError, ValueError):  # some things cannot be waited for
        select.select((), (file,), ())
