"""The gallery: one page, beside the image files, that shows what came of each task."""

from __future__ import annotations

import os
import secrets
from collections.abc import Generator, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from kling_omni_async._outcome import TaskOutcome

from .cards import EXTENSIONS, Group, Totals, cards_of, count
from .exit import OutputError, UsageError
from .html import plural
from .journal import read_outcomes
from .page import GENERATOR, page
from .signals import heed_signals
from .terminal import note, out, plain

NAME: Final = "index.html"
_HEAD_BYTES: Final = 4096
_BUFFER_BYTES: Final = 1 << 16


def gallery(directory: Path, journals: Sequence[Path] | None, *, overwrite: bool) -> None:
    """Write the gallery of a folder, and print where it is.

    Args:
        directory: The folder with the images.
        journals: The journals; None for all in the folder.
        overwrite: Replace an index.html of somebody else.

    Raises:
        CliError: It cannot be written, or a journal is none.
        KeyboardInterrupt: A signal came.
    """
    heed_signals()
    totals = _write(directory, outcomes_of(directory, journals), overwrite=overwrite)
    out(plain(str(directory / NAME)))
    note(_told(totals))


def write_outcomes(
    directory: Path, outcomes: Iterable[TaskOutcome], *, overwrite: bool = False
) -> Path:
    """Write the gallery of a folder.

    Args:
        directory: The folder with the images.
        outcomes: What came of the tasks, in the order to show.
        overwrite: Replace an index.html of somebody else.

    Returns:
        The page.

    Raises:
        CliError: It cannot be written.
    """
    _write(directory, outcomes, overwrite=overwrite)
    return directory / NAME


def _write(directory: Path, outcomes: Iterable[TaskOutcome], *, overwrite: bool) -> Totals:
    files = _images_in(directory)
    target = directory / NAME
    if not overwrite and os.path.lexists(target) and not _is_ours(target):
        raise UsageError(f"{target} is not of this program; --overwrite replaces it")
    cards = cards_of(outcomes, files)
    totals = count(cards, files)
    _replace(target, page(directory.resolve().name or str(directory), totals, cards))
    return totals


def _told(totals: Totals) -> str:
    groups = totals.groups
    unlisted = groups.get(Group.UNLISTED, 0)
    return (
        f"{plural(totals.tasks, 'task', 'tasks')}: {groups.get(Group.SUCCEEDED, 0):,} succeeded, "
        f"{groups.get(Group.FAILED, 0):,} failed, {groups.get(Group.OTHER, 0):,} other; "
        f"{plural(totals.images, 'image', 'images')}"
        + (f"; {plural(unlisted, 'name', 'names')} in no journal" if unlisted else "")
    )


def _images_in(directory: Path) -> dict[str, int]:
    """Give the size of each image file; what is hidden, or no plain file, is none."""
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
    """Read journals; one that cannot be read is told, and passed over."""
    for path in _journals_in(directory) if journals is None else journals:
        try:
            if not path.is_file() and path.exists():
                raise OSError("no plain file")  # noqa: TRY301 - told like the others
            yield from read_outcomes(path)
        except OSError as error:
            note(f"cannot read {path}: {error.strerror or error}; going on without it")


def _journals_in(directory: Path) -> list[Path]:
    return sorted(
        path
        for path in directory.glob("*.jsonl")
        if path.is_file() and not path.name.startswith(".")
    )


def _is_ours(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return GENERATOR.encode() in file.read(_HEAD_BYTES)
    except OSError:
        return False


def _replace(target: Path, pieces: Iterable[str]) -> None:
    """Write a file whole or not at all."""
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
