"""Rows of figures: medians, their spread, and whether a figure reaches what was asked of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import TypeVar

import attrs

K = TypeVar("K")
V = TypeVar("V")


@attrs.frozen(kw_only=True)
class Row:
    """One line of a table.

    Attributes:
        figure: What was measured.
        policy: Under which policy, and how.
        reach: What was asked of it, or "shown".
        measured: The median, or why there is none.
        spread: The least and the most, or how often it was measured.
        met: Whether it reaches that; None where nothing was asked.
    """

    figure: str
    policy: str
    reach: str = "shown"
    measured: str
    spread: str = ""
    met: bool | None = None


@attrs.frozen
class Group:
    """The rows of one module.

    Attributes:
        title: Its heading.
        how: How it is measured and why that is fair.
        rows: Its lines.
    """

    title: str
    how: str
    rows: list[Row]


def row(
    figure: str,
    values: Sequence[float],
    *,
    policy: str,
    unit: str = "",
    digits: int = 2,
    most: float | None = None,
) -> Row:
    """Make a row of several measurements of one figure; ``most`` is what it has to keep to."""
    middle = median(values)
    return Row(
        figure=figure,
        policy=policy,
        reach="shown" if most is None else f"≤ {most:,g}{unit}",
        measured=f"{middle:,.{digits}f}{unit}",
        spread=_spread(values, unit, digits),
        met=None if most is None else middle <= most,
    )


def _spread(values: Sequence[float], unit: str, digits: int) -> str:
    if len(values) == 1:
        return "one run"
    return f"{min(values):,.{digits}f} – {max(values):,.{digits}f}{unit}, {len(values)} runs"


def alternate(blocks: Mapping[K, Callable[[], V]], rounds: int) -> dict[K, list[V]]:
    """Run blocks in turn, A B A B …, so that what else the machine does meets all alike."""
    results: dict[K, list[V]] = {name: [] for name in blocks}
    for _ in range(rounds):
        for name, block in blocks.items():
            results[name].append(block())
    return results


def ratios(values: Sequence[float], floor: Sequence[float]) -> list[float]:
    """Compare each block with the floor's of the same round."""
    return [value / least for value, least in zip(values, floor, strict=True)]


def quantile(values: Sequence[float], share: float) -> float:
    """Give the value that this share of all does not exceed."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def as_markdown(group: Group) -> str:
    """Give a group as a section of a page."""
    lines = [f"## {group.title}", "", group.how, ""]
    lines += ["| figure | policy | reach | measured | spread | met |", "|" + " --- |" * 6]
    words = {True: "yes", False: "**no**", None: ""}
    lines += [
        f"| {one.figure} | {one.policy} | {one.reach} | {one.measured} | {one.spread} "
        f"| {words[one.met]} |"
        for one in group.rows
    ]
    return "\n".join(lines) + "\n"
