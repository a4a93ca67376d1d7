"""The HTTP server: from a request to an answer that reaches its client, or fails to."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from email.utils import formatdate
from itertools import chain
from typing import Generic, TypeAlias
from weakref import WeakKeyDictionary

from aiohttp import web
from attrs import define, evolve, field, frozen

from ._callbacks import CallbackSender
from ._control import PATH, Calls, obey
from ._create import external_id_in
from ._faults import CreateFault, F, Fault, FaultPlan, ImageFault
from ._gateway import (
    Answer,
    Gateway,
    Json,
    carries,
    creates,
    gateway_error,
    moved,
    picture,
    queried_id,
)
from ._images import PREFIX, Content, Place, Runs, read_place, slices
from ._log import ImageRequest, Query, R, RequestLog
from ._settings import Settings
from ._tasks import SimulatedTask

Truth: TypeAlias = Callable[[], Awaitable[Answer]]

_LARGEST_REQUEST = 256 * 1024 * 1024  # bytes; ten images in base64
_LARGEST_PIECE = 2**16  # bytes; what waits in memory for a client that reads slowly
_PIECES_A_SECOND = 10
_PAUSE = 0.1  # seconds
# To listen on all addresses is to be called on loopback.
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - names an address to call


@define(eq=False)
class Clock:
    """Simulated seconds: those of an event loop since the first start, times a factor."""

    _scale: float
    _loop: asyncio.AbstractEventLoop | None = None
    _origin: float = 0.0

    def start(self) -> None:
        """Count by the running loop from now on, or go on where the last one stopped."""
        loop = asyncio.get_running_loop()
        age = 0.0 if self._loop is None else self._loop.time() - self._origin
        self._loop, self._origin = loop, loop.time() - age

    def loop_time(self) -> float:
        """Return the seconds of the event loop's clock."""
        if self._loop is None:
            raise RuntimeError("start it first: with SimulatedCometAPI() as api: ...")
        return self._loop.time()

    def now(self) -> float:
        """Return the simulated seconds since the first start."""
        return (self.loop_time() - self._origin) * self._scale

    def until(self, moment: float) -> float:
        """Return the seconds of the event loop's clock until a simulated time."""
        return (moment - self.now()) / self._scale


@define(eq=False)
class Connection:
    """One TCP connection, its place among all, and how many requests have come on it."""

    number: int
    transport: asyncio.Transport | None  # the way to close it
    requests: int = 0

    @property
    def reused(self) -> bool:
        """Whether it has carried a request before this one."""
        return self.requests > 1


@define(eq=False)
class Connections:
    """All connections that are open, and how many there have been."""

    opened: int = 0
    # aiohttp serves each connection from one task, as long as it lives
    _open: WeakKeyDictionary[asyncio.Task[None], Connection] = field(
        factory=WeakKeyDictionary["asyncio.Task[None]", Connection]
    )

    def note(self, request: web.Request) -> Connection:
        """Count a request, and return the connection that it came on."""
        newcomer = Connection(self.opened + 1, request.transport)
        connection = self._open.setdefault(request.task, newcomer)
        self.opened = max(self.opened, connection.number)
        connection.requests += 1
        return connection

    def abort(self) -> set[asyncio.Task[None]]:
        """Drop every connection, and return the tasks that end soon because of it."""
        for connection in self._open.values():
            if connection.transport is not None:
                connection.transport.abort()
        return set(self._open)


@frozen
class Kind(Generic[R, F]):
    """One kind of requests: what was asked, what is to go wrong, and how late answers are."""

    log: RequestLog[R]
    faults: FaultPlan[F]
    latency: float = 0.0


