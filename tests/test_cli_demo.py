"""The demo: as scripted, in time, and honest when it is not."""

from __future__ import annotations

import time

import pytest

from kling_omni_async._cli import _demo
from kling_omni_async._cli._demo import Script, play, table
from kling_omni_async._cli._exit import Exit
from kling_omni_async._cli._view import Silent

from .cli_support import finish, start

SCRIPTED = {
    "succeeded": 170,
    "failed, with the right reason": 20,
    "not found": 10,
    "image URLs": 411,
    "answers 502 met on the way": 24,
    "answers 429 met on the way": 1,
    "queries that hung": 1,
}


@pytest.mark.heavy
def test_the_demo_runs_without_a_key() -> None:
    """As a program it shows progress, prints matching counts and ends well in under 20 s."""
    started = time.monotonic()
    code, stdout, stderr = finish(start("demo"))
    assert time.monotonic() - started < 20
    assert code == 0
    counts = [line.rsplit(maxsplit=2) for line in stdout.splitlines()[1:-1]]
    assert counts == [[row, f"{n:,}", f"{n:,}"] for row, n in SCRIPTED.items()]
    assert stdout.splitlines()[-1].startswith("everything came as scripted, in ")
    assert stderr.count(" of 200 done: ") >= 3


@pytest.mark.anyio
async def test_everything_comes_as_scripted() -> None:
    """Whatever the clock, 200 ids end in the counts that the script foretells."""
    script, counted = await play(Silent())
    assert script.expected == SCRIPTED
    assert counted == SCRIPTED


def test_the_demo_tells_when_something_is_amiss(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A count that differs is shown beside the scripted one, and the exit code is 1."""

    async def play(_: Silent) -> tuple[Script, dict[str, int]]:
        return Script([], {}, {"succeeded": 170}, ""), {"succeeded": 169}

    monkeypatch.setattr(_demo, "play", play)
    assert _demo.demo() == Exit.NOT_ALL
    assert "not as scripted, in " in capfd.readouterr().out


def test_the_table_has_aligned_columns() -> None:
    """Both counts stand right-aligned under their heads."""
    lines = table({"images": 1411}, {"images": 7}).splitlines()
    assert [line.split() for line in lines] == [["scripted", "seen"], ["images", "1,411", "7"]]
    assert len(set(map(len, lines))) == 1
