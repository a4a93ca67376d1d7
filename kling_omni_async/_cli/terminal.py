"""Text for people and pipes: nothing that an API sent can steer a terminal."""

from __future__ import annotations

import asyncio
import codecs
import errno
import io
import json
import os
import re
import select
import shutil
import sys
from collections.abc import Generator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TextIO

from .exit import OutputError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_BYTES_AT_ONCE: Final = getattr(select, "PIPE_BUF", 512)  # a pipe takes as much whole or not at all
# Columns of what is no terminal: nothing is folded there.
_ENDLESS: Final = 100_000

_NARROWEST: Final = 20

_USER_INFO: Final = re.compile(r"(?<=://)[^\s/]*@")

# The name of what writes characters that an encoding has not.
_PLAINLY: Final = "kling_omni_async.plainly"
_DRAWN: Final = {
    **dict.fromkeys("─━╸╺╴╶", "-"),
    **dict.fromkeys("│┃", "|"),
    **dict.fromkeys("╭╮╰╯┌┐└┘├┤┬┴┼", "+"),
    "…": "...",
    "·": "|",
}

_CODES: Final = {"good": "32", "bad": "31", "unsure": "33"}


def without_passwords(text: str) -> str:
    """Return a text whose URLs have no user info, which may hold a password."""
    return _USER_INFO.sub("…@", text)


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


def _to_stderr(text: str) -> None:
    """Write to stderr; if that does not work, nobody can be told so."""
    if sys.stderr is not None:
        with suppress(OSError):
            sys.stderr.write(text)
            sys.stderr.flush()


def out(line: str) -> None:
    """Write a line to stdout at once."""
    for _ in _pieces_out(line):
        pass


async def out_as_read(line: str) -> None:
    """Write a line to stdout as fast as it is read there; the loop goes on meanwhile."""
    for _ in _pieces_out(line):
        await room_in(sys.stdout)


def _pieces_out(line: str) -> Generator[None]:
    """Write a line to stdout, each piece after a step; none is held up where there is room."""
    try:
        stdout = _open_stdout()
        data = f"{line}\n".encode(stdout.encoding, _PLAINLY)
        # Past the buffer: what stays in it after an error would be tried again at exit.
        raw: io.RawIOBase | BinaryIO = getattr(stdout.buffer, "raw", stdout.buffer)
        while data:
            yield
            data = data[raw.write(data[:_BYTES_AT_ONCE]) or 0 :]
    except OSError as error:
        raise OutputError("stdout", error) from None


def _open_stdout() -> TextIO:
    if sys.stdout is None:
        raise OSError(errno.EBADF, "it is closed")
    return sys.stdout


def has_room(file: TextIO) -> bool:
    """Return whether a write is not held up; what cannot be asked takes everything."""
    try:
        return bool(select.select((), (file,), (), 0)[1])
    except (OSError, ValueError):
        return True


async def room_in(file: TextIO | None) -> None:
    """Wait until a write is not held up, by a reader of a pipe for instance."""
    if file is None or has_room(file):
        return
    loop, free = asyncio.get_running_loop(), asyncio.Event()
    loop.add_writer(file, free.set)
    try:
        await free.wait()
    finally:
        loop.remove_writer(file)


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

    console = Console(
        file=file,
        stderr=file is None,
        force_terminal=True,
        color_system="standard" if colour else None,
        no_color=not colour,
        legacy_windows=False,
        width=width,
    )
    # Help is folded for ever where not even one letter has room, as with COLUMNS=0.
    console.width = max(console.width, _NARROWEST)
    return console


def rendered(what: RenderableType, file: TextIO | None) -> str:
    """Return what rich can draw as text that fits a stream; lines are folded for terminals only."""
    target = io.StringIO()
    width = shutil.get_terminal_size().columns if file and file.isatty() else _ENDLESS
    make_console(target, colour=wants_colour(file), width=width).print(what)
    return "\n".join(line.rstrip() for line in target.getvalue().splitlines())


def draw(what: RenderableType) -> None:
    """Draw on stderr what rich can draw, colours and all."""
    _to_stderr(f"{rendered(what, sys.stderr)}\n")


def draw_plainly() -> None:
    """Let both streams take what their encoding has not: drawings in ASCII, all else escaped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_PLAINLY)


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    piece = error.object[error.start : error.end]
    return "".join(map(_ascii_of, piece)), error.end


def _ascii_of(char: str) -> str:
    return _DRAWN.get(char) or char.encode("ascii", "backslashreplace").decode()


codecs.register_error(_PLAINLY, _in_ascii)
