"""`poll --book`: what a book holds is handed out, once it is written it is acknowledged."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import signal
from collections.abc import Generator
from pathlib import Path

import pytest

from kling_omni_async import TaskBook, TaskOutcome
from kling_omni_async._cli.exit import Exit
from kling_omni_async._cli.job import PollJob

from .books import FAST_BOOK, Pieces, beside, counts_of, make_book
from .support import Call, Neighbour, OnScreen, bare, ids_in

QUIET = ("--quiet", *FAST_BOOK)


@pytest.fixture
def api() -> Generator[Neighbour]:
    """Run a simulator beside the test."""
    with beside() as api:
        yield api


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where a book may be made, in the folder where commands run."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "tasks.db"


def told(stdout: str) -> dict[str, str]:
    """Return the word for each id of plain lines."""
    return {line.split("\t")[0]: line.split("\t")[1] for line in stdout.splitlines()}


def rows_in(table: str) -> dict[str, str]:
    """Return the word for each id of a table."""
    with Path(table).open(encoding="utf-8", newline="") as file:
        return {row["task_id"]: row["result"] for row in csv.DictReader(file)}


def test_ids_are_added_polled_and_handed_out(api: Neighbour, path: Path, call: Call) -> None:
    """Each id comes out once, as without a book, and the exit code says how they ended."""
    good, bad = api.create(3, duration=0.1), api.create(duration=0.1, fail="no")
    Path("ids.txt").write_text("\n".join(good[1:]), encoding="utf-8")
    command = ("poll", "--book", "tasks.db", good[0], *bad, "--from", "ids.txt", *FAST_BOOK)
    code, stdout, stderr = call(*command)
    assert code == Exit.NOT_ALL
    assert told(stdout) == {**dict.fromkeys(good, "succeed"), bad[0]: "failed"}
    assert "failed   how      why   such as" in stderr
    assert stderr.endswith("kling-omni: 4 of 4 done: 3 succeeded, 1 failed\n")
    counts = counts_of(path)
    assert (counts.pending, counts.unread, counts.succeeded) == (0, 0, 3)


def test_run_again_it_hands_out_nothing_twice(api: Neighbour, path: Path, call: Call) -> None:
    """Given ids that came out before count as those of an earlier run; without ids nothing does."""
    ids = [*api.create(2, duration=0.0), *api.create(duration=0.0, fail="no")]
    assert call("poll", "--book", "tasks.db", *ids, *QUIET)[0] == Exit.NOT_ALL
    asked = len(api.api.queries)
    code, stdout, stderr = call("poll", "--book", "tasks.db", *ids, *FAST_BOOK)
    assert (code, stdout) == (Exit.NOT_ALL, "")
    assert stderr.endswith(
        "kling-omni: 3 of 3 done: 2 succeeded, 1 failed; 3 of them by an earlier run\n"
    )
    assert call("poll", "--book", "tasks.db", *QUIET) == (Exit.OK, "", "")
    assert len(api.api.queries) == asked


def test_what_others_have_added_and_polled_comes_out(
    api: Neighbour, path: Path, call: Call
) -> None:
    """An outcome that nobody has read is handed out and asked for no more."""
    (good,), (bad,) = api.create(duration=0.0), api.create(duration=0.0, fail="no")
    make_book(path, good, bad)
    assert call("work", "tasks.db", "--until-empty", *QUIET)[0] == Exit.OK
    code, stdout, _ = call("poll", "--book", "tasks.db", *QUIET)
    assert (code, told(stdout)) == (Exit.NOT_ALL, {good: "succeed", bad: "failed"})
    assert len(api.api.queries) == 2


def test_images_are_saved(api: Neighbour, path: Path, call: Call) -> None:
    """They are in the store before the outcome is told."""
    (task_id,) = api.create(duration=0.0, images=2)
    command = ("poll", "--book", "tasks.db", task_id, "--save", "images", *FAST_BOOK)
    code, stdout, stderr = call(*command)
    names = [f"images/{task_id}-{number}.png" for number in (0, 1)]
    assert (code, stdout) == (Exit.OK, f"{task_id}\tsucceed\t{' '.join(names)}\n")
    assert all(Path(name).is_file() for name in names)
    assert "1 of 1 done: 1 succeeded; 2 images saved" in stderr


def test_a_journal_is_only_written(api: Neighbour, path: Path, call: Call) -> None:
    """What stands there already is no reason to ask for nothing: the book says what is done."""
    ids = api.create(2, duration=0.0)
    assert call("poll", ids[0], "--jsonl", "run.jsonl", *QUIET)[0] == Exit.OK
    code, stdout, _ = call("poll", "--book", "tasks.db", *ids, "--jsonl", "run.jsonl", *QUIET)
    assert (code, stdout) == (Exit.OK, "")
    assert sorted(ids_in(Path("run.jsonl"))) == sorted([ids[0], *ids])
    code, stdout, _ = call("poll", "--book", "new.db", *ids, "--jsonl", "-", *QUIET)
    assert sorted(json.loads(line)["task_id"] for line in stdout.splitlines()) == sorted(ids)


def test_the_table_has_all_rows_of_the_input(api: Neighbour, path: Path, call: Call) -> None:
    """Those too that came out before, and what others have added gets rows of its own."""
    ids = api.create(3, duration=0.0)
    make_book(path, ids[2])
    assert call("poll", "--book", "tasks.db", ids[0], *QUIET)[0] == Exit.OK
    Path("in.csv").write_text(f"task_id,name\n{ids[0]},a\n{ids[1]},b\n", encoding="utf-8")
    command = ("poll", "--book", "tasks.db", "--from", "in.csv", "--csv", "out.csv", *QUIET)
    assert call(*command)[0] == Exit.OK
    assert rows_in("out.csv") == dict.fromkeys(ids[:2], "succeed")
    assert "name,result,images,reason" in Path("out.csv").read_text(encoding="utf-8")
    make_book(path, *api.create(duration=0.0))
    assert call(*command)[0] == Exit.OK
    assert len(rows_in("out.csv")) == 3


def test_a_stream_is_in_the_book_before_the_first_comes_out(
    api: Neighbour, path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows are in the table, too, and an id that comes twice is one."""
    ids = api.create(2, duration=0.0)
    pieces = [f"{each}\n".encode() for each in [*ids, ids[0]]]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(Pieces(pieces)))
    command = ("poll", "--book", "tasks.db", "--from", "-", "--csv", "out.csv", *FAST_BOOK)
    code, stdout, stderr = call(*command)
    assert (code, told(stdout)) == (Exit.OK, dict.fromkeys(ids, "succeed"))
    assert rows_in("out.csv") == dict.fromkeys(ids, "succeed")
    assert stderr.endswith("kling-omni: 2 of 2 done: 2 succeeded\n")


