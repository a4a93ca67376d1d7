"""`generate --book` and `create --book`: the book knows each prompt, whatever ends a run."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from collections import Counter
from collections.abc import Generator
from functools import partial
from pathlib import Path

import attrs
import pytest

from kling_omni_async import ImageOrder, TaskBook
from kling_omni_async._book.book import open_inside
from kling_omni_async._book.contract import Intent
from kling_omni_async._cli.exit import Exit
from kling_omni_async._cli.prompts import digest_in_words
from kling_omni_async._cli.wanted import with_keys
from kling_omni_async._doors import external_id_in
from tests.support import new_session

from .books import FAST_BOOK, beside, counts_of, entry_in, in_book
from .support import Call, Neighbour
from .warm import warm

QUIET = ("--quiet", *FAST_BOOK)
REFUSAL = {"code": 1301, "message": "The prompt contains sensitive content"}


@pytest.fixture
def api() -> Generator[Neighbour]:
    """Run a simulator beside the test whose tasks end at once."""
    with beside(durations=lambda _: 0.0) as api:
        yield api


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where a book may be made, in the folder where commands run."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "tasks.db"


def billed(api: Neighbour) -> list[str]:
    """Return the ids of what was billed."""
    return [task.task_id for task in api.api.billed]


def names_in(stdout: str) -> list[str]:
    """Return the ids of plain lines."""
    return sorted(line.split("\t")[0] for line in stdout.splitlines())


def test_a_prompt_becomes_saved_images_and_an_entry_of_the_book(
    api: Neighbour, path: Path, call: Call
) -> None:
    """The outcome is told once its images are in the store, and the book has the note."""
    wish = ("a fox", "-n", "2", "--book", "tasks.db", "--note", '{"chat": 42}')
    code, stdout, stderr = call("generate", *wish, "--save", "images", *FAST_BOOK)
    (task_id,) = billed(api)
    names = [f"images/{task_id}-{number}.png" for number in (0, 1)]
    assert (code, stdout) == (Exit.OK, f"{task_id}\tsucceed\t{' '.join(names)}\n")
    assert all(Path(name).is_file() for name in names)
    assert "1 of 1 done: 1 succeeded; 2 images saved" in stderr
    entry = entry_in(path, task_id)
    assert entry is not None
    assert entry.note == {"chat": 42}
    counts = counts_of(path)
    assert (counts.pending, counts.unread, counts.succeeded) == (0, 0, 1)


def test_run_again_it_creates_nothing(api: Neighbour, path: Path, call: Call) -> None:
    """Two equal rows are two tasks, in each run the same two; a prompt that is new is created."""
    Path("prompts.txt").write_text("a fox\na fox\na hen\n", encoding="utf-8")
    command = ("generate", "--from", "prompts.txt", "--book", "tasks.db", *QUIET)
    code, stdout, _ = call(*command)
    assert (code, names_in(stdout)) == (Exit.OK, sorted(billed(api)))
    asked = len(api.api.queries)
    code, again, _ = call(*command)
    assert (code, names_in(again), len(billed(api))) == (Exit.OK, names_in(stdout), 3)
    assert len(api.api.queries) == asked
    call("generate", "a fox", "a fox", "a red fox", "--book", "tasks.db", *QUIET)
    assert len(billed(api)) == 4


def test_a_key_names_a_prompt_for_all_programs(api: Neighbour, path: Path, call: Call) -> None:
    """What the column says is the order's key; with other contents it is refused."""
    Path("a.csv").write_text("prompt,key\na fox,invoice-42\n", encoding="utf-8")
    Path("b.csv").write_text("prompt,key\na hen,invoice-42\n", encoding="utf-8")
    command = ("generate", "--book", "tasks.db", "--jsonl", "-", *QUIET, "--from")
    code, stdout, _ = call(*command, "a.csv")
    assert (code, json.loads(stdout)["order"]["key"]) == (Exit.OK, "invoice-42")
    code, stdout, _ = call(*command, "b.csv")
    assert code == Exit.NOT_ALL
    assert "'invoice-42' names another order of this book" in stdout
    assert len(billed(api)) == 1


