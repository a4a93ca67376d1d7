"""Which orders are to be created, asked for or looked for: prompts and a journal side by side.

No clock, no await: what is read of files is read before.
"""

from __future__ import annotations

from collections import Counter, deque
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

    def take(self, record: Record) -> None:
        """Note what the journal says of it."""
        self.record, self.external_id = record, record.external_id

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


def with_keys(
    orders: Iterable[ImageOrder], digest_of: Callable[[ImageOrder], str]
) -> list[ImageOrder]:
    """Return the orders with a key each: its own, or its contents and number among equal ones.

    That is how a journal knows rows again; a book knows them by their keys alone.
    """
    numbers: Counter[str] = Counter()
    keyed: list[ImageOrder] = []
    for order in orders:
        key = order.key
        if key is None:
            digest = digest_of(order)
            numbers[digest] += 1
            key = f"{digest}/{numbers[digest]}"
        keyed.append(attrs.evolve(order, key=key))
    return keyed


def match(
    orders: Iterable[ImageOrder], records: Iterable[Record], digest_of: Callable[[ImageOrder], str]
) -> list[Wanted]:
    """Find the record of each order: by its key, else by contents and number among equal ones.

    Raises:
        UsageError: A key is in the journal with other contents.
    """
    wanted = [Wanted(order, digest_of(order)) for order in orders]
    rest = list(records)
    by_key = {record.key: record for record in rest if record.key is not None}
    for each in wanted:
        if (key := each.order.key) is not None and (found := by_key.get(key)) is not None:
            if found.digest != each.digest:
                raise UsageError(
                    f"key {quoted(key)} names another order in the journal: give each wish a key "
                    "of its own"
                )
            each.take(found)
    _match_by_contents(wanted, _not_of(wanted, rest), with_keys=False)
    # A column of keys may have come or gone since: that is no reason to pay for a row again.
    paid = [each for each in _not_of(wanted, rest) if each.ended or not each.is_free]
    _match_by_contents(wanted, paid, with_keys=True)
    return wanted


def left_out(wanted: Iterable[Wanted], records: Iterable[Record]) -> list[Record]:
    """Return what may be paid for and has no outcome, and is not wanted any more."""
    return [
        record
        for record in _not_of(wanted, records)
        if not (record.ended or record.is_free or record.has_succeeded)
    ]


def _not_of(wanted: Iterable[Wanted], records: Iterable[Record]) -> list[Record]:
    taken = {each.external_id for each in wanted}
    return [record for record in records if record.external_id not in taken]


def _match_by_contents(
    wanted: Iterable[Wanted], records: Iterable[Record], *, with_keys: bool
) -> None:
    """Give orders without a record one of the same contents, the first to the first.

    Those that differ in having a key take part only `with_keys`.
    """
    equal: dict[tuple[str, bool], deque[Record]] = {}
    for record in records:
        has_key = record.key is not None
        equal.setdefault((record.digest, has_key), deque()).append(record)
    for each in wanted:
        has_key = each.order.key is not None
        if each.record is not None or (has_key and not with_keys):
            continue
        if found := equal.get((each.digest, not has_key if with_keys else has_key)):
            each.take(found.popleft())


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
