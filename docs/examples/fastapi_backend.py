"""A web backend that makes images of prompts, and waits for tasks: FastAPI under uvicorn.

It needs ``fastapi`` and ``uvicorn``, and the key in COMETAPI_KEY::

    python fastapi_backend.py

- ``POST /images`` with ``{"prompt": "a fox"}`` creates a task, waits for it, saves its images and
  answers with where they are here. With a ``key``, a name for the wish, it is paid for once,
  however often a client sends it.
- ``POST /tasks`` creates a task and answers at once.
- ``GET /tasks/{id}?wait=45`` answers 200 with the result, or 202 with the last status when the
  time is over. 404 is an id that the API does not know, 502 is trouble with the API.
- ``GET /tasks/{id}/events`` sends each change of status as a server-sent event.
- ``GET /`` is a page that takes a prompt and shows the progress, then the images.
- ``GET /healthz`` tells what the session is doing, 503 once it is closed.
- ``POST /callbacks/{CALLBACK_SECRET}`` takes callbacks of the API: a task is then asked for sooner.

One session serves all requests: 500 clients that wait for one id cause one query an interval.
Put your own login before these routes: who reaches them sees the images, and spends your money.

IMAGES is the directory that images are kept in (images), PORT the port (8000), POLL_INTERVAL the
shortest pause between two queries of an id in s (20), CALLBACK_SECRET the secret part of the path
that you give the API as ``callback_url``.
"""

from __future__ import annotations

import hmac
import logging
import os
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import attrs
import uvicorn
from fastapi import Depends, FastAPI, Query, Request, Response, status
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel

