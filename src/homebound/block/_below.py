"""The disk below an overlay, as long as the overlay: zeroes past its end, any alignment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._extent import Extent

if TYPE_CHECKING:
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
        disk = self.disk
        inside = max(0, min(len(part), disk.size - offset))
        part[inside:] = bytes(len(part) - inside)
        if not inside:
            return
        granule = disk.minimum_block
        start = offset // granule * granule
        stop = min(disk.size, -(-(offset + inside) // granule) * granule)
        if (start, stop) == (offset, offset + inside):
            await disk.read_into(offset, part[:inside])
        else:
            data = await disk.read(start, stop - start)
            part[:inside] = data[offset - start : offset - start + inside]

    async def block_status(self, offset: int, length: int) -> list[Extent]:
        """Extents; what is past the end is a hole."""
        disk = self.disk
        inside = max(0, min(length, disk.size - offset))
        found = await disk.block_status(offset, inside) if inside else []
        return [*found, Extent(length - inside, hole=True, zero=True)]

    async def cache(self, offset: int, length: int) -> None:
        """Have the disk read ahead what it has."""
        inside = min(length, self.disk.size - offset)
        if inside > 0:
            await self.disk.cache(offset, inside)
