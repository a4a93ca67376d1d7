"""Where outcomes go: a journal, JSON lines or plain lines on stdout."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import TypeAlias

import attrs

from kling_omni_async._outcome import TaskOutcome

from .colour import painted, wants_colour
from .journal import Journal
from .summary import Kind, kind_of, style_of
from .terminal import json_line, note, plain

Out: TypeAlias = Callable[[str], None]


@attrs.frozen
class Sink:
    """Takes outcomes.

    Attributes:
        write: Takes one outcome; may raise `OutputError`.
        settled: The ids that need no polling, and how they ended.
    """

    write: Callable[[TaskOutcome], None]
    settled: Mapping[str, Kind] = attrs.field(factory=dict[str, Kind])


@contextmanager
def open_sink(
    jsonl: str | None, out: Out, is_done: Callable[[TaskOutcome], bool] = lambda _: True
) -> Generator[Sink]:
    """Give the place for outcomes.

    Args:
        jsonl: The path of a journal, ``-`` for JSON lines on stdout, or None for plain lines.
        out: Writes a line to stdout.
        is_done: Whether a settled outcome of a journal leaves nothing else to do.

    Raises:
        CliError: The journal cannot be used.
    """
    if jsonl is None:
        colour = wants_colour(sys.stdout)
        yield Sink(lambda outcome: out(plain_line(outcome, colour=colour)))
    elif jsonl == "-":
        yield Sink(lambda outcome: out(json_line(outcome.to_dict())))
    else:
        with Journal(jsonl, is_done=is_done) as journal:
            if journal.torn:
                note(f"dropped a torn last line of {jsonl} ({journal.torn} bytes)")
            yield Sink(journal.write, journal.settled)


def plain_line(outcome: TaskOutcome, *, colour: bool = False) -> str:
    """Give an outcome as id, word, and images or reason, with tabs between.

    Images are told by their keys where they were saved, else by their URLs.
    """
    if outcome.error is None:
        images = [image.key for image in outcome.saved] or [image.url for image in outcome.images]
        text = " ".join(images)
    else:
        text = str(outcome.error)
    kind = kind_of(outcome)
    word = painted(kind, style_of(kind), colour=colour)
    return "\t".join((plain(outcome.task_id), word, plain(text)))