from kling_omni_async import (
    ApiError,
    ConfigurationError,
    ImageOrder,
    ImageTask,
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

IMAGES = os.environ.get("IMAGES", "images")
MOST_BYTES = 65_536  # of a callback
SECRET = os.environ.get("CALLBACK_SECRET") or secrets.token_urlsafe(32)

logger = logging.getLogger("uvicorn.error")


def policy() -> PollPolicy:
    """Poll as the environment says."""
    pause = float(os.environ.get("POLL_INTERVAL", "20"))
    return PollPolicy(interval=(pause, 1.5 * pause))


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Hold one session from start to stop."""
    async with KlingOmniSession(policy=policy()) as session:
        app.state.session = session
        yield


def the_session(request: Request) -> KlingOmniSession:
    """Give a route the session."""
    session: KlingOmniSession = request.app.state.session
    return session


app = FastAPI(title="Kling Omni images", lifespan=lifespan)
Session = Annotated[KlingOmniSession, Depends(the_session)]
Wait = Annotated[float, Query(ge=0, le=55, description="the longest time to wait, in s")]


class Wish(BaseModel):
    """What clients order."""

    prompt: str
    n: int = 1
    key: str | None = None


class TaskView(BaseModel):
    """What clients see of a task."""

    task_id: str
    status: TaskStatus
    reason: str | None = None
    images: list[str] = []


class Trouble(BaseModel):
    """What clients see when there is no task to show."""

    detail: str


def view(task: ImageTask) -> TaskView:
    """Show a task."""
    images = [image.url for image in task.images]
    return TaskView(
        task_id=task.task_id, status=task.status, reason=task.status_message, images=images
    )


def trouble(error: KlingOmniError) -> tuple[int, Trouble]:
    """Give the HTTP status and the words for an error; what is ours to mend goes to the log."""
    if isinstance(error, TaskNotFoundError | InvalidTaskIdError):
        return status.HTTP_404_NOT_FOUND, Trouble(detail="There is no such task.")
    if isinstance(error, ConfigurationError):
        return status.HTTP_422_UNPROCESSABLE_CONTENT, Trouble(detail=str(error))
    if isinstance(error, TaskFailedError | NoImagesError) or type(error) is ApiError:  # its words
        return status.HTTP_422_UNPROCESSABLE_CONTENT, Trouble(detail=f"No images: {error}")
    logger.error("task %s: %s: %s", error.task_id, type(error).__name__, error)
    detail = "The image service has trouble. Try again later."
    return status.HTTP_502_BAD_GATEWAY, Trouble(detail=detail)


@app.exception_handler(KlingOmniError)
async def tell(_request: Request, error: Exception) -> JSONResponse:
    """Answer a request that has met an error."""
    assert isinstance(error, KlingOmniError)
    code, body = trouble(error)
    return JSONResponse(body.model_dump(), code)


@app.post("/images", status_code=status.HTTP_201_CREATED)
async def make_images(wish: Wish, session: Session) -> list[str]:
    """Create a task, wait for it, save its images, and answer."""
    order = ImageOrder(wish.prompt, n=wish.n, key=wish.key)
    outcome = await session.generate(order, save_to=IMAGES)
    return [f"/images/{Path(image.key).name}" for image in outcome.saved]


app.mount("/images", StaticFiles(directory=IMAGES, check_dir=False))


@app.post("/tasks", status_code=status.HTTP_201_CREATED)
async def create(wish: Wish, session: Session) -> TaskView:
    """Create a task, and answer with its id at once."""
    return view(await session.create(ImageOrder(wish.prompt, n=wish.n, key=wish.key)))


# `:path`, because an id may hold a slash.
@app.get("/tasks/{task_id:path}/events", response_class=EventSourceResponse)
async def events(task_id: str, session: Session) -> AsyncIterator[ServerSentEvent]:
    """Send the status of a task, then each change; a client that leaves drops the wait."""
    try:
        async with session.watch(task_id) as updates:
            async for task in updates:
                yield ServerSentEvent(event="status", data=view(task))
    except SessionClosedError:
        return  # the server stops; without an "end" the browser connects again
    except KlingOmniError as error:
        yield ServerSentEvent(event="trouble", data=trouble(error)[1])
    yield ServerSentEvent(event="end", data=None)


@app.get(
    "/tasks/{task_id:path}",
    responses={202: {"model": TaskView}, 404: {"model": Trouble}, 502: {"model": Trouble}},
)
async def show(task_id: str, session: Session, response: Response, wait: Wait = 45.0) -> TaskView:
    """Wait for a task; 202 says that it is not finished yet: ask again."""
    try:
        return view(await session.wait(task_id, timeout=wait))
    except (TaskFailedError, NoImagesError) as error:
        return TaskView(task_id=task_id, status=TaskStatus.FAILED, reason=str(error))
    except PollTimeoutError as error:
        if error.task is None and error.last_error is not None:
            raise error.last_error from None  # the API is down, or does not know the id
        response.status_code = status.HTTP_202_ACCEPTED
        return view(error.task or ImageTask(task_id=task_id, status=TaskStatus.UNKNOWN))


@app.post("/callbacks/{secret}", status_code=status.HTTP_204_NO_CONTENT)
async def callback(secret: str, request: Request, session: Session) -> None:
    """Take a callback; nothing in it is believed, and whoever sends one always gets 204."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BYTES:
            return
    if hmac.compare_digest(secret.encode(), SECRET.encode()):
        with suppress(KlingOmniError):  # what is no callback of the API's
            session.nudge(read_callback(bytes(body)))


@app.get("/healthz")
async def healthz(session: Session, response: Response) -> dict[str, Any]:
    """Tell what the session is doing."""
    try:
        return attrs.asdict(session.stats())
    except SessionClosedError:
        response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
        return {"detail": str(session.close_reason)}


@app.get("/", response_class=HTMLResponse)
async def page() -> str:
    """Show the page."""
    return PAGE


PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Kling Omni images</title>
<link rel="icon" href="data:,">
<style>
  :root { color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif; }
  body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
  form { display: flex; gap: .5rem; flex-wrap: wrap; margin-bottom: .5rem; }
  input { flex: 1 1 16rem; font: inherit; padding: .4rem .6rem; }
  button { font: inherit; padding: .4rem 1rem; }
  output { display: block; margin: 1.5rem 0 .5rem; overflow-wrap: anywhere; }
  progress { width: 100%; }
  #images { display: grid; gap: 1rem; margin: 1.5rem 0; }
  #images { grid-template-columns: repeat(auto-fill, minmax(14rem, 1fr)); }
  img { width: 100%; border-radius: .5rem; }
</style>
<h1>Kling Omni images</h1>
<form id="wish">
  <input name="prompt" aria-label="Prompt" placeholder="A fox in the snow" required>
  <button>Create</button>
</form>
<form>
  <input name="task" aria-label="Task id" placeholder="Task id" required>
  <button>Show</button>
</form>
<output aria-live="polite"></output>
<progress max="3" value="0" aria-label="Progress" hidden></progress>
<div id="images"></div>
<script>
const say = (text) => document.querySelector("output").textContent = text;
const bar = document.querySelector("progress");
const steps = {submitted: 1, processing: 2, succeed: 3};

function draw(task) {
  say(task.reason ? `${task.status}: ${task.reason}` : task.status);
  bar.hidden = !(task.status in steps);
  bar.value = steps[task.status] ?? 0;
  const images = task.images.map((url, at) => {
    const image = new Image();
    image.alt = `Image ${at + 1}`;
    image.referrerPolicy = "no-referrer";  // the hosts of images refuse other sites
    image.src = url;
    return image;
  });
  document.querySelector("#images").replaceChildren(...images);
}

function follow(id) {
  document.querySelector("input[name=task]").value = id;
  say("Asking for the task …");
  const events = new EventSource(`/tasks/${encodeURIComponent(id)}/events`);
  events.addEventListener("status", (event) => draw(JSON.parse(event.data)));
  events.addEventListener("trouble", (event) => {
    say(JSON.parse(event.data).detail);
    bar.hidden = true;
  });
  events.addEventListener("end", () => events.close());  // else the browser would connect again
}

document.querySelector("#wish").addEventListener("submit", async (event) => {
  event.preventDefault();
  say("Creating the task …");
  const wish = {prompt: event.target.prompt.value, key: crypto.randomUUID?.()};
  const headers = {"Content-Type": "application/json"};
  const answer = await fetch("/tasks", {method: "POST", headers, body: JSON.stringify(wish)});
  const told = await answer.json();
  if (answer.ok) follow(told.task_id); else say(told.detail);
});

const id = new URLSearchParams(location.search).get("task");
if (id) follow(id);
</script>
</html>
"""


class Server(uvicorn.Server):
    """Lets nobody wait when it stops: an open event stream would keep it from stopping."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the session first, which ends all that waits."""
        await app.state.session.aclose()
        await super().shutdown(sockets)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):  # which uvicorn hands on after Ctrl-C has stopped it
        Server(uvicorn.Config(app, port=int(os.environ.get("PORT", "8000")))).run()
