"""Whatever comes in whatever order, a book keeps its promises: hypothesis looks for a plan."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import sys
from collections.abc import Coroutine, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, TypeVar

import attrs
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from kling_omni_async._book.book_clock import Clocks
from kling_omni_async._book.claims import MEMBER_KEPT_S, void_leases
from kling_omni_async._book.contract import (
    FAR,
    Ack,
    Addition,
    Claim,
    Intent,
    Member,
    Receipt,
    Row,
    Said,
    Settle,
    State,
    Store,
    Take,
    Taken,
    Terms,
    Turn,
    Turned,
    Wish,
)
from kling_omni_async._book.memory import MemoryShelf, MemoryStore
from kling_omni_async._book.sqlite import SqliteStore
from kling_omni_async._book.sqlite_schema import COLUMNS
from tests.plans import share_of

from .oracle import HORIZON_S, SLACK_S, START_WITHIN_S, Gate, Ledger, Pace, Query, Server
from .pure import DENIED, GAVE_UP, KEEP_S, LEASE_S, LOW_S, PROBE_S, WON
from .stores import UP_S, Clock

R = TypeVar("R")

IDS: Final = ("a", "b", "c")
NAMES: Final = ("x", "y")
"""External ids; the task of one is called so with a "t" before it."""

MOST_WORKERS: Final = 3
MOST_READERS: Final = 3
OLD_RECEIPTS: Final = 20
LEASE_OF_INTENT_S: Final = 60.0
"""Longer than a claim: a name that is used again waits for the look that is still under way."""


KEYS = st.sampled_from([*IDS, *IDS, *NAMES, *(f"t{name}" for name in NAMES)])
SOME_KEYS = st.lists(st.sampled_from([*IDS, "#x", "tx"]), max_size=1)
TIMES = st.sampled_from(
    [0.05, 0.2, 1.0, 1.9, 5.0, 14.0, 20.0, 20.5, 31.0, 38.0, 130.0, 310.0, KEEP_S + 1.0, 3700.0]
)
FIRSTS = st.sampled_from([0.0, 0.0, 24.0])
VERBS = st.sampled_from(["add", "add", "swap", "remove", "retry", "retry", "nudge"])
WHO = st.sampled_from([*["worker"] * 4, *["reader"] * 4, "all"])
OFF = st.sampled_from([None, 1.0, 40.0, -3600.0, 3600.0])
ACCOUNTS = st.sampled_from(["a", "a", "b"])
FATES = st.sampled_from(["kept", "kept", "kept", "again", "unheard", "unsent"])
"""What becomes of a message: kept, kept and sent again late, its answer lost, or itself."""

RATES = st.sampled_from([None, None, 0.5, 4.0, 50.0])
ACKS = st.sampled_from([None, Ack.DONE, Ack.HANDED, Ack.BACK, Ack.FAILED, Ack.FAILED])

SAID: Final[dict[str, dict[str, Any]]] = {
    "pending": {"said": Said.PENDING, "is_task": True, "is_readable": True, "task": "{}"},
    "won": WON,
    "failed": {**WON, "count": "failed"},
    "odd": {**GAVE_UP, "is_readable": True},
    "denied": DENIED,
    "doubted": {"said": Said.DOUBT, "is_not_found": True, "doubt": ("E", 1, 0.0)},
    "up": GAVE_UP,
    "up, denied": {**GAVE_UP, "is_not_found": True, "is_readable": True},
    "fault": {"said": Said.FAULT, "fault": "{}"},
    "cut": {"said": Said.CUT},
    "429": {"said": Said.FAULT, "is_limited": True, "limit_s": 5.0},
    "429, long": {"said": Said.FAULT, "is_limited": True, "limit_s": 200.0},
}
SIGHTS: Final = ("pending", "won", "failed")
ANSWERS = st.sampled_from([*SAID, "pending", "won", "denied", "up", "odd"])


@attrs.define(eq=False)
class Asked:
    """A claim at its worker, and its query once it was sent."""

    claim: Claim
    sent: float  # when the turn was sent that has claimed it
    start: float
    query: Query | None = None


@attrs.define(eq=False)
class Worker:
    """A worker as the machine plays it."""

    name: str
    account: str
    held: dict[str, Asked] = attrs.field(factory=dict[str, Asked])
    done: list[tuple[Settle, float]] = attrs.field(factory=list[tuple[Settle, float]])
    unheard: Turn | None = None  # sent, and not answered yet
    sent: float = 0.0
    seq: int = 0

    def bring(self, asked: Asked, now: float, **fields: Any) -> None:
        """Note what the next step is to say of a claim."""
        row = asked.claim.row
        if self.held.get(row.key) is asked:
            del self.held[row.key]
        self.done.append((Settle(key=row.key, token=row.token, **fields), now))


@attrs.define(eq=False)
class Reader:
    """A reader as the machine plays it."""

    name: str
    has: dict[tuple[str, int], None] = attrs.field(factory=dict[tuple[str, int], None])
    unheard: Take | None = None
    seq: int = 0


class DeadShelf(MemoryShelf):
    """A shelf whose readers are dead when it is said."""

    def __init__(self, dead: set[str]) -> None:
        super().__init__()
        self._dead = dead

    def is_dead(self, reader: Member, now: float) -> bool:
        return reader.name in self._dead


class DeadLives:
    """The same for a file."""

    def __init__(self, dead: set[str]) -> None:
        self._dead = dead

    def hold(self, name: str) -> None: ...

    def release(self, name: str) -> None: ...

    def is_gone(self, reader: Member, now: float) -> bool:
        return reader.name in self._dead

    def close(self) -> None: ...


def finished(step: Coroutine[Any, Any, R]) -> R:
    """Return what a coroutine gives that waits for nothing."""
    try:
        step.send(None)
    except StopIteration as end:
        result: R = end.value
        return result
    raise AssertionError("it waits")


class BookMachine(RuleBasedStateMachine):
    """Workers, readers and users of one book in memory, and an account of what they may expect."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.ahead = 0.0  # of the book's time before the clock of this boot
        self.dead: set[str] = set()
        self.memory = MemoryStore(clock=self.now, wall_clock=self.clock.read_wall, keep_s=KEEP_S)
        self.memory.shelf = DeadShelf(self.dead)
        self.ledger = Ledger()
        self.server = Server()
        self.pace = Pace()
        self.gate = Gate()
        self.workers: dict[str, Worker] = {}
        self.readers: dict[str, Reader] = {}
        self.names = 0
        self.made: dict[str, tuple[int, Turned | Taken]] = {}  # the last step of each
        self.late: list[Turn | Take] = []
        self.old_receipts: list[Receipt] = []
        self.removed: set[str] = set()  # external ids whose intents were removed
        self.posting: list[str] = []  # external ids whose process still lives
        self.outcomes = 0
        self.latest = 0.0

    def now(self) -> float:
        """Return the time of the book."""
        return self.clock.now + self.ahead

    # The stores.

    def call(self, verb: str, *args: Any) -> Any:
        """Make one step; a time never runs back, and the ledger goes by it."""
        self.ledger.now = self.now()
        return finished(getattr(self.memory, verb)(*args))

    @invariant()
    def keeps_all(self) -> None:
        """Every entry is there, as it is to be, and the counts are right."""
        found = {each.row.key: each for each in self.call("list", "", 1000)}
        self.ledger.compare(found)
        for each in found.values():
            if each.row.state is State.OPEN and not each.row.token:
                first = max(each.row.at, self.now())
                assert first >= self.server.may_start(each.row.key) - SLACK_S
        desk, _ = self.call("progress")
        self.ledger.count(desk)

    # Users.

    @rule(verb=VERBS, key=KEYS, keys=st.lists(st.sampled_from(IDS), max_size=2), first_s=FIRSTS)
    def use(self, verb: str, key: str, keys: list[str], first_s: float) -> None:
        """A user adds, removes, tries again or nudges."""
        if verb == "add":
            self._add([*keys, key] if key in IDS else keys, first_s)
        elif verb == "swap":
            self._remove(key)
            self._add([key] if key in IDS else [], 0.0)
        elif verb == "remove":
            self._remove(key)
        else:
            assert self.call(verb, key) == getattr(self.ledger, verb)(key)

    def _add(self, keys: list[str], first_s: float) -> None:
        additions = [Addition(key, first_s=first_s) for key in keys]
        assert self.call("add", additions) == self.ledger.add(*keys)

    def _remove(self, key: str) -> None:
        found = self.ledger.key_of(key)
        assert self.call("remove", key) == self.ledger.remove(key)
        if found is not None and found.startswith("#") and key in self.posting:
            self.posting.remove(key)  # nobody is to say any more what it has made
        if found is not None and found.startswith("#"):
            self.removed.add(key.removeprefix("#"))

    # Intents.

    @rule(name=st.sampled_from(NAMES), made=st.sampled_from([None, True, True, False]))
    def create(self, name: str, made: bool | None) -> None:  # noqa: FBT001 - hypothesis calls it
        """A create begins, or is answered, late or again; or its process dies."""
        if name not in self.posting:
            self._intend(name)
        elif made is None:
            self.posting.remove(name)
        elif made:
            self.call("created", name, Addition(f"t{name}", task="{}", age_s=1.0))
            self.ledger.created(name, f"t{name}")
        elif self.ledger.wishes[name] is None:  # else a worker has found it
            self.posting.remove(name)
            self.call("created", name, None)
            self.ledger.created(name, None)

    def _intend(self, name: str) -> None:
        intent = Intent(name, "d", is_keyed=True, note='"n"', order=None, lease_s=LEASE_OF_INTENT_S)
        known = self.call("intend", intent)
        if self.ledger.intend(name):
            assert known is None
            self.posting.append(name)
        else:
            # A look that was under way may have found the task of what was removed.
            assert known.wish.task_id == self.ledger.wishes[name] or name in self.removed
            self.ledger.wishes[name] = known.wish.task_id
            assert (known.row is None) == (self.ledger.key_of(name) is None)

    # Workers.

    @initialize(rate=RATES)
    def begin(self, rate: float | None) -> None:
        for _ in range(2):
            self._new_worker("a", rate)
            self._new_reader()
        self._add(list(IDS), 0.0)

    def _new_worker(self, account: str, rate: float | None) -> Worker:
        self.names += 1
        worker = Worker(f"w{self.names}", account)
        self.workers[worker.name] = worker
        terms = Terms((LOW_S, 30.0), rate, confirmations=2, timeout=None)
        self._turn(worker, "kept", terms=terms)
        return worker

    def _worker(self, data: st.DataObject) -> Worker:
        return self.workers[data.draw(st.sampled_from(sorted(self.workers)))]

    @precondition(lambda self: self.workers)
    @rule(
        data=st.data(),
        want=st.sampled_from([4, 4, 1, 0]),
        reserve=st.sampled_from([0, 0, 1, 3]),
        fate=FATES,
        asks=st.booleans(),
    )
    def turn(self, data: st.DataObject, fate: str, *, asks: bool, **fields: Any) -> None:
        """A worker makes a step, or sends the one again that was not answered."""
        worker = self._worker(data)
        if self._is_forgotten(worker):
            return
        if worker.unheard is not None:
            self._hear_turn(worker)
        else:
            self._turn(worker, fate, **fields)
        if asks:
            self._ask(worker)

    def _turn(self, worker: Worker, fate: str, **fields: Any) -> None:
        worker.seq += 1
        now = self.now()
        worker.unheard = Turn(
            worker=worker.name,
            seq=worker.seq,
            settles=[aged(settle, now - made) for settle, made in worker.done],
            lease_s=LEASE_S,
            probe_s=PROBE_S,
            account=worker.account,
            origin="o",
            **fields,
        )
        worker.done, worker.sent = [], now
        if fate == "unheard":
            self._make_turn(worker.unheard)
        elif fate != "unsent":
            if fate == "again":
                self.late.append(worker.unheard)
            self._hear_turn(worker)

    def _hear_turn(self, worker: Worker) -> None:
        """Let a worker send its step until it has the answer."""
        turn, worker.unheard = worker.unheard, None
        assert turn is not None
        reply = self._make_turn(turn)
        for claim in reply.claims:
            asked = Asked(claim, worker.sent, reply.now + claim.start_s)
            if claim.row.key in worker.held:  # it stood still for longer than a lease
                worker.bring(asked, self.now(), said=Said.CUT, pause_s=LOW_S)
            else:
                worker.held[claim.row.key] = asked
        if reply.is_stranger:
            assert worker.account not in self.ledger.accounts
            self._leave(worker)

    def _make_turn(self, turn: Turn) -> Turned:
        """Let the book make a step, and hold what it gives against what is promised."""
        reply: Turned = self.call("turn", turn)
        if (known := self.made.get(turn.worker)) is None or known[0] < turn.seq:
            if not turn.is_leaving:
                self.made[turn.worker] = turn.seq, reply
            self._judge_turn(turn, reply)
        elif known[0] == turn.seq:
            assert reply == known[1]
        else:
            assert not reply.claims
            assert not reply.reserved
        return reply

    def _judge_turn(self, turn: Turn, reply: Turned) -> None:
        now = self.now()
        assert reply.now == now >= self.latest
        self.latest = now
        if turn.terms is not None:
            rate = turn.terms.max_rate
            self.pace.gap_s = 0.0 if rate is None else 1.0 / rate
        for settle in turn.settles:
            task_id, entries = settle.task_id, self.ledger.entries
            if task_id is not None and settle.key in entries and task_id not in entries:
                self.server.rename(settle.key, task_id)
        self.ledger.turned(turn)
        self.gate.turned(turn, now)
        for claim in reply.claims:
            self.ledger.claimed(claim)
        self.pace.started(reply)
        self.gate.claimed(reply)
        self.ledger.dropped(reply.dropped)
        self._judge_order(turn, reply)

    def _judge_order(self, turn: Turn, reply: Turned) -> None:
        shelf, now = self.memory.shelf, self.now()
        assert len(reply.claims) <= turn.want
        assert len(reply.reserved) <= turn.reserve
        overdue = shelf.due(State.OPEN, now, 1)
        waiting = [*overdue, *shelf.due(State.OPEN, now, 1, is_new=True)]
        news = [claim.row.is_new for claim in reply.claims]
        assert not (overdue and (True, True) in set(pairwise(news))), "newcomers crowd others out"
        is_held_back = (
            not self.gate.is_open(now)
            or shelf.desk.next_start > now + HORIZON_S
            or (self.gate.is_closed and reply.claims)
            or reply.is_stranger
            or turn.is_leaving
        )
        assert len(reply.claims) == turn.want or not waiting or is_held_back, "nobody is served"

    # Queries.

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def ask(self, data: st.DataObject) -> None:
        """The queries of a worker start in their time, or not at all."""
        self._ask(self._worker(data))

    def _ask(self, worker: Worker) -> None:
        now = self.now()
        for asked in list(worker.held.values()):
            if asked.query is not None:
                continue
            if now - asked.sent > START_WITHIN_S:
                worker.bring(asked, now, said=Said.UNASKED)
            elif now >= asked.start:
                asked.query = self.server.start(asked.claim.row.key, now)

    def _asking(self) -> list[tuple[Worker, Asked]]:
        held = [(each, asked) for each in self.workers.values() for asked in each.held.values()]
        return [(worker, asked) for worker, asked in held if asked.query is not None]

    @precondition(lambda self: self._asking())
    @rule(data=st.data(), answer=ANSWERS, pause_s=st.sampled_from([0.0, 20.0, 27.3, 130.0]))
    def answer(self, data: st.DataObject, answer: str, pause_s: float) -> None:
        """A query is answered; one that stood still has the answer when it goes on."""
        asking = self._asking()
        worker, asked = asking[data.draw(st.integers(0, len(asking) - 1))]
        self._answer(worker, asked, answer, pause_s)

    def _answer(self, worker: Worker, asked: Asked, answer: str, pause_s: float) -> None:
        now, query, key = self.now(), asked.query, asked.claim.row.key
        assert query is not None
        query.ended = query.end_by(now)
        self.outcomes += 1
        if key.startswith("#"):
            said = said_of_intent(answer, key[1:], self.outcomes)
        else:
            said = said_of_task(answer, worker.account, self.outcomes)
        worker.bring(asked, now, started_ago=now - query.started, pause_s=pause_s, **said)

    # Who comes and goes.

    @rule(data=st.data(), who=WHO, what=st.sampled_from(["come", "leave", "die"]))
    def come_and_go(self, data: st.DataObject, who: str, what: str) -> None:
        """Workers and readers come, give back what they have, or die with it, one or all."""
        if who == "all":
            self._end_processes()
            self._restart(data.draw(OFF))
        elif what == "come":
            self._come(data, who)
        elif who == "worker" and self.workers:
            (self._leave if what == "leave" else self._die)(self._worker(data))
        elif who == "reader" and self.readers:
            (self._leave_reading if what == "leave" else self._die_reading)(self._reader(data))

    def _come(self, data: st.DataObject, who: str) -> None:
        if who == "worker" and len(self.workers) < MOST_WORKERS:
            self._new_worker(data.draw(ACCOUNTS), data.draw(RATES))
        elif who == "reader" and len(self.readers) < MOST_READERS:
            self._new_reader()

    def _is_forgotten(self, worker: Worker) -> bool:
        """Let a worker die whose step the book would answer anew, as it knows it no more."""
        if worker.unheard is None or self.now() <= worker.sent + MEMBER_KEPT_S:
            return False
        worker.unheard = None
        self._die(worker)
        return True

    def _leave(self, worker: Worker) -> None:
        if self._is_forgotten(worker):
            return
        if worker.unheard is not None:
            self._hear_turn(worker)
        if worker.name not in self.workers:
            return  # that has told it to leave
        now = self.now()
        for asked in list(worker.held.values()):
            if asked.query is None:
                worker.bring(asked, now, said=Said.UNASKED)
            else:
                asked.query.ended = asked.query.end_by(now)
                fields = {"started_ago": now - asked.query.started, "pause_s": LOW_S}
                worker.bring(asked, now, said=Said.CUT, **fields)
        del self.workers[worker.name]
        self.late = [each for each in self.late if sender(each) != worker.name]
        self._turn(worker, "unheard", is_leaving=True)

    def _die(self, worker: Worker) -> None:
        for asked in worker.held.values():
            if asked.query is not None:
                asked.query.ended = asked.query.end_by(self.now())
        if worker.unheard is not None:
            self.late.append(worker.unheard)
        del self.workers[worker.name]

    @precondition(lambda self: self.late)
    @rule(data=st.data())
    def come_late(self, data: st.DataObject) -> None:
        """A message arrives that was sent long ago."""
        message = self.late.pop(data.draw(st.integers(0, len(self.late) - 1)))
        if isinstance(message, Turn):
            self._make_turn(message)
        else:
            self._make_take(message)

    # Readers.

    def _new_reader(self) -> Reader:
        self.names += 1
        reader = Reader(f"r{self.names}")
        self.readers[reader.name] = reader
        return reader

    def _reader(self, data: st.DataObject) -> Reader:
        return self.readers[data.draw(st.sampled_from(sorted(self.readers)))]

    @precondition(lambda self: self.readers)
    @rule(
        data=st.data(),
        want=st.integers(0, 3),
        fate=FATES,
        is_handed=st.booleans(),
        is_old=st.booleans(),
        keep=SOME_KEYS,
        release=SOME_KEYS,
    )
    def take(
        self, data: st.DataObject, fate: str, *, is_handed: bool, is_old: bool, **fields: Any
    ) -> None:
        """A reader makes a step, with receipts for what it has, or had long ago."""
        reader = self._reader(data)
        if reader.unheard is not None:
            self._hear_take(reader)
            return
        receipts = [
            Receipt(key, number, ack)
            for key, number in reader.has
            if (ack := data.draw(ACKS)) is not None
        ]
        if is_old and self.old_receipts:
            receipts.append(data.draw(st.sampled_from(self.old_receipts)))
        self._take(reader, fate, receipts, is_handed=is_handed, **fields)

    def _take(
        self, reader: Reader, fate: str, receipts: Sequence[Receipt] = (), **fields: Any
    ) -> None:
        reader.seq += 1
        reader.unheard = Take(reader=reader.name, seq=reader.seq, receipts=receipts, **fields)
        self.old_receipts = [*self.old_receipts, *receipts][-OLD_RECEIPTS:]
        for each in receipts:
            if each.ack is not Ack.HANDED:
                reader.has.pop((each.key, each.number), None)
        if fate == "unheard":
            self._make_take(reader.unheard)
        elif fate != "unsent":
            if fate == "again":
                self.late.append(reader.unheard)
            self._hear_take(reader)

    def _hear_take(self, reader: Reader) -> None:
        """Let a reader send its step until it has the answer."""
        take, reader.unheard = reader.unheard, None
        assert take is not None
        reply = self._make_take(take)
        reader.has = {each: None for each in reader.has if each[0] not in reply.lost}
        reader.has.update({(each.key, each.number): None for each in reply.parcels})

    def _make_take(self, take: Take) -> Taken:
        """Let the book make a step, and hold what it gives against what is promised."""
        reply: Taken = self.call("take", take)
        if (known := self.made.get(take.reader)) is None or known[0] < take.seq:
            if not take.is_leaving:
                self.made[take.reader] = take.seq, reply
            self._judge_take(take, reply)
        elif known[0] == take.seq:
            assert reply == known[1]
        else:
            assert not reply.parcels
        return reply

    def _judge_take(self, take: Take, reply: Taken) -> None:
        ledger, parked = self.ledger, list[str]()
        for name in sorted(self.dead - {take.reader}):
            parked += ledger.gone(name)
            # Whoever was found dead is not known any more, nor is which step was its last.
            self.late = [each for each in self.late if sender(each) != name]
        for each in take.receipts:
            parked += ledger.received(take.reader, each)
        for key in take.keep:
            ledger.keep(take.reader, key)
        for key in take.release:
            ledger.release(take.reader, key)
        ledger.readers.add(take.reader)
        if take.is_leaving:
            parked += ledger.gone(take.reader)
        for parcel in reply.parcels:
            ledger.taken(take.reader, parcel, is_handed=take.is_handed)
        ledger.taken_in_order(reply.parcels)
        assert sorted(reply.parked) == sorted(parked)
        assert len(reply.parcels) <= take.want
        assert len(reply.parcels) == take.want or take.is_leaving or not ledger.free()
        assert reply.is_empty == ledger.is_empty
        for each in take.receipts:
            entry = ledger.entries.get(each.key)
            if each.ack is Ack.HANDED and (entry is None or entry.holder != take.reader):
                assert each.key in reply.lost

    def _leave_reading(self, reader: Reader) -> None:
        if reader.unheard is not None:
            self._hear_take(reader)
        del self.readers[reader.name]
        self.late = [each for each in self.late if sender(each) != reader.name]
        self._take(reader, "unheard", is_leaving=True)

    def _die_reading(self, reader: Reader) -> None:
        if reader.unheard is not None:
            self.late.append(reader.unheard)
        del self.readers[reader.name]
        self.dead.add(reader.name)

    # Time.

    @rule(seconds=TIMES, wall_by_s=st.sampled_from([0.0, 0.0, -7200.0, -1.0, 3600.0]))
    def wait(self, seconds: float, wall_by_s: float) -> None:
        """Time passes, and somebody may put the clock on the wall."""
        self.clock.spend(seconds)
        self.clock.wall += wall_by_s
        if seconds > MEMBER_KEPT_S:  # the book knows no worker for so long
            self.late = []

    def _end_processes(self) -> None:
        for worker in list(self.workers.values()):
            self._die(worker)
        for reader in list(self.readers.values()):
            self._die_reading(reader)
        self.posting, self.late = [], []

    def _restart(self, off_s: float | None) -> None:
        """Go on with the book; where `off_s` is given the machine was booted, and off for it."""
        if off_s is not None:
            self._boot(off_s)
            self.ledger.void()

    def _boot(self, off_s: float) -> None:
        self.clock.spend(max(0.0, off_s))
        void_leases(self.memory.shelf, self.now(), up_s=UP_S)

    # The end.

    def teardown(self) -> None:
        """Let one worker and one reader bring all to its end, if nothing was wrong."""
        try:
            if sys.exc_info()[0] is None:
                self._end_processes()
                self._poll_all()
                self._read_all()
        finally:
            self.close()

    def close(self) -> None:
        """Release what the stores hold."""

    def _poll_all(self) -> None:
        """No id is lost: each comes to its turn, and to its end."""
        self.clock.spend(KEEP_S / 2)
        worker = self._new_worker("a", None)
        for _ in range(20):
            self._turn(worker, "kept", want=50)
            if not worker.held and not self.ledger.has(State.OPEN):
                return
            for asked in list(worker.held.values()):
                asked.query = self.server.start(asked.claim.row.key, self.now())
                self._answer(worker, asked, "won", 0.0)
            self.clock.spend(LEASE_S)
            self.keeps_all()
        raise AssertionError("an id comes to no end")

    def _read_all(self) -> None:
        """No unacknowledged outcome is missing, and no acknowledged one comes again."""
        reader = self._new_reader()
        for _ in range(5):
            receipts = [Receipt(key, number, Ack.DONE) for key, number in reader.has]
            self._take(reader, "kept", receipts, want=50, is_handed=True)
            self.keeps_all()
            self.clock.spend(310.0)
        assert not self.ledger.has(State.UNREAD)


