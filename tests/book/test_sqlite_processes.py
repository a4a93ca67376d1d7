"""Processes that share a book in a file, and die at any moment."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import TypeAlias

import pytest

from kling_omni_async._book.contract import State

from .sqlite_child import DIED
from .sqlite_support import keys, opened, outside, take

pytestmark = [pytest.mark.anyio, pytest.mark.many]

ROOT = Path(__file__).parents[2]

Child: TypeAlias = "subprocess.Popen[str]"


def start(what: str, path: Path, name: str) -> Child:
    """Start a process that uses a book."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.book.sqlite_child", what, str(path), name],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def running(what: str, path: Path, names: list[str]) -> Iterator[list[Child]]:
    """Run some, and end them at the latest afterwards."""
    children = [start(what, path, name) for name in names]
    try:
        yield children
    finally:
        for child in children:
            child.kill()
            child.communicate()


def read(child: Child, lines: int) -> list[str]:
    """Wait for some lines of a process, which must not end by itself meanwhile."""
    assert child.stdout is not None
    found = [child.stdout.readline().strip() for _ in range(lines)]
    assert all(found), child.communicate()[1]
    return found


@pytest.mark.parametrize("point", ["begun", "stepped", "committed"])
@pytest.mark.parametrize("what", ["add", "settle", "acknowledge"])
async def test_a_step_is_kept_whole_or_not_at_all(tmp_path: Path, what: str, point: str) -> None:
    """A process that dies before the commit of a step leaves nothing of it, after it all."""
    path = tmp_path / "tasks.db"
    child = start(what, path, point)
    _, errors = child.communicate(timeout=50)
    assert child.returncode == DIED, errors
    is_kept = point == "committed"
    async with opened(path) as store:
        found = {entry.row.key: entry.row.state for entry in await store.list("", 9)}
        desk, _ = await store.progress()
        if what == "add":
            assert found == ({"new": State.OPEN} if is_kept else {})
            assert desk.open == len(found)
        elif what == "settle":
            assert found == {"old": State.UNREAD if is_kept else State.OPEN}
            assert (desk.open, desk.unread) == ((0, 1) if is_kept else (1, 0))
        else:
            assert found == {"old": State.READ if is_kept else State.UNREAD}
            # It had the outcome, and is dead: it is somebody else's at once.
            again = (await store.take(take(1, reader="next"))).parcels
            assert keys(again) == ([] if is_kept else ["old"])


async def test_what_add_returned_for_is_there_after_a_kill(tmp_path: Path) -> None:
    """Four processes add to one file and are killed at random: no id that was kept is lost."""
    path, random, kept = tmp_path / "tasks.db", Random(5), set[str]()
    for attempt in range(3):
        names = [f"{attempt}-{each}" for each in range(4)]
        with running("add-for-ever", path, names) as children:
            for child in random.sample(children, 4):
                kept.update(read(child, random.randrange(1, 60)))
                child.kill()
    async with opened(path) as store:
        found = {entry.row.key for entry in await store.list("", 1_000_000)}
        assert kept <= found
        assert (await store.progress())[0].open == len(found)
    assert outside(path, "PRAGMA integrity_check") == [("ok",)]


async def test_what_was_acknowledged_does_not_come_again_after_a_kill(tmp_path: Path) -> None:
    """What was not comes to the next reader at once, and nothing is missing."""
    path, random, acknowledged = tmp_path / "tasks.db", Random(5), list[str]()
    for attempt in range(3):
        names = [f"{attempt}-{each}" for each in range(3)]
        with running("work-for-ever", path, names) as children:
            for child in random.sample(children, 3):
                acknowledged += read(child, random.randrange(1, 40))
                child.kill()
    assert len(acknowledged) == len(set(acknowledged))
    async with opened(path) as store:
        desk, _ = await store.progress()
        left = [*(await store.take(take(1, want=200))).parcels]
        assert len(left) == desk.unread
        assert not set(keys(left)) & set(acknowledged)
        states = [entry.row.state for entry in await store.list("", 1_000_000)]
        assert states.count(State.READ) >= len(acknowledged)
        assert states.count(State.UNREAD) == len(left)
        assert states.count(State.OPEN) == desk.open


def test_processes_may_make_a_book_at_the_same_time(tmp_path: Path) -> None:
    """Whoever comes first makes the tables, and all of them can use it."""
    for attempt in range(3):
        path = tmp_path / f"{attempt}.db"
        with running("open", path, ["-"] * 4) as children:
            for child in children:
                _, errors = child.communicate(timeout=50)
                assert child.returncode == 0, errors
        assert outside(path, "SELECT count(*) FROM desk") == [(1,)]


async def test_a_fork_leaves_the_book_to_its_parent(tmp_path: Path) -> None:
    """The child is refused, and its end harms nothing."""
    path = tmp_path / "tasks.db"
    child = start("fork", path, "-")
    said, errors = child.communicate(timeout=50)
    assert child.returncode == 0, errors
    assert said.splitlines() == [
        "this book was made before a fork; make one TaskBook in each process",
        "the child ended with 0",
    ]
    async with opened(path) as store:
        assert [entry.row.key for entry in await store.list("", 9)] == ["after", "before"]
