"""Where images go: what every store can do, how one is named, and the local directory."""

from __future__ import annotations

import errno
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Final, Protocol, TypeAlias, cast, runtime_checkable
from urllib.request import url2pathname

import attrs

from kling_omni_async.errors import ConfigurationError

from .files import (
    Content,
    PartialFile,
    Stored,
    content_of,
    in_thread,
    not_ours,
    sweep,
    translate_os_errors,
)
from .formats import KINDS, ImageKind, is_whole

MAX_OPEN: Final = 64
"""How many stores a session keeps open; one more, and that which was not used longest is let go."""

_URL_AS_PATH = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:[/\\](?!/)")  # what a Path makes of a URL
_NO_SYNC: Final = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EBADF})
"""What file systems answer that cannot bring a directory to the disk."""


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
    """A place for images. Each method raises `StorageError` for whatever goes wrong."""

    async def open(self) -> None:
        """Get ready; more calls do no harm."""

    async def find(self, stem: str) -> Stored | None:
        """Return the image of this name, whatever its ending, if it is there and whole."""
        ...

    async def begin(self, stem: str) -> PartialFile:
        """Make the temporary file for an image."""
        ...

    async def keep(
        self, part: PartialFile, content: Content, stem: str, kind: ImageKind, *, overwrite: bool
    ) -> Stored:
        """Put a whole image under its name."""
        ...


@attrs.frozen
class SavePlan:
    """Where the images of a call go, and how.

    Attributes:
        store: Takes them.
        watermarked: Whether the copies with the watermark are saved instead.
        overwrite: Whether what is there under their names is replaced.
    """

    store: Store
    watermarked: bool = False
    overwrite: bool = False


class Stores:
    """The stores of a session by their names, so that each is opened once."""

    def __init__(self) -> None:
        self._named = lru_cache(MAX_OPEN)(_named)

    def open(self, store: object) -> Store:
        """Return the store that an argument names; a directory is made when the first image comes.

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
            f"images are saved to a directory, a URL or a store of obstore, not to a {kind}"
        )


def _named(name: object) -> Store:
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
        raise ConfigurationError(
            f"images cannot be saved to {name!r:.80}: give the path of a directory, as text"
        )
    if _URL_AS_PATH.match(name):
        raise ConfigurationError(
            f"images cannot be saved to {name!r:.80}: give a URL as text, with both slashes"
        )
    if "://" not in name:
        return Path(name)
    scheme, _, rest = name.partition("://")
    if scheme.lower() != "file":
        return None
    host, slash, path = rest.partition("/")
    if host not in {"", "localhost"} or not slash:
        raise ConfigurationError(
            f"images cannot be saved to {name!r:.80}: write file:///path, with three slashes"
        )
    return Path(url2pathname(f"/{path}"))


def _local(folder: Path) -> LocalStore:
    try:
        # Told at the call, not with the first image, an hour later.
        os.stat(os.fsencode(folder))  # noqa: PTH116 - Path's own swallow some of these errors
    except (FileNotFoundError, PermissionError):
        # What may not be looked at may be writable all the same: the first image tells.
        return LocalStore(folder)
    except (OSError, ValueError) as error:
        text = getattr(error, "strerror", None) or "no path of this system"
        raise ConfigurationError(f"images cannot be saved to {str(folder)!r:.80}: {text}") from None
    if not folder.is_dir():
        raise ConfigurationError(f"images cannot be saved to {folder}: it is no directory")
    return LocalStore(folder)


class LocalStore:
    """A directory, made when the first image comes.

    Attributes:
        folder: Its path.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ready = False

    def __repr__(self) -> str:
        return f"<LocalStore {self.folder}>"

    async def open(self) -> None:
        """Make the directory, and remove what processes that died have left there.

        Raises:
            StorageError: It cannot be made.
        """
        if not self._ready:
            await in_thread(self._get_ready)

    def _get_ready(self) -> None:
        with translate_os_errors(str(self.folder)):
            _make(self.folder)
            sweep(self.folder)
        self._ready = True

    async def find(self, stem: str) -> Stored | None:
        """Return the image of this name, whatever its ending, if it is there and whole.

        Raises:
            StorageError: Something else is there.
        """
        return await in_thread(self._find, stem)

    def _find(self, stem: str) -> Stored | None:
        for kind in KINDS:
            path = self._path(stem, kind)
            # Not `exists`: a link to nothing has the name, too.
            if os.path.lexists(path):
                return _stored(path, kind)
        return None

    async def begin(self, stem: str) -> PartialFile:
        """Make the temporary file for an image.

        Raises:
            StorageError: It cannot be made.
        """
        with translate_os_errors(str(self.folder)):
            return await in_thread(self._begin, stem, undo=PartialFile.discard)

    def _begin(self, stem: str) -> PartialFile:
        try:
            return PartialFile(self.folder, stem)
        except FileNotFoundError:  # somebody has removed the directory meanwhile
            _make(self.folder)
            return PartialFile(self.folder, stem)

    async def keep(
        self, part: PartialFile, content: Content, stem: str, kind: ImageKind, *, overwrite: bool
    ) -> Stored:
        """Put a whole image under its name.

        Raises:
            StorageError: The disk failed, or something else has that name.
        """
        path = self._path(stem, kind)
        await in_thread(_keep, part, content, path, overwrite)
        if overwrite:
            await in_thread(self._remove_others, stem, kind)
        return Stored(str(path), content.size, content.sha256, kind.content_type)

    def _remove_others(self, stem: str, kind: ImageKind) -> None:
        """Remove the image that was replaced, if it had another ending."""
        for other in KINDS:
            if other is not kind:
                with translate_os_errors(str(self.folder)):
                    self._path(stem, other).unlink(missing_ok=True)

    def _path(self, stem: str, kind: ImageKind) -> Path:
        return self.folder / f"{stem}.{kind.ending}"


def _make(folder: Path) -> None:
    """Make a directory and those above it, and bring their names to the disk."""
    # Their names are in the folders above them, and a crash may lose those as it loses files.
    new = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in new:
        _sync_folder(each.parent)


def _stored(path: Path, kind: ImageKind) -> Stored:
    with translate_os_errors(str(path)):
        content = content_of(path) if path.is_file() else None
    if content is None or not is_whole(content.head, content.tail, content.size):
        raise not_ours(str(path))
    return Stored(str(path), content.size, content.sha256, kind.content_type)


def _keep(part: PartialFile, content: Content, path: Path, overwrite: bool) -> None:  # noqa: FBT001 - threads take no keywords
    with translate_os_errors(str(path)):
        part.seal()
        try:
            _rename(part.path, path, overwrite=overwrite)
        except FileExistsError:
            # Another process was faster; with the same image that is as good as ours.
            if not path.is_file() or content_of(path).sha256 != content.sha256:
                raise not_ours(str(path)) from None
        # Also where another process named it: whoever is told "stored" may cut the power.
        _sync_folder(path.parent)


def _rename(part: Path, path: Path, *, overwrite: bool) -> None:
    """Put a file under its name; a link, unlike a renaming, never replaces another file."""
    if not overwrite:
        try:
            os.link(part, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            if os.path.lexists(path):
                raise FileExistsError from None
        else:
            return
    # Without links another process may take the name between that look and this line: such file
    # systems offer no better.
    os.replace(part, path)  # noqa: PTH105 - as os.link


def _sync_folder(folder: Path) -> None:
    """Bring the new name to the disk too, where the system can."""
    # Windows opens no folders.
    if os.name == "nt":
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(fd)
