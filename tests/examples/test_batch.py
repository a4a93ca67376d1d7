"""The batch program: its results, and that nothing is done twice after a crash."""

from __future__ import annotations

import csv
import math
from collections.abc import Generator
from pathlib import Path
from typing import Any

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


@pytest.fixture
def durations() -> list[float]:
    """Give how long tasks run that are created, in s; a test may change it."""
    return [0.2]


@pytest.fixture
def comet_api_options(durations: list[float]) -> dict[str, Any]:
    """Let tasks run that long."""
    return {"durations": lambda _: durations[0]}


def write_prompts(folder: Path, count: int, *more: tuple[str, str]) -> None:
    """Write the input: a table with more columns, and the first key twice."""
    prompts = [(f"42/{number}", f"a fox, view {number}") for number in range(count)]
    with (folder / "prompts.csv").open("w", encoding="utf-8-sig", newline="") as file:
        table = csv.writer(file)
        table.writerow(("name", "key", "prompt"))
        table.writerows(("a, b", *row) for row in (*prompts, *more, *prompts[:1]))


def task_ids_in(api: SimulatedCometAPI) -> list[str]:
    """Give what was created and billed."""
    return [task.task_id for task in api.billed]


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
    arguments = ("prompts.csv", "results.csv", *FAST, *options)
    env = environment(api)
    async with running("batch.py", *arguments, env=env, folder=folder) as program:
        return await program.ends(), program


async def test_each_order_gets_one_row(comet_api: SimulatedCometAPI, tmp_path: Path) -> None:
    """Images are on the disk; one that is refused has a row too, one in doubt a line."""
    refusal = {"code": 1301, "message": "The prompt\nis sensitive"}
    comet_api.fail_next_create(status=400, body=refusal)
    write_prompts(tmp_path, 6)
    code, program = await run(comet_api, tmp_path)
    assert code == 0, program.output
    rows = rows_of(tmp_path)
    assert sorted(row["key"] for row in rows) == [f"42/{number}" for number in range(6)]
    (refused,) = (row for row in rows if row["result"] == "failed")
    assert (refused["task_id"], "The prompt is sensitive" in refused["reason"]) == ("", True)
    for row in rows:
        if row is not refused:
            assert (tmp_path / row["images"]).read_bytes().startswith(b"\x89PNG")
    assert len(comet_api.billed) == 5
    assert "6 of 6" in program.output


def requests_for(api: SimulatedCometAPI, name: str) -> list[str]:
    """Give the requests for an image."""
    return [each.path for each in api.image_requests if each.path.endswith(f"/{name}")]


async def test_after_a_kill_nothing_is_paid_or_done_twice(
    comet_api: SimulatedCometAPI, durations: list[float], tmp_path: Path
) -> None:
    """``kill -9`` leaves one row and one task for each key; no stored image is fetched again."""
    durations[0] = math.inf
    write_prompts(tmp_path, 2 * KILL_AFTER)
    arguments = ("prompts.csv", "results.csv", *FAST)
    env = environment(comet_api)
    async with running("batch.py", *arguments, env=env, folder=tmp_path) as program:
        await until(lambda: len(comet_api.billed) == 2 * KILL_AFTER)
        for task_id in task_ids_in(comet_api)[:KILL_AFTER]:
            comet_api.finish(task_id)
        await until(lambda: count_rows(tmp_path) >= KILL_AFTER)
        await program.kill()
    done = [row["task_id"] for row in rows_of(tmp_path)]
    stored = {path.name for path in (tmp_path / "images").glob("[!.]*")}
    queries = {task_id: len(comet_api.queries_of(task_id)) for task_id in done}
    with (tmp_path / "results.csv").open("a") as file:
        file.write("42/5,842,ok,images/")
    for task_id in task_ids_in(comet_api)[KILL_AFTER:]:
        comet_api.finish(task_id)

    code, program = await run(comet_api, tmp_path)
    assert code == 0, program.output
    rows = rows_of(tmp_path)
    assert sorted(row["key"] for row in rows) == [f"42/{number}" for number in range(6)]
    assert sorted(row["task_id"] for row in rows) == sorted(task_ids_in(comet_api))
    assert {row["result"] for row in rows} == {"ok"}
    assert {task_id: len(comet_api.queries_of(task_id)) for task_id in done} == queries
    assert len(stored) >= KILL_AFTER
    assert [len(requests_for(comet_api, name)) for name in stored] == [1] * len(stored)


async def test_what_may_pass_is_taken_up_later(
    comet_api: SimulatedCometAPI, tmp_path: Path
) -> None:
    """An image that does not come leaves its order without a row, and the next run gets it."""
    write_prompts(tmp_path, 1)
    comet_api.fail_next_image(html=True)
    code, program = await run(comet_api, tmp_path)
    assert (code, rows_of(tmp_path)) == (1, [])
    (task_id,) = task_ids_in(comet_api)
    assert f"{task_id}: DownloadError: " in program.output
    code, program = await run(comet_api, tmp_path)
    assert (code, [row["task_id"] for row in rows_of(tmp_path)]) == (0, [task_id])
    assert "0 done already, 2 to do" in program.output


async def test_a_wrong_key_ends_it_with_one_line(
    comet_api: SimulatedCometAPI, tmp_path: Path
) -> None:
    """What is wrong with the set-up is told, without the key."""
    write_prompts(tmp_path, 1)
    env = {**environment(comet_api), "COMETAPI_KEY": "sk-wrong"}
    arguments = ("prompts.csv", "results.csv", *FAST)
    async with running("batch.py", *arguments, env=env, folder=tmp_path) as program:
        assert await program.ends() == 1
    assert "AuthenticationError: HTTP 401" in program.output.splitlines()[-2]
    assert "sk-wrong" not in program.output


async def test_images_go_to_s3(
    comet_api: SimulatedCometAPI, tmp_path: Path, bucket: Bucket
) -> None:
    """With ``s3://`` the rows have the keys of objects that are there, whole."""
    write_prompts(tmp_path, 3)
    env = {**environment(comet_api), **bucket.environment}
    arguments = ("prompts.csv", "results.csv", *FAST, "--save-to", f"s3://{bucket.name}/winter")
    async with running("batch.py", *arguments, env=env, folder=tmp_path) as program:
        assert await program.ends() == 0, program.output
    keys = {key for row in rows_of(tmp_path) for key in row["images"].split()}
    assert (len(keys), len(bucket.keys)) == (3, 3)
    assert all(any(found.endswith(key) for key in keys) for found in bucket.keys)
    assert bucket.read(next(iter(bucket.keys)))[0].startswith(b"\x89PNG")
