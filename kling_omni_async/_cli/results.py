"""Where outcomes go: plain lines, JSON lines, or a journal that can be read again after a kill."""

from __future__ import annotations

import json
import os
import stat
import sys
import time
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, Self, TypeAlias

import attrs

from kling_omni_async._outcome import TaskOutcome

from .exit import Exit, OutputError, UsageError
from .report import Kind, kind_of
from .terminal import json_line, note, painted, plain, wants_colour

if sys.platform == "win32":  # pragma: no cover - not run on other systems
    import msvcrt

    def lock(fd: int) -> None:
        """Lock a file while it is open, or raise OSError at once if another process has."""
        os.lseek(fd, 1 << 40, os.SEEK_SET)  # a locked byte cannot be read: lock one past the end
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        os.lseek(fd, 0, os.SEEK_SET)

    IS_LOCKED = PermissionError

else:
    import fcntl

    def lock(fd: int) -> None:
        """Lock a file while it is open, or raise OSError at once if another process has."""
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    IS_LOCKED = BlockingIOError

Out: TypeAlias = Callable[[str], Awaitable[None]]
IsDone: TypeAlias = Callable[[TaskOutcome], bool]

_SYNC_EVERY_S: Final = 1.0
_BEGINNING: Final = b'{"task_id":'
_FLAGS: Final = os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)


@attrs.frozen
class Sink:
    """Takes outcomes, and knows the ids that need no polling."""

    write: Callable[[TaskOutcome], Awaitable[None]]
    settled: Mapping[str, Kind] = attrs.field(factory=dict[str, Kind])


@contextmanager
def open_sink(jsonl: str | None, out: Out, is_done: IsDone = lambda _: True) -> Generator[Sink]:
    """Open the place for outcomes: a journal, with ``-`` JSON lines on stdout, or plain lines."""
    if jsonl is None:
        colour = wants_colour(sys.stdout)
        yield Sink(lambda outcome: out(plain_line(outcome, colour=colour)))
    elif jsonl == "-":
        yield Sink(lambda outcome: out(json_line(outcome.to_dict())))
    else:
        with Journal(jsonl, is_done=is_done) as journal:
            if journal.torn:
                note(f"dropped a torn last line of {jsonl} ({journal.torn} bytes)")
            yield Sink(journal.append, journal.settled)


def plain_line(outcome: TaskOutcome, *, colour: bool = False) -> str:
    """Write an outcome as id, word, and images or reason, with tabs between.

    Images are told by their keys where they were saved, else by their URLs.
    """
    if outcome.error is None:
        images = [image.key for image in outcome.saved] or [image.url for image in outcome.images]
        text = " ".join(images)
    else:
        text = str(outcome.error)
    kind = kind_of(outcome)
    word = painted(kind, kind.style, colour=colour)
    return "\t".join((plain(outcome.task_id), word, plain(text)))


