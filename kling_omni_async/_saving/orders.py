"""What is to be saved, and how far it is: one order for each task, one job for each image."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Final, Protocol, TypeAlias, cast, runtime_checkable
from urllib.request import url2pathname

import anyio
import attrs

from kling_omni_async._models import ImageTask, SavedImage, TaskImage
from kling_omni_async.errors import ConfigurationError, DownloadError, KlingOmniError

from .formats import image_numbers, image_stem
from .stores import LocalStore, Store, Stored

_URL_AS_PATH = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:[/\\](?!/)")  # what a Path makes of a URL


@runtime_checkable
class ObjectStore(Protocol):
    """A store of obstore, such as ``S3Store``; a class of your own will do that has its methods."""

    async def get_async(self, path: str, *, options: None = None) -> object:
        """Read an object."""
        ...

    async def put_async(self, path: str, file: Path) -> object:
        """Write an object."""
        ...


MAX_OPEN: Final = 64
"""How many stores a session keeps open; one more, and that which was not used longest is let go."""

StoreLike: TypeAlias = str | os.PathLike[str] | ObjectStore
"""A local directory, the URL of a store, or a store of obstore."""


class Stores:
    """The stores of a session by their names, so that each is opened once."""

    def __init__(self) -> None:
        self._named = lru_cache(MAX_OPEN)(_named)

    def open(self, store: object) -> Store:
        """Give the store that an argument names; a directory is made when the first image comes.

        Raises:
            ConfigurationError: It names none, or needs an extra.
        """
        if isinstance(store, str | os.PathLike):
            return self._named(os.fspath(cast("str | os.PathLike[str]", store)))
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
    """Give the directory that a path or a ``file:`` URL names, or None for another URL.

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
        os.stat(os.fsencode(folder))  # noqa: PTH116 - Path's own swallow some of these errors
    except (FileNotFoundError, PermissionError):
        return LocalStore(folder)
    except (OSError, ValueError) as error:
        text = getattr(error, "strerror", None) or "no path of this system"
        raise ConfigurationError(f"images cannot be saved to {str(folder)!r:.80}: {text}") from None
    if not folder.is_dir():
        raise ConfigurationError(f"images cannot be saved to {folder}: it is no directory")
    return LocalStore(folder)


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


@attrs.define(eq=False)
class SaveJob:
    """One image on its way into a store.

    Attributes:
        order: What it belongs to.
        url: Where it is.
        stem: Its name in the store, without the ending.
        tries: How often it was tried to fetch it.
        result: What came of it, or None.
        scope: What stops it while it is under way.
        retry: What makes it wait for its next try.
    """

    order: SaveOrder
    url: str
    stem: str
    tries: int = 0
    result: SavedImage | KlingOmniError | None = None
    scope: anyio.CancelScope | None = None
    retry: asyncio.TimerHandle | None = None

    @property
    def task_id(self) -> str:
        """The id of the task that made it."""
        return self.order.task.task_id

    @property
    def shown_url(self) -> str:
        """The URL without what may be secret; a record made by hand may hold anything."""
        return redact_url(str(self.url))

    def stored(self, stored: Stored) -> SavedImage:
        """Give the record of the image once it is in the store."""
        return SavedImage(
            key=stored.key,
            url=self.url,
            size=stored.size,
            sha256=stored.sha256,
            content_type=stored.content_type,
        )

    def failed(self, error: KlingOmniError) -> KlingOmniError:
        """Say of an error which task and which image it is about."""
        error.task_id = self.task_id
        if isinstance(error, DownloadError):
            error.url = self.shown_url
        return error


class SaveOrder:
    """The images of one task on their way into a store.

    Args:
        task: A task that has succeeded.
        plan: Where they go.
        done: Called once every image was saved or given up.
        abort: Called instead with the reason why all waiting ended.

    Attributes:
        jobs: One for each image.
        cancelled: Whether nobody waits for it any more.
    """

    def __init__(
        self,
        task: ImageTask,
        plan: SavePlan,
        *,
        done: Callable[[SaveOrder], object],
        abort: Callable[[BaseException], object],
    ) -> None:
        self.task = task
        self.plan = plan
        self.done = done
        self.abort = abort
        self.cancelled: bool = False
        numbers = image_numbers(task.images)
        self.jobs: list[SaveJob] = [
            self._job(image, number) for image, number in zip(task.images, numbers, strict=True)
        ]

    def __repr__(self) -> str:
        return f"<SaveOrder {len(self.saved)} of {len(self.jobs)} images>"

    def _job(self, image: TaskImage, number: int) -> SaveJob:
        watermarked = self.plan.watermarked
        stem = image_stem(self.task.task_id, number, watermarked=watermarked)
        url = image.watermark_url if watermarked else image.url
        job = SaveJob(self, url or "", stem)
        if url is None:
            job.result = job.failed(
                DownloadError(
                    f"image {number} has no watermarked copy; ask for one when the task is created",
                    reason="no-watermark",
                )
            )
        return job

    @property
    def saved(self) -> tuple[SavedImage, ...]:
        """The images that are in the store, in their order."""
        return tuple(job.result for job in self.jobs if isinstance(job.result, SavedImage))

    @property
    def error(self) -> KlingOmniError | None:
        """Why an image is not in the store: the first error in their order, or None."""
        errors = (job.result for job in self.jobs if isinstance(job.result, KlingOmniError))
        return next(errors, None)

    @property
    def is_complete(self) -> bool:
        """Whether every image was saved or given up."""
        return all(job.result for job in self.jobs)

    def cancel(self) -> None:
        """Stop what is under way; nobody is told any more."""
        self.cancelled = True
        for job in self.jobs:
            if job.scope is not None:
                job.scope.cancel()
            if job.retry is not None:
                job.retry.cancel()


def redact_url(url: str) -> str:
    """Give a URL without its query and user info, which may be secrets."""
    address = url.partition("#")[0].partition("?")[0]
    scheme, mark, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}"
