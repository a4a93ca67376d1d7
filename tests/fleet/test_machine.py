"""Whatever comes in whatever order: Redis gives the answers of the memory, and keeps the same."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
import redis

from kling_omni_async._book.contract import FAR, Take, Taken
from kling_omni_async._book.redis_script import key_names, script_of
from kling_omni_async._book.redis_wire import dumps
from tests.book.test_machine import BookMachine, explore

from .books import new_store
from .server import RedisServer

HEARD: Final = script_of("shelf") + Path(__file__).with_name("lua").joinpath("heard.lua").read_text(
    encoding="utf-8"
)


class RedisMachine(BookMachine):
    """The same with Redis beside the memory: it gives equal answers, and has equal rows."""

    redis_server: RedisServer  # set by the tests

    def __init__(self) -> None:
        super().__init__()
        self.client = redis.Redis(port=self.redis_server.port)
        self.client.flushall()
        self.heard = self.client.register_script(HEARD)
        self.loop = asyncio.new_event_loop()
        self.taken: set[tuple[str, int]] = set()
        self._open()

    def _open(self) -> None:
        self.store = new_store(self.redis_server.url, self.clock)
        self.loop.run_until_complete(self.store.open())

    def call(self, verb: str, *args: Any) -> Any:
        # Readers are dead as the machine says, and not by their silence.
        names = dict.fromkeys(self.readers, FAR) | dict.fromkeys(self.dead, -FAR)
        self.heard(key_names("tasks"), [dumps(names)])
        result = super().call(verb, *args)
        of_redis = self.loop.run_until_complete(getattr(self.store, verb)(*args))
        if verb == "progress":
            assert attrs.evolve(of_redis[0], clock=result[0].clock) == result[0]
        elif verb == "take":
            self._compare_taken(args[0], of_redis, result)
        else:
            assert of_redis == result
        return result

    def _compare_taken(self, take: Take, of_redis: Taken, of_memory: Taken) -> None:
        step = (take.reader, take.seq)
        if step in self.taken:  # what was removed since is not given again
            assert set(of_redis.parcels) <= set(of_memory.parcels)
            of_memory = attrs.evolve(of_memory, parcels=of_redis.parcels)
        self.taken.add(step)
        assert of_redis == of_memory

    def _restart(self, off_s: float | None) -> None:
        # The clock of Redis knows no boot: what was claimed waits for its lease.
        self.clock.spend(max(0.0, off_s or 0.0))
        self.loop.run_until_complete(self.store.aclose())
        self._open()

    def close(self) -> None:
        self.loop.run_until_complete(self.store.aclose())
        self.loop.close()
        self.client.close()


@pytest.fixture(autouse=True)
def _server(shared_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the machine find its Redis."""
    monkeypatch.setattr(RedisMachine, "redis_server", shared_server, raising=False)


def test_redis_gives_the_answers_of_the_memory() -> None:
    """Step by step, and keeps the same rows; ``PLANS=1000`` tries more."""
    explore(RedisMachine, int(os.environ.get("PLANS", "25")))
