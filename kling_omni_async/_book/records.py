"""What users see of a book: an entry, and the counts."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, TypeAlias

import attrs

from kling_omni_async._models import ImageTask
from kling_omni_async._outcome import TaskOutcome

# Plain words, no enum: nobody needs another name of ours to compare, match or type one.
EntryState: TypeAlias = Literal["open", "done", "parked"]
"""How far an entry of a book is."""


@attrs.frozen(kw_only=True)
class BookEntry:
    """What a book knows of one task.

    Attributes:
        task_id: The id, or "" where a create may have made a task that is still looked for.
        external_task_id: The name under which the task was created, or None.
        note: What was kept with it, or None.
        added_at: When it was added, in UTC, by the clock of whoever added it.
        state: ``open``: it is polled; ``done``: it has an outcome; ``parked``: its outcome was
            handed out ten times and never acknowledged.
        task: The last `ImageTask` seen, or None.
        outcome: The `TaskOutcome`, once there is one.
    """

    task_id: str
    external_task_id: str | None = None
    note: Any = attrs.field(default=None, hash=False)
    added_at: datetime
    state: EntryState
    task: ImageTask | None = None
    outcome: TaskOutcome | None = None


@attrs.frozen(kw_only=True)
class BookProgress:
    """The counts of a book at one moment.

    Attributes:
        pending: Entries that are polled still, creates that are in doubt among them.
        succeeded: Outcomes that are ok.
        failed: Outcomes where the API said that the task failed.
        unresolved: Outcomes with any other error.
        unread: Outcomes that nobody has acknowledged, those that are handed out among them.
        parked: Outcomes that were handed out ten times and never acknowledged.
        workers: Workers that were heard of in the last 30 s.
    """

    pending: int = 0
    succeeded: int = 0
    failed: int = 0
    unresolved: int = 0
    unread: int = 0
    parked: int = 0
    workers: int = 0

    def __str__(self) -> str:
        ends = f"{self.succeeded} succeeded, {self.failed} failed, {self.unresolved} unresolved"
        held = f"{self.unread} unread, {self.parked} parked"
        return f"{self.pending} pending, {ends}; {held}; workers: {self.workers}"
