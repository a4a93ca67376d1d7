"""Ideas for a cheaper query, tried on the floor, so that each one's gain stands alone.

Run as ``python -m tests.benchmarks.ideas [--ids N] [--rounds N]``. A change that saves less than
the spread of its row is not worth a dependency or a rule.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from multidict import CIMultiDict
from yarl import URL

from kling_omni_async._api.answers import Answer, read_answer
from kling_omni_async._api.values import parse

from . import contenders
from .answers import DONE, Answers, task_ids
from .contenders import HEADERS, IN_FLIGHT, BareLoop, Contender, optional
from .processes import fresh, running_server
from .tables import Group, Row, alternate, as_markdown, ratios, row

HOW: Final = (
    "Each idea alone on the loop of rival (a), in alternating blocks against that loop as it "
    "is; then all that cost no dependency together. Decoding is timed apart, for the answer about "
    "a finished task: `json.loads` and its rivals only parse, the library also checks depth and "
    "numbers and makes the record."
)


def encoded(url: str) -> URL:
    """Make a URL without quoting it again."""
    return URL(url, encoded=True)


def built(url: str) -> URL:
    """Make a URL of its parts."""
    authority, _, path = url.removeprefix("http://").partition("/")
    return URL.build(scheme="http", authority=authority, path=f"/{path}", encoded=True)


PREBUILT: Final = CIMultiDict(HEADERS)
IDEAS: Final[dict[str, BareLoop]] = {
    "as it is": BareLoop(),
    "`DummyCookieJar`": BareLoop(plain_cookies=False),
    "`URL(…, encoded=True)`": BareLoop(url=encoded),
    "`URL.build(…, encoded=True)`": BareLoop(url=built),
    "prebuilt headers": BareLoop(headers=PREBUILT),
    "jar, `URL(…)` and headers": BareLoop(plain_cookies=False, url=encoded, headers=PREBUILT),
}
LOOPS: Final[dict[str, Contender]] = {
    "the floor": contenders.floor,
    "the library": contenders.library,
}


def measure(*, ids: int = 10_000, rounds: int = 5, decodings: int = 20_000) -> Group:
    """Try the ideas."""
    policy = f"{IN_FLIGHT} in flight, {ids:,} finished ids"
    with running_server() as base_url:
        blocks = {
            name: fresh(contenders.cpu_us_each, idea, base_url, ids) for name, idea in IDEAS.items()
        }
        found = alternate(blocks, rounds)
        rows = [row("the loop as it is", found["as it is"], policy=policy, unit=" µs", digits=0)]
        rows += [
            row(name, ratios(found[name], found["as it is"]), policy=policy, unit=" ×")
            for name in IDEAS
            if name != "as it is"
        ]
        rows += _on_uvloop(base_url, ids, rounds, policy)
    return Group("Ideas", HOW, [*rows, *_decoding(decodings, rounds)])


def _on_uvloop(base_url: str, ids: int, rounds: int, policy: str) -> list[Row]:
    if optional("uvloop") is None:
        return [Row(figure="uvloop", policy=policy, measured="not installed")]
    rows: list[Row] = []
    for name, contender in LOOPS.items():
        blocks = {
            "asyncio": fresh(contenders.cpu_us_each, contender, base_url, ids),
            "uvloop": fresh(cpu_us_on_uvloop, contender, base_url, ids),
        }
        found = alternate(blocks, rounds)
        against = ratios(found["uvloop"], found["asyncio"])
        rows.append(row(f"uvloop under {name}", against, policy=policy, unit=" ×"))
    return rows


def cpu_us_on_uvloop(contender: Contender, base_url: str, count: int) -> float:
    """Give the CPU time for each query on uvloop."""
    uvloop: Any = optional("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(contenders.cpu_us_each_in(contender, base_url, count))


def _decoding(count: int, rounds: int) -> list[Row]:
    task_id = task_ids(DONE, 1)[0]
    body = Answers().body(task_id.encode())
    blocks: dict[str, Callable[[], object]] = {
        "the library, to a record": lambda: _record(body, task_id),
        "the library, to JSON": lambda: parse(body),
        "`json.loads`": lambda: json.loads(body),
    }
    orjson, msgspec = optional("orjson"), optional("msgspec")
    if orjson is not None:
        blocks["`orjson.loads`"] = lambda: orjson.loads(body)
    if msgspec is not None:
        blocks["`msgspec.json.decode`"] = lambda: msgspec.json.decode(body)
    timed = {name: partial(_us_each, block, count) for name, block in blocks.items()}
    policy = f"{len(body)} bytes, {count:,} times"
    rows = [
        row(f"decoding by {name}", values, policy=policy, unit=" µs", digits=1)
        for name, values in alternate(timed, rounds).items()
    ]
    missing = {"`orjson.loads`", "`msgspec.json.decode`"} - blocks.keys()
    return rows + [
        Row(figure=f"decoding by {name}", policy=policy, measured="not installed")
        for name in sorted(missing)
    ]


def _record(body: bytes, task_id: str) -> object:
    return read_answer(Answer(200, body), task_id, wall_s=0.0)


def _us_each(block: Callable[[], object], count: int) -> float:
    began = time.process_time()
    for _ in range(count):
        block()
    return (time.process_time() - began) / count * 1e6


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ids", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--decodings", type=int, default=20_000)
    sys.stdout.write(as_markdown(measure(**vars(parser.parse_args(arguments)))))


if __name__ == "__main__":
    main()
