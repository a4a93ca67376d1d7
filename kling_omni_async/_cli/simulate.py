"""A simulated API that runs until it is stopped, with tasks to poll."""

from __future__ import annotations

import asyncio
import shlex
from functools import partial
from pathlib import Path
from typing import Annotated

import attrs
from cyclopts import Parameter

from kling_omni_async.simulator import SimulatedCometAPI

from .exit import OutputError, UsageError
from .signals import run
from .terminal import note, out

# The summary at the end counts from the log, which forgets what is beyond its size.
_LOG_SIZE = 10_000_000
_REASON = "Failure to pass the risk control system"


@attrs.frozen(kw_only=True)
class Setting:
    """What is simulated.

    Attributes:
        ids: The file that the ids are written to, one a line; without it they follow on stdout.
        failing: How many of the tasks fail.
        port: The port to listen on; 0 for any that is free.
        seed: The number that ids, durations and images are drawn from.
        time_scale: How many times faster than the clock tasks run.
    """

    ids: Annotated[str | None, Parameter(metavar="FILE")] = None
    failing: int = 0
    port: int = 0
    seed: int = 0
    time_scale: float = 1.0


_USUAL = Setting()


def simulate(
    count: int = 200, /, *, setting: Annotated[Setting, Parameter(name="*")] = _USUAL
) -> None:
    """Run a simulated API with tasks to poll, until Ctrl-C.

    Prints its base URL and key as lines for a shell.

    Args:
        count: How many tasks.
        setting: All the rest.
    """
    try:
        api = SimulatedCometAPI(
            seed=setting.seed, port=setting.port, time_scale=setting.time_scale, log_size=_LOG_SIZE
        )
    except ValueError as error:  # the simulator itself knows which settings make sense
        raise UsageError(str(error)) from None
    if not 0 <= setting.failing <= count:
        raise UsageError(f"--failing must be from 0 to {count}, not {setting.failing}")
    run(partial(serve, api, count, setting))


async def serve(api: SimulatedCometAPI, count: int, setting: Setting) -> None:
    """Start the simulator, print how to reach it, and wait to be cancelled."""
    try:
        await api.start()
    except (OSError, OverflowError) as error:
        raise UsageError(f"cannot listen on port {setting.port}: {error}") from None
    try:
        reasons = [_REASON] * setting.failing + [None] * (count - setting.failing)
        _announce(api, [api.create_task(fail=reason) for reason in reasons], setting.ids)
        await asyncio.Event().wait()
    finally:
        await api.aclose()
        note(summary(api))


def _announce(api: SimulatedCometAPI, task_ids: list[str], path: str | None) -> None:
    if path is not None:
        try:
            Path(path).write_text("".join(f"{each}\n" for each in task_ids), encoding="utf-8")
        except OSError as error:
            raise OutputError(path, error) from None
    out(f"export COMETAPI_BASE_URL={shlex.quote(api.base_url)}")
    out(f"export COMETAPI_KEY={shlex.quote(api.api_key)}")
    if path is None:
        out("\n".join(task_ids))
    note(f"simulating {len(task_ids)} tasks on {api.base_url}; Ctrl-C ends it")


def summary(api: SimulatedCometAPI) -> str:
    """Return how many queries came, and the pauses between two of the same id."""
    queries, gaps = api.queries, api.gaps()
    ids = len({query.task_id for query in queries if query.task_id is not None})
    pauses = (
        f"from {min(gaps):.2f} to {max(gaps):.2f} s between two of the same id"
        if gaps
        else "none of an id that was asked for before"
    )
    return f"{len(queries)} queries of {ids} ids, {pauses}"
