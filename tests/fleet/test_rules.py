"""The rules in Lua are those in Python: the tests of these, each step made in Redis too."""

from __future__ import annotations

from collections.abc import Generator
from typing import Final

import pytest
import redis

from tests.book import test_claims, test_entries, test_handing
from tests.faults.processes import HOST

from .server import RedisServer
from .shadow import ShadowedBook

MODULES: Final = (test_claims, test_entries, test_handing)
for _module in MODULES:
    _about = _module.__name__.rpartition("test_")[2]
    _facts = {name: fact for name, fact in vars(_module).items() if name.startswith("test_")}
    globals().update({f"test_{_about}_{name[5:]}": fact for name, fact in _facts.items()})


@pytest.fixture(autouse=True)
def _followed(shared_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """Let each book of these tests be followed in Redis."""
    with redis.Redis(host=HOST, port=shared_server.port) as client:
        client.flushall()
        monkeypatch.setattr(ShadowedBook, "client", client, raising=False)
        for module in MODULES:
            monkeypatch.setattr(module, "PureBook", ShadowedBook)
        yield
