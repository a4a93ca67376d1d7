"""The program ``kling-omni``, also ``python -m kling_omni_async``.

Little is imported here: until `main` has taken the signals over, they end Python in its own way.
"""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress

from ._cli.signals import Signals, hold_signals, ignore_signals, interruptible

_EXTRA = frozenset({"cyclopts", "jinja2", "rich"})
_STDERR = 2
_HINT = "the command line needs the extra cli: in the checkout, pip install '.[cli]'"


def main() -> None:
    """Run the command that the arguments name, and exit with its code."""
    ends_python = getattr(sys.modules["__main__"], "main", None) is main  # no test has called it
    if ends_python:
        atexit.register(ignore_signals)
    with interruptible(Signals(), for_good=ends_python):
        _keep_numbers_of_streams()
        code = _guarded()
    if ends_python:
        from ._cli.threads import leave_running  # noqa: PLC0415 - behind the handlers

        leave_running(code)
    sys.exit(code)


def _keep_numbers_of_streams() -> None:
    """Put nothing in the place of each standard stream that is closed."""
    # Else the journal would get the number of stderr, and whatever is told there.
    with suppress(OSError):  # none is left for a file either
        while (fd := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
            pass
        os.close(fd)


def _guarded() -> int:
    from ._cli.exit import Exit  # noqa: PLC0415 - behind the handlers
    from ._cli.terminal import note  # noqa: PLC0415 - as above

    try:
        from ._cli.app import run  # noqa: PLC0415 - the extra may be missing

        code = run(sys.argv[1:])
        hold_signals()
    except KeyboardInterrupt:
        note("interrupted")
        code = Exit.INTERRUPTED
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        note(_HINT)
        code = Exit.USAGE
    return code


if __name__ == "__main__":
    main()
