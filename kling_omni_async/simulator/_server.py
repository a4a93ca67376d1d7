"""The HTTP server: from a request to an answer that reaches its client, or fails to."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeAlias
from weakref import WeakKeyDictionary

from aiohttp import web
from attrs import define, frozen

from ._answers import Answer, moved, picture
from ._faults import NO_FAULT, Fault, FaultPlan
from ._gateway import Call, Gateway
from ._images import PREFIX, Content, Runs, Target, read_target, slices
from ._log import ImageRequest, Query, RequestLog
from ._settings import Settings

Handle: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

_LARGEST_REQUEST = 256 * 1024 * 1024  # bytes; ten images in base64
_LARGEST_PIECE = 2**16  # bytes; what waits in memory for a client that reads slowly
_PIECES_A_SECOND = 10
_PAUSE = 0.1  # seconds
# To listen on all addresses is to be called on loopback.
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - names an address to call


class Clock:
    """Simulated seconds: those of an event loop since the first start, times a factor."""

    def __init__(self, *, scale: float) -> None:
        self._scale = scale
        self._loop: asyncio.AbstractEventLoop | None = None
        self._origin = 0.0

    def start(self) -> None:
        """Count from now on, by the running loop; a second start changes nothing."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._origin = self._loop.time()

    def loop_time(self) -> float:
        """Return the seconds of the event loop's clock.

        Raises:
            RuntimeError: It has never been started.
        """
        if self._loop is None:
            raise RuntimeError("start it first: async with SimulatedCometAPI() as api: ...")
        return self._loop.time()

    def now(self) -> float:
        """Return the simulated seconds since the first start.

        Raises:
            RuntimeError: It has never been started.
        """
        return (self.loop_time() - self._origin) * self._scale


@define(eq=False)
class Connection:
    """One TCP connection.

    Attributes:
        number: Its place among all connections, counted from 1.
        transport: The way to close it; None once it is lost.
        requests: How many requests have come on it.
    """

    number: int
    transport: asyncio.Transport | None
    requests: int = 0

    @property
    def reused(self) -> bool:
        """Whether the present request is not its first one."""
        return self.requests > 1


class Connections:
    """All connections that are open, and how many there have been."""

    def __init__(self) -> None:
        # aiohttp serves each connection from one task, as long as it lives
        self._open: WeakKeyDictionary[asyncio.Task[None], Connection] = WeakKeyDictionary()
        self.opened = 0

    def note(self, request: web.Request) -> Connection:
        """Count a request, and return the connection that it came on."""
        connection = self._open.get(request.task)
        if connection is None:
            self.opened += 1
            connection = Connection(self.opened, request.transport)
            self._open[request.task] = connection
        connection.requests += 1
        return connection

    def abort(self) -> set[asyncio.Task[None]]:
        """Drop every connection, and return the tasks that end soon because of it."""
        for connection in self._open.values():
            if connection.transport is not None:
                connection.transport.abort()
        return set(self._open)


