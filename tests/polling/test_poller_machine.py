"""Whatever comes in whatever order, polling keeps its promises: hypothesis looks for a plan."""

# A plan is judged by what comes out; some promises (nothing is kept) are only visible inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import math
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterable
from itertools import pairwise
from types import NoneType
from typing import Any, Final

import attrs
import pytest
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from kling_omni_async._polling.timers import NEVER, TimerHeap

from kling_omni_async import (
    AccountError,
    ApiError,
    AuthenticationError,
    ImageTask,
    InvalidTaskIdError,
    KlingOmniError,
    KlingOmniSession,
    NoImagesError,
    OutcomeStream,
    PollPolicy,
    PollTimeoutError,
    ResponseError,
    SessionClosedError,
    TaskFailedError,
    TaskNotFoundError,
    TaskOutcome,
    TransportError,
)
from kling_omni_async._api.answers import Answer
from kling_omni_async._polling.stream import Batch
from kling_omni_async._polling.waiters import Entry
from kling_omni_async._polling.watchlist import Watchlist
from tests.virtual_clock import VirtualClockLoop

from . import scripted
from .scripted import Line, ScriptedTransport, Start, poller_of, scripted_session

GRACE_S: Final = 5.0
SLACK_S: Final = 1e-6
"""What times that were added up may differ by, in s."""

ALL_PASSES: Final = 40
LONG_S: Final = 5000.0
IDS: Final = ("a", "b", "c", "d", "e")
MALFORMED: Final = "not an id"


class InputFailedError(Exception):
    """What an input raises at its end."""


@attrs.frozen(eq=False)
class Word:
    """What the machine knows of an answer, whatever the library makes of it.

    Attributes:
        answer: What comes over the wire.
        final: The class of the error that ends the id's waiting, `ImageTask` for success, or
            None where the word ends nothing.
        doubtful: Whether it has to be said again.
        readable: Whether the API itself said it, to a key that it accepts.
        fault_of_setup: The class that ends all waiting as long as nothing readable came.
        of_key: Whether it ends all waiting later too, if it is confirmed.
        limits: Whether it closes the gate.
        retry_after: The pause that it asks for, in s.
    """

    answer: Answer | KlingOmniError
    final: type[object] | None = None
    doubtful: bool = False
    readable: bool = False
    fault_of_setup: type[KlingOmniError] | None = None
    of_key: bool = False
    limits: bool = False
    retry_after: float | None = None

    @property
    def is_fault(self) -> bool:
        """Whether it says nothing about the task."""
        return self.final is None and self not in {WORDS["pending"], WORDS["submitted"]}


WORDS: Final = {
    "pending": Word(scripted.PENDING, readable=True),
    "submitted": Word(scripted.SUBMITTED, readable=True),
    "succeed": Word(scripted.SUCCEED, ImageTask, readable=True),
    "failed": Word(scripted.FAILED, TaskFailedError, readable=True),
    "bad request": Word(scripted.BAD_REQUEST, ApiError, readable=True),
    "no images": Word(scripted.IMAGELESS, NoImagesError, doubtful=True, readable=True),
    "not found": Word(scripted.NOT_FOUND, TaskNotFoundError, doubtful=True, readable=True),
    "502": Word(scripted.BAD_GATEWAY),
    "5000": Word(scripted.API_TROUBLE, readable=True),
    "429": Word(scripted.limited(), readable=True, limits=True),
    "429 for 40 s": Word(scripted.limited("40"), readable=True, limits=True, retry_after=40.0),
    "429 for a day": Word(scripted.limited("86400"), readable=True, limits=True, retry_after=120.0),
    "bare 429": Word(Answer(429, b""), limits=True),
    "401": Word(scripted.UNAUTHORIZED, fault_of_setup=AuthenticationError, of_key=True),
    "no balance": Word(scripted.NO_BALANCE, fault_of_setup=AccountError, of_key=True),
    "web page": Word(scripted.WEB_PAGE, fault_of_setup=ResponseError),
    "certificate": Word(scripted.BAD_CERTIFICATE, fault_of_setup=TransportError),
    "reset": Word(scripted.RESET),
}
TIMED_OUT: Final = Word(scripted.TIMED_OUT.answer)


@attrs.frozen
class Spoken(Line):
    """A line of a script together with what it means."""

    word: Word = TIMED_OUT


Saying = tuple[str, float, int]
"""A word, after how many s, and how often in a row."""


def spoken(sayings: Iterable[Saying]) -> deque[Line]:
    """Make a script."""
    return deque(
        Spoken(WORDS[name].answer, after, None, WORDS[name])
        for name, after, times in sayings
        for _ in range(times)
    )


@attrs.define(eq=False)
class Waiter:
    """A call of `wait`, `watch` or `query`."""

    verb: str
    task_id: str
    timeout: float | None
    called: float
    task: asyncio.Task[None] | None = None
    begun: float | None = None
    ended: float | None = None
    result: object = None

    @property
    def deadline(self) -> float:
        return NEVER if self.timeout is None else self.called + self.timeout


