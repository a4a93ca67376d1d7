"""Where a run saves images, and what an earlier run has saved there."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import attrs

from kling_omni_async._images import image_numbers, image_stem
from kling_omni_async._outcome import TaskOutcome

from ._cards import base_name
from ._exit import Exit, OutputError


@attrs.frozen(kw_only=True)
class Saving:
    """Where images are saved, and which.

    Attributes:
        save: The directory to save images to, or a URL such as s3://bucket/prefix, which needs
            the extra "storage". With a journal, ids whose images are saved are skipped.
        watermarked: Save the copies with the watermark instead.
        overwrite: Replace what is there under the names of images.
    """

    save: str | None = None
    watermarked: bool = False
    overwrite: bool = False

    @property
    def folder(self) -> Path | None:
        """The directory, or None for a URL or if nothing is saved."""
        return None if not self.save or "://" in self.save else Path(self.save)

    def prepare(self) -> None:
        """Make the directory now, so that a wrong one is told before anything is asked.

        Raises:
            OutputError: It cannot be made.
        """
        if self.folder is not None:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(str(self.folder), error, code=Exit.USAGE) from None

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
        images = outcome.task.images
        return all(
            self._is_there(names.get(self._stem_of(outcome.task_id, number)))
            for number in image_numbers(images)
        )

    def _stem_of(self, task_id: str, number: int) -> str:
        return image_stem(task_id, number, watermarked=self.watermarked)

    def _is_there(self, name: str | None) -> bool:
        return name is not None and (self.folder is None or (self.folder / name).is_file())
