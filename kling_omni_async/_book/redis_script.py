"""The script by which Redis makes each step of a book whole, and the keys that it uses."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.resources import files
from typing import Final, cast

from kling_omni_async._policy import MAX_RETRY_AFTER_S
from kling_omni_async._polling.limits import BACKOFF_S

from . import claims
from .contract import FAR, INTENT, MOST_AT_ONCE
from .handing import AGAIN_S
from .memory import ENDS_KEPT, READER_S

FORM: Final = "1"
"""The version of the keys, kept under the key "v" and read in each step."""

KEYS: Final = (
    *("v", "desk", "rows", "outcomes", "notes", "orders"),
    *("new", "due", "unread", "read", "removed"),
    *("ended", "ends", "holds", "wishes", "members", "lessons", "log"),
)
"""The ends of the names of all keys, in the order in which the script gets them."""

LOG: Final = KEYS.index("log")

REPLY_KEPT_S: Final = 3_600
"""How long the reply to the last step of a worker or reader is kept for another sending, in s."""

SCANNED: Final = 1_000
"""How many rows one look of a listing passes, about, so that it holds up nobody else."""

LOG_KEPT: Final = 100
"""How many changes stay in the log that wakes others, about."""

PARTS: Final = ("shelf", "entries", "claims", "handing")
"""The texts of what is known and decided; `steps` after them reads a message and answers it."""

_CONSTANTS: Final[Mapping[str, object]] = {
    "FORM": FORM,
    "FAR": FAR,
    "INTENT": INTENT,
    "MOST": MOST_AT_ONCE,
    "ENDS_KEPT": ENDS_KEPT,
    "READER_S": READER_S,
    "WORKER_S": claims.WORKER_S,
    "HORIZON_S": claims.HORIZON_S,
    "MOST_AHEAD_S": claims.MOST_AHEAD_S,
    "PURGE_S": claims.PURGE_S,
    "PROVED_S": claims.PROVED_S,
    "MEMBER_KEPT_S": claims.MEMBER_KEPT_S,
    "MOST_ACCOUNTS": claims.MOST_ACCOUNTS,
    "LESSONS_KEPT": claims.LESSONS_KEPT,
    "MAX_RETRY_AFTER_S": MAX_RETRY_AFTER_S,
    "BACKOFF_S": BACKOFF_S,
    "AGAIN_S": AGAIN_S,
    "REPLY_KEPT_S": REPLY_KEPT_S,
    "LOG_KEPT": LOG_KEPT,
    "SCANNED": SCANNED,
}

COMMANDS: Final[Mapping[str, tuple[object, ...]]] = {
    "get": (),
    "set": ("1",),
    "del": (),
    "exists": (),
    "hget": ("1",),
    "hset": ("1", "1"),
    "hdel": ("1",),
    "hgetall": (),
    "hscan": ("0",),
    "zadd": ("1", "1"),
    "zrem": ("1",),
    "zrange": ("0", "0"),
    "zrangebyscore": ("0", "0"),
    "zrangebylex": ("-", "+"),
    "zremrangebyrank": ("0", "0"),
    "xadd": ("*", "n", "1"),
    "xrevrange": ("+", "-"),
}
"""What a step does to keys, with arguments behind a key by which each may be tried."""

RIGHTS: Final = ("evalsha", "eval", *COMMANDS, "xread", "time", "info")
"""All commands that a user of Redis needs on the keys of a book, `{kling:NAME}:*`."""


def key_names(name: str) -> list[str]:
    """Return the keys of a book; the braces keep them in one slot of a cluster."""
    return [f"{{kling:{name}}}:{each}" for each in KEYS]


def script_of(*parts: str) -> str:
    """Return a script of some parts: what they share with Python is written here once."""
    constants = [f"local {name} = {_lua(value)}\n" for name, value in _CONSTANTS.items()]
    folder = files(__package__ or __name__) / "lua"
    texts = [(folder / f"{part}.lua").read_text(encoding="utf-8") for part in parts]
    return "".join([*constants, *texts])


def digest_of(script: str) -> str:
    """Return the name by which Redis knows a script."""
    return hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()


def _lua(value: object) -> str:
    if isinstance(value, tuple):
        return f"{{ {', '.join(map(repr, cast('tuple[object, ...]', value)))} }}"
    return repr(value)
