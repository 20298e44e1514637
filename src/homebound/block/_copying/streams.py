"""Copies from and to streams, such as pipes: in order, without offsets."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import stat
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from ..._aio.futures import set_unless_done
from ..._core.task_group import TaskGroup
from ..._sync.semaphore import Semaphore
from .._errors import DiskError
from .._to_end import to_end
from .._zeroes import zero_pieces
from .engine import WINDOW, piece_size, read
from .errors import FUTILE, CopyError, first_failure, never_stable
from .plan import Plan
from .writer import Writer

if TYPE_CHECKING:
    from .._disk import Disk
    from .plan import Piece

_KEPT = 2 * WINDOW  # pieces of a stream


class CopyOut:
    """A copy of `source` to the stream `fd`; zeroes become holes if that is a new file.

    Called from: home thread.
    """

    def __init__(self, source: Disk, fd: int) -> None:
        self.read: int = 0  # bytes read from the source
        self.written: int = 0  # bytes of data written
        self.zeroes: int = 0  # bytes known to be zeroes
        self.done_until: int = 0  # everything before this offset has been written
        self._source = source
        self._fd = fd
        self._skips = _is_new_file(fd)
        self._pipe: int | None = None  # see _open_without_blocking; while it runs
        self._plan = Plan(source, range(source.size), piece=piece_size(source))

    async def run(self) -> None:
        """Copy. Raises CopyError."""
        self._pipe = _open_without_blocking(self._fd)
        try:
            async with TaskGroup() as group:
                await self._run(group)
        except BaseExceptionGroup as failures:
            raise first_failure(failures) from None
        finally:
            if self._pipe is not None:
                os.close(self._pipe)

    async def _run(self, group: TaskGroup) -> None:
        ahead: deque[tuple[Piece, asyncio.Task[bytearray | CopyError]]] = deque()
        more = True
        while True:
            while more and len(ahead) < WINDOW:
                piece = await self._plan.take()
                if piece is None:
                    more = False
                else:
                    ahead.append((piece, group.create_task(self._fetch(piece))))
            if not ahead:
                break
            piece, fetched = ahead.popleft()
            data = await fetched
            if isinstance(data, CopyError):
                raise data
            await self._put(piece, data)
            self._plan.finish(piece)
            self.done_until = piece.offset + piece.length
        if self._skips:
            await to_end(partial(os.ftruncate, self._fd, os.lseek(self._fd, 0, os.SEEK_CUR)))

    async def _fetch(self, piece: Piece) -> bytearray | CopyError:
        """Read a piece, or return why not: raised here, it would end what is before it as well."""
        data = bytearray(0 if piece.zero else piece.length)
        if data:
            try:
                await read(self._source, piece.offset, memoryview(data), target=False)
            except CopyError as error:
                return error
            self.read += piece.length
        return data

    async def _put(self, piece: Piece, data: bytearray) -> None:
        try:
            if data:
                await self._write(memoryview(data))
                self.written += len(data)
            else:
                await self._write_zeroes(piece.length)
                self.zeroes += piece.length
        except OSError as error:
            raise CopyError("write", piece.offset, error, target=True) from error

    async def _write_zeroes(self, length: int) -> None:
        if self._skips:
            os.lseek(self._fd, length, os.SEEK_CUR)
            return
        for _, zeroes in zero_pieces(0, length):
            await self._write(zeroes)

    async def _write(self, data: memoryview) -> None:
        if self._pipe is None:
            await to_end(partial(_write_all, self._fd, data))
            return
        while data:
            try:
                data = data[os.write(self._pipe, data) :]
            except BlockingIOError:
                await _writable(self._pipe)


class CopyIn:
    """A copy of the stream `fd` to the start of `target`, as far as the stream goes.

    With `keeps` the last of the stream's data is kept until it is stable, and written again if an
    interruption of the target may have lost it.

    Called from: home thread.
    """

    def __init__(self, fd: int, target: Disk, *, fresh: bool = False, keeps: bool = False) -> None:
        self.done_until: int = 0  # bytes that were read from the stream
        self._fd = fd
        self._target = target
        self._piece = piece_size(target)
        self._writer = Writer(target, fresh=fresh)
        self._slots = Semaphore(WINDOW)
        self._keeps = keeps
        self._kept: list[tuple[int, bytearray, int]] = []  # arguments of `_store`
        self._storing: set[asyncio.Task[None]] = set()
        self._interruptions = target.interruptions  # when nothing in `_kept` was written yet

    @property
    def read(self) -> int:
        """Bytes read from the stream."""
        return self.done_until

    @property
    def written(self) -> int:
        """Bytes of data written."""
        return self._writer.written

    @property
    def zeroes(self) -> int:
        """Bytes found to be zeroes."""
        return self._writer.zeroes

    async def run(self) -> None:
        """Copy, then flush the target. Raises CopyError, or DiskError if the target is full."""
        try:
            async with TaskGroup() as group:
                await self._run(group)
        except BaseExceptionGroup as failures:
            raise first_failure(failures) from None
        if not self._keeps:
            await self._writer.flush()

    async def _run(self, group: TaskGroup) -> None:
        while await self._take_piece(group):
            if len(self._kept) >= _KEPT:
                await self._make_stable(group)
        if self._keeps:
            await self._make_stable(group)

    async def _make_stable(self, group: TaskGroup) -> None:
        """Flush what is kept, after writing it again as often as it may have been lost."""
        for _ in range(FUTILE):
            while self._storing:
                await asyncio.wait(self._storing)
            await self._writer.flush()
            interruptions = self._target.interruptions
            if interruptions == self._interruptions:
                self._kept.clear()
                return
            self._interruptions = interruptions
            for offset, buffer, length in self._kept:
                await self._slots.acquire()
                self._start(group, offset, buffer, length)
        raise never_stable(0)

    def _start(self, group: TaskGroup, offset: int, buffer: bytearray, length: int) -> None:
        task = group.create_task(self._store(offset, buffer, length))
        if self._keeps:
            self._storing.add(task)
            task.add_done_callback(self._storing.discard)

    async def _take_piece(self, group: TaskGroup) -> bool:
        """Read a piece from the stream, and begin to write it; False at the end of the stream."""
        await self._slots.acquire()
        buffer = bytearray(self._piece)
        try:
            length = await _read_full(self._fd, memoryview(buffer))
        except OSError as error:
            raise CopyError("read", self.done_until, error, target=False) from error
        if self.done_until + length > self._target.size:
            words = f"it has {self._target.size} bytes, and the stream has more"
            raise CopyError("write", self._target.size, DiskError(errno.ENOSPC, words), target=True)
        if length:
            if self._keeps:
                self._kept.append((self.done_until, buffer, length))
            self._start(group, self.done_until, buffer, length)
            self.done_until += length
        return length == self._piece

    async def _store(self, offset: int, buffer: bytearray, length: int) -> None:
        try:
            await self._writer.store(offset, buffer, length)
        finally:
            self._slots.release()


async def _read_full(fd: int, buffer: memoryview) -> int:
    """Fill the buffer; return how much there was before the end of the stream."""
    waits = _can_wait(fd)
    done = 0
    while done < len(buffer):
        if waits:
            await _readable(fd)
            count = os.readv(fd, [buffer[done:]])
        else:
            count = await to_end(partial(os.readv, fd, [buffer[done:]]))
        if not count:
            break
        done += count
    return done


def _can_wait(fd: int) -> bool:
    """Return whether the loop can wait until the stream is readable: not for files."""
    mode = os.fstat(fd).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(fd)


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_reader(fd, set_unless_done, ready)
    try:
        await ready
    finally:
        loop.remove_reader(fd)


async def _writable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_writer(fd, set_unless_done, ready)
    try:
        await ready
    finally:
        loop.remove_writer(fd)


def _open_without_blocking(fd: int) -> int | None:
    """Return another descriptor of the pipe, whose writes do not block; None if it is no pipe.

    O_NONBLOCK on the descriptor itself would be shared with the programs that have it too.
    """
    if not stat.S_ISFIFO(os.fstat(fd).st_mode):
        return None
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # another user's pipe, or no /proc
        return None


def _write_all(fd: int, data: memoryview) -> None:
    while True:  # not `while data`: the jump rule
        if not data:
            break
        data = data[os.write(fd, data) :]


def _is_new_file(fd: int) -> bool:
    """Return whether the stream is a file, and is at its end: what is skipped reads as zeroes."""
    about = os.fstat(fd)
    if not stat.S_ISREG(about.st_mode) or fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND:
        return False
    return os.lseek(fd, 0, os.SEEK_CUR) >= about.st_size
