"""The journal: what is written, read again, cut off and refused."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kling_omni_async import (
    KlingOmniError,
    NoImagesError,
    PollTimeoutError,
    SavedImage,
    TaskFailedError,
    TaskNotFoundError,
    TaskOutcome,
    TaskStatus,
    TransportError,
)
from kling_omni_async._cli import locked_file
from kling_omni_async._cli.exit import Exit, OutputError, UsageError
from kling_omni_async._cli.journal import Entry, Journal, read_outcomes
from kling_omni_async._cli.report import Kind, reason_of

from .support import ids_in, success, trouble

SAVED = SavedImage(
    key="a-0.png", url="https://images.test/1.png", size=1, sha256="", content_type="image/png"
)


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
        return {task_id: earlier.kind for task_id, earlier in journal.settled.items()}


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
    real = os.write

    def take(fd: int, data: bytes) -> int:
        written.append(data)
        return real(fd, data)

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


def test_what_has_no_id_settles_none(path: Path) -> None:
    """The outcome of an order that was not created names no task: other ids are polled."""
    write(path, trouble(TaskFailedError("no faces"), ""))
    assert settled_in(path) == {}


def test_keeps_why_an_id_has_failed(path: Path) -> None:
    """A later run shows the reasons, not where they stand."""
    write(path, trouble(TaskFailedError("no faces"), "a"), trouble(TaskNotFoundError("?"), "b"))
    with Journal(str(path)) as journal:
        reasons = {task_id: each.reason for task_id, each in journal.settled.items()}
    assert reasons == {"a": "no faces", "b": reason_of(TaskNotFoundError("?"))}


def test_knows_in_which_store_images_are(path: Path) -> None:
    """Each line names its store; what is in another one is not settled here, and is remembered."""
    stored = attrs.evolve(success("a"), saved=(SAVED,))
    for store in ("s3://one", "s3://two"):
        with Journal(str(path), store=store) as journal:
            journal.write(stored)
            journal.write(attrs.evolve(stored, task_id="b"))
            journal.write(trouble(TaskFailedError("no"), "c"))
    write(path, attrs.evolve(stored, task_id="c"))

    def journal_for(store: str) -> Journal:
        return Journal(str(path), is_done=lambda entry: entry.store == store)

    for store in ("s3://one", "s3://two"):  # whichever came first
        with journal_for(store) as journal:
            assert list(journal.settled) == ["a", "b"]
            assert journal.recall("a") == Entry(stored, store)
    with journal_for("s3://three") as journal:
        assert not journal.settled
        assert list(journal.elsewhere) == ["a", "b", "c"]
        assert list(journal.recall_elsewhere("a")) == [
            Entry(stored, "s3://two"),
            Entry(stored, "s3://one"),
        ]


def line_of_tomorrow(task_id: str) -> bytes:
    """Make a line of a version whose form cannot be read here."""
    form = success(task_id).to_dict()
    form["task"] |= {"images": "in another form"}
    return json.dumps(form).encode()


@pytest.mark.parametrize("end", [b"\n", b""])
def test_a_line_of_a_later_version_spoils_only_itself(
    end: bytes, path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is passed over and kept, also as the first or the last one; the others count."""
    whole = write(path, success("a"))
    content = line_of_tomorrow("b") + b"\n" + whole + line_of_tomorrow("a") + end
    path.write_bytes(content)
    assert settled_in(path) == {"a": Kind.SUCCEEDED}
    told = f"kling-omni: 2 lines are of a later version in {path}; what they say is passed over\n"
    assert capfd.readouterr() == ("", told)
    assert write(path, success("c")).startswith(content.rstrip() + b"\n")
    assert [each.task_id for each in read_outcomes(path)] == ["a", "c"]


