"""What prompts cost, and how much of what may be spent is left: no clock, no await."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from kling_omni_async._order import NEWER_MODEL, OLDER_MODEL, ImageOrder
from kling_omni_async._outcome import TaskOutcome

from .report import Kind, kind_of

_UNITS: Final = {None: 8, "1k": 8, "2k": 8, "4k": 16}
_AUTO_SERIES: Final = 9
"""How many images a series has at most whose length the API chooses."""


def images_of(order: ImageOrder) -> int:
    """Return how many images an order makes at most."""
    if order.result_type != "series":
        return order.n or 1
    amount = order.series_amount
    return (amount if isinstance(amount, int) else _AUTO_SERIES) * (order.n or 1)


def price_of(order: ImageOrder) -> int | None:
    """Return what an order costs at most, in units; None where no price is published."""
    if order.model not in {None, OLDER_MODEL, NEWER_MODEL} or order.extra:
        return None
    return images_of(order) * _UNITS[order.resolution]


def cost_of(outcome: TaskOutcome, price: int) -> Decimal:
    """Return what an outcome has cost or may have cost, in units.

    What the API says counts; where it says nothing, the price does, for failed tasks too.
    """
    task = outcome.task
    if task is not None and task.is_terminal and task.final_unit_deduction is not None:
        return max(Decimal(), task.final_unit_deduction)  # nothing makes more room to spend
    is_free = not outcome.task_id and kind_of(outcome) is not Kind.UNCERTAIN
    return Decimal(0 if is_free else price)


class Budget:
    """Units that are deducted or reserved, which together never pass a limit."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.spent = Decimal()
        self.reserved = 0

    @property
    def left(self) -> Decimal:
        """How many units may still be reserved; infinite without a limit."""
        if self.limit is None:
            return Decimal("Infinity")
        return self.limit - self.spent - self.reserved

    def fits(self, price: int | None) -> bool:
        """Whether a create of this price may begin."""
        return self.limit is None or (price is not None and price <= self.left)

    def reserve(self, price: int | None) -> None:
        """Note that a create begins, or may have been begun by an earlier run."""
        self.reserved += price or 0

    def settle(self, price: int | None, cost: Decimal) -> None:
        """Note what a create that was reserved has cost."""
        self.reserved -= price or 0
        self.spent += cost
