"""Where outcomes go: plain lines, JSON lines, or a journal."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Collection, Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import TypeAlias

import attrs

from kling_omni_async._outcome import TaskOutcome

from .exit import described
from .id_rows import IdRow
from .journal import Earlier, Entry, IsDone, Journal
from .report import Kind, kind_of
from .table import Table
from .terminal import painted, plain, wants_colour

Out: TypeAlias = Callable[[str], Awaitable[None]]


def _nothing(_: object) -> None:
    pass


def _no_entries(_: object) -> Iterable[Entry]:
    return ()


@attrs.frozen
class Sink:
    """Takes outcomes, and knows the ids that need no polling."""

    write: Callable[[TaskOutcome], Awaitable[None]]
    settled: Mapping[str, Earlier] = attrs.field(factory=dict[str, Earlier])
    elsewhere: Collection[str] = ()  # ids whose images other stores have
    recall: Callable[[str], Entry | None] = _nothing
    recall_elsewhere: Callable[[str], Iterable[Entry]] = _no_entries
    repeat: Callable[[str], None] = _nothing  # for what is settled
    again: Callable[[TaskOutcome], None] = _nothing  # for what an earlier run has written
    expect: Callable[[IdRow], None] = _nothing

    def beside(self, table: Table) -> Sink:
        """Return a sink that writes to a table too."""

        async def write(outcome: TaskOutcome) -> None:
            await self.write(outcome)
            table.add(outcome)

        def repeat(task_id: str) -> None:
            if (entry := self.recall(task_id)) is not None:
                table.add(entry.outcome)

        return attrs.evolve(self, write=write, repeat=repeat, again=table.add, expect=table.expect)


@contextmanager
def open_sink(
    jsonl: str | None, out: Out, *, is_done: IsDone = lambda _: True, store: str | None = None
) -> Generator[Sink]:
    """Open the place for outcomes: a journal, with ``-`` JSON lines on stdout, or plain lines."""
    if jsonl is None:
        colour = wants_colour(sys.stdout)
        yield Sink(lambda outcome: out(plain_line(outcome, colour=colour)))
    elif jsonl == "-":
        yield Sink(lambda outcome: out(Entry(outcome, store).line()))
    else:
        with Journal(jsonl, is_done=is_done, store=store) as journal:
            yield Sink(
                journal.append,
                settled=journal.settled,
                elsewhere=journal.elsewhere,
                recall=journal.recall,
                recall_elsewhere=journal.recall_elsewhere,
            )


def plain_line(outcome: TaskOutcome, *, colour: bool = False) -> str:
    """Write an outcome as id, word, and images or reason, with tabs between.

    Images are told by their keys where they were saved, else by their URLs.
    """
    kind = kind_of(outcome)
    if outcome.error is None:
        images = [image.key for image in outcome.saved] or [image.url for image in outcome.images]
        text = " ".join(images)
    else:
        # Of other kinds the hint is the same for each id.
        text = described(outcome.error) if kind is Kind.NOT_SAVED else outcome.error.what
    word = painted(kind, kind.style, colour=colour)
    return "\t".join((plain(outcome.task_id or outcome.external_task_id or ""), word, plain(text)))