@frozen(kw_only=True)
class Handler:
    """Answers every request of one simulator: fault, log, delay, truth, delivery."""

    settings: Settings
    clock: Clock
    gateway: Gateway
    connections: Connections
    faults: FaultPlan
    log: RequestLog[Query]
    image_faults: FaultPlan
    image_log: RequestLog[ImageRequest]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one request."""
        connection = self.connections.note(request)
        path, _, _ = request.raw_path.partition("?")
        if path.startswith(PREFIX):
            return await self._handle_image(request, connection)
        authorised = request.headers.get("Authorization") == f"Bearer {self.settings.api_key}"
        # image URLs name the host that the client knows: a port may be forwarded
        origin = f"http://{request.host}"
        call = Call(method=request.method, path=path, authorised=authorised, origin=origin)
        return await self._handle_call(request, call, connection)

    async def _handle_call(
        self, request: web.Request, call: Call, connection: Connection
    ) -> web.StreamResponse:
        # a create request and unknown paths meet no fault: a test plans them for ids
        fault = NO_FAULT
        if call.task_id is not None:
            fault = self.faults.take(call.task_id, reused=connection.reused)
        number = self.log.begin(self._query(request, call, connection))
        sent = Sent()
        try:
            await _pause(self.settings.latency + fault.delay)
            truth = self.gateway.answer(call, await request.read(), now=self.clock.now())
            return await deliver(request, fault.disguise(truth), fault, sent)
        finally:
            self.log.end(number, finished=self.clock.loop_time(), status=sent.status)

    async def _handle_image(
        self, request: web.Request, connection: Connection
    ) -> web.StreamResponse:
        target = read_target(request.raw_path)
        fault = self._image_fault(request, target)
        number = self.image_log.begin(self._image_request(request, target, connection))
        sent = Sent()
        try:
            await _pause(fault.delay)
            truth = self._image(request, target, fault)
            return await deliver(request, fault.disguise(truth), fault, sent)
        finally:
            self.image_log.end(
                number,
                finished=self.clock.loop_time(),
                status=sent.status,
                body_bytes=sent.body_bytes,
            )

    def _query(self, request: web.Request, call: Call, connection: Connection) -> Query:
        return Query(
            task_id=call.task_id,
            method=call.method,
            path=request.raw_path,
            authorised=call.authorised,
            connection=connection.number,
            started=self.clock.loop_time(),
        )

    def _image_request(
        self, request: web.Request, target: Target | None, connection: Connection
    ) -> ImageRequest:
        place = None if target is None else target.place
        return ImageRequest(
            task_id=None if place is None else place.task_id,
            index=None if place is None else place.index,
            watermarked=place is not None and place.watermarked,
            path=request.raw_path,
            headers=request.headers,
            connection=connection.number,
            started=self.clock.loop_time(),
        )

    def _image_fault(self, request: web.Request, target: Target | None) -> Fault:
        # a redirect was a fault itself: what follows from it is as planned
        if target is None or target.hops is not None or request.method != "GET":
            return NO_FAULT
        return self.image_faults.take(target.place.task_id, index=target.place.index)

    def _image(self, request: web.Request, target: Target | None, fault: Fault) -> Answer:
        if request.method != "GET":
            return Answer(status=405, headers={"Allow": "GET"})
        if target is not None and fault.redirects:
            return moved(target.via(fault.redirects - 1))
        if target is not None and fault.size is not None:
            return picture(target.place, fault.size, seed=self.settings.seed)
        return self.gateway.image(target, now=self.clock.now())


async def _pause(seconds: float) -> None:
    # not even a pass of the loop where nothing is to be waited for
    if seconds:
        await asyncio.sleep(seconds)


@define(eq=False)
class Sent:
    """What has been sent so far of an answer.

    Attributes:
        status: Its HTTP status; None as long as there is no answer.
        body_bytes: How many bytes of its body.
    """

    status: int | None = None
    body_bytes: int = 0


async def deliver(
    request: web.Request, answer: Answer, fault: Fault, sent: Sent
) -> web.StreamResponse:
    """Send an answer in the way that a fault prescribes.

    Args:
        request: What is answered.
        answer: What to send.
        fault: How to send it.
        sent: Where to note what has been sent.

    Returns:
        What aiohttp is to send. On a connection that was closed here it sends nothing.
    """
    if fault.silent:
        return await _stay_silent(request, fault)
    if fault.closes or fault.bytes_per_second is not None or isinstance(answer.body, Runs):
        return await _stream(request, answer, fault, sent)
    sent.status, sent.body_bytes = answer.status, len(answer.body)
    return web.Response(status=answer.status, body=answer.body, headers=answer.all_headers)


async def _stay_silent(request: web.Request, fault: Fault) -> web.StreamResponse:
    if fault.hang:
        await asyncio.get_running_loop().create_future()  # until the connection is lost
    if fault.reset:
        _reset(request.transport)
    if fault.raw is not None:
        _write_and_close(request.transport, fault.raw)
    return web.Response()


async def _stream(
    request: web.Request, answer: Answer, fault: Fault, sent: Sent
) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=answer.all_headers)
    told = len(answer.body) if fault.content_length is None else fault.content_length
    response.content_length = told
    with contextlib.suppress(ConnectionError):
        await response.prepare(request)
        # else aiohttp drops what is more than was announced
        request.writer.length = None
        sent.status = answer.status
        await _send(response, answer.body, fault, sent, told=told)
    if fault.closes:
        _write_and_close(request.transport, b"")
    return response


async def _send(
    response: web.StreamResponse, body: Content, fault: Fault, sent: Sent, *, told: int
) -> None:
    stop = len(body) if fault.cut_after is None else min(fault.cut_after, len(body))
    rate = fault.bytes_per_second
    piece = _LARGEST_PIECE if rate is None else max(1, int(rate / _PIECES_A_SECOND))
    await _trickle(response, slices(body, piece, 0, min(told, stop)), rate, sent)
    if told < stop:
        # else a client takes the excess for a broken next answer
        await asyncio.sleep(_PAUSE)
        await _trickle(response, slices(body, piece, told, stop), rate, sent)


async def _trickle(
    response: web.StreamResponse, pieces: Iterator[memoryview], rate: float | None, sent: Sent
) -> None:
    for piece in pieces:
        if rate is not None:
            await asyncio.sleep(len(piece) / rate)
        await response.write(piece)
        sent.body_bytes += len(piece)


def _reset(transport: asyncio.Transport | None) -> None:
    if transport is None:
        return
    # no time to linger: the kernel sends RST instead of FIN
    linger = struct.pack("ii", 1, 0)
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    transport.abort()


def _write_and_close(transport: asyncio.Transport | None, content: bytes) -> None:
    if transport is None:
        return
    transport.write(content)
    transport.close()


class Site:
    """One handler for all requests to a port, that starts and stops at once."""

    def __init__(self, handle: Handle, connections: Connections, *, host: str, port: int) -> None:
        self._handle = handle
        self._connections = connections
        self._host = host
        self._port = port
        self._runner: web.AppRunner | None = None
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def running(self) -> bool:
        """Whether it listens."""
        return self._runner is not None

    @property
    def url(self) -> str:
        """The address that a client on this machine can use."""
        host = _EVERYWHERE.get(self._host, self._host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self._port}"

    async def start(self) -> None:
        """Listen; after the first time on the port of the first time.

        Raises:
            RuntimeError: It runs already.
            OSError: The port is taken.
        """
        if self._runner is not None:
            raise RuntimeError("this simulator runs already")
        app = web.Application(client_max_size=_LARGEST_REQUEST)
        app.router.add_route("*", "/{path:.*}", self._handle)
        app.on_shutdown.append(self._drop)
        # cancelled handlers: a hang ends when its client leaves
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
        self._runner = runner
        try:
            await runner.setup()
            await web.TCPSite(runner, self._host, self._port).start()
        except BaseException:
            await self.aclose()
            raise
        self._port = runner.addresses[0][1]

    async def aclose(self) -> None:
        """Stop to listen, and drop every connection."""
        runner, self._runner = self._runner, None
        if runner is None:
            return
        await runner.cleanup()
        # aborted connections end one pass of the loop later: no task may outlive the simulator
        if self._ending:
            await asyncio.wait(self._ending)

    async def _drop(self, _: web.Application) -> None:
        # before aiohttp's own shutdown, which would wait a minute for handlers that hang
        self._ending = self._connections.abort()
