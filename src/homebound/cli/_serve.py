"""`homebound serve`: the server from start to stop."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING

from .._threads.io_thread_pool import IOThreadPool
from ..nbd import NBDServer
from ._announce import announce
from ._end import GRACE, End
from ._errors import ServeError
from ._notify import Notifier
from ._pidfile import pidfile
from ._run import run_beside, variables
from ._statistics import Statistics

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from ._address import Address
    from ._exports import Opened
    from ._signals import Signals


@dataclass(frozen=True)
class Service:
    """A server to run: its exports, its address, its options."""

    opened: Opened
    address: Address
    iothreads: int
    limits: Mapping[str, Any]  # options of NBDServer; None: its default
    pidfile: str | None = None
    command: str | None = None  # the server stops when it ends

    async def run(self, signals: Signals) -> int:
        """Serve until a signal or the end of the command; then answer what is in flight and flush.

        Returns the exit status.
        """
        stopped = asyncio.Event()
        notifier = Notifier()
        async with AsyncExitStack() as stack:
            stack.enter_context(signals.calling(_setter(stopped)))
            server = await self._start(stack, signals)
            if self.pidfile is not None:
                stack.enter_context(pidfile(self.pidfile))
            statistics = Statistics(server)
            signals.show_statistics = statistics.show
            status = 0
            if self.command is None:
                notifier.ready(announce(server.uris, self.opened.shown))
                await statistics.keep_live(stopped)
            else:
                environment = variables(server.uris, self.address.unix, self.opened.shown)
                status = await run_beside(self.command, environment, signals.before, stopped)
                signals.stop()
            notifier.stopping()
        return status

    async def _start(self, stack: AsyncExitStack, signals: Signals) -> NBDServer:
        """Start a server; the stack stops it."""
        pool = await self._start_threads(stack) if self.iothreads else None
        if pool is not None:  # else this loop serves them from their first request on
            for disk, io in zip(self.opened.remotes, cycle(pool.threads)):
                await disk.move_to(io)
        limits = {name: limit for name, limit in self.limits.items() if limit is not None}
        limits["find_timeout"] = self.opened.find_timeout
        server = NBDServer(self.opened.exports, io_threads=pool or (), **limits)
        end = End(server, self.opened.shown, self.opened.remotes)
        stack.push_async_callback(end.stop, GRACE)
        signals.overdue = end.overdue
        await self.address.listen(server)
        return server

    async def _start_threads(self, stack: AsyncExitStack) -> IOThreadPool:
        pool = IOThreadPool(self.iothreads, name="nbd")
        try:
            return await stack.enter_async_context(pool)
        except RuntimeError as error:  # Python raises it when the system has no more threads
            raise ServeError(f"cannot start {self.iothreads} threads: {error}") from error


def _setter(event: asyncio.Event) -> Callable[[], None]:
    """Make a function that sets the event from another thread."""
    loop = asyncio.get_running_loop()

    def set_it() -> None:
        try:
            loop.call_soon_threadsafe(event.set)
        except RuntimeError:
            pass  # the loop has ended by itself

    return set_it
