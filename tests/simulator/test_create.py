"""The simulator's create route."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from kling_omni_async.simulator import SimulatedCometAPI

from .client import COLLECTION, ask, client

pytestmark = pytest.mark.anyio


async def create(api: SimulatedCometAPI, body: Any) -> tuple[int, Any]:
    """Send a create request."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with client(api) as session, session.post(api.base_url + COLLECTION, data=data) as answer:
        return answer.status, await answer.json()


async def test_answers_as_documented() -> None:
    """A prompt is enough; the answer has the new id and no ``request_id``."""
    async with SimulatedCometAPI() as api:
        status, body = await create(api, {"prompt": "a cat"})
        data = body.pop("data")
        assert (status, body) == (200, {"code": 0, "message": "SUCCEED"})
        assert data.pop("created_at") == data.pop("updated_at")
        assert len(data.pop("task_id")) == 18
        assert data == {"task_info": {"external_task_id": None}, "task_status": "submitted"}


@pytest.mark.parametrize(
    ("order", "field", "count"),
    [
        ({}, "images", 1),
        ({"n": 9}, "images", 9),
        ({"n": 9, "result_type": "series"}, "series_images", 4),
        ({"series_amount": 7, "result_type": "series"}, "series_images", 7),
        ({"series_amount": "auto", "result_type": "series"}, "series_images", 4),
    ],
)
async def test_order_decides_the_images(order: dict[str, Any], field: str, count: int) -> None:
    """``n`` counts single images, ``series_amount`` those of a series."""
    async with SimulatedCometAPI() as api:
        _, body = await create(api, {"prompt": "a cat", **order})
        await asyncio.sleep(50.0)
        _, body = await ask(api, body["data"]["task_id"])
        assert len(body["data"]["task_result"][field]) == count


async def test_everything_documented_is_accepted() -> None:
    """A body with every documented field creates a task that remembers the caller's name for it."""
    order = {
        "prompt": "x" * 2500,
        "model_name": "kling-v3-omni",
        "image_list": [{"image": "https://images.example/1.png"}] * 5,
        "element_list": [{"element_id": 7}] * 5,
        "resolution": "4k",
        "result_type": "single",
        "n": 2,
        "series_amount": None,
        "aspect_ratio": "21:9",
        "watermark_info": {"enabled": True},
        "callback_url": "https://hooks.example/",
        "external_task_id": "mine-7",
    }
    async with SimulatedCometAPI() as api:
        status, body = await create(api, order)
        assert status == 200
        assert body["data"]["task_info"] == {"external_task_id": "mine-7"}
        _, body = await ask(api, body["data"]["task_id"])
        assert body["data"]["watermark_info"] == {"enabled": True}


@pytest.mark.parametrize(
    ("order", "named"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": " "}, "prompt"),
        ({"prompt": 7}, "prompt"),
        ({"prompt": "x" * 2501}, "prompt"),
        ({"model_name": "other"}, "model_name"),
        ({"image_list": "x"}, "image_list"),
        ({"image_list": ["x"]}, "image_list"),
        ({"image_list": [{"image": 7}]}, "image_list"),
        ({"element_list": [{"element_id": "7"}]}, "element_list"),
        ({"element_list": [{"element_id": 7}] * 11}, "element_list"),
        ({"resolution": "8k"}, "resolution"),
        ({"result_type": "both"}, "result_type"),
        ({"n": 0}, "n must"),
        ({"n": 10}, "n must"),
        ({"n": True}, "n must"),
        ({"series_amount": 1}, "series_amount"),
        ({"series_amount": "many"}, "series_amount"),
        ({"aspect_ratio": "5:4"}, "aspect_ratio"),
        ({"watermark_info": {}}, "watermark_info"),
        ({"watermark_info": True}, "watermark_info"),
        ({"callback_url": 7}, "callback_url"),
        ({"external_task_id": 7}, "external_task_id"),
    ],
)
async def test_bad_value_is_refused(order: dict[str, Any], named: str) -> None:
    """A value that is not allowed answers 400 with vendor code 1201 and names the field."""
    async with SimulatedCometAPI() as api:
        status, body = await create(api, {"prompt": "a cat", **order})
        assert (status, body["code"]) == (400, 1201)
        assert named in body["message"]
        assert sorted(body) == ["code", "message", "request_id"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"7", b"\xff", b"[" * 100_000], ids=lambda body: str(body[:9])
)
async def test_unreadable_body_is_refused(body: bytes) -> None:
    """A body that is no JSON object answers 400 with vendor code 1200."""
    async with SimulatedCometAPI() as api:
        status, answer = await create(api, body)
        assert (status, answer["code"]) == (400, 1200)


async def test_needs_the_key() -> None:
    """Without the key nothing is created."""
    async with SimulatedCometAPI() as api, client(api) as session:
        session.headers.clear()
        async with session.post(api.base_url + COLLECTION, json={"prompt": "a cat"}) as response:
            assert response.status == 401
        assert "0 tasks" in repr(api)


async def test_is_logged_but_asks_for_no_id() -> None:
    """A create request is in the log without an id, and makes no gap."""
    async with SimulatedCometAPI() as api:
        _, body = await create(api, {"prompt": "a cat"})
        await create(api, {"prompt": "a cat"})
        await ask(api, body["data"]["task_id"])
        assert [query.method for query in api.queries] == ["POST", "POST", "GET"]
        assert [query.task_id is None for query in api.queries] == [True, True, False]
        assert api.gaps() == []


# What goes wrong, and what is billed.


async def statuses(api: SimulatedCometAPI, *bodies: Any) -> list[int]:
    """Send create requests one after the other."""
    return [(await create(api, {"prompt": "a cat", **body}))[0] for body in bodies]


