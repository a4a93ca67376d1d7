"""Whatever comes in whatever order, saving keeps its promises: hypothesis looks for a plan."""

# A plan is judged by what comes out; that nothing is kept is only visible inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import gc
import inspect
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor
from random import Random
from typing import Any, Final, TypeVarTuple, Unpack, cast

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kling_omni_async import (
    AuthenticationError,
    DownloadError,
    ImageTask,
    KlingOmniSession,
    OutcomeStream,
    PollPolicy,
    SessionClosedError,
    TaskOutcome,
)
from kling_omni_async._api.answers import Answer, read_answer
from kling_omni_async._polling.stream import StreamState
from kling_omni_async._saving.saver import SaveJob, Saver
from kling_omni_async._saving.wing import SavingOutlet
from tests.plans import share_of
from tests.polling import scripted
from tests.polling.scripted import Line, ScriptedTransport, Start, scripted_session
from tests.virtual_clock import VirtualClockLoop

from .fakes import MOMENT_S, Defect, DefectError, FakeFetcher, FakeStore, url_of

Ts = TypeVarTuple("Ts")

IDS: Final = ("a", "b", "c", "d", "e", "f")
SPAN_S: Final = 3000.0
"""By then all retries, pauses and downloads of a plan have ended."""

QUIET_S: Final = 0.2
"""Longer than all that a store does in a thread, which no cancellation cuts short."""


class MomentsLoop(VirtualClockLoop):
    """A virtual clock where the work of a thread takes a moment, whoever waits for it or not."""

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], Any], *args: *Ts
    ) -> asyncio.Future[Any]:
        del executor
        future: asyncio.Future[Any] = self.create_future()
        took = 3 * MOMENT_S if getattr(func, "__name__", "") == "write" else MOMENT_S
        self.call_later(took, _work, future, func, args)
        return future


def _work(future: asyncio.Future[Any], func: Callable[..., Any], args: tuple[Any, ...]) -> None:
    try:
        result = func(*args)
    except Exception as error:  # noqa: BLE001 - it goes to who waits
        if not future.done():
            future.set_exception(error)
    else:
        if not future.done():
            future.set_result(result)


@attrs.define(eq=False)
class Read:
    """A stream, who reads it, and what came out."""

    stream: OutcomeStream | None
    state: StreamState
    store: FakeStore | None
    feed: asyncio.Queue[str | None] | None
    expected: Counter[str]
    out: list[TaskOutcome] = attrs.Factory(list)
    consumers: list[asyncio.Task[None]] = attrs.Factory(list)
    ends: list[BaseException] = attrs.Factory(list)
    begun: bool = False
    left: bool = False
    dropped: bool = False


@attrs.define(eq=False)
class Save:
    """A call of `save`."""

    task_id: str
    store: FakeStore
    task: asyncio.Task[object]
    cancelled: bool = False


def finished(task_id: str, images: int) -> Answer:
    """Answer with a task that has succeeded, its URLs telling whose they are."""
    pictures = [{"url": url_of(task_id, index)} for index in range(images)]
    data = {"task_status": "succeed", "task_result": {"images": pictures}}
    return scripted.answer(200, {"code": 0, "message": "SUCCEED", "data": data})


Step = tuple[str, int, int, float]
"""What is done, two numbers to choose by, and the time until the next step in s."""

VERBS: Final = (
    "poll", "poll", "poll", "feed", "more", "more", "end feed", "leave", "drop", "save", "save",
    "many saves", "cancel save", "cancel consumer", "consumer", "query", "wait", "fault", "fault",
    "slow", "store", "401", "200", "defect", "close", "outsider",
)  # fmt: skip
RARE: Final = {"defect", "close", "outsider"}
PAUSES: Final = st.sampled_from([0.0, 0.0, -1.0, -2.0, -3.0, 0.01, 0.02, 0.3, 0.5, 1.0, 6.0, 25.0])
STEPS: Final = st.lists(
    st.tuples(st.sampled_from(VERBS), st.integers(0, 63), st.integers(0, 63), PAUSES),
    min_size=2,
    max_size=30,
)


