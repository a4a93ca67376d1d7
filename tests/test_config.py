"""The key, the base URL and the proxy: arguments first, then the environment."""

from __future__ import annotations

import traceback
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from kling_omni_async import ConfigurationError, PollPolicy
from kling_omni_async._config import Settings, is_loopback, make_settings
from kling_omni_async._ids import quoted
from tests.plans import share_of

KEY = "sk-Aa0-._~+/="
ENV_KEY = "COMETAPI_KEY"
ENV_URL = "COMETAPI_BASE_URL"
HOME = "https://api.cometapi.com"


def made(
    api_key: Any = KEY, base_url: Any = None, policy: Any = None, *, allow_http: bool = False
) -> Settings:
    """Make settings of which only some are odd."""
    return make_settings(api_key, base_url, policy, allow_http=allow_http)


def test_the_key_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without argument the key comes from the environment; an argument goes before it."""
    monkeypatch.setenv(ENV_KEY, "sk-env")
    assert made(None).api_key == "sk-env"
    assert made("sk-given").api_key == "sk-given"


@pytest.mark.parametrize("around", [" ", "\n", "\r\n", "\t", "\ufeff", "\u00a0", " \ufeff\u2003"])
def test_key_is_trimmed(monkeypatch: pytest.MonkeyPatch, around: str) -> None:
    """White space and byte order marks around a key are dropped, wherever it comes from."""
    assert made(around + KEY + around).api_key == KEY
    monkeypatch.setenv(ENV_KEY, around + KEY + around)
    assert made(None).api_key == KEY


@pytest.mark.parametrize("value", [None, "", "  ", "\ufeff\n"])
def test_no_key(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    """A blank variable counts as unset, and the message says both ways to give a key."""
    if value is not None:
        monkeypatch.setenv(ENV_KEY, value)
    with pytest.raises(
        ConfigurationError, match=r"^COMETAPI_KEY is not set: give KlingOmniSession\(api_key=…\) or"
    ):
        made(None)


@pytest.mark.parametrize("value", ["", " ", "\ufeff"])
def test_blank_key(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """A key that is given blank is an error, even with one in the environment."""
    monkeypatch.setenv(ENV_KEY, KEY)
    with pytest.raises(ConfigurationError, match=r"^api_key is blank: give .* or set COMETAPI_KEY"):
        made(value)


BAD_KEYS = ["Bearer sk-Secret", "'sk-Secret'", '"sk-Secret"', "sk-Secret\x00", "sk-Sécret",
            "sk-\nSecret", "sk-Secret\u200b", "sk-Secret\x7f", "\udcffSecret"]  # fmt: skip


@pytest.mark.parametrize("value", BAD_KEYS, ids=quoted)
def test_bad_key(value: str) -> None:
    """What can be no key is refused with advice, and is not shown."""
    with pytest.raises(ConfigurationError) as caught:
        made(value)
    text = str(caught.value)
    assert text.startswith("api_key holds white space, quotes or characters that no key has; ")
    assert text.endswith("give the bare key, without 'Bearer' and quotes")
    shown_text = "".join(traceback.format_exception(caught.value))
    assert "Secret" not in shown_text.replace("test_bad_key", "")


def test_bad_key_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the variable where the key came from it."""
    monkeypatch.setenv(ENV_KEY, "Bearer sk-Secret")
    with pytest.raises(ConfigurationError, match=r"^COMETAPI_KEY holds white space"):
        made(None)


@pytest.mark.parametrize("value", [5, b"sk", ["sk"], 0, b""], ids=repr)
def test_key_that_is_no_text(value: object) -> None:
    """A key that is no text is refused with its type alone."""
    with pytest.raises(
        ConfigurationError, match=rf"^api_key must be a str, not {type(value).__name__}$"
    ):
        made(value)


def test_key_is_in_no_repr() -> None:
    """The repr of the settings does not hold the key."""
    assert KEY not in repr(made())


