"""The journal: what is written, read again, cut off and refused."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kling_omni_async import (
    KlingOmniError,
    NoImagesError,
    PollTimeoutError,
    TaskFailedError,
    TaskNotFoundError,
    TaskOutcome,
    TransportError,
)
from kling_omni_async._cli import results
from kling_omni_async._cli.exit import Exit, OutputError, UsageError
from kling_omni_async._cli.report import Kind
from kling_omni_async._cli.results import Journal, read_outcomes

from .support import ids_in, success, trouble


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Name a file that is not there yet."""
    return tmp_path / "out.jsonl"


def write(path: Path, *outcomes: TaskOutcome) -> bytes:
    """Append outcomes and give the whole file."""
    with Journal(str(path)) as journal:
        for outcome in outcomes:
            journal.write(outcome)
    return path.read_bytes()


def settled_in(path: Path) -> dict[str, Kind]:
    """Read the journal back."""
    with Journal(str(path)) as journal:
        return journal.settled


def no_sync(_: int) -> None:
    """Save some ms, hundreds of times."""


def test_writes_one_line_an_outcome(path: Path) -> None:
    """Each line is the JSON of `TaskOutcome.to_dict`."""
    outcomes = [success("a"), trouble(TaskFailedError("no"), "b")]
    lines = write(path, *outcomes).splitlines()
    assert [json.loads(line) for line in lines] == [each.to_dict() for each in outcomes]


def test_writes_each_line_by_one_call(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill between two system calls leaves whole lines only."""
    written: list[bytes] = []

    def take(_: int, data: bytes) -> int:
        written.append(data)
        return len(data)

    with Journal(str(path)) as journal, monkeypatch.context() as patched:
        patched.setattr(os, "write", take)
        journal.write(success("a"))
    assert [line[-1:] for line in written] == [b"\n"]


def test_goes_on_after_a_short_write(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the system did not take at once is written by a second call."""
    real = os.write

    def take_a_part(fd: int, data: bytes) -> int:
        return real(fd, data[:100])

    with Journal(str(path)) as journal, monkeypatch.context() as patched:
        patched.setattr(os, "write", take_a_part)
        journal.write(success("a"))
    assert ids_in(path) == ["a"]


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        (success("a"), Kind.SUCCEEDED),
        (trouble(TaskFailedError("no")), Kind.FAILED),
        (trouble(TaskNotFoundError("?")), Kind.NOT_FOUND),
        (trouble(NoImagesError("none")), None),
        (trouble(PollTimeoutError("late")), None),
        (trouble(TransportError("reset")), None),
        (trouble(KlingOmniError("of tomorrow")), None),
    ],
)
def test_only_the_apis_own_endings_settle_an_id(
    outcome: TaskOutcome, kind: Kind | None, path: Path
) -> None:
    """Succeeded, failed and not found are settled; everything else is polled again."""
    write(path, outcome)
    assert settled_in(path) == ({"a": kind} if kind else {})


def test_the_last_line_of_an_id_counts(path: Path) -> None:
    """A later outcome replaces an earlier one, whichever is the better."""
    late = PollTimeoutError("late")
    write(path, trouble(late, "a"), success("a"), success("b"), trouble(late, "b"))
    assert settled_in(path) == {"a": Kind.SUCCEEDED}


def test_a_new_journal_is_empty(path: Path) -> None:
    """Nothing is settled by a file that was not there."""
    assert settled_in(path) == {}
    assert path.read_bytes() == b""


def test_blank_lines_do_no_harm(path: Path) -> None:
    """A blank line left by an editor is passed over and kept."""
    content = write(path, success("a")) + b"\n \n"
    path.write_bytes(content)
    assert list(settled_in(path)) == ["a"]
    assert path.read_bytes() == content


