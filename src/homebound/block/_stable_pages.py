"""Stable pages: whether a write waits while the page that it changes is written back.

It does where the device, or what stands before it, computes checksums of the data on its way. The
kernel tells that of block devices.
"""

from __future__ import annotations

import os
import stat


def has_stable_pages(fd: int) -> bool:
    """Return whether writes to an image wait for its pages' write-back; True if it is unknown."""
    about = os.fstat(fd)
    device = about.st_rdev if stat.S_ISBLK(about.st_mode) else about.st_dev
    where = f"/sys/dev/block/{os.major(device)}:{os.minor(device)}"
    for queue in ("queue", "../queue"):  # of a disk; of a partition's disk
        try:
            with open(f"{where}/{queue}/stable_writes", "rb") as file:  # noqa: PTH123  (speed)
                return file.read().strip() != b"0"
        except OSError:
            continue
    return True
