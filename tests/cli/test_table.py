"""The table of results: the rows of the input, and what came of each id."""

from __future__ import annotations

import csv
import os
import signal
import sys
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from kling_omni_async import PollTimeoutError, TaskFailedError
from kling_omni_async._cli import locked_file
from kling_omni_async._cli.exit import Exit, OutputError, UsageError
from kling_omni_async._cli.id_rows import IdRow, IdRows
from kling_omni_async._cli.journal import Entry
from kling_omni_async._cli.locked_file import LockedFile
from kling_omni_async._cli.results import Sink
from kling_omni_async._cli.signals import Signals, interruptible
from kling_omni_async._cli.table import Table, header_of, open_table, result_of
from kling_omni_async.simulator import SimulatedCometAPI

from .support import FAST, Call, create, success, trouble

URL = "https://images.test/1.png"


def rows_in(path: Path) -> list[list[str]]:
    """Read a table."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def given_by(content: str) -> tuple[IdRows, list[IdRow]]:
    """Read the rows of an input."""
    rows = IdRows("ids.csv")
    return rows, rows.feed(content.encode(), last=True)


@contextmanager
def broken_off(path: Path, given: IdRows | None = None) -> Generator[Table]:
    """Open a table, and let the run end by a signal."""
    with suppress(KeyboardInterrupt), open_table(str(path), given) as table:
        yield table
        raise KeyboardInterrupt


def test_keeps_the_other_columns(api: SimulatedCometAPI, call: Call, tmp_path: Path) -> None:
    """Each row of the input has its own row, with what came of its id behind it."""
    first, second = create(api, 2, duration=0.0)
    (failed,) = create(api, fail="Image pixel is invalid", duration=0.0)
    source, table = tmp_path / "ids.csv", tmp_path / "out.csv"
    prompt = 'a "fox",\nred'
    with source.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(
            [
                ["prompt", "task_id", "who"],
                [prompt, first, "ä"],
                ["owl", failed, ""],
                ["cat", first],
                ["", second, "x"],
            ]
        )
    options = ("--from", str(source), "--csv", str(table), "--save", str(tmp_path / "images"))
    code, stdout, _ = call("poll", *options, *FAST)
    assert (code, stdout.count("\n")) == (Exit.NOT_ALL, 3)
    header, *rows = rows_in(table)
    assert header == ["prompt", "task_id", "who", "result", "images", "reason"]
    image = [str(tmp_path / "images" / f"{each}-0.png") for each in (first, second)]
    assert sorted(rows) == sorted(
        [
            [prompt, first, "ä", "succeed", image[0], ""],
            ["cat", first, "", "succeed", image[0], ""],
            ["owl", failed, "", "failed", "", "Image pixel is invalid"],
            ["", second, "x", "succeed", image[1], ""],
        ]
    )
    assert not Path(f"{table}.part").exists()


def test_has_what_earlier_runs_have_settled(
    api: SimulatedCometAPI, call: Call, tmp_path: Path
) -> None:
    """With a journal it is whole, whenever the ids have ended; one of ours is replaced."""
    first, second = create(api, 2, duration=0.0)
    (failed,) = create(api, fail="no", duration=0.0)
    journal, table = str(tmp_path / "out.jsonl"), tmp_path / "out.csv"
    for ids in ([first, failed], [first, failed, second]):
        call("poll", *ids, "--jsonl", journal, "--csv", str(table), *FAST)
    assert len(api.queries) == 3
    header, *rows = rows_in(table)
    assert header == ["task_id", "result", "images", "reason"]
    assert [row[:2] for row in rows] == [
        [first, "succeed"],
        [failed, "failed"],
        [second, "succeed"],
    ]
    assert all(row[2].startswith("http") != (row[1] == "failed") for row in rows)


def test_a_signal_tears_no_row(
    api: SimulatedCometAPI, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that comes while earlier results are written is heeded behind them."""
    done = create(api, 2, duration=0.0)
    source, table, journal = tmp_path / "ids.csv", tmp_path / "out.csv", tmp_path / "out.jsonl"
    source.write_text("".join(f"{each},fox\n" for each in done))
    again = ("poll", "--from", str(source), "--jsonl", str(journal), *FAST)
    assert call(*again)[0] == Exit.OK
    write = LockedFile.append

    def interrupt(file: LockedFile, data: bytes) -> None:
        signal.raise_signal(signal.SIGINT)
        write(file, data)

    monkeypatch.setattr(LockedFile, "append", interrupt)
    with interruptible(Signals(end=lambda _: None)):
        assert call(*again, "--csv", str(table))[0] == Exit.INTERRUPTED
    assert [row[:3] for row in rows_in(table)[1:]] == [[each, "fox", "succeed"] for each in done]


