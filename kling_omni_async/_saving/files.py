"""Images in local files: written in threads under a temporary name, and named when whole."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

import attrs

from kling_omni_async._http import out_of_descriptors
from kling_omni_async.errors import ConfigurationError, StorageError

from .formats import HEAD_BYTES, KINDS, ImageKind, kind_of, require_image
from .threads import in_thread
from .wholeness import Wholeness

STALE_S: Final = 86_400.0
"""A file that was not written to for so long, in s, was left behind by a process that died."""

_NAME = re.compile(r"\..+\.[0-9a-f]{8}\.kling-part")
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
_CHUNK_BYTES: Final = 1_048_576
_MOST_TOLD: Final = 1000
_TRIES: Final = 10
_NO_SYNC: Final = frozenset({errno.EINVAL, errno.ENOTSUP, errno.ENOSYS})
"""What file systems answer that cannot bring something to the disk."""

_PASSING: Final = frozenset({errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.ESTALE, errno.ETIMEDOUT})
"""What a file system says, above all one of a network, that may be well a moment later."""

logger: Final = logging.getLogger("kling_omni_async.saver")


@attrs.frozen
class Stored:
    """An image that is in a store, whole; its key is a path or an object's."""

    key: str
    size: int
    sha256: str
    content_type: str


class Content:
    """What is known of the bytes of a file that is read or written piece by piece."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._wholeness = Wholeness()
        self.size = 0
        self.head = b""

    @property
    def sha256(self) -> str:
        """Their digest, in hexadecimal."""
        return self._digest.hexdigest()

    def add(self, piece: bytes) -> None:
        """Note the next piece."""
        self._digest.update(piece)
        self.size += len(piece)
        self.head = (self.head + piece[:HEAD_BYTES])[:HEAD_BYTES]
        self._wholeness.add(piece)

    def is_whole(self) -> bool:
        """Return whether they are an image that has its end."""
        return self._wholeness.is_whole and kind_of(self.head) is not None


class PartialFile:
    """A file under a temporary name. All of it blocks."""

    def __init__(self, folder: Path, stem: str, *, mode: int = 0o666) -> None:
        # O_EXCL: in a folder that many may write to, somebody could have laid a link there.
        self.path: Path = folder / f".{stem}.{secrets.token_hex(4)}.kling-part"
        # Kept along with the bytes: to read the file again would double the work.
        self.content = Content()
        # No buffer: what a full disk says must come out of `write`, not out of a later one.
        self._file = open(os.open(self.path, _FLAGS, mode), "wb", buffering=0)  # noqa: PTH123, SIM115 - Path.open knows no mode

    def write(self, piece: bytes) -> None:
        """Append a piece, or raise `StorageError`, such as on a full disk."""
        self.content.add(piece)
        rest = memoryview(piece)
        with translate_os_errors(str(self.path.parent)):
            while rest:  # without a buffer a write may take less than it was given
                rest = rest[self._file.write(rest) :]

    def complete(self, rest: bytes) -> ImageKind:
        """Append the last bytes, and return the format of the image that came, if it is one."""
        self.write(rest)
        return require_image(self.content.head, whole=self.content.is_whole())

    def seal(self) -> None:
        """Bring it to the disk and close it, or raise an OSError."""
        # Before the name: a crash must not leave one with nothing behind it.
        try:
            os.fsync(self._file.fileno())
        except (
            OSError
        ) as error:  # on a file system that has no better to offer, images are kept, too
            if error.errno not in _NO_SYNC:
                raise
        self._file.close()

    def discard(self) -> None:
        """Remove its temporary name; the name that it was given since stays."""
        with suppress(OSError):  # some file systems tell only now that the disk is full
            self._file.close()
        with suppress(OSError):  # one that stays is swept away later
            self.path.unlink(missing_ok=True)


def discard_part(begun: Stored | PartialFile) -> None:
    """Undo what `begin` of a store has done, if nobody can take it any more."""
    if isinstance(begun, PartialFile):
        begun.discard()


def try_folder(prepare: Callable[[], object], folder: Path, hint: str) -> bool:
    """Try whether a file can be written to a folder that was prepared; False where a fault passes.

    Raises:
        ConfigurationError: It cannot.
    """
    try:
        with translate_os_errors(str(folder)):
            _write_to(prepare, folder, _TRIES)
    except StorageError as error:
        if error.transient:
            return False
        raise ConfigurationError(f"{error}; {hint}") from None
    return True


def _write_to(prepare: Callable[[], object], folder: Path, tries: int) -> None:
    """Prepare a folder, and write a file there that is removed again."""
    try:
        prepare()
        part = PartialFile(folder, "try")
    except FileNotFoundError:  # another process tries it, too, and has removed what it made
        if tries == 1:
            raise
        _write_to(prepare, folder, tries - 1)
        return
    try:
        part.write(b"?")
    finally:
        part.discard()


class LocalStore:
    """A directory, made when the first image comes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._mishaps = Mishaps()
        self._ready = False
        self._tried = False
        self._trying = threading.Lock()

    def __repr__(self) -> str:
        return f"<LocalStore {self.folder}>"

    async def try_out(self) -> None:
        """Try once whether images can be kept there, or raise `ConfigurationError`."""
        if not self._tried:
            await in_thread(self._try_once)

    # One job of a thread for each: a hop into a thread costs more than most of what is done there.

    async def begin(self, stem: str, *, look: bool) -> Stored | PartialFile:
        """Find an image, or make the temporary file for it, in a directory that is there then."""
        return await in_thread(partial(self._begin, stem, look=look), undo=discard_part)

    async def keep(self, part: PartialFile, rest: bytes, stem: str, *, overwrite: bool) -> Stored:
        """Put a whole image under its name."""
        return await in_thread(partial(self._keep, part, rest, stem, overwrite=overwrite))

    async def read(self, name: str, write: Callable[[bytes], object]) -> None:
        """Read an image piece by piece into what takes them."""
        await in_thread(self._read, name, write)

    def _read(self, name: str, write: Callable[[bytes], object]) -> None:
        with translate_os_errors(str(self.folder / name)), (self.folder / name).open("rb") as file:
            while piece := file.read(_CHUNK_BYTES):
                write(piece)

    def _begin(self, stem: str, *, look: bool) -> Stored | PartialFile:
        with translate_os_errors(str(self.folder)):
            self._get_ready()
            if look and (stored := self._find(stem)):
                return stored
            try:
                return PartialFile(self.folder, stem)
            except FileNotFoundError:  # somebody has removed the directory meanwhile
                self._make_folder()
                return PartialFile(self.folder, stem)

    def _try_once(self) -> None:
        with self._trying:  # two at a time would remove what the other one has made
            self._tried = self._tried or self._try_out()

    def _try_out(self) -> bool:
        made = self._missing()
        try:
            hint = "choose another directory, or make this one writable"
            return try_folder(self._get_ready_anew, self.folder, hint)
        finally:
            # Nothing may be left where no image will come.
            self._ready = self._ready and not made
            for each in made:
                with suppress(OSError):  # by now somebody else has put something there
                    each.rmdir()

    def _missing(self) -> list[Path]:
        """Return the directory and those above it that are not there, the lowest first."""
        return [each for each in (self.folder, *self.folder.parents) if not os.path.lexists(each)]

    def _get_ready_anew(self) -> None:
        self._ready = False
        self._get_ready()

    def _get_ready(self) -> None:
        if not self._ready:
            self._make_folder()
            self._mishaps.sweep(self.folder)
            self._ready = True

    def _find(self, stem: str) -> Stored | None:
        for kind in KINDS:
            path = self._path(stem, kind)
            # Not `exists`: a link to nothing has the name, too.
            if os.path.lexists(path):
                return _stored(path, kind)
        return None

    def _keep(self, part: PartialFile, rest: bytes, stem: str, *, overwrite: bool) -> Stored:
        kind = part.complete(rest)
        path = self._path(stem, kind)
        with translate_os_errors(str(path)):
            part.seal()
            try:
                _rename(part.path, path, overwrite=overwrite)
            except FileExistsError:
                # Another process was faster; with the same image that is as good as ours.
                if not path.is_file() or content_of(path).sha256 != part.content.sha256:
                    raise not_ours(str(path)) from None
        # It is there. What goes wrong from here on must not make anybody fetch it anew, or give up
        # what was paid for.
        # Also where another process named it: whoever is told "stored" may cut the power.
        self._sync(self.folder)
        if overwrite:
            self._remove_others(stem, kind)
        part.discard()
        return Stored(str(path), part.content.size, part.content.sha256, kind.content_type)

    def _remove_others(self, stem: str, kind: ImageKind) -> None:
        """Remove the image that was replaced, if it had another ending."""
        for other in KINDS:
            if other is not kind:
                path = self._path(stem, other)
                with self._mishaps.survived(f"{path}, which was replaced, cannot be removed"):
                    path.unlink(missing_ok=True)

    def _make_folder(self) -> None:
        """Make the directory and those above it, and bring their names to the disk."""
        # Their names are in the folders above them, and a crash may lose those as it loses files.
        new = self._missing()
        self.folder.mkdir(parents=True, exist_ok=True)
        for each in new:
            self._sync(each.parent)

    def _sync(self, folder: Path) -> None:
        with self._mishaps.survived(f"names in {folder} may be lost if the power fails now"):
            sync_folder(folder)

    def _path(self, stem: str, kind: ImageKind) -> Path:
        return self.folder / f"{stem}.{kind.ending}"


