"""A small web backend that makes images, and loses nothing by a restart: aiohttp.web and a book.

It needs the key in COMETAPI_KEY::

    python aiohttp_backend.py

- ``POST /tasks`` with ``{"prompt": "a fox"}`` creates a task and answers with its id. With a
  ``key``, a name for the wish, it is paid for once, however often a client sends it.
- ``GET /tasks/{id}`` answers 200 with the result, 202 with the last status after 45 s, 404 for an
  id that was not created here, and 502 when the API has trouble.
- ``GET /healthz`` tells what the book holds, 503 while nobody polls it.

The server can be killed at any moment: the next one goes on, and a client just asks again. Start it
several times, also on one port: they share the ids and one pace, and each answers for any id. Put
your own login before these routes: who reaches them sees the images, and spends your money.

BOOK is the file of the book (tasks.db), PORT the port (8080), POLL_INTERVAL the shortest pause
between two queries of an id in s (20), WAIT how long a request may wait in s (45).
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator

import attrs
from aiohttp import web
from aiohttp.typedefs import Handler

import kling_omni_async as kling
from kling_omni_async import KlingOmniSession, TaskBook

SESSION = web.AppKey("session", KlingOmniSession)
BOOK = web.AppKey("book", TaskBook)
WAIT_S = float(os.environ.get("WAIT", "45"))


async def opened(app: web.Application) -> AsyncIterator[None]:
    """Hold the book and one session, which polls it, from start to stop."""
    pause = float(os.environ.get("POLL_INTERVAL", "20"))
    async with (
        TaskBook(os.environ.get("BOOK", "tasks.db")) as app[BOOK],
        KlingOmniSession(policy=kling.PollPolicy(interval=(pause, 1.5 * pause))) as app[SESSION],
        app[SESSION].work(app[BOOK]),
    ):
        yield


@web.middleware
async def tell(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer a request that has met an error; what is ours to mend goes to the log."""
    try:
        return await handler(request)
    except (kling.NotInBookError, kling.InvalidTaskIdError):
        return web.json_response({"detail": "There is no such task."}, status=404)
    except (LookupError, TypeError, ValueError) as error:  # no order, or one that cannot be sent
        return web.json_response({"detail": str(error)}, status=422)
    except kling.KlingOmniError as error:
        request.app.logger.exception("task %s", error.task_id)
        return web.json_response({"detail": "The image service has trouble."}, status=502)


async def create(request: web.Request) -> web.Response:
    """Create a task, and keep it before it is answered with."""
    wish = await request.json()
    order = kling.ImageOrder(wish["prompt"], n=wish.get("n", 1), key=wish.get("key"))
    task = await request.app[SESSION].create(order, book=request.app[BOOK])
    return web.json_response({"task_id": task.task_id}, status=201)


async def show(request: web.Request) -> web.Response:
    """Wait for a task; 202 says that it is not finished yet: ask again."""
    book, task_id = request.app[BOOK], request.match_info["task_id"]
    try:
        task = await book.wait(task_id, timeout=WAIT_S)
    except (kling.TaskFailedError, kling.NoImagesError) as error:
        return web.json_response({"status": "failed", "reason": str(error)})
    except kling.PollTimeoutError as error:
        await book.retry(task_id)  # where the book has given it up, as somebody still wants it
        last = error.task.status if error.task else "unknown"
        return web.json_response({"status": last}, status=202)
    return web.json_response({"status": task.status, "images": [i.url for i in task.images]})


async def healthz(request: web.Request) -> web.Response:
    """Tell what the book holds, and whether somebody polls it."""
    progress = await request.app[BOOK].progress()
    return web.json_response(attrs.asdict(progress), status=200 if progress.workers else 503)


def make_app() -> web.Application:
    """Give the application."""
    app = web.Application(middlewares=[tell])
    app.cleanup_ctx.append(opened)
    tasks = "/tasks/{task_id:.+}"  # an id may hold a slash
    app.add_routes([web.post("/tasks", create), web.get(tasks, show), web.get("/healthz", healthz)])
    return app


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    port = int(os.environ.get("PORT", "8080"))
    web.run_app(make_app(), host="127.0.0.1", port=port, reuse_port=True)
