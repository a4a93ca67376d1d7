"""The outlet of a stream that saves, alone: what comes out, in which order, and its ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import cast

import attrs
import pytest

from kling_omni_async import (
    AuthenticationError,
    DownloadError,
    ImageTask,
    SessionClosedError,
    StorageError,
    TaskFailedError,
    TaskImage,
    TaskOutcome,
    TaskStatus,
)
from kling_omni_async._results import End
from kling_omni_async._saving.saver import Saver
from kling_omni_async._saving.stores import SavePlan, Store
from kling_omni_async._saving.wing import SavingOutlet
from tests.support import now, now_waiting

from .fakes import FakeFetcher, FakeStore, is_no_image, url_of

pytestmark = pytest.mark.anyio


def success(task_id: str = "a", *, images: int = 1, elapsed: float = 0.0) -> TaskOutcome:
    """Give the outcome of a task that has succeeded."""
    pictures = tuple(TaskImage(url=url_of(task_id, index), index=index) for index in range(images))
    task = ImageTask(task_id=task_id, status=TaskStatus.SUCCEED, images=pictures)
    return TaskOutcome(task_id=task_id, task=task, queries=3, elapsed=elapsed)


def failure(task_id: str = "x") -> TaskOutcome:
    """Give the outcome of a task that has failed."""
    return TaskOutcome(task_id=task_id, error=TaskFailedError("too dark", task_id=task_id))


class Bench:
    """A saver at work, and an outlet before it.

    Attributes:
        fetcher: What the saver fetches with.
        store: Where it puts images.
        saver: What saves.
        outlet: What is tested.
        tries: How often the store was tried.
    """

    def __init__(self, *, most: int = 8, watermarked: bool = False) -> None:
        self.tries = 0
        self.fetcher = FakeFetcher()
        self.store = FakeStore()
        self.saver = Saver(self.fetcher, most=most, tries=5, rng=Random(1))
        self.outlet = self.another(watermarked=watermarked)
        self._workers: set[asyncio.Task[None]] = set()

    def another(self, *, watermarked: bool = False) -> SavingOutlet:
        """Give one more outlet before the same saver."""
        plan = SavePlan(cast("Store", self.store), watermarked=watermarked)
        return SavingOutlet(self.saver, plan, try_out=self.try_out)

    async def try_out(self) -> None:
        self.tries += 1

    def start_worker(self) -> None:
        worker = asyncio.create_task(self.saver.work())
        self._workers.add(worker)
        worker.add_done_callback(self._workers.discard)

    async def aclose(self) -> None:
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        await self.saver.aclose()
        assert self.store.parts == set()

    async def take(self) -> str:
        """Take an outcome; gives its id and when it came."""
        outcome = await self.outlet.take()
        return f"{outcome.task_id} at {now():g}"


@asynccontextmanager
async def bench(*, most: int = 8, watermarked: bool = False) -> AsyncGenerator[Bench]:
    """Give an outlet whose saver is at work, and prove on leaving that nothing is left of it."""
    made = Bench(most=most, watermarked=watermarked)
    made.saver.open(made.start_worker)
    yield made
    await made.aclose()


@pytest.fixture(autouse=True)
def ended(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Give what the log says of ends."""
    caplog.set_level(logging.INFO, "kling_omni_async.poller")
    return lambda: [
        record.getMessage() for record in caplog.records if record.name == "kling_omni_async.poller"
    ]


async def test_an_outcome_comes_behind_its_images(ended: Callable[[], list[str]]) -> None:
    """It has a record for each image, the time of saving counts, and no second end is logged."""
    async with bench() as it:
        it.outlet.put(given := success(images=2, elapsed=7.0))
        outcome = await it.outlet.take()
        assert now() == pytest.approx(0.5)
        assert [image.key for image in outcome.saved] == ["a-0", "a-1"]
        assert set(it.store.there) == {"a-0", "a-1"}
        assert outcome.elapsed == pytest.approx(7.5)
        assert attrs.evolve(outcome, saved=(), elapsed=7.0) == given
    assert ended() == []


async def test_what_is_ready_comes_first() -> None:
    """Outcomes come as they are ready: one without images at once, a slow one last."""
    async with bench() as it:
        it.fetcher.says.extend([("good", 9.0), ("good", 2.0)])
        for outcome in (success("slow"), success("quick"), failure()):
            it.outlet.put(outcome)
        assert [await it.take() for _ in range(3)] == ["x at 0", "quick at 2", "slow at 9"]


