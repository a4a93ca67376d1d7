"""From a request for an image to its answer: log, fault, delivery."""

from __future__ import annotations

import asyncio

from aiohttp import web
from attrs import frozen

from ._answers import Answer
from ._assets import Target, read_target
from ._clock import Clock
from ._connections import Connection
from ._delivery import Sent, deliver
from ._faults import FaultPlan
from ._image_answers import image_answer, moved, picture
from ._image_faults import ImageFault
from ._image_log import ImageRequest
from ._log import RequestLog
from ._tasks import TaskBook

_NO_FAULT = ImageFault()


@frozen(kw_only=True)
class ImageHandler:
    """Serves every request for an image of one simulator."""

    seed: int
    clock: Clock
    tasks: TaskBook
    faults: FaultPlan[ImageFault]
    log: RequestLog[ImageRequest]

    async def handle(self, request: web.Request, connection: Connection) -> web.StreamResponse:
        """Serve one request."""
        target = read_target(request.raw_path)
        fault = self._fault(request, target)
        number = self.log.begin(self._noted(request, target, connection))
        sent = Sent()
        try:
            return await self._serve(request, target, fault, sent)
        finally:
            self.log.end(
                number,
                finished=self.clock.loop_time(),
                status=sent.status,
                body_bytes=sent.body_bytes,
            )

    def _noted(
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

    def _fault(self, request: web.Request, target: Target | None) -> ImageFault:
        # a redirect was a fault itself: what follows from it is as planned
        if target is None or target.hops is not None or request.method != "GET":
            return _NO_FAULT
        index = target.place.index
        return self.faults.take(target.place.task_id, lambda fault: fault.hits(index)) or _NO_FAULT

    async def _serve(
        self, request: web.Request, target: Target | None, fault: ImageFault, sent: Sent
    ) -> web.StreamResponse:
        if fault.delay:
            await asyncio.sleep(fault.delay)
        if request.method != "GET":
            return await deliver(request, Answer(status=405, headers={"Allow": "GET"}), fault, sent)
        truth = self._truth(target, fault)
        return await deliver(request, fault.disguise(truth), fault, sent)

    def _truth(self, target: Target | None, fault: ImageFault) -> Answer:
        if target is not None and fault.redirects:
            return moved(target.via(fault.redirects - 1))
        if target is not None and fault.size is not None:
            return picture(target.place, fault.size, seed=self.seed)
        return image_answer(target, self.tasks, now=self.clock.now(), seed=self.seed)