@attrs.define(eq=False)
class Reader:
    """A stream, who reads it, and what came out."""

    stream: OutcomeStream
    batch: Batch
    timeout: float | None
    feed: asyncio.Queue[str | None] | None
    unpaused: asyncio.Event = attrs.Factory(asyncio.Event)
    task: asyncio.Task[None] | None = None
    expected: Counter[str] = attrs.Factory(Counter)
    out: list[tuple[float, TaskOutcome]] = attrs.Factory(list)
    first_query: dict[str, float] = attrs.Factory(dict)
    input_error: InputFailedError | None = None
    input_ended: bool = False
    begun: bool = False
    left: float | None = None
    is_left: bool = False
    end: BaseException | None = None

    @property
    def is_open(self) -> bool:
        return self.begun and not self.batch.closed


class Gate:
    """An own account of when a 429 holds scheduled queries back."""

    def __init__(self) -> None:
        self.closed = False
        self.since = -NEVER
        self.until = -NEVER
        self.pause: tuple[float, float, float] | None = None
        self._step = 0

    def hear(self, word: Word, start: Start, at: float) -> None:
        if start.at < self.until:
            return
        if not word.limits:
            if word.readable:
                self.closed, self._step = False, 0
            return
        base = min(2.0**self._step, 20.0)
        if word.retry_after is None:
            self._step += 1
            self.pause = (at, base, 1.5 * base)
        else:
            self.pause = (at, word.retry_after, word.retry_after)
        self.closed, self.since = True, at


class Setup:
    """An own account of when the set-up is taken for wrong."""

    def __init__(self, interval_s: float) -> None:
        self._heard = False
        self._suspect_since: float | None = None
        self._interval_s = interval_s

    def is_wrong(self, word: Word, start: Start, at: float) -> bool:
        if word.readable:
            self._heard, self._suspect_since = True, None
            return False
        if not self._heard:
            return word.fault_of_setup is not None
        if not word.of_key:
            return False
        if self._suspect_since is None:
            self._suspect_since = at
            return False
        confirmed = start.at >= self._suspect_since + self._interval_s
        if confirmed:
            self._suspect_since = None
        return confirmed


PASSES = st.sampled_from([ALL_PASSES, 0, 1, 2, 3, 5, 8])
TIMEOUTS = st.sampled_from([None, 0.0, 7.0, 60.0, 600.0])
TASK_IDS = st.sampled_from(IDS)
ANY_IDS = st.lists(st.sampled_from((*IDS, MALFORMED)), max_size=7)
PICK = st.integers(0, 20)
DELAYS = st.sampled_from([0.3, 0.0, 0.015, 3.0, 9.0, math.inf])
SCRIPTS = st.lists(
    st.tuples(st.sampled_from(list(WORDS)), DELAYS, st.integers(1, 3)), min_size=1, max_size=4
)
POLICIES = st.builds(
    PollPolicy,
    interval=st.sampled_from([(20.0, 30.0), (20.0, 20.0), (15.0, 40.0), (0.0, 5.0)]),
    max_concurrency=st.sampled_from([100, 1, 2, 3]),
    max_rate=st.sampled_from([100.0, None, 0.1, 0.5, 4.0]),
    query_timeout=st.sampled_from([15.0, 4.0]),
    confirmations=st.sampled_from([2, 1, 3]),
)


