"""The journal: a line for each outcome, which a later run reads to know what is done."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, Self, TypeAlias, cast

import attrs

from kling_omni_async._outcome import TaskOutcome

from .exit import Exit, OutputError, UsageError
from .intents import Intent, read_intent
from .locked_file import LockedFile
from .report import Kind, kind_of, reason_of
from .terminal import json_line, note
from .units import plural

_BEGINNING: Final = b'{"task_id":'
_STORE: Final = "store"
_MOST_PLACES: Final = 3
_OURS: Final = frozenset({"task_id", "ok", "task", "error", "queries"})


@attrs.frozen
class Entry:
    """An outcome, and the name of the store that has its images, where that is known."""

    outcome: TaskOutcome
    store: str | None = None

    def line(self) -> str:
        """Return it as one line of JSON; earlier versions pass over the name of the store."""
        data = self.outcome.to_dict()
        if self.store is not None and self.outcome.saved:
            data[_STORE] = self.store
        return json_line(data)


@attrs.frozen
class Earlier:
    """How an earlier run has settled an id, and where its line begins."""

    kind: Kind
    reason: str
    at: int


@attrs.frozen
class Line:
    """A whole line of ours; a later version may have written what cannot be read here."""

    at: int
    end: int
    entry: Entry | None
    intent: Intent | None = None
    is_later: bool = False
    has_end: bool = True


IsDone: TypeAlias = Callable[[Entry], bool]


class Journal:
    """A file of outcomes that one process at a time appends to.

    `settled` has the ids that need no polling; `elsewhere` those whose images other stores have,
    and where their lines begin, the last one first. `is_done` says whether the images of an entry
    are where they are to be.
    """

    def __init__(
        self,
        path: str,
        *,
        is_done: IsDone = lambda _: True,
        store: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settled: dict[str, Earlier] = {}
        self.elsewhere: dict[str, tuple[int, ...]] = {}
        self._is_done = is_done
        self._store = store
        self._file = LockedFile(path, clock=clock)
        try:
            read_back(self._file, self._take)
        except BaseException:
            self._file.release()
            raise

    def _take(self, line: Line) -> None:
        if line.entry is not None:
            self._settle(line.entry, line.at)

    def _settle(self, entry: Entry, at: int) -> None:
        outcome = entry.outcome
        task_id, kind = outcome.task_id, kind_of(outcome)
        if not task_id:
            return  # of an order that was not created: no id is done with that
        if not outcome.settled:
            self.settled.pop(task_id, None)
        elif outcome.error is not None:
            # The same few reasons, many times.
            self.settled[task_id] = Earlier(kind, sys.intern(reason_of(outcome.error)), at)
        elif self._is_done(entry):
            self.settled[task_id] = Earlier(kind, "", at)
        else:
            if outcome.saved:
                before_it = self.elsewhere.get(task_id, ())
                self.elsewhere[task_id] = (at, *before_it)[:_MOST_PLACES]
            # It may have gone to this store first, and to another one since.
            before = self.settled.get(task_id)
            if before is not None and before.kind is not kind:
                del self.settled[task_id]

    def recall(self, task_id: str) -> Entry | None:
        """Read again the line of a settled id; None if that has changed since."""
        return self._entry_at(self.settled[task_id].at)

    def recall_elsewhere(self, task_id: str) -> Iterator[Entry]:
        """Read again the lines of an id whose images other stores have, the last one first."""
        return filter(None, map(self._entry_at, self.elsewhere[task_id]))

    def _entry_at(self, at: int) -> Entry | None:
        with self._file.open_to_read() as file:
            file.seek(at)
            return _entry_in(_json_of(file.readline()))

    def write(self, outcome: TaskOutcome) -> None:
        """Append an outcome by one write."""
        self._file.append(f"{Entry(outcome, self._store).line()}\n".encode())

    async def append(self, outcome: TaskOutcome) -> None:
        """Append an outcome; what waits for a disk waits for no reader."""
        self.write(outcome)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._file.close(failed=kind is not None)


def read_back(file: LockedFile, take: Callable[[Line], None]) -> None:
    """Read the lines of a journal that is to be appended to, and cut a torn one off."""
    if not file.is_regular:
        return
    path, good, later, has_end = file.path, 0, 0, True
    try:
        with file.open_to_read() as opened:
            for line in lines_in(opened, path):
                good, has_end = line.end, line.has_end
                later += line.is_later
                take(line)
        if torn := file.cut(good):
            note(f"dropped a torn last line of {path} ({torn} bytes)")
    except OSError as error:
        raise OutputError(path, error, code=Exit.USAGE) from None
    if not has_end:
        file.append(b"\n")
    if later:
        lines = plural(later, "line is", "lines are")
        note(f"{lines} of a later version in {path}; what they say is passed over")


def read_outcomes(path: Path) -> Generator[TaskOutcome]:
    """Read a journal that another process may be appending to; a torn last line is passed over."""
    # Not locked: whoever appends to it meanwhile must not find it in use.
    with path.open("rb") as file:
        for line in lines_in(file, path):
            if line.entry is not None:
                yield line.entry.outcome


def lines_in(file: BinaryIO, path: str | Path) -> Generator[Line]:
    """Read whole lines, as far as the file goes now."""
    # What is appended from now on is left out: its writer may be in the midst of a line.
    size = file.seek(0, 2)
    file.seek(0)
    end, number, after_good = 0, 0, False
    while line := file.readline(size - end):
        number += 1
        data = _json_of(line)
        form = _object_in(data)
        intent, has_end = read_intent(form), line.endswith(b"\n")
        entry = _entry_in(data) if intent is None else None
        ours = entry is not None or intent is not None
        later = not ours and form.keys() >= _OURS
        # Refused rather than passed over: the last line alone may be torn, any other is foreign.
        if not ours and not later and (line.strip() or not has_end):
            if end + len(line) < size or not _is_torn(line, data, after_good=after_good):
                what = f"line {number} is not an outcome of this program"
                raise UsageError(f"{path} is left as it is: {what}")
            return
        yield Line(end, end + len(line), entry, intent, later, has_end)
        end += len(line)
        after_good = after_good or ours or later


def _json_of(line: bytes) -> object:
    """Read a line as JSON; None if it is none."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _object_in(data: object) -> Mapping[str, Any]:
    """Return what may be an outcome, and an empty object for all else."""
    return cast("dict[str, Any]", data) if isinstance(data, dict) else {}


def _entry_in(data: object) -> Entry | None:
    """Return what a line says; None if it is no outcome that this version can read."""
    form = _object_in(data)
    store: object = form.get(_STORE)
    try:
        return Entry(TaskOutcome.from_dict(form), store if isinstance(store, str) else None)
    except ValueError:
        return None


def _is_torn(line: bytes, data: object, *, after_good: bool) -> bool:
    """Return whether the last line is the rest of one of ours, not somebody's text.

    After whole lines of ours an end without a line break can be anything: a crash of the
    system leaves zeros, for instance.
    """
    if not line.endswith(b"\n") and after_good:
        return True
    start = b"".join(line[:40].split())[: len(_BEGINNING)]
    return _BEGINNING.startswith(start) and data is None
