"""The gallery in a real browser: what is seen, what is reached by keyboard, what cannot run."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from .chromium import Tab
from .folder import HOSTILE, TASKS

pytestmark = pytest.mark.anyio

CARDS = TASKS + 1  # one file is in no journal
FAILED = 5
VISIBLE = """[...document.querySelectorAll(".cards > li, .rows > li")].filter((card) =>
    !card.hidden && getComputedStyle(card.closest("details") ?? card).display !== "none")"""
OPEN_ALL = "document.querySelectorAll('details').forEach((heap) => { heap.open = true; })"
TITLES = "[...document.querySelectorAll('.cards h3')].map((title) => title.textContent)"
LOAD_ALL = """Promise.all([...document.querySelectorAll(".cards img")].map((image) => {
    image.loading = "eager";
    return image.decode().then(() => image.naturalWidth);
}))"""
LOWEST_CONTRAST = """(() => {
    const parts = (color) => color.match(/[\\d.]+/g).map(Number);
    const light = (color) => {
        const [r, g, b] = parts(color).map((part) => part / 255)
            .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (element) => {
        const color = getComputedStyle(element).backgroundColor;
        return parts(color)[3] === 0 ? behind(element.parentElement) : color;
    };
    const contrasts = [...document.querySelectorAll("body *")]
        .filter((element) => element.checkVisibility() && element.innerText?.trim())
        .map((element) => [light(getComputedStyle(element).color), light(behind(element))])
        .map(([a, b]) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05));
    return Math.min(...contrasts);
})()"""
FOCUS = "document.activeElement.id || document.activeElement.className"


async def visible(tab: Tab) -> int:
    """Count the cards that are shown."""
    return int(await tab.ask(f"{VISIBLE}.length"))


async def focus(tab: Tab, wanted: str) -> None:
    """Press Tab until an element has the focus."""
    for _ in range(20):
        await tab.press("Tab")
        if await tab.ask(f"document.activeElement.matches({wanted!r})"):
            return
    pytest.fail(f"Tab does not reach {wanted}")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 400, 1400, 1600])
async def test_all_is_seen_without_a_complaint(
    tab: Tab, page: str, width: int, *, dark: bool
) -> None:
    """Nothing overflows, every image loads, text stands out, and the console stays empty."""
    await tab.open(page, width=width, dark=dark)
    await tab.ask(OPEN_ALL)
    assert await tab.ask("document.documentElement.scrollWidth") <= width
    widths = await tab.ask(LOAD_ALL)
    assert len(widths) > TASKS
    assert set(widths) == {256}
    assert await visible(tab) == CARDS
    assert await tab.ask(LOWEST_CONTRAST) >= 4.5
    assert tab.complaints == []


async def test_images_come_first(tab: Tab, page: str) -> None:
    """The first screen shows images, and what has none is rows behind them."""
    await tab.open(page)
    assert await tab.ask("document.querySelector('main li img').checkVisibility()") is True
    assert await tab.ask("document.querySelectorAll('.cards > li:not(:has(img))').length") == 0
    assert await tab.ask(
        "document.querySelector('.cards').getBoundingClientRect().bottom"
        " <= document.querySelector('.heaps').getBoundingClientRect().top"
    )


async def test_cards_can_be_sorted(tab: Tab, page: str) -> None:
    """By id, by time, and back to the order of completion."""
    await tab.open(page)
    choose = """(order) => {
        const select = document.querySelector("#sort");
        select.value = order;
        select.dispatchEvent(new Event("change"));
    }"""
    finished = await tab.ask(TITLES)
    await tab.ask(f"({choose})('id')")
    by_id = await tab.ask(TITLES)
    plain = [title for title in by_id if title.isdigit()]
    assert plain == sorted(plain, key=int)
    await tab.ask(f"({choose})('slow')")
    slow = await tab.ask(
        "[...document.querySelectorAll('.cards > li')].map((e) => Number(e.dataset.took ?? -1))"
    )
    assert slow == sorted(slow, reverse=True)
    await tab.ask(f"({choose})('last')")
    assert await tab.ask(TITLES) == finished[::-1]
    await tab.ask(f"({choose})('first')")
    assert await tab.ask(TITLES) == finished
    assert sorted(by_id) == sorted(finished)


async def test_on_a_phone_the_large_view_closes_at_the_top(tab: Tab, page: str) -> None:
    """Where browsers have no bar of their own, and whatever the height of the picture."""
    await tab.open(page, width=400, height=860)
    await tab.ask("document.querySelector('.pics a').click()")
    box = "document.querySelector('#close').getBoundingClientRect()"
    assert await tab.ask(f"{box}.bottom") < 100
    assert await tab.ask(f"{box}.right") <= 400
    await tab.ask("document.querySelector('#close').click()")
    assert await tab.ask("document.querySelector('dialog').open") is False


@pytest.mark.parametrize("width", [360, 1400])
async def test_nothing_sticks_out_of_its_card(tab: Tab, page: str, width: int) -> None:
    """Long ids and long reasons are broken, not cut off."""
    await tab.open(page, width=width)
    await tab.ask(OPEN_ALL)
    assert (
        await tab.ask("""[...document.querySelectorAll(".cards li *, details *:not(.prompt)")]
        .filter((element) => element.scrollWidth > element.clientWidth + 1 && element.clientWidth)
        .map((element) => element.outerHTML.slice(0, 200))""")
        == []
    )


async def test_the_page_follows_the_colour_scheme(tab: Tab, page: str) -> None:
    """Light and dark are two pages to the eye."""
    colours: list[str] = []
    for dark in (False, True):
        await tab.open(page, dark=dark)
        colours.append(await tab.ask("getComputedStyle(document.body).backgroundColor"))
    assert colours[0] != colours[1]


async def test_a_hostile_reason_is_text(tab: Tab, page: str) -> None:
    """Markup in a reason is shown as it came, and makes no element."""
    await tab.open(page)
    reasons = await tab.ask("[...document.querySelectorAll('.why bdi')].map((e) => e.textContent)")
    assert HOSTILE in reasons
    assert await tab.ask("document.querySelectorAll('.why :not(span, bdi, small)').length") == 0
    assert await tab.ask("typeof window.ran") == "undefined"


def with_markup(page: str, folder: Path) -> str:
    """Copy the page with markup that nobody escaped."""
    whole = Path(unquote(urlsplit(page).path)).read_text("utf-8")
    broken = folder / "broken.html"
    broken.write_text(whole.replace("<header>", f"<header>{HOSTILE}"), "utf-8")
    return broken.as_uri()


async def test_what_slips_through_cannot_run(tab: Tab, page: str, tmp_path: Path) -> None:
    """Even unescaped markup meets a policy that runs nothing but the page's own script."""
    await tab.open(with_markup(page, tmp_path))
    assert await tab.ask("document.querySelectorAll('header script').length") == 1
    assert await tab.ask("typeof window.ran") == "undefined"
    assert any("Content Security Policy" in complaint for complaint in tab.complaints)


