"""What a session tells an observer, where one stands at its door; nobody does by default.

The log of polling is none: it speaks of ids, and each thing once. An observer counts, and gets
numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from ._models import ImageTask
from .errors import KlingOmniError


class Trace(Protocol):
    """One call of a user's that is followed."""

    def of(self, task_id: str) -> None:
        """Note which task it is about."""


class Observer(Protocol):
    """One who looks on. It must not raise, and must not wait."""

    @property
    def follows_queries(self) -> bool:
        """Whether `queried` wants to know for which calls a query was."""
        ...

    def queried(
        self,
        *,
        took_s: float,
        late_s: float,
        error: KlingOmniError | None,
        traces: Sequence[Trace],
    ) -> None:
        """Note a query, how long after its time it began, and for which calls it was."""

    def ended(self, error: KlingOmniError | None, *, queries: int) -> None:
        """Note that an id came out, and why it did not succeed."""

    def seen(self, task: ImageTask, age_s: float | None) -> None:
        """Note the final answer on a task, and how old it was then, if that is known."""

    def throttled(self, pause_s: float) -> None:
        """Note a pause of all scheduled queries."""

    def created(self, error: BaseException | None) -> None:
        """Note that a POST has made a task, or why none is known."""

    def saved(self, size: int) -> None:
        """Note an image that is whole in its store, of a size in bytes."""

    def trace(self, name: str, task_id: str) -> AbstractContextManager[Trace]:
        """Follow a call of a user's in his own context."""
        ...

    def hushed(self) -> AbstractContextManager[None]:
        """Keep instruments of the HTTP client silent: nobody's context is around our requests."""
        ...


class Door:
    """Where the observer of one session stands, if there is one."""

    __slots__ = ("observer",)

    def __init__(self) -> None:
        self.observer: Observer | None = None

    def trace(self, name: str, task_id: str = "") -> AbstractContextManager[Trace | None]:
        """Follow a call of a user's, if somebody looks on."""
        return nullcontext() if self.observer is None else self.observer.trace(name, task_id)

    def hushed(self) -> AbstractContextManager[None]:
        """Keep instruments of the HTTP client silent, if somebody looks on."""
        return nullcontext() if self.observer is None else self.observer.hushed()
