"""A pytest fixture with a running simulator.

Add to the topmost ``conftest.py``::

    pytest_plugins = ["kling_omni_async.simulator.pytest_plugin"]

Then each async test can ask for ``comet_api``, whether anyio's pytest plugin runs it or
pytest-asyncio does, in any of its modes. Override ``comet_api_options`` to set it up differently::

    @pytest.fixture
    def comet_api_options():
        return {"time_scale": 10.0}
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from ._simulator import SimulatedCometAPI

__all__ = ["comet_api", "comet_api_options"]


@pytest.fixture
def comet_api_options() -> dict[str, Any]:
    """Return the arguments of :class:`SimulatedCometAPI`; override it to choose others."""
    return {}


@pytest.fixture
def comet_api(request: pytest.FixtureRequest) -> SimulatedCometAPI:
    """Return a simulator that runs in the event loop of the test and is closed after it."""
    of_anyio = "anyio_backend" in request.fixturenames
    simulator: SimulatedCometAPI = request.getfixturevalue(
        "_comet_api_of_anyio" if of_anyio else "_comet_api_of_pytest_asyncio"
    )
    return simulator


@pytest.fixture
async def _comet_api_of_anyio(
    comet_api_options: dict[str, Any],
) -> AsyncGenerator[SimulatedCometAPI]:
    async with SimulatedCometAPI(**comet_api_options) as api:
        yield api


with contextlib.suppress(ImportError):
    import pytest_asyncio

    # a function of its own: the decorator marks it, and anyio's must stay unmarked
    @pytest_asyncio.fixture
    async def _comet_api_of_pytest_asyncio(
        comet_api_options: dict[str, Any],
    ) -> AsyncGenerator[SimulatedCometAPI]:
        async with SimulatedCometAPI(**comet_api_options) as api:
            yield api
