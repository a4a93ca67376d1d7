"""Images that another store has, brought into the one where they are to be."""

from __future__ import annotations

import hashlib
from pathlib import Path

import attrs
import pytest
from obstore.store import MemoryStore

from kling_omni_async import (
    ImageTask,
    SavedImage,
    StorageError,
    TaskImage,
    TaskOutcome,
    TaskStatus,
)
from kling_omni_async._saving.copies import base_name, copy_images, stem_of
from kling_omni_async._saving.files import LocalStore, PartialFile, Stored
from kling_omni_async._saving.object_store import RemoteStore
from kling_omni_async._saving.stores import SavePlan

from .image_files import big_png, jpeg, png
from .places import find, names_in

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """Take asyncio's own clock: obstore works in threads that no virtual clock knows."""
    return "asyncio"


def store_of(kind: str, folder: Path) -> LocalStore | RemoteStore:
    """Make a store."""
    return LocalStore(folder) if kind == "folder" else RemoteStore(MemoryStore())


async def put_as(store: LocalStore | RemoteStore, file: bytes, stem: str = "1-0") -> Stored:
    """Bring an image into a store."""
    part = await store.begin(stem, look=False)
    assert isinstance(part, PartialFile)
    return await store.keep(part, file, stem, overwrite=False)


def outcome_of(*stored: Stored) -> TaskOutcome:
    """Make the outcome of a task whose images were stored."""
    urls = [f"https://images.test/{number}" for number in range(len(stored))]
    task = ImageTask(
        task_id="1",
        status=TaskStatus.SUCCEED,
        images=tuple(TaskImage(url=url, index=index) for index, url in enumerate(urls)),
    )
    saved = tuple(
        SavedImage(url=url, **attrs.asdict(each)) for url, each in zip(urls, stored, strict=True)
    )
    return TaskOutcome(task_id="1", task=task, saved=saved)


@pytest.mark.parametrize("target", ["folder", "cloud"])
@pytest.mark.parametrize("source", ["folder", "cloud"])
async def test_images_are_copied_whole(source: str, target: str, tmp_path: Path) -> None:
    """They are the same, byte for byte, under the keys of the other store."""
    files = (png(), big_png(3_000_000), jpeg())
    there, here = store_of(source, tmp_path / "there"), store_of(target, tmp_path / "here")
    stored = [await put_as(there, file, f"1-{number}") for number, file in enumerate(files)]
    saved = await copy_images(outcome_of(*stored), there, SavePlan(here))
    assert [image.sha256 for image in saved] == [hashlib.sha256(each).hexdigest() for each in files]
    assert [image.url for image in saved] == [f"https://images.test/{each}" for each in range(3)]
    for number, image in enumerate(saved):
        assert await find(here, f"1-{number}") == Stored(
            image.key, len(files[number]), image.sha256, image.content_type
        )


async def test_what_is_there_is_not_copied(tmp_path: Path) -> None:
    """Unless it is to be replaced; what cannot be read then is told."""
    there, here = LocalStore(tmp_path / "there"), LocalStore(tmp_path / "here")
    outcome = outcome_of(await put_as(there, png()))
    stored = await put_as(here, jpeg())
    (saved,) = await copy_images(outcome, there, SavePlan(here))
    assert saved.sha256 == stored.sha256
    (saved,) = await copy_images(outcome, there, SavePlan(here, overwrite=True))
    assert saved.sha256 == hashlib.sha256(png()).hexdigest()
    assert names_in(tmp_path / "here") == ["1-0.png"]


@pytest.mark.parametrize("kind", ["folder", "cloud"])
async def test_what_has_gone_is_not_copied(kind: str, tmp_path: Path) -> None:
    """A missing image is told, and nothing half is left."""
    there, here = store_of(kind, tmp_path / "there"), LocalStore(tmp_path / "here")
    outcome = outcome_of(await put_as(LocalStore(tmp_path / "other"), png()))
    with pytest.raises(StorageError, match=r"1-0\.png"):
        await copy_images(outcome, there, SavePlan(here))
    assert names_in(tmp_path / "here") == []


async def test_what_has_changed_is_not_copied(tmp_path: Path) -> None:
    """Another image under the same name, or half of it, is not what was paid for."""
    there, here = LocalStore(tmp_path / "there"), LocalStore(tmp_path / "here")
    outcome = outcome_of(await put_as(there, png()))
    (tmp_path / "there" / "1-0.png").write_bytes(png()[:-1])
    with pytest.raises(StorageError, match="is not what was saved"):
        await copy_images(outcome, there, SavePlan(here))
    assert names_in(tmp_path / "here") == []


async def test_all_images_are_needed(tmp_path: Path) -> None:
    """Copies with a watermark do not stand for those without."""
    there, here = LocalStore(tmp_path / "there"), LocalStore(tmp_path / "here")
    outcome = outcome_of(await put_as(there, png()))
    with pytest.raises(StorageError, match="1-0-watermarked was not saved"):
        await copy_images(outcome, there, SavePlan(here, watermarked=True))
    with pytest.raises(StorageError, match="1-0 was not saved"):
        await copy_images(attrs.evolve(outcome, saved=()), there, SavePlan(here))
    assert await copy_images(attrs.evolve(outcome, task=None), there, SavePlan(here)) == ()


def test_the_name_of_a_key() -> None:
    """Keys are paths of any system, or of an object store."""
    assert base_name("C:\\images\\1-0.png") == base_name("run/7/1-0.png") == "1-0.png"
    assert stem_of("run/7/1-0.png") == "1-0"
