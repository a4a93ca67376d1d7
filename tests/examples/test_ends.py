"""How programs are ended from outside, and what the tests say where one does not end."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from kling_omni_async.simulator import SimulatedCometAPI

from .program import EXAMPLES, environment, running

pytestmark = pytest.mark.anyio

STUCK = """
import signal, threading
signal.signal(signal.SIGTERM, signal.SIG_IGN)

def held_up():
    print("it runs")
    threading.Event().wait()

held_up()
"""


BOT = """
import asyncio, runpy, sys, warnings
warnings.filterwarnings("ignore", "'audioop' is deprecated", DeprecationWarning)
import discord

bots = []

async def start(bot, *_, **__):
    bots.append(bot)
    await bot.setup_hook()
    print("it runs")
    await asyncio.Event().wait()

discord.Client.start = start
runpy.run_path(sys.argv[1], run_name="__main__")
print("its session is closed:", bots[0].kling.closed)
"""


@pytest.mark.parametrize("name", ["aiohttp_backend.py", "fastapi_backend.py", "flask_backend.py"])
async def test_sigint_ends_a_backend_that_a_script_started(
    name: str, comet_api: SimulatedCometAPI, tmp_path: Path
) -> None:
    """A script starts what it puts in the background with SIGINT ignored: it counts anyway."""
    env = {**environment(comet_api), "PORT": "0"}
    async with running(name, env=env, folder=tmp_path, in_background=True) as backend:
        await backend.address()
        assert await backend.stop(signal.SIGINT) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_both_signals_close_the_discord_bot(
    number: signal.Signals, comet_api: SimulatedCometAPI, tmp_path: Path
) -> None:
    """Its session is closed in its loop, also where a script has SIGINT ignored."""
    (tmp_path / "bot.py").write_text(BOT)
    env = {**environment(comet_api), "DISCORD_TOKEN": "none"}
    arguments = (str(tmp_path / "bot.py"), str(EXAMPLES / "discord_bot.py"))
    async with running(*arguments, env=env, folder=tmp_path, in_background=True) as bot:
        await bot.says("it runs")
        assert await bot.stop(number) == 0
        assert "its session is closed: True" in bot.output


async def test_a_program_that_does_not_end_tells_where_it_is(tmp_path: Path) -> None:
    """The failed test shows the stack of each of its threads."""
    (tmp_path / "stuck.py").write_text(STUCK)
    async with running(str(tmp_path / "stuck.py"), env={}, folder=tmp_path) as program:
        await program.says("it runs")
        program.process.send_signal(signal.SIGTERM)
        with pytest.raises(pytest.fail.Exception, match=r"(?s)did not end:.*in held_up\b"):
            await program.ends(patience=0)