def test_a_line_that_cannot_be_read_any_more_has_no_row(tmp_path: Path) -> None:
    """Whoever edits a journal while it is in use has made it so."""

    async def write(_: object) -> None:
        """Write nothing."""

    path = tmp_path / "out.csv"
    with open_table(str(path)) as table:
        sink = Sink(write, recall={"a1": Entry(success("a1", URL))}.get).beside(table)
        sink.repeat("a1")
        sink.repeat("b1")
    assert rows_in(path)[1:] == [["a1", "succeed", URL, ""]]


@pytest.mark.parametrize(
    ("names", "header"),
    [
        ([], ["task_id", "result", "images", "reason"]),
        (["id", "images"], ["id", "images", "result", "kling_images", "reason"]),
        (
            ["task_id", "result", "kling_result", "reason"],
            [
                *("task_id", "result", "kling_result", "reason"),
                *("kling_kling_result", "images", "kling_reason"),
            ],
        ),
    ],
)
def test_no_column_of_the_input_is_lost(names: Sequence[str], header: Sequence[str]) -> None:
    """Where it has our names, ours are told apart."""
    assert header_of(names) == header


@pytest.mark.parametrize("start", ["=", "+", "-", "@"])
def test_no_reason_is_a_formula(start: str) -> None:
    """What an API sent is text to every spreadsheet, and one line."""
    outcome = trouble(TaskFailedError(f"{start}cmd|'/c calc'!A1\nx"))
    assert result_of(outcome) == ("failed", "", f"'{start}cmd|'/c calc'!A1 x")
    assert result_of(success("a", URL, URL)) == ("succeed", f"{URL} {URL}", "")


def test_what_has_not_ended_is_pending(tmp_path: Path) -> None:
    """A run that is broken off leaves a whole table, if there was none before."""
    path = tmp_path / "out.csv"
    given, rows = given_by("task_id,n\na1,1\nb1,2\nb1,3\n")
    with broken_off(path, given) as table:
        for row in rows:
            table.expect(row)
        table.add(success("a1", URL))
        assert rows_in(Path(f"{path}.part")) == [
            ["task_id", "n", "result", "images", "reason"],
            ["a1", "1", "succeed", URL, ""],
        ]
        table.add_pending(["b1", "c1"])
    assert rows_in(path)[2:] == [
        ["b1", "2", "pending", "", ""],
        ["b1", "3", "pending", "", ""],
        ["c1", "", "pending", "", ""],
    ]


