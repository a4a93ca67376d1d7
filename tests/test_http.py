"""aiohttp's errors in our words, without what it makes up; and how long servers ask to wait."""

from __future__ import annotations

import errno
import math
import os
import socket
import ssl
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kling_omni_async._http import (
    detail_of,
    never_left,
    out_of_descriptors,
    reason_of,
    retry_after_s,
)
from tests.plans import share_of

from .support import plain

INFO = cast("Any", SimpleNamespace(real_url="http://me:pw@proxy/"))
NOW_S = 1_777_777_777.0
"""Sun, 03 May 2026 03:09:37 GMT."""

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


WHERE = cast("Any", SimpleNamespace(host="api.test", port=1, ssl=True, is_ssl=True))


def failed(error: OSError) -> aiohttp.ClientConnectorError:
    """Return what aiohttp makes of an error while it connects."""
    return aiohttp.ClientConnectorError(WHERE, error)


def tls(**attributes: str) -> ssl.SSLError:
    """Return an error as OpenSSL makes it."""
    error = ssl.SSLError(1, "[SSL: …] … (_ssl.c:1006)")
    for name, value in attributes.items():
        setattr(error, name, value)
    return error


@pytest.mark.skipif(sys.platform != "linux", reason="the words and numbers are Linux's")
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
        (ConnectionResetError(errno.ECONNRESET, "it was"), "Connection reset by peer"),
        (failed(OSError(errno.ECONNREFUSED, "call failed")), "api.test:1: Connection refused"),
        (
            failed(OSError("Multiple exceptions: [Errno 111] ('::1', 1), [Errno 101] (1, 2)")),
            "api.test:1: Connection refused, Network is unreachable",
        ),
        (
            failed(socket.gaierror(-2, "Name or service not known")),
            "api.test:1: Name or service not known",
        ),
        (failed(socket.gaierror("odd")), "api.test:1: odd"),
        (failed(tls(reason="WRONG_VERSION_NUMBER")), "api.test:1: wrong version number"),
        (failed(ssl.SSLError("handshake")), "api.test:1: handshake"),
        (
            aiohttp.ClientConnectorCertificateError(WHERE, tls(verify_message="self-signed")),
            "api.test:1: self-signed",
        ),
    ],
)
def test_what_an_error_says(error: Exception, detail: str) -> None:
    """A status is told where it is the proxy's own, and of a connection where and the system's why.

    What cannot be read is told as that, and nothing as aiohttp, asyncio and OpenSSL decorate it.
    """
    assert detail_of(error) == detail


@pytest.mark.skipif(sys.platform != "linux", reason="the words and numbers are Linux's")
@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (OSError(errno.EPERM, "an errno of 1"), "Operation not permitted"),
        (OSError(0, "no error"), "[Errno 0] no error"),
        (
            caused(aiohttp.ClientPayloadError("400, message: no"), WordedError("")),
            "400, message: no",
        ),
        (caused(aiohttp.ClientPayloadError("cut"), WordedError(cast("str", 7))), "cut"),
        (aiohttp.ClientError("odd"), "odd"),
    ],
)
def test_what_an_error_says_that_has_few_words(error: Exception, detail: str) -> None:
    """The system's where it has a number, else its own."""
    assert detail_of(error) == detail


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (aiohttp.ServerDisconnectedError(), "reset"),
        (ConnectionResetError(errno.ECONNRESET, "it was"), "reset"),
        (failed(OSError(errno.ECONNREFUSED, "call failed")), "connect"),
        (aiohttp.ClientConnectorDNSError(WHERE, socket.gaierror(-2, "unknown")), "dns"),
        (aiohttp.ClientHttpProxyError(INFO, (), status=407, message="Auth"), "proxy"),
        (aiohttp.ClientConnectorCertificateError(WHERE, tls()), "certificate"),
        (tls(), "tls"),
        (TimeoutError(), "timeout"),
        (aiohttp.ClientPayloadError("cut"), "cut-off"),
        (aiohttp.ClientResponseError(INFO, (), status=400), "protocol"),
        (OSError(errno.EMFILE, "too many open files"), "descriptors"),
        (failed(OSError(errno.ENFILE, "too many open files")), "descriptors"),
        (aiohttp.ClientError("odd"), "network"),
    ],
)
def test_why_no_answer_came(error: Exception, reason: str) -> None:
    """One word for each kind of error."""
    assert reason_of(error) == reason


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_a_process_without_descriptors(number: int) -> None:
    """The system says so by a number, and a library that cannot be loaded in words alone."""
    assert out_of_descriptors(OSError(number, "no"))
    assert out_of_descriptors(ImportError(f"libssl.so: cannot open: {os.strerror(number)}"))
    assert not out_of_descriptors(OSError(errno.EPERM, os.strerror(number)))
    assert not out_of_descriptors(ImportError("None"))
    assert not out_of_descriptors(WordedError(os.strerror(number)))


