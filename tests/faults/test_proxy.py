"""tinyproxy between the library and nginx, found through `HTTP_PROXY` or `HTTPS_PROXY`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import anyio
import pytest

from kling_omni_async import KlingOmniSession, PollTimeoutError, TransportError

from .batch import (
    KEY,
    POLICY,
    TASK_IDS,
    assert_each_once,
    poll_batch,
)
from .certificates import Authority
from .processes import HOST, running, until
from .servers import OUTSIDE_HOST, PROXY_PASSWORD, Nginx, Simulator, Tinyproxy
from .verdict import Verdict

pytestmark = pytest.mark.anyio

PROXY = "TransportError (proxy)"
RESET = "TransportError (reset)"
each_scheme = pytest.mark.parametrize("nginx", ["http", "https"], indirect=True)


@pytest.fixture
async def nginx(
    request: pytest.FixtureRequest, simulator: Simulator, authority: Authority, tmp_path: Path
) -> AsyncGenerator[Nginx]:
    """Give nginx, running, with or without TLS as the parameter says."""
    certificate = None
    if request.param == "https":
        certificate = authority.signed("outside", f"DNS:{OUTSIDE_HOST}")
    async with running(Nginx(tmp_path, simulator.port, certificate=certificate)) as server:
        yield server


@pytest.fixture
def tinyproxy(nginx: Nginx, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tinyproxy:
    """Give tinyproxy, not yet running, with the environment that leads to it."""
    server = Tinyproxy(tmp_path, connect=nginx.port)
    monkeypatch.setenv(f"{nginx.scheme.upper()}_PROXY", server.url)
    return server


@asynccontextmanager
async def session_for(nginx: Nginx, authority: Authority) -> AsyncGenerator[KlingOmniSession]:
    """Open a session for a host that is not loopback."""
    connector = aiohttp.TCPConnector(ssl=authority.context())
    async with aiohttp.ClientSession(connector=connector) as http:
        session = KlingOmniSession(
            KEY, base_url=nginx.outside_url, http=http, policy=POLICY, allow_http=True
        )
        async with session:
            yield session


fast_on_purpose = pytest.mark.filterwarnings("ignore:the interval begins under")


@fast_on_purpose
@each_scheme
async def test_a_proxy(
    nginx: Nginx,
    tinyproxy: Tinyproxy,
    simulator: Simulator,
    authority: Authority,
    verdict: Verdict,
) -> None:
    """Every query goes through the proxy, which gets its password; with TLS by a tunnel."""
    async with running(tinyproxy), session_for(nginx, authority) as session:
        outcomes = await poll_batch(session)
    asked = await nginx.asked()
    verdict.check(outcomes, asked, await simulator.asked())
    lost = sum(outcome.queries for outcome in outcomes) - len(asked)
    assert all(("tinyproxy" in query.via) is (nginx.scheme == "http") for query in asked)
    if nginx.scheme == "http" and verdict.faults == {RESET}:
        # now and then tinyproxy closes a connection without having passed its query on
        assert 0 < lost <= len(asked) / 100
    else:
        assert not verdict.faults
        assert lost == 0


@fast_on_purpose
@each_scheme
async def test_a_proxy_that_is_dead(
    nginx: Nginx,
    tinyproxy: Tinyproxy,
    authority: Authority,
    verdict: Verdict,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is warned of, ends nothing, and stands in every `last_error`."""
    async with session_for(nginx, authority) as session:
        outcomes = await poll_batch(session, timeout=2.0)
    assert_each_once(outcomes)
    errors = [outcome.error for outcome in outcomes]
    late = [error for error in errors if isinstance(error, PollTimeoutError)]
    assert len(late) == len(TASK_IDS)
    for error in late:
        assert isinstance(error.last_error, TransportError)
        assert error.last_error.reason == "proxy"
    assert verdict.faults == {PROXY}
    assert PROXY_PASSWORD not in caplog.text + "".join(map(repr, errors))
    assert not await nginx.asked()


@fast_on_purpose
@each_scheme
async def test_a_proxy_that_wants_a_password(
    nginx: Nginx,
    tinyproxy: Tinyproxy,
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A 407 of the proxy ends nothing before the deadline, and stands in `last_error`."""
    monkeypatch.setenv(f"{nginx.scheme.upper()}_PROXY", f"http://{HOST}:{tinyproxy.port}")
    async with running(tinyproxy), session_for(nginx, authority) as session:
        with pytest.raises(PollTimeoutError) as caught:
            await session.wait(TASK_IDS[0], timeout=1.5)
    assert isinstance(caught.value.last_error, TransportError)
    assert caught.value.last_error.reason == "proxy"
    assert not await nginx.asked()


@fast_on_purpose
@each_scheme
async def test_a_proxy_that_is_killed(
    nginx: Nginx,
    tinyproxy: Tinyproxy,
    simulator: Simulator,
    authority: Authority,
    verdict: Verdict,
) -> None:
    """A proxy killed and started again in the middle is a passing fault."""
    async with running(tinyproxy), session_for(nginx, authority) as session:

        async def kill_and_restart() -> None:
            tinyproxy.kill()
            await until(lambda: PROXY in verdict.faults)
            await anyio.sleep(1)
            await tinyproxy.start()

        outcomes = await poll_batch(session, kill_and_restart)
    asked = await nginx.asked()
    verdict.check(outcomes, asked, await simulator.asked())
    # cut off: killed in the middle of an answer
    assert verdict.faults <= {PROXY, RESET, "TransportError (cut-off)"}


@fast_on_purpose
@each_scheme
async def test_a_proxy_before_a_server_that_is_killed(
    nginx: Nginx,
    tinyproxy: Tinyproxy,
    authority: Authority,
    verdict: Verdict,
) -> None:
    """What the proxy itself says of a server that is down is a passing fault."""
    said = {"http": "ServerError (HTTP 500)", "https": PROXY}[nginx.scheme]
    async with running(tinyproxy), session_for(nginx, authority) as session:

        async def kill_and_restart() -> None:
            nginx.kill()
            await until(lambda: said in verdict.faults)
            await anyio.sleep(1)
            await nginx.start()

        outcomes = await poll_batch(session, kill_and_restart)
    asked = await nginx.asked()
    verdict.check(outcomes, asked)
    assert said in verdict.faults


@fast_on_purpose
@pytest.mark.parametrize("nginx", ["https"], indirect=True)
async def test_a_certificate_refused_behind_a_proxy(
    nginx: Nginx, tinyproxy: Tinyproxy, authority: Authority
) -> None:
    """A tunnel that leads to another name than the certificate's ends the batch at once."""
    authority.signed("other", "DNS:elsewhere.test").install(nginx.folder)
    nginx.kill()
    await nginx.start()
    async with (
        running(tinyproxy),
        session_for(nginx, authority) as session,
        session.poll(TASK_IDS) as stream,
    ):
        with pytest.raises(TransportError) as caught:
            await anext(stream)
    assert caught.value.reason == "certificate"
    assert not await nginx.asked()
