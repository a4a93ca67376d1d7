"""The gallery's page: whatever an API sent comes out as text."""

from __future__ import annotations

import base64
import hashlib
import re
from decimal import Decimal
from html.parser import HTMLParser
from urllib.parse import unquote_to_bytes, urlsplit

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_omni_async import ImageTask, TaskFailedError, TaskOutcome, TaskStatus
from kling_omni_async._cli.cards import Card, Figures, Picture, Totals, card_of, count
from kling_omni_async._cli.gallery import page, visible
from kling_omni_async._cli.heaps import NO_REASON, heaps_of
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


def full(value: str, name: str) -> Card:
    """Make a card that has the value wherever an API's or a user's text can stand."""
    return Card(
        title=value,
        kind=Kind.TIMED_OUT,
        pictures=(Picture(number=1, file=name, watermarked=name), Picture(number=2)),
        count=2,
        reason=value or "-",
        gist=value or "-",
        last_fault=value,
        external_task_id=value,
        prompt=value,
        figures=Figures(status="processing", elapsed=61.0, queries=1, units=Decimal("0.50")),
    )


def unseen(value: str) -> list[Card]:
    """Make cards without a file that have the value wherever a text can stand."""
    card = attrs.evolve(full(value, "-"), pictures=())
    return [card, attrs.evolve(card, reason=f"{value}!")]


PLAIN = Parsed(whole(full("plain", "plain.png"), *unseen("plain")))


@given(value=ANY, name=ANY.filter(lambda name: max(name, default="") < "\ud800"))
def test_any_text_stays_text(value: str, name: str) -> None:
    """No id, reason, file name or title adds an element or an attribute; each comes out whole."""
    parsed = Parsed(whole(full(value, name), *unseen(value), title=value))
    assert parsed.elements == PLAIN.elements
    assert parsed.strange == []
    seen, reason = visible(value), visible(value or "-")
    row = [seen, seen, seen, seen]  # title, last fault, prompt and external id
    tile, rows = [seen, seen, reason, seen], [*row, seen, f"{seen}!", *row[1:]]
    assert parsed.texts["bdi"] == [seen, *tile, reason, *rows]
    assert parsed.values["img", "alt"] == [f"Image 1 of 2, {seen}"]
    assert parsed.texts["title"] == [f"{seen} · Kling Omni gallery"]
    hrefs = [parsed.values["img", "src"][0], parsed.values["a", "href"][-2]]
    assert [unquote_to_bytes(href).decode() for href in hrefs] == [name, name]


@given(name=st.text(min_size=1, alphabet=st.characters(codec="utf-8")) | st.just("javascript:x"))
def test_a_file_name_is_one_relative_segment(name: str) -> None:
    """No file name leads out of the folder or to another scheme."""
    parsed = Parsed(whole(Card(title="a", pictures=(Picture(file=name),))))
    (source,) = parsed.values["img", "src"]
    assert re.fullmatch(r"[\w.~%-]+", source, re.ASCII)
    assert urlsplit(source)[:2] == ("", "")


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
    assert "Timed out" in PLAIN.texts["p"]
    spans = [text.strip() for text in PLAIN.texts["span"]]
    figures = ["API status: processing ·", "polled for 1 min 1 s ·", "1 query ·", "0.5 units ·"]
    assert spans[:5] == ["Image 2 of 2 is not in this folder", *figures]
    assert "The last query met: " in PLAIN.texts["p"]
    assert "image 1 with watermark" in PLAIN.texts["a"]
    assert PLAIN.values["li", "class"] == ["o", "o", "o"]
    assert PLAIN.values["details", "class"] == ["o"]


def test_images_wait_until_they_are_seen() -> None:
    """Each image is lazy, is decoded aside, and links to its file."""
    card = Card(title="a", pictures=(Picture(number=1, file="a-0.png"),), count=1)
    parsed = Parsed(whole(card))
    assert ("img", ("src", "alt", "loading", "decoding")) in parsed.elements
    assert parsed.values["img", "loading"] == ["lazy"]
    assert parsed.values["a", "href"][1:2] == parsed.values["img", "src"] == ["a-0.png"]


def test_a_card_of_files_alone_has_no_status() -> None:
    """Images that no journal mentions have a filter of their own, and no figures."""
    parsed = Parsed(whole(Card(title="holiday", pictures=(Picture(file="holiday.png"),))))
    assert parsed.values["li", "class"] == ["u"]
    assert "In no journal " in parsed.texts["label"]
    assert parsed.texts["p"] == ["In no journal", "Nothing is found.", ""]
    assert parsed.values["img", "alt"] == ["holiday.png"]


def test_a_failed_card_gives_its_reason() -> None:
    """The word of the API is not said twice; an empty reason is told as such."""
    task = ImageTask(task_id="a", status=TaskStatus.FAILED)
    outcome = TaskOutcome(task_id="a", task=task, error=TaskFailedError(""))
    parsed = Parsed(whole(card_of(outcome, ())))
    assert parsed.values["li", "class"] == ["f"]
    assert NO_REASON in parsed.texts["bdi"]
    assert not any("API" in text for text in parsed.texts["p"])


