"""How users write it, for the type checkers: read by mypy and pyright, never run.

Each ``assert_type`` says what a user's editor must know of a verb, a record or an error.
"""

# pyright: reportDeprecated=true

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, assert_never, assert_type

import aiohttp
from obstore.store import MemoryStore

from kling_omni_async import (
    ApiError,
    BookEntry,
    BookProgress,
    CreateUncertainError,
    DownloadError,
    DuplicateOrderError,
    ImageOrder,
    ImageTask,
    KlingOmniError,
    KlingOmniSession,
    OutcomeStream,
    PollPolicy,
    PollTimeoutError,
    Progress,
    ResponseError,
    SavedImage,
    TaskBook,
    TaskFailedError,
    TaskImage,
    TaskOutcome,
    TaskStatus,
    TaskUpdates,
    TransportError,
)
from kling_omni_async.simulator import ImageRequest, Query, SimulatedCometAPI


def making(http: aiohttp.ClientSession) -> None:
    """A session is made with nothing, or with any of its settings."""
    assert_type(KlingOmniSession(), KlingOmniSession)
    policy = PollPolicy(interval=(20, 30), timeout=None, max_rate=None)
    session = KlingOmniSession("key", base_url="https://x", policy=policy, http=http)
    assert_type(session.policy, PollPolicy)
    assert_type(session.closed, bool)


def policy_fields(policy: PollPolicy) -> None:
    """Every field of a policy has its type."""
    assert_type(policy.interval, tuple[float, float])
    assert_type(policy.timeout, float | None)
    assert_type(policy.max_concurrency, int)
    assert_type(policy.max_rate, float | None)
    assert_type(policy.query_timeout, float)
    assert_type(policy.confirmations, int)
    assert_type(policy.timing, Literal["learned", "uniform"])
    assert_type(policy.max_response_bytes, int)
    assert_type(policy.max_pending, int)
    assert_type(policy.create_timeout, float)
    assert_type(policy.max_downloads, int)
    assert_type(policy.max_image_bytes, int)
    assert_type(policy.download_timeout, float)
    assert_type(policy.download_tries, int)
    assert_type(policy.allow_hosts, tuple[str, ...])
    assert_type(policy.mean_interval, float)


async def verbs(session: KlingOmniSession) -> None:
    """Each verb gives what its docstring says."""
    assert_type(await session.query("1"), ImageTask)
    assert_type(await session.wait("1"), ImageTask)
    assert_type(await session.wait("1", timeout=None), ImageTask)
    assert_type(session.watch("1", timeout=5), TaskUpdates)
    assert_type(session.poll(["1"], timeout=5.0), OutcomeStream)
    await session.aclose()


async def following(session: KlingOmniSession) -> None:
    """What `watch` gives is iterated, with a block and without."""
    async with session.watch("1") as updates:
        assert_type(updates, TaskUpdates)
        assert_type(await anext(updates), ImageTask)
        async for task in updates:
            assert_type(task, ImageTask)
    async for task in session.watch("1"):
        assert_type(task, ImageTask)


async def feed() -> AsyncGenerator[str]:
    """Give ids one by one."""
    yield "1"


async def polling() -> None:
    """What `poll` gives is iterated, with a block and without, from any kind of input."""
    async with (
        KlingOmniSession() as session,
        session.poll(feed(), save_to=Path("images"), watermarked=True) as outcomes,
    ):
        assert_type(session, KlingOmniSession)
        assert_type(outcomes, OutcomeStream)
        assert_type(outcomes.pending, AbstractSet[str])
        assert_type(outcomes.progress, Progress)
        async for outcome in outcomes:
            assert_type(outcome, TaskOutcome)
    collected = [each async for each in session.poll(str(n) for n in range(3))]
    assert_type(collected, list[TaskOutcome])
    session.poll(("1", "2"), save_to="s3://bucket", overwrite=True)
    session.poll({"1": 0}.keys(), save_to=MemoryStore())
    assert_type(session.poll(json.loads("[]")), OutcomeStream)  # what has no type is no mistake


