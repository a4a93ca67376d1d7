"""Files of task ids: one a line, with blank lines and comments."""

from __future__ import annotations

import errno
import re
import sys
from typing import IO

from .exit import UsageError
from .signals import waiting

_CHUNK = 1 << 20
_COMMENT = re.compile(r"(?:^|\s)#.*")


def read_ids(source: str) -> list[str]:
    """Read the ids of a file, in order and with their repeats.

    Args:
        source: A path, or ``-`` for stdin.

    Raises:
        UsageError: It cannot be read, or is no text.
    """
    try:
        with waiting():
            data = _read(source)
    except OSError as error:
        raise UsageError(f"cannot read ids from {source}: {error.strerror or error}") from None
    if data is None:
        raise UsageError(f"cannot read ids from {source}: not a text file in UTF-8")
    return _ids_in(data)


def _ids_in(text: str) -> list[str]:
    lines = (_COMMENT.sub("", line).strip() for line in text.split("\n"))
    return [line for line in lines if line]


def _read(source: str) -> str | None:
    if source == "-":
        if sys.stdin is None:
            raise OSError(errno.EBADF, "stdin is closed")
        return _text(sys.stdin.buffer)
    with open(source, "rb") as file:  # noqa: PTH123 - /dev/stdin and the like need no Path
        return _text(file)


def _text(file: IO[bytes]) -> str | None:
    """Read a text; None for a binary file, of which little is read: it may be endless."""
    chunks: list[bytes] = []
    while chunk := file.read(_CHUNK):
        if b"\0" in chunk:
            return None
        chunks.append(chunk)
    try:
        return b"".join(chunks).decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
