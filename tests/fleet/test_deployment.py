"""The deployment of docs/examples/fleet: the commands of its compose file, beside the simulator."""

from __future__ import annotations

import asyncio
import math
import os
import re
import signal
from collections.abc import AsyncGenerator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import aiohttp
import attrs
import pytest

from kling_omni_async.simulator import SimulatedCometAPI
from tests.faults.processes import HOST, ROOT, free_port

from .compose import Part, Service, commands_of, in_time, services_of

pytestmark = [pytest.mark.anyio, pytest.mark.many]

FOLDER: Final = ROOT / "docs" / "examples" / "fleet"
PASSWORD: Final = "s3cret"
WISHES: Final = 24
WEB_PROCESSES: Final = 4
_STARTED: Final = re.compile(r"Started server process \[(\d+)\]")


@pytest.fixture
def comet_api_options() -> dict[str, Any]:
    """Let tasks end when the test says so."""
    return {"durations": lambda _: math.inf}


@attrs.frozen
class Fleet:
    """What runs.

    Attributes:
        url: Where the web part is.
        images: Where images are stored.
        services: What the compose file says.
        parts: The processes of each service.
    """

    url: str
    images: Path
    services: dict[str, Service]
    parts: dict[str, list[Part]]

    @property
    def all_parts(self) -> list[Part]:
        """All processes, in the order in which they were started."""
        return [part for parts in self.parts.values() for part in parts]


