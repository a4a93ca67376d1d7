"""What the gallery shows: a card for each task, and for image files that no journal mentions.

No URL of an image is kept: a signed one opens what it leads to for whoever has the page.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from itertools import zip_longest
from typing import Final, TypeVar

import attrs

from kling_omni_async._models import ImageTask
from kling_omni_async._outcome import TaskOutcome
from kling_omni_async._saving.copies import base_name
from kling_omni_async._saving.formats import KINDS, WATERMARKED, image_stems
from kling_omni_async.errors import PollTimeoutError

from .report import Kind, kind_of, reason_of
from .units import human_number, human_time, plural

T = TypeVar("T")

EXTENSIONS: Final = tuple(f".{kind.ending}" for kind in KINDS)
_SERIES = re.compile(r"(.+)-(\d{1,9})", re.DOTALL)
_QUERY = re.compile(r"(https?://[^\s?#]*)[?#]\S*", re.IGNORECASE)
_A_MINUTE: Final = 59.95  # s; what is less is not rounded to 60.0
_LONGEST_TEXT: Final = 2500  # a prompt may have as many; a gateway's text has no bounds
_MOST_DIGITS: Final = 30  # what is far from any price would only make sums slow


class Group(StrEnum):
    """What the filters tell apart; the values are the page's class names."""

    SUCCEEDED = "s"
    FAILED = "f"
    OTHER = "o"
    UNLISTED = "u"

    @property
    def words(self) -> str:
        """Its name on the page."""
        return "In no journal" if self is Group.UNLISTED else self.name.capitalize()


@attrs.frozen(kw_only=True)
class Picture:
    """One image of a card; without a file if it is not in the folder.

    Its number is its place in the task, from 1 on; a file that is no image of its task has none.
    """

    number: int | None = None
    file: str | None = None
    watermarked: str | None = None


@attrs.frozen(kw_only=True)
class Figures:
    """What is known of a task besides its end; times are in s."""

    status: str | None = None
    duration: float | None = None
    elapsed: float | None = None
    queries: int | None = None
    units: Decimal | None = None

    def words(self) -> list[str]:
        """Return what is known, for people."""
        # How long one polled says nothing beside how long it took, and may well be less.
        polled = self.elapsed if self.duration is None else None
        return [
            *_in_words("API status: {}", self.status, str),
            *_in_words("took {}", self.duration, _span),
            *_in_words("polled for {}", polled, _span),
            *_in_words("{}", self.queries, lambda count: plural(count, "query", "queries")),
            *_in_words("{} units", self.units, human_number),
        ]


