"""Zeroes to write where a disk has no quicker way to zero a range."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PIECE = 1 << 20  # bytes of zeroes written at once
_ZEROES = memoryview(bytes(PIECE))


def zero_pieces(offset: int, length: int, most: int = PIECE) -> Iterator[tuple[int, memoryview]]:
    r"""Divide a range into pieces of at most `most` bytes: the offset of each, and its zeroes.

    >>> from homebound.block._zeroes import zero_pieces
    >>> [(at, bytes(zeroes)) for at, zeroes in zero_pieces(10, 5, 3)]
    [(10, b'\x00\x00\x00'), (13, b'\x00\x00')]
    """
    end, most = offset + length, min(most, PIECE)
    for at in range(offset, end, most):
        yield at, _ZEROES[: min(most, end - at)]
