"""The simulated API as a program."""

from __future__ import annotations

import asyncio
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TextIO

import aiohttp
import pytest

from kling_omni_async import KlingOmniSession, PollPolicy, TaskStatus
from kling_omni_async._cli.app import run
from kling_omni_async._cli.exit import Exit, OutputError, UsageError
from kling_omni_async._cli.simulate import Setting, serve, simulator_of, summary, write_ids
from kling_omni_async.simulator import SimulatedCometAPI

from .support import FAST, finish, ids_in, running, start

Captured = pytest.CaptureFixture[str]


def exports(process: subprocess.Popen[str]) -> dict[str, str]:
    """Read the two shell lines as a shell would."""
    assert process.stdout is not None
    words = [shlex.split(process.stdout.readline()) for _ in range(2)]
    assert [word[0] for word in words] == ["export", "export"]
    return dict(word[1].split("=", 1) for word in words)


@pytest.mark.heavy
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_two_programs_work_together(number: int, tmp_path: Path) -> None:
    """One serves, the other polls each of its ids once, and the first tells the pauses."""
    ids, journal = tmp_path / "ids.txt", tmp_path / "out.jsonl"
    serve = ("simulate", "20", "--ids", str(ids), "--failing", "2", "--time-scale", "100")
    with running(*serve) as server:
        poll = ("poll", "--from", str(ids), "--jsonl", str(journal), *FAST)
        code, _, _ = finish(start(*poll, env=exports(server)))
        server.send_signal(number)
        server_code, stdout, stderr = finish(server)
    assert (code, server_code, stdout) == (1, 130, "")
    assert sorted(ids_in(journal)) == sorted(ids.read_text().split())
    assert len(ids_in(journal)) == 20
    assert " queries of 20 ids, " in stderr.splitlines()[1]
    assert stderr.splitlines()[2:] == ["kling-omni: interrupted"]


@pytest.mark.heavy
def test_ids_follow_on_stdout_without_a_file() -> None:
    """Base URL and key come first as shell lines, then one id a line."""
    with running("simulate", "3") as server:
        env = exports(server)
        assert server.stdout is not None
        task_ids = [server.stdout.readline().strip() for _ in range(3)]
        asked = finish(start("query", *task_ids, env=env))
        server.terminate()
        assert finish(server)[1] == ""
    assert (asked[0], asked[1].count("\n")) == (0, 3)


async def announced(capfd: Captured) -> str:
    """Wait for what the command says of its tasks; return all of stderr."""
    said = ""
    while "Ctrl-C ends it" not in said:
        await asyncio.sleep(0)
        said += capfd.readouterr().err
    return said


@pytest.mark.anyio
async def test_options_reach_the_simulator(capfd: Captured) -> None:
    """Address, key, latency, images and control are as they were asked for."""
    setting = Setting(
        host="0.0.0.0",  # noqa: S104 - as in a container
        key="chosen",
        latency=0.25,
        images=3,
        failing=1,
        time_scale=1000.0,
        control=True,
    )
    api = simulator_of(setting)
    serving = asyncio.create_task(serve(api, 2, setting))
    assert "simulating 2 tasks on http://127.0.0.1:" in await announced(capfd)
    async with KlingOmniSession("chosen", base_url=api.base_url) as session:
        started = asyncio.get_running_loop().time()
        known = api.create_task(duration=0)
        await session.query(known)
        assert asyncio.get_running_loop().time() - started >= 0.25
    async with (
        aiohttp.ClientSession(headers={"Authorization": "bearer chosen"}) as http,
        http.post(f"{api.base_url}/simulator", json={"gaps": {}}) as answer,
    ):
        assert await answer.json() == {"result": []}
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving


@pytest.mark.anyio
async def test_images_and_failures_are_as_asked_for(capfd: Captured, tmp_path: Path) -> None:
    """Those that fail come first; each of the others makes as many images."""
    path = tmp_path / "ids.txt"
    setting = Setting(images=3, failing=1, time_scale=1000.0, ids=str(path))
    api = simulator_of(setting)
    serving = asyncio.create_task(serve(api, 2, setting))
    await announced(capfd)
    failing, good = path.read_text().split()
    await asyncio.sleep(1.0)
    async with KlingOmniSession(api.api_key, base_url=api.base_url) as session:
        assert (await session.query(failing)).status is TaskStatus.FAILED
        assert len((await session.query(good)).images) == 3
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving


