"""A redis-server of the tests' own, on a free port of loopback."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import redis
from redis.asyncio import Redis

from tests.faults.processes import HOST, SBIN, Server, free_port, until

PROGRAMS: Final = ("redis-server", "valkey-server")


class RedisServer(Server):
    """A Redis without persistence, unless `options` say otherwise."""

    def __init__(self, folder: Path, *options: str, port: int | None = None, **more: Any) -> None:
        port = port or free_port()
        settings = {
            "port": str(port),
            "bind": HOST,
            "save": "",
            "dir": str(folder),
            "unixsocket": str(folder / "redis.sock"),
        }
        given = [word for name, value in settings.items() for word in (f"--{name}", value)]
        options = tuple(str(port) if each == "PORT" else each for each in options)
        super().__init__([program_of(), *given, *options], folder=folder, port=port, **more)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"redis://{HOST}:{self.port}/0"

    async def ready(self) -> None:
        """Wait until it has read what it has kept, and answers."""
        await until(self._answers)

    def _answers(self) -> bool:
        try:
            with redis.Redis(host=HOST, port=self.port) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def is_whole_cluster(self) -> bool:
        """Whether all slots of a cluster are served."""
        with redis.Redis(host=HOST, port=self.port, decode_responses=True) as client:
            return "cluster_state:ok" in str(client.execute_command("CLUSTER", "INFO"))

    def client(self, **options: Any) -> Any:
        """Give a client of the tests' own."""
        return Redis.from_url(self.url, **options)


def program_of() -> str:
    """Return the server to start: the one that `FLEET_SERVER` names, or the first that is here."""
    wanted = (os.environ["FLEET_SERVER"],) if "FLEET_SERVER" in os.environ else PROGRAMS
    path = f"{os.environ.get('PATH', '')}:{SBIN}"
    return next(filter(None, (shutil.which(each, path=path) for each in wanted)), wanted[0])


def has_server() -> bool:
    """Whether this machine has a Redis."""
    return any(map(shutil.which, PROGRAMS))


def commands(rights: Sequence[str]) -> list[str]:
    """Give what an ACL says to allow some commands."""
    return [f"+{each}" for each in rights]
