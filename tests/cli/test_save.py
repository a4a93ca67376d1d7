"""``poll --save``: images beside the journal, saved once, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import attrs
import pytest

from kling_omni_async import ImageTask, SavedImage, TaskImage, TaskOutcome, TaskStatus
from kling_omni_async._cli.exit import Exit, OutputError
from kling_omni_async._cli.journal import Entry
from kling_omni_async._cli.options import Saving
from kling_omni_async.simulator import SimulatedCometAPI

from .support import (
    FAST,
    Call,
    Neighbour,
    create,
    finish,
    neighbour,
    pending_in,
    running,
    start,
)
from .warm import warm

QUICK = ("--max-rate", "none", *FAST)
ROOT = Path(__file__).parents[2]

can_kill = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")


def names_in(folder: Path) -> list[str]:
    """Return the names of all files, hidden ones too."""
    return sorted(path.name for path in folder.iterdir())


def outcomes_in(journal: Path) -> list[TaskOutcome]:
    """Read a journal."""
    return [TaskOutcome.from_dict(json.loads(line)) for line in journal.read_bytes().splitlines()]


def test_images_and_journal(api: SimulatedCometAPI, call: Call, tmp_path: Path) -> None:
    """The images are in the directory, which is made, and the journal names them."""
    folder, journal = tmp_path / "new" / "images", tmp_path / "out.jsonl"
    task_ids = create(api, 3, duration=0.0, images=2)
    code, stdout, stderr = call("poll", *task_ids, "--save", str(folder), "--jsonl", str(journal))
    assert (code, stdout) == (Exit.OK, "")
    saved = [image for outcome in outcomes_in(journal) for image in outcome.saved]
    assert sorted(image.key for image in saved) == [str(folder / name) for name in names_in(folder)]
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert stderr.splitlines()[-1] == (
        f"kling-omni: 3 of 3 done: 3 succeeded; 6 images saved, {size / 1000:.1f} kB"
    )


def test_plain_lines_name_the_files(api: SimulatedCometAPI, call: Call, tmp_path: Path) -> None:
    """Without a journal each line has the paths of the images in place of their URLs."""
    (task_id,) = create(api, duration=0.0, images=2)
    code, stdout, _ = call("poll", task_id, "--save", str(tmp_path), "--quiet")
    paths = " ".join(str(tmp_path / f"{task_id}-{index}.png") for index in range(2))
    assert (code, stdout) == (Exit.OK, f"{task_id}\tsucceed\t{paths}\n")


@pytest.mark.parametrize("journal", [True, False], ids=["journal", "no journal"])
def test_the_second_run_downloads_nothing(
    *, api: SimulatedCometAPI, call: Call, journal: bool, tmp_path: Path
) -> None:
    """The same command again asks no host for an image, and changes no file."""
    extra = ("--jsonl", str(tmp_path / "out.jsonl")) if journal else ()
    task_ids = create(api, 3, duration=0.0, images=2)
    batch = (*task_ids, "--save", str(tmp_path / "images"), *extra)
    first, second = call("poll", *batch), call("poll", *batch)
    assert len(api.image_requests) == 6
    assert len(api.queries) == (3 if journal else 6)
    assert first[0] == second[0] == Exit.OK
    assert len(names_in(tmp_path / "images")) == 6


def test_what_is_missing_is_saved_by_the_next_run(
    api: SimulatedCometAPI, call: Call, tmp_path: Path
) -> None:
    """Ids that a journal calls settled are asked for again if their images are not there."""
    journal, folder = tmp_path / "out.jsonl", tmp_path / "images"
    task_ids = create(api, 2, duration=0.0)
    failing = create(api, 1, duration=0.0, fail="too dark")
    batch = (*task_ids, *failing, "--jsonl", str(journal))
    assert call("poll", *batch)[0] == Exit.NOT_ALL
    assert api.image_requests == ()
    assert call("poll", *batch, "--save", str(folder))[0] == Exit.NOT_ALL
    (folder / f"{task_ids[0]}-0.png").unlink()
    assert call("poll", *batch, "--save", str(folder))[0] == Exit.NOT_ALL
    assert len(api.image_requests) == 3
    assert len(api.queries_of(failing[0])) == 1
    assert names_in(folder) == sorted(f"{task_id}-0.png" for task_id in task_ids)


def test_what_could_not_be_saved(api: SimulatedCometAPI, call: Call, tmp_path: Path) -> None:
    """An image that is gone: its line says so, the exit code is 1, and it is tried again."""
    journal = tmp_path / "out.jsonl"
    gone, good = create(api, 2, duration=0.0)
    api.expire_images(gone)
    api.expire_images(gone, status=410)
    batch = (gone, good, "--save", str(tmp_path / "images"))
    code, stdout, stderr = call("poll", *batch)
    assert code == Exit.NOT_ALL
    lines = dict(line.split("\t", 1) for line in stdout.splitlines())
    assert lines[gone] == "not_saved\tHTTP 410: the URL has expired, or its image was cleared"
    assert "1 succeeded, 1 succeeded but not saved; 1 image saved" in stderr
    for _ in range(2):
        assert call("poll", *batch, "--jsonl", str(journal))[0] == Exit.NOT_ALL
    assert [outcome.task_id for outcome in outcomes_in(journal)].count(gone) == 2
    assert names_in(tmp_path / "images") == [f"{good}-0.png"]


def test_watermarked_and_overwrite(api: SimulatedCometAPI, call: Call, tmp_path: Path) -> None:
    """Both options reach the store, and make no sense without one."""
    (task_id,) = create(api, duration=0.0, watermarked=True)
    path = tmp_path / f"{task_id}-0-watermarked.png"
    path.write_text("mine")
    batch = (task_id, "--save", str(tmp_path), "--watermarked")
    code, stdout, _ = call("poll", *batch)
    assert code == Exit.NOT_ALL
    assert "; move it away, or give --overwrite\n" in stdout
    assert path.read_text() == "mine"
    assert call("poll", *batch, "--overwrite")[0] == Exit.OK
    assert path.read_bytes().startswith(b"\x89PNG")
    for option in ("--watermarked", "--overwrite"):
        code, _, stderr = call("poll", task_id, option)
        assert (code, "give --save too" in stderr) == (Exit.USAGE, True)


@pytest.mark.parametrize(
    ("store", "line"),
    [
        ("{file}", "cannot write to {file}: File exists"),
        ("{file}/below", "cannot write to {file}/below: Not a directory"),
        ("", "images cannot be saved to ''"),
        ("nonsense://bucket", "the store cannot be opened by its URL"),
    ],
)
def test_a_wrong_place_is_told_before_anything_is_asked(
    api: SimulatedCometAPI, call: Call, store: str, line: str, tmp_path: Path
) -> None:
    """What is wrong in the first line, exit code 2, and no query."""
    (tmp_path / "file").touch()
    file = str(tmp_path / "file")
    (task_id,) = create(api)
    code, _, stderr = call("poll", task_id, "--quiet", "--save", store.format(file=file))
    assert api.queries == ()
    assert code == Exit.USAGE
    assert stderr.startswith(f"kling-omni: {line.format(file=file)}")


@pytest.mark.heavy
@can_kill
def test_a_signal_while_images_come(tmp_path: Path) -> None:
    """Ctrl-C in the middle of a download: the id is still pending, and no file is left."""
    folder = tmp_path / "images"
    with neighbour() as api:
        (task_id,) = api.create(duration=0.0, image_bytes=1_000_000)
        api.portal.call(lambda: api.api.fail_next_image(bytes_per_second=1_000.0))
        call = ("poll", task_id, "--save", str(folder), "--quiet", *QUICK)
        with running(*call, env=api.env) as process:
            api.portal.call(api.api.wait_for_image_requests, 1)
            process.send_signal(signal.SIGINT)
            code, _, stderr = finish(process)
    assert (code, pending_in(stderr)) == (Exit.INTERRUPTED, [task_id])
    assert names_in(folder) == []


# What a journal says of images.


def saved_outcome(task_id: str = "1", *keys: str, images: int = 1) -> TaskOutcome:
    """Make the outcome of a task whose images have these keys."""
    urls = [f"https://images.test/{number}.png" for number in range(images)]
    task = ImageTask(
        task_id=task_id,
        status=TaskStatus.SUCCEED,
        images=tuple(TaskImage(url=url, index=index) for index, url in enumerate(urls)),
    )
    saved = tuple(
        SavedImage(key=key, url=urls[0], size=1, sha256="", content_type="image/png")
        for key in keys
    )
    return TaskOutcome(task_id=task_id, task=task, saved=saved)


@pytest.mark.parametrize(
    ("outcome", "done"),
    [
        (saved_outcome("1"), False),
        (saved_outcome("1", "elsewhere/1-0.png"), True),
        (saved_outcome("1", "C:\\elsewhere\\1-0.png"), True),
        (saved_outcome("1", "1-0.png", images=2), False),
        (saved_outcome("1", "1-0.png", "1-1.jpg", images=2), True),
        (saved_outcome("1", "1-0-watermarked.png"), False),
        (saved_outcome("1", "2-0.png"), False),
        (saved_outcome("2", "2-0.png"), False),
    ],
)
def test_what_counts_as_saved(outcome: TaskOutcome, *, done: bool, tmp_path: Path) -> None:
    """All images of the kind that is asked for are named, and are in the directory of this run."""
    for name in ("1-0.png", "1-1.jpg"):
        (tmp_path / name).touch()
    assert Saving(save=str(tmp_path)).is_done(Entry(outcome, "s3://bucket")) is done


@pytest.mark.parametrize(
    ("save", "store", "done"),
    [
        ("s3://bucket/prefix", "s3://bucket/prefix", True),
        ("S3://bucket/prefix/", "s3://bucket/prefix", True),
        ("s3://key:secret@bucket/prefix?region=x", "s3://bucket/prefix", True),
        ("s3://bucket/other", "s3://bucket/prefix", False),
        ("s3://other/prefix", "s3://bucket/prefix", False),
        ("gs://bucket/prefix", "s3://bucket/prefix", False),
        ("s3://bucket", "s3://bucket/prefix", False),
        ("s3://bucket/prefix", "/home/images", False),
        ("s3://bucket/prefix", None, False),
    ],
)
def test_what_counts_as_saved_in_a_store(save: str, store: str | None, *, done: bool) -> None:
    """The journal is believed if it names all images, and this very store."""
    assert Saving(save=save).is_done(Entry(saved_outcome("1", "prefix/1-0.png"), store)) is done
    assert not Saving(save=save).is_done(Entry(saved_outcome("1"), store))


@pytest.mark.parametrize(
    ("save", "name", "value", "store"),
    [
        ("s3://b/x", "AWS_ENDPOINT_URL", "http://u:p@minio:9000/?q", "s3://b/x#minio:9000"),
        ("S3://b/x", "AWS_ENDPOINT", "http://minio", "s3://b/x#minio"),
        ("gs://b", "GOOGLE_BASE_URL", "http://fake", "gs://b#fake"),
        ("az://b", "AZURE_ENDPOINT", "http://fake", "az://b#fake"),
        ("s3://b/x", "AWS_ENDPOINT_URL", "", "s3://b/x"),
        ("gs://b", "AWS_ENDPOINT_URL", "http://minio", "gs://b"),
    ],
)
def test_a_bucket_of_the_same_name_elsewhere_is_another_store(
    save: str, name: str, value: str, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One on this machine, to try things with, is not the one in the cloud."""
    monkeypatch.setenv(name, value)
    assert Saving(save=save).place == store


