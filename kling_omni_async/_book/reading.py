"""The streams of a book: what a reader takes goes to its consumer, and what became of it back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final, Protocol
from uuid import uuid4

import attrs

from kling_omni_async._ids import quoted
from kling_omni_async._outcome import Progress, TaskOutcome
from kling_omni_async._polling.stream import Phase
from kling_omni_async._results import End, Result, raise_copy, resolve
from kling_omni_async._stats import COUNTS, count_of
from kling_omni_async.errors import BookError

from .bell import Bell
from .contract import Parcel, Take, Taken, plain_ids
from .forms import outcome_of_parcel
from .handed import HandedOutlet
from .handing import MOST_DELIVERIES
from .reader import Reader
from .saving import SavedAhead

if TYPE_CHECKING:
    from .opened import OpenBook

FAREWELL_S: Final = 5.0
"""How long a reader that leaves tries to say what became of its outcomes, in s."""

_AGAIN_S: Final = (0.5, 1.0, 2.0, 5.0)

logger: Final = logging.getLogger("kling_omni_async.book")


class Companion(Protocol):
    """What polls the book while a stream reads it, and is left with it."""

    @property
    def fault(self) -> BaseException | None:
        """Why it has ended by itself."""
        ...

    def start(self) -> None:
        """Begin; what ends it by itself wakes all who listen to changes of the book."""

    async def aclose(self) -> None:
        """Stop."""


class Reading:
    """The inside of one stream of a book."""

    # More than ten attributes, as this is the one place for what is known of a stream.
    def __init__(
        self,
        open_book: Callable[[], Awaitable[OpenBook]],
        *,
        ahead: SavedAhead | None = None,
        until_empty: bool = False,
        make_companion: Callable[[OpenBook], Companion] | None = None,
    ) -> None:
        self._reader = Reader(str(uuid4()), ahead=ahead.most if ahead else 0)
        self._open_book = open_book
        self._ahead = ahead
        self._until_empty = until_empty
        self._make_companion = make_companion
        self._companion: Companion | None = None
        self._inside: OpenBook | None = None
        self._bell = Bell()
        self._left = Bell()
        self._closed = asyncio.Event()
        self._has_begun = False
        self._sent: Take | None = None  # a step that the book has not answered
        self._acks: set[Result[None]] = set()
        self._counts = dict.fromkeys(COUNTS, 0)
        self._is_warned = False
        self._broken: BookError | None = None  # why no more steps are made
        self.outlet: HandedOutlet = HandedOutlet(self._reader, self)

    def __repr__(self) -> str:
        return f"<Reading {self.phase.name.lower()} {self._reader!r}>"

    # What the stream asks.

    @property
    def phase(self) -> Phase:
        """How far it is."""
        if self._left.is_rung or self.outlet.has_ended:
            return Phase.ENDED
        return Phase.POLLING if self._has_begun else Phase.NEW

    @property
    def ids(self) -> Mapping[str, object]:
        """Those that it holds and has not handed out."""
        held = {**self._reader.taken, **self._reader.ready}
        return dict(zip(plain_ids(held), held.values(), strict=True))

    @property
    def progress(self) -> Progress:
        """The counts of what it holds and has handed out."""
        pending = len(self.ids)
        total = pending + sum(self._counts.values())
        return Progress(total=total, pending=pending, **self._counts)

    def begin(self) -> None:
        """Do nothing: a book has no input."""

    def know_all(self) -> None:
        """Do nothing: what it holds is known."""

    def handed_out(self, outcome: TaskOutcome) -> None:
        """Count an outcome that the consumer has."""
        self._counts[count_of(outcome.error)] += 1

    def cut(self, end: End) -> None:
        """Hand out no more; what it has is given back when the stream is left."""
        self.outlet.cut(end)
        if self._ahead is not None:
            self._ahead.outlet.cut(end)

    async def closed(self) -> None:
        """Wait until the book has back what was not acknowledged."""
        await self._closed.wait()

    # What its outlet asks.

    async def prepare(self) -> None:
        """Open the book, and try the store of images."""
        self._inside = inside = await self._open_book()
        if self._make_companion is not None and self._companion is None:
            self._companion = self._make_companion(inside)
        if self._ahead is not None:
            await self._ahead.outlet.prepare()

    def ring(self) -> None:
        """Look whether there is something to say or to get."""
        self._bell.ring()

    async def kept(self) -> None:
        """Wait until the book knows what became of all outcomes so far."""
        if self._left.is_rung:
            await self._closed.wait()
            await self._say_late()
            return
        result: Result[None] = asyncio.get_running_loop().create_future()
        self._acks.add(result)
        self._tell_acks()
        try:
            reply = await result
        finally:
            self._acks.discard(result)
        if reply is not None:
            raise_copy(reply)

    def _tell_acks(self) -> None:
        """Let those go whose outcomes are acknowledged, or all of them where no more can be."""
        if self._broken is not None or (self._sent is None and not self._reader.has_receipts):
            for result in self._acks:
                resolve(result, self._broken)

    # What its host asks.

    def open(self, forget: Callable[[Reading], object]) -> None:
        """Begin to read, beside what polls if anything does; `forget` is called behind the end."""
        self._has_begun = True
        inside = self._open()
        if self._companion is not None:
            self._companion.start()
        self.ring()
        inside.engine.start_soon(self._run, forget, name="kling_omni_async.reader")
        if self._ahead is not None:
            inside.engine.start_soon(self._collect, self._ahead, name="kling_omni_async.reader")

    def leave(self) -> None:
        """Read no more, and give back what was not acknowledged."""
        self._left.ring()
        self.cut(End())
        self.ring()

    def _open(self) -> OpenBook:
        assert self._inside is not None  # noqa: S101 - it was prepared
        return self._inside

    # The loop.

    async def _run(self, forget: Callable[[Reading], object]) -> None:
        changes = self._open().changes
        changes.listen(self.ring)
        try:
            await self._read()
        except BookError as error:
            self._broken = error
            self.outlet.end(End(error))
            self._tell_acks()
            await self._left.wait()
        finally:
            changes.unlisten(self.ring)
        # Without an end: as long as this process lives, others get what it has only by this.
        await self.give_back(FAREWELL_S, Bell())
        forget(self)

    async def _read(self) -> None:
        """Make a step whenever there is something to say or to get, until the stream is left."""
        loop = asyncio.get_running_loop()
        until: float | None = None
        while True:
            is_time = not await self._bell.wait(until)
            self._bell.silence()
            if self._left.is_rung:
                return
            if is_time or self._reader.has_news or self._reader.want:
                rest_s = self._reader.rest_s(await self._step())
                until = None if rest_s is None else loop.time() + rest_s

    async def _step(self) -> float | None:
        """Make one step; return when an outcome comes again, in s."""
        # Before the step: what was there when it ended comes out ahead of its fault.
        fault = self._companion.fault if self._companion is not None else None
        reply = await self._send(self._reader.next_take(), self._left)
        if reply is None:
            return None
        self._take_in(reply)
        if self._reader.is_done:
            if self._until_empty and reply.is_empty:
                self.outlet.end(End())
            elif fault is not None:
                self.outlet.end(End(fault))
        return reply.next_s

    async def _send(self, take: Take, stop: Bell) -> Taken | None:
        """Send a step until the book has made it; None if that is to stop before."""
        self._sent, tries = take, 0
        while True:
            try:
                reply = await self._take(take)
            except BookError as error:
                if not error.transient:
                    raise
                self._warn_once(error)
                pause_s = _AGAIN_S[min(tries, len(_AGAIN_S) - 1)]
                if await stop.wait(asyncio.get_running_loop().time() + pause_s):
                    return None
                tries += 1
            else:
                self._sent, self._is_warned = None, False
                return reply

    def _warn_once(self, error: BookError) -> None:
        if not self._is_warned:
            self._is_warned = True
            text = "the book %s is out of reach, its outcomes come when it is back: %s"
            logger.warning(text, self._open().name, error)

    async def _take(self, take: Take) -> Taken:
        reply = await self._open().store.take(take)
        for name in plain_ids(reply.parked):
            text = "the outcome of %s was handed out %d times in vain; it is parked, see book.retry"
            logger.error(text, quoted(name), MOST_DELIVERIES)
        return reply

    def _take_in(self, reply: Taken) -> None:
        got = self._reader.took(reply)
        for parcel in got.to_hand_out:
            saved = self._ahead.pop(parcel) if self._ahead is not None else None
            if (outcome := saved or self._read_parcel(parcel)) is not None:
                self.outlet.offer(parcel, outcome)
        if self._ahead is not None:
            self._ahead.forget(reply.lost)
        for parcel in got.to_save:
            if self._ahead is not None and (outcome := self._read_parcel(parcel)) is not None:
                self._ahead.save(parcel, outcome, reply.origin)
        self._tell_acks()

    def _read_parcel(self, parcel: Parcel) -> TaskOutcome | None:
        try:
            return outcome_of_parcel(parcel)
        except BookError as error:
            name = plain_ids([parcel.key])[0]
            logger.error("the outcome of %s is given back: %s", quoted(name), error)  # noqa: TRY400 - the text says all
            self._reader.refuse(parcel)
            self.ring()
            return None

    async def _collect(self, ahead: SavedAhead) -> None:
        """Get ready to hand out what is saved."""
        try:
            while True:
                self._reader.saved(await ahead.next_saved())
                self.ring()
        except StopAsyncIteration:
            pass  # the stream is left
        except Exception as error:  # noqa: BLE001 - the consumer is told
            self.outlet.end(End(error))

    # The end.

    async def give_back(self, patience_s: float, stop: Bell) -> None:
        """Give back what was not acknowledged, however long that takes, until `stop` rings.

        Whoever leaves the stream waits for it as long as the patience is.
        """
        self._left.ring()
        if self._companion is not None:
            await self._companion.aclose()
        why = f"it did not answer within {patience_s:g} s"
        timer = asyncio.get_running_loop().call_later(patience_s, self._not_told, why)
        try:
            await self._farewell(stop)
        except BookError as error:
            self._not_told(str(error))
        finally:
            timer.cancel()
        self._closed.set()
        self._tell_acks()

    def _not_told(self, why: str) -> None:
        text = f"the book {self._open().name} was not told what became of outcomes: {why}"
        logger.warning("%s; those come again", text)
        self._broken = BookError(text)
        self._closed.set()
        self._tell_acks()

    async def _farewell(self, stop: Bell) -> None:
        if self._sent is not None:  # it may have brought something; if not, it is to bring nothing
            reply = await self._send(attrs.evolve(self._sent, want=0), stop)
            if reply is None:
                return
            self._take_in(reply)
        self._reader.give_back(failed=self.outlet.has_failed)
        for take in self._reader.last_takes():
            if await self._send(take, stop) is None:
                return

    async def _say_late(self) -> None:
        """Say what is still to be said after the stream was left, or raise `BookError`."""
        self._open().engine.is_running_here()
        if self._sent is not None:
            await self._take(self._sent)
            self._sent = None
        if self._reader.has_receipts:
            for take in self._reader.last_takes():
                await self._take(take)
