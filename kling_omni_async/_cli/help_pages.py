"""What ``--help`` says besides the options: examples, units, and exit codes."""

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
_FOR_IDS: Final = (_UNITS, _KEY, _DEBUG)
_WHERE: Final = (
    "BOOK is a file, or the URL of a Redis, such as redis://host:6379/0, where --name tells books "
    "apart. A URL with a password belongs into an environment variable: env:BOOK_URL takes it from "
    "there, and no list of processes shows it."
)


def _page(examples: str, *paragraphs: str) -> str:
    return "\n\n".join([f"Examples:\n{examples.rstrip()}", *paragraphs])


APP: Final = _page(
    """
  # See it work, without a key:
  kling-omni demo

  # Make images of a prompt, and save them:
  kling-omni generate "a fox in the snow" --save images

  # Those of a file of prompts; run again, also after a crash, it goes on:
  kling-omni generate --from prompts.csv --jsonl images/run.jsonl --save images

  # Poll tasks that others have created, and save their images:
  kling-omni poll --from ids.txt --jsonl images/polled.jsonl --save images

  # Then look at them:
  kling-omni gallery images

  # A list of tasks that programs and machines share:
  kling-omni work tasks.db
""",
    "Each command has a --help of its own. With --debug it shows the traceback of an error.",
    _KEY,
    _CODES,
)

GENERATE: Final = _page(
    """
  # Two images of one prompt:
  kling-omni generate "a fox" -n 2 --save images

  # Those of a file. Run again, also after a crash, nothing is created twice:
  kling-omni generate --from prompts.csv --jsonl run.jsonl --save images

  # The same with a book, which other programs may poll and read, too:
  kling-omni generate --from prompts.csv --book tasks.db --save images

  # What would that cost?
  kling-omni generate --from prompts.csv --jsonl run.jsonl --dry-run

  # No more than 400 units, whatever the file says:
  kling-omni generate --from prompts.csv --jsonl run.jsonl --max-units 400
""",
    _WHERE,
    *_FOR_IDS,
    _CODES,
)

CREATE: Final = _page(
    """
  # One task:
  kling-omni create "a fox" --resolution 2k

  # Those of a file; their ids can be polled from anywhere:
  kling-omni create --from prompts.csv --jsonl run.jsonl > ids.txt

  # Into a book, from which kling-omni work or poll --book goes on:
  kling-omni create "a fox" --book tasks.db --note '{"chat": 42}'
""",
    _WHERE,
    *_FOR_IDS,
    "Exit codes: 0 all are created, 1 some are not, 2 wrong usage, 3 the key is refused, "
    "130 interrupted.",
)

POLL: Final = _page(
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

  # With a book instead of a journal: others may add to it, and poll it too.
  kling-omni poll --book tasks.db --from ids.txt --save images

  # In a log file: no bar, but each change of a task:
  kling-omni poll --from ids.txt --quiet --verbose
""",
    _WHERE,
    *_FOR_IDS,
    _CODES,
)

# These stand here, as what is listed is not imported for that.
WORK_HELP: Final = (
    "Poll the tasks of a book until Ctrl-C; programs that read it hand out what came of them.\n\n"
    "Any number of processes may work one book: they share its ids and one pace."
)
BOOK_HELP: Final = (
    "Print what a book, a lasting list of tasks, holds; or add to it, take from it, list it, "
    "back it up."
)

WORK: Final = _page(
    """
  # Beside a program that adds tasks and reads what comes of them:
  kling-omni work tasks.db

  # Until nothing is open any more, with a log instead of the live lines:
  kling-omni work tasks.db --until-empty --quiet --verbose

  # On several machines, one book in Redis; its URL is in the variable BOOK_URL:
  kling-omni work env:BOOK_URL --name shop
""",
    _WHERE,
    *_FOR_IDS,
    "Exit codes: 0 nothing is open any more, 1 the book cannot be used any more, 2 wrong usage, "
    "3 the key is refused, 130 when Ctrl-C or SIGTERM ends it.",
)

_OF_BOOKS: Final = (_DEBUG, "Exit codes: 0 done, 1 not all of it, 2 wrong usage, 130 interrupted.")

BOOK: Final = _page(
    """
  # How many tasks are open, have succeeded, are unread:
  kling-omni book tasks.db

  # Add some, poll them, and hand out what comes of them:
  kling-omni book tasks.db add --from ids.txt
  kling-omni poll --book tasks.db --save images
""",
    _WHERE,
    "Each command has a --help of its own: kling-omni book add --help.",
    *_OF_BOOKS,
)

BOOK_ADD: Final = _page(
    """
  # Those of a file:
  kling-omni book tasks.db add --from ids.txt

  # One, with what belongs to it:
  kling-omni book tasks.db add 842250903629086785 --note '{"chat": 42}'

  # Those of another program, each as it comes:
  list-ids | kling-omni book tasks.db add --from -
""",
    *_OF_BOOKS,
)

BOOK_LIST: Final = _page(
    """
  # A table on a terminal; elsewhere the ids:
  kling-omni book tasks.db list --state open | wc -l

  # All that is known of what was given up on:
  kling-omni book tasks.db list --jsonl - | jq 'select(.outcome.error.type == "PollTimeoutError")'
""",
    *_OF_BOOKS,
)

BOOK_REMOVE: Final = _page(
    """
  kling-omni book tasks.db remove 842250903629086785
""",
    *_OF_BOOKS,
)

BOOK_RETRY: Final = _page(
    """
  # All that timed out, after an outage of the API for instance:
  kling-omni book tasks.db retry --unsettled

  # All that a program could not take ten times, once it is mended:
  kling-omni book tasks.db retry --parked
""",
    *_OF_BOOKS,
)

BOOK_BACKUP: Final = _page(
    """
  kling-omni book tasks.db backup /backups/tasks-monday.db
""",
    "A plain copy of the file alone may lack what lies in the log beside it.",
    *_OF_BOOKS,
)

QUERY: Final = _page(
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

GALLERY: Final = _page(
    """
  # After kling-omni poll … --jsonl images/run.jsonl --save images:
  kling-omni gallery images

  # With journals from elsewhere:
  kling-omni gallery images --jsonl monday.jsonl --jsonl tuesday.jsonl
""",
    _DEBUG,
    "Exit codes: 0 written, 1 not written, 2 wrong usage, 130 interrupted.",
)

DEMO: Final = _page(
    """
  # In a temporary directory:
  kling-omni demo

  # To keep the images:
  kling-omni demo --save demo-images
""",
    _DEBUG,
    "Exit codes: 0 everything came as scripted, 1 it did not, 2 wrong usage, 130 interrupted.",
)

SIMULATE: Final = _page(
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

COMPLETION: Final = _page(
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