def test_created_ids_are_in_the_book_for_others(api: Neighbour, path: Path, call: Call) -> None:
    """`create` prints them, in each run the same; `poll --book` hands out what comes of them."""
    command = ("create", "a fox", "a hen", "--book", "tasks.db", "--note", '"zoo"')
    code, stdout, stderr = call(*command)
    assert (code, stdout.split(), stderr) == (Exit.OK, billed(api), "")
    assert call(*command) == (code, stdout, stderr)
    assert len(billed(api)) == 2

    async def nudge(book: TaskBook) -> None:  # else it is asked for when it is likely to be done
        for task_id in billed(api):
            await book.nudge(task_id)

    in_book(path, nudge)
    code, lines, _ = call("poll", "--book", "tasks.db", "--jsonl", "-", *QUIET)
    outcomes = [json.loads(line) for line in lines.splitlines()]
    assert (code, {each["task_id"] for each in outcomes}) == (Exit.OK, set(stdout.split()))
    assert [each["note"] for each in outcomes] == ["zoo", "zoo"]


@pytest.mark.parametrize("verb", ["generate", "create"])
def test_what_is_refused_is_told_and_the_others_go_on(
    verb: str, api: Neighbour, path: Path, call: Call
) -> None:
    """An order that cannot be is a line of the table; run again it is sent again."""
    api.portal.call(
        partial(api.api.fail_next_create, status=400, body=json.dumps(REFUSAL).encode())
    )
    pace = () if verb == "create" else FAST_BOOK
    command = (verb, "a fox", "a hen", "--book", "tasks.db", *pace)
    code, stdout, stderr = call(*command)
    assert (code, len(billed(api))) == (Exit.NOT_ALL, 1)
    assert billed(api)[0] in stdout
    assert "The prompt contains sensitive content" in stderr
    assert call(*command)[0] == Exit.OK
    assert len(billed(api)) == 2


