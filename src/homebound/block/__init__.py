"""Disks: an image, memory, and what else has bytes at offsets."""

from __future__ import annotations

from .._os.public_names import publish as _publish
from ._disk import BlockingDisk as BlockingDisk
from ._disk import Disk as Disk
from ._errors import DiskClosed as DiskClosed
from ._errors import DiskError as DiskError
from ._errors import DiskReadOnly as DiskReadOnly
from ._errors import ImageError as ImageError
from ._errors import OutOfRange as OutOfRange
from ._file import FileDisk as FileDisk
from ._memory import MemoryDisk as MemoryDisk

_publish(globals())
