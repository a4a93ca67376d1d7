"""CPU for each query, in alternating blocks, each in a fresh process, beside the same server.

Run as ``python -m tests.benchmarks.speed [--ids N] [--rounds N]``. Process CPU time is counted,
not wall time: it leaves out the server and whoever else uses the machine.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from statistics import median
from typing import Final

from . import contenders
from .contenders import IN_FLIGHT, Contender, cpu_us_each, optional
from .processes import fresh, running_server
from .tables import Group, Row, alternate, as_markdown, ratios, row

MOST: Final = 1.15
"""How often the floor's cost the library's may be."""

SLOW_SHARE: Final = 5
"""A slow rival's cost is known from fewer ids."""

POLICY: Final = f"`max_rate=None`, {IN_FLIGHT} in flight, {{ids:,}} finished ids"
RIVALS: Final[dict[str, tuple[Contender, int]]] = {
    "(b) a coroutine for each id": (contenders.coroutines, 1),
    "(c) httpx": (contenders.httpx, SLOW_SHARE),
    "(c) cometapi": (contenders.cometapi, SLOW_SHARE),
}
NEEDS: Final = {"(c) httpx": "httpx", "(c) cometapi": "cometapi"}


def measure(*, ids: int = 20_000, rounds: int = 9) -> Group:
    """Compare the library with all rivals that are installed."""
    known: dict[str, tuple[Contender, int]] = {
        "library": (contenders.library, 1),
        "floor": (contenders.floor, 1),
        "transport": (contenders.transport, 1),
        **{name: rival for name, rival in RIVALS.items() if _is_installed(name)},
    }
    with running_server() as base_url:
        blocks = {
            name: fresh(cpu_us_each, contender, base_url, ids // share)
            for name, (contender, share) in known.items()
        }
        found = alternate(blocks, rounds)
    return Group("CPU for each query", _how(ids), _rows(found, ids))


def _is_installed(name: str) -> bool:
    return name not in NEEDS or optional(NEEDS[name]) is not None


def _how(ids: int) -> str:
    return (
        f"`poll` over {ids:,} finished ids against other ways to records of them. (a) is the "
        "cheapest loop that does: workers over one aiohttp session, `session.get`, `read()`, "
        "`json` and a record by cattrs. (b) and (c) make the same record. A ratio is of two "
        "blocks of one round. Only the library and (b) know what is due next; the others just "
        "walk through their ids."
    )


def _rows(found: dict[str, list[float]], ids: int) -> list[Row]:
    ours, floor, transport = found["library"], found["floor"], found["transport"]
    policy = POLICY.format(ids=ids)
    dues = [mine - bare for mine, bare in zip(ours, transport, strict=True)]
    rows = [
        row("the library", ours, policy=policy, unit=" µs", digits=0),
        row("(a) bare aiohttp, the floor", floor, policy=policy, unit=" µs", digits=0),
        row("the library against (a)", ratios(ours, floor), policy=policy, unit=" ×", most=MOST),
        row("(a) with the library's client", transport, policy=policy, unit=" µs", digits=0),
        row("knowing what is due", dues, policy=policy, unit=" µs", digits=0),
    ]
    for name, (_, share) in RIVALS.items():
        small = POLICY.format(ids=ids // share)
        if name not in found:
            rows.append(Row(figure=name, policy=small, measured="not installed"))
            continue
        rows.append(row(name, found[name], policy=small, unit=" µs", digits=0))
        against = ratios(ours, found[name])
        rows.append(row(f"the library against {name}", against, policy=small, unit=" ×"))
    rows.append(
        Row(
            figure="one core, at most",
            policy=policy,
            measured=f"{1e6 / median(ours):,.0f} queries/s",
            spread="from the median",
        )
    )
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ids", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=9)
    sys.stdout.write(as_markdown(measure(**vars(parser.parse_args(arguments)))))


if __name__ == "__main__":
    main()
