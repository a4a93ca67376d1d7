"""The Discord bot, without Discord: its session, a command, and how it stops."""

from __future__ import annotations

import asyncio
import math
import warnings
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import attrs
import pytest

from kling_omni_async.simulator import SimulatedCometAPI

from .program import EXAMPLES, environment, until

pytestmark = pytest.mark.anyio

PAUSE_S = 0.2


@attrs.define
class Said:
    """A message of the bot.

    Attributes:
        texts: What it said first, and after each edit.
        file: The name of the file that came with it, or None.
    """

    texts: list[str | None]
    file: str | None = None

    async def edit(self, *, content: str) -> None:
        self.texts.append(content)


@attrs.define
class Message:
    """What a user wrote, with all that discord.py reads of it, and what the bot said to it."""

    content: str
    id: int = 1
    said: list[Said] = attrs.field(factory=list[Said])
    author: Any = attrs.field(factory=lambda: SimpleNamespace(id=2, bot=False))
    guild: None = None
    attachments: tuple[()] = ()
    _state: None = attrs.field(default=None, alias="_state")


@pytest.fixture
def example(
    comet_api: SimulatedCometAPI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ModuleType:
    """Give the example, imported in its own directory."""
    monkeypatch.chdir(tmp_path)
    for name, value in {**environment(comet_api), "POLL_INTERVAL": str(PAUSE_S)}.items():
        monkeypatch.setenv(name, value)
    spec = spec_from_file_location("discord_bot", EXAMPLES / "discord_bot.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    with warnings.catch_warnings():
        # discord.py's own; from Python 3.13 on it has audioop from elsewhere
        warnings.filterwarnings("ignore", "'audioop' is deprecated", DeprecationWarning)
        spec.loader.exec_module(module)
    return module


async def take(bot: Any, message: Message) -> None:
    """Let a bot take a message; its replies stay here."""
    from discord.ext import commands  # noqa: PLC0415 - only the example may import it first

    class Here(commands.Context[Any]):
        async def reply(self, content: str | None = None, **options: Any) -> Any:
            file = options.get("file")
            message.said.append(Said([content], file and file.filename))
            if file:
                file.close()
            return message.said[-1]

    await bot.invoke(await bot.get_context(message, cls=Here))


async def log_on(bot: Any) -> None:
    """Do what discord.py does when it logs on, but for the network."""
    bot._connection.user = SimpleNamespace(id=1)
    await bot.setup_hook()


async def test_the_session_lives_from_setup_hook_to_close(
    comet_api: SimulatedCometAPI, example: ModuleType
) -> None:
    """A command uses the bot's one session: a message that changes, then the images."""
    task_id = comet_api.create_task(duration=math.inf, images=2)
    message, unknown = Message(f"!image {task_id}"), Message("!image nobody")
    async with example.ImageBot() as bot:
        await log_on(bot)
        commands = [asyncio.create_task(take(bot, m)) for m in (message, unknown)]
        await until(lambda: commands[0].done() or (message.said and len(message.said[0].texts) > 1))
        comet_api.finish(task_id)
        await asyncio.gather(*commands)
        assert not bot.kling.closed
    assert bot.kling.closed
    status, *images = message.said
    assert (status.texts[0], status.texts[-1]) == ("Asking for the task …", "succeed")
    assert [image.file for image in images] == [f"{task_id}-{number}.png" for number in (0, 1)]
    assert unknown.said[0].texts[-1] == "There is no such task."
    assert min(comet_api.gaps()) >= PAUSE_S


async def test_a_prompt_becomes_images(comet_api: SimulatedCometAPI, example: ModuleType) -> None:
    """!imagine creates one task for a message, with all words of it; a wrong one is told."""
    message, long = Message("!imagine a fox, red"), Message(f"!imagine {'x' * 2501}")
    async with example.ImageBot() as bot:
        await log_on(bot)
        await take(bot, long)
        command = asyncio.create_task(take(bot, message))
        await until(lambda: command.done() or comet_api.billed)
        (task,) = comet_api.billed
        comet_api.finish(task.task_id)
        await command
    assert message.said[0].texts[-1] == "succeed"
    assert [image.file for image in message.said[1:]] == [f"{task.task_id}-0.png"]
    assert long.said[0].texts[0] is not None
    assert "a text of 1 to 2,500 characters" in long.said[0].texts[0]


async def test_close_lets_commands_say_goodbye(
    comet_api: SimulatedCometAPI, example: ModuleType
) -> None:
    """Who waits when the bot stops is told before it has stopped, and no task is left."""
    message = Message(f"!image {comet_api.create_task(duration=math.inf)}")
    async with example.ImageBot() as bot:
        await log_on(bot)
        command = asyncio.create_task(take(bot, message))
        await until(lambda: command.done() or (message.said and len(message.said[0].texts) > 1))
        await bot.close()
        assert command.done()
    assert message.said[0].texts[-1] == "The bot was stopped. Ask again later."
    assert "kling" not in repr(asyncio.all_tasks())


async def test_a_bot_that_never_logged_on_can_be_closed(example: ModuleType) -> None:
    """A wrong token ends in Discord's own error, not in one of the example's."""
    async with example.ImageBot() as bot:
        await bot.close()
    assert bot.is_closed()
