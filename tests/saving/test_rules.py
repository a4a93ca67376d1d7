"""What may be saved and fetched, what an answer means, and when it is tried again."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Generator
from datetime import UTC, datetime, timedelta, timezone

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_omni_async import (
    AssetExpiredError,
    ConfigurationError,
    DownloadError,
    ImageTask,
    KlingOmniError,
    NoImagesError,
    PollTimeoutError,
    StorageError,
    TaskFailedError,
    TaskImage,
    TaskOutcome,
    TaskStatus,
)
from kling_omni_async._saving.rules import (
    connects_to_public,
    fetchable_url,
    is_fresh,
    is_public,
    names_private,
    pause_before_retry,
    private_host_error,
    redact_url,
    redirected,
    require_good,
    task_to_save,
)

EXPIRED = "the URL has expired, or its image was cleared"
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
        "https://b\u00fccher.example/a",
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
    ("location", "target"),
    [
        ("https://other/b", "https://other/b"),
        ("/b?x", "https://host/b?x"),
        ("b", "https://host/a/b"),
        ("//other/b", "https://other/b"),
        ("?x", "https://host/a/1.png?x"),
    ],
)
def test_redirects_are_joined(location: str, target: str) -> None:
    """Where a redirect points is read from the URL that it answers."""
    assert redirected("https://host/a/1.png?old", location) == target


def test_a_redirect_to_no_url() -> None:
    """What cannot be joined is an error in our words, without the host's."""
    with pytest.raises(DownloadError) as caught:
        redirected("https://host/a", "https://[x")
    assert str(caught.value) == "a redirect names no URL"
    assert caught.value.reason == "url"
    assert caught.value.__suppress_context__


def test_the_error_of_a_private_host() -> None:
    """It does not pass by itself, and names no address."""
    error = private_host_error()
    assert str(error) == "its host is in a private network"
    assert (error.reason, error.transient) == ("address", False)


# Answers.


@pytest.mark.parametrize(
    ("status", "kind", "text", "reason", "transient"),
    [
        (403, AssetExpiredError, f"HTTP 403: {EXPIRED}", "expired", False),
        (404, AssetExpiredError, f"HTTP 404: {EXPIRED}", "expired", False),
        (410, AssetExpiredError, f"HTTP 410: {EXPIRED}", "expired", False),
        (407, DownloadError, "the proxy refuses", "proxy", True),
        (201, DownloadError, "HTTP 201 instead of an image", "http", False),
        (206, DownloadError, "HTTP 206 instead of an image", "http", False),
        (302, DownloadError, "HTTP 302 instead of an image", "http", False),
        (401, DownloadError, "HTTP 401 instead of an image", "http", False),
        (408, DownloadError, "HTTP 408 instead of an image", "http", True),
        (425, DownloadError, "HTTP 425 instead of an image", "http", True),
        (429, DownloadError, "HTTP 429 instead of an image", "http", True),
        (500, DownloadError, "HTTP 500 instead of an image", "http", True),
        (503, DownloadError, "HTTP 503 instead of an image", "http", True),
    ],
)
def test_what_a_status_says(
    status: int, kind: type[DownloadError], text: str, reason: str, *, transient: bool
) -> None:
    """Each status but 200 is an error of its kind, which says whether it may pass."""
    with pytest.raises(DownloadError) as caught:
        require_good(status)
    error = caught.value
    assert type(error) is kind
    assert (str(error), error.http_status) == (text, status)
    assert (error.reason, error.transient) == (reason, transient)


def test_a_good_status() -> None:
    """200 is good."""
    require_good(200)


# Tries.


def case_id(case: DownloadError | list[float]) -> str:
    """Name a case of a test by its error."""
    if isinstance(case, DownloadError):
        return f"{type(case).__name__}-{case.reason}-{case.http_status}"
    return str(len(case))


