"""The commands, their options, and what ``--help`` says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Final, TypeAlias

from cyclopts import App, CycloptsError, Group, Parameter
from rich.console import Console

from kling_omni_async._version import __version__

from .demo import demo as play_demo
from .exit import Exit, UsageError
from .gallery import gallery as make_gallery
from .options import (
    Connection,
    Downloads,
    Limits,
    Pace,
    Saving,
    Talk,
    parted,
    policy_of,
    read_ids,
    with_intervals_joined,
)
from .poll import poll as poll_ids
from .query import query as query_ids
from .report import ending
from .simulate import Setting
from .simulate import simulate as run_simulator
from .terminal import make_console, note, wants_colour

_DEBUG_OPTION: Final = "--debug"
_COMMANDS = frozenset({"poll", "query", "gallery", "demo", "simulate"})
_NO_CONNECTION = Connection()
_NOWHERE = Saving()
_USUAL_PACE = Pace()
_USUAL_LIMITS = Limits()
_USUAL_DOWNLOADS = Downloads()
_USUAL_SETTING = Setting()
_USUAL_TALK = Talk()

# What ``--help`` says besides the options.
_KEY: Final = "The key comes from the environment variable COMETAPI_KEY."
_DEBUG: Final = "With --debug any command shows the traceback of an error."
_CODES: Final = (
    "Exit codes: 0 all succeeded, 1 some did not, 2 wrong usage, 3 the key is refused, "
    "130 interrupted."
)
_UNITS: Final = (
    "TIME is 20s, 30m, 1h30m or 500ms; a plain number is seconds. SIZE is 500kB, 1MiB "
    "or 100MB; a plain number is bytes."
)


def _page(examples: str, *paragraphs: str) -> str:
    return "\n\n".join([f"Examples:\n{examples.rstrip()}", *paragraphs])


_APP: Final = _page(
    """
  # See it work, without a key:
  kling-omni demo

  # Look once at a task:
  kling-omni query 842250903629086785

  # Poll all tasks of a file, and save their images:
  kling-omni poll --from ids.txt --jsonl run.jsonl --save images

  # Then look at them:
  kling-omni gallery images --jsonl run.jsonl
""",
    "Each command has a --help of its own. With --debug it shows the traceback of an error.",
    _KEY,
    _CODES,
)

_POLL: Final = _page(
    """
  # Two tasks:
  kling-omni poll 842250903629086785 842250903629086786

  # Those of a file. Run again, it goes on where it ended:
  kling-omni poll --from ids.txt --jsonl run.jsonl

  # Ids from another program, results as JSON to the next one:
  list-ids | kling-omni poll --from - --jsonl - | jq '.task.images[]?.url'

  # Save the images, and give no task more than half an hour:
  kling-omni poll --from ids.txt --save images --timeout 30m

  # In a log file: no bar, but each change of a task:
  kling-omni poll --from ids.txt --quiet --verbose
""",
    _UNITS,
    _KEY,
    _DEBUG,
    _CODES,
)

_QUERY: Final = _page(
    """
  # A table on a terminal:
  kling-omni query 842250903629086785

  # JSON in a pipe:
  kling-omni query 842250903629086785 | jq -r .status

  # JSON on a terminal too, and a short patience:
  kling-omni query 842250903629086785 --json --query-timeout 5s
""",
    _UNITS,
    _KEY,
    _DEBUG,
    "Exit codes: 0 all were answered, 1 a task has failed or was not answered, 2 wrong "
    "usage, 3 the key is refused, 130 interrupted.",
)

_GALLERY: Final = _page(
    """
  # After kling-omni poll … --jsonl images/run.jsonl --save images:
  kling-omni gallery images

  # With journals from elsewhere:
  kling-omni gallery images --jsonl monday.jsonl --jsonl tuesday.jsonl
