"""Buffers of any kind as single bytes, so that the length of one is its number of bytes.

An array of four-byte integers, say, has a quarter as many items as bytes: a range checked against
its `len` would be exceeded by what is written.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

from .._core.coroutines import shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._operations import Buffer


def bytes_of(data: object, offset: object) -> Buffer:
    """Return the bytes that are to be written at `offset`. Raises TypeError, BufferError."""
    if type(data) is bytes or type(data) is bytearray:
        return data
    return _view(data, offset)


def room_in(buffer: object, offset: object) -> memoryview:
    """Return the memory to be filled from `offset` on. Raises TypeError, BufferError."""
    view = _view(buffer, offset)
    if view.readonly:
        message = f"a read fills a buffer, and {shown(buffer)} is read-only; use a bytearray's"
        raise TypeError(message)
    return view


def _view(data: Any, offset: object) -> memoryview:
    try:
        view = memoryview(data)
    except TypeError:
        message = f"first the offset, then the bytes; got {shown(offset)}, then {shown(data)}"
        raise TypeError(message) from None
    if not view.c_contiguous:
        raise BufferError(f"the bytes of {shown(data)} are not one after the other in memory")
    if view.format == "B" and view.ndim == 1:
        return view
    return view.cast("B") if view.nbytes else memoryview(bytearray())  # no shape with a 0 is cast


def fills(read_into: Any) -> Callable[..., Any]:
    """Return the operation `read_into`, for any buffer that can be filled."""

    @wraps(read_into)
    def with_room(self: Any, offset: int, buffer: Any) -> Any:
        return read_into(self, offset, room_in(buffer, offset))

    return with_room


def takes(write: Any) -> Callable[..., Any]:
    """Return the operation `write`, for the bytes of any buffer."""

    @wraps(write)
    def with_bytes(self: Any, offset: int, data: Any, **options: Any) -> Any:
        return write(self, offset, bytes_of(data, offset), **options)

    return with_bytes
