"""The options: every field of the policy has one, and the help teaches them all."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any, NoReturn

import attrs
import pytest
from cyclopts import Argument

from kling_omni_async import PollPolicy
from kling_omni_async._cli.app import COMMANDS, app, run
from kling_omni_async._cli.exit import Exit, UsageError
from kling_omni_async._cli.options import (
    BOOK_ACTIONS,
    Connection,
    Downloads,
    Limits,
    Pace,
    policy_of,
    with_action_first,
)

NOT_FOR_POLLING = {"create_timeout"}  # of those who create
FIELDS = {field.name for field in attrs.fields(PollPolicy)} - NOT_FOR_POLLING
NOT_FOR_ONE_LOOK = {
    "interval": "it looks once",
    "timing": "it looks once",
    "timeout": "--query-timeout ends it",
    "max_pending": "it reads its ids at once",
    "confirmations": "it shows what is said, believed or not",
    "max_downloads": "it saves nothing",
    "max_image_bytes": "it saves nothing",
    "download_timeout": "it saves nothing",
    "download_tries": "it saves nothing",
    "allow_hosts": "it saves nothing",
}
OTHERS: dict[str, tuple[str, object]] = {
    "interval": ("21s-1m", (21.0, 60.0)),
    "timeout": ("1h30m", 5400.0),
    "max_concurrency": ("7", 7),
    "max_rate": ("2.5", 2.5),
    "query_timeout": ("500ms", 0.5),
    "confirmations": ("3", 3),
    "timing": ("uniform", "uniform"),
    "max_pending": ("500", 500),
    "max_response_bytes": ("2MiB", 2_097_152),
    "max_downloads": ("4", 4),
    "max_image_bytes": ("5MB", 5_000_000),
    "download_timeout": ("2m", 120.0),
    "download_tries": ("9", 9),
    "allow_hosts": ("a.example, *.b.example", ("a.example", "*.b.example")),
}


def defaults_of(command: str) -> dict[str, str]:
    """Return a command's options, as fields are written, and their defaults, as help shows them."""
    arguments = app[command].assemble_argument_collection(default_parameter=app.default_parameter)
    return {
        name.removeprefix("--").replace("-", "_"): shown(argument)
        for argument in arguments
        for name in argument.names
        if name[:2] == "--"
    }


def shown(argument: Argument) -> str:
    """Return the default of an option as help shows it."""
    show, default = argument.parameter.show_default, argument.field_info.default
    return str(show(default) if callable(show) else default)


