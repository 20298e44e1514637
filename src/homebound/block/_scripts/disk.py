"""A script's disk: plain functions in workers, `async def` functions in the request's home."""

from __future__ import annotations

import inspect
import logging
from functools import partial
from typing import TYPE_CHECKING

from ..._os.guard import new_guard
from ..._sync.lock import Lock
from .._blocking_disk import BlockingDisk
from .._buffers import room_in
from .._extent import Extent, merged
from .._gate import self_counted
from .._to_end import to_end
from .._zeroes import zero_pieces
from .base import Scripted, shown
from .errors import ScriptError, failure_in, wrong
from .patience import Patience

if TYPE_CHECKING:
    from typing import Any

    from .._disk import Disk
    from .._operations import Buffer, Operations
    from .functions import Functions

logger = logging.getLogger("homebound.block")


class _Own(Scripted):
    """The common part of the disks of both kinds of functions."""

    def __init__(self, functions: Functions, *, read_only: bool) -> None:
        self.functions = functions
        self.size: int = functions.size
        self.read_only: bool = read_only or functions.read_only
        self.shared_cache: bool = True  # one object for all connections
        self.patience = Patience()
        self.can_flush = self.can_fua = functions.flush is not None
        self.can_trim = functions.trim is not None
        for name in ("minimum_block", "preferred_block"):
            size = functions.attribute(name, None)
            if size is not None:
                self._take_block_size(name, size)

    def _take_block_size(self, name: str, size: Any) -> None:
        least, most = (1, 1 << 16) if name == "minimum_block" else (512, 1 << 25)
        if not isinstance(size, int) or not least <= size <= most or size & (size - 1):
            text = f"{name} is {shown(size)}; it must be a power of two from {least} to {most}"
            raise wrong(self.functions.path, None, text)
        setattr(self, name, size)

    def __repr__(self) -> str:
        return f"<disk of {self.functions.path!r}>"

    def try_cache(self) -> bool:
        """Return True if the script cannot read ahead.

        Called from: any thread.
        """
        return self.functions.cache is None

    def close(self) -> None:
        """Call the script's `close`, once the requests under way have ended.

        Called from: any thread.
        """
        self.closed = True
        self._gate.retire(self._close)

    def _close(self) -> None:
        """Call `close`; perhaps at the end of a request, in its thread, so it never raises."""
        close = self.functions.close
        if close is None:
            return
        try:
            result = self.functions.call(close)
            if inspect.iscoroutine(result):
                result.close()
                raise wrong(self.functions.path, close, "close() must be a plain function")
        except ScriptError as error:
            logger.warning("%s", error)

    def _extents(self, told: Any, offset: int, length: int) -> list[Extent]:
        functions = self.functions
        found: list[Extent] = []
        left = length
        try:
            for each in told:
                extent = each if isinstance(each, Extent) else Extent(*each)
                found.append(Extent(min(extent.length, left), extent.hole, extent.zero))
                left -= found[-1].length
        except TypeError:
            left = -1
        if left:
            text = f"extents({offset}, {length}) returned {shown(told)}; it must return pieces"
            text = f"{text} (length, hole, zero) that add up to {length} bytes"
            raise wrong(functions.path, functions.extents, text)
        return merged(found)


class ScriptDisk(_Own, BlockingDisk):
    """A disk of plain functions, which workers call: one at a time, unless it is `parallel`."""

    def __init__(self, functions: Functions, *, read_only: bool) -> None:
        super().__init__(functions, read_only=read_only)
        self._calls = _Calls(self, parallel=bool(functions.attribute("parallel", False)))
        self.blocking: Operations[None] = self._calls

    async def cache(self, offset: int, length: int) -> None:
        """Have the script read ahead, if it can.

        Called from: task.
        """
        self.check(offset, length)
        if self.functions.cache is not None:
            await to_end(partial(self._calls.call, self.functions.cache, offset, length))

    async def block_status(self, offset: int, length: int) -> list[Extent]:
        """Return the extents that the script tells of.

        Called from: task.
        """
        self.check(offset, length)
        if self.functions.extents is None or not length:
            return await super().block_status(offset, length)
        told = await to_end(partial(self._calls.call, self.functions.extents, offset, length))
        return self._extents(told, offset, length)


