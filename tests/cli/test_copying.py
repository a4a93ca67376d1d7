"""``poll --save`` into another store: filled from the one that has the images, or by their URLs."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from kling_omni_async import ConfigurationError
from kling_omni_async._cli.copying import Copies
from kling_omni_async._cli.exit import Exit
from kling_omni_async._cli.options import Saving
from kling_omni_async._cli.results import Sink
from kling_omni_async._saving.files import LocalStore
from kling_omni_async._saving.object_store import RemoteStore
from kling_omni_async.simulator import SimulatedCometAPI

from .support import FAST, Call, create


def lines_of(journal: Path) -> list[dict[str, Any]]:
    """Read the lines of a journal."""
    return [json.loads(line) for line in journal.read_bytes().splitlines()]


def files_in(folder: Path) -> dict[str, bytes]:
    """Read all files of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Runs:
    """The same ids, polled with the same journal into one store after another."""

    def __init__(self, api: SimulatedCometAPI, call: Call, folder: Path) -> None:
        self.api = api
        self.folder = folder
        self.task_ids = create(api, 3, duration=0.0, images=2)
        self.journal = folder / "out.jsonl"
        self._call = call

    def poll(self, save: str, *more: str) -> tuple[int, int, int, str]:
        """Poll into a store; give the code, the queries, the downloads, and what was told."""
        before = len(self.api.queries), len(self.api.image_requests)
        batch = (*self.task_ids, "--save", save, "--jsonl", str(self.journal), *more, *FAST)
        code, _, stderr = self._call("poll", *batch)
        queries, downloads = len(self.api.queries), len(self.api.image_requests)
        return code, queries - before[0], downloads - before[1], stderr


@pytest.fixture
def runs(api: SimulatedCometAPI, call: Call, tmp_path: Path) -> Runs:
    """Poll three tasks into a folder."""
    runs = Runs(api, call, tmp_path)
    assert runs.poll(f"{tmp_path}/one")[:3] == (Exit.OK, 3, 6)
    return runs


def test_another_folder_is_filled_from_the_first(runs: Runs) -> None:
    """Nothing is asked and nothing fetched; each folder is known as done afterwards."""
    code, queries, downloads, stderr = runs.poll(f"{runs.folder}/two")
    assert (code, queries, downloads) == (Exit.OK, 0, 0)
    assert "3 of 3 done: 3 succeeded; 6 images saved" in stderr
    assert files_in(runs.folder / "two") == files_in(runs.folder / "one")
    *_, last = lines_of(runs.journal)
    assert last["store"] == str(runs.folder / "two")
    for name in ("one", "two"):
        assert "by an earlier run" in runs.poll(f"{runs.folder}/{name}")[3]
    assert len(lines_of(runs.journal)) == 6


def test_an_object_store_is_filled_from_a_folder(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each store and each prefix has its own images; the last store that can be read is enough."""

    async def pass_over(_: object) -> None:
        """Leave out what has a limit: obstore works in threads that no virtual clock knows."""

    monkeypatch.setattr(RemoteStore, "try_out", pass_over)
    for place in ("memory:///run/7", "memory:///run/8"):
        assert runs.poll(place)[:3] == (Exit.OK, 0, 0)
        assert [line["store"] for line in lines_of(runs.journal)][-3:] == [place] * 3
    assert "by an earlier run" in runs.poll("memory:///run/7/")[3]


def test_what_cannot_be_read_is_fetched(runs: Runs) -> None:
    """The URL is what is left where the other store has gone, or has something else by now."""
    (runs.folder / "one" / f"{runs.task_ids[0]}-1.png").write_bytes(b"")
    code, queries, downloads, stderr = runs.poll(f"{runs.folder}/two", "-v")
    assert (code, queries, downloads) == (Exit.OK, 1, 1)
    assert f"images of task '{runs.task_ids[0]}' cannot be copied: " in stderr
    shutil.rmtree(runs.folder / "one")
    shutil.rmtree(runs.folder / "two")
    assert runs.poll(f"{runs.folder}/three")[:3] == (Exit.OK, 3, 6)


def test_a_bucket_at_another_host_is_no_source(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the same name there is another one by now, which is not even asked."""
    lines = lines_of(runs.journal)
    for line in lines:
        line["store"] = "s3://bucket/x#minio:9000"
    runs.journal.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    code, queries, _, stderr = runs.poll(f"{runs.folder}/two", "-v")
    assert (code, queries) == (Exit.OK, 3)
    assert "s3://bucket/x#minio:9000 cannot be reached from here" in stderr


def test_what_names_no_store_is_no_source(runs: Runs) -> None:
    """A line that somebody has changed by hand ends no run: the images are fetched."""
    lines = lines_of(runs.journal)
    for line in lines:
        line["store"] = "s3://[x"
    runs.journal.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert runs.poll(f"{runs.folder}/two")[:2] == (Exit.OK, 3)


def test_a_journal_of_an_earlier_version_will_do(runs: Runs) -> None:
    """It names no store, but the keys of a folder begin with its path."""
    lines = lines_of(runs.journal)
    for line in lines:
        del line["store"]
    runs.journal.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert runs.poll(f"{runs.folder}/two")[:3] == (Exit.OK, 0, 0)


def test_a_store_that_takes_nothing_is_told(runs: Runs) -> None:
    """What cannot be copied into it cannot be fetched into it: the ids are not settled."""
    (runs.folder / "two").mkdir()
    for task_id in runs.task_ids:
        (runs.folder / "two" / f"{task_id}-0.png").mkdir()
    code, queries, _, stderr = runs.poll(f"{runs.folder}/two")
    assert (code, queries) == (Exit.NOT_ALL, 3)
    assert "3 succeeded but not saved" in stderr


def test_a_store_is_tried_before_anything_is_copied(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that takes nothing is told once, and not with each image."""

    async def refuse(_: object) -> None:
        raise ConfigurationError("images cannot be saved here")

    monkeypatch.setattr(LocalStore, "try_out", refuse)
    code, queries, _, stderr = runs.poll(f"{runs.folder}/two")
    assert (code, queries) == (Exit.USAGE, 0)
    assert stderr.endswith("kling-omni: images cannot be saved here\n")


def test_ids_of_a_stream_are_copied_too(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that come are looked up like those that are known."""
    stream = Path(runs.folder / "stream")
    stream.write_text("\n".join(runs.task_ids))
    runs.task_ids = ["--from", str(stream)]
    monkeypatch.setattr("kling_omni_async._cli.inputs._is_regular", lambda _: False)
    assert runs.poll(f"{runs.folder}/two")[:3] == (Exit.OK, 0, 0)
    assert files_in(runs.folder / "two") == files_in(runs.folder / "one")


def test_a_line_that_cannot_be_read_any_more_is_no_source() -> None:
    """Whoever edits a journal while it is in use has the ids asked for."""
    sink = Sink(no_write, elsewhere=["1"])
    assert asyncio.run(Copies(sink, Saving(save="images")).bring("1")) is None
    assert Copies(sink, Saving(save="images")).may_have("1")
    assert not Copies(sink, Saving()).may_have("1")


async def no_write(_: object) -> None:
    """Write nothing."""
