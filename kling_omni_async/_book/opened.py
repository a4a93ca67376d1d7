"""A book that is open: what its workers, its readers and those who wait share in one process."""

from __future__ import annotations

import attrs

from kling_omni_async._engine import Engine
from kling_omni_async.errors import ConfigurationError

from .changes import Changes
from .contract import Store


@attrs.define(eq=False)
class OpenBook:
    """A book that is open, as its workers and readers of this process see it."""

    name: str  # for the log
    store: Store
    engine: Engine
    changes: Changes
    fault: BaseException | None = None  # of the set-up of a worker in this process

    def fail(self, fault: BaseException) -> None:
        """Tell whoever waits here that a worker of this process cannot work."""
        self.fault = fault
        self.changes.wake_all()


def wrong_origin(name: str, theirs: str | None, ours: str) -> ConfigurationError:
    """Return the error of a session that asks another API than that of a book."""
    return ConfigurationError(
        f"the book {name} is for {theirs}, and this session asks {ours}; give each API a book of "
        "its own"
    )
