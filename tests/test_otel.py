"""OpenTelemetry, by its real SDK: what is counted and traced, what is not, and that it ends."""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import sys
import threading
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import attrs
import pytest
from opentelemetry import context, trace
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from kling_omni_async import (
    ConfigurationError,
    ImageOrder,
    KlingOmniError,
    KlingOmniSession,
    PollTimeoutError,
    SessionClosedError,
    TaskFailedError,
    otel,
)
from kling_omni_async._doors import stats_from_any_thread
from kling_omni_async.otel import Instrumentation, instrument
from kling_omni_async.simulator import SimulatedCometAPI

from .support import all_of, new_session, now, now_waiting, open_session

pytestmark = pytest.mark.anyio

FOX = ImageOrder("a fox", n=2)
NAMES = {
    *("tasks.open", "tasks.oldest_age", "outcomes", "task.duration", "task.delay", "task.queries"),
    *("query.duration", "query.lateness", "throttled", "stretch", "creates"),
    *("images.saved", "images.bytes", "units"),
}


class Seen:
    """An SDK of its own, with everything in memory."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.tracers.get_tracer("the user's own")

    def instrument(self, session: KlingOmniSession, *, queries: bool = False) -> Instrumentation:
        return instrument(
            session, meter_provider=self.meters, tracer_provider=self.tracers, queries=queries
        )

    @property
    def metrics(self) -> dict[str, list[Any]]:
        """The points of each metric, collected now."""
        data = self.reader.get_metrics_data()
        if data is None:
            return {}
        found = [
            metric
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        ]
        names = [each.name.removeprefix("kling_omni.") for each in found]
        return dict(zip(names, [list(each.data.data_points) for each in found], strict=True))

    def value(self, name: str, **attributes: str) -> Any:
        """The value of a counter or a gauge, or how often a histogram was given one."""
        wanted = {name.replace("_", "."): value for name, value in attributes.items()}
        points = [
            point
            for point in self.metrics.get(name, [])
            if all(_plain(point.attributes).get(key) == value for key, value in wanted.items())
        ]
        return sum(getattr(point, "value", None) or getattr(point, "count", 0) for point in points)

    def total(self, name: str) -> float:
        """The sum of what a histogram was given."""
        return float(sum(point.sum for point in self.metrics[name]))

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        """Those that have ended."""
        return self.exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]


def _plain(attributes: Any) -> dict[str, Any]:
    return {key.removeprefix("kling_omni."): value for key, value in attributes.items()}


@pytest.fixture
def seen() -> Seen:
    """Give an SDK of its own."""
    return Seen()


@pytest.fixture
def aiohttp_traced(seen: Seen) -> Iterator[None]:
    """Switch on aiohttp's own instrumentation."""
    AioHttpClientInstrumentor().instrument(tracer_provider=seen.tracers)
    yield
    AioHttpClientInstrumentor().uninstrument()


# Metrics.


async def test_everything_is_counted(
    comet_api: SimulatedCometAPI, seen: Seen, tmp_path: Path
) -> None:
    """Each metric has its value, and no attribute of any names a task."""
    comet_api.fail_next(status=429, retry_after=3)
    bad = comet_api.create_task(duration=30, fail="no", units=None)
    good = comet_api.create_task(duration=30, images=1, units="8")
    async with open_session(comet_api) as session:
        seen.instrument(session)
        await all_of(session, [good, bad, "404404"], save_to=tmp_path)
        outcome = await session.generate(FOX, save_to=tmp_path)
    assert set(seen.metrics) == NAMES
    outcomes = {
        tuple(sorted(_plain(point.attributes).items())): point.value
        for point in seen.metrics["outcomes"]
    }
    assert outcomes == {
        (("outcome", "succeeded"),): 2,
        (("error.type", "TaskFailedError"), ("outcome", "failed")): 1,
        (("error.type", "TaskNotFoundError"), ("outcome", "unresolved")): 1,
    }
    asked = len(comet_api.queries) - 1  # less the POST
    assert seen.value("query.duration") == seen.value("query.lateness") == asked
    assert seen.value("query.duration", error_type="RateLimitError") == 1
    assert seen.value("query.duration", error_type="TaskNotFoundError") == 2
    assert (seen.value("task.queries"), seen.total("task.queries")) == (4, asked)
    assert seen.value("task.duration") == seen.value("task.delay") == 3
    assert seen.value("throttled") == pytest.approx(3.0)
    assert seen.value("creates", outcome="created") == 1
    sizes = [image.size for image in outcome.saved]
    assert seen.value("images.saved") == len(sizes) + 1
    assert seen.value("images.bytes") > sum(sizes)
    assert seen.value("units") == 8 + comet_api.billed[0].units
    written = json.dumps([_plain(p.attributes) for points in seen.metrics.values() for p in points])
    assert not any(task_id in written for task_id in (good, bad, "404404", outcome.task_id))


