"""A window of a disk beside a bytearray: whatever is done to both, they hold the same."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable

    from ...block import Disk

WINDOW = 300_000  # bytes of a disk that are looked at, at its beginning and at its end
EDGES = (0, 1, 2, 511, 512, 513, 4095, 4096, 4097, 8192, 65535, 65536, 65537, 131_073)


class Model:
    """The bytes `start` to `stop` of a disk, as they should be. Offsets are the disk's."""

    def __init__(self, disk: Disk, start: int, stop: int) -> None:
        self.disk = disk
        self.start = start
        self.stop = stop
        self.data = bytearray(stop - start)
        self._stamp = 0

    async def load(self) -> Model:
        """Begin with what the disk holds."""
        self.data[:] = await read(self.disk, self.start, self.stop - self.start)
        return self

    def part(self, offset: int, length: int) -> bytearray:
        """Return the bytes that should be there."""
        return self.data[offset - self.start : offset - self.start + length]

    def set(self, offset: int, data: bytes | bytearray) -> None:
        """Expect these bytes from now on."""
        self.data[offset - self.start : offset - self.start + len(data)] = data

    def pattern(self, length: int) -> bytes:
        """Bytes that tell a write from the others, and its beginning from its middle."""
        self._stamp += 1
        period = bytes((self._stamp * 31 + n * 7) % 255 + 1 for n in range(251))
        return (period * (length // len(period) + 1))[:length]

    def fit(self, offset: int, length: int) -> tuple[int, int]:
        """Return the range moved inside the window, to what the disk's blocks and limits allow."""
        disk, granule = self.disk, self.disk.minimum_block
        first = -(-self.start // granule) * granule
        offset = min(max(offset // granule * granule, first), self.stop)
        length = -(-length // granule) * granule
        if disk.maximum_transfer is not None:
            length = min(length, disk.maximum_transfer)
        return offset, min(length, (self.stop - offset) // granule * granule)

    def edges(self) -> list[tuple[int, int]]:
        """Ranges of all alignments: about blocks and pages, at both ends, empty, and all."""
        size = self.stop - self.start
        offsets = [*EDGES, *(size - edge for edge in EDGES)]
        lengths = [*EDGES, size]
        ranges = {
            self.fit(self.start + offset, length)
            for offset in offsets
            for length in lengths
            if 0 <= offset <= size
        }
        return sorted(ranges)

    def some(self, rng: random.Random) -> tuple[int, int]:
        """Return a random range, large or small."""
        size = self.stop - self.start
        offset = rng.choice([rng.randrange(size), *EDGES])
        length = rng.choice([rng.randrange(size), rng.randrange(5000), *EDGES])
        return self.fit(self.start + offset, length)

    async def check(self, what: str) -> None:
        """Raise AssertionError unless the disk holds what it should."""
        self.compare(self.start, await read(self.disk, self.start, len(self.data)), what)

    def compare(self, offset: int, found: Any, what: str) -> None:
        """Raise AssertionError unless this is what should be there."""
        expected = self.part(offset, len(found))
        if found == expected:
            return
        at = next(
            n for n, pair in enumerate(zip(found, expected, strict=True)) if pair[0] != pair[1]
        )
        raise AssertionError(
            f"{what}: at {offset + at} there is {bytes(found[at : at + 16])!r}, "
            f"not {bytes(expected[at : at + 16])!r}"
        )


async def models(disk: Disk) -> list[Model]:
    """Return the windows of the whole disk, or of both ends of a large one."""
    if disk.size <= 2 * WINDOW:
        return [await Model(disk, 0, disk.size).load()]
    granule = disk.minimum_block
    end = (disk.size - WINDOW) // granule * granule
    first, last = Model(disk, 0, WINDOW // granule * granule), Model(disk, end, disk.size)
    return [await first.load(), await last.load()]


async def read(disk: Disk, offset: int, length: int, most: int | None = None) -> bytearray:
    """Read, in as many pieces as the disk wants, of at most `most` bytes."""
    most = min(most or max(length, 1), disk.maximum_transfer or max(length, 1))
    data = bytearray()
    while len(data) < length:
        data += await disk.read(offset + len(data), min(most, length - len(data)))
    return data


async def refused(operation: Callable[[], Awaitable[object]], what: str, *numbers: int) -> None:
    """Raise AssertionError unless it raises an OSError, of one of these kinds if any are named."""
    try:
        await operation()
    except OSError as error:
        if numbers and error.errno not in numbers:
            names = [errno.errorcode[number] for number in numbers]
            raise AssertionError(f"{what}: {error!r} is none of {names}") from error
        return
    except Exception as error:
        raise AssertionError(f"{what}: {error!r} is no OSError") from error
    raise AssertionError(f"{what}: it was not refused")
