"""The commands, called in this process with a simulator beside it."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import runpy
import sys
from pathlib import Path

import pytest

from kling_omni_async import __main__, __version__
from kling_omni_async._cli.app import run
from kling_omni_async._cli.exit import Exit
from kling_omni_async._cli.journal import Journal
from kling_omni_async.simulator import SimulatedCometAPI

from .support import create, ids_in, pending_in

UNKNOWN = "123456789012345678"
Captured = pytest.CaptureFixture[str]

full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")


def poll(*arguments: str) -> int:
    """Call the command."""
    return run(["poll", *arguments])


def test_exit_code_0_means_that_all_succeeded(api: SimulatedCometAPI, capfd: Captured) -> None:
    """Each id comes out once on stdout, with its URLs; the summary goes to stderr."""
    task_ids = create(api, 2, duration=0.0, images=2)
    assert poll(*task_ids, task_ids[0]) == Exit.OK
    stdout, stderr = capfd.readouterr()
    rows = sorted(line.split("\t") for line in stdout.splitlines())
    assert [row[:2] for row in rows] == [[task_id, "succeed"] for task_id in sorted(task_ids)]
    assert all(len(row[2].split(" ")) == 2 for row in rows)
    assert stderr.splitlines()[-1] == "kling-omni: 2 of 2 done: 2 succeeded"


def test_exit_code_1_means_that_some_did_not(api: SimulatedCometAPI, capfd: Captured) -> None:
    """A failed, an unknown, a malformed and a late id each have a line of their own."""
    failed = create(api, duration=0.0, fail="Image pixel is invalid")
    late = create(api, duration=math.inf)
    task_ids = [*failed, *late, UNKNOWN, "a b"]
    assert poll(*task_ids) == Exit.NOT_ALL
    stdout, stderr = capfd.readouterr()
    words = dict(line.split("\t")[:2] for line in stdout.splitlines())
    assert list(map(words.get, task_ids)) == ["failed", "timed_out", "not_found", "invalid_id"]
    assert "Image pixel is invalid" in stdout
    assert stderr.endswith("1 failed, 1 not found, 1 timed out, 1 not a task id\n")


def test_ids_come_from_arguments_and_a_file(
    api: SimulatedCometAPI, tmp_path: Path, capfd: Captured
) -> None:
    """Both sources together are polled, an id that is in both once."""
    first, second = create(api, 2, duration=0.0)
    (tmp_path / "ids.txt").write_text(f"# two\n{first}\n\n{second}\n{first}\n")
    assert poll(first, "--from", str(tmp_path / "ids.txt"), "--jsonl", "-") == Exit.OK
    stdout = capfd.readouterr().out
    assert sorted(json.loads(line)["task_id"] for line in stdout.splitlines()) == sorted(
        [first, second]
    )


def test_quiet_says_nothing_but_results(api: SimulatedCometAPI, capfd: Captured) -> None:
    """With --quiet stderr stays empty when all goes well."""
    assert poll(*create(api, duration=0.0), "--quiet") == Exit.OK
    stdout, stderr = capfd.readouterr()
    assert stdout.count("\n") == 1
    assert stderr == ""


def test_a_journal_takes_the_place_of_stdout(
    api: SimulatedCometAPI, tmp_path: Path, capfd: Captured
) -> None:
    """A second run polls only what is not settled, and its exit code counts all ids."""
    journal = tmp_path / "out.jsonl"
    good = create(api, 2, duration=0.0)
    late = create(api, duration=math.inf)
    bad = create(api, duration=0.0, fail="no")
    options = ["--jsonl", str(journal)]
    assert poll(*good, *late, *options) == Exit.NOT_ALL
    assert capfd.readouterr().out == ""
    api.finish(late[0])
    asked = len(api.queries_of(good[0]))
    assert poll(*good, *late, *options) == Exit.OK
    assert len(api.queries_of(good[0])) == asked
    assert sorted(ids_in(journal)) == sorted([*good, *late, *late])
    assert "; 2 of them by an earlier run" in capfd.readouterr().err
    assert poll(*good, *bad, *options) == Exit.NOT_ALL
    assert poll(*bad, *options) == Exit.NOT_ALL
    assert ids_in(journal).count(bad[0]) == 1


def test_a_torn_line_is_told(api: SimulatedCometAPI, tmp_path: Path, capfd: Captured) -> None:
    """A run that drops a torn line says so and polls its id again."""
    journal = tmp_path / "out.jsonl"
    task_ids = create(api, 1, duration=0.0)
    assert poll(*task_ids, "--jsonl", str(journal)) == Exit.OK
    journal.write_bytes(journal.read_bytes()[:-2])
    assert poll(*task_ids, "--jsonl", str(journal)) == Exit.OK
    assert "kling-omni: dropped a torn last line of" in capfd.readouterr().err
    assert ids_in(journal) == task_ids


def test_a_foreign_journal_is_refused(
    api: SimulatedCometAPI, tmp_path: Path, capfd: Captured
) -> None:
    """A file of another format is one clear line and exit code 2; nothing is polled."""
    notes = tmp_path / "notes.txt"
    notes.write_text("my notes\n")
    assert poll(*create(api, duration=0.0), "--jsonl", str(notes)) == Exit.USAGE
    stderr = capfd.readouterr().err
    assert [line for line in stderr.splitlines() if "done" not in line] == [
        f"kling-omni: {notes} is left as it is: line 1 is not an outcome of this program"
    ]
    assert notes.read_text() == "my notes\n"
    assert api.queries == ()


def test_a_journal_serves_one_run(api: SimulatedCometAPI, tmp_path: Path, capfd: Captured) -> None:
    """A second run with the same journal gives up in one line, and asks nothing."""
    journal = str(tmp_path / "out.jsonl")
    with Journal(journal):
        assert poll(*create(api, duration=0.0), "--jsonl", journal, "--quiet") == Exit.USAGE
    assert capfd.readouterr().err == f"kling-omni: {journal} is in use by another process\n"
    assert api.queries == ()


def test_a_journal_that_cannot_be_made_is_one_line(
    api: SimulatedCometAPI, tmp_path: Path, capfd: Captured
) -> None:
    """A folder that is not there is wrong usage: nothing was begun, so no id is pending."""
    task_ids = create(api, 2, duration=0.0)
    path = tmp_path / "none" / "out.jsonl"
    assert poll(*task_ids, "--jsonl", str(path)) == Exit.USAGE
    stderr = capfd.readouterr().err
    assert stderr == f"kling-omni: cannot write to {path}: No such file or directory\n"


@full
def test_a_full_disk_leaves_the_rest_pending(api: SimulatedCometAPI, capfd: Captured) -> None:
    """A journal without room: what failed, then every id; none was taken for written."""
    task_ids = create(api, 3, duration=0.0)
    assert poll(*task_ids, "--jsonl", "/dev/full", "--quiet") == Exit.NOT_ALL
    first, *rest = capfd.readouterr().err.splitlines()
    assert first == "kling-omni: cannot write to /dev/full: No space left on device"
    assert rest == ["3 ids are still pending:", *task_ids]


@full
@pytest.mark.parametrize("jsonl", [(), ("--jsonl", "-")], ids=["plain", "json"])
def test_a_full_stdout_leaves_the_rest_pending(
    jsonl: tuple[str, ...],
    api: SimulatedCometAPI,
    monkeypatch: pytest.MonkeyPatch,
    capfd: Captured,
) -> None:
    """Results that go nowhere: what failed, then every id."""
    task_ids = create(api, 3, duration=0.0)
    with Path("/dev/full").open("w") as nowhere, monkeypatch.context() as patched:
        patched.setattr("sys.stdout", nowhere)
        assert poll(*task_ids, *jsonl, "--quiet") == Exit.NOT_ALL
    first, *rest = capfd.readouterr().err.splitlines()
    assert first == "kling-omni: cannot write to stdout: No space left on device"
    assert rest == ["3 ids are still pending:", *task_ids]


def test_a_read_only_folder_is_one_line(
    api: SimulatedCometAPI, tmp_path: Path, capfd: Captured
) -> None:
    """A journal that cannot be made: what failed, and nothing was asked."""
    path = read_only(tmp_path) / "out.jsonl"
    task_ids = create(api, 3, duration=0.0)
    assert poll(*task_ids, "--jsonl", str(path), "--quiet") == Exit.USAGE
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"kling-omni: cannot write to {path}: ")
    assert api.queries == ()


def read_only(folder: Path) -> Path:
    """Return a folder in which nothing can be made: one of the system's where we are root."""
    folder.chmod(0o555)
    chosen = Path("/sys") if os.access(folder, os.W_OK) else folder
    if os.access(chosen / "none", os.F_OK) or not chosen.is_dir():
        pytest.skip("this system has no folder that its root may not write to")
    return chosen


