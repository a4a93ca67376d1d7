"""The simulator looks like the API: routes, life cycle, bodies, images."""

from __future__ import annotations

import asyncio
import json
import math
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from yarl import URL

from kling_omni_async import simulator
from kling_omni_async.simulator import SimulatedCometAPI

from .client import COLLECTION, ask, client, fetch, status_word, url_of

pytestmark = pytest.mark.anyio

EPOCH = datetime(2026, 6, 26, 5, 4, 5, 512_000, tzinfo=UTC)
EPOCH_MS = 1_782_450_245_512


async def test_promises_exactly_these_names() -> None:
    """``__all__`` is the promise."""
    assert sorted(simulator.__all__) == ["BilledTask", "ImageRequest", "Query", "SimulatedCometAPI"]


@pytest.mark.parametrize(
    ("after", "word"),
    [
        (0, "submitted"),
        (3.9, "submitted"),
        (4, "processing"),
        (39.9, "processing"),
        (40, "succeed"),
    ],
)
async def test_lives_by_the_clock_of_the_loop(after: float, word: str) -> None:
    """A task is submitted for a tenth of its time, then processing, then done."""
    async with SimulatedCometAPI() as api:
        task_id = api.create_task(duration=40.0)
        await asyncio.sleep(after)
        assert await status_word(api, task_id) == word


async def test_time_scale_makes_tasks_faster() -> None:
    """With a time scale of 10 a task of 40 s is done after 4 s of the loop's clock."""
    async with SimulatedCometAPI(time_scale=10.0) as api:
        task_id = api.create_task(duration=40.0)
        await asyncio.sleep(3.9)
        assert await status_word(api, task_id) == "processing"
        await asyncio.sleep(0.1)
        assert await status_word(api, task_id) == "succeed"


async def test_long_tasks_are_submitted_for_ten_seconds() -> None:
    """A task that never finishes is processing after 10 s, and for ever."""
    async with SimulatedCometAPI() as api:
        task_id = api.create_task(duration=math.inf)
        await asyncio.sleep(10.0)
        assert await status_word(api, task_id) == "processing"
        await asyncio.sleep(1e6)
        assert await status_word(api, task_id) == "processing"


async def test_success_has_the_documented_body() -> None:
    """A finished task answers as in CometAPI's docs, times moving with the simulated clock."""
    async with SimulatedCometAPI(time_scale=2.0, epoch=EPOCH) as api:
        await asyncio.sleep(1.0)
        task_id = api.create_task(duration=40.0, images=2)
        await asyncio.sleep(100.0)
        status, body = await ask(api, task_id)
        assert status == 200
        assert len(body.pop("request_id")) == 36
        assert body == {
            "code": 0,
            "message": "SUCCEED",
            "data": {
                "task_id": task_id,
                "task_info": {},
                "created_at": EPOCH_MS + 2_000,
                "updated_at": EPOCH_MS + 42_000,
                "task_result": {
                    "images": [
                        {"index": 0, "url": f"{api.base_url}/assets/{task_id}-0.png"},
                        {"index": 1, "url": f"{api.base_url}/assets/{task_id}-1.png"},
                    ]
                },
                "task_status": "succeed",
                "final_unit_deduction": "8",
            },
        }


async def test_updated_at_is_when_the_status_changed() -> None:
    """``updated_at`` moves at changes of status only."""
    async with SimulatedCometAPI(epoch=EPOCH) as api:
        task_id = api.create_task(duration=40.0)
        seen: list[int] = []
        for _ in range(4):
            _, body = await ask(api, task_id)
            seen.append(body["data"]["updated_at"] - EPOCH_MS)
            await asyncio.sleep(15.0)
        assert seen == [0, 4_000, 4_000, 40_000]