async def test_what_is_billed() -> None:
    """Each task that a request has made, by what its images cost; scripted ones cost nothing."""
    async with SimulatedCometAPI() as api:
        api.create_task(external_task_id="scripted")
        orders = [{"external_task_id": "a", "n": 2}, {"resolution": "4k"}, {"n": 0}]
        assert await statuses(api, *orders) == [200, 200, 400]
        assert [(bill.external_task_id, bill.images, bill.units) for bill in api.billed] == [
            ("a", 2, 16),
            (None, 1, 16),
        ]
        await asyncio.sleep(50.0)
        _, body = await ask(api, api.billed[0].task_id)
        assert body["data"]["final_unit_deduction"] == "16"
        assert [query.external_task_id for query in api.queries] == ["a", None, None, None]


async def test_slots() -> None:
    """A task holds as many as its ``n`` until its end; one too many is 429 with 1303, free."""
    async with SimulatedCometAPI(slots=3) as api:
        assert await statuses(api, {"n": 2}, {"n": 2}, {"n": 1}, {}) == [200, 429, 200, 429]
        api.finish(api.billed[0].task_id)
        _, body = await create(api, {"prompt": "a cat", "n": 3})
        assert body["code"] == 1303
        assert await statuses(api, {"n": 2}) == [200]
        api.expire(api.billed[1].task_id)
        assert await statuses(api, {}, {}) == [200, 429]
        await asyncio.sleep(50.0)
        assert await statuses(api, {"n": 3}) == [200]
        assert len(api.billed) == 5


@pytest.mark.parametrize("duplicates", ["refused", "wrapped", "accepted"])
async def test_duplicates(duplicates: Any) -> None:
    """A name that is known, by whoever used it, is refused plainly, wrapped, or not at all."""
    async with SimulatedCometAPI(duplicates=duplicates) as api:
        api.create_task(external_task_id="foreign")
        assert await statuses(api, {"external_task_id": "a"}) == [200]
        for name in ("a", "foreign"):
            status, body = await create(api, {"prompt": "a cat", "external_task_id": name})
            if duplicates == "accepted":
                assert status == 200
                continue
            assert status == 400
            if duplicates == "wrapped":
                assert (body["code"], body["data"]) == ("fail_to_fetch_task", None)
                body = json.loads(body["message"])
            assert (body["code"], body["message"]) == (1201, "external_task_id already exists")
        assert len(api.billed) == (3 if duplicates == "accepted" else 1)


@pytest.mark.parametrize("by_external_id", [True, False])
async def test_a_query_by_external_id(*, by_external_id: bool) -> None:
    """It gives the first task of that name, where the simulator does that favour."""
    async with SimulatedCometAPI(by_external_id=by_external_id) as api:
        task_id = api.create_task(external_task_id="mine")
        api.create_task(external_task_id="mine")
        status, body = await ask(api, "mine")
        assert status == (200 if by_external_id else 400)
        if by_external_id:
            assert body["data"]["task_id"] == task_id


@pytest.mark.parametrize(
    ("fault", "created"),
    [
        ({"status": 500, "body": {"code": 5000, "message": "x"}}, False),
        ({"status": 500, "body": {"code": 5000, "message": "x"}, "created": True}, True),
        ({"retry_after": 3}, False),
        ({"retry_after": 3, "created": True}, True),
        ({"headers": {"X": "y"}}, True),
        ({"malformed": True}, True),
        ({"bytes_per_second": 1e9}, True),
        ({"delay": 5.0}, True),
        ({"delay": 5.0, "created": False}, False),
    ],
)
async def test_a_fault_of_creates(fault: dict[str, Any], *, created: bool) -> None:
    """Whether the task is made can be said; it is where its true answer is what gets spoilt."""
    async with SimulatedCometAPI() as api:
        api.fail_next_create(**fault)
        async with client(api) as session:
            url = api.base_url + COLLECTION
            async with session.post(url, json={"prompt": "a cat"}) as response:
                await response.read()
        assert bool(api.billed) is created
        assert await statuses(api, {}) == [200]


async def bring(api: SimulatedCometAPI) -> bytes:
    """Send a create request, and read its answer for 3 s at most."""
    async with client(api, timeout=aiohttp.ClientTimeout(total=3)) as session:
        url = api.base_url + COLLECTION
        async with session.post(url, json={"prompt": "a cat"}) as response:
            return await response.read()


@pytest.mark.parametrize("fault", [{"hang": True}, {"reset": True}, {"raw": b""}])
@pytest.mark.parametrize("created", [True, False])
async def test_an_answer_that_is_lost(fault: dict[str, Any], *, created: bool) -> None:
    """It is lost after the task was made, or before."""
    async with SimulatedCometAPI() as api:
        api.fail_next_create(times=None, created=created, **fault)
        with pytest.raises((TimeoutError, aiohttp.ClientError)):
            await bring(api)
        assert bool(api.billed) is created
        api.clear_creates()
        assert await statuses(api, {}) == [200]


async def test_an_answer_that_is_cut() -> None:
    """Its task was made, unless it is said otherwise."""
    async with SimulatedCometAPI() as api:
        api.fail_next_create(cut_after=20)
        with pytest.raises(aiohttp.ClientPayloadError):
            await bring(api)
        assert len(api.billed) == 1


@pytest.mark.parametrize(
    "argument",
    [{"slots": 0}, {"slots": True}, {"duplicates": "often"}, {"by_external_id": 1}],
)
def test_bad_switches(argument: dict[str, Any]) -> None:
    """Each is refused by its name."""
    with pytest.raises((TypeError, ValueError), match=next(iter(argument))):
        SimulatedCometAPI(**argument)
