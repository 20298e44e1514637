"""The handshake of one connection: the sans-I/O core on a transport, with a time limit."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from ..._os.clock import perf_counter
from .._protocol.handshake import Chosen, Closed, ServerHandshake
from .connection import TURN_SECONDS, Connection

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .._protocol.export import ExportTable
    from .lane import Lane
    from .served import Served


MAX_ANSWERS = 64  # to options, in a turn; then others of the same home get theirs


class Greeter(asyncio.Protocol):
    """Haggles with one client until it has chosen an export or gone. Home thread only."""

    def __init__(
        self, lane: Lane, exports: ExportTable, served: Mapping[str, Served], time_limit: float
    ) -> None:
        self._lane = lane
        self._served = served
        self._handshake = ServerHandshake(exports)
        self._time_limit = time_limit
        # The client does not read; its options are not answered and not even received meanwhile.
        self._paused = False
        # Options may be left to be answered, and _continue is queued in the loop: once at most, and
        # nothing is received or answered before it has run.
        self._continuing = False
        self._receiving = True
        self._loop: asyncio.AbstractEventLoop
        self._transport: asyncio.Transport
        self._timer: asyncio.TimerHandle

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        transport = self._transport = cast("asyncio.Transport", transport)  # uvloop's is not one
        self._loop = asyncio.get_running_loop()
        # Paused means "something is unsent", here and in the transmission phase.
        transport.set_write_buffer_limits(0)
        # It covers the time after a refusal too: a client that does not read it is cut off.
        self._timer = self._loop.call_later(self._time_limit, transport.abort)
        self._lane.join(self)
        if not transport.is_closing():
            transport.write(self._handshake.greeting())

    def data_received(self, data: bytes) -> None:
        """Answer as much as there is."""
        self._handshake.receive(data)
        self._answer()

    def eof_received(self) -> None:
        """Close: whoever says no more cannot choose an export any more."""

    def pause_writing(self) -> None:
        """Wait for the client to read."""
        self._paused = True
        self._receive()

    def resume_writing(self) -> None:
        """It has. Go on, but not here: the transport that calls this must not be closed."""
        self._paused = False
        self._go_on()

    def connection_lost(self, _: Exception | None) -> None:
        """The end of a connection that never came to anything."""
        self._timer.cancel()
        self._lane.leave(self)

    def stop(self) -> None:
        """Hang up: nothing was promised yet."""
        self._transport.close()

    def abort(self) -> None:
        """Hang up now."""
        self._transport.abort()

    def _answer(self) -> None:
        """Answer what has come, for a turn."""
        began, answers = perf_counter(), 0
        # A write that fails closes the transport, and connection_lost comes later.
        while not (self._paused or self._continuing or self._transport.is_closing()):
            if answers >= MAX_ANSWERS or perf_counter() - began > TURN_SECONDS:
                self._go_on()
                self._receive()
                return
            event = self._handshake.next_event()
            if event is None:
                return
            answers += 1
            if isinstance(event, Chosen):
                self._begin(event)
                return
            self._transport.write(event.data)
            if isinstance(event, Closed):
                self._transport.close()
                return

    def _go_on(self) -> None:
        """Have the rest answered in the next iteration of the loop."""
        if not self._continuing:
            self._continuing = True
            self._loop.call_soon(self._continue)

    def _continue(self) -> None:
        self._continuing = False
        self._receive()
        self._answer()

    def _receive(self) -> None:
        """Receive only while there is nothing left to answer."""
        if self._transport.is_closing():
            return
        wanted = not (self._paused or self._continuing)
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
        served = self._served[chosen.export.name]
        connection = Connection(self._lane, transport, served, structured=chosen.structured)
        transport.set_protocol(connection)
        transport.write(chosen.data)
        self._lane.replace(self, connection)
        connection.begin(self._handshake.trailing())