async def test_what_is_not_saved_is_told(ended: Callable[[], list[str]]) -> None:
    """The task, what was stored and the error come out, and the log says how it ended."""
    async with bench() as it:
        it.fetcher.says.extend([("good", 0.5), ("no image", 0.5)])
        it.outlet.put(given := success(images=2))
        outcome = await it.outlet.take()
        assert isinstance(outcome.error, DownloadError)
        assert outcome.error.reason == is_no_image().reason
        assert outcome.error.task_id == "a"
        assert outcome.task is given.task
        assert [image.key for image in outcome.saved] == ["a-0"]
    assert ended() == ["task 'a': DownloadError: no image after 3 queries"]


async def test_nothing_to_fetch() -> None:
    """An outcome whose images cannot even be asked for comes at once, and the end behind it."""
    async with bench(watermarked=True) as it:
        it.outlet.put(success())
        it.outlet.end(End())
        outcome = await it.outlet.take()
        assert isinstance(outcome.error, DownloadError)
        assert outcome.error.reason == "no-watermark"
        with pytest.raises(StopAsyncIteration):
            await it.outlet.take()
        assert now() == 0


async def test_a_store_that_takes_nothing() -> None:
    """Its error is that of the outcome, and the stream goes on."""
    async with bench() as it:
        it.store.fails = True
        it.outlet.put(success())
        assert isinstance((await it.outlet.take()).error, StorageError)
        it.store.fails = False
        it.outlet.put(success("b"))
        assert (await it.outlet.take()).ok


# The end.


@pytest.mark.parametrize("reason", [None, AuthenticationError("no"), LookupError("the cursor")])
async def test_the_end_waits_for_images(reason: Exception | None) -> None:
    """What was put comes out with its images, then the end, at this step and at each further."""
    async with bench(most=1) as it:
        for task_id in ("a", "b"):
            it.outlet.put(success(task_id))
        it.outlet.end(End(reason))
        assert [await it.take() for _ in range(2)] == ["a at 0.5", "b at 1"]
        for _ in range(3):
            with pytest.raises(type(reason) if reason else StopAsyncIteration):
                await it.outlet.take()
        assert now() == pytest.approx(1.0)


async def test_the_first_end_counts() -> None:
    """An end behind the end changes nothing, and nothing is taken in behind it."""
    async with bench() as it:
        it.outlet.put(success())
        it.outlet.end(End(AuthenticationError("first")))
        it.outlet.end(End(LookupError("second")))
        it.outlet.put(success("late"))
        it.outlet.put(failure())
        assert await it.take() == "a at 0.5"
        with pytest.raises(AuthenticationError, match="first"):
            await it.outlet.take()
    assert set(it.store.there) == {"a-0"}


async def test_an_end_without_images_comes_at_once() -> None:
    """Where nothing is being saved, one who waits is told in the same moment."""
    async with bench() as it:
        waiting = asyncio.create_task(it.outlet.take())
        await now_waiting()
        it.outlet.end(End(LookupError("the cursor")))
        with pytest.raises(LookupError):
            await waiting
        assert now() == 0


