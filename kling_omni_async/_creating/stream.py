"""What becomes of the orders of one stream: the inside of what `generate_many` gives."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import AsyncIterable, Iterable, Iterator
from functools import partial
from itertools import takewhile
from random import Random
from typing import Final
from uuid import UUID, uuid4

import attrs

from kling_omni_async._api.create import NeverLeft, Refused, external_id_of
from kling_omni_async._engine import Engine
from kling_omni_async._ids import quoted
from kling_omni_async._models import ImageTask
from kling_omni_async._order import ImageOrder, Orders, expected_s, require_order
from kling_omni_async._outcome import Progress, TaskOutcome
from kling_omni_async._polling.inputs import read_input
from kling_omni_async._polling.limits import NEVER
from kling_omni_async._polling.poller import Poller
from kling_omni_async._polling.stream import Intake, Phase
from kling_omni_async._polling.verdicts import VerdictKind, verdict_on
from kling_omni_async._results import End, Outlet, one_line
from kling_omni_async._stats import COUNTS, count_of
from kling_omni_async.errors import (
    AccountError,
    AuthenticationError,
    BookError,
    ConfigurationError,
    CreateUncertainError,
    DuplicateOrderError,
    KlingOmniError,
    PermissionDeniedError,
    copy_error,
)

from . import creator
from .creator import Creation, Creator, passes
from .ledger import Ledger, NamedOrder
from .slots import Backoff, SlotLimit
from .wishes import Kept, OrderWaiter, Pace, Stage, Wish

_READ: Final = "kling_omni_async.orders"
_MOST_UNREAD: Final = 1_000
"""How many outcomes may wait for a consumer before no more orders are read."""

_ENDS_CREATING: Final = (AuthenticationError, AccountError, PermissionDeniedError, BookError)
"""Refusals that the next order would meet, too."""

logger: Final = logging.getLogger("kling_omni_async.creator")


@attrs.frozen
class Means:
    """By what a stream creates and polls."""

    engine: Engine
    poller: Poller
    creator: Creator


class OrderStream:
    """The inside of a stream of `generate_many`."""

    # 21 attributes, as for `StreamState`: this is the one place for what is known of it.
    input_of = "orders"

    def __init__(
        self,
        source: Orders | AsyncIterable[NamedOrder],
        *,
        timeout: float | None,
        outlet: Outlet,
        namespace: UUID,
        most_slots: int | None,
        rng: Random,
        expects: float | None = None,
        ledger: Ledger | None = None,
        kept: Kept | None = None,
    ) -> None:
        self.intake = Intake(source)
        self.outlet = outlet
        self.timeout = timeout
        self.expects = expects  # a callback for each task, within s
        self.phase = Phase.NEW
        self.room: asyncio.Event | None = None
        self.ids: dict[str, Wish] = {}
        self.slots = SlotLimit(most_slots)
        self.youngest: float | None = None  # creation of a task, in s of the loop
        self._namespace = namespace
        self._ledger = ledger
        self._kept = kept  # its tasks, in a book
        self._means: Means | None = None
        self._queue: deque[Wish] = deque()
        self._seen: dict[str, int] = {}  # of keys that were handed out, of a finite input
        self._taking: Iterator[None] = iter(())
        self._pace = Pace(Backoff(rng))
        self._ended_by: KlingOmniError | None = None  # why nothing more is created
        self._counts = dict.fromkeys(COUNTS, 0)
        self._open = 0  # wishes without an outcome
        self._unread = 0  # outcomes that nobody has
        self._end = End()

    def __repr__(self) -> str:
        return f"<OrderStream {self.phase.name.lower()} {self.slots!r} {self.progress!r}>"

    @property
    def progress(self) -> Progress:
        """The counts at this moment; they add up, as outcomes are counted when handed out."""
        total = len(self.ids) + sum(self._counts.values())
        return Progress(total=total, pending=len(self.ids), **self._counts)

    @property
    def most_pending(self) -> float:
        """How many wishes there may be before the input waits: it is read one ahead."""
        is_full = self._queue or self._unread >= _MOST_UNREAD
        return len(self.ids) if is_full else NEVER

    # What its input brings.

    def begin(self) -> None:
        """Copy a container, and let reading begin."""
        if self.phase is not Phase.NEW:
            return
        self.phase = Phase.READING
        self.intake.copy()
        if self.intake.is_bounded:
            self.intake.is_known = True
            self._taking = self._take_all(self.intake.ids())

    def open(self, means: Means) -> None:
        """Begin to create, with what does it."""
        self._means = means
        if self.intake.is_bounded:
            means.engine.do(self._taking, name=_READ)
        else:
            means.engine.start_soon(read_input, self, _take, name=_READ)

    def know_all(self) -> None:
        """Note all orders of a container, once the stream has begun."""
        for _ in self._taking:
            pass

    def _take_all(self, orders: Iterator[object]) -> Iterator[None]:
        now = asyncio.get_running_loop().time()
        for given in orders:
            self.read(given, now)
            yield
        self.input_ended(self.intake.error)

    def read(self, given: object, now: float) -> None:
        """Take what its input gave; a defect of ours must not pass for the input's own."""
        try:
            self.take(given, now)
        except Exception as defect:  # noqa: BLE001 - it reaches all who wait
            if self._means is not None:  # pragma: no branch - it reads
                self._means.engine.fail(defect)
            self.cut(End(defect))

    def take(self, given: object, now: float) -> None:
        """Note what the input gave, and create what there is room for."""
        if isinstance(given, NamedOrder):
            self._take_named(given, now)
            return
        try:
            order = require_order(given)
        except ConfigurationError as fault:
            self._put(self._add(str(uuid4()), None, now), error=fault, now=now)
            return
        name = external_id_of(order, self._namespace)
        known, seen = self.ids.get(name), self._seen.get(name)
        if known is None and seen is None:
            self._queue.append(self._add(name, order, now))
            self.look()
        elif _print_of(order) != (_print_of(known.order) if known else seen):
            text = f"ImageOrder.key {quoted(order.key)} names another order of this stream"
            error = ConfigurationError(f"{text}; give each wish a key of its own")
            self._put(self._add(str(uuid4()), order, now), error=error, now=now)

    def _take_named(self, named: NamedOrder, now: float) -> None:
        """Note an order of our own, whose name no other of this stream has."""
        wish = self._add(named.external_id, named.order, now)
        if named.task is None:
            self._queue.append(wish)
            self.look()
        else:  # it holds its places already, however many that are
            self.slots.take(wish.slots)
            self._poll(wish, named.task, now)

    def _add(self, name: str, order: ImageOrder | None, now: float) -> Wish:
        wish = self.ids[name] = Wish(name, order, now)
        self._open += 1
        return wish

    def input_ended(self, error: Exception | None) -> None:
        """Note that no more orders come, and why if the input raised something."""
        self.intake.close(whole=True)
        if self.phase is Phase.READING:
            self.phase = Phase.POLLING
            self._end = End(error)
            self._end_if_done()

    # Creating.

    def look(self) -> None:
        """Create what there is room for, give up whose time is over, and set the next alarm."""
        means = self._means
        if means is None or means.engine.closed or self.phase is Phase.ENDED:
            return
        now = asyncio.get_running_loop().time()
        self._give_up(now)
        while self._queue and self._pace.next_send <= now and self.slots.fits(self._queue[0].slots):
            self._create(self._queue.popleft(), means)
        if not self._queue and self.room is not None:
            self.room.set()
        self._pace.arm(self._next_look(), means.engine.guarded(self.look))

    def _next_look(self) -> float:
        """Return when there is something to do that no answer tells of, in s, or infinity."""
        when = min(map(self._deadline, _refused(self._queue)), default=NEVER)
        if self._queue and self.slots.fits(self._queue[0].slots):
            when = min(when, self._pace.next_send)
        return when

    def _give_up(self, now: float) -> None:
        if (error := self._ended_by) is not None:
            given_up = list(self._queue)
        else:
            given_up = [wish for wish in _refused(self._queue) if self._deadline(wish) <= now]
        for wish in given_up:
            self._queue.remove(wish)
            self._put(wish, error=error or wish.refusal, now=now)

    def _deadline(self, wish: Wish) -> float:
        """Return until when a wish that was refused is sent again, in s."""
        if self.timeout is None or wish.first_sent is None:
            return NEVER
        return wish.first_sent + self.timeout

    def _create(self, wish: Wish, means: Means) -> None:
        assert wish.order is not None  # noqa: S101 - what is none is not queued
        self.slots.take(wish.slots)
        wish.stage = Stage.CREATING
        wish.creation = means.creator.start(
            wish.order,
            partial(self._created, wish),
            tries=1,
            external_id=wish.external_id,
            request=wish.request,
            ledger=self._ledger,
        )

    def _created(self, wish: Wish, creation: Creation, end: creator.End) -> None:
        """Note how the create of a wish ended."""
        now = asyncio.get_running_loop().time()
        wish.creation, wish.request = None, creation.request
        wish.first_sent = wish.first_sent or creation.first_sent
        if isinstance(end, ImageTask):
            self._pace.went_well()
            self._poll(wish, end, now)
        elif isinstance(end, Refused):
            self._refused(wish, end, now)
        elif isinstance(end, CreateUncertainError | DuplicateOrderError | BookError):
            self.slots.release(wish.slots)
            wish.may_be_paid = True
            self._put(wish, error=end, now=now)
        # Whatever else it is ends the session, which tells this stream.
        self.look()

    def _refused(self, wish: Wish, end: Refused, now: float) -> None:
        error = end.error
        if not passes(end):
            self.slots.release(wish.slots)
            if isinstance(error, _ENDS_CREATING) or isinstance(end, NeverLeft):
                self._ended_by = self._ended_by or error
            self._put(wish, error=error, now=now)
            return
        if end.is_rate_limit:
            self.slots.refused(wish.slots)
        else:
            self.slots.release(wish.slots)
        self._pace.refused(error, is_alone=not self.slots.held or not end.is_rate_limit, now=now)
        if wish.first_sent is None:  # its book is out of reach
            wish.first_sent = now
        wish.stage, wish.refusal = Stage.WAITING, error
        self._queue.appendleft(wish)

    def _poll(self, wish: Wish, task: ImageTask, now: float) -> None:
        assert self._means is not None  # noqa: S101 - it has created
        wish.task, wish.stage, wish.may_be_paid = task, Stage.POLLING, True
        wish.request = None
        if self._kept is not None:
            wish.unfollow = self._kept.follow(task.task_id, partial(self._told, wish))
            return
        verdict = verdict_on(task)
        if verdict.kind is VerdictKind.FINAL:  # a create can be answered with a failed task
            self.polled(wish, task, verdict.error, queries=0, now=now)
            return
        wish.waiter = OrderWaiter(self, wish, added=now)
        expects = None if wish.order is None else expected_s(wish.order, self.expects)
        self._means.poller.call(task.task_id, wish.waiter, expects)

    def _told(self, wish: Wish, end: TaskOutcome | KlingOmniError) -> None:
        """Note the outcome of a wish out of a book, or why there are no more of them."""
        wish.unfollow = None
        if not isinstance(end, TaskOutcome):
            self.end(End(end))
            return
        now = asyncio.get_running_loop().time()
        self.slots.ended(wish.slots)
        self._put_outcome(
            wish,
            attrs.evolve(
                end,
                elapsed=now - wish.added,
                order=wish.order,
                external_task_id=wish.external_id,
            ),
        )
        self.look()

    def polled(
        self,
        wish: Wish,
        task: ImageTask | None,
        error: KlingOmniError | None,
        *,
        queries: int,
        now: float,
    ) -> None:
        """Note that the task of a wish has ended, or was given up."""
        self.slots.ended(wish.slots)
        wish.waiter = None
        self._put(wish, task=task or wish.task, error=error, queries=queries, now=now)
        self.look()

    def _put(
        self,
        wish: Wish,
        *,
        task: ImageTask | None = None,
        error: KlingOmniError | None = None,
        queries: int = 0,
        now: float,
    ) -> None:
        task_id = wish.task.task_id if wish.task else ""
        if error is not None and wish.task is None:
            text = "order %s: %s: %s"
            kind = type(error).__name__
            logger.info(text, quoted(wish.external_id), kind, one_line(error))
            task_id = error.task_id or ""  # of what was created and could not be kept
        outcome = TaskOutcome(
            task_id=task_id,
            task=task,
            error=None if error is None else copy_error(error),
            queries=queries,
            elapsed=now - wish.added,
            order=wish.order,
            external_task_id=wish.external_id,
        )
        self._put_outcome(wish, outcome)

    def _put_outcome(self, wish: Wish, outcome: TaskOutcome) -> None:
        wish.stage = Stage.DONE
        self._open -= 1
        self._unread += 1
        if self.phase is not Phase.ENDED:
            self.outlet.put(outcome)
            self._end_if_done()

    # Handing out, and the end.

    def handed_out(self, outcome: TaskOutcome) -> None:
        """Count an outcome that a consumer has."""
        wish = self.ids.pop(outcome.external_task_id or "", None)
        order = None if wish is None else wish.order
        if order is not None and order.key is not None and not self.intake.is_feed:
            self._seen[outcome.external_task_id or ""] = _print_of(order)
        self._counts[count_of(outcome.error)] += 1
        self._unread -= 1
        if self.room is not None:
            self.room.set()

    def _end_if_done(self) -> None:
        if self.phase is Phase.POLLING and not self._open:
            self.end(self._end)

    def end(self, end: End) -> None:
        """Create and ask no more; consumers get what is there, then the end."""
        self.outlet.end(end)
        self._stop()
        self._name([wish for wish in self.ids.values() if wish.stage is not Stage.DONE])

    def cut(self, end: End) -> None:
        """Create and ask no more; consumers get the end at once, or the one it had before."""
        self.outlet.cut(end)
        self._stop()
        self._name(list(self.ids.values()))

    def stop(self) -> None:
        """Read no more."""
        self.intake.stop()

    async def closed(self) -> None:
        """Wait until its input is closed."""
        await self.intake.wait_closed()
        if self._kept is not None:
            await self._kept.left()

    def _stop(self) -> None:
        self.phase = Phase.ENDED
        self.intake.stop()
        self._pace.disarm()
        if self._means is None:
            return
        for wish in self.ids.values():
            if wish.creation is not None:
                self._means.creator.leave(wish.creation)
            if wish.waiter is not None:
                self._means.poller.leave(wish.waiter)
            if wish.unfollow is not None:
                wish.unfollow()
            wish.creation = wish.waiter = wish.unfollow = None

    def _name(self, wishes: list[Wish]) -> None:
        """Name the tasks that were paid for and will not be handed out, once."""
        if self._kept is not None:
            return  # they stay in the book
        names = [wish.name() for wish in wishes if wish.may_be_paid and not wish.is_named]
        for wish in wishes:
            wish.is_named = True
        if names:
            text = "%d tasks were created, or may have been, and are not handed out: %s"
            logger.warning(text, len(names), ", ".join(names))


def _print_of(order: ImageOrder | None) -> int:
    """Return a number that tells orders apart, for those that are not kept: images are large."""
    return hash((order, json.dumps(dict(order.extra), sort_keys=True) if order else ""))


def _take(stream: OrderStream, given: object, now: float) -> None:
    stream.read(given, now)


def _refused(queue: Iterable[Wish]) -> Iterator[Wish]:
    """Return those that were refused: they stand before all others."""
    return takewhile(lambda wish: wish.refusal is not None, queue)
