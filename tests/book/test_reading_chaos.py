"""Readers of all habits on one book, and trouble on the way: its promises hold in any order."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from kling_omni_async import BookError, OutcomeStream, TaskBook, TaskOutcome
from kling_omni_async._book.contract import Take
from tests.plans import share_of
from tests.virtual_clock import VirtualClockLoop

from .ends import TroubledStore, ender_of, troubled

TASKS = 12


class Chaos:
    """Some readers of a book, and what they have seen."""

    def __init__(self, book: TaskBook, seed: int) -> None:
        self.book = book
        self.rng = Random(seed)
        self.in_hands: set[str] = set()
        self.seen: set[str] = set()
        self.acknowledged: set[str] = set()
        self.calm_from = 200.0

    def got(self, outcome: TaskOutcome) -> str:
        """Note that a consumer has an outcome, which nobody else may have."""
        task_id = outcome.task_id
        assert task_id not in self.acknowledged, "it came again"
        assert task_id not in self.in_hands, "two have it"
        self.in_hands.add(task_id)
        self.seen.add(task_id)
        return task_id

    def let_go(self, task_id: str | None, *, acknowledged: bool) -> None:
        """Note that a consumer has an outcome no more."""
        if task_id is not None:
            self.in_hands.discard(task_id)
            if acknowledged:
                self.acknowledged.add(task_id)

    def trouble(self, take: Take) -> BookError | None:
        """Return what goes wrong with a step, now and then."""
        del take
        now = asyncio.get_running_loop().time()
        if now < self.calm_from and self.rng.random() < 0.15:
            return BookError("locked", transient=True)
        return None

    # The habits.

    async def read(self) -> None:
        """Read in one way after the other, until the book is empty."""
        while asyncio.get_running_loop().time() < self.calm_from:
            habit = self.rng.choice([self.steps, self.limited, self.handlers, self.by_hand])
            with suppress(ZeroDivisionError, TimeoutError):
                async with self.book.outcomes() as outcomes:
                    await habit(outcomes)

    async def steps(self, outcomes: OutcomeStream) -> None:
        """Take step after step, and leave in one way or the other."""
        last: str | None = None
        try:
            async with asyncio.timeout(self.rng.uniform(1, 60)):
                async for outcome in outcomes:
                    self.let_go(last, acknowledged=True)
                    last = self.got(outcome)
                    await asyncio.sleep(self.rng.choice([0, 0.5, 5]))
                    if self.rng.random() < 0.2:
                        break
                    if self.rng.random() < 0.2:
                        raise ZeroDivisionError
        finally:
            # It may have been told to the book by now that the next one was asked for.
            self.in_hands.discard(last or "")

    async def limited(self, outcomes: OutcomeStream) -> None:
        """Take steps with a time limit for each."""
        last: str | None = None
        for _ in range(8):
            self.in_hands.discard(last or "")
            with suppress(TimeoutError):
                outcome = await asyncio.wait_for(anext(outcomes), self.rng.uniform(0, 3))
                self.let_go(last, acknowledged=True)
                last = self.got(outcome)
        self.let_go(last, acknowledged=False)

    async def handlers(self, outcomes: OutcomeStream) -> None:
        """Let handlers do it, and cancel them."""
        async with asyncio.timeout(self.rng.uniform(1, 60)):
            await outcomes.each(self.handle, limit=self.rng.randint(1, 4))

    async def handle(self, outcome: TaskOutcome) -> None:
        """Handle an outcome, or fail on it."""
        task_id, returns = self.got(outcome), False
        try:
            await asyncio.sleep(self.rng.choice([0, 0.5, 5]))
            if self.rng.random() < 0.3:
                raise ZeroDivisionError
            returns = True
        finally:
            self.let_go(task_id, acknowledged=returns)

    async def by_hand(self, outcomes: OutcomeStream) -> None:
        """Acknowledge by hand, and leave at once."""
        async with asyncio.timeout(20):
            outcome = await anext(outcomes)
        task_id = self.got(outcome)
        try:
            await outcomes.ack(outcome)
        except BookError:
            self.let_go(task_id, acknowledged=False)
            raise
        self.let_go(task_id, acknowledged=True)


async def run_chaos(seed: int) -> None:
    """Let tasks end while three read in all ways; then read what is left."""
    async with TaskBook() as book:
        chaos = Chaos(book, seed)
        task_ids = [f"t{number}" for number in range(TASKS)]
        await book.add_many(task_ids)
        store: TroubledStore = await troubled(book)
        store.before = store.after = chaos.trouble
        store.latency_s = chaos.rng.choice([0.0, 0.0, 0.3])
        readers = [asyncio.create_task(chaos.read()) for _ in range(3)]
        ender = await ender_of(book)
        for task_id in task_ids:
            await asyncio.sleep(chaos.rng.uniform(0, 10))
            await ender.end(task_id)
        await asyncio.gather(*readers)
        assert not chaos.in_hands
        async with book.outcomes(until_empty=True) as outcomes:
            last = None
            async for outcome in outcomes:
                chaos.let_go(last, acknowledged=True)
                last = chaos.got(outcome)
        progress = await book.progress()
        assert progress.unread == 0
        assert len(chaos.seen) == TASKS
        assert progress.failed == TASKS


@settings(max_examples=share_of(40))
@given(seed=st.integers(0, 2**32))
def test_nothing_is_lost_and_nothing_comes_again(seed: int) -> None:
    """Each outcome comes to one at a time, until it is acknowledged, and to nobody after that."""
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        runner.run(run_chaos(seed))
