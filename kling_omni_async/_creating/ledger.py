"""What outlives the process: which orders are about to be sent, and what came of them."""

from __future__ import annotations

from typing import Protocol

import attrs

from kling_omni_async._api.create import CreateRequest, Refused
from kling_omni_async._models import ImageTask
from kling_omni_async._order import ImageOrder
from kling_omni_async.errors import CreateUncertainError


class Ledger(Protocol):
    """Keeps intents: what is still open after a crash may have been paid for.

    What it raises ends the session, but a `BookError`, which ends that create alone: nothing is
    sent that could not be kept.
    """

    async def open(
        self, request: CreateRequest
    ) -> ImageTask | Refused | CreateUncertainError | None:
        """Keep that a request is about to be sent, each time; return what is known of it instead.

        Only after None is it sent; that is kept then whatever happens to the process.
        """

    async def close(self, request: CreateRequest, task: ImageTask | None, *, is_new: bool) -> None:
        """Keep which task a request has made; None where it is certain that it made none.

        It is not called where that is not known. A task that is new was created just now.
        """


@attrs.frozen
class NamedOrder:
    """An order whose external id is fixed, and its task where an earlier process created it."""

    order: ImageOrder
    external_id: str
    task: ImageTask | None = None
