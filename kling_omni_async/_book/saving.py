"""How a reader without a session saves images: it has no key, and asks no API."""

from __future__ import annotations

import attrs
from yarl import URL

from kling_omni_async._config import is_loopback_of
from kling_omni_async._policy import PollPolicy


@attrs.define
class BookSettings:
    """The default limits, and which API the book is of once a worker has said so."""

    policy: PollPolicy = attrs.field(factory=PollPolicy)
    origin: str | None = None

    def learn(self, origin: str) -> None:
        """Note which API it is."""
        self.origin = origin

    def is_own_loopback(self, url: URL) -> bool:
        """Whether a URL is on the very host and port of an API that is on this machine."""
        return self.origin is not None and is_loopback_of(self.origin, url)