def test_what_never_left() -> None:
    """There was no connection: that is certain of these alone."""
    assert never_left(failed(OSError(errno.ECONNREFUSED, "call failed")))
    assert never_left(aiohttp.ConnectionTimeoutError())
    assert not never_left(ConnectionResetError(errno.ECONNRESET, "it was"))


# How long to wait.


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1", 1.0),
        (" 120 ", 120.0),
        ("+5", 5.0),
        ("0.5", 0.5),
        (".5", 0.5),
        ("86400", 86400.0),
        ("Sun, 03 May 2026 03:10:07 GMT", 30.0),
        ("Sunday, 03-May-26 03:10:07 GMT", 30.0),
        ("Sun May  3 03:10:07 2026", 30.0),
        ("Sun, 03 May 2026 05:10:07 +0200", 30.0),
        ("Sun, 03 May 2026 03:10:07 -0000", 30.0),
        (" Sun, 03 May 2026 03:10:07 GMT ", 30.0),
    ],
)
def test_retry_after(value: str, expected: float) -> None:
    """Seconds and each of the three forms of HTTP's dates give s from now."""
    assert retry_after_s(value, NOW_S) == expected


@pytest.mark.parametrize(
    "value",
    [None, "", " ", "0", "-5", "nan", "NaN", "inf", "-inf", "1e3", "1.2.3", "9" * 41, "1_000",
     "\u0665", "soon", "Sun, 03 May 2026 03:09:37 GMT", "Sun, 03 May 2026 03:00:00 GMT",
     "Thu, 01 Jan 1970 00:00:00 GMT", "Sun, 99 May 2026 03:10:07 GMT", "May", "0 0 0 0 0",
     "Sun, 03 May 99999999999999999999 03:10:07 GMT", "Sun, 03 May 2026 03:10:07 +9999",
     "Sun, 03 May 2026 03:10:07 +" + "9" * 30, "\x00", "\ud800"],
    ids=plain,
)  # fmt: skip
def test_no_retry_after(value: str | None) -> None:
    """Nothing, zero, negative, past, and what is neither a number nor a date mean nothing."""
    assert retry_after_s(value, NOW_S) is None


@pytest.fixture
def far_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put the machine into another time zone."""
    if not hasattr(time, "tzset"):
        pytest.skip("this system's time zone cannot be changed")
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "XXX-9")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("far_east")
@pytest.mark.parametrize(
    "value", ["Sun, 03 May 2026 03:10:07 GMT", "Sun May  3 03:10:07 2026", "3 May 2026 03:10:07"]
)
def test_dates_are_never_local(value: str) -> None:
    """A date is in UTC wherever the machine stands, also where it names no zone."""
    assert os.environ["TZ"] == "XXX-9"
    assert retry_after_s(value, NOW_S) == 30.0


WORDS = ["Sun,", "3", "May", "2026", "03:10:07", "-0000", "GMT", "+9999", ":", ",", "-", "99", ""]


@settings(max_examples=share_of(300), deadline=None)
@given(st.text(max_size=30) | st.lists(st.sampled_from(WORDS), max_size=7).map(" ".join))
def test_any_retry_after(value: str) -> None:
    """Any header gives a finite number above 0, or None."""
    delay = retry_after_s(value, NOW_S)
    assert delay is None or (math.isfinite(delay) and delay > 0)
