"""The journal of `generate` and `create`: intents before their POST, and outcomes."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Self

import attrs

from kling_omni_async._api.create import CreateRequest
from kling_omni_async._models import ImageTask
from kling_omni_async._outcome import TaskOutcome

from .budget import cost_of, price_of
from .exit import Exit, OutputError
from .intents import Intent, Step
from .journal import Entry, IsDone, Line, lines_in, read_back
from .locked_file import LockedFile
from .report import Kind, kind_of, reason_of


# Eleven attributes: what was ordered (4), how far that is (4), and what it may have cost (3).
@attrs.define(kw_only=True)
class Record:
    """What a journal says of one order."""

    external_id: str
    digest: str
    key: str | None
    units: int | None
    step: Step = Step.POSTING
    task_id: str = ""
    ended: Kind | None = None  # where running again brings nothing new
    reason: str = ""  # why it has failed
    is_uncertain: bool = False  # as an outcome says
    doubts: int = 0  # earlier creates that may have been paid for, and were sent again
    cost: Decimal | None = None  # of what has ended, in units

    def note(self, intent: Intent) -> None:
        """Note a step of its create."""
        if intent.step is Step.POSTING and self.is_open:
            self.doubts += 1
        self.step, self.is_uncertain = intent.step, False
        self.task_id = intent.task_id

    def end(self, entry: Entry, is_done: IsDone) -> None:
        """Note how it ended."""
        outcome = entry.outcome
        kind = kind_of(outcome)
        self.is_uncertain = kind is Kind.UNCERTAIN
        self.task_id = outcome.task_id or self.task_id
        self.cost = None if self.is_uncertain else cost_of(outcome, self.units or 0)
        self.reason = "" if outcome.error is None else reason_of(outcome.error)
        self.ended = kind if outcome.settled and is_done(entry) else None

    @property
    def is_open(self) -> bool:
        """Whether nobody knows if there is a task."""
        return not self.task_id and (self.is_uncertain or self.step is Step.POSTING)

    @property
    def has_succeeded(self) -> bool:
        """Whether its images are made, also where they are not in the place of this run."""
        return self.cost is not None and not self.reason

    @property
    def is_free(self) -> bool:
        """Whether it is certain that its last create has made nothing."""
        return not self.task_id and not self.is_open


class Records:
    """What a journal says, by external id in the order of the first intents."""

    def __init__(self, is_done: IsDone = lambda _: True) -> None:
        self.by_name: dict[str, Record] = {}
        self._is_done = is_done

    def take(self, line: Line) -> None:
        """Note what a line says."""
        if (intent := line.intent) is not None:
            record = self.by_name.get(intent.external_id)
            if record is None:
                record = self.by_name[intent.external_id] = Record(
                    external_id=intent.external_id,
                    digest=intent.digest,
                    key=intent.key,
                    units=intent.units,
                    step=Step.NOTHING,
                )
            record.note(intent)
        elif line.entry is not None:
            name = line.entry.outcome.external_task_id
            record = self.by_name.get(name or "")
            if record is not None:
                record.end(line.entry, self._is_done)


def read_records(path: Path, is_done: IsDone) -> Records:
    """Read a journal and leave it as it is; one that is not there says nothing."""
    records = Records(is_done)
    try:
        with path.open("rb") as file:
            for line in lines_in(file, path):
                records.take(line)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise OutputError(str(path), error, code=Exit.USAGE) from None
    return records


class OrderJournal:
    """A journal that is open: a ledger of creates, and a place for outcomes."""

    def __init__(self, path: str, *, is_done: IsDone, store: str | None) -> None:
        self.records = Records(is_done)
        self._store = store
        self._file = LockedFile(path)
        try:
            read_back(self._file, self.records.take)
        except BaseException:
            self._file.release()
            raise

    async def open(self, request: CreateRequest) -> ImageTask | None:
        """Write that an order is about to be sent, and see it on the disk."""
        order = request.order
        intent = Intent(
            external_id=request.external_id,
            step=Step.POSTING,
            order=order,
            digest=request.digest,
            key=order.key,
            units=price_of(order),
        )
        self._write(intent, at_once=True)
        return None

    async def close(self, request: CreateRequest, task: ImageTask | None, *, is_new: bool) -> None:
        """Write which task an order has made, or that it has made none."""
        del is_new
        self.found(request.external_id, task)

    def found(self, external_id: str, task: ImageTask | None) -> None:
        """Write which task there is under a name, or that there is none."""
        if task is None:
            self._write(Intent(external_id=external_id, step=Step.NOTHING))
        else:
            made = Intent(external_id=external_id, step=Step.CREATED, task_id=task.task_id)
            self._write(made, at_once=True)

    def _write(self, intent: Intent, *, at_once: bool = False) -> None:
        self._file.append(f"{intent.line()}\n".encode(), at_once=at_once)

    async def append(self, outcome: TaskOutcome) -> None:
        """Write an outcome."""
        self._file.append(f"{Entry(outcome, self._store).line()}\n".encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._file.close(failed=kind is not None)
