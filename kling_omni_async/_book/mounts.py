"""Whether a folder lies on another machine, where SQLite's log does not work."""

from __future__ import annotations

import re
from pathlib import Path, PurePath
from typing import Final

MOUNTS: Final = Path("/proc/mounts")

_REMOTE: Final = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "coda", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs"}
    | {"nfs4", "ocfs2", "orangefs", "smb", "smb2", "smb3", "smbfs"}
    | {f"fuse.{kind}" for kind in ("cephfs", "glusterfs", "rclone", "s3fs", "sshfs")}
)
_OCTAL: Final = re.compile(r"\\([0-7]{3})")


def remote_kind(folder: PurePath, mounts: str) -> str | None:
    """Return the kind of file system that a folder lies on if it is of the network, else None.

    Args:
        folder: Absolute, without symbolic links.
        mounts: What is mounted, as in ``/proc/mounts``; of two at one place the later one counts.
    """
    best, kind = -1, ""
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:  # noqa: PLR2004 - device, place, kind
            continue
        place = PurePath(_OCTAL.sub(_character, fields[1]))
        if folder.is_relative_to(place) and len(place.parts) >= best:
            best, kind = len(place.parts), fields[2]
    return kind if kind in _REMOTE else None


def _character(found: re.Match[str]) -> str:
    return chr(int(found[1], 8))


def mounted() -> str:
    """Return what is mounted, or nothing where that cannot be read."""
    try:
        return MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""
