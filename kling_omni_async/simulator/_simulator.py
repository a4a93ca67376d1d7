"""The simulator itself: what a test or a demo does with it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from ._clock import Clock
from ._connections import Connections
from ._faults import Body, Fault, FaultPlan, On
from ._gateway import USUAL_UNITS, Gateway
from ._handler import Handler
from ._image_controls import ImageControls
from ._image_handler import ImageHandler
from ._log import Query, RequestLog
from ._settings import Settings, drawn_key
from ._site import Site
from ._tasks import SimulatedTask


class SimulatedCometAPI(ImageControls):
    """CometAPI's Kling Omni image routes on a local port, without keys, money or waiting.

    A real HTTP server in the running event loop. Use ``async with``, or :meth:`start` and
    :meth:`aclose`, which may run in different tasks. After :meth:`aclose` it can be started again
    in the same loop: it comes back on the same port with the tasks it had, like a gateway that
    restarts. The same seed and the same order of calls give the same ids, durations and images.

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
    ) -> None:
        settings = Settings(
            seed=seed,
            time_scale=time_scale,
            api_key=drawn_key(seed) if api_key is None else api_key,
            host=host,
            port=port,
            latency=latency,
            wrapped=wrapped,
            epoch=datetime.now(UTC) if epoch is None else epoch,
            log_size=log_size,
        )
        self._settings = settings
        self._clock = Clock(scale=time_scale)
        self._gateway = Gateway(seed=seed, epoch_ms=settings.epoch_ms, wrapped=wrapped)
        super().__init__(self._gateway.tasks, log_size=log_size)
        self._faults = FaultPlan[Fault]()
        self._log = RequestLog[Query](size=log_size)
        self._connections = Connections()
        images = ImageHandler(
            seed=seed,
            clock=self._clock,
            tasks=self._gateway.tasks,
            faults=self._image_faults,
            log=self._image_log,
        )
        handler = Handler(
            api_key=settings.api_key,
            latency=latency,
            clock=self._clock,
            gateway=self._gateway,
            faults=self._faults,
            log=self._log,
            images=images,
            connections=self._connections,
        )
        self._site = Site(handler.handle, self._connections, host=host, port=port)

    async def start(self) -> None:
        """Start to listen.

        Raises:
            RuntimeError: It runs already.
            OSError: The port is taken.
        """
        await self._site.start()
        self._clock.start()

    async def aclose(self) -> None:
        """Stop at once: queries in flight are dropped. Closing twice does no harm."""
        await self._site.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        state = self._site.url if self._site.running else "not running"
        tasks, asked = len(self._gateway.tasks), self._log.begun
        return f"<SimulatedCometAPI {state}, {tasks} tasks, {asked} queries>"

    @property
    def base_url(self) -> str:
        """The address to give to a client, such as ``http://127.0.0.1:49152``.

        Raises:
            RuntimeError: It has never been started.
        """
        self._clock.now()
        return self._site.url

    @property
    def api_key(self) -> str:
        """The key that is accepted."""
        return self._settings.api_key

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

        Returns:
            Its id, 18 decimal digits when drawn.

        Raises:
            RuntimeError: The simulator has never been started.
            TypeError: An argument is of a wrong type.
            ValueError: A number is too small, or ``task_id`` is empty or taken.
        """
        tasks, now = self._gateway.tasks, self._clock.now()
        task = SimulatedTask(
            task_id=tasks.new_id() if task_id is None else task_id,
            created=now,
            duration=tasks.new_duration(fails=fail is not None) if duration is None else duration,
            images=images,
            reason=fail,
            series=series,
            watermarked=watermarked,
            wrapped=self._settings.wrapped if wrapped is None else wrapped,
            external_task_id=external_task_id,
            units=units,
            image_bytes=image_bytes,
            signed=signed,
        )
        tasks.add(task)
        return task.task_id

    def finish(self, task_id: str) -> None:
        """Make a task finish now.

        Raises:
            KeyError: There is no such task.
        """
        self._gateway.tasks.finish(task_id, self._clock.now())

    def expire(self, task_id: str) -> None:
        """Make a task unknown from now on, and its images gone.

        Raises:
            KeyError: There is no such task.
        """
        self._gateway.tasks.remove(task_id)

    def fail_next(
        self,
        task_id: str | None = None,
        *,
        times: int | None = 1,
        status: int | None = None,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
        retry_after: float | str | None = None,
        not_found: bool = False,
        malformed: bool = False,
        cut_after: int | None = None,
        bytes_per_second: float | None = None,
        delay: float = 0.0,
        hang: bool = False,
        reset: bool = False,
        raw: bytes | None = None,
        on: On = "any",
    ) -> None:
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
            malformed: Send only the first half of the body, as if it were whole.
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
        fault = Fault(
            status=status,
            body=body,
            headers=headers,
            retry_after=retry_after,
            not_found=not_found,
            malformed=malformed,
            cut_after=cut_after,
            bytes_per_second=bytes_per_second,
            delay=delay,
            hang=hang,
            reset=reset,
            raw=raw,
            on=on,
        )
        self._faults.add(task_id, fault, times)

    def clear_faults(self, task_id: str | None = None) -> None:
        """Drop the faults planned for one id, or all faults when None."""
        self._faults.clear(task_id)

    @property
    def queries(self) -> tuple[Query, ...]:
        """The last queries in order of arrival, those in flight included."""
        return self._log.all()

    def queries_of(self, task_id: str) -> tuple[Query, ...]:
        """Return the last queries of one id, in order of arrival."""
        return self._log.of(task_id)

    def gaps(self, task_id: str | None = None) -> list[float]:
        """Measure the pauses between queries of one id, or of every id.

        Args:
            task_id: The id; None for the pauses of all, each id by itself.

        Returns:
            Seconds of the event loop's clock from the end of each query to the start of the next
            one of the same id; below zero if they overlapped.
        """
        return self._log.gaps(task_id)

    async def wait_for_queries(self, count: int = 1, task_id: str | None = None) -> None:
        """Wait until so many queries have arrived, answered or not.

        Args:
            count: How many queries the log must hold.
            task_id: The id that they must ask for; None for any.
        """
        await self._log.arrivals(count, task_id)

    @property
    def in_flight(self) -> int:
        """How many queries are being answered at this moment."""
        return self._log.in_flight

    @property
    def in_flight_peak(self) -> int:
        """How many queries have been in flight together, at most.

        Answers take no time unless ``latency`` or a fault says so.
        """
        return self._log.in_flight_peak

    @property
    def connections_opened(self) -> int:
        """How many TCP connections have carried a request."""
        return self._connections.opened
