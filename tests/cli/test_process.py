"""The real program, where the process is the point: a kill, signals, pipes, a full disk."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from .support import FAST, finish, ids_in, neighbour, pending_in, running, start

pytestmark = pytest.mark.heavy

EVERY_S = ("--interval", "0.05", "0.1", "--max-rate", "none")


def write_ids(folder: Path, task_ids: list[str]) -> str:
    """Write a file of ids and give its path."""
    path = folder / "ids.txt"
    path.write_text("\n".join(task_ids))
    return str(path)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_good_order(number: int, tmp_path: Path) -> None:
    """Exit code 130; what was finished is in the journal, which the same command takes up."""
    journal = tmp_path / "out.jsonl"
    with neighbour() as api:
        done, left = api.create(3, duration=0.0), api.create(2, duration=1e6)
        ids = write_ids(tmp_path, [*left, *done])
        call = ("poll", "--from", ids, "--jsonl", str(journal), *FAST)
        with running(*call, env=api.env) as process:
            api.wait_for_queries(4, left[1])
            process.send_signal(number)
            code, stdout, stderr = finish(process)
    assert (code, stdout) == (130, "")
    assert sorted(ids_in(journal)) == sorted(done)
    told = "kling-omni: interrupted\n2 left; run the same command to go on\n"
    assert stderr.endswith(told)
    assert "Traceback" not in stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_a_kill_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """After kill -9 the same command goes on where the journal ends."""
    journal = tmp_path / "out.jsonl"
    with neighbour() as api:
        done, left = api.create(25, duration=0.0), api.create(15, duration=1e6)
        task_ids = [*done, *left]
        call = ("poll", "--from", write_ids(tmp_path, task_ids), "--jsonl", str(journal), *EVERY_S)
        with running(*call, env=api.env) as process:
            api.wait_for_queries(4, left[-1])
            process.kill()
            assert finish(process)[0] == -signal.SIGKILL
        finished = ids_in(journal)
        assert sorted(finished) == sorted(done)
        for task_id in left:
            api.portal.call(api.api.finish, task_id)
        asked = {task_id: len(api.api.queries_of(task_id)) for task_id in finished}
        code, _, stderr = finish(start(*call, env=api.env))
        assert {task_id: len(api.api.queries_of(task_id)) for task_id in finished} == asked
    assert code == 0
    assert sorted(ids_in(journal)) == sorted(task_ids)
    assert f"; {len(finished)} of them by an earlier run" in stderr


def test_a_reader_that_leaves_ends_it() -> None:
    """A closed pipe is one line, with the ids whose results nobody has read."""
    with neighbour() as api:
        done = api.create(2, duration=0.0)
        read, write = os.pipe()
        os.close(read)
        process = start("poll", *done, *FAST, env=api.env, stdout=write)
        os.close(write)
        code, _, stderr = finish(process)
    assert code == 1
    assert "kling-omni: cannot write to stdout: Broken pipe\n" in stderr
    assert pending_in(stderr) == done
    assert "Exception ignored" not in stderr


def test_a_full_stdout_ends_it() -> None:
    """A full disk behind stdout is told in one line, for queries too."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with neighbour() as api, Path("/dev/full").open("wb") as full:
        done = api.create(duration=0.0)
        process = start("query", *done, env=api.env, stdout=full.fileno())
        code, _, stderr = finish(process)
    line = "kling-omni: cannot write to stdout: No space left on device\n"
    assert (code, stderr) == (1, line)
