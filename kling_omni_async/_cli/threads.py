"""Threads that nobody waits for: the system may look for a name for half a minute and more."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress


class UnwaitedThreads(ThreadPoolExecutor):
    """A loop's threads, in which names are resolved; the end of the loop does not join them."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002 - the signature is Python's
        """Take no more work, and leave what runs to itself."""
        super().shutdown(wait=False, cancel_futures=True)


def leave_running(code: int) -> None:
    """End the process with an exit code if threads still run that Python would wait for."""
    others = set(threading.enumerate()) - {threading.main_thread()}
    if all(thread.daemon for thread in others):
        return
    for stream in filter(None, (sys.stdout, sys.stderr)):  # either may be None
        with suppress(OSError, ValueError):  # nobody reads it, or it is closed
            stream.flush()
    os._exit(code)
