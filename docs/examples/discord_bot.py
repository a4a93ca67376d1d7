"""A Discord bot that makes images with Kling Omni: discord.py 2, and where the session lives.

It needs ``discord.py``, the key in COMETAPI_KEY and the bot's token in DISCORD_TOKEN. The bot needs
the privileged intent "message content"::

    python discord_bot.py

``!imagine <prompt>`` creates a task, edits one message as its status changes, then sends the
images; ``!image <task id>`` does so for a task that is there. Whoever may write to it spends your
money.

The session is made in ``setup_hook``, which runs once, in the bot's own event loop, before it logs
on to the gateway; ``on_ready`` would run again after each loss of the connection. ``close`` ends it
before the connection to Discord, so that whoever waits is told.

IMAGES is the directory that images are kept in (images), POLL_INTERVAL the shortest pause between
two queries of an id in s (20).
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import discord
from discord.ext import commands

from kling_omni_async import (
    ConfigurationError,
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
LARGEST_FILE = 10_000_000  # bytes that a bot may send


class ImageBot(commands.Bot):
    """The bot, with one session for its whole life."""

    kling: KlingOmniSession

    def __init__(self) -> None:
        intents = discord.Intents.default()
        intents.message_content = True
        super().__init__(command_prefix="!", intents=intents)
        self.at_work: set[asyncio.Task[Any] | None] = set()
        self.add_command(image)
        self.add_command(imagine)

    async def setup_hook(self) -> None:
        """Open the session."""
        pause = float(os.environ.get("POLL_INTERVAL", "20"))
        self.kling = KlingOmniSession(policy=PollPolicy(interval=(pause, 1.5 * pause)))

    async def invoke(self, ctx: commands.Context[Any], /) -> None:
        """Note which commands are at work: discord.py does not wait for them when it stops."""
        task = asyncio.current_task()
        self.at_work.add(task)
        try:
            await super().invoke(ctx)
        finally:
            self.at_work.discard(task)

    async def close(self) -> None:
        """Close the session, let the commands tell it, then close the connection."""
        if hasattr(self, "kling"):  # else it has never logged on
            await self.kling.aclose()
        if others := {task for task in self.at_work if task and task is not asyncio.current_task()}:
            await asyncio.wait(others, timeout=10)
        await super().close()


@commands.command()
async def image(ctx: commands.Context[ImageBot], task_id: str) -> None:
    """Follow a task to its end."""
    await bring(ctx, task_id)


@commands.command()
async def imagine(ctx: commands.Context[ImageBot], *, prompt: str) -> None:
    """Create a task of a prompt, and follow it."""
    try:
        order = ImageOrder(prompt, key=f"discord/{ctx.message.id}")
    except ConfigurationError as error:
        await ctx.reply(str(error))
    else:
        await bring(ctx, order)


async def bring(ctx: commands.Context[ImageBot], wanted: ImageOrder | str) -> None:
    """Tell how far a task is, and send its images; an order is created first."""
    message = await ctx.reply("Asking for the task …")
    kling = ctx.bot.kling
    try:
        task_id = wanted if isinstance(wanted, str) else (await kling.create(wanted)).task_id
        async with kling.watch(task_id) as updates:
            async for task in updates:
                await message.edit(content=words_for(task))
                if task.status is TaskStatus.SUCCEED:
                    await send(ctx, await kling.save(task, IMAGES))
    except (TaskNotFoundError, InvalidTaskIdError):
        await message.edit(content="There is no such task.")
    except SessionClosedError:
        await message.edit(content="The bot was stopped. Ask again later.")
    except KlingOmniError as error:
        await message.edit(content=f"The images did not come: {type(error).__name__}")


def words_for(task: ImageTask) -> str:
    """Put a status into words."""
    return f"{task.status}: {task.status_message}" if task.status_message else f"{task.status}"


async def send(ctx: commands.Context[ImageBot], images: tuple[SavedImage, ...]) -> None:
    """Send images, and the URL of one that is too large."""
    for saved in images:
        if saved.size <= LARGEST_FILE:
            await ctx.reply(file=discord.File(saved.key))
        else:
            await ctx.reply(f"Too large to be sent: {saved.url}")


if __name__ == "__main__":
    # On Ctrl-C asyncio cancels what runs, so `close` is called; SIGTERM is to do the same.
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a script's `&` has it ignored
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    ImageBot().run(os.environ["DISCORD_TOKEN"])
