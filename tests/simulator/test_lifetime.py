"""The simulator starts and stops cleanly, whatever is under way."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import make_mocked_request

from kling_omni_async.simulator import SimulatedCometAPI
from kling_omni_async.simulator._faults import Fault
from kling_omni_async.simulator._gateway import Answer
from kling_omni_async.simulator._server import Connections, Delivery

from .client import IMAGE, QUERY, Kind, ask, client, each_kind, fetch, status_word, url_of

pytestmark = pytest.mark.anyio


@contextlib.asynccontextmanager
async def nothing_left() -> AsyncGenerator[None]:
    """Check that no task outlives the block."""
    before = asyncio.all_tasks()
    yield
    assert asyncio.all_tasks() == before


async def test_is_a_local_server_on_a_free_port() -> None:
    """By default it listens on loopback only, on a port of its own."""
    async with SimulatedCometAPI() as one, SimulatedCometAPI() as other:
        assert one.base_url.startswith("http://127.0.0.1:")
        assert one.base_url != other.base_url


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # a thread looks names up, in real time
@pytest.mark.parametrize(
    ("host", "called"),
    [
        ("localhost", "http://localhost:"),
        ("0.0.0.0", "http://127.0.0.1:"),  # noqa: S104 - what a container listens on
        ("::1", "http://[::1]:"),
    ],
)
async def test_other_hosts(host: str, called: str) -> None:
    """Another host can be chosen, and ``base_url`` is an address that works."""
    async with SimulatedCometAPI(host=host) as api:
        assert api.base_url.startswith(called)
        assert (await ask(api, "x"))[0] == 400


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        *((kind, {"hang": True}) for kind in (QUERY, IMAGE)),
        *((kind, {"delay": 60.0}) for kind in (QUERY, IMAGE)),
        *((kind, {"bytes_per_second": 1}) for kind in (QUERY, IMAGE)),
        (QUERY, {"body": b"x" * 50_000_000}),
        (QUERY, {"body": b"x" * 50_000_000, "cut_after": 49_000_000}),
        (IMAGE, {"size": 1_000_000_000}),
    ],
    ids=lambda value: value.name if isinstance(value, Kind) else " ".join(value),
)
async def test_closes_at_once_under_a_request(kind: Kind, fault: dict[str, Any]) -> None:
    """What is in flight, answered or not, read or not, holds nothing up and leaves no task."""
    async with nothing_left(), contextlib.AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        api = await stack.enter_async_context(SimulatedCometAPI())
        task_id = api.create_task(duration=0)
        kind.fail_next(api, **fault)
        asked = asyncio.ensure_future(session.get(kind.url(api, task_id)))
        await kind.arrived(api)
        await api.aclose()
        (request,) = kind.seen(api)
        assert request.finished == request.started == asyncio.get_running_loop().time()
        await asyncio.wait([asked])
        if asked.exception() is None:
            asked.result().close()


async def test_closes_at_once_with_idle_connections() -> None:
    """Connections that are kept alive, used or not, hold nothing up and leave no task."""
    async with nothing_left(), contextlib.AsyncExitStack() as stack:
        api = await stack.enter_async_context(SimulatedCometAPI())
        session = await stack.enter_async_context(client(api))
        await fetch(session, url_of(api, "x"))
        port = int(api.base_url.rpartition(":")[2])
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        await ask(api, "x")  # the server has seen the silent connection by now
        await api.aclose()
        writer.close()
        await writer.wait_closed()


@each_kind
async def test_clients_that_leave_end_their_request(kind: Kind) -> None:
    """A slow answer stops when its client has gone, and no task is left."""
    async with SimulatedCometAPI() as api, nothing_left():
        kind.fail_next(api, api.create_task(duration=0, task_id="x"), bytes_per_second=1)
        async with client(api) as session, session.get(kind.url(api, "x")) as response:
            response.close()
        await asyncio.sleep(1.0)
        (request,) = kind.seen(api)
        assert request.finished == request.started


async def test_starts_and_stops_in_different_tasks() -> None:
    """Hooks of a web framework may run in different tasks."""
    api = SimulatedCometAPI()
    await asyncio.create_task(api.start())
    assert (await ask(api, "x"))[0] == 400
    await asyncio.create_task(api.aclose())
    await api.aclose()


async def test_cannot_start_twice() -> None:
    """Starting what runs is a mistake."""
    async with SimulatedCometAPI() as api:
        with pytest.raises(RuntimeError, match="runs already"):
            await api.start()
        assert (await ask(api, "x"))[0] == 400


def _url(api: SimulatedCometAPI) -> object:
    return api.base_url


def _finish(api: SimulatedCometAPI) -> None:
    api.finish("x")


async def test_can_start_again() -> None:
    """After a restart, port, tasks and clock are the same."""
    api = SimulatedCometAPI()
    async with api:
        url, task_id = api.base_url, api.create_task(duration=40.0)
    async with client(api) as session:
        with pytest.raises(aiohttp.ClientConnectorError):
            await fetch(session, url_of(api, task_id))
    await asyncio.sleep(20.0)
    async with api:
        assert api.base_url == url
        assert await status_word(api, task_id) == "processing"
        await asyncio.sleep(20.0)
        assert await status_word(api, task_id) == "succeed"


async def test_taken_port_is_reported() -> None:
    """A port in use raises, leaves nothing behind, and another try can follow."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        api = SimulatedCometAPI(port=port)
        async with nothing_left():
            with pytest.raises(OSError, match="in use"):
                await api.start()
    async with api:
        assert api.base_url == f"http://127.0.0.1:{port}"


