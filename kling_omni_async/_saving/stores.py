"""Where images go: what every store can do, and the store that is a local directory."""

from __future__ import annotations

import errno
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

import attrs

from kling_omni_async.errors import StorageError

from .files import Content, Part, content_of, sweep
from .formats import KINDS, ImageKind, is_whole
from .threads import in_thread

_NO_SYNC: Final = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EBADF})
"""What file systems answer that cannot bring a directory to the disk."""


@attrs.frozen
class Stored:
    """An image that is in a store, whole.

    Attributes:
        key: Its path or its object key.
        size: In bytes.
        sha256: In hexadecimal.
        content_type: As in HTTP.
    """

    key: str
    size: int
    sha256: str
    content_type: str


class Store(Protocol):
    """A place for images. Each method raises `StorageError` for whatever goes wrong."""

    async def open(self) -> None:
        """Get ready; more calls do no harm."""

    async def find(self, stem: str) -> Stored | None:
        """Give the image of this name, whatever its ending, if it is there and whole."""
        ...

    async def begin(self, stem: str) -> Part:
        """Make the temporary file for an image."""
        ...

    async def keep(
        self, part: Part, content: Content, stem: str, kind: ImageKind, *, overwrite: bool
    ) -> Stored:
        """Give a whole image its name."""
        ...


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
        """Give the image of this name, whatever its ending, if it is there and whole.

        Raises:
            StorageError: Something else is there.
        """
        return await in_thread(self._find, stem)

    def _find(self, stem: str) -> Stored | None:
        for kind in KINDS:
            path = self._path(stem, kind)
            if os.path.lexists(path):
                return _stored(path, kind)
        return None

    async def begin(self, stem: str) -> Part:
        """Make the temporary file for an image.

        Raises:
            StorageError: It cannot be made.
        """
        with translate_os_errors(str(self.folder)):
            return await in_thread(self._begin, stem, undo=Part.discard)

    def _begin(self, stem: str) -> Part:
        try:
            return Part(self.folder, stem)
        except FileNotFoundError:  # somebody has removed the directory meanwhile
            _make(self.folder)
            return Part(self.folder, stem)

    async def keep(
        self, part: Part, content: Content, stem: str, kind: ImageKind, *, overwrite: bool
    ) -> Stored:
        """Give a whole image its name.

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


def _keep(part: Part, content: Content, path: Path, overwrite: bool) -> None:  # noqa: FBT001 - threads take no keywords
    with translate_os_errors(str(path)):
        part.seal()
        try:
            _rename(part.path, path, overwrite=overwrite)
        except FileExistsError:
            if not path.is_file() or content_of(path).sha256 != content.sha256:
                raise not_ours(str(path)) from None
        _sync_folder(path.parent)


def _rename(part: Path, path: Path, *, overwrite: bool) -> None:
    """Give a file its name; a link, unlike a renaming, never replaces another file."""
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
    os.replace(part, path)  # noqa: PTH105 - as os.link


def _sync_folder(folder: Path) -> None:
    """Bring the new name to the disk too, where the system can."""
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


def not_ours(key: str) -> StorageError:
    """Give the error for a name that something else has."""
    return StorageError(
        f"{key} is there and is not this image, whole: move it away, or pass overwrite=True",
        reason="exists",
    )


@contextmanager
def translate_os_errors(target: str) -> Generator[None]:
    """Tell an error of the file system in our words."""
    try:
        yield
    except (OSError, ValueError) as error:  # the latter for what no path can hold
        text = getattr(error, "strerror", None) or error
        raise StorageError(f"cannot store in {target}: {text}", reason="store") from None