def test_base_url_default() -> None:
    """Without argument and variable the base URL is the API's own."""
    assert made().base_url == HOME


@pytest.mark.parametrize("value", ["", "  ", "\ufeff"])
def test_blank_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """A blank variable leaves the default."""
    monkeypatch.setenv(ENV_URL, value)
    assert made().base_url == HOME


def test_base_url_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable goes before the default, the argument before the variable."""
    monkeypatch.setenv(ENV_URL, " https://env.example/v1\n")
    assert made().base_url == "https://env.example"
    assert made(base_url="https://given.example").base_url == "https://given.example"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("https://h.example", "https://h.example"),
        ("https://h.example/", "https://h.example"),
        ("https://h.example///", "https://h.example"),
        ("https://h.example/v1", "https://h.example"),
        ("https://h.example/v1/", "https://h.example"),
        ("https://h.example/kling", "https://h.example"),
        ("https://h.example/kling/", "https://h.example"),
        ("https://h.example/kling/v1", "https://h.example"),
        ("https://h.example//kling/v1//", "https://h.example"),
        ("https://h.example/kling/v1/images/omni-image", "https://h.example"),
        ("https://h.example/kling/v1/images/omni-image/", "https://h.example"),
        ("https://h.example/v1/images/omni-image", "https://h.example"),
        ("https://h.example/p/kling/v1/images", "https://h.example/p"),
        ("https://h.example/images/omni-image-proxy", "https://h.example/images/omni-image-proxy"),
        ("https://h.example/proxy", "https://h.example/proxy"),
        ("https://h.example/proxy/", "https://h.example/proxy"),
        ("https://h.example/proxy/v1", "https://h.example/proxy"),
        ("https://h.example/proxy//v1", "https://h.example/proxy"),
        ("https://h.example/proxy/kling/v1", "https://h.example/proxy"),
        ("https://h.example/a/b", "https://h.example/a/b"),
        ("https://h.example/v1/x", "https://h.example/v1/x"),
        ("https://h.example/myv1", "https://h.example/myv1"),
        ("https://h.example/v1beta", "https://h.example/v1beta"),
        ("https://h.example/xkling", "https://h.example/xkling"),
        ("https://h.example/v1/kling/v1", "https://h.example/v1"),
        ("https://h.example:8443/v1", "https://h.example:8443"),
        ("HTTPS://H.EXAMPLE", "https://h.example"),
        (" https://h.example\n", "https://h.example"),
        ("\ufeffhttps://h.example", "https://h.example"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
        ("https://h.example/a%20b", "https://h.example/a%20b"),
        ("https://h.example/é", "https://h.example/%C3%A9"),
        ("https://h.example/a/../b", "https://h.example/b"),
        ("http://localhost:8000", "http://localhost:8000"),
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)  # fmt: skip
def test_base_url(given: str, expected: str) -> None:
    """Of the route what is given is dropped, and slashes are; any other prefix is kept."""
    assert made(base_url=given).base_url == expected


def test_a_base_url_with_a_task_is_refused() -> None:
    """The path of one task is no prefix of all; the line says what to write."""
    url = "https://h.example/kling/v1/images/omni-image/842250903629086785"
    with pytest.raises(ConfigurationError) as caught:
        made(base_url=url)
    assert str(caught.value) == "base_url holds the path of a task: write https://h.example"


NO_URL = "is no URL; write https://api.cometapi.com"
NOT_LIKE = "must be like https://api.cometapi.com, with https:// before"
HOLDS_USER = "must hold no user or password; give the key apart"
HOLDS_QUERY = "must hold no query and no fragment ('?', '#')"


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        ("", NOT_LIKE),
        (" ", NOT_LIKE),
        ("api.cometapi.com", NOT_LIKE),
        ("//api.cometapi.com", NOT_LIKE),
        ("ftp://api.cometapi.com", NOT_LIKE),
        ("https://", NOT_LIKE),
        ("https:///v1", NOT_LIKE),
        ("https://h.example:0", NOT_LIKE),
        ("https://h.example:99999", NO_URL),
        ("https://h.example:x", NO_URL),
        ("https://[::1", NO_URL),
        ("https://[]", NO_URL),
        ("https://[:1]:", NO_URL),
        ("https://[v1.x]", NO_URL),
        ("https://xn--a.example", NO_URL),
        ("https://\u3002", NO_URL),
        ("https://h exa.mple", NO_URL),
        ("https://h.exa\nmple", NO_URL),
        ("https://h.exa\tmple", NO_URL),
        ("https://h.example/a b", NO_URL),
        ("https://\ud800.example", NO_URL),
        ("https://h.example\\@evil.example", NO_URL),
        ("https://user@h.example", HOLDS_USER),
        ("https://:sk-Secret@h.example", HOLDS_USER),
        ("https://user:sk-Secret@h.example", HOLDS_USER),
        ("https://h.example?key=sk-Secret", HOLDS_QUERY),
        ("https://h.example/?", HOLDS_QUERY),
        ("https://h.example#", HOLDS_QUERY),
        ("https://h.example/v1#x", HOLDS_QUERY),
    ],
)  # fmt: skip
def test_bad_base_url(monkeypatch: pytest.MonkeyPatch, given: str, advice: str) -> None:
    """A bad base URL is refused with advice, and without showing what may be secret in it."""
    with pytest.raises(ConfigurationError) as caught:
        made(base_url=given)
    assert str(caught.value) == f"base_url {advice}"
    if given.strip() and "\ud800" not in given:
        monkeypatch.setenv(ENV_URL, given)
        with pytest.raises(ConfigurationError) as caught:
            made()
        assert str(caught.value) == f"COMETAPI_BASE_URL {advice}"


@pytest.mark.parametrize("value", [5, b"https://h.example", URL("https://h.example")], ids=repr)
def test_base_url_that_is_no_text(value: object) -> None:
    """A base URL that is no text is refused with its type."""
    with pytest.raises(
        ConfigurationError, match=f"^base_url must be a str, not {type(value).__name__}$"
    ):
        made(base_url=value)


@pytest.mark.parametrize(
    "host", ["h.example", "10.0.0.1", "localhost.example", "127.0.0.1.example"]
)
def test_plain_http(host: str) -> None:
    """http:// to another machine is refused unless it is allowed, and the message says how."""
    with pytest.raises(ConfigurationError) as caught:
        made(base_url=f"http://{host}:8000")
    assert str(caught.value) == (
        f"base_url would send the key unencrypted to '{host}': write https://, "
        "or allow_http=True for a simulator in another container"
    )
    assert made(base_url=f"http://{host}:8000", allow_http=True).base_url == f"http://{host}:8000"


