"""Large buffers that the connections of one thread take turns with.

A connection holds one only while there is something in it, so a thousand idle connections need as
many as one busy connection does. Anonymous memory maps rather than bytearrays: the kernel provides
their pages as they are first touched, so that a client which announces 32 MiB and sends one byte
costs one page.
"""

from __future__ import annotations

import mmap

BUFFER_SIZE = 4 << 20  # bytes
_KEPT = 4  # free buffers that a pool keeps for the next taker


def new_buffer(size: int) -> memoryview:
    """Zeroed memory of `size` bytes, at least 1; unmapped when the last view of it goes."""
    return memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


class BufferPool:
    """Buffers of `size` bytes. What is in them is left over from earlier use.

    Used by one home thread only, so it needs no lock.
    """

    __slots__ = ("_free", "size")

    def __init__(self, size: int = BUFFER_SIZE) -> None:
        self.size = size
        self._free: list[memoryview] = []

    def take(self) -> memoryview:
        """A buffer that nobody else uses until it is given back."""
        return self._free.pop() if self._free else new_buffer(self.size)

    def give_back(self, buffer: memoryview) -> None:
        """Let others have it. The giver has no view of it left, and nobody it lent it to has."""
        if len(self._free) < _KEPT:
            self._free.append(buffer)
