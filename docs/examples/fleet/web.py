"""The web part of a fleet: it creates tasks and waits for them, and polls nothing itself.

It needs ``fastapi`` and ``uvicorn``, the key in COMETAPI_KEY, and in BOOK_URL where the book is::

    uvicorn web:app --workers 4

- ``POST /tasks`` with ``{"prompt": "a fox", "key": "invoice-42/1"}`` creates a task and answers
  with its id. The ``key`` names the wish: sent again, to whichever process, it is paid for once.
- ``GET /tasks/{id}`` answers 200 with the result, or 202 when it is not finished after 25 s: ask
  again. 404 is an id that the book does not hold, 502 is trouble with the API or with Redis.
- ``GET /healthz`` tells what the book holds, 503 while nobody polls it.

Any process on any host answers for any id, and one that is killed takes nothing along: who was
waiting asks again. Put your own login before these routes: who reaches them spends your money.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import attrs
from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

import kling_omni_async as kling

WAIT_S = 25.0  # shorter than what proxies allow

logger = logging.getLogger("uvicorn.error")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Hold the book, and a session that only creates, from start to stop."""
    async with (
        kling.TaskBook(os.environ["BOOK_URL"], name="shop") as app.state.book,
        kling.KlingOmniSession() as app.state.session,
    ):
        yield


app = FastAPI(title="Kling Omni images", lifespan=lifespan)


def the_book(request: Request) -> kling.TaskBook:
    """Give a route the book."""
    book: kling.TaskBook = request.app.state.book
    return book


Book = Annotated[kling.TaskBook, Depends(the_book)]


class Wish(BaseModel):
    """What clients order."""

    prompt: str
    n: int = 1
    key: str


@app.exception_handler(kling.KlingOmniError)
async def tell(_request: Request, error: Exception) -> JSONResponse:
    """Answer a request that has met an error; what is ours to mend goes to the log."""
    match error:
        case kling.NotInBookError() | kling.InvalidTaskIdError():
            return JSONResponse({"detail": "There is no such task."}, 404)
        case kling.TaskFailedError() | kling.NoImagesError():
            return JSONResponse({"status": "failed", "reason": str(error)})
        case kling.ConfigurationError():  # an order that cannot be sent
            return JSONResponse({"detail": str(error)}, 422)
    logger.error("%s: %s", type(error).__name__, error)
    return JSONResponse({"detail": "The image service has trouble. Ask again."}, 502)


@app.post("/tasks", status_code=201)
async def create(wish: Wish, request: Request, book: Book) -> dict[str, str]:
    """Create a task, and keep it before it is answered with."""
    session: kling.KlingOmniSession = request.app.state.session
    order = kling.ImageOrder(wish.prompt, n=wish.n, key=wish.key)
    task = await session.create(order, book=book, note={"key": wish.key})
    return {"task_id": task.task_id}


# `:path`, because an id may hold a slash.
@app.get("/tasks/{task_id:path}")
async def show(task_id: str, book: Book, response: Response) -> dict[str, Any]:
    """Wait for a task, whichever process polls it."""
    try:
        task = await book.wait(task_id, timeout=WAIT_S)
    except kling.PollTimeoutError as error:
        response.status_code = 202
        return {"status": error.task.status if error.task else "unknown"}
    return {"status": task.status, "images": [image.url for image in task.images]}


@app.get("/healthz")
async def healthz(book: Book, response: Response) -> dict[str, Any]:
    """Tell what the book holds, and whether somebody polls it."""
    progress = await book.progress()
    response.status_code = 200 if progress.workers else 503
    return attrs.asdict(progress)