def help_of(*command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Return what a command says of itself."""
    assert run([*command, "--help"]) == Exit.OK
    return capsys.readouterr().out


def test_every_field_of_the_policy_is_an_option() -> None:
    """A new field cannot be forgotten: `poll` has all of them, `query` those of one look."""
    assert defaults_of("poll").keys() & FIELDS == FIELDS
    assert defaults_of("query").keys() & FIELDS == FIELDS - NOT_FOR_ONE_LOOK.keys()


def test_no_option_given_is_the_usual_policy() -> None:
    """The defaults that help shows, read back, are those of the library."""
    assert policy_of(Pace(), Limits(), Downloads()) == PollPolicy()
    assert policy_of(Limits()) == PollPolicy()


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        *((field, *OTHERS[field]) for field in sorted(FIELDS)),
        ("timeout", "never", None),
        ("max_rate", " none ", None),
    ],
)
def test_each_option_reaches_its_field(
    field: str, text: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands behind an option is what the library polls with, and nothing else changes."""
    seen: list[PollPolicy] = []

    def make_session(_: Connection, policy: PollPolicy) -> NoReturn:
        seen.append(policy)
        raise UsageError("enough was seen")

    monkeypatch.setattr("kling_omni_async._cli.poll.make_session", make_session)
    assert run(["poll", "1", f"--{field.replace('_', '-')}", text]) == Exit.USAGE
    changed: Any = {field: value}
    assert seen == [PollPolicy(**changed)]


@pytest.mark.parametrize("field", sorted(FIELDS - {"allow_hosts"}))
@pytest.mark.parametrize("text", ["soon", "-5", "", "nan", "1e999"])
def test_a_bad_value_is_told_with_its_option(
    field: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error names the option, repeats the value and says what to write."""
    option = f"--{field.replace('_', '-')}"
    assert run(["poll", "1", f"{option}={text}"]) == Exit.USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(rf"kling-omni: {option} cannot be '{text}': write \w+", line)


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("interval", "30s-20s"),
        ("max-concurrency", "0"),
        ("query-timeout", "0"),
        ("allow-hosts", "https://a.example"),
        ("allow-hosts", "a.example,,b.example"),
    ],
)
def test_what_only_the_policy_knows_is_told_alike(
    option: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A text that can be read but that no policy takes is the same error."""
    assert run(["poll", "1", f"--{option}", text]) == Exit.USAGE
    assert f"--{option} cannot be '{text}': write " in capsys.readouterr().err


def test_a_long_value_is_told_in_short(capsys: pytest.CaptureFixture[str]) -> None:
    """The error stays one line that can be read."""
    assert run(["poll", "1", "--timeout", "x" * 1000]) == Exit.USAGE
    assert f"cannot be '{'x' * 59}: write" in capsys.readouterr().err


@pytest.mark.parametrize("command", [(), *((name,) for name in sorted(COMMANDS))])
def test_help_is_readable_at_80_columns(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No line is longer, examples come with what they do, and the exit codes are told."""
    monkeypatch.setenv("COLUMNS", "80")
    text = help_of(*command, capsys=capsys)
    assert max(map(len, text.splitlines())) <= 80
    assert "Examples:" in text
    assert "\n  # " in text
    assert "\n  kling-omni " in text
    assert "Exit codes: " in text
    assert "…" not in text.replace("poll …", "")  # nothing is cut off
    assert "\x1b" not in text  # no terminal, no colour


@pytest.mark.parametrize("command", ["poll", "query"])
def test_help_shows_every_option_with_its_default(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Options stand with what to write behind them, and with values as they are written."""
    monkeypatch.setenv("COLUMNS", "200")
    text = help_of(command, capsys=capsys)
    assert all(f"--{name.replace('_', '-')}" in text for name in defaults_of(command))
    for shown in ("--query-timeout TIME", "[default: 15s]", "[default: 1MiB]", "--max-rate NUMBER"):
        assert shown in text


def examples() -> list[list[str]]:
    """Return the arguments of every example that help shows."""
    apps = [
        app,
        *(app[each] for each in sorted(COMMANDS)),
        *(app["book"][each] for each in sorted(BOOK_ACTIONS)),
    ]
    pages = [each.help_epilogue for each in apps]
    lines = (line.strip() for page in pages for line in str(page).splitlines())
    parts = (part.strip() for line in lines for part in re.split(r"[|>]", line))
    calls = dict.fromkeys(part for part in parts if part.startswith("kling-omni "))
    return [shlex.split(call)[1:] for call in calls]


@pytest.mark.parametrize("arguments", examples(), ids=" ".join)
def test_every_example_can_be_called(arguments: list[str]) -> None:
    """What help tells to write are commands and options that there are."""
    words = with_action_first(arguments)
    command, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    name = command.__name__.rstrip("_")
    assert name in words[:2] or (name, words[0]) == ("progress", "book")
    assert bound.arguments or arguments == ["demo"]


PAGE = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text(encoding="utf-8")


def test_the_page_lists_the_options_of_polling() -> None:
    """Each field stands there with its default and whether `query` has it."""
    rows = re.findall(r"\| `--([a-z-]+) [A-Z-]+` \| `(.*?)` \| (yes)? ?\|", PAGE)
    listed = {name.replace("-", "_"): (default, bool(yes)) for name, default, yes in rows}
    assert listed == {
        name: (default, name not in NOT_FOR_ONE_LOOK)
        for name, default in defaults_of("poll").items()
        if name in FIELDS
    }


def test_the_page_shows_real_errors(capsys: pytest.CaptureFixture[str]) -> None:
    """Its lines are what the program prints."""
    assert run(["poll", "1", "--timeout", "soon"]) == Exit.USAGE
    assert run(["poll", "1", "--tiemout", "5"]) == Exit.USAGE
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line in PAGE.splitlines() for line in lines)
