"""A simulated API that runs until it is stopped, with tasks to poll."""

from __future__ import annotations

import asyncio
import math
import os
import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import attrs
from cyclopts import Parameter, Token

from kling_omni_async.simulator import SimulatedCometAPI

from .exit import OutputError, UsageError
from .options import FileName
from .signals import run
from .terminal import note, out, out_as_read
from .units import format_time, parse_time, plural

# The summary at the end counts from the log, which forgets what is beyond its size.
_LOG_SIZE = 10_000_000
_MOST_TASKS = 10_000_000
_LAST_PORT = 65_535
_MOST_IMAGES = 100_000  # of one task; the simulator takes no more
_REASON = "Failure to pass the risk control system"
_SLICE: Final = 500  # tasks that are made, or ids that are written, before signals are heeded


def _to_latency(_: object, tokens: Sequence[Token]) -> float:
    text = tokens[0].value
    try:
        return parse_time(text.strip())
    except ValueError:
        wanted = "write a time such as 200ms or 1.5s"
        raise UsageError(f"--latency cannot be {text!r:.60}: {wanted}") from None


@attrs.frozen(kw_only=True)
class Setting:
    """What is simulated.

    Attributes:
        ids: A new file for the ids, one a line; without it they follow on stdout.
        failing: How many of the tasks fail.
        images: How many images each of the other tasks makes.
        host: The address to listen on; 0.0.0.0 lets other machines and containers in.
        port: The port to listen on; 0 for any that is free.
        key: The only key that is accepted; by default one that is drawn from the seed.
        latency: The time between a query and its answer.
        seed: The number that ids, durations and images are drawn from.
        time_scale: How many times faster than the clock tasks run.
        control: Let another process plan faults and tasks, by POST to /simulator.
    """

    ids: Annotated[FileName | None, Parameter(metavar="FILE")] = None
    failing: int = 0
    images: int = 1
    host: Annotated[str, Parameter(metavar="ADDRESS")] = "127.0.0.1"
    port: int = 0
    key: Annotated[str | None, Parameter(metavar="TEXT")] = None
    latency: Annotated[
        float,
        Parameter(converter=_to_latency, n_tokens=1, metavar="TIME", show_default=format_time),
    ] = 0.0
    seed: int = 0
    time_scale: float = 1.0
    control: Annotated[bool, Parameter(show_default=False)] = False


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
    _require(0 <= count <= _MOST_TASKS, "COUNT", f"from 0 to {_MOST_TASKS:,}", count)
    _require(0 <= setting.failing <= count, "--failing", f"from 0 to {count:,}", setting.failing)
    _require(0 <= setting.port <= _LAST_PORT, "--port", f"from 0 to {_LAST_PORT}", setting.port)
    images = setting.images
    _require(0 <= images <= _MOST_IMAGES, "--images", f"from 0 to {_MOST_IMAGES:,}", images)
    _require(setting.seed >= 0, "--seed", "0 or more", setting.seed)
    scale = setting.time_scale
    _require(0 < scale < math.inf, "--time-scale", "a number above 0", scale)
    if setting.ids is not None and _is_kept(Path(setting.ids)):
        raise UsageError(_there_already(setting.ids))
    run(partial(serve, simulator_of(setting), count, setting))


def simulator_of(setting: Setting) -> SimulatedCometAPI:
    """Return the simulator that options ask for."""
    try:
        return SimulatedCometAPI(
            seed=setting.seed,
            time_scale=setting.time_scale,
            api_key=setting.key,
            host=setting.host,
            port=setting.port,
            latency=setting.latency,
            log_size=_LOG_SIZE,
            control=setting.control,
        )
    except ValueError as error:  # the simulator itself knows which texts make sense
        text = str(error).replace("api_key", "--key").replace("host", "--host")
        raise UsageError(text) from None


def _require(fits: object, name: str, wanted: str, given: float) -> None:
    if not fits:
        raise UsageError(f"{name} must be {wanted}, not {given}")


async def serve(api: SimulatedCometAPI, count: int, setting: Setting) -> None:
    """Start the simulator, print how to reach it, and wait to be cancelled."""
    try:
        await api.start()
    except (OSError, UnicodeError) as error:
        where = f"--port {setting.port} of --host {setting.host}"
        why = getattr(error, "strerror", None) or error
        raise UsageError(f"cannot listen on {where}: {why}") from None
    try:
        await _announce(api, await _tasks(api, count, setting), setting.ids)
        await asyncio.Event().wait()
    finally:
        await api.aclose()
        note(summary(api))


async def _tasks(api: SimulatedCometAPI, count: int, setting: Setting) -> list[str]:
    """Create the tasks, those that fail first."""
    task_ids: list[str] = []
    for number in range(count):
        reason = _REASON if number < setting.failing else None
        task_ids.append(api.create_task(fail=reason, images=setting.images))
        if number % _SLICE == 0:
            await asyncio.sleep(0)
    return task_ids


async def _announce(api: SimulatedCometAPI, task_ids: list[str], path: str | None) -> None:
    if path is not None:
        write_ids(path, task_ids)
    out(f"export COMETAPI_BASE_URL={shlex.quote(api.base_url)}")
    out(f"export COMETAPI_KEY={shlex.quote(api.api_key)}")
    note(f"simulating {plural(len(task_ids), 'task', 'tasks')} on {api.base_url}; Ctrl-C ends it")
    for at in range(0, len(task_ids) if path is None else 0, _SLICE):
        await out_as_read("\n".join(task_ids[at : at + _SLICE]))


def write_ids(path: str, task_ids: list[str]) -> None:
    """Write a file of ids that was not there before; devices and pipes are written to."""
    is_new = not _is_device(Path(path))
    try:
        with open(path, "x" if is_new else "w", encoding="utf-8") as file:  # noqa: PTH123 - /dev/stdout and the like need no Path
            try:
                file.writelines(f"{each}\n" for each in task_ids)
                file.flush()
            except OSError:
                if is_new:
                    Path(path).unlink()
                raise
    except FileExistsError:
        raise UsageError(_there_already(path)) from None
    except OSError as error:
        raise OutputError(path, error) from None


def _is_device(path: Path) -> bool:
    return path.exists() and not path.is_file()


def _is_kept(path: Path) -> bool:
    # Not `exists`: a link that leads nowhere is somebody's too.
    return os.path.lexists(path) and not _is_device(path)


def _there_already(path: str) -> str:
    return f"{path} is there already, and is not overwritten: give --ids a new file"


def summary(api: SimulatedCometAPI) -> str:
    """Return how many queries came, and the pauses between two of the same id."""
    queries, gaps = api.queries, api.gaps()
    ids = len({query.task_id for query in queries if query.task_id is not None})
    pauses = (
        f"from {min(gaps):.2f} to {max(gaps):.2f} s between two of the same id"
        if gaps
        else "none of an id that was asked for before"
    )
    return f"{plural(len(queries), 'query', 'queries')} of {plural(ids, 'id', 'ids')}, {pauses}"