class PollerMachine(RuleBasedStateMachine):
    """Drives a session over a scripted transport and keeps an own account of what is due."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualClockLoop()
        self.patch = pytest.MonkeyPatch()
        self.waiters: list[Waiter] = []
        self.readers: list[Reader] = []
        self.wrongs: list[str] = []
        self.last_end: dict[str, float] = {}
        self.entries: dict[str, Entry | None] = {}
        self.doubts: dict[str, tuple[type[object], int]] = {}
        self.finals: dict[str, set[type[object]]] = {task_id: set() for task_id in IDS}
        self.endings: list[tuple[float, type[KlingOmniError]]] = []
        self.due: list[tuple[Waiter | Reader, str]] = []
        self.answers_at: dict[Start, float] = {}
        self.by_hand: set[Start] = set()
        self.gate = Gate()
        self.settled = True
        self.closed = False

    # The plan.

    @initialize(
        policy=POLICIES,
        seed=st.integers(0, 3),
        scripts=st.fixed_dictionaries(dict.fromkeys(IDS, SCRIPTS)),
        slice_s=st.sampled_from([math.inf, -1.0]),
        finale=st.sampled_from(["drain", "close", "cancel the owner"]),
    )
    def set_up(
        self,
        policy: PollPolicy,
        seed: int,
        scripts: dict[str, list[Saying]],
        slice_s: float,
        finale: str,
    ) -> None:
        # Slices are cut by real time, which would make one plan run in two ways: all or none.
        self.patch.setattr("kling_omni_async._polling.inputs.SLICE_S", slice_s)
        self.policy = policy
        self.finale = finale
        self.setup = Setup(policy.interval[0])
        self.transport = ScriptedTransport(
            {task_id: spoken(sayings) for task_id, sayings in scripts.items()},
            query_timeout=policy.query_timeout,
            on_start=self._started,
            on_end=self._ended,
        )
        self.session = scripted_session(self.transport, policy, seed=seed)
        self.poller = poller_of(self.session)
        self.inside = self.poller._watchlist

    @rule(task_id=TASK_IDS, sayings=SCRIPTS)
    def script(self, task_id: str, sayings: list[Saying]) -> None:
        self.transport.scripts[task_id] = spoken(sayings)

    @rule(task_ids=ANY_IDS, timeout=TIMEOUTS, passes=PASSES)
    def poll(self, task_ids: list[str], timeout: float | None, passes: int) -> None:
        self._read(task_ids, None, timeout)
        self.readers[-1].expected.update(set(task_ids))
        self._run(passes)

    @rule(task_ids=ANY_IDS, timeout=TIMEOUTS, passes=PASSES)
    def poll_a_feed(self, task_ids: list[str], timeout: float | None, passes: int) -> None:
        feed: asyncio.Queue[str | None] = asyncio.Queue()
        for task_id in task_ids:
            feed.put_nowait(task_id)
        self._read(self._feed(feed), feed, timeout)
        self._run(passes)

    @precondition(lambda self: any(reader.feed for reader in self.readers))
    @rule(pick=PICK, task_ids=ANY_IDS, passes=PASSES)
    def feed(self, pick: int, task_ids: list[str], passes: int) -> None:
        feeds = [reader.feed for reader in self.readers if reader.feed is not None]
        for task_id in task_ids:
            feeds[pick % len(feeds)].put_nowait(task_id)
        self._run(passes)

    @precondition(lambda self: any(reader.feed for reader in self.readers))
    @rule(pick=PICK, fails=st.booleans(), passes=PASSES)
    def end_a_feed(self, pick: int, *, fails: bool, passes: int) -> None:
        fed = [reader for reader in self.readers if reader.feed is not None]
        self._end_feed(fed[pick % len(fed)], fails=fails)
        self._run(passes)

    @precondition(lambda self: self.readers)
    @rule(pick=PICK, passes=PASSES)
    def leave(self, pick: int, passes: int) -> None:
        reader = self.readers[pick % len(self.readers)]
        self._note_left(reader)
        self.loop.run_until_complete(reader.stream.aclose())
        self._run(passes)

    @precondition(lambda self: self.readers)
    @rule(pick=PICK, passes=PASSES)
    def pause_or_go_on(self, pick: int, passes: int) -> None:
        unpaused = self.readers[pick % len(self.readers)].unpaused
        (unpaused.clear if unpaused.is_set() else unpaused.set)()
        self._run(passes)

    @precondition(lambda self: self.readers)
    @rule(pick=PICK, passes=PASSES)
    def read_on_in_another_task(self, pick: int, passes: int) -> None:
        reader = self.readers[pick % len(self.readers)]
        if reader.task is not None and not reader.task.done():
            reader.task.cancel()
            reader.task = self.loop.create_task(self._consume(reader))
        self._run(passes)

    @rule(
        verb=st.sampled_from(["wait", "watch", "query"]),
        task_id=TASK_IDS,
        timeout=TIMEOUTS,
        passes=PASSES,
    )
    def call(self, verb: str, task_id: str, timeout: float | None, passes: int) -> None:
        waiter = Waiter(verb, task_id, None if verb == "query" else timeout, self.loop.time())
        waiter.task = self.loop.create_task(self._wait(waiter))
        self.waiters.append(waiter)
        self._run(passes)

    @precondition(lambda self: self.waiters)
    @rule(pick=PICK, passes=PASSES)
    def cancel(self, pick: int, passes: int) -> None:
        task = self.waiters[-1 - pick % len(self.waiters)].task
        assert task is not None
        task.cancel()
        self._run(passes)

    @rule(span=st.sampled_from([0.1, 1.0, 5.0, 20.0, 30.0, 100.0, 700.0]))
    def let_time_pass(self, span: float) -> None:
        self._pass_time(span)
        self._run(ALL_PASSES)

    @precondition(lambda self: self._next_timer() < NEVER)
    @rule(count=st.integers(1, 8), passes=PASSES)
    def go_to_a_later_event(self, count: int, passes: int) -> None:
        for _ in range(count):
            self._run(ALL_PASSES)
            self._pass_time(max(0.0, self._next_timer() - self.loop.time()))
        self._run(passes)

    @precondition(lambda self: self._in_flight())
    @rule(passes=PASSES)
    def go_to_the_next_answer(self, passes: int) -> None:
        self._pass_time(max(0.0, self._next_answer() - self.loop.time()))
        self._run(passes)

    # How it is carried out.

    def _run(self, passes: int) -> None:
        self.loop.run_until_complete(give_way(passes))
        self.settled = passes == ALL_PASSES

    def _pass_time(self, span: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(span if span < NEVER else 0.0))

    def _next_timer(self) -> float:
        timer = self.poller._timer
        return NEVER if timer is None else timer.when()

    def _next_answer(self) -> float:
        return min(self.answers_at[start] for start in self._in_flight())

    def _read(
        self,
        source: Iterable[str] | AsyncIterator[str],
        feed: asyncio.Queue[str | None] | None,
        timeout: float | None,
    ) -> None:
        stream = self.session.poll(source, timeout=timeout)
        reader = Reader(stream, stream._batch, timeout, feed, input_ended=feed is None)
        reader.unpaused.set()
        reader.task = self.loop.create_task(self._consume(reader))
        self.readers.append(reader)

    async def _consume(self, reader: Reader) -> None:
        reader.begun = True
        try:
            async with asyncio.timeout(None):
                async for outcome in reader.stream:
                    reader.out.append((self.loop.time(), outcome))
                    reader.first_query.pop(outcome.task_id, None)
                    await reader.unpaused.wait()
        except Exception as error:  # noqa: BLE001 - a defect is judged like all else
            reader.end = error
        else:
            reader.end = StopAsyncIteration()

    async def _feed(self, feed: asyncio.Queue[str | None]) -> AsyncIterator[str]:
        while (task_id := await feed.get()) is not None:
            (reader,) = (each for each in self.readers if each.feed is feed)
            if task_id not in reader.batch.pending:
                reader.expected[task_id] += 1
            yield task_id
        (reader,) = (each for each in self.readers if each.feed is feed)
        reader.input_ended = True
        if reader.input_error is not None:
            raise reader.input_error

    def _end_feed(self, reader: Reader, *, fails: bool) -> None:
        assert reader.feed is not None
        if fails and reader.input_error is None:
            reader.input_error = InputFailedError()
        reader.feed.put_nowait(None)

    async def _wait(self, waiter: Waiter) -> None:
        waiter.begun = self.loop.time()
        try:
            waiter.result = await self._result(waiter)
        except Exception as error:  # noqa: BLE001 - a defect is judged like all else
            waiter.result = error
        finally:
            waiter.ended = self.loop.time()

    async def _result(self, waiter: Waiter) -> object:
        if waiter.verb == "query":
            return await self.session.query(waiter.task_id)
        waiter.called = self.loop.time()
        if waiter.verb == "wait":
            return await self.session.wait(waiter.task_id, timeout=waiter.timeout)
        async with self.session.watch(waiter.task_id, timeout=waiter.timeout) as updates:
            seen = [update async for update in updates]
        words = [update.status for update in seen]
        self._expect(
            all(before != after for before, after in pairwise(words)),
            f"watch gives changes of status only, not {words}",
        )
        self._expect(seen[-1].is_terminal, "the last answer that watch gives is final")
        return seen[-1]

    def _note_left(self, reader: Reader) -> None:
        reader.is_left = True
        if not reader.batch.closed:
            reader.left = self.loop.time()

    # What the transport sees.

    def _expect(self, fact: object, text: str) -> None:
        """Note a broken promise; raising it here would only look like the poller's own defect."""
        if not fact:
            self.wrongs.append(f"at {self.loop.time()}: {text}")

    def _started(self, start: Start, line: Line) -> None:
        note(f"{start.at:10.3f} query {start.task_id}: {_name_of(line)} in {line.after} s")
        self._read_gate()
        self.answers_at[start] = start.at + min(line.after, self.policy.query_timeout)
        task_id = start.task_id
        if self._is_asked(task_id, start.at):
            self.by_hand.add(start)
        self._check_pace(start)
        self._expect(self._is_wanted(task_id, start.at), f"nobody waits for {task_id}")
        others = [each for each in self._in_flight() if each is not start]
        self._expect(
            all(each.task_id != task_id for each in others), f"{task_id} is asked twice at once"
        )
        if start not in self.by_hand:
            self._check_pause(start)
            self._check_gate(start, others)
        for reader in self.readers:
            if reader.is_open and task_id in reader.batch.pending:
                reader.first_query.setdefault(task_id, start.at)

    def _in_flight(self) -> list[Start]:
        return [each for each in self.transport.starts if each.ended is None]

    def _check_pace(self, start: Start) -> None:
        if self.policy.max_rate is not None and len(self.transport.starts) > 1:
            gap = start.at - self.transport.starts[-2].at
            self._expect(
                gap >= (1 - 1e-9) / self.policy.max_rate - 1e-9, f"only {gap} s between starts"
            )

    def _check_pause(self, start: Start) -> None:
        pause = start.at - self.last_end.get(start.task_id, -NEVER)
        self._expect(
            pause >= self.policy.interval[0] - 1e-9, f"{start.task_id} paused only {pause} s"
        )

    def _check_gate(self, start: Start, others: list[Start]) -> None:
        if not self.gate.closed or start.at == self.gate.since:  # it was under way already
            return
        self._expect(start.at >= self.gate.until - 1e-9, "a scheduled query in a 429 pause")
        probes = [each for each in others if each.at >= self.gate.until]
        self._expect(
            all(each in self.by_hand for each in probes), "two queries try the gate at once"
        )

    def _ended(self, start: Start, line: Line) -> None:
        word = line.word if isinstance(line, Spoken) else TIMED_OUT
        now, task_id = self.loop.time(), start.task_id
        note(f"{now:10.3f} answer {task_id}: {_name_of(line)}")
        self._read_gate()
        self.last_end[task_id] = now
        self.gate.hear(word, start, now)
        if (final := self._final(task_id, word)) is not None:
            self.finals[task_id].add(final)
            self.due += [(each, task_id) for each in self._waiting_for(task_id)]
        if self.setup.is_wrong(word, start, now):
            assert word.fault_of_setup is not None
            self.endings.append((now, word.fault_of_setup))
            self.due += [(each, "all") for each in self._all_waiting()]

    def _final(self, task_id: str, word: Word) -> type[object] | None:
        """Give what ends the waiting for an id, counting what has to be confirmed."""
        entry = self.inside._entries.get(task_id)
        if entry is not self.entries.get(task_id):
            self.doubts.pop(task_id, None)  # the id had been forgotten
        self.entries[task_id] = entry
        if word.is_fault:
            return None
        if not word.doubtful or word.final is None:
            self.doubts.pop(task_id, None)
            return word.final
        kind, count = self.doubts.get(task_id, (word.final, 0))
        count = count + 1 if kind is word.final else 1
        self.doubts[task_id] = (word.final, count)
        return word.final if count >= self.policy.confirmations else None

    def _read_gate(self) -> None:
        """Take over how long the pause is that a 429 began, if it is one that may be."""
        if self.gate.pause is not None:
            at, least, most = self.gate.pause
            self.gate.pause = None
            self.gate.until = self.inside.schedule.throttle.until
            length = self.gate.until - at
            self._expect(
                least - 1e-9 <= length <= most + 1e-9,
                f"a pause of {length} s, not {least} to {most}",
            )

    # Who waits, by the machine's own account.

    def _live(self, at: float) -> list[Waiter]:
        """Give the calls that wait, or did at this very time."""
        return [
            each
            for each in self.waiters
            if each.begun is not None and (each.ended is None or each.ended >= at)
        ]

    def _is_asked(self, task_id: str, at: float) -> bool:
        return any(each.verb == "query" and each.task_id == task_id for each in self._live(at))

    def _is_wanted(self, task_id: str, at: float) -> bool:
        return any(each.task_id == task_id for each in self._live(at)) or any(
            self._reads(reader, task_id, at) for reader in self.readers
        )

    def _reads(self, reader: Reader, task_id: str, at: float) -> bool:
        if not reader.begun or (reader.left is not None and reader.left < at):
            return False
        if task_id in reader.batch.pending:
            return reader.left is not None or not reader.batch.closed or self._ended_at(at)
        return any(when >= at and outcome.task_id == task_id for when, outcome in reader.out)

    def _ended_at(self, at: float) -> bool:
        return any(when >= at for when, _ in self.endings)

    def _waiting_for(self, task_id: str) -> list[Waiter | Reader]:
        calls = [each for each in self._calls() if each.task_id == task_id]
        return [*calls, *(r for r in self.readers if r.is_open and task_id in r.batch.pending)]

    def _all_waiting(self) -> list[Waiter | Reader]:
        return [*self._calls(), *(reader for reader in self.readers if reader.is_open)]

    def _calls(self) -> list[Waiter]:
        return [
            each
            for each in self.waiters
            if each.begun is not None and each.ended is None and each.verb != "query"
        ]

    # The promises.

    @invariant()
    def keeps_its_promises(self) -> None:
        if not self.settled or not hasattr(self, "session"):
            return
        self._read_gate()
        assert self.wrongs == []
        assert self.transport.most_in_flight <= self.policy.max_concurrency
        self._check_owed()
        for waiter in self.waiters:
            self._check_waiter(waiter)
        for reader in self.readers:
            self._check_reader(reader)
        if not self.closed:
            self._check_inside()

    def _check_owed(self) -> None:
        """Check that what ended came to all who waited for it, in no time."""
        for one, what in self.due:
            if isinstance(one, Waiter):
                assert one.ended is not None, f"{one} still waits"
            elif one.unpaused.is_set():
                if what == "all":
                    assert one.end is not None, f"{one} was not told"
                elif not any(outcome.task_id == what for _, outcome in one.out):
                    assert one.end is not None, f"{what} did not come out of {one}"
        self.due.clear()

    def _check_waiter(self, waiter: Waiter) -> None:
        now = self.loop.time()
        if waiter.ended is None:
            assert now <= waiter.deadline + GRACE_S + SLACK_S, f"{waiter} waits for too long"
        elif waiter.ended > waiter.deadline + GRACE_S + SLACK_S:
            raise AssertionError(f"{waiter} waited for too long")
        elif waiter.verb == "query":
            assert isinstance(waiter.result, (ImageTask, KlingOmniError, NoneType))
        elif isinstance(waiter.result, Exception):
            self._check_error(waiter.result, waiter.task_id, waiter.ended, waiter.deadline)
            if isinstance(waiter.result, PollTimeoutError):
                self._check_grace(waiter.task_id, waiter.ended, waiter.deadline)
        elif isinstance(waiter.result, ImageTask) and waiter.verb == "wait":
            assert waiter.result.images

    def _check_error(self, error: Exception, task_id: str, at: float, deadline: float) -> None:
        """Check that an error has its reason in what came over the wire."""
        if isinstance(error, PollTimeoutError):
            assert at >= deadline - SLACK_S, "timed out before its time"
        elif isinstance(error, SessionClosedError):
            assert self.closed
        elif (at, type(error)) not in self.endings:
            assert type(error) in self.finals[task_id], f"no reason for {error!r}"

    def _check_grace(self, task_id: str, ended: float, deadline: float) -> None:
        """Check that a query in flight at a deadline had its time to end."""
        under_way = any(
            start.task_id == task_id
            and start.at < ended - SLACK_S
            and (start.ended is None or start.ended > ended)
            for start in self.transport.starts
        )
        assert not under_way or ended >= deadline + GRACE_S - SLACK_S, "no grace"

    def _check_reader(self, reader: Reader) -> None:
        counts = Counter(outcome.task_id for _, outcome in reader.out)
        pending = Counter(reader.batch.pending)
        if reader.begun and (not reader.batch.closed or reader.feed is not None):
            assert counts + pending == reader.expected, "each id exactly once, or pending"
            assert reader.stream.progress.total == reader.expected.total()
        if type(reader.end) is StopAsyncIteration and not reader.is_left:
            assert reader.input_ended, f"{reader} ended before its input"
        assert all(counts[each] + pending[each] <= reader.expected[each] for each in counts)
        assert reader.stream.progress.pending == len(reader.batch.pending)
        for at, outcome in reader.out:
            self._check_outcome(reader, at, outcome)
        if reader.is_open and reader.unpaused.is_set() and reader.timeout is not None:
            self._check_none_is_late(reader, reader.timeout)

    def _check_outcome(self, reader: Reader, at: float, outcome: TaskOutcome) -> None:
        if outcome.error is None:
            assert outcome.images
        elif isinstance(outcome.error, InvalidTaskIdError):
            assert outcome.task_id == MALFORMED
        else:
            self._check_error(outcome.error, outcome.task_id, at, reader.timeout or 0.0)
        if isinstance(outcome.error, PollTimeoutError):
            assert outcome.queries >= 1, "timed out without one completed query"
            assert reader.timeout is not None
            assert outcome.elapsed >= reader.timeout - SLACK_S

    def _check_none_is_late(self, reader: Reader, timeout: float) -> None:
        most = timeout + max(GRACE_S, self.policy.query_timeout) + SLACK_S
        for task_id in reader.batch.pending:
            first = reader.first_query.get(task_id, NEVER)
            assert self.loop.time() <= first + most, f"{task_id} is late"

    def _check_feeds(self) -> None:
        """Check that no input is read for a stream that is over."""
        tasks = asyncio.all_tasks(self.loop)
        feeds = sum(task.get_name() == "kling_omni_async.feed" for task in tasks)
        read = sum(each.is_open and each.batch.reading for each in self.readers)
        assert feeds == read, "an input is read for nobody"

    def _check_inside(self) -> None:
        self._check_feeds()
        entries = self.inside._entries.values()
        assert self.inside.schedule.watched == sum(each.is_watched for each in entries)
        for entry in entries:
            kept = (
                entry.is_watched or entry.task_id in self.inside._asked or entry.started is not None
            )
            assert kept or entry.when < NEVER, f"{entry} is kept for nothing"
        for _, _, item in self.inside._alarms._rows:
            is_idle = item.closed if isinstance(item, Batch) else item.entry is None
            assert item.when == NEVER or not is_idle, f"an alarm for nobody: {item}"
        _check_size(self.inside.schedule._dues)
        _check_size(self.inside._alarms)
        if self.inside.unswept or not all(each.unpaused.is_set() for each in self.readers):
            return
        ids = {each.task_id for each in self._calls()}
        for reader in self.readers:
            ids |= reader.batch.pending - {MALFORMED} if reader.is_open else set()
        assert self.inside.schedule.watched == len(ids)

    # The end.

    def teardown(self) -> None:
        try:
            if hasattr(self, "session"):
                self._finish()
        finally:
            self._drop_all()
            self.loop.close()
            self.patch.undo()

    def _finish(self) -> None:
        self._run(ALL_PASSES)
        self.keeps_its_promises()
        if self.finale == "drain":
            self._drain()
        self._close()
        for waiter in self.waiters:
            assert waiter.ended is not None, f"{waiter} waits for ever"
        for reader in self.readers:
            assert reader.end is not None, f"{reader} waits for ever"
            if not reader.is_left:
                self._check_end_again(reader)
        self.keeps_its_promises()
        assert asyncio.all_tasks(self.loop) == set()
        assert self.transport.opened == self.transport.closed

    def _check_end_again(self, reader: Reader) -> None:
        """Check that a stream that has ended ends in the same way at each further step."""
        for _ in range(2):
            again: type[object]
            try:
                self.loop.run_until_complete(anext(reader.stream))
            except Exception as error:  # noqa: BLE001 - any end is an end
                again = type(error)
            else:
                again = TaskOutcome
            assert again is type(reader.end), f"{reader} ended otherwise"

    def _drain(self) -> None:
        """Let everything succeed: then everybody who waits must get something."""
        self.transport.scripts.clear()
        self.transport.default = spoken([("succeed", 0.0, 1)])[0]
        for reader in self.readers:
            reader.unpaused.set()
            if reader.feed is not None:
                self._end_feed(reader, fails=False)
        self._pass_time(LONG_S)
        self._run(ALL_PASSES)
        self.keeps_its_promises()
        assert all(waiter.ended is not None for waiter in self.waiters)
        assert all(reader.end is not None for reader in self.readers)
        assert self.inside._entries == {}
        assert self.inside.next_event() == NEVER

    def _close(self) -> None:
        waiting = self._all_waiting()
        self.closed = True
        for reader in self.readers:
            reader.unpaused.set()
            reader.left = self.loop.time() if reader.is_open else reader.left
        owner = self.poller._owner
        if self.finale == "cancel the owner" and owner is not None:
            owner.cancel()
            self._run(ALL_PASSES)
        self.loop.run_until_complete(self.session.aclose())
        self._run(ALL_PASSES)
        for one in waiting:
            result = one.result if isinstance(one, Waiter) else one.end
            assert isinstance(result, SessionClosedError), f"{one} was not told"

    def _drop_all(self) -> None:
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self._run(ALL_PASSES)


