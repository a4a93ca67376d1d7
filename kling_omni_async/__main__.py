"""The program ``kling-omni``, also ``python -m kling_omni_async``."""

from __future__ import annotations

import atexit
import sys

from ._cli._exit import Exit
from ._cli._signals import Once, ignore_signals, interruptible
from ._cli._terminal import note

_EXTRA = frozenset({"cyclopts", "rich"})
_HINT = "the command line needs an extra: pip install 'kling-omni-async[cli]'"


def main() -> None:
    """Run the command that the arguments name, and exit with its code."""
    ends_python = getattr(sys.modules["__main__"], "main", None) is main  # no test has called it
    if ends_python:
        atexit.register(ignore_signals)
    stop = Once()
    with interruptible(stop, for_good=ends_python):
        try:
            code = _run()
            stop.heeded = False
        except KeyboardInterrupt:
            note("interrupted")
            code = Exit.INTERRUPTED
    sys.exit(code)


def _run() -> int:
    try:
        from ._cli._app import run  # noqa: PLC0415 - the extra may be missing
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        note(_HINT)
        return Exit.USAGE
    return run(sys.argv[1:])


if __name__ == "__main__":
    main()
