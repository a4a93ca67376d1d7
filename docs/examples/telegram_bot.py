"""A Telegram bot that makes images with Kling Omni, and follows tasks: aiogram 3.

It needs ``aiogram``, the key in COMETAPI_KEY and the bot's token in TELEGRAM_TOKEN::

    python telegram_bot.py

Write ``/imagine a fox``, or send it the id of a task: it edits one message as the status changes,
then sends the images. Whoever writes to it spends your money: put a filter for your own users
before the handlers. A message is a wish of its own: one that Telegram brings again after a crash is
not paid for again.

IMAGES is the directory that images are kept in (images), POLL_INTERVAL the shortest pause between
two queries of an id in s (20), TELEGRAM_API_URL a Bot API server of your own.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any

from aiogram import Bot, Dispatcher, F, Router
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import PRODUCTION, TelegramAPIServer
from aiogram.exceptions import (
    TelegramForbiddenError,
    TelegramNetworkError,
    TelegramRetryAfter,
    TelegramServerError,
)
from aiogram.filters import Command, CommandObject, CommandStart, ExceptionTypeFilter
from aiogram.types import ErrorEvent, FSInputFile, Message, TelegramObject

from kling_omni_async import (
    ConfigurationError,
    CreateUncertainError,
    ImageOrder,
    ImageTask,
    InvalidTaskIdError,
    KlingOmniError,
    KlingOmniSession,
    PollPolicy,
    SavedImage,
    SessionClosedError,
    TaskNotFoundError,
    TaskStatus,
)

IMAGES = os.environ.get("IMAGES", "images")
LARGEST_PHOTO = 10_000_000  # bytes; Telegram takes a larger one as a document only

logger = logging.getLogger(__name__)
router = Router()
at_work: set[asyncio.Task[Any]] = set()


async def note(
    handler: Callable[[TelegramObject, dict[str, Any]], Awaitable[Any]],
    event: TelegramObject,
    data: dict[str, Any],
) -> object:
    """Note which handlers are at work: aiogram does not wait for them when it stops."""
    task = asyncio.current_task()
    assert task is not None
    at_work.add(task)
    task.add_done_callback(at_work.discard)
    return await handler(event, data)


@router.shutdown()
async def stop(kling: KlingOmniSession) -> None:
    """End all waiting, and let the handlers tell it."""
    await kling.aclose()
    if at_work:
        await asyncio.wait(at_work, timeout=10)


@router.error(ExceptionTypeFilter(TelegramForbiddenError))
async def drop(event: ErrorEvent) -> None:
    """Do no more for a user who has blocked the bot."""
    logger.info("dropped: %s", event.exception)


@router.message(CommandStart())
async def greet(message: Message) -> None:
    """Say what to do."""
    await message.answer("Write /imagine a fox in the snow, or send me the id of an image task.")


@router.message(Command("imagine"))
async def imagine(message: Message, command: CommandObject, kling: KlingOmniSession) -> None:
    """Create a task of a prompt, and follow it."""
    key = f"telegram/{message.chat.id}/{message.message_id}"
    try:
        order = ImageOrder(command.args or "", key=key)
    except ConfigurationError:
        await message.reply("Write what is to be seen, such as /imagine a fox in the snow")
        return
    await bring(message, kling, order)


@router.message(F.text)
async def follow(message: Message, kling: KlingOmniSession) -> None:
    """Follow a task to its end."""
    await bring(message, kling, (message.text or "").strip())


async def bring(message: Message, kling: KlingOmniSession, wanted: ImageOrder | str) -> None:
    """Tell how far a task is, and send its images; an order is created first."""
    status = await message.reply("Asking for the task …")
    try:
        task_id = wanted if isinstance(wanted, str) else (await kling.create(wanted)).task_id
        async with kling.watch(task_id) as updates:
            async for task in updates:
                await tell(status, words_for(task))
                if task.status is TaskStatus.SUCCEED:
                    await send(message, await kling.save(task, IMAGES))
    except (TaskNotFoundError, InvalidTaskIdError):
        await tell(status, "There is no such task.")
    except SessionClosedError:
        await tell(status, "The bot was stopped. Send it again later.")
    except CreateUncertainError as error:
        logger.warning("%s", error)  # it names what finds the task, if there is one
        await tell(status, "Nobody knows whether the task was created; it is not paid for twice.")
    except KlingOmniError as error:
        logger.warning("task %s: %s: %s", error.task_id, type(error).__name__, error)
        await tell(status, "The images did not come. Send it again later.")


def words_for(task: ImageTask) -> str:
    """Put a status into words."""
    return f"{task.status}: {task.status_message}" if task.status_message else f"{task.status}"


async def tell(status: Message, text: str) -> None:
    """Edit the status message; trouble on the way to Telegram costs a text, not the images."""
    try:
        await status.edit_text(text)
    except (TelegramNetworkError, TelegramRetryAfter, TelegramServerError) as error:
        logger.warning("a status was not told: %s", error)


async def send(message: Message, images: tuple[SavedImage, ...]) -> None:
    """Send images as photos, and those that are too large as documents."""
    for image in images:
        file = FSInputFile(image.key)
        if image.size <= LARGEST_PHOTO:
            await message.answer_photo(file)
        else:
            await message.answer_document(file)


async def main() -> None:
    """Run the bot until it is told to stop."""
    url = os.environ.get("TELEGRAM_API_URL")
    server = TelegramAPIServer.from_base(url) if url else PRODUCTION
    pause = float(os.environ.get("POLL_INTERVAL", "20"))
    async with KlingOmniSession(policy=PollPolicy(interval=(pause, 1.5 * pause))) as kling:
        bot = Bot(os.environ["TELEGRAM_TOKEN"], session=AiohttpSession(api=server))
        dispatcher = Dispatcher(kling=kling)
        dispatcher.include_router(router)
        dispatcher.message.outer_middleware(note)
        await dispatcher.start_polling(bot)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    asyncio.run(main())
