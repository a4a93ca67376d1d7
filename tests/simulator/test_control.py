"""The control route: a program in another process scripts the simulator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kling_omni_async.simulator import SimulatedCometAPI
from kling_omni_async.simulator._control import NAMES

from .client import QUERY, ask, client, fetch, image_urls, statuses

pytestmark = pytest.mark.anyio


async def send(api: SimulatedCometAPI, call: Any) -> tuple[int, Any]:
    """Send a call, and return status and answer."""
    body = call if isinstance(call, bytes) else json.dumps(call).encode()
    async with client(api) as http, http.post(f"{api.base_url}/simulator", data=body) as answer:
        return answer.status, await answer.json()


async def test_makes_and_ends_tasks() -> None:
    """A call has the name and the arguments of a method, and answers what that returns."""
    async with SimulatedCometAPI(control=True) as api:
        status, answer = await send(api, {"create_task": {"images": 2}})
        task_id = answer["result"]
        assert (status, len(task_id)) == (200, 18)
        assert await send(api, {"finish": {"task_id": task_id}}) == (200, {"result": None})
        assert len(await image_urls(api, task_id)) == 2
        await send(api, {"expire": {"task_id": task_id}})
        assert await statuses(api, QUERY, task_id) == [400]


async def test_plans_faults() -> None:
    """Faults of queries and of images are planned and cleared; bytes are written as text."""
    async with SimulatedCometAPI(control=True) as api:
        task_id = api.create_task(duration=0)
        (url,) = await image_urls(api, task_id)
        await send(api, {"fail_next": {"task_id": task_id, "status": 502, "times": 2}})
        await send(api, {"fail_next": {"raw": "HTTP/1.1 418 Teapot\r\nContent-Length: 0\r\n\r\n"}})
        assert await statuses(api, QUERY, task_id, 2) == [502, 502]
        assert await statuses(api, QUERY, task_id) == [418]
        await send(api, {"fail_next": {"body": {"code": 7}, "times": None}})
        assert (await ask(api, task_id))[1] == {"code": 7}
        await send(api, {"clear_faults": {}})
        assert await statuses(api, QUERY, task_id) == [200]
        async with client(api) as http:
            await send(api, {"fail_next_image": {"html": True}})
            assert (await fetch(http, url))[2] == "text/html"
            await send(api, {"expire_images": {"status": 410}})
            assert (await fetch(http, url))[0] == 410


async def test_tells_what_was_asked() -> None:
    """The log of an id comes as JSON; the route itself is in no log and meets no fault."""
    async with SimulatedCometAPI(control=True) as api:
        task_id = api.create_task()
        api.fail_next(status=502, times=3)
        await statuses(api, QUERY, task_id, 2)
        _, answer = await send(api, {"queries_of": {"task_id": task_id}})
        assert [query["status"] for query in answer["result"]] == [502, 502]
        _, answer = await send(api, {"gaps": {}})
        assert answer["result"] == api.gaps()
        assert len(api.queries) == 2


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (b"", "must be a JSON object of one call, such as"),
        (b"[" * 100_000, "must be a JSON object of one call"),
        ([], "must be a JSON object of one call"),
        ({}, "must be a JSON object of one call"),
        ({"gaps": {}, "finish": {}}, "must be a JSON object of one call"),
        ({"gaps": []}, "the arguments of gaps must be a JSON object"),
        ({"stop": {}}, "there is no call 'stop': write one of create_task, finish, "),
        ({"__init__": {}}, "there is no call '__init__'"),
        ({"finish": {"task_id": "7"}}, "there is no task '7'"),
        ({"finish": {}}, "task_id"),
        ({"fail_next": {}}, "say what goes wrong"),
        ({"fail_next": {"status": 7}}, "status must be at least 200, got 7"),
        (
            {"fail_next": {"stauts": 502}},
            "fail_next() takes no 'stauts': it takes task_id, times, ",
        ),
        ({"finish": {"task_id": []}}, "task_id must be a str, got []"),
        ({"clear_faults": {"task_id": 7}}, "task_id must be a str, got 7"),
        ({"create_task": {"fail": ["8"] * 1000}}, "fail must be a str, got ['8', '8', "),
        ({"create_task": {"units": 8}}, "units must be a str, got 8"),
        ({"create_task": {"images": -1}}, "images must be at least 0, got -1"),
    ],
    ids=lambda value: str(value)[:20],
)
async def test_refuses_what_it_cannot_do(call: Any, words: str) -> None:
    """What is no call, or one that makes no sense, answers 400 and says what to write."""
    async with SimulatedCometAPI(control=True) as api:
        status, answer = await send(api, call)
        assert status == 400
        assert words in answer["error"]
        assert len(answer["error"]) < 300
        assert "0 tasks" in repr(api)


async def test_needs_the_key() -> None:
    """A page in a browser of the machine, which has no key, can change nothing."""
    async with SimulatedCometAPI(control=True) as api, client(api) as http:
        http.headers.clear()
        async with http.post(f"{api.base_url}/simulator", json={"create_task": {}}) as answer:
            assert answer.status == 401
        assert "0 tasks" in repr(api)


async def test_is_off_unless_asked_for() -> None:
    """Without ``control`` the path is a web page like any other, and with it for a GET too."""
    for control in (False, True):
        async with SimulatedCometAPI(control=control) as api, client(api) as http:
            status, _, kind = await fetch(http, f"{api.base_url}/simulator")
            assert (status, kind) == (200, "text/html")
            if not control:
                async with http.post(f"{api.base_url}/simulator", json={"gaps": {}}) as answer:
                    assert answer.content_type == "text/html"


def test_its_calls_are_documented() -> None:
    """The page that explains the route names each call."""
    page = (Path(__file__).parents[2] / "docs" / "testing.md").read_text("utf-8")
    table = page.partition("### Trouble from another process")[2]
    assert [name for name in NAMES if f"`{name}`" not in table] == []
    assert all(callable(getattr(SimulatedCometAPI, name)) for name in NAMES)
