"""Create tasks from the prompts of a CSV file, store the images, and write a CSV file of results.

It needs the key in COMETAPI_KEY, and costs money::

    python batch.py prompts.csv results.csv --save-to images
    python batch.py prompts.csv results.csv --save-to s3://bucket/prefix

The input has the columns ``key``, your own name for each wish, and ``prompt``; others are passed
over. Each order that is done gets one row in the results. Stop it or kill it whenever you like and
run it again: keys that have a row are left alone, and images that are stored are not fetched. What
was under way is ordered again under its key, and the vendor, who knows that, gives its task instead
of a new one. What may still pass, such as a time-out, and an order that is to be corrected get no
row but a line on the terminal; run it again later.

Storing to S3 needs the extra ``storage`` of kling-omni-async. Let one process at a time write the
same results. ``kling-omni generate`` does much the same, and keeps a journal so as to rely on no
vendor; take this where the rows are your own.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from kling_omni_async import (
    ImageOrder,
    KlingOmniError,
    KlingOmniSession,
    PollPolicy,
    TaskOutcome,
)

COLUMNS = ("key", "task_id", "result", "images", "reason")


def read_orders(path: Path) -> Iterator[ImageOrder]:
    """Read the keys and prompts."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        if missing := {"key", "prompt"} - set(rows.fieldnames or ()):
            sys.exit(f"{path} has no column {min(missing)}")
        for row in rows:
            yield ImageOrder(row["prompt"], key=row["key"].strip())


def read_done(path: Path) -> set[str]:
    """Read which keys have a row, and cut off what a crash has left of one."""
    if not path.exists():
        return set()
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    os.truncate(path, len(whole))
    rows = csv.DictReader(io.StringIO(whole.decode("utf-8"), newline=""))
    return {row["key"] for row in rows}


def row_of(key: str, outcome: TaskOutcome) -> tuple[str, ...]:
    """Give the row of an order that is done."""
    images = " ".join(image.key for image in outcome.saved)
    reason = " ".join(str(outcome.error or "").split())  # on one line
    return (key, outcome.task_id, "ok" if outcome.ok else "failed", images, reason)


def write(file: TextIO, row: tuple[str, ...]) -> None:
    """Write a row and bring it to the disk."""
    csv.writer(file).writerow(row)
    file.flush()
    os.fsync(file.fileno())


async def bring(orders: list[ImageOrder], file: TextIO, save_to: str, policy: PollPolicy) -> int:
    """Bring orders to their end.

    Returns:
        How many have no row yet.
    """
    left = 0
    async with (
        KlingOmniSession(policy=policy) as session,
        session.generate_many(orders, save_to=save_to) as outcomes,
    ):
        async for outcome in outcomes:
            if outcome.settled and outcome.order:  # ordering again brings nothing new
                write(file, row_of(outcome.order.key or "", outcome))
            else:
                left += 1
                print(f"no row: {outcome.order}: {outcome}", file=sys.stderr)
            progress = outcomes.progress
            print(f"{progress.total - progress.pending} of {progress.total}", flush=True)
    return left


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Make images of the prompts of a CSV file.")
    parser.add_argument("prompts", type=Path, help="a CSV file with columns key and prompt")
    parser.add_argument("results", type=Path, help="the CSV file to write, or to carry on")
    parser.add_argument("--save-to", default="images", help="a directory, or s3://bucket/prefix")
    parser.add_argument(
        "--interval",
        nargs=2,
        type=float,
        default=(20.0, 30.0),
        metavar="S",
        help="the pause between two queries of an id: at least, at most",
    )
    return parser.parse_args()


def main() -> int:
    """Run the program.

    Returns:
        The exit code: 0 if every order has its row.
    """
    given = arguments()
    at_least, at_most = given.interval
    done = read_done(given.results)
    orders = [order for order in read_orders(given.prompts) if order.key not in done]
    print(f"{len(done)} done already, {len(orders)} to do")
    with given.results.open("a", encoding="utf-8", newline="") as file:
        if not given.results.stat().st_size:
            write(file, COLUMNS)
        policy = PollPolicy(interval=(at_least, at_most))
        return 1 if asyncio.run(bring(orders, file, given.save_to, policy)) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KlingOmniError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; run it again to carry on")
