"""Disks: an image, memory, and what else has bytes at offsets.

Disks over other disks, in other formats or in scripts are loaded when their names are first used:
`homebound copy`, which needs none of them, would spend on them a tenth of what it takes to start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._os.public_names import listed as _listed
from .._os.public_names import loaded_later as _loaded_later
from .._os.public_names import publish as _publish
from ._blocking_disk import BlockingDisk as BlockingDisk
from ._disk import Disk as Disk
from ._errors import DiskClosed as DiskClosed
from ._errors import DiskError as DiskError
from ._errors import DiskReadOnly as DiskReadOnly
from ._errors import ImageError as ImageError
from ._errors import ImageLocked as ImageLocked
from ._errors import OutOfRange as OutOfRange
from ._extent import Extent as Extent
from ._file import FileDisk as FileDisk
from ._open import open_disk as open_disk

if TYPE_CHECKING:
    from ._fault import Fault as Fault
    from ._fault import FaultDisk as FaultDisk
    from ._fsspec.disk import FsspecDisk as FsspecDisk
    from ._log import LogDisk as LogDisk
    from ._memory import MemoryDisk as MemoryDisk
    from ._overlay import OverlayDisk as OverlayDisk
    from ._overlay import OverlayInfo as OverlayInfo
    from ._qcow2.disk import Qcow2Disk as Qcow2Disk
    from ._scripts.errors import ScriptError as ScriptError
    from ._slice import SliceDisk as SliceDisk
    from ._throttle import ThrottleDisk as ThrottleDisk

_LATER = {
    "Fault": "_fault",
    "FaultDisk": "_fault",
    "FsspecDisk": "_fsspec.disk",
    "LogDisk": "_log",
    "MemoryDisk": "_memory",
    "OverlayDisk": "_overlay",
    "OverlayInfo": "_overlay",
    "Qcow2Disk": "_qcow2.disk",
    "ScriptError": "_scripts.errors",
    "SliceDisk": "_slice",
    "ThrottleDisk": "_throttle",
}

__all__ = (
    "BlockingDisk",
    "Disk",
    "DiskClosed",
    "DiskError",
    "DiskReadOnly",
    "Extent",
    "Fault",
    "FaultDisk",
    "FileDisk",
    "FsspecDisk",
    "ImageError",
    "ImageLocked",
    "LogDisk",
    "MemoryDisk",
    "OutOfRange",
    "OverlayDisk",
    "OverlayInfo",
    "Qcow2Disk",
    "ScriptError",
    "SliceDisk",
    "ThrottleDisk",
    "open_disk",
)

if not TYPE_CHECKING:  # for a type checker, a module with this function has every attribute
    __getattr__ = _loaded_later(globals(), _LATER)
    __dir__ = _listed(globals())


_publish(globals(), __all__)
