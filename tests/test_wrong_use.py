"""Whoever forgets an ``async``, or takes a session to another loop, is told what to write."""

from __future__ import annotations

import asyncio
import inspect
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from kling_omni_async import KlingOmniSession, TransportError, WrongLoopError

pytestmark = pytest.mark.anyio

KEY = "sk-key-of-a-test"


def make_session() -> KlingOmniSession:
    """Make a session for a port where nobody is."""
    return KlingOmniSession(KEY, base_url="http://127.0.0.1:9")


def made(kind: str) -> Any:
    """Make what is used wrongly; untyped, as a type checker refuses all of it."""
    session = make_session()
    return {
        "session": session,
        "poll": session.poll(["1"]),
        "watch": session.watch("1"),
        "orders": session.generate_many([]),
    }[kind]


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("session", "async with KlingOmniSession() as session:"),
        ("poll", "async with session.poll(task_ids) as outcomes:"),
        ("watch", "async with session.watch(task_id) as updates:"),
        ("orders", "async with session.generate_many(orders) as outcomes:"),
    ],
)
def test_with(kind: str, line: str) -> None:
    """A plain ``with`` raises with the line to write."""
    with pytest.raises(TypeError) as caught, made(kind):
        pass
    assert str(caught.value).endswith(f"; write: {line}")


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("poll", "async for outcome in session.poll(task_ids):"),
        ("watch", "async for task in session.watch(task_id):"),
        ("orders", "async for outcome in session.generate_many(orders):"),
    ],
)
def test_for(kind: str, line: str) -> None:
    """A plain ``for`` raises with the line to write; so does what iterates, such as ``list``."""
    with pytest.raises(TypeError) as caught:
        list(made(kind))
    assert str(caught.value).endswith(f"; write: {line}")


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("poll", "task = await session.wait(task_id)"),
        ("watch", "task = await session.wait(task_id)"),
        ("orders", "outcome = await session.generate(order)"),
    ],
)
async def test_await(kind: str, line: str) -> None:
    """Awaiting what is iterated raises with the loop to write, and the verb that is awaited."""
    with pytest.raises(TypeError) as caught:
        await made(kind)
    assert "async for " in str(caught.value)
    assert str(caught.value).endswith(line)


async def use(session: KlingOmniSession) -> None:
    """Bind a session to the running loop."""
    with pytest.raises(TransportError):
        await session.query("1")


def refusal_of(session: KlingOmniSession) -> str:
    """Use a session in a new loop of this thread, and return what it says."""
    with pytest.raises(WrongLoopError) as caught:
        asyncio.run(session.query("1"))
    return str(caught.value)


def test_asyncio_run_twice() -> None:
    """A second `asyncio.run` is told that the first one's loop has ended, and what to write."""
    session = make_session()
    asyncio.run(use(session))
    text = refusal_of(session)
    assert "has ended, as each asyncio.run makes a new one" in text
    assert text.endswith("async with KlingOmniSession() as session:")
    asyncio.run(session.aclose())


async def test_another_thread() -> None:
    """Another thread's loop is told whose loop it is, by name, and how to hand a call over."""
    session = make_session()
    await use(session)
    with ThreadPoolExecutor(1, thread_name_prefix="worker") as pool:
        text = await asyncio.wrap_future(pool.submit(refusal_of, session))
    assert "of thread 'MainThread', not to that of 'worker_0'" in text
    assert "asyncio.run_coroutine_threadsafe(session.wait(task_id), loop)" in text
    await session.aclose()


def test_two_loops_of_one_thread() -> None:
    """A loop that stands still meanwhile is told apart from one that has ended."""
    session = make_session()
    with asyncio.Runner() as first:
        first.run(use(session))
        assert "which stands still now" in refusal_of(session)
        first.run(session.aclose())


@pytest.mark.parametrize("verb", ["wait", "watch", "poll"])
def test_the_default_of_a_timeout(verb: str) -> None:
    """Signatures say that the policy decides, as help and hints of an editor show them."""
    signature = inspect.signature(getattr(KlingOmniSession, verb))
    assert str(signature.parameters["timeout"]) == "timeout: 'float | None' = policy.timeout"


@pytest.mark.parametrize("verb", ["stats", "peek", "nudge"])
def test_what_is_not_awaited_needs_the_loop_too(verb: str) -> None:
    """A view of a synchronous program that asks for numbers is told how to get them."""
    call = getattr(make_session(), verb)
    with pytest.raises(WrongLoopError) as caught:
        call(*() if verb == "stats" else ("1",))
    assert str(caught.value).startswith("no event loop runs in thread 'MainThread'; ")
    assert str(caught.value).endswith("portal.call(session.stats)")
