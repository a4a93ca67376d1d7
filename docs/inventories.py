"""Inventories of other projects' documentation, where they can be fetched: without a network none.

A build must give the same pages and no warning without a network, so nothing here raises: a host
that does not answer in time is one whose names stay without links.
"""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Final

SITES: Final = {
    "python": "https://docs.python.org/3/",
    "aiohttp": "https://docs.aiohttp.org/en/stable/",
    "anyio": "https://anyio.readthedocs.io/en/stable/",
    "attrs": "https://www.attrs.org/en/stable/",
}

_HEADER: Final = b"# Sphinx inventory version 2"


def fetched(folder: Path, sites: Mapping[str, str], *, within_s: float) -> dict[str, Path]:
    """Fetch all inventories at the same time.

    Args:
        folder: Where they go.
        sites: The bases of the sites by name; each has its ``objects.inv``.
        within_s: The time for all of them, DNS included, in s.

    Returns:
        The files that came, by name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    came: dict[str, bytes] = {}
    # Daemons: what asks DNS cannot be stopped, and must not hold the build up at its end.
    threads = [
        threading.Thread(target=_fetch, args=(name, base, within_s, came), daemon=True)
        for name, base in sites.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(within_s)
    return {name: _written(folder / f"{name}.inv", body) for name, body in list(came.items())}


def _fetch(name: str, base: str, within_s: float, came: dict[str, bytes]) -> None:
    try:
        with urllib.request.urlopen(f"{base}objects.inv", timeout=within_s) as answer:  # noqa: S310 - the sites are our own choice
            body = answer.read()
    except (OSError, ValueError):
        return
    if body.startswith(_HEADER):  # a portal may answer anything with its page
        came[name] = body


def _written(file: Path, body: bytes) -> Path:
    file.write_bytes(body)
    return file
