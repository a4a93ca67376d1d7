"""Stores in a cloud, by obstore (the extra ``storage``)."""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from ._images import KINDS, ImageKind, is_whole
from ._parts import Content, Part, Summary, sweep
from ._stores import Stored, not_ours, told_as_ours
from ._threads import in_thread
from .errors import ConfigurationError, StorageError

if TYPE_CHECKING:
    from obstore import Attributes, GetResult
    from obstore.store import S3Store

PIECE_BYTES: Final = 5 * 1_048_576
"""Of a multipart upload; the least that S3 takes."""

PIECES_AT_A_TIME: Final = 2
"""Of one upload: with eight images on their way at most 80 MiB are held."""

_DIGEST = "sha256"
_LONGEST_TEXT = 200
_QUERY = re.compile(r"\?\S*")


class RemoteStore:
    """An object store. An image is on the local disk, whole and checked, before its upload begins.

    Args:
        store: obstore's.
        prefix: What stands before each key that is told.
    """

    def __init__(self, store: object, *, prefix: str = "") -> None:
        self._store = cast("S3Store", store)  # whichever it is, the methods are the same
        self._prefix = f"{prefix}/" if prefix else ""
        self._spool = Path(tempfile.gettempdir())
        self._ready = False

    def __repr__(self) -> str:
        return f"<RemoteStore {self._store!r}>"

    async def open(self) -> None:
        """Remove what processes that died have left on the local disk.

        Raises:
            StorageError: There is no place for temporary files.
        """
        if not self._ready:
            with told_as_ours(str(self._spool)):
                await in_thread(sweep, self._spool)
            self._ready = True

    async def find(self, stem: str) -> Stored | None:
        """Give the image of this name, whatever its ending, if it is there and whole.

        Raises:
            StorageError: Something else is there, or the store does not answer.
        """
        found = await asyncio.gather(*(self._look(stem, kind) for kind in KINDS))
        return next(filter(None, found), None)

    async def _look(self, stem: str, kind: ImageKind) -> Stored | None:
        name = f"{stem}.{kind.ending}"
        with _told_as_ours(self._prefix + name):
            try:
                result = await self._store.get_async(name, options={"head": True})
            except FileNotFoundError:
                return None
            digest = result.attributes.get(_DIGEST)
            if digest is None:  # not by us, or a store that keeps no attributes
                content = await _content_of(await self._store.get_async(name))
                if not is_whole(content.head, content.tail, content.size):
                    raise not_ours(self._prefix + name)
                digest = content.sha256
        return Stored(self._prefix + name, result.meta["size"], digest, kind.content_type)

    async def begin(self, stem: str) -> Part:
        """Make the temporary file for an image, for nobody else to read.

        Raises:
            StorageError: It cannot be made.
        """
        with told_as_ours(str(self._spool)):
            return await in_thread(lambda: Part(self._spool, stem, mode=0o600))

    async def keep(
        self, part: Part, content: Content, stem: str, kind: ImageKind, *, overwrite: bool
    ) -> Stored:
        """Upload a whole image; `overwrite` was heeded when it was looked for.

        Raises:
            StorageError: The store did not take it.
        """
        del overwrite
        name = f"{stem}.{kind.ending}"
        attributes: Attributes = {"Content-Type": kind.content_type, _DIGEST: content.sha256}
        with _told_as_ours(self._prefix + name):
            try:
                await self._put(name, part.path, attributes)
            except NotImplementedError:  # a store that keeps no attributes
                await self._put(name, part.path, None)
        return Stored(self._prefix + name, content.size, content.sha256, kind.content_type)

    async def _put(self, name: str, path: Path, attributes: Attributes | None) -> None:
        await self._store.put_async(
            name,
            path,
            attributes=attributes,
            chunk_size=PIECE_BYTES,
            max_concurrency=PIECES_AT_A_TIME,
        )


async def _content_of(result: GetResult) -> Content:
    """Read a whole object for what is known of it."""
    summary = Summary()
    async for piece in result.stream():
        summary.add(bytes(piece))
    return summary.content()


@contextmanager
def _told_as_ours(key: str) -> Generator[None]:
    """Tell an error of obstore in our words, without the query of a URL: it may be signed."""
    try:
        yield
    except StorageError:
        raise
    except Exception as error:  # noqa: BLE001 - obstore's, or of a store that the caller made
        text = _QUERY.sub("", str(error).partition("\n")[0])[:_LONGEST_TEXT]
        raise StorageError(
            f"cannot store {key}: {text or type(error).__name__}", reason="store"
        ) from None


def open_url(url: str) -> RemoteStore:
    """Open a store by its URL, such as ``s3://bucket/prefix``.

    Raises:
        ConfigurationError: obstore is not installed, or cannot open it.
    """
    try:
        from obstore.store import from_url  # noqa: PLC0415 - the extra may be missing
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "obstore":
            raise
        raise ConfigurationError(
            "a store that is no local directory needs an extra: "
            "pip install 'kling-omni-async[storage]'"
        ) from None
    try:
        store = from_url(url)
    except Exception as error:  # noqa: BLE001 - whatever obstore thinks of it
        text = str(error).partition("\n")[0][:_LONGEST_TEXT]
        raise ConfigurationError(f"the store cannot be opened by its URL: {text}") from None
    return RemoteStore(store, prefix=getattr(store, "prefix", None) or "")
