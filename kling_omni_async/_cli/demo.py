"""The demo: a batch with trouble on the simulator, in compressed time, checked at the end."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Annotated

import attrs
from cyclopts import Parameter

from kling_omni_async._order import ImageOrder
from kling_omni_async._outcome import TaskOutcome
from kling_omni_async._policy import PollPolicy
from kling_omni_async._session import KlingOmniSession
from kling_omni_async.simulator import SimulatedCometAPI

from . import session
from .exit import Exit, UsageError
from .following import follow
from .gallery import NAME, is_foreign, write_outcomes
from .job import PollJob
from .options import FileName, Saving
from .progress import Silent, choose_view
from .report import Kind, kind_of
from .results import Sink
from .signals import run
from .terminal import note, out, plain

TIMES_FASTER = 25.0
TASKS = 200
_FAILING = 20
_UNKNOWN = 10
_GOOD = TASKS - _FAILING - _UNKNOWN
_BAD_GATEWAYS = 24
_SLOWEST_S = 150.0
_POLICY = PollPolicy(
    interval=(20 / TIMES_FASTER, 30 / TIMES_FASTER), timeout=60.0, max_rate=500.0, query_timeout=3.0
)
_SCRIPTED = ("HTTP 502", "HTTP 429", "throttled by the API", "no full answer")
_FIRST = re.compile(r"^first \w+ \([^)]*\): ")
_REASONS = (
    "Failure to pass the risk control system",
    "Image pixel is invalid",
    "The prompt contains sensitive content",
)


@attrs.define
class Script:
    """What the simulator was told to do, and what therefore must come out."""

    task_ids: list[str]
    reasons: dict[str, str]
    expected: dict[str, int]
    hanging: str


def write_orders(api: SimulatedCometAPI, *, seed: int = 0) -> list[ImageOrder]:
    """Return what is to be created, and let the answer to one of them be lost."""
    rng = random.Random(seed)
    api.fail_next_create(reset=True, created=True)
    return [ImageOrder(f"a fox, view {view}", n=rng.randint(1, 4)) for view in range(1, _GOOD + 1)]


def write_script(
    api: SimulatedCometAPI, orders: list[ImageOrder], created: list[str], *, seed: int = 0
) -> Script:
    """Add tasks of elsewhere to those that were created, and fill the simulator with trouble."""
    rng = random.Random(seed)
    reasons = dict(_bad(api, rng, number) for number in range(_FAILING))
    unknown = [str(rng.randrange(10**17, 10**18)) for _ in range(_UNKNOWN)]
    hanging, *troubled = rng.sample(created, 1 + _BAD_GATEWAYS)
    api.fail_next(hanging, hang=True)
    for task_id in troubled:
        api.fail_next(task_id, status=502)
    api.fail_next(unknown[0], retry_after=1)
    task_ids = [*created, *reasons, *unknown]
    rng.shuffle(task_ids)
    images = sum(order.n or 1 for order in orders)
    expected = {
        "created from prompts": len(orders),
        "answers to creates lost": 1,
        "images paid for": images,
        "succeeded": len(orders),
        "failed, with the right reason": len(reasons),
        "not found": len(unknown),
        "different images saved": images,
        "answers 502 met on the way": len(troubled),
        "answers 429 met on the way": 1,
        "queries that hung": 1,
    }
    return Script(task_ids, reasons, expected, hanging)


def _bad(api: SimulatedCometAPI, rng: random.Random, number: int) -> tuple[str, str]:
    reason = _REASONS[number % len(_REASONS)]
    return api.create_task(duration=rng.uniform(1.7, _SLOWEST_S), fail=reason), reason


def seen(api: SimulatedCometAPI, script: Script, outcomes: list[TaskOutcome]) -> dict[str, int]:
    """Count what came out, in the rows that were expected."""
    kinds = Counter(map(kind_of, outcomes))
    statuses = Counter(query.status for query in api.queries)
    lost = [query for query in api.queries if query.method == "POST" and query.status is None]
    right = sum(
        kind_of(each) is Kind.FAILED and str(each.error) == script.reasons.get(each.task_id)
        for each in outcomes
    )
    counts = [
        len({task.external_task_id for task in api.billed}),
        len(lost),
        sum(task.images for task in api.billed),
        kinds[Kind.SUCCEEDED],
        right,
        kinds[Kind.NOT_FOUND],
        len({image.sha256 for each in outcomes for image in each.saved}),
        statuses[502],
        statuses[429],
        sum(query.status is None for query in api.queries_of(script.hanging)),
    ]
    return dict(zip(script.expected, counts, strict=True))


def table(expected: dict[str, int], counted: dict[str, int]) -> str:
    """Return both counts side by side."""
    rows = [f"{'':32}{'scripted':>9}{'seen':>9}"]
    rows += [f"{row:32}{count:>9,}{counted[row]:>9,}" for row, count in expected.items()]
    return "\n".join(rows)


async def play(view: Silent, folder: Path) -> tuple[Script, dict[str, int]]:
    """Create the batch from prompts, poll it, save its images and show them on a page."""
    outcomes: list[TaskOutcome] = []

    async def keep(outcome: TaskOutcome) -> None:
        outcomes.append(outcome)

    async with SimulatedCometAPI(time_scale=TIMES_FASTER, durations=_duration) as api:
        # The policy of a user, but for the time scale: `make_session` would warn of short pauses.
        kling = KlingOmniSession(api.api_key, base_url=api.base_url, policy=_POLICY)
        orders = write_orders(api)
        created = [task.task_id for task in await asyncio.gather(*map(kling.create, orders))]
        script = write_script(api, orders, created)
        saving = Saving(save=str(folder))
        job = PollJob(script.task_ids)
        view.show(job.tally)
        await follow(job, kling, Sink(keep), view, saving=saving)
        write_outcomes(folder, map(in_real_time, outcomes), title="Kling Omni demo")
        return script, seen(api, script, outcomes)


def _duration(rng: random.Random) -> float:
    return rng.uniform(24.0, _SLOWEST_S)


def in_real_time(outcome: TaskOutcome) -> TaskOutcome:
    """Return an outcome whose time of polling is that of the tasks, which ran faster."""
    return attrs.evolve(outcome, elapsed=outcome.elapsed * TIMES_FASTER)


def in_words(record: logging.LogRecord) -> str:
    """Return a log record as a line for stderr, in short and as a part of the play if it is one."""
    text = _FIRST.sub("", record.getMessage()).partition(";")[0]
    return f"on purpose: {text}" if text.startswith(_SCRIPTED) else session.in_words(record)


def _folder(save: str | None) -> Path:
    """Make the directory for the images."""
    if save is None:
        return Path(tempfile.mkdtemp(prefix="kling-omni-demo-"))
    saving = Saving(save=save)
    if saving.folder is None:
        raise UsageError("the demo saves its images to a directory: give its path")
    if is_foreign(page := saving.folder / NAME):
        raise UsageError(f"{page} is not of this program: move it away, or give another directory")
    saving.prepare()
    return saving.folder


def demo(*, save: Annotated[FileName | None, Parameter(metavar="DIR")] = None) -> Exit:
    """Create a simulated batch, poll it in compressed time, save and show its images; needs no key.

    Args:
        save: The directory for the images and their page; by default a new temporary one.
    """
    folder = _folder(save)
    note(f"{TASKS} simulated tasks, {TIMES_FASTER:g} times faster than real ones, of which")
    note(f"{_GOOD} are created from prompts and the others handed over by somebody else")
    note("through an API in trouble: what is on purpose says so")
    started = time.monotonic()
    with session.logged_as_notes(words=in_words), choose_view(quiet=False, every=1.0) as view:
        script, counted = run(partial(play, view, folder))
    out(table(script.expected, counted))
    as_scripted = counted == script.expected
    words = "everything came as scripted" if as_scripted else "not as scripted"
    out(f"{words}, in {time.monotonic() - started:.1f} s")
    out(plain(f"look at the images: {folder / NAME}"))
    return Exit.OK if as_scripted else Exit.NOT_ALL
