"""The header of a qcow2 image: bytes in, a checked `Header` out. It does no I/O."""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

MAGIC: Final = b"QFI\xfb"
LEAST: Final = 112  # bytes to look at first; those of version 2 may be followed by anything
ZLIB: Final = "zlib"
ZSTD: Final = "zstd"

_FIXED = struct.Struct(">4sIQIIQIIQQIIQ")  # version 2 ends here
_FEATURES = struct.Struct(">QQQII")  # version 3 goes on with these
_VERSION_3_END = _FIXED.size + _FEATURES.size
_EXTENSION = struct.Struct(">II")
_NAME_OF_FEATURE = struct.Struct(">BB46s")

_BACKING_FORMAT = 0xE2792ACA
_FEATURE_NAMES = 0x6803F857
_MOST_EXTENSIONS = 1000

_LEAST_CLUSTER_BITS, _MOST_CLUSTER_BITS = 9, 21
_LEAST_EXTENDED_BITS = 14  # 32 subclusters of 512 bytes
_LONGEST_NAME = 1023  # bytes of the backing file's name
_MOST_L1_BYTES = 32 << 20
_LARGEST = 1 << 62  # bytes of a disk; offsets stay far from 64 bits

_CORRUPT, _EXTERNAL, _COMPRESSION, _EXTENDED = 1, 2, 3, 4
_DIRTY = 0  # refcounts may be wrong, and no reader needs them
_KNOWN = sum(1 << bit for bit in (_DIRTY, _CORRUPT, _EXTERNAL, _COMPRESSION, _EXTENDED))
_ENCRYPTION = {1: "AES", 2: "LUKS"}
_COMPRESSION_TYPES = {0: ZLIB, 1: ZSTD}


class Refused(Exception):  # noqa: N818  (no error until the image's path is added)
    """A reason not to open an image, as the rest of a sentence about it."""

    def __init__(self, text: str, number: int = errno.EINVAL) -> None:
        super().__init__(text)
        self.number: int = number


@dataclass(frozen=True, slots=True)
class Header:
    """The fields of a header that a reader needs, checked against the size of the file."""

    version: int
    cluster_bits: int
    size: int  # of the disk, bytes
    l1_offset: int
    extended: bool  # entries of 128 bits, for subclusters
    compression: str
    backing_name: bytes | None
    backing_format: str | None

    @property
    def cluster_size(self) -> int:
        """The bytes of a cluster."""
        return 1 << self.cluster_bits

    @property
    def entries(self) -> int:
        """The entries of an L2 table."""
        return 1 << (self.cluster_bits - (4 if self.extended else 3))


def cluster_size_of(start: bytes) -> int:
    """Return the bytes of a cluster, which the header and its extensions are inside of.

    Raises Refused.
    """
    if not start.startswith(MAGIC):
        raise Refused("it is no qcow2 image: its first bytes do not say so")
    if len(start) < _FIXED.size:
        raise Refused("it is truncated: its header is not complete")
    _, version, _, _, bits, *_ = _FIXED.unpack_from(start)
    if version not in (2, 3):
        raise Refused(f"it is qcow2 of version {version}; versions 2 and 3 can be read")
    if not _LEAST_CLUSTER_BITS <= bits <= _MOST_CLUSTER_BITS:
        raise Refused(f"its clusters would have 2**{bits} bytes; 512 bytes to 2 MiB can be read")
    return 1 << int(bits)


def parse_header(first: bytes, file_size: int) -> Header:
    """Return what the image's first cluster says. Raises Refused."""
    cluster_size = cluster_size_of(first)
    fields = _FIXED.unpack_from(first)
    _, version, name_at, name_length, bits, size, encryption, l1_size, l1_at, *_ = fields
    incompatible, length = _features(first, version)
    _refuse_features(incompatible, first, length)
    if encryption:
        kind = _ENCRYPTION.get(encryption, f"method {encryption}")
        raise Refused(f"it is encrypted ({kind}), which is not supported", errno.ENOTSUP)
    extensions = dict(_extensions(first, length, name_at or len(first)))
    backing_format = extensions.get(_BACKING_FORMAT)
    header = Header(
        version=version,
        cluster_bits=bits,
        size=size,
        l1_offset=l1_at,
        extended=bool(incompatible >> _EXTENDED & 1),
        compression=_compression(first, incompatible, length),
        backing_name=_backing_name(first, name_at, name_length) if name_at else None,
        backing_format=backing_format.decode("latin-1") if backing_format is not None else None,
    )
    if header.extended and bits < _LEAST_EXTENDED_BITS:
        raise Refused(f"it is damaged: it has subclusters in clusters of {cluster_size} bytes")
    _check_l1(header, l1_size, file_size)
    return header


