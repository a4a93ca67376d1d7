"""What a consumer of a book takes from, and by which it says what became of each outcome."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Collection, Generator
from contextlib import contextmanager
from typing import Any, Final, Protocol

from kling_omni_async._handlers import name_of
from kling_omni_async._ids import quoted
from kling_omni_async._outcome import TaskOutcome
from kling_omni_async._results import BusyError, Outlet

from .contract import Ack, Parcel
from .reader import Reader

logger: Final = logging.getLogger("kling_omni_async.book")

_NO_FAILURES: Final = (asyncio.CancelledError, GeneratorExit)


class Stepper(Protocol):
    """Who makes the steps of a reader."""

    async def prepare(self) -> None:
        """Get ready before anything is read."""

    def ring(self) -> None:
        """Look whether there is something to say or to get."""

    async def kept(self) -> None:
        """Wait until the book knows what became of all outcomes so far."""


class AckedOutlet(Outlet, ABC):
    """Hands outcomes of a book out to one consumer, and is told what became of each."""

    def __init__(self) -> None:
        super().__init__()
        self._last: TaskOutcome | None = None  # of a plain step
        self._has_consumer = False
        self.has_failed = False  # an exception has left the block

    @abstractmethod
    def settle(self, outcome: TaskOutcome, ack: Ack) -> bool:
        """Note what became of an outcome; return False if that is known, or it is none of ours."""

    async def step(self) -> TaskOutcome:
        """Acknowledge the outcome of the step before, and take the next one."""
        with self.consuming():
            self._last = await self.take()
            return self._last

    @contextmanager
    def consuming(self) -> Generator[None]:
        """Be the only consumer."""
        if self._has_consumer:
            raise BusyError(
                "the stream of a book has one consumer, and another one takes from it; open one "
                "stream for each, or let `each` run several handlers"
            )
        self._has_consumer = True
        try:
            if self._last is not None:
                self.settle(self._last, Ack.DONE)
                self._last = None
            yield
        finally:
            self._has_consumer = False

    def handled(self, outcome: TaskOutcome, error: BaseException | None) -> BaseException | None:
        """Acknowledge an outcome whose handler returned; one whose handler raised comes again."""
        is_news = self.settle(outcome, Ack.DONE if error is None else Ack.FAILED)
        if error is not None:
            then = "it comes again later" if is_news else "it is acknowledged already"
            text = "the handler raised for %s, delivery %d; %s"
            name = quoted(name_of(outcome))
            logger.error(text, name, outcome.deliveries, then, exc_info=error)
        return None

    def dropped(self, outcome: TaskOutcome) -> None:
        """Give back an outcome whose handler was cancelled."""
        self.settle(outcome, Ack.BACK)

    async def ack(self, outcome: TaskOutcome) -> None:
        """Keep that an outcome was handled."""
        self.settle(outcome, Ack.DONE)
        await self.kept()

    def leaving(self, error: BaseException | None) -> None:
        """Note whether what the consumer has was in vain."""
        self.has_failed = error is not None and not isinstance(error, _NO_FAILURES)


class HandedOutlet(AckedOutlet):
    """Hands out what a reader has."""

    def __init__(self, reader: Reader, stepper: Stepper) -> None:
        super().__init__()
        self._reader = reader
        self._stepper = stepper
        # By identity: equal ones may be two ends of one task.
        self._parcels: dict[int, tuple[TaskOutcome, Parcel]] = {}

    async def prepare(self) -> None:
        """Open the book, and try the store of images."""
        await self._stepper.prepare()

    def offer(self, parcel: Parcel, outcome: TaskOutcome) -> None:
        """Let the consumer have an outcome."""
        self._parcels[id(outcome)] = outcome, parcel
        self.put(outcome)

    async def take(self) -> TaskOutcome:
        """Take the next outcome."""
        with self._asking(1):
            return self._noted(await super().take())

    async def take_unless(
        self, others: Collection[asyncio.Future[Any]], *, most: int
    ) -> TaskOutcome | None:
        """Take an outcome for a handler, or None once one of the others is done."""
        with self._asking(most):
            outcome = await super().take_unless(others, most=most)
            return None if outcome is None else self._noted(outcome)

    @contextmanager
    def _asking(self, most: int) -> Generator[None]:
        """Want outcomes for as long as the consumer waits; what comes later is kept for him."""
        self._reader.wanted = most
        self._stepper.ring()
        try:
            yield
        finally:
            self._reader.wanted = 0

    def _noted(self, outcome: TaskOutcome) -> TaskOutcome:
        self._reader.gave(self._parcels[id(outcome)][1])
        return outcome

    async def kept(self) -> None:
        """Wait until the book knows what became of all outcomes so far."""
        await self._stepper.kept()

    def settle(self, outcome: TaskOutcome, ack: Ack) -> bool:
        """Note what became of an outcome; return False if that is known, or it is none of ours."""
        found = self._parcels.pop(id(outcome), None)
        if found is None:
            return False
        self._reader.settle(found[1], ack)
        self._stepper.ring()
        return True
