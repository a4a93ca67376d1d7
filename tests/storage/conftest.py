"""Fixtures of the tests that speak to S3 over its real wire: moto's server, real time.

Only ``nox -s storage`` runs them, or ``pytest tests/storage``.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from .bucket import Bucket
from .relay import Relay


@pytest.fixture
def anyio_backend() -> str:
    """Take asyncio and its clock as they come."""
    return "asyncio"


@pytest.fixture(autouse=True)
def no_cloud_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the machine's own cloud out of every test."""
    for name in os.environ:
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """Prove that nothing is left where images wait for their upload."""
    folder = tmp_path / "spool"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert list(folder.iterdir()) == []


@pytest.fixture(scope="session")
def moto() -> Generator[str]:
    """Give the URL of an S3 on this machine."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
async def relay(moto: str) -> AsyncGenerator[Relay]:
    """Give what stands before S3."""
    async with Relay(moto) as relay:
        yield relay


@pytest.fixture
def bucket(relay: Relay) -> Bucket:
    """Give a bucket of the test's own."""
    return Bucket(relay.url)
