"""One home's share of a server: the connections that live there, their buffers and counters.

All of it is touched by that home's thread only, so that no request takes a lock. The counters are
plain attributes; whoever adds them up in another thread reads each of them once, which is atomic on
every build, and may see some of them a moment older than others.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Protocol

from .._protocol.buffers import BufferPool

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

_AFTER_CANCEL = 1.0  # seconds for the connections of a home that ends
_AFTER_ABORT = 1.0  # seconds that aborted connections get to end


class Member(Protocol):
    """A connection in either phase."""

    def stop(self) -> None:
        """Finish what is in hand, then hang up."""

    def abort(self) -> None:
        """Hang up now."""


class Lane:
    """Where some connections live. Made anywhere; everything else happens in its home thread."""

    def __init__(self) -> None:
        self.pool = BufferPool()
        self.connections = 0  # ever accepted
        # How many were taken in or turned away, and how many have ended since; both only grow.
        self.settled = 0
        self.ended = 0
        self.requests = 0
        self.errors = 0
        self.disk_errors = 0
        self.bytes_read = 0
        self.bytes_written = 0
        # Every connection from its handshake on until nothing of it is left, and how many others
        # are on their way here.
        self.members: set[Member] = set()
        self._arriving = 0
        self._stopping = False
        # Set while `stop` waits for the last member to leave.
        self._all_left: asyncio.Future[None] | None = None

    async def serve(
        self, connection: socket.socket, protocol_factory: Callable[[], asyncio.BaseProtocol]
    ) -> None:
        """Take over an accepted connection; the protocol that is made for it joins by itself."""
        if self._stopping:
            connection.close()
            self.settled += 1
            self.ended += 1
            return
        self.connections += 1
        self._arriving += 1
        try:
            loop = asyncio.get_running_loop()
            await loop.connect_accepted_socket(protocol_factory, connection)
        except OSError:
            connection.close()  # the client left meanwhile
            self.ended += 1
        except BaseException:
            connection.close()
            raise
        finally:
            self.settled += 1
            self._arriving -= 1
            self._look()

    async def keep(self) -> None:
        """Ends when it is cancelled, which a home that ends does, and the connections with it."""
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await self.stop(_AFTER_CANCEL)

    def join(self, member: Member) -> None:
        """From now on `stop` waits for this one."""
        self.members.add(member)
        if self._stopping:
            member.stop()

    def replace(self, member: Member, successor: Member) -> None:
        """The connection goes on as another member."""
        self.join(successor)
        self.members.discard(member)

    def leave(self, member: Member) -> None:
        """Nothing of it is left."""
        if member in self.members:
            self.members.discard(member)
            self.ended += 1
        self._look()

    async def stop(self, grace: float) -> None:
        """Let the connections finish for `grace` seconds, then abort those that have not."""
        self._stopping = True
        for member in list(self.members):
            member.stop()
        await self._until_empty(grace)
        for member in list(self.members):
            member.abort()
        await self._until_empty(_AFTER_ABORT)

    def _look(self) -> None:
        if self._is_empty() and self._all_left is not None and not self._all_left.done():
            self._all_left.set_result(None)

    def _is_empty(self) -> bool:
        return not self.members and not self._arriving

    async def _until_empty(self, seconds: float) -> None:
        if self._is_empty():
            return
        self._all_left = asyncio.get_running_loop().create_future()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._all_left
        self._all_left = None