def _span(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < _A_MINUTE else human_time(seconds)


def _in_words(form: str, value: T | None, write: Callable[[T], str]) -> list[str]:
    return [] if value is None else [form.format(write(value))]


@attrs.frozen(kw_only=True)
class Card:
    """One task, or image files of one stem that no journal mentions: they have no `kind`.

    Attributes:
        title: The id, or another name where there is none.
        kind: How polling ended.
        pictures: Its images, in their order.
        count: How many images the task has; None if nobody knows.
        reason: Why there is no success.
        gist: The reason without what differs from task to task.
        last_fault: What the last query met, where time ran out.
        external_task_id: The creator's own name for it.
        prompt: What was ordered, where this library created it.
        figures: The small print.
    """

    title: str
    kind: Kind | None = None
    pictures: tuple[Picture, ...] = ()
    count: int | None = None
    reason: str | None = None
    gist: str | None = None
    last_fault: str | None = None
    external_task_id: str | None = None
    prompt: str | None = None
    figures: Figures = attrs.field(factory=Figures)

    @property
    def is_seen(self) -> bool:
        """Whether an image of it is in the folder."""
        return any(picture.file is not None for picture in self.pictures)

    @property
    def group(self) -> Group:
        """The filter that it belongs to."""
        if self.kind is None:
            return Group.UNLISTED
        return _GROUPS.get(self.kind, Group.OTHER)

    @property
    def ending(self) -> str:
        """How polling ended, for people."""
        if self.kind is Kind.NOT_SAVED and self.is_seen:
            return "Not all saved"
        if self.group is Group.OTHER and self.kind is not None:
            return self.kind.value.replace("_", " ").capitalize()
        return self.group.words


_GROUPS: Final = {Kind.SUCCEEDED: Group.SUCCEEDED, Kind.FAILED: Group.FAILED}
# Where it follows from how polling ended what the API said.
_TOLD: Final = frozenset({Kind.SUCCEEDED, Kind.FAILED, Kind.NOT_SAVED, Kind.NO_IMAGES})


@attrs.frozen(kw_only=True)
class Totals:
    """The counts at the head of the page; the size of all image files is in bytes."""

    groups: Mapping[Group, int]
    images: int
    size: int
    units: Decimal

    @property
    def tasks(self) -> int:
        """How many tasks there are."""
        return sum(count for group, count in self.groups.items() if group is not Group.UNLISTED)


def count(cards: Collection[Card], files: Mapping[str, int]) -> Totals:
    """Count what is shown."""
    return Totals(
        groups=Counter(card.group for card in cards),
        images=sum(picture.file is not None for card in cards for picture in card.pictures),
        size=sum(files.values()),
        units=sum(filter(None, (card.figures.units for card in cards)), Decimal()),
    )


def cards_of(outcomes: Iterable[TaskOutcome], files: Collection[str]) -> list[Card]:
    """Return the cards of tasks in the order of their last outcomes, then those of other files."""
    by_id: dict[object, Card] = {}
    for outcome in outcomes:
        # What was never created has no id, and is a task of its own.
        key = outcome.task_id or (outcome.external_task_id, len(by_id))
        by_id.pop(key, None)  # so that it goes to the end
        by_id[key] = card_of(outcome, files)
    cards = list(by_id.values())
    pictures = [picture for card in cards for picture in card.pictures]
    mentioned = {name for each in pictures for name in (each.file, each.watermarked)}
    return cards + unlisted(name for name in files if name not in mentioned)


def card_of(outcome: TaskOutcome, files: Collection[str]) -> Card:
    """Return the card of an outcome; what it holds on to is small."""
    task, error = outcome.task, outcome.error
    last_fault = error.last_error if isinstance(error, PollTimeoutError) else None
    own_name = outcome.external_task_id or (None if task is None else task.external_task_id)
    return Card(
        title=outcome.task_id or own_name or "not created",
        kind=kind_of(outcome),
        pictures=_pictures_of(outcome, files),
        count=len(task.images) if task is not None and task.images else None,
        reason=None if error is None else _short(without_queries(error.what)),
        gist=None if error is None else without_queries(reason_of(error)),
        last_fault=None if last_fault is None else _short(without_queries(last_fault.what)),
        external_task_id=own_name if outcome.task_id else None,
        prompt=None if outcome.order is None else _short(outcome.order.prompt),
        figures=_figures_of(outcome),
    )


def without_queries(text: str) -> str:
    """Return a text in which no URL has its query, which may be a signature."""
    return _QUERY.sub(r"\1", text)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"


def _figures_of(outcome: TaskOutcome) -> Figures:
    # What was never asked for was not polled either.
    queries, task = outcome.queries or None, outcome.task
    elapsed = _time(outcome.elapsed) if queries else None
    if task is None:
        return Figures(elapsed=elapsed, queries=queries)
    return Figures(
        status=None if kind_of(outcome) in _TOLD else task.status.value,
        duration=_duration(task.created_at, task.updated_at),
        elapsed=elapsed,
        queries=queries,
        units=_units(task),
    )


def _duration(created: datetime | None, updated: datetime | None) -> float | None:
    # A journal that was edited may hold times without a zone, which take no difference.
    if created is None or updated is None or (created.tzinfo is None) != (updated.tzinfo is None):
        return None
    # None that took no time at all was made.
    return _time((updated - created).total_seconds()) or None


def _time(seconds: float) -> float | None:
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _units(task: ImageTask) -> Decimal | None:
    units = task.final_unit_deduction
    if units is None or not units.is_finite() or abs(units.adjusted()) > _MOST_DIGITS:
        return None
    return units


def _pictures_of(outcome: TaskOutcome, files: Collection[str]) -> tuple[Picture, ...]:
    """Return the images of a task in their order, those that are not in the folder among them."""
    there = {base_name(image.key): image.url for image in outcome.saved}
    there = {name: url for name, url in there.items() if name in files}
    images = () if outcome.task is None else outcome.task.images
    urls = [{image.url, image.watermark_url} for image in images]
    # A URL may have been signed anew since; its file still has the name of the image.
    strays = {name for name, url in there.items() if not any(url in each for each in urls)}
    stems = image_stems(outcome.task_id, images, watermarked=False).values()
    pictures: list[Picture] = []
    for number, (stem, own_urls) in enumerate(zip(stems, urls, strict=True), 1):
        own = [
            name
            for name, url in there.items()
            if url in own_urls or (name in strays and _original(name) == stem)
        ]
        there = {name: url for name, url in there.items() if name not in own}
        pictures += _paired(own, number=number) or [Picture(number=number)]
    return (*pictures, *_loose(there))


def _paired(names: Iterable[str], *, number: int | None = None) -> list[Picture]:
    """Return the pictures of one image: each original together with a watermarked copy."""
    originals: list[str] = []
    copies: list[str] = []
    for name in names:
        (copies if _is_copy(name) else originals).append(name)
    alone = [Picture(number=number, file=name) for name in copies[len(originals) :]]
    together = zip_longest(originals, copies[: len(originals)])
    return [Picture(number=number, file=one, watermarked=two) for one, two in together] + alone


def _loose(names: Iterable[str]) -> list[Picture]:
    """Return the pictures of files of which no task knows."""
    by_image: dict[str, list[str]] = {}
    for name in names:
        by_image.setdefault(_original(name), []).append(name)
    return [picture for own in by_image.values() for picture in _paired(own)]


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _is_copy(name: str) -> bool:
    return _stem(name).endswith(WATERMARKED)


def _original(name: str) -> str:
    """Return what the name of an image and of its watermarked copy begin with."""
    return _stem(name).removesuffix(WATERMARKED)


def unlisted(names: Iterable[str]) -> list[Card]:
    """Return a card for the images of each stem."""
    by_stem: dict[str, list[str]] = {}
    for (stem, _), name in sorted((_place(name), name) for name in names):
        by_stem.setdefault(stem, []).append(name)
    cards = [(stem or own[0], own) for stem, own in by_stem.items()]
    return [Card(title=title, pictures=tuple(_loose(own))) for title, own in cards]


def _place(name: str) -> tuple[str, int]:
    """Return the stem and the index of a name such as ``<stem>-<index>.png``."""
    image = _original(name)
    match = _SERIES.fullmatch(image)
    return (match[1], int(match[2])) if match else (image, 0)
