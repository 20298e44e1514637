"""Disks: an image, memory, and what else has bytes at offsets."""

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
from ._fault import Fault as Fault
from ._fault import FaultDisk as FaultDisk
from ._file import FileDisk as FileDisk
from ._fsspec.disk import FsspecDisk as FsspecDisk
from ._log import LogDisk as LogDisk
from ._memory import MemoryDisk as MemoryDisk
from ._open import open_disk as open_disk
from ._overlay import OverlayDisk as OverlayDisk
from ._overlay import OverlayInfo as OverlayInfo
from ._qcow2.disk import Qcow2Disk as Qcow2Disk
from ._scripts.errors import ScriptError as ScriptError
from ._slice import SliceDisk as SliceDisk
from ._throttle import ThrottleDisk as ThrottleDisk

_publish(globals())
