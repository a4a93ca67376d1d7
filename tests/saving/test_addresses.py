"""No address that leads into a private network is taken for one of the internet's."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_omni_async._saving.rules import connects_to_public, is_public, names_private

PUBLIC_V4 = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "168.63.129.15",
    "168.63.129.17",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "192.0.3.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
]
PRIVATE_V4 = [
    "0.0.0.0",  # noqa: S104 - is not bound to
    "0.255.255.255",
    "10.0.0.0",
    "10.255.255.255",
    "100.64.0.0",
    "100.100.100.200",  # the metadata of Alibaba's cloud
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.255",
    "168.63.129.16",  # the host agent of Azure
    "169.254.0.0",
    "169.254.169.254",  # the metadata of most clouds
    "169.254.170.2",
    "169.254.255.255",
    "172.16.0.0",
    "172.31.255.255",
    "192.0.0.0",
    "192.0.0.9",
    "192.0.0.192",  # the metadata of Oracle's cloud
    "192.0.0.255",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.0",
    "192.168.255.255",
    "198.18.0.0",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.0",
    "239.255.255.250",
    "240.0.0.0",
    "255.255.255.254",
    "255.255.255.255",
]
PUBLIC_V6 = [
    "2000::",
    "2001:200::1",
    "2001:4860:4860::8888",
    "2003::1",
    "2606:4700::1111",
    "2620:4f:8000::1",
    "3ffe:ffff::1",
    "3fff:1000::1",
]
PRIVATE_V6 = [
    "::",
    "::1",
    "::8.8.8.8",
    "::127.0.0.1",
    "::ffff:0:8.8.8.8",
    "64:ff9b:1::8.8.8.8",
    "100::1",
    "1fff:ffff::1",
    "2001::1",
    "2001:0:808:808::1",
    "2001:1::1",
    "2001:2::1",
    "2001:10::1",
    "2001:20::1",
    "2001:1ff:ffff::1",
    "2001:db8::1",
    "2002:808:808::1",
    "2002:a00:1::1",
    "2002:7f00:1::1",
    "3fff::1",
    "3fff:fff::1",
    "4000::",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",  # the metadata of AWS
    "fd20:ce::254",  # the metadata of Google's cloud
    "fe80::1",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
]


@pytest.mark.parametrize("address", PUBLIC_V4 + PUBLIC_V6)
def test_lets_the_internet_through(address: str) -> None:
    """A public address is public up to the borders of its network, in each way it is asked for."""
    assert is_public(ipaddress.ip_address(address))
    assert connects_to_public(address)
    assert not names_private(address)


@pytest.mark.parametrize("address", PRIVATE_V4 + PRIVATE_V6)
def test_refuses_what_is_not_the_internet(address: str) -> None:
    """Every special-purpose network is refused up to its borders, in each way it is asked for."""
    assert not is_public(ipaddress.ip_address(address))
    assert not connects_to_public(address)
    assert names_private(address)


@pytest.mark.parametrize("prefix", ["::ffff:", "64:ff9b::"], ids=["mapped", "NAT64"])
@pytest.mark.parametrize("inner", PUBLIC_V4 + PRIVATE_V4)
def test_judges_an_address_by_the_one_inside(prefix: str, inner: str) -> None:
    """An IPv6 address that stands for an IPv4 one is as public as that."""
    assert connects_to_public(f"{prefix}{inner}") is (inner in PUBLIC_V4)


@given(st.ip_addresses(v=6))
def test_no_other_ipv6_is_public(address: ipaddress.IPv6Address) -> None:
    """Of all other IPv6 addresses only those are public that were given out for the internet."""
    given_out = int(address) >> 125 == 1
    assert given_out or not is_public(address) or _stands_for_ipv4(address)


def _stands_for_ipv4(address: ipaddress.IPv6Address) -> bool:
    return address.exploded.startswith(
        ("0000:0000:0000:0000:0000:ffff:", "0064:ff9b:0000:0000:0000:0000:")
    )


@given(st.ip_addresses(v=4))
def test_is_never_laxer_than_python(address: ipaddress.IPv4Address) -> None:
    """What this Python knows as private is refused."""
    assert address.is_global or not is_public(address)


@pytest.mark.parametrize("address", ["fe80::1%eth0", "fe80::1%25", "fc00::1%1", "::1%lo"])
def test_a_zone_changes_nothing(address: str) -> None:
    """A private address with a zone is private."""
    assert not connects_to_public(address)
    assert names_private(address)


@pytest.mark.parametrize(
    "address", ["", "%eth0", "example.com", "/run/socket", "1.2.3", "8.8.8.8 "]
)
def test_a_socket_that_cannot_be_judged_is_refused(address: str) -> None:
    """What is no address is not public."""
    assert not connects_to_public(address)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST.",
        "LocalHost",
        "localhost..",
        "a.localhost",
        "a.b.LOCALHOST.",
        "127.1",
        "127.1.",
        "127.0.1",
        "0x7f.1",
        "0X7F.0.0.1",
        "0x7f000001",
        "2130706433",
        "017700000001",
        "0177.0.0.1",
        "0",
        "0.0",
        "0xa9fea9fe",
        "2852039166",
        "169.254.43518",
        "0300.0250.1",
        "FE80::1",
        "::FFFF:127.0.0.1",
    ],
)
def test_names_that_lead_home_are_known(host: str) -> None:
    """Local names, and private addresses in every form that resolvers still read, are refused."""
    assert names_private(host)


@pytest.mark.parametrize(
    "host",
    [
        "example.com",
        "localhost.example.com",
        "notlocalhost",
        "127.0.0.1.example.com",
        "1.example",
        "8.8.8.8.",
        "134744072",
        "0x8.8.8.8",
        "010.8.8.8",
        "1.2.3.4.5",
        "256.256.256.256",
        "4294967296",
        "",
        ".",
        "a\0b",
        "\u4efb\u52a1.example",
        "\ud800",
    ],
)
def test_other_names_are_left_to_dns(host: str) -> None:
    """A name that says nothing about its network is let through: its socket is checked later."""
    assert not names_private(host)