def sender(message: Turn | Take) -> str:
    """Return who has sent a message."""
    return message.worker if isinstance(message, Turn) else message.reader


def aged(settle: Settle, by_s: float) -> Settle:
    """Return a settle as it is sent some time after it was made."""
    ended_ago = settle.ended_ago + by_s
    return attrs.evolve(settle, started_ago=settle.started_ago + by_s, ended_ago=ended_ago)


def said_of_task(answer: str, account: str, number: int) -> dict[str, Any]:
    """Return what an answer says of a task; a stranger's key sees none."""
    if account == "b" and answer in SIGHTS:
        answer = "denied"
    said = dict(SAID[answer])
    if said["said"] is Said.FINAL:
        said["outcome"] = f'"{answer} {number}"'
    return said


def said_of_intent(answer: str, name: str, number: int) -> dict[str, Any]:
    """Return what a look for a task says."""
    if answer in SIGHTS:
        return {
            "said": Said.FOUND,
            "task_id": f"t{name}",
            "is_task": True,
            "task": "{}",
            "is_readable": True,
        }
    if answer.startswith("up") or answer == "odd":
        outcome = f'"{answer} {number}"'
        return {"said": Said.FINAL, "outcome": outcome, "count": "unresolved"}
    return {"said": Said.CUT if answer == "cut" else Said.FAULT, "fault": "{}"}


