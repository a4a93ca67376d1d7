"""Fixtures of the whole suite: async tests run on a virtual clock unless they say otherwise."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import settings

from .virtual_clock import VirtualClockLoop

# Machines are shared and noisy: how long an example takes proves nothing.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

pytest_plugins = ["kling_omni_async.simulator.pytest_plugin"]


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
    monkeypatch.setattr("kling_omni_async._session.Random", lambda: Random(7))
