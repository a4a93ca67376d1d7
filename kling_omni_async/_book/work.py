"""What `session.work(book)` gives: a book that is polled until its block is left."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from kling_omni_async.errors import SessionClosedError, copy_error

from .book import TaskBook, open_inside
from .opened import OpenBook
from .worker import Worker

if TYPE_CHECKING:
    from types import TracebackType


class BookWork:
    """Polls a book in the background while its block is open: an async context manager."""

    def __init__(self, book: TaskBook, make: Callable[[OpenBook], Worker]) -> None:
        self._book = book
        self._make = make
        self._worker: Worker | None = None

    def __repr__(self) -> str:
        return f"<BookWork of {self._book!r}>"

    async def __aenter__(self) -> Self:
        inside = await open_inside(self._book)
        if self._worker is not None:
            raise RuntimeError(
                "this work was entered before; write `async with session.work(book)` each time"
            )
        self._worker = self._make(inside)
        self._worker.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop; what was claimed goes back to the book.

        Raises:
            KlingOmniError: The set-up was wrong, such as the key; unless something else is raised.
        """
        assert self._worker is not None  # noqa: S101 - the block was entered
        await self._worker.aclose()
        fault = self._worker.fault
        # Who closes the session inside of the block knows that nothing is polled any more.
        if error is None and fault is not None and not isinstance(fault, SessionClosedError):
            raise copy_error(fault)
