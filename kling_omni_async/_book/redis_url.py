"""The URL of a Redis: what it must be, and how it is shown without what is secret in it."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import SplitResult, parse_qsl, urlsplit

from kling_omni_async.errors import ConfigurationError

IS_URL: Final = re.compile("(redis|rediss|unix)://", re.IGNORECASE)
_NUMBER: Final = re.compile(r"/?\d*/?")


def require_url(url: str) -> str:
    """Return a URL as it is shown: without user, password and query.

    Raises:
        ConfigurationError: It is none. Its text shows nothing of it: in a URL that is cut in the
            wrong place a part of the password may stand anywhere.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
        if parts.query:
            parse_qsl(parts.query, strict_parsing=True)
    except ValueError:
        raise no_url("it cannot be read") from None
    if fault := _fault_of(parts):
        raise no_url(fault)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _fault_of(parts: SplitResult) -> str | None:
    if parts.fragment:
        return "it has a part behind #"
    if parts.scheme != "unix" and not _NUMBER.fullmatch(parts.path):
        return "its path is not the number of a database"
    return None


def no_url(why: str) -> ConfigurationError:
    """Return the error for what is no URL of Redis."""
    return ConfigurationError(
        f"where is no URL of Redis: {why}; write one such as redis://user:password@host:6379/0, "
        "with what is no letter or digit in a password percent-encoded"
    )
