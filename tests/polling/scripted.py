"""A transport without a network: it answers from a script and notes what was asked and when."""

# The session is given its poller from outside, which nothing public does.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import json
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

import attrs

from kling_omni_async import KlingOmniError, KlingOmniSession, PollPolicy, TransportError
from kling_omni_async._api.answers import Answer
from kling_omni_async._polling.poller import Client, Poller


@attrs.frozen
class Line:
    """One line of a script.

    Attributes:
        answer: What comes.
        after: How long it takes, in s; infinity runs into the query's time limit.
        hold: What has to be set before it comes, or None.
    """

    answer: Answer | KlingOmniError
    after: float = 0.0
    hold: asyncio.Event | None = None


@attrs.define(eq=False)
class Start:
    """A query that was sent.

    Attributes:
        task_id: The id.
        at: When it started, in s.
        ended: When it ended, in s, or None.
    """

    task_id: str
    at: float
    ended: float | None = None


def _ignore(_start: Start, _line: Line) -> None:
    """Hear nothing."""


class ScriptedTransport:
    """Answers each id from its script; the last line is said for ever.

    Attributes:
        scripts: What comes for each id.
        default: What comes for an id without a script.
        starts: All queries in the order of their starts.
        in_flight: Queries in flight now.
        most_in_flight: The most there ever were.
        opened: How often it was opened.
        closed: How often it was closed.
        given_up: How often idle connections were to be closed.
    """

    def __init__(
        self,
        scripts: Mapping[str, Sequence[Line]] | None = None,
        *,
        query_timeout: float = 15.0,
        limit: int | None = None,
        on_start: Callable[[Start, Line], None] = _ignore,
        on_end: Callable[[Start, Line], None] = _ignore,
    ) -> None:
        self.scripts = {task_id: deque(lines) for task_id, lines in (scripts or {}).items()}
        self.default = Line(task())
        self.starts: list[Start] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self.opened = 0
        self.closed = 0
        self.given_up = 0
        self._query_timeout = query_timeout
        self._limit = limit
        self._on_start = on_start
        self._on_end = on_end

    def bind(self) -> None:
        """Check nothing."""

    async def open(self) -> int | None:
        self.opened += 1
        return self._limit

    async def fetch(self, task_id: str) -> Answer | KlingOmniError:
        start = Start(task_id, now())
        line = self._next(task_id)
        self._begin(start, line)
        try:
            async with asyncio.timeout(self._query_timeout):
                await _follow(line)
        except TimeoutError:
            line = TIMED_OUT
        finally:
            start.ended = now()
            self.in_flight -= 1
        self._on_end(start, line)
        return line.answer

    def give_up_idle(self) -> None:
        self.given_up += 1

    async def aclose(self) -> None:
        self.closed += 1

    def times_of(self, task_id: str) -> list[float]:
        """Give the starts of one id's queries, in s."""
        return [start.at for start in self.starts if start.task_id == task_id]

    def _next(self, task_id: str) -> Line:
        lines = self.scripts.get(task_id) or deque([self.default])
        return lines.popleft() if len(lines) > 1 else lines[0]

    def _begin(self, start: Start, line: Line) -> None:
        self.starts.append(start)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        self._on_start(start, line)


async def _follow(line: Line) -> None:
    if line.hold is not None:
        await line.hold.wait()
    if line.after:
        await asyncio.sleep(line.after)


def now() -> float:
    """Give the time of the running loop, in s."""
    return asyncio.get_running_loop().time()


def scripted_session(
    transport: Client, policy: PollPolicy | None = None, *, seed: int = 7
) -> KlingOmniSession:
    """Make a session that polls over a transport of ours, with pauses that repeat."""
    session = KlingOmniSession("a-key", base_url="http://127.0.0.1:9", policy=policy)
    session._wings.poller = Poller(
        session._wings.engine, session.policy, transport, rng=Random(seed)
    )
    return session


def poller_of(session: KlingOmniSession) -> Poller:
    """Give what polls inside a session."""
    assert session._wings.poller is not None
    return session._wings.poller


def lines(*answers: Answer | KlingOmniError) -> deque[Line]:
    """Make a script of answers that come at once."""
    return deque(map(Line, answers))


# Answers, as they come over the wire.


def answer(status: int, body: object, **headers: str) -> Answer:
    """Make an HTTP answer; an underscore in a header's name stands for a hyphen."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, json.dumps(body).encode(), names)


def task(
    status: str = "processing",
    *,
    images: int = 0,
    reason: str | None = None,
    of: str | None = None,
) -> Answer:
    """Answer with a task, which names the id that it is of or none."""
    pictures = [{"url": f"https://img.example/{index}.png"} for index in range(images)]
    data: dict[str, Any] = {"task_status": status, "task_status_msg": reason}
    data["task_result"] = {"images": pictures}
    if of is not None:
        data["task_id"] = of
    return answer(200, {"code": 0, "message": "SUCCEED", "data": data})


PENDING = task()
SUBMITTED = task("submitted")
SUCCEED = task("succeed", images=1)
IMAGELESS = task("succeed")
FAILED = task("failed", reason="the prompt was refused")
NOT_FOUND = answer(400, {"code": "task_not_exist", "message": "task_not_exist", "data": None})
BAD_REQUEST = answer(400, {"code": 1201, "message": "no such model"})
UNAUTHORIZED = answer(401, {"code": 1000, "message": "the key is not accepted"})
NO_BALANCE = answer(429, {"code": 1102, "message": "the balance is used up"})
BAD_GATEWAY = Answer(502, b"<html>bad gateway</html>")
API_TROUBLE = answer(500, {"code": 5000, "message": "internal error"})
WEB_PAGE = Answer(200, b"<html>welcome</html>")
RESET = TransportError("reset by peer", reason="reset")
BAD_CERTIFICATE = TransportError("certificate refused", reason="certificate")
TIMED_OUT = Line(TransportError("no full answer in time", reason="timeout"))
HANG = Line(PENDING, math.inf)


def limited(retry_after: str | None = None) -> Answer:
    """Answer with a 429, as gateways do: often without any header."""
    headers = {} if retry_after is None else {"Retry_After": retry_after}
    return answer(429, {"code": 1302, "message": "too many requests"}, **headers)
