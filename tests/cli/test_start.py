"""The first moments of the program: signals that come while it is still being imported."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kling_omni_async._cli.exit import Exit

from .support import FAST, PROGRAM, finish, neighbour, pending_in, running, wait_for_handlers

BOTH = (signal.SIGINT, signal.SIGTERM)
IDS = ["1", "2"]
HEAVY = {"asyncio", "aiohttp", "anyio", "attr", "cattrs", "rich", "cyclopts", "jinja2", "json"}
MOST_CALLS = 300_000
START_S = 0.5

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

LIGHT = """
import sys
before = set(sys.modules)
import kling_omni_async.__main__
print(*{name.partition(".")[0] for name in set(sys.modules) - before})
"""

BOOKLESS = """
import sys
import kling_omni_async._cli.app
ours = ["kling_omni_async._book"]
ours += [] if "coverage" in sys.modules else ["sqlite3"]  # which keeps what it covers in one
print(*(name for name in sys.modules if name.startswith(tuple(ours))))
"""

SIGNAL_AT = """
import signal, sys
from kling_omni_async.__main__ import Signals, main
left, number = int(sys.argv.pop(1)), int(sys.argv.pop(1))
def profile(*_):
    global left
    left -= isinstance(signal.getsignal(number), Signals) or left < START
    if left == 0:
        sys.setprofile(None)
        signal.raise_signal(number)
START = left
sys.setprofile(profile)
main()
"""


@pytest.mark.heavy
def test_the_signals_are_taken_over_before_the_work_of_importing() -> None:
    """The module with `main` needs nothing but what signals need; the rest is imported behind."""
    call = [sys.executable, "-c", LIGHT]
    names = subprocess.run(call, capture_output=True, text=True, check=True).stdout.split()
    assert "kling_omni_async" in names
    assert not HEAVY.intersection(names)


@pytest.mark.heavy
def test_who_has_no_book_does_not_wait_for_it() -> None:
    """What keeps books is imported by the commands on them alone."""
    call = [sys.executable, "-c", BOOKLESS]
    assert subprocess.run(call, capture_output=True, text=True, check=True).stdout == "\n"


@pytest.mark.heavy
@on_linux
def test_no_file_gets_the_number_of_a_stream_that_is_closed(tmp_path: Path) -> None:
    """Else the journal would get what is told on stderr at a hard end."""
    journal = tmp_path / "out.jsonl"
    with neighbour() as api:
        (task_id,) = api.create(duration=1e6)
        call = ("poll", task_id, "--jsonl", str(journal), *FAST)
        closing = ("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *PROGRAM, *call)
        with subprocess.Popen(closing, env={**os.environ, **api.env}) as process:
            try:
                api.wait_for_queries(1, task_id)
                folder = Path(f"/proc/{process.pid}/fd")
                opened = {each.name: str(each.readlink()) for each in folder.iterdir()}
                process.send_signal(signal.SIGINT)
                assert process.wait() == Exit.INTERRUPTED
            finally:
                process.kill()
    assert [opened[str(number)] for number in range(3)] == [os.devnull] * 3
    assert str(journal) in opened.values()


@pytest.mark.heavy
@pytest.mark.parametrize("seed", range(6))
def test_a_signal_at_any_call_of_a_function_is_an_interruption(seed: int) -> None:
    """From the first call on, in whatever module: no traceback, and the ids are told."""
    rng = random.Random(seed)
    calls = round(MOST_CALLS ** rng.random())
    with neighbour() as api:
        call = [
            sys.executable,
            "-W",
            "error",
            "-c",
            SIGNAL_AT,
            str(calls),
            str(int(BOTH[seed % 2])),
        ]
        call += ["poll", *IDS, *FAST, "--timeout", "0.2s"]
        done = subprocess.run(
            call, capture_output=True, text=True, check=False, env={**os.environ, **api.env}
        )
    assert "Traceback" not in done.stderr
    assert done.returncode in {Exit.INTERRUPTED, Exit.NOT_ALL}
    if done.returncode == Exit.INTERRUPTED:
        told = [line.split("\t")[0] for line in done.stdout.splitlines()]
        assert "kling-omni: interrupted\n" in done.stderr
        assert sorted([*told, *pending_in(done.stderr)]) == IDS


@pytest.mark.heavy
@on_linux
@pytest.mark.parametrize("seed", range(4))
def test_an_early_signal_ends_the_program_well(seed: int) -> None:
    """At a random moment of the real program's start: exit code 130, and the ids are told."""
    rng = random.Random(seed)
    with neighbour() as api:
        task_ids = api.create(2, duration=1e6)
        with running("poll", *task_ids, *FAST, env=api.env) as process:
            wait_for_handlers(process)
            time.sleep(rng.uniform(0.0, START_S))
            process.send_signal(BOTH[seed % 2])
            code, stdout, stderr = finish(process)
    assert (code, stdout) == (Exit.INTERRUPTED, "")
    assert "Traceback" not in stderr
    assert "kling-omni: interrupted\n" in stderr
    assert pending_in(stderr) == task_ids