async def saving(session: KlingOmniSession, task: ImageTask, outcome: TaskOutcome) -> None:
    """Images of a task or of an outcome go into any kind of store."""
    assert_type(await session.save(task, "images"), tuple[SavedImage, ...])
    assert_type(await session.save(outcome, Path("images")), tuple[SavedImage, ...])
    assert_type(await session.save(task, MemoryStore(), overwrite=True), tuple[SavedImage, ...])


def task_fields(task: ImageTask) -> None:
    """Every field of a task has its type."""
    assert_type(task.task_id, str)
    assert_type(task.status, TaskStatus)
    assert_type(task.status_message, str | None)
    assert_type(task.images, tuple[TaskImage, ...])
    assert_type(task.external_task_id, str | None)
    assert_type(task.created_at, datetime | None)
    assert_type(task.updated_at, datetime | None)
    assert_type(task.final_unit_deduction, Decimal | None)
    assert_type(task.request_id, str | None)
    assert_type(task.raw, Mapping[str, Any])
    assert_type(task.is_terminal, bool)


def image_fields(image: TaskImage, saved: SavedImage) -> None:
    """Every field of an image has its type."""
    assert_type(image.url, str)
    assert_type(image.index, int | None)
    assert_type(image.watermark_url, str | None)
    assert_type(saved.key, str)
    assert_type(saved.url, str)
    assert_type(saved.size, int)
    assert_type(saved.sha256, str)
    assert_type(saved.content_type, str)


def outcome_fields(outcome: TaskOutcome, progress: Progress) -> None:
    """Every field of an outcome and of a progress has its type."""
    assert_type(outcome.task_id, str)
    assert_type(outcome.task, ImageTask | None)
    assert_type(outcome.error, KlingOmniError | None)
    assert_type(outcome.saved, tuple[SavedImage, ...])
    assert_type(outcome.queries, int)
    assert_type(outcome.elapsed, float)
    assert_type(outcome.ok, bool)
    assert_type(outcome.settled, bool)
    assert_type(outcome.images, tuple[TaskImage, ...])
    assert_type(outcome.result(), ImageTask)
    assert_type(outcome.to_dict(), dict[str, Any])
    assert_type(TaskOutcome.from_dict({}), TaskOutcome)
    counts = (progress.total, progress.pending, progress.succeeded, progress.failed)
    assert_type(counts, tuple[int, int, int, int])
    assert_type(progress.unresolved, int)


def every_status(status: TaskStatus) -> str:
    """The statuses are known one by one: a `match` over them can be complete."""
    match status:
        case TaskStatus.SUBMITTED | TaskStatus.PROCESSING | TaskStatus.UNKNOWN:
            return "wait"
        case TaskStatus.SUCCEED | TaskStatus.FAILED:
            return "done"
        case _:
            assert_never(status)


async def errors(session: KlingOmniSession) -> None:
    """An error is narrowed by its class, and then has its own attributes."""
    try:
        await session.wait("1")
    except TaskFailedError as error:
        assert_type(error.task, ImageTask | None)
    except PollTimeoutError as error:
        assert_type(error.last_error, KlingOmniError | None)
        assert_type(error.task, ImageTask | None)
    except DownloadError as error:
        assert_type((error.url, error.reason), tuple[str, str])
        assert_type(error.http_status, int | None)
    except TransportError as error:
        assert_type(error.reason, str)
    except ResponseError as error:
        assert_type((error.http_status, error.snippet), tuple[int, str])
        assert_type(error.location, str | None)
    except ApiError as error:
        assert_type((error.http_status, error.message), tuple[int, str])
        assert_type(error.code, int | str | None)
        assert_type(error.request_id, str | None)
        assert_type(error.retry_after, float | None)
    except KlingOmniError as error:
        assert_type(error.task_id, str | None)
        assert_type(error.transient, bool)


async def simulating() -> None:
    """The simulator's own verbs and its log."""
    async with SimulatedCometAPI(seed=1) as api:
        assert_type(api, SimulatedCometAPI)
        assert_type(api.create_task(images=2), str)
        assert_type((api.base_url, api.api_key), tuple[str, str])
        assert_type(api.fail_next("1", 2, status=502, headers={"X": "y"}), None)
        assert_type(api.fail_next(hang=True), None)
        assert_type(api.fail_next_image(redirects=3), None)
        api.fail_next(stauts=502)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        assert_type(api.queries, tuple[Query, ...])
        assert_type(api.gaps(), list[float])
        assert_type(api.image_requests, tuple[ImageRequest, ...])


