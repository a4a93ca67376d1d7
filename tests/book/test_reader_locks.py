"""By what a reader shows that its process lives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kling_omni_async._book import reader_locks
from kling_omni_async._book.contract import Member
from kling_omni_async._book.memory import READER_S
from kling_omni_async._book.reader_locks import ReaderLocks, ReaderSilence, lives_of

READER = Member("reader", "reader", 1, 100.0)

IN_ANOTHER_PROCESS = """
import sys
from pathlib import Path
from kling_omni_async._book.reader_locks import ReaderLocks
from kling_omni_async._book.contract import Member
locks = ReaderLocks(Path(sys.argv[1]))
print(locks.is_gone(Member("reader", "reader", 1, 0.0), 0.0), flush=True)
locks.hold("theirs")
print("held", flush=True)
input()
print(locks.is_gone(Member("reader", "reader", 1, 0.0), 0.0), flush=True)
input()
"""


def gone(locks: ReaderLocks, name: str = "reader") -> bool:
    """Ask whether a reader has gone."""
    return locks.is_gone(Member(name, "reader", 1, 0.0), 1e9)


def test_readers_of_one_process_see_each_other(tmp_path: Path) -> None:
    """A reader lives until its own book object says otherwise, and for no other one."""
    path = tmp_path / "tasks.db-readers"
    one, two = ReaderLocks(path), ReaderLocks(path)
    one.hold("reader")
    one.hold("reader")
    assert not gone(two)
    two.hold("other")
    two.release("reader")  # not its own
    assert not gone(two)
    two.close()
    assert gone(one, "other")
    assert not gone(one)
    one.release("reader")
    assert gone(one)
    fd = one._current().fd
    one.close()
    one.close()
    assert reader_locks._files == {}
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_all_locks_move_to_the_file_that_takes_the_place(tmp_path: Path) -> None:
    """Where somebody tidies the file away, readers are as alive as before."""
    path = tmp_path / "tasks.db-readers"
    one, two = ReaderLocks(path), ReaderLocks(path)
    one.hold("one")
    two.hold("two")
    path.unlink()
    one.hold("one")
    assert not gone(two, "one")
    assert not gone(one, "two")
    one.close()
    two.close()
    assert reader_locks._files == {}


def test_a_fork_holds_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process has locked its child does not count as its own."""
    path = tmp_path / "tasks.db-readers"
    parent = ReaderLocks(path)
    parent.hold("reader")
    with monkeypatch.context() as patch:
        patch.setattr("os.getpid", lambda: -1)
        child = ReaderLocks(path)
        child.hold("child")
        assert "reader" not in reader_locks._files[child._current().inode].names
        child.close()
    parent.close()
    assert reader_locks._files == {}


def test_silence_tells_where_there_are_no_locks() -> None:
    """A reader that was not heard of for long has gone; nothing is held for it."""
    silence = ReaderSilence()
    silence.hold("reader")
    assert not silence.is_gone(READER, 100.0 + READER_S)
    assert silence.is_gone(READER, 100.1 + READER_S)
    silence.release("reader")
    silence.close()


def test_locks_lie_beside_the_book(tmp_path: Path) -> None:
    """Nothing is locked in the file that SQLite locks."""
    lives = lives_of(tmp_path / "tasks.db")
    lives.hold("reader")
    assert [path.name for path in tmp_path.iterdir()] == ["tasks.db-readers"]
    lives.close()


@pytest.mark.heavy
def test_a_reader_of_another_process_lives_as_long_as_that(tmp_path: Path) -> None:
    """It sees ours, we see its, and its own is free the moment that it dies."""
    path = tmp_path / "tasks.db-readers"
    locks = ReaderLocks(path)
    locks.hold("reader")
    with subprocess.Popen(
        [sys.executable, "-c", IN_ANOTHER_PROCESS, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "False\n"
        assert other.stdout.readline() == "held\n"
        assert not gone(locks, "theirs")
        with pytest.raises(OSError, match=r"unavailable|denied"):
            locks.hold("theirs")
        path.unlink()
        locks.hold("reader")  # its next step shows it in the new file, too
        assert other.stdin is not None
        other.stdin.write("\n")
        other.stdin.flush()
        assert other.stdout.readline() == "False\n"
        assert not gone(locks, "theirs")
        other.kill()
        other.wait()
        assert gone(locks, "theirs")
    locks.close()
