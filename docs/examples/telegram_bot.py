"""A Telegram bot that makes images with Kling Omni, and forgets nobody: aiogram 3 and a book.

It needs ``aiogram``, the key in COMETAPI_KEY and the bot's token in TELEGRAM_TOKEN::

    python telegram_bot.py

Write ``/imagine a fox``: it creates a task and sends the images when they are there. The book keeps
each task with the chat that it is for, so the bot can be stopped, killed or replaced at any moment:
the next one goes on, and what Telegram could not take comes again later. A message is a wish of its
own: one that Telegram brings again is not paid for again. Whoever writes to the bot spends your
money: put a filter for your own users before the handlers.

BOOK is the file of the book (bot.db), IMAGES the directory that images are kept in (images),
POLL_INTERVAL the shortest pause between two queries of an id in s (20), TELEGRAM_API_URL a Bot API
server of your own.
"""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import suppress
from functools import partial

from aiogram import Bot, Dispatcher, Router
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import PRODUCTION, TelegramAPIServer
from aiogram.exceptions import TelegramForbiddenError
from aiogram.filters import Command, CommandObject
from aiogram.types import FSInputFile, Message

from kling_omni_async import (
    ImageOrder,
    KlingOmniError,
    KlingOmniSession,
    PollPolicy,
    TaskBook,
    TaskOutcome,
)

LARGEST_PHOTO = 10_000_000  # bytes; Telegram takes a larger one as a document only

router = Router()


@router.message(Command("imagine"))
async def imagine(
    message: Message, command: CommandObject, kling: KlingOmniSession, book: TaskBook
) -> None:
    """Create a task of a prompt, and keep it for the chat."""
    text, chat = "The images are being made.", message.chat.id
    try:
        order = ImageOrder(command.args or "", key=f"telegram/{chat}/{message.message_id}")
        await kling.create(order, book=book, note={"chat": chat})
    except KlingOmniError as error:  # where it is in doubt, the book looks on for the task
        text = f"That did not work: {error}"
    await message.reply(text)


async def answer(outcome: TaskOutcome, bot: Bot) -> None:
    """Send the images of a task, or why there are none; if this raises, it comes again later."""
    chat = outcome.note["chat"]
    with suppress(TelegramForbiddenError):  # this user has blocked the bot
        for image in outcome.saved:
            send = bot.send_photo if image.size <= LARGEST_PHOTO else bot.send_document
            await send(chat, FSInputFile(image.key))
        if outcome.error is not None:
            await bot.send_message(chat, f"The images did not come: {outcome.error}")


async def main() -> None:
    """Run the bot until it is told to stop."""
    url, pause = os.environ.get("TELEGRAM_API_URL"), float(os.environ.get("POLL_INTERVAL", "20"))
    telegram = AiohttpSession(api=TelegramAPIServer.from_base(url) if url else PRODUCTION)
    async with (
        Bot(os.environ["TELEGRAM_TOKEN"], session=telegram) as bot,
        TaskBook(os.environ.get("BOOK", "bot.db")) as book,
        KlingOmniSession(policy=PollPolicy(interval=(pause, 1.5 * pause))) as kling,
        kling.poll(book, save_to=os.environ.get("IMAGES", "images")) as outcomes,
        asyncio.TaskGroup() as group,
    ):
        answering = group.create_task(outcomes.each(partial(answer, bot=bot)))
        dispatcher = Dispatcher(kling=kling, book=book)
        dispatcher.include_router(router)
        # One message after the other: Telegram brings again what was under way when it is killed.
        await dispatcher.start_polling(bot, handle_as_tasks=False, close_bot_session=False)
        answering.cancel()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    asyncio.run(main())
