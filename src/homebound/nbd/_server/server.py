"""The server: where it listens, which thread serves whom, and how it ends."""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING

from ..._core.context import AioContext
from ..._errors import ContextClosed
from ..._threads.io_thread_pool import IOThreadPool
from ...block._disk import BlockingDisk, Disk
from .._protocol.errors import ListenError
from .._protocol.export import ExportTable
from .._protocol.wire import MAX_PAYLOAD
from .accept import Acceptor
from .budget import DEFAULT_BUDGET, Budget
from .greeter import Greeter
from .inherited import adopt
from .lane import Lane
from .listen import listen_tcp, listen_unix
from .published import (
    ServerStats,
    add_up,
    check_number,
    publish,
    tcp_uri,
    unix_uri,
)
from .served import serve

if TYPE_CHECKING:
    import os
    from collections.abc import Coroutine, Iterable, Mapping
    from types import TracebackType
    from typing import Any, Self

    from ..._threads.io_thread import IOThread
    from ...block._disk import Disk
    from .listen import UnixPath
    from .published import Export

DEFAULT_PORT = 10809
_ARRIVING = 4  # connections on their way to a home, at most; what it takes to take in more is long


class NBDServer:
    """Serves disks over NBD, on any number of addresses.

    `exports` is a disk, which clients find under the empty name, or disks by name; instead of a
    disk it may hold an `Export`, which adds a description or makes it read-only. `default` is the
    name that the empty name stands for. The disks stay the caller's, to be closed after `stop`.

    Connections are accepted in the loop that called `listen_unix` or `listen_tcp`. They are served
    by `io_threads` in turn, each connection by one of them; without any, in that same loop. A
    client that has not chosen an export `handshake_timeout` seconds after it came is dropped; one
    that comes while there are `max_connections` is hung up on at once. The data of all clients'
    requests and replies takes `buffer_budget` bytes at most, and 256 KiB for each client; requests
    that would exceed that wait until others are answered. `round_size` is that of each `Export`
    without its own.

    Raises ExportNameError for a name that the protocol cannot carry, TypeError or ValueError for
    what is no disk and for numbers that make no sense.

    >>> import homebound
    >>> from homebound.block import MemoryDisk
    >>> from homebound.nbd import NBDServer
    >>> async def main():
    ...     with MemoryDisk(1 << 30) as disk:
    ...         async with NBDServer(disk) as server:
    ...             await server.listen_tcp(port=0)
    ...             return server.stats().clients
    >>> homebound.run(main())
    0
    """

    def __init__(  # noqa: PLR0913  (options, by keyword)
        self,
        exports: Disk | Export | Mapping[str, Disk | Export],
        *,
        default: str | None = None,
        io_threads: IOThreadPool | Iterable[IOThread] = (),
        handshake_timeout: float = 10.0,
        max_connections: int = 100,
        buffer_budget: int = DEFAULT_BUDGET,
        round_size: int = 1,
    ) -> None:
        check_number("max_connections", max_connections, 1)
        check_number("round_size", round_size, 1)
        check_number("buffer_budget", buffer_budget, MAX_PAYLOAD)
        budget = Budget(buffer_budget)
        self._served = {
            name: serve(name, export, budget, round_size)
            for name, export in publish(exports).items()
        }
        self._default = default if default is not None else next(iter(self._served), "")
        self._table = ExportTable([served.info for served in self._served.values()], default)
        self._handshake_timeout = handshake_timeout
        self._max_connections = max_connections
        threads = io_threads.threads if isinstance(io_threads, IOThreadPool) else io_threads
        # Each with its home; None stands for the loop that listens.
        self._lanes: list[tuple[IOThread | None, Lane]] = [(io, Lane()) for io in threads]
        if not self._lanes:
            self._lanes = [(None, Lane())]
        self._turns = cycle(self._lanes)
        # The rest is used by the loop that listens only.
        self._acceptors: list[Acceptor] = []
        self._accepted = 0  # and handed over to a lane
        self._paths: list[UnixPath] = []
        self._arriving: set[asyncio.Future[None]] = set()
        # One in each lane's home, from the first address on.
        self._keepers: list[asyncio.Future[None]] = []
        self._uris: list[str] = []
        self._stopping: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        where = ", ".join(self._uris) or "not listening"
        return f"<NBDServer of {len(self._served)} exports: {where}>"

    @property
    def uris(self) -> list[str]:
        """Where clients find the default export, or else the first one."""
        return list(self._uris)

    def stats(self) -> ServerStats:
        """The counters, over all threads.

        Called from: any thread.
        """
        return add_up(lane for _, lane in self._lanes)

    async def listen_unix(self, path: str | os.PathLike[str]) -> None:
        """Serve on a Unix socket at `path`. A socket file left by a dead server is replaced.

        Raises AddressInUse if somebody listens there, ListenError if that cannot be done.

        Called from: task.
        """
        self._check_running()
        listener, unix_path = listen_unix(path)
        self._paths.append(unix_path)
        self._uris.append(unix_uri(unix_path.path, self._default))
        self._accept_from(listener)

    async def listen_tcp(self, host: str = "127.0.0.1", port: int = DEFAULT_PORT) -> None:
        """Serve on every address of `host`; port 0 takes a free one, which `uris` tells.

        Raises AddressInUse if somebody listens there, ListenError if that cannot be done.

        Called from: task.
        """
        self._check_running()
        loop = asyncio.get_running_loop()
        try:
            addresses = await loop.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
        except OSError as error:
            raise ListenError(f"cannot listen on {host!r}: {error.strerror}") from error
        for listener in listen_tcp(host, dict.fromkeys(addresses)):
            bound = listener.getsockname()
            self._uris.append(tcp_uri((bound[0], bound[1]), self._default))
            self._accept_from(listener)

    async def listen_socket(self, listener: socket.socket) -> None:
        """Serve on a stream socket that listens already, as a service manager hands it over.

        The server closes it in the end. Raises ListenError if it does not listen.

        Called from: task.
        """
        self._check_running()
        uri = adopt(listener, self._default)
        if uri is not None:
            self._uris.append(uri)
        self._accept_from(listener)

    async def stop(self, grace: float = 5.0) -> None:
        """Stop listening, answer what is in flight, hang up, and flush the disks.

        Clients that have not taken their replies after `grace` seconds are cut off. Called again,
        it waits for the same. Raises OSError if a disk cannot be flushed; all else is done by then.

        Called from: task.
        """
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(grace))
        # Whoever calls again waits for the same; who is cancelled leaves nothing half stopped.
        await asyncio.shield(self._stopping)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    def _check_running(self) -> None:
        if self._stopping is not None:
            raise ListenError("this server was stopped; make another one")

    def _accept_from(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        if self._lanes[0][0] is None and any(
            isinstance(served.disk, BlockingDisk) for served in self._served.values()
        ):
            # Workers bring their results to a home; a loop that others have started may be none.
            AioContext.attach(loop)
        if not self._keepers:
            keepers = [self._at_home(io, lane.keep()) for io, lane in self._lanes]
            self._keepers.extend(filter(None, keepers))
        self._acceptors.append(Acceptor(loop, listener, self._hand_over, self._busy))

    def _busy(self) -> bool:
        """The lanes have yet to take in what was handed over to them."""
        settled = sum(lane.settled for _, lane in self._lanes)
        return self._accepted - settled >= _ARRIVING * len(self._lanes)

    def _hand_over(self, connection: socket.socket) -> None:
        if self._accepted - sum(lane.ended for _, lane in self._lanes) >= self._max_connections:
            connection.close()
            return
        io, lane = next(self._turns)
        self._accepted += 1
        greeter = partial(Greeter, lane, self._table, self._served, self._handshake_timeout)
        if self._at_home(io, lane.serve(connection, greeter)) is None:
            connection.close()  # that thread has been stopped under us
            self._accepted -= 1

    def _at_home(
        self, io: IOThread | None, work: Coroutine[Any, Any, None]
    ) -> asyncio.Future[None] | None:
        """Start `work` in its lane's home; None if there is no such home any more."""
        task: asyncio.Future[None]
        if io is None:
            task = asyncio.create_task(work)
        else:
            try:
                task = io.context.spawn(work)
            except ContextClosed:
                work.close()
                return None
        # A loop of somebody else's does not keep its tasks alive.
        self._arriving.add(task)
        task.add_done_callback(self._arriving.discard)
        return task

    async def _stop(self, grace: float) -> None:
        for acceptor in self._acceptors:
            acceptor.stop()
        for path in self._paths:
            path.remove()
        stopping = [self._at_home(io, lane.stop(grace)) for io, lane in self._lanes]
        for task in filter(None, stopping):
            await _until_done(task)
        for keeper in self._keepers:
            keeper.cancel()
            await _until_done(keeper)
        # In a home, which this loop need not be; the I/O thread may have been stopped by now.
        await (self._at_home(self._lanes[0][0], self._flush()) or self._flush())

    async def _flush(self) -> None:
        for disk in {id(served.disk): served.disk for served in self._served.values()}.values():
            if not disk.read_only:
                await disk.flush()


async def _until_done(task: asyncio.Future[None]) -> None:
    """Wait for work in a thread that may itself be stopped meanwhile, which ends it as well."""
    try:
        await task
    except ContextClosed:
        pass
    except asyncio.CancelledError:
        me = asyncio.current_task()
        if not task.cancelled() or (me is not None and me.cancelling()):
            raise
