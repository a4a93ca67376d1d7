"""Task ids: opaque text that becomes exactly one segment of a path."""

from __future__ import annotations

import re
from urllib.parse import quote

from .errors import InvalidTaskIdError

MAX_ID_LENGTH = 512
"""Far above real ids: 18 digits, base64-like text, or ``task_`` and 32 characters (seen)."""

WHITE_SPACE = (  # all of it, and the byte order mark
    "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006"
    "\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"
)

_PLAIN = re.compile(rf"[A-Za-z0-9_=+-]{{1,{MAX_ID_LENGTH}}}")
_DOT_SEGMENT = re.compile(r"(?:^|[/\\])\.{1,2}(?:[/\\]|$)")


def _fault_of(task_id: str) -> str | None:
    """Say what is wrong with an id and what to write instead, or None if nothing is."""
    if not task_id.strip():
        return "is empty; give the task_id of the create answer"
    if len(task_id) > MAX_ID_LENGTH:
        return f"has {len(task_id)} characters; a task id has at most {MAX_ID_LENGTH}"
    if "://" in task_id or "?" in task_id or "#" in task_id:
        return "looks like a URL; give the bare task_id"
    if " " in task_id or not task_id.isprintable():
        return "holds white space or control characters; give it without them"
    if _DOT_SEGMENT.search(task_id):
        return "holds '.' or '..' as a path segment, which would leave the route"
    return None


def quoted(task_id: object, *, limit: int = 60) -> str:
    """Return the repr of an id, cut to a length that fits a message."""
    if not isinstance(task_id, str):
        return _repr(task_id)[:limit]
    return ascii(task_id[:limit]) + ("…" if len(task_id) > limit else "")


def _repr(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - such as an int of more digits than Python writes
        return "…"


def trimmed(task_id: str) -> str:
    """Return an id without the white space and the byte order mark that lines of files have."""
    return task_id if task_id.isalnum() else task_id.strip(WHITE_SPACE)


def describe(given: object) -> str:
    """Return the name of what is no text; no id that can be sent looks like it."""
    return f"{quoted(given)} ({type(given).__name__})"


def not_text(given: object, task_id: str | None = None) -> InvalidTaskIdError:
    """Return the error for what is no text, and under which name it comes out of a stream."""
    text = f"a task id is text, not {type(given).__name__}: {_hint(given)}"
    return InvalidTaskIdError(text, task_id=task_id)


def _hint(task_id: object) -> str:
    if isinstance(task_id, int):
        return f"write str({quoted(task_id)}) if that is the id"
    if isinstance(task_id, bytes):
        return f"write {quoted(task_id)}.decode() if that is the id"
    return "give the task_id of the create answer"


def id_fault(task_id: str) -> InvalidTaskIdError | None:
    """Return the error for an id that cannot be sent, or None for a good one."""
    if _PLAIN.fullmatch(task_id):
        return None
    if (fault := _fault_of(task_id)) is None:
        return None
    return InvalidTaskIdError(f"task id {quoted(task_id)} {fault}", task_id=task_id)


def read_id(given: object) -> tuple[str, InvalidTaskIdError | None]:
    """Return what an input gave as the id under which it comes out, and what is wrong with it."""
    if type(given) is not str:
        if not issubclass(type(given), str):  # `isinstance` believes what an object says of itself
            name = describe(given)
            return name, not_text(given, name)
        # A subclass may hash, compare and format as it likes.
        given = str.__str__(given)  # pyright: ignore[reportArgumentType]
    if given.isalnum() and given.isascii() and len(given) <= MAX_ID_LENGTH:
        return given, None  # nearly all of them, at a quarter of the price
    task_id = trimmed(given)
    return task_id, id_fault(task_id)


def require_id(task_id: object) -> str:
    """Return the id, trimmed, if it can be sent; raise `InvalidTaskIdError` otherwise."""
    if not issubclass(type(task_id), str):
        raise not_text(task_id)
    text, fault = read_id(task_id)
    if fault is not None:
        raise fault
    return text


def path_segment(task_id: str) -> str:
    """Percent-encode an id as one path segment; ``/`` is met in base64-like ids."""
    return quote(task_id, safe="")
