"""aiohttp's errors in our words, without what it makes up and without the URL."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest

from kling_omni_async._http import detail_of

INFO = cast("Any", SimpleNamespace(real_url="http://me:pw@proxy/"))
POINTED = "Bad chunk:\n\n  b'zz'\n    ^"


class WordedError(Exception):
    """An error with words of its own.

    Args:
        message: They.
    """

    def __init__(self, message: str) -> None:
        super().__init__(f"400, message={message!r}")
        self.message = message


def caused(error: Exception, cause: Exception | None) -> Exception:
    """Give an error with what was its cause."""
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (aiohttp.ClientHttpProxyError(INFO, (), status=407, message="Auth"), "HTTP 407 Auth"),
        (
            aiohttp.ClientResponseError(INFO, (), status=400, message=POINTED),
            "the answer cannot be read: Bad chunk: b'zz'",
        ),
        (
            caused(aiohttp.ClientPayloadError("400, message: no"), WordedError("not enough data")),
            "not enough data",
        ),
        (caused(aiohttp.ClientPayloadError("cut"), None), "cut"),
        (caused(aiohttp.ClientPayloadError("cut"), ConnectionResetError("reset")), "cut"),
        (aiohttp.ServerDisconnectedError(), "Server disconnected"),
        (OSError("no route"), "no route"),
    ],
)
def test_what_an_error_says(error: Exception, detail: str) -> None:
    """A status is told where it is the proxy's own; what cannot be read is told as that."""
    assert detail_of(error) == detail