def test_ids_come_through_a_pipe(
    api: SimulatedCometAPI, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    """``--from -`` reads stdin to its end."""
    task_ids = create(api, 2, duration=0.0)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\n".join(task_ids).encode())))
    assert poll("--from", "-", "--jsonl", "-") == Exit.OK
    assert capfd.readouterr().out.count("\n") == 2


def test_lost_writes_are_told_when_all_is_done(
    api: SimulatedCometAPI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    """An error of the last sync spoils the exit code, although no id is pending."""

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    path = tmp_path / "out.jsonl"
    assert poll(*create(api, duration=0.0), "--jsonl", str(path)) == Exit.NOT_ALL
    stderr = capfd.readouterr().err
    assert stderr.endswith(f"kling-omni: cannot write to {path}: Input/output error\n")


def test_exit_code_3_means_that_the_key_is_refused(
    api: SimulatedCometAPI, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    """A wrong key ends both commands at once and appears nowhere."""
    monkeypatch.setenv("COMETAPI_KEY", "sk-wrong-and-secret")
    task_ids = create(api, 2, duration=0.0)
    assert poll(*task_ids) == Exit.KEY_REFUSED
    polled = capfd.readouterr()
    assert "kling-omni: the key is refused: HTTP 401" in polled.err
    assert pending_in(polled.err) == task_ids
    assert run(["query", *task_ids]) == Exit.KEY_REFUSED
    queried = capfd.readouterr()
    assert "the key is refused: HTTP 401" in queried.err
    assert "sk-wrong" not in "".join([*polled, *queried])


def test_query_prints_tasks_in_the_order_given(api: SimulatedCometAPI, capfd: Captured) -> None:
    """Each task is one line of JSON, finished or not; unfinished ones are no failure."""
    slow = create(api, duration=math.inf)
    task_ids = [*create(api, duration=0.0), *slow]
    assert run(["query", *task_ids, *slow]) == Exit.OK
    stdout, stderr = capfd.readouterr()
    tasks = [json.loads(line) for line in stdout.splitlines()]
    assert [task["task_id"] for task in tasks] == task_ids
    assert [task["status"] for task in tasks] == ["succeed", "submitted"]
    assert stderr == ""


def test_query_tells_what_was_not_answered(api: SimulatedCometAPI, capfd: Captured) -> None:
    """An unknown id is a line on stderr and exit code 1, the others are printed."""
    good = create(api, duration=0.0)
    assert run(["query", UNKNOWN, *good]) == Exit.NOT_ALL
    stdout, stderr = capfd.readouterr()
    assert json.loads(stdout)["task_id"] == good[0]
    assert f"kling-omni: {UNKNOWN}: HTTP " in stderr


def test_query_of_a_failed_task_is_exit_code_1(api: SimulatedCometAPI, capfd: Captured) -> None:
    """A failed task is printed like any other."""
    assert run(["query", *create(api, duration=0.0, fail="no")]) == Exit.NOT_ALL
    assert json.loads(capfd.readouterr().out)["status_message"] == "no"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["poll"], "no ids: give some, or a file of them with --from"),
        (["query"], "no ids: give some"),
        (["pol"], 'Unknown command "pol".'),
        (["poll", "a", "--nope"], "Unknown option: --nope."),
        (["poll", "a", "--interval", "30s", "20s"], "--interval cannot be '30s-20s': write two"),
        (["poll", "a", "--interval", "30-20"], "--interval cannot be '30-20': write two times"),
        (["poll", "a", "--max-rate", "0"], "--max-rate cannot be '0': write queries a second"),
        (
            ["poll", "a", "--timeout", "soon"],
            "--timeout cannot be 'soon': write a time",
        ),
        (["query", "a", "--query-timeout", "never"], "write a time above 0, such as 20s"),
        (["poll", "a", "--max-image-bytes", "1 M"], "write a size such as 500kB, 1MiB or 100MB"),
        (["poll", "a", "--save", "file://images"], "with three slashes"),
        (["poll", "--from", "none.txt"], "cannot read ids from none.txt"),
        (["poll", "a", "--base-url", "http://api.test"], "http"),
    ],
)
def test_exit_code_2_means_a_wrong_call(
    arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    """What cannot work is refused in one line on stderr."""
    monkeypatch.setenv("COMETAPI_KEY", "a-key")
    assert run(arguments) == Exit.USAGE
    stdout, stderr = capfd.readouterr()
    assert words in stderr
    assert stderr.startswith("kling-omni: ")
    assert (stdout, stderr.count("\n")) == ("", 1)


def test_a_missing_key_is_a_wrong_call(capfd: Captured) -> None:
    """Without COMETAPI_KEY nothing is tried."""
    assert run(["poll", "a"]) == Exit.USAGE
    assert "COMETAPI_KEY is not set" in capfd.readouterr().err


@pytest.mark.parametrize(
    "interval", [["--interval", "5", "6"], ["--interval", "5s-6s"], ["--interval=5-6"]]
)
def test_an_interval_can_be_written_in_three_ways(
    interval: list[str], api: SimulatedCometAPI
) -> None:
    """Two numbers, or one range with a hyphen, with or without an equals sign."""
    task_ids = create(api, duration=math.inf)
    assert run(["poll", *interval, *task_ids, "--timeout", "1m"]) == Exit.NOT_ALL
    gaps = api.gaps()
    assert len(gaps) >= 9
    assert all(4.999 <= gap <= 6.001 for gap in gaps)


def test_behind_two_hyphens_all_are_ids(api: SimulatedCometAPI, capfd: Captured) -> None:
    """An id may look like an option or a range behind ``--``."""
    task_ids = ["--interval", "1-2", "--"]
    for task_id in task_ids:
        create(api, duration=0.0, task_id=task_id)
    assert run(["poll", "--interval", "20", "30", "--", *task_ids]) == Exit.OK
    assert {line.split("\t")[0] for line in capfd.readouterr().out.splitlines()} == set(task_ids)


def test_help_and_version(capfd: Captured) -> None:
    """Help names the commands and exit codes, each command's its options, on stdout."""
    assert run(["--help"]) == Exit.OK
    stdout = capfd.readouterr().out
    assert all(name in stdout for name in ("poll", "query", "demo", "simulate", "Exit codes"))
    assert run(["poll", "--help"]) == Exit.OK
    stdout = capfd.readouterr().out
    assert all(name in stdout for name in ("--from", "--jsonl", "--interval", "--base-url"))
    assert "--key" not in stdout
    assert run(["--version"]) == Exit.OK
    assert capfd.readouterr().out == f"{__version__}\n"


def exit_code(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    """Call the program."""
    monkeypatch.setattr(sys, "argv", ["kling-omni", *arguments])
    with pytest.raises(SystemExit) as caught:
        __main__.main()
    return caught.value.code


def test_the_program_exits_with_the_commands_code(
    monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    """What a command returns is the exit code of the program."""
    assert exit_code(monkeypatch, "--version") == 0
    assert exit_code(monkeypatch, "poll") == 2


@pytest.mark.parametrize("missing", ["cyclopts", "jinja2", "rich"])
def test_without_its_extra_the_program_says_what_to_install(
    missing: str, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    """A missing extra is one line that can be pasted, and exit code 2."""
    package = sys.modules["kling_omni_async._cli"]
    for name, module in list(sys.modules.items()):
        if name.startswith("kling_omni_async._cli."):
            # What is imported anew is not to stay behind in the package either.
            monkeypatch.setattr(package, name.rpartition(".")[2], module)
            monkeypatch.delitem(sys.modules, name)
        elif name.partition(".")[0] == missing:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    assert exit_code(monkeypatch, "demo") == Exit.USAGE
    assert capfd.readouterr() == (
        "",
        "kling-omni: the command line needs the extra cli: in the checkout, pip install '.[cli]'\n",
    )


def test_any_other_missing_module_is_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    """Advice to install the extra is given for nothing else."""
    monkeypatch.delitem(sys.modules, "kling_omni_async._cli.app")
    monkeypatch.setitem(sys.modules, "kling_omni_async._cli.demo", None)
    with pytest.raises(ModuleNotFoundError):
        __main__.main()


def test_an_early_signal_is_an_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C before a command has begun gives the same exit code."""

    def interrupted(_: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("kling_omni_async._cli.app.run", interrupted)
    assert exit_code(monkeypatch, "poll") == Exit.INTERRUPTED


def test_the_package_can_be_run(monkeypatch: pytest.MonkeyPatch, capfd: Captured) -> None:
    """``python -m kling_omni_async`` is the same program."""
    monkeypatch.setattr(sys, "argv", ["kling-omni", "--version"])
    monkeypatch.delitem(sys.modules, "kling_omni_async.__main__")
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("kling_omni_async", run_name="__main__")
    assert caught.value.code == 0
    assert capfd.readouterr().out == f"{__version__}\n"
