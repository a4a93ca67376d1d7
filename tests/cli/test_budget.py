"""Prices and what may be spent: no clock, no API."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_omni_async import (
    ApiError,
    CreateUncertainError,
    ImageOrder,
    ImageTask,
    PollTimeoutError,
    TaskFailedError,
    TaskOutcome,
    TaskStatus,
)
from kling_omni_async._cli.budget import Budget, cost_of, images_of, price_of

IMAGE = "https://images.test/fox.png"


@pytest.mark.parametrize(
    ("fields", "images", "units"),
    [
        ({}, 1, 8),
        ({"n": 3, "resolution": "2k"}, 3, 24),
        ({"n": 9, "resolution": "4k", "model": "kling-v3-omni"}, 9, 144),
        ({"model": "kling-image-o1", "resolution": "1k"}, 1, 8),
        ({"result_type": "series", "series_amount": 4}, 4, 32),
        ({"result_type": "series", "series_amount": "auto"}, 9, 72),
        ({"result_type": "series"}, 9, 72),
        ({"result_type": "series", "series_amount": 2, "n": 3}, 6, 48),
        ({"result_type": "single", "series_amount": 4}, 1, 8),
        ({"model": "kling-v4"}, 1, None),
        ({"extra": {"quality": "best"}}, 1, None),
    ],
)
def test_the_price_of_an_order(fields: dict[str, Any], images: int, units: int | None) -> None:
    """8 units an image, 16 at 4k; the greatest number of images that it may make."""
    if fields.get("result_type") == "series":
        fields = {"model": "kling-v3-omni", "images": [IMAGE], **fields}
    order = ImageOrder("a fox", **fields)
    assert (images_of(order), price_of(order)) == (images, units)


def task(status: TaskStatus, units: str | None) -> ImageTask:
    """Make a task that says what it has cost."""
    deduction = None if units is None else Decimal(units)
    return ImageTask(task_id="a", status=status, final_unit_deduction=deduction)


@pytest.mark.parametrize(
    ("outcome", "units"),
    [
        (TaskOutcome(task_id="a", task=task(TaskStatus.SUCCEED, "6.5")), "6.5"),
        (TaskOutcome(task_id="a", task=task(TaskStatus.SUCCEED, None)), "8"),
        (
            TaskOutcome(
                task_id="a", task=task(TaskStatus.FAILED, "0"), error=TaskFailedError("no")
            ),
            "0",
        ),
        (
            TaskOutcome(
                task_id="a", task=task(TaskStatus.FAILED, None), error=TaskFailedError("no")
            ),
            "8",
        ),
        (
            TaskOutcome(
                task_id="a", task=task(TaskStatus.PROCESSING, "3"), error=PollTimeoutError("late")
            ),
            "8",
        ),
        (
            TaskOutcome(task_id="", order=ImageOrder("a"), error=ApiError("no", http_status=400)),
            "0",
        ),
        (
            TaskOutcome(
                task_id="",
                order=ImageOrder("a"),
                error=CreateUncertainError("?", external_task_id="x"),
            ),
            "8",
        ),
        (TaskOutcome(task_id="7", task=task(TaskStatus.SUCCEED, "-8")), "0"),
    ],
)
def test_what_an_outcome_has_cost(outcome: TaskOutcome, units: str) -> None:
    """What a final task says, else the price; nothing only where nothing was created."""
    assert cost_of(outcome, 8) == Decimal(units)


@given(limit=st.integers(1, 200), prices=st.lists(st.integers(1, 40)), data=st.data())
def test_reserved_and_spent_never_pass_the_limit(
    limit: int, prices: list[int], data: st.DataObject
) -> None:
    """Whatever is reserved in whichever order, as long as a task costs at most its price."""
    budget, open_ones = Budget(limit), list[int]()
    for price in prices:
        if budget.fits(price):
            budget.reserve(price)
            open_ones.append(price)
        elif open_ones:
            done = open_ones.pop(data.draw(st.integers(0, len(open_ones) - 1)))
            budget.settle(done, Decimal(data.draw(st.integers(0, done))))
        assert budget.spent + budget.reserved <= limit
        assert budget.left == limit - budget.spent - budget.reserved


def test_without_a_limit_everything_fits() -> None:
    """Also what has no price."""
    budget = Budget(None)
    budget.reserve(None)
    assert budget.fits(None)
    assert budget.fits(10**9)
    assert budget.left.is_infinite()
    assert not Budget(10**9).fits(None)
