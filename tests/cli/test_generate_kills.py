"""``kill -9`` of `generate` at random moments: no prompt is billed twice, none is lost."""

from __future__ import annotations

import json
import math
import random
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs
import pytest

from kling_omni_async._cli.exit import Exit

from .support import FAST, Neighbour, finish, neighbour, start
from .warm import warm

STORIES = 2  # side by side: one where external ids are found, one where they are not
KILLS = 5
PROMPTS = 60
MOST = 6  # tasks at a time, and so creates under way
LATENCY_S = 0.02

pytestmark = [
    pytest.mark.many,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals"),
]


@attrs.define
class Story:
    """One file of prompts, one journal, one simulator, and runs that are killed.

    Attributes:
        api: Answers, and counts what is billed.
        folder: Where the files are.
        rng: Draws the moments.
        open_ones: The external ids of creates that a kill has cut off.
    """

    api: Neighbour
    folder: Path
    rng: random.Random
    open_ones: set[str] = attrs.field(factory=set[str])

    @property
    def call(self) -> tuple[str, ...]:
        files = ("--from", str(self.folder / "prompts.csv"), "--jsonl", str(self.journal))
        return ("generate", *files, "--max-tasks", str(MOST), "--quiet", *FAST)

    @property
    def journal(self) -> Path:
        return self.folder / "run.jsonl"

    def names(self) -> Counter[str | None]:
        """Count what was billed, by external id."""
        return Counter(task.external_task_id for task in self.api.api.billed)

    def finish_some(self, count: float = math.inf) -> None:
        """Let the oldest tasks end."""

        def end() -> None:
            tasks = self.api.api.billed
            for task in tasks[: int(max(0, min(count, len(tasks))))]:
                self.api.api.finish(task.task_id)

        self.api.portal.call(end)

    def killed_run(self, most: int) -> None:
        """Run the program, let tasks end, `most` in all, and kill it while it creates others."""
        with warm(*self.call, env=self.api.env):
            for _ in range(self.rng.randint(1, 3)):
                left = self.rng.randint(0, MOST - 1)
                self.finish_some(min(len(self.api.api.billed) - left, most))
                more = self.rng.randint(1, 12)
                self.api.wait_for_queries(len(self.api.api.queries) + more)
            time.sleep(self.rng.uniform(0.0, 3 * LATENCY_S))
        time.sleep(2 * LATENCY_S)  # what the simulator has taken it answers, whoever has gone
        self.look()

    def look(self) -> None:
        """Read the journal: creates that were cut off were under way, and no more than could be.

        What a run has asked for by its id was created before, and is noted as that.
        """
        open_now = {name for name, line in self.last_lines().items() if is_open(line)}
        asked = {
            task.external_task_id
            for task in self.api.api.billed
            if self.api.api.queries_of(task.task_id)
        }
        assert not open_now & asked
        assert len(open_now - self.open_ones) <= MOST
        self.open_ones |= open_now
        assert set(self.names().values()) <= {1}

    def last_lines(self) -> dict[str, dict[str, object]]:
        """Return the last whole line of each external id."""
        whole = self.journal.read_bytes().rpartition(b"\n")[0] if self.journal.exists() else b""
        lines = map(json.loads, whole.splitlines())
        return {line["external_task_id"]: line for line in lines}

    def run_to_the_end(self, *more: str) -> tuple[int, str]:
        """Run the program until nothing is left to do."""
        self.finish_some()
        code, stdout, stderr = finish(start(*self.call, *more, env=self.api.env))
        assert stdout == ""
        return code, stderr


def is_open(line: dict[str, object]) -> bool:
    """Return whether nobody knows if there is a task."""
    return line.get("intent") == "posting" or is_uncertain(line)


def is_uncertain(line: dict[str, object]) -> bool:
    """Return whether an outcome says that nobody knows."""
    error = line.get("error")
    return isinstance(error, dict) and error["type"] == "CreateUncertainError"


def write_prompts(path: Path) -> None:
    """Write prompts, of which every third stands there twice."""
    prompts = [f"a fox, view {number - (number % 3 == 2)}" for number in range(PROMPTS)]
    path.write_text("\n".join(["prompt", *(f'"{prompt}"' for prompt in prompts)]) + "\n")


def tell(seed: int, folder: Path, kills: int) -> None:
    """Kill the same work again and again, then let it end, and check everything."""
    folder = folder / str(seed)
    folder.mkdir()
    write_prompts(folder / "prompts.csv")
    ends = [math.inf]
    options = {"by_external_id": not seed % 2, "duplicates": "accepted" if seed % 2 else "refused"}
    with neighbour(seed=seed, latency=LATENCY_S, durations=lambda _: ends[0], **options) as api:
        story = Story(api, folder, random.Random(seed))
        for number in range(1, kills + 1):
            story.killed_run(PROMPTS * number // (kills + 1))  # so that none comes to its end
        ends[0] = 0.0
        code, stderr = story.run_to_the_end()
        story.look()
        last = story.last_lines()
        uncertain = {name for name, line in last.items() if is_uncertain(line)}
        # Each prompt is an outcome, and what is uncertain is listed and was cut off by a kill.
        assert len(last) == PROMPTS
        assert {name for name, line in last.items() if line.get("ok")} == last.keys() - uncertain
        assert uncertain <= story.open_ones
        assert {line.split()[0] for line in stderr.splitlines() if line[:2] == "  "} == uncertain
        assert code == (Exit.NOT_ALL if uncertain else Exit.OK)
        billed = story.names()
        assert billed.keys() >= last.keys() - uncertain
        code, stderr = story.run_to_the_end("--retry-uncertain")
        assert (code, stderr) == (Exit.OK, "")
        last, again = story.last_lines(), story.names()
        assert all(line["ok"] for line in last.values())
        # Only what the user has let be created again may be billed again.
        assert {name for name, count in again.items() if count > 1} <= uncertain
        assert again.keys() == last.keys()


def test_kills_at_random_moments_bill_nothing_twice(tmp_path: Path) -> None:
    """Each prompt is billed once; what is uncertain was under way at a kill, and is brought."""
    with ThreadPoolExecutor(STORIES) as pool:
        list(pool.map(tell, range(STORIES), [tmp_path] * STORIES, [KILLS] * STORIES))
