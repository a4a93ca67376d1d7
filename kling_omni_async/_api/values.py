"""What strangers send, as plain values: JSON, the single values of the wire, and the key echoed.

What is no JSON is `NOT_JSON`; what is no text, number, date or URL reads as None. Nothing raises.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from json.scanner import make_scanner
from typing import Any, Final

from kling_omni_async._ids import WHITE_SPACE
from kling_omni_async._models import TaskImage

MAX_DEPTH = 64
"""Levels of brackets; a real answer has 8."""

NOT_FOUND_WORD = "task_not_exist"
SECONDS_BELOW = 1e11
"""A time below this is in seconds, not ms; other routes of the API do that (seen)."""

_UNITS = (str, int, float)  # a union is made anew each time
_LONGEST_INT_BITS = 128  # Python refuses to write very long numbers
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)  # times a number it costs half as much as made of one
_NUMBER = re.compile(r"[+-]?(?:\d{1,40}(?:\.\d{0,40})?|\.\d{1,40})(?:[eE][+-]?\d{1,3})?", re.ASCII)
_REQUEST_ID_AT_END = re.compile(r"\(request id:\s*([^()\s]{1,128})\s*\)\W*$", re.IGNORECASE)

# JSON.

NOT_JSON: Final = object()
"""The value of a body that is none."""


def parse(body: bytes) -> tuple[Any, bool]:
    """Return the first JSON document of a body, or `NOT_JSON`, and whether there is more behind.

    Some gateways write two objects into one body (source); the first is the one they meant. Bytes
    that are no UTF-8 become U+FFFD; a number that is none, or that Python could not write again,
    reads as None.
    """
    # Not by "utf-8-sig": Python imports that codec at its first use, and cannot when this process
    # has no file descriptor left.
    read = body.decode(errors="replace").removeprefix("\ufeff").strip(" \t\r\n")
    try:
        value, end = _scanned(read)
        if body.count(b"[") + body.count(b"{") > MAX_DEPTH:
            _require_shallow(value)
    except (ValueError, StopIteration, RecursionError):
        return NOT_JSON, False
    more = end < len(read)
    if more and type(value) is not dict:  # "404 page not found" is text, not the number 404
        return NOT_JSON, False
    if value is None and read[0] != "n":  # a bare NaN
        return NOT_JSON, False
    return value, more  # pyright: ignore[reportUnknownVariableType]


def _scanned(text: str) -> tuple[Any, int]:
    try:
        return _scan(text, 0)
    except json.JSONDecodeError:
        raise
    except ValueError:  # an integer of more digits than Python reads
        return _scan_any_integer(text, 0)


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _short(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


def _nothing(_name: str) -> None:
    """Read NaN and its like."""


# Python's own, at a bounded depth: nothing further down has to survive what a hostile server nests.
# A faster one would spare some 2 % of a query, and cost a dependency.
_DECODER: Any = json.JSONDecoder(parse_float=_finite, parse_constant=_nothing)
_ANY_INTEGER: Any = json.JSONDecoder(parse_float=_finite, parse_constant=_nothing, parse_int=_short)
_scan: Callable[[str, int], tuple[Any, int]] = make_scanner(_DECODER)
_scan_any_integer: Callable[[str, int], tuple[Any, int]] = make_scanner(_ANY_INTEGER)
"""Slower, as C then asks Python for each integer."""


def an_object(value: object) -> dict[str, Any]:
    """Return a JSON object as it is, and an empty one for anything else."""
    return value if isinstance(value, dict) else {}  # pyright: ignore[reportUnknownVariableType]


def an_array(value: object) -> list[Any]:
    """Return a JSON array as it is, and an empty one for anything else."""
    return value if isinstance(value, list) else []  # pyright: ignore[reportUnknownVariableType]


def _require_shallow(value: Any) -> None:
    """Refuse what later steps, such as pickling, could not walk."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in _children(node)]
        if not level:
            return
    raise ValueError


