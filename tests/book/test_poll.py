"""`session.poll(book)`: what a book holds is polled here and handed out here."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from kling_omni_async import (
    AuthenticationError,
    ConfigurationError,
    KlingOmniSession,
    SessionClosedError,
    TaskBook,
    TaskOutcome,
)
from kling_omni_async.simulator import SimulatedCometAPI
from tests.support import new_session, now

pytestmark = pytest.mark.anyio


async def test_a_batch_ends_when_nothing_is_left(comet_api: SimulatedCometAPI) -> None:
    """With `until_empty` the stream gives each outcome once, with its note, and ends."""
    ids = [comet_api.create_task(duration=30 + number) for number in range(20)]
    async with TaskBook() as book, new_session(comet_api) as session:
        await book.add_many((task_id, {"n": number}) for number, task_id in enumerate(ids))
        async with session.poll(book, until_empty=True) as outcomes:
            found = {outcome.task_id: outcome async for outcome in outcomes}
            assert outcomes.progress.succeeded == 20
        progress = await book.progress()
    assert set(found) == set(ids)
    assert [found[task_id].note["n"] for task_id in ids] == list(range(20))
    assert all(outcome.deliveries == 1 and outcome.ok for outcome in found.values())
    assert progress.unread == progress.pending == progress.workers == 0


async def test_a_bot_answers_what_is_added_meanwhile(comet_api: SimulatedCometAPI) -> None:
    """`each` calls the handler for whatever is added, and goes on until it is cancelled."""
    answered: list[TaskOutcome] = []

    async def answer(outcome: TaskOutcome) -> None:
        answered.append(outcome)

    async with TaskBook() as book, new_session(comet_api) as session:

        async def bot() -> None:
            async with session.poll(book) as outcomes:
                await outcomes.each(answer, limit=4)

        running = asyncio.ensure_future(bot())
        for _ in range(5):
            await asyncio.sleep(100)
            await book.add(comet_api.create_task(duration=1))
        await asyncio.sleep(100)
        running.cancel()
        await asyncio.wait([running])
        assert len(answered) == 5
        assert (await book.progress()).unread == 0


# The directory is looked at when nothing is under way any more.
# ruff: noqa: ASYNC240


async def test_images_are_saved_before_they_are_handed_out(
    comet_api: SimulatedCometAPI, tmp_path: Path
) -> None:
    """With `save_to` an outcome of a book has its images in the directory."""
    ids = [comet_api.create_task(duration=1, images=2) for _ in range(10)]
    async with TaskBook() as book, new_session(comet_api) as session:
        await book.add_many(ids)
        async with session.poll(book, save_to=tmp_path, until_empty=True) as outcomes:
            saved = [
                each.key for outcome in [one async for one in outcomes] for each in outcome.saved
            ]
    assert len(saved) == 20
    assert set(map(Path, saved)) == set(tmp_path.iterdir())


async def test_a_wrong_key_is_raised_by_the_stream(comet_api: SimulatedCometAPI) -> None:
    """A set-up fault of the worker ends the stream that it belongs to."""
    wrong = KlingOmniSession("sk-wrong", base_url=comet_api.base_url)
    async with TaskBook() as book, wrong:
        await book.add("1")
        async with wrong.poll(book) as outcomes:
            with pytest.raises(AuthenticationError):
                await anext(outcomes)
        assert (await book.progress()).pending == 1


async def test_a_closed_session_is_raised_by_the_stream(comet_api: SimulatedCometAPI) -> None:
    """Who reads a book by a session that is closed meanwhile is told."""
    async with TaskBook() as book:
        session = new_session(comet_api)
        async with session.poll(book) as outcomes:
            waiting = asyncio.ensure_future(anext(outcomes))
            await asyncio.sleep(1)
            await session.aclose()
            with pytest.raises(SessionClosedError):
                await waiting
        with pytest.raises(SessionClosedError):
            await anext(session.poll([], timeout=1))


async def test_a_session_that_is_closed_before_it_polls_is_raised(
    comet_api: SimulatedCometAPI,
) -> None:
    """Also where the worker had no time to begin, the stream does not wait for ever."""
    async with TaskBook() as book:
        await book.add("1")
        session = new_session(comet_api)
        async with session.poll(book, until_empty=True) as outcomes:
            await session.aclose()
            with pytest.raises(SessionClosedError):
                await anext(outcomes)
        assert now() == 0


async def test_a_closed_session_polls_no_book(comet_api: SimulatedCometAPI) -> None:
    """To enter the stream of a closed session raises, and leaves the book as it was."""
    session = new_session(comet_api)
    await session.aclose()
    async with TaskBook() as book:
        with pytest.raises(SessionClosedError):
            await session.poll(book).__aenter__()
        assert (await book.progress()).workers == 0


async def test_the_time_of_ids_may_be_given(comet_api: SimulatedCometAPI) -> None:
    """`timeout` of `poll` is the time of each id of the book."""
    async with TaskBook() as book, new_session(comet_api) as session:
        await book.add(comet_api.create_task(duration=1000))
        async with session.poll(book, timeout=50, until_empty=True) as outcomes:
            outcome = await anext(outcomes)
        assert not outcome.ok
        assert 50 <= now() <= 71


async def test_options_that_do_not_fit_are_refused(comet_api: SimulatedCometAPI) -> None:
    """`until_empty` is for books alone, and `expect_callback` for other inputs."""
    async with TaskBook() as book, new_session(comet_api) as session:
        with pytest.raises(ConfigurationError, match="until_empty"):
            session.poll(["1"], until_empty=True)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
        with pytest.raises(ConfigurationError, match=r"book\.nudge"):
            session.poll(book, expect_callback=5.0)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
