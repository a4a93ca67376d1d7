"""Processes on one book: killed, and side by side; each outcome comes out."""

from __future__ import annotations

import math
import random
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from kling_omni_async._cli.exit import Exit

from .books import beside, counts_of, make_book
from .support import Neighbour, finish, ids_in, running, start
from .warm import warm

# A claim of a process that is dead is free when its lease is over: 2 s, the time-out, and a pause.
FAST_BOOK = ("--interval", "0.2", "0.3", "--query-timeout", "500ms", "--max-rate", "none", "-q")
# Where each id is asked for once, however slow the machine is.
PATIENT_BOOK = ("--interval", "0.2", "0.3", "--query-timeout", "30s", "--max-rate", "none", "-q")
LOW_S = 0.2
KILLS = 5

pytestmark = [
    pytest.mark.many,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals"),
]


def end_some(api: Neighbour, running: list[str], count: int) -> None:
    """Let tasks end."""
    for _ in range(min(count, len(running))):
        api.portal.call(api.api.finish, running.pop())


def test_a_worker_that_is_killed_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """Whoever goes on hands out each outcome once, and asks for no ended task again."""
    path, rng = tmp_path / "tasks.db", random.Random(0)
    with beside() as api:
        task_ids = api.create(30, duration=math.inf)
        make_book(path, *task_ids)
        left = task_ids[::-1]
        for _ in range(KILLS):
            with warm("work", str(path), *FAST_BOOK, env=api.env):
                api.wait_for_queries(len(api.api.queries) + rng.randint(1, 40))
                end_some(api, left, 3)
                api.wait_for_queries(len(api.api.queries) + rng.randint(1, 40))
        end_some(api, left, len(left))
        code, stdout, _ = finish(start("poll", "--book", str(path), *FAST_BOOK, env=api.env))
        assert code == Exit.OK
        came = Counter(line.split("\t")[0] for line in stdout.splitlines())
        assert came == Counter(task_ids)
        assert min(api.api.gaps()) >= LOW_S
        code, stdout, _ = finish(start("poll", "--book", str(path), *FAST_BOOK, env=api.env))
        assert (code, stdout) == (Exit.OK, "")


def test_a_reader_that_is_killed_repeats_what_it_had_in_hand(tmp_path: Path) -> None:
    """Every outcome is written, and a kill writes one of them again at most."""
    path, journal, rng = tmp_path / "tasks.db", tmp_path / "run.jsonl", random.Random(1)
    call = ("poll", "--book", str(path), "--jsonl", str(journal), *PATIENT_BOOK)
    with beside() as api:
        task_ids = api.create(60, duration=0.0)
        make_book(path, *task_ids)
        assert finish(start("work", str(path), "--until-empty", *PATIENT_BOOK, env=api.env))[0] == 0
        for _ in range(KILLS):
            with warm(*call, env=api.env):
                wait_for_lines(journal, lines_in(journal) + rng.randint(1, 4))
        code, stdout, _ = finish(start(*call, env=api.env))
        assert (code, stdout) == (Exit.OK, "")
        came = Counter(ids_in(journal))
        assert came.keys() == set(task_ids)
        assert came.total() <= len(task_ids) + KILLS
        assert len(api.api.queries) == len(task_ids)


def lines_in(journal: Path) -> int:
    """Return how many whole lines there are."""
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def wait_for_lines(journal: Path, count: int) -> None:
    """Wait until there are so many lines."""
    while lines_in(journal) < count:
        time.sleep(0.001)


def test_two_workers_and_two_readers_share_a_book(tmp_path: Path) -> None:
    """Of four processes on one file one hands out each id, once, and no pause is shorter."""
    path = tmp_path / "tasks.db"
    with beside() as api:
        task_ids = api.create(40, duration=math.inf)
        make_book(path, *task_ids)
        work = ("work", str(path), *FAST_BOOK)
        with running(*work, env=api.env) as one, running(*work, env=api.env) as two:
            call = ("poll", "--book", str(path), *FAST_BOOK)
            readers = [start(*call, env=api.env), start(*call, env=api.env)]
            api.wait_for_queries(3 * len(task_ids))
            end_some(api, task_ids[::-1], len(task_ids))
            said = [finish(reader) for reader in readers]
            for worker in (one, two):
                worker.terminate()
                code, stdout, stderr = finish(worker)
                assert (code, stdout) == (Exit.INTERRUPTED, "")
                assert stderr == "kling-omni: interrupted\n"
        assert [code for code, *_ in said] == [Exit.OK, Exit.OK]
        lines = [line for _, stdout, _ in said for line in stdout.splitlines()]
        assert Counter(line.split("\t")[0] for line in lines) == Counter(task_ids)
        assert min(api.api.gaps()) >= LOW_S
        assert counts_of(path).unread == 0