class _Calls:
    """The operations, for workers."""

    def __init__(self, disk: ScriptDisk, *, parallel: bool) -> None:
        self._disk = disk
        self._functions = disk.functions
        self._lock = None if parallel else new_guard()

    def call(self, function: Any, *arguments: Any) -> Any:
        """Call a function of the script. Raises ScriptError."""
        try:
            if self._lock is not None:
                with self._lock:
                    return function(*arguments)
            patience = self._disk.patience
            began = patience.begin()
            result = function(*arguments)
            patience.end(began)
        except (Exception, SystemExit) as error:
            raise failure_in(self._functions.path, error) from error
        return result

    def _call_with(self, keywords: dict[str, bool], function: Any, *arguments: Any) -> Any:
        """Call one that takes some of the flags of a change."""
        if keywords:
            function = partial(function, **keywords)
        return self.call(function, *arguments)

    def read_into(self, offset: int, buffer: memoryview, /) -> None:
        self._disk.check(offset, len(buffer))
        functions = self._functions
        if functions.fills:
            first, second = offset, buffer
        else:
            first, second = functions.read_arguments(offset, buffer)
        if self._lock is None:
            result = self.call(functions.read, first, second)
        else:  # as `call`, without calling it: most requests are reads
            try:
                with self._lock:
                    result = functions.read(first, second)
            except (Exception, SystemExit) as error:
                raise failure_in(functions.path, error) from error
        if result is not None or not functions.fills:
            functions.take_read(result, offset, buffer)

    def write(self, offset: int, data: Buffer, /, *, fua: bool = False) -> None:
        self._disk.check(offset, len(data), changes=True)
        functions = self._functions
        function = functions.write
        keywords = functions.wanted(function, fua=fua)
        arguments = functions.write_arguments(offset, data)
        result = self._call_with(keywords, function, *arguments)
        functions.check_written(result, offset, len(data))
        self._finish(function, fua=fua)

    def flush(self) -> None:
        self._disk.check_open()
        if self._functions.flush is not None:
            self.call(self._functions.flush)

    def trim(self, offset: int, length: int, /, *, fua: bool = False) -> None:
        self._disk.check(offset, length, changes=True)
        function = self._functions.trim
        if function is not None:
            keywords = self._functions.wanted(function, fua=fua)
            self._call_with(keywords, function, offset, length)
        self._finish(function, fua=fua)

    def write_zeroes(
        self, offset: int, length: int, /, *, fua: bool = False, no_hole: bool = False
    ) -> None:
        self._disk.check(offset, length, changes=True)
        function = self._functions.zero
        if function is None:
            function = self._functions.write
            itself = fua and self._functions.takes_fua(function)
            for at, zeroes in zero_pieces(offset, length):
                self.write(at, zeroes, fua=itself)
        else:
            keywords = self._functions.wanted(function, fua=fua, no_hole=no_hole)
            self._call_with(keywords, function, offset, length)
        self._finish(function, fua=fua)

    def _finish(self, function: Any, *, fua: bool) -> None:
        if self._functions.needs_flush(function, fua=fua):
            self.flush()


