"""The session: five verbs over one poller."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterable, Iterable
from functools import partial
from random import Random
from types import EllipsisType, TracebackType
from typing import Self, cast

import aiohttp

from ._api.client import Client, require_usable
from ._config import REFRESH_S, Settings, make_settings
from ._ids import quoted, require_id
from ._models import ImageTask, SavedImage, TaskStatus
from ._outcome import TaskOutcome
from ._policy import PollPolicy, require_timeout
from ._polling.poller import Poller, closed_error
from ._polling.stream import Batch, TaskIds
from ._polling.verdicts import Judgement
from ._polling.waiters import WaitTicket, about, raise_ending
from ._saving.saver import Fetcher, LateFetcher, SaveOrder
from ._saving.stores import SavePlan, StoreLike, Stores
from ._streams import OutcomeStream, TaskUpdates, call_soon
from .errors import (
    ConfigurationError,
    DownloadError,
    InvalidTaskIdError,
    NoImagesError,
    TaskFailedError,
    WrongLoopError,
    copy_error,
)


class KlingOmniSession:
    """Brings paid Kling Omni image tasks back from CometAPI, each exactly once.

    ::

        async with KlingOmniSession() as session:
            async with session.poll(task_ids) as outcomes:
                async for outcome in outcomes:
                    print(outcome.task_id, outcome.ok)

    One session serves a whole program: everything that waits for the same id shares its
    queries. It is bound to an event loop at first use. `aclose` may run in another task than
    the one that used it first, so the start-up and shutdown hooks of a web framework will do.

    Args:
        api_key: The CometAPI key; by default the variable ``COMETAPI_KEY``.
        base_url: Where the API is; by default the variable ``COMETAPI_BASE_URL``, then
            ``https://api.cometapi.com``. A trailing ``/v1``, ``/kling`` or ``/kling/v1`` is
            dropped, any other prefix kept.
        policy: How to poll; by default ``PollPolicy()``.
        http: An aiohttp session to use; it is never changed and never closed. By default the
            session opens and closes its own.
        allow_http: Whether ``http://`` may be used for a host that is not this machine.

    Raises:
        ConfigurationError: One of these cannot be used; the text says which and why.
    """

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        policy: PollPolicy | None = None,
        http: aiohttp.ClientSession | None = None,
        allow_http: bool = False,
    ) -> None:
        self._settings = make_settings(api_key, base_url, policy, allow_http=allow_http)
        if http is not None:
            require_usable(http)
        if self._settings.polls_too_fast:
            warnings.warn(
                f"PollPolicy.interval begins under {REFRESH_S:g} s, but the API's gateway "
                "refreshes no faster: more queries bring nothing sooner",
                stacklevel=2,
            )
        self._transport = Client(self._settings, http)
        fetcher = LateFetcher(partial(_downloader, self._settings))
        self._poller = Poller(self._settings.policy, self._transport, fetcher, rng=Random())
        self._stores = Stores()
        self._loop: asyncio.AbstractEventLoop | None = None

    def __repr__(self) -> str:
        return f"<KlingOmniSession {self._settings.base_url} {self._poller!r}>"

    @property
    def policy(self) -> PollPolicy:
        """How this session polls."""
        return self._settings.policy

    @property
    def closed(self) -> bool:
        """Whether the session can be used no more."""
        return self._poller.closed

    async def query(self, task_id: str) -> ImageTask:
        """Ask for one task as the API sees it now, by one GET.

        It goes before all scheduled queries, keeps to the pace, and does not wait for the end
        of a 429 pause. Its answer is shared with everybody who waits for the id, and the id's
        pause starts anew. Calls for one id at the same time share one GET.

        Args:
            task_id: As the create answer gave it.

        Returns:
            The task, finished or not, failed or not.

        Raises:
            InvalidTaskIdError: The id cannot be one; nothing was sent.
            TaskNotFoundError: The API does not know the id, at least not yet.
            ApiError: The API said no otherwise.
            ResponseError: What answered was not the API.
            TransportError: Nothing answered.
            SessionClosedError: The session was closed.
            WrongLoopError: The session belongs to another event loop.
        """
        poller = self._bound()
        task_id = require_id(task_id)
        result = poller.ask(task_id)
        try:
            reply = await result
        finally:
            poller.forget(task_id, result)
        if not isinstance(reply, ImageTask):
            raise_ending(reply)
        return reply

    async def wait(self, task_id: str, *, timeout: float | EllipsisType | None = ...) -> ImageTask:
        """Wait until a task has succeeded.

        Cancelling the call never cancels the remote task: the API has no such call.

        Args:
            task_id: As the create answer gave it.
            timeout: The longest time to wait from the call, in s; None waits for ever. By
                default the policy's. A query in flight at the deadline gets 5 s more.

        Returns:
            The task that succeeded, with at least one image.

        Raises:
            TaskFailedError: The API said that the task failed; the text is its reason.
            NoImagesError: The task succeeded without one usable URL.
            TaskNotFoundError: The API does not know the id.
            PollTimeoutError: The deadline passed; the id can be waited for again.
            InvalidTaskIdError: The id cannot be one; nothing was sent.
            AuthenticationError: The key is not accepted.
            AccountError: The account's balance, quota or plan does not allow it.
            ApiError: The API said no otherwise.
            ResponseError: What answered was not the API, from the first answer on.
            TransportError: The API's certificate was refused, from the first try on.
            SessionClosedError: The session was closed.
            WrongLoopError: The session belongs to another event loop.
        """
        poller = self._bound()
        task_id = require_id(task_id)
        limit = self._time_limit(timeout)
        now = poller.now()
        ticket = WaitTicket(added=now, deadline=None if limit is None else now + limit)
        poller.call(task_id, ticket)
        try:
            result = await ticket.result
        finally:
            poller.leave(ticket)
        return _succeeded(result)

    def watch(self, task_id: str, *, timeout: float | EllipsisType | None = ...) -> TaskUpdates:
        """Follow one task: the first answer, each change of status, and the final answer.

        Args:
            task_id: As the create answer gave it.
            timeout: The longest time from the call, in s; None for no end. By default the
                policy's.

        Returns:
            An async iterator and async context manager of `ImageTask`. The last one may be a
            failed one; every other final error is raised, as `wait` does.

        Raises:
            InvalidTaskIdError: The id cannot be one; nothing was sent.
        """
        return TaskUpdates(
            self._bound,
            require_id(task_id),
            timeout=self._time_limit(timeout),
            called_at=_time_of_call(),
        )

    def poll(
        self,
        task_ids: TaskIds,
        *,
        timeout: float | EllipsisType | None = ...,
        save_to: StoreLike | None = None,
        watermarked: bool = False,
        overwrite: bool = False,
    ) -> OutcomeStream:
        """Poll many tasks and hand each out once, in the order in which they end.

        Args:
            task_ids: An iterable, whose repeats are dropped, or an async iterable, such as a
                database cursor or a feed, where an id that was handed out may come again.
            timeout: The longest time for each id from the start of its first query, in s;
                None for no end. By default the policy's.
            save_to: Where to save the images of each task before its outcome comes out, as
                `save` does, beside the polling: a directory, a URL or a store of obstore. What
                was stored is in the outcome's ``saved``; if an image was not, its ``error`` is
                a `DownloadError`, and ``task`` is there all the same.
            watermarked: Whether to save the copies with the watermark instead.
            overwrite: Whether to replace what is there under their names.

        Returns:
            An async iterator and async context manager of `TaskOutcome`. An id that failed,
            is unknown or took too long comes out too, with its error. It ends when the input
            has ended and every id has come out.

        Raises:
            InvalidTaskIdError: ``task_ids`` is one str, or nothing that can be iterated.
            ConfigurationError: ``save_to`` cannot be used; the text says why.
        """
        plan = None
        if save_to is not None:
            plan = SavePlan(
                self._stores.open(save_to), watermarked=watermarked, overwrite=overwrite
            )
        batch = Batch(_require_many(task_ids), timeout=self._time_limit(timeout), plan=plan)
        return OutcomeStream(self._bound, batch)

    async def save(
        self,
        task: ImageTask | TaskOutcome,
        store: StoreLike,
        *,
        watermarked: bool = False,
        overwrite: bool = False,
    ) -> tuple[SavedImage, ...]:
        """Save the images of a task that has succeeded into storage of your own.

        An image gets its name only when it is whole. One that is there already is left alone,
        so a call that failed can simply be made again. The hosts of the images see neither
        the API key nor cookies, and only public hosts are asked, by https. Cancelling the call
        leaves no half image behind.

        Args:
            task: The task, or its outcome.
            store: A local directory, made if it is missing; or, with the extra ``storage``, a
                URL such as ``s3://bucket/prefix``, or a store of obstore.
            watermarked: Whether to save the copies with the watermark instead; they are named
                ``…-watermarked``.
            overwrite: Whether to replace what is there under their names.

        Returns:
            A record for each image, in their order.

        Raises:
            AssetExpiredError: An image's URL has expired; `query` the task for a new one.
            StorageError: The store did not take an image, or holds something else there.
            DownloadError: An image did not come; the others are in the store.
            ConfigurationError: ``store`` cannot be used, or the task has not succeeded yet.
            NoImagesError: The task has no images.
            KlingOmniError: The outcome's own error.
            SessionClosedError: The session was closed.
            WrongLoopError: The session belongs to another event loop.
        """
        poller = self._bound()
        plan = SavePlan(self._stores.open(store), watermarked=watermarked, overwrite=overwrite)
        order, result = poller.save(_with_images(task), plan)
        try:
            reply = await result
        finally:
            poller.forget_save(order)
        if not isinstance(reply, SaveOrder):
            raise_ending(about(reply, order.task.task_id))
        if reply.error is not None:
            raise copy_error(reply.error)
        return reply.saved

    async def aclose(self) -> None:
        """Close the session: whoever waits gets `SessionClosedError`; more calls do no harm.

        Raises:
            WrongLoopError: The session runs in another event loop.
        """
        loop = self._loop
        if loop is not None and not self._poller.closed and not loop.is_closed():
            self._require_own_loop(loop)
        self._loop = None
        if loop is not None and loop.is_closed():
            self._poller.closed = True  # all that ran there has gone with it
        else:
            await self._poller.aclose()

    def __del__(self) -> None:
        """End the polling of a session that nobody can use any more."""
        loop = getattr(self, "_loop", None)
        if loop is not None and not self._poller.closed:
            call_soon(loop, self._poller.cancel)

    async def __aenter__(self) -> Self:
        self._bound()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def _bound(self) -> Poller:
        """Give the poller to a verb, bound to the running loop."""
        if self._loop is not None:
            self._require_own_loop(self._loop)
        if self._poller.closed:
            raise closed_error()
        if self._loop is None:
            self._transport.bind()
            self._loop = asyncio.get_running_loop()
        return self._poller

    def _require_own_loop(self, own: asyncio.AbstractEventLoop) -> None:
        if own is not asyncio.get_running_loop():
            raise WrongLoopError(
                "this session belongs to another event loop; make one KlingOmniSession for each"
            )

    def _time_limit(self, timeout: float | EllipsisType | None) -> float | None:
        if isinstance(timeout, EllipsisType):
            return self._settings.policy.timeout
        return require_timeout(timeout)


def _downloader(settings: Settings) -> Fetcher:
    from ._saving.download import Downloader  # noqa: PLC0415 - a fifth of the package, for images alone

    return Downloader(settings)


def _succeeded(result: Judgement | BaseException) -> ImageTask:
    if not isinstance(result, Judgement):
        raise_ending(result)
    if result.error is not None:
        raise copy_error(result.error)
    assert result.task is not None  # noqa: S101 - a judgement without error has one
    return result.task


def _with_images(given: object) -> ImageTask:
    """Give the task whose images are to be saved."""
    task = given
    if isinstance(given, TaskOutcome):
        task = given.task if isinstance(given.error, DownloadError) else given.result()
    if not isinstance(task, ImageTask):
        raise ConfigurationError(
            f"save takes an ImageTask or a TaskOutcome, not a {type(given).__name__}"
        )
    if task.status is TaskStatus.FAILED:
        raise TaskFailedError(task.status_message or "", task_id=task.task_id, task=task)
    if task.status is not TaskStatus.SUCCEED:
        raise ConfigurationError(
            f"task {quoted(task.task_id)} is {task.status}: wait for it before its images "
            "are saved",
            task_id=task.task_id,
        )
    if not task.images:
        raise NoImagesError("the task has no images to save", task_id=task.task_id, task=task)
    return task


def _time_of_call() -> float | None:
    """Give the loop's time, or None where `watch` is called before a loop runs."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return None


def _require_many(task_ids: object) -> TaskIds:
    if isinstance(task_ids, bytes | bytearray):
        raise InvalidTaskIdError("poll takes many ids; decode the bytes: poll([task_id.decode()])")
    if isinstance(task_ids, str):
        text = quoted(task_ids)
        raise InvalidTaskIdError(f"poll takes many ids; for a single one write poll([{text}])")
    if isinstance(task_ids, Iterable | AsyncIterable):
        return cast("TaskIds", task_ids)
    raise InvalidTaskIdError(
        f"poll takes an iterable or async iterable of ids, not {type(task_ids).__name__}"
    )
