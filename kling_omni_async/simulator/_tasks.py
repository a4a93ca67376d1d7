"""The life of a simulated task. Pure: the time comes in as ``now``, in simulated seconds."""

from __future__ import annotations

import random
from typing import Any, Literal, TypeAlias

from attrs import evolve, field, frozen
from attrs.validators import instance_of, optional

from ._images import LEAST_BYTES
from ._settings import Settings, http_status, not_negative, whole

Status: TypeAlias = Literal["submitted", "processing", "succeed", "failed"]

USUAL_UNITS = "8"  # what a task costs in CometAPI's docs

_SECONDS_OF_A_REFUSAL = 1.7  # seen: a refused input fails this soon
_SECONDS_OF_AN_IMAGE = (24.0, 41.0)  # seen: what an image takes
_MOST_SECONDS_SUBMITTED = 10.0  # so that a task without end is seen in both states


@frozen
class Expiry:
    """What the images of a task answer with once they are gone."""

    status: int = field(validator=http_status)


# More than ten attributes, as it is the arguments of ``create_task``, checked.
@frozen(kw_only=True)
class SimulatedTask:
    """What the simulator knows of one task; times are seconds of the simulated clock."""

    task_id: str = field(validator=instance_of(str))
    created: float
    duration: float = field(validator=not_negative)
    images: int = field(default=1, validator=whole(0))
    fail: str | None = field(default=None, validator=optional(instance_of(str)))
    series: bool = False
    watermarked: bool = False
    wrapped: bool = False
    external_task_id: str | None = field(default=None, validator=optional(instance_of(str)))
    units: str | None = field(default=None, validator=optional(instance_of(str)))
    image_bytes: int | None = field(default=None, validator=optional(whole(LEAST_BYTES)))
    signed: bool = field(default=False, validator=instance_of(bool))
    expiry: Expiry | None = None

    @property
    def finished(self) -> float:
        """When the final status is reached."""
        return self.created + self.duration

    @property
    def started(self) -> float:
        """When it turns from submitted to processing: after a tenth of its time, 10 s at most."""
        return self.created + min(0.1 * self.duration, _MOST_SECONDS_SUBMITTED)

    def status(self, now: float) -> Status:
        """Return the word of the wire for the time ``now``."""
        if now >= self.finished:
            return "succeed" if self.fail is None else "failed"
        return "submitted" if now < self.started else "processing"

    def updated(self, now: float) -> float:
        """Return when the status of ``now`` was reached."""
        reached = {"submitted": self.created, "processing": self.started}
        return reached.get(self.status(now), self.finished)


class TaskBook:
    """All tasks of one simulator, and the source of new ids; KeyError for ids it lacks."""

    def __init__(self, settings: Settings) -> None:
        self._wrapped = settings.wrapped
        self._random = random.Random(f"tasks {settings.seed}")
        self._tasks: dict[str, SimulatedTask] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def get(self, task_id: str | None) -> SimulatedTask | None:
        """Return a task; None where there is none."""
        return None if task_id is None else self._tasks.get(task_id)

    def create(
        self,
        now: float,
        *,
        task_id: str | None = None,
        duration: float | None = None,
        wrapped: bool | None = None,
        fail: str | None = None,
        **rest: Any,
    ) -> SimulatedTask:
        """Add a task that starts now; the id must be new and not empty."""
        task = SimulatedTask(
            task_id=self._new_id() if task_id is None else task_id,
            created=now,
            duration=self._new_duration(fail) if duration is None else duration,
            wrapped=self._wrapped if wrapped is None else wrapped,
            fail=fail,
            **rest,
        )
        if not task.task_id or task.task_id in self._tasks:
            raise ValueError(f"task_id must be new and not empty, got {task.task_id!r}")
        self._tasks[task.task_id] = task
        return task

    def finish(self, task_id: str, now: float) -> None:
        """Make a task finish by ``now``."""
        task = self._tasks[task_id]
        self._tasks[task_id] = evolve(task, duration=min(task.duration, now - task.created))

    def expire_images(self, task_id: str | None, expiry: Expiry) -> None:
        """Make the images of one task, or of every task, unavailable."""
        for name in list(self._tasks) if task_id is None else [task_id]:
            self._tasks[name] = evolve(self._tasks[name], expiry=expiry)

    def remove(self, task_id: str) -> None:
        """Forget a task."""
        del self._tasks[task_id]

    def _new_id(self) -> str:
        # 18 decimal digits, above 2^53 (seen); a test may have chosen the very id before
        while True:
            task_id = str(self._random.randrange(10**17, 10**18))
            if task_id not in self._tasks:
                return task_id

    def _new_duration(self, fail: str | None) -> float:
        return (
            self._random.uniform(*_SECONDS_OF_AN_IMAGE) if fail is None else _SECONDS_OF_A_REFUSAL
        )
