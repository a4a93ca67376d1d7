"""Whatever comes in whatever order, polling keeps its promises: hypothesis looks for a plan."""

# A plan is judged by what comes out; some promises (nothing is kept) are only visible inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterator
from itertools import pairwise
from typing import Any, Final, cast

import pytest
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from kling_omni_async import (
    ImageTask,
    InvalidTaskIdError,
    KlingOmniError,
    PollPolicy,
    PollTimeoutError,
    RateLimitError,
    SessionClosedError,
    TaskFailedError,
    TaskOutcome,
)
from kling_omni_async._polling.schedule import TimerHeap
from kling_omni_async._polling.stream import StreamState
from kling_omni_async._polling.waiters import Entry, Waiter
from tests.plans import share_of
from tests.virtual_clock import VirtualClockLoop

from .oracle import (
    GIVEN,
    GRACE_S,
    IDS,
    NEVER,
    SLACK_S,
    STRAY,
    TIMED_OUT,
    WORDS,
    Call,
    Claim,
    Claims,
    Doubts,
    Freeze,
    Freezes,
    Gate,
    InputFailedError,
    Order,
    Query,
    Reader,
    Saying,
    Setup,
    Spoken,
    Word,
    name_of,
    spoken,
)
from .scripted import Line, ScriptedTransport, Start, poller_of, scripted_session

AT_REST: Final = 1000
"""After how many passes of the loop there must be nothing to do."""

LONG_S: Final = 5000.0
END: Final = object()
PLACE_S: Final = 1e-9

PASSES = st.sampled_from([AT_REST, 0, 1, 2, 3, 5, 8])
TIMEOUTS = st.sampled_from([None, 0.0, 7.0, 60.0, 600.0])
TASK_IDS = st.sampled_from(IDS)
ANY_IDS = st.lists(st.sampled_from([*IDS, *IDS, *GIVEN]), max_size=7)
VERBS = st.sampled_from(["wait", "watch", "query"])
PICK = st.integers(0, 20)
OFTEN: Final = ("succeed", "succeed", "failed", *["not found"] * 4, "about a", "401", "pending")
"""Words that more of the promises are about than of others."""

DELAYS = st.sampled_from([0.3, 0.0, 0.015, 3.0, 9.0, math.inf])
CLEAN_UPS = st.sampled_from([0.0, 0.0, 2.0])
SCRIPTS = st.lists(
    st.tuples(st.sampled_from([*WORDS, *OFTEN]), DELAYS, st.integers(1, 3)), min_size=1, max_size=4
)
POLICIES = st.builds(
    PollPolicy,
    interval=st.sampled_from([(20.0, 30.0), (20.0, 20.0), (15.0, 40.0), (0.0, 5.0)]),
    max_concurrency=st.sampled_from([100, 1, 2, 3]),
    max_rate=st.sampled_from([100.0, None, 0.1, 0.5, 4.0]),
    query_timeout=st.sampled_from([15.0, 4.0]),
    confirmations=st.sampled_from([2, 1, 3]),
    max_pending=st.sampled_from([1_000_000, 1, 3]),
)