async def give_way(passes: int) -> None:
    """Let the loop run that often."""
    for _ in range(passes):
        await asyncio.sleep(0)


def _name_of(line: Line) -> str:
    names = [name for name, word in WORDS.items() if word.answer is line.answer]
    return names[0] if names else "no answer in time"


def _check_size(heap: TimerHeap[Any]) -> None:
    assert len(heap._rows) <= 2 * len(heap) + 65


PollerMachine.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestPoller = pytest.mark.timeout(300)(PollerMachine.TestCase)  # shrinking takes its time


# Single facts, each a plan that hypothesis would rarely find.


def new_session(
    *sayings: Saying, **policy: Any
) -> tuple[KlingOmniSession, ScriptedTransport, Watchlist]:
    """Make a session where all ids share a script, and give what is inside."""
    transport = ScriptedTransport()
    transport.default = spoken(sayings)[0]
    session = scripted_session(transport, PollPolicy(**policy))
    return session, transport, poller_of(session)._watchlist


async def forever(taken: list[str], feed: asyncio.Queue[str]) -> AsyncIterator[str]:
    """Give what comes into a queue, and note it."""
    while True:
        taken.append(await feed.get())
        yield taken[-1]


@pytest.mark.anyio
async def test_the_input_of_a_stream_that_was_left_at_once_is_not_read() -> None:
    """Leaving before the first pass of the loop takes nothing from a feed, then or later."""
    session, _, _ = new_session(("pending", 0.0, 1))
    taken: list[str] = []
    feed: asyncio.Queue[str] = asyncio.Queue()
    async with session:
        async with session.poll(forever(taken, feed)):
            feed.put_nowait("a")
        feed.put_nowait("b")
        await asyncio.sleep(100.0)
        assert taken == []


