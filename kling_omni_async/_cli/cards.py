"""What the gallery shows: a card for each task, and for image files that no journal mentions."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Final, TypeVar

import attrs

from kling_omni_async._models import ImageTask
from kling_omni_async._outcome import TaskOutcome
from kling_omni_async._saving.copies import base_name
from kling_omni_async._saving.formats import KINDS, WATERMARKED
from kling_omni_async.errors import PollTimeoutError

from .report import Kind, kind_of
from .units import human_number, human_time, plural

T = TypeVar("T")

EXTENSIONS: Final = tuple(f".{kind.ending}" for kind in KINDS)
_SERIES = re.compile(r"(.+)-(\d{1,9})", re.DOTALL)
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
    """One image of a card: names of files in the folder, and where the API had it."""

    file: str | None = None
    watermarked: str | None = None
    url: str | None = None


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
        return [
            *_in_words("API status: {}", self.status, str),
            *_in_words("took {}", self.duration, human_time),
            *_in_words("polled for {}", self.elapsed, human_time),
            *_in_words("{}", self.queries, lambda count: plural(count, "query", "queries")),
            *_in_words("{} units", self.units, human_number),
        ]


def _in_words(form: str, value: T | None, write: Callable[[T], str]) -> list[str]:
    return [] if value is None else [form.format(write(value))]


@attrs.frozen(kw_only=True)
class Card:
    """One task, or image files of one stem that no journal mentions: they have no `kind`."""

    title: str
    kind: Kind | None = None
    pictures: tuple[Picture, ...] = ()
    reason: str | None = None
    last_fault: str | None = None
    external_task_id: str | None = None
    figures: Figures = attrs.field(factory=Figures)

    @property
    def group(self) -> Group:
        """The filter that it belongs to."""
        if self.kind is None:
            return Group.UNLISTED
        return _GROUPS.get(self.kind, Group.OTHER)

    @property
    def ending(self) -> str:
        """How polling ended, for people."""
        if self.group is Group.OTHER and self.kind is not None:
            return self.kind.value.replace("_", " ").capitalize()
        return self.group.words


_GROUPS: Final = {Kind.SUCCEEDED: Group.SUCCEEDED, Kind.FAILED: Group.FAILED}


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
    by_id: dict[str, Card] = {}
    for outcome in outcomes:
        by_id.pop(outcome.task_id, None)  # so that it goes to the end
        by_id[outcome.task_id] = card_of(outcome, files)
    cards = list(by_id.values())
    pictures = [picture for card in cards for picture in card.pictures]
    mentioned = {name for each in pictures for name in (each.file, each.watermarked)}
    return cards + unlisted(name for name in files if name not in mentioned)


def card_of(outcome: TaskOutcome, files: Collection[str]) -> Card:
    """Return the card of an outcome; what it holds on to is small."""
    task, error = outcome.task, outcome.error
    last_fault = error.last_error if isinstance(error, PollTimeoutError) else None
    return Card(
        title=outcome.task_id,
        kind=kind_of(outcome),
        pictures=_pictures_of(outcome, files),
        reason=None if error is None else error.what,
        last_fault=None if last_fault is None else str(last_fault),
        external_task_id=None if task is None else task.external_task_id,
        figures=_figures_of(outcome),
    )


def _figures_of(outcome: TaskOutcome) -> Figures:
    elapsed, queries, task = _time(outcome.elapsed), outcome.queries, outcome.task
    if task is None:
        return Figures(elapsed=elapsed, queries=queries)
    return Figures(
        # Where polling ended with the API's own word, that word stands on the card already.
        status=None if kind_of(outcome) in _GROUPS else task.status.value,
        duration=_duration(task.created_at, task.updated_at),
        elapsed=elapsed,
        queries=queries,
        units=_units(task),
    )


def _duration(created: datetime | None, updated: datetime | None) -> float | None:
    # A journal that was edited may hold times without a zone, which take no difference.
    if created is None or updated is None or (created.tzinfo is None) != (updated.tzinfo is None):
        return None
    return _time((updated - created).total_seconds())


def _time(seconds: float) -> float | None:
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _units(task: ImageTask) -> Decimal | None:
    units = task.final_unit_deduction
    if units is None or not units.is_finite() or abs(units.adjusted()) > _MOST_DIGITS:
        return None
    return units


def _pictures_of(outcome: TaskOutcome, files: Collection[str]) -> tuple[Picture, ...]:
    there = {base_name(image.key): image.url for image in outcome.saved}
    there = {name: url for name, url in there.items() if name in files}
    # By URL, as a watermarked copy may have been saved in place of its original.
    saved = set(there.values())
    images = () if outcome.task is None else outcome.task.images
    missing = [
        Picture(url=each.url) for each in images if not saved & {each.url, each.watermark_url}
    ]
    return (*paired(there), *missing)


def paired(names: Iterable[str]) -> list[Picture]:
    """Return a picture for each image file, a watermarked copy together with its original."""
    names = list(names)
    copies: dict[str, str] = {}
    for name in names:
        if _is_copy(name):
            copies.setdefault(_stem(name).removesuffix(WATERMARKED), name)
    pictures = [
        Picture(file=name, watermarked=copies.pop(_stem(name), None))
        for name in names
        if not _is_copy(name)
    ]
    taken = {picture.watermarked for picture in pictures}
    alone = [name for name in names if _is_copy(name) and name not in taken]
    return [*pictures, *(Picture(file=name) for name in alone)]


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _is_copy(name: str) -> bool:
    return _stem(name).endswith(WATERMARKED)


def unlisted(names: Iterable[str]) -> list[Card]:
    """Return a card for the images of each stem."""
    by_stem: dict[str, list[str]] = {}
    for (stem, _), name in sorted((_place(name), name) for name in names):
        by_stem.setdefault(stem, []).append(name)
    return [Card(title=stem, pictures=tuple(paired(own))) for stem, own in by_stem.items()]


def _place(name: str) -> tuple[str, int]:
    """Return the stem and the index of a name such as ``<stem>-<index>.png``."""
    image = _stem(name).removesuffix(WATERMARKED)
    match = _SERIES.fullmatch(image)
    return (match[1], int(match[2])) if match else (image, 0)
