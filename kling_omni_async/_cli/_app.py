"""The commands and their options."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter

from kling_omni_async._version import __version__
from kling_omni_async.errors import KlingOmniError

from ._demo import demo as play_demo
from ._exit import CliError, Ending, Exit, UsageError, code_of, described
from ._gallery import gallery as make_gallery
from ._id_file import read_ids
from ._images import Saving
from ._poll import poll as poll_ids
from ._query import query as query_ids
from ._session import Connection, Pace
from ._simulate import Setting
from ._simulate import simulate as run_simulator
from ._terminal import note, report

_EXIT_CODES = (
    "Exit codes: 0 all succeeded, 1 some did not, 2 wrong usage, 3 the key is refused, "
    "130 interrupted. The key comes from the environment variable COMETAPI_KEY."
)
_INTERVAL = "--interval"
_RANGE = re.compile(r"([\d.]+)-([\d.]+)", re.ASCII)
_NO_CONNECTION = Connection()
_NOWHERE = Saving()
_USUAL_PACE = Pace()
_USUAL_SETTING = Setting()

app = App(
    name="kling-omni",
    help="Poll Kling Omni image tasks of CometAPI.",
    help_epilogue=_EXIT_CODES,
    help_format="plaintext",
    version=__version__,
    result_action="return_value",
    print_error=False,
    exit_on_error=False,
    suppress_keyboard_interrupt=False,
    default_parameter=Parameter(negative=()),
)

_Options = Parameter(name="*")
_HyphenToo = Parameter(allow_leading_hyphen=True)  # "-" is stdin or stdout


@app.command
def poll(
    *ids: str,
    source: Annotated[str | None, Parameter(name="--from"), _HyphenToo] = None,
    jsonl: Annotated[str | None, _HyphenToo] = None,
    quiet: bool = False,
    saving: Annotated[Saving, _Options] = _NOWHERE,
    pace: Annotated[Pace, _Options] = _USUAL_PACE,
    connection: Annotated[Connection, _Options] = _NO_CONNECTION,
) -> Exit:
    """Poll tasks until each has succeeded, failed, or was given up, and save their images.

    Prints a line for each: its id, a word, and its images or the reason.

    Args:
        ids: The task ids.
        source: A file with more ids, one a line; - for stdin.
        jsonl: A journal to append to, as JSON lines; ids settled there are skipped. - for stdout.
        quiet: Show neither progress nor a summary.
        saving: Where images are saved.
        pace: How often and how long.
        connection: Which API.
    """
    if not ids and source is None:
        raise UsageError("no ids: give some, or a file of them with --from")
    if saving.save is None and (saving.watermarked or saving.overwrite):
        raise UsageError("--watermarked and --overwrite say how to save: give --save too")
    more = [] if source is None else read_ids(source)
    return poll_ids(
        [*ids, *more], jsonl=jsonl, connection=connection, pace=pace, saving=saving, quiet=quiet
    )


@app.command
def query(
    *ids: str,
    connection: Annotated[Connection, _Options] = _NO_CONNECTION,
) -> Exit:
    """Print tasks as the API sees them now, as JSON, one a line.

    Exit code 1 means that a task has failed or was not answered.

    Args:
        ids: The task ids.
        connection: Which API.
    """
    if not ids:
        raise UsageError("no ids: give some")
    return query_ids(ids, connection=connection)


@app.command
def gallery(
    directory: Path,
    /,
    *,
    jsonl: tuple[Path, ...] | None = None,
    overwrite: bool = False,
) -> None:
    """Write DIRECTORY/index.html: a page of all tasks and their saved images.

    Prints the path of the page.

    Args:
        directory: The folder with the images.
        jsonl: A journal; may be repeated. Without it all *.jsonl in the folder are read.
        overwrite: Replace an index.html that is not of this program.
    """
    make_gallery(directory, jsonl, overwrite=overwrite)


@app.command
def demo(*, save: str | None = None) -> Exit:
    """Poll a simulated batch in compressed time, save its images and show them; needs no key.

    Args:
        save: The directory for the images and their page; by default a new temporary one.
    """
    return play_demo(save)


@app.command
def simulate(
    count: int = 200,
    /,
    *,
    setting: Annotated[Setting, _Options] = _USUAL_SETTING,
) -> None:
    """Run a simulated API with tasks to poll, until Ctrl-C.

    Prints its base URL and key as lines for a shell.

    Args:
        count: How many tasks.
        setting: All the rest.
    """
    run_simulator(count, setting)


def run(arguments: list[str]) -> int:
    """Run a command.

    Args:
        arguments: What stands behind the program's name.

    Returns:
        The exit code.
    """
    try:
        return app(_with_ranges_split(arguments)) or Exit.OK
    except CycloptsError as error:
        note(str(error))
        return Exit.USAGE
    except (CliError, KlingOmniError, KeyboardInterrupt) as error:
        return _end(error)


def _end(error: Ending) -> Exit:
    notes: list[str] = getattr(error, "__notes__", [])
    report(
        [f"kling-omni: {described(error)}", *(line for text in notes for line in text.split("\n"))]
    )
    return code_of(error)


def _with_ranges_split(arguments: list[str]) -> list[str]:
    """Take ``--interval 20-30`` and ``--interval=20-30`` as ``--interval 20 30``."""
    split: list[str] = []
    for position, argument in enumerate(arguments):
        if argument == "--":
            return split + arguments[position:]
        value = argument.removeprefix(f"{_INTERVAL}=")
        if value != argument:
            split.append(_INTERVAL)
        match = _RANGE.fullmatch(value) if split[-1:] == [_INTERVAL] else None
        split += match.groups() if match else [value]
    return split
