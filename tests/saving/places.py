"""Every kind of store, with what stands behind it seen from outside."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Protocol

from obstore.store import LocalStore as ObstoreLocal
from obstore.store import MemoryStore

from kling_omni_async._saving.files import LocalStore, PartialFile, Stored
from kling_omni_async._saving.formats import KINDS
from kling_omni_async._saving.object_store import RemoteStore
from kling_omni_async._saving.stores import Store

from .image_files import PIXEL_GIF, PIXEL_WEBP, avif, jpeg, png

FILES = dict(zip(KINDS, (png(), jpeg(), PIXEL_WEBP, PIXEL_GIF, avif()), strict=True))


async def put(store: Store, file: bytes, *, overwrite: bool = False) -> Stored:
    """Bring an image into a store as the saver does."""
    part = await begin(store)
    try:
        part.write(file[:7])
        return await store.keep(part, file[7:], "1-0", overwrite=overwrite)
    except BaseException:
        part.discard()
        raise


async def begin(store: Store) -> PartialFile:
    """Give the temporary file for an image, whether one is there or not."""
    part = await store.begin("1-0", look=False)
    assert isinstance(part, PartialFile)
    return part


async def find(store: Store, stem: str = "1-0") -> Stored | None:
    """Give an image that is in a store."""
    found = await store.begin(stem, look=True)
    if isinstance(found, Stored):
        return found
    found.discard()
    return None


def names_in(folder: Path) -> list[str]:
    """Give the names of all that is in a folder, hidden ones too."""
    return sorted(path.name for path in folder.iterdir())


class Place(Protocol):
    """Where images are, without the store's eyes.

    Attributes:
        partials: Where images wait that are not whole yet.
    """

    partials: Path

    def store(self) -> Store:
        """Give a store for it that was never opened."""
        ...

    def key(self, name: str) -> str:
        """Give what a record names an image."""
        ...

    async def lay(self, name: str, file: bytes) -> None:
        """Put something there by other means."""

    async def read(self, name: str) -> bytes:
        """Read what is there by other means."""
        ...

    async def names(self) -> list[str]:
        """Give the names of all that is there."""
        ...


class Folder:
    """A local directory.

    Args:
        folder: Which is made.
    """

    def __init__(self, folder: Path) -> None:
        self.partials = folder
        folder.mkdir()

    def store(self) -> Store:
        return LocalStore(self.partials)

    def key(self, name: str) -> str:
        return str(self.partials / name)

    async def lay(self, name: str, file: bytes) -> None:
        (self.partials / name).write_bytes(file)

    async def read(self, name: str) -> bytes:
        return (self.partials / name).read_bytes()

    async def names(self) -> list[str]:
        return [name for name in names_in(self.partials) if not name.startswith(".")]


class Remote:
    """A store of obstore.

    Args:
        target: It.
        prefix: What stands before its keys in records.
    """

    def __init__(self, target: MemoryStore | ObstoreLocal, prefix: str = "") -> None:
        self.partials = Path(tempfile.gettempdir())
        self.target = target
        self._prefix = prefix

    def store(self) -> Store:
        return RemoteStore(self.target)

    def key(self, name: str) -> str:
        return self._prefix + name

    async def lay(self, name: str, file: bytes) -> None:
        await self.target.put_async(name, file)

    async def read(self, name: str) -> bytes:
        return bytes(await (await self.target.get_async(name)).bytes_async())

    async def names(self) -> list[str]:
        return sorted(each["path"] for each in self.target.list().collect())


def place_of(kind: str, tmp_path: Path) -> Place:
    """Give an empty place: ``folder``, ``cloud`` (keeps attributes) or ``disk`` (keeps none)."""
    if kind == "folder":
        return Folder(tmp_path / "folder")
    if kind == "cloud":
        return Remote(MemoryStore())
    return Remote(ObstoreLocal(tmp_path / "disk", mkdir=True), f"{tmp_path}/disk/")
