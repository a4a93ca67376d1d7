"""Where the images of finished tasks are: their paths, signatures and redirects."""

from __future__ import annotations

import base64
import hashlib
import re
from urllib.parse import quote, unquote

from attrs import frozen

PREFIX = "/assets/"

_MARKED = "watermarked/"
# what a URL library would rewrite: escapes in lower case, needless ones, a plus for a space
_QUERY = "?Expires=1780000000&Signature={}%2Fc%2B%3d~&x=a+b%7e"
_TARGET = re.compile(rf"(?:hop-([0-9]{{1,9}})/)?({_MARKED})?([^/]+)-([0-9]{{1,4}})\.png")


@frozen
class Place:
    """One image.

    Attributes:
        task_id: The task that made it.
        index: Its place among the task's images, from 0.
        watermarked: Whether the copy with the watermark is meant.
    """

    task_id: str
    index: int
    watermarked: bool = False

    @property
    def path(self) -> str:
        """The path of its URL."""
        folder = _MARKED if self.watermarked else ""
        return f"{PREFIX}{folder}{quote(self.task_id, safe='')}-{self.index}.png"


@frozen
class Target:
    """What a request for an image names.

    Attributes:
        place: The image.
        query: The query of the URL as it came, with its question mark; empty without one.
        hops: How many redirects still come before the image; None for the image's own URL.
    """

    place: Place
    query: str = ""
    hops: int | None = None

    def via(self, hops: int) -> str:
        """Name the path and query from which so many redirects still follow."""
        return f"{PREFIX}hop-{hops}/{self.place.path.removeprefix(PREFIX)}{self.query}"


def read_target(raw_path: str) -> Target | None:
    """Read the path and query of a request.

    Args:
        raw_path: What begins with :data:`PREFIX`, as it came.

    Returns:
        What it names, there or not; None if it names no image.
    """
    path, mark, query = raw_path.partition("?")
    found = _TARGET.fullmatch(path.removeprefix(PREFIX))
    if found is None:
        return None
    hops, folder, task_id, index = found.groups()
    place = Place(unquote(task_id), int(index), watermarked=folder is not None)
    return Target(place, mark + query, None if hops is None else int(hops))


def signature(place: Place, seed: int) -> str:
    """Make the query without which the image of a signed URL is refused."""
    digest = hashlib.sha256(f"{seed}{place.path}".encode()).digest()
    return _QUERY.format(base64.urlsafe_b64encode(digest[:12]).decode())