@settings(max_examples=share_of(200), deadline=None)
@given(st.text(max_size=20) | st.text("htps:/.@?#[]%\\ a0", max_size=12).map("https://{}".format))
def test_any_base_url(given: str) -> None:
    """Any text is refused as ours, or gives an https base URL that a route can be put behind."""
    try:
        base = made(base_url=given).base_url
    except ConfigurationError:
        return
    url = made(base_url=given).task_url("1")
    assert str(url) == f"{base}/kling/v1/images/omni-image/1"
    assert url.host
    assert (url.user, url.password, url.raw_query_string, url.raw_fragment) == (None, None, "", "")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("", False),
        (None, False),
        ("h.example", False),
        ("10.0.0.1", False),
        ("0.0.0.0", False),  # noqa: S104 - not bound to
        ("::2", False),
        ("localhost.example", False),
        ("127.1", False),
    ],
)
def test_loopback(host: str | None, *, expected: bool) -> None:
    """Only the loopback's own names and addresses are this machine."""
    assert is_loopback(host) is expected


def test_policy_default() -> None:
    """Without a policy the default one is used; a given one is kept."""
    assert made().policy == PollPolicy()
    policy = PollPolicy(timeout=5)
    assert made(policy=policy).policy is policy


@pytest.mark.parametrize("value", [5, (20, 30), {"interval": (20, 30)}, PollPolicy], ids=repr)
def test_policy_of_another_kind(value: object) -> None:
    """What is no policy is refused with its type and what to write."""
    with pytest.raises(
        ConfigurationError,
        match=rf"^policy must be a PollPolicy, not {type(value).__name__}; write policy=PollPolicy",
    ):
        made(policy=value)