async def test_failure_has_a_reason_and_no_result() -> None:
    """A failed task answers code 0 and SUCCEED, with the reason in ``task_status_msg``."""
    async with SimulatedCometAPI() as api:
        task_id = api.create_task(fail="Image pixel is invalid", external_task_id="mine-7")
        await asyncio.sleep(1.7)
        status, body = await ask(api, task_id)
        assert (status, body["code"], body["message"]) == (200, 0, "SUCCEED")
        data = body["data"]
        assert (data["task_status"], data["task_status_msg"]) == (
            "failed",
            "Image pixel is invalid",
        )
        assert data["task_result"] == {}
        assert data["task_info"] == {"external_task_id": "mine-7"}
        assert "final_unit_deduction" not in data


async def test_series_with_watermarks() -> None:
    """A series fills ``series_images``; watermarked copies have URLs of their own."""
    async with SimulatedCometAPI() as api:
        task_id = api.create_task(duration=0, images=2, series=True, watermarked=True, units=None)
        _, body = await ask(api, task_id)
        result = body["data"]["task_result"]
        assert (result["result_type"], result["images"]) == ("series", [])
        assert [image["index"] for image in result["series_images"]] == [0, 1]
        assert len({image["watermark_url"] for image in result["series_images"]}) == 2
        assert body["data"]["watermark_info"] == {"enabled": True}
        assert "final_unit_deduction" not in body["data"]


async def test_success_without_images() -> None:
    """A success can be empty-handed, as is met in practice."""
    async with SimulatedCometAPI() as api:
        _, body = await ask(api, api.create_task(duration=0, images=0))
        assert body["data"]["task_status"] == "succeed"
        assert body["data"]["task_result"] == {"images": []}


