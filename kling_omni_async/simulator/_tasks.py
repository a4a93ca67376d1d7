"""The life of a simulated task. Pure: the time comes in as ``now``, in simulated seconds."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

from attrs import evolve, field, frozen
from attrs.validators import and_, optional

from ._images import LEAST_BYTES, Place
from ._settings import Settings, a_bool, a_text, http_status, must, not_negative, whole

Status: TypeAlias = Literal["submitted", "processing", "succeed", "failed"]

USUAL_UNITS = "8"  # what an image costs in CometAPI's docs

_SECONDS_OF_A_REFUSAL = 1.7  # seen: a refused input fails this soon
_SECONDS_OF_AN_IMAGE = (24.0, 41.0)  # seen: what an image takes
MOST_IMAGES = 100_000
"""More than any client should read of one task: an answer of 10 MB."""

_MOST_SECONDS_SUBMITTED = 10.0  # so that a task without end is seen in both states

_can_be_told = must(f"be at most {MOST_IMAGES}", lambda value: value <= MOST_IMAGES)


@frozen
class Expiry:
    """What the images of a task answer with once they are gone."""

    status: int = field(validator=http_status)


# More than ten attributes, as it is the arguments of ``create_task``, checked.
@frozen(kw_only=True)
class SimulatedTask:
    """What the simulator knows of one task; times are seconds of the simulated clock."""

    task_id: str = field(validator=a_text)
    created: float
    duration: float = field(validator=not_negative)
    images: int = field(default=1, validator=and_(whole(0), _can_be_told))
    fail: str | None = field(default=None, validator=optional(a_text))
    series: bool = field(default=False, validator=a_bool)
    watermarked: bool = field(default=False, validator=a_bool)
    wrapped: bool = field(default=False, validator=a_bool)
    external_task_id: str | None = field(default=None, validator=optional(a_text))
    units: str | None = field(default=None, validator=optional(a_text))
    image_bytes: int | None = field(default=None, validator=optional(whole(LEAST_BYTES)))
    signed: bool = field(default=False, validator=a_bool)
    callback_url: str | None = field(default=None, validator=optional(a_text))
    slots: int = 0  # of the account's concurrency, until its end; none where no request made it
    expiry: Expiry | None = None

    @property
    def started(self) -> float:
        """When it begins to be worked on."""
        return self.created + min(0.1 * self.duration, _MOST_SECONDS_SUBMITTED)

    @property
    def finished(self) -> float:
        """When the final status is reached."""
        return self.created + self.duration

    def state(self, now: float) -> tuple[Status, float]:
        """Return the word of the wire for the time ``now``, and since when it holds."""
        if now >= self.finished:
            return ("succeed" if self.fail is None else "failed"), self.finished
        if now < self.started:
            return "submitted", self.created
        return "processing", self.started

    def makes(self, place: Place) -> bool:
        """Return whether it has such an image, made already or not."""
        return place.index < self.images and (self.watermarked or not place.watermarked)


def _ignore(_: object) -> None:
    """Hear nothing."""


class TaskBook:
    """All tasks of one simulator, and the source of new ids; KeyError for ids it lacks."""

    def __init__(self, settings: Settings) -> None:
        self.by_id: dict[str, SimulatedTask] = {}
        self._by_external_id: dict[str, str] = {}
        self._holding: dict[str, None] = {}  # those that hold slots, or did a moment ago
        # are told of a new task, and of one whose end has moved
        self.born: Callable[[SimulatedTask], object] = _ignore
        self.changed: Callable[[str], object] = _ignore
        self._wrapped = settings.wrapped
        self._durations = settings.durations
        self._random = random.Random(f"tasks {settings.seed}")

    def create(self, now: float, **chosen: Any) -> SimulatedTask:
        """Add a task that starts now; an id, duration or form that is None is the usual one."""
        if chosen.get("task_id") is None:
            chosen["task_id"] = self._new_id()
        if chosen.get("duration") is None:
            chosen["duration"] = _SECONDS_OF_A_REFUSAL
            if chosen.get("fail") is None:
                chosen["duration"] = self._draw_duration()
        if chosen.get("wrapped") is None:
            chosen["wrapped"] = self._wrapped
        task = SimulatedTask(created=now, **chosen)
        if not task.task_id or task.task_id in self.by_id:
            raise ValueError(f"task_id must be new and not empty, got {task.task_id!r}")
        self.by_id[task.task_id] = task
        if task.external_task_id is not None:
            self._by_external_id.setdefault(task.external_task_id, task.task_id)
        if task.slots:
            self._holding[task.task_id] = None
        self.born(task)
        return task

    def _draw_duration(self) -> float:
        if self._durations is not None:
            return self._durations(self._random)
        return self._random.uniform(*_SECONDS_OF_AN_IMAGE)

    def named(self, external_task_id: str | None) -> SimulatedTask | None:
        """Return the first task that was given a name, by whoever made it."""
        return self.by_id.get(self._by_external_id.get(external_task_id or "", ""))

    def slots_held(self, now: float) -> int:
        """Return how many places of the account's concurrency are taken."""
        running = [self.by_id[name] for name in self._holding if name in self.by_id]
        running = [task for task in running if task.finished > now]
        self._holding = {task.task_id: None for task in running}
        return sum(task.slots for task in running)

    def finish(self, task_id: str, now: float) -> None:
        """Make a task finish by ``now``."""
        task = self.by_id[task_id]
        self.by_id[task_id] = evolve(task, duration=min(task.duration, now - task.created))
        self.changed(task_id)

    def expire_images(self, task_id: str | None, expiry: Expiry) -> None:
        """Make the images of one task, or of every task, unavailable."""
        for name in list(self.by_id) if task_id is None else [task_id]:
            self.by_id[name] = evolve(self.by_id[name], expiry=expiry)

    def _new_id(self) -> str:
        # 18 decimal digits, above 2^53 (seen); a test may have chosen the very id before
        while True:
            task_id = str(self._random.randrange(10**17, 10**18))
            if task_id not in self.by_id:
                return task_id
