"""The commands together."""

from __future__ import annotations

import sys
from typing import Final, Literal, TypeAlias

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console

from kling_omni_async._version import __version__

from . import help_pages
from .demo import demo
from .exit import Exit
from .gallery import gallery
from .generate import create, generate
from .options import BOOK_ACTIONS, parted, with_action_first, with_values_joined
from .poll import poll
from .query import query
from .report import ending
from .simulate import simulate
from .terminal import (
    draw_plainly,
    make_console,
    note,
    out,
    wants_colour,
    without_passwords,
)

_DEBUG_OPTION: Final = "--debug"
COMMANDS = frozenset(
    {
        *("generate", "create", "poll", "work", "book", "query"),
        *("gallery", "demo", "simulate", "completion"),
    }
)

app = App(
    name="kling-omni",
    help="Kling Omni images of CometAPI: from prompts to stored images, paid for once.",
    usage="Usage: kling-omni COMMAND [OPTIONS]",
    help_epilogue=help_pages.APP,
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
    help_epilogue=help_pages.GENERATE,
    sort_key=1,
)
app.command(
    create,
    usage="Usage: kling-omni create [OPTIONS] [PROMPTS...]",
    help_epilogue=help_pages.CREATE,
    sort_key=2,
)
app.command(
    poll,
    usage="Usage: kling-omni poll [OPTIONS] [IDS...]",
    help_epilogue=help_pages.POLL,
    sort_key=3,
)
# By name, as those who have no book need not wait until all that is imported.
app.command(
    "kling_omni_async._cli.work:work",
    name="work",
    help=help_pages.WORK_HELP,
    usage="Usage: kling-omni work [OPTIONS] BOOK",
    help_epilogue=help_pages.WORK,
    sort_key=4,
)

app.command(
    "kling_omni_async._cli.book_app:book", name="book", help=help_pages.BOOK_HELP, sort_key=5
)

app.command(
    query,
    usage="Usage: kling-omni query [OPTIONS] IDS...",
    help_epilogue=help_pages.QUERY,
    sort_key=6,
)
app.command(
    gallery,
    usage="Usage: kling-omni gallery [OPTIONS] DIRECTORY",
    help_epilogue=help_pages.GALLERY,
    sort_key=7,
)
app.command(
    demo, usage="Usage: kling-omni demo [OPTIONS]", help_epilogue=help_pages.DEMO, sort_key=8
)
app.command(
    simulate,
    usage="Usage: kling-omni simulate [OPTIONS] [COUNT]",
    help_epilogue=help_pages.SIMULATE,
    sort_key=9,
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
    help_epilogue=help_pages.COMPLETION,
    sort_key=10,
)


def run(arguments: list[str]) -> int:
    """Run a command, and return the exit code."""
    draw_plainly()
    options, ids = parted(arguments)
    # No option of cyclopts: it holds for every command, and wherever it stands.
    debug = _DEBUG_OPTION in options
    given = [each for each in options if each != _DEBUG_OPTION]
    tokens = with_action_first(with_values_joined(given))
    try:
        return app(tokens + ids, console=_console()) or Exit.OK
    except CycloptsError as error:
        # Some of its texts have several lines.
        text = without_passwords(" ".join(str(error).split()))
        note(f"{text} {_help_of(tokens)} shows what there is")
        return Exit.USAGE
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - told in one line
        return ending(error, debug=debug)


def _help_of(tokens: list[str]) -> str:
    names = [each for each in tokens[:1] if each in COMMANDS]
    names += [each for each in tokens[1:2] if names == ["book"] and each in BOOK_ACTIONS]
    return f"{' '.join(['kling-omni', *names])} --help"


def _console() -> Console | None:
    """Return what help is printed with; without stdout cyclopts finds its own way."""
    if sys.stdout is None:
        return None
    return make_console(sys.stdout, colour=wants_colour(sys.stdout))
