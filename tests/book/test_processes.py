"""Processes that share a book and stand still, die with the gate in hand, or have a wrong key."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import signal
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from kling_omni_async.simulator import SimulatedCometAPI

from .child import FAST, LEASE_S, LIMIT, Child, each_of, wait_until
from .crew import FASTER, MANY, Crew, crew_of, has_said, told
from .kills import Story, check
from .two_accounts import one_address

pytestmark = [
    pytest.mark.many,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals"),
]

STANDS_S = LEASE_S - FAST["query_timeout"] + 1.0 + 0.7
"""Longer than a lease of such a worker, in s."""


def stop_between_commits(story: Story, child: Child) -> None:
    """Stop a process where it has no transaction open: else all others would wait for it."""
    while True:
        story.breaks[child.number] = time.monotonic()
        child.signal(signal.SIGSTOP)
        with closing(sqlite3.connect(story.folder / "tasks.db", timeout=1.0)) as db:
            try:
                db.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                child.signal(signal.SIGCONT)
            else:
                return
        time.sleep(0.05)


def end_all(story: Story, crew: Crew) -> None:
    """Let all ids come to their ends, and read none."""
    worker = crew.start("work")
    wait_until(lambda: not number_open(story.folder))
    worker.kill()


def number_open(folder: Path) -> int:
    """Count the ids that are polled."""
    with closing(sqlite3.connect(folder / "tasks.db")) as db:
        number: int = db.execute("SELECT count(*) FROM entries WHERE state = 'open'").fetchone()[0]
        return number


def test_processes_that_stand_still_for_longer_than_their_leases(tmp_path: Path) -> None:
    """2,000 ids, four processes: one is stopped, one has a blocked loop, and nothing is amiss.

    The one is stopped while it polls, saves nothing and hands out; the other stands still between
    its claims and their starts. What they had, others ask for when the leases are over, and when
    they go on they start none of it.
    """
    with told(tmp_path, 2_000, 6.0) as story, crew_of(story) as crew:
        crew.add_all()
        blocked = crew.start("work", policy=FASTER, blocks_s=STANDS_S)
        stopped = crew.start("poll", "each", policy=FASTER)
        crew.start("work", "ack", policy=FASTER)
        crew.start("poll", "each", policy=FASTER, limit=MANY)
        wait_until(lambda: has_said(story, "handled", stopped))
        stop_between_commits(story, stopped)
        wait_until(lambda: has_said(story, "blocks"))
        time.sleep(STANDS_S)
        stopped.signal(signal.SIGCONT)
        went_on = time.monotonic()
        wait_until(lambda: has_said(story, "goes on"))
        crew.finish(policy=FASTER)
        lines = story.lines()
        check(story)
        meanwhile = [line for line in lines if story.breaks[stopped.number] < line.time < went_on]
        assert len({line.child for line in each_of(meanwhile, "asks")}) >= 2
        (blocks,) = each_of(lines, "blocks")
        (goes_on,) = each_of(lines, "goes on")
        asked = [line for line in each_of(lines, "asks") if line.child == blocked.number]
        # Of what it had claimed it asked for nothing until it had claimed it anew.
        asked = list(each_of(lines, "asks"))
        assert not [
            line
            for line in asked
            if line.child == blocked.number and blocks.time < line.time <= goes_on.time
        ]
        later = {line.task_id for line in asked if line.time > blocks.time}
        assert set(blocks.extra) <= later


def test_a_prober_that_is_killed_under_a_closed_gate(tmp_path: Path) -> None:
    """After a 429 one query goes first; its process dies with it, and a while later another goes.

    Nobody else asks meanwhile. The next probe opens the gate for all.
    """
    with told(tmp_path, 40, 0.0) as story, crew_of(story) as crew:
        crew.add_all()
        api = story.api
        api.fail_next(retry_after=1, times=None)
        workers = [crew.start("work", policy=FASTER) for _ in range(3)]
        api.wait_for_queries(1)
        wait_until(lambda: api.api.queries[-1].finished is not None)
        time.sleep(0.5)  # those that were under way
        asked = story.asked()
        api.portal.call(api.api.clear_faults)
        api.fail_next(hang=True)
        api.wait_for_queries(asked + 1)
        wait_until(lambda: said_by_asks(story) == asked + 1)
        probe = api.api.queries[-1]
        prober = [line.child for line in each_of(story.lines(), "asks")][-1]
        for worker in workers:
            if worker.number == prober:
                story.kill(worker)
        api.wait_for_queries(asked + 2)
        next_probe = api.api.queries[asked + 1]
        # It is void after 2 s + the time of a query + 1 s, from a turn at most 0.2 s before it.
        assert next_probe.started - probe.started >= 2.0 + FASTER["query_timeout"] + 1.0 - 0.2
        crew.finish(policy=FASTER)
        assert story.api.api.queries[asked + 2].started >= (next_probe.finished or 0.0)
        story.faulty |= set(story.task_ids)  # each may have met the 429
        check(story)


def said_by_asks(story: Story) -> int:
    """Count the queries that processes have written down."""
    return sum(1 for _ in each_of(story.lines(), "asks"))


def test_a_key_of_another_account_ends_its_process_alone(tmp_path: Path) -> None:
    """To it all ids are unknown: none of them ends, and the others go on."""
    with told(tmp_path, 60, 10.0) as story, crew_of(story) as crew:
        portal = story.api.portal
        other = SimulatedCometAPI(api_key="sk-other")
        with (
            portal.wrap_async_context_manager(other),
            portal.wrap_async_context_manager(one_address(story.api.api, other)) as address,
        ):
            options = {"policy": FASTER, "base_url": address}
            crew.add_all()
            for _ in range(3):
                crew.start("work", **options)
            story.api.wait_for_queries(30)
            stranger = crew.start("work", api_key=other.api_key, **options)
            assert stranger.finish() == 3
            (raised,) = each_of(story.lines(), "raised")
            assert raised.child == stranger.number
            assert "of another account" in raised.extra
            assert 1 <= len(other.queries) <= FASTER["max_concurrency"]
            crew.finish(**options)
        story.strangers.add(stranger.number)
        check(story)


def test_an_outcome_that_kills_whoever_handles_it(tmp_path: Path) -> None:
    """It comes to each process that is started again, and others pass by meanwhile."""
    with told(tmp_path, 20, 0.0) as story, crew_of(story) as crew:
        crew.add_all()
        end_all(story, crew)
        first = crew.start("poll", "each", limit=1, poison="die")
        assert first.finish() == -signal.SIGKILL
        (poison,) = each_of(story.lines(), "got")
        second = crew.start("poll", "each", limit=1, poison="die", poisoned=poison.task_id)
        assert second.finish() == -signal.SIGKILL
        crew.finish()
        lines = story.lines()
        got = [line for line in each_of(lines, "got") if line.task_id == poison.task_id]
        assert [line.child for line in got] == [first.number, second.number, story.number]
        assert [line.extra["deliveries"] for line in got] == [1, 2, 3]
        assert any(line.child == second.number for line in each_of(lines, "handled"))
        check(story)


def test_a_reader_that_is_killed_and_started_again(tmp_path: Path) -> None:
    """What it had comes to the next one 1 s after it was handed out, and no heartbeat later."""
    with told(tmp_path, 20, 0.0) as story, crew_of(story) as crew:
        crew.add_all()
        end_all(story, crew)
        reader = crew.start("each", poison="hang")
        wait_until(lambda: len(list(each_of(story.lines(), "got"))) == LIMIT)
        story.kill(reader)
        crew.finish()
        lines = story.lines()
        had = {line.task_id: line for line in each_of(lines, "got") if line.child == reader.number}
        (opened,) = [line for line in each_of(lines, "open") if line.child == story.number]
        for line in each_of(lines, "got"):
            if line.child != reader.number and line.task_id in had:
                since = line.time - max(had[line.task_id].time + 1.0, opened.time)
                assert since < 5.0  # it takes some ms, but on a busy machine
                assert line.extra["deliveries"] == 2
        check(story)