@pytest.mark.parametrize("timing", ["learned", "uniform"])
@pytest.mark.parametrize("duration", [10.0, 31.0])
async def test_delay_is_from_the_end_of_a_task_until_it_is_seen(
    comet_api: SimulatedCometAPI, seen: Seen, duration: float, timing: str
) -> None:
    """By the API's own clocks, also where the first answer is the final one."""
    task_id = comet_api.create_task(duration=duration)
    await asyncio.sleep(15.0)
    async with open_session(comet_api, timing=timing) as session:
        seen.instrument(session)
        await session.wait(task_id)
        late_s = now() - duration
    assert seen.total("task.duration") == pytest.approx(duration, abs=1e-3)
    assert seen.total("task.delay") == pytest.approx(late_s, abs=1.1)  # `Date` has whole seconds


async def test_the_delay_of_an_own_task_is_exact(comet_api: SimulatedCometAPI, seen: Seen) -> None:
    """Its age is by our own clock, which has parts of a second."""
    await asyncio.sleep(0.7)
    async with open_session(comet_api) as session:
        seen.instrument(session)
        task = await session.create(FOX)
        await session.wait(task.task_id, expect_callback=50.25)
    assert seen.total("task.duration") + seen.total("task.delay") == pytest.approx(50.25, abs=0.01)


async def test_a_delay_that_is_not_known_is_none(comet_api: SimulatedCometAPI, seen: Seen) -> None:
    """Without `Date` the duration alone, without times neither; no case is an error."""
    bodies = [comet_api.create_task(duration=0), comet_api.create_task(duration=0)]
    bare = {"task_status": "failed", "created_at": 1_700_000_000_000}
    times = bare | {"updated_at": 1_700_000_009_000}
    for task_id, data in zip(bodies, (bare, times), strict=True):
        body = {"code": 0, "data": {"task_id": task_id, **data}}
        comet_api.fail_next(task_id, body=body, headers={"Date": "today"})
    async with open_session(comet_api) as session:
        seen.instrument(session)
        await all_of(session, bodies)
    assert (seen.value("task.duration"), seen.total("task.duration")) == (1, 9.0)
    assert seen.value("task.delay") == 0


async def test_a_query_by_hand_ends_no_task(comet_api: SimulatedCometAPI, seen: Seen) -> None:
    """It is a query, but no outcome, and its delay is the caller's own."""
    task_id = comet_api.create_task(duration=0)
    async with open_session(comet_api) as session:
        seen.instrument(session)
        await session.query(task_id)
    assert seen.value("query.duration") == 1
    assert not {"outcomes", "task.delay", "task.queries"} & set(seen.metrics)


async def test_lateness_is_what_the_pace_costs(comet_api: SimulatedCometAPI, seen: Seen) -> None:
    """Of three newcomers of one moment the second waits for one gap, the third for two."""
    async with open_session(comet_api, max_rate=1.0) as session:
        seen.instrument(session)
        task_ids = [comet_api.create_task(duration=0) for _ in range(3)]
        await asyncio.gather(*map(session.wait, task_ids))
    assert seen.total("query.lateness") == pytest.approx(3.0, abs=0.1)


async def test_gauges_are_of_the_moment(comet_api: SimulatedCometAPI, seen: Seen) -> None:
    """What is waited for now, in all sessions of a provider together; one that is gone is none."""
    task_ids = [comet_api.create_task(duration=1000) for _ in range(12)]
    first, second = new_session(comet_api, max_rate=0.1), new_session(comet_api)
    idle = new_session(comet_api)
    for session in (first, second, idle):
        seen.instrument(session)
    assert [seen.value(name) for name in ("tasks.open", "stretch")] == [0, 1.0]
    waits = [asyncio.create_task(first.wait(each)) for each in task_ids]
    await asyncio.sleep(7.0)
    waits.append(asyncio.create_task(second.wait(task_ids[0])))
    await now_waiting()
    assert seen.value("tasks.open") == 13
    assert seen.value("tasks.oldest_age") == pytest.approx(7.0)
    assert seen.value("stretch") == pytest.approx(12 / 2.5)
    await first.aclose()
    assert [seen.value(name) for name in ("tasks.open", "stretch")] == [1, 1.0]
    await second.aclose()
    await asyncio.gather(*waits, return_exceptions=True)
    waits.clear()
    del first, second, idle, session
    gc.collect()
    with seen.instrument(new_session(comet_api)):
        assert seen.value("tasks.open") == 0


