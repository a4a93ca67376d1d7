"""Stories of a Redis that fails over to a replica, or whose clock is set."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import shutil
import subprocess
import time
from collections import defaultdict
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Final

import redis

from kling_omni_async import TaskBook
from tests.book.child import Line, each_of
from tests.book.crew import FASTER, Crew, crew_of, told
from tests.book.kills import Story, _check_ends, _check_that_none_failed, check
from tests.faults.processes import HOST

from .server import RedisServer
from .stories import BUSY_S, finish, lease_s, redis_beside, relay_beside, wait_for_ask

LOST_S: Final = 1.0
LATE: Final = 10
"""How many ids are added in the second that is lost."""


def fails_over(folder: Path) -> str:
    """Lose the last second of a Redis: its replica was cut off, and takes its place."""
    with (
        told(folder, 300, 10.0) as story,
        redis_beside(story, name="replica") as replica,
        redis_beside(story) as server,
        relay_beside(story, server) as relay,
        crew_of(story) as crew,
    ):
        early, late = story.task_ids[:-LATE], story.task_ids[-LATE:]
        ask(replica, "REPLICAOF", HOST, server.port)
        assert crew.start("add", batch=500, ids=tuple(early)).finish() == 0
        workers = [crew.start(*roles, policy=FASTER) for roles in (("work",), ("poll", "ack"))]
        crew.start("ack")
        story.api.wait_for_queries(300)
        cut_off = time.monotonic()
        assert ask(server, "WAIT", 1, 5_000) == 1
        ask(replica, "REPLICAOF", HOST, 1)  # where nobody is: it keeps what it has
        assert all(story.api.portal.call(add, story.book, late))
        time.sleep(LOST_S)
        server.kill()
        gone = time.monotonic()
        ask(replica, "REPLICAOF", "NO", "ONE")
        story.api.portal.call(relay.switch, replica.port)
        again = story.api.portal.call(add, story.book, late)
        assert all(again)
        for worker in workers:
            wait_for_ask(story, worker)
        crew.finish(policy=FASTER)
        lines = story.lines()
        _check_that_none_failed(lines, story)
        _check_ends(lines, story)
        twice = came_again(lines, cut_off, gone)
        early_asks = too_early(story, lines, cut_off, gone)
        return (
            f"failover to a replica that lacked the last {gone - cut_off:.1f} s: {len(again)} ids "
            f"of that time were new again when they were added again, {twice} of {len(early)} "
            f"outcomes came again that were acknowledged in it, {early_asks} queries came within "
            "the shortest pause, each after one whose claim was lost"
        )


def ask(server: RedisServer, *words: object) -> object:
    """Send Redis a command."""
    with redis.Redis(host=HOST, port=server.port, socket_timeout=10.0) as client:
        return client.execute_command(*words)


async def add(url: str, ids: Sequence[str]) -> list[bool]:
    """Add ids to a book; return which of them were new."""
    async with TaskBook(url) as book:
        return [await book.add(task_id, note={"of": task_id}) for task_id in ids]


def came_again(lines: list[Line], since: float, until: float) -> int:
    """Count the outcomes that came after they were acknowledged: all were so in the lost time."""
    acked, again = dict[str, float](), 0
    for line in lines:
        if line.what == "acked":
            acked[line.task_id] = line.time
        elif line.what == "got" and line.task_id in acked:
            assert since <= acked.pop(line.task_id) <= until + BUSY_S
            again += 1
    return again


def too_early(story: Story, lines: list[Line], since: float, until: float) -> int:
    """Count the queries within the shortest pause: the one before each was claimed in a time.

    A claim is sent for at most 0.2 s before it starts, and may be brought back a lease later.
    """
    asked = defaultdict[str, list[float]](list)
    for line in each_of(lines, "asks"):
        asked[line.task_id].append(line.time)
    number = 0
    for task_id, times in asked.items():
        for before, after in pairwise(sorted(times)):
            if after - before < story.interval_s:
                assert since - lease_s(FASTER) <= before <= until + BUSY_S, task_id
                number += 1
    return number


# Clocks that are set.

COMPILER: Final = shutil.which("cc")
SET_BY_S: Final = 600
PAUSED: Final = {**FASTER, "interval": (2.0, 3.0)}


@contextmanager
def with_a_clock(story: Story) -> Generator[Path]:
    """Keep the book in a Redis whose clock is set by a file.

    Debian's libfaketime does not do: it and the allocator of Redis wait for each other.
    """
    clock, library = story.folder / "clock", story.folder / "clock.so"
    clock.write_text("0")
    assert COMPILER is not None
    source = Path(__file__).with_name("clock.c")
    command = [COMPILER, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    environment = {"LD_PRELOAD": str(library), "CLOCK_FILE": str(clock)}
    with redis_beside(story, environment=environment) as server:
        assert abs(clock_of(server) - time.time()) < SET_BY_S / 2
        clock.write_text(str(SET_BY_S))
        assert clock_of(server) - time.time() > SET_BY_S / 2  # it works
        clock.write_text("0")
        yield clock


def clock_of(server: RedisServer) -> int:
    """Return the time of Redis, in s."""
    found = ask(server, "TIME")
    assert isinstance(found, tuple | list)
    return int(found[0])


def clock_is_set(folder: Path, by_s: int) -> str:
    """Set the clock of Redis, back or forward, while processes work."""
    with (
        told(folder, 300, 12.0) as story,
        with_a_clock(story) as clock,
        crew_of(story) as crew,
    ):
        story.interval_s = PAUSED["interval"][0]
        crew.add_all()
        workers = [crew.start(*roles, policy=PAUSED) for roles in (("work",), ("poll", "ack"))]
        story.api.wait_for_queries(300)
        moment = time.monotonic()
        clock.write_text(str(by_s))
        for worker in workers:
            wait_for_ask(story, worker)
        went_on_s = time.monotonic() - moment
        return f"the clock of Redis was set by {by_s:+} s: both workers asked again within " + (
            f"{went_on_s:.1f} s; " + set_back(story, crew)
            if by_s < 0
            else f"{went_on_s:.1f} s; " + set_forward(story, crew, moment)
        )


def set_back(story: Story, crew: Crew) -> str:
    """Finish, and check that nothing has changed for anybody."""
    finish(story, crew, PAUSED)
    return str(check(story))


def set_forward(story: Story, crew: Crew, moment: float) -> str:
    """Finish, and check that one pause of an id was cut short at most, and nothing was lost."""
    finish(story, crew, PAUSED)
    lines = story.lines()
    _check_that_none_failed(lines, story)
    _check_ends(lines, story)
    assert came_again(lines, moment, moment) == 0
    short = defaultdict[str, int](int)
    for line in (line for line in each_of(lines, "asks") if line.time > moment - story.interval_s):
        gaps = story.api.api.gaps(line.task_id)
        short[line.task_id] = sum(1 for gap in gaps if gap < story.interval_s)
    assert max(short.values()) <= 1
    assert sum(short.values()) >= 1  # else nothing was seen of it
    return f"{sum(short.values())} ids were asked once within the shortest pause"
