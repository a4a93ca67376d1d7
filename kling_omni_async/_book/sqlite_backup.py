"""A copy of a book while it is used, by SQLite's own means: of one moment, and never half."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from kling_omni_async.errors import BookError

from .sqlite_opening import BUSY_S, uri

_AT_ONCE: Final = -1
"""All pages in one step: what others write meanwhile does not make it begin anew."""


def back_up(book: Path, copy: Path) -> None:
    """Copy a book to a path where nothing is.

    Raises:
        BookError: There is something, or it cannot be written; nothing is left there.
    """
    part = copy.with_name(f"{copy.name}.{os.getpid()}.part")
    try:
        _require_absent(copy)
        _copy(book, part)
        _rename(part, copy)
    except (OSError, sqlite3.Error) as error:
        raise BookError(f"no backup of the book {book} was made at {copy}: {error}") from None
    finally:
        part.unlink(missing_ok=True)


def _require_absent(copy: Path) -> None:
    if copy.exists():
        raise FileExistsError("there is a file already; move it away, or give another path")


def _copy(book: Path, part: Path) -> None:
    with (
        closing(sqlite3.connect(uri(book, "mode=ro"), timeout=BUSY_S, uri=True)) as source,
        closing(sqlite3.connect(part, timeout=BUSY_S)) as target,
    ):
        source.backup(target, pages=_AT_ONCE)


def _rename(part: Path, copy: Path) -> None:
    try:
        os.link(part, copy)  # unlike a rename, it never takes the place of another file
    except FileExistsError:
        raise
    except OSError:  # such as on a stick with FAT
        _require_absent(copy)
        part.rename(copy)
