"""Where a session sends its queries and with which key: arguments first, then the environment."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import re
from collections.abc import Mapping
from typing import Final
from urllib.request import getproxies_environment, proxy_bypass
from uuid import UUID, uuid5

import attrs
from yarl import URL

from ._ids import WHITE_SPACE
from ._policy import PollPolicy
from .errors import ConfigurationError

KEY_VARIABLE: Final = "COMETAPI_KEY"
BASE_URL_VARIABLE: Final = "COMETAPI_BASE_URL"
DEFAULT_BASE_URL: Final = "https://api.cometapi.com"
ROUTE: Final = "/kling/v1/images/omni-image/"
REFRESH_S: Final = 15.0
"""How often the gateway asks the provider anew, in s (read in the source of such gateways)."""


@attrs.frozen(kw_only=True)
class Names:
    """What the one who reads an error writes, as the arguments of a session are not all there is.

    Attributes:
        base_url: The base URL that was given.
        give_key: How a key is given, after ``COMETAPI_KEY is not set``.
        allow_http: How ``http://`` is allowed.
    """

    base_url: str = "base_url"
    give_key: str = f"give KlingOmniSession(api_key=…) or set {KEY_VARIABLE}"
    allow_http: str = "allow_http=True"


IN_PYTHON: Final = Names()

_KEY = re.compile(r"[\x21\x23-\x26\x28-\x7e]+")
_KNOWN_SUFFIX = re.compile(r"/*(?:/kling)?(?:/v1)?(?:/images(?:/omni-image)?)?/*$")
_ROUTE_IN = re.compile(r"/images/omni-image(?:/|$)")


def _route_of(settings: Settings) -> URL:
    return URL(f"{settings.base_url}{ROUTE}", encoded=True)


@attrs.frozen
class Settings:
    """Everything about a session that never changes."""

    api_key: str = attrs.field(repr=False)
    base_url: str  # without the route and without a slash at its end
    policy: PollPolicy
    namespace: UUID = attrs.field(repr=False)  # of the external ids that are made of keys
    _route: URL = attrs.field(
        init=False, repr=False, default=attrs.Factory(_route_of, takes_self=True)
    )

    def task_url(self, segment: str) -> URL:
        """Return the URL of a task from its encoded id."""
        # Cheaper than to parse a whole URL each time.
        return self._route.with_path(self._route.raw_path + segment, encoded=True)

    @property
    def create_url(self) -> URL:
        """The URL that makes a task."""
        return self._route.with_path(self._route.raw_path.removesuffix("/"), encoded=True)

    @property
    def account(self) -> str:
        """A print of the key, which tells keys apart and gives none away."""
        digest = hmac.new(self.api_key.encode(), b"kling_omni_async account", hashlib.sha256)
        return digest.hexdigest()[:32]

    @property
    def polls_too_fast(self) -> bool:
        """Whether the policy asks the real API faster than its gateway refreshes."""
        url = URL(self.base_url)
        remote = url.scheme == "https" and not is_loopback(url.host)
        return remote and self.policy.interval[0] < REFRESH_S

    def proxy(self) -> URL | None:
        """Read the environment's proxy for the API."""
        return proxy_for(URL(self.base_url), getproxies_environment())

    def is_own_loopback(self, url: URL) -> bool:
        """Whether a URL is on the very host and port of an API that is on this machine."""
        return is_loopback_of(self.base_url, url)


def is_loopback_of(base_url: str, url: URL) -> bool:
    """Whether a URL is on the host and port of an API, and that on this machine."""
    own = URL(base_url)
    same = (url.scheme, url.host, url.port) == (own.scheme, own.host, own.port)
    return same and is_loopback(own.host)


def proxy_for(url: URL, proxies: Mapping[str, str]) -> URL | None:
    """Choose a proxy of the environment for a URL, with its credentials; loopback never has one."""
    host = url.host or ""
    if is_loopback(host) or proxy_bypass(f"{host}:{url.port}"):
        return None
    proxy = proxies.get(url.scheme, "").strip(WHITE_SPACE)
    return _usable_proxy(url.scheme, proxy) if proxy else None


def make_settings(
    api_key: str | None,
    base_url: str | None,
    policy: PollPolicy | None,
    *,
    allow_http: bool,
    namespace: str | None = None,
    names: Names = IN_PYTHON,
) -> Settings:
    """Collect a session's settings, and refuse what cannot be used."""
    key = _key(api_key, names)
    url = _base_url(base_url, names, allow_http=allow_http)
    return Settings(key, url, _policy(policy), _namespace(key, namespace))


