"""The key is found nowhere but in the header of a query."""

from __future__ import annotations

import asyncio
import copy
import logging
import pickle
import traceback
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from kling_omni_async import KlingOmniError, KlingOmniSession, PollPolicy, TaskOutcome

from .support import all_of

pytestmark = pytest.mark.anyio

KEY = "sk-secret-0123456789abcdef"


def traces_of(error: BaseException) -> str:
    """Give all that an error, its copies and its traceback show."""
    chain = [error, error.__cause__, error.__context__, copy.copy(error)]
    shown = [f"{part!r} {part} {vars(part) if part else ''}" for part in chain]
    shown += traceback.format_exception(error)
    shown.append(pickle.dumps(error, protocol=0).decode("latin-1"))
    shown.append(repr(getattr(error, "__notes__", [])))
    return "\n".join(shown)


@asynccontextmanager
async def echo() -> AsyncGenerator[str]:
    """Serve a gateway that echoes the request's headers in whatever way its id asks for."""

    async def handle(request: web.Request) -> web.StreamResponse:
        key = request.headers["Authorization"].removeprefix("Bearer ")
        assert key == KEY
        match request.match_info["task_id"]:
            case "page":
                return web.Response(text=f"<html>{key}</html>", content_type="text/html")
            case "redirect":
                return web.Response(status=302, headers={"Location": f"/login?key={key}"})
            case "refusal":
                return web.json_response({"code": 1200, "message": f"bad {key}"}, status=400)
            case "long":
                return web.Response(text=key + "x" * 10_000)
            case "cut":
                assert request.transport is not None
                request.transport.write(f"HTTP/1.1 {key}\r\n\r\n".encode())
                request.transport.close()
                return web.Response()
            case _:
                data = {"task_status": "failed", "task_status_msg": f"no {key}", "extra": key}
                return web.json_response({"code": 0, "data": data})

    app = web.Application()
    app.router.add_get("/kling/v1/images/omni-image/{task_id}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


IDS = ["page", "redirect", "refusal", "long", "cut", "failed"]


@pytest.mark.parametrize("task_id", IDS)
async def test_an_echoed_key_is_taken_out(task_id: str, caplog: pytest.LogCaptureFixture) -> None:
    """A server that echoes the key finds it in no error, record, log line or pickle of ours."""
    caplog.set_level(logging.DEBUG)
    shown: list[str] = []
    async with echo() as url:
        session = KlingOmniSession(KEY, base_url=url, policy=PollPolicy(max_response_bytes=5000))
        async with session:
            shown += [repr(session), repr(session.poll(["1"])), repr(session.watch("1"))]
            try:
                shown.append(repr((await session.query(task_id)).raw))
            except KlingOmniError as error:
                shown.append(traces_of(error))
            try:
                await session.wait(task_id, timeout=30)
            except KlingOmniError as error:
                shown.append(traces_of(error))
            for task in asyncio.all_tasks():
                shown.append(repr(task))
    shown.append(caplog.text)
    text = "\n".join(shown)
    assert KEY not in text
    assert task_id in text


async def test_an_outcome_of_an_echo_holds_no_key() -> None:
    """What goes into a journal holds no key, also where the server echoed it."""
    async with echo() as url, KlingOmniSession(KEY, base_url=url) as session:
        await session.query("failed")
        outcomes = await all_of(session, IDS, timeout=60)
    text = repr([TaskOutcome.to_dict(outcome) for outcome in outcomes])
    assert len(outcomes) == len(IDS)
    assert "[redacted]" in text
    assert KEY not in text


@pytest.mark.parametrize("place", ["repr", "vars", "cause", "notes"])
def test_a_planted_leak_is_found(place: str) -> None:
    """The search of these tests finds a key that is planted in each place it looks at."""
    error = KlingOmniError(KEY if place == "repr" else "")
    if place == "vars":
        error.task_id = KEY
    if place == "cause":
        error.__cause__ = ValueError(KEY)
    if place == "notes":
        error.add_note(KEY)
    assert KEY in traces_of(error)
