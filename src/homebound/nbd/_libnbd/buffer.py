"""libnbd's Buffer: memory for the aio calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable


def view_of(memory: Any) -> memoryview:
    """Return the bytes of a Buffer, or of anything that has bytes."""
    if isinstance(memory, Buffer):
        memory = memory.to_buffer()
    return memoryview(memory).cast("B")


def writable(memory: Any) -> memoryview:
    """Return the bytes of a Buffer, or of anything else. Raises BufferError if they are fixed."""
    view = view_of(memory)
    if view.readonly:
        raise BufferError("it cannot be read into: its bytes are read-only")
    return view


class Buffer:
    """Memory of `len` bytes, or shared with an object of the caller's, for aio calls.

    >>> from homebound.nbd.libnbd import Buffer
    >>> Buffer.from_bytearray(b"abc").to_bytearray()
    bytearray(b'abc')

    Called from: any thread.
    """

    def __init__(self, len: int) -> None:  # noqa: A002  (libnbd's name)
        self._memory: Any = bytearray(len)

    @classmethod
    def from_buffer(cls, buf: Any) -> Buffer:
        """Make one that shares the memory of `buf`.

        Called from: any thread.
        """
        with memoryview(buf):
            made = cls(0)
        made._memory = buf
        return made

    @classmethod
    def from_bytearray(cls, ba: bytes | bytearray | Iterable[int]) -> Buffer:
        """Make one with a copy of what bytearray takes.

        Called from: any thread.
        """
        return cls.from_buffer(bytearray(ba))

    def to_buffer(self) -> Any:
        """Return the memory itself.

        Called from: any thread.
        """
        return self._memory

    def to_bytearray(self) -> bytearray:
        """Return a copy.

        Called from: any thread.
        """
        return bytearray(self._memory)

    def size(self) -> int:
        """Return the number of bytes.

        Called from: any thread.
        """
        return len(self)

    def __len__(self) -> int:
        return memoryview(self._memory).nbytes

    def is_zero(self, offset: int = 0, size: int = -1) -> bool:
        """Return whether all bytes of a range, by default of all, are zeroes.

        Called from: any thread.
        """
        view = memoryview(self._memory).cast("B")
        part = view[offset:] if size < 0 else view[offset : offset + size]
        return not any(part)


Memory = Buffer | bytes | bytearray | memoryview
