"""What queries and downloads share: our name, headers, and our words for aiohttp's errors."""

from __future__ import annotations

import errno
import math
import os
import re
import socket
import ssl
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Final

import aiohttp

from ._version import __version__

USER_AGENT: Final = f"kling-omni-async/{__version__} aiohttp/{aiohttp.__version__}"

_REASONS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (aiohttp.ClientProxyConnectionError, "proxy"),
    (aiohttp.ClientHttpProxyError, "proxy"),
    (aiohttp.ClientConnectorDNSError, "dns"),
    (aiohttp.ClientConnectorCertificateError, "certificate"),
    (aiohttp.ServerFingerprintMismatch, "certificate"),
    (ssl.CertificateError, "certificate"),
    (aiohttp.ClientSSLError, "tls"),
    (ssl.SSLError, "tls"),
    (TimeoutError, "timeout"),
    (aiohttp.ClientConnectorError, "connect"),
    (aiohttp.ServerDisconnectedError, "reset"),
    (OSError, "reset"),
    (aiohttp.ClientPayloadError, "cut-off"),
    (aiohttp.ClientResponseError, "protocol"),
)
"""Foreign errors by our word for them; the first that fits counts."""

MOST_HEADER_BYTES: Final = 65_536
"""The longest header, and the longest first line."""

_ERRNO = re.compile(r"\[Errno (\d{1,5})\]", re.ASCII)
_SECONDS = re.compile(r"\s*[+-]?[\d.]{1,40}\s*", re.ASCII)
_NEVER_LEFT: Final = (
    aiohttp.ClientConnectorError,
    aiohttp.ClientHttpProxyError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
)
"""What aiohttp raises only before it has a connection (measured against a raw socket server)."""

_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE})


def out_of_descriptors(error: BaseException) -> bool:
    """Return whether this process, or the machine, had no file descriptor left."""
    if isinstance(error, ImportError):  # of a library in machine code, which says so in words alone
        return any(os.strerror(number) in str(error) for number in _EXHAUSTED)
    return isinstance(error, OSError) and error.errno in _EXHAUSTED


def never_left(error: BaseException) -> bool:
    """Return whether an error proves that nothing of the request was sent.

    Others may come before the connection, too, and look as if they came behind it.
    """
    return isinstance(error, _NEVER_LEFT)


def reason_of(error: BaseException) -> str:
    """Return our word for why no answer came."""
    if out_of_descriptors(error):
        return "descriptors"
    fitting = (reason for kind, reason in _REASONS if isinstance(error, kind))
    return next(fitting, "network")


def detail_of(error: BaseException) -> str:
    """Return an error's own words, without the URL, which may hold a proxy's password."""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"HTTP {error.status} {error.message}"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"{error.host}:{error.port}: {_words_of(error.os_error)}"
    if isinstance(error, OSError):
        return _words_of(error)
    # To what it cannot read aiohttp gives a status of its own, 400, whatever the server said.
    unreadable = isinstance(error, aiohttp.ClientResponseError)
    cause = error.__cause__ if isinstance(error, aiohttp.ClientPayloadError) else error
    words: object = getattr(cause, "message", None)
    if not isinstance(words, str) or not words:
        return str(error)
    line = " ".join(words.split()).removesuffix(" ^")  # it points to a place in the line above
    return f"the answer cannot be read: {line}" if unreadable else line


def _words_of(error: BaseException) -> str:
    """Return the system's words for an error, without numbers, addresses and places in C."""
    if isinstance(error, ssl.SSLError):
        # OpenSSL's alone have these.
        reason: str = getattr(error, "reason", None) or ""
        words: str = getattr(error, "verify_message", "") or reason.replace("_", " ").lower()
        return words or str(error.args[-1])
    if isinstance(error, socket.gaierror):
        return error.strerror or str(error)
    # A loop that has tried several addresses tells them all, asyncio as `Multiple exceptions`.
    numbers = [getattr(error, "errno", None) or 0, *map(int, _ERRNO.findall(str(error)))]
    known = dict.fromkeys(os.strerror(number) for number in numbers if number > 0)
    return ", ".join(known) or str(error)


def retry_after_s(value: str | None, wall_s: float) -> float | None:
    """Read a ``Retry-After`` header, seconds or an HTTP date, as a finite number of s above 0."""
    if value is None:
        return None
    try:
        delay = float(value) if _SECONDS.fullmatch(value) else _until(value, wall_s)
    except (ValueError, OverflowError):
        return None
    # Past, negative and absurd values mean nothing.
    return delay if math.isfinite(delay) and delay > 0 else None


@lru_cache(maxsize=2)  # it is the same for a second
def date_s(value: str | None) -> float | None:
    """Read a ``Date`` header as s since the epoch."""
    if value is None:
        return None
    try:
        # The header is cut to whole seconds.
        return _moment_s(value) + 0.5
    except (ValueError, OverflowError):
        return None


def _until(value: str, wall_s: float) -> float:
    return _moment_s(value) - wall_s


def _moment_s(value: str) -> float:
    moment = parsedate_to_datetime(value.strip())
    if moment.tzinfo is None:  # the asctime form names no zone; HTTP's dates are in UTC
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp()
