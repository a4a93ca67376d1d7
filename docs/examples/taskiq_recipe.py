"""Tasks of taskiq that make images, and wait in a book: what comes twice is paid for once.

It needs ``taskiq`` and ``taskiq-redis``, the key in COMETAPI_KEY, and in BOOK_URL a Redis for the
book and the queue. Something has to poll the book; the workers of taskiq create and wait::

    kling-omni work env:BOOK_URL --name shop
    taskiq worker taskiq_recipe:broker
    python taskiq_recipe.py invoice-42/1 "a fox in the snow"

The last one is a client: any program of yours that calls ``make_images.kiq``. The key names the
wish. A task that is delivered again, or sent again by a client, gets the images of that wish.

IDLE is after how many s a task of a worker that died goes to another (600).
"""

from __future__ import annotations

import asyncio
import os
import sys

from taskiq import Context, TaskiqDepends, TaskiqEvents, TaskiqState
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from kling_omni_async import ImageOrder, KlingOmniSession, TaskBook

URL = os.environ["BOOK_URL"]
WAIT_S = 540.0  # shorter than IDLE: else what is still waited for would be delivered again

broker = RedisStreamBroker(
    URL,
    queue_name="images",
    idle_timeout=int(float(os.environ.get("IDLE", "600")) * 1000),
    maxlen=100_000,  # the stream keeps what is done, too
    unacknowledged_lock_timeout=30.0,  # by default a worker that is killed may hold it for ever
).with_result_backend(RedisAsyncResultBackend(URL, result_ex_time=3600))


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def begin(state: TaskiqState) -> None:
    """Make the book, and a session that only creates, in the loop of a worker."""
    state.book = TaskBook(URL, name="shop")
    state.session = KlingOmniSession()


@broker.on_event(TaskiqEvents.WORKER_SHUTDOWN)
async def end(state: TaskiqState) -> None:
    """Close both; whatever waits in this worker ends."""
    await state.session.aclose()
    await state.book.aclose()


@broker.task
async def make_images(
    key: str,
    prompt: str,
    context: Context = TaskiqDepends(),  # noqa: B008 - so that nobody has to give it to `kiq`
) -> list[str]:
    """Create a task where this wish has none yet, wait for it, and give the URLs of its images."""
    book: TaskBook = context.state.book
    session: KlingOmniSession = context.state.session
    created = await session.create(ImageOrder(prompt, key=key), book=book)
    task = await book.wait(created.task_id, timeout=WAIT_S)
    return [image.url for image in task.images]


async def main(key: str, prompt: str) -> None:
    """Send one task to the workers, and wait for what comes of it."""
    await broker.startup()
    sent = await make_images.kiq(key, prompt)
    result = await sent.wait_result(timeout=WAIT_S)
    result.raise_for_error()
    print(key, result.return_value)
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
