"""What queries and downloads share: our name, and our words for aiohttp's errors."""

from __future__ import annotations

import errno
import ssl
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

_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE})


def out_of_descriptors(error: BaseException) -> bool:
    """Return whether this process, or the machine, had no file descriptor left."""
    return isinstance(error, OSError) and error.errno in _EXHAUSTED


def reason_of(error: BaseException) -> str:
    """Return our word for why no answer came."""
    if out_of_descriptors(error):
        return "descriptors"
    fitting = (reason for kind, reason in _REASONS if isinstance(error, kind))
    return next(fitting, "network")


def detail_of(error: BaseException) -> str:
    """Return an error's own words, without the URL, which may hold a proxy's password."""
    if isinstance(error, aiohttp.ClientResponseError):
        return f"HTTP {error.status} {error.message}"
    return str(error)
