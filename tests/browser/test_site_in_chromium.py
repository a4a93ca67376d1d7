"""The built site in a real browser: nothing overflows, the search finds, nothing complains."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.web_server import serving

from .chromium import Tab

pytestmark = pytest.mark.anyio

SITE = Path(__file__).parent.parent.parent / "docs" / "_build" / "html"
# What is wider than the window, but for what scrolls or is cut off inside something that fits.
STICKS_OUT = """[...document.querySelectorAll("article *")].filter((element) => {
    const inside = element.closest("pre, .table-wrapper, .highlight, .visually-hidden");
    const width = document.documentElement.clientWidth;
    return !inside && element.getBoundingClientRect().right > width + 1;
}).map((element) => element.outerHTML.slice(0, 200))"""
SEARCHED = "document.querySelector('.search-summary')?.textContent.includes('finished')"
FIRST_HITS = "[...document.querySelectorAll('ul.search li a')].slice(0, 10).map((a) => a.href)"


@pytest.fixture(scope="module")
def site() -> Generator[str]:
    """Serve the built site, as its search needs a server; gives its address."""
    assert (SITE / "index.html").exists(), "build it first: nox -s docs, or nox -s browser"
    with serving(SITE) as address:
        yield address


def pages() -> list[str]:
    """Name all pages of the site."""
    return sorted(file.relative_to(SITE).as_posix() for file in SITE.rglob("*.html"))


@pytest.mark.parametrize("width", [400, 700, 1000, 1400])
async def test_no_page_overflows(tab: Tab, site: str, width: int) -> None:
    """Nothing on any page is wider than the window, every image loads, no script complains."""
    wrong: dict[str, object] = {}
    assert len(pages()) > 20
    for page in pages():
        await tab.open(f"{site}{page}", width=width)
        found = [
            await tab.ask("document.documentElement.scrollWidth") > width,
            await tab.ask(STICKS_OUT),
            await tab.ask("[...document.images].filter((i) => !i.naturalWidth).map((i) => i.src)"),
            tab.complaints[:],
        ]
        tab.complaints.clear()
        if any(found):
            wrong[page] = found
    assert wrong == {}


async def test_overflow_is_seen(tab: Tab, site: str) -> None:
    """What is too wide is named: the other test can fail."""
    await tab.open(f"{site}glossary.html", width=400)
    await tab.ask("document.querySelector('article p').style.width = '900px'")
    assert await tab.ask(STICKS_OUT) != []


@pytest.mark.parametrize(
    ("words", "page"),
    [("Retry-After", "polling.html"), ("setup_hook", "embedding.html"), ("max_rate", "api.html")],
)
async def test_the_search_finds(tab: Tab, site: str, words: str, page: str) -> None:
    """The search box of each page leads to hits, the page that is meant among the first."""
    await tab.open(f"{site}index.html")
    await tab.ask("document.querySelector('.sidebar-search').focus()")
    await tab.type(words)
    await tab.leave_by("Enter")
    await tab.until(SEARCHED)
    hits = await tab.ask(FIRST_HITS)
    assert any(f"/{page}" in hit for hit in hits), hits


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_the_site_follows_the_colour_scheme(tab: Tab, site: str, *, dark: bool) -> None:
    """A reader with a dark screen gets dark pages."""
    await tab.open(f"{site}index.html", dark=dark)
    colour = await tab.ask("getComputedStyle(document.body).backgroundColor")
    assert (colour == "rgb(255, 255, 255)") is not dark
