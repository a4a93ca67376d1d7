"""What may be saved and fetched, what an answer means, when to try again: no I/O is in it.

They stand apart from `download`, which acts on them, because a wrong one would do most harm: these
lines are tested one by one, and by mutation.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final, TypeAlias
from urllib.parse import urljoin, urlsplit

from yarl import URL

from kling_omni_async._ids import quoted
from kling_omni_async._models import ImageTask, TaskStatus
from kling_omni_async._outcome import TaskOutcome
from kling_omni_async.errors import (
    AssetExpiredError,
    ConfigurationError,
    DownloadError,
    NoImagesError,
    TaskFailedError,
)

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

BACKOFF_S: Final = (1.0, 2.0, 4.0, 8.0)
"""The pauses after transient faults, before jitter, in s."""

NOT_READY_S: Final = (2.0, 8.0)
"""The pauses after a 404 of an image that has just been made, before jitter, in s."""

FRESH_S: Final = 60.0
"""How long a host may need to have an image ready, in s (seen: a 404 right after success)."""

_GONE: Final = frozenset({403, 404, 410})
_HOST = re.compile(r"[A-Za-z0-9._:-]+")
"""No more: some proxies read ``%31.0.0.1`` and digits beyond ASCII as addresses."""

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_INTERNET: Final = ipaddress.IPv6Network("2000::/3")
"""All of IPv6 that is given out for the internet (IANA, IPv6 Address Space)."""

# From IANA's registries of special-purpose addresses, but for one. Not asked of Python: its own
# lists change from one patch release to the next.
_SPECIAL_V4: Final = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared by the customers of a carrier
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # public by its number, yet the host agent of Azure's machines
        "169.254.0.0/16",  # link-local, where most clouds keep their metadata
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocols, and the metadata of Oracle's cloud
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # relays of 6to4, given up
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/3",  # multicast, reserved, broadcast
    )
)
_SPECIAL_V6: Final = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # protocols, Teredo among them
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which leads to an IPv4 address
        "3fff::/20",  # documentation
    )
)


def task_to_save(given: object) -> ImageTask:
    """Return the task, or that of an outcome, whose images are to be saved.

    Raises:
        ConfigurationError: It is neither, or the task has not succeeded yet.
        NoImagesError: The task has no images.
        KlingOmniError: The task failed, or the outcome's own error.
    """
    task = given
    if isinstance(given, TaskOutcome):
        # One whose images could not be saved is what one wants to save again.
        task = given.task if isinstance(given.error, DownloadError) else given.result()
    if not isinstance(task, ImageTask):
        raise ConfigurationError(
            f"save takes an ImageTask or a TaskOutcome, not a {type(given).__name__}"
        )
    if task.status is TaskStatus.FAILED:
        raise TaskFailedError(task.status_message or "", task_id=task.task_id, task=task)
    if task.status is not TaskStatus.SUCCEED:
        raise ConfigurationError(
            f"task {quoted(task.task_id)} is {task.status}: wait for it before its images "
            "are saved",
            task_id=task.task_id,
        )
    if not task.images:
        raise NoImagesError("the task has no images to save", task_id=task.task_id, task=task)
    return task


def is_public(address: Address) -> bool:
    """Return whether an address is one of the internet's, or stands for one that is."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = _inside(address)
        if inner is not None:
            return is_public(inner)
        return address in _INTERNET and not any(address in special for special in _SPECIAL_V6)
    return not any(address in special for special in _SPECIAL_V4)


def _inside(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that an IPv6 one stands for (RFC 4291, 2.5.5.2; RFC 6052)."""
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped


def connects_to_public(address: str) -> bool:
    """Return whether the address of a socket is public; one that cannot be read is not."""
    try:
        return is_public(ipaddress.ip_address(address))
    except ValueError:
        return False


def names_private(host: str) -> bool:
    """Return whether a host's very name leads into a private network, without asking DNS."""
    # Behind a proxy this is all that can be checked: names are resolved there.
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _literal(name)
    return address is not None and not is_public(address)


def _literal(host: str) -> Address | None:
    """Return the address that a host is, also in old forms such as ``127.1``."""
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        pass
    try:
        # `127.1`, `0x7f.1`, `2130706433`: resolvers still read them, so they are read here.
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, UnicodeError, ValueError):
        return None


def fetchable_url(url: str) -> URL:
    """Return a URL parsed, without a byte of it changed: a signature may be in it."""
    try:
        urlsplit(url)  # stricter with brackets
        parsed = URL(url, encoded=True)
        host, _ = parsed.host or "", parsed.port  # either may raise
        if ":" in host:
            ipaddress.IPv6Address(host)
    except (ValueError, IndexError):
        pass
    else:
        if _HOST.fullmatch(host) and url.isprintable() and " " not in url:
            return parsed
    raise DownloadError("its URL is none that can be fetched", reason="url")


def redirected(url: str, location: str) -> str:
    """Return the URL that a redirect names."""
    try:
        return urljoin(url, location)
    except ValueError:
        raise DownloadError("a redirect names no URL", reason="url") from None


def redact_url(url: str) -> str:
    """Return a URL without its query and user info, which may be secrets."""
    scheme, mark, rest = url.partition("#")[0].partition("?")[0].partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}"


def private_host_error() -> DownloadError:
    """Return the error for a host that must not be asked."""
    return DownloadError("its host is in a private network", reason="address")


def require_good(status: int) -> None:
    """Raise why an HTTP status brings no image, if it is not 200."""
    # Signed URLs answer 403 once they have expired (S3 and its kin), cleared ones 404 or 410.
    if status in _GONE:
        raise AssetExpiredError(
            f"HTTP {status}: the URL has expired, or its image was cleared",
            http_status=status,
            reason="expired",
        )
    if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        raise DownloadError("the proxy refuses", http_status=status, reason="proxy")
    if status != HTTPStatus.OK:
        raise DownloadError(f"HTTP {status} instead of an image", http_status=status, reason="http")


def is_fresh(succeeded_at: datetime | None, wall_s: float) -> bool:
    """Return whether a task has only just succeeded; one without a time counts as such.

    A time without a zone is read as UTC; `wall_s` is now, in s since the epoch.
    """
    if succeeded_at is None:
        return True
    at = succeeded_at if succeeded_at.tzinfo else succeeded_at.replace(tzinfo=UTC)
    return wall_s - at.timestamp() < FRESH_S


def pause_before_retry(error: DownloadError, *, tries: int, fresh: bool) -> float | None:
    """Return the pause before an image is fetched again, in s, or None to give it up."""
    pauses: tuple[float, ...] = BACKOFF_S if error.transient else ()
    if isinstance(error, AssetExpiredError):
        # A 404 right after success says that the host is not ready yet; later, that it is gone.
        pauses = NOT_READY_S if fresh and error.http_status == HTTPStatus.NOT_FOUND else ()
    return pauses[tries - 1] if 0 < tries <= len(pauses) else None