def test_what_is_broken_off_goes_on_later(
    api: Neighbour, path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line says how much is left; what was written is acknowledged and comes no more."""
    ids, slow = api.create(3, duration=0.0), api.create(2, duration=math.inf)
    add = PollJob.finish

    def finish(job: PollJob, outcome: TaskOutcome) -> None:
        add(job, outcome)
        if job.tally.done == len(ids):
            signal.raise_signal(signal.SIGINT)

    command = ("poll", "--book", "tasks.db", *ids, *slow, "--csv", "out.csv", *QUIET)
    with monkeypatch.context() as patched:
        patched.setattr(PollJob, "finish", finish)
        code, stdout, stderr = call(*command)
    assert (code, told(stdout)) == (Exit.INTERRUPTED, dict.fromkeys(ids, "succeed"))
    # The last one may have been written at that moment, and not acknowledged.
    interrupted, left = stderr.splitlines()
    assert interrupted == "kling-omni: interrupted"
    assert left in {f"{number} left; run the same command to go on" for number in (2, 3)}
    assert rows_in("out.csv") == {**dict.fromkeys(ids, "succeed"), **dict.fromkeys(slow, "pending")}
    for task_id in slow:
        api.portal.call(api.api.finish, task_id)
    code, stdout, _ = call(*command)
    assert code == Exit.OK
    assert told(stdout).keys() >= set(slow)
    assert rows_in("out.csv") == dict.fromkeys([*ids, *slow], "succeed")


def test_what_cannot_be_written_comes_again(
    api: Neighbour, path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An outcome that nobody could read is not acknowledged."""
    (task_id,) = api.create(duration=0.0)
    with monkeypatch.context() as patched:
        patched.setattr("sys.stdout", None)
        code, _, stderr = call("poll", "--book", "tasks.db", task_id, *QUIET)
    assert code == Exit.NOT_ALL
    assert stderr.splitlines() == [
        "kling-omni: cannot write to stdout: it is closed",
        "1 left; run the same command to go on",
    ]
    code, stdout, _ = call("poll", "--book", "tasks.db", *QUIET)
    assert (code, told(stdout)) == (Exit.OK, {task_id: "succeed"})
    assert len(api.api.queries_of(task_id)) == 1


def test_a_refused_key_is_told_once(
    api: Neighbour, path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What had ended before comes out all the same, and the rest stays in the book."""
    (good,), (slow,) = api.create(duration=0.0), api.create(duration=math.inf)
    make_book(path, good)
    assert call("work", "tasks.db", "--until-empty", *QUIET)[0] == Exit.OK
    monkeypatch.setenv("COMETAPI_KEY", "wrong")
    code, stdout, stderr = call("poll", "--book", "tasks.db", slow, *QUIET)
    assert (code, told(stdout)) == (Exit.KEY_REFUSED, {good: "succeed"})
    warning, line, left = stderr.splitlines()
    assert warning.startswith("kling-omni: warning: AuthenticationError (HTTP 401): ")
    assert line.startswith("kling-omni: the key is refused: HTTP 401: ")
    assert left == "1 left; run the same command to go on"


def test_a_removed_id_is_no_success(api: Neighbour, path: Path, call: Call) -> None:
    """What others take out of the book while it is polled comes out nowhere."""
    (gone,) = api.create(duration=math.inf)

    async def remove() -> None:
        await api.api.wait_for_queries(1)
        async with TaskBook(path) as book:
            await book.remove(gone)

    api.portal.start_task_soon(remove)
    code, stdout, stderr = call("poll", "--book", "tasks.db", gone, *FAST_BOOK)
    assert (code, stdout) == (Exit.NOT_ALL, "")
    assert stderr.endswith("kling-omni: 0 of 1 done: nothing yet\n")


def test_a_terminal_has_results_above_the_lines(
    api: Neighbour, path: Path, on_screen: OnScreen
) -> None:
    """Each result is a line of its own, and the last one has the counts of this run."""
    ids = api.create(2, duration=0.0)
    code, text = on_screen("poll", "--book", "tasks.db", *ids, *FAST_BOOK, columns=120)
    assert code == Exit.OK
    assert text.endswith("kling-omni: 2 of 2 done: 2 succeeded\n")
    for task_id in ids:
        assert re.search(rf"{task_id}\s+succeed\s+http", bare(text))


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--column", "id"], "--column says where a file has its ids: give --from too"),
        (["ids.txt"], "ids.txt is a file, not an id: write poll --book BOOK --from ids.txt"),
        (["1", "--overwrite"], "--watermarked and --overwrite say how to save: give --save too"),
        (["a b"], "task id 'a b' holds white space or control characters; give it without them"),
    ],
)
def test_wrong_usage_makes_no_book(arguments: list[str], line: str, path: Path, call: Call) -> None:
    """It is told before anything is begun."""
    Path("ids.txt").touch()
    code, stdout, stderr = call("poll", "--book", "tasks.db", *arguments)
    assert (code, stdout, stderr) == (Exit.USAGE, "", f"kling-omni: {line}\n")
    assert not path.exists()
