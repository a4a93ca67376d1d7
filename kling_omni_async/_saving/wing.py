"""Saving as the session sees it: a part of its engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from random import Random

from kling_omni_async._config import Settings
from kling_omni_async._engine import Engine
from kling_omni_async._models import SavedImage
from kling_omni_async._results import Outlet

from .download import Downloader
from .outlet import SavingOutlet
from .rules import task_to_save
from .saver import Saver
from .stores import SavePlan, Stores


class Saving:
    """The images of one session on their way into stores.

    It is made when saving is first asked for, so that whoever only polls imports nothing of it,
    and nothing is imported on the way of an answer, where descriptors may be out.

    Args:
        engine: Runs it.
        settings: The session's.
        rng: Draws the jitter of pauses.
        on_exhausted: Called when file descriptors have run out.
    """

    def __init__(
        self, engine: Engine, settings: Settings, *, rng: Random, on_exhausted: Callable[[], object]
    ) -> None:
        self._engine = engine
        self._stores = Stores()
        self._saver = Saver(
            Downloader(settings),
            most=settings.policy.max_downloads,
            rng=rng,
            wall_clock=time.time,
            on_exhausted=on_exhausted,
        )

    def __repr__(self) -> str:
        return f"<Saving {self._saver!r}>"

    def outlet(self, store: object, *, watermarked: bool, overwrite: bool) -> Outlet:
        """Return an outlet that saves the images of each outcome before it hands it out.

        Raises:
            ConfigurationError: The store cannot be used.
        """
        plan = SavePlan(self._stores.open(store), watermarked=watermarked, overwrite=overwrite)
        return SavingOutlet(self._saver, plan)

    async def save(
        self, given: object, store: object, *, watermarked: bool, overwrite: bool
    ) -> tuple[SavedImage, ...]:
        """Save the images of a task or an outcome.

        Raises:
            KlingOmniError: An image is not in the store, or nothing can be saved.
        """
        plan = SavePlan(self._stores.open(store), watermarked=watermarked, overwrite=overwrite)
        return await self._saver.save(task_to_save(given), plan)

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
        """Tell all who wait for images that they will not be saved."""
        return self._saver.tell_end(reason)

    async def aclose(self) -> None:
        """Release everything."""
        await self._saver.aclose()
