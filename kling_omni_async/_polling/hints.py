"""What is known of tasks beside the answers to queries: own creates, and callbacks."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import attrs

from kling_omni_async._models import ImageTask

MOST_OWN: Final = 10_000
OWN_FOR_S: Final = 3600.0
"""How many tasks of a session's own are remembered, and how long."""

MOST_MISSED: Final = 3
"""After so many callbacks in a row that did not come, none is waited for."""


@attrs.define(eq=False)
class OwnTask:
    """A task that this session has created."""

    task: ImageTask  # as the create's answer describes it
    created: float  # in s of the loop
    kind: object  # what tells tasks of different durations apart
    is_nudged: bool = False  # before anybody waited for it


class OwnTasks:
    """The tasks that this session has created lately."""

    def __init__(self) -> None:
        self.number = 0  # an attribute, as each new id asks for it
        self._tasks: OrderedDict[str, OwnTask] = OrderedDict()

    def add(self, task: ImageTask, now: float, kind: object) -> None:
        """Remember a task that was created now."""
        self._tasks[task.task_id] = OwnTask(task, now, kind)
        self._tasks.move_to_end(task.task_id)
        self._forget(now)

    def get(self, task_id: str, now: float) -> OwnTask | None:
        """Return a task, if it is one of them."""
        if not self._tasks:
            return None
        self._forget(now)
        return self._tasks.get(task_id)

    def _forget(self, now: float) -> None:
        tasks = self._tasks
        while tasks:
            first = next(iter(tasks.values()))
            if len(tasks) <= MOST_OWN and now < first.created + OWN_FOR_S:
                break
            tasks.popitem(last=False)
        self.number = len(tasks)


class Expected:
    """The ids whose first query waits for a callback, and whether any do come."""

    def __init__(self) -> None:
        self.comes = True
        self._ids: dict[str, float] = {}  # and until when, in s of the loop
        self._missed = 0

    def __bool__(self) -> bool:
        return bool(self._ids)

    def add(self, task_id: str, until: float) -> None:
        """Wait for the callback of an id until a time in s."""
        self._ids[task_id] = min(until, self._ids.get(task_id, until))

    def discard(self, task_id: str) -> None:
        """Wait for it no longer."""
        self._ids.pop(task_id, None)

    def nudged(self, task_id: str) -> None:
        """Note that the callback of an id has come."""
        self.came()
        self.discard(task_id)

    def answered(self, task_id: str, *, ended: bool, started: float) -> bool:
        """Note a first answer; return whether from now on no callback is waited for.

        One that was asked for sooner, as somebody else wanted it, says nothing of callbacks.
        """
        until = self._ids.pop(task_id, None)
        if until is None or started < until:
            return False
        return ended and self.missed()

    def came(self) -> None:
        """Note that a callback has come."""
        self._missed = 0

    def missed(self) -> bool:
        """Note one that did not come; return whether from now on none is waited for."""
        self._missed += 1
        if self._missed < MOST_MISSED or not self.comes:
            return False
        self.comes = False
        return True