def test_a_word_of_a_later_version_spoils_nothing(path: Path) -> None:
    """An unknown status or kind of error leaves what else the line says."""
    form = success("a").to_dict()
    form["task"] |= {"status": "archived"}
    error = trouble(TaskFailedError("no"), "b").to_dict()
    error["error"] |= {"type": "OfTomorrowError"}
    path.write_text(f"{json.dumps(form)}\n{json.dumps(error)}\n")
    assert settled_in(path) == {"a": Kind.SUCCEEDED}
    first, second = read_outcomes(path)
    assert first.task is not None
    assert (first.task.status, str(second.error)) == (TaskStatus.UNKNOWN, "no")


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
    before: tuple[TaskOutcome, ...],
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Whichever bytes of the last line reached the disk, the lines before are all that stays."""
    whole = write(path, *before)
    torn = write(path, success("b"))[len(whole) :]
    monkeypatch.setattr(os, "fsync", no_sync)
    for length in range(1, len(torn) - 1):
        path.write_bytes(whole + torn[:length])
        assert list(settled_in(path)) == [each.task_id for each in before]
        assert path.read_bytes() == whole
        told = f"kling-omni: dropped a torn last line of {path} ({length} bytes)\n"
        assert capfd.readouterr() == ("", told)


def test_a_last_line_that_lacks_only_its_end_is_kept(path: Path) -> None:
    """An editor or a copy may have cut the line break off; what comes next has its own line."""
    content = write(path, success("a"), success("b"))
    path.write_bytes(content[:-1])
    assert write(path, success("c")).startswith(content)
    assert ids_in(path) == ["a", "b", "c"]
    assert list(settled_in(path)) == ["a", "b", "c"]


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


@given(task_id=st.text(min_size=1), reason=st.text())
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


def refuse_lock(code: int) -> Callable[[int], None]:
    """Make a lock that the system refuses."""

    def refuse(_: int) -> None:
        raise OSError(code, os.strerror(code))

    return refuse


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL])
def test_a_file_system_without_locks_will_do(
    code: int, path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Network file systems may have none; what it means is told, and the run goes on."""
    monkeypatch.setattr(locked_file, "lock", refuse_lock(code))
    write(path, success("a"))
    assert capfd.readouterr().err == (
        f"kling-omni: warning: {path} cannot be locked ({os.strerror(code)}): see that no other "
        "run writes to it\n"
    )
    assert list(settled_in(path)) == ["a"]


def test_says_that_a_lock_cannot_be_had(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What else a lock may meet is one clear line."""
    monkeypatch.setattr(locked_file, "lock", refuse_lock(errno.EIO))
    with pytest.raises(OutputError, match="Input/output error") as caught:
        Journal(str(path))
    assert caught.value.code == Exit.USAGE


def test_says_that_a_journal_cannot_be_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the disk ends the command before anything is asked."""

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "lseek", fail)
        with pytest.raises(OutputError, match="Input/output error") as caught:
            Journal(str(path))
    assert caught.value.code == Exit.USAGE


def lose(path: Path) -> None:
    """Delete a file."""
    path.unlink()


def replace(path: Path) -> None:
    """Put another file under a name."""
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    other.replace(path)


def empty(path: Path) -> None:
    """Do what a shell does for ``> file``."""
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lose, "it was deleted or replaced while it was in use"),
        (replace, "it was deleted or replaced while it was in use"),
        (empty, "it was emptied or cut while it was in use"),
    ],
)
def test_notices_that_its_file_has_gone(
    harm: Callable[[Path], None], told: str, path: Path
) -> None:
    """What is written then is found by nobody: the next outcome stays pending, or the end tells."""
    with pytest.raises(OutputError, match=told), Journal(str(path)) as journal:  # noqa: PT012 - the second write is meant
        journal.write(success("a"))
        harm(path)
        journal.write(success("b"))
    path.unlink(missing_ok=True)
    write(path, success("a"))
    with pytest.raises(OutputError, match=told) as caught, Journal(str(path)):
        harm(path)
    assert caught.value.code == Exit.NOT_ALL


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
