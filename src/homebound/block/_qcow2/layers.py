"""The layers of a disk: an image over its backing file, which is another image or raw. They block.

A layer reads inside its size only. What begins with `try_` uses what is in memory, in any thread,
while the disk's gate keeps the descriptors open.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

from .._extent import Extent, merged
from .clusters import Clusters
from .mapping import Kind, Mapping

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._rawfile import RawFile
    from .header import Header
    from .mapping import Run
    from .tables import Tables

_MOST_RUNS = 32  # of an attempt: more take too long for a home
_MOST_FOUND = 1 << 18  # runs that are looked at for extents: a damaged image may have any number
_MOST_CACHED = 1 << 12  # runs that are read ahead


class Layer(Protocol):
    """The layer below an image."""

    size: int

    def try_read_into(self, offset: int, part: memoryview) -> bool: ...
    def read_into(self, offset: int, part: memoryview) -> None: ...
    def block_status(self, offset: int, length: int) -> list[Extent]: ...
    def cache(self, offset: int, length: int) -> None: ...
    def files(self) -> Iterator[RawFile]: ...


class RawLayer:
    """The bytes of a file."""

    def __init__(self, file: RawFile) -> None:
        self._file = file
        self.size = file.size
        self.read_into = file.read_into
        self.block_status = file.block_status
        self.cache = file.cache

    def try_read_into(self, offset: int, part: memoryview) -> bool:
        """Fill `part` at once, from the page cache; False if that cannot be."""
        return _try_read(self._file, offset, part)

    def files(self) -> Iterator[RawFile]:
        """Return the files of this layer and those below."""
        yield self._file


class ImageLayer:
    """A qcow2 image, and the layer below."""

    def __init__(
        self, header: Header, file: RawFile, tables: Tables, number: int, below: Layer | None
    ) -> None:
        self.size: int = header.size
        self._file = file
        self._cluster = header.cluster_size
        self._mapping = Mapping(header, file, tables, number)
        self._clusters = Clusters(header, self._mapping)
        self._below = below

    def files(self) -> Iterator[RawFile]:
        """Return the files of this layer and those below."""
        yield self._file
        if self._below is not None:
            yield from self._below.files()

    # Reading.

    def try_read_into(self, offset: int, part: memoryview) -> bool:
        """Fill `part` at once, from memory; False if that cannot be."""
        stop = offset + len(part)
        for _ in range(_MOST_RUNS):
            run = self._mapping.find(offset, stop, wait=False)
            if run is None or not self._try_run(run, offset, part[: run[1]]):
                return False
            offset += run[1]
            if offset >= stop:
                return True
            part = part[run[1] :]
        return False

    def _try_run(self, run: Run, offset: int, part: memoryview) -> bool:
        kind, _, where = run
        if kind is Kind.DATA:
            return _try_read(self._file, where, part)
        if kind is Kind.COMPRESSED:
            cluster = self._clusters.find(where)
            if cluster is None:
                return False
            within = offset & (self._cluster - 1)
            part[:] = memoryview(cluster)[within : within + len(part)]
            return True
        below, inside = self._share(kind, offset, len(part))
        if below is not None and inside and not below.try_read_into(offset, part[:inside]):
            return False
        part[inside:] = bytes(len(part) - inside)
        return True

    def read_into(self, offset: int, part: memoryview) -> None:
        """Fill `part`. Raises DiskError if the image is damaged, OSError if it cannot be read."""
        for run in self._runs(offset, offset + len(part)):
            self._read_run(run, offset, part[: run[1]])
            offset += run[1]
            part = part[run[1] :]

    def _read_run(self, run: Run, offset: int, part: memoryview) -> None:
        kind, _, where = run
        if kind is Kind.DATA:
            inside = max(0, min(len(part), self._file.size - where))
            self._file.read_into(min(where, self._file.size), part[:inside])
        elif kind is Kind.COMPRESSED:
            within = offset & (self._cluster - 1)
            cluster = self._clusters.read(where, keep=len(part) < self._cluster)
            inside = len(part)
            part[:] = memoryview(cluster)[within : within + inside]
        else:
            below, inside = self._share(kind, offset, len(part))
            if below is not None and inside:
                below.read_into(offset, part[:inside])
        part[inside:] = bytes(len(part) - inside)

    def _share(self, kind: Kind, offset: int, length: int) -> tuple[Layer | None, int]:
        """Return the layer below if a run is that one's, and how much of it is not zeroes."""
        below = self._below
        if kind is not Kind.BACKING or below is None:
            return None, 0
        return below, max(0, min(length, below.size - offset))

    def _runs(self, offset: int, stop: int) -> Iterator[Run]:
        while offset < stop:
            run = self._mapping.find(offset, stop, wait=True)
            assert run is not None
            yield run
            offset += run[1]

    # Describing.

    def block_status(self, offset: int, length: int) -> list[Extent]:
        """Return how the range is stored. What takes too long to find out is said to be data."""
        found: list[Extent] = []
        stop = offset + length
        for count, run in enumerate(self._runs(offset, stop)):
            if count >= _MOST_FOUND or len(found) >= _MOST_FOUND:
                found.append(Extent(stop - offset))
                break
            found += self._status(run, offset)
            offset += run[1]
        return merged(found)

    def _status(self, run: Run, offset: int) -> list[Extent]:
        kind, length, where = run
        if kind is Kind.DATA:
            inside = max(0, min(length, self._file.size - where))
            found = self._file.block_status(where, inside) if inside else []
            return [*found, Extent(length - inside, hole=True, zero=True)]
        if kind is Kind.COMPRESSED:
            return [Extent(length)]
        below, inside = self._share(kind, offset, length)
        found = below.block_status(offset, inside) if below is not None and inside else []
        return [*found, Extent(length - inside, hole=kind is not Kind.KEPT, zero=True)]

    def cache(self, offset: int, length: int) -> None:
        """Have the kernel read data ahead, as far as that is found out soon."""
        for count, (kind, part, where) in enumerate(self._runs(offset, offset + length)):
            if count >= _MOST_CACHED:
                return
            below, inside = self._share(kind, offset, part)
            if kind is Kind.DATA:
                self._file.cache(where, max(0, min(part, self._file.size - where)))
            elif below is not None and inside:
                below.cache(offset, inside)
            offset += part


def _try_read(file: RawFile, offset: int, part: memoryview) -> bool:
    flags = file.nowait
    if flags is None:
        return False
    try:
        return os.preadv(file.fd, (part,), offset, flags) == len(part)
    except BlockingIOError:
        return False
