"""What the pages of a built site link to."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import attrs

_LINKS: Final = {"a": "href", "link": "href", "img": "src", "script": "src"}


@attrs.define
class Page(HTMLParser):
    """A page by its names and links.

    Attributes:
        file: Where it is.
        names: What a fragment can lead to.
        links: As they are written.
    """

    file: Path
    names: set[str] = attrs.Factory(set)
    links: list[str] = attrs.Factory(list)

    def __attrs_post_init__(self) -> None:
        super().__init__()
        self.feed(self.file.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take an element."""
        given = dict(attrs)
        self.names.update(filter(None, (given.get("id"), given.get("name"))))
        if link := given.get(_LINKS.get(tag, "")):
            self.links.append(link)


def is_external(link: str) -> bool:
    """Whether a link leaves the site."""
    return bool(urlsplit(link).scheme or urlsplit(link).netloc)


def read(folder: Path) -> dict[Path, Page]:
    """Read all pages of a site."""
    return {file: Page(file) for file in sorted(folder.rglob("*.html"))}


def dead_links(pages: dict[Path, Page]) -> list[str]:
    """Name the links that lead to nothing within the site."""
    return [
        f"{page.file.name} -> {link}"
        for page in pages.values()
        for link in page.links
        if not is_external(link) and not _leads_somewhere(page.file, link, pages)
    ]


def _leads_somewhere(origin: Path, link: str, pages: dict[Path, Page]) -> bool:
    parts = urlsplit(link)
    target = (origin.parent / unquote(parts.path)).resolve() if parts.path else origin
    if not target.is_file():
        return False
    fragment = unquote(parts.fragment)
    return not fragment or target not in pages or fragment in pages[target].names
