"""The ids of a run: those that are left, and the counts of those that are not."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from kling_omni_async._ids import trimmed
from kling_omni_async._outcome import TaskOutcome

from .report import Failures, Kind, Tally, kind_of
from .results import Sink

# Of a stream of ids: how many that have ended are remembered, so that repeats are passed over.
_MOST_ENDED: Final = 100_000


class PollJob:
    """The ids of a run, all known at the beginning or still to come."""

    def __init__(self, task_ids: Iterable[str] = ()) -> None:
        # Ordered: a plain dictionary that many keys have left is slow to give its first one.
        self._left = OrderedDict.fromkeys(map(trimmed, task_ids))
        self._ended: OrderedDict[str, None] = OrderedDict()
        self.tally = Tally(len(self._left))
        self.failures = Failures()

    @property
    def pending(self) -> list[str]:
        """The known ids without a written outcome, in the order they were given."""
        return list(self._left)

    @property
    def oldest(self) -> str:
        """The first id, in the order given, without a written outcome; empty if there is none."""
        return next(iter(self._left), "")

    def knows(self, task_id: str) -> bool:
        """Return whether an id is left, or among the latest of a stream that have ended."""
        return task_id in self._left or task_id in self._ended

    def is_left(self, task_id: str) -> bool:
        """Return whether an id is known and has no written outcome."""
        return task_id in self._left

    def add(self, task_id: str) -> None:
        """Add an id of a stream."""
        self.tally.total += 1
        self._left[task_id] = None

    def skip_settled(self, task_ids: Iterable[str], sink: Sink) -> None:
        """Count those of some ids that an earlier run has settled."""
        for task_id in task_ids:
            if (earlier := sink.settled.get(task_id)) is None:
                continue
            sink.repeat(task_id)
            self._end(task_id)
            self.tally.counts[earlier.kind] += 1
            self.tally.earlier += 1
            if earlier.kind is not Kind.SUCCEEDED:
                self.failures.add_earlier(earlier.kind, earlier.reason, task_id)

    def finish(self, outcome: TaskOutcome) -> None:
        """Count an outcome that was written."""
        self._end(outcome.task_id)
        self.tally.add(outcome)
        if outcome.error is not None:
            self.failures.add(kind_of(outcome), outcome.error, outcome.task_id)

    def _end(self, task_id: str) -> None:
        del self._left[task_id]
        self._ended[task_id] = None
        if len(self._ended) > _MOST_ENDED:
            self._ended.popitem(last=False)