@pytest.mark.parametrize(
    ("save", "endpoint", "name"),
    [
        ("s3://[secret", "", "--save"),
        ("s3://secret]/x", "", "--save"),
        ("s3://b\u2100/x", "", "--save"),
        ("s3://bucket/x", "http://[secret", "AWS_ENDPOINT_URL"),
    ],
)
def test_a_url_that_is_none_is_told_before_anything_is_asked(
    save: str, endpoint: str, name: str, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the name of what holds it: the URL itself may have a key in it."""
    monkeypatch.setenv("COMETAPI_KEY", "secret-key")
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    told = f"kling-omni: {name} is no URL that can be read\n"
    assert call("poll", "1", "--save", save) == (Exit.USAGE, "", told)


def test_where_nothing_is_saved_every_end_is_one() -> None:
    """There is no store in which anything could be missing."""
    assert Saving().is_done(Entry(saved_outcome("1")))
    assert Saving().place is None


def test_a_file_url_is_a_directory(api: SimulatedCometAPI, call: Call, tmp_path: Path) -> None:
    """It is made before anything is asked, and what is missing in it is saved again."""
    folder, journal = tmp_path / "my images", tmp_path / "out.jsonl"
    batch = ("--save", folder.as_uri(), "--jsonl", str(journal))
    task_ids = create(api, 2, duration=0.0)
    assert call("poll", *task_ids, *batch)[0] == Exit.OK
    asked = len(api.queries)
    assert call("poll", *task_ids, *batch)[0] == Exit.OK
    assert len(api.queries) == asked
    names = names_in(folder)
    (folder / names[0]).unlink()
    assert call("poll", *task_ids, *batch)[0] == Exit.OK
    assert len(api.queries) == asked + 1
    assert names_in(folder) == names
    assert len(names) == 2


@pytest.mark.parametrize("save", ["file:///none%00there", "/dev/null/images", "/none\udce9\ud800"])
def test_what_no_directory_can_be_is_told_before_anything_is_asked(save: str) -> None:
    """Exit code 2, whatever the system says of the path."""
    with pytest.raises(OutputError, match="cannot write to") as caught:
        Saving(save=save).prepare()
    assert caught.value.code == Exit.USAGE


# Kills, and sizes.


def truth_of(api: Neighbour, task_ids: list[str]) -> dict[str, str]:
    """Fetch all images by other means; gives digests by file name."""
    truth: dict[str, str] = {}
    for task_id in task_ids:
        for index in range(2):
            url = f"{api.api.base_url}/assets/{task_id}-{index}.png"
            with urllib.request.urlopen(url) as response:  # noqa: S310 - of our own simulator
                truth[f"{task_id}-{index}.png"] = hashlib.sha256(response.read()).hexdigest()
    return truth


@attrs.define
class Folder:
    """A directory of images that kills have left behind."""

    path: Path

    def keep(self, count: int) -> int:
        """Remove the images beyond so many: however fast a run is, the next has some to fetch."""
        surplus = [path for path in self.path.iterdir() if path.name[0] != "."][count:]
        for path in surplus:
            path.unlink()
        return len(surplus)

    def parts(self) -> int:
        return sum(name.startswith(".") for name in names_in(self.path))

    def digests(self) -> dict[str, str]:
        return {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in self.path.iterdir()
            if not path.name.startswith(".")
        }


@pytest.mark.many
@can_kill
def test_kills_leave_no_half_image_under_its_name(tmp_path: Path) -> None:
    """After each of 20 kills every named file is whole; the last run fetches what is missing."""
    rng, folder, parts_seen, removed = random.Random(3), Folder(tmp_path / "images"), 0, 0
    folder.path.mkdir()
    with neighbour() as api:
        task_ids = api.create(120, duration=0.0, images=2, image_bytes=100_000)
        truth = truth_of(api, task_ids)
        fetched = len(api.api.image_requests)
        api.portal.call(lambda: api.api.fail_next_image(times=None, bytes_per_second=300_000.0))
        call = ("poll", *task_ids, "--save", str(folder.path), "--quiet", *QUICK)
        for _ in range(20):
            removed += folder.keep(180)
            before = len(api.api.image_requests)
            with warm(*call, env=api.env):
                api.portal.call(api.api.wait_for_image_requests, before + rng.randint(1, 14))
                time.sleep(rng.uniform(0.0, 0.35))
            parts_seen += folder.parts() > 0
            assert folder.digests().items() <= truth.items()
        api.portal.call(api.api.clear_image_faults)
        assert finish(start(*call, env=api.env))[0] == Exit.OK
        assert folder.digests() == truth
        assert len(api.api.image_requests) - fetched <= 240 + removed + 20 * 8
    assert parts_seen > 0


@pytest.mark.many
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read as on Linux")
def test_2000_images_of_1_mb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """2 GB go to the disk in little memory, and the same batch again fetches nothing."""
    with neighbour() as api:
        task_ids = api.create(500, duration=0.0, images=4, image_bytes=1_000_000)
        for run in ("first", "second"):
            figures = save_in_a_process(api, task_ids, tmp_path)
            with capsys.disabled():
                sys.stdout.write(f"\n{run} run: {figures}\n")
            assert figures["outcomes"] == 500
            assert (figures["images"], figures["bytes"]) == (2_000, 2_000_000_000)
            assert figures["rss_mb"] < 150
            assert len(api.api.image_requests) == 2_000
    for path in tmp_path.iterdir():
        assert path.stat().st_size == 1_000_000
        path.unlink()  # pytest keeps the folders of its last runs


def save_in_a_process(api: Neighbour, task_ids: list[str], folder: Path) -> dict[str, float]:
    """Save images by a program of its own; gives what it tells."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")
    }
    result = subprocess.run(
        [sys.executable, "-m", "tests.saving.program_save", str(folder)],
        cwd=ROOT,
        env={**environment, **api.env},
        input="\n".join(task_ids),
        capture_output=True,
        text=True,
        check=True,
    )
    figures: dict[str, float] = json.loads(result.stdout)
    return figures
