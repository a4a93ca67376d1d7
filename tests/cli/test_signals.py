"""Ctrl-C and SIGTERM: in this process, and at any moment of the real program."""

from __future__ import annotations

import array
import asyncio
import io
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from kling_omni_async import __main__
from kling_omni_async._cli.exit import Exit
from kling_omni_async._cli.signals import Once, heed_signals, interruptible, run, waiting
from kling_omni_async._cli.terminal import has_room, out, tell_at_end

from .support import (
    FAST,
    finish,
    ids_in,
    neighbour,
    pending_in,
    running,
    wait_for_handlers,
)

BOTH = (signal.SIGINT, signal.SIGTERM)
RUNS = 16
AT_A_TIME = 4
LONGEST_S = 1.5  # from the first handler to the end of a run, about
FULL = 50_000  # bytes in a pipe that has room for 65,536
EVERY_S = (*FAST, "--max-rate", "none")

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc and a pipe")


@pytest.mark.parametrize("number", BOTH)
def test_the_first_signal_cancels_once(number: signal.Signals) -> None:
    """The coroutine can clean up at leisure, then a KeyboardInterrupt comes out."""
    steps: list[str] = []

    async def work() -> None:
        try:
            signal.raise_signal(number)
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            steps.append("clean")

    with pytest.raises(KeyboardInterrupt):
        run(work)
    assert steps == ["clean"]


def test_the_second_signal_does_not_wait() -> None:
    """A clean-up that hangs can be left by a second Ctrl-C."""

    async def work() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
            await asyncio.Event().wait()
        finally:
            signal.raise_signal(signal.SIGINT)
            await asyncio.Event().wait()

    with pytest.raises(KeyboardInterrupt):
        run(work)


def test_no_signal_tears_a_step_of_the_loop() -> None:
    """However many signals come, what runs between two awaits runs to its end."""
    steps: list[str] = []

    async def work() -> None:
        for number in BOTH * 2:
            signal.raise_signal(number)
        steps.append("whole")
        await asyncio.Event().wait()

    with pytest.raises(KeyboardInterrupt):
        run(work)
    assert steps == ["whole"]


def test_a_result_comes_through() -> None:
    """Without a signal the coroutine's value is returned."""

    async def work() -> int:
        return 5

    assert run(work) == 5


def patched_run(monkeypatch: pytest.MonkeyPatch, *, before: bool) -> None:
    """Let a signal come just before the loop begins, or just after it has ended."""
    real = asyncio.run

    def run_with_signal(work: Coroutine[Any, Any, Any]) -> Any:
        if before:
            signal.raise_signal(signal.SIGTERM)
        result = real(work)
        signal.raise_signal(signal.SIGTERM)
        return result

    monkeypatch.setattr(asyncio, "run", run_with_signal)


def test_a_signal_before_the_loop_runs_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the loop is being made a signal neither breaks that nor is forgotten."""
    started: list[str] = []

    async def work() -> None:
        started.append("work")

    patched_run(monkeypatch, before=True)
    with pytest.raises(KeyboardInterrupt):
        run(work)
    assert not started


def test_a_signal_after_the_work_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the loop is being closed the result is there already."""

    async def work() -> int:
        return 5

    patched_run(monkeypatch, before=False)
    assert run(work) == 5


@pytest.mark.parametrize("number", BOTH)
def test_outside_a_loop_a_signal_raises(number: signal.Signals) -> None:
    """Both signals interrupt plain code, even where they were ignored, and only for so long."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with interruptible(Once()):
            heed_signals()
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_a_second_signal_leaves_the_ending_in_peace() -> None:
    """What comes behind the first signal does not break off the report of pending ids."""
    with interruptible(Once()):
        heed_signals()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)


def test_a_signal_before_it_is_heeded_is_not_lost() -> None:
    """What came while nothing could be broken off ends the next wait, and the next command."""
    with interruptible(Once()):
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt), waiting():
            pytest.fail("waited")
        with pytest.raises(KeyboardInterrupt):
            heed_signals()


def test_a_loops_signal_counts_as_the_first() -> None:
    """A signal that has cancelled the work is not followed by another KeyboardInterrupt."""

    async def work() -> None:
        signal.raise_signal(signal.SIGTERM)
        await asyncio.Event().wait()

    with interruptible(Once()):
        with pytest.raises(KeyboardInterrupt):
            run(work)
        signal.raise_signal(signal.SIGTERM)


def outcome_of(script: str, *arguments: str) -> tuple[int, str, str]:
    """Run a script that ends in `main`; give its exit code, stdout and stderr."""
    script += "\nfrom kling_omni_async.__main__ import main\nmain()"
    call = [sys.executable, "-W", "error", "-c", script, *arguments]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.heavy
@on_linux
@pytest.mark.parametrize("number", BOTH)
def test_a_signal_during_imports_waits_for_the_ids(number: signal.Signals) -> None:
    """What comes while modules are imported breaks none of them, and the ids are told."""
    script = f"""