def _children(node: Any) -> list[Any]:
    children = (*an_object(node).values(), *an_array(node))
    return [child for child in children if isinstance(child, dict | list)]


# Single values.


def text(value: object) -> str | None:
    """Return text that is not blank, its lone surrogates replaced, else None."""
    if not isinstance(value, str) or not value or value.isspace():
        return None
    if value.isascii():
        return value
    return value.encode(errors="replace").decode()


def instant(value: object) -> datetime | None:
    """Read ms (or seconds) since the epoch as a UTC time."""
    number = value if type(value) is int else _number(value)
    if number is None or number <= 0:
        return None
    ms = number * 1000 if number < SECONDS_BELOW else number
    try:
        return _EPOCH + _MS * ms
    except OverflowError:
        return None


def _number(value: object) -> int | float | None:
    if isinstance(value, str):
        digits = value.strip()
        return int(digits) if re.fullmatch(r"\d{1,20}", digits, re.ASCII) else None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def units(value: object) -> Decimal | None:
    """Read a decimal that comes as a string, now and then as a number."""
    if isinstance(value, bool) or not isinstance(value, _UNITS):
        return None
    if isinstance(value, int) and value.bit_length() > _LONGEST_INT_BITS:
        return None
    digits = str(value).strip()
    return Decimal(digits) if _NUMBER.fullmatch(digits) else None


def request_id(envelope: Mapping[str, Any]) -> str | None:
    """Return the body's name for the request: a UUID, 18 digits or a short token."""
    return name(envelope.get("request_id"))


