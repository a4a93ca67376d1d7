"""From a request to the API to its answer: log, delay, fault, delivery."""

from __future__ import annotations

import asyncio

from aiohttp import web
from attrs import frozen

from ._assets import PREFIX
from ._clock import Clock
from ._connections import Connection, Connections
from ._delivery import Sent, deliver
from ._faults import NO_FAULT, Fault, FaultPlan
from ._gateway import Call, Gateway
from ._image_handler import ImageHandler
from ._log import Query, RequestLog


@frozen(kw_only=True)
class Handler:
    """Serves every request of one simulator."""

    api_key: str
    latency: float
    clock: Clock
    gateway: Gateway
    faults: FaultPlan[Fault]
    log: RequestLog[Query]
    images: ImageHandler
    connections: Connections

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Serve one request."""
        connection = self.connections.note(request)
        path, _, _ = request.raw_path.partition("?")
        if path.startswith(PREFIX):
            return await self.images.handle(request, connection)
        authorised = request.headers.get("Authorization") == f"Bearer {self.api_key}"
        # image URLs name the host that the client knows: a port may be forwarded
        origin = f"http://{request.host}"
        call = Call(method=request.method, path=path, authorised=authorised, origin=origin)
        return await self._logged(request, call, connection)

    async def _logged(
        self, request: web.Request, call: Call, connection: Connection
    ) -> web.StreamResponse:
        query = Query(
            task_id=call.task_id,
            method=call.method,
            path=request.raw_path,
            authorised=call.authorised,
            connection=connection.number,
            started=self.clock.loop_time(),
        )
        fault = self._fault(call, connection)
        number = self.log.begin(query)
        sent = Sent()
        try:
            return await self._serve(request, call, fault, sent)
        finally:
            self.log.end(number, finished=self.clock.loop_time(), status=sent.status)

    def _fault(self, call: Call, connection: Connection) -> Fault:
        if call.task_id is None:
            return NO_FAULT
        reused = connection.reused
        fault = self.faults.take(call.task_id, lambda fault: fault.fits(reused=reused))
        return fault or NO_FAULT

    async def _serve(
        self, request: web.Request, call: Call, fault: Fault, sent: Sent
    ) -> web.StreamResponse:
        if delay := self.latency + fault.delay:
            await asyncio.sleep(delay)
        truth = self.gateway.answer(call, await request.read(), now=self.clock.now())
        return await deliver(request, fault.disguise(truth), fault, sent)
