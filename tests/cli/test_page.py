"""The gallery's page: whatever an API sent comes out as text."""

from __future__ import annotations

import base64
import hashlib
import re
from decimal import Decimal
from html.parser import HTMLParser
from urllib.parse import unquote_to_bytes, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_omni_async import ImageTask, TaskFailedError, TaskOutcome, TaskStatus
from kling_omni_async._cli.cards import Card, Figures, Picture, Totals, card_of, count
from kling_omni_async._cli.gallery import is_web_url, page, visible
from kling_omni_async._cli.report import Kind

VOID = {"meta", "img", "input"}
NASTY = "</style></bdi></script><!--<script>alert(1)</script>\"'&amp;&#60;\x00\x1b[31m\u202e\ud800"
ANY = st.one_of(st.text(), st.text(alphabet="<>&\"'=/!-;: \n\r\0\u202eascript#0"), st.just(NASTY))


class Parsed(HTMLParser):
    """The elements of a page in order, and the text of each kind of element."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.values: dict[tuple[str, str], list[str]] = {}
        self.texts: dict[str, list[str]] = {}
        self.strange: list[str] = []
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(name for name, _ in attrs)))
        for name, value in attrs:
            self.values.setdefault((tag, name), []).append(value or "")
        if tag not in VOID:
            self._open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[self._open[-1]][-1] += data

    def handle_comment(self, data: str) -> None:
        self.strange.append(data)

    def unknown_decl(self, data: str) -> None:
        self.strange.append(data)


def whole(*cards: Card, title: str = "images", totals: Totals | None = None) -> str:
    """Return the page of some cards."""
    return "".join(page(title, totals or count(cards, {}), cards))


def full(value: str, name: str, url: str) -> Card:
    """Make a card that has the value wherever an API's or a user's text can stand."""
    return Card(
        title=value,
        kind=Kind.TIMED_OUT,
        pictures=(Picture(file=name, watermarked=name), Picture(url=url), Picture()),
        reason=value or "-",
        last_fault=value,
        external_task_id=value,
        figures=Figures(
            status="processing", duration=61.0, elapsed=3.25, queries=1, units=Decimal("0.50")
        ),
    )


PLAIN = Parsed(whole(full("plain", "plain.png", "https://images.test/1.png")))


@given(value=ANY, name=ANY.filter(lambda name: max(name, default="") < "\ud800"))
def test_any_text_stays_text(value: str, name: str) -> None:
    """No id, reason, file name or title adds an element or an attribute; each comes out whole."""
    url = "https://images.test/1.png"
    parsed = Parsed(whole(full(value, name, url), title=value))
    assert parsed.elements == PLAIN.elements
    assert parsed.strange == []
    expected = visible(value)
    assert parsed.texts["bdi"] == [expected, expected, visible(value or "-"), expected, expected]
    assert parsed.values["img", "alt"] == [f"Image 1 of 3, {expected}"]
    assert parsed.texts["title"] == [f"{expected} · Kling Omni gallery"]
    hrefs = [parsed.values["img", "src"][0], parsed.values["a", "href"][-2]]
    assert [unquote_to_bytes(href).decode() for href in hrefs] == [name, name]


@given(name=st.text(min_size=1, alphabet=st.characters(codec="utf-8")) | st.just("javascript:x"))
def test_a_file_name_is_one_relative_segment(name: str) -> None:
    """No file name leads out of the folder or to another scheme."""
    parsed = Parsed(whole(Card(title="a", pictures=(Picture(file=name),))))
    (source,) = parsed.values["img", "src"]
    assert re.fullmatch(r"[\w.~%-]+", source, re.ASCII)
    assert urlsplit(source)[:2] == ("", "")


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)//https://images.test",
        " javascript:alert(1)",
        "java\nscript:alert(1)",
        "data:text/html,<script>alert(1)</script>",
        "vbscript:x",
        "file:///etc/passwd",
        "//images.test/1.png",
        "https:images.test",
        "https:///1.png",
        "https://",
        "https://images.test/a b",
        "https://images.test/\x07",
        "https://images.test/\ud800",
        "",
        None,
    ],
)
def test_only_web_addresses_become_links(url: str | None) -> None:
    """Whatever is no absolute http or https URL is not linked."""
    parsed = Parsed(whole(Card(title="a", pictures=(Picture(url=url),))))
    assert parsed.texts["span"] == ["Image 1 of 1 is not in this folder"]
    assert parsed.values["a", "href"] == ["#cards", "#cards"]


@given(rest=st.text(alphabet="<>&\"'=#?%é/"))
def test_a_web_address_is_linked_byte_for_byte(rest: str) -> None:
    """The link is the URL as the API gave it, and says that it may have expired."""
    url = f"HTTPS://images.test/{rest}"
    parsed = Parsed(whole(Card(title="a", pictures=(Picture(url=url),))))
    assert parsed.values["a", "href"][1] == url
    assert "may have expired" in parsed.texts["a"][1]


def test_a_long_address_is_read_in_one_go() -> None:
    """A megabyte of URL that ends in a blank is refused without going back over it."""
    assert not is_web_url(f"https://{'a' * 1_000_000} ")


@given(value=st.text())
def test_shown_text_has_no_control_characters(value: str) -> None:
    """What would not show, or turn the text around, is replaced one for one."""
    replaced = visible(value)
    assert len(replaced) == len(value)
    assert not re.search(
        r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]", replaced
    )
    assert visible(replaced) == replaced


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("plain", "plain"),
        ("图像 é", "图像 é"),
        ("a\tb\r\nc", "a b  c"),
        ("\0\x1b\x7f", "\u2400\u241b\u2421"),
        ("\x85\u202egnp\u202c\u2066\u2069", "\ufffd\ufffdgnp\ufffd\ufffd\ufffd"),
        ("\ud83d", "\ufffd"),
        ("\u200frtl mark", "\u200frtl mark"),
    ],
)
def test_what_replaces_what_would_not_show(value: str, expected: str) -> None:
    """Controls have pictures, line breaks become blanks, the rest a replacement character."""
    assert visible(value) == expected


def test_the_policy_names_the_pages_own_style_and_script() -> None:
    """The hashes are those of the bytes in the page; nothing else may run or be fetched."""
    source = whole()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', source)
    for tag in ("style", "script"):
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", source, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src 'self' file:; ")
    assert "unsafe" not in policy


def test_the_page_fetches_nothing_from_elsewhere() -> None:
    """Style and script stand in the page, and neither has an address in it."""
    tags = {tag for tag, names in PLAIN.elements if {"src", "srcset", "rel"} & set(names)}
    assert tags == {"img"}
    (style,), (script,) = PLAIN.texts["style"], PLAIN.texts["script"]
    assert not re.search(r"url\(|@import|https?:", style)
    assert not re.search(r"fetch|import|https?:|innerHTML|eval", script)


def test_a_full_card() -> None:
    """A card tells the id, how it ended and why, times, queries, units and names."""
    facts = PLAIN.texts["p"]
    assert PLAIN.texts["small"] == ["The last query met: "]
    assert "Timed out" in facts
    assert any(
        fact.replace("\xa0", " ").startswith(
            "API status: processing · took 1 min 1 s · polled for 3.2 s · 1 query · 0.5 units · "
        )
        for fact in facts
    )
    assert "External id: " in facts
    assert "image 1 with watermark" in PLAIN.texts["a"]
    assert PLAIN.values["li", "class"] == ["o"]


def test_images_wait_until_they_are_seen() -> None:
    """Each image is lazy, is decoded aside, and links to its file."""
    parsed = Parsed(whole(Card(title="a", pictures=(Picture(file="a-0.png"),))))
    assert ("img", ("src", "alt", "loading", "decoding")) in parsed.elements
    assert parsed.values["img", "loading"] == ["lazy"]
    assert parsed.values["a", "href"][1:2] == parsed.values["img", "src"] == ["a-0.png"]


def test_a_card_of_files_alone_has_no_status() -> None:
    """Images that no journal mentions have a filter of their own, and no figures."""
    parsed = Parsed(whole(Card(title="holiday", pictures=(Picture(file="holiday.png"),))))
    assert parsed.values["li", "class"] == ["u"]
    assert parsed.texts["label"][-2] == "In no journal"
    assert parsed.texts["p"] == ["Kling Omni gallery", "In no journal", ""]


def test_a_failed_card_gives_its_reason() -> None:
    """The word of the API is not said twice; an empty reason is told as such."""
    task = ImageTask(task_id="a", status=TaskStatus.FAILED)
    outcome = TaskOutcome(task_id="a", task=task, error=TaskFailedError(""))
    parsed = Parsed(whole(card_of(outcome, ())))
    assert parsed.values["li", "class"] == ["f"]
    assert "No reason was given." in parsed.texts["bdi"]
    assert not any("API" in text for text in parsed.texts["p"])


def test_the_head_counts() -> None:
    """Tasks by group, images, bytes and units stand at the head; files alone are no tasks."""
    cards = [
        Card(
            title="a",
            kind=Kind.SUCCEEDED,
            pictures=(Picture(file="a-0.png"),),
            figures=Figures(units=Decimal(8)),
        ),
        Card(title="b", kind=Kind.FAILED, reason="no", figures=Figures(units=Decimal("0.25"))),
        Card(title="c", kind=Kind.NOT_FOUND, reason="no"),
        Card(title="d", kind=Kind.ERROR, reason="no", pictures=(Picture(),)),
        Card(title="e", pictures=(Picture(file="e.png"),)),
    ]
    parsed = Parsed(whole(*cards, totals=count(cards, {"a-0.png": 1500, "e.png": 500})))
    assert dict(zip(parsed.texts["dt"], parsed.texts["dd"], strict=True)) == {
        "tasks": "4",
        "succeeded": "1",
        "failed": "1",
        "other": "2",
        "images": "2",
        "in files": "2.0 kB",
        "units": "8.25",
    }


def test_an_empty_gallery_says_so() -> None:
    """A folder without images and journals is a page too; its filter for files is left out."""
    parsed = Parsed(whole())
    assert "There are no tasks and no images here yet." in parsed.texts["p"]
    assert parsed.texts["label"][:-1] == ["All", "Succeeded", "Failed", "Other"]


def test_it_can_be_used_without_a_mouse_or_a_script() -> None:
    """Language, title, skip link, labels and legend are there; what needs a script is hidden."""
    assert PLAIN.values["html", "lang"] == ["en"]
    assert PLAIN.values["a", "href"][0] == "#cards"
    assert PLAIN.values["main", "id"] == ["cards"]
    assert set(PLAIN.values["label", "for"]) == set(PLAIN.values["input", "id"])
    assert PLAIN.texts["legend"] == ["Show"]
    assert ("div", ("class", "hidden")) in PLAIN.elements


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Kind.SUCCEEDED, "Succeeded"),
        (Kind.FAILED, "Failed"),
        (Kind.NOT_FOUND, "Not found"),
        (Kind.INVALID_ID, "Invalid id"),
        (None, "In no journal"),
    ],
)
def test_kinds_in_words(kind: Kind | None, words: str) -> None:
    """Each ending is told in plain words."""
    assert Card(title="a", kind=kind).ending == words
