"""Where a run saves images, and what an earlier run has saved there."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated, Final

import attrs
from cyclopts import Parameter

from kling_omni_async._outcome import TaskOutcome
from kling_omni_async._saving.formats import image_numbers, image_stem
from kling_omni_async._saving.stores import folder_of

from .cards import base_name
from .exit import Exit, OutputError

_FLAG: Final = Parameter(show_default=False)


@attrs.frozen(kw_only=True)
class Saving:
    """Where images are saved, and which.

    Attributes:
        save: Where to save images: a directory, or s3://bucket/prefix and the like.
        watermarked: Save the copies with the watermark instead.
        overwrite: Replace what is there under the names of images.
    """

    save: Annotated[str | None, Parameter(metavar="DIR|URL")] = None
    watermarked: Annotated[bool, _FLAG] = False
    overwrite: Annotated[bool, _FLAG] = False

    @property
    def folder(self) -> Path | None:
        """The directory, also that of a ``file:`` URL; None for a store or if nothing is saved.

        Raises:
            ConfigurationError: Nothing can be saved there.
        """
        return None if self.save is None else folder_of(self.save)

    def prepare(self) -> None:
        """Make the directory now, so that a wrong one is told before anything is asked.

        Raises:
            ConfigurationError: Nothing can be saved there.
            OutputError: It cannot be made.
        """
        if (folder := self.folder) is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except (OSError, ValueError) as error:  # the latter for what no path can hold
                raise OutputError(str(folder), error, code=Exit.USAGE) from None

    def is_done(self, outcome: TaskOutcome) -> bool:
        """Whether all images of an outcome in a journal are saved, as far as that can be seen.

        Files are looked for; for a URL the journal is believed.
        """
        if self.save is None or outcome.task is None or not outcome.ok:
            return True
        names = {
            PurePosixPath(name).stem: name
            for name in (base_name(each.key) for each in outcome.saved)
        }
        images, folder = outcome.task.images, self.folder
        return all(
            _is_there(folder, names.get(self._stem_of(outcome.task_id, number)))
            for number in image_numbers(images)
        )

    def _stem_of(self, task_id: str, number: int) -> str:
        return image_stem(task_id, number, watermarked=self.watermarked)


def _is_there(folder: Path | None, name: str | None) -> bool:
    return name is not None and (folder is None or (folder / name).is_file())
