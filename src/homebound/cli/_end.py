"""The end of a server, and its time limits."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..nbd._client.disk import shorten_waits
from ._errors import ServeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..nbd import NBDDisk, NBDServer
    from ._announce import Announced

GRACE = 5.0  # seconds for the clients to read their replies
_CUT_OFF = 3.0  # seconds more for clients and requests that were aborted then
_FLUSH = 60.0  # seconds for files, if all clients have disconnected in time
_LAST_TRY = 1.0  # seconds for another server to take a connection
_ANSWERS = 4.0  # seconds for another server to answer, if clients wait for that

# The end of the clients is polled, so it may be noticed a little late.
_IN_TIME = GRACE - 0.5


class End:
    """Stops the server, and tells when waiting for that is of no use."""

    def __init__(
        self, server: NBDServer, exports: Sequence[Announced], remotes: Sequence[NBDDisk]
    ) -> None:
        self._server = server
        self._remotes = remotes
        self._what = ", ".join(export.label for export in exports)
        # When `overdue` first saw no clients, in seconds after the signal.
        self._left: float | None = None

    async def stop(self, grace: float) -> None:
        """Stop the server. Raises ServeError if the disks cannot be flushed.

        The flush of another server's export has `grace` seconds, as requests of clients have.
        """
        for disk in self._remotes:
            shorten_waits(disk, _LAST_TRY, grace)
        timer = asyncio.get_running_loop().call_later(_ANSWERS, self._give_up)
        try:
            await self._server.stop(grace)
        except OSError as error:
            raise ServeError(f"cannot flush {self._what}: {error.strerror or error}") from error
        finally:
            timer.cancel()

    def _give_up(self) -> None:
        """Fail what other servers do not answer to clients; the flush at the end has its limit."""
        if self._server.stats().clients:
            for disk in self._remotes:
                shorten_waits(disk, 0, GRACE)

    def overdue(self, seconds: float) -> str | None:
        """Return why the server has not ended `seconds` after the signal; None if it may yet.

        A request that the kernel does not answer holds its thread, and with it the process.
        """
        if self._left is None and not self._server.stats().clients:
            self._left = seconds
        if self._left is not None and self._left < _IN_TIME:
            late = seconds > _FLUSH
            return f"{self._what} could not be flushed in {_FLUSH:.0f} s" if late else None
        if seconds > GRACE + _CUT_OFF:
            return (
                f"{self._what} does not complete its requests; "
                "ended without them, and without a flush"
            )
        return None
