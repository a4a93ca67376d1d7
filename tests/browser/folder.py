"""A folder of forty tasks, with all that may come from an API."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from kling_omni_async import (
    AssetExpiredError,
    ImageTask,
    KlingOmniError,
    PollTimeoutError,
    SavedImage,
    ServerError,
    TaskFailedError,
    TaskImage,
    TaskNotFoundError,
    TaskOutcome,
    TaskStatus,
)
from kling_omni_async._cli.terminal import json_line
from kling_omni_async.simulator._images import draw
from tests.cli.support import write_gallery

HOSTILE = "<script>window.ran = 1</script><img src=x onerror='window.ran = 1'><b>no</b> & \"so\""
LONG_ID = "VGhpcy1pcy1hLWxvbmctaWQ" * 20
REASONS = (
    "Failure to pass the risk control system",
    HOSTILE,
    "提示词包含敏感内容，请修改后重试",  # noqa: RUF001 - as it comes
    "رُفض الطلب بسبب المحتوى",
    "unbroken" * 60,
)
TASKS = 40
IMAGES = 66
_START = datetime(2026, 3, 1, 9, tzinfo=UTC)


def make_folder(folder: Path) -> Path:
    """Fill a folder with images and a journal, and write its gallery.

    Returns:
        The page.
    """
    folder.mkdir()
    lines = [f"{json_line(outcome.to_dict())}\n" for outcome in _outcomes(folder)]
    (folder / "outcomes.jsonl").write_text("".join(lines))
    (folder / "from elsewhere #1.png").write_bytes(draw("elsewhere"))
    return write_gallery(folder)


def _outcomes(folder: Path) -> Iterator[TaskOutcome]:
    rng = random.Random(11)
    for number in range(TASKS):
        task_id = LONG_ID if number == 37 else str(rng.randrange(10**17, 10**18))
        if number % 8 == 3:
            yield _failed(task_id, number, REASONS[number // 8])
        elif number in (12, 21, 30):
            yield _unresolved(task_id, number)
        else:
            yield _succeeded(task_id, number, rng.choice((1, 1, 2, 3, 4)), folder)


def _task(task_id: str, number: int, status: TaskStatus, count: int = 0) -> ImageTask:
    created = _START + timedelta(seconds=9 * number)
    host = "https://images.test/a'b\"c" if number == 5 else "https://images.test"
    return ImageTask(
        task_id=task_id,
        status=status,
        images=tuple(TaskImage(url=f"{host}/{number}/{at}.png", index=at) for at in range(count)),
        external_task_id=f"shot-{number:03}" if number % 4 == 0 else None,
        created_at=created,
        updated_at=created + timedelta(seconds=31 + number),
        final_unit_deduction=Decimal(8 * count),
    )


def _failed(task_id: str, number: int, reason: str) -> TaskOutcome:
    task = _task(task_id, number, TaskStatus.FAILED)
    error = TaskFailedError(reason, task_id=task_id, task=task)
    return TaskOutcome(task_id=task_id, task=task, error=error, queries=3, elapsed=71.5)


def _unresolved(task_id: str, number: int) -> TaskOutcome:
    fault = ServerError(http_status=502, message="<h1>Bad gateway</h1>")
    errors: dict[int, KlingOmniError] = {
        12: PollTimeoutError("no final answer within 1800 s", task_id=task_id, last_error=fault),
        21: TaskNotFoundError(task_id=task_id, http_status=404, code="task_not_exist"),
        30: AssetExpiredError("image 1: HTTP 403: its URL has expired", task_id=task_id),
    }
    error = errors[number]
    task = _task(task_id, number, TaskStatus.SUCCEED, 2) if number == 30 else None
    return TaskOutcome(task_id=task_id, task=task, error=error, queries=70, elapsed=1800.0)


def _succeeded(task_id: str, number: int, count: int, folder: Path) -> TaskOutcome:
    task = _task(task_id, number, TaskStatus.SUCCEED, count)
    saved = [_save(folder, f"{number:02} é-{at}", each.url) for at, each in enumerate(task.images)]
    if number == 1:
        saved.append(_save(folder, "01 é-0-watermarked", "https://images.test/marked.png"))
    return TaskOutcome(
        task_id=task_id, task=task, saved=tuple(saved), queries=3, elapsed=70.0 + number
    )


def _save(folder: Path, stem: str, url: str) -> SavedImage:
    content = draw(stem)
    path = folder / f"{stem}.png"
    path.write_bytes(content)
    return SavedImage(
        key=str(path), url=url, size=len(content), sha256="0" * 64, content_type="image/png"
    )
