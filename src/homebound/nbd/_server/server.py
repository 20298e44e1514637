"""The server: its addresses, its lanes, its end."""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING

from ..._core.context import AioContext
from ..._errors import ContextClosed, ContextError
from ..._threads.io_thread import IOThread
from ..._threads.io_thread_pool import IOThreadPool
from ...block._blocking_disk import BlockingDisk
from .._protocol.errors import ExportNameError, ListenError
from .._protocol.export import ExportTable
from .._protocol.wire import MAX_PAYLOAD
from .accept import Acceptor
from .budget import DEFAULT_BUDGET, Budget
from .faults import safe_repr
from .greeter import Greeter
from .inherited import adopt
from .lane import Lane
from .listen import check_port, listen_tcp, listen_unix
from .moving import Mover, until_done
from .published import (
    ServerStats,
    add_up,
    check_number,
    check_seconds,
    publish,
    tcp_uri,
    unix_uri,
)
from .served import serve
from .tls import encryption
from .visits import Finder, FindingVisit, FixedVisit, is_finder

if TYPE_CHECKING:
    import os
    import ssl
    from collections.abc import Coroutine, Iterable, Mapping
    from types import TracebackType
    from typing import Any, Self

    from ...block._disk import Disk
    from .client_info import ClientInfo
    from .listen import UnixPath
    from .published import Export
    from .served import Served
    from .visits import Exports, Visit

DEFAULT_PORT = 10809
_ARRIVING = 4  # connections being set up in a lane, at most; each takes long


