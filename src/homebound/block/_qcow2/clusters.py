"""Compressed clusters: decompressed in workers, a few of them kept for neighbouring reads."""

from __future__ import annotations

import errno
import importlib
import zlib
from typing import TYPE_CHECKING, Any, Final

from ..._os.guard import new_guard
from .header import ZLIB, Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._rawfile import RawFile
    from .header import Header
    from .mapping import Mapping

    Decompress = Callable[[bytes | bytearray, int], bytes]  # data, the most bytes to return

KEPT: Final = 4 << 20  # bytes of decompressed clusters, and two clusters at least
_SECTOR = 512
_LOCKS = 17  # a prime, so that clusters at round offsets do not share one
_WINDOW_BITS = 23  # a frame of zstd may ask for so much memory at most, and QEMU's for 21


def decompressor_of(compression: str) -> Decompress:
    """Return what decompresses that kind. Raises Refused where nothing can."""
    if compression == ZLIB:
        return _inflate
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return _zstd(importlib.import_module(name))
        except ImportError:
            continue
    text = "it is compressed with zstd, which needs Python 3.14 or pip install homebound[qcow2]"
    raise Refused(text, errno.ENOTSUP)


def _inflate(data: bytes | bytearray, most: int) -> bytes:
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, most)
    except zlib.error:
        return b""


def _zstd(module: Any) -> Decompress:
    options = {module.DecompressionParameter.window_log_max: _WINDOW_BITS}

    def decompress(data: bytes | bytearray, most: int) -> bytes:
        found = b""
        while data and len(found) < most:
            frame = module.ZstdDecompressor(options=options)
            try:
                part = frame.decompress(data, most - len(found))
            except module.ZstdError:
                break
            found += part
            if not frame.eof:
                break
            data = frame.unused_data
        return found

    return decompress


class Clusters:
    """The compressed clusters of one image. Any thread; `read` blocks."""

    def __init__(self, header: Header, mapping: Mapping) -> None:
        self._mapping = mapping
        self._file: RawFile = mapping.file
        self._size = header.cluster_size
        # The descriptor of a compressed cluster: its offset below, its sectors above.
        self._shift = 62 - (header.cluster_bits - 8)
        self._decompress = decompressor_of(header.compression)
        # Clusters by descriptor, the oldest first. Changed under the guard.
        self._kept: dict[int, bytes] = {}
        self._most = max(2, KEPT // self._size)
        self._guard = new_guard()
        # One of these is held while a cluster is decompressed, so that workers that want the same
        # one do it once. By workers only: a home asks for what is kept.
        self._locks = [new_guard() for _ in range(_LOCKS)]

    def find(self, descriptor: int) -> bytes | None:
        """Return a cluster that is kept."""
        return self._kept.get(descriptor)

    def read(self, descriptor: int, *, keep: bool) -> bytes:
        """Return a cluster, read and decompressed if it is not kept. Raises DiskError."""
        with self._locks[descriptor % _LOCKS]:
            found = self._kept.get(descriptor)
            if found is None:
                found = self._decompress(self._stored(descriptor), self._size)
                if len(found) != self._size:
                    raise self._mapping.damaged("a compressed cluster cannot be decompressed")
                if keep:
                    self._keep(descriptor, found)
        return found

    def _stored(self, descriptor: int) -> bytearray:
        """Return the bytes as they are in the file; the last sector may be cut off there."""
        offset = descriptor & ((1 << self._shift) - 1)
        length = ((descriptor >> self._shift) + 1) * _SECTOR - offset % _SECTOR
        if offset >= self._file.size:
            raise self._mapping.damaged(f"a compressed cluster would be at {offset}")
        data = bytearray(min(length, self._file.size - offset))
        self._file.read_into(offset, memoryview(data))
        return data

    def _keep(self, descriptor: int, cluster: bytes) -> None:
        with self._guard:
            if len(self._kept) >= self._most:
                del self._kept[next(iter(self._kept))]
            self._kept[descriptor] = cluster
