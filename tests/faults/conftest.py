"""Fixtures of the tests that need nginx and tinyproxy: real processes, real time.

Only ``nox -s faults`` runs them, or ``pytest tests/faults``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from .certificates import Authority
from .processes import running
from .servers import Simulator
from .verdict import Verdict

FIGURES = pytest.StashKey[list[str]]()


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
def latency_s() -> float:
    """Give how long the simulator takes to answer; override it for a slower one."""
    return 0.01


@pytest.fixture
async def simulator(tmp_path: Path, latency_s: float) -> AsyncGenerator[Simulator]:
    """Give the simulator, running; its tasks begin with the first query."""
    async with running(Simulator(tmp_path, latency_s=latency_s)) as server:
        yield server


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Give an authority to trust."""
    return Authority(tmp_path / "authority")


@pytest.fixture
def verdict(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Verdict:
    """Give what takes the test's outcomes and what the servers were asked."""
    figures = request.config.stash.setdefault(FIGURES, [])
    return Verdict(request.node.name, figures, caplog)
