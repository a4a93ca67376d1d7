"""Why ids failed, grouped by reason: the table at the end of a run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import attrs
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from kling_omni_async.errors import (
    ApiError,
    DownloadError,
    InvalidTaskIdError,
    KlingOmniError,
    PollTimeoutError,
    ResponseError,
    TaskFailedError,
    TransportError,
)

from .summary import Kind
from .terminal import plain

_MOST_GROUPS: Final = 1000
"""Reasons that are remembered: what the API says may differ with each task."""

_MOST_ROWS: Final = 20
_LONGEST: Final = 200
_EARLIER: Final = "in an earlier run; the journal has the reason"
_OTHER: Final = "other reasons"


@attrs.define
class _Group:
    """What failed for one reason: how many, and the first of them."""

    count: int
    example: str


class Failures:
    """The failures of a run by kind and reason; of each group only a count and one id is kept."""

    def __init__(self) -> None:
        self._groups: dict[tuple[Kind, str], _Group] = {}

    def add(self, kind: Kind, error: KlingOmniError, task_id: str) -> None:
        """Count a failure of this run."""
        self._count(kind, reason_of(error), task_id)

    def add_earlier(self, kind: Kind, task_id: str) -> None:
        """Count a failure that an earlier run has settled."""
        self._count(kind, _EARLIER, task_id)

    def _count(self, kind: Kind, reason: str, task_id: str) -> None:
        group = self._groups.get((kind, reason))
        if group is None and len(self._groups) >= _MOST_GROUPS:
            reason = _OTHER
            group = self._groups.get((kind, reason))
        if group is None:
            self._groups[kind, reason] = _Group(1, task_id)
        else:
            group.count += 1

    def __bool__(self) -> bool:
        return bool(self._groups)

    def rows(self) -> Iterator[tuple[int, Kind, str, str]]:
        """Give count, kind, reason and an id for each group, the greatest first."""
        ordered = sorted(self._groups.items(), key=lambda item: -item[1].count)
        for (kind, reason), group in ordered:
            yield group.count, kind, reason, group.example

    def table(self) -> Table:
        """Draw the groups, at most some dozens."""
        table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
        table.add_column("failed", justify="right", no_wrap=True)
        table.add_column("how", style="red", no_wrap=True)
        table.add_column("why", overflow="fold")
        table.add_column("such as", overflow="fold", style="dim", max_width=24)
        rows = list(self.rows())
        for count, kind, reason, example in rows[:_MOST_ROWS]:
            table.add_row(f"{count:,}", kind, Text(plain(reason)), Text(plain(example)))
        if left := rows[_MOST_ROWS:]:
            total = sum(count for count, *_ in left)
            table.add_row(f"{total:,}", "", f"for {len(left):,} more reasons", "")
        return table


def reason_of(error: KlingOmniError) -> str:
    """Give why an id failed, without what differs from id to id.

    What the API says of a task is kept in its own words, as far as they go in a table.
    """
    match error:
        case PollTimeoutError():
            text = _late(error)
        case InvalidTaskIdError():
            text = "cannot be a task id; nothing was asked"
        case TransportError():
            text = f"no answer: {error.reason}"
        case ResponseError():
            text = f"HTTP {error.http_status}: the answer is not the API's"
        case DownloadError():
            text = error.reason + (f", HTTP {error.http_status}" if error.http_status else "")
        case ApiError() | TaskFailedError():
            text = str(error)[:_LONGEST] or "no reason given"
        case _:
            text = type(error).__name__
    return text


def _late(error: PollTimeoutError) -> str:
    seen = f"still {error.task.status}" if error.task else "its status was never seen"
    return f"{seen}; last fault: {reason_of(error.last_error)}" if error.last_error else seen