@pytest.mark.parametrize(
    ("fail", "after", "outer", "inner", "progress"),
    [
        (None, 0, "SUBMITTED", "submitted", "0%"),
        (None, 5, "IN_PROGRESS", "processing", "30%"),
        (None, 50, "SUCCESS", "succeed", "100%"),
        ("too dark", 50, "FAILURE", "failed", "100%"),
    ],
)
async def test_older_wrapped_form(
    fail: str | None, after: float, outer: str, inner: str, progress: str
) -> None:
    """A wrapped answer holds a whole envelope, outer status words and times in seconds."""
    async with SimulatedCometAPI(wrapped=True, epoch=EPOCH) as api:
        task_id = api.create_task(duration=40.0, fail=fail)
        await asyncio.sleep(after)
        _, body = await ask(api, task_id)
        assert (body["code"], body["message"]) == ("success", "")
        wrapper = body["data"]
        assert (wrapper["task_id"], wrapper["status"]) == (task_id, outer)
        assert (wrapper["fail_reason"], wrapper["progress"]) == (fail or "", progress)
        assert wrapper["submit_time"] == EPOCH_MS // 1000
        assert wrapper["finish_time"] == (EPOCH_MS // 1000 + 40 if after == 50 else 0)
        assert wrapper["data"]["code"] == 0
        assert wrapper["data"]["data"]["task_status"] == inner


async def test_one_task_can_be_wrapped() -> None:
    """A task's own setting wins over the simulator's."""
    async with SimulatedCometAPI() as api:
        _, wrapped = await ask(api, api.create_task(wrapped=True))
        _, plain = await ask(api, api.create_task())
        assert (wrapped["code"], plain["code"]) == ("success", 0)


async def test_finish_ends_a_task_now() -> None:
    """``finish`` makes a task succeed now, and changes nothing if it is over already."""
    async with SimulatedCometAPI(epoch=EPOCH) as api:
        task_id = api.create_task(duration=math.inf)
        await asyncio.sleep(7.0)
        api.finish(task_id)
        await asyncio.sleep(7.0)
        api.finish(task_id)
        _, body = await ask(api, task_id)
        assert body["data"]["task_status"] == "succeed"
        assert body["data"]["updated_at"] == EPOCH_MS + 7_000


NOT_FOUND = (400, {"code": "task_not_exist", "message": "task_not_exist", "data": None})


async def test_unknown_ids_do_not_exist() -> None:
    """An id that was never created, or that has expired, answers ``task_not_exist``."""
    async with SimulatedCometAPI() as api:
        task_id = api.create_task(duration=0)
        assert await ask(api, "878106242831892487") == NOT_FOUND
        assert await status_word(api, task_id) == "succeed"
        api.expire(task_id)
        assert await ask(api, task_id) == NOT_FOUND


async def test_controls_want_a_known_id() -> None:
    """``finish`` and ``expire`` of an unknown id are mistakes."""
    async with SimulatedCometAPI() as api:
        with pytest.raises(KeyError):
            api.finish("nobody")
        with pytest.raises(KeyError):
            api.expire("nobody")


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer "])
async def test_the_scheme_of_the_key_is_in_any_case(scheme: str) -> None:
    """Names of schemes know no case, and may stand apart from the key (RFC 9110)."""
    async with SimulatedCometAPI() as api, client(api) as session:
        session.headers["Authorization"] = f"{scheme} {api.api_key}"
        assert (await fetch(session, url_of(api, api.create_task())))[0] == 200


@pytest.mark.parametrize("header", [None, "Bearer wrong", "sk-simulated", "Basic abc"])
async def test_wrong_key_is_refused(header: str | None) -> None:
    """Without the right key a query answers 401 with the gateway's own error body."""
    async with SimulatedCometAPI(epoch=EPOCH) as api, client(api) as session:
        url = url_of(api, api.create_task())
        session.headers.pop("Authorization")
        if header is not None:
            session.headers["Authorization"] = header
        async with session.get(url) as response:
            error = (await response.json())["error"]
            token = response.headers["X-Oneapi-Request-Id"]
        assert response.status == 401
        assert token.startswith("20260626050405")
        assert error == {
            "code": "",
            "message": f"Invalid token (request id: {token})",
            "type": "comet_api_error",
        }
        assert not api.queries[0].authorised


@pytest.mark.parametrize("task_id", ["a/b", "a%2Fb", "a+b==", "ä b?c#d", "..", "task_" + "x" * 32])
async def test_ids_may_hold_anything(task_id: str) -> None:
    """An id that needs percent-encoding is found, and its images too."""
    async with SimulatedCometAPI() as api, client(api) as session:
        assert api.create_task(duration=0, task_id=task_id) == task_id
        url = f"{api.base_url}{COLLECTION}/" + "".join(f"%{byte:02X}" for byte in task_id.encode())
        _, body, _ = await fetch(session, URL(url, encoded=True))
        data = json.loads(body)["data"]
        assert data["task_id"] == task_id
        image = URL(data["task_result"]["images"][0]["url"], encoded=True)
        assert (await fetch(session, image))[0] == 200


@pytest.mark.parametrize("tail", ["", "/", "/a/b", "/a/", "s", "/../other"])
async def test_other_paths_are_a_web_page(tail: str) -> None:
    """The collection and unknown paths answer with a page of HTML under 200."""
    async with SimulatedCometAPI() as api, client(api) as session:
        url = URL(f"{api.base_url}{COLLECTION}{tail}", encoded=True)
        status, body, kind = await fetch(session, url)
        assert (status, kind) == (200, "text/html")
        assert body.startswith(b"<!doctype html>")
        assert [query.task_id for query in api.queries] == [None]


async def test_other_methods_are_a_web_page() -> None:
    """Only GET asks for a task."""
    async with SimulatedCometAPI() as api, client(api) as session:
        async with session.delete(url_of(api, api.create_task())) as response:
            assert response.content_type == "text/html"
        assert [query.method for query in api.queries] == ["DELETE"]


async def test_images_are_real_and_different() -> None:
    """Each image is a PNG of its own, the same again, and needs no key."""
    async with SimulatedCometAPI() as api, client(api) as session:
        session.headers.clear()
        ids = [api.create_task(duration=0, images=2, watermarked=True) for _ in range(2)]
        urls: list[str] = []
        for task_id in ids:
            _, body = await ask(api, task_id)
            for image in body["data"]["task_result"]["images"]:
                urls += [image["url"], image["watermark_url"]]
        answers = [await fetch(session, url) for url in urls]
        assert {(status, kind) for status, _, kind in answers} == {(200, "image/png")}
        assert all(body.startswith(b"\x89PNG") for _, body, _ in answers)
        assert len({body for _, body, _ in answers}) == len(urls) == 8
        assert answers == [await fetch(session, url) for url in urls]


@pytest.mark.parametrize(
    "name",
    ["{}-1.png", "0-0.png", "watermarked/{}-0.png"],
)
async def test_other_images_are_not_there(name: str) -> None:
    """An index too high, an unknown id, a copy that was not made: 404."""
    async with SimulatedCometAPI() as api, client(api) as session:
        task_id = api.create_task(duration=0)
        status, body, _ = await fetch(session, f"{api.base_url}/assets/{name.format(task_id)}")
        assert (status, body) == (404, b"")


async def test_images_are_there_once_the_task_has_succeeded() -> None:
    """Before it has succeeded, and after it has expired, a task has no images."""
    async with SimulatedCometAPI() as api, client(api) as session:
        task_id = api.create_task(duration=40.0)
        url = f"{api.base_url}/assets/{task_id}-0.png"
        assert (await fetch(session, url))[0] == 404
        await asyncio.sleep(40.0)
        assert (await fetch(session, url))[0] == 200
        api.expire(task_id)
        assert (await fetch(session, url))[0] == 404


async def test_image_urls_name_the_host_that_was_asked() -> None:
    """Behind a forwarded port, image URLs lead back the same way."""
    async with SimulatedCometAPI() as api, client(api) as session:
        session.headers["Host"] = "simulator.example:8080"
        _, body, _ = await fetch(session, url_of(api, api.create_task(duration=0)))
        (image,) = json.loads(body)["data"]["task_result"]["images"]
        assert image["url"].startswith("http://simulator.example:8080/assets/")


async def everything_of(seed: int) -> tuple[Any, ...]:
    """Collect what a seed decides."""
    async with SimulatedCometAPI(seed=seed, epoch=EPOCH) as api, client(api) as session:
        first, second = api.create_task(), api.create_task()
        bodies = [(await ask(api, task_id))[1] for task_id in (first, second)]
        await asyncio.sleep(50.0)
        _, done = await ask(api, first)
        updated = done["data"]["updated_at"]
        _, image, _ = await fetch(session, f"{api.base_url}/assets/{first}-0.png")
        return api.api_key, first, second, bodies, updated, image


async def test_seed_decides_everything() -> None:
    """The same seed gives the same key, ids, durations, request ids and images."""
    assert await everything_of(7) == await everything_of(7)
    first, second = await everything_of(7), await everything_of(8)
    assert not any(a == b for a, b in zip(first, second, strict=True))


async def test_ids_look_real() -> None:
    """Drawn ids are 18 decimal digits above 2^53, all different."""
    async with SimulatedCometAPI() as api:
        ids = [api.create_task() for _ in range(1000)]
        assert len(set(ids)) == 1000
        assert all(len(task_id) == 18 and int(task_id) > 2**53 for task_id in ids)


async def test_drawn_ids_avoid_chosen_ones() -> None:
    """An id that somebody chose before is not drawn again."""
    async with SimulatedCometAPI() as first, SimulatedCometAPI() as second:
        taken = first.create_task()
        second.create_task(task_id=taken)
        assert second.create_task() == first.create_task()


async def test_drawn_durations_are_those_seen() -> None:
    """Tasks take 24 to 41 s unless something else is said."""
    async with SimulatedCometAPI() as api:
        task_id = api.create_task()
        await asyncio.sleep(23.9)
        assert await status_word(api, task_id) == "processing"
        await asyncio.sleep(17.2)
        assert await status_word(api, task_id) == "succeed"


async def test_made_up_key_looks_made_up() -> None:
    """Nobody takes the drawn key for a real one, and a chosen one is used."""
    assert SimulatedCometAPI().api_key.startswith("sk-simulated-")
    assert SimulatedCometAPI(api_key="mine").api_key == "mine"


async def test_repr_is_a_report_without_the_key() -> None:
    """``repr`` tells address, tasks and queries, and keeps the key out."""
    api = SimulatedCometAPI()
    assert repr(api) == "<SimulatedCometAPI not running, 0 tasks, 0 queries>"
    async with api:
        await ask(api, api.create_task())
        assert repr(api) == f"<SimulatedCometAPI {api.base_url}, 1 tasks, 1 queries>"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"seed": "7"}, TypeError),
        ({"seed": -1}, ValueError),
        ({"time_scale": 0.0}, ValueError),
        ({"time_scale": math.inf}, ValueError),
        ({"time_scale": "1"}, TypeError),
        ({"api_key": ""}, ValueError),
        ({"api_key": " x"}, ValueError),
        ({"api_key": 7}, TypeError),
        ({"host": ""}, ValueError),
        ({"port": -1}, ValueError),
        ({"latency": -1.0}, ValueError),
        ({"latency": True}, TypeError),
        ({"wrapped": 1}, TypeError),
        ({"epoch": EPOCH.replace(tzinfo=None)}, ValueError),
        ({"epoch": 5}, TypeError),
        ({"log_size": 0}, ValueError),
        ({"port": 65536}, ValueError),
        ({"host": 5}, TypeError),
        ({"api_key": "schlüssel"}, ValueError),
        ({"api_key": "two words"}, ValueError),
        ({"api_key": b"sk-key"}, TypeError),
        ({"durations": 5}, TypeError),
        ({"duplicates": "maybe"}, ValueError),
        ({"callbacks": "thrice"}, ValueError),
        ({"control": "yes"}, TypeError),
    ],
)
async def test_bad_settings_are_named(arguments: dict[str, Any], error: type[Exception]) -> None:
    """A bad argument of the simulator raises an error that names it."""
    (name,) = arguments
    with pytest.raises(error, match=f"^{name} must ") as caught:
        SimulatedCometAPI(**arguments)
    assert len(str(caught.value)) < 100


