"""Extents: how a range of a disk is stored, as in NBD's base:allocation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Extent:
    """`length` bytes that are stored alike: `hole` takes no storage, `zero` reads as zeroes.

    >>> from homebound.block import Extent
    >>> Extent(4096, hole=True, zero=True)
    Extent(length=4096, hole=True, zero=True)

    Called from: any thread.
    """

    length: int
    hole: bool = False
    zero: bool = False


def merged(extents: Iterable[Extent]) -> list[Extent]:
    """Return the same extents with equal neighbours joined, and without empty ones."""
    found: list[Extent] = []
    for extent in extents:
        if not extent.length:
            continue
        if found and (found[-1].hole, found[-1].zero) == (extent.hole, extent.zero):
            length = found[-1].length + extent.length
            found[-1] = Extent(length, extent.hole, extent.zero)
        else:
            found.append(extent)
    return found