@pytest.mark.parametrize(
    "use",
    [_url, SimulatedCometAPI.create_task, _finish],
)
async def test_needs_a_start(use: Callable[[SimulatedCometAPI], object]) -> None:
    """What needs the loop's clock says so before the start."""
    with pytest.raises(RuntimeError, match="with SimulatedCometAPI"):
        use(SimulatedCometAPI())


@pytest.mark.parametrize("fault", [{"reset": True}, {"raw": b"x"}])
async def test_client_that_has_gone_already_is_no_error(fault: dict[str, Any]) -> None:
    """Without a connection there is nothing to reset or to write to."""
    gone = make_mocked_request("GET", "/")
    gone.protocol.transport = None
    await Delivery(gone, Fault(**fault)).send(Answer())
    connections = Connections()
    connections.note(gone)
    assert len(connections.abort()) == 1


PLUGIN_USERS = {
    "strict": {"anyio": "pytest.mark.anyio", "pytest-asyncio": "pytest.mark.asyncio"},
    "auto": {"pytest-asyncio": "[]"},
}

PLUGIN_IMPORTS = """
import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
"""

PLUGIN_TEST = """
@given(number=st.just(1))
@settings(max_examples=1, suppress_health_check=list(HealthCheck))
async def test_given_things(comet_api, number):
    async with aiohttp.ClientSession() as session:
        async with session.get(comet_api.base_url) as response:
            assert response.status == 200

async def test_asks_the_simulator(comet_api):
    async with aiohttp.ClientSession() as session:
        async with session.get(comet_api.base_url) as response:
            assert response.status == 200
    assert "127.0.0.1" in repr(comet_api)
    assert comet_api.api_key == "chosen"

@pytest.fixture
def comet_api_options():
    return {"api_key": "chosen"}

@pytest.fixture
def anyio_backend():
    return "asyncio"
"""


@pytest.mark.parametrize("mode", PLUGIN_USERS)
def test_fixture_works_under_any_plugin(mode: str, tmp_path: Path) -> None:
    """``comet_api`` runs in the loop of the test, whichever plugin provides it, in any mode."""
    plugin = 'pytest_plugins = ["kling_omni_async.simulator.pytest_plugin"]\n'
    (tmp_path / "conftest.py").write_text(plugin)
    for user, mark in PLUGIN_USERS[mode].items():
        code = f"{PLUGIN_IMPORTS}pytestmark = {mark}\n{PLUGIN_TEST}"
        (tmp_path / f"test_{user}.py").write_text(code)
    options = [f"asyncio_mode={mode}", "asyncio_default_fixture_loop_scope=function"]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-W", "error"),
            *(part for option in options for part in ("-o", option)),
            *("--rootdir", tmp_path, tmp_path),
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{2 * len(PLUGIN_USERS[mode])} passed" in done.stdout


async def test_fixture_is_at_hand(comet_api: SimulatedCometAPI) -> None:
    """The suite's own tests can ask for ``comet_api``."""
    assert await status_word(comet_api, comet_api.create_task()) == "submitted"


@pytest.mark.asyncio
async def test_fixture_where_two_plugins_claim_a_test(comet_api: SimulatedCometAPI) -> None:
    """pytest-asyncio runs what has both marks, anyio its fixtures: neither waits for the other.

    So it is too where pytest-asyncio's automatic mode sets the mark.
    """
    assert comet_api.base_url.startswith("http://127.0.0.1:")
    async with (
        client(comet_api, timeout=aiohttp.ClientTimeout(5)) as http,
        http.get(comet_api.base_url) as answer,
    ):
        assert answer.status == 200