class Handler:
    """Answers every request of one simulator: fault, log, delay, truth, delivery."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.clock = Clock(settings.time_scale)
        self.gateway = Gateway(settings)
        self.connections = Connections()
        # queries and images share every mechanism, but neither their faults nor their logs
        size = settings.log_size
        self.queries = Kind(RequestLog[Query](size=size), FaultPlan(Fault()), settings.latency)
        self.images = Kind(RequestLog[ImageRequest](size=size), FaultPlan(ImageFault()))
        self.creates = FaultPlan(CreateFault())
        self.origin = ""  # of images in callbacks, once it listens
        self.callbacks = CallbackSender(settings.callbacks, self._told, self.clock.until)
        self.gateway.tasks.born = self.callbacks.begin
        self.gateway.tasks.changed = self.callbacks.changed
        self.calls: Calls = {}  # what the control route offers; without any it is no route

    def _told(self, task_id: str) -> tuple[SimulatedTask, Json] | None:
        return self.gateway.told(task_id, origin=self.origin, now=self.clock.now())

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one request."""
        connection = self.connections.note(request)
        if request.raw_path.startswith(PREFIX):
            return await self._image(request, connection)
        if self.calls and (request.method, request.raw_path) == ("POST", PATH):
            return await self._control(request)
        return await self._query(request, connection)

    async def _control(self, request: web.Request) -> web.StreamResponse:
        # the key keeps pages in a browser of this machine from it
        answer = gateway_error(401, "the control route needs the simulator's key")
        if self._authorised(request):
            answer = obey(await request.read(), self.calls)
        return await Delivery(request, self.queries.faults.nothing).send(answer)

    def _authorised(self, request: web.Request) -> bool:
        return carries(self.settings.api_key, request.headers.get("Authorization", ""))

    async def _query(self, request: web.Request, connection: Connection) -> web.StreamResponse:
        is_create = creates(request.method, request.raw_path)
        # a create is known by what is in it
        body = await request.read() if is_create else b""
        query = Query(
            task_id=queried_id(request.method, request.raw_path),
            method=request.method,
            path=request.raw_path,
            authorised=self._authorised(request),
            connection=connection.number,
            started=self.clock.loop_time(),
            external_task_id=external_id_in(body) if is_create else None,
        )
        # unknown paths meet no fault: a test plans them for ids, and for creates apart
        fault: Fault = self.queries.faults.nothing
        lets_create = True
        if query.task_id is not None:
            fault = self.queries.faults.take(query.task_id, reused=connection.reused)
        elif is_create:
            fault = spoilt = self.creates.take(
                query.external_task_id or "", reused=connection.reused
            )
            lets_create = spoilt.lets_create

        async def truth() -> Answer:
            # image URLs name the host that the client knows: a port may be forwarded
            if not lets_create:
                return Answer()
            origin = f"http://{request.host}"
            now = self.clock.now()
            answer = self.gateway.answer(query, body, origin=origin, now=now)
            # By the simulated clock, as the times in the body are.
            date = formatdate(self.settings.milliseconds(now) / 1000, usegmt=True)
            return evolve(answer, headers={"Date": date, **answer.headers})

        return await self._serve(request, self.queries, query, fault, truth)

    async def _image(self, request: web.Request, connection: Connection) -> web.StreamResponse:
        place = read_place(request.raw_path)
        wanted = ImageRequest(
            task_id=None if place is None else place.task_id,
            index=None if place is None else place.index,
            watermarked=place is not None and place.watermarked,
            path=request.raw_path,
            headers=request.headers,
            connection=connection.number,
            started=self.clock.loop_time(),
        )
        # a redirect was a fault itself: what follows from it is as planned
        faults = self.images.faults
        fault = faults.nothing
        if place is not None and place.hops is None and request.method == "GET":
            fault = faults.take(place.task_id, reused=connection.reused, index=place.index)

        async def truth() -> Answer:
            return self._picture(request.method, place, fault)

        return await self._serve(request, self.images, wanted, fault, truth)

    def _picture(self, method: str, place: Place | None, fault: ImageFault) -> Answer:
        if method != "GET":
            return Answer(status=405, headers={"Allow": "GET"})
        if place is None:
            return Answer(status=404)
        if fault.redirects:
            return moved(place.via(fault.redirects - 1))
        if fault.size is not None:
            return picture(place, fault.size, seed=self.settings.seed)
        return self.gateway.image(place, now=self.clock.now())

    async def _serve(
        self, request: web.Request, kind: Kind[R, F], record: R, fault: F, truth: Truth
    ) -> web.StreamResponse:
        number = kind.log.begin(record)
        delivery = Delivery(request, fault)
        try:
            # not even a pass of the loop where nothing is to be waited for
            if delay := kind.latency + fault.delay:
                await asyncio.sleep(delay)
            return await delivery.send(fault.disguise(await truth()))
        finally:
            more = {"body_bytes": delivery.body_bytes} if isinstance(record, ImageRequest) else {}
            finished = self.clock.loop_time()
            kind.log.end(number, finished=finished, status=delivery.status, **more)


