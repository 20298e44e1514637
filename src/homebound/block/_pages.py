"""The pages of an anonymous mapping that have been written to, by the kernel's page table.

/proc/self/pagemap has 8 bytes a page. A page that is neither present nor swapped out was never
written, and reads as zeroes. One that is present, but not mapped exclusively, is the kernel's page
of zeroes (it was read, never written) or shared with a forked process: its bytes tell which.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import sys
from itertools import pairwise
from typing import TYPE_CHECKING

from ._extent import Extent, merged
from ._pace import in_pieces

if TYPE_CHECKING:
    from collections.abc import Callable

_PAGE = mmap.PAGESIZE
_ENTRY = 8  # bytes
_PRESENT, _SWAPPED, _EXCLUSIVE = 0x80, 0x40, 0x01  # bits of an entry's highest byte
_HIGHEST = slice(_ENTRY - 1, None, _ENTRY) if sys.byteorder == "little" else slice(0, None, _ENTRY)
_UNTOUCHED, _WRITTEN, _UNSURE = b"-", b"W", b"?"
_STEP = 64 << 20  # bytes whose pages are looked up at a time, at most; in about a millisecond
_PIECE = 1 << 20  # bytes that are compared with zeroes at a time


def _kind(entry: int) -> bytes:
    if entry & _SWAPPED or (entry & _PRESENT and entry & _EXCLUSIVE):
        return _WRITTEN
    return _UNSURE if entry & _PRESENT else _UNTOUCHED


_KINDS = b"".join(map(_kind, range(256)))
_RUN = re.compile(rb"-+|W+|\?+")


def address_of(pages: mmap.mmap) -> int:
    """Return where the mapping begins."""
    return ctypes.addressof(ctypes.c_char.from_buffer(pages))


async def in_steps(look: Callable[[int, int], list[Extent]], start: int, stop: int) -> list[Extent]:
    """Return what `look(offset, length)` finds in a large range, in slices of the running loop.

    How long a look takes depends on the pages: a client may make it hundreds of times as long.
    """
    found: list[Extent] = []

    def look_at(start: int, stop: int) -> None:
        found.extend(look(start, stop - start))

    await in_pieces(look_at, start, stop, piece=_STEP)
    return merged(found)


def extents_of(
    address: int, offset: int, length: int, read: Callable[[int, int], bytes]
) -> list[Extent]:
    """Return the extents of a range mapped at `address`; `read(start, stop)` gives its bytes.

    All is data where the kernel does not tell.
    """
    end = offset + length
    first, last = offset // _PAGE, -(-end // _PAGE)
    kinds = _kinds(address // _PAGE + first, last - first)
    if kinds is None:
        return [Extent(length)]
    found: list[Extent] = []
    for run in _RUN.finditer(kinds):
        start = max(offset, (first + run.start()) * _PAGE)
        stop = min(end, (first + run.end()) * _PAGE)
        if run[0][:1] == _UNSURE:
            found += _looked_at(start, stop, read)
        else:
            untouched = run[0][:1] == _UNTOUCHED
            found.append(Extent(stop - start, hole=untouched, zero=untouched))
    return merged(found)


def _kinds(page: int, count: int) -> bytes | None:
    """Return one letter a page; None where the kernel does not tell."""
    try:
        fd = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        entries = os.pread(fd, count * _ENTRY, page * _ENTRY)
    except OSError:
        return None
    finally:
        os.close(fd)
    if len(entries) < count * _ENTRY:
        return None
    return entries[_HIGHEST].translate(_KINDS)


def _looked_at(start: int, stop: int, read: Callable[[int, int], bytes]) -> list[Extent]:
    """Extents by the bytes themselves, page by page unless a whole piece is zeroes."""
    found: list[Extent] = []
    for piece in _cuts(start, stop, _PIECE):
        if _is_zero(read(*piece)):
            found.append(Extent(piece[1] - piece[0], hole=True, zero=True))
            continue
        for page in _cuts(*piece, _PAGE):
            zero = _is_zero(read(*page))
            found.append(Extent(page[1] - page[0], hole=zero, zero=zero))
    return found


def _cuts(start: int, stop: int, step: int) -> list[tuple[int, int]]:
    """Return the range cut at multiples of `step`."""
    inner = range((start // step + 1) * step, stop, step)
    return list(pairwise([start, *inner, stop]))


def _is_zero(data: bytes) -> bool:
    return data.count(0) == len(data)
