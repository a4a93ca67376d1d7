"""Text for people and pipes: nothing that an API sent can steer a terminal."""

from __future__ import annotations

import errno
import io
import json
import os
import select
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TextIO

from .exit import OutputError
from .signals import waiting

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_BYTES_AT_ONCE = getattr(select, "PIPE_BUF", 512)  # a pipe takes as much whole or not at all
_CHARS_AT_ONCE = _BYTES_AT_ONCE // 4  # in UTF-8
# A signal that comes just before the system call does not end it: Python looks in between.
_GLANCE_S: Final = 0.5
# Columns of what is no terminal: nothing is folded there.
_ENDLESS: Final = 100_000

_CODES: Final = {"good": "32", "bad": "31", "unsure": "33"}


def plain(text: str) -> str:
    """Escape line breaks, control characters and what else does not show."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def json_line(data: Mapping[str, Any]) -> str:
    """Write a dictionary as one line of JSON, all printable ASCII."""
    return json.dumps(data).replace("\x7f", "\\u007f")  # DEL is ASCII to json, and not printable


def note(text: str) -> None:
    """Write a line to stderr."""
    tell([f"kling-omni: {text}"])


def tell(lines: list[str]) -> None:
    """Write lines to stderr."""
    _to_stderr("".join(f"{plain(line)}\n" for line in lines))


def tell_at_end(lines: list[str]) -> None:
    """Write lines to stderr at the end of a run; if nobody reads them, a signal is enough."""
    text = "".join(f"{plain(line)}\n" for line in lines)
    with suppress(KeyboardInterrupt):
        for at in range(0, len(text), _CHARS_AT_ONCE):
            if sys.stderr is not None and not has_room(sys.stderr):
                # Anew: the signal that ended the run came before, and the ids are still owed.
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
    """Write a line to stdout at once."""
    try:
        _write(f"{line}\n")
    except OSError as error:
        raise OutputError("stdout", error) from None


def _write(text: str) -> None:
    """Write past the buffer: what stays in it after an error would be tried again at exit."""
    if sys.stdout is None:
        raise OSError(errno.EBADF, "it is closed")
    data = text.encode(sys.stdout.encoding, "backslashreplace")
    raw: io.RawIOBase | BinaryIO = getattr(sys.stdout.buffer, "raw", sys.stdout.buffer)
    while data:
        # A signal may break off the wait, never the write: half a line would be no outcome.
        with waiting():
            has_room(sys.stdout, timeout=None)
        data = data[raw.write(data[:_BYTES_AT_ONCE]) or 0 :]


def has_room(file: TextIO, *, timeout: float | None = 0.0) -> bool:
    """Wait up to `timeout` s until a write is not held up; what cannot be waited for is ready."""
    with suppress(OSError, ValueError):
        while True:
            ready = select.select((), (file,), (), _GLANCE_S if timeout is None else timeout)[1]
            if ready or timeout is not None:
                return bool(ready)
    return True


def wants_colour(file: TextIO | None, environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether to write colours: ``NO_COLOR`` beats ``FORCE_COLOR``, and that the rest."""
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR"):
        return True
    return is_screen(file, environ)


def is_screen(file: TextIO | None, environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether a stream is a terminal that can move its cursor."""
    return file is not None and file.isatty() and environ.get("TERM", "") != "dumb"


def painted(text: str, style: str, *, colour: bool) -> str:
    """Return a text in the colour of ``good``, ``bad`` or ``unsure``."""
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if colour else text


def make_console(file: TextIO | None, *, colour: bool, width: int | None = None) -> Console:
    """Make rich's console, without a file on stderr; only the width is the environment's."""
    from rich.console import Console  # noqa: PLC0415 - whoever says that it is missing is here too

    return Console(
        file=file,
        stderr=file is None,
        force_terminal=True,
        color_system="standard" if colour else None,
        no_color=not colour,
        legacy_windows=False,
        width=width,
    )


def rendered(what: RenderableType, file: TextIO | None) -> str:
    """Return what rich can draw as text that fits a stream; lines are folded for terminals only."""
    target = io.StringIO()
    width = shutil.get_terminal_size().columns if file and file.isatty() else _ENDLESS
    make_console(target, colour=wants_colour(file), width=width).print(what)
    return "\n".join(line.rstrip() for line in target.getvalue().splitlines())


def draw(what: RenderableType) -> None:
    """Draw on stderr what rich can draw, colours and all."""
    _to_stderr(f"{rendered(what, sys.stderr)}\n")