@pytest.mark.parametrize("verb", ["generate", "create"])
def test_a_refused_key_ends_a_run(
    verb: str, api: Neighbour, path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is created, and the exit code is that of the key."""
    monkeypatch.setenv("COMETAPI_KEY", "wrong")
    code, _, stderr = call(verb, "a fox", "a hen", "--book", "tasks.db")
    assert (code, billed(api)) == (Exit.KEY_REFUSED, [])
    assert "HTTP 401" in stderr


@pytest.mark.parametrize("verb", ["generate", "create"])
def test_what_is_in_doubt_is_looked_for_and_never_sent_again(
    verb: str, api: Neighbour, path: Path, call: Call
) -> None:
    """An intent whose process died, of which nothing is found, is told with its external id."""
    (order,) = with_keys([ImageOrder("a fox")], digest_in_words)
    name = external_id_in(new_session(api.api), order)
    dead = Intent(
        external_id=name,
        digest=digest_in_words(order),
        is_keyed=True,
        note=None,
        order="{}",
        lease_s=0.0,
        kind=None,
    )

    async def die(book: TaskBook) -> None:
        await (await open_inside(book)).store.intend(dead)

    in_book(path, die)
    code, _, stderr = call(verb, "a fox", "--book", "tasks.db")
    assert (code, billed(api)) == (Exit.NOT_ALL, [])
    assert "1 prompt is uncertain: each may be created, and paid for; run again to look" in stderr
    assert f"  {name}  a fox\n" in stderr


def test_what_is_broken_off_goes_on_later(api: Neighbour, path: Path, call: Call) -> None:
    """The line says how many prompts are left; run again, none of them is created twice."""
    with beside(durations=lambda _: math.inf) as slow:

        async def interrupt() -> None:
            while len(slow.api.billed) < 2:
                await slow.api.wait_for_queries(len(slow.api.queries) + 1)
            os.kill(os.getpid(), signal.SIGINT)

        slow.portal.start_task_soon(interrupt)
        command = ("generate", "a fox", "a hen", "--book", "tasks.db", *QUIET)
        code, stdout, stderr = call(*command)
        assert (code, stdout) == (Exit.INTERRUPTED, "")
        assert "2 prompts have no outcome; run the same command to go on\n" in stderr
        finish_all(slow)
        code, stdout, _ = call(*command)
        assert (code, names_in(stdout), len(billed(slow))) == (Exit.OK, sorted(billed(slow)), 2)


def finish_all(api: Neighbour) -> None:
    """Let all tasks end."""
    for task_id in billed(api):
        api.portal.call(api.api.finish, task_id)


@pytest.mark.heavy
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_killed_again_and_again_it_pays_once(path: Path, call: Call) -> None:
    """After each ``kill -9`` the next run goes on; each prompt has one task, and one outcome."""
    Path("prompts.txt").write_text("".join(f"a fox, view {n}\n" for n in range(9)), "utf-8")
    quick = ("--max-tasks", "3", "--query-timeout", "1s", *QUIET)
    command = ("generate", "--from", "prompts.txt", "--book", str(path), *quick)
    ends = [math.inf]
    with beside(durations=lambda _: ends[0], latency=0.02) as api:
        for count in (3, 6, 9):
            with warm(*command, env=api.env):
                while len(billed(api)) < count:
                    api.wait_for_queries(len(api.api.queries) + 1)
            api.catch_up()
            finish_all(api)
        code, stdout, stderr = call(*command)
        names = Counter(task.external_task_id for task in api.api.billed)
        assert (code, stderr, names_in(stdout)) == (Exit.OK, "", sorted(billed(api)))
    assert list(names.values()) == [1] * 9


def test_a_journal_of_creates_is_none_of_a_book(api: Neighbour, path: Path, call: Call) -> None:
    """What it has paid for the book does not know, so it is refused; others are added to."""
    assert call("generate", "a fox", "--jsonl", "run.jsonl", *QUIET)[0] == Exit.OK
    code, _, stderr = call("generate", "a fox", "--book", "tasks.db", "--jsonl", "run.jsonl")
    assert (code, len(billed(api)), path.exists()) == (Exit.USAGE, 1, False)
    assert stderr.startswith("kling-omni: run.jsonl knows what was created without a book")
    command = ("generate", "a fox", "--book", "tasks.db", "--jsonl", "new.jsonl", *QUIET)
    assert (call(*command)[0], call(*command)[0]) == (Exit.OK, Exit.OK)
    lines = [json.loads(line) for line in Path("new.jsonl").read_bytes().splitlines()]
    assert [each["task_id"] for each in lines] == [billed(api)[1]] * 2


OF_A_JOURNAL = (
    "--max-units, --retry-uncertain and --dry-run go by a journal: write --jsonl FILE instead of "
    "--book, or leave them out"
)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("generate x --note 1", "--name and --note are of a book: give --book too"),
        ("create x --name shop", "--name and --note are of a book: give --book too"),
        ("generate x --book tasks.db --dry-run", OF_A_JOURNAL),
        ("generate x --book tasks.db --max-units 8", OF_A_JOURNAL),
        ("create x --book tasks.db --retry-uncertain", OF_A_JOURNAL),
        (
            "create x --book tasks.db --jsonl run.jsonl",
            "--book knows what is created, as --jsonl does: give one of them",
        ),
        (
            "generate x --book tasks.db --note {",
            "--note cannot be '{': write JSON, such as '{\"chat\": 42}' or '\"a text\"'",
        ),
    ],
)
def test_wrong_usage_makes_no_book(arguments: str, line: str, path: Path, call: Call) -> None:
    """It is told before anything is sent."""
    code, stdout, stderr = call(*arguments.split())
    assert (code, stdout, stderr) == (Exit.USAGE, "", f"kling-omni: {line}\n")
    assert not path.exists()


def test_only_what_has_no_key_gets_one() -> None:
    """It is made of the contents, and of the number among equal ones; keys of users stay."""
    fox, named = ImageOrder("a fox"), ImageOrder("a fox", key="mine")
    keyed = with_keys([fox, named, fox, ImageOrder("a hen")], lambda order: order.prompt)
    assert [each.key for each in keyed] == ["a fox/1", "mine", "a fox/2", "a hen/1"]
    assert [attrs.evolve(each, key=None) for each in keyed[:2]] == [fox, fox]
