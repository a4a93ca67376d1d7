"""How records show themselves to people: as one short line, and in a notebook."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Final

_LONGEST_LINE: Final = 200
_MOST_THUMBNAILS: Final = 18  # twice what one task can have; an answer may claim any number


def one_line(*parts: str) -> str:
    """Return what is not empty as one printable line of at most 200 characters."""
    # cut before as well: what cannot be printed takes more room, and a text may be a megabyte
    text = " ".join(", ".join(filter(None, parts)).split())[: _LONGEST_LINE + 1]
    if not text.isprintable():
        text = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
    return text if len(text) <= _LONGEST_LINE else f"{text[: _LONGEST_LINE - 1]}…"


def counted(number: int, word: str) -> str:
    """Return how many there are, or nothing where there is none."""
    return f"{number} {word}{'s' if number > 1 else ''}" if number else ""


def card(line: str, urls: Iterable[str]) -> str:
    """Return a line as HTML with a thumbnail for each URL that a browser would fetch."""
    shown = [url for url in urls if url.lower().startswith(("https://", "http://"))]
    thumbnails = [_thumbnail(url, at) for at, url in enumerate(shown[:_MOST_THUMBNAILS], 1)]
    more = counted(len(shown) - len(thumbnails), "more image")
    return f"<div><div>{escape(line)}</div>{' '.join([*thumbnails, more])}</div>"


def _thumbnail(url: str, at: int) -> str:
    # The hosts of images refuse what comes from other sites, hence no referrer.
    quoted = escape(url)
    return (
        f'<a href="{quoted}" target="_blank" rel="noopener noreferrer">'
        f'<img src="{quoted}" alt="image {at}" style="height: 8em" loading="lazy" '
        'decoding="async" referrerpolicy="no-referrer"></a>'
    )


def bar(line: str, *, done: int, total: int) -> str:
    """Return a line as HTML behind a bar that shows how far something is."""
    return f'<progress max="{max(total, 1)}" value="{done}"></progress> {escape(line)}'