class FileMachine(BookMachine):
    """The same with a file beside the memory: it gives equal answers, and has equal rows."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        self.file = self._open()

    @property
    def path(self) -> Path:
        return Path(self.folder.name) / "tasks.db"

    def _open(self) -> Store:
        clock = self.clock
        clocks = Clocks(clock.read_boot, clock.read, clock.read_wall)
        lives = DeadLives(self.dead)
        store = SqliteStore(self.path, keep_s=KEEP_S, clocks=clocks, lives=lives)
        self.loop.run_until_complete(store.open())
        return store

    def call(self, verb: str, *args: Any) -> Any:
        # When the file has forgotten what is over is known to the file alone.
        desk, _ = self._call_file("progress")
        self.memory.shelf.desk.purged = desk.purged
        result = super().call(verb, *args)
        of_file = self._call_file(verb, *args)
        if verb == "progress":
            same = attrs.evolve(of_file[0], clock=result[0].clock, purged=result[0].purged)
            assert same == result[0]
        else:
            assert of_file == result
        return result

    def _call_file(self, verb: str, *args: Any) -> Any:
        return self.loop.run_until_complete(getattr(self.file, verb)(*args))

    @invariant()
    def has_equal_rows(self) -> None:
        """Whatever is kept in the file is kept in memory, too, to the last digit."""
        shelf = self.memory.shelf
        for values in self._select(f"SELECT {', '.join(COLUMNS)} FROM entries"):  # noqa: S608
            row = shelf.row(values[0])
            assert row is not None
            assert values == columns_of(row)
        rows = sum(len(shelf.due(state, FAR, 1000)) for state in State)
        rows += len(shelf.due(State.OPEN, FAR, 1000, is_new=True))
        assert [(rows,)] == self._select("SELECT count(*) FROM entries")
        for key, *contents in self._select("SELECT * FROM contents"):
            assert shelf.contents(key) == tuple(contents)
        for name, *wish in self._select("SELECT * FROM wishes"):
            assert attrs.astuple(shelf.wish(name) or Wish("", "")) == (name, *wish)

    def _select(self, sql: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(sql).fetchall()

    def _restart(self, off_s: float | None) -> None:
        if off_s is None:
            self.loop.run_until_complete(self.file.aclose())
            self.file = self._open()
        super()._restart(off_s)

    def _boot(self, off_s: float) -> None:
        self._tick()
        self.loop.run_until_complete(self.file.aclose())
        self.clock.boot(off_s)
        self.file = self._open()
        tick = Turn(worker="boot", seq=1, is_leaving=True)
        reply: Turned = self._call_file("turn", tick)
        self.ahead = reply.now - self.clock.now
        void_leases(self.memory.shelf, self.now(), up_s=UP_S)
        assert finished(self.memory.turn(tick)) == reply
        self._judge_turn(tick, reply)

    def _tick(self) -> None:
        """Let the file know the time, as it does not write down that somebody has looked."""
        self.made.pop("tick", None)
        self._make_turn(Turn(worker="tick", seq=1, is_leaving=True))

    def close(self) -> None:
        self.loop.run_until_complete(self.file.aclose())
        self.loop.close()
        self.folder.cleanup()


def columns_of(row: Row) -> tuple[Any, ...]:
    """Return a row as it is kept in the file."""
    values = [getattr(row, name) for name in COLUMNS]
    doubt = COLUMNS.index("doubt")
    values[doubt] = None if row.doubt is None else json.dumps(attrs.astuple(row.doubt))
    return tuple(values)


QUIET: Final = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


def explore(machine: type[BookMachine], plans: int, steps: int = 50) -> None:
    """Try so many plans."""
    limits = settings(
        max_examples=plans,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=QUIET,
        phases=set(Phase) - {Phase.explain},
        # The same plans each time; to shrink one takes longer than a test may.
        derandomize="NEW_PLANS" not in os.environ,
        database=None,
    )
    run_state_machine_as_test(machine, settings=limits)


def test_a_book_keeps_its_promises() -> None:
    """In memory, whatever comes."""
    explore(BookMachine, share_of(60))


def test_a_file_gives_the_answers_of_the_memory() -> None:
    """Step by step, and keeps the same rows."""
    explore(FileMachine, share_of(8))


@pytest.mark.many
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("machine", "plans"), [(BookMachine, 2000), (FileMachine, 150)])
def test_a_book_keeps_its_promises_in_many_plans(machine: type[BookMachine], plans: int) -> None:
    """More of the same, and longer ones."""
    explore(machine, plans, steps=70)