class NBDServer:
    """Serves disks over NBD, on any number of addresses.

    `exports` is a disk, which is exported under the empty name, or a mapping of names to disks. An
    `Export` in place of a disk adds options, such as a description. `default` is the name of the
    export that clients get for the empty name. The disks stay the caller's, to close after `stop`.

    An object with `async def find(name, client)` in place of the mapping finds exports as clients
    ask for them, and may `list` them (see `Exports`). `find` runs in the home of the connection,
    once, or again when the client asks for another name; it has `find_timeout` seconds (None:
    any time), in which the client may disconnect. What it returns is closed with the connection. If
    it raises, the client gets an error and the loop's exception handler a report.

    Connections are accepted in the loop that called `listen_unix` or `listen_tcp`, and distributed
    over `io_threads` in turn; without any, they are served in that same loop. A client that has not
    chosen an export `handshake_timeout` seconds after connecting is disconnected, and a connection
    beyond `max_connections` is closed at once. The data of all requests and replies takes at most
    `buffer_budget` bytes, and 256 KiB for each client; requests that would exceed that wait until
    others are answered. `round_size` is for each `Export` without its own. With `tls`, a context
    for servers, clients may encrypt the connection, and must with `tls_required`; what the context
    verifies of their certificates reaches `find` as `client.tls_subject`.

    Raises ExportNameError for a name that the protocol cannot carry, TypeError for arguments of a
    wrong type, ValueError for numbers below their minimum.

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

    Called from: any thread.
    """

    def __init__(  # noqa: PLR0913  (options, by keyword)
        self,
        exports: Disk | Export | Mapping[str, Disk | Export] | Exports,
        *,
        default: str | None = None,
        io_threads: IOThreadPool | IOThread | Iterable[IOThread] = (),
        handshake_timeout: float = 10.0,
        find_timeout: float | None = 10.0,
        max_connections: int = 100,
        buffer_budget: int = DEFAULT_BUDGET,
        round_size: int = 1,
        tls: ssl.SSLContext | None = None,
        tls_required: bool = False,
    ) -> None:
        self._encryption = encryption(tls, required=tls_required)
        check_seconds("handshake_timeout", handshake_timeout)
        if find_timeout is not None:
            check_seconds("find_timeout", find_timeout)
        check_number("max_connections", max_connections, 1)
        check_number("round_size", round_size, 1)
        check_number("buffer_budget", buffer_budget, MAX_PAYLOAD)
        budget = Budget(buffer_budget)
        self._finder: Finder | None = None
        self._served: dict[str, Served] = {}
        if is_finder(exports):
            self._finder = Finder(
                exports,
                default=default,
                budget=budget,
                round_size=round_size,
                time_limit=find_timeout,
            )
        else:
            for name, export in publish(exports).items():
                self._served[name] = serve(name, export, budget, round_size)
        self._default = default if default is not None else next(iter(self._served), "")
        infos = [served.info for served in self._served.values()]
        self._fixed = FixedVisit(
            ExportTable(infos, None if self._finder else default), self._served
        )
        self._handshake_timeout = handshake_timeout
        self._max_connections = max_connections
        threads = _threads_of(io_threads)
        # Each with its I/O thread; None: the loop that listens.
        self._lanes: list[tuple[IOThread | None, Lane]] = [(io, Lane()) for io in threads]
        if not self._lanes:
            self._lanes = [(None, Lane())]
        self._turns = cycle(tuple(self._lanes))
        self._mover = Mover(self._at_home)
        for _, lane in self._lanes:
            lane.began = self._mover.settle
        # The rest is used only by the loop that listens.
        self._acceptors: list[Acceptor] = []
        self._accepted = 0  # connections given to a lane
        self._paths: list[UnixPath] = []
        self._tasks: set[asyncio.Future[None]] = set()  # of `_at_home`, until they end
        # A task in each lane's home, since the first address.
        self._keepers: list[asyncio.Future[None]] = []
        self._uris: list[str] = []
        self._stopping: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        where = ", ".join(self._uris) or "not listening"
        what = f"{len(self._served)} exports"
        if self._finder is not None:
            what = f"exports that {safe_repr(self._finder.exports)} finds"
        return f"<NBDServer of {what}: {where}>"

    @property
    def uris(self) -> list[str]:
        """The URIs of the default export, or else of the first one, an address each.

        Called from: any thread.
        """
        return list(self._uris)

    def stats(self) -> ServerStats:
        """Return the counters, added up over all threads.

        Called from: any thread.
        """
        return add_up(lane for _, lane in self._lanes)

    async def listen_unix(self, path: str | os.PathLike[str]) -> None:
        """Serve on a Unix socket at `path`. A stale socket file is replaced.

        Raises AddressInUse if a process listens on it, ListenError if it cannot listen there.

        Called from: task.
        """
        self._check_running()
        listener, unix_path = listen_unix(path)
        self._paths.append(unix_path)
        self._show(unix_uri(unix_path.path, self._default))
        self._accept_from(listener)

    async def listen_tcp(self, host: str = "127.0.0.1", port: int = DEFAULT_PORT) -> None:
        """Serve on every address of `host`; port 0 takes a free one, which `uris` shows.

        Raises AddressInUse if a port is in use, ListenError if it cannot listen there.

        Called from: task.
        """
        self._check_running()
        check_port(host, port)
        loop = asyncio.get_running_loop()
        try:
            addresses = await loop.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
        except OSError as error:
            raise ListenError(f"cannot listen on {host!r}: {error.strerror or error}") from error
        except ValueError as error:  # it cannot be encoded as one, or has a null character
            raise ListenError(f"cannot listen on {host!r}: it is no name of a host") from error
        for listener in listen_tcp(host, dict.fromkeys(addresses)):
            bound = listener.getsockname()
            self._show(tcp_uri((bound[0], bound[1]), self._default))
            self._accept_from(listener)

    async def listen_socket(self, listener: socket.socket) -> None:
        """Serve on a listening stream socket, such as one from a service manager.

        The server closes it in `stop`. Raises ListenError if it does not listen.

        Called from: task.
        """
        self._check_running()
        uri = adopt(listener, self._default)
        if uri is not None:
            self._show(uri)
        self._accept_from(listener)

    async def move(
        self, name: str, io_threads: IOThreadPool | IOThread | Iterable[IOThread]
    ) -> None:
        """Move the clients of an export to these I/O threads, while they send requests.

        A client is moved when its requests in flight are answered and it has read the replies;
        those that it sends meanwhile are served in the new thread, in their order. Clients that
        come later are moved there too; encrypted connections stay. If the caller is cancelled,
        those that have not moved stay. Raises ValueError without I/O threads, ExportNameError for a
        name that is no export's, ContextError for a thread that is not started or has stopped.

        Called from: task.
        """
        self._check_running()
        if self._finder is None and name not in self._served:
            raise ExportNameError(f"no export is named {name!r}")
        threads = _threads_of(io_threads)
        if not threads:
            raise ValueError("move() needs at least one I/O thread")
        _check_alive(threads)
        await self._mover.move(name, [self._place(io) for io in threads], list(self._lanes))

    def _place(self, io: IOThread) -> tuple[IOThread | None, Lane]:
        """Return the lane of an I/O thread, made now if it has none here."""
        for place in self._lanes:
            if place[0] is io:
                return place
        lane = Lane()
        lane.began = self._mover.settle
        self._lanes.append((io, lane))
        keeper = self._at_home(io, lane.keep())
        if keeper is not None:
            self._keepers.append(keeper)
        return io, lane

    async def stop(self, grace: float = 5.0) -> None:
        """Stop listening, answer the requests in flight, disconnect, and flush the disks.

        Clients that have not read their replies after `grace` seconds are disconnected. A second
        call waits for the end of the first. Raises OSError if a disk cannot be flushed, after
        everything else is done.

        Called from: task.
        """
        if self._stopping is None:
            check_seconds("grace", grace)
            self._stopping = asyncio.create_task(self._stop(grace))
        # Shielded: a cancelled caller must not leave the server half stopped.
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

    def _show(self, uri: str) -> None:
        required = self._encryption is not None and self._encryption.required
        self._uris.append(uri.replace("nbd", "nbds", 1) if required else uri)

    def _check_running(self) -> None:
        if self._stopping is not None:
            raise ListenError("this server was stopped; make another one")
        _check_alive(io for io, _ in self._lanes if io is not None)

    def _accept_from(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        if self._lanes[0][0] is None and (
            self._finder is not None
            or any(isinstance(served.disk, BlockingDisk) for served in self._served.values())
        ):
            # Workers return results to a home, which a loop not made by homebound may not be yet.
            AioContext.attach(loop)
        if not self._keepers:
            keepers = [self._at_home(io, lane.keep()) for io, lane in self._lanes]
            self._keepers.extend(filter(None, keepers))
        self._acceptors.append(Acceptor(loop, listener, self._hand_over, self._busy))

    def _busy(self) -> bool:
        """Return whether the lanes are still setting up as many connections as they may."""
        settled = sum(lane.settled for _, lane in self._lanes)
        return self._accepted - settled >= _ARRIVING * len(self._lanes)

    def _hand_over(self, connection: socket.socket) -> None:
        if self._accepted - sum(lane.ended for _, lane in self._lanes) >= self._max_connections:
            connection.close()
            return
        io, lane = next(self._turns)
        self._accepted += 1
        greeter = partial(Greeter, lane, self._visit, self._handshake_timeout, self._encryption)
        if self._at_home(io, lane.serve(connection, greeter)) is None:
            connection.close()  # that I/O thread has been stopped
            self._accepted -= 1

    def _visit(self, client: ClientInfo) -> Visit:
        return self._fixed if self._finder is None else FindingVisit(self._finder, client)

    def _at_home(
        self, io: IOThread | None, work: Coroutine[Any, Any, None]
    ) -> asyncio.Future[None] | None:
        """Start `work` in its lane's home; return None if that home has ended."""
        task: asyncio.Future[None]
        if io is None:
            task = asyncio.create_task(work)
        else:
            try:
                task = io.context.spawn(work)
            except ContextError:  # the thread has stopped, or was never started
                work.close()
                return None
        # asyncio's own loop keeps only weak references to its tasks.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _stop(self, grace: float) -> None:
        for acceptor in self._acceptors:
            acceptor.stop()
        for path in self._paths:
            path.remove()
        stopping = [self._at_home(io, lane.stop(grace)) for io, lane in self._lanes]
        for task in filter(None, stopping):
            await until_done(task)
        for keeper in self._keepers:
            keeper.cancel()
            await until_done(keeper)
        # In a home, which this loop may not be; or here if the I/O thread has been stopped.
        await (self._at_home(self._lanes[0][0], self._flush()) or self._flush())

    async def _flush(self) -> None:
        for disk in {id(served.disk): served.disk for served in self._served.values()}.values():
            if not disk.read_only:
                await disk.flush()


def _threads_of(given: IOThreadPool | IOThread | Iterable[IOThread]) -> list[IOThread]:
    """Return the I/O threads that an argument names. Raises TypeError."""
    if isinstance(given, IOThreadPool):
        return list(given.threads)
    threads = [given] if isinstance(given, IOThread) else given
    try:
        found = list(threads)
    except TypeError:
        found = [threads]  # type: ignore[list-item]
    for each in found:
        if not isinstance(each, IOThread):
            kind = type(each).__name__
            text = f"io_threads takes an IOThreadPool, or I/O threads; {each!r} is a {kind}"
            raise TypeError(text)
    return found


def _check_alive(threads: Iterable[IOThread]) -> None:
    """Raise ContextError if one of the threads is not started or has stopped: clients would go."""
    for io in threads:
        if io.context.stats().closed:
            raise ContextClosed(f"{io!r} has stopped: it can serve no clients")