@pytest.mark.anyio
async def test_is_ended_while_it_makes_its_tasks(capfd: Captured) -> None:
    """A cancellation, as signals bring it, is heeded long before two million tasks are made."""
    api = SimulatedCometAPI()
    serving = asyncio.create_task(serve(api, 2_000_000, Setting()))
    while ", 0 tasks" in repr(api):  # noqa: ASYNC110 - passes of the loop are what it is about
        await asyncio.sleep(0)
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    made = int(re.findall(r"(\d+) tasks", repr(api))[0])
    assert 0 < made < 10_000
    assert capfd.readouterr().out == ""


@pytest.mark.anyio
async def test_the_summary_measures_pauses() -> None:
    """Queries are counted with the ids they asked for, pauses once there are two of an id."""
    async with SimulatedCometAPI() as api:
        assert summary(api) == "0 queries of 0 ids, none of an id that was asked for before"
        task_id = api.create_task(duration=45.0)
        policy = PollPolicy(interval=(20, 20))
        async with KlingOmniSession(api.api_key, base_url=api.base_url, policy=policy) as session:
            await session.wait(task_id)
        assert summary(api) == "4 queries of 1 id, from 20.00 to 20.00 s between two of the same id"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--failing", "201"], "--failing must be from 0 to 200, not 201"),
        (["--failing", "-1"], "--failing"),
        (["-5"], "-5"),
        (["20000000"], "COUNT must be from 0 to 10,000,000, not 20000000"),
        (["--time-scale", "0"], "--time-scale must be a number above 0, not 0.0"),
        (["--time-scale", "nan"], "--time-scale must be a number above 0, not nan"),
        (["--seed=-1"], "--seed must be 0 or more, not -1"),
        (["--port=-1"], "--port must be from 0 to 65535, not -1"),
        (["--port", "70000"], "--port must be from 0 to 65535, not 70000"),
        (["--host", "300.1.1.1"], "cannot listen on --port 0 of --host 300.1.1.1: "),
        (["--host", "a..b"], "cannot listen on --port 0 of --host a..b: "),
        (["--host", ""], "--host must not be blank"),
        (["--key", " "], "--key must not be blank"),
        (["--images=-1"], "--images must be from 0 to 100,000, not -1"),
        (["--latency", "soon"], "--latency cannot be 'soon': write a time such as 200ms or 1.5s"),
    ],
)
def test_refuses_settings_that_make_no_sense(
    arguments: list[str], words: str, capfd: Captured
) -> None:
    """A bad number is one line on stderr and exit code 2."""
    assert run(["simulate", *arguments]) == Exit.USAGE
    stdout, stderr = capfd.readouterr()
    assert words in stderr
    assert (stdout, stderr.count("\n")) == ("", 1)


def test_refuses_a_port_that_is_taken(capfd: Captured) -> None:
    """A port in use is named."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run(["simulate", "--port", str(port)]) == Exit.USAGE
    assert f"cannot listen on --port {port} of --host 127.0.0.1: " in capfd.readouterr().err


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_file_of_ids_is_never_overwritten(kind: str, tmp_path: Path, capfd: Captured) -> None:
    """What is there, ids of paid tasks for instance, stays as it is."""
    path = tmp_path / "ids.txt"
    path.write_text("mine") if kind == "file" else path.symlink_to("nowhere")
    assert run(["simulate", "2", "--ids", str(path)]) == Exit.USAGE
    line = f"kling-omni: {path} is there already, and is not overwritten: give --ids a new file\n"
    assert capfd.readouterr() == ("", line)
    assert path.is_symlink() or path.read_text() == "mine"


def test_a_file_of_ids_that_comes_meanwhile_is_left_alone(tmp_path: Path) -> None:
    """It is made anew or not at all, so nothing can come in between."""
    path = tmp_path / "ids.txt"
    path.write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        write_ids(str(path), ["1"])
    assert path.read_text() == "mine"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_half_a_file_of_ids_is_not_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On a full disk the new file is removed; a device stays."""
    with pytest.raises(OutputError, match="No space left"):
        write_ids("/dev/full", ["1"])
    assert Path("/dev/full").exists()
    path = tmp_path / "ids.txt"

    def full(*_: object, **__: object) -> TextIO:
        path.touch()
        return Path("/dev/full").open("w")

    monkeypatch.setattr("builtins.open", full)
    with pytest.raises(OutputError, match="No space left"):
        write_ids(str(path), ["1"])
    assert not path.exists()


def test_says_that_the_ids_cannot_be_written(tmp_path: Path, capfd: Captured) -> None:
    """A file of ids that cannot be made ends it with one line more than the summary."""
    path = tmp_path / "none" / "ids.txt"
    assert run(["simulate", "2", "--ids", str(path)]) == Exit.NOT_ALL
    stderr = capfd.readouterr().err
    assert f"kling-omni: cannot write to {path}: No such file or directory\n" in stderr
