"""What is to be saved and how far it is; and the workers, their queue and their tries."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any, cast

import anyio
import attrs
import pytest

from kling_omni_async import (
    DownloadError,
    ImageTask,
    KlingOmniError,
    SavedImage,
    SessionClosedError,
    StorageError,
    TaskImage,
    TaskStatus,
)
from kling_omni_async._saving.files import LocalStore
from kling_omni_async._saving.saver import JobQueue, SaveJob, SaveOrder, Saver
from kling_omni_async._saving.stores import SavePlan, Store
from tests.support import now, now_waiting

from .fakes import FakeFetcher, FakeStore, url_of

ROOT = Path(__file__).parents[2]
TASK_ID = "878106242831892487"


def task_of(*images: TaskImage) -> ImageTask:
    """Give a task that has succeeded."""
    return ImageTask(task_id=TASK_ID, status=TaskStatus.SUCCEED, images=images)


IMAGES = (
    TaskImage(url="https://host/a?sig=1", index=3, watermark_url="https://host/m?sig=2"),
    TaskImage(url="https://host/b?sig=3", index=1),
)


def order_for(tmp_path: Path, *, watermarked: bool = False) -> SaveOrder:
    """Give the order to save two images."""
    plan = SavePlan(LocalStore(tmp_path), watermarked=watermarked)
    return SaveOrder(task_of(*IMAGES), plan, done=lambda _: None, abort=lambda _: None)


def test_an_order_has_a_job_for_each_image(tmp_path: Path) -> None:
    """Each image has its URL byte for byte, the name that its index gives, and no result yet."""
    order = order_for(tmp_path)
    assert [(job.url, job.stem) for job in order.jobs] == [
        ("https://host/a?sig=1", f"{TASK_ID}-3"),
        ("https://host/b?sig=3", f"{TASK_ID}-1"),
    ]
    assert not order.conclude()
    assert order.saved == ()
    assert order.error is None
    assert repr(order) == "<SaveOrder 0 of 2 images>"


def test_a_watermarked_copy_may_be_missing(tmp_path: Path) -> None:
    """Copies have names of their own; an image that has none is given up before any fetch."""
    first, second = (order := order_for(tmp_path, watermarked=True)).jobs
    assert (first.url, first.stem) == ("https://host/m?sig=2", f"{TASK_ID}-3-watermarked")
    assert first.result is None
    assert isinstance(second.result, DownloadError)
    assert second.result.reason == "no-watermark"
    assert second.result.task_id == TASK_ID
    assert "image 1" in str(second.result)
    assert not order.conclude()
    first.result = SavedImage(key="key", url="u", size=7, sha256="digest", content_type="image/png")
    assert order.conclude()
    assert order.error is second.result


def test_an_order_tells_what_became_of_it(tmp_path: Path) -> None:
    """What is saved keeps the images' order, the first error counts, and it ends with the last."""
    order = order_for(tmp_path)
    first, second = order.jobs
    saved = SavedImage(key="key", url="u", size=7, sha256="digest", content_type="image/png")
    second.result = saved
    assert not order.conclude()
    assert not order.saved
    first.result = first.failed(StorageError("full"))
    assert order.conclude()
    assert order.saved == (saved,)
    assert order.error is first.result
    assert repr(order) == "<SaveOrder 1 of 2 images>"


@pytest.mark.parametrize("error", [DownloadError("x"), StorageError("x"), SessionClosedError("x")])
def test_an_error_says_what_it_is_about(tmp_path: Path, error: KlingOmniError) -> None:
    """Every error gets the id of its task, and that of a download the image's redact_url URL."""
    job = order_for(tmp_path).jobs[0]
    assert job.failed(error) is error
    assert error.task_id == TASK_ID
    if isinstance(error, DownloadError):
        assert error.url == "https://host/a"
    else:
        assert not hasattr(error, "url")


@pytest.mark.anyio
async def test_cancelling_stops_all_of_it(tmp_path: Path) -> None:
    """A job under way is cancelled, one that pauses is not tried again, one that waits is left."""
    order = order_for(tmp_path)
    first, second = order.jobs
    first.scope = anyio.CancelScope()
    second.retry = asyncio.get_running_loop().call_later(1, pytest.fail, "tried again")
    order.cancel()
    assert order.cancelled
    assert first.scope.cancel_called
    assert second.retry.cancelled()


# The queue.


def jobs_of(tmp_path: Path, count: int) -> list[SaveJob]:
    """Give the jobs of many orders."""
    return [order_for(tmp_path).jobs[0] for _ in range(count)]


def test_the_queue_has_two_lines(tmp_path: Path) -> None:
    """What somebody awaits goes ahead of all streams; within a line it is first in, first out."""
    one, two, three, four = jobs_of(tmp_path, 4)
    queue = JobQueue()
    assert queue.pop() is None
    queue.add([one, two], first=False)
    queue.add([three], first=True)
    queue.add([four], first=True)
    assert len(queue) == 4
    assert [queue.pop() for _ in range(5)] == [three, four, one, two, None]
    assert len(queue) == 0