def test_a_run_that_is_broken_off_replaces_no_table(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What it has is beside the one that was there; the next run begins anew."""
    path, part = tmp_path / "out.csv", tmp_path / "out.csv.part"
    with open_table(str(path)) as table:
        table.add(success("a1", URL))
    whole = path.read_bytes()
    with broken_off(path) as table:
        table.add(trouble(PollTimeoutError("late"), "b1"))
    assert path.read_bytes() == whole
    assert rows_in(part)[1:] == [["b1", "timed_out", "", "late"]]
    told = f"kling-omni: {path} is left as it was; the rows so far are in {part}\n"
    assert capfd.readouterr().err == told
    with open_table(str(path)) as table:
        table.add(success("c1", URL))
    assert rows_in(path)[1:] == [["c1", "succeed", URL, ""]]
    assert not part.exists()


def test_two_runs_at_a_time_are_refused(tmp_path: Path) -> None:
    """The second one, before it has touched anything; a third one goes when the first has ended."""
    path = str(tmp_path / "out.csv")
    with open_table(path) as table:
        table.add(success("a1", URL))
        with pytest.raises(UsageError, match="in use by another process"), open_table(path):
            pytest.fail("it was opened")
        table.add(success("b1", URL))
    assert [row[0] for row in rows_in(Path(path))[1:]] == ["a1", "b1"]
    with open_table(path) as table:
        table.add(success("c1", URL))
    assert [row[0] for row in rows_in(Path(path))[1:]] == ["c1"]


def test_a_run_that_begins_while_another_one_ends_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until the table of the first one has its name: else its rows were gone."""
    path = tmp_path / "out.csv"
    replace = os.replace

    def replace_late(part: str, to: str) -> None:
        with pytest.raises(UsageError, match="in use by another process"), open_table(str(path)):
            pytest.fail("it was opened")
        replace(part, to)

    monkeypatch.setattr(os, "replace", replace_late)
    with open_table(str(path)) as table:
        table.add(success("a1", URL))
    assert rows_in(path)[1:] == [["a1", "succeed", URL, ""]]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("has_rows", [True, False])
def test_a_run_does_not_write_into_the_table_of_one_that_has_just_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, has_rows: bool
) -> None:
    """It has opened the file of the other one before that got its name, or was removed."""
    path = tmp_path / "out.csv"
    first = ExitStack()
    table = first.enter_context(open_table(str(path)))
    if has_rows:
        table.add(success("a1", URL))
    lock = locked_file.lock

    def lock_late(fd: int) -> None:
        first.close()
        lock(fd)

    monkeypatch.setattr(locked_file, "lock", lock_late)
    with pytest.raises(UsageError, match="in use by another process"), open_table(str(path)):
        pytest.fail("it was opened")
    assert path.exists() is has_rows
    assert not has_rows or rows_in(path)[1:] == [["a1", "succeed", URL, ""]]