async def test_metrics_are_read_in_any_thread(comet_api: SimulatedCometAPI, seen: Seen) -> None:
    """The reader's thread need not be the loop's, nor the loop be running."""
    read: list[float] = []
    async with open_session(comet_api) as session:
        seen.instrument(session)
        waiting = asyncio.create_task(session.wait(comet_api.create_task(duration=1000)))
        await now_waiting()
        thread = threading.Thread(target=lambda: read.append(seen.value("tasks.open")))
        thread.start()
        thread.join()
        waiting.cancel()
        await asyncio.wait([waiting])
    assert read == [1]


def test_a_loop_that_has_gone_is_asked_nothing(seen: Seen) -> None:
    """A session whose loop was closed without it counts for nothing."""
    session = KlingOmniSession("key", base_url="http://127.0.0.1:9")
    seen.instrument(session)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(session.__aenter__())
    assert seen.value("stretch") == 1.0
    loop.run_until_complete(asyncio.sleep(0))
    owner = session._wings.engine._owner
    assert stats_from_any_thread(session) is not None
    loop.close()
    assert (seen.value("tasks.open"), session.closed) == (0, False)
    assert stats_from_any_thread(session) is None  # uvloop's clock is gone with it
    assert owner is not None
    owner._log_destroy_pending = False  # type: ignore[attr-defined]
    session._wings.engine.closed = True


