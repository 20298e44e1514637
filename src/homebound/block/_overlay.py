"""Copy on write over any disk: what is written goes to a file of its own, or to memory."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from .._sync.lock import Lock
from ._below import Below
from ._disk import Disk, need_disk
from ._errors import DiskClosed, DiskError, DiskReadOnly, ImageError
from ._extent import Extent, merged
from ._memory import MemoryDisk
from ._overlay_file import Base, OverlayFile, absolute, make_overlay
from ._overlay_format import block_size_for
from ._states import BASE, DATA, ZERO, BlockStates
from ._stripes import Stripes
from ._to_end import to_end

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._operations import Buffer

_PIECE = 1 << 20  # bytes that a commit copies at a time
_AT_ONCE = 256 << 10  # bytes that may be attempted inside an operation


@dataclass(frozen=True, slots=True)
class OverlayInfo:
    """The size of what an overlay holds: `data` bytes written, `zero` zeroed, the rest its base's.

    `path` is None in memory, `base_path` for a base that is no file. `committing` tells that a
    commit was begun and has not ended.

    Called from: any thread.
    """

    path: str | None
    size: int
    block_size: int
    base_path: str | None
    base_size: int
    data: int
    zero: int
    committing: bool


class OverlayDisk(Disk):
    r"""`base` with all changes kept apart: in the file `path`, or in memory without one.

    The file is made if there is none, and opened if there is; its format, and why it survives the
    end of the process at any moment, is in docs/design/block.md. `base` is only read, must not
    change while there is an overlay, and is not closed. `size` is for a new overlay: by default the
    base's; what is past the base's end reads as zeroes.

    What was flushed, or written with `fua`, is on stable storage. `close` flushes as well: it
    blocks, and raises OSError if that fails; a disk that was flushed before is closed quickly.

    Raises ImageError if the file is damaged, no overlay, or that of another base or size.

    >>> import homebound
    >>> from homebound.block import MemoryDisk, OverlayDisk
    >>> async def main():
    ...     with MemoryDisk(1 << 20) as base, OverlayDisk(base) as disk:
    ...         await disk.write(4095, b"hello")
    ...         return await disk.read(4095, 5), await base.read(4095, 5), disk.info.data
    >>> homebound.run(main())
    (bytearray(b'hello'), bytearray(b'\x00\x00\x00\x00\x00'), 8192)

    Called from: any thread.
    """

    shared_cache = True
    can_fast_zero = True

    def __init__(
        self,
        base: Disk,
        path: str | os.PathLike[str] | None = None,
        *,
        size: int | None = None,
        read_only: bool = False,
    ) -> None:
        need_disk("OverlayDisk", base)
        if size is not None and size <= 0:
            raise DiskError(errno.EINVAL, f"an overlay of {size} bytes cannot be")
        self.base: Disk = base
        self._below = Below(base)
        self.path: str | None = None if path is None else absolute(path)
        self.read_only: bool = read_only
        self.volatile: bool = path is None
        self._file: OverlayFile | None = None
        self._owned: Disk | None = None  # a base that closes with it; see open_disk
        if self.path is None:
            self.size: int = size or base.size
            self._block = block_size_for(self.size)
            self._store: Disk = MemoryDisk(self.size)
            self._data_offset = 0
            self._states = BlockStates(-(-self.size // self._block))
        else:
            self._open(self.path, size)
        self.preferred_block: int = self._block
        self._stripes = Stripes()
        self._closed = False
        # Flushes, so that one does for all that wait for it. `_begun` and `_ended` are numbers of
        # flushes, written by the holder of the lock.
        self._flushing = Lock()
        self._begun = self._ended = 0

    def _open(self, path: str, size: int | None) -> None:
        try:
            base = Base.of(self.base)
        except OSError as error:
            text = f"cannot open overlay {path!r}: its base {error.filename!r}: {error.strerror}"
            raise ImageError(error.errno or errno.EIO, text) from error
        if not (self.read_only or os.path.lexists(path)):
            new = size or base.size
            make_overlay(path, base, size=new, block_size=block_size_for(new))
        self._file = file = OverlayFile(path, base, size=size, read_only=self.read_only)
        self._store = file.disk
        self._states = file.states
        self.size = file.header.size
        self._block = file.header.block_size
        self._data_offset = file.header.data_offset

    def __repr__(self) -> str:
        where = "in memory" if self.path is None else repr(self.path)
        how = ", read-only" if self.read_only else ""
        return f"<OverlayDisk {where} ({self.size} bytes{how}) on {self.base!r}>"

    @property
    def info(self) -> OverlayInfo:
        """The amount of its own data, and the disk below it.

        Called from: any thread.
        """
        file = self._file
        return OverlayInfo(
            path=self.path,
            size=self.size,
            block_size=self._block,
            base_path=Base.of(self.base).path or None,
            base_size=self.base.size,
            data=min(self._states.count(DATA) * self._block, self.size),
            zero=min(self._states.count(ZERO) * self._block, self.size),
            committing=file is not None and file.header.committing,
        )

    # Reading.

    def try_read_into(self, offset: int, buffer: memoryview) -> bool:
        """Read where the disks below can at once.

        Called from: any thread.
        """
        self._check_open()
        if self._states.all_are(DATA, *self._blocks(offset, offset + len(buffer))):
            return self._store.try_read_into(self._data_offset + offset, buffer)
        for state, start, stop in self._runs(offset, offset + len(buffer)):
            part = buffer[start - offset : stop - offset]
            if state == ZERO:
                part[:] = bytes(len(part))
            elif state == BASE:
                if not self._below.try_read_into(start, part):
                    return False
            elif not self._store.try_read_into(self._data_offset + start, part):
                return False
        return True

    async def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from the overlay and its base. Raises OSError when one of them fails.

        Called from: task.
        """
        self._check(offset, len(buffer))
        await self._fill(offset, buffer)

    async def _fill(self, offset: int, buffer: memoryview) -> None:
        for state, start, stop in self._runs(offset, offset + len(buffer)):
            part = buffer[start - offset : stop - offset]
            if state == DATA:
                await self._store.read_into(self._data_offset + start, part)
            elif state == ZERO:
                part[:] = bytes(len(part))
            else:
                await self._below.read_into(start, part)

    async def block_status(self, offset: int, length: int) -> list[Extent]:
        """Return data for its own blocks, zeroes for zeroed ones, else what the base says.

        Called from: task.
        """
        self._check(offset, length)
        found: list[Extent] = []
        for state, start, stop in self._runs(offset, offset + length):
            if state == BASE:
                found += await self._below.block_status(start, stop - start)
            else:
                found.append(Extent(stop - start, hole=state == ZERO, zero=state == ZERO))
        return merged(found)

    async def cache(self, offset: int, length: int) -> None:
        """Have the disks below read the range ahead.

        Called from: task.
        """
        self._check(offset, length)
        for state, start, stop in self._runs(offset, offset + length):
            if state == DATA:
                await self._store.cache(self._data_offset + start, stop - start)
            elif state == BASE:
                await self._below.cache(start, stop - start)

    # Writing.

    def try_write(self, offset: int, data: Buffer) -> bool:
        """Write where all is the overlay's already, and the file can at once.

        Called from: any thread.
        """
        self._check_open()
        first, stop = self._blocks(offset, offset + len(data))
        return self._states.all_are(DATA, first, stop) and self._store.try_write(
            self._data_offset + offset, data
        )

    async def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        """Write to the overlay; at the edges of new blocks, what the base has is copied first.

        Raises OSError when a disk below fails; then the old data still reads.

        Called from: task.
        """
        self._check(offset, len(data), changes=True)
        if not len(data):
            return
        first, stop = self._blocks(offset, offset + len(data))
        if self._states.all_are(DATA, first, stop):
            # In place, beside others: a merge goes on only where a block is not yet data.
            if fua and (self._file is None or self._states.are_stable(first, stop)):
                await self._store.write(self._data_offset + offset, data, fua=True)
                return
            await self._put(offset, data)
        else:
            async with self._stripes.hold(first, stop):
                await self._write_blocks(offset, data)
        if fua:
            await self._persist()

    async def _write_blocks(self, offset: int, data: Buffer) -> None:
        """Write whole blocks, where they are not data. The caller holds their stripes."""
        end = offset + len(data)
        first, stop = self._blocks(offset, end)
        begin, finish = first * self._block, min(stop * self._block, self.size)
        pieces: list[Buffer] = [data]
        if begin < offset and not self._states.all_are(DATA, first, first + 1):
            pieces.insert(0, await self._old(begin, offset))
            offset = begin
        if end < finish and not self._states.all_are(DATA, stop - 1, stop):
            pieces.append(await self._old(end, finish))
        whole = b"".join(pieces) if len(pieces) > 1 else data
        await self._put(offset, whole)
        self._set(DATA, first, stop)

    async def _put(self, offset: int, data: Buffer) -> None:
        """Write where the data of these blocks belongs; most of the time no worker is needed."""
        at = self._data_offset + offset
        if len(data) > _AT_ONCE or not self._store.try_write(at, data):
            await self._store.write(at, data)

    async def _old(self, start: int, stop: int) -> bytearray:
        """Return the bytes that a part of a block reads as."""
        data = bytearray(stop - start)
        if self._states.all_are(BASE, *self._blocks(start, stop)):
            await self._below.read_into(start, memoryview(data))
        return data

    async def trim(self, offset: int, length: int, *, fua: bool = False) -> None:
        """Do as `write_zeroes`: what was trimmed reads as zeroes, not as the base again.

        Called from: task.
        """
        await self.write_zeroes(offset, length, fua=fua)

    async def write_zeroes(
        self, offset: int, length: int, *, fua: bool = False, no_hole: bool = False
    ) -> None:
        """Note whole blocks as zero, or with `no_hole` set storage aside; write at the edges.

        Raises OSError when a disk below fails or it is read-only.

        Called from: task.
        """
        self._check(offset, length, changes=True)
        if not length:
            return
        end = offset + length
        async with self._stripes.hold(*self._blocks(offset, end)):
            begin = min(end, -(-offset // self._block) * self._block)
            finish = end if end == self.size else max(begin, end // self._block * self._block)
            if begin < finish:
                await self._zero_blocks(begin, finish, no_hole=no_hole)
            for start, stop in ((offset, begin), (finish, end)):
                if start < stop and not self._is_zero(start, stop):
                    await self._write_blocks(start, bytes(stop - start))
        if fua:
            await self._persist()

    async def _zero_blocks(self, begin: int, finish: int, *, no_hole: bool) -> None:
        first, stop = self._blocks(begin, finish)
        at, length = self._data_offset + begin, finish - begin
        if no_hole:
            await self._store.write_zeroes(at, length, no_hole=True)
            self._set(DATA, first, stop)
            return
        had_data = any(state == DATA for state, _, _ in self._states.runs(first, stop))
        self._set(ZERO, first, stop)
        if had_data:
            await self._store.trim(at, length)

    def _is_zero(self, start: int, stop: int) -> bool:
        return self._states.all_are(ZERO, *self._blocks(start, stop))

    async def fast_zeroes(
        self, offset: int, length: int, *, fua: bool = False, no_hole: bool = False
    ) -> None:
        """Do as `write_zeroes`; with `no_hole` it would not be quick, hence ENOTSUP.

        Called from: task.
        """
        self._check(offset, length, changes=True)
        if no_hole:
            text = f"zeroes that take storage are not written quickly to {self!r}"
            raise DiskError(errno.ENOTSUP, text)
        await self.write_zeroes(offset, length, fua=fua)

    # Keeping.

    async def flush(self) -> None:
        """Put on stable storage what was written before, data first, then what tells of it.

        Raises OSError when that fails, and from then on.

        Called from: task.
        """
        self._check_open()
        if not self.read_only:
            await self._persist()

    async def _persist(self) -> None:
        file = self._file
        if file is None:
            return
        begun = self._begun  # the next flush begins after what this one is for
        async with self._flushing:
            if self._ended > begun:
                return
            self._begun = number = self._begun + 1
            await to_end(file.persist)
            self._ended = number

    async def commit(self) -> None:
        """Write what is in the overlay to its base, and empty the overlay.

        Requests wait meanwhile. Ended in the middle, even by the end of the process, the overlay
        still has all; then commit again. Raises DiskReadOnly if the base, or it, is read-only;
        DiskError, ENOSPC, if data lies past the base's end; OSError if a disk fails.

        Called from: task.
        """
        async with self.drained():
            self._check_commit()
            await self._mark(committing=True)
            stable = False
            while not stable:  # else a server has lost what it had not flushed
                before = self.base.interruptions
                await self._write_down()
                await self.base.flush()
                stable = self.base.interruptions == before
            self._set(BASE, 0, len(self._states))
            await self._persist()
            await self._mark(committing=False)
            await self._store.trim(self._data_offset, self.size)

    def _check_commit(self) -> None:
        self._check_open()
        for disk in (self, self.base):
            if disk.read_only:
                raise DiskReadOnly(disk)
        for state, _, stop in self._runs(0, self.size):
            if state == DATA and stop > self.base.size:
                text = f"cannot commit {self!r}: data at {stop - 1} is past the end of the base"
                raise DiskError(errno.ENOSPC, text)

    async def _mark(self, *, committing: bool) -> None:
        file = self._file
        if file is not None:
            mtime = Base.of(self.base).mtime
            change = partial(file.change_header, committing=committing, base_mtime=mtime)
            await to_end(change)

    async def _write_down(self) -> None:
        """Write to the base what the overlay has; its blocks may be larger than the overlay's."""
        for state, start, stop in self._runs(0, min(self.size, self.base.size)):
            if state != BASE:
                whole = self._below.whole(start, stop - start)
                if state == ZERO and whole == (start, stop):
                    await self.base.write_zeroes(start, stop - start)
                else:
                    await self._copy_down(*whole)

    async def _copy_down(self, start: int, stop: int) -> None:
        most = self._below.most(_PIECE)
        for at in range(start, stop, most):
            data = memoryview(bytearray(min(most, stop - at)))
            inside = data[: max(0, self.size - at)]
            if len(inside) < len(data):  # a block of the base's that goes on past the overlay's end
                await self._below.read_into(at, data)
            await self._fill(at, inside)
            await self.base.write(at, data)

    def close(self) -> None:
        """Flush and close the overlay's file. The base stays open. May be called again.

        Blocks. Raises OSError if it cannot be flushed; it is closed all the same.

        Called from: any thread.
        """
        self._closed = True
        try:
            if self._file is not None:
                self._file.close()
            else:
                self._store.close()
        finally:
            if self._owned is not None:
                self._owned.close()

    def _check_open(self) -> None:
        if self._closed:
            raise DiskClosed(self)

    def _check(self, offset: int, length: int, *, changes: bool = False) -> None:
        self._check_open()
        self.check_range(offset, length)
        if changes and self.read_only:
            raise DiskReadOnly(self)

    def _set(self, state: int, first: int, stop: int) -> None:
        if not self._states.set(state, first, stop):
            raise DiskClosed(self)

    def _blocks(self, start: int, stop: int) -> tuple[int, int]:
        return start // self._block, -(-stop // self._block)

    def _runs(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Return the states in a range of bytes, and from where to where: in order."""
        if start < stop:
            for state, first, last in self._states.runs(*self._blocks(start, stop)):
                yield state, max(start, first * self._block), min(stop, last * self._block)
