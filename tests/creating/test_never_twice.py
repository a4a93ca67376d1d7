"""Whatever goes wrong at whichever point of a create: never sent twice, nothing paid is lost.

Plans of faults, leaving and closing, each against a simulator of its own on a virtual clock.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

import aiohttp
import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kling_omni_async import (
    CreateUncertainError,
    ImageOrder,
    KlingOmniError,
    KlingOmniSession,
    PollPolicy,
    TaskOutcome,
)
from kling_omni_async.simulator import SimulatedCometAPI
from tests.virtual_clock import VirtualClockLoop

VENDOR = {"message": "no", "request_id": "r"}
FAULTS: list[dict[str, Any]] = [
    {},
    {"status": 429},
    {"retry_after": 3},
    {"status": 429, "body": {"code": 1303, **VENDOR}},
    {"status": 500, "body": {"code": "fail_to_fetch_task", "message": '{"code":1303}'}},
    {"status": 400, "body": {"code": 1201, **VENDOR}},
    {"status": 401},
    {"status": 302, "headers": {"Location": "https://x"}},
    *({"reset": True, "created": created} for created in (True, False)),
    *({"hang": True, "created": created} for created in (True, False)),
    *({"status": 502, "created": created} for created in (True, False)),
    *({"status": 503, "body": {"code": 5000}, "created": created} for created in (True, False)),
    *({"status": 408, "created": created} for created in (True, False)),
    *({"raw": b"what?\r\n\r\n", "created": created} for created in (True, False)),
    *({"status": 200, "body": "", "created": created} for created in (True, False)),
    {"cut_after": 30},
    {"malformed": True},
    {"delay": 4.0},
    {"delay": 25.0},
    {"delay": 4.0, "reset": True, "created": True},
]
LOOKS: list[dict[str, Any]] = [
    {},
    {"not_found": True},
    {"status": 502},
    {"status": 401},
    {"hang": True},
    {"delay": 6.0},
]
PROOFS = {302, 400, 401, 429, 500}
"""The statuses of these faults, and of the simulator's own refusals, that prove something."""


@attrs.frozen
class Actor:
    """Somebody who orders, from some s on, and who may leave or stop reading."""

    verb: str
    key: str | None
    count: int
    starts: float
    leaves: float | None
    takes: int


@attrs.frozen
class Plan:
    """One run."""

    slots: int | None
    duplicates: Any
    by_external_id: bool
    max_rate: float | None
    is_given: bool  # the aiohttp session
    creates: list[int]  # faults by their places in the list
    looks: list[int]
    outage: tuple[float, float] | None
    closes: float | None
    actors: list[Actor]


TIMES = st.sampled_from([0.0, 0.001, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 8.0, 20.0, 21.0, 30.0])
ACTORS = st.builds(
    Actor,
    verb=st.sampled_from(["create", "generate", "many"]),
    key=st.sampled_from([None, None, "1", "2"]),
    count=st.integers(1, 4),
    starts=TIMES,
    leaves=st.one_of(st.none(), TIMES),
    takes=st.integers(0, 4),
)
PLANS = st.builds(
    Plan,
    slots=st.sampled_from([None, 1, 3]),
    duplicates=st.sampled_from(["refused", "wrapped", "accepted"]),
    by_external_id=st.booleans(),
    max_rate=st.sampled_from([None, 1.0, 100.0]),
    is_given=st.booleans(),
    creates=st.lists(st.integers(0, len(FAULTS) - 1), max_size=8),
    looks=st.lists(st.integers(0, len(LOOKS) - 1), max_size=5),
    outage=st.one_of(st.none(), st.tuples(TIMES, TIMES)),
    closes=st.one_of(st.none(), TIMES),
    actors=st.lists(ACTORS, min_size=1, max_size=4),
)


