"""The Telegram bot, at work with a Bot API and a CometAPI of this machine."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from kling_omni_async.simulator import SimulatedCometAPI

from .bot_api import TOKEN, BotAPI, Chat
from .program import Program, environment, running, until

pytestmark = pytest.mark.anyio

PAUSE_S = 0.2
ASKING = "Asking for the task …"


@pytest.fixture
async def telegram() -> AsyncGenerator[BotAPI]:
    """Give the Bot API."""
    async with BotAPI() as telegram:
        yield telegram


@pytest.fixture
async def bot(
    comet_api: SimulatedCometAPI, telegram: BotAPI, tmp_path: Path
) -> AsyncGenerator[Program]:
    """Give the running bot."""
    env = {
        **environment(comet_api),
        "TELEGRAM_API_URL": telegram.url,
        "TELEGRAM_TOKEN": TOKEN,
        "POLL_INTERVAL": str(PAUSE_S),
    }
    async with running("telegram_bot.py", env=env, folder=tmp_path) as program:
        yield program
        assert comet_api.api_key not in program.output
        assert TOKEN not in program.output


def last(chat: Chat) -> str:
    """Give what the newest message of a chat says now."""
    return chat.texts[max(chat.texts)][-1] if chat.texts else ""


async def test_one_message_tells_the_status_and_the_images_follow(
    comet_api: SimulatedCometAPI, telegram: BotAPI, bot: Program
) -> None:
    """The bot edits one message at each change of status, then sends each image once."""
    task_id = comet_api.create_task(duration=math.inf, images=3)
    chat = telegram.send(1, f" {task_id}\n")
    await telegram.until(lambda: last(chat) in {"submitted", "processing"})
    comet_api.finish(task_id)
    await telegram.until(lambda: len(chat.photos) == 3)
    ((*earlier, final),) = chat.texts.values()
    assert (earlier[0], final) == (ASKING, "succeed")
    assert set(earlier[1:]) <= {"submitted", "processing"}
    assert all(photo.startswith(b"\x89PNG") for photo in chat.photos)
    assert len(set(chat.photos)) == 3
    assert chat.documents == []
    assert await bot.stop() == 0


async def test_a_prompt_becomes_images(
    comet_api: SimulatedCometAPI, telegram: BotAPI, bot: Program
) -> None:
    """/imagine creates one task, whose status and images follow; without a prompt none is."""
    empty = telegram.send(1, "/imagine")
    chat = telegram.send(2, "/imagine a fox, red")
    await telegram.until(lambda: last(chat) in {"submitted", "processing"})
    (task,) = comet_api.billed
    comet_api.finish(task.task_id)
    await telegram.until(lambda: chat.photos)
    assert next(iter(chat.texts.values()))[-1] == "succeed"
    assert last(empty) == "Write what is to be seen, such as /imagine a fox in the snow"
    assert len(comet_api.billed) == 1
    assert await bot.stop() == 0


async def test_a_lost_answer_is_told_and_not_paid_for_twice(
    comet_api: SimulatedCometAPI, telegram: BotAPI, bot: Program
) -> None:
    """What was made all the same is found, and its images come."""
    comet_api.fail_next_create(reset=True, created=True)
    chat = telegram.send(1, "/imagine a fox")
    await telegram.until(lambda: last(chat) in {"submitted", "processing"})
    assert len(comet_api.billed) == 1
    assert await bot.stop() == 0


async def test_what_gives_no_images_is_told(
    comet_api: SimulatedCometAPI, telegram: BotAPI, bot: Program
) -> None:
    """The status message ends with why there are no images; what is no id is not asked for."""
    failed = comet_api.create_task(duration=0.0, fail="Image pixel is invalid")
    empty = comet_api.create_task(duration=0.0, images=0)
    said = {
        failed: "failed: Image pixel is invalid",
        empty: "The images did not come. Send it again later.",
        "nobody": "There is no such task.",
        "hello there": "There is no such task.",
        "/start": "Write /imagine a fox in the snow, or send me the id of an image task.",
    }
    chats = {text: telegram.send(user, text) for user, text in enumerate(said, 1)}
    await telegram.until(lambda: {text: last(chat) for text, chat in chats.items()} == said)
    assert [(len(chat.texts), chat.photos) for chat in chats.values()] == [(1, [])] * 5
    assert {query.task_id for query in comet_api.queries} == {failed, empty, "nobody"}
    assert await bot.stop() == 0


async def test_a_user_who_blocks_the_bot_hurts_nobody_else(
    comet_api: SimulatedCometAPI, telegram: BotAPI, bot: Program
) -> None:
    """His task is asked no more; those who share it and those who do not get their images."""
    his, shared, other = (comet_api.create_task(duration=math.inf) for _ in range(3))
    blockers = [telegram.send(1, his), telegram.send(2, shared)]
    others = [telegram.send(3, shared), telegram.send(4, other)]
    for chat in blockers:
        chat.blocks_after = 1  # so the first edit is refused
    await telegram.until(lambda: all(chat.refused for chat in blockers))
    await telegram.until(lambda: all(last(chat) not in {"", ASKING} for chat in others))
    await comet_api.wait_for_queries(1, his)
    await until(lambda: his not in {query.task_id for query in comet_api.queries[-10:]})
    for task_id in (shared, other):
        comet_api.finish(task_id)
    await telegram.until(lambda: all(chat.photos for chat in others))
    assert [chat.refused for chat in blockers] == [1, 1]
    assert min(comet_api.gaps()) >= PAUSE_S
    assert await bot.stop() == 0


async def test_images_come_though_telegram_makes_trouble(
    comet_api: SimulatedCometAPI, telegram: BotAPI, bot: Program
) -> None:
    """A status that could not be told is passed over; what is no photo comes as a document."""
    telegram.failures = [502]
    chat = telegram.send(1, comet_api.create_task(duration=0.0))
    await telegram.until(lambda: chat.photos)
    assert list(chat.texts.values()) == [[ASKING]]
    telegram.send(1, comet_api.create_task(duration=0.0, image_bytes=10_000_001))
    await telegram.until(lambda: chat.documents)
    assert (len(chat.documents[0]), len(chat.photos)) == (10_000_001, 1)
    assert await bot.stop() == 0


async def test_it_stops_cleanly_while_users_wait(
    comet_api: SimulatedCometAPI, telegram: BotAPI, bot: Program
) -> None:
    """SIGTERM tells each user, however slowly, and ends the program with nothing left to do."""
    task_id = comet_api.create_task(duration=math.inf)
    chats = [telegram.send(user, task_id) for user in range(1, 11)]
    await telegram.until(lambda: all(last(chat) not in {"", ASKING} for chat in chats))
    telegram.latency_s = 0.5
    assert await bot.stop() == 0
    assert {last(chat) for chat in chats} == {"The bot was stopped. Send it again later."}
    assert min(comet_api.gaps(task_id), default=PAUSE_S) >= PAUSE_S
