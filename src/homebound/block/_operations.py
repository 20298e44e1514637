"""The operations of a disk as a type: the same calls, awaited or blocking."""

from __future__ import annotations

from typing import Protocol, TypeVar

Buffer = bytes | bytearray | memoryview
T_co = TypeVar("T_co", covariant=True)


class Operations(Protocol[T_co]):
    """The calls that carry out requests. Each returns a coroutine, or blocks and returns None.

    Both kinds take the same arguments, so that the code that carries out requests is written once.
    """

    def read_into(self, offset: int, buffer: memoryview, /) -> T_co: ...
    def write(self, offset: int, data: Buffer, /, *, fua: bool = False) -> T_co: ...
    def flush(self) -> T_co: ...
    def trim(self, offset: int, length: int, /, *, fua: bool = False) -> T_co: ...
    def write_zeroes(
        self, offset: int, length: int, /, *, fua: bool = False, no_hole: bool = False
    ) -> T_co: ...
