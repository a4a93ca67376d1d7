"""Readers that save: images are in the store before an outcome comes out, a few of them ahead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path

import attrs
import pytest

from kling_omni_async import (
    ConfigurationError,
    DownloadError,
    OutcomeStream,
    Progress,
    SessionClosedError,
    TaskBook,
    TaskOutcome,
)
from kling_omni_async._book.book import FROM_POLLED_BOOK, host_of, open_inside, reading_of
from kling_omni_async._book.contract import Ack
from kling_omni_async._book.opened import OpenBook
from kling_omni_async._book.reading import Reading
from kling_omni_async._book.saving import SavedAhead
from kling_omni_async._results import End, Outlet
from kling_omni_async.simulator import SimulatedCometAPI
from tests.support import freeze, new_session

from .ends import Ender, ended, ender_of, kept_in, succeeded, troubled

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["memory", "file"])
async def book(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[TaskBook]:
    """Open a book in memory or in a file, and prove that closing it leaves no task behind."""
    before = asyncio.all_tasks()
    async with TaskBook() if request.param == "memory" else kept_in(tmp_path) as opened:
        yield opened
    left = {task for task in asyncio.all_tasks() - before if "kling" in task.get_name()}
    assert not left


in_memory = pytest.mark.parametrize("book", ["memory"], indirect=True)


class Shelf(Outlet):
    """An outlet that saves by command."""

    def __init__(self) -> None:
        super().__init__()
        self.is_ready = False
        self.waiting: list[TaskOutcome] = []

    async def prepare(self) -> None:
        """Note that the place was tried."""
        self.is_ready = True

    def put(self, outcome: TaskOutcome) -> None:
        """Begin to save."""
        self.waiting.append(outcome)

    def save(self, *task_ids: str) -> None:
        """End the saving of some outcomes, or of all."""
        for outcome in list(self.waiting):
            if not task_ids or outcome.task_id in task_ids:
                self.waiting.remove(outcome)
                super().put(attrs.evolve(outcome, elapsed=99.0))

    @property
    def names(self) -> list[str]:
        """The ids of what is being saved."""
        return [outcome.task_id for outcome in self.waiting]


class Silent:
    """What polls beside, and does nothing."""

    fault: BaseException | None = None

    def __init__(self, inside: OpenBook) -> None:
        del inside

    def start(self) -> None:
        """Begin."""

    async def aclose(self) -> None:
        """Stop."""


def saving_stream(
    book: TaskBook, shelf: Outlet, *, most: int = 4, until_empty: bool = False
) -> OutcomeStream:
    """Return a stream of a book whose outcomes are saved by command."""
    reading = reading_of(book, Silent, saving=shelf, most_saving=most, until_empty=until_empty)
    assert repr(reading) == "<Reading new <Reader taken=0 ready=0 out=0>>"
    return OutcomeStream(lambda: host_of(book), reading, origin=FROM_POLLED_BOOK)


async def unread(book: TaskBook) -> int:
    """Return how many outcomes nobody has acknowledged."""
    return (await book.progress()).unread


async def test_some_are_saved_ahead_and_what_is_saved_first_comes_first(book: TaskBook) -> None:
    """Four are under way at once; what is not saved yet holds up nobody else."""
    await ended(book, [f"t{n}" for n in range(6)])
    shelf = Shelf()
    async with saving_stream(book, shelf, until_empty=True) as outcomes:
        assert shelf.is_ready
        await asyncio.sleep(1)
        assert shelf.names == ["t0", "t1", "t2", "t3"]
        assert set(outcomes.pending) == {"t0", "t1", "t2", "t3"}
        shelf.save("t2")
        first = await anext(outcomes)
        assert (first.task_id, first.deliveries, first.elapsed) == ("t2", 1, 99.0)
        await asyncio.sleep(1)
        assert shelf.names == ["t0", "t1", "t3", "t4"]
        assert outcomes.progress == Progress(total=5, pending=4, failed=1)
        shelf.save()
        await asyncio.sleep(1)
        seen = [(await anext(outcomes)).task_id for _ in range(4)]
        assert seen == ["t0", "t1", "t3", "t4"]
        shelf.save()
        assert [outcome.task_id async for outcome in outcomes] == ["t5"]
    assert await unread(book) == 0


async def test_a_hand_out_is_kept_with_the_word_about_the_one_before(book: TaskBook) -> None:
    """What was acknowledged, and what is handed out now, are told to the book in one step."""
    await ended(book, ["a", "b"])
    store, shelf = await troubled(book), Shelf()
    async with saving_stream(book, shelf, most=2) as outcomes:
        await asyncio.sleep(1)
        shelf.save()
        await asyncio.sleep(1)
        assert [len(take.receipts) for _, take in store.takes] == [0]
        await anext(outcomes)
        assert [receipt.ack for receipt in store.takes[-1][1].receipts] == [Ack.HANDED]
        await anext(outcomes)
        steps = [[(r.key, r.ack) for r in take.receipts] for _, take in store.takes]
        assert [("a", Ack.DONE), ("b", Ack.HANDED)] in steps
        assert not any(take.is_handed for _, take in store.takes)


async def test_leaving_stops_saving_and_gives_all_back(book: TaskBook) -> None:
    """What is being saved or saved already comes to the next reader at once, as if never taken."""
    await ended(book, ["a", "b", "c"])
    shelf = Shelf()
    async with saving_stream(book, shelf) as outcomes:
        await asyncio.sleep(1)
        shelf.save("a", "b")
        await anext(outcomes)
    assert shelf.has_ended
    assert not outcomes.pending
    async with book.outcomes() as others:
        assert [(await anext(others)).task_id for _ in range(3)] == ["a", "b", "c"]


async def test_what_is_removed_while_it_is_saved_comes_out_nowhere(book: TaskBook) -> None:
    """`book.remove` holds for what a reader has taken ahead, too."""
    await ended(book, ["a", "b"])
    shelf = Shelf()
    ahead = SavedAhead(shelf, 4)
    reading = Reading(partial(open_inside, book), ahead=ahead, until_empty=True)
    async with OutcomeStream(lambda: host_of(book), reading) as outcomes:
        await asyncio.sleep(1)
        assert await book.remove("a")
        shelf.save()
        assert [outcome.task_id async for outcome in outcomes] == ["b"]
    assert repr(ahead) == "<SavedAhead 0 under way, 0 saved>"


async def test_what_ends_anew_while_it_is_saved_comes_out_once(book: TaskBook) -> None:
    """Removed, added and ended again, an id has one outcome: that of its new end."""
    ender = await ended(book, ["a"])
    shelf = Shelf()
    async with saving_stream(book, shelf, until_empty=True) as outcomes:
        await asyncio.sleep(1)
        await end_anew(book, ender)
        await asyncio.sleep(1)
        assert shelf.names == ["a", "a"]
        shelf.save()
        assert [outcome.task_id async for outcome in outcomes] == ["a"]


async def test_what_ends_anew_after_it_was_saved_comes_out_once(book: TaskBook) -> None:
    """The same, where the first end waits already to be handed out."""
    ender = await ended(book, ["a"])
    shelf = Shelf()
    async with saving_stream(book, shelf, until_empty=True) as outcomes:
        await asyncio.sleep(1)
        shelf.save()
        await asyncio.sleep(1)
        await end_anew(book, ender)
        await asyncio.sleep(1)
        shelf.save()
        assert [outcome.task_id async for outcome in outcomes] == ["a"]


async def end_anew(book: TaskBook, ender: Ender) -> None:
    """Remove an id, and let it end once more."""
    await book.remove("a")
    await asyncio.sleep(100)
    await book.add("a")
    await ender.end("a")


@in_memory
async def test_what_a_frozen_reader_has_lost_is_not_handed_out(book: TaskBook) -> None:
    """What another reader has by then is his; what nobody wanted is saved, and comes out once."""
    await ended(book, ["a", "b"])
    shelf = Shelf()
    async with saving_stream(book, shelf, until_empty=True) as outcomes:
        await asyncio.sleep(1)
        freeze(31)
        async with book.outcomes() as others:
            theirs = await anext(others)
            assert theirs.task_id == "a"
            shelf.save()
            assert (await anext(outcomes)).task_id == "b"
            await others.ack(theirs)
            with pytest.raises(StopAsyncIteration):
                await anext(outcomes)


@in_memory
async def test_an_outcome_that_cannot_be_read_is_parked(
    book: TaskBook, caplog: pytest.LogCaptureFixture
) -> None:
    """It is never saved, and holds up no other."""
    await book.add_many(["a", "b"])
    ender = await ender_of(book)
    await ender.end_as("a", "{}")
    await ender.end("b")
    shelf = Shelf()
    async with saving_stream(book, shelf, until_empty=True) as outcomes:
        await asyncio.sleep(1)
        assert shelf.names == ["b"]
        shelf.save()
        assert [outcome.task_id async for outcome in outcomes] == ["b"]
    assert (await book.progress()).parked == 1
    assert "the outcome of 'a' was handed out 10 times in vain" in caplog.text


async def test_the_end_of_what_saves_is_raised(book: TaskBook) -> None:
    """Where the session ends whose wing saves, the next step says so; what it had comes again."""
    await ended(book, ["a"])
    shelf = Shelf()
    async with saving_stream(book, shelf) as outcomes:
        await asyncio.sleep(1)
        shelf.cut(End(SessionClosedError("the session is closed")))
        with pytest.raises(SessionClosedError):
            await anext(outcomes)
    assert await unread(book) == 1


# With images.


def names_in(folder: Path) -> list[str]:
    """Return the names of all files."""
    return sorted(path.name for path in folder.iterdir())


async def saved_by(
    api: SimulatedCometAPI, folder: Path, **task: object
) -> tuple[TaskOutcome, list[str]]:
    """Let a worker poll one task, and a reader without a session save it."""
    async with TaskBook() as book, new_session(api) as session:
        await book.add(api.create_task(**task))  # type: ignore[arg-type]
        async with session.work(book), book.outcomes(save_to=folder, until_empty=True) as outcomes:
            (outcome,) = [outcome async for outcome in outcomes]
    return outcome, names_in(folder)


async def test_images_are_there_before_their_outcome(
    comet_api: SimulatedCometAPI, tmp_path: Path
) -> None:
    """A reader needs no session and no key: it learns from the book whose images it may fetch."""
    outcome, names = await saved_by(comet_api, tmp_path, images=2)
    assert outcome.ok
    assert [image.key.rpartition("/")[2] for image in outcome.saved] == names
    assert len(names) == 2


async def test_images_of_a_strange_loopback_are_refused(book: TaskBook, tmp_path: Path) -> None:
    """Only the API that the book's workers ask may be on this machine."""
    await book.add("a")
    ender = await ender_of(book, origin="http://127.0.0.1:1")
    await ender.end(succeeded("a", "http://127.0.0.1:2/a.png"))
    async with book.outcomes(save_to=tmp_path, until_empty=True) as outcomes:
        (outcome,) = [outcome async for outcome in outcomes]
    assert isinstance(outcome.error, DownloadError)
    assert outcome.error.reason == "url"


async def test_a_store_that_cannot_be_used_is_refused_before_anything_is_read(
    book: TaskBook,
) -> None:
    """A wrong argument is refused by the call, a place where nothing can be kept by the entry."""
    await ended(book, ["a"])
    with pytest.raises(ConfigurationError):
        book.outcomes(save_to="")
    with pytest.raises(ConfigurationError):
        book.outcomes(save_to=__file__)
    outcomes = book.outcomes(save_to="/proc/none")
    with pytest.raises(ConfigurationError):
        await outcomes.__aenter__()
    await outcomes.aclose()
    assert await unread(book) == 1


async def test_a_reader_that_saves_opens_a_book_that_is_not_open(tmp_path: Path) -> None:
    """`outcomes` may be called before a loop runs the book."""
    book = TaskBook()
    async with book.outcomes(save_to=tmp_path, until_empty=True) as outcomes:
        assert [outcome async for outcome in outcomes] == []
    await book.aclose()
