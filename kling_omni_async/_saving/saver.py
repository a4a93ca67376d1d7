"""Brings images into stores: some at a time, beside the polling, each again where that may help."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC
from http import HTTPStatus
from random import Random
from typing import Final, Protocol

import anyio
import anyio.lowlevel

from kling_omni_async._ids import quoted
from kling_omni_async._models import ImageTask, SavedImage
from kling_omni_async.errors import (
    AssetExpiredError,
    DownloadError,
    KlingOmniError,
    StorageError,
    copy_error,
)

from .files import Content, Part, Taker
from .formats import ImageKind, is_whole, kind_of, naming_kind
from .orders import SaveJob, SaveOrder
from .stores import Stored, translate_os_errors
from .threads import MOST_THREADS, in_thread, own_threads

BACKOFF_S: Final = (1.0, 2.0, 4.0, 8.0)
"""The pauses after transient faults, before jitter, in s."""

NOT_READY_S: Final = (2.0, 8.0)
"""The pauses after a 404 of an image that has just been made, before jitter, in s."""

FRESH_S: Final = 60.0
"""How long a host may need to have an image ready, in s (seen: a 404 right after success)."""

_JITTER: Final = 1.5
_SHOWN_BYTES: Final = 24

logger: Final = logging.getLogger("kling_omni_async.saver")


class Fetcher(Protocol):
    """What brings images."""

    async def fetch(self, url: str, take: Taker, /) -> str | None:
        """Bring the bytes of an image; gives its Content-Type."""
        ...

    async def aclose(self) -> None:
        """Release everything."""


class LateFetcher:
    """A fetcher that is made, and its modules imported, when the first image is to be brought.

    Args:
        make: Makes it.
    """

    def __init__(self, make: Callable[[], Fetcher]) -> None:
        self._make = make
        self._made: Fetcher | None = None

    async def fetch(self, url: str, take: Taker, /) -> str | None:
        """Bring the bytes of an image; gives its Content-Type."""
        if self._made is None:
            self._made = self._make()
        return await self._made.fetch(url, take)

    async def aclose(self) -> None:
        """Release what was made."""
        if self._made is not None:
            await self._made.aclose()


class Saver:
    """The images that are to be saved, and the workers that fetch them.

    Args:
        fetcher: Brings images.
        most: How many may be on their way at a time.
        rng: Draws the jitter of pauses.
        wall_clock: Gives s since the epoch.
    """

    def __init__(
        self, fetcher: Fetcher, *, most: int, rng: Random, wall_clock: Callable[[], float]
    ) -> None:
        self._fetcher = fetcher
        self._most = most
        self._random = rng
        self._wall_clock = wall_clock
        self._orders: set[SaveOrder] = set()
        self._first: deque[SaveJob] = deque()
        self._waiting: deque[SaveJob] = deque()
        self._workers = 0
        self._start_worker: Callable[[], object] | None = None
        # Of its own: what waits for a slow disk must not keep the loop's threads from DNS.
        self._threads = ThreadPoolExecutor(min(most, MOST_THREADS), "kling_omni_async.files")

    def __repr__(self) -> str:
        return f"<Saver orders={len(self._orders)} workers={self._workers}>"

    def open(self, start_worker: Callable[[], object]) -> None:
        """Begin.

        Args:
            start_worker: Starts a task that runs `work`.
        """
        self._start_worker = start_worker
        self._start_workers(len(self._first) + len(self._waiting))

    async def aclose(self) -> None:
        """Stop everything and release what fetches."""
        self._start_worker = None
        for order in self._orders:
            order.cancel()
        await self._fetcher.aclose()
        self._threads.shutdown(wait=False)

    def shut(self, reason: BaseException) -> None:
        """Tell all whose images are not saved why they will not be."""
        while self._orders:
            self._orders.pop().abort(reason)

    def submit(self, order: SaveOrder, *, first: bool = False) -> None:
        """Begin to save the images of a task.

        Args:
            order: What to save.
            first: Whether it goes ahead of what waits already.
        """
        self._orders.add(order)
        jobs = [job for job in order.jobs if job.result is None]
        (self._first if first else self._waiting).extend(jobs)
        self._conclude(order)
        self._start_workers(len(jobs))

    def cancel(self, orders: Collection[SaveOrder]) -> None:
        """Drop orders that nobody waits for any more."""
        for order in orders:
            self._orders.discard(order)
            order.cancel()
        if any(job.result is None for order in orders for job in order.jobs):
            for waiting in (self._first, self._waiting):
                kept = [job for job in waiting if not job.order.cancelled]
                waiting.clear()
                waiting.extend(kept)

    def _start_workers(self, jobs: int) -> None:
        for _ in range(min(jobs, self._most - self._workers)):
            if self._start_worker is not None:
                self._workers += 1
                self._start_worker()

    async def work(self) -> None:
        """Save one image after another until none waits."""
        own_threads.set(self._threads)
        try:
            while job := self._next():
                await anyio.lowlevel.checkpoint_if_cancelled()  # threads may be all it waits for
                with anyio.CancelScope() as job.scope:
                    self._settle(job, await self._try(job))
                job.scope = None
        finally:
            self._workers -= 1

    def _next(self) -> SaveJob | None:
        for waiting in (self._first, self._waiting):
            if waiting:
                return waiting.popleft()
        return None

    def _settle(self, job: SaveJob, result: SavedImage | KlingOmniError) -> None:
        """Keep what came of a try, or set the next one; its pause keeps no worker busy."""
        if job.order.cancelled:
            return
        pause_s = self._pause_s(job, result)
        if pause_s is None:
            job.result = result
            self._conclude(job.order)
            return
        logger.info(
            "image %s of task %s: %s; once more in %.1f s",
            job.shown_url,
            quoted(job.task_id),
            result,
            pause_s,
        )
        job.retry = asyncio.get_running_loop().call_later(pause_s, self._again, job)

    def _again(self, job: SaveJob) -> None:
        self._first.append(job)
        self._start_workers(1)

    def _conclude(self, order: SaveOrder) -> None:
        if order.is_complete:
            self._orders.discard(order)
            order.done(order)

    def _pause_s(self, job: SaveJob, result: SavedImage | KlingOmniError) -> float | None:
        if not isinstance(result, DownloadError):
            return None
        is_fresh = _is_fresh(job.order.task, self._wall_clock())
        pause_s = pause_before_retry(result, tries=job.tries, is_fresh=is_fresh)
        return None if pause_s is None else pause_s * self._random.uniform(1.0, _JITTER)

    async def _try(self, job: SaveJob) -> SavedImage | KlingOmniError:
        try:
            return job.stored(await self._bring(job))
        except KlingOmniError as error:
            return job.failed(copy_error(error))
        except Exception as error:
            kind = type(error).__name__
            logger.warning("%s, unforeseen, with an image of task %r", kind, job.task_id)
            logger.debug("it came from here", exc_info=True)
            return job.failed(DownloadError(f"an unforeseen {kind}", reason="unforeseen"))

    async def _bring(self, job: SaveJob) -> Stored:
        """Find an image in its store, or bring it there.

        Raises:
            KlingOmniError: It is not there.
        """
        plan, store = job.order.plan, job.order.plan.store
        await store.open()
        if not job.tries and not plan.overwrite and (stored := await store.find(job.stem)):
            return stored
        job.tries += 1
        part = await store.begin(job.stem)
        try:
            content, kind = await self._download(job.url, part)
            return await store.keep(part, content, job.stem, kind, overwrite=plan.overwrite)
        finally:
            await in_thread(part.discard)

    async def _download(self, url: str, part: Part) -> tuple[Content, ImageKind]:
        async def take(piece: bytes) -> None:
            with translate_os_errors(str(part.path.parent)):
                await in_thread(part.write, piece)

        content_type = await self._fetcher.fetch(url, take)
        content = part.content()
        kind = naming_kind(content_type, content.head, url)
        if kind is None or kind_of(content.head) is None:
            raise DownloadError(
                f"what came is no image; it begins with {content.head[:_SHOWN_BYTES]!r}",
                http_status=HTTPStatus.OK,
                reason="not-an-image",
            )
        if not is_whole(content.head, content.tail, content.size):
            raise DownloadError(
                "the end of the image is missing", http_status=HTTPStatus.OK, reason="cut-off"
            )
        return content, kind


def _is_fresh(task: ImageTask, wall_s: float) -> bool:
    """Whether a task has only just succeeded; one without a time counts as such."""
    at = task.updated_at
    if at is None:
        return True
    return wall_s - (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() < FRESH_S


def pause_before_retry(error: DownloadError, *, tries: int, is_fresh: bool) -> float | None:
    """Give the pause before an image is fetched again, in s, or None to give it up.

    Args:
        error: Why the last try failed.
        tries: How many there were.
        is_fresh: Whether the image has only just been made.
    """
    pauses: tuple[float, ...] = BACKOFF_S if error.transient else ()
    if isinstance(error, StorageError):
        pauses = ()
    elif isinstance(error, AssetExpiredError):
        pauses = NOT_READY_S if is_fresh and error.http_status == HTTPStatus.NOT_FOUND else ()
    return pauses[tries - 1] if 0 < tries <= len(pauses) else None