@pytest.mark.anyio
async def test_a_wrong_setup_lets_go_of_its_ids_at_once() -> None:
    """After everything has ended no id counts as watched, though nothing else happens."""
    session, _, inside = new_session(("401", 0.0, 1))
    async with session:
        with pytest.raises(AuthenticationError):
            await all_of(session.poll(list("abc")))
        await give_way(ALL_PASSES)
        assert inside.schedule.watched == 0


@pytest.mark.anyio
async def test_a_repr_tells_the_state_of_a_poller() -> None:
    """It is not started, running or closed."""
    session, _, _ = new_session(("pending", 0.0, 1))
    poller = poller_of(session)
    states = [repr(poller).split()[1]]
    async with session:
        poller.now()
        states.append(repr(poller).split()[1])
    states.append(repr(poller).split()[1])
    assert states == ["not", "running", "closed"]


@pytest.mark.anyio
@pytest.mark.parametrize(("limit", "most"), [(None, 3), (2, 2), (9, 3)])
async def test_no_more_queries_than_the_transport_has_places_for(
    limit: int | None, most: int
) -> None:
    """In flight is at most the policy's limit, and at most the transport's if it has one."""
    transport = ScriptedTransport(limit=limit)
    transport.default = spoken([("succeed", 5.0, 1)])[0]
    policy = PollPolicy(max_concurrency=3, max_rate=None)
    async with scripted_session(transport, policy) as session:
        assert len(await all_of(session.poll(list("abcdef")))) == 6
    assert transport.most_in_flight == most


