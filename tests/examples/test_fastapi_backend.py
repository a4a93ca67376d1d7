"""The web backend with FastAPI: what it answers, what it asks, and how it stops."""

from __future__ import annotations

import asyncio
import json
import math
import signal
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from kling_omni_async.simulator import SimulatedCometAPI

from .program import Program, environment, running, until

pytestmark = pytest.mark.anyio

PAUSE_S = 0.2
CLIENTS = 500
STARTED = {"submitted", "processing"}


@pytest.fixture
async def backend(comet_api: SimulatedCometAPI, tmp_path: Path) -> AsyncGenerator[Program]:
    """Give the running example."""
    env = {**environment(comet_api), "PORT": "0", "POLL_INTERVAL": str(PAUSE_S)}
    async with running("fastapi_backend.py", env=env, folder=tmp_path) as program:
        yield program


@pytest.fixture
async def url(backend: Program) -> str:
    """Give its URL."""
    return await backend.address()


async def get(client: aiohttp.ClientSession, url: str) -> tuple[int, Any]:
    """Give the status and the JSON of an answer."""
    async with client.get(url) as answer:
        return answer.status, await answer.json()


async def events_of(answer: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, Any]]:
    """Read server-sent events to their end."""
    name = ""
    async for line in answer.content:
        field, _, value = line.decode().strip().partition(": ")
        if field == "event":
            name = value
            if name == "end":
                yield name, None
        elif field == "data" and name != "end":
            yield name, json.loads(value)


async def test_a_finished_task_is_given_with_its_images(
    comet_api: SimulatedCometAPI, client: aiohttp.ClientSession, url: str
) -> None:
    """200 has the URLs that the API gave, also for an id with a slash."""
    task_id = comet_api.create_task(task_id="AbC/d+e=", duration=0.5, images=2)
    status, told = await get(client, f"{url}/tasks/{quote(task_id, safe='')}?wait=50")
    assert (status, told["task_id"], told["status"]) == (200, task_id, "succeed")
    assert [await image_type(client, image) for image in told["images"]] == ["image/png"] * 2


async def test_a_prompt_becomes_images_that_are_kept_here(
    comet_api: SimulatedCometAPI, client: aiohttp.ClientSession, url: str
) -> None:
    """Created once under its key, waited for, saved and served; the second client shares it."""
    wish = {"prompt": "a fox", "n": 2, "key": "42/1"}
    waiting = [asyncio.create_task(post(client, f"{url}/images", wish)) for _ in range(2)]
    await until(lambda: comet_api.billed)
    (task,) = comet_api.billed
    comet_api.finish(task.task_id)
    answers = [await each for each in waiting]
    assert [status for status, _ in answers] == [201, 201], answers
    assert answers[0] == answers[1]
    images = answers[0][1]
    assert [await image_type(client, f"{url}{image}") for image in images] == ["image/png"] * 2
    assert len(comet_api.billed) == 1


async def test_a_prompt_becomes_a_task_at_once(
    comet_api: SimulatedCometAPI, client: aiohttp.ClientSession, url: str
) -> None:
    """Its id is answered; what cannot be ordered, or fails, is told with the reason."""
    status, told = await post(client, f"{url}/tasks", {"prompt": "a fox"})
    assert (status, told["status"]) == (201, "submitted")
    assert [task.task_id for task in comet_api.billed] == [told["task_id"]]
    status, told = await post(client, f"{url}/tasks", {"prompt": "a fox", "n": 12})
    assert (status, "ImageOrder.n must be" in told["detail"]) == (422, True)
    comet_api.fail_next_create(status=400, body={"code": 1301, "message": "sensitive"})
    status, told = await post(client, f"{url}/tasks", {"prompt": "a fox"})
    assert (status, "sensitive" in told["detail"], len(comet_api.billed)) == (422, True, 1)


async def post(client: aiohttp.ClientSession, url: str, wish: dict[str, Any]) -> tuple[int, Any]:
    """Order, and give the status and the JSON of the answer."""
    async with client.post(url, json=wish) as answer:
        return answer.status, await answer.json()


async def image_type(client: aiohttp.ClientSession, url: str) -> str:
    """Give what kind of file is behind a URL."""
    async with client.get(url) as answer:
        return answer.content_type


