"""Which orders are to be created, asked for or looked for: prompts and a journal side by side.

No clock, no await: what is read of files is read before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from enum import Enum

import attrs

from kling_omni_async._ids import quoted
from kling_omni_async._order import ImageOrder

from .budget import Budget, images_of, price_of
from .exit import UsageError
from .order_journal import Record
from .prompts import Prompt
from .units import plural


class Todo(Enum):
    """What is left to do for an order."""

    CREATE = "create"
    POLL = "poll"
    LOOK = "look for"
    NOTHING = "done"


@attrs.define
class Wanted:
    """An order of this run, and what a journal says of it."""

    order: ImageOrder
    digest: str = ""  # empty where there is no journal
    record: Record | None = None
    external_id: str = ""
    is_retry: bool = False  # it was not found, and is to be created again

    @property
    def price(self) -> int | None:
        """What it costs at most, in units; None where no price is published."""
        return price_of(self.order)

    @property
    def task_id(self) -> str:
        """Its task, as far as the journal knows one."""
        return self.record.task_id if self.record else ""

    @property
    def todo(self) -> Todo:
        """What is left to do for it."""
        if self.record is None or self.is_retry:
            return Todo.CREATE
        if self.record.ended:
            return Todo.NOTHING
        if self.record.is_free:
            return Todo.CREATE
        return Todo.LOOK if self.record.is_open else Todo.POLL


def without_repeats(prompts: Iterable[Prompt]) -> list[ImageOrder]:
    """Return the orders; one with the same key and contents as an earlier one is left out.

    Raises:
        UsageError: Two orders have the same key and are not the same.
    """
    orders: list[ImageOrder] = []
    by_key: dict[str, Prompt] = {}
    for prompt in prompts:
        key = prompt.order.key
        if key is None or key not in by_key:
            orders.append(prompt.order)
        elif by_key[key].order != prompt.order:
            places = f"lines {by_key[key].line} and {prompt.line}"
            raise UsageError(f"key {quoted(key)} names two orders, {places}: give each its own")
        if key is not None:
            by_key.setdefault(key, prompt)
    return orders


def match(
    orders: Iterable[ImageOrder], records: Iterable[Record], digest_of: Callable[[ImageOrder], str]
) -> list[Wanted]:
    """Find the record of each order: by its key, else by contents and number among equal ones.

    Raises:
        UsageError: A key is in the journal with other contents.
    """
    by_key: dict[str, Record] = {}
    by_digest: dict[str, deque[Record]] = {}
    for record in records:
        if record.key is not None:
            by_key[record.key] = record
        else:
            by_digest.setdefault(record.digest, deque()).append(record)
    wanted: list[Wanted] = []
    for order in orders:
        digest = digest_of(order)
        if order.key is not None:
            found = by_key.get(order.key)
            if found is not None and found.digest != digest:
                raise UsageError(
                    f"key {quoted(order.key)} names another order in the journal: give each wish a "
                    "key of its own"
                )
        else:
            equal = by_digest.get(digest)
            found = equal.popleft() if equal else None
        wanted.append(Wanted(order, digest, found, found.external_id if found else ""))
    return wanted


def budget_of(limit: int | None, wanted: Sequence[Wanted], records: Iterable[Record]) -> Budget:
    """Return what may be spent, less what the whole journal has spent and reserved.

    Raises:
        UsageError: There is a limit, and the price of an order is not known.
    """
    budget = Budget(limit)
    if limit is None:
        return budget
    for each in wanted:
        if each.price is None:
            raise UsageError(
                f"--max-units cannot hold: no price is published for {each.order.model or 'extra'}"
                f" ({quoted(each.order.prompt)})"
            )
    for record in records:
        if record.units is None:
            raise UsageError(
                "--max-units cannot hold: the journal has an order whose price is not published"
            )
        budget.reserve(record.doubts * record.units)
        if record.cost is not None:
            budget.spent += record.cost
        elif not record.is_free:
            budget.reserve(record.units)
    return budget


def summary(wanted: Sequence[Wanted]) -> str:
    """Return how much that is, such as ``3 prompts, 5 images, 40 units``."""
    prices = [each.price for each in wanted]
    units = "units not known" if None in prices else f"{sum(filter(None, prices)):,} units"
    images = sum(images_of(each.order) for each in wanted)
    prompts = plural(len(wanted), "prompt", "prompts")
    return f"{prompts}, {plural(images, 'image', 'images')}, {units}"
