"""Stories of processes that share a book in a real Redis: each checks all, and says what was seen.

What is checked is what the API saw, by the simulator's own record, and what each process wrote down
before it went on.
"""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import re
import signal
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from kling_omni_async._book.contract import State
from tests.book.child import FAST, Child, Line, each_of, wait_until
from tests.book.crew import FASTER, Crew, crew_of, has_said, told
from tests.book.kills import Story, check
from tests.faults.processes import HOST

from .books import new_store
from .paces import SHARE, pace_of, starts_of
from .relay import Relay
from .server import RedisServer

KEPT: Final = ("--appendonly", "yes", "--appendfsync", "always")
"""Each change is on the disk of Redis before it is answered."""

SAME_S: Final = 0.001
"""By how much two clocks of one machine differ at most, in s."""

LOOKED_AT: Final = 40
"""How many of the last ids that a process has asked for may be in its hand."""

UNDER_WAY_S: Final = 0.3
"""After how long all that a process had sent to Redis before it was stopped is made, in s."""

SLOW_S: Final = 0.2
"""How long the API takes for an answer, so that there is something in hand at any moment, in s."""

MISSED: Final = 0.2
"""Which share of a pace a machine that has much to do may miss in some seconds."""

TROUBLE_S: Final = 2.0
"""How long Redis is held up or full, in s."""

BUSY_S: Final = 3.0
"""How much later than promised something may be seen on a machine that has much to do, in s."""


@contextmanager
def redis_beside(
    story: Story, *options: str, name: str = "redis", **more: Any
) -> Generator[RedisServer]:
    """Keep the book of a story in a Redis of its own."""
    folder = story.folder / name
    folder.mkdir()
    server = RedisServer(folder, *(options or KEPT), **more)
    try:
        start(story, server)
        story.book = server.url
        yield server
    finally:
        server.kill()


def start(story: Story, server: RedisServer) -> None:
    """Start a Redis, and wait until it has read what it kept."""
    story.api.portal.call(server.start)
    story.api.portal.call(server.ready)


@contextmanager
def scene(
    folder: Path, ids: int, seconds: float, *options: str, **api: Any
) -> Generator[tuple[Story, RedisServer, Crew]]:
    """Begin a story whose book is in Redis."""
    with (
        told(folder, ids, seconds, **api) as story,
        redis_beside(story, *options) as server,
        crew_of(story) as crew,
    ):
        yield story, server, crew


def lease_s(policy: dict[str, Any]) -> float:
    """Return for how long a worker of such a policy claims an id, in s."""
    return float(2.0 + policy["query_timeout"] + policy["interval"][0])


def asks_of(story: Story, child: Child) -> list[Line]:
    """Return what a process has asked for."""
    return [line for line in each_of(story.lines(), "asks") if line.child == child.number]


def finish(story: Story, crew: Crew, policy: dict[str, Any]) -> None:
    """Let all come to its end, and each reader write down what the book knows of it already."""
    crew.finish(policy=policy)
    wait_until(lambda: not unsaid(story))


def unsaid(story: Story) -> set[str]:
    """Return the ids whose outcomes no reader has written down as read."""
    said = {line.task_id for line in story.lines() if line.what in {"acked", "handled"}}
    return set(story.task_ids) - said


def wait_for_ask(story: Story, child: Child) -> None:
    """Wait until a process asks from now on."""
    line = re.compile(rb'{"child": %d, "time": [^,]+, "what": "asks"' % child.number)

    def number() -> int:
        return len(line.findall(story.log.read_bytes()))

    asked = number()
    wait_until(lambda: number() > asked)


# One pace, and a kill.

PACED: Final = {**FAST, "interval": (3.0, 4.0), "max_rate": 200.0, "max_concurrency": 40}


def one_pace(folder: Path) -> str:
    """Let four processes ask for 2,000 ids by one pace, and kill one with claims in its hand."""
    with scene(folder, 2_000, 8.0, latency=SLOW_S) as (story, server, crew):
        story.interval_s = PACED["interval"][0]
        crew.add_all()
        workers = [crew.start("work", policy=PACED) for _ in range(4)]
        crew.start("ack")
        story.api.wait_for_queries(1_500)
        dead, moment = workers[0], time.monotonic()
        in_hand = stop_with_claims(story, server, dead)
        stopped = story.breaks[dead.number]
        story.kill(dead)
        story.breaks[dead.number] = stopped
        finish(story, crew, PACED)
        figures = check(story)
        took_s = taken_over_after_s(story, dead, in_hand)
        assert max(took_s) <= PACED["interval"][1] + lease_s(PACED) + BUSY_S
        # What was stopped to be killed is late for that.
        lines = [each for each in story.lines() if each.child != dead.number or each.time < moment]
        pace = pace_of(starts_of(lines, story.api.api.queries))
        most = (1.0 + SHARE) * PACED["max_rate"]
        assert pace.given <= most
        assert pace.earliest_s >= -SAME_S
        assert pace.arrived_in_time <= most
        return (
            f"4 workers, max_rate {PACED['max_rate']:.0f}: {pace}; one was killed with "
            f"{len(in_hand)} claims, others asked for them {min(took_s):.1f} to {max(took_s):.1f} "
            f"s later (lease {lease_s(PACED):.0f} s, pause to {PACED['interval'][1]:.0f} s); "
            f"{figures}"
        )


