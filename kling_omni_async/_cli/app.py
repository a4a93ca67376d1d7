"""The commands together, and what ``--help`` says besides their options."""

from __future__ import annotations

import sys
from typing import Final, Literal, TypeAlias

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console

from kling_omni_async._version import __version__

from .demo import demo
from .exit import Exit
from .gallery import gallery
from .generate import create, generate
from .options import parted, with_values_joined
from .poll import poll
from .query import query
from .report import ending
from .simulate import simulate
from .terminal import draw_plainly, make_console, note, out, wants_colour

_DEBUG_OPTION: Final = "--debug"
COMMANDS = frozenset(
    {"generate", "create", "poll", "query", "gallery", "demo", "simulate", "completion"}
)

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
_FOR_IDS: Final = (_UNITS, _KEY, _DEBUG)


def _page(examples: str, *paragraphs: str) -> str:
    return "\n\n".join([f"Examples:\n{examples.rstrip()}", *paragraphs])


_APP: Final = _page(
    """
  # See it work, without a key:
  kling-omni demo

  # Make images of a wish, and save them:
  kling-omni generate "a fox in the snow" --save images

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

_GENERATE: Final = _page(
    """
  # Two images of one prompt:
  kling-omni generate "a fox" -n 2 --save images

  # Those of a file. Run again, also after a crash, nothing is created twice:
  kling-omni generate --from prompts.csv --jsonl run.jsonl --save images

  # What would that cost?
  kling-omni generate --from prompts.csv --jsonl run.jsonl --dry-run

  # No more than 400 units, whatever the file says:
  kling-omni generate --from prompts.csv --jsonl run.jsonl --max-units 400
""",
    *_FOR_IDS,
    _CODES,
)

_CREATE: Final = _page(
    """
  # One task:
  kling-omni create "a fox" --resolution 2k

  # Those of a file; their ids can be polled from anywhere:
  kling-omni create --from prompts.csv --jsonl run.jsonl > ids.txt
""",
    *_FOR_IDS,
    "Exit codes: 0 all are created, 1 some are not, 2 wrong usage, 3 the key is refused, "
    "130 interrupted.",
)

_POLL: Final = _page(
    """
  # Two tasks:
  kling-omni poll 842250903629086785 842250903629086786

  # Those of a file. Run again, it goes on where it ended:
  kling-omni poll --from ids.txt --jsonl run.jsonl

  # A spreadsheet, saved as CSV: what came of each row stands beside its columns.
  kling-omni poll --from tasks.csv --column id --csv results.csv

  # Ids from another program, results as JSON to the next one:
  list-ids | kling-omni poll --from - --jsonl - | jq '.task.images[]?.url'

  # Save the images, and give no task more than half an hour:
  kling-omni poll --from ids.txt --save images --timeout 30m

  # In a log file: no bar, but each change of a task:
  kling-omni poll --from ids.txt --quiet --verbose
""",
    *_FOR_IDS,
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
    *_FOR_IDS,
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

  # In a container, where another program plans faults:
  kling-omni simulate --host 0.0.0.0 --port 8080 --key test --control
  curl -H "Authorization: Bearer test" http://localhost:8080/simulator \\
      -d '{"fail_next": {"status": 502, "times": 3}}'
""",
    _DEBUG,
    "Exit codes: 2 wrong usage, 130 when Ctrl-C or SIGTERM ends it.",
)

_COMPLETION: Final = _page(
    """
  # In ~/.bashrc:
  eval "$(kling-omni completion bash)"

  # In ~/.config/fish/config.fish:
  kling-omni completion fish | source

  # For zsh, in a folder of its $fpath:
  kling-omni completion zsh > _kling-omni
""",
    _DEBUG,
    "Exit codes: 0 written, 2 wrong usage.",
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

app.command(
    generate,
    usage="Usage: kling-omni generate [OPTIONS] [PROMPTS...]",
    help_epilogue=_GENERATE,
    sort_key=1,
)
app.command(
    create,
    usage="Usage: kling-omni create [OPTIONS] [PROMPTS...]",
    help_epilogue=_CREATE,
    sort_key=2,
)
app.command(
    poll, usage="Usage: kling-omni poll [OPTIONS] [IDS...]", help_epilogue=_POLL, sort_key=3
)
app.command(
    query, usage="Usage: kling-omni query [OPTIONS] IDS...", help_epilogue=_QUERY, sort_key=4
)
app.command(
    gallery,
    usage="Usage: kling-omni gallery [OPTIONS] DIRECTORY",
    help_epilogue=_GALLERY,
    sort_key=5,
)
app.command(demo, usage="Usage: kling-omni demo [OPTIONS]", help_epilogue=_DEMO, sort_key=6)
app.command(
    simulate,
    usage="Usage: kling-omni simulate [OPTIONS] [COUNT]",
    help_epilogue=_SIMULATE,
    sort_key=7,
)


Shell: TypeAlias = Literal["bash", "zsh", "fish", "powershell"]


def completion(shell: Shell, /) -> None:
    """Print a script with which a shell completes commands, options and files.

    Args:
        shell: For which one.
    """
    out(app.generate_completion(shell=shell))


app.command(
    completion,
    usage="Usage: kling-omni completion SHELL",
    help_epilogue=_COMPLETION,
    sort_key=8,
)


def run(arguments: list[str]) -> int:
    """Run a command, and return the exit code."""
    draw_plainly()
    options, ids = parted(arguments)
    # No option of cyclopts: it holds for every command, and wherever it stands.
    debug = _DEBUG_OPTION in options
    tokens = with_values_joined([each for each in options if each != _DEBUG_OPTION])
    try:
        return app(tokens + ids, console=_console()) or Exit.OK
    except CycloptsError as error:
        # Some of its texts have several lines.
        note(f"{' '.join(str(error).split())} {_help_of(tokens)} shows what there is")
        return Exit.USAGE
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - told in one line
        return ending(error, debug=debug)


def _help_of(tokens: list[str]) -> str:
    command = next((f" {each}" for each in tokens[:1] if each in COMMANDS), "")
    return f"kling-omni{command} --help"


def _console() -> Console | None:
    """Return what help is printed with; without stdout cyclopts finds its own way."""
    if sys.stdout is None:
        return None
    return make_console(sys.stdout, colour=wants_colour(sys.stdout))
