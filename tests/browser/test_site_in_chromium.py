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
# Tables that must be shifted to be read, but for those of figures.
SHIFTED = """[...document.querySelectorAll(".table-wrapper:not(#benchmarks *)")]
    .filter((table) => table.scrollWidth > table.clientWidth + 1)
    .map((table) => table.innerText.slice(0, 200))"""
BLOCKS = "document.querySelectorAll('article div.highlight pre').length"
BUTTONS = "document.querySelectorAll('article div.highlight > button.copy').length"
# The clipboard of a test: a browser without a window has none that it may write to.
KEEP_WHAT_IS_COPIED = (
    "navigator.clipboard.writeText = async (text) => { window.copied = text; }; undefined"
)
SEARCHED = "document.querySelector('.search-summary')?.textContent.includes('finished')"
FIRST_HITS = "[...document.querySelectorAll('ul.search li a')].slice(0, 15).map((a) => a.href)"


@pytest.fixture(scope="module")
def site() -> Generator[str]:
    """Serve the built site, as its search needs a server; gives its address."""
    assert (SITE / "index.html").exists(), "build it first: nox -s docs, or nox -s browser"
    with serving(SITE) as address:
        yield address


def pages() -> list[str]:
    """Name all pages of the site."""
    return sorted(file.relative_to(SITE).as_posix() for file in SITE.rglob("*.html"))


@pytest.mark.parametrize("width", [360, 400, 700, 1000, 1400])
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


async def test_a_phone_shows_all_columns(tab: Tab, site: str) -> None:
    """Cells stand below each other, each with the name of its column, and none is off the page."""
    shifted: dict[str, object] = {}
    for page in pages():
        await tab.open(f"{site}{page}", width=360)
        if found := await tab.ask(SHIFTED):
            shifted[page] = found
    assert shifted == {}
    await tab.open(f"{site}which-verb.html", width=360)
    of_the_first_row = "[...document.querySelector('tbody tr').cells].map((c) => c.dataset.column)"
    assert await tab.ask(of_the_first_row) == ["", "you want", "write"]
    assert await tab.ask("getComputedStyle(document.querySelector('td')).display") == "block"


async def test_code_is_copied_by_a_button(tab: Tab, site: str) -> None:
    """Each block has one; it copies the code as it stands, and says that it has."""
    await tab.open(f"{site}tutorial.html")
    await tab.ask(KEEP_WHAT_IS_COPIED)
    assert await tab.ask(f"{BLOCKS} > 3 && {BLOCKS} === {BUTTONS}")
    await tab.ask("document.querySelector('button.copy').click()")
    await tab.until("document.querySelector('button.copy').textContent === 'Copied'")
    code = await tab.ask("document.querySelector('div.highlight pre').textContent")
    assert await tab.ask("window.copied") == code.rstrip("\n")


@pytest.mark.parametrize(
    ("shown", "copied"),
    [
        ("$ kling-omni demo\n200 tasks\n$ ls\n", "kling-omni demo\nls"),
        (">>> for n in a:\n...     n\n...\n1\n", "for n in a:\n    n\n"),
        ("$HOME/bin/run\n", "$HOME/bin/run"),
        ("a = 1\n\nb = 2\n", "a = 1\n\nb = 2"),
    ],
)
async def test_prompts_are_not_copied(tab: Tab, site: str, shown: str, copied: str) -> None:
    """Of a block with prompts only what is typed behind them; any other one whole."""
    await tab.open(f"{site}tutorial.html")
    await tab.ask(KEEP_WHAT_IS_COPIED)
    await tab.ask(f"document.querySelector('div.highlight pre').textContent = {shown!r}")
    await tab.ask("document.querySelector('button.copy').click()")
    await tab.until("window.copied !== undefined")
    assert await tab.ask("window.copied") == copied


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_one_logo_is_shown(tab: Tab, site: str, *, dark: bool) -> None:
    """That of the colour scheme."""
    await tab.open(f"{site}index.html", dark=dark)
    logos = "[...document.querySelectorAll('img.sidebar-logo')].filter((i) => i.checkVisibility())"
    (name,) = await tab.ask(f"{logos}.map((i) => i.src.split('/').at(-1).split('?')[0])")
    assert name == ("logo-dark.svg" if dark else "logo-light.svg")


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
