"""The counters of a server: a live line on a terminal, and a line at each SIGUSR1."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from .._os.clock import monotonic
from ._sizes import show_size
from ._stdio import discard_output, has_terminal, tell

if TYPE_CHECKING:
    from ..nbd import NBDServer, ServerStats

_EVERY = 0.5  # seconds between two readings of the counters


class Statistics:
    """The counters of a server that starts now."""

    def __init__(self, server: NBDServer) -> None:
        self._server = server
        self._began = monotonic()

    def show(self) -> None:
        """Write the counters since the start to standard error.

        Called from: any thread.
        """
        tell(totals_line(self._server.stats(), monotonic() - self._began))

    async def keep_live(self, stopped: asyncio.Event) -> None:
        """Show a live line on a terminal until stopped; elsewhere only wait."""
        if has_terminal():
            try:
                await self._keep_live(stopped)
            except OSError:  # the terminal has gone; SIGHUP follows
                discard_output(sys.stderr)
        await stopped.wait()

    async def _keep_live(self, stopped: asyncio.Event) -> None:
        from rich.console import Console  # noqa: PLC0415  (for a terminal only)
        from rich.live import Live  # noqa: PLC0415

        with Live(console=Console(stderr=True), auto_refresh=False, transient=True) as live:
            before, then = self._server.stats(), monotonic()
            while not stopped.is_set():
                try:
                    await asyncio.wait_for(stopped.wait(), _EVERY)
                except TimeoutError:
                    pass
                after, now = self._server.stats(), monotonic()
                live.update(live_line(before, after, now - then), refresh=True)
                before, then = after, now


def live_line(before: ServerStats, after: ServerStats, seconds: float) -> str:
    """Format clients, requests and bytes a second, between two readings of the counters."""
    requests = (after.requests - before.requests) / seconds
    read = (after.bytes_read - before.bytes_read) / seconds
    written = (after.bytes_written - before.bytes_written) / seconds
    errors = f"  {after.errors} errors" if after.errors else ""
    return (
        f"{after.clients} clients  {requests:,.0f} IOPS  "
        f"read {show_size(read)}/s  written {show_size(written)}/s{errors}"
    )


def totals_line(stats: ServerStats, seconds: float) -> str:
    """Format the counters, `seconds` after the start."""
    return (
        f"after {seconds:,.1f} s: {stats.clients} clients now, {stats.connections} ever; "
        f"{stats.requests:,} requests, {stats.errors:,} errors ({stats.disk_errors:,} from disks); "
        f"read {show_size(stats.bytes_read)}, written {show_size(stats.bytes_written)}"
    )
