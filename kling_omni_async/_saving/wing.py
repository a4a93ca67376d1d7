"""Saving as the session sees it: outlets of streams that save, and a part of its engine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from random import Random

import attrs

from kling_omni_async._engine import Engine
from kling_omni_async._models import SavedImage
from kling_omni_async._observer import Door
from kling_omni_async._outcome import TaskOutcome
from kling_omni_async._results import (
    End,
    Outlet,
    Result,
    Successes,
    log_end,
    raise_copy,
    resolve,
)

from .download import Downloader, SaveSettings
from .rules import task_to_save
from .saver import SaveOrder, Saver
from .stores import SavePlan, Store, Stores


class Saving:
    """The images of one session on their way into stores.

    It is made when saving is first asked for, so that whoever only polls imports nothing of it,
    and nothing is imported on the way of an answer, where descriptors may be out: `on_exhausted`
    is called when they have run out.
    """

    def __init__(
        self,
        engine: Engine,
        settings: SaveSettings,
        *,
        rng: Random,
        successes: Successes,
        on_exhausted: Callable[[], object],
        door: Door,
    ) -> None:
        self._engine = engine
        self._stores = Stores()
        self._saver = Saver(
            Downloader(settings, door=door),
            most=settings.policy.max_downloads,
            tries=settings.policy.download_tries,
            rng=rng,
            successes=successes,
            on_exhausted=on_exhausted,
            door=door,
        )
        self._trials: set[Result[None]] = set()

    @property
    def active(self) -> int:
        """How many tasks have images that are being saved."""
        return self._saver.active

    def __repr__(self) -> str:
        return f"<Saving {self._saver!r}>"

    def store(self, store: object) -> Store:
        """Return the store that an argument names, or raise `ConfigurationError`."""
        return self._stores.open(store)

    def outlet(self, store: object, *, watermarked: bool, overwrite: bool) -> Outlet:
        """Return an outlet that saves the images of each outcome before it hands it out.

        Raises:
            ConfigurationError: The store cannot be used.
        """
        plan = self.plan(store, watermarked=watermarked, overwrite=overwrite)
        return SavingOutlet(self._saver, plan, try_out=partial(self._try_out, plan.store))

    def plan(self, store: object, *, watermarked: bool, overwrite: bool) -> SavePlan:
        """Return how images are to be saved.

        Raises:
            ConfigurationError: The store cannot be used.
        """
        return SavePlan(self._stores.open(store), watermarked=watermarked, overwrite=overwrite)

    async def tried_plan(self, store: object, *, watermarked: bool, overwrite: bool) -> SavePlan:
        """Return how images are to be saved, in a store that was tried.

        Raises:
            ConfigurationError: The store cannot be used.
        """
        plan = self.plan(store, watermarked=watermarked, overwrite=overwrite)
        await self._try_out(plan.store)
        return plan

    async def save(
        self, given: object, store: object, *, watermarked: bool, overwrite: bool
    ) -> tuple[SavedImage, ...]:
        """Save the images of a task or an outcome.

        Raises:
            KlingOmniError: An image is not in the store, or nothing can be saved.
        """
        plan = self.plan(store, watermarked=watermarked, overwrite=overwrite)
        return await self.save_by(given, plan)

    async def save_by(self, given: object, plan: SavePlan) -> tuple[SavedImage, ...]:
        """Save the images of a task or an outcome by a plan that was made before.

        Raises:
            KlingOmniError: An image is not in the store, or nothing can be saved.
        """
        return await self._saver.save(task_to_save(given), plan)

    async def _try_out(self, store: Store) -> None:
        """Try a store, in a task of the engine: so it ends with the session, if not before.

        Raises:
            ConfigurationError: Images cannot be kept there.
        """
        trial: Result[None] = asyncio.get_running_loop().create_future()
        self._trials.add(trial)
        self._engine.start_soon(self._try, store, trial, name="kling_omni_async.store")
        try:
            reply = await trial
        finally:
            self._trials.discard(trial)
        if reply is not None:
            raise_copy(reply)

    async def _try(self, store: Store, trial: Result[None]) -> None:
        try:
            await self._saver.try_out(store)
        except Exception as error:  # noqa: BLE001 - whoever waits for it gets it, and nobody else
            resolve(trial, error)
        else:
            resolve(trial, None)

    # What the engine calls.

    def bind(self) -> None:
        """Let workers start."""
        start = self._engine.start_soon
        self._saver.open(partial(start, self._saver.work, name="kling_omni_async.save"))

    async def open(self) -> None:
        """Do nothing: clients and stores are opened with the first image."""

    def stop(self) -> None:
        """Do nothing: workers may be cancelled as a task group does."""

    def tell_end(self, reason: BaseException) -> Iterator[None]:
        """Tell all who wait for images or for a store that nothing more comes of it."""
        yield from self._saver.tell_end(reason)
        for trial in self._trials:
            resolve(trial, reason)

    async def aclose(self) -> None:
        """Release everything."""
        await self._saver.aclose()


class SavingOutlet(Outlet):
    """Saves the images of each outcome that is ok before a consumer gets it."""

    def __init__(
        self, saver: Saver, plan: SavePlan, *, try_out: Callable[[], Awaitable[None]]
    ) -> None:
        super().__init__()
        self._try_out = try_out
        self._saver = saver
        self._plan = plan
        self._orders: set[SaveOrder] = set()
        self._ending: End | None = None

    @property
    def has_ended(self) -> bool:
        """Whether nothing more is put in."""
        return self._ending is not None

    async def prepare(self) -> None:
        """Try the store before anything is asked: nobody shall wait an hour for a typo."""
        await self._try_out()

    def put(self, outcome: TaskOutcome) -> None:
        """Deliver an outcome once its images are saved or given up; others go ahead of it."""
        # One that comes behind the end is dropped: nobody could get it.
        if self._ending is not None:
            return
        if outcome.error is not None:
            super().put(outcome)
            return
        assert outcome.task is not None  # noqa: S101 - a success has one
        saved = partial(self._saved, outcome, asyncio.get_running_loop().time())
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
        elapsed = outcome.elapsed + asyncio.get_running_loop().time() - since
        super().put(attrs.evolve(outcome, saved=order.saved, error=order.error, elapsed=elapsed))
        self._end_if_saved()

    def _aborted(self, reason: BaseException) -> None:
        # A plain end that waited for these images must not look as if they had all come out.
        if self._ending is None or self._ending.reason is None:
            self._ending = End(reason)
        self.cut(self._ending)

    def _end_if_saved(self) -> None:
        if self._ending is not None and not self._orders:
            super().end(self._ending)