async def test_what_nobody_collects_does_not_grow(
    comet_api: SimulatedCometAPI, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond a bound values are recorded at once, and none is lost or counted twice."""
    monkeypatch.setattr(otel, "MOST_NOTED", 4)
    async with open_session(comet_api) as session:
        made = seen.instrument(session)
        await all_of(session, [comet_api.create_task(duration=0) for _ in range(20)])
        assert len(made._metrics._noted) == 4
    for _ in range(2):
        assert seen.value("query.duration") == seen.value("outcomes") == 20
    made._metrics._record_next()  # as where another reader was faster


async def test_without_providers_the_global_ones_are_used(comet_api: SimulatedCometAPI) -> None:
    """Where none is set it runs all the same, and a second session shares the instruments."""
    async with open_session(comet_api) as session:
        other = new_session(comet_api)
        with instrument(session, queries=True) as first, instrument(other) as second:
            assert first._metrics is second._metrics
            await session.wait(comet_api.create_task(duration=0))


# Creates.


@pytest.mark.parametrize(
    ("fault", "error", "how"),
    [
        ({"status": 401}, "AuthenticationError", "refused"),
        ({"reset": True}, "CreateUncertainError", "uncertain"),
    ],
)
async def test_creates_by_their_ends(
    comet_api: SimulatedCometAPI, seen: Seen, fault: dict[str, Any], error: str, how: str
) -> None:
    """A refusal and a doubt are told apart; a create that was never sent is none."""
    comet_api.fail_next_create(**fault)
    async with open_session(comet_api) as session:
        seen.instrument(session)
        with pytest.raises(KlingOmniError) as caught:
            await session.create(FOX)
        with pytest.raises(ConfigurationError):
            await session.create(attrs.evolve(FOX, images=[Path("none.png")]))
    assert type(caught.value).__name__ == error
    assert seen.value("creates", outcome=how, error_type=error) == 1
    assert seen.value("creates") == 1


async def test_a_create_that_is_throttled(comet_api: SimulatedCometAPI, seen: Seen) -> None:
    """What its `Retry-After` asks for holds queries back, too, and it is one create in the end."""
    comet_api.fail_next_create(status=429, retry_after=7)
    async with open_session(comet_api) as session:
        seen.instrument(session)
        await session.create(FOX)
    assert seen.value("throttled") == pytest.approx(7.0)
    assert seen.value("creates", outcome="created") == seen.value("creates") == 1


# Spans.


async def test_waits_are_spans_where_they_are_called(
    comet_api: SimulatedCometAPI, seen: Seen
) -> None:
    """Below the caller's own span, with the id; the end of all is their end."""
    task_id = comet_api.create_task(duration=31)
    async with open_session(comet_api) as session:
        seen.instrument(session)
        with seen.tracer.start_as_current_span("request") as mine:
            await session.wait(task_id)
            assert trace.get_current_span() is mine
    (span,) = seen.named("kling_omni.wait")
    assert span.parent is not None
    assert span.parent.span_id == mine.get_span_context().span_id
    assert span.attributes == {"kling_omni.task.id": task_id}
    assert span.status.is_unset
    assert len(seen.spans) == 2


async def test_a_span_says_why_a_wait_failed(comet_api: SimulatedCometAPI, seen: Seen) -> None:
    """The type of the error and its words in one line; a cancelled call is no error."""
    bad = comet_api.create_task(duration=0, fail="two\nlines")
    slow = comet_api.create_task(duration=1000)
    async with open_session(comet_api) as session:
        seen.instrument(session)
        with pytest.raises(TaskFailedError):
            await session.wait(bad)
        with pytest.raises(PollTimeoutError):
            await session.wait(slow, timeout=1)
        left, closed = (asyncio.create_task(session.wait(slow)) for _ in range(2))
        await now_waiting()
        left.cancel()
        await asyncio.wait([left])
    with pytest.raises(SessionClosedError):
        await closed
    spans = seen.named("kling_omni.wait")
    assert [dict(span.attributes or {})["error.type"] for span in spans] == [
        *("TaskFailedError", "PollTimeoutError", "CancelledError", "SessionClosedError")
    ]
    assert [span.status.status_code.name for span in spans] == ["ERROR", "ERROR", "UNSET", "ERROR"]
    assert spans[0].status.description == "two\\nlines"
    assert [event for span in spans for event in span.events] == []


async def test_a_defect_ends_a_span(comet_api: SimulatedCometAPI, seen: Seen) -> None:
    """What nobody foresaw is named by its type alone."""
    async with open_session(comet_api) as session:
        seen.instrument(session)
        waiting = asyncio.create_task(session.wait(comet_api.create_task(duration=99)))
        await now_waiting()
        session._wings.engine.fail(ZeroDivisionError("secret"))
        with pytest.raises(ZeroDivisionError):
            await waiting
    (span,) = seen.named("kling_omni.wait")
    assert (span.status.status_code.name, span.status.description) == ("ERROR", None)


async def test_generate_is_one_span(
    comet_api: SimulatedCometAPI, seen: Seen, tmp_path: Path
) -> None:
    """From the order to the stored images, with the id that was made; no wait stands below it."""
    async with open_session(comet_api) as session:
        seen.instrument(session)
        outcome = await session.generate(FOX, save_to=tmp_path)
        comet_api.fail_next_create(status=401)
        with pytest.raises(Exception, match="401"):
            await session.generate(FOX)
    good, bad = seen.spans
    assert {good.name, bad.name} == {"kling_omni.generate"}
    assert good.attributes == {"kling_omni.task.id": outcome.task_id}
    assert bad.attributes == {"error.type": "AuthenticationError"}


async def test_queries_are_spans_on_demand(comet_api: SimulatedCometAPI, seen: Seen) -> None:
    """Below the first wait that they serve, linked to all of them; for a stream there is none."""
    task_id = comet_api.create_task(duration=25)
    comet_api.fail_next(task_id, status=502)
    async with open_session(comet_api) as session:
        seen.instrument(session, queries=True)
        await all_of(session, [comet_api.create_task(duration=25)])
        assert seen.spans == ()
        await asyncio.gather(session.wait(task_id), session.wait(task_id))
    waits = {span.context.span_id: span for span in seen.named("kling_omni.wait") if span.context}
    queries = seen.named("kling_omni.query")
    assert len(waits) == 2
    assert len(queries) == len(comet_api.queries_of(task_id))
    for span in queries:
        assert span.parent is not None
        assert span.parent.span_id in waits
        assert {link.context.span_id for link in span.links} == set(waits)
        assert span.end_time is not None
        assert span.start_time is not None
        assert 0 <= span.end_time - span.start_time < 15e9
    assert queries[0].attributes == {"error.type": "ServerError"}
    assert [span.status.status_code.name for span in queries[:2]] == ["ERROR", "UNSET"]


async def test_queries_of_generate_are_its_own(comet_api: SimulatedCometAPI, seen: Seen) -> None:
    """They stand below the span of `generate`."""
    async with open_session(comet_api) as session:
        seen.instrument(session, queries=True)
        outcome = await session.generate(FOX)
    *queries, whole = seen.spans
    assert whole.context is not None
    assert whole.name == "kling_omni.generate"
    assert len(queries) == outcome.queries
    assert {span.parent.span_id for span in queries if span.parent} == {whole.context.span_id}


# Beside aiohttp's own instrumentation.


@pytest.mark.parametrize("queries", [False, True])
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.usefixtures("aiohttp_traced")
async def test_with_aiohttp_traced_no_request_of_ours_is_a_trace_of_its_own(
    comet_api: SimulatedCometAPI, seen: Seen, tmp_path: Path, *, queries: bool, given: bool
) -> None:
    """Queries, creates and downloads are hidden, of our HTTP session and of a given one."""
    http = aiohttp.ClientSession() if given else None
    session = KlingOmniSession(comet_api.api_key, base_url=comet_api.base_url, http=http)
    async with session:
        await session.query(comet_api.create_task(duration=0))  # a worker is there already
        assert [span.name for span in seen.spans] == ["GET"]  # as it is without us
        seen.exporter.clear()
        with seen.instrument(session, queries=queries), seen.tracer.start_as_current_span("mine"):
            outcome = await session.generate(FOX, save_to=tmp_path)
            await all_of(session, [comet_api.create_task(duration=0)], save_to=tmp_path)
            await session.recover(outcome.external_task_id or "")
            assert context.get_value("suppress_instrumentation") is None
        assert {span.name for span in seen.spans} - {"kling_omni.query"} == {
            *("mine", "kling_omni.generate")
        }
        assert len(seen.named("kling_omni.query")) == (outcome.queries if queries else 0)
        assert [span.name for span in seen.spans if span.parent is None] == ["mine"]
        await session.query(comet_api.create_task(duration=0))  # nothing is left of it
        assert [span.name for span in seen.spans if span.parent is None] == ["mine", "GET"]
    if http is not None:
        await http.close()


@pytest.mark.usefixtures("aiohttp_traced")
async def test_a_users_own_requests_are_seen(comet_api: SimulatedCometAPI, seen: Seen) -> None:
    """What an input of the user's asks for is no request of ours."""

    async def ids() -> AsyncGenerator[str]:
        async with aiohttp.ClientSession() as http, http.get(f"{comet_api.base_url}/list"):
            yield comet_api.create_task(duration=0)

    async with open_session(comet_api) as session:
        seen.instrument(session)
        async with session.poll(ids()) as outcomes:
            assert [outcome.ok async for outcome in outcomes] == [True]
    assert [span.name for span in seen.spans] == ["GET"]


# Switching it on and off.


async def test_closing_undoes_it(comet_api: SimulatedCometAPI, seen: Seen) -> None:
    """Nothing more is counted, twice does no harm, and it can be switched on again."""
    async with open_session(comet_api) as session:
        for count in (1, 2):
            made = seen.instrument(session)
            await session.wait(comet_api.create_task(duration=0))
            waiting = asyncio.create_task(session.wait(comet_api.create_task(duration=99)))
            await now_waiting()
            assert seen.value("tasks.open") == 1
            made.close()
            made.close()
            assert seen.value("tasks.open") == 0
            waiting.cancel()
            await asyncio.wait([waiting])
            await session.wait(comet_api.create_task(duration=0))
            assert seen.value("outcomes") == len(seen.spans) / 2 == count
        assert session._wings.door.observer is None


async def test_wrong_use(comet_api: SimulatedCometAPI, seen: Seen) -> None:
    """No session, and a session that is instrumented already; the first goes on."""
    wrong: Any = "session"
    with pytest.raises(ConfigurationError, match="not str"):
        seen.instrument(wrong)
    async with open_session(comet_api) as session:
        seen.instrument(session)
        with pytest.raises(ConfigurationError, match="already"):
            Seen().instrument(session)
        await session.wait(comet_api.create_task(duration=0))
    assert seen.value("outcomes") == 1


def test_without_opentelemetry_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who imports it without the extra is told what to install."""
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.delitem(sys.modules, "kling_omni_async.otel")
    with pytest.raises(ImportError, match=r"pip install '\.\[otel\]'"):
        importlib.import_module("kling_omni_async.otel")
