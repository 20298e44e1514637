"""NBDDisk: a disk on a server."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from ..._core.places import context_at
from ...block import DiskClosed, DiskError, DiskReadOnly, Extent
from ...block._buffers import bytes_of, room_in
from ...block._extent import merged
from ...block._gate import self_counted
from ...block._zeroes import PIECE, zero_pieces
from .._protocol.chunks import extents_in
from .._protocol.wire import (
    MAX_PAYLOAD,
    STATE_HOLE,
    STATE_ZERO,
    Command,
    CommandFlag,
    TransmissionFlag,
)
from .call import Call
from .client import Client
from .described import RemoteDisk, StatusExtent
from .dial import CONTEXT
from .options import check_options, names_of, open_links, target_of

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

    from ..._core.context import AioContext
    from ..._threads.io_thread import IOThread
    from ...block._operations import Buffer

_LONGEST = 1 << 30  # bytes that one request without a payload is about
_READ, _WRITE = int(Command.READ), int(Command.WRITE)


class NBDDisk(RemoteDisk):
    """A disk on an NBD server; made by `await NBDDisk.connect(...)`.

    It may be used from the tasks of any asyncio loop and, by the calls that end in `_sync`, from
    threads. Its sockets are served by one loop, that in which it was connected, until `move_to`;
    close it, or move it, before that loop ends.

    A request that fails on the server raises DiskError with the server's error; one that has lost
    its connection, ConnectionLost. A request that waits for a reply or for a connection ends at
    once when its task is cancelled, unless it is on its way to change the disk: then it ends with
    its reply, with `request_timeout` or with `close`.

    >>> import homebound
    >>> from homebound.block import MemoryDisk
    >>> from homebound.nbd import NBDDisk, NBDServer
    >>> async def main():
    ...     async with NBDServer(MemoryDisk(1 << 20)) as server:
    ...         await server.listen_tcp("127.0.0.1", 0)
    ...         async with await NBDDisk.connect(server.uris[0]) as disk:
    ...             await disk.write(4096, b"hello")
    ...             return await disk.read(4096, 5)
    >>> homebound.run(main())
    bytearray(b'hello')
    """

    def __init__(self, *_args: object, **_options: object) -> None:
        raise TypeError("NBDDisk is made by `await NBDDisk.connect(uri)`")

    @classmethod
    async def connect(  # noqa: PLR0913  (all of them options)
        cls,
        uri_or_socket: str | socket.socket | int,
        *,
        connections: int = 1,
        reconnect_delay: float = 0.0,
        open_timeout: float = 0.0,
        request_timeout: float | None = None,
        meta: Sequence[str] = (),
        tls: ssl.SSLContext | None = None,
        export: str | None = None,
        read_only: bool = False,
    ) -> Self:
        """Connect to the export that an NBD URI names, in a worker thread.

        Instead of a URI, a connected socket or its descriptor may be given, which the disk closes;
        `export` is the name then, and replaces that of a URI. Times are in seconds.

        - `connections`: how many there are, if the server supports more than one.
        - `open_timeout`: how long connecting is tried again when it fails.
        - `reconnect_delay`: how long requests wait for a new connection when theirs is lost. They
          are sent again, so a write may be made twice. 0: they fail, and so do later ones until
          there is a new connection. Writes that the server had acknowledged but not flushed when it
          ended are not repeated: `interruptions` reveals that, a flush does not.
        - `request_timeout`: how long a server may take for a reply. After it the request fails, and
          the connection is replaced.
        - `meta`: metadata contexts for `status`, beside base:allocation.
        - `tls`: a context for TLS, which is required then; by default it is made as an `nbds` URI
          says.
        - `read_only`: refuse all changes, whatever the server allows.

        Raises ConnectError, an OSError; ServerViolation if the server violates the protocol;
        URIError, a ValueError.

        Called from: task.
        """
        check_options(connections, reconnect_delay, open_timeout, request_timeout)
        queries = names_of(meta)
        target = target_of(uri_or_socket, export, tls)
        if target.sock is not None and connections > 1:
            raise ValueError("there are several connections, and one socket; pass a URI")
        client = Client(
            target,
            queries,
            reconnect_delay=reconnect_delay,
            request_timeout=request_timeout,
            connections=connections,
        )
        try:
            links = await open_links(client, connections, open_timeout)
        except BaseException:
            client.close()
            raise
        client.begin(links)
        self = cls.__new__(cls)
        self._begin(client, read_only=read_only)
        return self

    def _begin(self, client: Client, *, read_only: bool) -> None:
        export = client.export
        flags = export.flags
        minimum, preferred, largest = export.block_sizes
        self._client = client
        self._flags = flags
        # If the size is not a multiple of the minimum block, nothing can reach the last part.
        self.size: int = export.size // minimum * minimum
        self.read_only: bool = read_only or bool(flags & TransmissionFlag.READ_ONLY)
        # Its connections are one, or several that share what is flushed.
        self.shared_cache: bool = True
        self.can_flush: bool = bool(flags & TransmissionFlag.SEND_FLUSH)
        self.can_fua: bool = self.can_flush or bool(flags & TransmissionFlag.SEND_FUA)
        self.can_trim: bool = bool(flags & TransmissionFlag.SEND_TRIM)
        self.rotational: bool = bool(flags & TransmissionFlag.ROTATIONAL)
        self.minimum_block: int = minimum
        self.preferred_block: int = max(512, preferred)
        self.maximum_transfer: int | None = largest if export.sizes_told else MAX_PAYLOAD
        zeroes = flags & TransmissionFlag.SEND_WRITE_ZEROES
        self.can_fast_zero: bool = bool(zeroes and flags & TransmissionFlag.SEND_FAST_ZERO)

    def __repr__(self) -> str:
        how = " read-only" if self.read_only else ""
        closed = " closed" if self._client.closed else ""
        return f"<NBDDisk {self.uri!r} of {self.size} bytes{how}{closed}>"

    # Operations.

    @self_counted
    async def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` from `offset` on. Raises OSError when that fails.

        Called from: task.
        """
        gate = self._gate
        inside = gate.inside
        inside.append(None)  # as Gate.enter and leave, without the calls: each request passes here
        if gate.closed:  # so it waits, unless this is part of another request
            gate.leave()
            async with self.request():
                await self._client.carry_out(self._to_read(offset, buffer))
            return
        try:
            await self._client.carry_out(self._to_read(offset, buffer))
        finally:
            inside.pop()
            if gate.closed and not inside:
                gate.tell_empty()

    def _to_read(self, offset: int, buffer: memoryview) -> Call:
        """Return the request that fills a buffer. Raises DiskError if it cannot be made."""
        target = room_in(buffer, offset)
        length = len(target)
        self._check(offset, length, payload=True)
        return Call(_READ, offset, length, 0, b"", target)

    @self_counted
    async def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        """Write `data`; with `fua` it is on stable storage on return. Raises OSError.

        Called from: task.
        """
        gate = self._gate
        flushes = fua and not self._flags & TransmissionFlag.SEND_FUA
        if flushes or not gate.enter():
            async with self.request():
                await self._client.carry_out(self._to_write(offset, data, fua=fua))
                if flushes:
                    await self.flush()
            return
        try:
            await self._client.carry_out(self._to_write(offset, data, fua=fua))
        finally:
            gate.leave()

    def _to_write(self, offset: int, data: Buffer, *, fua: bool) -> Call:
        """Return the request that writes data. Raises DiskError if it cannot be made."""
        data = bytes_of(data, offset)
        length = len(data)
        self._check(offset, length, payload=True, changes=True)
        return Call(_WRITE, offset, length, self._fua(fua), data)

    async def flush(self) -> None:
        """Put on stable storage what was written before this call. Raises OSError.

        Called from: task.
        """
        self._check_open()
        if self._flags & TransmissionFlag.SEND_FLUSH:
            await self._client.carry_out(Call(Command.FLUSH))

    async def trim(self, offset: int, length: int, *, fua: bool = False) -> None:
        """Give a hint that the range may be dropped. Does nothing if the server takes no hints.

        Called from: task.
        """
        self._check(offset, length, changes=True)
        if self._flags & TransmissionFlag.SEND_TRIM:
            for at, size in _pieces(offset, length):
                await self._client.carry_out(Call(Command.TRIM, at, size, flags=self._fua(fua)))
        await self._after(fua=fua)

    async def write_zeroes(
        self, offset: int, length: int, *, fua: bool = False, no_hole: bool = False
    ) -> None:
        """Make the range read as zeroes, by writing them if the server has no other way.

        Called from: task.
        """
        self._check(offset, length, changes=True)
        flags = self._fua(fua)
        if self._flags & TransmissionFlag.SEND_WRITE_ZEROES:
            flags |= CommandFlag.NO_HOLE if no_hole else 0
            for at, size in _pieces(offset, length):
                await self._client.carry_out(Call(Command.WRITE_ZEROES, at, size, flags=flags))
        else:
            for at, zeroes in zero_pieces(offset, length, self.maximum_transfer or PIECE):
                await self.write(at, zeroes, fua=bool(flags & CommandFlag.FUA))
        await self._after(fua=fua)

    async def fast_zeroes(
        self, offset: int, length: int, *, fua: bool = False, no_hole: bool = False
    ) -> None:
        """Make the range read as zeroes if the server does so quickly; else ENOTSUP.

        Called from: task.
        """
        self._check(offset, length, changes=True)
        if not self.can_fast_zero:
            raise DiskError(errno.ENOTSUP, f"{self!r} has no quick way to write zeroes")
        flags = self._fua(fua) | (CommandFlag.NO_HOLE if no_hole else 0)
        fast: int = CommandFlag.FAST_ZERO
        for at, size in _pieces(offset, length):
            call = Call(Command.WRITE_ZEROES, at, size, flags=flags | fast)
            await self._client.carry_out(call)
            fast = 0  # once the first piece is done, "nothing has been changed" is over
        await self._after(fua=fua)

    async def cache(self, offset: int, length: int) -> None:
        """Give a hint that the range will be read soon. Does nothing if the server takes none.

        Called from: task.
        """
        self._check(offset, length)
        if self._flags & TransmissionFlag.SEND_CACHE:
            for at, size in _pieces(offset, length):
                await self._client.carry_out(Call(Command.CACHE, at, size))

    async def block_status(self, offset: int, length: int) -> list[Extent]:
        """Return what the server says of the range in base:allocation; else that all is data.

        Called from: task.
        """
        self._check(offset, length)
        if CONTEXT not in self.contexts():
            return [Extent(length)] if length else []
        return merged(
            Extent(size, bool(flags & STATE_HOLE), bool(flags & STATE_ZERO))
            for size, flags in await self._status(CONTEXT, offset, length)
        )

    async def status(self, context: str, offset: int, length: int) -> list[StatusExtent]:
        """Return what the server says of the range in a metadata context.

        The extents add up to `length` bytes. What their flags mean is the context's matter: in
        qemu:dirty-bitmap:NAME, 1 is dirty. Raises ValueError if the context was not asked for with
        `meta`, or the server does not have it.

        Called from: task.
        """
        async with self.request():
            self._check(offset, length)
            if context not in self.contexts():
                known = ", ".join(self.contexts()) or "none"
                raise ValueError(f"{self!r} has no metadata context {context!r}; it has {known}")
            return await self._status(context, offset, length)

    async def _status(self, context: str, offset: int, length: int) -> list[StatusExtent]:
        found: list[StatusExtent] = []
        end = offset + length
        while offset < end:
            size = min(end - offset, _LONGEST)
            call = Call(Command.BLOCK_STATUS, offset, size)
            await self._client.carry_out(call)
            body = call.extents_of(context)
            if body is None:
                raise DiskError(errno.ENOTSUP, f"{self!r} has lost its context {context!r}")
            for extent, flags in extents_in(body):
                taken = min(extent, end - offset)  # the last one may be longer than asked
                found.append(StatusExtent(taken, flags))
                offset += taken
        return found

    # The home, and the end.

    async def move_to(self, context: AioContext | IOThread) -> None:
        """Have the connections served in another home. Requests under way go on, in their order.

        Raises ContextClosed if it has ended.

        Called from: task.
        """
        await self._client.move(context_at(context, "NBDDisk.move_to()").loop)

    def close(self) -> None:
        """Disconnect at once; requests under way raise DiskClosed. May be called again.

        Called from: any thread.
        """
        self._client.close()

    async def aclose(self) -> None:
        """Wait for the requests under way, then disconnect. Later ones raise DiskClosed.

        Requests that wait for a connection are waited for, too: at most `reconnect_delay` seconds.

        Called from: task.
        """
        try:
            if not self._client.closed:
                async with self.drained():
                    pass
        finally:
            self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    # Parts.

    def _check_open(self) -> None:
        if self._client.closed:
            raise DiskClosed(self)

    def _check(
        self, offset: int, length: int, *, payload: bool = False, changes: bool = False
    ) -> None:
        if self._client.closed:
            raise DiskClosed(self)
        whole = type(offset) is int and type(length) is int  # else packing it would fail at home
        if not whole or offset < 0 or length < 0 or offset + length > self.size:
            self.check_range(offset, length)
        if changes and self.read_only:
            raise DiskReadOnly(self)
        granule = self.minimum_block
        if granule > 1 and (offset | length) % granule:
            text = f"{length} bytes at {offset}: {self!r} takes multiples of {granule} bytes only"
            raise DiskError(errno.EINVAL, text)
        if payload and self.maximum_transfer is not None and length > self.maximum_transfer:
            text = f"{length} bytes: {self!r} takes {self.maximum_transfer} in one request"
            raise DiskError(errno.EINVAL, text)

    def _fua(self, fua: bool) -> int:  # noqa: FBT001  (passed on)
        """Return the flags of a request that is to be on stable storage."""
        return CommandFlag.FUA if fua and self._flags & TransmissionFlag.SEND_FUA else 0

    async def _after(self, *, fua: bool) -> None:
        """Flush, if that is the way to have a request on stable storage."""
        if fua and not self._flags & TransmissionFlag.SEND_FUA:
            await self.flush()


def shorten_waits(disk: NBDDisk, seconds: float, answers: float) -> None:
    """Have requests wait at most `seconds` more for a connection, and `answers` for a reply.

    With 0 `seconds`, those in flight wait no more. Those that lose their connection from now on
    fail with ESHUTDOWN: the server that passes them on is stopping. Any thread.
    """
    disk._client.shorten(seconds, answers)


def _pieces(offset: int, length: int) -> list[tuple[int, int]]:
    """Divide a range into what one request may be about."""
    end = offset + length
    return [(at, min(_LONGEST, end - at)) for at in range(offset, end, _LONGEST)]