async def test_a_bad_key_is_not_shown() -> None:
    """The error for a bad value shows it, but for that of a key."""
    with pytest.raises(ValueError, match="port must be at least 0, got -1"):
        SimulatedCometAPI(port=-1)
    with pytest.raises(ValueError, match="api_key must not be blank") as caught:
        SimulatedCometAPI(api_key=" sk-almost")
    assert "sk-almost" not in str(caught.value)
    with pytest.raises(TypeError, match=r"^api_key must be a str$"):
        SimulatedCometAPI(api_key=cast("Any", b"sk-almost"))


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"duration": -1}, ValueError),
        ({"duration": math.nan}, ValueError),
        ({"duration": "40"}, TypeError),
        ({"images": -1}, ValueError),
        ({"images": True}, TypeError),
        ({"task_id": ""}, ValueError),
        ({"task_id": "taken"}, ValueError),
        ({"task_id": 878106242831892487}, TypeError),
        ({"units": 8}, TypeError),
        ({"external_task_id": 8}, TypeError),
        ({"external_task_id": "\ud800"}, ValueError),
        ({"fail": "\ud800"}, ValueError),
        ({"images": 100_001}, ValueError),
        ({"signed": 1}, TypeError),
        ({"series": "no"}, TypeError),
    ],
)
async def test_bad_tasks_are_refused(arguments: dict[str, Any], error: type[Exception]) -> None:
    """A bad argument of a task raises an error that names it, and no task is created."""
    (name,) = arguments
    async with SimulatedCometAPI() as api:
        api.create_task(task_id="taken")
        with pytest.raises(error, match=f"^{name} must "):
            api.create_task(**arguments)
        assert "1 tasks" in repr(api)