def name(value: object) -> str | None:
    """Return what names something, which some gateways write as a number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if value.bit_length() <= _LONGEST_INT_BITS else None
    return text(value)


def request_id_in(message: str) -> str | None:
    """Return the X of a ``(request id: X)`` at the end of a message."""
    match = _REQUEST_ID_AT_END.search(message[-200:])
    return match and match[1]


# Images.

_ARRAYS: Final = ("images", "series_images")


def images(result: object) -> tuple[tuple[TaskImage, ...], int]:
    """Return the images of both arrays in order, each URL once, and how many have no usable URL."""
    by_url: dict[str, TaskImage] = {}
    unusable: Counter[str] | None = None
    arrays = an_object(result)
    for name in _ARRAYS:
        items = an_array(arrays.get(name))
        if not items:
            continue
        found = _array(items)
        for image in found:
            by_url.setdefault(image.url, image)
        if len(found) < len(items):
            # A gateway may fill both arrays with the same images.
            unusable = _unusable(items) | (unusable or Counter[str]())
    return tuple(by_url.values()), unusable.total() if unusable else 0


def _array(items: list[Any]) -> list[TaskImage]:
    """Read one array; its indices give the order if each is there once."""
    found = [image for item in items if (image := _image(item))]
    if len(found) > 1:
        indices = [image.index for image in found if image.index is not None]
        if len(set(indices)) == len(found):
            found.sort(key=lambda image: image.index or 0)
    return found


def _unusable(items: list[Any]) -> Counter[str]:
    """Count what is no image by its URL."""
    bad = (an_object(item) or {"url": item} for item in items if _image(item) is None)
    return Counter(repr(fields.get("url")) for fields in bad)


def _image(item: object) -> TaskImage | None:
    fields = an_object(item) or {"url": item}
    url = _url(fields.get("url"))
    if url is None:
        return None
    index, watermark = fields.get("index"), fields.get("watermark_url")
    return TaskImage(
        url=url,
        index=index if type(index) is int and 0 <= index < 2**31 else None,
        watermark_url=None if watermark is None else _url(watermark),
    )


_NEVER = r"\s\x00-\x1f\x7f\ud800-\udfff"
_WEB_URL = re.compile(rf"https?://[^{_NEVER}/?#]++[^{_NEVER}]*+", re.IGNORECASE)
"""Possessive: going back over a long host would take time in the square of its length."""

_LOOSE_URL = re.compile(
    rf"(https?:)?(//[^{_NEVER}/?#]++)((?:[/?#].*+)?)", re.IGNORECASE | re.DOTALL
)
_ILLEGAL = re.compile(rf"[{_NEVER}]")
_AROUND: Final = "".join(map(chr, range(0x21))) + WHITE_SPACE
_LINE_BREAKS: Final = str.maketrans("", "", "\t\r\n")


def _url(value: object) -> str | None:
    """Return an absolute web URL, byte for byte where nothing is wrong with it."""
    if not isinstance(value, str):
        return None
    return value if _WEB_URL.fullmatch(value) else _mended(value)


def _mended(url: str) -> str | None:
    """Mend what is plainly meant as a URL in the way of browsers (WHATWG's URL standard)."""
    # White space around it and line breaks in it go, what no path may hold is percent-encoded, and
    # ``//host`` gets a scheme. A host is never mended.
    match = _LOOSE_URL.fullmatch(url.strip(_AROUND).translate(_LINE_BREAKS))
    if match is None:
        return None
    scheme, host, rest = match.groups()
    return f"{scheme or 'https:'}{host}{_ILLEGAL.sub(_percent_encoded, rest)}"


def _percent_encoded(match: re.Match[str]) -> str:
    char = match[0] if not "\ud800" <= match[0] <= "\udfff" else "\ufffd"
    return "".join(f"%{byte:02X}" for byte in char.encode())


# The key.


class Secret:
    """The key, which a server may echo: whatever is shown of an answer goes through here.

    An answer is read as it came, as a short key can be in it by chance.
    """

    def __init__(self, key: str) -> None:
        self._key = key
        self._plain = key.encode()
        self._by_chance = len(key) < _SHORTEST_ECHO
        self._pattern = re.compile("".join(map(_any_form, key)) or r"(?!)")

    def __repr__(self) -> str:
        return "<Secret>"

    def is_in(self, body: bytes) -> bool:
        """Return whether the key is in a JSON text, as it is or with JSON's escapes."""
        if self._plain in body:
            return True
        return b"\\" in body and self._plain in _JSON_ESCAPE.sub(_unescaped, body)

    def redact(self, shown: str) -> str:
        """Return a text without the key, however it is escaped in there."""
        if self._key in shown or "\\" in shown or "%" in shown:
            return self._pattern.sub(_REDACTED, shown)
        return shown

    def redact_name(self, shown: str) -> str:
        """Return a name without the key; one that a short key is in by chance stays whole."""
        return shown if self._by_chance else self.redact(shown)

    def redact_json(self, value: Any, name: str = "") -> Any:
        """Return a JSON value without the key."""
        if isinstance(value, str):
            return self.redact_name(value) if name in _NAMES else self.redact(value)
        if isinstance(value, list):
            return [self.redact_json(item) for item in an_array(value)]  # pyright: ignore[reportUnknownArgumentType]
        if isinstance(value, dict):
            items = an_object(value).items()  # pyright: ignore[reportUnknownArgumentType]
            return {self.redact_name(key): self.redact_json(item, key) for key, item in items}
        return value


_SHORTEST_ECHO: Final = 8
"""Characters of a key that a name does not hold by chance."""

_NAMES: Final = {"code", "external_task_id", "request_id", "status", "task_id", "task_status"}
_REDACTED: Final = "[redacted]"
_JSON_ESCAPE = re.compile(rb"\\(?:u00([0-7][0-9A-Fa-f])|([/\\]))")


def _unescaped(match: re.Match[bytes]) -> bytes:
    return match[2] or bytes.fromhex(match[1].decode())


def _any_form(char: str) -> str:
    """Return a pattern for a character, as it is or escaped in JSON or in a URL."""
    code = f"{ord(char):02x}"
    return rf"(?:{re.escape(char)}|\\u00(?i:{code})|\\{re.escape(char)}|%(?i:{code}))"


NO_KEY: Final = Secret("")
