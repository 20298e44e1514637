"""A qcow2 image as a disk that can be read."""

from __future__ import annotations

import errno
import os
from functools import partial
from typing import TYPE_CHECKING

from .._blocking_disk import BlockingDisk
from .._errors import DiskClosed, DiskReadOnly, ImageError
from .._scans import scan
from .chain import Chain

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._extent import Extent
    from .._operations import Buffer
    from .layers import ImageLayer

_LEAST_PREFERRED, _MOST_PREFERRED = 4096, 64 << 10


class Qcow2Disk(BlockingDisk):
    r"""The disk in the qcow2 image at `path`, for reading only.

    Versions 2 and 3 are read, with clusters compressed by zlib or zstd (before Python 3.14 that
    takes `pip install homebound[qcow2]`), zero clusters and subclusters. Of internal snapshots
    there is only the present state. Encrypted images, those with their data in another file or
    with features that are not known, and those marked as corrupt are refused.

    Backing files, raw or qcow2, are opened too: the image names them, so it decides which files are
    read. Open an image that you do not trust with `backing=False`: then one with a backing file is
    refused. Writers of the images are locked out, as QEMU does it, unless `lock=False`.

    Raises ImageError if the image cannot be opened. Damage that is met later fails the reads that
    meet it: DiskError, EIO.

    >>> import tempfile, homebound
    >>> from homebound.block import ImageError, Qcow2Disk
    >>> with tempfile.NamedTemporaryFile() as image:
    ...     image.truncate(1 << 20)
    ...     try:
    ...         Qcow2Disk(image.name)
    ...     except ImageError as error:
    ...         print(str(error).partition(": ")[2])
    1048576
    it is no qcow2 image: its first bytes do not say so

    Called from: any thread.
    """

    shared_cache = True
    read_only = True

    def __init__(
        self, path: str | os.PathLike[str], *, backing: bool = True, lock: bool = True
    ) -> None:
        self.path: str = os.fspath(path)
        chain = Chain(self.path, backing=backing, lock=lock)
        self._image: ImageLayer = chain.top
        self._files = list(self._image.files())
        self._closed = False  # written once, by `close`
        self.size: int = chain.header.size
        if not self.size:
            self.close()
            text = f"cannot open image {self.path!r}: its disk has no bytes"
            raise ImageError(errno.EINVAL, text)
        cluster = chain.header.cluster_size
        self.preferred_block: int = max(_LEAST_PREFERRED, min(cluster, _MOST_PREFERRED))
        self.blocking: Calls = Calls(self, self._image)

    def __repr__(self) -> str:
        return f"<Qcow2Disk {self.path!r} ({self.size} bytes, read-only)>"

    @property
    def paths(self) -> list[str]:
        """The files that it is read from: the image, then its backing files.

        Called from: any thread.
        """
        return [file.path for file in self._files]

    def try_read_into(self, offset: int, buffer: memoryview) -> bool:
        """Read what is in memory: tables, data, decompressed clusters; False if a part is not.

        Called from: any thread.
        """
        if self._closed:
            raise DiskClosed(self)
        return not buffer or self._image.try_read_into(offset, buffer)

    async def cache(self, offset: int, length: int) -> None:
        """Have the kernel read the data of the range into its page cache.

        Called from: task.
        """
        await scan(partial(self.blocking.cache, offset, length))

    async def block_status(self, offset: int, length: int) -> list[Extent]:
        """Return data and zeroes as the tables have them, found in a worker.

        Of a range with more than 262,144 pieces the rest is said to be data.

        Called from: task.
        """
        return await scan(partial(self.blocking.block_status, offset, length))

    def close(self) -> None:
        """Close the image and its backing files, after all that uses them.

        Called from: any thread.
        """
        self._closed = True
        # For attempts, which use descriptors as they are.
        held = [file.hold() for file in self._files]
        for file in self._files:
            file.close()
        self._gate.retire(partial(_release, held))


def _release(held: list[Callable[[], None] | None]) -> None:
    for release in held:
        if release is not None:
            release()


class Calls:
    """The blocking calls of a disk. Any thread."""

    def __init__(self, disk: Qcow2Disk, image: ImageLayer) -> None:
        self._disk = disk
        self._image = image

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer`."""
        self._check(offset, len(buffer))
        self._image.read_into(offset, buffer)

    def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        """Refuse to write."""
        del fua
        self._refuse(offset, len(data))

    def flush(self) -> None:
        """Do nothing: nothing was written."""
        self._check_open()

    def trim(self, offset: int, length: int, *, fua: bool = False) -> None:
        """Refuse to trim."""
        del fua
        self._refuse(offset, length)

    def write_zeroes(
        self, offset: int, length: int, *, fua: bool = False, no_hole: bool = False
    ) -> None:
        """Refuse to write."""
        del fua, no_hole
        self._refuse(offset, length)

    def cache(self, offset: int, length: int) -> None:
        """Have the kernel read ahead."""
        self._check(offset, length)
        self._image.cache(offset, length)

    def block_status(self, offset: int, length: int) -> list[Extent]:
        """Return how the range is stored."""
        self._check(offset, length)
        return self._image.block_status(offset, length)

    def _check_open(self) -> None:
        if self._disk._closed:
            raise DiskClosed(self._disk)

    def _check(self, offset: int, length: int) -> None:
        self._check_open()
        self._disk.check_range(offset, length)

    def _refuse(self, offset: int, length: int) -> None:
        self._check(offset, length)
        raise DiskReadOnly(self._disk)
