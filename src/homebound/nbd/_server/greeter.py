"""The handshake of one connection: ServerHandshake on a transport, with a time limit."""

from __future__ import annotations

import asyncio
import ssl
from functools import partial
from typing import TYPE_CHECKING, cast

from ..._os.clock import perf_counter
from .._protocol.handshake import Chosen, Closed, ServerHandshake, StartTLS, Tls
from .._protocol.lookups import Wanted
from .alert import AlertSender
from .client_info import Reach, describe_client
from .connection import Connection

if TYPE_CHECKING:
    from collections.abc import Callable

    from .client_info import ClientInfo
    from .lane import Lane
    from .tls import Encryption
    from .visits import Visit


MAX_ANSWERS = 64  # in a turn; then the home's other connections run
MAX_EARLY = 64 << 10  # bytes received during a search
_OTHER_LIMIT = 64 << 10  # bytes that an SSL transport of another loop may hold


class Greeter(asyncio.Protocol):
    """Negotiates with one client until it chooses an export or disconnects. Home thread only."""

    def __init__(
        self,
        lane: Lane,
        visit: Callable[[ClientInfo], Visit],
        time_limit: float,
        encryption: Encryption | None = None,
    ) -> None:
        self._lane = lane
        self._encryption = encryption
        # The task of the TLS handshake, while it lasts; and what was received before it was seen.
        self._encrypting: asyncio.Task[None] | None = None
        self._held: list[bytes] = []
        # TLS has not taken over: what is received was sent in the clear, perhaps by an attacker.
        self._in_the_clear = False
        # The task waits until the reply to NBD_OPT_STARTTLS is sent, or the connection lost.
        self._sent: asyncio.Future[None] | None = None
        self._has_left = False
        self._begin_visit = visit
        self._time_limit = time_limit
        # The client does not read; meanwhile its options are neither answered nor received.
        self._paused = False
        # Options may be left unanswered, and _continue is in the home's queue: at most once, and
        # nothing is received or answered before it runs.
        self._continuing = False
        # An export is being looked up, and nothing is answered. A little is received, so that the
        # end of the connection is noticed.
        self._searching = False
        self._early = 0  # bytes received meanwhile
        self._receiving = True
        self._visit: Visit
        self._handshake: ServerHandshake
        self._loop: asyncio.AbstractEventLoop
        self._transport: asyncio.Transport
        self._timer: asyncio.TimerHandle

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the greeting."""
        transport = self._transport = cast("asyncio.Transport", transport)  # uvloop's is not one
        self._loop = asyncio.get_running_loop()
        # With this limit paused means that something is unsent, in the transmission phase too.
        transport.set_write_buffer_limits(0)
        self._reach = Reach(transport, self._loop)
        self._visit = self._begin_visit(describe_client(transport, self._reach))
        tls = Tls.NONE if self._encryption is None else self._encryption.policy
        self._handshake = ServerHandshake(self._visit.table, tls)
        # It includes the time after an error reply: a client that does not read is disconnected.
        self._timer = self._loop.call_later(self._time_limit, transport.abort)
        self._lane.join(self)
        if not transport.is_closing():
            transport.write(self._handshake.greeting())

    def data_received(self, data: bytes) -> None:
        """Answer what was received."""
        if self._in_the_clear:
            self._transport.abort()
            return
        if self._encrypting is not None:
            self._held.append(data)
            return
        self._handshake.receive(data)
        if self._searching:
            self._early += len(data)
            self._receive()
        else:
            self._answer()

    def eof_received(self) -> None:
        """Close: the client can no longer choose an export."""

    def pause_writing(self) -> None:
        """Stop answering until the client reads."""
        self._paused = True
        self._receive()

    def resume_writing(self) -> None:
        """Go on, but not here: the transport must not be closed while it calls this."""
        self._paused = False
        self._wake()
        self._go_on()

    def connection_lost(self, _: Exception | None) -> None:
        """Leave the lane; no export was chosen."""
        self._wake()
        self._leave()

    def stop(self) -> None:
        """Disconnect: no request can be in flight yet."""
        self._transport.close()

    def abort(self) -> None:
        """Disconnect now."""
        self._transport.abort()

    def _leave(self) -> None:
        if not self._has_left:
            self._has_left = True
            self._timer.cancel()
            self._visit.end(partial(self._lane.leave, self))

    def _answer(self) -> None:
        """Answer what was received, for one turn."""
        turns, began, answers = self._lane.turns, perf_counter(), 0
        # A failed write closes the transport, and connection_lost is called later.
        while not (
            self._paused
            or self._continuing
            or self._searching
            or self._encrypting is not None
            or self._transport.is_closing()
        ):
            if answers >= MAX_ANSWERS or perf_counter() - began > turns.seconds():
                self._go_on()
                self._receive()
                return
            event = self._handshake.next_event()
            if event is None:
                return
            answers += 1
            if isinstance(event, Wanted):
                self._search(event)
                return
            if isinstance(event, StartTLS):
                self._transport.write(event.data)
                self._in_the_clear = True
                self._encrypting = self._loop.create_task(self._encrypt())
                return
            if isinstance(event, Chosen):
                self._begin(event)
                return
            self._transport.write(event.data)
            if isinstance(event, Closed):
                self._transport.close()
                return

    # TLS.

    async def _encrypt(self) -> None:
        """Do the TLS handshake in the time that is left, then go on."""
        plain = self._transport
        transport: asyncio.Transport | None = None
        try:
            transport = await self._start_tls(plain)
        finally:
            self._encrypting = None
            if transport is None:
                # The loop may have told this protocol of the end, or not.
                plain.abort()
                self._leave()
        if transport is None or self._has_left:
            return
        self._transport = transport
        # Not 0, at which an SSL transport of asyncio's pauses with nothing unsent. One of uvloop's
        # never goes on at a low limit; it copies what it is given, at once.
        is_asyncio = isinstance(transport, asyncio.Transport)
        transport.set_write_buffer_limits(1 if is_asyncio else _OTHER_LIMIT, 0)
        left = max(0.0, self._timer.when() - self._loop.time())
        self._timer.cancel()
        self._timer = self._loop.call_later(left, transport.abort)
        self._visit.end(_nothing)
        self._reach = Reach(transport, self._loop)
        self._visit = self._begin_visit(describe_client(transport, self._reach))
        self._paused = False
        self._receiving = True
        self._handshake.encrypted(self._visit.table)
        held, self._held = self._held, []
        for data in held:
            self._handshake.receive(data)
        self._answer()

    async def _start_tls(self, plain: asyncio.Transport) -> asyncio.Transport | None:
        """Return the encrypted transport; None if the client and this server do not agree."""
        assert self._encryption is not None
        if self._paused:  # a transport that has paused tells TLS only that it goes on: an error
            self._sent = self._loop.create_future()
            await self._sent
        self._in_the_clear = False  # the loop's start_tls replaces the protocol before it waits
        if plain.is_closing():
            return None
        limit = max(0.1, self._timer.when() - self._loop.time())
        with AlertSender(self._encryption.context, plain) as alert:
            try:
                return await self._loop.start_tls(
                    plain, self, alert.context, server_side=True, ssl_handshake_timeout=limit
                )
            except ssl.SSLError:
                await alert.send()
            except (OSError, TimeoutError):
                pass
        return None

    def _wake(self) -> None:
        if self._sent is not None and not self._sent.done():
            self._sent.set_result(None)

    def _search(self, wanted: Wanted) -> None:
        """Look up an export; a search has a time limit of its own."""
        self._searching = True
        self._early = 0
        self._time_left = max(0.0, self._timer.when() - self._loop.time())
        self._timer.cancel()
        self._visit.look_up(wanted, self._found)

    def _found(self) -> None:
        if self._transport.is_closing():
            return
        self._searching = False
        self._timer = self._loop.call_later(self._time_left, self._transport.abort)
        self._go_on()

    def _go_on(self) -> None:
        """Answer the rest when it is this connection's turn again."""
        if not self._continuing:
            self._continuing = True
            self._lane.turns.ask(self._loop, self._continue)

    def _continue(self) -> None:
        self._continuing = False
        self._receive()
        self._answer()

    def _receive(self) -> None:
        """Receive only while nothing is left to answer."""
        if self._transport.is_closing() or self._encrypting is not None:
            return
        enough = self._searching and self._early > MAX_EARLY
        wanted = not (self._paused or self._continuing or enough)
        if wanted == self._receiving:
            return
        self._receiving = wanted
        if wanted:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _begin(self, chosen: Chosen) -> None:
        self._timer.cancel()
        transport = self._transport
        served = self._visit.served(chosen.export.name)
        connection = Connection(
            self._lane,
            transport,
            served,
            structured=chosen.structured,
            contexts=chosen.contexts,
        )
        connection.end_visit, connection.reach = self._visit.end, self._reach
        transport.set_protocol(connection)
        transport.write(chosen.data)
        self._lane.replace(self, connection)
        connection.begin(self._handshake.trailing())


def _nothing() -> None:
    pass
