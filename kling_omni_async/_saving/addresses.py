"""Which addresses an image may be fetched from: none that leads into a private network."""

from __future__ import annotations

import ipaddress
import socket
from typing import Final, TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_INTERNET: Final = ipaddress.IPv6Network("2000::/3")
"""All of IPv6 that is given out for the internet (IANA, IPv6 Address Space)."""

# From IANA's registries of special-purpose addresses. Not asked of Python: its own lists change
# from one patch release to the next.
_SPECIAL_V4: Final = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared by the customers of a carrier
        "127.0.0.0/8",  # loopback
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
_SERVICES: Final = frozenset({ipaddress.IPv4Address("168.63.129.16")})
"""Public by its number, yet the host agent of every virtual machine (Azure docs)."""


def is_public(address: Address) -> bool:
    """Whether an address is one of the internet's.

    Private, shared, loopback, link-local (where clouds keep their metadata), multicast and
    reserved ones are not, nor are IPv6 addresses that stand for such an IPv4 one.
    """
    if isinstance(address, ipaddress.IPv6Address):
        inner = _inside(address)
        if inner is not None:
            return is_public(inner)
        return address in _INTERNET and not any(address in special for special in _SPECIAL_V6)
    if address in _SERVICES:
        return False
    return not any(address in special for special in _SPECIAL_V4)


def _inside(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Give the IPv4 address that an IPv6 one stands for (RFC 4291, 2.5.5.2; RFC 6052)."""
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped


def connects_to_public(address: str) -> bool:
    """Whether the address of a socket is public; one that cannot be read is not."""
    try:
        return is_public(ipaddress.ip_address(address.partition("%")[0]))
    except ValueError:
        return False


def names_private(host: str) -> bool:
    """Whether a host's very name leads into a private network, without asking DNS."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _literal(name)
    return address is not None and not is_public(address)


def _literal(host: str) -> Address | None:
    """Read a host that is an address, also in old forms such as ``127.1``."""
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, UnicodeError, ValueError):
        return None
