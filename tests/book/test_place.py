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


@pytest.mark.parametrize(
    "where",
    [
        '"redis://:s3cret@host/0"',
        "'rediss:/:s3cret@host'",
        "URL=redis://:s3cret@host",
        "unix:/s3cret",
        "redis:s3cret@host",
        "valkey://:s3cret@host",
    ],
)
def test_what_may_have_a_password_is_no_path(where: str) -> None:
    """A URL that was written a little wrong, as in quotes, is refused and not shown."""
    with pytest.raises(ConfigurationError, match="and no other URL") as caught:
        TaskBook(where)
    assert "s3cret" not in f"{caught.value!r}"


@pytest.mark.parametrize("where", ["redis.db", "a/redis:1.db", "unix.db", "C:/tasks.db"])
def test_a_path_is_a_path(where: str) -> None:
    """Only what begins as a URL is taken for one."""
    assert f"{where} not started" in repr(TaskBook(where))