@pytest.mark.anyio
async def test_a_thousand_waits_that_time_out_at_once_all_end() -> None:
    """Their number does not keep one of them waiting."""
    session, _, _ = new_session(("pending", 0.0, 1))
    async with session:
        waits = [session.wait("a", timeout=7.0) for _ in range(1100)]
        results = await asyncio.gather(*waits, return_exceptions=True)
        assert {type(result) for result in results} == {PollTimeoutError}
        assert scripted.now() == pytest.approx(7.0)


@pytest.mark.anyio
async def test_a_transport_that_cannot_open_tells_everyone() -> None:
    """A defect reaches who waits, unwrapped, and closes the session."""

    class BrokenTransport(ScriptedTransport):
        async def open(self) -> int | None:
            raise ZeroDivisionError

    session = scripted_session(BrokenTransport())
    with pytest.raises(ZeroDivisionError):
        await session.wait("a")
    assert session.closed


@pytest.mark.anyio
async def test_an_answer_held_back_keeps_only_its_own_id_waiting() -> None:
    """One id's trouble does not touch another's."""
    transport = ScriptedTransport({"a": [Line(scripted.SUCCEED, 0.0, asyncio.Event())]})
    transport.default = Line(scripted.SUCCEED)
    async with scripted_session(transport) as session, session.poll(list("ab")) as outcomes:
        assert (await anext(outcomes)).task_id == "b"
        assert scripted.now() < 1.0
        assert set(outcomes.pending) == {"a"}
        held = transport.scripts["a"][0].hold
        assert held is not None
        held.set()
        assert (await anext(outcomes)).task_id == "a"


