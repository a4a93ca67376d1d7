"""Stores in a cloud, by obstore (the extra ``storage``)."""

from __future__ import annotations

import asyncio
import atexit
import re
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from kling_omni_async._http import out_of_descriptors
from kling_omni_async.errors import ConfigurationError, StorageError

from .files import (
    Content,
    PartialFile,
    Stored,
    discard_part,
    in_thread,
    not_ours,
    sweep,
    translate_os_errors,
)
from .formats import KINDS, ImageKind

if TYPE_CHECKING:
    from obstore import Attributes
    from obstore.store import S3Store

PIECE_BYTES: Final = 5 * 1_048_576
"""Of a multipart upload; the least that S3 takes."""

PIECES_AT_A_TIME: Final = 2
"""Of one upload: with eight images on their way at most 80 MiB are held."""

_DIGEST = "klingsha256"  # letters and digits: some stores take no others
_REST_S = 0.05
_LONGEST_TEXT = 400
_CODE = re.compile(r"<Code>(\w{1,60})</Code>")
_NO_DESCRIPTOR = re.compile(r"\(os error 2[34]\)|\bcode: 2[34],")  # as Rust writes EMFILE, ENFILE
_SECRETS = re.compile(r"\?\S*|(?<=//)[^\s/?#]*@")  # a URL's query and user info


class RemoteStore:
    """A store of obstore. An image is on the local disk, whole and checked, before its upload.

    The prefix that a store has stands before each key that is told.
    """

    def __init__(self, store: object) -> None:
        self._store = cast("S3Store", store)  # whichever it is, the methods are the same
        prefix: object = getattr(store, "prefix", None)  # obstore's own local store has a path
        self._prefix = f"{prefix}/" if prefix and isinstance(prefix, str | Path) else ""
        self._spool = Path(tempfile.gettempdir())
        self._swept = False
        _exit_after_obstore()

    def __repr__(self) -> str:
        return f"<RemoteStore {type(self._store).__name__} {self._prefix}>"

    async def begin(self, stem: str, *, look: bool) -> Stored | PartialFile:
        """Find an image, or make the temporary file for it, for nobody else to read."""
        if look and (stored := await self._find(stem)):
            return stored
        return await in_thread(self._begin, stem, undo=discard_part)

    async def keep(self, part: PartialFile, rest: bytes, stem: str, *, overwrite: bool) -> Stored:
        """Upload an image; whether something else is there was seen when it was looked for."""
        kind, content = await in_thread(part.complete, rest), part.content
        name = f"{stem}.{kind.ending}"
        # Read from the disk, where it is whole and checked. Straight through, a download that dies
        # would leave an upload to be aborted, and the digest would come too late to stand with it.
        attributes: Attributes = {"Content-Type": kind.content_type, _DIGEST: content.sha256}
        with _translate_store_errors(self._prefix + name):
            try:
                await self._put(name, part.path, attributes)
            except NotImplementedError:  # a store that keeps no attributes
                await self._put(name, part.path, None)
            if overwrite:
                await self._remove_others(stem, kind)
        await in_thread(part.discard)
        return Stored(self._prefix + name, content.size, content.sha256, kind.content_type)

    def _begin(self, stem: str) -> PartialFile:
        with translate_os_errors(str(self._spool)):
            if not self._swept:
                sweep(self._spool)
                self._swept = True
            return PartialFile(self._spool, stem, mode=0o600)

    async def _find(self, stem: str) -> Stored | None:
        # All at once: one after another, five round trips would stand before each first save.
        looking = (self._look(stem, kind) for kind in KINDS)
        found = await asyncio.gather(*looking, return_exceptions=True)  # none goes on alone
        for result in found:
            if isinstance(result, BaseException):
                raise result
        return next((result for result in found if isinstance(result, Stored)), None)

    async def _look(self, stem: str, kind: ImageKind) -> Stored | None:
        name = f"{stem}.{kind.ending}"
        with _translate_store_errors(self._prefix + name):
            try:
                result = await self._store.get_async(name, options={"head": True})
            except FileNotFoundError:
                return None
            # An ETag is no digest where an image went up in pieces.
            digest = result.attributes.get(_DIGEST)
            if digest is None:  # not by us, or a store that keeps no attributes
                digest = await self._read(name)
            size = result.meta["size"]
        return Stored(self._prefix + name, size, digest, kind.content_type)

    async def _read(self, name: str) -> str:
        """Return the digest of an image that was read to see whether it is whole."""
        result, content = await self._store.get_async(name), Content()
        async for piece in result.stream():
            content.add(bytes(piece))
        if not content.is_whole():
            raise not_ours(self._prefix + name)
        return content.sha256

    async def _put(self, name: str, path: Path, attributes: Attributes | None) -> None:
        await self._store.put_async(
            name,
            path,
            attributes=attributes,
            chunk_size=PIECE_BYTES,
            max_concurrency=PIECES_AT_A_TIME,
        )

    async def _remove_others(self, stem: str, kind: ImageKind) -> None:
        """Remove the image that was replaced, if it had another ending."""
        if not hasattr(self._store, "delete_async"):
            return  # a class of the caller's own, which was not asked for it
        for other in KINDS:
            if other is not kind:
                with suppress(FileNotFoundError):
                    await self._store.delete_async(f"{stem}.{other.ending}")


@cache
def _exit_after_obstore() -> None:
    """See that obstore's threads come to rest before Python ends, once for all stores.

    They release what they hold of Python a little after an answer is there; if that falls into
    the end of Python, they abort the process (PyO3/pyo3-async-runtimes#40).
    """
    atexit.register(time.sleep, _REST_S)


@contextmanager
def _translate_store_errors(key: str) -> Generator[None]:
    """Raise an error of obstore in our words."""
    try:
        yield
    except StorageError:
        raise
    except Exception as error:  # noqa: BLE001 - obstore's, or of a store that the caller made
        exhausted = out_of_descriptors(error) or _NO_DESCRIPTOR.search(str(error))
        reason = "descriptors" if exhausted else "store"
        raise StorageError(f"cannot store {key}: {_text_of(error)}", reason=reason) from None


def _text_of(error: Exception) -> str:
    """Return the first line of an error, without what may be secret in it."""
    # The query and the user info of URLs, and the answer of S3, which quotes signatures: of it the
    # code alone is kept.
    whole = str(error)
    code = _CODE.search(whole)
    line = _SECRETS.sub("", whole.partition("\n")[0].partition("<")[0]).rstrip(" :")
    text = f"{line[:_LONGEST_TEXT]}: {code[1]}" if code else line[:_LONGEST_TEXT]
    return text or type(error).__name__


def open_url(url: str) -> RemoteStore:
    """Open a store by its URL, such as ``s3://bucket/prefix``, or raise `ConfigurationError`."""
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
        raise ConfigurationError(
            f"the store cannot be opened by its URL: {_text_of(error)}"
        ) from None
    return RemoteStore(store)