async def test_every_consumer_is_told() -> None:
    """Of several consumers each outcome goes to one, and the end to all."""
    async with bench() as it:
        waiting = [asyncio.create_task(it.outlet.take()) for _ in range(3)]
        it.outlet.put(success())
        it.outlet.end(End(LookupError("the cursor")))
        results = await asyncio.gather(*waiting, return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == [
        "LookupError",
        "LookupError",
        "TaskOutcome",
    ]


# The cut.


async def test_a_cut_lets_nothing_more_out() -> None:
    """What nobody has taken and what is being saved does not come; nothing more is fetched."""
    async with bench(most=2) as it:
        it.outlet.put(failure())
        for task_id in ("a", "b", "c"):
            it.outlet.put(success(task_id))
        await asyncio.sleep(0.2)
        assert len(it.fetcher.running) == 2
        it.outlet.cut(End(LookupError("left")))
        it.outlet.put(success("late"))
        for _ in range(2):
            with pytest.raises(LookupError):
                await it.outlet.take()
        await asyncio.sleep(100.0)
        assert it.fetcher.running == []
        assert it.store.there == {}
        assert repr(it.saver) == "<Saver orders=0 workers=0>"
        with pytest.raises(LookupError):
            await it.outlet.take()


async def test_a_cut_stops_retries() -> None:
    """An image that pauses between two tries is not tried again."""
    async with bench() as it:
        it.fetcher.says.append(("resets", 0.0))
        it.outlet.put(success())
        await asyncio.sleep(0.5)
        it.outlet.cut(End())
        await asyncio.sleep(100.0)
        assert it.store.there == {}
        with pytest.raises(StopAsyncIteration):
            await it.outlet.take()


async def test_the_first_cut_wins() -> None:
    """Neither a further cut nor an end behind it changes what consumers are told."""
    async with bench() as it:
        it.outlet.put(success())
        it.outlet.cut(End(LookupError("first")))
        it.outlet.cut(End(AuthenticationError("second")))
        it.outlet.end(End())
        await asyncio.sleep(1.0)
        with pytest.raises(LookupError, match="first"):
            await it.outlet.take()


async def test_a_cut_tells_the_end_that_was_there() -> None:
    """A stream that ends behind its images, and is cut before they are there, tells that end."""
    async with bench() as it:
        it.outlet.put(success())
        it.outlet.end(End(AuthenticationError("refused")))
        waiting = asyncio.create_task(it.outlet.take())
        await now_waiting()
        it.outlet.cut(End(SessionClosedError("closed")))
        with pytest.raises(AuthenticationError, match="refused"):
            await waiting
        assert now() == 0


async def test_a_cut_of_an_outlet_leaves_others() -> None:
    """Outlets share a saver: what another stream saves goes on."""
    async with bench(most=1) as it:
        other = it.another()
        it.outlet.put(success("a"))
        other.put(success("b"))
        it.outlet.put(success("c"))
        await asyncio.sleep(0.2)
        it.outlet.cut(End())
        assert (await other.take()).ok
        assert set(it.store.there) == {"b-0"}


# The end of the saver.


async def test_a_saver_that_is_shut_cuts() -> None:
    """Its defect reaches who waits, as a copy, and every outlet that puts something later."""
    defect = LookupError("a bug")
    async with bench() as it:
        idle, late = (it.another() for _ in range(2))
        for task_id in ("a", "b"):
            it.outlet.put(success(task_id))
        waiting = asyncio.create_task(it.outlet.take())
        await now_waiting()
        list(it.saver.tell_end(defect))
        late.put(success("c"))
        for step in (waiting, it.outlet.take(), late.take()):
            with pytest.raises(LookupError, match="a bug") as caught:
                await step
            assert caught.value is not defect
        idle.put(failure())  # what needs no saving comes out all the same
        assert (await idle.take()).error
    assert it.store.there == {}


# Cancelled consumers.


@pytest.mark.parametrize("cancel_first", [True, False])
@pytest.mark.parametrize("saving", [True, False])
async def test_a_cancelled_consumer_loses_nothing(*, cancel_first: bool, saving: bool) -> None:
    """One who is cancelled in the very pass of the delivery leaves it to the next, or takes it."""
    async with bench() as it:
        waiting = asyncio.create_task(it.outlet.take())
        await now_waiting()
        given = success() if saving else failure("a")
        if saving:
            it.fetcher.says.append(("good", 0.0))
        if cancel_first:
            waiting.cancel()
            it.outlet.put(given)
        else:
            it.outlet.put(given)
            waiting.cancel()
        await asyncio.wait([waiting])
        outcome = await it.outlet.take() if waiting.cancelled() else waiting.result()
        assert outcome.task_id == "a"
        it.outlet.end(End())
        with pytest.raises(StopAsyncIteration):
            await it.outlet.take()


async def test_a_time_out_in_the_pass_of_the_delivery_loses_nothing() -> None:
    """A consumer's time limit that rings when the images are there loses no outcome."""
    async with bench() as it:
        it.fetcher.says.append(("good", 1.0))
        it.outlet.put(success())
        limit = asyncio.timeout(1.0)
        try:
            async with limit:
                outcome = await it.outlet.take()
        except TimeoutError:
            outcome = await it.outlet.take()
        assert limit.expired()
        assert outcome.ok
        assert now() == 1.0


async def test_its_state_in_one_line() -> None:
    """The repr tells whether it is open and what can be taken."""
    async with bench() as it:
        it.outlet.put(failure())
        assert repr(it.outlet) == "<SavingOutlet open, 1 to take>"


async def test_the_store_is_tried_before_all() -> None:
    """To prepare is to try the store; it may be done again."""
    async with bench() as it:
        await it.outlet.prepare()
        await it.outlet.prepare()
        assert it.tries == 2
