"""The gallery: one page, beside the image files, that shows what came of each task."""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import quote

from cyclopts import Parameter
from jinja2 import Environment, StrictUndefined, Template

from kling_omni_async._outcome import TaskOutcome
from kling_omni_async._version import __version__

from .cards import EXTENSIONS, Card, Group, Picture, Totals, cards_of, count
from .exit import OutputError, UsageError
from .heaps import NO_REASON, heaps_of
from .journal import read_outcomes
from .signals import heed_signals
from .terminal import note, out, plain
from .units import human_number, human_size, plural

NAME: Final = "index.html"
_GENERATOR: Final = b'<meta name="generator" content="kling-omni '  # as it stands in gallery.html
_HEAD_BYTES: Final = 4096
_BUFFER_BYTES: Final = 1 << 16
_HIDDEN: Final[dict[int, str]] = {
    **{code: chr(0x2400 + code) for code in range(0x20)},  # Unicode's pictures of controls
    **dict.fromkeys(map(ord, "\t\n\r"), " "),
    0x7F: "\u2421",
    **dict.fromkeys(
        # C1 controls, what overrides the direction of writing, halves of characters, no characters
        (
            *range(0x80, 0xA0),
            *range(0x202A, 0x202F),
            *range(0x2066, 0x206A),
            *range(0xD800, 0xE000),
            *range(0xFDD0, 0xFDF0),
            *(plane + end for plane in range(0, 0x110000, 0x10000) for end in (0xFFFE, 0xFFFF)),
        ),
        "\ufffd",
    ),
}


def gallery(
    directory: Path,
    /,
    *,
    jsonl: Annotated[tuple[Path, ...] | None, Parameter(metavar="FILE")] = None,
    title: Annotated[str | None, Parameter(metavar="TEXT")] = None,
    overwrite: Annotated[bool, Parameter(show_default=False)] = False,
) -> None:
    """Write DIRECTORY/index.html: a page of all tasks and their saved images.

    Prints the path of the page.

    Args:
        directory: The folder with the images.
        jsonl: A journal; may be repeated. Without it all *.jsonl in the folder are read.
        title: The heading of the page; by default the name of the folder.
        overwrite: Replace an index.html that is not of this program.
    """
    heed_signals()
    outcomes = outcomes_of(directory, jsonl)
    totals = write_outcomes(directory, outcomes, title=title, overwrite=overwrite)
    out(plain(str(directory / NAME)))
    note(_summary(totals))


def write_outcomes(
    directory: Path,
    outcomes: Iterable[TaskOutcome],
    *,
    title: str | None = None,
    overwrite: bool = False,
) -> Totals:
    """Write the gallery of a folder, in the order given, and return what was counted."""
    sizes = _images_in(directory)
    target = directory / NAME
    if not overwrite and is_foreign(target):
        raise UsageError(f"{target} is not of this program; --overwrite replaces it")
    cards = cards_of(outcomes, sizes)
    totals = count(cards, sizes)
    if not (title and title.strip()):
        title = directory.resolve().name or str(directory)
    _replace(target, page(title, totals, cards))
    return totals


def _summary(totals: Totals) -> str:
    groups = totals.groups
    unlisted = groups.get(Group.UNLISTED, 0)
    return (
        f"{plural(totals.tasks, 'task', 'tasks')}: {groups.get(Group.SUCCEEDED, 0):,} succeeded, "
        f"{groups.get(Group.FAILED, 0):,} failed, {groups.get(Group.OTHER, 0):,} other; "
        f"{plural(totals.images, 'image', 'images')}"
        + (f"; {plural(unlisted, 'name', 'names')} in no journal" if unlisted else "")
    )


def _images_in(directory: Path) -> dict[str, int]:
    """Return the size of each image file; what is hidden, or no plain file, is none."""
    try:
        with os.scandir(directory) as entries:
            return {
                entry.name: entry.stat(follow_symlinks=False).st_size
                for entry in entries
                if entry.name.endswith(EXTENSIONS)
                and not entry.name.startswith(".")
                and entry.is_file(follow_symlinks=False)
            }
    except OSError as error:
        raise UsageError(f"cannot read the folder {directory}: {error.strerror or error}") from None


def outcomes_of(directory: Path, journals: Sequence[Path] | None) -> Generator[TaskOutcome]:
    """Read the journals that are named, or else all of a folder.

    One of the folder that cannot be read, or is of another program, is told and passed over from
    there on.

    Raises:
        UsageError: One that was named cannot be read.
    """
    for path in _journals_in(directory) if journals is None else journals:
        try:
            yield from _outcomes_in(path)
        except UsageError as error:
            if journals is not None:
                raise
            note(f"{error}; going on without it")


