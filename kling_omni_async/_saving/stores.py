"""Where images go: what every store can do, and which arguments name one."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, cast, runtime_checkable
from urllib.request import url2pathname

import attrs

from kling_omni_async.errors import ConfigurationError

from .files import LocalStore, PartialFile, Stored

if TYPE_CHECKING:
    from .object_store import RemoteStore

MAX_OPEN: Final = 64
"""How many stores a session keeps open; one more, and that which was not used longest is let go."""

_URL_AS_PATH = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:[/\\](?!/)")  # what a Path makes of a URL
_USER_INFO = re.compile(r"(:[/\\]+)[^/\\]*@")


@runtime_checkable
class ObjectStore(Protocol):
    """A store of obstore, such as ``S3Store``; a class of your own will do that has its methods."""

    async def get_async(self, path: str, *, options: None = None) -> object:
        """Read an object."""
        ...

    async def put_async(self, path: str, file: Path) -> object:
        """Write an object."""
        ...


StoreLike: TypeAlias = str | os.PathLike[str] | ObjectStore
"""A local directory, the URL of a store, or a store of obstore."""


class Store(Protocol):
    """A place for images. `begin` and `keep` raise `StorageError` for whatever goes wrong in it."""

    async def try_out(self) -> None:
        """Try once whether images can be kept there, or raise `ConfigurationError`."""

    async def begin(self, stem: str, *, look: bool) -> Stored | PartialFile:
        """Find an image, whatever its ending, if `look`; else make the temporary file for it."""
        ...

    async def keep(self, part: PartialFile, rest: bytes, stem: str, *, overwrite: bool) -> Stored:
        """Put what has come under its name, if it is an image; its temporary file is gone then."""
        ...


@attrs.frozen
class SavePlan:
    """Where the images of a call go, whether those with the watermark, and in place of what."""

    store: Store
    watermarked: bool = False
    overwrite: bool = False


class Stores:
    """The stores of a session by their names, so that each is opened once."""

    def __init__(self) -> None:
        self._named = lru_cache(MAX_OPEN)(open_named)

    def open(self, store: object) -> Store:
        """Return the store that an argument names; it is not asked anything yet.

        Raises:
            ConfigurationError: It names none, or needs an extra.
        """
        if isinstance(store, str | os.PathLike):
            return self._named(os.fspath(cast("str | os.PathLike[str]", store)))
        # A class has the methods, too.
        if isinstance(store, ObjectStore) and not isinstance(store, type):
            from .object_store import RemoteStore  # noqa: PLC0415 - for those who use the extra

            return RemoteStore(store)
        kind = type(store).__name__
        raise ConfigurationError(
            f"images are saved to a directory, a URL or a store of obstore, not to {kind}"
        )


def open_named(name: object) -> LocalStore | RemoteStore:
    """Return the store that a path or a URL names, or raise `ConfigurationError`."""
    folder = folder_of(name)
    if folder is not None:
        return _local(folder)
    from .object_store import open_url  # noqa: PLC0415 - for those who use the extra

    return open_url(str(name))


def folder_of(name: object) -> Path | None:
    """Return the directory that a path or a ``file:`` URL names, or None for another URL.

    Raises:
        ConfigurationError: Images cannot be saved there.
    """
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        raise _refusal(name, "give the path of a directory, as text")
    if _URL_AS_PATH.match(name):
        raise _refusal(name, "give a URL as text, with both slashes")
    if "://" not in name:
        return _expanded(name)
    scheme, _, rest = name.partition("://")
    if scheme.lower() != "file":
        return None
    host, slash, path = rest.partition("/")
    if host not in {"", "localhost"} or not slash:
        raise _refusal(name, "write file:///path, with three slashes")
    return Path(url2pathname(f"/{path}"))


def _expanded(name: str) -> Path:
    """Return a path, with ``~`` as shells read it: nobody wants a directory of that name."""
    if not name.startswith("~"):
        return Path(name)
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise _refusal(name, "there is no such home; write ./~ for a directory") from None


def _local(folder: Path) -> LocalStore:
    try:
        # Told at the call, not with the first image, an hour later.
        os.stat(os.fsencode(folder))  # noqa: PTH116 - Path's own swallow some of these errors
    except (FileNotFoundError, PermissionError):
        # What may not be looked at may be writable all the same: trying it tells.
        return LocalStore(folder)
    except (OSError, ValueError) as error:
        text = getattr(error, "strerror", None) or "no path of this system"
        raise _refusal(str(folder), text) from None
    if not folder.is_dir():
        raise ConfigurationError(f"images cannot be saved to {folder}: it is no directory")
    return LocalStore(folder)


def _refusal(name: object, text: str) -> ConfigurationError:
    shown = _without_secrets(name) if isinstance(name, str) else name
    return ConfigurationError(f"images cannot be saved to {shown!r:.80}: {text}")


def _without_secrets(name: str) -> str:
    """Return a name without the user info and the query of what may be meant as a URL."""
    return _USER_INFO.sub(r"\1", name.partition("?")[0]) if ":" in name else name