class Names(logging.Handler):
    """Keeps what is warned of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.said += record.getMessage() + "\n"


@attrs.define
class Run:
    """What came of a plan."""

    api: SimulatedCometAPI
    session: KlingOmniSession
    known: set[str] = attrs.field(factory=set[str])  # task ids and external ids that were told
    unforeseen: list[BaseException] = attrs.field(factory=list[BaseException])

    def told(self, error: KlingOmniError) -> None:
        """Note what an error names."""
        self.known.add(error.task_id or "")
        if isinstance(error, CreateUncertainError):
            self.known.add(error.external_task_id)

    def outcome(self, outcome: TaskOutcome) -> None:
        """Note what an outcome names."""
        self.known.add(outcome.task_id)
        if outcome.error is not None:
            self.told(outcome.error)


async def act(run: Run, actor: Actor) -> None:
    """Order, and note what is told."""
    orders = [
        ImageOrder(f"fox {actor.key}", key=actor.key and f"{actor.key}/{number}")
        for number in range(actor.count)
    ]
    await asyncio.sleep(actor.starts)
    try:
        if actor.verb == "create":
            for order in orders:
                run.known.add((await run.session.create(order)).task_id)
        elif actor.verb == "generate":
            for order in orders:
                run.outcome(await run.session.generate(order))
        else:
            async with run.session.generate_many(orders) as outcomes:
                taken = 0
                async for outcome in outcomes:
                    run.outcome(outcome)
                    taken += 1
                    if taken == actor.takes:
                        break
    except KlingOmniError as error:
        run.told(error)
    except Exception as error:  # noqa: BLE001 - the proof is that there is none
        run.unforeseen.append(error)


async def out_of_order(api: SimulatedCometAPI, outage: tuple[float, float] | None) -> None:
    """Let the API be down for a while."""
    if outage is not None:
        await asyncio.sleep(outage[0])
        await api.aclose()
        await asyncio.sleep(outage[1])
        await api.start()


async def follow(plan: Plan) -> Run:
    """Run a plan to its end."""
    api = SimulatedCometAPI(
        slots=plan.slots, duplicates=plan.duplicates, by_external_id=plan.by_external_id
    )
    async with api:
        for number in plan.creates:
            api.fail_next_create(**(FAULTS[number] or {"headers": {"X": "y"}}))
        for number in plan.looks:
            api.fail_next(**(LOOKS[number] or {"headers": {"X": "y"}}))
        policy = PollPolicy(
            interval=(2, 3),
            timeout=90,
            create_timeout=20,
            query_timeout=5,
            max_rate=plan.max_rate,
        )
        http = aiohttp.ClientSession() if plan.is_given else None
        session = KlingOmniSession(api.api_key, base_url=api.base_url, policy=policy, http=http)
        run = Run(api, session)
        weather = asyncio.create_task(out_of_order(api, plan.outage))
        actors = [asyncio.create_task(act(run, actor)) for actor in plan.actors]
        loop = asyncio.get_running_loop()
        for actor, task in zip(plan.actors, actors, strict=True):
            if actor.leaves is not None:
                loop.call_later(actor.starts + actor.leaves, task.cancel)
        if plan.closes is not None:
            await asyncio.sleep(plan.closes)
            await session.aclose()
        await asyncio.gather(*actors, return_exceptions=True)
        await asyncio.sleep(60)  # what was left behind comes to its end
        await session.aclose()
        if http is not None:
            await http.close()
        weather.cancel()
        with suppress(asyncio.CancelledError):
            await weather
    left = [task for task in asyncio.all_tasks() if "kling" in task.get_name()]
    assert left == []
    return run


def check(plan: Plan) -> None:
    """Run a plan, and prove what is promised."""
    names = Names()
    logger = logging.getLogger("kling_omni_async.creator")
    logger.addHandler(names)
    trouble: list[Any] = []
    try:
        with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
            runner.get_loop().set_exception_handler(lambda _, context: trouble.append(context))
            run = runner.run(follow(plan))
    finally:
        logger.removeHandler(names)
    assert trouble == []
    assert run.unforeseen == []
    posts: dict[str | None, list[int | None]] = {}
    for query in run.api.queries:
        if query.method == "POST":
            posts.setdefault(query.external_task_id, []).append(query.status)
    for statuses in posts.values():
        assert set(statuses[:-1]) <= PROOFS, posts
    billed = Counter(bill.external_task_id for bill in run.api.billed)
    assert max(billed.values(), default=0) <= 1, billed
    for bill in run.api.billed:
        external_id = str(bill.external_task_id)
        told = {bill.task_id, external_id} & run.known
        assert told or external_id in names.said, bill


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(plan=PLANS)
def test_never_twice_and_nothing_lost(plan: Plan) -> None:
    """POSTs of one external id are one but for proofs, bills one, each paid task is named."""
    check(plan)


@pytest.mark.many
@pytest.mark.timeout(900)
@settings(max_examples=2_000, suppress_health_check=[HealthCheck.too_slow])
@given(plan=PLANS)
def test_never_twice_in_thousands_of_plans(plan: Plan) -> None:
    """The same over 2,000 plans."""
    check(plan)


# How well the places of an account are used.


async def use_places(orders: list[ImageOrder], places: int) -> dict[str, float]:
    """Bring orders, and measure refusals and empty places."""
    async with SimulatedCometAPI(seed=3, slots=places) as api:
        async with KlingOmniSession(api.api_key, base_url=api.base_url) as session:
            loop = asyncio.get_running_loop()
            held = 0.0
            async with session.generate_many(orders) as outcomes:
                async for outcome in outcomes:
                    assert outcome.ok, outcome
                    bill = next(b for b in api.billed if b.task_id == outcome.task_id)
                    held += (loop.time() - bill.created) * bill.images
            took = loop.time()
        posts = [query.status for query in api.queries if query.method == "POST"]
        worked = sum(api._tasks.by_id[b.task_id].duration * b.images for b in api.billed)
    return {
        "refused": posts.count(429) / len(posts),
        "idle": 1 - held / (places * took),
        "empty": 1 - worked / (places * took),
        "took": took,
        "ideal": worked / places,
    }


@pytest.mark.parametrize("seed", [None, 1])
def test_the_places_of_an_account(
    seed: int | None, monkeypatch: pytest.MonkeyPatch, record_property: Callable[..., None]
) -> None:
    """500 orders on 9 places: few creates are refused, few places held by nothing; some need 9.

    A place whose task has ended unseen counts as held here, as it is the polling that sees it.
    """
    monkeypatch.setattr("kling_omni_async._wings.Random", lambda: Random(7))
    orders = [ImageOrder(f"fox {number}") for number in range(500)]
    if seed is not None:
        big = Random(seed).sample(range(500), 10)
        orders = [attrs.evolve(o, n=9 if i in big else None) for i, o in enumerate(orders)]
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        figures = runner.run(use_places(orders, 9))
    record_property("places", figures)
    assert figures["refused"] < 0.05
    assert figures["idle"] < 0.20
