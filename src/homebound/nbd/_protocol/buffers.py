"""Large buffers, pooled among the connections of one thread.

A connection holds one only while it contains data, so a thousand idle connections need none. The
buffers are anonymous memory maps rather than bytearrays: the kernel allocates a page when it is
first touched, so a client that announces 32 MiB and sends one byte costs one page.
"""

from __future__ import annotations

import mmap

BUFFER_SIZE = 4 << 20  # bytes
_KEPT = 4  # free buffers that a pool keeps for reuse


def new_buffer(size: int) -> memoryview:
    """Map `size` bytes of zeroed memory, at least 1; freed with the last view of it."""
    return memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


class BufferPool:
    """A pool of buffers of `size` bytes, with the contents of their last use.

    Used by one home thread only, so it needs no lock.
    """

    __slots__ = ("_free", "size")

    def __init__(self, size: int = BUFFER_SIZE) -> None:
        self.size = size
        self._free: list[memoryview] = []

    def take(self) -> memoryview:
        """Take a buffer for exclusive use until `give_back`."""
        return self._free.pop() if self._free else new_buffer(self.size)

    def give_back(self, buffer: memoryview) -> None:
        """Return `buffer` to the pool. No view of it may be left in use."""
        if len(self._free) < _KEPT:
            self._free.append(buffer)
