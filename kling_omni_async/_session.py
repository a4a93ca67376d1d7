"""The session: its verbs over one engine, in which polling, saving and creating run."""

from __future__ import annotations

import asyncio
import sys
import warnings
from collections.abc import AsyncIterable, Iterable
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, Self, cast, overload

import aiohttp
import attrs

from ._api.callbacks import CallbackHint
from ._api.client import require_usable
from ._config import REFRESH_S, make_settings
from ._ids import quoted, require_id
from ._models import FINAL_STATUS, ImageTask, SavedImage
from ._observer import Trace
from ._order import ImageOrder, Orders, expected_s, require_max_tasks, require_order, require_orders
from ._outcome import TaskOutcome
from ._policy import POLICY_TIMEOUT, PollPolicy, require_timeout
from ._polling.poller import Poller
from ._polling.stream import StreamState, TaskIds
from ._polling.verdicts import Verdict, VerdictKind, verdict_on
from ._polling.waiters import QueryWaiter, ResultWaiter
from ._results import Ending, Outlet
from ._saving.stores import StoreLike
from ._stats import SessionStats
from ._streams import OF_KEPT_ORDERS, OF_ORDERS, OutcomeStream, TaskUpdates, refusal
from ._wings import Wings
from .errors import ConfigurationError, InvalidTaskIdError, KlingOmniError, copy_error

