"""Which hosts and URLs are asked for images."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_omni_async import DownloadError
from kling_omni_async._saving.hosts import (
    fetchable_url,
    is_allowed,
    is_public,
    may_connect,
    names_private,
    plain_host,
    private_host_error,
    redact_url,
    redirected,
)

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
    assert may_connect(address)
    assert not names_private(address)


@pytest.mark.parametrize("address", PRIVATE_V4 + PRIVATE_V6)
def test_refuses_what_is_not_the_internet(address: str) -> None:
    """Every special-purpose network is refused up to its borders, in each way it is asked for."""
    assert not is_public(ipaddress.ip_address(address))
    assert not may_connect(address)
    assert names_private(address)


@pytest.mark.parametrize("address", ["198.18.0.0", "198.18.0.7", "198.19.255.255"])
def test_fake_addresses_are_let_through_by_dns_alone(address: str) -> None:
    """What proxies answer with for public names is taken from DNS, and refused as a literal."""
    for form in (address, f"::ffff:{address}"):
        assert may_connect(form)
        assert names_private(form)
        assert not is_public(ipaddress.ip_address(form))


@pytest.mark.parametrize("prefix", ["::ffff:", "64:ff9b::"], ids=["mapped", "NAT64"])
@pytest.mark.parametrize("inner", PUBLIC_V4 + PRIVATE_V4)
def test_judges_an_address_by_the_one_inside(prefix: str, inner: str) -> None:
    """An IPv6 address that stands for an IPv4 one is as public as that."""
    assert may_connect(f"{prefix}{inner}") is (inner in PUBLIC_V4)


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
    assert not may_connect(address)
    assert names_private(address)


@pytest.mark.parametrize(
    "address", ["", "%eth0", "example.com", "/run/socket", "1.2.3", "8.8.8.8 "]
)
def test_a_socket_that_cannot_be_judged_is_refused(address: str) -> None:
    """What is no address is not public."""
    assert not may_connect(address)


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
        "10.0.0.1%25",
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
        "localhostX",
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


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://host/a.png", "https://host/a.png"),
        ("https://host/a.png?X-Amz-Signature=1", "https://host/a.png"),
        ("https://host/a.png#x?y", "https://host/a.png"),
        ("https://host?x=1/2@3", "https://host"),
        ("https://user:pass@host:8/a@b.png", "https://host:8/a@b.png"),
        ("https://user:pass@host/a@b/c.png", "https://host/a@b/c.png"),
        ("https://a@b@host/", "https://host/"),
        ("https://user:pass@host/x://y", "https://host/x://y"),
        ("https://host", "https://host"),
        ("", ""),
    ],
)
def test_urls_are_shown_bare(url: str, expected: str) -> None:
    """Of a URL everything stays but the query, the fragment and the user info."""
    assert redact_url(url) == expected


@given(
    st.from_regex(r"https://([a-z]*:?[A-Z]*@)?host(:80)?/[a-z@/]*([?#][A-Z@/?=]*)?", fullmatch=True)
)
def test_no_secret_is_left_in_a_bare_url(url: str) -> None:
    """Capitals stand only where secrets are in these URLs, and none is left."""
    assert redact_url(url) == redact_url(url).lower()
    assert redact_url(url).startswith("https://host")


# URLs.


@pytest.mark.parametrize(
    "url",
    [
        "https://host/a.png",
        "https://host:8443/a%2fB.png?X-Amz-Signature=%2b+a/b",
        "http://127.0.0.1:1/a.png",
        "https://[2001:db8::1]/a.png",
        "https://a_b-c.example./\u4efb.png",
        "https://xn--bcher-kva.example/c.png?sig=%2b",
        "https://XN--BCHER-KVA.example:8443/c.png",
        "https://me:pw@xn--fiq228c.xn--fiqs8s/c.png",
        "ftp://host/a",
    ],
)
def test_urls_are_parsed_byte_for_byte(url: str) -> None:
    """What can be fetched, or refused for its scheme, stays as it was written."""
    assert str(fetchable_url(url)) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://",
        "https:///a.png",
        "images/1.png",
        "https://host:99999/a",
        "https://host:x/a",
        "https://[::1/a",
        "https://[x@[::1]/a",
        "https://host/a b",
        "https://host/a\n",
        "https://host/\u200b",
        "https://%31/a",
        "https://ho st/a",
        "https://a:b:c/a",
    ],
)
def test_what_is_no_url_is_refused(url: str) -> None:
    """What no host can be read from, or hosts of other letters than digits and a-z, in words."""
    with pytest.raises(DownloadError) as caught:
        fetchable_url(url)
    assert str(caught.value) == "its URL is none that can be fetched"
    assert (caught.value.reason, caught.value.transient) == ("url", False)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://b\u00fccher.example/%7e?s=%2B", "https://xn--bcher-kva.example/%7e?s=%2B"),
        ("https://B\u00dcCHER.example:8443/", "https://xn--bcher-kva.example:8443/"),
        (
            "https://\u4e2d\u6587.\u4e2d\u56fd/\u4efb.png",
            "https://xn--fiq228c.xn--fiqs8s/\u4efb.png",
        ),
        ("https://me:p%40w@b\u00fccher.example/", "https://me:p%40w@xn--bcher-kva.example/"),
        ("https://\uff11\uff12\uff17.0.0.1/", "https://127.0.0.1/"),
        ("https://127\u30020\u30020\u30021/", "https://127.0.0.1/"),
        ("https://\uff4cocalhost/", "https://localhost/"),
    ],
)
def test_hosts_of_other_letters_are_written_in_ascii(url: str, expected: str) -> None:
    """The host alone changes, so that what it really names can be judged; no byte else does."""
    assert str(fetchable_url(url)) == expected


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("https://other/b", "https://other/b"),
        ("/b?x", "https://host/b?x"),
        ("b", "https://host/a/b"),
        ("//other/b", "https://other/b"),
        ("?x", "https://host/a/1.png?x"),
        ("/X", "https://host/X"),
        (" /x\u3000", "https://host/x%E3%80%80"),
        ("/b c.png?d e#f g", "https://host/b%20c.png?d%20e#f%20g"),
        (" https://other/b c ", "https://other/b%20c"),
        ("HTTPS://Other/b c", "https://Other/b%20c"),
        ("https://other/\u4efb", "https://other/%E4%BB%BB"),
        ("https://b\u00fccher.example/", "https://b\u00fccher.example/"),
        ("/caf\udce9", "https://host/caf%E9"),
        ("/%2b%zz?[x]|", "https://host/%2b%zz?[x]|"),
        ("FTP://other/b c", "FTP://other/b%20c"),
        ("mailto:a b", "mailto:a%20b"),
    ],
)
def test_redirects_are_joined(location: str, target: str) -> None:
    """Where a redirect points is read from the URL that it answers."""
    assert redirected("https://host/a/1.png?old", location) == target


@pytest.mark.parametrize("location", ["https://[x", "/\ud800"])
def test_a_redirect_to_no_url(location: str) -> None:
    """What cannot be joined is an error in our words, without the host's."""
    with pytest.raises(DownloadError) as caught:
        redirected("https://host/a", location)
    assert str(caught.value) == "a redirect names no URL"
    assert caught.value.reason == "url"
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("host", "address", "shown"),
    [
        ("images.example", "10.1.2.3", "images.example (10.1.2.3)"),
        ("10.1.2.3", None, "10.1.2.3"),
        ("x" * 5000, "::1", f"{'x' * 100} (::1)"),
    ],
)
def test_the_error_of_a_private_host(host: str, address: str | None, shown: str) -> None:
    """It names the host, the address and the cure, and does not pass by itself."""
    error = private_host_error(host, address)
    assert str(error) == (
        f"its host {shown} is in a private network; if you trust it, add it to "
        "PollPolicy.allow_hosts"
    )
    assert (error.reason, error.transient) == ("address", False)


