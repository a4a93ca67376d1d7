"""The simulator itself: what a test or a demo does with it."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from attrs import AttrsInstance, fields

from ._control import NAMES
from ._faults import CreateFault, Fault, ImageFault, by_fields
from ._log import BilledTask, ImageRequest, Query
from ._server import Handler, Site
from ._settings import Callbacks, Duplicates, Settings
from ._tasks import USUAL_UNITS, Expiry, SimulatedTask
from ._thread import Home


class SimulatedCometAPI:
    """CometAPI's Kling Omni image routes on a local port, without keys, money or waiting.

    A real HTTP server in the running event loop. Use ``async with``, or :meth:`start` and
    :meth:`aclose`, which may run in different tasks. Outside of asyncio use ``with``: it runs the
    server in a thread and a loop of its own, which are ended and joined on leaving, and its
    methods can be called from any thread. After its end it can be started again: it comes back on
    the same port with the tasks it had, like a gateway that restarts. The same seed and the same
    order of calls give the same ids, durations and images.

    Args:
        seed: A whole number that decides everything that is drawn.
        time_scale: How many times faster than the event loop's clock tasks run. It does not
            change delays: ``latency`` and those of :meth:`fail_next`.
        api_key: The only key that is accepted; drawn from the seed when None.
        host: The address to listen on. Another one than loopback lets other machines in: only
            for a container of its own.
        port: The port to listen on; 0 lets the system choose one.
        latency: Seconds between the arrival of a query and its answer.
        wrapped: Whether tasks answer in the older wrapped form unless they say otherwise.
        epoch: The date, with time zone, that the simulator starts at; None for now.
        log_size: How many queries are remembered, and how many requests for images.
        slots: The account's concurrency: a task that a request has made holds as many as its
            ``n`` until its end, and a create over it is refused with 429 and vendor code 1303;
            None for no limit.
        duplicates: What becomes of a create whose ``external_task_id`` is known: ``"refused"``, as
            the vendor does, ``"wrapped"``, with every refusal of the vendor as JSON in a gateway's
            message, or ``"accepted"``, so that it makes a second task.
        by_external_id: Whether a query may name a task by its ``external_task_id``.
        callbacks: How a task with a ``callback_url`` on this machine tells of each change of its
            status: ``"once"``, ``"repeated"``, ``"shuffled"`` (all at the end, twice, the last
            word first) or ``"none"``. No other machine is ever called.
        refresh: How often the gateway asks its provider for tasks, in simulated seconds: until then
            a task looks as it did. Real ones do every 15 s; 0 shows each change at once.
        durations: Draws how many simulated seconds a task takes of which nobody says so.
        control: Whether another process that has the key may call some of these methods, by
            ``POST /simulator``.

    Raises:
        TypeError: An argument is of a wrong type.
        ValueError: An argument has a value that makes no sense.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        time_scale: float = 1.0,
        api_key: str | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        latency: float = 0.0,
        wrapped: bool = False,
        epoch: datetime | None = None,
        log_size: int = 100_000,
        slots: int | None = None,
        duplicates: Duplicates = "refused",
        by_external_id: bool = True,
        callbacks: Callbacks = "once",
        refresh: float = 0.0,
        durations: Callable[[random.Random], float] | None = None,
        control: bool = False,
    ) -> None:
        # one that nobody takes for a real key
        drawn = f"sk-simulated-{random.Random(f'key {seed}').getrandbits(128):032x}"
        api_key = drawn if api_key is None else api_key
        # In whole seconds, as ``Date`` headers are: with one seed all runs are alike.
        epoch = datetime.now(UTC).replace(microsecond=0) if epoch is None else epoch
        self._handler = Handler(Settings(**_fields_of(Settings, locals())))
        self._queries = self._handler.queries
        self._images = self._handler.images
        self._clock = self._handler.clock
        self._tasks = self._handler.gateway.tasks
        self._site = Site(self._handler, host, port)
        self._home = Home()
        if control:
            self._handler.calls = {name: getattr(self, name) for name in NAMES}

    async def start(self) -> None:
        """Start to listen.

        Raises:
            RuntimeError: It runs already.
            OSError: The port is taken.
        """
        # a clock that ran already goes on: after a restart tasks are as old as they are
        await self._site.start()
        self._clock.start()

    async def aclose(self) -> None:
        """Stop at once: queries in flight are dropped. Closing twice does no harm."""
        await self._home.wait(self._site.aclose)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __enter__(self) -> Self:
        self._home.enter(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._home.leave(kind, error, traceback)

    def __repr__(self) -> str:
        state = "not running" if self._site.runner is None else self._site.url
        asked = self._queries.log.begun
        return f"<SimulatedCometAPI {state}, {len(self._tasks.by_id)} tasks, {asked} queries>"

    @property
    def base_url(self) -> str:
        """The address to give to a client, such as ``http://127.0.0.1:49152``.

        Raises:
            RuntimeError: It has never been started.
        """
        # raises before the first start: a port of 0 is no address
        self._clock.now()
        return self._site.url

    @property
    def api_key(self) -> str:
        """The key that is accepted."""
        return self._handler.settings.api_key

    def create_task(
        self,
        *,
        duration: float | None = None,
        images: int = 1,
        fail: str | None = None,
        series: bool = False,
        watermarked: bool = False,
        wrapped: bool | None = None,
        external_task_id: str | None = None,
        units: str | None = USUAL_UNITS,
        task_id: str | None = None,
        image_bytes: int | None = None,
        signed: bool = False,
        callback_url: str | None = None,
    ) -> str:
        """Create a task that starts now.

        Args:
            duration: Simulated seconds until it finishes; ``math.inf`` for never. When None, 24
                to 41 s, or 1.7 s for a task that fails (seen in published answers).
            images: How many images it makes; 0 for a success without any.
            fail: The reason why it fails, such as ``"Image pixel is invalid"``; None if it
                succeeds. A failed task answers code 0 and message SUCCEED, as the real one does.
            series: Whether the images come as a series.
            watermarked: Whether each image comes with a watermarked copy.
            wrapped: Whether it answers in the older wrapped form; None for the simulator's usual.
            external_task_id: The caller's own name for it.
            units: What it costs, shown once it has succeeded; None leaves it out.
            task_id: The id to use; drawn when None.
            image_bytes: The size of each image's file, from 89 up; some kB when None. Big files
                are sent piece by piece and take no memory.
            signed: Whether image URLs carry a signature in their query, which has to arrive byte
                for byte: any other query is refused with 403.
            callback_url: Where it tells of each change of its status; only URLs of this machine
                are called.

        Returns:
            Its id, 18 decimal digits when drawn.

        Raises:
            RuntimeError: The simulator has never been started.
            TypeError: An argument is of a wrong type.
            ValueError: A number is too small, or ``task_id`` is empty or taken.
        """
        chosen = _fields_of(SimulatedTask, locals())
        return self._home.call(self._tasks.create, self._clock.now(), **chosen).task_id

    def finish(self, task_id: str) -> None:
        """Make a task finish now.

        Raises:
            KeyError: There is no such task.
        """
        self._home.call(self._tasks.finish, task_id, self._clock.now())

    def expire(self, task_id: str) -> None:
        """Make a task unknown from now on, and its images gone.

        Raises:
            KeyError: There is no such task.
        """
        self._home.call(self._tasks.by_id.__delitem__, task_id)

    @by_fields(Fault)
    def fail_next(self, fault: Fault) -> None:  # noqa: D417 - its arguments are the fields
        """Spoil the next queries of one id, or of any.

        Faults of one id come before those of any, and each in the order they were planned;
        standing ones (``times=None``) come last. What is not spoilt is as the task has it: with
        ``cut_after=20`` alone, the true answer is cut.

        Args:
            task_id: The id, known or not; None for whichever is asked for next.
            times: How many queries are spoilt; None for all until :meth:`clear_faults`.
            status: The HTTP status, 200 to 999, with the body that usually comes with it.
            body: The body instead; a mapping is sent as JSON.
            headers: Headers to add or to replace.
            retry_after: Seconds or an HTTP date for ``Retry-After``; the status is then 429
                unless another one is given.
            not_found: Answer ``task_not_exist`` although the task may exist.
            html: Answer with a web page under status 200.
            malformed: Send only the first half of the body, as if it were whole.
            redirect_to: Redirect to this URL, as it stands.
            content_length: Announce this many bytes of body, send the true body, then close. What
                is more than was announced comes 0.1 s later.
            cut_after: Announce the whole body, send this many bytes of it, then close.
            bytes_per_second: Send the body this slowly, ten pieces a second.
            delay: Seconds until anything else happens.
            hang: Never answer; it ends when the client leaves or the simulator closes.
            reset: Reset the TCP connection instead of an answer. aiohttp's client asks once more
                by itself when a GET meets that, on a fresh connection too: only ``times=2``
                makes it an error there.
            raw: Write these bytes as they are, then close: for answers that are not HTTP.
            on: Only queries on a ``"fresh"`` connection, or on one that was ``"reused"``, or
                ``"any"``; the others are left alone and do not count.

        Raises:
            TypeError: An argument is of a wrong type.
            ValueError: A value makes no sense, two arguments contradict each other, or nothing
                was said that goes wrong.
        """
        self._home.call(self._queries.faults.add, fault)

    def clear_faults(self, task_id: str | None = None) -> None:
        """Drop the faults planned for one id, or all faults when None."""
        self._home.call(self._queries.faults.clear, task_id)

    @by_fields(CreateFault)
    def fail_next_create(self, fault: CreateFault) -> None:  # noqa: D417 - as `fail_next`
        """Spoil the next create requests.

        The order is that of :meth:`fail_next`, and so are the arguments that are not explained
        here.

        Args:
            task_id: The external id of the order; None for whichever comes next.
            times: How many create requests are spoilt; None for all until :meth:`clear_creates`.
            created: Whether the task is made, and billed, before the answer is spoilt: True for
                an answer that is lost, False for a request that never came so far. When None it
                is made where its true answer is what gets spoilt.
            delay: Seconds until anything else happens, the making of the task too.

        Raises:
            TypeError: An argument is of a wrong type.
            ValueError: A value makes no sense, two arguments contradict each other, or nothing
                was said that goes wrong.
        """
        self._home.call(self._handler.creates.add, fault)

    def clear_creates(self) -> None:
        """Drop the faults planned for create requests."""
        self._home.call(self._handler.creates.clear, None)

    @property
    def billed(self) -> tuple[BilledTask, ...]:
        """The last tasks that create requests have made, in the order of their creation."""
        return self._home.call(self._handler.gateway.bills)

    @property
    def queries(self) -> tuple[Query, ...]:
        """The last queries in order of arrival, those in flight included."""
        return self._home.call(self._queries.log.all)

    def queries_of(self, task_id: str) -> tuple[Query, ...]:
        """Return the last queries of one id, in order of arrival."""
        return self._home.call(self._queries.log.of, task_id)

    def gaps(self, task_id: str | None = None) -> list[float]:
        """Measure the pauses between queries of one id, or of every id.

        Args:
            task_id: The id; None for the pauses of all, each id by itself.

        Returns:
            Seconds of the event loop's clock from the end of each query to the start of the next
            one of the same id; below zero if they overlapped.
        """
        return self._home.call(self._queries.log.gaps, task_id)

    async def wait_for_queries(self, count: int = 1, task_id: str | None = None) -> None:
        """Wait until so many queries have arrived, answered or not.

        Args:
            count: How many queries the log must hold.
            task_id: The id that they must ask for; None for any.
        """
        await self._home.wait(self._queries.log.arrivals, count, task_id)

    @property
    def in_flight(self) -> int:
        """How many queries are being answered at this moment."""
        return self._queries.log.in_flight

    @property
    def in_flight_peak(self) -> int:
        """How many queries have been in flight together, at most.

        Answers take no time unless ``latency`` or a fault says so.
        """
        return self._queries.log.in_flight_peak

    @property
    def connections_opened(self) -> int:
        """How many TCP connections have carried a request."""
        return self._handler.connections.opened

    @by_fields(ImageFault)
    def fail_next_image(self, fault: ImageFault) -> None:  # noqa: D417 - its arguments are the fields
        """Spoil the next requests for images of one task, or of any.

        The order is that of :meth:`~SimulatedCometAPI.fail_next`, and so are the arguments that
        are not explained here. What follows from a redirect meets no fault.

        Args:
            task_id: The task, known or not; None for whichever is asked for next.
            times: How many requests are spoilt; None for all until :meth:`clear_image_faults`.
            index: The only image that is spoilt, from 0; None for any image.
            redirects: How many redirects, each to another path, lead to the true image.
            size: Answer with a PNG file of this many bytes, whether the image is there or not.

        Raises:
            TypeError: An argument is of a wrong type.
            ValueError: A value makes no sense, two arguments contradict each other, or nothing
                was said that goes wrong.
        """
        self._home.call(self._images.faults.add, fault)

    def clear_image_faults(self, task_id: str | None = None) -> None:
        """Drop the faults planned for the images of one task, or of all when None."""
        self._home.call(self._images.faults.clear, task_id)

    def expire_images(self, task_id: str | None = None, *, status: int = 404) -> None:
        """Make the images of a task unavailable for good; the task itself still answers.

        Args:
            task_id: The task; None for every task that exists now.
            status: The HTTP status that they answer with, 200 to 999; 403 comes with a body in
                XML, the others with none.

        Raises:
            KeyError: There is no such task.
            TypeError: ``status`` is no whole number.
            ValueError: ``status`` is out of range.
        """
        self._home.call(self._tasks.expire_images, task_id, Expiry(status))

    @property
    def image_requests(self) -> tuple[ImageRequest, ...]:
        """The last requests for images in order of arrival, those in flight included."""
        return self._home.call(self._images.log.all)

    def image_requests_of(self, task_id: str) -> tuple[ImageRequest, ...]:
        """Return the last requests for images of one task, in order of arrival."""
        return self._home.call(self._images.log.of, task_id)

    async def wait_for_image_requests(self, count: int = 1, task_id: str | None = None) -> None:
        """Wait until so many requests for images have arrived, answered or not.

        Args:
            count: How many requests the log must hold.
            task_id: The task whose images they must ask for; None for any.
        """
        await self._home.wait(self._images.log.arrivals, count, task_id)

    @property
    def image_downloads_peak(self) -> int:
        """How many requests for images have been in flight together, at most.

        A file up to 64 KiB takes no time unless a fault says so.
        """
        return self._images.log.in_flight_peak


def _fields_of(record: type[AttrsInstance], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Pick the arguments of a method that are fields of a record by the same names."""
    # spelt once more each, as `status=status`, they would be a third list to keep in step
    names = (each.name for each in fields(record))
    return {name: arguments[name] for name in names if name in arguments}
