"""Fixtures of the command line's tests, and a guard: only heavy ones start processes."""

from __future__ import annotations

import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import NoReturn, TextIO

import pytest

from kling_omni_async._cli.app import run
from kling_omni_async.simulator import SimulatedCometAPI

from .support import Call, OnScreen, Screen, simulated


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Let no test start a process unless it is heavy, or many: all others run on each Python."""
    if any(map(item.get_closest_marker, ("heavy", "many"))):
        return (yield)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(subprocess.Popen, "__init__", refuse)
        return (yield)


def refuse(*_: object, **__: object) -> NoReturn:
    """Start no process."""
    pytest.fail("a test that starts a process must be marked heavy, or many")


@pytest.fixture(autouse=True)
def no_terminal_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw as on a usual terminal, whatever the one of the tests is."""
    monkeypatch.setenv("TERM", "xterm")
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def api() -> Generator[SimulatedCometAPI]:
    """Run a simulator that the environment points to; it shares a virtual clock with commands."""
    with simulated() as api:
        yield api


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Call:
    """Return what calls a command in this process."""

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(list(arguments))
        stdout, stderr = capfd.readouterr()
        return code, stdout, stderr

    return call


@pytest.fixture
def on_screen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> OnScreen:
    """Return what calls a command in this process, with stdout and stderr on one terminal."""

    def on_screen(
        *arguments: str,
        columns: int = 80,
        stdout: TextIO | None = None,
        encoding: str = "utf-8",
    ) -> tuple[int, str]:
        with Screen(tmp_path / "screen", encoding) as screen, monkeypatch.context() as patched:
            patched.setenv("COLUMNS", str(columns))
            patched.setattr("sys.stdout", stdout or screen)
            patched.setattr("sys.stderr", screen)
            return run(list(arguments)), screen.text

    return on_screen