async def test_when_the_time_is_over_the_last_status_is_told(
    comet_api: SimulatedCometAPI, client: aiohttp.ClientSession, url: str
) -> None:
    """202 has the status that was seen last; who comes back makes nobody ask sooner."""
    task_id = comet_api.create_task(duration=math.inf)
    for wait in (1, 0, 0.1, 0.5):
        status, told = await get(client, f"{url}/tasks/{task_id}?wait={wait}")
        assert (status, told["images"]) == (202, [])
        assert told["status"] in STARTED
    assert min(comet_api.gaps(task_id), default=PAUSE_S) >= PAUSE_S


async def test_an_unknown_id_is_404_and_a_silent_api_is_not(
    comet_api: SimulatedCometAPI, client: aiohttp.ClientSession, url: str
) -> None:
    """404 once the API has said it twice, or once and no more in time; and for what is no id."""
    silent = comet_api.create_task()
    comet_api.fail_next(silent, hang=True)
    comet_api.fail_next("no-one", not_found=True)
    comet_api.fail_next("no-one", hang=True)
    calls = ("nobody?wait=50", "no-one?wait=1", "with%20space", f"{silent}?wait=1")
    *unknown, said = await asyncio.gather(*[get(client, f"{url}/tasks/{call}") for call in calls])
    assert [status for status, _ in unknown] == [404] * 3
    assert (said[0], said[1]["status"]) == (202, "unknown")
    assert {query.task_id for query in comet_api.queries} == {"nobody", "no-one", silent}
    assert len(comet_api.queries_of("nobody")) == 2


async def test_a_failed_task_is_a_result(
    comet_api: SimulatedCometAPI, client: aiohttp.ClientSession, url: str
) -> None:
    """A failed task, and one without images, are 200 with the reason: asking again is no use."""
    failed = comet_api.create_task(duration=0.0, fail="Image pixel is invalid")
    empty = comet_api.create_task(duration=0.0, images=0)
    status, told = await get(client, f"{url}/tasks/{failed}")
    assert (status, told["status"], told["reason"]) == (200, "failed", "Image pixel is invalid")
    status, told = await get(client, f"{url}/tasks/{empty}")
    assert (status, told["status"], told["images"]) == (200, "failed", [])


async def test_trouble_with_the_api_is_502_and_told_in_the_log(
    comet_api: SimulatedCometAPI, client: aiohttp.ClientSession, backend: Program, url: str
) -> None:
    """What is ours to mend goes to the log, and the client gets neither it nor the key."""
    task_id = comet_api.create_task(duration=math.inf)
    comet_api.fail_next(task_id, status=401)
    status, told = await get(client, f"{url}/tasks/{task_id}")
    assert (status, set(told)) == (502, {"detail"})
    await backend.says("AuthenticationError")
    assert comet_api.api_key not in backend.output
    assert (await get(client, f"{url}/tasks/{task_id}?wait=1"))[0] == 202  # it goes on


@pytest.mark.parametrize(
    ("outcome", "last"),
    [({"images": 2}, "succeed"), ({"fail": "no"}, "failed")],
    ids=["succeed", "failed"],
)
async def test_events_tell_each_change(
    comet_api: SimulatedCometAPI,
    client: aiohttp.ClientSession,
    url: str,
    outcome: dict[str, Any],
    last: str,
) -> None:
    """The stream has the first status, each change, and an end."""
    task_id = comet_api.create_task(duration=math.inf, **outcome)
    async with client.get(f"{url}/tasks/{task_id}/events") as answer:
        assert answer.content_type == "text/event-stream"
        events = events_of(answer)
        seen = [await anext(events)]
        comet_api.finish(task_id)
        seen += [event async for event in events]
    assert [name for name, _ in seen[-2:]] == ["status", "end"]
    statuses = [told["status"] for name, told in seen if name == "status"]
    assert statuses[0] in STARTED
    assert statuses[-1] == last
    assert len(seen[-2][1]["images"]) == outcome.get("images", 0)


async def test_events_of_an_unknown_id_tell_so(client: aiohttp.ClientSession, url: str) -> None:
    """The stream of an id that the API does not know has one event that says it, and an end."""
    async with client.get(f"{url}/tasks/nobody/events") as answer:
        seen = [event async for event in events_of(answer)]
    assert seen == [("trouble", {"detail": "There is no such task."}), ("end", None)]