def stop_with_claims(story: Story, server: RedisServer, child: Child) -> list[str]:
    """Stop a process at a moment at which it has asked and brought nothing yet; return for what."""
    while True:
        wait_for_ask(story, child)
        moment = time.monotonic()
        child.signal(signal.SIGSTOP)
        time.sleep(UNDER_WAY_S)
        asks = {line.task_id: line.child for line in each_of(story.lines(), "asks")}
        last = [key for key, number in asks.items() if number == child.number][-LOOKED_AT:]
        if held := claimed_of(story, server, last):
            story.breaks[child.number] = moment
            return held
        child.signal(signal.SIGCONT)


def claimed_of(story: Story, server: RedisServer, keys: Sequence[str]) -> list[str]:
    """Return which of some ids are claimed at the moment."""
    store = new_store(server.url)

    async def look() -> list[str]:
        await store.open()
        found = [await store.find(key) for key in keys]
        await store.aclose()
        rows = [each.row for each in found if each is not None]
        return [row.key for row in rows if row.token and row.state is State.OPEN]

    return list(story.api.portal.call(look))


def taken_over_after_s(story: Story, dead: Child, keys: Sequence[str]) -> list[float]:
    """Return how long after a death others asked for what the dead had in its hand, in s."""
    died, after = story.breaks[dead.number], dict[str, float]()
    for line in each_of(story.lines(), "asks"):
        if line.time > died and line.child != dead.number:
            after.setdefault(line.task_id, line.time - died)
    return [after[key] for key in keys]


# Processes that stand still.


# A pace at which no worker leaves the others without work.
STOOD: Final = {**FASTER, "max_rate": 100.0, "max_concurrency": 20}


def stands_still(folder: Path) -> str:
    """Stop a worker and reader for twice its lease, in the middle of queries and hand-outs."""
    with scene(folder, 200, 20.0, latency=SLOW_S) as (story, server, crew):
        crew.add_all()
        stopped = crew.start("poll", "each", policy=STOOD)
        crew.start("work", policy=STOOD)
        crew.start("work", "ack", policy=STOOD)
        wait_until(lambda: has_said(story, "handled", stopped))
        held = stop_with_claims(story, server, stopped)
        time.sleep(2.0 * lease_s(STOOD))
        lines = story.lines()
        stopped.signal(signal.SIGCONT)
        wait_for_ask(story, stopped)
        finish(story, crew, FASTER)
        figures = check(story)
        meanwhile = [line for line in lines if line.time > story.breaks[stopped.number]]
        others = sum(1 for line in each_of(meanwhile, "asks") if line.child != stopped.number)
        taken = taken_over_after_s(story, stopped, held)
        assert max(taken) <= lease_s(STOOD) + STOOD["interval"][1] + BUSY_S
        return (
            f"a worker stood still for {2.0 * lease_s(STOOD):.1f} s with {len(held)} claims: "
            f"others asked {others} times meanwhile, and for those at the latest after "
            f"{max(taken):.1f} s (lease {lease_s(STOOD):.1f} s); {figures}"
        )


# A Redis that is away.


def redis_away(folder: Path, number: signal.Signals, away_s: float) -> str:
    """End Redis in the middle, by a signal, and start it again on what it has kept."""
    with scene(folder, 1_000, 15.0) as (story, server, crew):
        crew.add_all()
        workers = [crew.start("work", policy=FASTER) for _ in range(2)]
        workers.append(crew.start("poll", "ack", policy=FASTER))
        story.api.wait_for_queries(500)
        server.send(number)
        server.process.wait()
        gone = time.monotonic()
        # Nobody is killed, but what each has in its hand may be out of its lease when it is back.
        story.breaks.update({worker.number: gone for worker in workers})
        time.sleep(away_s)
        back = time.monotonic()
        start(story, server)
        for worker in workers:
            wait_for_ask(story, worker)
        finish(story, crew, FASTER)
        figures = check(story)
        asks = [line.time for line in each_of(story.lines(), "asks")]
        late = [when - gone for when in asks if gone < when < back]
        # What was claimed before may start within 2 s of its turn.
        assert max(late, default=0.0) <= 2.0
        again_s = min(when for when in asks if when > back) - back
        return (
            f"Redis was ended by {number.name} and was away for {away_s:.0f} s: {len(late)} "
            f"queries began after its end, the last {max(late, default=0.0):.2f} s later, and the "
            f"next {again_s:.1f} s after its start; {figures}"
        )