import signal, sys
class Finder:
    def find_spec(name, path, target=None):
        if name == "cyclopts":
            signal.raise_signal({int(number)})
sys.meta_path.insert(0, Finder)
"""
    told = "kling-omni: interrupted\n2 ids are still pending:\n1\n2\n"
    assert outcome_of(script, "poll", "1", "2") == (Exit.INTERRUPTED, "", told)


@pytest.mark.heavy
@on_linux
def test_a_signal_in_code_made_from_text_is_an_interruption_too() -> None:
    """Where attrs makes a class, Python would later die of SIGINT, although that was caught."""
    script = """
import signal
from kling_omni_async._cli import poll
poll.make_session = lambda *_: exec("signal.raise_signal(signal.SIGINT)")
"""
    told = "kling-omni: interrupted\n1 ids are still pending:\n1\n"
    assert outcome_of(script, "poll", "1") == (Exit.INTERRUPTED, "", told)


@pytest.mark.heavy
@on_linux
@pytest.mark.parametrize("number", BOTH)
def test_a_signal_while_python_ends_changes_nothing(number: signal.Signals) -> None:
    """Once the command has ended, its exit code stands, whatever comes while Python cleans up."""
    script = f"import atexit, signal\natexit.register(signal.raise_signal, {int(number)})"
    told = "kling-omni: no ids: give some, or a file of them with --from\n"
    assert outcome_of(script, "poll") == (Exit.USAGE, "", told)


@pytest.mark.heavy
@on_linux
def test_reading_stdin_can_be_broken_off() -> None:
    """A signal need not wait for ids that nobody writes."""
    with running("poll", "--from", "-", stdin=subprocess.PIPE) as process:
        wait_for_handlers(process)
        process.send_signal(signal.SIGTERM)
        process.wait()
        code, stdout, stderr = finish(process)
    assert (code, stdout, stderr) == (Exit.INTERRUPTED, "", "kling-omni: interrupted\n")


def test_an_early_signal_is_told(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Before a command has begun there is no more to say than that it was interrupted."""

    def interrupted(_: list[str]) -> int:
        signal.raise_signal(signal.SIGTERM)
        heed_signals()
        return Exit.OK

    monkeypatch.setattr("kling_omni_async._cli.app.run", interrupted)
    with pytest.raises(SystemExit) as caught:
        __main__.main()
    assert caught.value.code == Exit.INTERRUPTED
    assert capfd.readouterr() == ("", "kling-omni: interrupted\n")


