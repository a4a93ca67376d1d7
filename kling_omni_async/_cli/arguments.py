"""The words behind the program's name, before they are read as options."""

from __future__ import annotations

from typing import Final

from .units import is_interval

_INTERVAL: Final = "--interval"
_END: Final = "--"


def parted(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Part arguments into those that may be options and, from ``--`` on, those that are ids."""
    at = arguments.index(_END) if _END in arguments else len(arguments)
    return arguments[:at], arguments[at:]


def with_intervals_joined(arguments: list[str]) -> list[str]:
    """Take ``--interval 20s 30s`` as ``--interval 20s-30s``."""
    joined: list[str] = []
    for word in arguments:
        if joined[-2:-1] == [_INTERVAL] and not is_interval(joined[-1]) and word[:1] != "-":
            joined[-1] += f"-{word}"
        else:
            joined.append(word)
    return joined
