"""The batch program: its results, and that nothing is done twice after a crash."""

from __future__ import annotations

import csv
import math
from collections.abc import Generator, Sequence
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from kling_omni_async.simulator import SimulatedCometAPI
from tests.storage.bucket import Bucket

from .program import Program, environment, running, until

pytestmark = pytest.mark.anyio

FAST = ("--interval", "0.1", "0.15")
KILL_AFTER = 3


@pytest.fixture
def bucket() -> Generator[Bucket]:
    """Give a bucket of an S3 on this machine."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield Bucket(f"http://{host}:{port}")
    server.stop()


def write_tasks(folder: Path, task_ids: Sequence[str]) -> None:
    """Write the input: a table with more columns, and one id twice."""
    with (folder / "tasks.csv").open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([("name", "task_id"), *[("a, b", i) for i in task_ids]])
        csv.writer(file).writerow(("again", task_ids[0]))


def rows_of(folder: Path) -> list[dict[str, str]]:
    """Read the results."""
    with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def count_rows(folder: Path) -> int:
    """Count the rows that are whole by now."""
    results = folder / "results.csv"
    return max(0, results.read_bytes().count(b"\n") - 1) if results.exists() else 0


async def run(api: SimulatedCometAPI, folder: Path, *options: str) -> tuple[int, Program]:
    """Run the program to its end."""
    arguments = ("tasks.csv", "results.csv", *FAST, *options)
    env = environment(api)
    async with running("batch.py", *arguments, env=env, folder=folder) as program:
        return await program.ends(), program


async def test_each_id_gets_one_row(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """Images are on the disk; a failed and an unknown id have a row too, a malformed one a line."""
    good = [comet_api.create_task(duration=0.2, images=2) for _ in range(5)]
    failed = comet_api.create_task(duration=0.0, fail="Image pixel\nis invalid")
    write_tasks(tmp_path, [*good, failed, "nobody", "with space"])
    code, program = await run(comet_api, tmp_path)
    assert code == 1, program.output
    rows = {row["task_id"]: row for row in rows_of(tmp_path)}
    assert len(rows_of(tmp_path)) == len(rows) == 7
    for task_id in good:
        assert rows[task_id]["result"] == "ok"
        assert len(images := rows[task_id]["images"].split()) == 2
        assert all((tmp_path / image).read_bytes().startswith(b"\x89PNG") for image in images)
    assert rows[failed]["result"] == "failed"
    assert rows[failed]["reason"].endswith("Image pixel is invalid")
    assert rows["nobody"]["result"] == "failed"
    assert "no row: with space: InvalidTaskIdError: " in program.output
    assert "8 of 8" in program.output


def requests_for(api: SimulatedCometAPI, name: str) -> list[str]:
    """Give the requests for an image."""
    return [each.path for each in api.image_requests if each.path.endswith(f"/{name}")]


async def test_after_a_kill_nothing_is_done_twice(
    comet_api: SimulatedCometAPI, tmp_path: Path
) -> None:
    """``kill -9`` leaves one row for each id: none with a row is asked, no stored image fetched."""
    task_ids = [comet_api.create_task(duration=math.inf, images=2) for _ in range(12)]
    write_tasks(tmp_path, task_ids)
    arguments = ("tasks.csv", "results.csv", *FAST)
    env = environment(comet_api)
    async with running("batch.py", *arguments, env=env, folder=tmp_path) as program:
        await comet_api.wait_for_queries(2 * len(task_ids))
        for task_id in task_ids[:KILL_AFTER]:
            comet_api.finish(task_id)
        await until(lambda: count_rows(tmp_path) >= KILL_AFTER)
        for task_id in task_ids[KILL_AFTER : 2 * KILL_AFTER]:
            comet_api.finish(task_id)
        await comet_api.wait_for_image_requests(2 * KILL_AFTER + 1)
        await program.kill()
    before = [row["task_id"] for row in rows_of(tmp_path)]
    stored = {path.name for path in (tmp_path / "images").glob("[!.]*")}
    queries = {task_id: len(comet_api.queries_of(task_id)) for task_id in before}
    with (tmp_path / "results.csv").open("a") as file:
        file.write(f"{task_ids[-1]},ok,images/")
    for task_id in set(task_ids) - set(before):
        comet_api.finish(task_id)

    code, program = await run(comet_api, tmp_path)
    assert code == 0, program.output
    rows = rows_of(tmp_path)
    assert sorted(row["task_id"] for row in rows) == sorted(task_ids)
    assert {row["result"] for row in rows} == {"ok"}
    assert {task_id: len(comet_api.queries_of(task_id)) for task_id in before} == queries
    assert len(stored) >= 2 * KILL_AFTER
    assert [len(requests_for(comet_api, name)) for name in stored] == [1] * len(stored)


async def test_what_may_pass_is_taken_up_later(
    comet_api: SimulatedCometAPI, tmp_path: Path
) -> None:
    """An image that does not come leaves its id without a row, and the next run gets it."""
    done, late = (comet_api.create_task(duration=0.0) for _ in range(2))
    write_tasks(tmp_path, [done, late])
    comet_api.fail_next_image(late, html=True)
    code, program = await run(comet_api, tmp_path)
    assert (code, [row["task_id"] for row in rows_of(tmp_path)]) == (1, [done])
    assert f"no row: {late}: DownloadError: " in program.output
    code, program = await run(comet_api, tmp_path)
    assert (code, [row["task_id"] for row in rows_of(tmp_path)]) == (0, [done, late])
    assert "1 done already, 1 to do" in program.output


async def test_a_wrong_key_ends_it_with_one_line(
    comet_api: SimulatedCometAPI, tmp_path: Path
) -> None:
    """What is wrong with the set-up is told, without the key."""
    write_tasks(tmp_path, [comet_api.create_task()])
    env = {**environment(comet_api), "COMETAPI_KEY": "sk-wrong"}
    arguments = ("tasks.csv", "results.csv", *FAST)
    async with running("batch.py", *arguments, env=env, folder=tmp_path) as program:
        assert await program.ends() == 1
    assert program.output.splitlines()[-1].startswith("AuthenticationError: HTTP 401")
    assert "sk-wrong" not in program.output


async def test_images_go_to_s3(
    comet_api: SimulatedCometAPI, tmp_path: Path, bucket: Bucket
) -> None:
    """With ``s3://`` the rows have the keys of objects that are there, whole."""
    task_ids = [comet_api.create_task(duration=0.0, images=2) for _ in range(3)]
    write_tasks(tmp_path, task_ids)
    env = {**environment(comet_api), **bucket.environment}
    arguments = ("tasks.csv", "results.csv", *FAST, "--save-to", f"s3://{bucket.name}/winter")
    async with running("batch.py", *arguments, env=env, folder=tmp_path) as program:
        assert await program.ends() == 0, program.output
    keys = {key for row in rows_of(tmp_path) for key in row["images"].split()}
    assert (len(keys), len(bucket.keys)) == (6, 6)
    assert all(any(found.endswith(key) for key in keys) for found in bucket.keys)
    assert bucket.read(next(iter(bucket.keys)))[0].startswith(b"\x89PNG")
