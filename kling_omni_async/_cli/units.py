"""Times, sizes and counts: as people write them (``1h30m``, ``1MiB``) and as they read them.

What cannot be read raises ValueError.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Final, TypeVar

T = TypeVar("T")

_NUMBER: Final = r"(?:\d+(?:\.\d*)?|\.\d+)"
_PLAIN: Final = re.compile(rf"{_NUMBER}(?:[eE][+-]?\d{{1,3}})?", re.ASCII)
_TIME: Final = re.compile(
    rf"(?:(?P<d>{_NUMBER})d)?(?:(?P<h>{_NUMBER})h)?(?:(?P<m>{_NUMBER})m(?!s))?"
    rf"(?:(?P<s>{_NUMBER})s)?(?:(?P<ms>{_NUMBER})ms)?",
    re.ASCII,
)
_SIZE: Final = re.compile(rf"({_NUMBER}) ?([kMG]i?B|KiB|B)?", re.ASCII)
_RANGE: Final = re.compile(r"([^-]+)-([^-]+)")

# The greatest first, as they are written; `format_time` divides by them in this order.
_MS: Final = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
# Of a size that both kinds of unit divide the binary one is shown, so they stand first.
_BYTES: Final = {
    "GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10, "kiB": 1 << 10,
    "GB": 10**9, "MB": 10**6, "kB": 1000, "B": 1,
}  # fmt: skip
_NOTHING: Final = frozenset({"none", "never"})
_SIXTY: Final = 60
_THOUSAND: Final = 1000
# In characters. Nobody needs more, and a text without end is not calculated with.
_LONGEST: Final = 40


def parse_time(text: str) -> float:
    """Read a time as s: ``1h30m``, ``20s``, ``500ms``; a plain number is s."""
    match = _TIME.fullmatch(text) if 0 < len(text) <= _LONGEST else None
    if match is None:
        return parse_number(text)
    parts = (Decimal(value) * _MS[unit] for unit, value in match.groupdict().items() if value)
    return float(sum(parts, Decimal()) / 1000)


def parse_size(text: str) -> int:
    """Read a size as bytes: ``1MiB``, ``100MB``, ``1.5GB``; a plain number is bytes."""
    match = _SIZE.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None:
        raise ValueError(text)
    return int(Decimal(match[1]) * _BYTES[match[2] or "B"])


def parse_interval(text: str) -> tuple[float, float]:
    """Read two times with a hyphen between, such as ``20s-30s``, as s."""
    match = _RANGE.fullmatch(text)
    if match is None:
        raise ValueError(text)
    return parse_time(match[1]), parse_time(match[2])


def is_interval(text: str) -> bool:
    """Return whether a text is made like two times with a hyphen between."""
    return _RANGE.fullmatch(text) is not None


def parse_number(text: str) -> float:
    """Read a number from 0 on."""
    value = float(text) if len(text) <= _LONGEST and _PLAIN.fullmatch(text) else math.inf
    if value == math.inf:
        raise ValueError(text)
    return value


def parse_count(text: str) -> int:
    """Read a whole number."""
    if len(text) > _LONGEST or not (text.isascii() and text.isdigit()):
        raise ValueError(text)
    return int(text)


def parse_names(text: str) -> tuple[str, ...]:
    """Read names with commas between them."""
    return tuple(name.strip() for name in text.split(","))


def or_none(parse: Callable[[str], T]) -> Callable[[str], T | None]:
    """Return a reader that reads ``none`` and ``never`` as None."""
    return lambda text: None if text in _NOTHING else parse(text)


def format_time(value: float | None) -> str:
    """Write a time in s as it can be read again, to a thousandth of a second."""
    if value is None:
        return "never"
    rest = round(value * 1000)
    parts: list[str] = []
    for unit, milliseconds in _MS.items():
        whole, rest = divmod(rest, milliseconds)
        parts += [f"{whole}{unit}"] if whole else []
    return "".join(parts) or "0s"


def format_size(value: int) -> str:
    """Write a size in bytes as it can be read again, in the greatest unit that goes into it."""
    unit = next(unit for unit, factor in _BYTES.items() if value % factor == 0)
    return f"{value // _BYTES[unit]}{unit}"


def human_time(seconds: float) -> str:
    """Write a time for people: one unit or two, never sixty of one."""
    # Rounded before it is compared: 59.96 s are a minute, not 60.0 s.
    tenths = round(seconds, 1)
    if tenths < _SIXTY:
        return f"{tenths:g} s"
    minutes, rest = divmod(round(seconds), _SIXTY)
    if minutes < _SIXTY:
        return f"{minutes} min {rest} s"
    return f"{minutes // _SIXTY} h {minutes % _SIXTY} min"


def human_size(count: int) -> str:
    """Write a number of bytes for people, in the unit that keeps it short."""
    if count < _THOUSAND:
        return f"{count} B"
    amount = Decimal(count)
    for unit in ("kB", "MB", "GB"):
        amount = amount / _THOUSAND
        # Rounded before it is compared: 999,960 bytes are 1.0 MB, not 1000.0 kB.
        if round(amount, 1) < _THOUSAND:
            return f"{amount:.1f} {unit}"
    return f"{amount / _THOUSAND:,.1f} TB"


def human_number(value: Decimal) -> str:
    """Write a decimal without an exponent and without zeros that say nothing."""
    digits = f"{value:f}"  # never 1E+2
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def plural(count: int, word: str, words: str) -> str:
    """Write a count with its word."""
    return f"{count:,} {word if count == 1 else words}"
