"""The disk below an overlay, as long as the overlay: zeroes past its end, any alignment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._extent import Extent

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._disk import Disk


_AT_ONCE = 256 << 10  # bytes that may be attempted inside an operation


class Below:
    """Reads of a disk that never changes, at offsets that may lie past its end. Any home."""

    __slots__ = ("disk",)

    def __init__(self, disk: Disk) -> None:
        self.disk = disk

    def try_read_into(self, offset: int, part: memoryview) -> bool:
        """Fill `part` at once; False if that needs a wait, or lies across the end."""
        disk = self.disk
        if offset >= disk.size:
            part[:] = bytes(len(part))
            return True
        granule = disk.minimum_block
        if offset + len(part) > disk.size or (granule > 1 and (offset | len(part)) % granule):
            return False
        return disk.try_read_into(offset, part)

    async def read_into(self, offset: int, part: memoryview) -> None:
        """Fill `part`."""
        if len(part) <= _AT_ONCE and self.try_read_into(offset, part):
            return
        inside = max(0, min(len(part), self.disk.size - offset))
        part[inside:] = bytes(len(part) - inside)
        if not inside:
            return
        start, stop = self.whole(offset, inside)
        if (start, stop) == (offset, offset + inside):
            await self._read(offset, part[:inside])
        else:
            data = bytearray(stop - start)
            await self._read(start, memoryview(data))
            part[:inside] = data[offset - start : offset - start + inside]

    async def block_status(self, offset: int, length: int) -> list[Extent]:
        """Extents; what is past the end is a hole."""
        inside = max(0, min(length, self.disk.size - offset))
        hole = Extent(length - inside, hole=True, zero=True)
        if not inside:
            return [hole]
        start, stop = self.whole(offset, inside)
        found = await self.disk.block_status(start, stop - start)
        return [*_cut(found, offset - start, inside), hole]

    async def cache(self, offset: int, length: int) -> None:
        """Have the disk read ahead what it has."""
        inside = min(length, self.disk.size - offset)
        if inside > 0:
            start, stop = self.whole(offset, inside)
            await self.disk.cache(start, stop - start)

    def whole(self, offset: int, length: int) -> tuple[int, int]:
        """Return where the blocks of a range begin and end; the disk takes whole blocks only."""
        granule = self.disk.minimum_block
        end = -(-(offset + length) // granule) * granule
        return offset // granule * granule, min(self.disk.size, end)

    async def _read(self, offset: int, part: memoryview) -> None:
        """Fill `part` with requests that are not too large for the disk."""
        most = self.most(len(part))
        for at in range(0, len(part), most):
            await self.disk.read_into(offset + at, part[at : at + most])

    def most(self, length: int) -> int:
        """Return how much of `length` bytes one request may be about, in whole blocks."""
        granule = self.disk.minimum_block
        most = min(length, self.disk.maximum_transfer or length)
        return max(granule, most // granule * granule)


def _cut(extents: Iterable[Extent], skip: int, length: int) -> list[Extent]:
    """Return what the extents say of `length` bytes after the first `skip`."""
    found: list[Extent] = []
    for extent in extents:
        taken = min(extent.length - skip, length)
        skip = max(0, skip - extent.length)
        if taken > 0:
            found.append(Extent(taken, extent.hole, extent.zero))
            length -= taken
    return found
