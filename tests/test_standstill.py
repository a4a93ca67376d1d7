"""A process that stood still: stopped, suspended, or with a loop that somebody blocked."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import Any, cast

import pytest

from kling_omni_async import PollPolicy, PollTimeoutError

from .polling import scripted
from .polling.scripted import Line, ScriptedTransport, now, scripted_session
from .virtual_clock import VirtualClockLoop

pytestmark = pytest.mark.anyio

QUICK = PollPolicy(interval=(0.3, 0.5), max_rate=None)


def stand_still(span: float) -> None:
    """Let time pass in which the loop does not run, as SIGSTOP does."""
    loop = cast("VirtualClockLoop", asyncio.get_running_loop())
    loop.pass_unnoticed(span)


@pytest.mark.parametrize("verb", ["wait", "poll"])
async def test_one_look_after_a_standstill(verb: str) -> None:
    """What succeeded while nobody could ask is found by one look after the deadline."""
    transport = ScriptedTransport({"a": [Line(scripted.PENDING)]})
    async with scripted_session(transport, QUICK) as session:
        stream = session.poll(["a"], timeout=2.0)
        calls = {"wait": session.wait("a", timeout=2.0), "poll": anext(stream)}
        call = asyncio.ensure_future(cast("Any", calls.pop(verb)))
        for other in calls.values():
            cast("Any", other).close()
        await asyncio.sleep(0.7)
        transport.scripts["a"] = scripted.lines(scripted.SUCCEED)
        before = len(transport.starts)
        stand_still(8.0)
        result = await call
        assert result.images if verb == "wait" else result.ok
        assert len(transport.starts) == before + 1


@pytest.mark.parametrize("verb", ["wait", "poll"])
async def test_an_answer_from_before_a_standstill_is_no_look(verb: str) -> None:
    """It lay in the socket and says how the task was; the look is still to come."""
    arrived = asyncio.Event()
    script = [Line(scripted.PENDING), Line(scripted.PENDING, hold=arrived), Line(scripted.SUCCEED)]
    transport = ScriptedTransport({"a": script})
    async with scripted_session(transport, QUICK) as session:
        stream = session.poll(["a"], timeout=2.0)
        coroutine = session.wait("a", timeout=2.0) if verb == "wait" else anext(stream)
        call = asyncio.ensure_future(cast("Any", coroutine))
        await asyncio.sleep(0.7)
        assert len(transport.starts) == 2
        stand_still(8.0)
        arrived.set()
        result = await call
        assert result.images
    assert len(transport.starts) == 3


async def test_a_look_that_finds_nothing_ends_the_wait() -> None:
    """After a standstill there is one look, not one more timeout."""
    transport = ScriptedTransport({"a": [Line(scripted.PENDING)]})
    async with scripted_session(transport, QUICK) as session:
        call = asyncio.ensure_future(session.wait("a", timeout=2.0))
        await asyncio.sleep(0.7)
        stand_still(8.0)
        with pytest.raises(PollTimeoutError):
            await call
        assert now() == pytest.approx(8.7, abs=0.6)


async def test_an_answer_that_came_meanwhile_counts() -> None:
    """A query that was under way gets its grace from when the process goes on."""
    transport = ScriptedTransport({"a": [Line(scripted.SUCCEED, after=1.9)]})
    async with scripted_session(transport, QUICK) as session:
        call = asyncio.ensure_future(session.wait("a", timeout=1.0))
        await asyncio.sleep(0.5)
        stand_still(8.0)
        assert (await call).images


@pytest.mark.parametrize("verb", ["wait", "poll"])
@pytest.mark.parametrize("takes", [1.5, 8.1])
async def test_an_answer_from_before_is_no_look(verb: str, takes: float) -> None:
    """A query that was under way brings what the task was then: one more follows, its last."""
    transport = ScriptedTransport({"a": [Line(scripted.PENDING), Line(scripted.PENDING, takes)]})
    async with scripted_session(transport, QUICK) as session:
        stream = session.poll(["a"], timeout=2.0)
        calls = {"wait": session.wait("a", timeout=2.0), "poll": anext(stream)}
        call = asyncio.ensure_future(cast("Any", calls.pop(verb)))
        for other in calls.values():
            cast("Any", other).close()
        await asyncio.sleep(0.7)
        assert transport.in_flight == 1
        transport.scripts["a"] = scripted.lines(scripted.SUCCEED)
        stand_still(8.0)
        result = await call
        assert result.images if verb == "wait" else result.ok
        assert len(transport.starts) == 3


async def test_there_is_one_look_after_an_answer_from_before() -> None:
    """Not one more and one more."""
    transport = ScriptedTransport({"a": [Line(scripted.PENDING, 1.0)]})
    async with scripted_session(transport, QUICK) as session:
        call = asyncio.ensure_future(session.wait("a", timeout=2.0))
        await asyncio.sleep(1.7)
        assert transport.in_flight == 1
        stand_still(8.0)
        with pytest.raises(PollTimeoutError):
            await call
    assert len(transport.starts) == 3


async def test_an_id_whose_pause_is_not_over_gets_no_look() -> None:
    """Time in which the id would not have been asked is no time in which nobody could ask."""
    transport = ScriptedTransport({"a": [Line(scripted.PENDING)]})
    async with scripted_session(transport) as session:
        call = asyncio.ensure_future(session.wait("a", timeout=10.0))
        await asyncio.sleep(9.0)
        stand_still(5.0)
        with pytest.raises(PollTimeoutError):
            await call
        assert now() == 14.0
    assert len(transport.starts) == 1


@pytest.mark.heavy
def test_forked_processes_do_not_march_in_step() -> None:
    """What draws pauses is made at first use, so a session made before a fork repeats none."""
    program = (
        "import asyncio, os\n"
        "from kling_omni_async import KlingOmniSession, PollPolicy\n"
        "session = KlingOmniSession('a-key', base_url='http://127.0.0.1:9')\n"
        "async def pause():\n"
        "    async with session:\n"
        "        print(session._ready()._watchlist.planner.timing._random.random(), flush=True)\n"
        "for _ in range(3):\n"
        "    if not os.fork():\n"
        "        asyncio.run(pause())\n"
        "        os._exit(0)\n"
        "    os.wait()\n"
    )
    if not hasattr(os, "fork"):
        pytest.skip("this system has no fork")
    run = [sys.executable, "-c", program]
    printed = subprocess.run(run, check=True, capture_output=True, text=True).stdout.split()
    assert len(set(printed)) == 3
