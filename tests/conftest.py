"""Fixtures of the whole suite: async tests run on a virtual clock unless they say otherwise."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import settings

from .virtual_clock import VirtualClockLoop

# Machines are shared and noisy: how long an example takes proves nothing.
settings.register_profile("patient", deadline=None)
# For what ran with all its examples elsewhere already.
settings.register_profile("brief", deadline=None, max_examples=15)
settings.load_profile("patient")

pytest_plugins = ["kling_omni_async.simulator.pytest_plugin"]

OF_OTHER_SESSIONS = [
    Path(__file__).parent / name for name in ("examples", "faults", "fleet", "site", "storage")
]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave a folder that needs more than the others out unless something in it was asked for."""
    if collection_path not in OF_OTHER_SESSIONS:
        return None
    folder = config.invocation_params.dir
    asked = [(folder / argument.partition("::")[0]).resolve() for argument in config.args]
    return None if any(path.is_relative_to(collection_path) for path in asked) else True


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Run async tests on a loop whose clock jumps; override it with ``"asyncio"`` for real time."""
    return ("asyncio", {"loop_factory": VirtualClockLoop})


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the machine's key, base URL and proxies out of every test."""
    names = ["COMETAPI_KEY", "COMETAPI_BASE_URL"]
    names += [f"{scheme}_PROXY" for scheme in ("HTTP", "HTTPS", "ALL", "NO")]
    for name in names:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every session draw the same pauses on each run."""
    monkeypatch.setattr("kling_omni_async._wings.Random", lambda: Random(7))
