"""A small web backend that waits for Kling Omni image tasks: aiohttp.web alone.

It needs the key in COMETAPI_KEY::

    python aiohttp_backend.py

``GET /tasks/{id}`` answers 200 with the result, 202 with the last status after 45 s, 404 for an id
that the API does not know, and 502 when the API has trouble. ``GET /healthz`` tells what the
session is doing. ``POST /callbacks/{CALLBACK_SECRET}`` takes callbacks of the API: a task is then
asked for sooner.

PORT is the port (8080), POLL_INTERVAL the shortest pause between two queries of an id in s (20),
WAIT how long a request may wait in s (45), CALLBACK_SECRET the secret part of the path that you
give the API as ``callback_url``.
"""

from __future__ import annotations

import hmac
import logging
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import suppress

import attrs
from aiohttp import web

from kling_omni_async import (
    InvalidTaskIdError,
    KlingOmniError,
    KlingOmniSession,
    NoImagesError,
    PollPolicy,
    PollTimeoutError,
    SessionClosedError,
    TaskFailedError,
    TaskNotFoundError,
    TaskStatus,
    read_callback,
)

SESSION = web.AppKey("session", KlingOmniSession)
WAIT_S = float(os.environ.get("WAIT", "45"))
MOST_BYTES = 65_536  # of a callback
SECRET = os.environ.get("CALLBACK_SECRET") or secrets.token_urlsafe(32)

logger = logging.getLogger(__name__)


async def session_of(app: web.Application) -> AsyncIterator[None]:
    """Hold one session from start to stop."""
    pause = float(os.environ.get("POLL_INTERVAL", "20"))
    async with KlingOmniSession(policy=PollPolicy(interval=(pause, 1.5 * pause))) as session:
        app[SESSION] = session
        yield


async def show(request: web.Request) -> web.Response:
    """Wait for a task; 202 says that it is not finished yet: ask again."""
    task_id = request.match_info["task_id"]
    try:
        task = await request.app[SESSION].wait(task_id, timeout=WAIT_S)
    except (TaskFailedError, NoImagesError) as error:
        return web.json_response({"status": "failed", "reason": str(error)})
    except PollTimeoutError as error:
        if error.task is None and error.last_error is not None:
            return trouble(error.last_error)  # the API is down, or does not know the id
        last = error.task.status if error.task else TaskStatus.UNKNOWN
        return web.json_response({"status": last}, status=202)
    except KlingOmniError as error:
        return trouble(error)
    return web.json_response({"status": task.status, "images": [i.url for i in task.images]})


async def callback(request: web.Request) -> web.Response:
    """Take a callback; nothing in it is believed, and whoever sends one always gets 204."""
    with suppress(KlingOmniError, web.HTTPRequestEntityTooLarge):  # what is none of the API's
        body = await request.read()
        if hmac.compare_digest(request.match_info["secret"].encode(), SECRET.encode()):
            request.app[SESSION].nudge(read_callback(body))
    return web.Response(status=204)


async def healthz(request: web.Request) -> web.Response:
    """Tell what the session is doing."""
    try:
        return web.json_response(attrs.asdict(request.app[SESSION].stats()))
    except SessionClosedError as error:
        return web.json_response({"detail": str(error)}, status=503)


def trouble(error: KlingOmniError) -> web.Response:
    """Answer a request that has met an error."""
    if isinstance(error, TaskNotFoundError | InvalidTaskIdError):
        return web.json_response({"detail": "There is no such task."}, status=404)
    logger.error("task %s: %s: %s", error.task_id, type(error).__name__, error)
    return web.json_response({"detail": "The image service has trouble."}, status=502)


def make_app() -> web.Application:
    """Give the application."""
    app = web.Application(client_max_size=MOST_BYTES)
    app.cleanup_ctx.append(session_of)
    app.router.add_get("/tasks/{task_id:.+}", show)  # an id may hold a slash
    app.router.add_post("/callbacks/{secret}", callback)
    app.router.add_get("/healthz", healthz)
    return app


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    web.run_app(make_app(), host="127.0.0.1", port=int(os.environ.get("PORT", "8080")))
