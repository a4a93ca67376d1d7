"""The outlet of a stream that saves: each outcome comes out behind its images."""

from __future__ import annotations

import asyncio
from functools import partial

import attrs

from kling_omni_async._outcome import TaskOutcome
from kling_omni_async._results import End, Outlet, log_end

from .saver import SaveOrder, Saver
from .stores import SavePlan


class SavingOutlet(Outlet):
    """Saves the images of each outcome that is ok before a consumer gets it."""

    def __init__(self, saver: Saver, plan: SavePlan) -> None:
        super().__init__()
        self._saver = saver
        self._plan = plan
        self._orders: set[SaveOrder] = set()
        self._ending: End | None = None

    @property
    def has_ended(self) -> bool:
        """Whether nothing more is put in."""
        return self._ending is not None

    def put(self, outcome: TaskOutcome) -> None:
        """Deliver an outcome once its images are saved or given up; others go ahead of it.

        One that comes behind the end is dropped: nobody could get it.
        """
        if self._ending is not None:
            return
        if outcome.error is not None:
            self.deliver(outcome)
            return
        assert outcome.task is not None  # noqa: S101 - a success has one
        saved = partial(self._saved, outcome, _now())
        order = SaveOrder(outcome.task, self._plan, done=saved, abort=self._aborted)
        self._orders.add(order)  # first: without one image to fetch it ends inside of `submit`
        self._saver.submit(order)

    def end(self, end: End) -> None:
        """End the stream behind what was put and what is being saved; the first end counts."""
        if self._ending is None:
            self._ending = end
            self._end_if_saved()

    def cut(self, end: End) -> None:
        """End the stream at once and stop all that is being saved; the first cut counts.

        Consumers get the end that the stream had already, if it had one.
        """
        if self._ending is None:
            self._ending = end
        # First: an image that is done in this very moment must find nobody to tell.
        self._saver.cancel(self._orders)
        self._orders.clear()
        super().cut(self._ending)

    def _saved(self, outcome: TaskOutcome, since: float, order: SaveOrder) -> None:
        """Deliver an outcome whose images were saved or given up, also behind the end of polling.

        A fault of the set-up ends a stream for what is still polled. What had succeeded by then
        comes out first.
        """
        self._orders.discard(order)
        if order.error is not None:
            log_end(outcome.task_id, order.error, queries=outcome.queries)
        # What a user waits for is the image, so its time counts too.
        elapsed = outcome.elapsed + _now() - since
        self.deliver(attrs.evolve(outcome, saved=order.saved, error=order.error, elapsed=elapsed))
        self._end_if_saved()

    def _aborted(self, reason: BaseException) -> None:
        # A plain end that waited for these images must not look as if they had all come out.
        if self._ending is None or self._ending.reason is None:
            self._ending = End(reason)
        self.cut(self._ending)

    def _end_if_saved(self) -> None:
        if self._ending is not None and not self._orders:
            super().end(self._ending)


def _now() -> float:
    return asyncio.get_running_loop().time()
