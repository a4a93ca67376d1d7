"""CometAPI's Kling Omni image routes on a local port: no key, no money, no waiting.

:class:`SimulatedCometAPI` is a real HTTP server in the running event loop. Its tasks live by the
loop's clock, its images are real PNG files, and it fails in whatever way a test asks for.

A pytest fixture comes with it: see :mod:`kling_omni_async.simulator.pytest_plugin`.
"""

from __future__ import annotations

from ._log import BilledTask, ImageRequest, Query
from ._simulator import SimulatedCometAPI

__all__ = ["BilledTask", "ImageRequest", "Query", "SimulatedCometAPI"]
