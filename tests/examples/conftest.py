"""Fixtures of the tests that run docs/examples: real processes, real time, the simulator.

Only ``nox -s examples`` runs them, or ``pytest tests/examples``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator

import aiohttp
import pytest


@pytest.fixture
def anyio_backend() -> str:
    """Take asyncio and its clock as they come."""
    return "asyncio"


@pytest.fixture
async def client() -> AsyncGenerator[aiohttp.ClientSession]:
    """Give a client of web backends that opens as many connections as it is asked to."""
    timeout = aiohttp.ClientTimeout(total=None)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as client:
        yield client
