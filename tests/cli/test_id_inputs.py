"""Files and streams of ids: what is opened, how far it is read, and what is said."""

from __future__ import annotations

import asyncio
import io
import os
import signal
from collections.abc import AsyncGenerator, Generator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import BinaryIO, NoReturn

import pytest

from kling_omni_async import PollPolicy
from kling_omni_async._cli import following, inputs, job, poll
from kling_omni_async._cli.copying import Copies
from kling_omni_async._cli.exit import Exit, UsageError
from kling_omni_async._cli.id_rows import IdRow, IdRows
from kling_omni_async._cli.inputs import open_ids, refuse_paths
from kling_omni_async._cli.job import PollJob
from kling_omni_async._cli.options import Saving
from kling_omni_async._cli.progress import Silent
from kling_omni_async._cli.results import Sink
from kling_omni_async._cli.signals import Signals, interruptible
from kling_omni_async.simulator import SimulatedCometAPI
from tests.virtual_clock import VirtualClockLoop

from .support import FAST, Call, create, ids_in, success


def file_with(content: bytes, folder: Path) -> str:
    """Write a file and give its path."""
    path = folder / "ids.csv"
    path.write_bytes(content)
    return str(path)


def read_all(source: str) -> list[str]:
    """Read a file of ids."""
    with open_ids(source, None) as given:
        assert given.is_file
        return [row.task_id for row in given.read_all()]


def refusal_of(source: str) -> str:
    """Read what must be refused, and give the one line that says so."""
    with pytest.raises(UsageError) as caught:
        read_all(source)
    assert caught.value.code == Exit.USAGE
    return str(caught.value)


@contextmanager
def stdin_of(content: bytes, monkeypatch: pytest.MonkeyPatch) -> Generator[BinaryIO]:
    """Make stdin a pipe that has some bytes, and give its other end."""
    read, write = os.pipe()
    with os.fdopen(write, "wb", buffering=0) as feeder, open(read, encoding="utf-8") as stdin:  # noqa: PTH123 - a descriptor
        monkeypatch.setattr("sys.stdin", stdin)
        feeder.write(content)
        yield feeder


def test_reads_files_longer_than_one_read(tmp_path: Path) -> None:
    """An id that lies across two reads is one id."""
    ids = [f"{number:017}1" for number in range(20_000)]
    assert read_all(file_with("\n".join(ids).encode(), tmp_path)) == ids


def test_reading_a_file_can_be_broken_off() -> None:
    """A network file system may hang, and a file may be long: a signal ends it there and then."""

    class Slow(io.RawIOBase):
        def read(self, size: int = -1, /) -> bytes:
            signal.raise_signal(signal.SIGINT)
            return b""[:size]

    rows = IdRows("ids.txt")
    rows.feed(b"1\n")
    given = inputs.IdInput("ids.txt", rows, Slow())
    with interruptible(Signals()), pytest.raises(KeyboardInterrupt):
        given.read_all()


def test_a_stdin_that_is_a_file_is_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``< ids.csv`` makes it; what cannot be meant is then told before anything is asked."""
    with Path(file_with(b"1\n2\n", tmp_path)).open(encoding="utf-8") as file:
        monkeypatch.setattr("sys.stdin", file)
        assert read_all("-") == ["1", "2"]
        assert not file.closed


def test_refuses_a_closed_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a stdin the hyphen is refused in words."""
    monkeypatch.setattr("sys.stdin", None)
    assert refusal_of("-") == "cannot read ids from -: stdin is closed"


def test_refuses_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    """Each is named in one line."""
    path = str(tmp_path / "none.txt")
    assert refusal_of(path) == f"cannot read ids from {path}: No such file or directory"
    assert refusal_of(str(tmp_path)) == f"cannot read ids from {tmp_path}: Is a directory"


@pytest.mark.parametrize("content", [b"", b"\n# none\n", b"task_id,name\n", b"[]"])
def test_refuses_a_file_without_ids(content: bytes, tmp_path: Path) -> None:
    """It was meant to have some."""
    path = file_with(content, tmp_path)
    assert refusal_of(path) == f"no ids in {path}"


def test_refuses_ids_that_were_rounded(tmp_path: Path) -> None:
    """Before anything is asked, as every one of them would be not found."""
    path = file_with(b"task_id\n842250903629086000\n842250903629087000\n", tmp_path)
    assert "line 2: a spreadsheet has rounded the ids" in refusal_of(path)