def test_the_head_counts() -> None:
    """Tasks, images, bytes and units stand at the head, and each filter says how many it shows."""
    cards = [
        Card(
            title="a",
            kind=Kind.SUCCEEDED,
            pictures=(Picture(file="a-0.png"),),
            figures=Figures(units=Decimal(8)),
        ),
        Card(title="b", kind=Kind.FAILED, reason="no", figures=Figures(units=Decimal("0.25"))),
        Card(title="c", kind=Kind.NOT_FOUND, reason="no"),
        Card(title="d", kind=Kind.ERROR, reason="no", pictures=(Picture(number=1),), count=1),
        Card(title="e", pictures=(Picture(file="e.png"),)),
    ]
    parsed = Parsed(whole(*cards, totals=count(cards, {"a-0.png": 1500, "e.png": 500})))
    assert dict(zip(parsed.texts["dt"], parsed.texts["dd"], strict=True)) == {
        "tasks": "4",
        "images": "2",
        "in files": "2.0 kB",
        "units": "8.25",
    }
    names = [label.strip() for label in parsed.texts["label"][:5]]
    assert dict(zip(names, parsed.texts["b"], strict=False)) == {
        "All": "5",
        "Succeeded": "1",
        "Failed": "1",
        "Other": "2",
        "In no journal": "1",
    }


def test_unknown_prices_are_not_told_as_nothing() -> None:
    """Without one price there is no sum of them."""
    assert "units" not in Parsed(whole(Card(title="a", kind=Kind.SUCCEEDED))).texts["dt"]


def test_an_empty_gallery_says_so() -> None:
    """A folder without images and journals is a page too; its filter for files is left out."""
    parsed = Parsed(whole())
    assert "There are no tasks and no images here yet." in parsed.texts["p"]
    assert parsed.texts["label"][:4] == ["All ", "Succeeded ", "Failed ", "Other "]
    assert "In no journal " not in parsed.texts["label"]


def test_it_can_be_used_without_a_mouse_or_a_script() -> None:
    """Language, title, skip link, labels and legend are there; what needs a script is hidden."""
    assert PLAIN.values["html", "lang"] == ["en"]
    assert PLAIN.values["a", "href"][0] == "#cards"
    assert PLAIN.values["main", "id"] == ["cards"]
    ids = {*PLAIN.values["input", "id"], *PLAIN.values["select", "id"]}
    assert set(PLAIN.values["label", "for"]) == ids
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


def ended(title: str, reason: str | None, kind: Kind = Kind.FAILED, **fields: str) -> Card:
    """Make the card of a task without an image."""
    return Card(title=title, kind=kind, reason=reason, gist=fields.get("gist", reason))


def test_failures_stand_together_by_reason() -> None:
    """The largest heap of those that failed comes first; a reason is said once."""
    cards = [
        ended("a", "risk"),
        ended("b", "pixel"),
        ended("c", "pixel"),
        ended("d", "pixel"),
        ended("e", "risk"),
        ended("f", "502 of 7", Kind.TIMED_OUT, gist="502"),
        ended("g", "502 of 8", Kind.TIMED_OUT, gist="502"),
        ended("h", None, Kind.SUCCEEDED),
    ]
    heaps = heaps_of(cards)
    assert [
        (heap.group, heap.ending, heap.gist, [(row.card.title, row.reason) for row in heap.rows])
        for heap in heaps
    ] == [
        ("f", "Failed", "pixel", [("b", None), ("c", None), ("d", None)]),
        ("f", "Failed", "risk", [("a", None), ("e", None)]),
        ("o", "Timed out", "502", [("f", "502 of 7"), ("g", "502 of 8")]),
        ("s", "Succeeded", "The images are not in this folder.", [("h", None)]),
    ]


def test_reasons_of_one_task_each_stand_together() -> None:
    """A thousand different reasons are one heap, in which each row says its own."""
    (heap,) = heaps_of(ended(str(at), f"reason {at}") for at in range(1000))
    assert heap.gist is None
    assert [row.reason for row in heap.rows[:2]] == ["reason 0", "reason 1"]
    assert not heap.is_small
    (alone,) = heaps_of([ended("a", "")])
    assert (alone.gist, alone.rows[0].reason, alone.is_small) == (NO_REASON, None, True)


def test_images_come_first() -> None:
    """What has an image in the folder stands before all that has none, whatever the order."""
    cards = [ended("a", "no"), Card(title="b", pictures=(Picture(file="b.png"),)), ended("c", "no")]
    parsed = Parsed(whole(*cards))
    assert parsed.values["li", "class"] == ["u", "f", "f"]
    assert ("details", ("class", "open")) in parsed.elements


def test_the_time_a_task_took_is_there_to_sort_by() -> None:
    """Where it is known."""
    cards = [ended("a", "no"), attrs.evolve(ended("b", "no"), figures=Figures(duration=2.5))]
    parsed = Parsed(whole(*cards))
    assert parsed.values["li", "data-took"] == ["2.5"]
