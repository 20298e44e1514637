"""`homebound serve`: the server, from its first word to its last."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live

from .._os.clock import monotonic
from .._threads.io_thread_pool import IOThreadPool
from ..nbd import NBDServer, ServerStats
from ._sizes import show_size

if TYPE_CHECKING:
    from pathlib import Path

    from ..block._disk import Disk

_EVERY = 0.5  # seconds between two looks at the counters


@dataclass(frozen=True)
class Address:
    """Return where to listen: the Unix socket if there is one, else host and port."""

    unix: Path | None
    host: str
    port: int


async def serve_until_stopped(disk: Disk, name: str, address: Address, iothreads: int) -> None:
    """Serve `disk` until SIGINT or SIGTERM; answer what is in flight, and flush."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    try:
        async with AsyncExitStack() as stack:
            pool = None
            if iothreads:
                pool = await stack.enter_async_context(IOThreadPool(iothreads, name="nbd"))
            server = NBDServer({name: disk}, io_threads=pool or ())
            await stack.enter_async_context(server)
            if address.unix is not None:
                await server.listen_unix(address.unix)
            else:
                await server.listen_tcp(address.host, address.port)
            _greet(server, disk)
            await _report(server, stopped)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def _greet(server: NBDServer, disk: Disk) -> None:
    """The addresses on standard output, for scripts; the rest for people."""
    for uri in server.uris:
        sys.stdout.write(f"{uri}\n")
    sys.stdout.flush()
    access = "read-only" if disk.read_only else "read-write"
    sys.stderr.write(f"serving {disk!r}, {show_size(disk.size)}, {access}; Ctrl-C stops\n")


async def _report(server: NBDServer, stopped: asyncio.Event) -> None:
    """Keep a live line on a terminal; elsewhere only wait."""
    console = Console(stderr=True)
    if not console.is_terminal:
        await stopped.wait()
        return
    with Live(console=console, auto_refresh=False, transient=True) as live:
        before, then = server.stats(), monotonic()
        while not stopped.is_set():
            try:
                await asyncio.wait_for(stopped.wait(), _EVERY)
            except TimeoutError:
                pass
            after, now = server.stats(), monotonic()
            live.update(live_line(before, after, now - then), refresh=True)
            before, then = after, now


def live_line(before: ServerStats, after: ServerStats, seconds: float) -> str:
    """Clients, requests and bytes a second, between two readings of the counters."""
    requests = (after.requests - before.requests) / seconds
    read = (after.bytes_read - before.bytes_read) / seconds
    written = (after.bytes_written - before.bytes_written) / seconds
    errors = f"  {after.errors} errors" if after.errors else ""
    return (
        f"{after.clients} clients  {requests:,.0f} IOPS  "
        f"read {show_size(read)}/s  written {show_size(written)}/s{errors}"
    )