def test_says_how_many_rows_have_no_id(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """They are passed over, but not in silence."""
    path = file_with(b"task_id,name\n1,fox\n,owl\n", tmp_path)
    assert read_all(path) == ["1"]
    told = f"kling-omni: 1 row of {path} without an id, passed over\n"
    assert capfd.readouterr() == ("", told)


@pytest.mark.parametrize("command", ["poll", "query"])
def test_a_path_is_no_id(command: str, call: Call, tmp_path: Path) -> None:
    """What to write is told before anything is asked, for a file that is missing, too."""
    there = file_with(b"1\n", tmp_path).removesuffix(".csv")
    Path(there).write_text("1\n")
    for path in ("ids.txt", "no/such/tasks.JSON", there):
        told = f"kling-omni: {path} is a file, not an id: write poll --from {path}\n"
        assert call(command, "842250903629086785", path) == (Exit.USAGE, "", told)


def test_ids_are_no_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a number that happens to name a file, nor a URL, which is told otherwise."""
    monkeypatch.chdir(tmp_path)
    Path("842250903629086785").touch()
    refuse_paths(["842250903629086785", "YWJj/ZGVm+Zw==", "https://images.test/1.json", "a\0b"])


def test_a_stream_is_polled_as_it_comes(
    api: SimulatedCometAPI, call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The ids that are there have ended before the stream has; those behind them come later."""
    first, second, third = create(api, 3, duration=1.0)
    journal = tmp_path / "out.jsonl"
    real = inputs._read
    seen: list[list[str]] = []

    def read(file: io.RawIOBase) -> bytes:
        seen.append(ids_in(journal))
        if len(seen) == 2:
            api_end.write(f"{second}\n{first}\n".encode())
            api_end.close()
        return real(file)

    monkeypatch.setattr(inputs, "_read", read)
    with stdin_of(f"{first}\n".encode(), monkeypatch) as api_end:
        code, _, stderr = call("poll", third, "--from", "-", "--jsonl", str(journal), *FAST)
    assert (code, sorted(ids_in(journal))) == (Exit.OK, sorted([first, second, third]))
    assert "3 of 3 done: 3 succeeded" in stderr


def test_a_stream_passes_over_what_has_ended(
    api: SimulatedCometAPI, call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Neither repeats nor what an earlier run has settled are asked for; the latter is counted."""
    monkeypatch.setattr(following, "_MOST_REPEATS", 2)
    settled, pending = create(api, 2, duration=0.0)
    journal = str(tmp_path / "out.jsonl")
    assert call("poll", settled, "--jsonl", journal, *FAST)[0] == Exit.OK
    pieces = [f"{settled}\n{pending}\n", f"{pending}\n{settled}\n" * 2, ""]
    monkeypatch.setattr(inputs, "_read", lambda _: pieces.pop(0).encode())
    with stdin_of(b"", monkeypatch):
        code, _, stderr = call("poll", "--from", "-", "--jsonl", journal, *FAST)
    assert (code, ids_in(Path(journal))) == (Exit.OK, [settled, pending])
    assert "2 of 2 done: 2 succeeded; 1 of them by an earlier run" in stderr
    assert [query.task_id for query in api.queries] == [settled, pending]


def test_a_stream_that_repeats_itself_is_read_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has nothing new, such as that of ``yes``, rests now and then."""
    monkeypatch.setattr(following, "_MOST_REPEATS", 10)

    async def feed() -> AsyncGenerator[IdRow]:
        for line in range(1000):
            yield IdRow("1", line)

    async def never(_: object) -> None:
        pytest.fail("nothing is written")

    async def drain() -> tuple[list[str], float]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        sink = Sink(never)
        follower = following._Follower(PollJob(), sink, Silent(), Copies(sink, Saving()))
        ids = [each async for each in follower.ids(feed())]
        return ids, loop.time() - began

    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        ids, rested = runner.run(drain())
    assert ids == ["1"]
    assert rested == pytest.approx(99 * 0.1)


@pytest.mark.parametrize(("option", "most"), [((), 100_000), (("--max-pending", "7"), 7)])
def test_of_a_stream_not_everything_is_read(
    option: tuple[str, ...], most: int, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has no end waits when more is read than can be asked for; a file is read whole."""
    seen: list[int] = []

    def make_session(_: object, policy: PollPolicy) -> NoReturn:
        seen.append(policy.max_pending)
        raise UsageError("seen")

    monkeypatch.setattr(poll, "make_session", make_session)
    with stdin_of(b"", monkeypatch):
        call("poll", "--from", "-", *option)
    call("poll", "7")
    assert seen == [most, 1_000_000]


def test_not_every_id_that_ended_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that goes on for months must not fill the memory; the latest are kept."""
    monkeypatch.setattr(job, "_MOST_ENDED", 3)
    stream = PollJob()
    for number in range(10):
        stream.add(str(number))
        stream.finish(success(str(number)))
    assert [number for number in range(10) if stream.knows(str(number))] == [7, 8, 9]


def test_a_stream_without_ids_is_refused(
    api: SimulatedCometAPI, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an empty file is."""
    with stdin_of(b"", monkeypatch) as feeder:
        feeder.close()
        assert call("poll", "--from", "-") == (Exit.USAGE, "", "kling-omni: no ids in -\n")
    assert api.queries == ()


def test_what_cannot_be_meant_ends_a_stream(
    api: SimulatedCometAPI, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ids of the pieces before it come out first; of its own piece nothing is asked."""
    task_id, unread = create(api, 2, duration=0.0)
    pieces = [f"{task_id}\n", f"{unread}\n8.78106E+17\n"]
    monkeypatch.setattr(inputs, "_read", lambda _: pieces.pop(0).encode())
    with stdin_of(b"", monkeypatch):
        code, stdout, stderr = call("poll", "--from", "-", "--quiet", *FAST)
    assert (code, stdout.partition("\t")[0]) == (Exit.USAGE, task_id)
    assert stderr.startswith("kling-omni: cannot read ids from -, line 3: a spreadsheet")
    assert stderr.count("\n") == 1
    assert {query.task_id for query in api.queries} == {task_id}


def test_a_terminal_is_told_that_ids_are_read(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nobody should sit before a program that seems to hang."""

    class Terminal(io.BytesIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(Terminal(b"1\n2\n")))

    async def read() -> list[str]:
        with open_ids("-", None) as given:
            assert not given.is_file
            return [row.task_id async for row in given.feed()]

    assert asyncio.run(read()) == ["1", "2"]
    told = "kling-omni: reading ids from the terminal, one a line; Ctrl-D ends them\n"
    assert capfd.readouterr() == ("", told)


def test_a_stream_is_read_only_as_far_as_ids_are_taken() -> None:
    """Of one that never ends a piece is read when the one before it was used up."""
    pieces: list[int] = []

    class Endless(io.RawIOBase):
        def read(self, size: int = -1, /) -> bytes:
            pieces.append(size)
            return b"1\n2\n"

        def isatty(self) -> bool:
            return False

    async def take_three() -> list[str]:
        given = inputs.IdInput("-", IdRows("-"), Endless())
        taken: list[str] = []
        async with aclosing(given.feed()) as feed:
            async for row in feed:
                taken.append(row.task_id)
                if len(taken) == 3:
                    break
        return taken

    assert asyncio.run(take_three()) == ["1", "2", "1"]
    assert len(pieces) == 2


def test_a_stdin_that_does_not_wait_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program may have set the pipe that both share so that reads return at once."""
    waited: list[str] = []

    with stdin_of(b"", monkeypatch) as feeder, open_ids("-", None) as given:

        def wait(*_: object) -> None:
            waited.append("")
            feeder.write(b"7\n")
            feeder.close()

        os.set_blocking(given._file.fileno(), False)
        monkeypatch.setattr("select.select", wait)
        assert inputs._read(given._file) == b"7\n"
        assert inputs._read(given._file) == b""
    assert waited == [""]


def test_an_error_of_a_stream_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a read meets in its thread is one line, as for a file."""

    def fail(_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(inputs, "_read", fail)

    async def read() -> None:
        with open_ids("-", None) as given:
            await anext(given.feed())

    with (
        stdin_of(b"", monkeypatch),
        pytest.raises(UsageError, match="cannot read ids from -: Input/output error"),
    ):
        asyncio.run(read())


@pytest.mark.parametrize("arguments", [["poll", "--column", "id"], ["poll", "1", "--column", "id"]])
def test_a_column_needs_a_file(arguments: list[str], call: Call) -> None:
    """Arguments have none."""
    code, _, stderr = call(*arguments)
    assert code == Exit.USAGE
    assert "--from" in stderr
