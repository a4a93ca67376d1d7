"""The parts of one session, each made when it is first asked for."""

from __future__ import annotations

import asyncio
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

import aiohttp
import attrs

from ._api.client import Client
from ._config import Settings
from ._engine import Engine
from ._http import out_of_descriptors
from ._models import ImageTask
from ._observer import Door
from ._polling.poller import Poller
from ._results import Outlet, Successes
from ._saving.stores import StoreLike
from .errors import KlingOmniError, StorageError

if TYPE_CHECKING:
    from ._book.opened import OpenBook
    from ._book.own import OwnReaders
    from ._book.planning import BookPlanner
    from ._book.worker import Worker
    from ._creating.creator import Creator
    from ._creating.ordering import Ordering
    from ._saving.wing import Saving

_IMPORT_PAUSES_S: Final = (1.0, 2.0, 4.0, 8.0, 0.0)


class Wings:
    """The engine of a session, and what runs in it."""

    # Eleven attributes: what is there from the start (5), and what is made at first use: processes
    # that were forked after the session was made must not march in step.
    def __init__(self, settings: Settings, http: aiohttp.ClientSession | None) -> None:
        self.settings = settings
        self.door = Door()
        self.client = Client(settings, http, door=self.door)
        self.engine = Engine()
        self.successes = Successes()
        self.poller: Poller | None = None
        self.saving: Saving | None = None
        self.creator: Creator | None = None
        self.ordering: Ordering | None = None
        self.own_readers: OwnReaders | None = None
        self.book_planners: WeakKeyDictionary[OpenBook, BookPlanner] = WeakKeyDictionary()

    def __repr__(self) -> str:
        return repr(self.poller) if self.poller else f"<Poller {self.engine.state}>"

    def ready(self) -> Poller:
        """Return the poller to a verb, bound to the running loop."""
        if not self.engine.is_running_here():
            self.poller = self.poller or Poller(
                self.engine,
                self.settings.policy,
                self.client,
                rng=Random(),
                successes=self.successes,
                door=self.door,
            )
            self.engine.start(self.poller, *([self.saving] if self.saving else []))
        assert self.poller is not None  # noqa: S101 - it runs
        return self.poller

    async def import_saving(self, store: StoreLike) -> None:
        """Import what saves, and what opens a store, again where no descriptor is left for it."""
        for pause_s in _IMPORT_PAUSES_S:
            try:
                self.saving_wing().store(store)
            except (OSError, ImportError) as error:
                if not out_of_descriptors(error):
                    raise
            else:
                return
            self.client.give_up_idle()
            await asyncio.sleep(pause_s)
        text = "no file descriptor is left to open the store with"
        raise StorageError(text, reason="descriptors")

    def saving_wing(self) -> Saving:
        """Return what saves images, made when it is first asked for."""
        if self.saving is None:
            from ._saving.wing import Saving  # noqa: PLC0415 - not for those who only poll

            self.saving = Saving(
                self.engine,
                self.settings,
                rng=Random(),
                successes=self.successes,
                on_exhausted=self.client.give_up_idle,
                door=self.door,
            )
            self.engine.add(self.saving)
        return self.saving

    def outlet(self, store: StoreLike | None, *, watermarked: bool, overwrite: bool) -> Outlet:
        """Return an outlet of a stream, one that saves if there is a store."""
        if store is None:
            return Outlet()
        wing = self.saving_wing()
        return wing.outlet(store, watermarked=watermarked, overwrite=overwrite)

    def creating_wing(self) -> Creator:
        """Return what creates tasks, made when it is first asked for, once the poller runs."""
        if self.creator is None:
            from ._creating.creator import Creator  # noqa: PLC0415 - not for those who only poll

            poller = self.ready()
            self.creator = Creator(self.engine, self.settings, self.client, poller, rng=Random())
            self.engine.add(self.creator)
        return self.creator

    def ordering_wing(self) -> Ordering:
        """Return what brings the outcomes of orders, made as the above."""
        poller = self.ready()
        if self.ordering is None:
            from ._creating.ordering import Ordering  # noqa: PLC0415 - not for those who only poll

            self.ordering = Ordering(self.engine, poller, self.creating_wing())
            self.engine.add(self.ordering)
        return self.ordering

    def book_worker(self, timeout: float | None, inside: OpenBook) -> Worker:
        """Return what polls a book in this session."""
        from ._book.worker import Identity, Worker  # noqa: PLC0415 - as above

        async def look(external_id: str) -> ImageTask | KlingOmniError | None:
            return await self.creating_wing().look_now(external_id)

        poller, settings = self.ready(), self.settings
        policy = attrs.evolve(settings.policy, timeout=timeout)
        identity = Identity(settings.account, settings.base_url)
        return Worker(self.engine, poller, inside, policy, identity, look=look, rng=Random())

    def book_planner(self, inside: OpenBook) -> BookPlanner:
        """Return what says when tasks are asked for first that this session creates into a book."""
        if (planner := self.book_planners.get(inside)) is None:
            from ._book.planning import BookPlanner  # noqa: PLC0415 - as above

            planner = BookPlanner(inside.store, self.ready(), self.settings.policy, Random())
            self.book_planners[inside] = planner
        return planner

    def readers_of_own(self) -> OwnReaders:
        """Return what brings outcomes out of books for their own calls, made as the above."""
        self.ready()
        if self.own_readers is None:
            from ._book.own import OwnReaders  # noqa: PLC0415 - not for those who only poll

            self.own_readers = OwnReaders(
                self.engine, partial(self.book_worker, self.settings.policy.timeout)
            )
            self.engine.add(self.own_readers)
        return self.own_readers