@pytest.mark.parametrize(
    ("base_url", "lower_s", "expected"),
    [
        (None, 14.9, True),
        (None, 15.0, False),
        ("https://gateway.example", 1.0, True),
        ("https://127.0.0.1", 1.0, False),
        ("http://localhost:8000", 1.0, False),
        ("http://simulator:8000", 1.0, False),
    ],
)
def test_polls_too_fast(base_url: str | None, lower_s: float, *, expected: bool) -> None:
    """Only against the real API an interval can begin too early."""
    policy = PollPolicy(interval=(lower_s, 30))
    assert made(base_url=base_url, policy=policy, allow_http=True).polls_too_fast is expected


def test_task_url() -> None:
    """An encoded id is put behind the route as it is."""
    url = made(base_url="https://h.example/proxy").task_url("a%2Fb%253F")
    assert str(url) == "https://h.example/proxy/kling/v1/images/omni-image/a%2Fb%253F"


def route(base_url: str | None = None) -> URL | None:
    """Read the proxy for a base URL."""
    return made(base_url=base_url, allow_http=True).proxy()


def test_no_proxy() -> None:
    """Without a variable there is no proxy."""
    assert route() is None


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy"])
@pytest.mark.parametrize(
    ("value", "url"),
    [
        ("http://p.example:3128", "http://p.example:3128"),
        ("p.example:3128", "http://p.example:3128"),
        (" http://p.example:3128 ", "http://p.example:3128"),
        ("\ufeffhttp://p.example:3128\ufeff", "http://p.example:3128"),
        ("https://p.example", "https://p.example"),
        ("http://me:sk-Secret@p.example:3128", "http://me:sk-Secret@p.example:3128"),
        ("me:sk-Secret@p.example:3128", "http://me:sk-Secret@p.example:3128"),
        ("http://me@p.example", "http://me@p.example"),
        ("http://:sk-Secret@p.example", "http://:sk-Secret@p.example"),
        ("http://me:p%40ss%3A%2F@p.example", "http://me:p%40ss%3A%2F@p.example"),
        ("http://mé:ÿ@p.example", "http://mé:ÿ@p.example"),
    ],
)
def test_proxy(monkeypatch: pytest.MonkeyPatch, name: str, value: str, url: str) -> None:
    """The proxy comes from the environment with its credentials, which no repr of ours shows."""
    monkeypatch.setenv(name, value)
    assert route() == URL(url)
    assert "Secret" not in repr(made())


def test_proxy_of_the_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each scheme has a proxy of its own."""
    monkeypatch.setenv("HTTP_PROXY", "http://plain.example")
    assert route() is None
    assert route("http://simulator:8000") == URL("http://plain.example")


@pytest.mark.parametrize("base_url", ["https://127.0.0.1:1", "http://localhost:1", "https://[::1]"])
def test_loopback_never_has_a_proxy(monkeypatch: pytest.MonkeyPatch, base_url: str) -> None:
    """This machine is reached directly, even past a proxy that could not be used."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "socks5://p.example")
    assert route(base_url) is None


@pytest.mark.parametrize(
    ("value", "direct"),
    [
        ("api.cometapi.com", True),
        ("api.cometapi.com:443", True),
        ("cometapi.com", True),
        (".cometapi.com", True),
        ("x.example, api.cometapi.com", True),
        ("*", True),
        ("api.cometapi.com:80", False),
        ("x.example", False),
        ("", False),
    ],
)
def test_exceptions_from_the_proxy(
    monkeypatch: pytest.MonkeyPatch, value: str, *, direct: bool
) -> None:
    """`NO_PROXY` names hosts, with or without a port, that are reached directly."""
    monkeypatch.setenv("HTTPS_PROXY", "http://p.example")
    monkeypatch.setenv("NO_PROXY", value)
    assert route() == (None if direct else URL("http://p.example"))


