"""Brings images into stores: some at a time, beside the polling, each again where that may help."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from random import Random
from typing import Final, Protocol

import anyio
import anyio.lowlevel
import attrs

from kling_omni_async._ids import quoted
from kling_omni_async._models import ImageTask, SavedImage, TaskImage
from kling_omni_async._observer import Door
from kling_omni_async._results import Result, Successes, raise_copy, resolve
from kling_omni_async.errors import DownloadError, KlingOmniError, copy_error

from .files import Stored
from .formats import image_stems
from .hosts import redact_url
from .rules import is_not_ready, pause_before_retry
from .stores import SavePlan, Store
from .threads import OwnThreads, in_thread, own_threads

_JITTER: Final = 1.5

logger: Final = logging.getLogger("kling_omni_async.saver")


class Fetcher(Protocol):
    """What brings images."""

    async def fetch(self, url: str, write: Callable[[bytes], object], /) -> bytes:
        """Bring an image: all but its last bytes are written, by what blocks; give those."""
        ...

    async def aclose(self) -> None:
        """Release everything."""


@attrs.define(eq=False)
class SaveJob:
    """One image on its way into a store, under a name that has no ending yet."""

    order: SaveOrder
    url: str
    stem: str
    faults: int = 0
    waits: int = 0  # for a host that does not have the image yet
    is_missing: bool = False  # it was looked for in the store, if that was to be done
    result: SavedImage | KlingOmniError | None = None
    scope: anyio.CancelScope | None = None  # while it is under way
    retry: asyncio.TimerHandle | None = None  # while it waits for its next try

    @property
    def shown_url(self) -> str:
        """The URL without what may be secret; a record made by hand may hold anything."""
        return redact_url(str(self.url))

    def failed(self, error: KlingOmniError) -> KlingOmniError:
        """Note on an error which task and which image it is about."""
        error.task_id = self.order.task.task_id
        if isinstance(error, DownloadError):
            error.url = self.shown_url
        return error


@attrs.define(eq=False, repr=False)
class SaveOrder:
    """The images of one task that has succeeded, on their way into a store.

    `done` is called once every image was saved or given up, `abort` instead with the reason why
    all waiting ended. By then `saved` has what is in the store, in the order of the images, and
    `error` says why an image is not: the first one.
    """

    task: ImageTask
    plan: SavePlan
    done: Callable[[SaveOrder], object]
    abort: Callable[[BaseException], object]
    seen_at: float = 0.0  # when success was first seen, in s of the loop's clock
    saved: tuple[SavedImage, ...] = ()
    error: KlingOmniError | None = None
    cancelled: bool = False
    jobs: list[SaveJob] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        stems = image_stems(self.task.task_id, self.task.images, watermarked=self.plan.watermarked)
        self.jobs = list(map(self._job, self.task.images, stems.keys(), stems.values()))

    def _job(self, image: TaskImage, number: int, stem: str) -> SaveJob:
        url = image.watermark_url if self.plan.watermarked else image.url
        job = SaveJob(self, url or "", stem)
        if url is None:
            job.result = job.failed(
                DownloadError(
                    f"image {number} has no watermarked copy; ask for one when the task is created",
                    reason="no-watermark",
                )
            )
        return job

    def __repr__(self) -> str:
        saved = sum(isinstance(job.result, SavedImage) for job in self.jobs)
        return f"<SaveOrder {saved} of {len(self.jobs)} images>"

    def conclude(self) -> bool:
        """Return whether every image was saved or given up, and if so keep what came of them."""
        results = [job.result for job in self.jobs]
        if None in results:
            return False
        self.saved = tuple(each for each in results if isinstance(each, SavedImage))
        self.error = next((each for each in results if isinstance(each, KlingOmniError)), None)
        return True

    def cancel(self) -> None:
        """Stop what is under way; nobody is told any more."""
        self.cancelled = True
        for job in self.jobs:
            if job.scope is not None:
                job.scope.cancel()
            if job.retry is not None:
                job.retry.cancel()


class JobQueue:
    """Jobs that wait for a worker, in two lines: those in the first always go ahead."""

    def __init__(self) -> None:
        # No deques: one who leaves must not cost a walk along all who wait. No dicts: to take the
        # first of a dict again and again is a walk, too.
        self._first: OrderedDict[SaveJob, None] = OrderedDict()
        self._others: OrderedDict[SaveJob, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._first) + len(self._others)

    def add(self, jobs: Iterable[SaveJob], *, first: bool) -> None:
        """Put jobs behind those of their line."""
        (self._first if first else self._others).update(dict.fromkeys(jobs))

    def discard(self, jobs: Iterable[SaveJob]) -> None:
        """Drop those of some jobs that wait."""
        for job in jobs:
            self._first.pop(job, None)
            self._others.pop(job, None)

    def pop(self) -> SaveJob | None:
        """Take out the next job."""
        line = self._first or self._others
        return line.popitem(last=False)[0] if line else None


@attrs.frozen
class RetryPauses:
    """The pauses between the tries of an image, of which there are `most` after faults."""

    rng: Random
    most: int
    successes: Successes

    def begin(self, order: SaveOrder, *, now: float) -> None:
        """Note when the task of an order was first seen to have succeeded."""
        order.seen_at = self.successes.first_seen(order.task.task_id, now)

    def after(
        self, job: SaveJob, result: SavedImage | KlingOmniError, *, now: float
    ) -> float | None:
        """Count a try; return the pause before the next one in s, or None where there is none."""
        if not isinstance(result, DownloadError):
            return None
        # Apart: a host that is not ready yet is asked for longer than one that has faults.
        if is_not_ready(result):
            job.waits += 1
            tries = job.waits
        else:
            job.faults += 1
            tries = job.faults
        jitter = self.rng.uniform(1.0, _JITTER)
        seen_s = now - job.order.seen_at
        return pause_before_retry(result, tries=tries, most=self.most, seen_s=seen_s, jitter=jitter)


class Saver:
    """The images that are to be saved, and the workers that fetch them: `most` at a time.

    An image is given up after `tries` that brought faults. When file descriptors have run out,
    `on_exhausted` is called before the pause.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        *,
        most: int,
        tries: int,
        rng: Random,
        successes: Successes | None = None,
        on_exhausted: Callable[[], object] | None = None,
        door: Door | None = None,
    ) -> None:
        self._fetcher = fetcher
        self._door = door or Door()
        self._most = most
        self._pauses = RetryPauses(rng, tries, successes or Successes())
        self._on_exhausted = on_exhausted
        self._orders: set[SaveOrder] = set()
        self._queue = JobQueue()
        self._workers = 0
        self._start_worker: Callable[[], object] | None = None
        # The loop has few, and they resolve the API's name: a slow disk must not hold them.
        self._threads = OwnThreads("kling_omni_async.files", most)
        self._shut_by: BaseException | None = None

    @property
    def active(self) -> int:
        """How many tasks have images that are being saved."""
        return len(self._orders)

    def __repr__(self) -> str:
        return f"<Saver orders={len(self._orders)} workers={self._workers}>"

    def open(self, start_worker: Callable[[], object]) -> None:
        """Begin, with what starts a task that runs `work`."""
        self._start_worker = start_worker
        self._start_workers(len(self._queue))

    async def aclose(self) -> None:
        """Start no more workers, and release what fetches; those that were have ended by then."""
        self._start_worker = None
        await self._fetcher.aclose()
        self._threads.close()

    def tell_end(self, reason: BaseException) -> Iterator[None]:
        """Tell all who wait, one at each step, and all to come why nothing more is saved."""
        self._shut_by = reason
        while self._orders:
            order = self._orders.pop()
            order.cancel()
            order.abort(reason)
            yield

    async def save(self, task: ImageTask, plan: SavePlan) -> tuple[SavedImage, ...]:
        """Save the images of a task, ahead of those of all streams; cancelled, it leaves none half.

        Raises:
            KlingOmniError: An image is not in the store; the others are.
            BaseException: Why nothing will be saved any more.
        """
        result: Result[SaveOrder] = asyncio.get_running_loop().create_future()
        tell = partial(resolve, result)
        order = SaveOrder(task, plan, done=tell, abort=tell)
        self.submit(order, first=True)
        try:
            reply = await result
        finally:
            self.cancel([order])
        if not isinstance(reply, SaveOrder):
            raise_copy(reply, task.task_id)
        if reply.error is not None:
            raise copy_error(reply.error)
        return reply.saved

    async def try_out(self, store: Store) -> None:
        """Try whether images can be kept in a store, or raise `ConfigurationError`."""
        own_threads.set(self._threads)
        await store.try_out()

    def submit(self, order: SaveOrder, *, first: bool = False) -> None:
        """Begin to save the images of a task; the first go ahead of what waits already."""
        if self._shut_by is not None:
            order.abort(self._shut_by)
            return
        self._orders.add(order)
        self._pauses.begin(order, now=asyncio.get_running_loop().time())
        jobs = [job for job in order.jobs if job.result is None]
        self._queue.add(jobs, first=first)
        self._conclude(order)
        self._start_workers(len(jobs))

    def cancel(self, orders: Collection[SaveOrder]) -> None:
        """Drop orders that nobody waits for any more."""
        for order in orders:
            self._orders.discard(order)
            self._queue.discard(order.jobs)
            order.cancel()

    def _start_workers(self, jobs: int) -> None:
        for _ in range(min(jobs, self._most - self._workers)):
            if self._start_worker is not None:
                self._workers += 1
                self._start_worker()

    async def work(self) -> None:
        """Save one image after another until none waits."""
        own_threads.set(self._threads)
        try:
            while job := self._queue.pop():
                # Where each image is there already, threads are all that it waits for, and those
                # are waited for whatever happens: an end would come behind the whole queue.
                await anyio.lowlevel.checkpoint_if_cancelled()
                with anyio.CancelScope() as job.scope:
                    self._settle(job, await self._try(job))
                job.scope = None
        finally:
            self._workers -= 1

    def _settle(self, job: SaveJob, result: SavedImage | KlingOmniError) -> None:
        """Keep what came of a try, or set the next one; its pause keeps no worker busy."""
        # What was stored meanwhile stays: a later save finds it.
        if job.order.cancelled:
            return
        exhausted = isinstance(result, DownloadError) and result.reason == "descriptors"
        if exhausted and self._on_exhausted is not None:
            self._on_exhausted()
        loop = asyncio.get_running_loop()
        pause_s = self._pauses.after(job, result, now=loop.time())
        if pause_s is None:
            job.result = result
            self._conclude(job.order)
            return
        name = f"image {job.shown_url} of task {quoted(job.order.task.task_id)}"
        logger.info("%s: %s; once more in %.1f s", name, result, pause_s)
        # A timer, no worker that sleeps: a host that is down would keep all places busy.
        job.retry = loop.call_later(pause_s, self._again, job)

    def _again(self, job: SaveJob) -> None:
        # Ahead of the others: of all images this one has waited longest.
        self._queue.add([job], first=True)
        self._start_workers(1)

    def _conclude(self, order: SaveOrder) -> None:
        if order.conclude():
            self._orders.discard(order)
            order.done(order)

    async def _try(self, job: SaveJob) -> SavedImage | KlingOmniError:
        try:
            return SavedImage(url=job.url, **attrs.asdict(await self._bring(job)))
        except KlingOmniError as error:
            return job.failed(copy_error(error))
        except Exception as error:
            # One odd image, such as one of a record made by hand, must not end the session.
            kind, task_id = type(error).__name__, job.order.task.task_id
            logger.warning("%s, unforeseen, with an image of task %r", kind, task_id)
            logger.debug("it came from here", exc_info=True)
            return job.failed(DownloadError(f"an unforeseen {kind}", reason="unforeseen"))

    async def _bring(self, job: SaveJob) -> Stored:
        """Find an image in its store, or bring it there."""
        plan, store = job.order.plan, job.order.plan.store
        # A name is trusted, as a file gets it only when it is whole: no manifest lies in the user's
        # directory, and a URL that has expired since does no harm.
        part = await store.begin(job.stem, look=not (plan.overwrite or job.is_missing))
        if isinstance(part, Stored):
            return part
        job.is_missing = True
        try:
            rest = await self._fetcher.fetch(job.url, part.write)
            stored = await store.keep(part, rest, job.stem, overwrite=plan.overwrite)
        except BaseException:
            await in_thread(part.discard)
            raise
        if self._door.observer is not None:
            self._door.observer.saved(stored.size)
        return stored
