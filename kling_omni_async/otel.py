"""Metrics and spans of sessions for OpenTelemetry, by its API alone (extra ``otel``).

::

    from kling_omni_async.otel import instrument

    async with KlingOmniSession() as session:
        instrument(session)
"""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from time import time_ns
from typing import Final, Self

from ._doors import observe, stats_from_any_thread
from ._models import ImageTask
from ._observer import Trace
from ._results import one_line
from ._session import KlingOmniSession
from ._stats import SessionStats, count_of
from ._version import __version__
from .errors import ConfigurationError, CreateUncertainError, KlingOmniError

try:
    from opentelemetry import context, metrics
    from opentelemetry import trace as tracing
except ImportError as _error:
    _TEXT = "OpenTelemetry needs the extra otel: in the checkout, pip install '.[otel]'"
    raise ImportError(_TEXT) from _error

__all__ = ["Instrumentation", "instrument"]

_SCOPE: Final = "kling_omni_async"

MOST_NOTED: Final = 16_384
"""How many values are kept until metrics are next collected; beyond it the oldest is recorded."""

_NOWHERE: Final = context.Context()
# The word by which instrumentations ask whether they are to be silent.
_QUIET: Final = context.set_value("suppress_instrumentation", True, _NOWHERE)  # noqa: FBT003

_S_OF_QUERIES: Final = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 2, 5, 10, 15)
_S_LATE: Final = (0.001, 0.01, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 1000)
_S_OF_TASKS: Final = (2, 5, 10, 20, 25, 30, 35, 40, 50, 60, 90, 120, 180, 300, 600, 1800, 3600)
_S_OF_DELAY: Final = (0.5, 1, 2, 4, 6, 8, 10, 12, 15, 20, 25, 30, 45, 60, 120, 300, 3600)
_QUERIES: Final = (1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 50, 100, 200)

Attributes = Mapping[str, str]


def instrument(
    session: KlingOmniSession,
    *,
    meter_provider: metrics.MeterProvider | None = None,
    tracer_provider: tracing.TracerProvider | None = None,
    queries: bool = False,
) -> Instrumentation:
    """Let OpenTelemetry see what a session does, in metrics and spans, from now on.

    Metrics have no task ids, so that their number does not grow; sessions of one provider share
    theirs. `wait` and `generate` are spans where they are called. The requests of the session are
    hidden from aiohttp's own instrumentation, for which each would be a trace of its own.

    Args:
        session: Which one; it may be in use already.
        meter_provider: Where the metrics go; by default the global one.
        tracer_provider: Where the spans go; by default the global one.
        queries: Whether each query is a span too, below the first `wait` or `generate` that it
            serves, and linked to all of them; one that serves none is no span.

    Returns:
        What undoes it, by its ``close()`` or at the end of its ``with``.

    Raises:
        ConfigurationError: It is no session, or one that is instrumented already.
    """
    if not isinstance(session, KlingOmniSession):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(f"instrument takes a session, not {type(session).__name__}")
    meters = _global_metrics() if meter_provider is None else _metrics_of(meter_provider)
    tracer = tracing.get_tracer(_SCOPE, __version__, tracer_provider)
    before = observe(session, _Observer(meters, tracer, follows_queries=queries))
    if before is not None:
        observe(session, before)
        text = "this session is instrumented already; close what instrument returned first"
        raise ConfigurationError(text)
    meters.add(session)
    return Instrumentation(session, meters)


