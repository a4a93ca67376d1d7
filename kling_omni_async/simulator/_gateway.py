"""Which request gets which answer. Pure: no clock, no I/O."""

from __future__ import annotations

import random
import uuid
from datetime import UTC, datetime
from urllib.parse import unquote

from attrs import frozen

from . import _answers as answers
from ._answers import Answer, View
from ._create import BadOrderError, read_order
from ._tasks import SimulatedTask, TaskBook

COLLECTION = "/kling/v1/images/omni-image"
USUAL_UNITS = "8"
"""What a task costs in CometAPI's docs."""


@frozen(kw_only=True)
class Call:
    """A request, as far as its answer depends on it."""

    method: str
    path: str
    authorised: bool
    origin: str

    @property
    def task_id(self) -> str | None:
        """The id that a query asks for, or None if this is no query."""
        parent, _, name = self.path.rpartition("/")
        if self.method != "GET" or parent != COLLECTION or not name:
            return None
        return unquote(name)


class Gateway:
    """The API behind its URLs: tasks in, answers out."""

    def __init__(self, *, seed: int, epoch_ms: int, wrapped: bool) -> None:
        self.tasks = TaskBook(seed=seed)
        self._random = random.Random(f"requests {seed}")
        self._seed = seed
        self._epoch_ms = epoch_ms
        self._wrapped = wrapped

    def answer(self, call: Call, body: bytes, *, now: float) -> Answer:
        """Answer one request to the API."""
        creates = call.method == "POST" and call.path == COLLECTION
        if call.task_id is None and not creates:
            return answers.page()
        if not call.authorised:
            return answers.invalid_token(self._token(now))
        view = self._view(call, now)
        return self._create(body, view) if creates else self._query(call.task_id, view)

    def _query(self, task_id: str | None, view: View) -> Answer:
        task = self.tasks.get(task_id)
        return answers.not_found() if task is None else answers.queried(task, view)

    def _create(self, body: bytes, view: View) -> Answer:
        try:
            order = read_order(body)
        except BadOrderError as refusal:
            return answers.invalid_order(refusal.code, refusal.message, view.request_id)
        task = SimulatedTask(
            task_id=self.tasks.new_id(),
            created=view.now,
            duration=self.tasks.new_duration(fails=False),
            images=order.images,
            series=order.series,
            watermarked=order.watermarked,
            wrapped=self._wrapped,
            external_task_id=order.external_task_id,
            units=USUAL_UNITS,
        )
        self.tasks.add(task)
        return answers.created(task, view)

    def _view(self, call: Call, now: float) -> View:
        drawn = uuid.UUID(int=self._random.getrandbits(128), version=4)
        return View(
            now=now,
            epoch_ms=self._epoch_ms,
            origin=call.origin,
            request_id=str(drawn),
            seed=self._seed,
        )

    def _token(self, now: float) -> str:
        """Make a request id as the gateway's own errors carry it: time, then random (seen)."""
        moment = datetime.fromtimestamp(self._epoch_ms / 1000 + now, UTC)
        digits, letters = self._random.randrange(10**9), self._random.getrandbits(64)
        return f"{moment:%Y%m%d%H%M%S}{digits:09}{letters:016x}"