class PollerMachine(RuleBasedStateMachine):
    """Drives a session over a scripted transport and keeps an own account of what is due."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualClockLoop()
        factory: Any = self._new_task  # its type is another in each version of typeshed
        self.loop.set_task_factory(factory)
        self.patch = pytest.MonkeyPatch()
        self.tasks: list[asyncio.Task[Any]] = []
        self.calls: list[Call] = []
        self.readers: list[Reader] = []
        self.wrongs: list[str] = []
        self.queries: list[Query] = []
        self.flying: dict[str, Query] = {}
        self.fresh: dict[str, tuple[Entry, float]] = {}
        self.last_end: dict[str, float] = {}
        self.last_word: dict[str, Word] = {}
        self.last_task: dict[str, Word] = {}
        self.entries: dict[str, Entry | None] = {}
        self.finals: dict[str, set[type[object]]] = {task_id: set() for task_id in IDS}
        self.endings: list[tuple[float, type[KlingOmniError]]] = []
        self.due: list[tuple[Call | Reader, str]] = []
        self.answers_at: dict[Start, float] = {}
        self.layouts: dict[Reader, dict[str, Claim]] = {}
        self.order = Order()
        self.gate = Gate()
        self.freezes = Freezes()
        self.settled = True
        self.closed = False

    # The plan.

    @initialize(
        policy=POLICIES,
        seed=st.integers(0, 3),
        scripts=st.fixed_dictionaries(dict.fromkeys(IDS, SCRIPTS)),
        slice_s=st.sampled_from([math.inf, -1.0]),
        shy=st.booleans(),
        finale=st.sampled_from(["drain", "close", "cancel a task"]),
        victim=PICK,
    )
    def set_up(
        self,
        policy: PollPolicy,
        seed: int,
        scripts: dict[str, list[Saying]],
        slice_s: float,
        *,
        shy: bool,
        finale: str,
        victim: int,
    ) -> None:
        # Slices are cut by real time, which would make one plan run in two ways: all or none.
        self.patch.setattr("kling_omni_async._engine.SLICE_S", slice_s)
        self.policy, self.shy, self.finale, self.victim = policy, shy, finale, victim
        self.setup = Setup(policy.interval[0])
        self.doubts = Doubts(policy)
        self.transport = ScriptedTransport(
            {task_id: spoken(sayings) for task_id, sayings in scripts.items()},
            query_timeout=policy.query_timeout,
            on_start=self._started,
            on_end=self._ended,
        )
        self.session = scripted_session(self.transport, policy, seed=seed)
        self.poller = poller_of(self.session)
        self.inside = self.poller._watchlist
        launch = self.inside.schedule.launch

        def note_launch(item: Entry, *rest: Any) -> None:
            self._decided(item.task_id)
            launch(item, *rest)

        self.patch.setattr(self.inside.schedule, "launch", note_launch)

    @rule(task_id=TASK_IDS, sayings=SCRIPTS)
    def script(self, task_id: str, sayings: list[Saying]) -> None:
        self.transport.scripts[task_id] = spoken(sayings)

    @rule(given=ANY_IDS, timeout=TIMEOUTS, passes=PASSES)
    def poll(self, given: list[Any], timeout: float | None, passes: int) -> None:
        reader = Reader("list", timeout, input_ended=True)
        reader.expected.update({GIVEN[each] for each in given})
        self._read(reader, given)
        self._run(passes)

    @rule(given=ANY_IDS, timeout=TIMEOUTS, fails=st.booleans(), passes=PASSES)
    def poll_an_iterable(
        self, given: list[Any], timeout: float | None, *, fails: bool, passes: int
    ) -> None:
        reader = Reader("iterable", timeout)
        reader.input_error = InputFailedError() if fails else None
        self._read(reader, self._iterable(reader, given))
        self._run(passes)

    @rule(given=ANY_IDS, timeout=TIMEOUTS, clean_up_s=CLEAN_UPS, passes=PASSES)
    def poll_a_feed(
        self, given: list[Any], timeout: float | None, clean_up_s: float, passes: int
    ) -> None:
        reader = Reader("feed", timeout, clean_up_s=clean_up_s)
        for each in given:
            reader.queue.put_nowait(each)
        self._read(reader, self._feed(reader))
        self._run(passes)

    @precondition(lambda self: self._feeds())
    @rule(pick=PICK, given=ANY_IDS, passes=PASSES)
    def feed(self, pick: int, given: list[Any], passes: int) -> None:
        for each in given:
            self._feeds()[pick % len(self._feeds())].queue.put_nowait(each)
        self._run(passes)

    @precondition(lambda self: self._feeds())
    @rule(pick=PICK, fails=st.booleans(), passes=PASSES)
    def end_a_feed(self, pick: int, *, fails: bool, passes: int) -> None:
        self._end_feed(self._feeds()[pick % len(self._feeds())], fails=fails)
        self._run(passes)

    @precondition(lambda self: self._held())
    @rule(pick=PICK, passes=PASSES)
    def leave(self, pick: int, passes: int) -> None:
        reader = self._held()[pick % len(self._held())]
        assert reader.stream is not None
        reader.is_left = True
        self.loop.run_until_complete(reader.stream.aclose())
        assert reader.open_inputs == 0, "a stream was left before its input was closed"
        self._run(passes)

    @precondition(lambda self: self._held())
    @rule(pick=PICK, passes=PASSES)
    def forget(self, pick: int, passes: int) -> None:
        reader = self._held()[pick % len(self._held())]
        if reader.task is not None:
            reader.task.cancel()
        reader.is_left, reader.stream, reader.task = True, None, None
        self._run(passes)

    @precondition(lambda self: self.readers)
    @rule(pick=PICK, passes=PASSES)
    def pause_or_go_on(self, pick: int, passes: int) -> None:
        unpaused = self.readers[pick % len(self.readers)].unpaused
        (unpaused.clear if unpaused.is_set() else unpaused.set)()
        self._run(passes)

    @precondition(lambda self: self._held())
    @rule(pick=PICK, passes=PASSES)
    def read_on_in_another_task(self, pick: int, passes: int) -> None:
        reader = self._held()[pick % len(self._held())]
        if reader.task is not None and not reader.task.done():
            reader.task.cancel()
            reader.task = self.loop.create_task(self._consume(reader))
        self._run(passes)

    @rule(
        verb=VERBS,
        task_id=TASK_IDS,
        timeout=TIMEOUTS,
        passes=PASSES,
    )
    def call(self, verb: str, task_id: str, timeout: float | None, passes: int) -> None:
        call = Call(verb, task_id, None if verb == "query" else timeout, self.loop.time())
        call.task = self.loop.create_task(self._wait(call))
        self.calls.append(call)
        self._run(passes)

    @precondition(lambda self: self.last_word)
    @rule(verb=VERBS, pick=PICK, timeout=TIMEOUTS, passes=PASSES)
    def come_back(self, verb: str, pick: int, timeout: float | None, passes: int) -> None:
        known = list(self.last_word)
        self.call(verb, known[pick % len(known)], timeout, passes)

    @precondition(lambda self: self.calls)
    @rule(pick=PICK, passes=PASSES)
    def cancel(self, pick: int, passes: int) -> None:
        task = self.calls[-1 - pick % len(self.calls)].task
        assert task is not None
        task.cancel()
        self._run(passes)

    @rule(span=st.sampled_from([0.1, 1.0, 5.0, 20.0, 30.0, 100.0, 700.0]))
    def let_time_pass(self, span: float) -> None:
        self._pass_time(span)
        self._run(AT_REST)

    @precondition(lambda self: self._next_timer() < NEVER)
    @rule(count=st.integers(1, 8), passes=PASSES)
    def go_to_a_later_event(self, count: int, passes: int) -> None:
        for _ in range(count):
            self._run(AT_REST)
            self._pass_time(max(0.0, self._next_timer() - self.loop.time()))
        self._run(passes)

    @precondition(lambda self: self.answers_at)
    @rule(passes=PASSES)
    def go_to_the_next_answer(self, passes: int) -> None:
        self._pass_time(max(0.0, min(self.answers_at.values()) - self.loop.time()))
        self._run(passes)

    @rule(span=st.sampled_from([2.0, 6.0, 30.0, 700.0]), passes=PASSES)
    def freeze(self, span: float, passes: int) -> None:
        """Let time pass in which the process does nothing: it was suspended, or the loop stood."""
        began = self.loop.time()
        self.loop.freeze(span)
        ended = self.loop.time()
        note(f"{began:10.3f} frozen until {ended}")
        for reader in self.readers:
            if reader.kind == "list" and not reader.state.intake.closed.is_set():
                reader.joined = dict.fromkeys(reader.joined, ended)
                self.layouts.pop(reader, None)
        due = frozenset(self._claims(began).all_due(ended))
        flying = {task_id: query.at for task_id, query in self.flying.items()}
        self.freezes.add(Freeze(began, ended, due, flying))
        self._run(passes)

    # How it is carried out.

    def _new_task(
        self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **more: Any
    ) -> asyncio.Task[Any]:
        task = asyncio.Task(work, loop=loop, **more)
        if task.get_name().startswith("kling_omni_async."):
            self.tasks.append(task)
        return task

    def _run(self, passes: int) -> None:
        self.settled = passes == AT_REST
        self.loop.run_until_complete(self._give_way(passes))

    async def _give_way(self, passes: int) -> None:
        loop: Any = self.loop
        for count in range(passes):
            timers = loop._scheduled
            is_due = timers and timers[0].when() <= loop.time() + PLACE_S
            if self.settled and not loop._ready and not is_due:
                return
            if count % 100 == 99:  # a timer rings up to a ns early, and finds nothing to do
                loop.freeze(PLACE_S)
            await asyncio.sleep(0)
        assert not self.settled, "the loop does not come to rest"

    def _pass_time(self, span: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(span if span < NEVER else 0.0))

    def _next_timer(self) -> float:
        timer = self.poller._timer
        return timer.when() if isinstance(timer, asyncio.TimerHandle) else NEVER

    def _feeds(self) -> list[Reader]:
        return [reader for reader in self.readers if reader.kind == "feed"]

    def _held(self) -> list[Reader]:
        return [reader for reader in self.readers if reader.stream is not None]

    def _read(self, reader: Reader, source: Any) -> None:
        reader.stream = self.session.poll(source, timeout=reader.timeout)
        reader.state = cast("StreamState", reader.stream._state)
        reader.unpaused.set()
        self.readers.append(reader)
        reader.task = self.loop.create_task(self._consume(reader))

    async def _consume(self, reader: Reader) -> None:
        if reader.stream is None:
            return
        stream = aiter(reader.stream)
        if not reader.begun:
            reader.begun = True
            self._lay_out(reader)
        try:
            async with asyncio.timeout(None):
                while True:
                    outcome = await anext(stream)
                    self._check_look(outcome, reader)
                    reader.got(outcome, self.loop.time())
                    await reader.unpaused.wait()
        except Exception as error:  # noqa: BLE001 - a defect is judged like all else
            reader.end = error

    def _iterable(self, reader: Reader, given: list[Any]) -> Iterator[str]:
        for each in given:
            if GIVEN[each] not in reader.expected:
                self._joins(reader, GIVEN[each])
            yield each
        reader.input_ended = True
        if reader.input_error is not None:
            raise reader.input_error

    async def _feed(self, reader: Reader) -> AsyncIterator[str]:
        reader.open_inputs += 1
        try:
            while (given := await reader.queue.get()) is not END:
                if GIVEN[given] not in reader.pending:
                    self._joins(reader, GIVEN[given])
                yield given
            reader.input_ended = True
            if reader.input_error is not None:
                raise reader.input_error
        except asyncio.CancelledError:
            reader.cancelled += 1
            raise
        finally:
            await self._clean_up(reader)

    async def _clean_up(self, reader: Reader) -> None:
        try:
            for _ in range(3):  # each await is where a task group would cancel again
                await asyncio.sleep(reader.clean_up_s)
        except asyncio.CancelledError:
            reader.cancelled += 1
            raise
        finally:
            reader.open_inputs -= 1

    def _end_feed(self, reader: Reader, *, fails: bool) -> None:
        if fails and reader.input_error is None:
            reader.input_error = InputFailedError()
        reader.queue.put_nowait(END)

    async def _wait(self, call: Call) -> None:
        call.begun = call.called = self.loop.time()
        if call.verb != "query":
            call.told = "maybe" if self._may_be_known(call.task_id) else ""
            if self._is_known(call.task_id) and not self.session.closed:
                self.due.append((call, call.task_id))
            self._comes(call.task_id, is_new=True)
        try:
            call.result = await self._result(call)
        except Exception as error:  # noqa: BLE001 - a defect is judged like all else
            call.result = error
        finally:
            call.ended = self.loop.time()
        if isinstance(call.result, PollTimeoutError):
            self._check_timeout(call.result, call)

    async def _result(self, call: Call) -> object:
        if call.verb == "query":
            return await self.session.query(call.task_id)
        if call.verb == "wait":
            return await self.session.wait(call.task_id, timeout=call.timeout)
        async with self.session.watch(call.task_id, timeout=call.timeout) as updates:
            seen = [update async for update in updates]
        words = [update.status for update in seen]
        self._expect(
            all(before != after for before, after in pairwise(words)),
            f"watch gives changes of status only, not {words}",
        )
        self._expect(seen[-1].is_terminal, "the last answer that watch gives is final")
        return seen[-1]

    # Who comes.

    def _joins(self, reader: Reader, task_id: str) -> None:
        """Note that an input gives an id."""
        reader.expected[task_id] += 1
        if not self._may_be_known(task_id):
            reader.joined[task_id] = self.loop.time()
        reader.first_query.pop(task_id, None)
        if task_id in self.flying:
            reader.first_query[task_id] = self.loop.time()
        if task_id in IDS:
            self._comes(task_id, is_new=reader.kind == "feed" and reader.is_open)

    def _may_be_known(self, task_id: str) -> bool:
        """Whether one who comes for an id may have its final word from memory."""
        return task_id in self.last_task and self.last_task[task_id].final is not None

    def _is_known(self, task_id: str) -> bool:
        """Whether one who comes for an id must have its final word from memory."""
        if self.loop.time() >= self.last_end.get(task_id, -NEVER) + self.policy.interval[0]:
            return False
        return self.last_task.get(task_id) in {WORDS["succeed"], WORDS["failed"]}

    def _comes(self, task_id: str, *, is_new: bool) -> None:
        """Note that somebody comes for an id."""
        for reader, layout in list(self.layouts.items()):
            if task_id in layout:
                del self.layouts[reader]
        if is_new and task_id not in self.inside._entries:
            self.loop.call_soon(self._note_newcomer, task_id, self.loop.time())

    def _note_newcomer(self, task_id: str, since: float) -> None:
        entry = self.inside._entries.get(task_id)
        if (
            entry is not None
            and task_id not in self.flying
            and self.last_end.get(task_id, -NEVER) < since
        ):
            self.fresh[task_id] = (entry, since)

    def _lay_out(self, reader: Reader) -> None:
        """Note when the first queries of a list are due."""
        if reader.kind != "list" or reader.state.is_left:
            return
        now = self.loop.time()
        ids = [task_id for task_id in self._order_of(reader) if task_id in IDS]
        reader.joined = {
            each: now for each in ids if each not in self.flying and not self._may_be_known(each)
        }
        alone = not any(self._somebody_waits(each, but=reader) for each in ids)
        for task_id in ids:
            self._comes(task_id, is_new=False)
        if alone and not any(task_id in self.inside._entries for task_id in ids):
            gap = 1.0 / (self.policy.max_rate or NEVER)
            self.layouts[reader] = {
                task_id: Claim(now + turn * gap, now + turn * gap)
                for turn, task_id in enumerate(ids)
                if turn  # the first is a newcomer
            }

    def _order_of(self, reader: Reader) -> list[str]:
        given = reader.state.intake._copy if reader.state.intake._copy is not None else []
        source: Any = reader.state.intake.source
        return list(dict.fromkeys(GIVEN[each] for each in (source or given)))

    def _somebody_waits(self, task_id: str, *, but: Reader | None = None) -> bool:
        return any(
            each.task_id == task_id and each.is_under_way and each.told != "final"
            for each in self.calls
        ) or any(each.waits_for(task_id) for each in self.readers if each is not but)

    # What the transport sees, and before it the schedule.

    def _expect(self, fact: object, text: str) -> None:
        """Note a broken promise; raising it here would only look like the poller's own defect."""
        if not fact:
            self.wrongs.append(f"at {self.loop.time()}: {text}")

    def _decided(self, task_id: str) -> None:
        """Judge the start of a query at the moment at which it is decided."""
        now = self.loop.time()
        self._read_gate()
        asked = [
            each
            for each in self.calls
            if each.verb == "query" and each.is_under_way and not each.told
        ]
        by_hand = [each for each in asked if each.task_id == task_id]
        query = Query(task_id, now, bool(by_hand))
        self._expect(task_id not in self.flying, f"{task_id} is asked twice at once")
        self._expect(self._somebody_waits(task_id), f"nobody waits for {task_id}")
        self._check_pace(now)
        if by_hand:
            if not any(each.surely_waits(now) for each in by_hand):
                self.order.unknown()
        else:
            self._check_scheduled(task_id, now, asked)
        self.queries.append(query)
        self.flying[task_id] = query
        self.fresh.pop(task_id, None)
        for layout in self.layouts.values():
            layout.pop(task_id, None)
        for reader in self.readers:
            if reader.kind == "list" and not reader.state.intake.closed.is_set():
                reader.joined.pop(task_id, None)  # it may have read the id, or have yet to do so
            elif reader.waits_for(task_id) and task_id in reader.joined:
                reader.first_query.setdefault(task_id, now)
            self._check_counts(reader)

    def _check_scheduled(self, task_id: str, now: float, asked: list[Call]) -> None:
        pause = now - self.last_end.get(task_id, -NEVER)
        self._expect(pause >= self.policy.interval[0] - PLACE_S, f"{task_id} paused only {pause} s")
        self._expect(
            self.gate.lets_through(now, self.flying.values()),
            f"{task_id} goes through a gate that a 429 has closed",
        )
        for each in asked:
            waits = each.surely_waits(now) and each.task_id not in self.flying
            self._expect(not waits, f"{task_id} goes before a query of {each.task_id} by hand")
        for layout in self.layouts.values():
            if (claim := layout.get(task_id)) is not None:
                self._expect(
                    now >= claim.since - PLACE_S, f"{task_id} of a list goes before its turn"
                )
        for wrong in self.order.start(task_id, self._claims(now), now):
            self._expect(False, wrong)  # noqa: FBT003 - the fact is a broken one

    def _check_pace(self, now: float) -> None:
        if self.policy.max_rate is not None and self.queries:
            gap = now - self.queries[-1].at
            self._expect(
                gap >= (1 - 1e-9) / self.policy.max_rate - PLACE_S, f"only {gap} s between starts"
            )

    def _claims(self, now: float) -> Claims:
        newcomers: dict[str, Claim] = {}
        returners: dict[str, Claim] = {}
        low, high = self.policy.interval
        for task_id in IDS:
            since = self._surely_waits_since(task_id, now)
            if since is None or task_id in self.flying:
                continue
            entry, came = self.fresh.get(task_id, (None, now))
            ended = self.last_end.get(task_id, -NEVER)
            if entry is not None and self.inside._entries.get(task_id) is entry:
                newcomers[task_id] = Claim(came, came)
            elif since < ended + low:
                returners[task_id] = Claim(ended + low, ended + high)
        for reader, layout in self.layouts.items():
            if reader.is_open and reader.state.intake.closed.is_set():
                returners |= {each: its for each, its in layout.items() if its.since <= now}
        return Claims(newcomers, returners)

    def _surely_waits_since(self, task_id: str, now: float) -> float | None:
        since = [
            each.called
            for each in self.calls
            if each.task_id == task_id and each.verb != "query" and each.surely_waits(now)
        ]
        since += [
            joined
            for each in self.readers
            if (joined := each.surely_waits_since(task_id, now)) is not None
        ]
        return min(since, default=None)

    def _started(self, start: Start, line: Line) -> None:
        note(f"{start.at:10.3f} query {start.task_id}: {name_of(line)} in {line.after} s")
        self.answers_at[start] = start.at + min(line.after, self.policy.query_timeout)
        self._expect(start.task_id in self.flying, f"nobody decided to ask {start.task_id}")

    def _ended(self, start: Start, line: Line) -> None:
        now, task_id = self.loop.time(), start.task_id
        note(f"{now:10.3f} answer {task_id}: {name_of(line)}")
        self._read_gate()
        query, word = self.flying.pop(task_id), self._meaning(line, task_id)
        del self.answers_at[start]
        query.ended = self.last_end[task_id] = now
        self.last_word[task_id] = word
        self.gate.hear(word, query, now)
        for call in self.calls:
            if call.verb == "query" and call.task_id == task_id and call.is_under_way:
                call.told = "final"
        if self.setup.is_wrong(word, query, now):
            assert word.fault_of_setup is not None
            self.endings.append((now, word.fault_of_setup))
            self._all_are_told()
        if (final := self._final(task_id, word, now)) is not None:
            self.finals[task_id].add(final)
            self._are_told(task_id)
        for reader in self.readers:
            self._check_counts(reader)

    def _meaning(self, line: Line, task_id: str) -> Word:
        word = line.word if isinstance(line, Spoken) else TIMED_OUT
        is_stray = word.names not in {None, task_id} and word.names in self.inside._entries
        return STRAY if is_stray else word

    def _final(self, task_id: str, word: Word, at: float) -> type[object] | None:
        entry = self.inside._entries.get(task_id)
        if entry is not self.entries.get(task_id):
            self.doubts.forget(task_id)  # the id had been forgotten
            self.last_task.pop(task_id, None)
        self.entries[task_id] = entry
        if not word.is_fault:
            self.last_task[task_id] = word
        return self.doubts.final(task_id, word, at)

    def _are_told(self, task_id: str) -> None:
        """Note that all who wait for an id must get its final word."""
        for call in self._waiting_calls():
            if call.task_id == task_id and call.told != "final":
                call.told = "final"
                self.due.append((call, task_id))
        for reader in self.readers:
            if reader.kind == "list" and not reader.state.intake.closed.is_set():
                reader.joined.pop(task_id, None)  # it may have read the id, or have yet to do so
            elif reader.waits_for(task_id):
                reader.told.add(task_id)
                self.due.append((reader, task_id))

    def _all_are_told(self) -> None:
        """Note that all who wait must get the end of all waiting."""
        for one in self._all_waiting():
            self.due.append((one, "all"))
            if isinstance(one, Call):
                one.told = "final" if one.told == "final" else "all"

    def _read_gate(self) -> None:
        wrong = self.gate.read(self.inside.schedule.throttle.until)
        self._expect(wrong is None, str(wrong))

    # Who waits, by the machine's own account.

    def _waiting_calls(self) -> list[Call]:
        return [each for each in self.calls if each.is_under_way and each.verb != "query"]

    def _all_waiting(self) -> list[Call | Reader]:
        return [*self._waiting_calls(), *(reader for reader in self.readers if reader.is_open)]

    # The promises.

    @invariant()
    def keeps_its_promises(self) -> None:
        if not hasattr(self, "session"):
            return
        for reader in self.readers:
            self._check_counts(reader)
            self._check_pending(reader)
        assert self.wrongs == [], self.wrongs
        if not self.settled:
            return
        self._read_gate()
        assert self.transport.most_in_flight <= self.policy.max_concurrency
        self._check_owed()
        for call in self.calls:
            self._check_call(call)
        for reader in self.readers:
            self._check_reader(reader)
        if not self.closed:
            self._check_idle_hands()
            self._check_inside()
        assert self.wrongs == [], self.wrongs

    def _check_owed(self) -> None:
        """Check that what ended came to all who waited for it, in no time."""
        for one, what in self.due:
            if isinstance(one, Call):
                assert one.ended is not None, f"{one} still waits"
            elif one.unpaused.is_set() and one.stream is not None:
                if what == "all":
                    assert one.end is not None, f"{one} was not told"
                elif not any(outcome.task_id == what for _, outcome in one.out):
                    assert one.end is not None, f"{what} did not come out of {one}"
        self.due.clear()

    def _check_call(self, call: Call) -> None:
        now = self.loop.time()
        latest = self.freezes.latest_end(call.deadline + GRACE_S) + SLACK_S
        if call.ended is None:
            assert now <= latest, f"{call} waits for too long"
            return
        assert call.ended <= latest, f"{call} waited for too long"
        if isinstance(call.result, Exception):
            assert isinstance(call.result, KlingOmniError)
            if call.verb != "query":
                self._check_error(call.result, call.task_id, call.ended, call.deadline)
        elif call.verb == "wait" and call.result is not None:
            assert isinstance(call.result, ImageTask)
            assert call.result.images
            assert ImageTask in self.finals[call.task_id], "nobody said that it succeeded"

    def _check_error(self, error: Exception, task_id: str, at: float, deadline: float) -> None:
        """Check that an error has its reason in what came over the wire."""
        if isinstance(error, PollTimeoutError):
            assert at >= deadline - SLACK_S, "timed out before its time"
        elif isinstance(error, SessionClosedError):
            assert self.closed
        elif not any(type(error) is kind and when <= at for when, kind in self.endings):
            assert type(error) in self.finals[task_id], f"no reason for {error!r}"

    # What is promised of time-outs; judged at the moment at which they are told.

    def _check_timeout(self, error: PollTimeoutError, call: Call) -> None:
        now, task_id = self.loop.time(), call.task_id
        under_way = [
            each.at
            for each in self.queries
            if each.task_id == task_id
            and each.at < now - SLACK_S
            and (each.ended is None or each.ended > now)
        ]
        self._expect(
            not under_way or now >= max(call.deadline, *under_way) + GRACE_S - SLACK_S, "no grace"
        )
        self._check_looked(task_id, call.deadline, now)
        self._check_last_error(error, call, now)

    def _check_look(self, outcome: TaskOutcome, reader: Reader) -> None:
        first = reader.first_query.pop(outcome.task_id, None)
        if isinstance(outcome.error, PollTimeoutError):
            assert reader.timeout is not None
            if first is not None:
                now = self.loop.time()
                self._check_looked(outcome.task_id, first + reader.timeout, now)

    def _check_looked(self, task_id: str, deadline: float, now: float) -> None:
        """Check that an id was looked at after a time in which nobody could ask."""
        thawed = self.freezes.owed_look(task_id, deadline)
        if thawed is None:
            return
        looked = any(
            each.task_id == task_id and each.ended is not None and each.ended >= thawed
            for each in self.queries
        )
        self._expect(
            looked or now >= thawed + GRACE_S - SLACK_S, f"{task_id} was not looked at after all"
        )

    def _check_last_error(self, error: PollTimeoutError, call: Call, now: float) -> None:
        """Check that a time-out says what the last query met, or what held the id back."""
        assert call.begun is not None
        task_id, last = call.task_id, error.last_error
        if task_id in self.flying or call.begun == now or self.freezes.has_just_ended(now):
            return
        ended = self.last_end.get(task_id)
        if ended is None:
            self._expect(last is not None, f"{task_id} was never asked, and nobody says why")
            if self.gate.closed and self.gate.since < now < self.gate.until:
                self._expect(isinstance(last, RateLimitError), f"a 429 held it back, not {last!r}")
            return
        low, high = self.policy.interval
        word = self.last_word[task_id]
        was_fine = not word.is_fault and word.final is None
        if was_fine and now < ended + low:
            self._expect(last is None, f"nothing held {task_id} back, least of all {last!r}")
        if now > ended + high and call.begun < ended + low:
            self._expect(last is not None, f"{task_id} was overdue, and nobody says why")

    # What is promised of streams.

    def _check_counts(self, reader: Reader) -> None:
        """Check the counts, which add up at every moment."""
        if reader.stream is None or (self.shy and not reader.state.is_left):
            progress = reader.state.progress
        else:
            progress = reader.stream.progress
        failed = sum(isinstance(each.error, TaskFailedError) for _, each in reader.out)
        succeeded = sum(each.ok for _, each in reader.out)
        counted = (progress.succeeded, progress.failed, progress.unresolved)
        self._expect(
            counted == (succeeded, failed, len(reader.out) - failed - succeeded),
            f"{len(reader.out)} outcomes were handed out, not {progress}",
        )
        self._expect(
            progress.total == progress.pending + sum(counted), f"{progress} does not add up"
        )

    def _check_pending(self, reader: Reader) -> None:
        """Check that each id was handed out as often as it was given, or is pending."""
        is_read = reader.state.intake.closed.is_set() or reader.state.is_left
        if reader.stream is None or (self.shy and reader.kind == "list" and not is_read):
            return
        pending = Counter(set(reader.stream.pending))
        if not reader.begun and not reader.state.is_left:
            return
        assert reader.counts + pending == reader.expected, "each id exactly once, or pending"
        assert len(reader.stream.pending) == reader.stream.progress.pending
        if reader.kind != "list":
            assert len(pending) <= self.policy.max_pending, "its input did not wait"

    def _check_reader(self, reader: Reader) -> None:
        assert reader.cancelled <= 1 + (self.closed and self.finale == "cancel a task")
        if type(reader.end) is StopAsyncIteration and not reader.is_left:
            assert reader.input_ended, f"{reader} ended before its input"
            assert not reader.pending, f"{reader} ended before its ids"
        if reader.state.is_left and reader.clean_up_s == 0.0:
            assert reader.open_inputs == 0, f"the input of {reader} was not closed"
        for at, outcome in reader.out:
            self._check_outcome(reader, at, outcome)
        if reader.is_open and reader.unpaused.is_set() and reader.timeout is not None:
            self._check_none_is_late(reader, reader.timeout)

    def _check_outcome(self, reader: Reader, at: float, outcome: TaskOutcome) -> None:
        if outcome.task_id not in IDS:
            assert isinstance(outcome.error, InvalidTaskIdError)
        elif outcome.error is None:
            assert outcome.images
            assert ImageTask in self.finals[outcome.task_id], "nobody said that it succeeded"
        else:
            self._check_error(outcome.error, outcome.task_id, at, reader.timeout or 0.0)
        if isinstance(outcome.error, PollTimeoutError):
            assert outcome.queries >= 1, "timed out without one completed query"
            assert reader.timeout is not None
            assert outcome.elapsed >= reader.timeout - SLACK_S

    def _check_none_is_late(self, reader: Reader, timeout: float) -> None:
        most = max(timeout + GRACE_S, self.policy.query_timeout)
        for task_id in reader.pending:
            first = reader.first_query.get(task_id, NEVER)
            latest = self.freezes.latest_end(first + most) + SLACK_S
            assert self.loop.time() <= latest, f"{task_id} is late"

    # What is promised of everything.

    def _check_idle_hands(self) -> None:
        """Check that nobody waits for his turn while nothing holds him back."""
        now = self.loop.time()
        gap = 1.0 / (self.policy.max_rate or NEVER)
        paced = bool(self.queries) and now < self.queries[-1].at + gap + PLACE_S
        if paced or len(self.flying) >= self.policy.max_concurrency or not self.transport.opened:
            return
        for call in self.calls:
            waits = call.verb == "query" and call.surely_waits(now)
            assert not waits or call.task_id in self.flying, f"{call} was not sent"
        if self.gate.lets_through(now - PLACE_S, self.flying.values()):
            assert self._claims(now).all_due(now - PLACE_S) == [], "not asked although due"

    def _check_inside(self) -> None:
        reading = sum(each.begun and not each.state.intake.closed.is_set() for each in self.readers)
        names = Counter(task.get_name() for task in asyncio.all_tasks(self.loop))
        assert names["kling_omni_async.feed"] == reading, "an input is read for nobody"
        assert names["kling_omni_async.sweep"] == 0
        inside, schedule = self.inside, self.inside.schedule
        entries = inside._entries.values()
        assert inside._watched == sum(each.is_watched for each in entries)
        assert schedule.in_flight == len(self.flying)
        for entry in entries:
            kept = entry.is_watched or entry.flight is not None
            assert kept or entry.when < NEVER, f"{entry} is kept for nothing"
        for entry in (*schedule._newcomers, *schedule._asked):
            assert entry.is_watched, f"{entry} is queued for nobody"
        for _, _, item in inside._alarms._rows:
            is_idle = isinstance(item, Waiter) and item.entry is None
            is_over = isinstance(item, StreamState) and item.is_left
            assert item.when == NEVER or not (is_idle or is_over), f"an alarm for nobody: {item}"
        _check_size(schedule._dues)
        _check_size(inside._alarms)
        if all(each.unpaused.is_set() for each in self.readers):
            ids = {each.task_id for each in self.calls if each.is_under_way}
            for reader in self.readers:
                ids |= reader.pending & set(IDS) if reader.is_open else set()
            assert inside._watched == len(ids)

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
        if self.finale == "drain":
            self._run(AT_REST)
            self.keeps_its_promises()
            self._drain()
        self._close()
        for call in self.calls:
            assert call.ended is not None, f"{call} waits for ever"
        for reader in self._held():
            assert reader.end is not None, f"{reader} waits for ever"
            if not reader.is_left:
                self._check_end_again(reader)
        self.keeps_its_promises()
        assert all(reader.open_inputs == 0 for reader in self.readers)
        assert asyncio.all_tasks(self.loop) == set()
        assert self.transport.opened == self.transport.closed

    def _check_end_again(self, reader: Reader) -> None:
        """Check that a stream that has ended ends in the same way at each further step."""
        assert reader.stream is not None
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
            if reader.kind == "feed":
                self._end_feed(reader, fails=False)
        self._pass_time(LONG_S)
        self._run(AT_REST)
        self.keeps_its_promises()
        assert all(call.ended is not None for call in self.calls)
        assert all(reader.end is not None for reader in self._held())
        assert self.inside._entries == {}
        assert self.inside.next_event() == NEVER

    def _close(self) -> None:
        waiting = [
            one
            for one in self._all_waiting()
            if not isinstance(one, Call) or one.told in {"", "maybe"}
        ]
        was_settled, self.closed = self.settled, True
        hit = self._cancel_a_task() if self.finale == "cancel a task" else None
        self.loop.run_until_complete(self.session.aclose())
        assert all(reader.open_inputs == 0 for reader in self.readers), "an input is still open"
        for reader in self.readers:
            reader.unpaused.set()
        self._run(AT_REST)
        assert self.session.closed
        assert (self.session.close_reason is not None) == (hit is not None)
        for one in waiting:
            result = one.result if isinstance(one, Call) else one.end
            if was_settled and (isinstance(one, Call) or one.stream is not None):
                assert isinstance(result, SessionClosedError), f"{one} was not told"
                assert result.__cause__ is self.session.close_reason

    def _cancel_a_task(self) -> asyncio.Task[Any] | None:
        """Cancel one of the library's tasks, as only an outsider would."""
        ours = [task for task in self.tasks if not task.done()]
        if not ours:
            return None
        task = ours[-1 - self.victim % len(ours)]
        note(f"cancelled: {task.get_name()}")
        task.cancel()
        self._run(AT_REST)
        return task

    def _drop_all(self) -> None:
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.settled = False
        self.loop.run_until_complete(self._give_way(40))


def _check_size(heap: TimerHeap[Any]) -> None:
    assert len(heap._rows) <= 2 * len(heap) + 65


PollerMachine.TestCase.settings = settings(
    max_examples=share_of(150),
    stateful_step_count=40,
    deadline=None,
    report_multiple_bugs=False,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],  # to explain takes minutes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestPoller = PollerMachine.TestCase