async def test_filters_work_by_keyboard(tab: Tab, page: str) -> None:
    """The first Tab skips to the images; arrow keys in the filters hide and show cards."""
    await tab.open(page)
    await tab.press("Tab")
    assert await tab.ask(FOCUS) == "skip"
    await focus(tab, "#a")
    assert (
        await tab.ask("getComputedStyle(document.activeElement.labels[0]).outlineStyle") == "solid"
    )
    await tab.press("ArrowRight")
    await tab.press("ArrowRight")
    assert await tab.ask(FOCUS) == "f"
    assert await visible(tab) == FAILED
    assert await tab.ask("document.querySelector('output').textContent") == f"5 of {CARDS} shown"


async def test_the_skip_link_leads_to_the_images(tab: Tab, page: str) -> None:
    """After Enter on it the next Tab is on the first image."""
    await tab.open(page)
    await tab.press("Tab")
    await tab.press("Enter")
    await tab.press("Tab")
    assert await tab.ask("document.activeElement.firstElementChild.tagName") == "IMG"


async def test_search_finds_what_is_written_on_a_card(tab: Tab, page: str) -> None:
    """Words from different places of a card find it, in whatever case."""
    await tab.open(page)
    await focus(tab, "#q")
    await tab.type("ONERROR failed")
    assert await visible(tab) == 1
    assert await tab.ask(f"{VISIBLE}[0].checkVisibility()") is True
    assert HOSTILE in await tab.ask(f"{VISIBLE}[0].textContent")


async def test_the_lightbox_works_by_keyboard(tab: Tab, page: str) -> None:
    """Enter opens it, arrow keys turn over, Escape closes it and leaves the focus where one was."""
    await tab.open(page)
    await focus(tab, ".pics a")
    await tab.press("Enter")
    assert await tab.ask("document.querySelector('dialog').open") is True
    first = await tab.ask("document.querySelector('dialog img').src")
    await tab.press("ArrowRight")
    second = await tab.ask("document.querySelector('dialog img').src")
    assert second != first
    await tab.press("ArrowLeft")
    assert await tab.ask("document.querySelector('dialog img').src") == first
    await tab.press("ArrowRight")
    assert await tab.ask("document.documentElement.scrollWidth <= innerWidth") is True
    await tab.press("Escape")
    assert await tab.ask("document.querySelector('dialog').open") is False
    await tab.until(f"document.activeElement.href === {second!r}")
    assert tab.complaints == []


async def test_without_scripts_all_is_there(tab: Tab, page: str) -> None:
    """Every card is shown, the filters still work, and no dead search field is offered."""
    await tab.open(page, script=False)
    assert await visible(tab) == CARDS
    assert await tab.ask("document.querySelector('#q').checkVisibility()") is False
    await focus(tab, "#a")
    await tab.press("ArrowRight")
    await tab.press("ArrowRight")
    assert await visible(tab) == FAILED
