"""`homebound serve`: the server, from its first word to its last."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .._threads.io_thread_pool import IOThreadPool
from ..nbd import NBDServer
from ._announce import announce
from ._end import GRACE, End
from ._notify import Notifier
from ._statistics import Statistics

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ._announce import Served
    from ._signals import Signals

_LONGEST_UNIX = 107  # bytes of a socket's path


@dataclass(frozen=True)
class Address:
    """Return where to listen: the Unix socket if there is one, else host and port."""

    unix: str | None
    host: str
    port: int

    async def listen(self, server: NBDServer) -> None:
        """Have the server listen there; its URIs then hold from any directory."""
        if self.unix is None:
            await server.listen_tcp(self.host, self.port)
            return
        await server.listen_unix(_absolute(self.unix))


def _absolute(path: str) -> str:
    """The path of a socket from any directory, unless it is too long to be one."""
    absolute = os.path.join(os.getcwd(), path)  # noqa: PTH109, PTH118  (a Path would not keep bytes)
    if ".." not in path.split("/"):  # what is before it may be a symbolic link
        absolute = os.path.normpath(absolute)
    return absolute if len(os.fsencode(absolute)) <= _LONGEST_UNIX else path


async def serve_until_stopped(
    exports: Sequence[Served], address: Address, iothreads: int, signals: Signals
) -> None:
    """Serve the exports until a signal comes; answer what is in flight, and flush."""
    stopped = asyncio.Event()
    notifier = Notifier()
    async with AsyncExitStack() as stack:
        stack.enter_context(signals.calling(_setter(stopped)))
        pool = None
        if iothreads:
            pool = await stack.enter_async_context(IOThreadPool(iothreads, name="nbd"))
        server = NBDServer({export.name: export.disk for export in exports}, io_threads=pool or ())
        end = End(server, exports)
        stack.push_async_callback(end.stop, GRACE)
        signals.overdue = end.overdue
        await address.listen(server)
        statistics = Statistics(server)
        signals.show_statistics = statistics.show
        notifier.ready(announce(server.uris, exports))
        await statistics.keep_live(stopped)
        notifier.stopping()


def _setter(stopped: asyncio.Event) -> Callable[[], None]:
    """Set the event, from another thread."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        try:
            loop.call_soon_threadsafe(stopped.set)
        except RuntimeError:
            pass  # the loop has ended by itself meanwhile

    return stop