@pytest.mark.parametrize("before", [(), (success("a"),)])
def test_drops_a_torn_line_wherever_it_is_cut(
    before: tuple[TaskOutcome, ...], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever bytes of the last line reached the disk, the lines before are all that stays."""
    whole = write(path, *before)
    torn = write(path, success("b"))[len(whole) :]
    monkeypatch.setattr(os, "fsync", no_sync)
    for length in range(1, len(torn)):
        path.write_bytes(whole + torn[:length])
        with Journal(str(path)) as journal:
            assert journal.torn == length
            assert list(journal.settled) == [each.task_id for each in before]
        assert path.read_bytes() == whole


@pytest.mark.parametrize("rest", [b"\0\0\0\0", b'{"task_id": "b"\0\0', b"\xff\xfe", b"[1"])
def test_drops_any_unfinished_rest_behind_its_own_lines(rest: bytes, path: Path) -> None:
    """Zeros and the like, as a crash of the system leaves them, are dropped too."""
    whole = write(path, success("a"))
    path.write_bytes(whole + rest)
    assert list(settled_in(path)) == ["a"]
    assert path.read_bytes() == whole


def test_drops_a_torn_line_that_has_its_end(path: Path) -> None:
    """A last line with a line break is torn if it begins like ours and is no JSON."""
    whole = write(path, success("a"))
    path.write_bytes(whole + b'{"task_id": "b", "ok": tr\n')
    assert list(settled_in(path)) == ["a"]
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "content",
    [
        b"hello\n",
        b"hello",
        b"123456789012345678",
        b"id,status\n1,ok\n",
        b'{"task_id": "a"}\n',
        b'{"task_id": "a"}',
        b'{"id": 1}\n',
        b'{"id": 1',
        b"[]\n",
        b"5\n",
        b"null\n",
        b"[" * 100_000 + b"\n",
        b"\0\0\0\0",
        b"\x89PNG\r\n\x1a\n\0\0",
        b'{"task_id": "a", "ok": tr\n{"task_id": "b", "ok": tr\n',
    ],
)
def test_refuses_files_of_another_format_untouched(content: bytes, path: Path) -> None:
    """A file that this program did not write stays as it is."""
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"line 1 is not an outcome of this program"):
        Journal(str(path))
    assert path.read_bytes() == content


@pytest.mark.parametrize("line", [b"hello\n", b'{"id": 1}\n', b'{"task_id": "b"}\n'])
def test_refuses_a_foreign_line_behind_its_own(line: bytes, path: Path) -> None:
    """A whole foreign line is never dropped, nor what stands behind it."""
    content = write(path, success("a")) + line
    for more in (b"", b'{"task_id": "c'):
        path.write_bytes(content + more)
        with pytest.raises(UsageError, match="line 2"):
            Journal(str(path))
        assert path.read_bytes() == content + more


def test_a_reader_takes_every_whole_line(path: Path) -> None:
    """All outcomes come in order, repeats too; a torn last line is passed over and kept."""
    content = write(path, success("a"), success("b"), success("a")) + b'\n{"task_id": "c'
    path.write_bytes(content)
    assert [outcome.task_id for outcome in read_outcomes(path)] == ["a", "b", "a"]
    assert path.read_bytes() == content


def test_a_reader_needs_no_lock(path: Path) -> None:
    """A journal that is being written can be read, as far as it went at the start."""
    with Journal(str(path)) as journal:
        journal.write(success("a"))
        outcomes = read_outcomes(path)
        first = next(outcomes)
        journal.write(success("b"))
        assert [first, *outcomes] == [success("a")]


def test_a_reader_refuses_a_file_of_another_format(path: Path) -> None:
    """The error names the file and the line."""
    path.write_bytes(write(path, success("a")) + b"hello\n")
    with pytest.raises(UsageError, match=r"out\.jsonl is left as it is: line 2 is not an outcome"):
        list(read_outcomes(path))


@given(task_id=st.text(), reason=st.text())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_makes_one_line_of_printable_ascii(
    task_id: str, reason: str, tmp_path: Path
) -> None:
    """No id and no reason can break a line, steer a terminal or fail to be written."""
    path = tmp_path / "any.jsonl"
    path.unlink(missing_ok=True)
    written = write(path, trouble(TaskFailedError(reason), task_id))
    assert all(0x20 <= byte < 0x7F for byte in written[:-1])
    assert written.endswith(b"\n")
    assert settled_in(path) == {task_id: Kind.FAILED}


def test_refuses_a_journal_in_use(path: Path) -> None:
    """Two processes never write to the same journal, and the lock ends with its holder."""
    with Journal(str(path)), pytest.raises(UsageError, match="in use by another process"):
        Journal(str(path))
    assert settled_in(path) == {}


def test_says_that_a_lock_cannot_be_had(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without locks is one clear line."""

    def refuse(_: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(results, "lock", refuse)
    with pytest.raises(OutputError, match="No locks available") as caught:
        Journal(str(path))
    assert caught.value.code == Exit.USAGE


@pytest.mark.parametrize("name", ["", "no/such/folder/out.jsonl"])
def test_says_that_a_journal_cannot_be_opened(name: str, tmp_path: Path) -> None:
    """A folder and a missing folder are one clear line each."""
    with pytest.raises(OutputError, match="cannot write to") as caught:
        Journal(str(tmp_path / name))
    assert caught.value.code == Exit.USAGE


def test_syncs_at_most_once_a_second_and_at_the_end(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A burst of outcomes costs one sync a second, and closing brings the rest to the disk."""
    now, synced = 0.0, list[float]()

    def sync(_: int) -> None:
        synced.append(now)

    monkeypatch.setattr(os, "fsync", sync)
    with Journal(str(path), clock=lambda: now) as journal:
        for tenth in range(25):
            now = tenth / 10
            journal.write(success(str(tenth)))
    assert synced == [1.0, 2.0, 2.4]


def test_closing_tells_of_lost_writes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that comes up at the last sync is not passed over."""

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError, match="Input/output error") as caught, Journal(str(path)):
        pass
    assert caught.value.code == Exit.NOT_ALL


def test_a_full_disk_is_told_at_once() -> None:
    """The outcome that finds no room raises, so that its id stays pending."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with (
        Journal("/dev/full") as journal,
        pytest.raises(OutputError, match="No space left on device"),
    ):
        journal.write(success("a"))


def test_a_pipe_is_written_but_not_read(tmp_path: Path) -> None:
    """What is no regular file has no lines to read again, no lock and no sync."""
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with Journal(str(fifo)) as journal:
            journal.write(success("a"))
            assert json.loads(os.read(reader, 65536))["task_id"] == "a"
    finally:
        os.close(reader)