@define(eq=False)
class Delivery:
    """The way of one answer to its client, as a fault prescribes, and what has been sent."""

    request: web.Request
    fault: Fault
    status: int | None = None  # none as long as there is no answer
    body_bytes: int = 0

    async def send(self, answer: Answer) -> web.StreamResponse:
        """Send an answer; what aiohttp then sends on a connection closed here is nothing."""
        fault = self.fault
        if fault.hang:
            await asyncio.get_running_loop().create_future()  # until the connection is lost
        if fault.reset or fault.raw is not None:
            _end(self.request.transport, fault.raw)
            return web.Response()
        if fault.closes or fault.bytes_per_second is not None or isinstance(answer.body, Runs):
            return await self._stream(answer)
        self.status, self.body_bytes = answer.status, len(answer.body)
        return web.Response(status=answer.status, body=answer.body, headers=answer.headers)

    async def _stream(self, answer: Answer) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        told = self.fault.content_length
        response.content_length = told = len(answer.body) if told is None else told
        with contextlib.suppress(ConnectionError):
            await response.prepare(self.request)
            # else aiohttp drops what is more than was announced
            self.request.writer.length = None
            self.status = answer.status
            for piece in self._pieces(answer.body, told):
                # else a client takes the excess for a broken next answer
                if self.body_bytes == told:
                    await asyncio.sleep(_PAUSE)
                if self.fault.bytes_per_second is not None:
                    await asyncio.sleep(len(piece) / self.fault.bytes_per_second)
                await response.write(piece)
                self.body_bytes += len(piece)
        if self.fault.closes:
            _end(self.request.transport, b"")
        return response

    def _pieces(self, body: Content, told: int) -> Iterator[memoryview]:
        """Cut what is sent of a body into pieces, one of which ends where it was told to end."""
        cut, rate = self.fault.cut_after, self.fault.bytes_per_second
        stop = len(body) if cut is None else min(cut, len(body))
        size = _LARGEST_PIECE if rate is None else max(1, int(rate / _PIECES_A_SECOND))
        return chain(slices(body, size, 0, min(told, stop)), slices(body, size, told, stop))


def _end(transport: asyncio.Transport | None, last: bytes | None) -> None:
    """Close a connection after its last bytes; with None, reset it."""
    if transport is None:
        return
    if last is not None:
        transport.write(last)
        transport.close()
        return
    # no time to linger: the kernel sends RST instead of FIN
    linger = struct.pack("ii", 1, 0)
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    transport.abort()


@define(eq=False)
class Site:
    """One handler for all requests to a port, that starts and stops at once."""

    _handler: Handler
    _host: str
    _port: int
    runner: web.AppRunner | None = None  # none as long as it does not listen
    _ending: set[asyncio.Task[None]] = field(factory=set["asyncio.Task[None]"])

    @property
    def url(self) -> str:
        """The address that a client on this machine can use."""
        host = _EVERYWHERE.get(self._host, self._host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self._port}"

    async def start(self) -> None:
        """Listen; after the first time on the port of the first time."""
        if self.runner is not None:
            raise RuntimeError("this simulator runs already")
        app = web.Application(client_max_size=_LARGEST_REQUEST)
        app.router.add_route("*", "/{path:.*}", self._handler.handle)
        app.on_shutdown.append(self._drop)
        # cancelled handlers: a hang ends when its client leaves
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
        self.runner = runner
        try:
            await runner.setup()
            await web.TCPSite(runner, self._host, self._port).start()
        except BaseException:
            await self.aclose()
            raise
        self._port = runner.addresses[0][1]
        self._handler.origin = self.url

    async def aclose(self) -> None:
        """Stop to listen, and drop every connection."""
        runner, self.runner = self.runner, None
        if runner is None:
            return
        await self._handler.callbacks.aclose()
        await runner.cleanup()
        # aborted connections end one pass of the loop later: no task may outlive the simulator
        if self._ending:
            await asyncio.wait(self._ending)

    async def _drop(self, _: web.Application) -> None:
        # before aiohttp's own shutdown, which would wait a minute for handlers that hang
        self._ending = self._handler.connections.abort()
