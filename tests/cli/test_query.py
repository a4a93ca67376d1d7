"""`query`: a table on a terminal, JSON lines elsewhere."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import UTC, datetime

import pytest

from kling_omni_async import (
    ImageTask,
    InvalidTaskIdError,
    ServerError,
    TaskImage,
    TaskNotFoundError,
    TaskStatus,
)
from kling_omni_async._cli.exit import Exit
from kling_omni_async._cli.query import Answers, Reply
from kling_omni_async.simulator import SimulatedCometAPI

from .support import Call, OnScreen, bare, create

UNKNOWN = "123456789012345678"
MOMENT = datetime(2026, 11, 22, 13, 14, 15, tzinfo=UTC)


def test_a_terminal_gets_a_table(api: SimulatedCometAPI, on_screen: OnScreen) -> None:
    """A row for each id in the order given, also for one without an answer, then whole URLs."""
    (good,) = create(api, duration=0.0, images=2)
    (bad,) = create(api, duration=0.0, fail="[red]no\x1b[2J")
    code, text = on_screen("query", good, bad, UNKNOWN)
    assert code == Exit.NOT_ALL
    lines = [line.rstrip() for line in bare(text).splitlines()]
    assert lines[0].split() == ["task", "status", "images", "updated", "message"]
    rows = [line for line in lines if re.match(rf"{good}|{bad}|{UNKNOWN}", line)]
    assert [row.split()[0] for row in rows[:3]] == [good, bad, UNKNOWN]
    assert rows[0].split()[1:3] == ["succeed", "2"]
    assert "failed" in rows[1]
    assert "not found" in rows[2]
    images = [f"{api.base_url}/assets/{good}-{index}.png" for index in range(2)]
    assert rows[3:] == [f"{good}  {image}" for image in images]
    assert "\x1b[2J" not in text
    assert "kling-omni:" not in text


def test_the_table_fits_a_narrow_terminal(api: SimulatedCometAPI, on_screen: OnScreen) -> None:
    """At 80 columns no row is wider, whatever the API says; ids are whole."""
    ids = create(api, 2, duration=0.0, fail="word " * 60)
    code, text = on_screen("query", *ids)
    assert code == Exit.NOT_ALL
    lines = bare(text).splitlines()
    assert max(map(len, lines)) <= 80
    assert all(any(line.startswith(task_id) for line in lines) for task_id in ids)
    assert bare(text).count("word") == 120


def test_json_lines_are_one_task_each(api: SimulatedCometAPI, call: Call) -> None:
    """In a pipe each line is one object, without colours."""
    ids = create(api, 2, duration=0.0)
    code, stdout, _ = call("query", *ids)
    assert code == Exit.OK
    assert [json.loads(line)["task_id"] for line in stdout.splitlines()] == ids


def test_a_terminal_gets_json_if_it_is_wanted(api: SimulatedCometAPI, on_screen: OnScreen) -> None:
    """With --json each line is one object on a terminal too, without colours."""
    ids = create(api, 2, duration=0.0)
    code, text = on_screen("query", *ids, "--json")
    assert code == Exit.OK
    assert [json.loads(line)["task_id"] for line in text.splitlines()] == ids


def test_a_row_has_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """A time of day as the user's clock shows it, and the error's own line where there is none."""
    monkeypatch.setenv("COLUMNS", "200")
    answers = Answers()
    image = TaskImage(url="https://i.test/1.png")
    status = TaskStatus.SUCCEED
    replies: tuple[Reply, ...] = (
        ImageTask(task_id="1", status=status, images=(image,), updated_at=MOMENT),
        ImageTask(task_id="2", status=TaskStatus.PROCESSING),
        ServerError("down", http_status=502),
        TaskNotFoundError("task_not_exist", http_status=400),
        InvalidTaskIdError("'a b' has white space"),
    )
    for number, reply in enumerate(replies, 1):
        asyncio.run(answers.add(str(number), reply))
    rows = [line.split("  ") for line in answers.drawn().splitlines()[2:]]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert cells == [
        ["1", "succeed", "1", f"{MOMENT.astimezone():%d %b %H:%M:%S}"],
        ["2", "processing"],
        ["3", "no answer", "HTTP 502: down"],
        ["4", "not found", "HTTP 400: task_not_exist"],
        ["5", "not a task id", "'a b' has white space"],
        ["1", "https://i.test/1.png"],
    ]


def test_trouble_is_one_line_with_a_hint(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look that brings nothing is told once: no warning speaks of asking again."""
    monkeypatch.setenv("COMETAPI_KEY", "k")
    code, stdout, stderr = call("query", "1", "--base-url", "http://127.0.0.1:9")
    assert (code, stdout) == (Exit.NOT_ALL, "")
    (line,) = stderr.splitlines()
    assert line == (
        "kling-omni: 1: connect: 127.0.0.1:9: Connection refused; "
        "check --base-url or COMETAPI_BASE_URL, the network and the proxy"
    )