if TYPE_CHECKING:
    from typing_extensions import TypeIs, deprecated

    from ._book.book import TaskBook
    from ._book.intents import BookLedger
    from ._book.kept import KeptOrders
    from ._book.opened import OpenBook
    from ._book.own import OwnReader
    from ._book.work import BookWork
    from ._book.worker import Worker
    from ._creating.ledger import Ledger, NamedOrder
    from ._creating.ordering import Ordering
    from ._saving.stores import SavePlan


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
            ``https://api.cometapi.com``. A trailing ``/v1``, ``/kling``, ``/kling/v1`` or the
            whole route is dropped, any other prefix kept.
        policy: How to poll; by default ``PollPolicy()``.
        http: An aiohttp session to use; it is never changed and never closed. By default the
            session opens and closes its own.
        allow_http: Whether ``http://`` may be used for a host that is not this machine.
        namespace: In which the keys of orders are names, such as your domain; by default one that
            is made of the API key. With a name of your own a wish keeps its external id when the
            API key changes; choose one that no other customer would.

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
        namespace: str | None = None,
    ) -> None:
        self._settings = make_settings(
            api_key, base_url, policy, allow_http=allow_http, namespace=namespace
        )
        if http is not None:
            require_usable(http)
        if self._settings.polls_too_fast:
            warnings.warn(
                f"the interval begins under {REFRESH_S:g} s, but the API's gateway refreshes no "
                "faster: more queries bring nothing sooner",
                stacklevel=2,
            )
        self._wings = Wings(self._settings, http)

    def __repr__(self) -> str:
        return f"<KlingOmniSession {self._settings.base_url} {self._wings!r}>"

    def __str__(self) -> str:
        return f"session with {self._settings.base_url}, {self._wings.engine.state}"

    @property
    def policy(self) -> PollPolicy:
        """How this session polls."""
        return self._settings.policy

    @property
    def closed(self) -> bool:
        """Whether the session can be used no more."""
        return self._wings.engine.closed

    @property
    def close_reason(self) -> BaseException | None:
        """What closed the session, such as a defect, or that somebody cancelled a task of it.

        None while it is open, and after a plain `aclose`. A `SessionClosedError` that is raised
        afterwards has it as its ``__cause__``.
        """
        return self._wings.engine.close_reason

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
        poller = self._ready()
        task_id = require_id(task_id)
        waiter = QueryWaiter(added=_now())
        poller.call(task_id, waiter)
        try:
            reply = await waiter.result
        finally:
            poller.leave(waiter)
        if not isinstance(reply, ImageTask):
            raise copy_error(reply)
        return reply

    async def wait(
        self,
        task_id: str,
        *,
        timeout: float | None = POLICY_TIMEOUT,
        expect_callback: float | None = None,
    ) -> ImageTask:
        """Wait until a task has succeeded.

        Cancelling the call never cancels the remote task: the API has no such call.

        Args:
            task_id: As the create answer gave it.
            timeout: The longest time to wait from the call, in s; None waits for ever. By
                default the policy's. A query in flight at the deadline gets 5 s more.
            expect_callback: How long the first query waits for `nudge`, in s, where a callback of
                the API reaches you. After three in a row that did not come, none is waited for.

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
        poller = self._ready()
        task_id = require_id(task_id)
        limit = self._time_limit(timeout)
        now = _now()
        expects = require_timeout(expect_callback, "expect_callback")
        with self._wings.door.trace("kling_omni.wait", task_id) as trace:
            deadline = None if limit is None else now + limit
            waiter = ResultWaiter(added=now, deadline=deadline, trace=trace)
            return await self._final(poller, task_id, waiter, expects)

    async def _final(
        self, poller: Poller, task_id: str, waiter: ResultWaiter, expects: float | None
    ) -> ImageTask:
        poller.call(task_id, waiter, expects)
        try:
            result = await waiter.result
        finally:
            poller.leave(waiter)
        return _succeeded(result)

    def watch(self, task_id: str, *, timeout: float | None = POLICY_TIMEOUT) -> TaskUpdates:
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
            self._ready,
            require_id(task_id),
            timeout=self._time_limit(timeout),
            called_at=_time_of_call(),
        )

    if TYPE_CHECKING:
        # One str is an iterable of str too: only so a type checker can tell it from many ids. What
        # it knows nothing of it takes for the first.
        @overload
        def poll(
            self,
            task_ids: TaskBook,
            *,
            timeout: float | None = ...,
            save_to: StoreLike | None = ...,
            watermarked: bool = ...,
            overwrite: bool = ...,
            until_empty: bool = ...,
        ) -> OutcomeStream: ...

        @overload
        def poll(
            self,
            task_ids: AsyncIterable[str],
            *,
            timeout: float | None = ...,
            save_to: StoreLike | None = ...,
            watermarked: bool = ...,
            overwrite: bool = ...,
            expect_callback: float | None = ...,
        ) -> OutcomeStream: ...

        @overload
        @deprecated("poll takes many ids; for a single one write poll([task_id])")
        def poll(
            self,
            task_ids: str,
            *,
            timeout: float | None = ...,
            save_to: StoreLike | None = ...,
            watermarked: bool = ...,
            overwrite: bool = ...,
            expect_callback: float | None = ...,
        ) -> OutcomeStream: ...

        @overload
        def poll(
            self,
            task_ids: Iterable[str],
            *,
            timeout: float | None = ...,
            save_to: StoreLike | None = ...,
            watermarked: bool = ...,
            overwrite: bool = ...,
            expect_callback: float | None = ...,
        ) -> OutcomeStream: ...

    def poll(
        self,
        task_ids: TaskIds | TaskBook,
        *,
        timeout: float | None = POLICY_TIMEOUT,
        save_to: StoreLike | None = None,
        watermarked: bool = False,
        overwrite: bool = False,
        expect_callback: float | None = None,
        until_empty: bool = False,
    ) -> OutcomeStream:
        """Poll many tasks and hand each out once, in the order in which they end.

        Args:
            task_ids: An iterable, whose repeats are dropped, or an async iterable, such as a
                database cursor or a feed, where an id that was handed out may come again. Or a
                `TaskBook`: what it holds is polled here and handed out here, until the block is
                left; outcomes come again until they are acknowledged, as `OutcomeStream` says.
            timeout: The longest time for each id from the start of its first query, in s;
                None for no end. By default the policy's.
            save_to: Where to save the images of each task before its outcome comes out, as
                `save` does, beside the polling: a directory, a URL or a store of obstore. What
                was stored is in the outcome's ``saved``; if an image was not, its ``error`` is
                a `DownloadError`, and ``task`` is there all the same.
            watermarked: Whether to save the copies with the watermark instead.
            overwrite: Whether to replace what is there under their names.
            expect_callback: How long the first query of each id waits for `nudge`, in s, as with
                `wait`; not of a book.
            until_empty: Of a book: whether the stream ends when nothing is polled any more and
                nothing unread.

        Returns:
            An async iterator and async context manager of `TaskOutcome`. An id that failed,
            is unknown or took too long comes out too, with its error. It ends when the input
            has ended and every id has come out.

        Raises:
            InvalidTaskIdError: ``task_ids`` is one str, or nothing that can be iterated.
            ConfigurationError: ``save_to`` cannot be used, or an option is not for this input; the
                text says why.
        """
        policy = self._settings.policy
        limit = self._time_limit(timeout)
        if is_book(task_ids):
            saving = None
            if save_to is not None:
                saving = self._wings.outlet(save_to, watermarked=watermarked, overwrite=overwrite)
            if expect_callback is not None:
                raise ConfigurationError("expect_callback is not for a book; use book.nudge")
            return self._poll_book(task_ids, limit, saving, until_empty=until_empty)
        source = _require_many(task_ids)
        if until_empty:
            raise ConfigurationError("until_empty is for a book: other inputs end by themselves")
        outlet = self._wings.outlet(save_to, watermarked=watermarked, overwrite=overwrite)
        state = StreamState(
            source,
            timeout=limit,
            outlet=outlet,
            most_pending=policy.max_pending,
            expects=require_timeout(expect_callback, "expect_callback"),
        )
        return OutcomeStream(self._ready, state)

    def work(self, book: TaskBook) -> BookWork:
        """Poll a book in the background, and hand nothing out: others read its outcomes.

        ::

            async with session.work(book):
                task = await book.wait(task_id)

        Args:
            book: Any number of sessions, in any processes, may work one book: they share its ids
                and one pace.

        Returns:
            An async context manager. What is wrong with the set-up, such as the key, ends this
            work alone, and is raised on leaving the block and by `TaskBook.wait` in this process.

        Raises:
            ConfigurationError: ``book`` is none.
        """
        from ._book.work import BookWork  # noqa: PLC0415 - not for those who only poll

        return BookWork(
            _require_book(book), partial(self._book_worker, self._settings.policy.timeout)
        )

    async def create(
        self, order: ImageOrder, *, book: TaskBook | None = None, note: Any = None
    ) -> ImageTask:
        """Create a task by one POST, which costs money and is never sent twice.

        It is sent again, at most twice, only where nothing was created and that may pass: the
        request never left, or the API asked to wait. Where nobody knows what came of it, the task
        is looked for by its external id, up to 20 s. Cancelling the call never aborts a POST that
        has begun: what it brings is logged, at WARNING.

        Args:
            order: What is wanted. With a ``key`` it is created once: a further call of this session
                gives the task of the first.
            book: Where the task is kept, to be polled and handed out: it is there when this
                returns. That it is about to be created is kept before the POST: should this process
                die, a worker of the book looks for the task. With a ``key`` the order is created
                once for all processes and all times: a further call gives the task that the book
                knows. Where another process is creating it, that is waited for, as long as
                ``create_timeout``.
            note: What the book keeps with the task, as `TaskBook.add` does.

        Returns:
            The task as the answer describes it, just submitted, with its external id; one that the
            book knew, as it was last seen.

        Raises:
            BookError: The book cannot be reached or used. Where it has a ``task_id``, that task was
                created and is not in the book: add it; else nothing was created.
            CreateUncertainError: Nobody knows whether there is a task; never just send it again.
                Of a book's, workers go on looking: the outcome comes out there.
            DuplicateOrderError: The vendor knows this order, and its task was not found.
            ConfigurationError: The order cannot be sent; the text names its field.
            RateLimitError: Too many tasks or requests, three times.
            AuthenticationError: The key is not accepted.
            AccountError: The account's balance, quota or plan does not allow it.
            ApiError: The API refused the order; nothing was created.
            TransportError: It never left, three times; nothing was created.
            ResponseError: A redirect, or an intermediary's refusal; nothing was created.
            SessionClosedError: The session was closed before anything was sent.
            WrongLoopError: The session belongs to another event loop.
        """
        self._ready()
        order = require_order(order)
        _require_place(note, book)
        ledger = None if book is None else await self._ledger_in(book, note)
        task, _ = await self._wings.creating_wing().create(order, ledger=ledger)
        return task

    async def _ledger_in(
        self,
        book: TaskBook,
        note: object,
        *,
        expects: float | None = None,
        reader: OwnReader | None = None,
    ) -> BookLedger:
        """Return what keeps creates in a book."""
        from ._book.intents import open_ledger  # noqa: PLC0415 - not for those who only poll

        self._ready()
        return await open_ledger(
            _require_book(book),
            note,
            self._wings.creating_wing().look,
            self._settings,
            find_planner=self._wings.book_planner,
            expects=expects,
            holder=None if reader is None else reader.name,
        )

    async def generate(
        self,
        order: ImageOrder,
        *,
        timeout: float | None = POLICY_TIMEOUT,
        save_to: StoreLike | None = None,
        watermarked: bool = False,
        overwrite: bool = False,
        expect_callback: float | None = None,
        book: TaskBook | None = None,
        note: Any = None,
    ) -> TaskOutcome:
        """Create a task as `create` does, wait for it as `wait` does, and save its images.

        Cancelling the call lets nothing that is paid for go in silence: the log names the task, at
        WARNING.

        Args:
            order: What is wanted.
            timeout: The longest time from the call to the task's success, in s; None waits for
                ever. By default the policy's. A create is never cut short by it.
            save_to: Where to save the images, as `save` does. It is tried before anything is paid.
            watermarked: Whether to save the copies with the watermark instead.
            overwrite: Whether to replace what is there under their names.
            expect_callback: How long the first query waits for `nudge`, in s, as with `wait`; by
                default 60 s where the order has a ``callback_url``; with a book, for
                `TaskBook.nudge`.
            book: Where the task is kept, as with `create`. While it waits, this session works the
                book. The outcome is for this call alone, and acknowledged when it returns or
                raises; after a crash, a cancellation or the deadline it comes out at the readers
                of the book.
            note: What the book keeps with the task, as `TaskBook.add` does.

        Returns:
            An outcome that is ok, with its task, its order and what was saved.

        Raises:
            CreateUncertainError: Nobody knows whether there is a task; never just send it again.
            TaskFailedError: The API said that the task failed; the text is its reason.
            PollTimeoutError: The deadline passed; wait for its ``task_id`` again.
            DownloadError: An image was not saved; save the task again.
            KlingOmniError: All else that `create`, `wait` and `save` raise. Once the task is
                created, its ``task_id`` names it.
        """
        self._ready()
        order, limit, began = require_order(order), self._time_limit(timeout), _now()
        expects = require_timeout(expect_callback, "expect_callback")
        _require_place(note, book)
        with self._wings.door.trace("kling_omni.generate") as trace:
            plan = None
            if save_to is not None:
                wing = self._wings.saving_wing()
                plan = await wing.tried_plan(save_to, watermarked=watermarked, overwrite=overwrite)
            deadline = None if limit is None else began + limit
            self._ready()  # it may have been closed while the store was tried
            wish = _Wish(order, plan, deadline, expects, trace)
            if book is None:
                outcome = await self._generate(
                    wish, ResultWaiter(added=began, deadline=deadline, trace=trace)
                )
            else:
                outcome = await self._generate_in(book, note, wish)
        return attrs.evolve(outcome, elapsed=_now() - began, order=order)

    async def _generate(self, wish: _Wish, waiter: ResultWaiter) -> TaskOutcome:
        creator = self._wings.creating_wing()
        task, external_id = await creator.create(wish.order)
        try:
            wish.created(task)
            task = await self._followed(task, waiter, expected_s(wish.order, wish.expects))
            saved = await self._save_by(task, wish.plan)
        except KlingOmniError as error:
            error.task_id = task.task_id
            raise
        except BaseException:
            creator.name_left(task, external_id)
            raise
        return TaskOutcome(
            task_id=task.task_id,
            task=task,
            saved=saved,
            queries=waiter.queries,
            external_task_id=external_id,
        )

    async def _generate_in(self, book: TaskBook, note: object, wish: _Wish) -> TaskOutcome:
        """Create a task in a book, and bring its outcome out of that."""
        async with self._wings.readers_of_own().at(_require_book(book)) as reader:
            ledger = await self._ledger_in(book, note, expects=wish.expects, reader=reader)
            creator = self._wings.creating_wing()
            task, external_id = await creator.create(wish.order, ledger=ledger)
            wish.created(task)
            try:
                async with reader.own(task.task_id) as own:
                    outcome = await own.outcome(wish.left_s())
                    saved = await self._save_by(outcome.result(), wish.plan)
            except KlingOmniError as error:
                error.task_id = task.task_id
                raise
        return attrs.evolve(outcome, saved=saved, external_task_id=external_id)

    async def _save_by(self, task: ImageTask, plan: SavePlan | None) -> tuple[SavedImage, ...]:
        return () if plan is None else await self._wings.saving_wing().save_by(task, plan)

    async def _followed(
        self, task: ImageTask, waiter: ResultWaiter, expects: float | None
    ) -> ImageTask:
        """Wait for a task that was just created; a create can be answered with a failed one."""
        verdict = verdict_on(task)
        if verdict.kind is VerdictKind.FINAL:
            return _succeeded(verdict)
        return await self._final(self._ready(), task.task_id, waiter, expects)

    def generate_many(
        self,
        orders: Orders,
        *,
        max_tasks: int | None = None,
        timeout: float | None = POLICY_TIMEOUT,
        save_to: StoreLike | None = None,
        watermarked: bool = False,
        overwrite: bool = False,
        expect_callback: float | None = None,
        book: TaskBook | None = None,
        note: Any = None,
    ) -> OutcomeStream:
        """Create many tasks, as many at a time as the account takes, and hand each out once.

        A task holds ``n`` places of the account's concurrency until its end. How many there are is
        found out by the API's refusals, which cost nothing: an order that is refused so is sent
        again when there is room. Leaving the stream creates nothing more; tasks that were created
        and not handed out are named by the log, at WARNING.

        Args:
            orders: An iterable or async iterable of `ImageOrder`, which is read one ahead.
            max_tasks: The most places that this stream takes; None for no limit of its own.
            timeout: The longest time for each order from its first create until it is taken, and
                for each task from the start of its first query, in s; None for no end. By default
                the policy's. With a book tasks have the time of the book's policy instead.
            save_to: Where to save the images of each task before its outcome comes out.
            watermarked: Whether to save the copies with the watermark instead.
            overwrite: Whether to replace what is there under their names.
            expect_callback: How long the first query of each task waits for `nudge`, in s, as with
                `generate`.
            book: Where each task is kept, as with `create`; this session works the book as long as
                the stream is open, by the book's policy. Outcomes of tasks are for this stream
                alone, and acknowledged as those of any stream of a book. What was not acknowledged
                when the stream is left, after a crash too, comes out at the readers of the book;
                so does what became of a create that is in doubt.
            note: What the book keeps with each task, as `TaskBook.add` does.

        Returns:
            An async iterator and async context manager of `TaskOutcome`, each with its ``order``
            and ``external_task_id``. An order that could not be created has the ``task_id`` "".
            Its ``pending`` holds external ids. With a book it is entered by ``async with``, and has
            one consumer.

        Raises:
            ConfigurationError: ``orders`` is one order or nothing that can be iterated, or an
                option cannot be used; the text says why.
        """
        given = require_orders(orders)
        _require_place(note, book)
        expects = require_timeout(expect_callback, "expect_callback")
        kept = None if book is None else self._kept_orders(book, note, expects)
        return self._order_stream(
            given,
            max_tasks=require_max_tasks(max_tasks),
            timeout=timeout,
            outlet=self._wings.outlet(save_to, watermarked=watermarked, overwrite=overwrite),
            expects=expects,
            ledger=kept,
            kept=kept,
        )

    def _kept_orders(self, book: TaskBook, note: object, expects: float | None) -> KeptOrders:
        """Return what a stream of orders has in a book."""
        book = _require_book(book)
        from ._book.forms import note_to_json  # noqa: PLC0415 - not for those who only poll
        from ._book.kept import KeptOrders  # noqa: PLC0415 - as above

        note_to_json(note)  # what cannot be kept is told here

        async def make_ledger(reader: OwnReader) -> BookLedger:
            return await self._ledger_in(book, note, expects=expects, reader=reader)

        return KeptOrders(self._wings.engine, self._wings.readers_of_own, book, make_ledger)

    def _order_stream(
        self,
        orders: Orders | AsyncIterable[NamedOrder],
        *,
        max_tasks: int | None,
        timeout: float | None,
        outlet: Outlet,
        expects: float | None = None,
        ledger: Ledger | None = None,
        kept: KeptOrders | None = None,
    ) -> OutcomeStream:
        from ._creating.stream import OrderStream  # noqa: PLC0415 - not for those who only poll

        if kept is not None:
            from ._book.kept import KeptOutlet  # noqa: PLC0415 - as above

            outlet = KeptOutlet(outlet, kept)
        state = OrderStream(
            orders,
            timeout=self._time_limit(timeout),
            outlet=outlet,
            namespace=self._settings.namespace,
            most_slots=max_tasks,
            rng=Random(),
            expects=expects,
            ledger=ledger,
            kept=kept,
        )
        origin = OF_ORDERS if kept is None else OF_KEPT_ORDERS
        return OutcomeStream(self._ordering_wing, state, origin=origin)

    async def recover(self, external_task_id: str) -> ImageTask | None:
        """Look for a task by the external id under which it was created, by one GET.

        Args:
            external_task_id: As in a `CreateUncertainError`, a `TaskOutcome` or the log.

        Returns:
            The task, whatever its status, or None where the API knows none.

        Raises:
            InvalidTaskIdError: The id cannot be one; nothing was sent.
            ApiError: The API said no otherwise.
            ResponseError: What answered was not the API, or is about another task.
            TransportError: Nothing answered.
            SessionClosedError: The session was closed.
            WrongLoopError: The session belongs to another event loop.
        """
        self._ready()
        return await self._wings.creating_wing().recover(require_id(external_task_id))

    def nudge(self, task: str | CallbackHint) -> bool:
        """Say that a task may have changed: it is asked for as soon as its pause allows.

        For an endpoint that gets the API's callbacks: nothing of a callback is believed but that
        it is worth asking. However many come, an id is never asked for sooner than the shortest
        pause after its last query.

        Args:
            task: The id, or what `read_callback` made of a callback.

        Returns:
            Whether it is asked for, as somebody waits for it, or as this session has created it
            within the last hour, and then it counts when somebody does. False too for a hint whose
            status is not final.

        Raises:
            InvalidTaskIdError: The id cannot be one.
            SessionClosedError: The session was closed.
            WrongLoopError: The session belongs to another event loop.
        """
        poller = self._ready()
        if isinstance(task, CallbackHint):
            return task.status in FINAL_STATUS and poller.nudge(task.task_id)
        return poller.nudge(require_id(task))

    def peek(self, task_id: str) -> ImageTask | None:
        """Return the last that is known of a task; nothing is asked, and nothing waited for.

        Args:
            task_id: As the create answer gave it.

        Returns:
            The task as the last answer described it, or None where nobody has waited for it
            lately, or nothing has come yet.

        Raises:
            InvalidTaskIdError: The id cannot be one.
            SessionClosedError: The session was closed.
            WrongLoopError: The session belongs to another event loop.
        """
        return self._ready().peek(require_id(task_id))

    def stats(self) -> SessionStats:
        """Return what the session is doing, in numbers; cheap at a million ids.

        Raises:
            SessionClosedError: The session was closed.
            WrongLoopError: The session belongs to another event loop.
        """
        stats = self._ready().stats()
        saving = self._wings.saving.active if self._wings.saving else 0
        creating = self._wings.creator.active if self._wings.creator else 0
        return attrs.evolve(stats, saving=saving, creating=creating)

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
        self._ready()
        await self._wings.import_saving(store)
        return await self._wings.saving_wing().save(
            task, store, watermarked=watermarked, overwrite=overwrite
        )

    async def aclose(self) -> None:
        """Close the session: whoever waits gets `SessionClosedError`; more calls do no harm.

        Raises:
            WrongLoopError: The session runs in another event loop.
        """
        await self._wings.engine.aclose()

    def __del__(self) -> None:
        """End the polling of a session that nobody can use any more."""
        wings = getattr(self, "_wings", None)
        if wings is not None and not wings.engine.closed:
            wings.engine.call_from_anywhere(wings.engine.cancel)

    if not TYPE_CHECKING:  # pragma: no branch - a type checker refuses it better by itself
        __enter__ = __exit__ = refusal(
            "a session needs `async with`; write: async with KlingOmniSession() as session:"
        )

    async def __aenter__(self) -> Self:
        self._ready()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    # What streams and works keep, and with it the session that makes what they need.

    def _ready(self) -> Poller:
        """Return the poller to a verb, bound to the running loop."""
        return self._wings.ready()

    def _ordering_wing(self) -> Ordering:
        return self._wings.ordering_wing()

    def _book_worker(self, timeout: float | None, inside: OpenBook) -> Worker:
        return self._wings.book_worker(timeout, inside)

    def _poll_book(
        self, book: TaskBook, limit: float | None, saving: Outlet | None, *, until_empty: bool
    ) -> OutcomeStream:
        """Return a stream of a book that is polled as long as it is read."""
        from ._book.book import FROM_POLLED_BOOK, host_of, reading_of  # noqa: PLC0415 - as above

        reading = reading_of(
            book,
            partial(self._book_worker, limit),
            saving=saving,
            most_saving=self._settings.policy.max_downloads,
            until_empty=until_empty,
        )
        return OutcomeStream(partial(host_of, book), reading, origin=FROM_POLLED_BOOK)

    def _time_limit(self, timeout: float | None) -> float | None:
        if timeout is POLICY_TIMEOUT:
            return self._settings.policy.timeout
        return require_timeout(timeout)


def _succeeded(result: Verdict | Ending) -> ImageTask:
    if not isinstance(result, Verdict):
        raise result  # a copy, made for this caller
    if result.error is not None:
        raise copy_error(result.error)  # shared by all who wait for the id
    assert result.task is not None  # noqa: S101 - a verdict without error has one
    return result.task


def _now() -> float:
    return asyncio.get_running_loop().time()


def _time_of_call() -> float | None:
    """Give the loop's time, or None where `watch` is called before a loop runs."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return None


def is_book(given: object) -> TypeIs[TaskBook]:
    """Whether an argument is a book; whoever has one has imported its class."""
    module = sys.modules.get(f"{__package__}._book.book")
    return module is not None and isinstance(given, module.TaskBook)


@attrs.frozen
class _Wish:
    """What one call of `generate` wants."""

    order: ImageOrder
    plan: SavePlan | None
    deadline: float | None  # in s of the loop
    expects: float | None
    trace: Trace | None

    def created(self, task: ImageTask) -> None:
        if self.trace is not None:
            self.trace.of(task.task_id)

    def left_s(self) -> float | None:
        return None if self.deadline is None else max(0.0, self.deadline - _now())


def _require_place(note: object, book: TaskBook | None) -> None:
    if note is not None and book is None:
        raise ConfigurationError("a note is kept in a book; write book=… too")


def _require_book(given: object) -> TaskBook:
    if is_book(given):
        return given
    raise ConfigurationError(
        f"book must be a TaskBook, not {type(given).__name__}; write: book=TaskBook('tasks.db')"
    )


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