@pytest.mark.parametrize(
    ("error", "pauses"),
    [
        (DownloadError(reason="reset"), [1.0, 2.0, 4.0, 8.0]),
        (DownloadError(reason="descriptors"), [1.0, 2.0, 4.0, 8.0]),
        (DownloadError(reason="http", http_status=503), [1.0, 2.0, 4.0, 8.0]),
        (DownloadError(reason="http", http_status=401), []),
        (DownloadError(reason="not-an-image", http_status=200), []),
        (StorageError(reason="descriptors"), [1.0, 2.0, 4.0, 8.0]),
        (StorageError(reason="store"), []),
        (StorageError(reason="exists"), []),
        (AssetExpiredError(reason="expired", http_status=410), []),
        (AssetExpiredError(reason="expired", http_status=403), []),
    ],
    ids=case_id,
)
def test_what_may_pass_has_pauses(error: DownloadError, pauses: list[float]) -> None:
    """Five tries with growing pauses for what may pass, one for the rest, fresh or not."""
    for fresh in (True, False):
        found = [pause_before_retry(error, tries=tries, fresh=fresh) for tries in range(7)]
        assert found == [None, *pauses, *[None] * (6 - len(pauses))]


def test_an_image_that_is_not_there_yet() -> None:
    """A 404 right after success has two more tries; later it is final."""
    error = AssetExpiredError(reason="expired", http_status=404)
    found = [pause_before_retry(error, tries=tries, fresh=True) for tries in range(4)]
    assert found == [None, 2.0, 8.0, None]
    assert [pause_before_retry(error, tries=tries, fresh=False) for tries in range(4)] == [None] * 4


@pytest.fixture(params=["UTC", "EST5", "CST-8"])
def time_zone(request: pytest.FixtureRequest) -> Generator[None]:
    """Take machines of several time zones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("time_zone")
@pytest.mark.parametrize(("age_s", "expected"), [(-5.0, True), (59.9, True), (60.0, False)])
def test_for_how_long_an_image_is_fresh(age_s: float, *, expected: bool) -> None:
    """For a minute after success, by the wall clock, whatever zone the time has or lacks."""
    wall_s = 1_700_000_000.0
    at = datetime.fromtimestamp(wall_s - age_s, UTC)
    for each in (at, at.replace(tzinfo=None), at.astimezone(timezone(timedelta(hours=5)))):
        assert is_fresh(each, wall_s) is expected


def test_an_image_without_a_time_is_fresh() -> None:
    """Where nothing says when a task succeeded, its images get the benefit of the doubt."""
    assert is_fresh(None, 1_700_000_000.0)


# What can be saved.


def task(status: TaskStatus = TaskStatus.SUCCEED, *, images: int = 1) -> ImageTask:
    """Give a task."""
    pictures = tuple(TaskImage(url=f"https://host/{n}") for n in range(images))
    return ImageTask(task_id="7", status=status, status_message="too dark", images=pictures)


def test_what_can_be_saved() -> None:
    """A task that has succeeded, its outcome, and an outcome whose images were not saved."""
    good = task()
    assert task_to_save(good) is good
    for error in (None, DownloadError("cut off"), StorageError("full")):
        assert task_to_save(TaskOutcome(task_id="7", task=good, error=error)) is good


@pytest.mark.parametrize(
    ("given", "kind", "text"),
    [
        (task(TaskStatus.FAILED), TaskFailedError, "too dark"),
        (attrs.evolve(task(TaskStatus.FAILED), status_message=None), TaskFailedError, ""),
        (
            task(TaskStatus.SUBMITTED),
            ConfigurationError,
            "task '7' is submitted: wait for it before its images are saved",
        ),
        (task(images=0), NoImagesError, "the task has no images to save"),
        (
            TaskOutcome(task_id="7", error=PollTimeoutError("too long", task_id="7")),
            PollTimeoutError,
            "too long",
        ),
    ],
)
def test_what_cannot_be_saved(given: object, kind: type[KlingOmniError], text: str) -> None:
    """Each raises why there are no images, with the task."""
    with pytest.raises(kind) as caught:
        task_to_save(given)
    assert str(caught.value) == text
    assert caught.value.task_id == "7"
    if isinstance(caught.value, (TaskFailedError, NoImagesError)):
        assert caught.value.task is given


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("7", "str"),
        (None, "NoneType"),
        ([task()], "list"),
        (TaskOutcome(task_id="7", error=DownloadError("but no task")), "TaskOutcome"),
    ],
)
def test_what_is_nothing_to_save(given: object, name: str) -> None:
    """What is no task, and has none, is told with what it is."""
    with pytest.raises(ConfigurationError) as caught:
        task_to_save(given)
    assert str(caught.value) == f"save takes an ImageTask or a TaskOutcome, not a {name}"
