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
from ._images import Place, Target, signature
from ._settings import Settings
from ._tasks import USUAL_UNITS, SimulatedTask, TaskBook

COLLECTION = "/kling/v1/images/omni-image"


@frozen(kw_only=True)
class Call:
    """A request to the API, as far as its answer depends on it."""

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
    """The API and its images behind their URLs: tasks in, answers out."""

    def __init__(self, settings: Settings) -> None:
        self.tasks = TaskBook(seed=settings.seed)
        self._settings = settings
        # apart from the draws of the tasks: how often one asks must not change their ids
        self._random = random.Random(f"requests {settings.seed}")

    def answer(self, call: Call, body: bytes, *, now: float) -> Answer:
        """Answer one request to the API."""
        creates = call.method == "POST" and call.path == COLLECTION
        # what is no route is a web page, whatever the key (source)
        if call.task_id is None and not creates:
            return answers.page()
        if not call.authorised:
            return answers.invalid_token(self._token(now))
        view = self._view(call, now)
        return self._create(body, view) if creates else self._query(call.task_id, view)

    def image(self, target: Target | None, *, now: float) -> Answer:
        """Answer one request for an image.

        Args:
            target: What the request names; None for no image.
            now: The time, in simulated seconds.
        """
        task = None if target is None else self._maker(target.place)
        if target is None or task is None:
            return answers.gone(404)
        if target.hops:
            return answers.moved(target.via(target.hops - 1))
        refusal = self._refusal(target, task, now)
        if refusal is not None:
            return answers.gone(refusal)
        return answers.picture(target.place, task.image_bytes, seed=self._settings.seed)

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
            wrapped=self._settings.wrapped,
            external_task_id=order.external_task_id,
            units=USUAL_UNITS,
        )
        self.tasks.add(task)
        return answers.created(task, view)

    def _maker(self, place: Place) -> SimulatedTask | None:
        """Return the task that has such an image, made already or not."""
        task = self.tasks.get(place.task_id)
        if task is None or place.index >= task.images:
            return None
        return task if task.watermarked or not place.watermarked else None

    def _refusal(self, target: Target, task: SimulatedTask, now: float) -> int | None:
        """Return the status under which an image is not given; None where it is."""
        if task.expiry is not None:
            return task.expiry.status
        if task.status(now) != "succeed":
            return 404
        if task.signed and target.query != signature(target.place, self._settings.seed):
            return 403
        return None

    def _view(self, call: Call, now: float) -> View:
        drawn = uuid.UUID(int=self._random.getrandbits(128), version=4)
        return View(
            now=now,
            epoch_ms=self._settings.epoch_ms,
            origin=call.origin,
            request_id=str(drawn),
            seed=self._settings.seed,
        )

    def _token(self, now: float) -> str:
        """Make a request id as the gateway's own errors carry it: time, then random (seen)."""
        moment = datetime.fromtimestamp(self._settings.epoch_ms / 1000 + now, UTC)
        digits, letters = self._random.randrange(10**9), self._random.getrandbits(64)
        return f"{moment:%Y%m%d%H%M%S}{digits:09}{letters:016x}"