def test_who_leaves_the_queue(tmp_path: Path) -> None:
    """A job may leave either line, or be in none."""
    one, two, three = jobs_of(tmp_path, 3)
    queue = JobQueue()
    queue.add([one], first=True)
    queue.add([two], first=False)
    queue.discard([one, two, three])
    queue.add([three], first=False)
    assert [queue.pop(), queue.pop()] == [three, None]


# The saver.


class Bench:
    """A saver with a store and a fetcher in memory.

    Attributes:
        exhausted: When it was said that descriptors had run out.
    """

    def __init__(self, *, most: int = 8) -> None:
        self.exhausted: list[float] = []
        self.fetcher = FakeFetcher()
        self.store = FakeStore()
        self.saver = Saver(
            self.fetcher,
            most=most,
            rng=Random(1),
            tries=5,
            on_exhausted=lambda: self.exhausted.append(now()),
        )
        self._workers: set[asyncio.Task[None]] = set()

    def start_worker(self) -> None:
        worker = asyncio.create_task(self.saver.work())
        self._workers.add(worker)
        worker.add_done_callback(self._workers.discard)

    async def save(self, task_id: str = "a", *, images: int = 1) -> tuple[SavedImage, ...]:
        pictures = [TaskImage(url=url_of(task_id, index), index=index) for index in range(images)]
        task = attrs.evolve(task_of(*pictures), task_id=task_id)
        return await self.saver.save(task, SavePlan(cast("Store", self.store)))


@asynccontextmanager
async def bench(*, most: int = 8) -> AsyncGenerator[Bench]:
    """Give a saver at work, and prove on leaving that nothing is left of it."""
    made = Bench(most=most)
    made.saver.open(made.start_worker)
    yield made
    await asyncio.sleep(1.0)  # this clock stands still while threads work
    assert repr(made.saver) == "<Saver orders=0 workers=0>"
    assert made.store.parts == set()
    await made.saver.aclose()
    assert made.fetcher.closed == 1


@pytest.mark.anyio
async def test_saves_a_task() -> None:
    """A record for each image comes back, in their order."""
    async with bench() as it:
        saved = await it.save(images=3)
    assert [image.key for image in saved] == ["a-0", "a-1", "a-2"]
    assert [image.url for image in saved] == [url_of("a", index) for index in range(3)]


@pytest.mark.anyio
async def test_each_call_gets_a_copy_of_its_error() -> None:
    """Why an image is not there is raised with its task; the other images are stored."""
    async with bench() as it:
        it.fetcher.says.append(("no image", 0.0))
        with pytest.raises(DownloadError, match="no image") as caught:
            await it.save(images=2)
        assert caught.value.task_id == "a"
        assert set(it.store.there) == {"a-1"}


@pytest.mark.anyio
async def test_who_leaves_stops_the_saving() -> None:
    """A call that is cancelled fetches nothing more, whether it waits, pauses or is under way."""
    async with bench(most=2) as it:
        it.fetcher.says.extend([("resets", 0.0), ("good", 100.0), ("good", 100.0)])
        calls = [asyncio.create_task(it.save(task_id)) for task_id in "abcd"]
        await asyncio.sleep(0.9)
        assert len(it.fetcher.running) == 2
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        await asyncio.sleep(200.0)
        assert it.fetcher.running == []
        assert it.store.there == {}


@pytest.mark.anyio
async def test_a_saver_that_is_shut() -> None:
    """Whoever waits, and whoever comes later, is told why, each with a task's id of its own."""
    reason = SessionClosedError("closed")
    async with bench() as it:
        calls = [asyncio.create_task(it.save(task_id)) for task_id in "ab"]
        await now_waiting()
        list(it.saver.tell_end(reason))
        calls.append(asyncio.create_task(it.save("c")))
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert [(str(error), cast("Any", error).task_id) for error in errors] == [
            ("closed", "a"),
            ("closed", "b"),
            ("closed", "c"),
        ]
    assert reason.task_id is None


@pytest.mark.anyio
async def test_the_end_leaves_no_timer() -> None:
    """An image that pauses between two tries is not tried again behind the end."""
    async with bench() as it:
        it.fetcher.says.append(("resets", 0.0))
        call = asyncio.create_task(it.save())
        await asyncio.sleep(0.5)
        (order,) = it.saver._orders
        list(it.saver.tell_end(SessionClosedError("closed")))
        assert order.jobs[0].retry is not None
        assert order.jobs[0].retry.cancelled()
        with pytest.raises(SessionClosedError):
            await call


@pytest.mark.anyio
async def test_what_waits_before_it_is_open() -> None:
    """A saver that is not open yet keeps what comes, and starts as many workers as it may."""
    it = Bench(most=2)
    calls = [asyncio.create_task(it.save(task_id)) for task_id in "abc"]
    await now_waiting()
    assert repr(it.saver) == "<Saver orders=3 workers=0>"
    it.saver.open(it.start_worker)
    assert repr(it.saver) == "<Saver orders=3 workers=2>"
    await asyncio.gather(*calls)
    await it.saver.aclose()


