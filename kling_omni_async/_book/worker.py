"""Polls a book: claims what is due, a turn at a time, and brings back what came of it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from random import Random
from typing import Final, NamedTuple, Protocol
from uuid import uuid4

import anyio
import attrs

from kling_omni_async._engine import Engine
from kling_omni_async._ids import quoted
from kling_omni_async._models import ImageTask, TaskStatus
from kling_omni_async._policy import PollPolicy
from kling_omni_async._polling.limits import LentPace
from kling_omni_async._polling.verdicts import Reply
from kling_omni_async._polling.waiters import Entry
from kling_omni_async._polling.watchlist import Decision
from kling_omni_async.errors import BookError, ConfigurationError, KlingOmniError

from .bell import Bell
from .claims import HORIZON_S
from .contract import INTENT, MOST_AT_ONCE, Claim, Said, Settle, Terms, Turn, Turned, plain_ids
from .judging import Held, Judge, Query, aged, cut, hold, unasked
from .opened import OpenBook, wrong_origin

START_WITHIN_S: Final = 2.0
"""How long after the sending of its turn a claim may be started, in s."""

LEAST_GAP_S: Final = 0.05
HEARTBEAT_S: Final = 10.0
"""Between two turns at least, and until a worker shows that it lives at the latest, in s."""

_AGAIN_S: Final = (0.5, 1.0, 2.0, 5.0)
FAREWELL_S: Final = 5.0
"""How long a worker that leaves tries to bring back what it has, in s."""

WORKER_ENDS: Final = "a worker of the book %s ends: %s"
"""Logged where a worker ends by itself; whoever left its block gets the error, too."""

logger: Final = logging.getLogger("kling_omni_async.book")


class Host(Protocol):
    """The session's polling, whose client and places a worker uses."""

    @property
    def free_places(self) -> int:
        """How many more queries may be in flight."""
        ...

    def take_places(self, number: int) -> None:
        """Take places in flight."""

    def give_place(self) -> None:
        """Give one back."""

    def lend(self, pace: LentPace | None) -> bool:
        """Take starts from a book, or none any more; False where another book lends some."""
        ...

    def granted(self, starts: Iterable[float], gate: float) -> None:
        """Use starts that a book has lent, in s."""

    @property
    def wanted_starts(self) -> int:
        """How many starts could be used now."""
        ...

    def scheduled(self, when: float | None) -> None:
        """Note when the next query may start, in s; None where none is scheduled."""

    async def ask(self, task_id: str) -> tuple[Reply, Mapping[str, str] | None]:
        """Send one query; return what it brought, and its headers."""
        ...

    def judged(
        self,
        entry: Entry,
        decision: Decision,
        before: TaskStatus | None,
        *,
        took_s: float,
        late_s: float,
        age_s: float | None,
    ) -> None:
        """Log what a query brought, and show it."""


Look = Callable[[str], Awaitable[ImageTask | KlingOmniError | None]]
"""Looks for a task by its external id, by one GET."""


@attrs.frozen
class Identity:
    """Whose worker it is: a print of its key, and the API that it asks."""

    account: str
    origin: str


class _Unsent(NamedTuple):
    """A settle that the book has not got yet, and when it was made, by the book's clock."""

    settle: Settle
    made: float