def _outcomes_in(path: Path) -> Generator[TaskOutcome]:
    try:
        # A pipe would wait for a writer.
        if not path.is_file() and path.exists():
            raise OSError("no plain file")  # noqa: TRY301 - told like the others
        yield from read_outcomes(path)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from None


def _journals_in(directory: Path) -> list[Path]:
    found = sorted(directory.glob("*.jsonl"))
    return [path for path in found if path.is_file() and not path.name.startswith(".")]


def is_foreign(path: Path) -> bool:
    """Return whether a page is there that is not of this program."""
    # Not `exists`: a link that leads nowhere is somebody's too.
    return os.path.lexists(path) and not _is_ours(path)


def _is_ours(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return _GENERATOR in file.read(_HEAD_BYTES)
    except OSError:
        return False


def _replace(target: Path, pieces: Iterable[str]) -> None:
    """Write a file whole or not at all."""
    # A name that nobody can guess and that must be new: no link of a stranger is written through.
    part = target.with_name(f".{target.name}.{secrets.token_hex(8)}.part")
    try:
        with part.open("x", encoding="utf-8", newline="\n", buffering=_BUFFER_BYTES) as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except OSError as error:
        raise OutputError(str(target), error) from None
    finally:
        with suppress(OSError):
            part.unlink()


def page(title: str, totals: Totals, cards: Collection[Card]) -> Iterator[str]:
    """Return the page piece by piece; nothing that an API sent can run or steer in it."""
    return _template().generate(
        title=title,
        version=__version__,
        css=_resource("gallery.css"),
        js=_resource("gallery.js"),
        figures=_figures(totals),
        filters=_filters(totals, len(cards)),
        cards=[card for card in cards if card.is_seen],
        heaps=heaps_of(card for card in cards if not card.is_seen),
        empty=not cards,
        no_reason=NO_REASON,
        digest=_digest,
        facts_of=_facts_of,
        label=_label,
        file_link=file_link,
    )


@cache
def _template() -> Template:
    environment = Environment(
        # Each value that the template prints is made visible, then escaped: one place for all.
        autoescape=True,
        finalize=_visible_unless_markup,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    return environment.from_string(_resource("gallery.html"))


@cache
def _resource(name: str) -> str:
    return (files("kling_omni_async._cli") / name).read_text("utf-8")


def _visible_unless_markup(value: object) -> object:
    return value if hasattr(value, "__html__") else visible(str(value))


def visible(text: str) -> str:
    """Return text in which everything that would not show does, and nothing turns it around."""
    return text if text.isascii() and text.isprintable() else text.translate(_HIDDEN)


def file_link(name: str) -> str:
    """Return the relative address of a file in the page's folder."""
    return quote(os.fsencode(name), safe="")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _figures(totals: Totals) -> list[tuple[str, str]]:
    """Return name and value of each figure at the head of the page."""
    figures = [
        ("tasks", f"{totals.tasks:,}"),
        ("images", f"{totals.images:,}"),
        ("in files", human_size(totals.size)),
    ]
    # Nobody who knows no price is told that it was nothing.
    return figures + ([("units", human_number(totals.units))] if totals.units else [])


def _filters(totals: Totals, shown: int) -> list[tuple[str, str, str]]:
    """Return id, words and count of each filter."""
    usual = (Group.SUCCEEDED, Group.FAILED, Group.OTHER)
    groups = [group for group in Group if group in usual or totals.groups.get(group)]
    counted = [(str(each), each.words, f"{totals.groups.get(each, 0):,}") for each in groups]
    return [("a", "All", f"{shown:,}"), *counted]


def _label(card: Card, picture: Picture) -> str:
    """Return which image of which task one is; a file of no task is told by its name."""
    if picture.number is None:
        return picture.file or ""
    return f"Image {picture.number} of {card.count}, {card.title}"


def _facts_of(card: Card) -> list[tuple[str, str | None, str | None]]:
    """Return the small print of a card: words, a file they lead to, and a name behind them."""
    marked = [picture for picture in card.pictures if picture.watermarked is not None]
    own_name = card.external_task_id
    return [
        *((words, None, None) for words in card.figures.words()),
        *((_copy_in_words(picture), picture.watermarked, None) for picture in marked),
        *([] if own_name is None else [("external id", None, own_name)]),
    ]


def _copy_in_words(picture: Picture) -> str:
    which = "image" if picture.number is None else f"image {picture.number}"
    return f"{which} with watermark"