@pytest.mark.parametrize(
    ("host", "plain"),
    [
        ("Images.Example.", "images.example"),
        ("imageX..", "imagex"),
        ("*.B\u00fccher.Example", "*.xn--bcher-kva.example"),
        ("*.a_b", "*.a_b"),
        ("10.1", "10.0.0.1"),
        ("FD00:0::1", "fd00::1"),
        ("[FD00:0::1]", "fd00::1"),
        ("\u00fc" * 100, "\u00fc" * 100),
    ],
)
def test_the_plain_form_of_a_host(host: str, plain: str) -> None:
    """Lower case, ASCII, no dot at the end; an address in its shortest form."""
    assert plain_host(host) == plain


@pytest.mark.parametrize(
    ("allowed", "host", "expected"),
    [
        ("images.example", "images.example", True),
        ("Images.Example.", "images.example", True),
        ("images.example", "IMAGES.example.", True),
        ("images.example", "a.images.example", False),
        ("images.example", "ximages.example", False),
        ("*.example", "images.example", True),
        ("*.example", "a.b.EXAMPLE", True),
        ("*.example", "example", False),
        ("*.example", "imagesexample", False),
        ("b\u00fccher.example", "xn--bcher-kva.example", True),
        ("*.b\u00fccher.example", "a.xn--bcher-kva.example", True),
        ("xn--bcher-kva.example", "xn--bcher-kva.example", True),
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("fd00::1", "FD00:0:0::1", True),
        ("[fd00::1]", "fd00::1", True),
        ("*.0.0.1", "127.0.0.1", False),
        ("*.1", "10.1", False),
        ("minio", "minio", True),
        ("\u2603\ufe0f." * 100, "x", False),
    ],
)
def test_hosts_that_are_allowed(allowed: str, host: str, *, expected: bool) -> None:
    """Names are compared as DNS does, addresses as numbers; a star stands for what is below."""
    assert is_allowed(host, {plain_host(allowed)}) is expected
    assert not is_allowed(host, ())
