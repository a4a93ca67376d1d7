"""Which hosts and URLs may be asked for images: no I/O is in it.

They stand apart from `download`, which acts on them, because a wrong one would do most harm: these
lines are tested one by one, and by mutation.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Collection
from typing import Final, TypeAlias
from urllib.parse import quote, urljoin, urlsplit

from yarl import URL

from kling_omni_async.errors import DownloadError

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_HOST = re.compile(r"[A-Za-z0-9._:-]+")
"""No more: some proxies read ``%31.0.0.1`` and digits beyond ASCII as addresses."""

_ORIGIN = re.compile(r"[^:/?#]+://[^/?#]*")
_LONGEST_HOST = 100
_KEPT_IN_URLS: Final = "".join(map(chr, range(0x21, 0x7F)))
_FAKE: Final = ipaddress.IPv4Network("198.18.0.0/15")
"""What DNS gives for public names behind a proxy that answers with fake addresses of its own
(Clash, mihomo): the network is kept for benchmarks (RFC 2544), and nobody's servers are there."""

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


def may_connect(address: str) -> bool:
    """Return whether an address that DNS gave may be connected to; what is none may not."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    inner = _inside(parsed) if isinstance(parsed, ipaddress.IPv6Address) else None
    # As a literal in a URL it is refused: no proxy stands behind it then.
    return is_public(parsed) or (inner or parsed) in _FAKE


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


def plain_host(host: str) -> str:
    """Return a host, or a pattern of the policy, in the one form in which hosts are compared."""
    address = _literal(host.removeprefix("[").removesuffix("]"))  # as in a URL
    if address is not None:
        return str(address)
    name = host.rstrip(".").lower()
    try:
        return str(URL("https://host").with_host(name).raw_host)
    except ValueError:  # no host has such a name: nothing matches it
        return name


def is_allowed(host: str, allowed: Collection[str]) -> bool:
    """Return whether a host is among plain hosts, or below one that begins with ``*.``."""
    name = plain_host(host)
    # Below no name is an address: of `*.0.0.1` this machine would be.
    if name in allowed or _literal(name) is not None:
        return name in allowed
    return any(each[:2] == "*." and name.endswith(each[1:]) for each in allowed)


def fetchable_url(url: str) -> URL:
    """Return a URL parsed, with its host in ASCII; nothing else of it is changed.

    A signature may be in it.
    """
    try:
        urlsplit(url)  # stricter with brackets
        parsed = URL(url, encoded=True)
        host, _ = parsed.raw_host or "", parsed.port  # the latter may raise
        if ":" in host:
            ipaddress.IPv6Address(host)
        if not host.isascii():
            parsed = parsed.with_host(host)
    except (ValueError, IndexError):
        pass
    else:
        if _HOST.fullmatch(parsed.raw_host or "") and url.isprintable() and " " not in url:
            return parsed
    raise DownloadError("its URL is none that can be fetched", reason="url")


def redirected(url: str, location: str) -> str:
    """Return the URL that a redirect names; behind its host it is mended as browsers do."""
    try:
        target = urljoin(url, location.strip(" "))
        at = match.end() if (match := _ORIGIN.match(target)) else 0
        # Raw spaces and letters; bytes that are no UTF-8 have come as halves of surrogates.
        return target[:at] + quote(target[at:].encode(errors="surrogateescape"), _KEPT_IN_URLS)
    except ValueError:
        raise DownloadError("a redirect names no URL", reason="url") from None


def redact_url(url: str) -> str:
    """Return a URL without its query and user info, which may be secrets."""
    scheme, mark, rest = url.partition("#")[0].partition("?")[0].partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}"


def private_host_error(host: str, address: str | None = None) -> DownloadError:
    """Return the error for a host that must not be asked, with the address that it leads to."""
    found = f" ({address})" if address else ""
    return DownloadError(
        f"its host {host[:_LONGEST_HOST]}{found} is in a private network", reason="address"
    )
