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
_PART: Final = re.compile(rf"({_NUMBER}) ?([a-z]+) ?", re.ASCII)
_RANGE: Final = re.compile(r"([^-]+)-([^-]+)")

# The greatest first, as they are written; `format_time` divides by them in this order.
_MS: Final = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_NAMES_OF: Final = {
    "d": ("day", "days"),
    "h": ("hr", "hrs", "hour", "hours"),
    "m": ("min", "mins", "minute", "minutes"),
    "s": ("sec", "secs", "second", "seconds"),
    "ms": ("msec", "msecs", "millisecond", "milliseconds"),
}
_MS_BY_NAME: Final = _MS | {name: _MS[unit] for unit, names in _NAMES_OF.items() for name in names}
# Of a size that both kinds of unit divide the binary one is shown, so they stand first.
_BYTES: Final = {
    "TiB": 1 << 40, "GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10,
    "TB": 10**12, "GB": 10**9, "MB": 10**6, "kB": 1000, "B": 1,
}  # fmt: skip
_BYTES_BY_NAME: Final = {
    **{unit.lower(): factor for unit, factor in _BYTES.items()},
    **dict.fromkeys(("byte", "bytes"), 1),
}
_NOTHING: Final = frozenset({"none", "never"})
_SIXTY: Final = 60
_THOUSAND: Final = 1000
_DAY_S: Final = 86_400
# In characters. Nobody needs more, and a text without end is not calculated with.
_LONGEST: Final = 40


def parse_time(text: str) -> float:
    """Read a time as s: ``1h30m``, ``20s``, ``500ms``, ``30 min``; a plain number is s."""
    parts = _parts(text)
    if not parts:
        return parse_number(text)
    factors = [_MS_BY_NAME.get(unit, 0) for _, unit in parts]
    # The greatest unit first, and each once.
    if 0 in factors or sorted({*factors}, reverse=True) != factors:
        raise ValueError(text)
    counts = (number * factor for (number, _), factor in zip(parts, factors, strict=True))
    return float(sum(counts, Decimal()) / 1000)


def parse_size(text: str) -> int:
    """Read a size as bytes: ``1MiB``, ``100MB``, ``1.5 gb``; a plain number is bytes."""
    match _parts(text):
        case [(number, unit)] if unit in _BYTES_BY_NAME:
            return int(number * _BYTES_BY_NAME[unit])
        case _ if len(text) <= _LONGEST and re.fullmatch(_NUMBER, text, re.ASCII):
            return int(Decimal(text))
        case _:
            raise ValueError(text)


def _parts(text: str) -> list[tuple[Decimal, str]]:
    """Return the numbers and units that a text is made of; empty if it is made otherwise."""
    parts: list[tuple[Decimal, str]] = []
    at, low = 0, text.lower() if text.isascii() and len(text) <= _LONGEST else ""
    while match := _PART.match(low, at):
        parts.append((Decimal(match[1]), match[2]))
        at = match.end()
    return parts if at == len(low) else []


def parse_interval(text: str) -> tuple[float, float]:
    """Read two times as s, such as ``20s-30s`` or ``20-30min``; a single one is both."""
    match = _RANGE.fullmatch(text)
    if match is None:
        return parse_time(text), parse_time(text)
    low, high = match[1].strip(), match[2].strip()
    # Of `20-30min` both are minutes.
    unit = "".join(unit for _, unit in _parts(high)[-1:]) if _PLAIN.fullmatch(low) else ""
    return parse_time(f"{low}{unit}"), parse_time(high)


def joined(words: list[str], *, two_times: bool) -> str:
    """Take the words off a list that are one value, such as ``100 MB``, and return them as one.

    With `two_times` also ``20s 30s``, and that is ``20s-30s``.
    """
    value = _with_unit(words)
    if two_times and is_time(value) and words and _is_second_time(words):
        value = f"{value}-{_with_unit(words)}"
    return value


def _with_unit(words: list[str]) -> str:
    word = words.pop(0)
    if words and _PLAIN.fullmatch(word) and _is_unit(words[0]):
        word = f"{word} {words.pop(0)}"
    return word


def _is_unit(word: str) -> bool:
    return word.lower() in _MS_BY_NAME.keys() | _BYTES_BY_NAME.keys()


def _is_second_time(words: list[str]) -> bool:
    """Return whether a time begins a list; a number beyond a day is an id."""
    word = _with_unit(words[:2])
    return is_time(word) and (bool(_parts(word)) or parse_number(word) <= _DAY_S)


def is_time(text: str) -> bool:
    """Return whether a text can be read as one time."""
    try:
        parse_time(text)
    except ValueError:
        return False
    return True


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
    digits = f"{value:,f}"  # never 1E+2
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def plural(count: int, word: str, words: str) -> str:
    """Write a count with its word."""
    return f"{count:,} {word if count == 1 else words}"
