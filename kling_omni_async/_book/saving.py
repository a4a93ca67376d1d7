"""How readers save images before they hand out, with a session or without one."""

from __future__ import annotations

from collections.abc import Iterable

import attrs
from yarl import URL

from kling_omni_async._config import is_loopback_of
from kling_omni_async._outcome import TaskOutcome
from kling_omni_async._policy import PollPolicy
from kling_omni_async._results import Outlet

from .contract import Parcel


@attrs.define
class BookSettings:
    """What is known without a session: the default limits, and which API a worker asks."""

    policy: PollPolicy = attrs.field(factory=PollPolicy)
    origin: str | None = None

    def is_own_loopback(self, url: URL) -> bool:
        """Whether a URL is on the very host and port of an API that is on this machine."""
        return self.origin is not None and is_loopback_of(self.origin, url)


class SavedAhead:
    """Outcomes of a reader that are taken before they are asked for, and saved by an outlet."""

    def __init__(self, outlet: Outlet, most: int, settings: BookSettings | None = None) -> None:
        self.outlet = outlet
        self.most = most
        self._settings = settings  # of a book's own wing, which learns whose images it fetches
        self._parcels: dict[tuple[str, str | None], Parcel] = {}
        self._saved: dict[str, TaskOutcome] = {}

    def __repr__(self) -> str:
        return f"<SavedAhead {len(self._parcels)} under way, {len(self._saved)} saved>"

    def save(self, parcel: Parcel, outcome: TaskOutcome, origin: str | None) -> None:
        """Begin to save what belongs to an outcome of an API."""
        if self._settings is not None:
            self._settings.origin = origin
        self._parcels[_names(outcome)] = parcel
        self.outlet.put(outcome)

    async def next_saved(self) -> Parcel:
        """Wait for one that is saved, or raise what ended the outlet."""
        while True:
            outcome = await self.outlet.take()
            # One that has ended anew meanwhile is saved for its new end.
            if (parcel := self._parcels.pop(_names(outcome), None)) is not None:
                self._saved[parcel.key] = attrs.evolve(outcome, deliveries=parcel.deliveries + 1)
                return parcel

    def pop(self, parcel: Parcel) -> TaskOutcome | None:
        """Take out what was saved."""
        return self._saved.pop(parcel.key, None)

    def forget(self, keys: Iterable[str]) -> None:
        """Drop what is not to be handed out any more."""
        for key in keys:
            self._saved.pop(key, None)


def _names(outcome: TaskOutcome) -> tuple[str, str | None]:
    return outcome.task_id, outcome.external_task_id
