"""The program in a process that has imported everything already: quick to start and to kill."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from kling_omni_async.__main__ import main

# Each start reaps those that have ended, and two threads that reap one process lose its exit code.
_ONE_AT_A_TIME = threading.Lock()


@contextmanager
def warm(*arguments: str, env: dict[str, str]) -> Generator[None]:
    """Run the program, and kill it at the end.

    Where it is killed again and again its start would be most of the time.
    """
    forks = multiprocessing.get_context("forkserver")
    # This module too: a child would import it anew, so it imports next to nothing.
    forks.set_forkserver_preload(["kling_omni_async._cli.app", __name__])
    process = forks.Process(target=_run, args=(arguments, env))
    with _ONE_AT_A_TIME:
        process.start()
    try:
        yield
    finally:
        with _ONE_AT_A_TIME:
            process.kill()
            process.join()
            code = process.exitcode
            process.close()
    assert code == -signal.SIGKILL


def _run(arguments: Sequence[str], env: dict[str, str]) -> None:
    os.environ.update(env)
    sys.argv = ["kling-omni", *arguments]
    for number in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    main()
