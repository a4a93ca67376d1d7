"""Doors into a session that are not for users: for the instruments, and for the command line."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import TYPE_CHECKING

from ._models import ImageTask
from ._observer import Observer
from ._order import ImageOrder
from ._policy import POLICY_TIMEOUT
from ._saving.stores import StoreLike
from ._session import KlingOmniSession
from ._stats import SessionStats
from ._streams import OutcomeStream

if TYPE_CHECKING:
    from ._creating.ledger import Ledger, NamedOrder


def observe(session: KlingOmniSession, observer: Observer | None) -> Observer | None:
    """Put an observer at the door of a session, or nobody; return who stood there."""
    door = session._wings.door  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - our own
    before, door.observer = door.observer, observer
    return before


def stats_from_any_thread(session: KlingOmniSession) -> SessionStats | None:
    """Return what a session is doing, or None where it does nothing; nothing is changed."""
    poller = session._wings.poller  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - our own
    return poller.stats() if poller is not None and poller.is_alive else None


# The command line's doors: its journal names each order, and outlives the process.


def external_id_in(session: KlingOmniSession, order: ImageOrder) -> str:
    """Return the external id that a session gives an order; without a key each time another."""
    from ._api.create import external_id_of  # noqa: PLC0415 - not for those who only poll

    return external_id_of(order, session._settings.namespace)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - our own


async def create_named(
    session: KlingOmniSession, named: NamedOrder, ledger: Ledger | None
) -> ImageTask:
    """Create a task under a name that is fixed, as `create` does."""
    session._ready()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - our own
    creator = session._wings.creating_wing()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - as above
    task, _ = await creator.create(named.order, external_id=named.external_id, ledger=ledger)
    return task


def generate_named(
    session: KlingOmniSession,
    orders: AsyncIterable[NamedOrder],
    ledger: Ledger | None,
    *,
    max_tasks: int | None = None,
    save_to: StoreLike | None = None,
    watermarked: bool = False,
    overwrite: bool = False,
) -> OutcomeStream:
    """Create many tasks under names that are fixed, as `generate_many` does."""
    outlet = session._wings.outlet(save_to, watermarked=watermarked, overwrite=overwrite)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - as above
    return session._order_stream(  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - as above
        orders, max_tasks=max_tasks, timeout=POLICY_TIMEOUT, outlet=outlet, ledger=ledger
    )