def test_a_run_without_an_outcome_leaves_all_as_it_was(tmp_path: Path) -> None:
    """Such as one whose key is refused."""
    path = tmp_path / "out.csv"
    with broken_off(path) as table:
        table.add_pending(["a1"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["out.csv", "out.csv.part"])
@pytest.mark.parametrize("content", [b"task_id,name\n1,x\n", b"result\n", b"\xff\0", b"\n"])
def test_nothing_of_others_is_replaced(content: bytes, name: str, tmp_path: Path) -> None:
    """The input itself, for instance."""
    path = tmp_path / name
    path.write_bytes(content)
    with (
        pytest.raises(UsageError, match="is no table of this program: give another name"),
        open_table(str(tmp_path / "out.csv")),
    ):
        pytest.fail("it was opened")
    assert path.read_bytes() == content


def test_an_empty_file_may_be_written(tmp_path: Path) -> None:
    """As ``mktemp`` makes it."""
    path = tmp_path / "out.csv"
    path.touch()
    with open_table(str(path)) as table:
        table.add(success("a1", URL))
    assert len(rows_in(path)) == 2


def test_a_link_leads_to_the_table(tmp_path: Path) -> None:
    """It is not replaced, also where it leads to nothing yet."""
    link, path = tmp_path / "latest.csv", tmp_path / "out.csv"
    link.symlink_to(path)
    for number in (1, 2):
        with open_table(str(link)) as table:
            table.add(success(f"a{number}", URL))
        assert link.is_symlink()
        assert rows_in(path)[1][0] == f"a{number}"


@pytest.mark.parametrize(
    ("table", "journal"),
    [("out", "out"), ("out", "./out"), ("out", "link"), ("link", "out"), ("out", "out.part")],
)
def test_the_journal_is_not_replaced(
    table: str, journal: str, call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table by whatever name of it is refused before anything is asked or written."""
    monkeypatch.chdir(tmp_path)
    Path("link").symlink_to("out")
    code, _, stderr = call("poll", "1", "--csv", table, "--jsonl", journal)
    assert (code, stderr) == (
        Exit.USAGE,
        "kling-omni: --csv and --jsonl name the same file: give each one of its own\n",
    )
    assert [each.name for each in tmp_path.iterdir()] == ["link"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps a directory that is in use")
def test_a_working_directory_that_is_gone(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be written there is told, before anything is asked."""
    monkeypatch.setenv("COMETAPI_KEY", "secret-key")
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    code, _, stderr = call("poll", "1", "--csv", "out.csv", "--jsonl", "out.jsonl")
    assert (code, stderr) == (
        Exit.USAGE,
        "kling-omni: cannot write to out.jsonl: No such file or directory\n",
    )


def test_both_may_go_nowhere(api: SimulatedCometAPI, call: Call) -> None:
    """What is no file is not replaced."""
    done = create(api, duration=0.0)
    assert call("poll", *done, "--csv", os.devnull, "--jsonl", os.devnull, *FAST)[0] == Exit.OK
    assert not Path(os.devnull).is_file()


@pytest.mark.parametrize(
    "path", ["", "-", "no/such/folder/out.csv", "a\0b", "/dev/null/out.csv", "."]
)
def test_says_that_a_table_cannot_be_written(path: str) -> None:
    """Before anything is asked."""
    with pytest.raises((OutputError, UsageError)) as caught, open_table(path):
        pytest.fail("it was opened")
    assert caught.value.code == Exit.USAGE


def test_says_that_a_table_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be looked at is not replaced."""

    def fail(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "out.csv").touch()
    monkeypatch.setattr("builtins.open", fail)
    with pytest.raises(OutputError, match="Permission denied"), open_table(f"{tmp_path}/out.csv"):
        pytest.fail("it was opened")


def test_says_that_a_table_cannot_get_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows are there, and the exit code is 1."""

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "replace", fail)
    with (
        pytest.raises(OutputError, match="Input/output error") as caught,
        open_table(str(tmp_path / "out.csv")) as table,
    ):
        table.add(success("a1", URL))
    assert caught.value.code == Exit.NOT_ALL


def test_a_pipe_gets_the_rows_as_they_come(tmp_path: Path) -> None:
    """What is no file keeps its name and what it has."""
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with open_table(str(fifo)) as table:
            table.add(success("a1", URL))
            assert os.read(reader, 65536) == (
                f"task_id,result,images,reason\na1,succeed,{URL},\n".encode()
            )
    finally:
        os.close(reader)


def test_columns_that_come_too_late_are_left_out(tmp_path: Path) -> None:
    """A stream of objects may show new names when the header is written already."""
    path = tmp_path / "out.csv"
    given = IdRows("-")
    with open_table(str(path), given) as table:
        for line in (b'{"n": 1, "task_id": "a1"}\n', b'{"task_id": "b1", "m": 2}\n'):
            (row,) = given.feed(line)
            table.expect(row)
            table.add(success(row.task_id, URL))
    assert rows_in(path) == [
        ["n", "task_id", "result", "images", "reason"],
        ["1", "a1", "succeed", URL, ""],
        ["", "b1", "succeed", URL, ""],
    ]


def test_a_stream_has_its_columns_too(
    api: SimulatedCometAPI, call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of ids that repeat themselves the first row is kept: there may be any number of them."""
    (task_id,) = create(api, duration=0.0)
    read, write = os.pipe()
    with open(read, encoding="utf-8") as stdin, os.fdopen(write, "w") as feeder:  # noqa: PTH123 - a descriptor
        feeder.write(f"n,task_id\n1,{task_id}\n2,{task_id}\n")
        feeder.close()
        monkeypatch.setattr("sys.stdin", stdin)
        assert call("poll", "--from", "-", "--csv", f"{tmp_path}/out.csv", *FAST)[0] == Exit.OK
    assert [row[:3] for row in rows_in(tmp_path / "out.csv")] == [
        ["n", "task_id", "result"],
        ["1", task_id, "succeed"],
    ]
