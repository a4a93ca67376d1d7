"""What ``--help`` says besides the options: examples, exit codes, where the key comes from."""

from __future__ import annotations

from typing import Final

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


def _page(*paragraphs: str) -> str:
    return "\n\n".join(paragraphs)


def _examples(*pairs: tuple[str, str]) -> str:
    lines = [f"  # {what}\n  {command}" for what, command in pairs]
    return "Examples:\n\n" + "\n\n".join(lines)


APP: Final = _page(
    _examples(
        ("See it work, without a key:", "kling-omni demo"),
        ("Look once at a task:", "kling-omni query 842250903629086785"),
        (
            "Poll all tasks of a file, and save their images:",
            "kling-omni poll --from ids.txt --jsonl run.jsonl --save images",
        ),
        ("Then look at them:", "kling-omni gallery images --jsonl run.jsonl"),
    ),
    "Each command has a --help of its own. With --debug it shows the traceback of an error.",
    _KEY,
    _CODES,
)

POLL: Final = _page(
    _examples(
        ("Two tasks:", "kling-omni poll 842250903629086785 842250903629086786"),
        (
            "Those of a file. Run again, it goes on where it ended:",
            "kling-omni poll --from ids.txt --jsonl run.jsonl",
        ),
        (
            "Ids from another program, results as JSON to the next one:",
            "list-ids | kling-omni poll --from - --jsonl - | jq '.task.images[]?.url'",
        ),
        (
            "Save the images, and give no task more than half an hour:",
            "kling-omni poll --from ids.txt --save images --timeout 30m",
        ),
        (
            "In a log file: no bar, but each change of a task:",
            "kling-omni poll --from ids.txt --quiet --verbose",
        ),
    ),
    _UNITS,
    _KEY,
    _DEBUG,
    _CODES,
)

QUERY: Final = _page(
    _examples(
        ("A table on a terminal:", "kling-omni query 842250903629086785"),
        (
            "JSON in a pipe:",
            "kling-omni query 842250903629086785 | jq -r .status",
        ),
        (
            "JSON on a terminal too, and a short patience:",
            "kling-omni query 842250903629086785 --json --query-timeout 5s",
        ),
    ),
    _UNITS,
    _KEY,
    _DEBUG,
    "Exit codes: 0 all were answered, 1 a task has failed or was not answered, 2 wrong "
    "usage, 3 the key is refused, 130 interrupted.",
)

GALLERY: Final = _page(
    _examples(
        ("After kling-omni poll … --jsonl images/run.jsonl --save images:",
         "kling-omni gallery images"),
        ("With journals from elsewhere:",
         "kling-omni gallery images --jsonl monday.jsonl --jsonl tuesday.jsonl"),
    ),
    _DEBUG,
    "Exit codes: 0 written, 1 not written, 2 wrong usage, 130 interrupted.",
)  # fmt: skip

DEMO: Final = _page(
    _examples(
        ("In a temporary directory:", "kling-omni demo"),
        ("To keep the images:", "kling-omni demo --save demo-images"),
    ),
    _DEBUG,
    "Exit codes: 0 everything came as scripted, 1 it did not, 2 wrong usage, 130 interrupted.",
)

SIMULATE: Final = _page(
    _examples(
        (
            "Twenty tasks, of which three fail, ten times faster than the clock:",
            "kling-omni simulate 20 --failing 3 --time-scale 10 --ids ids.txt",
        ),
        (
            "In another terminal, after the two lines that it prints:",
            "kling-omni poll --from ids.txt --interval 1s-2s",
        ),
    ),
    _DEBUG,
    "Exit codes: 2 wrong usage, 130 when Ctrl-C or SIGTERM ends it.",
)
