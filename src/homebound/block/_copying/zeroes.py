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
    start, zero = 0, False
    if length and 0 not in data[0:length:block_size]:  # no block begins with a zero
        yield 0, length, False
        return
    zeroes = bytes(block_size)
    for block in range(0, length, block_size):
        if length - block < block_size:
            zeroes = bytes(length - block)  # the last block
        is_zero = data.startswith(zeroes, block)
        if block and is_zero != zero:
            yield start, block, zero
            start = block
        zero = is_zero
    if length:
        yield start, length, zero


def first_nonzero(data: bytearray, length: int) -> int | None:
    """Return the index of the first byte that is not zero, None if all `length` are."""
    for start, stop, zero in runs_of(data, length):
        if not zero:
            part = data[start:stop]
            return start + len(part) - len(part.lstrip(b"\0"))
    return None
