"""Fixtures of the tests of books in Redis: a real one, real time.

Only ``nox -s fleet`` runs them, or ``pytest tests/fleet``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest
import redis

from tests.faults.processes import HOST

from .server import RedisServer


@pytest.fixture
def anyio_backend() -> str:
    """Take asyncio and its clock as they come."""
    return "asyncio"


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Generator[RedisServer]:
    """Run one Redis for all tests that do not break it."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    try:
        asyncio.run(server.start())
        asyncio.run(server.ready())
        yield server
    finally:
        server.kill()


@pytest.fixture
def server(shared_server: RedisServer) -> RedisServer:
    """Give that Redis, empty."""
    with redis.Redis(host=HOST, port=shared_server.port) as client:
        client.flushall()
    return shared_server


@pytest.fixture
async def own_server(tmp_path: Path) -> AsyncGenerator[RedisServer]:
    """Run a Redis that a test may break: each change is on its disk at once."""
    server = RedisServer(tmp_path, "--appendonly", "yes", "--appendfsync", "always")
    try:
        await server.start()
        await server.ready()
        yield server
    finally:
        server.kill()
