"""A file that fsspec can reach (HTTP, S3, ...) as a disk that can be read."""

from __future__ import annotations

import asyncio
import errno
import random
from functools import partial
from typing import TYPE_CHECKING, Any

from ..._workers.to_worker import to_worker
from .._disk import Disk
from .._errors import DiskClosed, DiskError, DiskReadOnly
from .._extent import Extent
from .._stripes import Stripes
from .block_cache import BlockCache
from .remote import Changed, Remote, in_words, is_final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from .._operations import Buffer

_LEAST_BLOCK = 4096
_LARGEST_ATTEMPT = 1 << 20  # bytes that are copied in a home without a break
_STREAMS = 32  # sequential readers that are told apart
_FIRST_BREAK, _LONGEST_BREAK = 0.1, 5.0  # seconds between attempts to fetch


class FsspecDisk(Disk):
    """The file at `url`, for reading only: `https://...`, `s3://...`, whatever fsspec knows.

    It takes `pip install homebound[fsspec]`, and the package for its protocol: aiohttp for http,
    s3fs for s3. `storage_options` go to fsspec's file system: keys, endpoints, headers.

    Blocks of `block_size` bytes are fetched in workers, and kept as far as `cache_size` bytes
    allow. A sequential reader has more fetched at a time, up to `read_ahead` bytes. A fetch that
    fails or takes more than `timeout` seconds is repeated `retries` times, after breaks that grow
    to 5 s; then the read raises DiskError. (Only asynchronous file systems, such as http and s3,
    can be given a limit of time.)

    The size is that at the opening. After each fetch size, ETag, time of change and so on are
    looked at again: if they differ, that and all later reads raise DiskError, ESTALE. A server
    that tells none of them is believed.

    The constructor asks the server, and blocks; in a task use `await FsspecDisk.open(url)`.
    Raises ImageError if there is no such file, its size is not told, or fsspec is missing.

    >>> import fsspec, homebound
    >>> from homebound.block import FsspecDisk
    >>> fsspec.filesystem("memory").pipe_file("/disk.img", b"some bytes")
    >>> async def main():
    ...     with await FsspecDisk.open("memory://disk.img") as disk:
    ...         return await disk.read(5, 5)
    >>> homebound.run(main())
    bytearray(b'bytes')

    Called from: any thread.
    """

    shared_cache = True
    read_only = True

    def __init__(  # noqa: PLR0913  (options, by keyword only)
        self,
        url: str,
        *,
        storage_options: Mapping[str, Any] | None = None,
        block_size: int = 256 << 10,
        cache_size: int = 64 << 20,
        read_ahead: int = 4 << 20,
        retries: int = 5,
        timeout: float = 30.0,
    ) -> None:
        if block_size < _LEAST_BLOCK or block_size & (block_size - 1):
            raise ValueError(f"block_size is {block_size}: a power of two from 4096 on")
        if retries < 0 or timeout <= 0:
            raise ValueError(f"retries is {retries}, timeout {timeout}: from 0 on, and more than 0")
        self._remote = Remote(url, storage_options or {}, timeout)
        self.url: str = self._remote.name
        self.size: int = self._remote.size
        self.preferred_block: int = block_size
        self._block = block_size
        self._retries = retries
        most = max(2, cache_size // block_size)
        self._cache = BlockCache(most)
        self._most_ahead = max(1, min(read_ahead // block_size, most // 2))
        # A reader that wants this block next has read the one before: fetch so many for it. The
        # oldest goes first. Written by tasks that hold the block's stripe, in any home; a lost
        # entry costs a smaller fetch.
        self._ahead: dict[int, int] = {}
        self._fetching = Stripes()
        self._changed = ""  # how, once it is; an error would keep the frames it came through
        self._closed = False  # written once, by `close`

    @classmethod
    async def open(cls, url: str, **options: Any) -> Self:
        """Make the disk in a worker. Takes the constructor's arguments.

        Called from: task.
        """
        return await to_worker(partial(cls, url, **options))

    def __repr__(self) -> str:
        return f"<FsspecDisk {self.url!r} ({self.size} bytes)>"

    # Reading.

    def try_read_into(self, offset: int, buffer: memoryview) -> bool:
        """Read what is kept; False if a part is not.

        Called from: any thread.
        """
        self._check_open()
        if len(buffer) > _LARGEST_ATTEMPT:
            return False
        stop = offset + len(buffer)
        at = offset
        while at < stop:
            block = self._cache.get(at // self._block)
            if block is None:
                return False
            at += _copy(block, at % self._block, buffer[at - offset :])
        return True

    async def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer`, fetching what is not kept. Raises OSError when the server fails.

        Called from: task.
        """
        self._check(offset, len(buffer))
        stop = offset + len(buffer)
        at = offset
        while at < stop:
            number = at // self._block
            block = self._cache.get(number)
            if block is None:
                last = (stop - 1) // self._block
                data, start = await self._fetch_from(number, last), number * self._block
                at += _copy(data, at - start, buffer[at - offset :])
            else:
                at += _copy(block, at % self._block, buffer[at - offset :])

    async def cache(self, offset: int, length: int) -> None:
        """Fetch the range, or as much of it as half of the cache holds.

        Called from: task.
        """
        self._check(offset, length)
        if not length:
            return
        first, last = offset // self._block, (offset + length - 1) // self._block
        last = min(last, first + self._cache.most // 2 - 1)
        number = first
        while number <= last:
            if number in self._cache:
                number += 1
            else:
                number += -(-len(await self._fetch_from(number, last)) // self._block)

    async def _fetch_from(self, number: int, last: int) -> bytes:
        """Return blocks from `number` on, up to `last` or what is fetched ahead; keep them."""
        ahead = self._ahead.get(number, 1)
        count = min(max(ahead, last - number + 1), self._most_ahead)
        count = min(count, -(-self.size // self._block) - number)
        async with self._fetching.hold(number, number + count):
            block = self._cache.get(number)
            if block is not None:  # another reader was first
                return block
            ahead = self._ahead.pop(number, 1)
            start = number * self._block
            data = await self._fetch(start, min(self.size, start + count * self._block))
            for n in range(count):
                self._cache.put(number + n, data[n * self._block : (n + 1) * self._block])
            self._note(number + count, max(2 * ahead, count))
            return data

    def _note(self, number: int, ahead: int) -> None:
        """Expect a sequential reader at this block."""
        self._ahead[number] = min(ahead, self._most_ahead)
        if len(self._ahead) > _STREAMS:
            self._ahead.pop(next(iter(self._ahead.copy())), None)

    async def _fetch(self, start: int, stop: int) -> bytes:
        """Return these bytes, after several attempts if need be."""
        wait = _FIRST_BREAK
        for attempt in range(self._retries + 1):
            self._check_open()
            try:
                return await to_worker(self._remote.read, start, stop)
            except Changed as error:
                self._changed = str(error)
                raise
            except Exception as error:
                self._check_open()
                if attempt == self._retries or is_final(error):
                    raise self._failure(start, stop, attempt + 1, error) from error
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311  (no secret)
            wait = min(2 * wait, _LONGEST_BREAK)
        raise AssertionError("unreachable")

    def _failure(self, start: int, stop: int, attempts: int, error: Exception) -> DiskError:
        tried = "" if attempts == 1 else f" (tried {attempts} times)"
        text = f"cannot read {stop - start} bytes at {start} of {self.url!r}{tried}: "
        return DiskError(errno.EIO, text + in_words(error))

    # The rest.

    async def block_status(self, offset: int, length: int) -> list[Extent]:
        """Return that all is data: servers do not tell.

        Called from: task.
        """
        self._check(offset, length)
        return [Extent(length)] if length else []

    async def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        """Refuse to write: raises DiskReadOnly.

        Called from: task.
        """
        del fua
        self._refuse(offset, len(data))

    async def flush(self) -> None:
        """Do nothing: nothing was written.

        Called from: task.
        """
        self._check_open()

    async def trim(self, offset: int, length: int, *, fua: bool = False) -> None:
        """Refuse to trim: raises DiskReadOnly.

        Called from: task.
        """
        del fua
        self._refuse(offset, length)

    async def write_zeroes(
        self, offset: int, length: int, *, fua: bool = False, no_hole: bool = False
    ) -> None:
        """Refuse to write: raises DiskReadOnly.

        Called from: task.
        """
        del fua, no_hole
        self._refuse(offset, length)

    def close(self) -> None:
        """Forget what is kept, and end the connections once no fetch is under way.

        Called from: any thread.
        """
        self._closed = True
        self._cache.clear()
        self._gate.retire(self._remote.close)

    def _check_open(self) -> None:
        if self._closed:
            raise DiskClosed(self)
        if self._changed:
            raise Changed(errno.ESTALE, self._changed)

    def _check(self, offset: int, length: int) -> None:
        self._check_open()
        self.check_range(offset, length)

    def _refuse(self, offset: int, length: int) -> None:
        self._check(offset, length)
        raise DiskReadOnly(self)


def _copy(block: bytes, within: int, buffer: memoryview) -> int:
    """Copy from inside a block to the start of a buffer; return how much."""
    part = memoryview(block)[within : within + len(buffer)]
    buffer[: len(part)] = part
    return len(part)
