"""A small synchronous web backend that waits for Kling Omni image tasks: Flask, and one portal.

It needs ``flask`` and the key in COMETAPI_KEY::

    python flask_backend.py

``GET /tasks/{id}`` answers 200 with the result, 202 with the last status after 25 s, 404 for an id
that the API does not know, and 502 when the API has trouble.

PORT is the port (5000), POLL_INTERVAL the shortest pause between two queries of an id in s (20),
WAIT how long a request may wait in s (25).
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
from contextlib import ExitStack
from functools import cache, partial
from threading import Lock

from anyio.from_thread import start_blocking_portal
from flask import Flask
from flask.typing import ResponseReturnValue

from kling_omni_async import (
    ImageTask,
    InvalidTaskIdError,
    KlingOmniError,
    KlingOmniSession,
    NoImagesError,
    PollPolicy,
    PollTimeoutError,
    TaskFailedError,
    TaskNotFoundError,
    TaskStatus,
)

WAIT_S = float(os.environ.get("WAIT", "25"))

logger = logging.getLogger(__name__)
app = Flask(__name__)
making = Lock()


class Kling:
    """One session in an event loop that has a thread of its own."""

    def __init__(self) -> None:
        pause = float(os.environ.get("POLL_INTERVAL", "20"))
        session = KlingOmniSession(policy=PollPolicy(interval=(pause, 1.5 * pause)))
        with ExitStack() as ends:
            self._portal = ends.enter_context(start_blocking_portal(name="kling"))
            self._session = ends.enter_context(self._portal.wrap_async_context_manager(session))
            atexit.register(ends.pop_all().close)

    def wait(self, task_id: str, *, timeout: float) -> ImageTask:
        """Wait until a task has succeeded, from any thread."""
        return self._portal.call(partial(self._session.wait, task_id, timeout=timeout))


def kling() -> Kling:
    """Return the one of this process, made when it is first needed: behind a server's fork."""
    with making:  # else each of several first requests would make one
        return made()


@cache
def made() -> Kling:
    """Make it once."""
    return Kling()


@app.get("/tasks/<path:task_id>")  # an id may hold a slash
def show(task_id: str) -> ResponseReturnValue:
    """Wait for a task; 202 says that it is not finished yet: ask again."""
    try:
        task = kling().wait(task_id, timeout=WAIT_S)
    except (TaskFailedError, NoImagesError) as error:
        return {"status": "failed", "reason": str(error)}
    except PollTimeoutError as error:
        if error.task is None and error.last_error is not None:
            return trouble(error.last_error)  # the API is down, or does not know the id
        return {"status": error.task.status if error.task else TaskStatus.UNKNOWN}, 202
    except KlingOmniError as error:
        return trouble(error)
    return {"status": task.status, "images": [image.url for image in task.images]}


def trouble(error: KlingOmniError) -> ResponseReturnValue:
    """Answer a request that has met an error."""
    if isinstance(error, TaskNotFoundError | InvalidTaskIdError):
        return {"detail": "There is no such task."}, 404
    logger.error("task %s: %s: %s", error.task_id, type(error).__name__, error)
    return {"detail": "The image service has trouble."}, 502


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    for number in (signal.SIGINT, signal.SIGTERM):  # a script's `&` has SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    app.run(port=int(os.environ.get("PORT", "5000")))
