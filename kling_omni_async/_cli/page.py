"""The gallery's page: cards as HTML, in which nothing that an API sent can run or steer."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Generator, Iterable
from functools import cache
from importlib.resources import files
from typing import Final

from kling_omni_async._version import __version__

from .cards import Card, Group, Picture, Totals
from .html import duration, file_link, foreign, number, plural, size, text, web_link
from .summary import Kind

GENERATOR: Final = '<meta name="generator" content="kling-omni '
_GROUP_NAMES: Final = {
    Group.SUCCEEDED: "Succeeded",
    Group.FAILED: "Failed",
    Group.OTHER: "Other",
    Group.UNLISTED: "In no journal",
}


def page(title: str, totals: Totals, cards: Iterable[Card]) -> Generator[str]:
    """Give the page piece by piece.

    Args:
        title: Its heading.
        totals: The counts of the cards.
        cards: The cards in order.
    """
    yield _head(title)
    yield _totals(totals)
    yield _filters(totals)
    yield '<main id="cards" tabindex="-1">\n<ul class="cards">\n'
    yield from map(item, cards)
    yield "</ul>\n"
    if not totals.groups:
        yield '<p class="none">There are no tasks and no images here yet.</p>\n'
    yield f"</main>\n{_LIGHTBOX}<script>{_resource('gallery.js')}</script>\n</body>\n</html>\n"


def item(card: Card) -> str:
    """Give a card as an item of the list."""
    parts = (f"<h2>{foreign(card.title)}</h2>", _kind(card), _why(card), _pics(card), _facts(card))
    return f'<li class="{card.group}">{"".join(parts)}</li>\n'


def kind_name(kind: Kind | None) -> str:
    """Give the words for how polling ended."""
    if kind is None:
        return _GROUP_NAMES[Group.UNLISTED]
    if kind is Kind.SUCCEEDED:
        return _GROUP_NAMES[Group.SUCCEEDED]
    return kind.value.replace("_", " ").capitalize()


def _kind(card: Card) -> str:
    return f'<p class="kind">{kind_name(card.kind)}</p>'


def _why(card: Card) -> str:
    if card.reason is None:
        return ""
    fault = card.last_fault
    last = "" if fault is None else f"<small>The last query met: {foreign(fault)}</small>"
    return f'<p class="why"><span>{foreign(card.reason or "No reason was given.")}{last}</span></p>'


def _pics(card: Card) -> str:
    count = len(card.pictures)
    pics = (
        _pic(picture, f"Image {at} of {count}", card) for at, picture in enumerate(card.pictures, 1)
    )
    return f'<div class="pics">{"".join(pics)}</div>' if count else ""


def _pic(picture: Picture, name: str, card: Card) -> str:
    if picture.file is None:
        return _gone(picture, name)
    link = file_link(picture.file)
    alt = f"{name}, {text(card.title)}"
    return f'<a href="{link}"><img src="{link}" alt="{alt}" loading="lazy" decoding="async"></a>'


def _gone(picture: Picture, name: str) -> str:
    link = web_link(picture.url)
    if link is None:
        return f'<span class="gone">{name} is not in this folder</span>'
    return (
        f'<a class="gone" href="{link}">{name} is not in this folder: original URL, '
        "which may have expired</a>"
    )


def _facts(card: Card) -> str:
    facts = [*(fact.replace(" ", "\xa0") for fact in _figures(card)), *_copies(card)]
    line = f'<p class="facts">{" · ".join(facts)}</p>' if facts else ""
    name = card.external_task_id
    return line if name is None else f'{line}<p class="facts">External id: {foreign(name)}</p>'


def _figures(card: Card) -> Generator[str]:
    if card.status is not None and card.kind is not Kind.FAILED:
        yield f"API status: {text(card.status)}"
    if card.duration is not None:
        yield f"took {duration(card.duration)}"
    if card.elapsed is not None:
        yield f"polled for {duration(card.elapsed)}"
    if card.kind is not None:
        yield plural(card.queries, "query", "queries")
    if card.units is not None:
        yield f"{number(card.units)} units"


def _copies(card: Card) -> Generator[str]:
    for at, picture in enumerate(card.pictures, 1):
        if picture.watermarked is not None:
            yield f'<a href="{file_link(picture.watermarked)}">image {at} with watermark</a>'


def _head(title: str) -> str:
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
{GENERATOR}{__version__}">
<meta http-equiv="Content-Security-Policy" content="{_policy()}">
<meta name="referrer" content="no-referrer">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{text(title)} · Kling Omni gallery</title>
<style>{_resource("gallery.css")}</style>
</head>
<body>
<a class="skip" href="#cards">Skip to the images</a>
<header>
<p class="over">Kling Omni gallery</p>
<h1>{foreign(title)}</h1>
"""


def _policy() -> str:
    return "; ".join(
        (
            "default-src 'none'",
            "img-src 'self' file:",
            f"style-src '{_digest('gallery.css')}'",
            f"script-src '{_digest('gallery.js')}'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


@cache
def _resource(name: str) -> str:
    return (files("kling_omni_async._cli") / name).read_text("utf-8")


@cache
def _digest(name: str) -> str:
    digest = hashlib.sha256(_resource(name).encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _totals(totals: Totals) -> str:
    rows = [
        ("tasks", f"{totals.tasks:,}"),
        *(
            (_GROUP_NAMES[group].lower(), f"{totals.groups.get(group, 0):,}")
            for group in (Group.SUCCEEDED, Group.FAILED, Group.OTHER)
        ),
        ("images", f"{totals.images:,}"),
        ("in files", size(totals.size)),
        ("units", number(totals.units)),
    ]
    items = (f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in rows)
    return f'<dl class="totals">{"".join(items)}</dl>\n</header>\n'


def _filters(totals: Totals) -> str:
    groups = [group for group in Group if group is not Group.UNLISTED or totals.groups.get(group)]
    choices = [
        ("a", "All", " checked"),
        *((group.value, _GROUP_NAMES[group], "") for group in groups),
    ]
    radios = (
        f'<input type="radio" name="show" id="{value}"{checked}><label for="{value}">{name}</label>'
        for value, name, checked in choices
    )
    return (
        '<div class="bar"><div>\n<fieldset><legend class="unseen">Show</legend>'
        f"{''.join(radios)}</fieldset>\n"
        '<div class="find" hidden><label class="unseen" for="q">Search ids, names and reasons'
        '</label><input type="search" id="q" placeholder="Search ids, names and reasons" '
        'autocomplete="off"></div>\n<output></output>\n</div></div>\n'
    )


_LIGHTBOX: Final = """<dialog aria-label="Image">
<div class="under"><p id="caption" aria-live="polite"></p>
<button type="button" id="back">Previous</button>
<button type="button" id="next">Next</button>
<a id="file" href="#cards">Open the file</a><button type="button" id="close">Close</button></div>
</dialog>
"""
