"""What Redis says is wrong, in words for whoever keeps a book there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from redis import exceptions

from kling_omni_async.errors import BookError, WrongLoopError

FAULTS: Final = (exceptions.RedisError, exceptions.RedisClusterException, OSError)

_LONGEST: Final = 300
_WORD: Final = re.compile(
    r"\b(NOPERM|OOM|READONLY|BUSY|MISCONF|NOREPLICAS|MOVED|DAMAGED|WRONGTYPE)\b"
)
_DAMAGE: Final = (
    "holds it no longer whole: somebody has deleted or changed some of its keys; restore all of "
    "them, or delete all of them and add the ids again"
)
_RIGHTS_GONE: Final = ("can't run this command", "can't access at least one of the keys")
_RIGHTS: Final = "refuses a command to this user; grant the rights that the page on fleets names"

# By the word of Redis: what is wrong and what to do, and whether the same call may work later.
_BY_WORD: Final = {
    "NOPERM": (_RIGHTS, False),
    "OOM": ("has no memory left; give it more, or remove what is over", True),
    "READONLY": ("is a replica; ask the primary, which a failover may be changing", True),
    "BUSY": ("is held up by somebody's script; wait, or end that by SCRIPT KILL", True),
    "MISCONF": ("cannot write to its disk and takes no changes; see its log", True),
    "NOREPLICAS": ("has not the replicas that it wants before it takes changes", True),
    "MOVED": ("is a cluster; give a ready redis.asyncio.RedisCluster client", False),
    "DAMAGED": (_DAMAGE, False),
    "WRONGTYPE": (_DAMAGE, False),
}
# By class, the first that fits.
_BY_CLASS: Final[Sequence[tuple[type[Exception], str, bool]]] = (
    (exceptions.AuthenticationError, "does not know this user or password", False),
    (exceptions.AuthorizationError, "does not know this user or password", False),
    (exceptions.NoPermissionError, _RIGHTS, False),
    (exceptions.OutOfMemoryError, *_BY_WORD["OOM"]),
    (exceptions.ReadOnlyError, *_BY_WORD["READONLY"]),
    (exceptions.MovedError, *_BY_WORD["MOVED"]),
    (exceptions.BusyLoadingError, "is starting still, and reads what it has kept", True),
    (exceptions.MasterDownError, "is a replica that does not reach its primary", True),
    (exceptions.ClusterError, "is a cluster that is not whole", True),
    (exceptions.AskError, "is a cluster that moves this book", True),
    (exceptions.TryAgainError, "is a cluster that moves this book", True),
    (exceptions.TimeoutError, "does not answer in time", True),
    (TimeoutError, "does not answer in time", True),
    (exceptions.ConnectionError, "is out of reach", True),
    (OSError, "is out of reach", True),
)


def book_error(error: Exception, place: str) -> BookError:
    """Return the error of a book for one of Redis."""
    said = f"{type(error).__name__}: {str(error)[:_LONGEST]}"
    text, is_transient = _meaning(error, str(error))
    return BookError(
        f"the book {place} cannot be used: Redis {text} ({said})", transient=is_transient
    )


def loop_error(error: RuntimeError, place: str) -> Exception:
    """Return the error for a client that belongs to another event loop, or what was raised."""
    if "loop" not in str(error):
        return error
    return WrongLoopError(
        f"the client of the book {place} is used in another event loop; make one in the loop where "
        "the book is used"
    )


def _meaning(error: Exception, said: str) -> tuple[str, bool]:
    if said.startswith("FORM "):
        return f"holds it in form {said[5:]}, which this version does not know; use theirs", False
    for kind, text, is_transient in _BY_CLASS:
        if isinstance(error, kind):
            return text, is_transient
    if any(words in said for words in _RIGHTS_GONE):
        return _BY_WORD["NOPERM"]
    found = _WORD.search(said)
    return _BY_WORD[found[0]] if found else ("refuses the step", False)