def test_a_wait_for_a_reader_can_be_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal ends a write to a full pipe before it begins, never half-way."""

    def signalled(*_: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw))
    monkeypatch.setattr(select, "select", signalled)
    with interruptible(Once()), pytest.raises(KeyboardInterrupt):
        out("a line")
    assert raw.getvalue() == b""


def test_no_wait_begins_after_a_signal() -> None:
    """What came since the last await ends the next wait before it begins."""
    steps: list[str] = []

    async def work() -> None:
        signal.raise_signal(signal.SIGTERM)
        with waiting():
            steps.append("waited")

    with pytest.raises(KeyboardInterrupt):
        run(work)
    assert not steps


def test_a_wait_in_a_loop_can_be_broken_off() -> None:
    """A signal that comes in the midst of a wait cancels there and then."""
    steps: list[str] = []

    async def work() -> None:
        with waiting():
            signal.raise_signal(signal.SIGTERM)
            steps.append("waited")

    with pytest.raises(KeyboardInterrupt):
        run(work)
    assert not steps


@pytest.mark.heavy
@on_linux
def test_a_report_nobody_reads_can_be_broken_off() -> None:
    """While stderr is a full pipe another signal ends it, with the exit code of before."""
    read, write = os.pipe()
    with neighbour() as api, os.fdopen(read, "rb"):
        task_ids = [str(number) for number in range(10**17, 10**17 + 5000)]
        call = ("poll", "--from", "-", *EVERY_S)
        with running(*call, env=api.env, stdin=subprocess.PIPE, stderr=write) as process:
            os.close(write)
            assert process.stdin is not None
            process.stdin.write("\n".join(task_ids))
            process.stdin.close()
            process.stdin = None
            api.wait_for_queries(1)
            process.send_signal(signal.SIGTERM)
            while waiting_in(read) < FULL:
                time.sleep(0.001)
            while process.poll() is None:  # the first ones may come before it waits
                process.send_signal(signal.SIGTERM)
                time.sleep(0.01)
            assert finish(process)[0] == Exit.INTERRUPTED


def test_a_report_is_whole_whatever_comes(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Signals while the pending ids are being told change nothing as long as they are read."""
    real = select.select

    def signalled(*arguments: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return real(*arguments)

    monkeypatch.setattr(select, "select", signalled)
    lines = [str(number) for number in range(10_000)]
    with interruptible(Once()):
        tell_at_end(lines)
    assert capfd.readouterr().err.splitlines() == lines


def test_a_wait_for_room_looks_up_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal that came just before the system call is not left waiting for its end."""
    asked: list[float | None] = []

    def never_before_the_third(*arguments: Any) -> Any:
        asked.append(arguments[3])
        return (), arguments[1] if len(asked) == 3 else (), ()

    monkeypatch.setattr(select, "select", never_before_the_third)
    assert has_room(sys.stdout, timeout=None)
    assert asked == [0.5, 0.5, 0.5]


@pytest.mark.heavy
@on_linux
@pytest.mark.parametrize("number", BOTH)
def test_a_reader_that_hangs_does_not_hold_it(number: signal.Signals) -> None:
    """While stdout is a full pipe one signal is enough, and every id is in one place."""
    read, write = os.pipe()
    with neighbour() as api, os.fdopen(read, "rb") as stdout:
        task_ids = api.create(400, duration=0.0, images=4)
        with running("poll", *task_ids, *EVERY_S, env=api.env, stdout=write) as process:
            os.close(write)
            while waiting_in(read) < FULL:
                time.sleep(0.001)
            process.send_signal(number)
            process.wait()
            code, _, stderr = finish(process)
        printed = stdout.read().decode()
    assert (code, printed[-1]) == (Exit.INTERRUPTED, "\n")
    done = [line.split("\t")[0] for line in printed.splitlines()]
    assert 0 < len(done) < len(task_ids)
    assert sorted([*done, *pending_in(stderr)]) == sorted(task_ids)
    assert "Traceback" not in stderr


def waiting_in(pipe: int) -> int:
    """Count the bytes that nobody has read yet."""
    import fcntl  # noqa: PLC0415 - Windows has neither
    import termios  # noqa: PLC0415

    size = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, size)
    return size[0]


def signalled_run(seed: int, folder: Path) -> int:
    """Send one or two signals at a random moment, check what is left, and give the exit code."""
    rng = random.Random(seed)
    journal = folder / f"{seed}.jsonl"
    with neighbour(seed=seed) as api:
        durations = [0.0] * 10 + [rng.uniform(0.0, LONGEST_S) for _ in range(10)]
        task_ids = [api.create(duration=duration)[0] for duration in durations]
        call = ("poll", *task_ids, "--jsonl", str(journal), "--quiet", *EVERY_S)
        with running(*call, env=api.env) as process:
            wait_for_handlers(process)
            time.sleep(rng.uniform(0.0, LONGEST_S))
            process.send_signal(rng.choice(BOTH))
            if seed % 2:
                time.sleep(rng.choice([0.0, 0.001, 0.01]))
                process.send_signal(rng.choice(BOTH))
            code, stdout, stderr = finish(process)
    done = ids_in(journal) if journal.exists() else []
    first, *rest = stderr.splitlines() or [""]
    if code == Exit.OK:
        assert (sorted(done), first) == (sorted(task_ids), "")
        return code
    assert (code, stdout, first) == (Exit.INTERRUPTED, "", "kling-omni: interrupted")
    pending = pending_in(stderr) if rest else []
    assert len(rest) == len(pending) + bool(pending)
    assert sorted([*done, *pending]) == sorted(task_ids)
    return code


@pytest.mark.heavy
@on_linux
@pytest.mark.timeout(300)
def test_a_signal_may_come_at_any_moment(tmp_path: Path) -> None:
    """One or two signals at random moments: no traceback, and each id is done or pending."""
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        codes = list(pool.map(signalled_run, range(RUNS), [tmp_path] * RUNS))
    assert set(codes) <= {Exit.OK, Exit.INTERRUPTED}