@pytest.mark.parametrize(
    "value",
    ["socks5://p.example", "ftp://p.example", "http://", "http://:80", "http://p.example:0",
     "http://p.example:99999", "http://p.example:x", "http://[::1", "http://[]",
     "http://p exa.mple",
     "http://xn--a.example", "http://me:sk-Secret@", "://"],
)  # fmt: skip
def test_unusable_proxy(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """A proxy that aiohttp cannot use is refused with its variable's name, and is not shown."""
    monkeypatch.setenv("HTTPS_PROXY", value)
    with pytest.raises(ConfigurationError) as caught:
        route()
    assert str(caught.value) == "HTTPS_PROXY names no http:// proxy; set one, or unset it"


@pytest.mark.parametrize(
    "credentials", ["a%3Ab:sk-Secret", "a%3Ab", "me:пароль-Secret", "мы:sk-Secret", "me:\u0100"]
)
def test_proxy_credentials_for_no_header(monkeypatch: pytest.MonkeyPatch, credentials: str) -> None:
    """Credentials that basic authentication cannot carry are refused, and are not shown."""
    monkeypatch.setenv("HTTPS_PROXY", f"http://{credentials}@p.example")
    with pytest.raises(ConfigurationError) as caught:
        route()
    assert str(caught.value) == (
        "HTTPS_PROXY has a user or password that no header carries: "
        "write them without letters beyond Latin-1, and the user without ':'"
    )


@pytest.mark.parametrize(
    ("base_url", "url", "expected"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/images/1.png", True),
        ("http://localhost:8000/proxy", "http://localhost:8000/1.png", True),
        ("https://[::1]:8000", "https://[::1]:8000/1.png", True),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8001/1.png", False),
        ("http://127.0.0.1:8000", "https://127.0.0.1:8000/1.png", False),
        ("http://127.0.0.1:8000", "http://localhost:8000/1.png", False),
        ("https://h.example", "https://h.example/1.png", False),
        ("https://h.example", "http://127.0.0.1:8000/1.png", False),
    ],
)
def test_own_loopback(base_url: str, url: str, *, expected: bool) -> None:
    """Only what the API's own host and port on this machine serves is its own."""
    assert made(base_url=base_url).is_own_loopback(URL(url)) is expected


def test_the_namespace_of_keys() -> None:
    """It is made of the API key, so that no other customer has it, or of a name of one's own."""
    given = {
        name: make_settings(key, None, None, allow_http=False, namespace=name).namespace
        for key, name in [("k-1", "shop"), ("k-2", "shop.example"), ("k-1", None)]
    }
    assert len(set(given.values())) == 3
    changed = make_settings("k-2", None, None, allow_http=False, namespace="shop")
    assert changed.namespace == given["shop"]
    assert made("k-1").namespace == given[None] != made("k-2").namespace
    assert str(given[None]) not in repr(made("k-1"))


@pytest.mark.parametrize("given", ["", " ", 7, b"shop", "\ud800"], ids=quoted)
def test_a_bad_namespace(given: Any) -> None:
    """What is no name is refused with one to write."""
    with pytest.raises(ConfigurationError, match=r"^namespace must be .*'shop\.example'"):
        make_settings(KEY, None, None, allow_http=False, namespace=given)


def test_the_url_of_creates() -> None:
    """It is the collection's, under the prefix of the base URL."""
    assert str(made().create_url) == f"{HOME}/kling/v1/images/omni-image"
    assert str(made(base_url="https://x/y").create_url) == "https://x/y/kling/v1/images/omni-image"
