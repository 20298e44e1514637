"""Zeroes in data that was read: what a copy need not write."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = 4096  # bytes; the shortest run that is looked for, and a file system's usual block


def runs_of(
    data: bytearray, length: int, block_size: int = BLOCK
) -> Iterator[tuple[int, int, bool]]:
    """Divide the first `length` bytes in runs of blocks: (start, stop, whether they are zeroes).

    >>> from homebound.block._copying.zeroes import runs_of
    >>> list(runs_of(bytearray(b"x" + bytes(8191)), 8192))
    [(0, 4096, False), (4096, 8192, True)]
    """
    first = data[0:length:block_size]  # each block's first byte
    start, begins, zeroes = 0, first.find(0), bytes(block_size)
    while begins >= 0:
        block = begins * block_size
        end = block
        while end < length and data.startswith(zeroes[: length - end], end):
            end = min(length, end + block_size)
        if end > block:
            if start < block:
                yield start, block, False
            yield block, end, True
            start = end
        begins = first.find(0, max(begins + 1, -(-end // block_size)))
    if start < length:
        yield start, length, False


def first_nonzero(data: bytearray, length: int) -> int | None:
    """Return the index of the first byte that is not zero, None if all `length` are."""
    for start, stop, zero in runs_of(data, length):
        if not zero:
            part = data[start:stop]
            return start + len(part) - len(part.lstrip(b"\0"))
    return None
