"""From options to a session, and the library's warnings as lines on stderr."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Generator
from contextlib import contextmanager

import attrs

from kling_omni_async import KlingOmniSession
from kling_omni_async._policy import PollPolicy

from ._terminal import note

_USUAL = PollPolicy()
_logger = logging.getLogger("kling_omni_async")


@attrs.frozen(kw_only=True)
class Connection:
    """Which API is asked.

    Attributes:
        base_url: Another base URL than that of COMETAPI_BASE_URL.
        allow_http: Accept a base URL with http:// that is not of this machine.
    """

    base_url: str | None = None
    allow_http: bool = False


@attrs.frozen(kw_only=True)
class Pace:
    """How often and how long ids are polled; each option is a field of `PollPolicy`.

    Attributes:
        interval: The pause between two queries of an id, in s: LOW HIGH, or LOW-HIGH.
        timeout: How long to poll an id, in s; "none" for ever.
        max_rate: The most queries a second; "none" for no limit.
        max_concurrency: The most queries at a time.
        max_downloads: The most images on their way at a time.
    """

    interval: tuple[float, float] = _USUAL.interval
    timeout: float | None = _USUAL.timeout
    max_rate: float | None = _USUAL.max_rate
    max_concurrency: int = _USUAL.max_concurrency
    max_downloads: int = _USUAL.max_downloads

    def policy(self) -> PollPolicy:
        """Give the policy.

        Raises:
            ConfigurationError: A value makes no sense.
        """
        return PollPolicy(
            interval=self.interval,
            timeout=self.timeout,
            max_rate=self.max_rate,
            max_concurrency=self.max_concurrency,
            max_downloads=self.max_downloads,
        )


def make_session(connection: Connection, policy: PollPolicy | None = None) -> KlingOmniSession:
    """Make a session with the key of the environment; its warnings become notes.

    Raises:
        ConfigurationError: The key or the base URL cannot be used.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        session = KlingOmniSession(
            base_url=connection.base_url, policy=policy, allow_http=connection.allow_http
        )
    for warning in caught:
        note(f"warning: {warning.message}")
    return session


class _Notes(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        note(f"{record.levelname.lower()}: {record.getMessage()}")


@contextmanager
def logged_as_notes() -> Generator[None]:
    """Show the library's log records from WARNING up as lines on stderr."""
    handler = _Notes(logging.WARNING)
    _logger.addHandler(handler)
    try:
        yield
    finally:
        _logger.removeHandler(handler)