# Connections.


@contextmanager
def relay_beside(story: Story, server: RedisServer) -> Generator[Relay]:
    """Let all that is started from now on speak to Redis through what may cut and delay."""
    relay = Relay(server.port)
    with story.api.portal.wrap_async_context_manager(relay):
        story.book = relay.url
        yield relay


def cuts(folder: Path, verb: str, each: int) -> str:
    """Lose the answer to each so-manieth turn or take, which Redis has made."""
    with scene(folder, 600, 6.0) as (story, server, crew), relay_beside(story, server) as relay:
        crew.add_all()
        relay.each, relay.words = each, f"\r\n{verb}\r\n".encode()
        for roles in (("work",), ("work",), ("poll", "ack"), ("ack",)):
            crew.start(*roles, policy=FASTER)
        finish(story, crew, FASTER)
        figures = check(story)
        lost = relay.seen // each
        assert lost
        return (
            f"{lost} of {relay.seen} answers to {verb} were lost after Redis had made it; {figures}"
        )


def latency(folder: Path, rate: float, workers: int, delay_s: float = 0.3) -> str:
    """Hold each answer of Redis up, and look whether the pace is kept."""
    policy = {**FAST, "interval": (1.0, 1.5), "max_rate": rate, "max_concurrency": 100}
    span_s = 8.0
    with (
        scene(folder, int(rate * 4), 3600.0) as (story, server, crew),
        relay_beside(story, server) as relay,
    ):
        story.interval_s = 1.0
        crew.add_all()
        relay.delay_s = delay_s
        for _ in range(workers):
            crew.start("work", policy=policy)
        story.api.wait_for_queries(int(rate))
        asked, began = story.asked(), time.monotonic()
        time.sleep(span_s)
        reached = (story.asked() - asked) / (time.monotonic() - began)
        assert min(story.api.api.gaps()) >= story.interval_s
        # Without what a worker gets ahead, one alone reached 0.55 of it.
        assert (1.0 - MISSED) * rate <= reached <= (1.0 + MISSED) * rate
        return (
            f"{delay_s * 1e3:.0f} ms of latency, {workers} workers, max_rate {rate:.0f}: "
            f"{reached:.0f} queries a second"
        )


# A Redis that says no.


def upset(folder: Path) -> str:
    """Let Redis forget its scripts, be held up by one, and have no memory left, each in turn."""
    with scene(folder, 300, 12.0) as (story, server, crew):
        crew.add_all()
        workers = [crew.start(*roles, policy=FASTER) for roles in (("work",), ("poll", "ack"))]
        went_on = list[str]()
        with redis.Redis(host=HOST, port=server.port) as client:
            for trouble in (forget_scripts, hold_up, fill_up):
                story.api.wait_for_queries(story.asked() + 50)
                # What is in hand may be out of its lease when Redis is itself again.
                story.breaks.update({each.number: time.monotonic() for each in workers})
                trouble(client)
                ended = time.monotonic()
                for worker in workers:
                    wait_for_ask(story, worker)
                went_on.append(f"{trouble.__name__} {time.monotonic() - ended:.1f} s")
        finish(story, crew, FASTER)
        figures = check(story)
        return f"both workers asked again after {', '.join(went_on)}; {figures}"


def forget_scripts(client: redis.Redis) -> None:
    """NOSCRIPT."""
    client.script_flush()


def hold_up(client: redis.Redis) -> None:
    """BUSY."""
    client.config_set("busy-reply-threshold", 50)
    port = client.connection_pool.connection_kwargs["port"]
    # It would send it again by itself.
    other = redis.Redis(host=HOST, port=port, retry=Retry(NoBackoff(), 0))
    with other, ThreadPoolExecutor(1) as pool:
        spin = pool.submit(other.eval, "while true do end", 0)
        time.sleep(TROUBLE_S)
        client.script_kill()
        assert isinstance(spin.exception(), redis.ResponseError)


def fill_up(client: redis.Redis) -> None:
    """OOM."""
    client.config_set("maxmemory", 1)
    time.sleep(TROUBLE_S)
    client.config_set("maxmemory", 0)
