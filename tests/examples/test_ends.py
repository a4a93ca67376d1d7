"""How programs are ended from outside, and what the tests say where one does not end."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from kling_omni_async.simulator import SimulatedCometAPI

from .program import environment, running

pytestmark = pytest.mark.anyio

STUCK = """
import signal, threading
signal.signal(signal.SIGTERM, signal.SIG_IGN)

def held_up():
    print("it runs")
    threading.Event().wait()

held_up()
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


async def test_a_program_that_does_not_end_tells_where_it_is(tmp_path: Path) -> None:
    """The failed test shows the stack of each of its threads."""
    (tmp_path / "stuck.py").write_text(STUCK)
    async with running(str(tmp_path / "stuck.py"), env={}, folder=tmp_path) as program:
        await program.says("it runs")
        program.process.send_signal(signal.SIGTERM)
        with pytest.raises(pytest.fail.Exception, match=r"(?s)did not end:.*in held_up\b"):
            await program.ends(patience=0)