class PlainFeed:
    """An async iterator that is no generator, and has nothing to close."""

    def __init__(self, *steps: object) -> None:
        self._steps = iter(steps)

    def __aiter__(self) -> PlainFeed:
        return self

    async def __anext__(self) -> Any:
        step = next(self._steps, StopAsyncIteration())
        if isinstance(step, BaseException):
            raise step
        return step


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("source", "end", "given_out"),
    [
        (PlainFeed("a", "b"), StopAsyncIteration, 2),
        (PlainFeed("a", InputFailedError()), InputFailedError, 1),
        (PlainFeed("a", asyncio.CancelledError()), RuntimeError, 1),
        (PlainFeed("a", 7), InvalidTaskIdError, 0),
        (["a", 7], InvalidTaskIdError, 0),
    ],
    ids=["plain", "raises", "cancels itself", "feeds a number", "lists a number"],
)
async def test_an_input_ends_as_it_likes(source: Any, end: type[Exception], given_out: int) -> None:
    """Ids come out first, then what the input raised; what is no text is told at once."""
    session, _, _ = new_session(("succeed", 0.3, 1))
    async with session, session.poll(source) as outcomes:
        for _ in range(given_out):
            assert (await anext(outcomes)).ok
        for _ in range(2):
            with pytest.raises(end):
                await anext(outcomes)


