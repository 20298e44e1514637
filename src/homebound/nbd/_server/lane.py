"""One home's share of a server: the connections that live there, their buffers and counters.

Only the home thread changes them, so that no request acquires a lock. The counters are plain
attributes. A thread that adds them up reads each of them once, which is atomic on every build; some
of the values it reads may be slightly older than others.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Protocol

from ..._aio.futures import set_unless_done
from .._protocol.buffers import BufferPool
from .turns import Turns

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from typing import Any

_AFTER_CANCEL = 1.0  # seconds for the connections of a home that is ending
_AFTER_ABORT = 1.0  # seconds for aborted connections to end


class Member(Protocol):
    """A connection in either phase."""

    def stop(self) -> None:
        """Finish the requests in flight, then disconnect."""

    def abort(self) -> None:
        """Disconnect now."""


class Lane:
    """The connections of one home. Made in any thread, then used by the home thread only."""

    def __init__(self) -> None:
        self.pool = BufferPool()
        self.turns = Turns()
        self.started = 0  # slices of requests that its workers have, or will have
        self.connections = 0  # ever accepted
        # How many were set up or refused, and how many have ended since; both only grow.
        self.settled = 0
        self.ended = 0
        self.requests = 0
        self.errors = 0
        self.disk_errors = 0
        self.bytes_read = 0
        self.bytes_written = 0
        # Each connection from the start of its handshake until nothing of it is left, and how many
        # others are being set up.
        self.members: set[Member] = set()
        self._arriving = 0
        # Called soon after a connection has chosen its export, in the home thread.
        self.began: Callable[[Any, Lane], None] | None = None
        self._stopping = False
        # Set while `stop` waits for the last member to leave.
        self._all_left: asyncio.Future[None] | None = None

    async def serve(
        self, connection: socket.socket, protocol_factory: Callable[[], asyncio.BaseProtocol]
    ) -> None:
        """Set up an accepted connection; its protocol calls `join`."""
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
            connection.close()  # the client has disconnected since
            self.ended += 1
        except BaseException:
            connection.close()
            raise
        finally:
            self.settled += 1
            self._arriving -= 1
            self._look()

    async def adopt(
        self,
        connection: socket.socket,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        drop: Callable[[], None],
    ) -> None:
        """Set up a connection that was in another lane, which counts it no more; or drop it."""
        if self._stopping:
            drop()
            self.ended += 1
            return
        self._arriving += 1
        try:
            loop = asyncio.get_running_loop()
            await loop.connect_accepted_socket(protocol_factory, connection)
        except BaseException as error:
            drop()
            self.ended += 1
            if not isinstance(error, OSError):  # it is one if the client has disconnected
                raise
        finally:
            self._arriving -= 1
            self._look()

    def depart(self, member: Member) -> None:
        """Remove a connection that goes on in another lane."""
        self.members.discard(member)
        self._look()

    async def keep(self) -> None:
        """Wait until cancelled, as by the end of the home; then end the connections."""
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await self.stop(_AFTER_CANCEL)

    def join(self, member: Member) -> None:
        """Add a connection that `stop` waits for."""
        self.members.add(member)
        if self._stopping:
            member.stop()

    def replace(self, member: Member, successor: Member) -> None:
        """Replace the member of a connection that enters its next phase."""
        self.join(successor)
        self.members.discard(member)
        if self.began is not None:
            asyncio.get_running_loop().call_soon(self.began, successor, self)

    def leave(self, member: Member) -> None:
        """Remove a connection of which nothing is left."""
        if member in self.members:
            self.members.discard(member)
            self.ended += 1
        self._look()

    async def stop(self, grace: float) -> None:
        """Give the connections `grace` seconds to finish, then abort the rest."""
        self._stopping = True
        for member in list(self.members):
            member.stop()
        await self._until_empty(grace)
        for member in list(self.members):
            member.abort()
        await self._until_empty(_AFTER_ABORT)

    def _look(self) -> None:
        if self._all_left is not None and self._is_empty():
            set_unless_done(self._all_left)

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
