"""The Telegram bot, at work with a Bot API and a CometAPI of this machine."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from kling_omni_async.simulator import SimulatedCometAPI

from .bot_api import TOKEN, BotAPI, Chat
from .program import Program, environment, running, until

pytestmark = pytest.mark.anyio

PAUSE_S = 0.2
MADE = "The images are being made."


@pytest.fixture
async def telegram() -> AsyncGenerator[BotAPI]:
    """Give the Bot API."""
    async with BotAPI() as telegram:
        yield telegram


def started(
    api: SimulatedCometAPI, telegram: BotAPI, folder: Path, **env: str
) -> AbstractAsyncContextManager[Program]:
    """Start the bot; one that is started in the same folder goes on with the same book."""
    env = {
        **environment(api),
        "TELEGRAM_API_URL": telegram.url,
        "TELEGRAM_TOKEN": TOKEN,
        "POLL_INTERVAL": str(PAUSE_S),
        **env,
    }
    return running("telegram_bot.py", env=env, folder=folder)


@pytest.fixture
async def bot(
    comet_api: SimulatedCometAPI, telegram: BotAPI, tmp_path: Path
) -> AsyncGenerator[Program]:
    """Give the running bot."""
    async with started(comet_api, telegram, tmp_path) as program:
        yield program
        assert comet_api.api_key not in program.output
        assert TOKEN not in program.output


def last(chat: Chat) -> str:
    """Give what the newest message of a chat says."""
    return chat.texts[-1] if chat.texts else ""


async def test_a_prompt_becomes_images(
    comet_api: SimulatedCometAPI, telegram: BotAPI, bot: Program
) -> None:
    """/imagine creates one task, whose images come as photos; without a prompt none is made."""
    empty = telegram.send(1, "/imagine")
    chat = telegram.send(2, "/imagine a fox, red")
    await telegram.until(lambda: last(chat) == MADE)
    (task,) = comet_api.billed
    comet_api.finish(task.task_id)
    await telegram.until(lambda: chat.photos)
    assert chat.photos[0].startswith(b"\x89PNG")
    assert last(empty).startswith("That did not work: ImageOrder.prompt")
    assert len(comet_api.billed) == len(chat.photos) == len(chat.texts) == 1
    assert min(comet_api.gaps(task.task_id), default=PAUSE_S) >= PAUSE_S
    assert await bot.stop() == 0


async def test_a_lost_answer_is_not_paid_for_twice(
    comet_api: SimulatedCometAPI, telegram: BotAPI, bot: Program
) -> None:
    """What was made all the same is found, and its images come."""
    comet_api.fail_next_create(reset=True, created=True)
    chat = telegram.send(1, "/imagine a fox")
    await telegram.until(lambda: last(chat) == MADE)
    (task,) = comet_api.billed
    comet_api.finish(task.task_id)
    await telegram.until(lambda: chat.photos)
    assert await bot.stop() == 0


async def test_what_gives_no_images_is_told(
    comet_api: SimulatedCometAPI, telegram: BotAPI, bot: Program
) -> None:
    """A refused order is told at once, a task that is unknown later, with the reason."""
    comet_api.fail_next_create(status=400, body={"code": 1301, "message": "sensitive"})
    refused = telegram.send(1, "/imagine something")
    await telegram.until(lambda: last(refused))
    assert last(refused).startswith("That did not work: ")
    assert "sensitive" in last(refused)
    lost = telegram.send(2, "/imagine a fox")
    await telegram.until(lambda: last(lost) == MADE)
    (task,) = comet_api.billed
    comet_api.expire_images(task.task_id, status=410)
    comet_api.finish(task.task_id)
    await telegram.until(lambda: last(lost) != MADE)
    assert last(lost).startswith("The images did not come: ")
    assert await bot.stop() == 0


async def test_a_user_who_blocks_the_bot_hurts_nobody_else(
    comet_api: SimulatedCometAPI, telegram: BotAPI, bot: Program
) -> None:
    """What he does not take is over at once; the others get their images."""
    blocker, other = telegram.send(1, "/imagine a fox"), telegram.send(2, "/imagine a hare")
    await telegram.until(lambda: last(blocker) == last(other) == MADE)
    blocker.blocks_after = 1
    for task in comet_api.billed:
        comet_api.finish(task.task_id)
    await telegram.until(lambda: blocker.refused and other.photos)
    assert (blocker.refused, blocker.photos) == (1, [])
    assert await bot.stop() == 0


async def test_what_telegram_does_not_take_comes_again(
    comet_api: SimulatedCometAPI, telegram: BotAPI, bot: Program
) -> None:
    """A photo that meets a 502 is sent again; what is too large for a photo is a document."""
    chat = telegram.send(1, "/imagine a fox")
    await telegram.until(lambda: last(chat) == MADE)
    telegram.failures = [502]
    (task,) = comet_api.billed
    comet_api.fail_next_image(task.task_id, size=10_000_001)
    comet_api.finish(task.task_id)
    await telegram.until(lambda: chat.documents)
    assert (len(chat.documents[0]), chat.photos, telegram.failures) == (10_000_001, [], [])
    await bot.says("the handler raised")
    assert await bot.stop(dirt=("Traceback",)) == 0


async def test_killed_in_the_middle_it_loses_nobody(
    comet_api: SimulatedCometAPI, telegram: BotAPI, tmp_path: Path
) -> None:
    """Users who wait over a SIGKILL get their images from the next one, and pay once."""
    async with started(comet_api, telegram, tmp_path) as first:
        chats = [telegram.send(user, f"/imagine fox {user}") for user in range(1, 31)]
        await telegram.until(lambda: sum(last(chat) == MADE for chat in chats) >= 10)
        for task in comet_api.billed[:5]:
            comet_api.finish(task.task_id)
        await telegram.until(lambda: sum(len(chat.photos) for chat in chats) >= 3)
        await first.kill()
    async with started(comet_api, telegram, tmp_path) as second:
        await telegram.until(lambda: all(last(chat) == MADE for chat in chats))
        for task in comet_api.billed:
            comet_api.finish(task.task_id)
        await telegram.until(lambda: all(chat.photos for chat in chats))
        assert len(comet_api.billed) == 30
        # What was under way at the kill may come twice, and nothing else.
        assert sum(len(chat.photos) for chat in chats) <= 30 + 5
        assert await second.stop() == 0


async def test_a_wrong_key_ends_it(
    comet_api: SimulatedCometAPI, telegram: BotAPI, tmp_path: Path
) -> None:
    """It stops with an error instead of taking orders that it cannot carry out."""
    book = tmp_path / "bot.db"
    async with started(comet_api, telegram, tmp_path) as bot:
        chat = telegram.send(1, "/imagine a fox")
        await telegram.until(lambda: last(chat) == MADE)
        assert await bot.stop() == 0
    assert book.exists()
    async with started(comet_api, telegram, tmp_path, COMETAPI_KEY="sk-wrong") as bot:
        await until(lambda: bot.process.returncode is not None)
        assert "AuthenticationError" in bot.output
        assert await bot.ends(dirt=("Traceback",)) == 1


async def test_it_stops_cleanly_while_users_wait(
    comet_api: SimulatedCometAPI, telegram: BotAPI, bot: Program
) -> None:
    """SIGTERM ends the program with nothing left to do, also under a create."""
    chat = telegram.send(1, "/imagine a fox")
    await telegram.until(lambda: last(chat) == MADE)
    comet_api.fail_next_create(delay=1.0)
    telegram.send(2, "/imagine a hare")
    await comet_api.wait_for_queries(2)
    assert await bot.stop() == 0
