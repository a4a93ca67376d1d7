"""``kill -9`` at random moments, and a disk that fills up: nothing is lost, doubled or torn.

What a kill cannot be made to do on demand (a line that is cut wherever you like) is in
``test_journal.py``.
"""

from __future__ import annotations

import json
import math
import random
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs
import pytest

from kling_omni_async._cli.exit import Exit

from .support import FAST, Neighbour, finish, ids_in, neighbour, running, start
from .warm import warm

STORIES = 3  # side by side
KILLS = 10
START_S = 0.6  # from the start of the program to its first query, about
GOING_ON = "3 left; run the same command to go on"
FAST_AND_QUIET = ("--quiet", "--max-rate", "none", *FAST)

can_kill = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")


@attrs.define
class Story:
    """One journal, one simulator, and runs that are killed.

    Attributes:
        api: Answers.
        journal: The file.
        rng: Draws the moments.
        task_ids: The ids of all runs.
        running: Those whose tasks have not ended.
        ended: In which run each task ended, and how often it had been asked for then.
        settled: In which run each id came into the journal, and how often it had been asked for.
        runs: How many runs there were.
    """

    api: Neighbour
    journal: Path
    rng: random.Random
    task_ids: list[str]
    running: list[str]
    ended: dict[str, tuple[int, int]] = attrs.field(factory=dict[str, tuple[int, int]])
    settled: dict[str, tuple[int, int]] = attrs.field(factory=dict[str, tuple[int, int]])
    runs: int = 0

    @property
    def call(self) -> tuple[str, ...]:
        return ("poll", *self.task_ids, "--jsonl", str(self.journal), *FAST_AND_QUIET)

    def asked(self, task_id: str) -> int:
        return len(self.api.api.queries_of(task_id))

    def end_some(self, count: int) -> None:
        """Let tasks end, and note how often they were asked for before."""

        def end() -> None:
            for _ in range(count):
                task_id = self.running.pop()
                self.ended[task_id] = self.runs, self.asked(task_id)
                self.api.api.finish(task_id)

        self.api.portal.call(end)

    def live_a_while(self) -> None:
        """Wait for a random moment of polling."""
        for _ in range(self.rng.randint(1, 3)):
            more = self.rng.randint(1, 20)
            self.api.wait_for_queries(len(self.api.api.queries) + more)
            self.end_some(min(self.rng.randint(0, 2), len(self.running) - 1))
        time.sleep(self.rng.uniform(0.0, 0.1))

    def killed_run(self) -> None:
        """Run the program and kill it, now and then while it starts."""
        self.runs += 1
        if self.rng.random() < 0.2:
            with running(*self.call, env=self.api.env) as process:
                time.sleep(self.rng.uniform(0.0, START_S))
                process.kill()
                assert finish(process)[0] == -signal.SIGKILL
        else:
            with warm(*self.call, env=self.api.env):
                self.live_a_while()
        self.api.catch_up()  # else a last query would count as one of the next run
        self.look()

    def last_run(self) -> None:
        """Run the program to its end."""
        self.runs += 1
        self.end_some(len(self.running))
        code, stdout, stderr = finish(start(*self.call, env=self.api.env))
        notes = [line for line in stderr.splitlines() if "dropped a torn last line" not in line]
        assert (code, stdout, notes) == (Exit.NOT_ALL, "", [])
        self.look()

    def look(self) -> None:
        """Read the journal: whole lines, no id twice, and none that was asked for again."""
        whole = self.journal.read_bytes().rpartition(b"\n")[0] if self.journal.exists() else b""
        found = ids_of(whole)
        assert len(set(found)) == len(found)
        for task_id in found:
            asked = self.asked(task_id)
            assert self.settled.setdefault(task_id, (self.runs, asked)) == (
                self.settled[task_id][0],
                asked,
            )

    def surplus(self, task_id: str) -> int:
        """Count the queries behind the first that could know the task's end."""
        return self.asked(task_id) - self.ended[task_id][1] - 1

    def killed_before_settled(self, task_id: str) -> int:
        """Count the runs that may have taken an answer with them."""
        return self.settled[task_id][0] - self.ended[task_id][0]


def ids_of(lines: bytes) -> list[str]:
    """Return the id of each line; every line must be whole."""
    return [json.loads(line)["task_id"] for line in lines.splitlines()]


def tell(seed: int, folder: Path) -> None:
    """Kill the same work again and again, then let it end, and check everything."""
    rng = random.Random(seed)
    with neighbour(seed=seed) as api:
        task_ids = api.create(21, duration=math.inf)
        task_ids += api.create(3, duration=math.inf, fail="no")
        rng.shuffle(task_ids)
        story = Story(api, folder / f"{seed}.jsonl", rng, task_ids, task_ids[::-1])
        for _ in range(KILLS):
            story.killed_run()
        story.last_run()
    assert sorted(ids_in(story.journal)) == sorted(task_ids)
    assert story.journal.read_bytes().endswith(b"\n")
    for task_id in task_ids:
        assert story.surplus(task_id) <= story.killed_before_settled(task_id)


@pytest.mark.many
@can_kill
def test_kills_at_random_moments_lose_and_double_nothing(tmp_path: Path) -> None:
    """30 kills: each id is settled once, in a whole line, and never asked for after that."""
    with ThreadPoolExecutor(STORIES) as pool:
        list(pool.map(tell, range(STORIES), [tmp_path] * STORIES))


@pytest.mark.many
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits other processes")
def test_a_disk_that_fills_up_tears_a_line_that_the_next_run_mends(tmp_path: Path) -> None:
    """Half a line is on the disk: its id is pending, and the next run writes each id once."""
    import resource  # noqa: PLC0415 - Windows has none

    journal = tmp_path / "out.jsonl"
    with neighbour() as api:
        (long,) = api.create(duration=0.0, fail="x" * 500_000)  # room for what coverage writes
        task_ids = api.create(3, duration=math.inf)
        call = ("poll", long, *task_ids, "--jsonl", str(journal), *FAST_AND_QUIET)
        with running(*call, env=api.env) as process:
            while not (journal.exists() and journal.read_bytes().endswith(b"\n")):
                time.sleep(0.001)
            room = journal.stat().st_size + 100
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (room, room))
            for task_id in task_ids:
                api.portal.call(api.api.finish, task_id)
            code, _, stderr = finish(process)
        told = f"kling-omni: cannot write to {journal}: File too large\n{GOING_ON}\n"
        assert (code, stderr) == (Exit.NOT_ALL, told)
        assert journal.stat().st_size == room
        code, _, stderr = finish(start(*call, env=api.env))
    assert code == Exit.NOT_ALL
    assert stderr == f"kling-omni: dropped a torn last line of {journal} (100 bytes)\n"
    assert sorted(ids_in(journal)) == sorted([long, *task_ids])
