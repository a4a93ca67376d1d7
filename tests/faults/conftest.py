"""Fixtures of the tests that need nginx and tinyproxy: real processes, real time.

Only ``nox -s faults`` runs them, or ``pytest tests/faults``.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path

import pytest

from kling_omni_async import TaskOutcome

from .certificates import Authority
from .processes import running
from .record import Asked, shortest_pause
from .servers import Simulator

HERE = Path(__file__).parent
FIGURES = pytest.StashKey[list[str]]()
FIRST_FAULT = re.compile(r"first (\w+(?: \([^)]+\))?): ")

Tell = Callable[[Sequence[TaskOutcome], Sequence[Asked]], None]
Faults = Callable[[], set[str]]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave this folder out unless it, or something in it, was asked for."""
    folder = config.invocation_params.dir
    asked = [(folder / argument.partition("::")[0]).resolve() for argument in config.args]
    return None if any(path.is_relative_to(HERE) for path in asked) else True


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Show the figures of each test."""
    if figures := config.stash.get(FIGURES, []):
        terminalreporter.section("figures")
        terminalreporter.write_line("\n".join(figures))


@pytest.fixture
def anyio_backend() -> str:
    """Take asyncio and its clock as they come."""
    return "asyncio"


@pytest.fixture
async def simulator(tmp_path: Path) -> AsyncGenerator[Simulator]:
    """Give the simulator, running; its tasks begin with the first query."""
    folder = tmp_path / "simulator"
    folder.mkdir()
    async with running(Simulator(folder)) as server:
        yield server


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Give an authority to trust."""
    folder = tmp_path / "authority"
    folder.mkdir()
    return Authority(folder)


@pytest.fixture
def faults(caplog: pytest.LogCaptureFixture) -> Faults:
    """Give a function that tells which kinds of fault were warned of."""
    return lambda: set(FIRST_FAULT.findall(caplog.text))


@pytest.fixture
def tell(request: pytest.FixtureRequest, faults: Faults) -> Tell:
    """Give a function that takes what was measured, to be shown at the end."""

    def tell(outcomes: Sequence[TaskOutcome], asked: Sequence[Asked]) -> None:
        most = max(outcome.elapsed for outcome in outcomes)
        line = (
            f"{request.node.name}: {len(outcomes)} ids out in {most:.1f} s, "
            f"{len(asked)} queries arrived, shortest pause {shortest_pause(asked):.3f} s, "
            f"faults: {', '.join(sorted(faults())) or 'none'}"
        )
        request.config.stash.setdefault(FIGURES, []).append(line)

    return tell
