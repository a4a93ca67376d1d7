"""nginx between the library and the API, as in most gateways: its faults pass."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import attrs
import pytest

from kling_omni_async import KlingOmniSession

from .batch import (
    KEY,
    POLICY,
    TASK_IDS,
    poll_batch,
)
from .processes import running, until
from .record import TOLERANCE_S, Asked
from .servers import Nginx, Simulator
from .verdict import Verdict

pytestmark = pytest.mark.anyio


def session_for(nginx: Nginx, **changes: Any) -> KlingOmniSession:
    """Give a session for what nginx serves, with some fields of the policy changed."""
    policy = attrs.evolve(POLICY, **changes)
    return KlingOmniSession(KEY, base_url=nginx.base_url, policy=policy)


def statuses(asked: Sequence[Asked]) -> set[int]:
    """Give every status that was answered."""
    return {query.status for query in asked}


async def test_gzip(simulator: Simulator, tmp_path: Path, verdict: Verdict) -> None:
    """Compressed answers are read; each query is one GET, none of them is lost or doubled."""
    gzip = "gzip on; gzip_types *; gzip_min_length 1; gzip_proxied any;"
    async with (
        running(Nginx(tmp_path, simulator.port, server=gzip)) as nginx,
        session_for(nginx) as session,
    ):
        outcomes = await poll_batch(session)
    asked = await nginx.asked()
    verdict.check(outcomes, asked, await simulator.asked())
    assert {query.encoding for query in asked if query.status == 200} == {"gzip"}
    assert sum(outcome.queries for outcome in outcomes) == len(asked)
    assert not verdict.faults


async def test_an_upstream_that_is_killed(
    simulator: Simulator, tmp_path: Path, verdict: Verdict
) -> None:
    """While the API is killed and started again each 502 costs its id one pause, and no more."""
    async with (
        running(Nginx(tmp_path, simulator.port)) as nginx,
        session_for(nginx) as session,
    ):

        async def kill_and_restart() -> None:
            simulator.kill()
            await nginx.answers(502, at_least=len(TASK_IDS))
            await simulator.start()

        outcomes = await poll_batch(session, kill_and_restart)
    asked = await nginx.asked()
    verdict.check(outcomes, asked)
    assert verdict.faults == {"ServerError (HTTP 502)"}


async def test_an_upstream_that_is_down_at_the_start(
    simulator: Simulator, tmp_path: Path, verdict: Verdict
) -> None:
    """A 502 before the first good answer is a passing fault too: the set-up is not to blame."""
    simulator.kill()
    async with (
        running(Nginx(tmp_path, simulator.port)) as nginx,
        session_for(nginx) as session,
    ):
        starting = asyncio.create_task(start_after_refusals(nginx, simulator))
        outcomes = await poll_batch(session)
        await starting
    asked = await nginx.asked()
    verdict.check(outcomes, asked, await simulator.asked())
    assert verdict.faults == {"ServerError (HTTP 502)"}


async def start_after_refusals(nginx: Nginx, simulator: Simulator) -> None:
    """Start the API when every id has met a 502."""
    await nginx.answers(502, at_least=len(TASK_IDS))
    await simulator.start()


@pytest.mark.parametrize(
    ("patience", "status", "fault"),
    [
        ("400ms", 504, "ServerError (HTTP 504)"),
        ("60s", 499, "TransportError (timeout)"),
    ],
    ids=["504", "hang"],
)
async def test_an_upstream_that_stands_still(
    simulator: Simulator,
    tmp_path: Path,
    verdict: Verdict,
    *,
    patience: str,
    status: int,
    fault: str,
) -> None:
    """An API stopped for longer than `query_timeout` is a 504 or a time-out, then goes on."""
    wait = f"proxy_connect_timeout {patience}; proxy_read_timeout {patience};"
    async with (
        running(Nginx(tmp_path, simulator.port, server=wait)) as nginx,
        session_for(nginx, query_timeout=1.5) as session,
    ):

        async def stop_and_continue() -> None:
            simulator.send(signal.SIGSTOP)
            await asyncio.sleep(3)
            await nginx.answers(status, at_least=100)
            simulator.send(signal.SIGCONT)

        outcomes = await poll_batch(session, stop_and_continue)
    asked = await nginx.asked()
    verdict.check(outcomes, asked)
    assert fault in verdict.faults
    assert verdict.faults <= {fault, "TransportError (timeout)"}


LIMITED_HTTP = "limit_req_zone all zone=all:1m rate=60r/s;"
LIMITED = "limit_req zone=all burst=100 nodelay; limit_req_status {};"


@pytest.mark.parametrize(
    ("status", "fault"),
    [(429, "RateLimitError (HTTP 429)"), (503, "ServerError (HTTP 503)")],
)
async def test_a_limit_of_requests(
    simulator: Simulator, tmp_path: Path, status: int, fault: str, verdict: Verdict
) -> None:
    """A limit that refuses a part of the queries delays ids and loses none."""
    limit = LIMITED.format(status)
    async with (
        running(Nginx(tmp_path, simulator.port, http=LIMITED_HTTP, server=limit)) as nginx,
        session_for(nginx, max_rate=300.0) as session,
    ):
        outcomes = await poll_batch(session)
    asked = await nginx.asked()
    verdict.check(outcomes, asked, await simulator.asked())
    assert status in statuses(asked)
    assert verdict.faults == {fault}


async def test_a_retry_after_is_kept(
    simulator: Simulator, tmp_path: Path, verdict: Verdict
) -> None:
    """After a 429 nothing scheduled is sent until its `Retry-After` is over; then one goes first.

    The same header on good answers means nothing.
    """
    limit = LIMITED.format(429) + "add_header Retry-After 2 always;"
    async with (
        running(Nginx(tmp_path, simulator.port, http=LIMITED_HTTP, server=limit)) as nginx,
        session_for(nginx, max_rate=300.0) as session,
    ):
        outcomes = await poll_batch(session)
    asked = await nginx.asked()
    verdict.check(outcomes, asked)
    before, probe, following = around_first_silence(asked, longer_than_s=1.0)
    assert probe.started - before.started >= 2.0 - TOLERANCE_S
    assert following.started >= probe.ended - TOLERANCE_S
    assert verdict.faults == {"RateLimitError (HTTP 429)"}


def around_first_silence(
    asked: Sequence[Asked], *, longer_than_s: float
) -> tuple[Asked, Asked, Asked]:
    """Give the last query before the first long silence, and the first two after it."""
    ordered = sorted(asked, key=lambda query: query.started)
    triples = zip(ordered, ordered[1:], ordered[2:], strict=False)
    return next(
        triple for triple in triples if triple[1].started - triple[0].started > longer_than_s
    )


def most_at_once(asked: Sequence[Asked]) -> int:
    """Give how many queries were in flight together, at most."""
    changes = [(query.started, 1) for query in asked] + [(query.ended, -1) for query in asked]
    return max(accumulate(change for _, change in sorted(changes)))


@pytest.mark.parametrize("latency_s", [0.6])
async def test_idle_connections_that_are_closed(
    simulator: Simulator, tmp_path: Path, verdict: Verdict
) -> None:
    """Connections that nginx closes just when they are used again cost an id one pause at most.

    All ids are in flight together, each on its own connection, which then is idle for one pause.
    """
    low, high = 0.98, 1.02
    busy = {"max_concurrency": len(TASK_IDS), "max_rate": 600.0}
    async with (
        running(Nginx(tmp_path, simulator.port, server="keepalive_timeout 1s;")) as nginx,
        session_for(nginx, interval=(low, high), **busy) as session,
    ):
        outcomes = await poll_batch(session)
    asked = await nginx.asked()
    verdict.check(outcomes, asked, interval_s=low)
    assert len({query.connection for query in asked}) > most_at_once(asked)
    assert verdict.faults <= {"TransportError (reset)"}


async def test_connections_for_three_requests(
    simulator: Simulator, tmp_path: Path, verdict: Verdict
) -> None:
    """A server that closes each connection after its third answer is no fault at all."""
    async with (
        running(Nginx(tmp_path, simulator.port, server="keepalive_requests 3;")) as nginx,
        session_for(nginx) as session,
    ):
        outcomes = await poll_batch(session)
    asked = await nginx.asked()
    verdict.check(outcomes, asked)
    assert max(Counter(query.connection for query in asked).values()) == 3
    assert sum(outcome.queries for outcome in outcomes) == len(asked)
    assert not verdict.faults


async def test_reloads(simulator: Simulator, tmp_path: Path, verdict: Verdict) -> None:
    """Four times in a batch nginx reads its configuration again, and no id is lost."""
    async with (
        running(Nginx(tmp_path, simulator.port)) as nginx,
        session_for(nginx) as session,
    ):

        async def reload() -> None:
            for _ in range(4):
                nginx.reload()
                await nginx.more_answers(30)

        outcomes = await poll_batch(session, reload)
    asked = await nginx.asked()
    verdict.check(outcomes, asked)
    assert statuses(asked) == {200, 400}
    assert verdict.faults <= {"TransportError (reset)"}


async def test_a_kill_of_nginx(simulator: Simulator, tmp_path: Path, verdict: Verdict) -> None:
    """A kill of nginx is a passing fault: connections end, then are refused, then are back."""
    async with (
        running(Nginx(tmp_path, simulator.port)) as nginx,
        session_for(nginx) as session,
    ):

        async def kill_and_restart() -> None:
            nginx.kill()
            await until(lambda: "TransportError (connect)" in verdict.faults)
            await asyncio.sleep(1)
            await nginx.start()

        outcomes = await poll_batch(session, kill_and_restart)
    asked = await simulator.asked()
    verdict.check(outcomes, asked, await nginx.asked())
    assert verdict.faults <= {"TransportError (connect)", "TransportError (reset)"}