class Journal:
    """A file of outcomes that one process at a time appends to.

    What is no regular file (``/dev/full``, a pipe) is written to, but neither locked nor read.
    """

    def __init__(
        self,
        path: str,
        *,
        is_done: IsDone = lambda _: True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settled: dict[str, Kind] = {}
        self.torn = 0  # bytes of a torn last line that were dropped
        self._path = path
        self._is_done = is_done
        self._clock = clock
        self._fd, self._regular = _open(path)
        self._synced_at = clock()
        try:
            if self._regular:
                self._take_over()
        except BaseException:
            os.close(self._fd)
            raise

    def _take_over(self) -> None:
        try:
            # Locked before it is read: what a process writes that is just ending would be missed.
            lock(self._fd)
            self._read_back()
        except IS_LOCKED:
            raise UsageError(f"{self._path} is in use by another process") from None
        except OSError as error:
            raise OutputError(self._path, error, code=Exit.USAGE) from None

    def _read_back(self) -> None:
        """Read how each id ended by its last line, and cut a torn one off."""
        good = 0
        with open(self._fd, "rb", closefd=False) as file:
            for outcome, end in _outcomes_in(file, self._path):
                good = end
                if outcome is not None:
                    self._settle(outcome)
        self.torn = os.fstat(self._fd).st_size - good
        if self.torn:
            os.ftruncate(self._fd, good)

    def _settle(self, outcome: TaskOutcome) -> None:
        kind = kind_of(outcome)
        # Taken out first: an id that is to be polled again must not keep what an older line says.
        self.settled.pop(outcome.task_id, None)
        if kind.settled and self._is_done(outcome):
            self.settled[outcome.task_id] = kind

    async def append(self, outcome: TaskOutcome) -> None:
        """Append an outcome; what waits for a disk waits for no reader."""
        self.write(outcome)

    def write(self, outcome: TaskOutcome) -> None:
        """Append an outcome by one write."""
        data = f"{json_line(outcome.to_dict())}\n".encode()
        try:
            while data:  # once, but where a disk fills up or a signal comes
                data = data[os.write(self._fd, data) :]
            if self._clock() - self._synced_at >= _SYNC_EVERY_S:
                self._sync()
        except OSError as error:
            raise OutputError(self._path, error) from None

    def _sync(self) -> None:
        if self._regular:
            os.fsync(self._fd)
        self._synced_at = self._clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Some systems tell only now that something which was written before is lost.
        try:
            self._sync()
        except OSError as error:
            raise OutputError(self._path, error) from None
        finally:
            os.close(self._fd)


def _open(path: str) -> tuple[int, bool]:
    try:
        # A pipe that is opened for reading too would never tell that its reader has gone.
        regular = not os.path.exists(path) or stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH110, PTH116
        return os.open(path, _FLAGS | (os.O_RDWR if regular else os.O_WRONLY), 0o666), regular
    except OSError as error:
        raise OutputError(path, error, code=Exit.USAGE) from None


def read_outcomes(path: Path) -> Generator[TaskOutcome]:
    """Read a journal that another process may be appending to; a torn last line is passed over."""
    # Not locked: whoever appends to it meanwhile must not find it in use.
    with path.open("rb") as file:
        yield from (outcome for outcome, _ in _outcomes_in(file, path) if outcome is not None)


def _outcomes_in(file: BinaryIO, path: str | Path) -> Generator[tuple[TaskOutcome | None, int]]:
    """Read whole lines, as far as the file goes now."""
    # What is appended from now on is left out: its writer may be in the midst of a line.
    size = os.fstat(file.fileno()).st_size
    end, number, after_good = 0, 0, False
    while line := file.readline(size - end):
        number += 1
        outcome = _outcome_in(line)
        whole = line.endswith(b"\n")
        # Refused rather than passed over: the last line alone may be torn, any other is foreign.
        if (line.strip() and outcome is None) or not whole:
            if end + len(line) < size or not _is_torn(line, after_good=after_good):
                what = f"line {number} is not an outcome of this program"
                raise UsageError(f"{path} is left as it is: {what}")
            return
        end += len(line)
        after_good = after_good or outcome is not None
        yield outcome, end


def _outcome_in(line: bytes) -> TaskOutcome | None:
    """Read a line; None if it holds no outcome."""
    try:
        return TaskOutcome.from_dict(json.loads(line))
    except (ValueError, RecursionError):
        return None


def _is_torn(line: bytes, *, after_good: bool) -> bool:
    """Return whether the last line is the rest of one of ours, not somebody's text.

    After whole lines of ours an end without a line break can be anything: a crash of the
    system leaves zeros, for instance.
    """
    if not line.endswith(b"\n") and (after_good or _outcome_in(line) is not None):
        return True
    start = b"".join(line[:40].split())[: len(_BEGINNING)]
    return _BEGINNING.startswith(start) and not _is_json(line)


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True
