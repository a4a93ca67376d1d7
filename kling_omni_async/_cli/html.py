"""Values as HTML: whatever an API sent stays text."""

from __future__ import annotations

import html
import os
import re
from decimal import Decimal
from typing import Final
from urllib.parse import quote

_SIXTY: Final = 60
_THOUSAND: Final = 1000
_SHOWS: Final = r"[^\s\x00-\x20\x7f-\x9f\ud800-\udfff]"
_WEB_URL = re.compile(rf"https?://(?![/?#]){_SHOWS}++", re.IGNORECASE)
_HIDDEN: Final[dict[int, str]] = {
    **{code: chr(0x2400 + code) for code in range(0x20)},  # Unicode's pictures of controls
    **dict.fromkeys(map(ord, "\t\n\r"), " "),
    0x7F: "\u2421",
    **dict.fromkeys(
        # C1 controls, what overrides the direction of writing, halves of characters, no characters
        (
            *range(0x80, 0xA0),
            *range(0x202A, 0x202F),
            *range(0x2066, 0x206A),
            *range(0xD800, 0xE000),
            *range(0xFDD0, 0xFDF0),
            *(plane + end for plane in range(0, 0x110000, 0x10000) for end in (0xFFFE, 0xFFFF)),
        ),
        "\ufffd",
    ),
}


def shown(value: str) -> str:
    """Give text in which everything that would not show does, and nothing turns it around."""
    return value if value.isascii() and value.isprintable() else value.translate(_HIDDEN)


def text(value: str) -> str:
    """Give text as HTML, for an element's content or a quoted attribute."""
    return html.escape(shown(value), quote=True)


def foreign(value: str) -> str:
    """Give text of any language as HTML that leaves the direction of what surrounds it alone."""
    return f"<bdi>{text(value)}</bdi>"


def file_link(name: str) -> str:
    """Give the relative address of a file in the page's folder."""
    return html.escape(quote(os.fsencode(name), safe=""))


def web_link(url: str | None) -> str | None:
    """Give an absolute web address as HTML; None for any other, such as ``javascript:``."""
    return html.escape(url) if url is not None and _WEB_URL.fullmatch(url) else None


def duration(seconds: float) -> str:
    """Give a time for people."""
    tenths = round(seconds, 1)
    if tenths < _SIXTY:
        return f"{tenths:g} s"
    minutes, rest = divmod(round(seconds), _SIXTY)
    if minutes < _SIXTY:
        return f"{minutes} min {rest} s"
    return f"{minutes // _SIXTY} h {minutes % _SIXTY} min"


def size(count: int) -> str:
    """Give a number of bytes for people."""
    if count < _THOUSAND:
        return f"{count} B"
    amount = Decimal(count)
    for unit in ("kB", "MB", "GB"):
        amount = amount / _THOUSAND
        if round(amount, 1) < _THOUSAND:
            return f"{amount:.1f} {unit}"
    return f"{amount / _THOUSAND:,.1f} TB"


def number(value: Decimal) -> str:
    """Give a decimal without an exponent and without zeros that say nothing."""
    digits = f"{value:f}"
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def plural(count: int, word: str, words: str) -> str:
    """Give a count with its word."""
    return f"{count:,} {word if count == 1 else words}"
