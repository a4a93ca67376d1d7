"""What is told at the end of a run: counts by kind, why ids failed, and what ended it early."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Final

import attrs
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from kling_omni_async import errors
from kling_omni_async._outcome import TaskOutcome

from .exit import CliError, Exit, code_of, described
from .signals import hold_signals
from .terminal import plain, tell
from .units import human_size, plural


class Kind(StrEnum):
    """How the polling of one id ended; the words stand in the plain output."""

    SUCCEEDED = "succeed"
    FAILED = "failed"
    NOT_FOUND = "not_found"
    NO_IMAGES = "no_images"
    TIMED_OUT = "timed_out"
    INVALID_ID = "invalid_id"
    NOT_SAVED = "not_saved"
    UNCERTAIN = "uncertain"
    NOT_CREATED = "not_created"
    ERROR = "error"

    @property
    def style(self) -> str:
        """Its colour: ``unsure`` where polling again may help."""
        if self is Kind.SUCCEEDED:
            return "good"
        return "unsure" if self in _UNSURE else "bad"


_UNSURE: Final = frozenset({Kind.TIMED_OUT, Kind.NOT_SAVED, Kind.UNCERTAIN, Kind.ERROR})

_BY_ERROR: Final[dict[type[errors.KlingOmniError], Kind]] = {
    errors.TaskFailedError: Kind.FAILED,
    errors.TaskNotFoundError: Kind.NOT_FOUND,
    errors.NoImagesError: Kind.NO_IMAGES,
    errors.PollTimeoutError: Kind.TIMED_OUT,
    errors.InvalidTaskIdError: Kind.INVALID_ID,
    errors.DownloadError: Kind.NOT_SAVED,
    errors.AssetExpiredError: Kind.NOT_SAVED,
    errors.StorageError: Kind.NOT_SAVED,
    errors.CreateUncertainError: Kind.UNCERTAIN,
    errors.DuplicateOrderError: Kind.UNCERTAIN,
}

_IN_WORDS: Final = {
    Kind.SUCCEEDED: "succeeded",
    Kind.FAILED: "failed",
    Kind.NOT_FOUND: "not found",
    Kind.NO_IMAGES: "without images",
    Kind.TIMED_OUT: "timed out",
    Kind.INVALID_ID: "not a task id",
    Kind.NOT_SAVED: "succeeded but not saved",
    Kind.UNCERTAIN: "uncertain",
    Kind.NOT_CREATED: "not created",
    Kind.ERROR: "other errors",
}


def kind_of(outcome: TaskOutcome) -> Kind:
    """Return the kind of an outcome."""
    if outcome.error is None:
        return Kind.SUCCEEDED
    usual = Kind.ERROR if outcome.task_id or outcome.order is None else Kind.NOT_CREATED
    return _BY_ERROR.get(type(outcome.error), usual)


@attrs.define
class Tally:
    """The counts of one run; `counts` has the ids too that an `earlier` run had settled."""

    total: int
    counts: Counter[Kind] = attrs.field(factory=Counter[Kind])
    earlier: int = 0
    images: int = 0
    image_bytes: int = 0

    def add(self, outcome: TaskOutcome) -> None:
        """Count an outcome."""
        self.counts[kind_of(outcome)] += 1
        self.images += len(outcome.saved)
        self.image_bytes += sum(image.size for image in outcome.saved)

    @property
    def done(self) -> int:
        """How many ids have ended."""
        return self.counts.total()

    @property
    def all_succeeded(self) -> bool:
        """Whether every id has ended well."""
        return self.counts[Kind.SUCCEEDED] == self.total

    def parts(self) -> str:
        """Return the counts that are not zero, such as ``180 succeeded, 15 failed``."""
        counts = [(self.counts[kind], _IN_WORDS[kind]) for kind in Kind]
        told = ", ".join(f"{count} {words}" for count, words in counts if count) or "nothing yet"
        if not self.images:
            return told
        saved = plural(self.images, "image", "images")
        return f"{told}; {saved} saved, {human_size(self.image_bytes)}"

    def line(self) -> str:
        """Return the whole state as one line."""
        earlier = f"; {self.earlier} of them by an earlier run" if self.earlier else ""
        return f"{self.done} of {self.total} done: {self.parts()}{earlier}"


# Reasons that are remembered: what the API says may differ with each task.
_MOST_GROUPS: Final = 1000
_MOST_ROWS: Final = 20
_LONGEST: Final = 200
_OTHER: Final = "other reasons"


class Failures:
    """The failures of a run by kind and reason; of each group only a count and one id is kept."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[Kind, str]] = Counter()
        self._examples: dict[tuple[Kind, str], str] = {}

    def add(self, kind: Kind, error: errors.KlingOmniError, task_id: str) -> None:
        """Count a failure of this run."""
        self._count(kind, reason_of(error), task_id)

    def add_earlier(self, kind: Kind, reason: str, task_id: str) -> None:
        """Count a failure that an earlier run has settled."""
        self._count(kind, reason, task_id)

    def _count(self, kind: Kind, reason: str, task_id: str) -> None:
        if (kind, reason) not in self._counts and len(self._counts) >= _MOST_GROUPS:
            reason = _OTHER
        self._counts[kind, reason] += 1
        self._examples.setdefault((kind, reason), task_id)

    def __bool__(self) -> bool:
        return bool(self._counts)

    def rows(self) -> Iterator[tuple[int, Kind, str, str]]:
        """Yield count, kind, reason and an id for each group, the greatest first."""
        for (kind, reason), count in self._counts.most_common():
            yield count, kind, reason, self._examples[kind, reason]

    def table(self) -> Table:
        """Return the groups as a table of at most some dozens of rows."""
        table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
        table.add_column("failed", justify="right", no_wrap=True)
        table.add_column("how", style="red", no_wrap=True)
        table.add_column("why", overflow="fold")
        table.add_column("such as", overflow="fold", style="dim", max_width=24)
        rows = list(self.rows())
        for count, kind, reason, example in rows[:_MOST_ROWS]:
            # As `Text`, because rich would read markup in a plain string.
            table.add_row(f"{count:,}", kind, Text(plain(reason)), Text(plain(example)))
        if left := rows[_MOST_ROWS:]:
            total = sum(count for count, *_ in left)
            table.add_row(f"{total:,}", "", f"for {len(left):,} more reasons", "")
        return table


