"""A pytest fixture with a running simulator.

Add to the topmost ``conftest.py``::

    pytest_plugins = ["kling_omni_async.simulator.pytest_plugin"]

Then each test can ask for ``comet_api``: async ones, whether anyio's pytest plugin runs them or
pytest-asyncio does, in any of its modes, and others, beside which it runs in a thread. So it does
where pytest-asyncio's automatic mode takes a test that is marked for anyio. Override
``comet_api_options`` to set it up differently::

    @pytest.fixture
    def comet_api_options():
        return {"time_scale": 10.0}
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import AsyncGenerator, Generator
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
    """Return a simulator that runs in the event loop of the test and is closed after it.

    Beside a test that is no coroutine function, or that two plugins lay claim to, it runs in a
    thread.
    """
    of_anyio = "anyio_backend" in request.fixturenames
    of_asyncio = any(request.node.iter_markers("asyncio"))
    if of_anyio and of_asyncio:
        # one would run the fixture and the other the test, each in a loop of its own
        name = "_comet_api_in_a_thread"
    elif of_anyio:
        name = "_comet_api_of_anyio"
    elif _is_async(request.node):
        name = "_comet_api_of_pytest_asyncio"
    else:
        name = "_comet_api_in_a_thread"
    simulator: SimulatedCometAPI = request.getfixturevalue(name)
    return simulator


def _is_async(item: object) -> bool:
    test = getattr(item, "obj", None)
    # hypothesis hides what it wraps
    inner = getattr(getattr(test, "hypothesis", None), "inner_test", test)
    return inspect.iscoroutinefunction(inner)


@pytest.fixture
def _comet_api_in_a_thread(comet_api_options: dict[str, Any]) -> Generator[SimulatedCometAPI]:
    with SimulatedCometAPI(**comet_api_options) as api:
        yield api


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