class World:
    """Carries a plan out and keeps an own account of what is owed."""

    def __init__(self, most: int, rng_seed: int) -> None:
        self.fetcher = FakeFetcher()
        self.transport = ScriptedTransport(on_end=self._answered)
        self.policy = PollPolicy(
            interval=(5.0, 6.0), max_rate=None, max_downloads=most, timeout=None
        )
        self.session: KlingOmniSession = scripted_session(
            self.transport, self.policy, seed=rng_seed
        )
        self.saver = Saver(self.fetcher, most=most, tries=5, rng=Random(rng_seed))
        self.session._wings.saving_wing()._saver = self.saver
        self.stores = [FakeStore(), FakeStore()]
        self.reads: list[Read] = []
        self.saves: list[Save] = []
        self.calls: list[asyncio.Task[object]] = []
        self.failed_at: dict[str, float] = {}
        self.outsider = False
        self.wrongs: list[str] = []
        for number, task_id in enumerate(IDS):
            last: Answer = finished(task_id, 1 + number % 3)
            if task_id == "f":
                last = scripted.FAILED
            before = [Line(scripted.PENDING, 0.3)] * (number % 3)
            self.transport.scripts[task_id] = deque([*before, Line(last, 0.2 * (number % 2))])
        self.good = dict(self.transport.scripts)

    def _answered(self, start: Start, line: Line) -> None:
        if line.answer is scripted.FAILED:
            self.failed_at[start.task_id] = scripted.now()

    # The steps.

    async def carry_out(self, plan: list[Step]) -> None:
        for verb, one, two, pause in plan:
            if verb in RARE and one % 3:
                continue
            getattr(self, f"_{verb.replace(' ', '_')}")(one, two)
            if pause <= 0:
                for _ in range(int(-pause)):
                    await asyncio.sleep(0)
            else:
                await asyncio.sleep(pause)
            self._check_counts()
        await self._finish()

    def _open(self, one: int, two: int, feed: asyncio.Queue[str | None] | None) -> None:
        if self.session.closed:
            return
        store = None if one % 4 == 0 else self.stores[one % 2]
        ids = [task_id for bit, task_id in enumerate(IDS) if two >> bit & 1]
        source: Any = ids if feed is None else self._source(len(self.reads), feed)
        if feed is not None:
            for task_id in ids:
                feed.put_nowait(task_id)
        stream = self.session.poll(source, save_to=cast("Any", store))
        expected = Counter(ids if feed is None else ())
        read = Read(stream, cast("StreamState", stream._state), store, feed, expected)
        self.reads.append(read)
        for _ in range(1 + one // 16 % 2):
            self._add_consumer(read, patient=bool(one // 8 % 2))

    def _poll(self, one: int, two: int) -> None:
        self._open(one, two, None)

    def _feed(self, one: int, two: int) -> None:
        self._open(one, two, asyncio.Queue())

    async def _source(self, number: int, feed: asyncio.Queue[str | None]) -> AsyncIterator[str]:
        read = self.reads[number]
        while (task_id := await feed.get()) is not None:
            if task_id not in read.state.ids:
                read.expected[task_id] += 1
            yield task_id

    def _more(self, one: int, two: int) -> None:
        if feeds := [read.feed for read in self.reads if read.feed is not None]:
            feeds[one % len(feeds)].put_nowait(IDS[two % len(IDS)])

    def _end_feed(self, one: int, _two: int) -> None:
        if feeds := [read.feed for read in self.reads if read.feed is not None]:
            feeds[one % len(feeds)].put_nowait(None)

    def _add_consumer(self, read: Read, *, patient: bool) -> None:
        assert read.stream is not None
        consume = self._consume(read, read.stream, patient=patient)
        read.consumers.append(asyncio.get_running_loop().create_task(consume))

    async def _consume(self, read: Read, stream: OutcomeStream, *, patient: bool) -> None:
        read.begun = True
        while True:
            limit = asyncio.timeout(None if patient else 0.5)  # as long as a download
            try:
                async with limit:
                    # Noted without a pause between: what was taken is never lost.
                    self._note(read, await anext(stream))
            except TimeoutError:
                if limit.expired():
                    continue
                raise
            except StopAsyncIteration as end:
                read.ends.append(end)
                return
            except asyncio.CancelledError:
                raise
            except BaseException as end:  # noqa: BLE001 - a defect is an end too
                read.ends.append(end)
                return

    def _note(self, read: Read, outcome: TaskOutcome) -> None:
        read.out.append(outcome)
        task_id = outcome.task_id
        if task_id == "f":
            late = scripted.now() - self.failed_at[task_id]
            began_late = outcome.elapsed == 0.0
            self._expect(late < 1e-6 or began_late or not read.begun, f"f came {late} s late")
        if task_id == "f" or read.store is None:
            self._expect(outcome.saved == (), "saved what was not to be")
            self._expect(outcome.ok == (task_id != "f"), f"not of saving: {outcome.error!r}")
            return
        self._expect(outcome.task is not None, "the task is lost")
        there = read.store.there
        self._expect(all(each.key in there for each in outcome.saved), "named but not stored")
        if outcome.error is None:
            self._expect(len(outcome.saved) == len(outcome.images), "out before its images")
        else:
            self._expect(isinstance(outcome.error, DownloadError), f"{outcome.error!r}")

    def _leave(self, one: int, _two: int) -> None:
        if streams := [read for read in self.reads if read.stream is not None]:
            read = streams[one % len(streams)]
            read.left = True
            assert read.stream is not None
            leaving = asyncio.ensure_future(read.stream.aclose())
            self.calls.append(leaving)  # it waits for an input to be closed, and for nothing else

    def _drop(self, one: int, _two: int) -> None:
        if streams := [read for read in self.reads if read.stream is not None and read.begun]:
            read = streams[one % len(streams)]
            for consumer in read.consumers:
                consumer.cancel()
            read.consumers.clear()
            read.stream, read.dropped = None, True

    def _consumer(self, one: int, two: int) -> None:
        if streams := [read for read in self.reads if read.stream is not None]:
            self._add_consumer(streams[one % len(streams)], patient=bool(two % 2))

    def _cancel_consumer(self, one: int, two: int) -> None:
        if streams := [read for read in self.reads if len(read.consumers) > 1]:
            read = streams[one % len(streams)]
            read.consumers.pop(two % len(read.consumers)).cancel()

    def _save(self, one: int, two: int) -> None:
        if self.session.closed:
            return
        task_id, store = IDS[one % (len(IDS) - 1)], self.stores[two % 2]
        task = self._task_of(task_id)
        call = self.session.save(task, cast("Any", store), overwrite=two % 3 == 0)
        self.saves.append(Save(task_id, store, asyncio.ensure_future(call)))

    def _many_saves(self, one: int, two: int) -> None:
        for _ in range(12):
            self._save(one, two - two % 3 + 1)

    def _task_of(self, task_id: str) -> ImageTask:
        reply = scripted_reply(finished(task_id, 1 + IDS.index(task_id) % 3), task_id)
        assert isinstance(reply, ImageTask)
        return reply

    def _cancel_save(self, one: int, _two: int) -> None:
        if saves := [save for save in self.saves if not save.task.done()]:
            save = saves[one % len(saves)]
            save.cancelled = True
            save.task.cancel()

    def _query(self, one: int, _two: int) -> None:
        if not self.session.closed:
            call = self.session.query(IDS[one % len(IDS)])
            self.calls.append(asyncio.ensure_future(call))

    def _wait(self, one: int, _two: int) -> None:
        if not self.session.closed:
            call = self.session.wait(IDS[one % len(IDS)])
            self.calls.append(asyncio.ensure_future(call))

    def _fault(self, one: int, two: int) -> None:
        kind = ("resets", "no image", "slow disk", "good")[one % 4]
        self.fetcher.says.extend([(kind, (0.0, 0.5, 0.5, 7.0)[two % 4])] * (1 + two // 16))

    def _slow(self, one: int, _two: int) -> None:
        self.fetcher.says.extend([("good", (40.0, 120.0)[one % 2])] * (1 + one // 16))

    def _defect(self, one: int, two: int) -> None:
        kind = ("defect", "base defect")[one % 2]
        self.fetcher.says.append((kind, (0.0, 2.0)[two % 2]))

    def _store(self, one: int, two: int) -> None:
        self.stores[one % 2].fails = two % 2 == 0

    def _401(self, _one: int, _two: int) -> None:
        self.transport.scripts = {}
        self.transport.default = Line(scripted.UNAUTHORIZED, 0.1)

    def _200(self, _one: int, _two: int) -> None:
        self.transport.scripts = dict(self.good)

    def _close(self, _one: int, _two: int) -> None:
        self.calls.append(asyncio.ensure_future(self._close_soon()))

    async def _close_soon(self) -> None:
        began = scripted.now()
        await self.session.aclose()
        took = scripted.now() - began
        self._expect(took <= 8.5 * MOMENT_S, f"closing took {took} s")

    def _outsider(self, one: int, _two: int) -> None:
        # anyio warns of a task that is cancelled before its first step
        workers = [
            each
            for each in asyncio.all_tasks()
            if each.get_name().endswith(".save")
            and inspect.getcoroutinestate(cast("Any", each.get_coro())) != inspect.CORO_CREATED
        ]
        if workers:
            self.outsider = True
            workers[one % len(workers)].cancel()

    # The promises.

    def _expect(self, fact: object, text: str) -> None:
        if not fact:
            self.wrongs.append(f"at {scripted.now()}: {text}")

    def _check_counts(self) -> None:
        assert self.wrongs == []
        assert self.fetcher.peak <= self.policy.max_downloads
        for read in self.reads:
            counts = Counter(outcome.task_id for outcome in read.out)
            pending = Counter(read.state.ids.keys())
            if read.begun and (read.feed is not None or read.state.progress.total):
                if not read.state.is_left:
                    assert counts + pending == read.expected, (counts, pending, read.expected)
                assert all(
                    counts[each] + pending[each] <= read.expected[each] for each in counts
                ), "handed out twice"
            progress = read.state.progress
            assert progress.pending == len(read.state.ids)
            assert progress.total == progress.pending + len(read.out)

    def _wanted(self) -> set[str]:
        """Give the ids whose images somebody wants."""
        wanted = {save.task_id for save in self.saves if not save.task.done()}
        for read in self.reads:
            if read.store is not None and not read.left and not read.dropped:
                wanted |= set(read.state.ids)
        return wanted

    async def _finish(self) -> None:
        await self._check_nothing_is_fetched_in_vain()
        self.transport.scripts = dict(self.good)
        for read in self.reads:
            if read.feed is not None:
                read.feed.put_nowait(None)
            if read.stream is not None and not read.consumers:
                self._add_consumer(read, patient=True)
        await asyncio.sleep(SPAN_S)
        self._check_counts()
        self._check_all_were_told()
        self._check_nothing_is_kept()
        for read in self.reads:
            await self._check_end(read)
        await self.session.aclose()
        await asyncio.sleep(QUIET_S)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert others == set(), others
        assert all(store.parts == set() for store in self.stores)
        assert self.transport.opened == self.transport.closed
        assert self.fetcher.closed == self.transport.closed

    async def _check_nothing_is_fetched_in_vain(self) -> None:
        await asyncio.sleep(QUIET_S)  # until consumers that were cancelled have gone
        gc.collect()
        await asyncio.sleep(QUIET_S)
        for timer in loop_timers():
            for job in cast("tuple[Any, ...]", cast("Any", timer)._args or ()):
                if isinstance(job, SaveJob):
                    assert not job.order.cancelled, f"{timer} rings for nobody"
        wanted = self._wanted()
        for url in self.fetcher.running:
            assert url.split("/")[3] in wanted, f"{url} is fetched for nobody"

    def _check_all_were_told(self) -> None:
        for call in self.calls:
            assert call.done(), f"{call} waits for ever"
            if not call.cancelled():
                call.exception()
        for save in self.saves:
            assert save.task.done(), f"{save} waits for ever"
            if not save.task.cancelled():
                self._check_ending(save.task.exception(), of_saving=True)
            else:
                assert save.cancelled, "cancelled by nobody"
        for read in self.reads:
            for consumer in read.consumers:
                assert consumer.done(), f"a consumer of {read} waits for ever"
                assert not consumer.cancelled(), "a consumer was cancelled by nobody"
                assert consumer.exception() is None
            for end in read.ends:
                if not isinstance(end, StopAsyncIteration):
                    self._check_ending(end, of_saving=False)
                elif not read.left:
                    assert not read.state.ids, "it ended too early"
                    assert set(Counter(o.task_id for o in read.out)) == set(read.expected)

    def _check_ending(self, error: BaseException | None, *, of_saving: bool) -> None:
        """Check that an error has its reason."""
        if isinstance(error, SessionClosedError):
            assert self.session.closed
        elif error is None or (of_saving and isinstance(error, DownloadError)):
            return
        elif not isinstance(error, AuthenticationError):
            inner = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error
            assert isinstance(inner, (DefectError, Defect)), f"{error!r}"

    def _check_nothing_is_kept(self) -> None:
        saver = self.saver
        assert self.fetcher.running == []
        assert saver._orders == set()
        if not self.session.closed:
            assert len(saver._queue) == 0
            assert saver._workers == 0
            for read in self.reads:
                outlet = read.state.outlet
                assert not isinstance(outlet, SavingOutlet) or not outlet._orders
        timers = [each for each in loop_timers() if "_again" in repr(each)]
        assert timers == []

    async def _check_end(self, read: Read) -> None:
        """Check that a stream that has ended ends in the same way at each further step."""
        if read.stream is None or read.left or not read.ends:
            return
        for _ in range(2):
            with pytest.raises(type(read.ends[-1])):
                await anext(read.stream)


def loop_timers() -> list[asyncio.TimerHandle]:
    """Give the timers of the running loop that will ring."""
    timers = cast("list[asyncio.TimerHandle]", cast("Any", asyncio.get_running_loop())._scheduled)
    return [each for each in timers if not each.cancelled()]


def scripted_reply(answer: Answer, task_id: str) -> object:
    """Read an answer as the poller does."""
    return read_answer(answer, task_id, wall_s=0.0)


@pytest.fixture
def in_memory() -> Iterator[None]:
    """Let sessions take stores of the test's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kling_omni_async._saving.stores.Stores.open", lambda _, store: store)
        yield


def run(plan: list[Step], most: int, seed: int, *, debug: bool = False) -> None:
    """Carry a plan out on a loop of its own."""
    loop = MomentsLoop(stall_s=0.5)
    loop.set_debug(debug)
    faults: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: faults.append(context))
    try:
        loop.run_until_complete(World(most, seed).carry_out(plan))
        gc.collect()
        loop.run_until_complete(asyncio.sleep(0))
        assert faults == [], str(faults)
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        for _ in range(100):
            loop.run_until_complete(asyncio.sleep(0))
        loop.close()


@settings(
    max_examples=share_of(30),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(plan=STEPS, most=st.sampled_from([1, 2, 3, 8]), seed=st.integers(0, 3))
@pytest.mark.usefixtures("in_memory")
def test_saving_keeps_its_promises(plan: list[Step], most: int, seed: int) -> None:
    """Each id comes out once or is pending, images first; everybody is told; nothing is kept."""
    run(plan, most, seed)