def _features(first: bytes, version: int) -> tuple[int, int]:
    """Return the incompatible features, and where the header ends."""
    if version == 2:  # noqa: PLR2004
        return 0, _FIXED.size
    if len(first) < _VERSION_3_END:
        raise Refused("it is truncated: its header is not complete")
    incompatible, _, _, _, length = _FEATURES.unpack_from(first, _FIXED.size)
    if not _VERSION_3_END <= length <= len(first) or length % 8:
        raise Refused(f"it is damaged: its header would have {length} bytes")
    return int(incompatible), int(length)


def _refuse_features(incompatible: int, first: bytes, length: int) -> None:
    if incompatible >> _CORRUPT & 1:
        text = "it is marked as corrupt; qemu-img check -r all may repair it"
        raise Refused(text, errno.EIO)
    if incompatible >> _EXTERNAL & 1:
        raise Refused("its data is in another file, which is not supported", errno.ENOTSUP)
    unknown = incompatible & ~_KNOWN
    if unknown:
        names = dict(_feature_names(first, length))
        bits = [bit for bit in range(64) if unknown >> bit & 1]
        found = ", ".join(f"{bit} ({names[bit]})" if bit in names else str(bit) for bit in bits)
        text = f"it uses features of qcow2 that are not supported: {found}"
        raise Refused(text, errno.ENOTSUP)


def _feature_names(first: bytes, length: int) -> Iterator[tuple[int, str]]:
    try:
        table = dict(_extensions(first, length, len(first))).get(_FEATURE_NAMES, b"")
    except Refused:
        return
    whole = len(table) // _NAME_OF_FEATURE.size * _NAME_OF_FEATURE.size
    for kind, bit, name in _NAME_OF_FEATURE.iter_unpack(table[:whole]):
        text = name.rstrip(b"\0").decode("ascii", "replace")
        if kind == 0 and text.isprintable():
            yield bit, text


def _extensions(first: bytes, at: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Return the header's extensions: their type and data."""
    end = min(end, len(first))
    for _ in range(_MOST_EXTENSIONS):
        if at + _EXTENSION.size > end:
            return
        kind, length = _EXTENSION.unpack_from(first, at)
        if not kind:
            return
        at += _EXTENSION.size
        if length > end - at:
            raise Refused("it is damaged: an extension of its header is longer than the room")
        yield kind, first[at : at + length]
        at += -(-length // 8) * 8
    raise Refused("it is damaged: its header has too many extensions")


def _compression(first: bytes, incompatible: int, length: int) -> str:
    number = first[_VERSION_3_END] if length > _VERSION_3_END else 0
    if bool(number) != bool(incompatible >> _COMPRESSION & 1):
        raise Refused("it is damaged: its header contradicts itself about compression")
    if number not in _COMPRESSION_TYPES:
        raise Refused(f"its compression, type {number}, is not supported", errno.ENOTSUP)
    return _COMPRESSION_TYPES[number]


def _backing_name(first: bytes, at: int, length: int) -> bytes | None:
    if not length:
        return None
    if length > _LONGEST_NAME or at + length > len(first):
        raise Refused("it is damaged: the name of its backing file is not in its first cluster")
    return first[at : at + length]


def _check_l1(header: Header, l1_size: int, file_size: int) -> None:
    size, each = header.size, header.entries << header.cluster_bits
    needed = -(-size // each)
    if size > _LARGEST or needed * 8 > _MOST_L1_BYTES:
        raise Refused(f"a disk of {size} bytes is too large for clusters of {header.cluster_size}")
    if l1_size < needed:
        raise Refused(f"it is damaged: its L1 table has {l1_size} entries of {needed}")
    if not needed:
        return
    if header.l1_offset % header.cluster_size:
        raise Refused(f"it is damaged: its L1 table, at {header.l1_offset}, is not at a cluster")
    if header.l1_offset + needed * 8 > file_size:
        raise Refused("it is truncated: its L1 table is not inside the file")