@pytest.mark.anyio
async def test_descriptors_that_ran_out_cost_a_pause() -> None:
    """Each time idle connections can be given up first; then it is tried again, as ever."""
    async with bench() as it:
        it.fetcher.says.extend([("descriptors", 0.0), ("resets", 0.0), ("descriptors", 0.0)])
        (saved,) = await it.save()
        assert saved.key == "a-0"
        first, second = it.exhausted
        assert first == 0.0
        assert second == pytest.approx(3.75, abs=0.75)  # pauses of 1 and 2 s, each up to half more


@pytest.mark.anyio
async def test_descriptors_that_stay_away() -> None:
    """After five tries the image is given up, with an error that says so, and may pass."""
    async with bench() as it:
        it.fetcher.says.extend([("descriptors", 0.0)] * 5)
        with pytest.raises(DownloadError) as caught:
            await it.save()
        assert (caught.value.reason, caught.value.transient) == ("descriptors", True)
        assert len(it.exhausted) == 5


@pytest.mark.anyio
@pytest.mark.parametrize("call", ["scandir", "open", "fsync"])
@pytest.mark.parametrize(
    "number", [errno.EMFILE, errno.EAGAIN, errno.ESTALE, errno.EINTR], ids=errno.errorcode.get
)
async def test_what_passes_on_a_disk_costs_a_pause(
    call: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again without a hook, too, and also where the store is only looked at."""
    saver = Saver(FakeFetcher(), most=1, tries=5, rng=Random(1))
    workers: list[asyncio.Task[None]] = []
    saver.open(lambda: workers.append(asyncio.create_task(saver.work())))
    do, tries, time_s = getattr(os, call), list[float](), asyncio.get_running_loop().time

    def fail_twice(*args: Any, **named: Any) -> Any:
        tries.append(time_s())
        if len(tries) <= 2:
            raise OSError(number, os.strerror(number))
        return do(*args, **named)

    monkeypatch.setattr(os, call, fail_twice)
    task, plan = task_of(TaskImage(url=url_of("a", 0))), SavePlan(LocalStore(tmp_path))
    (saved,) = await saver.save(task, plan)
    assert os.path.exists(saved.key)  # noqa: ASYNC240, PTH110 - it blocks no longer than a disk
    fetched_s = 0.5 if call == "fsync" else 0.0
    assert 1.0 <= tries[1] - tries[0] - fetched_s <= 1.5
    assert 2.0 <= tries[2] - tries[1] - fetched_s <= 3.0
    await asyncio.gather(*workers)
    await saver.aclose()


@pytest.mark.anyio
async def test_an_image_that_is_there_is_found_after_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be looked for at first is looked for again: it is not fetched once more."""
    it = Bench()
    it.saver.open(it.start_worker)
    plan = SavePlan(LocalStore(tmp_path))
    task = task_of(TaskImage(url=url_of("a", 0)))
    (first,) = await it.saver.save(task, plan)
    read, tries = Path.open, list[Path]()

    def fail_once(path: Path, *args: Any, **named: Any) -> Any:
        tries.append(path)
        if len(tries) == 1:
            raise OSError(errno.ENFILE, os.strerror(errno.ENFILE))
        return read(path, *args, **named)

    monkeypatch.setattr(Path, "open", fail_once)
    it.fetcher.says.append(("no image", 0.0))  # what a fetch would bring
    assert await it.saver.save(task, plan) == (first,)
    assert len(tries) == 2
    assert len(it.exhausted) == 1
    await it.saver.aclose()


@pytest.mark.anyio
async def test_an_image_that_is_missing_is_looked_for_once() -> None:
    """Further tries only fetch: each look into a store in a cloud is five questions."""
    async with bench() as it:
        it.fetcher.says.extend([("resets", 0.0)] * 3)
        assert await it.save()
        assert it.store.looked == 1


@pytest.mark.anyio
async def test_leaving_costs_the_same_for_each() -> None:
    """Who leaves a long queue takes no walk along it: twice as many take twice as long at most."""
    it = Bench()
    steps: list[int] = []
    for count in (500, 1000):
        calls = [asyncio.create_task(it.save(str(number))) for number in range(count)]
        await now_waiting()
        began = 0

        def count_call(*_: object) -> None:
            nonlocal began
            began += 1

        for call in calls:
            call.cancel()
        sys.setprofile(count_call)
        await asyncio.wait(calls)
        sys.setprofile(None)
        steps.append(began)
    assert len(it.saver._queue) == 0
    assert steps[1] < 2.2 * steps[0]
    await it.saver.aclose()


def test_nothing_is_imported_with_an_image(tmp_path: Path) -> None:
    """From the first look-up to the record nothing is opened but what is written: files may be out.

    Imports would be worst: one that fails for want of a descriptor fails somewhere in a library.
    """
    command = [sys.executable, "-m", "tests.saving.program_first_image", str(tmp_path / "images")]
    found = json.loads(subprocess.check_output(command, cwd=ROOT))
    assert found["import"] == []
    files = [name for name in found["open"] if not name.isdecimal()]  # a descriptor, by its number
    partial = f".7-0.{files[1].split('.')[2]}.kling-part"
    assert files == [tmp_path.name, partial, "images", "7-0.png"]
