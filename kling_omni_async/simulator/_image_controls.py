"""What a test or a demo does with the images of a simulator."""

from __future__ import annotations

from collections.abc import Mapping

from ._faults import Body, FaultPlan
from ._image_faults import ImageFault
from ._image_log import ImageRequest
from ._log import RequestLog
from ._tasks import Expiry, TaskBook


class ImageControls:
    """The part of a simulator that serves images, as its user sees it.

    Args:
        tasks: The tasks that make the images.
        log_size: How many requests are remembered.
    """

    def __init__(self, tasks: TaskBook, *, log_size: int) -> None:
        self._makers = tasks
        self._image_faults = FaultPlan[ImageFault]()
        self._image_log = RequestLog[ImageRequest](size=log_size)

    def fail_next_image(
        self,
        task_id: str | None = None,
        times: int | None = 1,
        *,
        index: int | None = None,
        status: int | None = None,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
        retry_after: float | str | None = None,
        cut_after: int | None = None,
        bytes_per_second: float | None = None,
        delay: float = 0.0,
        hang: bool = False,
        reset: bool = False,
        raw: bytes | None = None,
        content_length: int | None = None,
        html: bool = False,
        redirects: int = 0,
        redirect_to: str | None = None,
        size: int | None = None,
    ) -> None:
        """Spoil the next requests for images of one task, or of any.

        The order is that of :meth:`~SimulatedCometAPI.fail_next`, and so are the arguments that
        are not explained here. What follows from a redirect meets no fault.

        Args:
            task_id: The task, known or not; None for whichever is asked for next.
            times: How many requests are spoilt; None for all until :meth:`clear_image_faults`.
            index: The only image that is spoilt, from 0; None for any image.
            status: The HTTP status, 200 to 999.
            body: The body instead of the image.
            headers: Headers to add or to replace.
            retry_after: Seconds or an HTTP date for ``Retry-After``.
            cut_after: Send this many bytes of the body, then close.
            bytes_per_second: Send the body this slowly.
            delay: Seconds until anything else happens.
            hang: Never answer.
            reset: Reset the TCP connection instead of an answer.
            raw: Write these bytes as they are, then close.
            content_length: Announce this many bytes of body, send the true body, then close. What
                is more than was announced comes 0.1 s later.
            html: Answer with a web page under status 200.
            redirects: How many redirects, each to another path, lead to the true image.
            redirect_to: Redirect to this URL, as it stands.
            size: Answer with a PNG file of this many bytes, whether the image is there or not.

        Raises:
            TypeError: An argument is of a wrong type.
            ValueError: A value makes no sense, two arguments contradict each other, or nothing
                was said that goes wrong.
        """
        fault = ImageFault(
            index=index,
            status=status,
            body=body,
            headers=headers,
            retry_after=retry_after,
            cut_after=cut_after,
            bytes_per_second=bytes_per_second,
            delay=delay,
            hang=hang,
            reset=reset,
            raw=raw,
            content_length=content_length,
            html=html,
            redirects=redirects,
            redirect_to=redirect_to,
            size=size,
        )
        self._image_faults.add(task_id, fault, times)

    def clear_image_faults(self, task_id: str | None = None) -> None:
        """Drop the faults planned for the images of one task, or of all when None."""
        self._image_faults.clear(task_id)

    def expire_images(self, task_id: str | None = None, *, status: int = 404) -> None:
        """Make the images of a task unavailable for good; the task itself still answers.

        Args:
            task_id: The task; None for every task that exists now.
            status: The HTTP status that they answer with, 200 to 999; 403 comes with a body in
                XML, the others with none.

        Raises:
            KeyError: There is no such task.
            TypeError: ``status`` is no whole number.
            ValueError: ``status`` is out of range.
        """
        self._makers.expire_images(task_id, Expiry(status))

    @property
    def image_requests(self) -> tuple[ImageRequest, ...]:
        """The last requests for images in order of arrival, those in flight included."""
        return self._image_log.all()

    def image_requests_of(self, task_id: str) -> tuple[ImageRequest, ...]:
        """Return the last requests for images of one task, in order of arrival."""
        return self._image_log.of(task_id)

    async def wait_for_image_requests(self, count: int = 1, task_id: str | None = None) -> None:
        """Wait until so many requests for images have arrived, answered or not.

        Args:
            count: How many requests the log must hold.
            task_id: The task whose images they must ask for; None for any.
        """
        await self._image_log.arrivals(count, task_id)

    @property
    def image_downloads_peak(self) -> int:
        """How many requests for images have been in flight together, at most.

        A file up to 64 KiB takes no time unless a fault says so.
        """
        return self._image_log.in_flight_peak
