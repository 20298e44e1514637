"""The places of a disk's bytes in its image: the walk through L1 and L2 tables."""

from __future__ import annotations

import enum
import errno
from typing import TYPE_CHECKING, TypeAlias

from .._errors import DiskError
from .tables import PAGE

if TYPE_CHECKING:
    from array import array

    from .._rawfile import RawFile
    from .header import Header
    from .tables import Tables

_OFFSET = 0x00FF_FFFF_FFFF_FE00  # the bits of an entry that are an offset
_COMPRESSED = 1 << 62
_DESCRIPTOR = _COMPRESSED - 1
_ZERO = 1
_SUBCLUSTERS = 32


class Kind(enum.Enum):
    """The ways in which a range is stored."""

    BACKING = enum.auto()  # not here
    ZERO = enum.auto()
    KEPT = enum.auto()  # reads as zeroes, and has its place in the file
    DATA = enum.auto()
    COMPRESSED = enum.auto()


# How it is stored; for how many bytes; and where: the offset of DATA in the file, the descriptor of
# a COMPRESSED cluster.
Run: TypeAlias = tuple[Kind, int, int]


class Mapping:
    """The tables of one image. Any thread."""

    def __init__(self, header: Header, file: RawFile, tables: Tables, image: int) -> None:
        self.file = file
        self._header = header
        self._tables = tables
        self._image = image  # its number in the chain
        self._bits = header.cluster_bits
        self._size = header.cluster_size
        self._entries = header.entries
        self._width = 2 if header.extended else 1  # numbers of 64 bits in an L2 entry
        self._page = min(PAGE, header.cluster_size)
        self._look = self._in_subclusters if header.extended else self._in_cluster

    def damaged(self, text: str) -> DiskError:
        """Return the error for tables that cannot be."""
        return DiskError(errno.EIO, f"image {self.file.path!r} is damaged: {text}")

    def find(self, offset: int, stop: int, *, wait: bool) -> Run | None:
        """Return how the bytes from `offset` on are stored, as far as they are stored alike.

        A run ends no later than `stop`, and where its page of the table does. Without `wait` only
        tables in memory are used: None if those do not tell. Raises DiskError.
        """
        table, index = divmod(offset >> self._bits, self._entries)
        entry = self._number(self._header.l1_offset, table, wait=wait)
        if entry is None:
            return None
        at = entry & _OFFSET
        if not at:
            end = (table + 1) * self._entries << self._bits
            return Kind.BACKING, min(stop, end) - offset, 0
        if at % self._size or at + self._size > self.file.size:
            raise self.damaged(f"an L2 table would be at {at}")
        return self._in_table(at, index, offset, stop, wait=wait)

    def _number(self, table: int, index: int, *, wait: bool) -> int | None:
        """Return a number of the L1 table."""
        start, rest = divmod(index * 8, self._page)
        at = table + start * self._page
        page = self._tables.find(self._image, at)
        if page is None:
            if not wait:
                return None
            length = min(self._page, (self.file.size - at) // 8 * 8)
            page = self._tables.read(self._image, self.file, at, length)
        return page[rest // 8]

    def _in_table(
        self, table: int, index: int, offset: int, stop: int, *, wait: bool
    ) -> Run | None:
        start, rest = divmod(index * 8 * self._width, self._page)
        at = table + start * self._page
        page = self._tables.find(self._image, at)
        if page is None:
            if not wait:
                return None
            page = self._tables.read(self._image, self.file, at, self._page)
        n, width, size, look = rest // 8, self._width, self._size, self._look
        within = offset & (size - 1)
        kind, length, where = look(page, n, within)
        if kind is Kind.COMPRESSED:
            return kind, min(length, stop - offset), where
        # As long as the run reaches the end of its cluster, the next one may go on with it.
        end = offset + length
        while end < stop and not end & (size - 1):
            n += width
            if n >= len(page):
                break
            next_kind, length, next_where = look(page, n, 0)
            if next_kind is not kind or (kind is Kind.DATA and next_where != where + end - offset):
                break
            end += length
        return kind, min(end, stop) - offset, where

    def _in_cluster(self, page: array[int], n: int, within: int) -> Run:
        """Return how a cluster is stored from `within` on, to its end."""
        entry, left = page[n], self._size - within
        if entry & _COMPRESSED:
            return Kind.COMPRESSED, left, entry & _DESCRIPTOR
        at = entry & _OFFSET
        if entry & _ZERO:
            if self._header.version == 2:  # noqa: PLR2004
                raise self.damaged("it has zero clusters, which version 2 does not have")
            return Kind.KEPT if at else Kind.ZERO, left, 0
        if not at:
            return Kind.BACKING, left, 0
        self._check_data(at)
        return Kind.DATA, left, at + within

    def _in_subclusters(self, page: array[int], n: int, within: int) -> Run:
        """Return how subclusters are stored from `within` on, up to one of another kind."""
        entry, bitmap = page[n], page[n + 1]
        if entry & _COMPRESSED:
            return Kind.COMPRESSED, self._size - within, entry & _DESCRIPTOR
        if bitmap & bitmap >> _SUBCLUSTERS:
            raise self.damaged("a subcluster is both data and zeroes")
        size = self._size // _SUBCLUSTERS
        first = last = within // size
        state = bitmap >> first & (1 << _SUBCLUSTERS | 1)
        while last < _SUBCLUSTERS and bitmap >> last & (1 << _SUBCLUSTERS | 1) == state:
            last += 1
        left, at = last * size - within, entry & _OFFSET
        if not state:
            return Kind.BACKING, left, 0
        if state != 1:
            return Kind.KEPT if at else Kind.ZERO, left, 0
        if not at:
            raise self.damaged("a subcluster has data and no place")
        self._check_data(at)
        return Kind.DATA, left, at + within

    def _check_data(self, at: int) -> None:
        """Check the place of a cluster. The file may end in the last one, as others write it."""
        if at & (self._size - 1):
            raise self.damaged(f"a cluster would be at {at}")
        if at >= self.file.size:
            raise self.damaged(f"a cluster would be at {at}, behind the end of the file")