def _stored(path: Path, kind: ImageKind) -> Stored:
    with translate_os_errors(str(path)):
        content = content_of(path) if path.is_file() else None
    if content is None or not content.is_whole():
        raise not_ours(str(path))
    return Stored(str(path), content.size, content.sha256, kind.content_type)


def content_of(path: Path) -> Content:
    """Read a whole file for what is known of it."""
    content = Content()
    with path.open("rb") as file:
        while piece := file.read(_CHUNK_BYTES):
            content.add(piece)
    return content


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


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk, where the system can."""
    # Windows opens no folders.
    if os.name == "nt":
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _NO_SYNC | {errno.EBADF}:
            raise
    finally:
        os.close(fd)


class Mishaps:
    """What goes wrong beside the saving of images and stops none; each is logged once."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    @contextmanager
    def survived(self, what: str) -> Generator[None]:
        """Go on where the file system says no."""
        try:
            yield
        except OSError as error:
            self.tell(f"{what}: {error.strerror or error}")

    def tell(self, line: str) -> None:
        """Warn of something, unless that was done."""
        if line not in self._told and len(self._told) < _MOST_TOLD:
            self._told.add(line)
            logger.warning("%s", line)

    def sweep(self, folder: Path) -> None:
        """Remove the partial files of processes that died, if the folder can be read."""
        try:
            sweep(folder)
        except FileNotFoundError:  # another process has tried the folder, and removed it
            pass
        except OSError as error:
            if reason_of(error) != "store":
                raise  # it passes: later this can be done
            with self.survived(f"what dead processes may have left in {folder} stays"):
                raise


