"""Each outcome is one line in the log, whoever waits for it and however it came about."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from kling_omni_async import KlingOmniError, TaskFailedError
from kling_omni_async._results import log_end
from kling_omni_async.simulator import SimulatedCometAPI
from tests.support import all_of, open_session


@pytest.fixture(autouse=True)
def _info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "kling_omni_async.poller")


def ends_told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the lines that tell how the polling of an id ended."""
    return [text for text in caplog.messages if text.startswith("task") and " after " in text]


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (None, "succeeded"),
        (TaskFailedError("refused"), "TaskFailedError: refused"),
        (TaskFailedError("a\ntask 'b': succeeded"), r"TaskFailedError: a\ntask 'b': succeeded"),
    ],
    ids=["success", "failure", "forged"],
)
def test_an_end_is_one_line(
    caplog: pytest.LogCaptureFixture, error: KlingOmniError | None, word: str
) -> None:
    """It says how the id ended and after how many queries; the API's words forge no second one."""
    for queries in (4, 1):
        log_end("a", error, queries=queries)
    assert caplog.messages == [
        f"task 'a': {word} after 4 queries",
        f"task 'a': {word} after 1 query",
    ]


def test_an_end_without_info_is_none(caplog: pytest.LogCaptureFixture) -> None:
    """Below INFO nothing is written."""
    caplog.set_level(logging.WARNING, "kling_omni_async.poller")
    log_end("a", None, queries=1)
    assert caplog.records == []


@pytest.mark.anyio
async def test_one_line_for_all_who_wait(
    comet_api: SimulatedCometAPI, caplog: pytest.LogCaptureFixture
) -> None:
    """Three calls and a stream that wait for one id are told of its end in one line."""
    task_id = comet_api.create_task(duration=0)
    async with open_session(comet_api) as session:
        await asyncio.gather(*(session.wait(task_id) for _ in "abc"), all_of(session, [task_id]))
    assert ends_told(caplog) == [f"task '{task_id}': succeeded after 1 query"]


@pytest.mark.anyio
async def test_each_time_out_is_a_line(
    comet_api: SimulatedCometAPI, caplog: pytest.LogCaptureFixture
) -> None:
    """Two calls that end at their own deadlines are two lines."""
    task_id = comet_api.create_task(duration=10_000)
    async with open_session(comet_api) as session:
        waits = [session.wait(task_id, timeout=timeout) for timeout in (30, 60)]
        await asyncio.gather(*waits, return_exceptions=True)
    assert [text.split(":")[1] for text in ends_told(caplog)] == [" PollTimeoutError"] * 2


@pytest.mark.anyio
async def test_an_id_that_cannot_be_sent(
    comet_api: SimulatedCometAPI, caplog: pytest.LogCaptureFixture
) -> None:
    """An id that becomes an outcome without a query has its line too."""
    async with open_session(comet_api) as session:
        await all_of(session, ["a b"])
    (line,) = ends_told(caplog)
    assert line.startswith("task 'a b': InvalidTaskIdError: ")
    assert line.endswith(" after 0 queries")


@pytest.mark.anyio
async def test_the_final_answer_that_is_known(
    comet_api: SimulatedCometAPI, caplog: pytest.LogCaptureFixture
) -> None:
    """Who comes back within the pause gets the known answer, and that is a line."""
    task_id = comet_api.create_task(duration=0)
    async with open_session(comet_api) as session:
        for _ in range(2):
            await session.wait(task_id)
    assert len(ends_told(caplog)) == 2
    assert len(comet_api.queries) == 1


@pytest.mark.anyio
async def test_images_that_were_not_saved(
    comet_api: SimulatedCometAPI, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """A success whose images do not come is told with the error that its outcome has."""
    task_id = comet_api.create_task(duration=0)
    comet_api.expire_images(task_id)
    async with open_session(comet_api) as session:
        (outcome,) = await all_of(session, [task_id], save_to=tmp_path)
    assert outcome.error
    succeeded, not_saved = ends_told(caplog)
    assert succeeded == f"task '{task_id}': succeeded after 1 query"
    assert not_saved.startswith(f"task '{task_id}': AssetExpiredError: ")
