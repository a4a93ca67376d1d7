"""Stores in a cloud, by obstore (the extra ``storage``)."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import re
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from kling_omni_async.errors import ConfigurationError, StorageError

from .files import (
    Content,
    Mishaps,
    PartialFile,
    Stored,
    discard_part,
    not_ours,
    reason_of,
    translate_os_errors,
    try_folder,
)
from .formats import KINDS, ImageKind
from .threads import in_thread

if TYPE_CHECKING:
    from obstore import Attributes, UpdateVersion
    from obstore.store import S3Store

logger: Final = logging.getLogger("kling_omni_async.saver")

PIECE_BYTES: Final = 5 * 1_048_576
"""Of a multipart upload; the least that S3 takes."""

PIECES_AT_A_TIME: Final = 2
"""Of one upload: with eight images on their way at most 80 MiB are held."""

TRIAL_S: Final = 30.0
"""The time in which a store must answer when it is tried, in s."""

_PLACE_HINT = "set TMPDIR to a directory that may be written to"
_TRIAL = ".kling-omni-try"
_NO_SUCH_VERSION: Final[UpdateVersion] = {"e_tag": '"0"', "version": "1"}
_RUNTIME_DESCRIPTORS: Final = 16
_DIGEST = "klingsha256"  # letters and digits: some stores take no others
_REST_S = 0.05
_LONGEST_TEXT = 400
_UNCONDITIONAL: Final = frozenset(
    {"NotImplementedError", "NotSupportedError", "PermissionDeniedError"}
)
"""What stores raise that know no condition, or do not allow one."""

_DENIED = "(code: AccessDenied)"  # of one key, in an answer that is well
_TROUBLE = re.compile(r"status code: 5\d\d")  # of the server's own
_NO_PLACE = re.compile("NoSuchBucket|ContainerNotFound|bucket does not exist", re.IGNORECASE)
_CODE = re.compile(r"<Code>(\w{1,60})</Code>")
_ERRNO = re.compile(r"\(os error (\d{1,5})\)|\bcode: (\d{1,5}),")  # as Rust writes one
_SECRETS = re.compile(r"\?\S*|(?<=//)[^\s/?#]*@")  # a URL's query and user info


class RemoteStore:
    """A store of obstore. An image is on the local disk, whole and checked, before its upload.

    The prefix that a store has stands before each key that is told.
    """

    def __init__(self, store: object) -> None:
        self._store = cast("S3Store", store)  # whichever it is, the methods are the same
        prefix: object = getattr(store, "prefix", None)  # obstore's own local store has a path
        self._prefix = f"{prefix}/" if prefix and isinstance(prefix, str | Path) else ""
        self._spool = _spool()
        self._mishaps = Mishaps()
        self._is_obstores = _is_obstores(store)
        self._swept = self._tried = False
        self._is_blind = False  # it answers 403 for an image that is not there
        self._holding = asyncio.Lock()  # whoever holds a large image in memory
        _exit_after_obstore()

    def __repr__(self) -> str:
        return f"<RemoteStore {type(self._store).__name__} {self._prefix}>"

    async def try_out(self) -> None:
        """Try once whether images can be kept there, or raise `ConfigurationError`."""
        if not self._tried and await in_thread(
            try_folder, self._get_ready, self._spool, _PLACE_HINT
        ):
            # A class of the caller's own is not tried: it is not known what else it would do.
            self._tried = not self._is_obstores or await self._write_nothing()

    async def _write_nothing(self) -> bool:
        """Write on a condition that no object meets; return False where a fault may pass."""
        try:
            async with asyncio.timeout(TRIAL_S):
                await self._try_to_write()
        except TimeoutError:
            text = f"no answer within {TRIAL_S:g} s; look at its endpoint, network and credentials"
        except Exception as error:  # noqa: BLE001 - whatever obstore thinks of it
            text = _text_of(error) + _rights_of(error, "s3:PutObject")
            if _reason_of(error) != "store" or _TROUBLE.search(text):
                logger.warning("the store could not be tried: %s", text)
                return False
        else:
            return True
        raise ConfigurationError(f"nothing can be written to the store: {text}")

    async def _try_to_write(self) -> None:
        await start_runtime()
        put = partial(self._store.put_async, _TRIAL, b"")
        try:
            await put(mode=_NO_SUCH_VERSION)
        except Exception as error:
            name = type(error).__name__
            if name == "PreconditionError" and not _NO_PLACE.search(str(error)):
                return
            if name not in _UNCONDITIONAL and "NotImplemented" not in str(error):
                raise
            await put()
        with suppress(Exception):
            await self._store.delete_async(_TRIAL)

    async def begin(self, stem: str, *, look: bool) -> Stored | PartialFile:
        """Find an image, or make the temporary file for it, for nobody else to read."""
        if self._is_obstores:
            with translate_os_errors("the store"):
                await start_runtime()
        if look and (stored := await self._find(stem)):
            return stored
        return await in_thread(self._begin, stem, undo=discard_part)

    async def keep(self, part: PartialFile, rest: bytes, stem: str, *, overwrite: bool) -> Stored:
        """Upload an image; whether something else is there was seen when it was looked for.

        Where it could not be seen, the store itself is told to take it only if nothing is there.
        """
        kind, content = await in_thread(part.complete, rest), part.content
        name = f"{stem}.{kind.ending}"
        # Read from the disk, where it is whole and checked. Straight through, a download that dies
        # would leave an upload to be aborted, and the digest would come too late to stand with it.
        attributes: Attributes = {"Content-Type": kind.content_type, _DIGEST: content.sha256}
        stored = Stored(self._prefix + name, content.size, content.sha256, kind.content_type)
        put = self._create if self._is_blind and not overwrite else self._put
        with _translate_store_errors(self._prefix + name, "s3:PutObject"):
            try:
                await put(name, part, attributes)
            except NotImplementedError:  # a store that keeps no attributes
                await put(name, part, None)
            except Exception as error:
                if type(error).__name__ != "AlreadyExistsError":
                    raise
                await self._require_same(stem, kind, stored)
        if overwrite:
            await self._remove_others(stem, kind)
        await in_thread(part.discard)
        return stored

    async def read(self, name: str, write: Callable[[bytes], object]) -> None:
        """Read an image piece by piece into what takes them."""
        with _translate_store_errors(self._prefix + name, "s3:GetObject"):
            result = await self._store.get_async(name)
            async for piece in result.stream():
                await in_thread(write, bytes(piece))

    def _begin(self, stem: str) -> PartialFile:
        with translate_os_errors(str(self._spool)):
            self._get_ready()
            return PartialFile(self._spool, stem, mode=0o600)

    def _get_ready(self) -> None:
        if not self._swept:
            self._mishaps.sweep(self._spool)
            self._swept = True

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
        with _translate_store_errors(self._prefix + name, "s3:GetObject"):
            try:
                result = await self._store.get_async(name, options={"head": True})
            except FileNotFoundError:
                return None
            except Exception as error:
                # S3 says so of a key that is not there, too, where the right to list is missing.
                if type(error).__name__ != "PermissionDeniedError":
                    raise
                self._is_blind = True
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

    async def _put(self, name: str, part: PartialFile, attributes: Attributes | None) -> None:
        await self._store.put_async(
            name,
            part.path,
            attributes=attributes,
            chunk_size=PIECE_BYTES,
            max_concurrency=PIECES_AT_A_TIME,
        )

    async def _create(self, name: str, part: PartialFile, attributes: Attributes | None) -> None:
        """Upload an image only if nothing is there, by ``If-None-Match``."""
        create = partial(self._store.put_async, attributes=attributes, mode="create")
        if part.content.size <= PIECE_BYTES:
            await create(name, part.path)
            return
        # Such an upload has no pieces, so that obstore holds all of it.
        async with self._holding:
            await create(name, part.path)

    async def _require_same(self, stem: str, kind: ImageKind, stored: Stored) -> None:
        """Raise that something else is there, unless somebody has just put the same image there."""
        found = await self._look(stem, kind)
        if found is None:
            raise StorageError(
                f"{stored.key} is there, and may not be looked at without the right to read it "
                "(s3:GetObject)",
                reason="exists",
                detail="something has its name that may not be looked at",
            )
        if found.sha256 != stored.sha256:
            raise not_ours(stored.key)

    async def _remove_others(self, stem: str, kind: ImageKind) -> None:
        """Remove the image that was replaced, if it had another ending."""
        if not hasattr(self._store, "delete_async"):
            return  # a class of the caller's own, which was not asked for it
        for other in KINDS:
            if other is not kind:
                await self._remove(f"{stem}.{other.ending}")

    async def _remove(self, name: str) -> None:
        try:
            await self._store.delete_async(name)
        except FileNotFoundError:
            pass
        except Exception as error:  # noqa: BLE001 - the new image is stored all the same
            text = _rights_of(error, "s3:DeleteObject") or f": {_text_of(error)}"
            self._mishaps.tell(f"images that were replaced may stay under another ending{text}")


class Runtime:
    """What obstore starts with its first call, for the whole process."""

    is_started = False


async def start_runtime() -> None:
    """Start it, or raise an OSError where too few file descriptors are left for that.

    Without them it panics, and can be started no more until the process ends.
    """
    if Runtime.is_started:
        return
    from obstore.store import MemoryStore  # noqa: PLC0415 - for those who use the extra

    held: list[int] = []
    try:
        for _ in range(_RUNTIME_DESCRIPTORS):
            held.append(os.open(os.devnull, os.O_RDONLY))  # noqa: PERF401 - those that were opened are closed
    finally:
        for each in held:
            os.close(each)
    await MemoryStore().put_async("x", b"")
    Runtime.is_started = True


@cache
def _exit_after_obstore() -> None:
    """See that obstore's threads come to rest before Python ends, once for all stores.

    They release what they hold of Python a little after an answer is there; if that falls into
    the end of Python, they abort the process (PyO3/pyo3-async-runtimes#40).
    """
    atexit.register(time.sleep, _REST_S)


@contextmanager
def _translate_store_errors(key: str, right: str) -> Generator[None]:
    """Raise an error of obstore in our words, with the right that it takes to go on."""
    try:
        yield
    except StorageError:
        raise
    except BaseException as error:
        # Exceptions are obstore's, or of a store that the caller made; a panic in Rust is none.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        text = _text_of(error) + _rights_of(error, right)
        told, detail = f"cannot store {key}: {text}", text.replace(key, "…")
        raise StorageError(told, reason=_reason_of(error), detail=detail) from None


def _reason_of(error: BaseException) -> str:
    """Return our word for what a store says, of the file system below it if that has said so."""
    told = None if isinstance(error, OSError) else _ERRNO.search(str(error))
    return reason_of(OSError(int(told[1] or told[2]), "") if told else error)


def _rights_of(error: BaseException, right: str) -> str:
    """Return which right may be missing, where a store says that one is."""
    refused = type(error).__name__ == "PermissionDeniedError" or _DENIED in str(error)
    code = _CODE.search(str(error))
    wrong_key = code is not None and code[1] != "AccessDenied"
    missing = refused and not wrong_key
    return f"; the credentials may lack the right to do so ({right})" if missing else ""


def _is_obstores(store: object) -> bool:
    return any(each.__module__.partition(".")[0] == "obstore" for each in type(store).__mro__)


def _spool() -> Path:
    """Return the place for images before their upload."""
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:
        raise ConfigurationError(
            f"there is no place for temporary files, where images wait for uploads; {_PLACE_HINT}"
        ) from None


def _text_of(error: BaseException) -> str:
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
            "a store that is no local directory needs the extra storage: "
            "in the checkout, pip install '.[storage]'"
        ) from None
    try:
        store = from_url(url)
    except Exception as error:  # noqa: BLE001 - whatever obstore thinks of it
        raise ConfigurationError(
            f"the store cannot be opened by its URL: {_text_of(error)}"
        ) from None
    return RemoteStore(store)