async def test_500_clients_cause_one_query_an_interval(
    comet_api: SimulatedCometAPI, client: aiohttp.ClientSession, url: str
) -> None:
    """Half of them wait, half follow the events; all get the result, and no query comes early."""
    task_id = comet_api.create_task(duration=math.inf, images=2)
    following = [asyncio.Event() for _ in range(CLIENTS // 2)]

    async def follow(first_seen: asyncio.Event) -> Any:
        async with client.get(f"{url}/tasks/{task_id}/events") as answer:
            told = None
            async for name, data in events_of(answer):
                told = data if name == "status" else told
                first_seen.set()
        return told

    async def wait() -> Any:
        return (await get(client, f"{url}/tasks/{task_id}?wait=55"))[1]

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(follow(event)) for event in following]
        tasks += [group.create_task(wait()) for _ in range(CLIENTS // 2)]
        for event in following:
            await event.wait()
        asked = len(comet_api.queries_of(task_id))
        await comet_api.wait_for_queries(asked + 5, task_id)
        comet_api.finish(task_id)
    told = [task.result() for task in tasks]
    assert len(told) == CLIENTS
    assert all(each["status"] == "succeed" and len(each["images"]) == 2 for each in told)
    assert min(comet_api.gaps(task_id)) >= PAUSE_S


async def test_who_closes_the_event_stream_drops_its_wait(
    comet_api: SimulatedCometAPI, client: aiohttp.ClientSession, url: str
) -> None:
    """Soon after, the id is asked no more, while another goes on at its pace."""
    left, kept = (comet_api.create_task(duration=math.inf) for _ in range(2))
    async with client.get(f"{url}/tasks/{kept}/events") as kept_open:
        await anext(events_of(kept_open))
        answer = await client.get(f"{url}/tasks/{left}/events")
        await anext(events_of(answer))
        answer.close()
        await until(lambda: asked_since(comet_api, left, kept) >= 10)
    assert min(comet_api.gaps()) >= PAUSE_S


def asked_since(api: SimulatedCometAPI, left: str, kept: str) -> int:
    """Count the queries of one id since the last of another."""
    asked = [query.task_id for query in api.queries]
    return asked[::-1].index(left) if left in asked and kept in asked else 0


async def test_it_stops_with_an_event_stream_open(
    comet_api: SimulatedCometAPI, client: aiohttp.ClientSession, backend: Program, url: str
) -> None:
    """SIGTERM ends the program although a client still follows a task and another waits."""
    followed, waited_for = (comet_api.create_task(duration=math.inf) for _ in range(2))
    async with client.get(f"{url}/tasks/{followed}/events") as answer:
        await anext(events_of(answer))
        waiting = asyncio.create_task(get(client, f"{url}/tasks/{waited_for}?wait=55"))
        await comet_api.wait_for_queries(1, waited_for)
        assert await backend.stop() == -signal.SIGTERM  # uvicorn hands it on
        assert [event async for event in events_of(answer)] == []
    assert (await waiting)[0] == 502


async def test_ctrl_c_ends_it_without_a_word(backend: Program) -> None:
    """Who tries it on a terminal sees no traceback at its end."""
    await backend.address()
    assert await backend.stop(signal.SIGINT) == 0
    assert "KeyboardInterrupt" not in backend.output


async def test_a_callback_makes_it_ask_and_says_nothing(
    comet_api: SimulatedCometAPI, client: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """The right one ends the pause at its least; wrong, huge, forged ones get the same 204."""
    env = {**environment(comet_api), "PORT": "0", "POLL_INTERVAL": "1e6"}
    env["CALLBACK_SECRET"] = "s3cret"
    async with running("fastapi_backend.py", env=env, folder=tmp_path) as program:
        url = await program.address()
        task_id = comet_api.create_task(duration=math.inf)
        waiting = asyncio.create_task(client.get(f"{url}/tasks/{task_id}"))
        await comet_api.wait_for_queries()

        async def health() -> dict[str, Any]:
            async with client.get(f"{url}/healthz") as answer:
                assert answer.status == 200
                return dict(await answer.json())

        async def call_back(secret: str, body: bytes) -> None:
            async with client.post(f"{url}/callbacks/{secret}", data=body) as answer:
                assert (answer.status, await answer.read()) == (204, b"")

        told = json.dumps({"task_id": task_id, "task_status": "succeed"}).encode()
        for body in (b"{}", b"x" * 900_000, told.replace(b'"task_id"', b'"id"')):
            await call_back("s3cret", body)
        await call_back("wrong", told)
        while (await health())["in_flight"]:
            pass
        assert (await health())["next_query"] > 1e6
        await call_back("s3cret", told)
        after = await health()
        assert 1e6 - 60 < after["next_query"] <= 1e6
        assert (after["watched"], after["queries"]) == (1, 1)
        waiting.cancel()
        await asyncio.wait([waiting])
