"""The pages of L1 and L2 tables that are in memory, of all images of a chain. Any thread.

A page is replaced, never changed. The dict is in the order in which pages were read, and the
oldest goes first: what is in use comes back with one read of the page cache.
"""

from __future__ import annotations

import sys
from array import array
from typing import TYPE_CHECKING, Final

from ..._os.guard import new_guard

if TYPE_CHECKING:
    from .._rawfile import RawFile

PAGE: Final = 16 << 10  # bytes; less where a cluster is less
MOST_PAGES: Final = 512  # 8 MiB, for 64 GiB of disk in clusters of 64 KiB


class Tables:
    """Pages by image and offset, at most `MOST_PAGES` of them."""

    def __init__(self, most: int = MOST_PAGES) -> None:
        self._most = most
        self._pages: dict[tuple[int, int], array[int]] = {}
        self._guard = new_guard()  # for adding and dropping; reading needs none

    def __len__(self) -> int:
        return len(self._pages)

    def find(self, image: int, offset: int) -> array[int] | None:
        """Return a page that is in memory."""
        return self._pages.get((image, offset))

    def read(self, image: int, file: RawFile, offset: int, length: int) -> array[int]:
        """Return a page of numbers, read from the file if it is not in memory. Blocks."""
        page = self._pages.get((image, offset))
        if page is not None:
            return page
        data = bytearray(length)
        file.read_into(offset, memoryview(data))
        page = array("Q", bytes(data))
        if sys.byteorder == "little":
            page.byteswap()
        with self._guard:
            if len(self._pages) >= self._most:
                del self._pages[next(iter(self._pages))]
            self._pages[image, offset] = page
        return page