_OURS: Final = UUID("5d2f3d5c-7a3f-5b0e-9d55-0c3f4e1b6a27")
"""Under which the namespaces that users name stand, so that they are no ids of others."""


def _namespace(key: str, given: object) -> UUID:
    """Return what the external ids of an account are made in."""
    # Customers may share one namespace at the vendor: a stranger's "invoice-42" must not be ours.
    if given is None:
        digest = hmac.new(key.encode(), b"kling_omni_async namespace", hashlib.sha256).digest()
        return UUID(bytes=digest[:16], version=5)
    if isinstance(given, str) and given.strip() and not _has_lone_surrogates(given):
        return uuid5(_OURS, given)
    raise ConfigurationError(
        "namespace must be a text that is not blank, such as 'shop.example', or None"
    )


def _has_lone_surrogates(text: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in text)


def _policy(given: object) -> PollPolicy:
    if given is None:
        return PollPolicy()
    if isinstance(given, PollPolicy):
        return given
    raise ConfigurationError(
        f"policy must be a PollPolicy, not {type(given).__name__}; "
        "write policy=PollPolicy(interval=(20, 30))"
    )


def _key(given: object, names: Names) -> str:
    source = "api_key" if given is not None else KEY_VARIABLE
    value = given if given is not None else os.environ.get(KEY_VARIABLE, "")
    if not isinstance(value, str):
        raise ConfigurationError(f"api_key must be a str, not {type(value).__name__}")
    key = value.strip(WHITE_SPACE)
    if not key:
        state = "is blank" if given is not None else "is not set"
        raise ConfigurationError(f"{source} {state}: {names.give_key}")
    if not _KEY.fullmatch(key):
        raise ConfigurationError(
            f"{source} holds white space, quotes or characters that no key has; "
            "give the bare key, without 'Bearer' and quotes"
        )
    return key


def _base_url(given: object, names: Names, *, allow_http: bool) -> str:
    source = names.base_url if given is not None else BASE_URL_VARIABLE
    outside = os.environ.get(BASE_URL_VARIABLE, "").strip(WHITE_SPACE) or DEFAULT_BASE_URL
    value = given if given is not None else outside
    if not isinstance(value, str):
        raise ConfigurationError(f"{source} must be a str, not {type(value).__name__}")
    url = _parsed(source, value.strip(WHITE_SPACE))
    if url.scheme == "http" and not (allow_http or is_loopback(url.host)):
        raise ConfigurationError(
            f"{source} would send the key unencrypted to {url.host!r}: write https://, "
            f"or {names.allow_http} for a simulator in another container"
        )
    prefix = _KNOWN_SUFFIX.sub("", url.raw_path)
    if _ROUTE_IN.search(prefix):
        raise ConfigurationError(f"{source} holds the path of a task: write {url.origin()}")
    return str(url.origin()) + prefix


def _parsed(source: str, text: str) -> URL:
    """Parse a base URL; what it says is shown only where it can hold no secret."""
    url = _url(text)
    if url is None:
        raise ConfigurationError(f"{source} is no URL; write {DEFAULT_BASE_URL}")
    if url.scheme not in {"http", "https"} or not url.host or not url.port:
        raise ConfigurationError(f"{source} must be like {DEFAULT_BASE_URL}, with https:// before")
    if url.user is not None or url.password is not None:
        raise ConfigurationError(f"{source} must hold no user or password; give the key apart")
    if "?" in text or "#" in text:
        raise ConfigurationError(f"{source} must hold no query and no fragment ('?', '#')")
    return url


def _url(text: str) -> URL | None:
    """Parse a URL; yarl drops line breaks, and says only later that a host is unusable."""
    if " " in text or not text.isprintable():
        return None
    try:
        url = URL(text)
        host, _ = url.host, url.port
        if "[" in text:  # yarl takes anything between brackets, and fails on nothing there
            ipaddress.ip_address(host or "")
    except (ValueError, IndexError):
        return None
    return url


def is_loopback(host: str | None) -> bool:
    """Whether a host is this machine by its very name, without asking DNS."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def _usable_proxy(scheme: str, proxy: str) -> URL:
    url = _url(proxy if "://" in proxy else f"http://{proxy}")
    if url is None or url.scheme not in {"http", "https"} or not url.host or not url.port:
        raise ConfigurationError(
            f"{scheme.upper()}_PROXY names no http:// proxy; set one, or unset it"
        )
    user, password = url.user or "", url.password or ""
    if ":" in user or max(user + password, default="") > "\xff":
        raise ConfigurationError(
            f"{scheme.upper()}_PROXY has a user or password that no header carries: "
            "write them without letters beyond Latin-1, and the user without ':'"
        )
    return url