class Instrumentation:
    """A session that OpenTelemetry sees."""

    def __init__(self, session: KlingOmniSession, meters: _Metrics) -> None:
        self._session: KlingOmniSession | None = session
        self._metrics = meters

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let OpenTelemetry see nothing more of it; once more does no harm."""
        if self._session is not None:
            observe(self._session, None)
            self._metrics.remove(self._session)
            self._session = None


class _Metrics:
    """The instruments of one provider, the sessions that share them, and what is to be recorded.

    The SDK takes longer for one value than a query may take for all of its own. So values are
    noted here, and recorded when metrics are collected, by a thread of the exporter's.
    """

    # Fifteen attributes: an instrument for each name, and three of its own.
    def __init__(self, provider: metrics.MeterProvider | None) -> None:
        # Replaced and never changed: other threads read it.
        self._sessions: tuple[weakref.ref[KlingOmniSession], ...] = ()
        self._noted: deque[tuple[str | float | None, ...]] = deque()
        meter = metrics.get_meter(_SCOPE, __version__, provider)
        self._meter = meter
        self.outcomes: metrics.Counter = meter.create_counter(
            "kling_omni.outcomes", "{task}", "Ids that came out, by how they ended."
        )
        self.task_duration: metrics.Histogram = self._histogram(
            "task.duration", "s", "How long the API took for a task.", _S_OF_TASKS
        )
        self.task_delay: metrics.Histogram = self._histogram(
            "task.delay", "s", "How long a task lay finished until that was seen.", _S_OF_DELAY
        )
        self.task_queries: metrics.Histogram = self._histogram(
            "task.queries", "{query}", "Queries that a task took.", _QUERIES
        )
        self.query_duration: metrics.Histogram = self._histogram(
            "query.duration", "s", "How long a query took.", _S_OF_QUERIES
        )
        self.query_lateness: metrics.Histogram = self._histogram(
            "query.lateness", "s", "How long after its time a query began.", _S_LATE
        )
        self.throttled: metrics.Counter = meter.create_counter(
            "kling_omni.throttled", "s", "Pauses of all scheduled queries after a 429."
        )
        self.creates: metrics.Counter = meter.create_counter(
            "kling_omni.creates", "{create}", "Creates that were sent, by how they ended."
        )
        self.images_saved: metrics.Counter = meter.create_counter(
            "kling_omni.images.saved", "{image}", "Images that were stored."
        )
        self.images_bytes: metrics.Counter = meter.create_counter(
            "kling_omni.images.bytes", "By", "Bytes of the images that were stored."
        )
        self.units: metrics.Counter = meter.create_counter(
            "kling_omni.units", "{unit}", "Units that the API deducted for tasks."
        )
        self._gauge("tasks.open", "{task}", "Ids that somebody waits for.", self._open)
        self._gauge("tasks.oldest_age", "s", "How long the longest wait has lasted.", self._oldest)
        self._gauge("stretch", "1", "The factor by which pauses are too long.", self._stretch)

    def _histogram(
        self, name: str, unit: str, description: str, bounds: Sequence[float]
    ) -> metrics.Histogram:
        return self._meter.create_histogram(
            f"kling_omni.{name}", unit, description, explicit_bucket_boundaries_advisory=bounds
        )

    def _gauge(
        self, name: str, unit: str, description: str, read: Callable[[list[SessionStats]], float]
    ) -> None:
        def observed(_: metrics.CallbackOptions) -> Iterable[metrics.Observation]:
            self.record_all()
            return [metrics.Observation(read(self._stats()))]

        self._meter.create_observable_gauge(f"kling_omni.{name}", [observed], unit, description)

    @staticmethod
    def _open(stats: list[SessionStats]) -> float:
        return sum(each.watched for each in stats)

    @staticmethod
    def _oldest(stats: list[SessionStats]) -> float:
        return max((each.oldest or 0.0 for each in stats), default=0.0)

    @staticmethod
    def _stretch(stats: list[SessionStats]) -> float:
        return max((each.stretch for each in stats), default=1.0)

    # Sessions.

    def add(self, session: KlingOmniSession) -> None:
        """Count a session in, until it is removed or nobody has it any more."""
        self.remove(session)
        self._sessions = (*self._sessions, weakref.ref(session))

    def remove(self, session: KlingOmniSession) -> None:
        """Count a session out, and those that are gone."""
        self._sessions = tuple(ref for ref in self._sessions if ref() not in (None, session))

    def _stats(self) -> list[SessionStats]:
        sessions = [session for ref in self._sessions if (session := ref()) is not None]
        return [stats for each in sessions if (stats := stats_from_any_thread(each)) is not None]

    # What was noted.

    def note(self, kind: str, *values: str | float | None) -> None:
        """Note what is to be recorded when metrics are next collected, by a method of that name."""
        # Numbers and words alone: what holds nothing else is not walked through to find garbage.
        self._noted.append((kind, *values))
        if len(self._noted) > MOST_NOTED:
            self._record_next()

    def record_all(self) -> None:
        """Record what was noted so far."""
        for _ in range(len(self._noted)):
            self._record_next()

    def _record_next(self) -> None:
        try:
            kind, *values = self._noted.popleft()
        except IndexError:  # another reader was faster
            return
        record: Callable[..., None] = getattr(self, f"record_{kind}")
        record(*values)

    def record_query(self, took_s: float, late_s: float, fault: str | None) -> None:
        self.query_duration.record(took_s, _how(None, fault), _NOWHERE)
        self.query_lateness.record(late_s, None, _NOWHERE)

    def record_end(self, outcome: str, fault: str | None, queries: int) -> None:
        self.outcomes.add(1, _how(outcome, fault), _NOWHERE)
        self.task_queries.record(queries, None, _NOWHERE)

    def record_task(self, took_s: float | None, delay_s: float | None, units: float | None) -> None:
        if took_s is not None:
            self.task_duration.record(took_s, None, _NOWHERE)
        if delay_s is not None:
            self.task_delay.record(delay_s, None, _NOWHERE)
        if units is not None:
            self.units.add(units, None, _NOWHERE)

    def record_pause(self, pause_s: float) -> None:
        self.throttled.add(pause_s, None, _NOWHERE)

    def record_create(self, outcome: str, fault: str | None) -> None:
        self.creates.add(1, _how(outcome, fault), _NOWHERE)

    def record_image(self, size: int) -> None:
        self.images_saved.add(1, None, _NOWHERE)
        self.images_bytes.add(size, None, _NOWHERE)


def _how(outcome: str | None, fault: str | None) -> Attributes:
    """Return attributes, of which there are few: no ids, and of errors the class."""
    how = {} if outcome is None else {"kling_omni.outcome": outcome}
    return how if fault is None else how | {"error.type": fault}


@cache
def _global_metrics() -> _Metrics:
    # Once, also where the provider is set only later: instruments follow it.
    return _Metrics(None)


_shared: Final = weakref.WeakKeyDictionary[metrics.MeterProvider, _Metrics]()


def _metrics_of(provider: metrics.MeterProvider) -> _Metrics:
    # An SDK takes instruments of one name once: of the second, nobody would be asked.
    found = _shared.get(provider)
    if found is None:
        found = _shared[provider] = _Metrics(provider)
    return found


class _Observer:
    """Notes what a session does."""

    def __init__(self, meters: _Metrics, tracer: tracing.Tracer, *, follows_queries: bool) -> None:
        self.follows_queries = follows_queries
        self._metrics = meters
        self._tracer = tracer

    def queried(
        self,
        *,
        took_s: float,
        late_s: float,
        error: KlingOmniError | None,
        traces: Sequence[Trace],
    ) -> None:
        fault = None if error is None else type(error).__name__
        self._metrics.note("query", took_s, late_s, fault)
        if traces:
            self._span_of_query(took_s, fault, traces)

    def _span_of_query(self, took_s: float, fault: str | None, traces: Sequence[Trace]) -> None:
        """Make the span of a query once it has ended, so that none is left open."""
        served = [each.span for each in traces if isinstance(each, _Trace)]
        links = [tracing.Link(span.get_span_context()) for span in served]
        ended = time_ns()
        span = self._tracer.start_span(
            "kling_omni.query",
            tracing.set_span_in_context(served[0], _NOWHERE),
            tracing.SpanKind.CLIENT,
            _how(None, fault),
            links,
            ended - round(took_s * 1e9),
        )
        if fault is not None:
            span.set_status(tracing.StatusCode.ERROR)
        span.end(ended)

    def ended(self, error: KlingOmniError | None, *, queries: int) -> None:
        fault = None if error is None else type(error).__name__
        self._metrics.note("end", count_of(error), fault, queries)

    def seen(self, task: ImageTask, age_s: float | None) -> None:
        took_s = delay_s = units = None
        if task.created_at is not None and task.updated_at is not None:
            took_s = max(0.0, (task.updated_at - task.created_at).total_seconds())
            if age_s is not None:  # by clocks that may differ a little
                delay_s = max(0.0, age_s - took_s)
        if task.final_unit_deduction is not None:
            units = float(task.final_unit_deduction)
        self._metrics.note("task", took_s, delay_s, units)

    def throttled(self, pause_s: float) -> None:
        self._metrics.note("pause", pause_s)

    def created(self, error: BaseException | None) -> None:
        if error is None:
            self._metrics.note("create", "created", None)
            return
        word = "uncertain" if isinstance(error, CreateUncertainError) else "refused"
        self._metrics.note("create", word, type(error).__name__)

    def saved(self, size: int) -> None:
        self._metrics.note("image", size)

    @contextmanager
    def trace(self, name: str, task_id: str) -> Generator[_Trace]:
        # The SDK would keep tracebacks, and take a cancelled call for no news.
        with self._tracer.start_as_current_span(
            name, record_exception=False, set_status_on_exception=False
        ) as span:
            traced = _Trace(span)
            if task_id:
                traced.of(task_id)
            try:
                yield traced
            except BaseException as error:
                traced.failed(error)
                raise

    def hushed(self) -> _Hush:
        return _Hush()


class _Trace:
    """A call of a user's, as a span."""

    __slots__ = ("span",)

    def __init__(self, span: tracing.Span) -> None:
        self.span: tracing.Span = span

    def of(self, task_id: str) -> None:
        """Note which task it is about."""
        self.span.set_attribute("kling_omni.task.id", task_id)

    def failed(self, error: BaseException) -> None:
        """Note what it raised; to be cancelled is no error."""
        self.span.set_attribute("error.type", type(error).__name__)
        if not isinstance(error, asyncio.CancelledError):
            said = one_line(error) if isinstance(error, KlingOmniError) else None
            self.span.set_status(tracing.StatusCode.ERROR, said)


class _Hush:
    """Keeps instrumentations silent within a block."""

    __slots__ = ("_token",)

    def __enter__(self) -> None:
        self._token = context.attach(_QUIET)

    def __exit__(self, *_: object) -> None:
        context.detach(self._token)