def sweep(folder: Path) -> None:
    """Remove the partial files of processes that died."""
    # By their age alone: whether one of another machine on the same share lives cannot be known.
    oldest = time.time() - STALE_S
    with os.scandir(folder) as entries:
        for entry in entries:
            if _NAME.fullmatch(entry.name):
                _remove_if_stale(Path(entry.path), oldest)


def _remove_if_stale(path: Path, oldest: float) -> None:
    with suppress(OSError):  # another process was faster, or it is not ours to remove
        if path.stat().st_mtime < oldest:
            path.unlink()


@contextmanager
def translate_os_errors(target: str) -> Generator[None]:
    """Raise an error of the file system in our words."""
    try:
        yield
    except (OSError, ValueError) as error:  # the latter for what no path can hold
        text = getattr(error, "strerror", None) or str(error)
        told, reason = f"cannot store in {target}: {text}", reason_of(error)
        raise StorageError(told, reason=reason, detail=text) from None


def reason_of(error: BaseException) -> str:
    """Return our word for what a file system says."""
    if out_of_descriptors(error):
        return "descriptors"
    passes = isinstance(error, OSError) and error.errno in _PASSING
    return "busy" if passes else "store"


def not_ours(key: str) -> StorageError:
    """Return the error for a name that something else has."""
    return StorageError(
        f"{key} is there and is not this image, whole",
        reason="exists",
        detail="something else has its name",
    )