""",
    _DEBUG,
    "Exit codes: 0 written, 1 not written, 2 wrong usage, 130 interrupted.",
)

_DEMO: Final = _page(
    """
  # In a temporary directory:
  kling-omni demo

  # To keep the images:
  kling-omni demo --save demo-images
""",
    _DEBUG,
    "Exit codes: 0 everything came as scripted, 1 it did not, 2 wrong usage, 130 interrupted.",
)

_SIMULATE: Final = _page(
    """
  # Twenty tasks, of which three fail, ten times faster than the clock:
  kling-omni simulate 20 --failing 3 --time-scale 10 --ids ids.txt

  # In another terminal, after the two lines that it prints:
  kling-omni poll --from ids.txt --interval 1s-2s
""",
    _DEBUG,
    "Exit codes: 2 wrong usage, 130 when Ctrl-C or SIGTERM ends it.",
)

app = App(
    name="kling-omni",
    help="Poll Kling Omni image tasks of CometAPI.",
    usage="Usage: kling-omni COMMAND [OPTIONS]",
    help_epilogue=_APP,
    help_format="plaintext",
    version=__version__,
    # `run` tells errors and interruptions: each in one line, and with the ids still pending.
    result_action="return_value",
    print_error=False,
    exit_on_error=False,
    suppress_keyboard_interrupt=False,
    default_parameter=Parameter(negative=()),  # no --no-quiet and the like
)

_IDS = Group("Task ids", sort_key=0)
_OUT = Group("What is shown", sort_key=1)
_IMAGES = Group("Images", sort_key=2)
_PACE = Group("How often and how long", sort_key=3)
_LIMITS = Group("Limits", sort_key=4)
_API = Group("The API", sort_key=5)

_Ids: TypeAlias = Annotated[str, Parameter(group=_IDS)]
_HyphenToo = Parameter(allow_leading_hyphen=True)  # "-" is stdin or stdout
_Limits: TypeAlias = Annotated[Limits, Parameter(name="*", group=_LIMITS)]
_Api: TypeAlias = Annotated[Connection, Parameter(name="*", group=_API)]
_Talk: TypeAlias = Annotated[Talk, Parameter(name="*", group=_OUT)]
_Flag: TypeAlias = Annotated[bool, Parameter(show_default=False)]


@app.command(usage="Usage: kling-omni poll [OPTIONS] [IDS...]", help_epilogue=_POLL, sort_key=1)
def poll(
    *ids: _Ids,
    source: Annotated[
        str | None, Parameter(name="--from", metavar="FILE", group=_IDS), _HyphenToo
    ] = None,
    jsonl: Annotated[str | None, Parameter(metavar="FILE", group=_OUT), _HyphenToo] = None,
    quiet: Annotated[_Flag, Parameter(alias="-q", group=_OUT)] = False,
    talk: _Talk = _USUAL_TALK,
    saving: Annotated[Saving, Parameter(name="*", group=_IMAGES)] = _NOWHERE,
    downloads: Annotated[Downloads, Parameter(name="*", group=_IMAGES)] = _USUAL_DOWNLOADS,
    pace: Annotated[Pace, Parameter(name="*", group=_PACE)] = _USUAL_PACE,
    limits: _Limits = _USUAL_LIMITS,
    connection: _Api = _NO_CONNECTION,
) -> Exit:
    """Poll tasks until each has succeeded, failed, or was given up.

    Prints a line for each: its id, a word, and its images or the reason.

    Args:
        ids: The task ids.
        source: A file with more ids, one a line; - for stdin.
        jsonl: A journal to append to, as JSON lines; ids settled there are skipped. - for stdout.
        quiet: Show neither progress nor a summary.
        talk: How much is told.
        saving: Where images are saved.
        downloads: How they are fetched.
        pace: How often and how long.
        limits: What bounds queries.
        connection: Which API.
    """
    if not ids and source is None:
        raise UsageError("no ids: give some, or a file of them with --from")
    if saving.save is None and (saving.watermarked or saving.overwrite):
        raise UsageError("--watermarked and --overwrite say how to save: give --save too")
    policy = policy_of(pace, limits, downloads)
    # Read last: stdin may take its time, and wrong options are told at once.
    more = [] if source is None else read_ids(source)
    return poll_ids(
        [*ids, *more],
        jsonl=jsonl,
        connection=connection,
        policy=policy,
        saving=saving,
        quiet=quiet,
        talk=talk,
    )


@app.command(usage="Usage: kling-omni query [OPTIONS] IDS...", help_epilogue=_QUERY, sort_key=2)
def query(
    *ids: _Ids,
    json: Annotated[_Flag, Parameter(group=_OUT)] = False,
    talk: _Talk = _USUAL_TALK,
    limits: _Limits = _USUAL_LIMITS,
    connection: _Api = _NO_CONNECTION,
) -> Exit:
    """Print tasks as the API sees them now.

    A table on a terminal, JSON elsewhere, one task a line.

    Args:
        ids: The task ids.
        json: Print JSON on a terminal too.
        talk: How much is told.
        limits: What bounds queries.
        connection: Which API.
    """
    if not ids:
        raise UsageError("no ids: give some")
    return query_ids(ids, connection=connection, policy=policy_of(limits), json=json, talk=talk)


@app.command(
    usage="Usage: kling-omni gallery [OPTIONS] DIRECTORY", help_epilogue=_GALLERY, sort_key=3
)
def gallery(
    directory: Path,
    /,
    *,
    jsonl: Annotated[tuple[Path, ...] | None, Parameter(metavar="FILE")] = None,
    overwrite: _Flag = False,
) -> None:
    """Write DIRECTORY/index.html: a page of all tasks and their saved images.

    Prints the path of the page.

    Args:
        directory: The folder with the images.
        jsonl: A journal; may be repeated. Without it all *.jsonl in the folder are read.
        overwrite: Replace an index.html that is not of this program.
    """
    make_gallery(directory, jsonl, overwrite=overwrite)


@app.command(usage="Usage: kling-omni demo [OPTIONS]", help_epilogue=_DEMO, sort_key=4)
def demo(*, save: Annotated[str | None, Parameter(metavar="DIR")] = None) -> Exit:
    """Poll a simulated batch in compressed time, save its images and show them; needs no key.

    Args:
        save: The directory for the images and their page; by default a new temporary one.
    """
    return play_demo(save)


@app.command(
    usage="Usage: kling-omni simulate [OPTIONS] [COUNT]", help_epilogue=_SIMULATE, sort_key=5
)
def simulate(
    count: int = 200, /, *, setting: Annotated[Setting, Parameter(name="*")] = _USUAL_SETTING
) -> None:
    """Run a simulated API with tasks to poll, until Ctrl-C.

    Prints its base URL and key as lines for a shell.

    Args:
        count: How many tasks.
        setting: All the rest.
    """
    run_simulator(count, setting)


def run(arguments: list[str]) -> int:
    """Run a command, and return the exit code."""
    options, ids = parted(arguments)
    # No option of cyclopts: it holds for every command, and wherever it stands.
    debug = _DEBUG_OPTION in options
    tokens = with_intervals_joined([each for each in options if each != _DEBUG_OPTION])
    try:
        return app(tokens + ids, console=_console()) or Exit.OK
    except CycloptsError as error:
        # Some of its texts have several lines.
        note(f"{' '.join(str(error).split())} {_help_of(tokens)} shows what there is")
        return Exit.USAGE
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - told in one line
        return ending(error, debug=debug)


def _help_of(tokens: list[str]) -> str:
    command = next((f" {each}" for each in tokens[:1] if each in _COMMANDS), "")
    return f"kling-omni{command} --help"


def _console() -> Console | None:
    """Return what help is printed with; without stdout cyclopts finds its own way."""
    if sys.stdout is None:
        return None
    return make_console(sys.stdout, colour=wants_colour(sys.stdout))