def mistakes(session: KlingOmniSession, task: ImageTask) -> None:
    """What a checker must refuse: an error that is not seen makes the comment itself one."""
    session.wait(1)  # type: ignore[arg-type,unused-coroutine]  # pyright: ignore[reportArgumentType,reportUnusedCoroutine]
    session.poll([1, 2])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    session.poll(["1"], 5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    task.status = TaskStatus.FAILED  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    PollPolicy((20, 30))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    PollPolicy(interval=25)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    PollPolicy(interval="20-30")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    PollPolicy(interval=(20, 25, 30))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    PollPolicy(allow_hosts="host")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    session.wait("1", timeout="1m")  # type: ignore[arg-type,unused-coroutine]  # pyright: ignore[reportArgumentType,reportUnusedCoroutine]
    session.wait("1", timeout=...)  # type: ignore[arg-type,unused-coroutine]  # pyright: ignore[reportArgumentType,reportUnusedCoroutine]
    session.poll("1")  # type: ignore[deprecated]  # pyright: ignore[reportDeprecated]
    session.poll(b"1")  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue,reportArgumentType]


async def forgotten_async(session: KlingOmniSession) -> None:
    """What needs an ``async`` is refused without one, though it raises what to write when run."""
    with session:  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues]
        pass
    with session.poll(["1"]):  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues]
        pass
    with session.watch("1"):  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues]
        pass
    for _ in session.poll(["1"]):  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues]
        pass
    for _ in session.watch("1"):  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues]
        pass
    await session.poll(["1"])  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
    await session.watch("1")  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]


async def creating(session: KlingOmniSession, picture: bytes) -> None:
    """An order takes URLs, paths and bytes; a create gives a task, a look may give none."""
    order = ImageOrder(
        "a fox in <<<image_1>>>",
        model="kling-v3-omni",
        images=["https://images.example/1.png", Path("fox.png"), picture],
        elements=[7],
        n=2,
        extra={"style": "flat"},
    )
    assert_type(order.images, tuple[str | Path | bytes, ...])
    assert_type(order.elements, tuple[int, ...])
    assert_type(order.n, int | None)
    assert_type(await session.create(order), ImageTask)
    assert_type(await session.recover("a name"), ImageTask | None)
    assert_type(await session.generate(order, save_to="images"), TaskOutcome)
    assert_type(session.generate_many([order], max_tasks=9, timeout=None), OutcomeStream)
    session.create("a fox")  # type: ignore[arg-type,unused-coroutine]  # pyright: ignore[reportArgumentType,reportUnusedCoroutine]
    session.generate_many(order)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def books(session: KlingOmniSession, book: TaskBook) -> None:
    """What a book gives can be kept in variables and told apart, by public names alone."""
    assert_type(await book.add("1", note={"chat": 42}), bool)
    assert_type(await book.wait("1", timeout=5), ImageTask)
    assert_type(await book.progress(), BookProgress)
    assert_type(book.outcomes(), OutcomeStream)
    assert_type(session.poll(book, until_empty=True), OutcomeStream)
    assert_type(await session.create(ImageOrder("a fox"), book=book, note=[1]), ImageTask)
    work: AbstractAsyncContextManager[object] = session.work(book)
    async with work:
        assert_type(every_state(await book.get("1")), str)


def every_state(entry: BookEntry | None) -> str:
    """A match over the states of an entry is complete."""
    if entry is None or entry.state == "open":
        return "wait"
    match entry.state:
        case "done":
            return str(entry.outcome)
        case "parked":
            return "mend, then retry"
        case other:
            assert_never(other)


def uncertain(outcome: TaskOutcome) -> None:
    """An outcome of an order says what it was of, and an error of doubt by which name to look."""
    assert_type(outcome.order, ImageOrder | None)
    assert_type(outcome.external_task_id, str | None)
    assert_type(outcome.settled, bool)
    if isinstance(outcome.error, CreateUncertainError):
        assert_type(outcome.error.external_task_id, str)
        assert_type(outcome.error.order, ImageOrder | str | None)
    if isinstance(outcome.error, DuplicateOrderError):
        assert_type(outcome.error.external_task_id, str | None)
