"""The simulator's create route."""

from __future__ import annotations

import asyncio
import json
from typing import Any

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
