"""Where a book lies."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from kling_omni_async import ConfigurationError, TaskBook


class Client:
    """What a client of Redis is known by."""

    def execute_command(self, *args: object, **options: object) -> object:
        raise NotImplementedError


@pytest.mark.parametrize(
    "where",
    ["redis://user:secret@host/0", "REDISS://:secret@host", "unix:///run/redis.sock?a=secret"],
)
def test_redis_needs_its_extra(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is missing, a URL of Redis says what to install, and no secret."""
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ConfigurationError, match="extra fleet") as caught:
        TaskBook(where)
    assert "secret" not in str(caught.value)


def test_a_ready_client_is_a_place() -> None:
    """A client that the caller has made is taken as it is, and its book has a name."""
    assert repr(TaskBook(Client())) == "<TaskBook 'tasks' in Redis by a Client not started>"
    assert (
        repr(TaskBook(Client(), name="shop"))
        == "<TaskBook 'shop' in Redis by a Client not started>"
    )
    kind: Any = Client
    with pytest.raises(ConfigurationError, match="not type"):
        TaskBook(kind)
