"""The functions of a script, by the names that they may have, and how they are called.

A script is a module with functions, or a class with methods. `read(offset, length)` and
`write(offset, data)` have their arguments in the order of `Disk`; `pread(length, offset)` and
`pwrite(data, offset)` in that of `os.pread`.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

from .base import shown
from .errors import failure_in, wrong

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_READS = ("read_into", "read", "pread")
_WRITES = ("write", "pwrite")
_ZEROES = ("zero", "write_zeroes")
_EXTENTS = ("extents", "block_status")
_LARGEST = (1 << 63) - 1


class Functions:
    """The functions of `owner`, a module or an object. Raises ScriptError if it can be no disk."""

    def __init__(self, path: str, owner: Any) -> None:
        self.path = path
        self._owner = owner
        self.read_name, self.read = self._first(_READS)
        self.write_name, self.write = self._first(_WRITES)
        self.fills = self.read_name == "read_into"
        self._length_first = self.read_name == "pread"
        self.flush = self._first(("flush",))[1]
        self.trim = self._first(("trim",))[1]
        self.zero = self._first(_ZEROES)[1]
        self.cache = self._first(("cache",))[1]
        self.extents = self._first(_EXTENTS)[1]
        self.close = self._first(("close",))[1]
        if self.read is None:
            text = "a disk needs read(offset, length), pread(length, offset) or"
            raise wrong(path, None, f"{text} read_into(offset, buffer); it defines none of them")
        found = (self.read, self.write, self.flush, self.trim, self.zero, self.cache, self.extents)
        self.defined = tuple(function for function in found if function is not None)
        self.is_async = any(map(inspect.iscoroutinefunction, self.defined))
        self.size = self._size()
        self.read_only = bool(getattr(owner, "read_only", False)) or self.write is None
        # Functions that take `fua` or `no_hole` see to it themselves.
        self._takes: dict[Any, set[str]] = {
            function: _keywords_of(function) & {"fua", "no_hole"}
            for function in (self.write, self.trim, self.zero)
            if function is not None
        }

    def attribute(self, name: str, default: Any) -> Any:
        """Return an attribute of the script, such as `preferred_block`."""
        return getattr(self._owner, name, default)

    def _first(self, names: tuple[str, ...]) -> tuple[str, Any]:
        for name in names:
            function = getattr(self._owner, name, None)
            if callable(function):
                return name, function
        return names[0], None

    def _size(self) -> int:
        size = getattr(self._owner, "size", None)
        if size is None:
            size = getattr(self._owner, "get_size", None)
        function = size if callable(size) else None
        if size is None:
            raise wrong(self.path, None, "a disk needs a size: a number, or size() returns it")
        if function is not None:
            size = self.call(function)
        if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= _LARGEST:
            if inspect.iscoroutine(size):
                size.close()
            what = f"size() returned {shown(size)}" if function else f"size is {shown(size)}"
            raise wrong(self.path, function, f"{what}; it must be a number of bytes")
        return size

    def call(self, function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        """Call a function of the script. Raises ScriptError."""
        try:
            return function(*arguments, **keywords)
        except (Exception, SystemExit) as error:
            raise failure_in(self.path, error) from error

    def wanted(self, function: Any, *, fua: bool, no_hole: bool = False) -> dict[str, bool]:
        """Return the keywords to call a function with, of those that it takes."""
        takes = self._takes[function]
        if not takes:
            return {}
        return {
            name: value for name, value in (("fua", fua), ("no_hole", no_hole)) if name in takes
        }

    def takes_fua(self, function: Any) -> bool:
        """Return whether a function puts its change on stable storage itself, if told to."""
        return "fua" in self._takes.get(function, ())

    def needs_flush(self, function: Any, *, fua: bool) -> bool:
        """Return whether a flush has to follow, for FUA."""
        return fua and self.flush is not None and not self.takes_fua(function)

    # The arguments, in the order of each name.

    def read_arguments(self, offset: int, buffer: memoryview) -> tuple[Any, Any]:
        """Return the arguments of the function that reads."""
        if self.fills:
            return offset, buffer
        length = len(buffer)
        return (length, offset) if self._length_first else (offset, length)

    def take_read(self, result: Any, offset: int, buffer: memoryview) -> None:
        """Put what the function returned into the buffer. Raises ScriptError."""
        if self.fills:
            if result is not None and result != len(buffer):
                text = f"read_into({offset}, a buffer of {len(buffer)} bytes) returned"
                text = f"{text} {shown(result)}; it must fill the buffer"
                raise wrong(self.path, self.read, text)
            return
        try:
            buffer[:] = result
        except (TypeError, ValueError):
            length = len(buffer)
            text = f"{self.read_name}() of {length} bytes at {offset} returned {shown(result)}"
            raise wrong(self.path, self.read, f"{text}; it must return {length} bytes") from None

    def write_arguments(self, offset: int, data: Any) -> tuple[Any, Any]:
        """Return the arguments of the function that writes; it may keep the bytes."""
        data = bytes(data)
        return (data, offset) if self.write_name == "pwrite" else (offset, data)

    def check_written(self, result: Any, offset: int, length: int) -> None:
        """Raise ScriptError unless all was written: the function returns None, or the length."""
        if result is not None and result != length:
            text = f"{self.write_name}() of {length} bytes at {offset} returned {shown(result)}"
            raise wrong(self.path, self.write, f"{text}; it must write all, and return None")


def _keywords_of(function: Any) -> set[str]:
    try:
        return set(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # a function in C that does not tell
        return set()
