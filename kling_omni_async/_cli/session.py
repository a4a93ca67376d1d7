"""From options to a session, and the library's warnings as lines on stderr."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from typing import Final

from kling_omni_async._config import make_settings
from kling_omni_async._policy import PollPolicy
from kling_omni_async._session import KlingOmniSession

from .exit import IN_OPTIONS
from .options import Connection
from .terminal import note

_LOUDER: Final = (logging.INFO, logging.DEBUG)
_logger = logging.getLogger("kling_omni_async")


def make_session(connection: Connection, policy: PollPolicy | None = None) -> KlingOmniSession:
    """Make a session with the key of the environment; its warnings become notes.

    Raises:
        ConfigurationError: The key or an option cannot be used, in the words of options.
    """
    # Before the session itself does so, in the words of its own arguments.
    make_settings(
        None, connection.base_url, policy, allow_http=connection.allow_http, names=IN_OPTIONS
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")  # by default a second session would warn no more
        session = KlingOmniSession(
            base_url=connection.base_url, policy=policy, allow_http=connection.allow_http
        )
    for warning in caught:
        note(f"warning: {warning.message}")
    return session


def in_words(record: logging.LogRecord) -> str:
    """Return a log record as a line for stderr."""
    return f"{record.levelname.lower()}: {record.getMessage()}"


class _Notes(logging.Handler):
    """Writes log records as lines on stderr."""

    def __init__(
        self, level: int, words: Callable[[logging.LogRecord], str], told_anyway: Collection[str]
    ) -> None:
        super().__init__(level)
        self._words = words
        self._told_anyway = told_anyway

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg not in self._told_anyway:
            note(self._words(record))


@contextmanager
def logged_as_notes(
    verbose: int = 0,
    *,
    least: int = logging.WARNING,
    words: Callable[[logging.LogRecord], str] = in_words,
    told_anyway: Collection[str] = (),
) -> Generator[None]:
    """Show log records of the library on stderr, from `least` up; 1 shows INFO, 2 DEBUG too.

    Those whose text stands in `told_anyway` are left out: an error says the same.
    """
    level = (least, *_LOUDER)[min(verbose, len(_LOUDER))]
    handler, before = _Notes(level, words, told_anyway), _logger.level
    _logger.addHandler(handler)
    # Only where more is asked for: a program that has set a level of its own keeps it.
    if verbose:
        _logger.setLevel(level)
    try:
        yield
    finally:
        _logger.setLevel(before)
        _logger.removeHandler(handler)