@pytest.mark.anyio
@pytest.mark.parametrize("feeds", [False, True], ids=["list", "feed"])
async def test_long_work_is_cut_into_slices(
    monkeypatch: pytest.MonkeyPatch,
    feeds: bool,  # noqa: FBT001 - two kinds of input
) -> None:
    """Other tasks have a turn while many ids are read, and while they are let go."""
    monkeypatch.setattr("kling_omni_async._polling.inputs.SLICE_S", -1.0)
    session, _, inside = new_session(("pending", 0.0, 1))
    ids = [f"id-{number}" for number in range(50)]
    async with session:
        async with session.poll(PlainFeed(*ids) if feeds else ids) as outcomes:
            while outcomes.progress.total < len(ids):
                before = outcomes.progress.total
                await asyncio.sleep(0)
                assert outcomes.progress.total <= before + 1
        await give_way(3)
        assert 0 < inside.schedule.watched < len(ids)
        await give_way(len(ids))
        assert inside.schedule.watched == 0


@pytest.mark.anyio
async def test_a_query_waits_for_no_429() -> None:
    """A query by hand goes through a pause, and its good answer does not end it."""
    session, transport, _ = new_session(("succeed", 0.0, 1))
    transport.scripts["a"] = spoken([("429 for 40 s", 0.0, 1), ("succeed", 0.0, 1)])
    async with session:
        waits = [asyncio.ensure_future(session.wait(task_id)) for task_id in "ab"]
        await asyncio.sleep(1.0)
        await session.query("c")
        assert [start.task_id for start in transport.starts] == ["a", "c"]
        await asyncio.gather(*waits)
        assert min(transport.times_of("b")) >= 40.0


@pytest.mark.anyio
async def test_no_timer_is_set_when_nothing_is_due() -> None:
    """One timer serves the whole session, and none is left when nobody waits."""
    session, transport, inside = new_session(("pending", 0.0, 1))
    async with session:
        with pytest.raises(PollTimeoutError):
            await session.wait("a", timeout=100.0)
        await asyncio.sleep(100.0)
        assert (inside.next_event(), poller_of(session)._timer) == (NEVER, None)
    assert len(transport.starts) in {4, 5}


async def all_of(stream: OutcomeStream) -> list[TaskOutcome]:
    """Read a stream to its end."""
    return [outcome async for outcome in stream]
