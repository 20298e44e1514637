"""One connection to an nbdkit plugin: its handle, as a disk."""

from __future__ import annotations

import errno
import logging
from functools import partial
from typing import TYPE_CHECKING

from .._blocking_disk import BlockingDisk
from .._extent import Extent, merged
from .._to_end import to_end
from .._zeroes import zero_pieces
from .base import Scripted, shown
from .errors import ScriptError, wrong
from .nbdkit_module import (
    CACHE_EMULATE,
    CACHE_NATIVE,
    EXTENT_HOLE,
    EXTENT_ZERO,
    FLAG_FAST_ZERO,
    FLAG_FUA,
    FLAG_MAY_TRIM,
    FUA_EMULATE,
    FUA_NATIVE,
    FUA_NONE,
    PARALLEL,
    here,
)
from .patience import Patience

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .._operations import Buffer, Operations
    from .nbdkit_module import Session
    from .plugin import Plugin

_PIECE = 1 << 20  # bytes read at once, to have them cached
_UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.ENOTSUP})
_LARGEST = (1 << 63) - 1

logger = logging.getLogger("homebound.block")


class Handle:
    """A plugin's handle of a session, and the calls for it. Any thread; blocks."""

    def __init__(self, plugin: Plugin, session: Session) -> None:
        self.plugin = plugin
        self.session = session
        self._lock = plugin.lock_of_handle()
        if plugin.has("preconnect"):
            plugin.call(session, "preconnect", plugin.read_only)
        self.handle = plugin.call(session, "open", plugin.read_only)

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a function with the handle. Raises ScriptError."""
        with self._lock:
            return self.plugin.call_inside(self.session, name, self.handle, *arguments)

    def call_zero(self, *arguments: Any) -> bool:
        """Call `zero`; False if it asks for writes instead, by `set_error`. Raises ScriptError."""
        with self._lock:
            try:
                self.plugin.call_inside(self.session, "zero", self.handle, *arguments)
            except ScriptError as error:
                if error.errno in _UNSUPPORTED:
                    return False
                raise
            return here.error not in _UNSUPPORTED

    def can(self, name: str, function: str | None = None) -> bool:
        """Return what `can_...` or `is_...` says; without it, whether `function` is defined."""
        if self.plugin.has(name):
            return bool(self.call(name))
        return function is not None and self.plugin.has(function)

    def number(self, name: str, highest: int, default: int) -> int:
        """Return what `can_fua` or `can_cache` says. Raises ScriptError."""
        if not self.plugin.has(name):
            return default
        number = self.call(name)
        if number not in range(highest + 1):
            text = f"{name}() returned {number!r}; it must be one of nbdkit's constants for it"
            raise wrong(self.plugin.path, self.plugin.function(name), text)
        return int(number)


class _Calls:
    """The operations of the disk, for workers."""

    def __init__(self, disk: PluginDisk, handle: Handle, *, fua: int, flush: bool) -> None:
        plugin = handle.plugin
        self._disk = disk
        self._handle = handle
        self._flush = flush
        self._old = plugin.version == 1
        # The calls that change the disk take FUA as a flag.
        self._native_fua = fua == FUA_NATIVE and not self._old
        self._parallel = plugin.model == PARALLEL
        self._path, self._pread = plugin.path, plugin.function("pread")
        self._zero = handle.can("can_zero", "zero") and plugin.has("zero")
        self._trim = disk.can_trim and plugin.has("trim")

    def read_into(self, offset: int, buffer: memoryview, /) -> None:
        self._disk.check(offset, len(buffer))
        if not self._old:
            self._call("pread", buffer, offset, 0)
            return
        length = len(buffer)
        data = self._call("pread", length, offset)
        try:
            with memoryview(data) as view:
                buffer[:] = view.cast("B")[:length]
        except (TypeError, ValueError):
            text = f"pread({length}, {offset}) returned {shown(data)}; {length} bytes are due"
            raise wrong(self._path, self._pread, text) from None

    def write(self, offset: int, data: Buffer, /, *, fua: bool = False) -> None:
        self._disk.check(offset, len(data), changes=True)
        view = memoryview(data).toreadonly()
        flags = () if self._old else (self._flags(fua=fua),)
        self._call("pwrite", view, offset, *flags)
        self._finish(fua=fua)

    def flush(self) -> None:
        self._disk.check_open()
        if self._flush:
            self._call("flush", *(() if self._old else (0,)))

    def trim(self, offset: int, length: int, /, *, fua: bool = False) -> None:
        self._disk.check(offset, length, changes=True)
        if self._trim:
            flags = () if self._old else (self._flags(fua=fua),)
            self._call("trim", length, offset, *flags)
        self._finish(fua=fua)

    def write_zeroes(
        self, offset: int, length: int, /, *, fua: bool = False, no_hole: bool = False
    ) -> None:
        self._disk.check(offset, length, changes=True)
        if not self._call_zero(offset, length, self._how(fua=fua, no_hole=no_hole)):
            for at, zeroes in zero_pieces(offset, length):
                self.write(at, zeroes, fua=fua and self._native_fua)
        self._finish(fua=fua)

    def fast_zeroes(self, offset: int, length: int, *, fua: bool, no_hole: bool) -> bool:
        """Write zeroes if the plugin says that it is fast."""
        how = self._how(fua=fua, no_hole=no_hole)
        if self._old or not self._call_zero(offset, length, how | FLAG_FAST_ZERO):
            return False
        self._finish(fua=fua)
        return True

    def _call(self, name: str, *arguments: Any) -> Any:
        if not self._parallel:
            return self._handle.call(name, *arguments)
        patience = self._disk.patience
        began = patience.begin()
        result = self._handle.call(name, *arguments)
        patience.end(began)
        return result

    def _call_zero(self, offset: int, length: int, how: int) -> bool:
        return self._zero and self._handle.call_zero(length, offset, how)

    def _how(self, *, fua: bool, no_hole: bool) -> int:
        """Return the last argument of `zero`."""
        if self._old:
            return not no_hole
        return self._flags(fua=fua) | (0 if no_hole else FLAG_MAY_TRIM)

    def _flags(self, *, fua: bool) -> int:
        return FLAG_FUA if fua and self._native_fua else 0

    def _finish(self, *, fua: bool) -> None:
        """Do what FUA asks for, where the plugin does not."""
        if fua and not self._native_fua:
            self.flush()


class PluginDisk(Scripted, BlockingDisk):
    """The disk that an nbdkit plugin has opened for one connection. Made in a worker: it blocks."""

    def __init__(self, plugin: Plugin, session: Session) -> None:
        handle = self._handle = Handle(plugin, session)
        self._plugin = plugin
        self._last: Callable[[], None] | None = None  # after `close`; see `owns`
        try:
            self._ask(handle, plugin)
        except BaseException:
            self._close_handle()
            raise

    def _ask(self, handle: Handle, plugin: Plugin) -> None:
        self.size: int = self._size_of(handle)
        self.read_only: bool = plugin.read_only or not handle.can("can_write", "pwrite")
        self.shared_cache: bool = handle.can("can_multi_conn")
        self.rotational = handle.can("is_rotational")
        self.can_flush = handle.can("can_flush", "flush")
        default = FUA_EMULATE if plugin.has("flush") else FUA_NONE
        fua = handle.number("can_fua", FUA_NATIVE, default)
        self.can_fua = fua != FUA_NONE
        self.can_trim = handle.can("can_trim", "trim")
        self.can_fast_zero: bool = plugin.has("zero") and handle.can("can_fast_zero")
        default = CACHE_NATIVE if plugin.has("cache") else 0
        self._cache = handle.number("can_cache", CACHE_NATIVE, default)
        self._extents = handle.can("can_extents", "extents") and plugin.has("extents")
        self._take_block_sizes(handle, plugin)
        self.description = self._description(handle, plugin)
        self.patience = Patience()
        flush = plugin.has("flush") and (self.can_flush or fua == FUA_EMULATE)
        self._calls = _Calls(self, handle, fua=fua, flush=flush)
        self.blocking: Operations[None] = self._calls

    def _size_of(self, handle: Handle) -> int:
        size = handle.call("get_size")
        if not isinstance(size, int) or not 0 <= size <= _LARGEST:
            text = f"get_size() returned {size!r}; it must return a number of bytes"
            raise wrong(self._plugin.path, self._plugin.function("get_size"), text)
        return size

    def _take_block_sizes(self, handle: Handle, plugin: Plugin) -> None:
        if not plugin.has("block_size"):
            return
        sizes = handle.call("block_size")
        try:
            minimum, preferred, maximum = (int(size) for size in sizes)
        except (TypeError, ValueError):
            minimum = preferred = maximum = -1
        if minimum == preferred == maximum == 0:
            return
        powers = all(size > 0 and not size & (size - 1) for size in (minimum, preferred))
        if not powers or minimum > 1 << 16 or preferred < max(512, minimum) or maximum < preferred:
            text = f"block_size() returned {sizes!r}; NBD wants powers of two, in rising order"
            raise wrong(plugin.path, plugin.function("block_size"), text)
        self.minimum_block: int = minimum
        self.preferred_block: int = preferred
        self.maximum_transfer: int | None = maximum

    @staticmethod
    def _description(handle: Handle, plugin: Plugin) -> str:
        if not plugin.has("export_description"):
            return ""
        text = handle.call("export_description")
        return text if isinstance(text, str) else ""

    def __repr__(self) -> str:
        return f"<disk of {self._plugin!r}>"

    # What BlockingDisk does not do itself.

    async def fast_zeroes(
        self, offset: int, length: int, *, fua: bool = False, no_hole: bool = False
    ) -> None:
        """Make the range read as zeroes if the plugin says that it is quick.

        Called from: task.
        """
        self.check(offset, length, changes=True)
        call = partial(self._calls.fast_zeroes, offset, length, fua=fua, no_hole=no_hole)
        if not (self.can_fast_zero and await to_end(call)):
            await super().fast_zeroes(offset, length, fua=fua, no_hole=no_hole)

    async def cache(self, offset: int, length: int) -> None:
        """Have the plugin read ahead, if it can.

        Called from: task.
        """
        self.check(offset, length)
        if self._cache == CACHE_EMULATE:
            buffer = memoryview(bytearray(min(length, _PIECE)))
            for start in range(offset, offset + length, _PIECE):
                part = buffer[: min(_PIECE, offset + length - start)]
                await to_end(partial(self._calls.read_into, start, part))
        elif self._cache == CACHE_NATIVE and self._plugin.has("cache"):
            await to_end(partial(self._handle.call, "cache", length, offset, 0))

    async def block_status(self, offset: int, length: int) -> list[Extent]:
        """Return the extents that the plugin tells of.

        Called from: task.
        """
        self.check(offset, length)
        if not self._extents:
            return await super().block_status(offset, length)
        return await to_end(partial(self._extents_of, offset, length))

    def _extents_of(self, offset: int, length: int) -> list[Extent]:
        found: list[Extent] = []
        at, end = offset, offset + length
        while at < end:
            told = self._handle.call("extents", end - at, at, 0)
            before = at
            try:
                for start, size, kind in told:
                    if start <= at < start + size:
                        stop = min(end, start + size)
                        hole, zero = bool(kind & EXTENT_HOLE), bool(kind & EXTENT_ZERO)
                        found.append(Extent(stop - at, hole, zero))
                        at = stop
            except (TypeError, ValueError):
                at = before
            if at == before:
                text = f"extents() returned {shown(told)}, which tells nothing of byte {at}"
                raise wrong(self._plugin.path, self._plugin.function("extents"), text)
        return merged(found)

    def owns(self, last: Callable[[], None]) -> None:
        """Call `last`, which does not raise, after the plugin's `close`."""
        self._last = last

    def close(self) -> None:
        """Close the handle, once the calls under way have ended. May be called again.

        Called from: any thread.
        """
        self.closed = True
        self._gate.retire(self._close_handle)

    def _close_handle(self) -> None:
        """Call the plugin's `close`. Perhaps at the end of a call, in its worker: never raises."""
        try:
            if self._plugin.has("close"):
                self._handle.call("close")
        except ScriptError as error:
            logger.warning("%s", error)
        if self._last is not None:
            self._last()