# Of these the text has the host and the system's words, which are the same for many images.
_OF_CONNECTIONS: Final = frozenset(
    {"address", "certificate", "connect", "dns", "proxy", "reset", "tls"}
)


_ALWAYS: Final[Mapping[type[errors.KlingOmniError], str]] = {
    errors.InvalidTaskIdError: "cannot be a task id; nothing was asked",
    errors.CreateUncertainError: "nobody knows whether it was created",
}


def reason_of(error: errors.KlingOmniError) -> str:
    """Return why an id failed, without what differs from id to id.

    What the API says of a task is kept in its own words, as far as they go in a table.
    """
    match error:
        case errors.PollTimeoutError():
            text = _late(error)
        case errors.InvalidTaskIdError() | errors.CreateUncertainError():
            text = _ALWAYS[type(error)]
        case errors.TransportError():
            text = f"no answer: {error.what}"[:_LONGEST]
        case errors.ResponseError():
            text = f"HTTP {error.http_status}: the answer is not the API's"
        case errors.StorageError(detail=str() as detail):
            text = detail
        case errors.DownloadError(reason=reason) if reason in _OF_CONNECTIONS:
            text = error.what[:_LONGEST]
        case errors.DownloadError():
            text = error.reason + (f", HTTP {error.http_status}" if error.http_status else "")
        case errors.ApiError() | errors.TaskFailedError() | errors.ConfigurationError():
            text = error.what[:_LONGEST] or "no reason given"
        case _:
            text = type(error).__name__
    return text


def _late(error: errors.PollTimeoutError) -> str:
    seen = f"still {error.task.status}" if error.task else "its status was never seen"
    return f"{seen}; last fault: {reason_of(error.last_error)}" if error.last_error else seen


def ending(error: Exception | KeyboardInterrupt, *, debug: bool) -> Exit:
    """Write to stderr what ended a command, with its notes, and return the exit code."""
    hold_signals()  # else the first one that comes now would cut the report off
    text, code = _told(error)
    where = _traceback(error) if debug and not isinstance(error, KeyboardInterrupt) else []
    notes: list[str] = getattr(error, "__notes__", [])
    told = [line for note in notes for line in note.split("\n")]
    tell([*where, f"kling-omni: {text}", *told])
    return code


def _told(error: Exception | KeyboardInterrupt) -> tuple[str, Exit]:
    if isinstance(error, CliError | errors.KlingOmniError | KeyboardInterrupt):
        return described(error), code_of(error)
    if isinstance(error, OSError):  # such as a full disk behind the help
        return f"{error.strerror or error}; --debug shows where", Exit.NOT_ALL
    what = f"a defect of this program ({type(error).__name__}: {error})"
    return f"{what}; please report it with what --debug shows", Exit.NOT_ALL


def _traceback(error: BaseException) -> list[str]:
    """Return the traceback line by line; the notes, which may be a million ids, are told apart."""
    shown = traceback.TracebackException.from_exception(error)
    shown.__notes__ = []
    return "".join(shown.format()).splitlines()