class Worker:
    """Polls a book for one session, in tasks of the session's engine."""

    # More than ten attributes: what it was given (6), and what is under way.
    def __init__(
        self,
        engine: Engine,
        host: Host,
        book: OpenBook,
        policy: PollPolicy,
        identity: Identity,
        *,
        look: Look,
        rng: Random,
    ) -> None:
        self._fault: BaseException | None = None
        self.ended = asyncio.Event()
        self._engine = engine
        self._host = host
        self._book = book
        self._identity = identity
        self._look = look
        self._judge = Judge(policy, rng)
        self._name = str(uuid4())
        self._seq = 0
        self._leave = Bell()
        self._held: dict[str, Held] = {}
        self._running: dict[str, anyio.CancelScope] = {}  # of those held, what has begun
        self._unsent: deque[_Unsent] = deque()
        self._wake = Bell()
        self._ahead_s = 0.0  # by how much earlier it needs its starts, as its turns take long
        self._gate = -1.0  # until when nothing starts, in s of the loop
        self._is_warned = False  # that the book is out of reach
        self._lent: LentPace | None = None  # what the session's plain verbs start by

    def __repr__(self) -> str:
        return f"<Worker of {self._book.name} holds={len(self._held)}>"

    @property
    def fault(self) -> BaseException | None:
        """Why it has ended by itself, or never begun."""
        if self._fault is None and self._engine.closed and not self._is_leaving:
            self._fault = self._engine.closed_error()
        return self._fault

    def start(self) -> None:
        """Begin to poll."""
        self._book.fault = None  # of one before it
        self._engine.start_soon(self._run, name="kling_omni_async.worker")

    async def aclose(self) -> None:
        """Stop; what was not asked for goes back to the book."""
        self._leave.ring()
        self._wake.ring()
        # One that its engine could not start any more never ends by itself.
        await self._engine.wait_for(self.ended)

    @property
    def _is_leaving(self) -> bool:
        return self._leave.is_rung

    def wake(self) -> None:
        """Look again: the book may have changed."""
        self._wake.ring()

    # The loop.

    async def _run(self) -> None:
        changes = self._book.changes
        changes.listen(self.wake)
        try:
            await self._work()
        except KlingOmniError as fault:
            self._fail(fault)
        except asyncio.CancelledError:
            self._end_with_session()
            raise
        finally:
            changes.unlisten(self.wake)
            # Also where the session ends: what was asked for is not to be asked again at once.
            try:
                with anyio.CancelScope(shield=True):
                    await self._farewell()
            finally:
                self._host.scheduled(None)
                self.ended.set()

    async def _work(self) -> None:
        next_s = await self._turn(self._terms())
        while not self._is_leaving and self.fault is None:
            await self._pause(next_s)
            if not self._is_leaving:
                next_s = await self._turn()

    def _terms(self) -> Terms:
        policy = self._judge.policy
        return Terms(policy.interval, policy.max_rate, policy.confirmations, policy.timeout)

    def _fail(self, fault: BaseException) -> None:
        """Note why this worker ends, alone: the others of the book go on."""
        if self._fault is None:
            self._fault = fault
            logger.error(WORKER_ENDS, self._book.name, fault)
            self._book.fail(fault)
        self._wake.ring()

    def _end_with_session(self) -> None:
        """Let whoever reads the book here know that its session was closed."""
        if self.fault is not None:
            self._book.changes.wake_all()

    async def _pause(self, next_s: float | None) -> None:
        """Wait until there is something to bring or to get."""
        loop = asyncio.get_running_loop()
        began, until = loop.time(), HEARTBEAT_S
        if next_s is not None and self._want():
            until = min(until, max(next_s, LEAST_GAP_S))
        await self._wake.wait(began + until)
        self._wake.silence()
        # What comes meanwhile shares a turn.
        if not self._is_leaving:
            await asyncio.sleep(max(0.0, began + LEAST_GAP_S - loop.time()))

    # One turn.

    async def _turn(self, terms: Terms | None = None) -> float | None:
        """Make one turn, and start what was claimed; return when there may be more, in s."""
        self._seq += 1
        batch = [self._unsent.popleft() for _ in range(min(len(self._unsent), MOST_AT_ONCE))]
        message, sent = self._message(terms), self._book.store.clock()
        try:
            reply = await self._until_kept(message, batch)
        except BaseException:
            self._unsent.extendleft(reversed(batch))  # for the last turn
            raise
        if reply.needs_terms:
            self._unsent.extendleft(reversed(batch))
            self._begin_anew()
            return await self._turn(self._terms())
        now = asyncio.get_running_loop().time()
        self._take_in(reply, now)
        self._host.scheduled(None if reply.next_s is None else now + reply.next_s)
        for claim in reply.claims:
            self._begin(claim, reply, sent, now)
        return 0.0 if self._unsent else reply.next_s

    def _begin_anew(self) -> None:
        """Say that the book has lost all; the policy that was in force goes on."""
        self._judge.learn_anew()
        text = "the book %s has lost all that it held: add the ids again"
        logger.error(text, self._book.name)

    async def _until_kept(self, message: Turn, batch: list[_Unsent]) -> Turned:
        """Send a turn until the book has made it: the same `seq` gives the same answer."""
        tries = 0
        while True:
            now = self._book.store.clock()
            settles = [aged(settle, now - made) for settle, made in batch]
            try:
                reply = await self._send(attrs.evolve(message, settles=settles))
            except BookError as error:
                if not error.transient or self._is_leaving:
                    raise
                self._out_of_reach(error)
                pause_s = _AGAIN_S[min(tries, len(_AGAIN_S) - 1)]
                await self._leave.wait(asyncio.get_running_loop().time() + pause_s)
                tries += 1
            else:
                self._is_warned = False
                return reply

    async def _send(self, message: Turn) -> Turned:
        # To its end, also where the session is closed meanwhile: what it brings is final words, and
        # what it gets is claims that nobody else would give back.
        with anyio.CancelScope(shield=True):
            sent = self._book.store.clock()
            reply = await self._book.store.turn(message)
            took_s = self._book.store.clock() - sent
            self._ahead_s = took_s if took_s > HORIZON_S / 2 else 0.0
            return reply
        raise AssertionError  # pragma: no cover - the scope is never cancelled

    def _message(self, terms: Terms | None) -> Turn:
        policy = self._judge.policy
        return Turn(
            worker=self._name,
            seq=self._seq,
            want=self._want(),
            reserve=self._reserve(),
            limits=self._limits(),
            ahead_s=self._ahead_s,
            lease_s=START_WITHIN_S + policy.query_timeout + policy.interval[0],
            probe_s=START_WITHIN_S + policy.query_timeout + 1.0,
            account=self._identity.account,
            origin=self._identity.origin,
            terms=terms,
            lessons_after=self._judge.taught,
            is_leaving=self._is_leaving,
        )

    def _want(self) -> int:
        """Return how many claims it can take."""
        if self._is_leaving or self.fault is not None:
            return 0
        # A wrong key or URL is to show by one id alone.
        most = MOST_AT_ONCE if self._judge.setup.heard else 1 - len(self._held)
        return max(0, min(self._host.free_places, most))

    def _reserve(self) -> int:
        """Return how many starts the session's plain verbs need, half of what there is at most."""
        lent = self._lent
        if lent is None:
            return 0
        most = max(1, int(HORIZON_S / 2 / lent.gap_s))
        return lent.debt + min(self._host.wanted_starts if lent.is_wanted else 0, most)

    def _limits(self) -> list[tuple[float, float | None, float]]:
        if self._lent is None:
            return []
        limits, self._lent.limits = self._lent.limits, []
        return [(0.0, pause_s, 1.0) for pause_s in limits]

    def _lend(self, max_rate: float | None) -> None:
        """Let the plain verbs of the session start by the pace of the book, if it has one."""
        gap_s = 0.0 if max_rate is None else 1.0 / max_rate
        if self._lent is not None and self._lent.gap_s != gap_s:
            self._stop_lending()
        if self._lent is None and gap_s:
            lent = LentPace(gap_s, self.wake)
            self._lent = lent if self._host.lend(lent) else None

    def _stop_lending(self) -> None:
        if self._lent is not None:
            self._lent = None
            self._host.lend(None)

    def _out_of_reach(self, error: BookError) -> None:
        """Say so once, and let the session's plain verbs go on by a pace of their own."""
        self._stop_lending()
        if not self._is_warned:
            self._is_warned = True
            text = "the book %s is out of reach, nothing is started until it is back: %s"
            logger.warning(text, self._book.name, error)

    def _take_in(self, reply: Turned, now: float) -> None:
        """Note what a turn says beside its claims."""
        if reply.other_origin is not None:
            raise wrong_origin(self._book.name, reply.other_origin, self._identity.origin)
        if reply.is_stranger:
            raise ConfigurationError(
                f"the key of this session is of another account than that of the book "
                f"{self._book.name}: it does not know tasks that others see; one book, one account"
            )
        assert reply.terms is not None  # noqa: S101 - else the turn is made again, with some
        self._judge.adopt(reply.terms)
        self._lend(reply.terms.max_rate)
        if reply.differs:
            text = "the policy of the book %s is now that of this worker: %s"
            logger.warning(text, self._book.name, reply.terms)
        self._judge.learn(reply.lessons)
        if reply.gate_s:
            self._gate = max(self._gate, now + reply.gate_s)
        if self._lent is not None:
            self._host.granted([now + start_s for start_s in reply.reserved], self._gate)
        if reply.dropped:
            text = "%d outcomes of the book %s were never acknowledged and are dropped: %s"
            names = ", ".join(quoted(name) for name in plain_ids(reply.dropped))
            # Where all only wait, nothing is meant to be read.
            level = logging.WARNING if reply.is_read else logging.INFO
            logger.log(level, text, len(reply.dropped), self._book.name, names)

    # One claim.

    def _begin(self, claim: Claim, reply: Turned, sent: float, now: float) -> None:
        held = hold(claim, reply.now, now)
        if claim.row.key in self._held:  # it stood still for longer than a lease
            self._bring(cut(held, self._judge.policy.interval[0]))
            return
        self._held[claim.row.key] = held
        self._host.take_places(1)
        start = now + claim.start_s
        self._engine.start_soon(self._carry, held, sent, start, name="kling_omni_async.claim")

    async def _carry(self, held: Held, sent: float, start: float) -> None:
        """Carry one claim to its end, whatever that is."""
        settle, scope = unasked(held), anyio.CancelScope()
        self._running[held.row.key] = scope
        try:
            with scope:
                if await self._may_start(sent, start):
                    settle = cut(held, self._judge.policy.interval[0])
                    settle = await self._ask(held)
        finally:
            del self._running[held.row.key]
            self._give_back(held, settle)

    def _give_back(self, held: Held, settle: Settle) -> None:
        del self._held[held.row.key]
        self._host.give_place()
        self._bring(settle)

    async def _may_start(self, sent: float, start: float) -> bool:
        """Wait for the start of a claim; return whether it is still this worker's to make."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, start - loop.time()))
        if self._is_leaving or self.fault is not None or loop.time() < self._gate:
            return False
        # By a clock that goes on while the machine sleeps: others may hold the id by now.
        return self._book.store.clock() - sent <= START_WITHIN_S

    async def _ask(self, held: Held) -> Settle:
        loop = asyncio.get_running_loop()
        started, row = loop.time(), held.row
        if row.is_intent:
            found = await self._look(row.key.removeprefix(INTENT))
            return self._looked(held, found, Query(started, loop.time()))
        reply, headers = await self._host.ask(row.key)
        others = self._held.keys() - {row.key}
        query = Query(started, loop.time())
        judged = self._judge.judge(held, reply, query, headers, others)
        born = held.entry.born
        self._host.judged(
            held.entry,
            judged.decision,
            judged.before,
            took_s=query.ended - query.started,
            late_s=max(0.0, started + held.book_time - row.due),
            age_s=None if born is None else query.ended - born,
        )
        fault = judged.decision.verdict.error or KlingOmniError()
        return self._brought(held, judged.settle, fault if judged.decision.ends_all else None)

    def _looked(self, held: Held, found: ImageTask | KlingOmniError | None, query: Query) -> Settle:
        """Return what came of a look for a task that a create may have made."""
        looked = self._judge.judge_intent(held, found, query)
        name, settle = quoted(held.row.external_id), looked.settle
        if settle.said is Said.FOUND:
            logger.info("found task %s (external id %s)", quoted(settle.task_id), name)
        elif settle.said is Said.FINAL:
            logger.warning("whether the order %s has made a task is not known", name)
        return self._brought(held, settle, looked.fault)

    def _brought(self, held: Held, settle: Settle, fault: KlingOmniError | None) -> Settle:
        """Return what the book is told of a query, which may show a wrong set-up."""
        if settle.is_limited:
            # The book says how long; until then nothing more of this worker starts.
            loop = asyncio.get_running_loop()
            self._gate = max(self._gate, loop.time() + HORIZON_S)
        if fault is not None:
            self._fail(fault)
            return cut(held, self._judge.policy.interval[0])
        return settle

    def _bring(self, settle: Settle) -> None:
        self._unsent.append(_Unsent(settle, self._book.store.clock()))
        self._wake.ring()

    # The end.

    async def _farewell(self) -> None:
        """Bring back what is held, so that others need not wait for the end of its leases."""
        self._leave.ring()
        self._stop_lending()
        for scope in list(self._running.values()):
            scope.cancel()
        if self._engine.closed:  # which begins nothing any more
            for held in [each for key, each in self._held.items() if key not in self._running]:
                self._give_back(held, unasked(held))
        with suppress(KlingOmniError, TimeoutError):  # why it ends is known already
            async with asyncio.timeout(FAREWELL_S):
                while self._held:
                    self._wake.silence()
                    await self._wake.wait()
                for _ in range(1 + len(self._unsent) // MOST_AT_ONCE):
                    await self._turn()