class AsyncScriptDisk(_Own):
    """A disk with `async def` functions, called in the request's home; plain ones in a worker.

    They overlap where they wait.
    """

    def __init__(self, functions: Functions, *, read_only: bool) -> None:
        super().__init__(functions, read_only=read_only)
        self._async = frozenset(filter(inspect.iscoroutinefunction, functions.defined))
        self._calls_read = functions.read in self._async

    async def _call(self, function: Any, *arguments: Any, **keywords: Any) -> Any:
        try:
            if function in self._async:
                return await function(*arguments, **keywords)
            return await to_end(partial(function, *arguments, **keywords))
        except (Exception, SystemExit) as error:
            raise failure_in(self.functions.path, error) from error

    @self_counted  # the functions of a script have no way to this disk
    async def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset` on. Raises ScriptError.

        Called from: task.
        """
        gate = self._gate
        gate.inside.append(None)  # as Gate.enter and leave, without the calls: most requests read
        if gate.closed:  # so it waits, unless this is part of another request
            gate.leave()
            async with self.request():
                await self._read(offset, buffer)
            return
        try:
            await self._read(offset, buffer)
        finally:
            gate.inside.pop()
            if gate.closed and not gate.inside:
                gate.tell_empty()

    async def _read(self, offset: int, buffer: memoryview) -> None:
        buffer = room_in(buffer, offset)
        self.check(offset, len(buffer))
        functions = self.functions
        first, second = functions.read_arguments(offset, buffer)
        if self._calls_read:  # as `_call`, without another coroutine
            try:
                result = await functions.read(first, second)
            except (Exception, SystemExit) as error:
                raise failure_in(functions.path, error) from error
        else:
            result = await self._call(functions.read, first, second)
        if result is not None or not functions.fills:
            functions.take_read(result, offset, buffer)

    async def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        """Write `data`. Raises ScriptError.

        Called from: task.
        """
        self.check(offset, len(data), changes=True)
        functions = self.functions
        function = functions.write
        keywords = functions.wanted(function, fua=fua)
        result = await self._call(function, *functions.write_arguments(offset, data), **keywords)
        functions.check_written(result, offset, len(data))
        await self._finish(function, fua=fua)

    async def flush(self) -> None:
        """Call the script's `flush`, if it has one. Raises ScriptError.

        Called from: task.
        """
        self.check_open()
        if self.functions.flush is not None:
            await self._call(self.functions.flush)

    async def trim(self, offset: int, length: int, *, fua: bool = False) -> None:
        """Call the script's `trim`, if it has one. Raises ScriptError.

        Called from: task.
        """
        self.check(offset, length, changes=True)
        function = self.functions.trim
        if function is not None:
            await self._call(function, offset, length, **self.functions.wanted(function, fua=fua))
        await self._finish(function, fua=fua)

    async def write_zeroes(
        self, offset: int, length: int, *, fua: bool = False, no_hole: bool = False
    ) -> None:
        """Make the range read as zeroes. Raises ScriptError.

        Called from: task.
        """
        self.check(offset, length, changes=True)
        function = self.functions.zero
        if function is None:
            function = self.functions.write
            itself = fua and self.functions.takes_fua(function)
            for at, zeroes in zero_pieces(offset, length):
                await self.write(at, zeroes, fua=itself)
        else:
            keywords = self.functions.wanted(function, fua=fua, no_hole=no_hole)
            await self._call(function, offset, length, **keywords)
        await self._finish(function, fua=fua)

    async def cache(self, offset: int, length: int) -> None:
        """Have the script read ahead, if it can.

        Called from: task.
        """
        self.check(offset, length)
        if self.functions.cache is not None:
            await self._call(self.functions.cache, offset, length)

    async def block_status(self, offset: int, length: int) -> list[Extent]:
        """Return the extents that the script tells of.

        Called from: task.
        """
        self.check(offset, length)
        if self.functions.extents is None or not length:
            return await super().block_status(offset, length)
        told = await self._call(self.functions.extents, offset, length)
        return self._extents(told, offset, length)

    async def _finish(self, function: Any, *, fua: bool) -> None:
        if self.functions.needs_flush(function, fua=fua):
            await self.flush()


class _SerialScriptDisk(AsyncScriptDisk):
    """A disk with `async def` functions, called one at a time: those of a script that asks so."""

    def __init__(self, functions: Functions, *, read_only: bool) -> None:
        super().__init__(functions, read_only=read_only)
        self._lock = Lock()
        self._calls_read = False

    async def _call(self, function: Any, *arguments: Any, **keywords: Any) -> Any:
        async with self._lock:
            return await super()._call(function, *arguments, **keywords)


def disk_of(functions: Functions, *, read_only: bool) -> Disk:
    """Return the disk of a script's functions."""
    if not functions.is_async:
        return ScriptDisk(functions, read_only=read_only)
    parallel = functions.attribute("parallel", True)
    kind = AsyncScriptDisk if parallel else _SerialScriptDisk
    return kind(functions, read_only=read_only)