@pytest.fixture
async def fleet(comet_api: SimulatedCometAPI, tmp_path: Path) -> AsyncGenerator[Fleet]:
    """Run the whole fleet, and leave nothing of it behind."""
    secrets = {
        "COMETAPI_KEY": comet_api.api_key,
        "REDIS_PASSWORD": PASSWORD,
        "POLL_INTERVAL": "0.5s-1s",
    }
    redis_port, web_port = free_port(), free_port()
    services = services_of(FOLDER / "compose.yaml", secrets, redis_port)
    images = tmp_path / "images"
    more = {
        "COMETAPI_BASE_URL": comet_api.base_url,
        "PYTHONWARNINGS": "error",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    own = {
        "web": {
            "UVICORN_HOST": HOST,
            "UVICORN_PORT": str(web_port),
            # The parent of its processes leaves its own socket to the end of Python.
            "PYTHONWARNINGS": "error,ignore:unclosed <socket.socket:ResourceWarning",
        },
        "saver": {"IMAGES": str(images)},
    }
    fleet = Fleet(f"http://{HOST}:{web_port}", images, services, {})
    with ExitStack() as stack:
        for name, service in services.items():
            cwd = tmp_path if name == "redis" else FOLDER
            parts = service.parts(tmp_path, cwd=cwd, more={**more, **own.get(name, {})})
            fleet.parts[name] = parts
            for part in parts:
                part.begin()
                stack.callback(part.kill)
            if service.check:
                await in_time(service.is_well)
        yield fleet


class Browsers:
    """Clients that ask again, whatever becomes of the connection that they ask on."""

    def __init__(self, client: aiohttp.ClientSession, url: str) -> None:
        self._client = client
        self._url = url
        self.cut = 0

    async def _ask(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        while True:
            try:
                async with self._client.request(method, f"{self._url}{path}", **options) as answer:
                    return answer.status, await answer.json()
            except aiohttp.ClientError:
                self.cut += 1
                await asyncio.sleep(0.05)

    async def until_well(self, workers: int) -> None:
        """Wait until the web part counts so many workers."""
        while (await self.health()).get("workers") != workers:
            pass

    async def order(self, key: str) -> str:
        """Order, and give the id."""
        wish = {"prompt": f"a fox {key}", "n": 2, "key": key}
        status, told = await self._ask("POST", "/tasks", json=wish)
        assert status == 201, told
        return str(told["task_id"])

    async def wait(self, task_id: str) -> Any:
        """Ask until the images are there."""
        while (answer := await self._ask("GET", f"/tasks/{task_id}"))[0] in {202, 502}:  # noqa: ASYNC110 - nobody sets an Event for us
            await asyncio.sleep(0.05)
        assert answer[0] == 200, answer
        return answer[1]

    async def health(self) -> Any:
        """Give what the book holds."""
        return (await self._ask("GET", "/healthz"))[1]


@pytest.fixture
async def browsers(fleet: Fleet) -> AsyncGenerator[Browsers]:
    """Give clients of the fleet, each with a connection of its own."""
    await fleet.parts["web"][0].says("Started server process", WEB_PROCESSES)
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector) as client:
        browsers = Browsers(client, fleet.url)
        await browsers.until_well(fleet.services["work"].replicas)
        yield browsers


async def test_all_are_served_though_a_worker_a_web_process_and_redis_are_killed(
    comet_api: SimulatedCometAPI, fleet: Fleet, browsers: Browsers
) -> None:
    """Each wish is paid for once, comes to its browser and is stored; then all ends by SIGTERM."""
    (redis,) = fleet.parts["redis"]
    (web,), (saver,), workers = fleet.parts["web"], fleet.parts["saver"], fleet.parts["work"]
    keys = [f"wish-{number}" for number in range(WISHES)]
    ids = await asyncio.gather(*map(browsers.order, keys))
    assert len(comet_api.billed) == len(set(ids)) == WISHES
    waiting = [asyncio.create_task(browsers.wait(task_id)) for task_id in ids]
    for task_id in ids:
        await comet_api.wait_for_queries(1, task_id)
    workers[0].kill()
    for pid in _STARTED.findall(web.said):
        os.kill(int(pid), signal.SIGKILL)
        await web.says(f"Child process [{pid}] died")
        if browsers.cut:  # the kernel chooses who waits where
            break
    await in_time(lambda: browsers.cut > 0)
    again = await asyncio.gather(*map(browsers.order, keys))
    assert (again, len(comet_api.billed)) == (ids, WISHES)
    redis.kill()
    redis.begin()
    await in_time(fleet.services["redis"].is_well)
    for task_id in ids:
        comet_api.finish(task_id)
    told = await asyncio.gather(*waiting)
    assert all(each["status"] == "succeed" and len(each["images"]) == 2 for each in told)
    await saver.says(" has [", WISHES)
    stored = sorted(file.name for file in fleet.images.glob("*.png"))
    assert stored == sorted(f"{task_id}-{number}.png" for task_id in ids for number in (0, 1))
    await web.says("Started server process", WEB_PROCESSES + 1)
    health = await browsers.health()
    assert (health["pending"], health["succeeded"], health["unread"]) == (0, WISHES, 0)
    assert len(comet_api.billed) == WISHES
    assert min(comet_api.gaps()) >= 0.5
    tell_nothing_secret(comet_api, fleet)
    await stop(fleet)


def tell_nothing_secret(comet_api: SimulatedCometAPI, fleet: Fleet) -> None:
    """Check that neither what was written nor the list of processes has a secret."""
    told = [part.said for part in fleet.all_parts]
    running = [part for part in fleet.all_parts if not part.has_ended]
    commands = [
        Path(f"/proc/{pid}/cmdline").read_text("utf-8") for part in running for pid in part.family()
    ]
    assert len(commands) > WEB_PROCESSES
    for text in told + commands:
        assert PASSWORD not in text
        assert comet_api.api_key not in text


async def stop(fleet: Fleet) -> None:
    """End all that runs still, Redis last."""
    codes = {"redis": 0, "web": 0, "work": 130, "saver": 0}
    for name, parts in reversed(fleet.parts.items()):
        for part in parts:
            if not part.has_ended:
                await part.stop()
                assert part.process.returncode == codes[name], part.said


def test_the_readme_has_the_same_commands() -> None:
    """Who starts the parts by hand types what the compose file would run."""
    readme = " ".join((FOLDER / "README.md").read_text("utf-8").split())
    for command in commands_of(FOLDER / "compose.yaml"):
        plain = command.removeprefix("sh -c 'exec ").removesuffix("'")
        assert plain.partition(" --interval")[0] in readme
