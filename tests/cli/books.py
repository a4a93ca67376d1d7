"""What the tests of books on the command line share."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import time
from collections.abc import Awaitable, Callable, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from kling_omni_async import BookEntry, BookProgress, TaskBook, TaskOutcome
from kling_omni_async._book.book import open_inside
from kling_omni_async._book.contract import Ack, Addition, Claim, Receipt, Settle
from kling_omni_async._book.forms import outcome_to_json
from tests.book.ends import Ender, succeeded
from tests.book.sqlite_support import Machine, opened, take, turn
from tests.book.sqlite_support import succeeded as settled_by

from .support import Neighbour, neighbour

T = TypeVar("T")

FAST_BOOK = ("--interval", "0.05", "0.1", "--max-rate", "none")


@contextmanager
def beside(**options: object) -> Generator[Neighbour]:
    """Run a simulator beside the test, to which the environment of this process leads.

    A book in a file counts by the clocks of the machine, so these commands have no virtual one.
    """
    with neighbour(**options) as api, pytest.MonkeyPatch.context() as patched:
        for name, value in api.env.items():
            patched.setenv(name, value)
        yield api


class Pieces(io.BytesIO):
    """A stream that has some pieces, one a read."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        super().__init__()
        self._pieces = iter(pieces)

    def read(self, size: int | None = -1, /) -> bytes:
        return next(self._pieces, b"")


async def interrupt_after(api: Neighbour, queries: int) -> None:
    """Interrupt this process once a simulator beside it has answered so many queries."""
    await api.api.wait_for_queries(queries)
    os.kill(os.getpid(), signal.SIGINT)


def in_book(path: Path, act: Callable[[TaskBook], Awaitable[T]]) -> T:
    """Do something with a book."""

    async def main() -> T:
        async with TaskBook(path) as book:
            return await act(book)

    return asyncio.run(main())


def counts_of(path: Path) -> BookProgress:
    """Return the counts of a book."""
    return in_book(path, TaskBook.progress)


def entry_in(path: Path, task_id: str) -> BookEntry | None:
    """Return what a book knows of a task."""
    return in_book(path, lambda book: book.get(task_id))


def make_book(path: Path, *ids: str) -> Path:
    """Make a book that holds some ids."""
    in_book(path, lambda book: book.add_many(ids))
    return path


def end(path: Path, *outcomes: TaskOutcome) -> None:
    """Let tasks of a book end, as far as it is up to a worker: none is settled by that."""

    async def act(book: TaskBook) -> None:
        await Ender(await open_inside(book)).end(*outcomes)

    in_book(path, act)


def park(path: Path, *ids: str) -> None:
    """Make a book whose outcomes were handed out in vain, as often as it takes."""
    machine = Machine()
    machine.wall = time.time() - 10_000.0  # all pauses are over by the clock of this machine

    async def main() -> None:
        async with opened(path, machine) as store:
            await store.add([Addition(each) for each in ids])
            claims = (await store.turn(turn(1, want=len(ids)))).claims
            settles = [_settled(claim) for claim in claims]
            await store.turn(turn(2, settles, want=0, is_leaving=True))
            receipts: list[Receipt] = []
            for seq in range(1, 12):
                reply = await store.take(take(seq, receipts, is_handed=True))
                receipts = [Receipt(each.key, each.number, Ack.FAILED) for each in reply.parcels]
                machine.pass_time(301.0)
            assert not receipts

    asyncio.run(main())


def _settled(claim: Claim) -> Settle:
    return settled_by(claim, outcome_to_json(succeeded(claim.row.key, "https://i.test/1.png")))
