"""TLS with an authority of our own: what is refused at the start, and what in the middle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import anyio
import pytest

from kling_omni_async import KlingOmniSession, PollTimeoutError, TaskOutcome, TransportError

from .batch import (
    EARLY,
    INTERVAL_S,
    KEY,
    POLICY,
    TASK_IDS,
    assert_each_once,
    poll_batch,
)
from .certificates import Authority, Certificate
from .processes import HOST, ROOT, running, until
from .servers import Nginx, Simulator
from .verdict import Verdict

pytestmark = pytest.mark.anyio

CERTIFICATE = "TransportError (certificate)"
RIGHT = (f"IP:{HOST}", "DNS:localhost")

Make = Callable[[Authority], Certificate]
BAD: dict[str, Make] = {
    "wrong-name": lambda authority: authority.signed("wrong-name", "DNS:elsewhere.test"),
    "expired": lambda authority: authority.signed("expired", *RIGHT, days=-1),
    "self-signed": lambda authority: authority.self_signed(
        "self-signed", f"subjectAltName={','.join(RIGHT)}"
    ),
}


@pytest.fixture
def good(authority: Authority) -> Certificate:
    """Give a certificate with the right name."""
    return authority.signed("right-name", *RIGHT)


@asynccontextmanager
async def session_for(nginx: Nginx, authority: Authority) -> AsyncGenerator[KlingOmniSession]:
    """Open a session that trusts the authority and no other."""
    connector = aiohttp.TCPConnector(ssl=authority.context())
    async with (
        aiohttp.ClientSession(connector=connector) as http,
        KlingOmniSession(KEY, base_url=nginx.base_url, http=http, policy=POLICY) as session,
    ):
        yield session


async def test_the_right_name(
    simulator: Simulator,
    tmp_path: Path,
    authority: Authority,
    good: Certificate,
    verdict: Verdict,
) -> None:
    """A certificate of a trusted authority for the right name is no fault; connections are kept."""
    async with (
        running(Nginx(tmp_path, simulator.port, certificate=good)) as nginx,
        session_for(nginx, authority) as session,
    ):
        outcomes = await poll_batch(session)
    asked = await nginx.asked()
    verdict.check(outcomes, asked, await simulator.asked())
    assert sum(outcome.queries for outcome in outcomes) == len(asked)
    assert len({query.connection for query in asked}) <= POLICY.max_concurrency
    assert not verdict.faults


async def test_the_command_line_trusts_what_the_environment_says(
    simulator: Simulator,
    tmp_path: Path,
    authority: Authority,
    good: Certificate,
    verdict: Verdict,
) -> None:
    """With `SSL_CERT_FILE` the session's own connections trust an authority of one's own."""
    async with running(Nginx(tmp_path, simulator.port, certificate=good)) as nginx:
        environment = {
            **os.environ,
            "COMETAPI_KEY": KEY,
            "COMETAPI_BASE_URL": nginx.base_url.replace(HOST, "localhost"),
            "SSL_CERT_FILE": str(authority.pem),
        }
        low, high = map(str, INTERVAL_S)
        result = await anyio.run_process(
            [
                *(sys.executable, "-W", "error", "-m", "kling_omni_async", "poll", "--quiet"),
                *("--from", "-", "--jsonl", "-", "--interval", low, high, "--max-rate", "none"),
            ],
            input="\n".join(TASK_IDS).encode(),
            env=environment,
            check=False,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
        )
    outcomes = [TaskOutcome.from_dict(json.loads(line)) for line in result.stdout.splitlines()]
    asked = await nginx.asked()
    verdict.check(outcomes, asked)
    assert result.returncode == 1  # some have failed


@pytest.mark.parametrize("make", BAD.values(), ids=BAD)
async def test_a_certificate_refused_at_the_start(
    simulator: Simulator, tmp_path: Path, authority: Authority, make: Make
) -> None:
    """It ends the batch at once with the reason, at every further step too; nothing was asked."""
    async with (
        running(Nginx(tmp_path, simulator.port, certificate=make(authority))) as nginx,
        session_for(nginx, authority) as session,
        session.poll(TASK_IDS) as stream,
    ):
        for _ in range(2):
            with pytest.raises(TransportError) as caught:
                await anext(stream)
            assert caught.value.reason == "certificate"
        assert len(stream.pending) == len(TASK_IDS)
        assert nginx.refused_handshakes <= POLICY.max_concurrency
    assert not await nginx.asked()


async def test_an_authority_that_nobody_trusts(
    simulator: Simulator, tmp_path: Path, good: Certificate
) -> None:
    """Without being told of the authority, the session's own connections refuse its word."""
    async with (
        running(Nginx(tmp_path, simulator.port, certificate=good)) as nginx,
        KlingOmniSession(KEY, base_url=nginx.base_url, policy=POLICY) as session,
    ):
        with pytest.raises(TransportError) as caught:
            await session.wait(TASK_IDS[0])
    assert caught.value.reason == "certificate"
    assert not await nginx.asked()


async def test_a_certificate_that_turns_bad_for_a_while(
    simulator: Simulator,
    tmp_path: Path,
    authority: Authority,
    good: Certificate,
    verdict: Verdict,
) -> None:
    """In the middle a refused certificate passes: ids come out when it is good again."""
    bad = BAD["wrong-name"](authority)
    async with (
        running(Nginx(tmp_path, simulator.port, certificate=good)) as nginx,
        session_for(nginx, authority) as session,
    ):

        async def swap_and_swap_back() -> None:
            nginx.reload(bad)
            await until(lambda: nginx.refused_handshakes >= len(TASK_IDS))
            nginx.reload(good)

        outcomes = await poll_batch(session, swap_and_swap_back)
    asked = await nginx.asked()
    verdict.check(outcomes, asked)
    assert CERTIFICATE in verdict.faults
    assert verdict.faults <= {CERTIFICATE, "TransportError (reset)"}


async def test_a_certificate_that_stays_bad(
    simulator: Simulator,
    tmp_path: Path,
    authority: Authority,
    good: Certificate,
    verdict: Verdict,
) -> None:
    """Ids that run out of time under a bad certificate say so in `last_error`."""
    bad = BAD["expired"](authority)
    async with (
        running(Nginx(tmp_path, simulator.port, certificate=good)) as nginx,
        session_for(nginx, authority) as session,
    ):

        async def swap() -> None:
            nginx.reload(bad)

        outcomes = await poll_batch(session, swap, timeout=4.0)
    assert_each_once(outcomes)
    verdict.note(outcomes, await nginx.asked())
    late = [outcome.error for outcome in outcomes if isinstance(outcome.error, PollTimeoutError)]
    assert 100 <= len(late) <= len(TASK_IDS) - EARLY
    reasons = {getattr(error.last_error, "reason", None) for error in late}
    assert reasons == {"certificate"}
    assert all("expired" in str(error) for error in late)
    assert CERTIFICATE in verdict.faults
