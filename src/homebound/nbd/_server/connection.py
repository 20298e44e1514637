"""The transmission phase of one connection: its turns, its limits, its end or its move."""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ..._os.clock import perf_counter
from .._protocol.errors import RemoteProtocolError
from .._protocol.requests import RequestStream
from .._protocol.transmission import Session
from .._protocol.wire import TransmissionFlag
from .budget import Account
from .dispatcher import BATCH, TURN, Dispatcher
from .in_flight import InFlight
from .outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .._protocol.requests import Rest
    from .client_info import Reach
    from .lane import Lane
    from .served import Served
    from .slow import Replies

LITTLE = 512  # bytes, 18 requests without data; more received at once is served in a turn


@dataclass(frozen=True, slots=True)
class Quiet:
    """A connection between two homes."""

    socket: socket.socket
    served: Served
    session: dict[str, Any]  # what was negotiated
    rest: Rest  # received and not served
    end_visit: Callable[[Callable[[], None]], None]
    reach: Reach | None


class Connection(asyncio.BufferedProtocol):
    """One client and the export that it has chosen. Home thread only."""

    def __init__(
        self,
        lane: Lane,
        transport: asyncio.Transport,
        served: Served,
        *,
        structured: bool = False,
        contexts: frozenset[str] = frozenset(),
    ) -> None:
        self._lane = lane
        self._loop = asyncio.get_running_loop()
        self._transport = transport
        self._encrypted = transport.get_extra_info("ssl_object") is not None
        self._served = served
        self._negotiated = {"structured": structured, "contexts": contexts}
        export = served.info
        read_only = bool(export.flags & TransmissionFlag.READ_ONLY)
        fast_zero = bool(export.flags & TransmissionFlag.SEND_FAST_ZERO)
        session = Session(export.size, read_only, fast_zero, structured, contexts)
        account = self._account = Account(served.budget, self._loop, self._go_on)
        self._stream = RequestStream(lane.pool, account)
        self._outbox = Outbox(transport, lane.pool, account, self.resume_writing)
        self._in_flight = InFlight(served, lane, self._replied)
        self._dispatcher = Dispatcher(
            lane,
            served,
            session,
            stream=self._stream,
            outbox=self._outbox,
            in_flight=self._in_flight,
            account=account,
        )
        # Complete requests may be left in the stream. Either a limit is reached, and _go_on is
        # called when there is room again; or the turn is over, and _continue is in the queue of the
        # home: at most once, and no other turn begins while it is, however the client splits its
        # data.
        self._stalled = False
        self._continuing = False
        self._receiving = True
        self._eof = False
        # No more requests are taken; the connection ends when those in flight are answered.
        self._ending = False
        self._gone = False  # the socket is closed, or another Connection has it
        # Called once the connection is quiet; until then it serves no further request.
        self._depart: Callable[[Quiet | None], None] | None = None
        # Closes what was opened for this connection, then calls its argument.
        self.end_visit: Callable[[Callable[[], None]], None] = _call
        self.reach: Reach | None = None  # told of each home

    def __repr__(self) -> str:
        state = "gone" if self._gone else "ending" if self._ending else "open"
        return (
            f"<Connection {state} to {self._served.disk!r}: {self._in_flight.count} requests in "
            f"flight, {self._outbox.unsent} bytes unsent>"
        )

    @property
    def name(self) -> str:
        """The name of the export."""
        return self._served.info.name

    # Called by the transport.

    def get_buffer(self, _: int) -> memoryview:
        """Return the memory for the next bytes."""
        return self._stream.get_buffer()

    def buffer_updated(self, size: int) -> None:
        """Serve the `size` bytes that were received into it."""
        self._stream.received(size)
        if self._stalled:
            self._settle()
        elif size <= LITTLE or self._lane.turns.take(self._loop):
            self._serve()
        else:
            self._stalled = True
            self._go_on()
            self._settle()

    def eof_received(self) -> bool:
        """Answer what the client has requested, then disconnect."""
        self._eof = True
        if not self._stalled:
            self._serve()
        return not self._encrypted  # TLS has no half-closed connections

    def pause_writing(self) -> None:
        """Hold replies back: the transport could not send all."""
        self._outbox.pause()

    def resume_writing(self) -> None:
        """Go on: the transport has sent all that it was given."""
        if self._gone:
            return
        self._outbox.resume()
        # Not here: closing an asyncio transport while it calls this ends it twice.
        if self._ending or self._depart is not None:
            self._loop.call_soon(self._end_if_done)
        elif self._stalled:
            self._go_on()

    def connection_lost(self, _: Exception | None) -> None:
        """Drop what is unsent or only asks; other requests in flight are finished."""
        self._gone = self._ending = True
        self._stream.release()
        self._outbox.drop()
        self._account.close()
        if not self._in_flight.forget():  # else _replied has looked
            self._end_if_done()

    # Called by the server.

    def begin(self, early: bytes) -> None:
        """Start serving; `early` was received together with the choice of the export."""
        self._stream.put(early)
        self._serve()

    def stop(self) -> None:
        """Refuse requests that have not begun; disconnect when those in flight are answered."""
        if self._ending:
            return
        self._ending = True
        self._dispatcher.refuse_rest()
        self._stop_receiving()
        self._end_if_done()

    def unpack(self, rest: Rest) -> None:
        """Take what was received in another home; `resume` serves it."""
        self._stream.unpack(rest)

    def resume(self) -> None:
        """Go on with a connection that was in another home."""
        self._serve()

    def move(self, depart: Callable[[Quiet | None], None]) -> None:
        """Serve no further request, and call `depart` when all replies are sent; None if it ends.

        An encrypted connection stays: the state of its encryption is its transport's.
        """
        if self._encrypted:
            depart(None)
            return
        self._depart = depart
        self._set_receiving(wanted=False)
        self._depart_if_quiet()

    def stay(self) -> None:
        """Go on here, if it has not departed."""
        if self._depart is not None:
            self._depart = None
            self._go_on()

    def abort(self) -> None:
        """Disconnect now, whatever is unsent or in flight."""
        self._transport.abort()
        self._in_flight.cancel()

    # Serving.

    def _serve(self) -> None:
        """Serve received requests, as far as the limits and this turn allow."""
        if self._gone:
            return
        in_flight = self._in_flight
        try:
            self._take_turn(self._stream)
        except RemoteProtocolError:
            self._ending = True  # it is unknown where the next request begins
        self._outbox.settle()
        if in_flight.waiting:
            in_flight.start()
        self._settle()

    def _depart_if_quiet(self) -> None:
        depart, outbox = self._depart, self._outbox
        if depart is None:
            return
        if self._ending or self._eof:
            self._depart = None
            depart(None)
        elif not (self._in_flight.count or outbox.paused or outbox.holds_back):
            self._depart = None
            self._gone = self._ending = True
            rest, end_visit = self._stream.pack(), self.end_visit
            self.end_visit = _ignore
            self._lane.depart(self)
            taken = take_socket(self._transport)
            depart(Quiet(taken, self._served, self._negotiated, rest, end_visit, self.reach))

    def _settle(self) -> None:
        """Pause or resume receiving, or end, as the state requires."""
        if self._eof and not self._stalled:
            self._ending = True
        if self._ending:
            self._stop_receiving()
            self._end_if_done()
            return
        if self._depart is not None:
            self._depart_if_quiet()
            return
        receive = not self._stream.settle(stalled=self._stalled)
        if receive != self._receiving:
            self._set_receiving(wanted=receive)

    def _go_on(self) -> None:
        """Serve the rest when it is this connection's turn again."""
        if not self._continuing:
            self._continuing = True
            self._lane.turns.ask(self._loop, self._continue)

    def _continue(self) -> None:
        self._continuing = False
        if not self._ending:
            self._serve()

    def _take_turn(self, stream: RequestStream) -> None:
        outbox, in_flight, dispatcher = self._outbox, self._in_flight, self._dispatcher
        turns = self._lane.turns
        self._stalled = False
        began, cost = 0.0, 0
        while not (self._ending or stream.empty):
            if self._depart is not None:
                self._stalled = True
                return
            if outbox.full or in_flight.full:
                self._stalled = True  # resume_writing or _replied calls _go_on
                return
            if cost >= TURN or (cost >= BATCH and perf_counter() - began > turns.seconds()):
                self._stalled = True
                self._go_on()
                return
            batch = stream.peek(BATCH)
            if not batch:
                return
            began = began or perf_counter()
            cost += dispatcher.serve(batch)
            if dispatcher.disconnecting:
                self._ending = True
            elif dispatcher.short:
                self._stalled = True  # the account calls _go_on
                return

    def _replied(self, replies: Replies) -> None:
        """Send the replies to some of the requests in flight."""
        lane = self._lane
        lane.bytes_read += replies.bytes_read
        lane.bytes_written += replies.bytes_written
        lane.errors += replies.errors
        for failure, command in replies.failures:
            self._dispatcher.report(failure, command)
        self._account.give_back(replies.room_written)
        if self._gone:
            self._account.give_back(replies.room_read)
        else:
            self._outbox.write(replies.data, replies.room_read)
            if self._stalled:
                self._go_on()
        self._end_if_done()

    def _set_receiving(self, *, wanted: bool) -> None:
        # After the end of file the transport would only report it again.
        if wanted == self._receiving or self._eof or self._transport.is_closing():
            return
        self._receiving = wanted
        if wanted:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _stop_receiving(self) -> None:
        """Stop receiving for good, and drop what is left in the stream."""
        self._stream.release()
        self._account.close()
        self._set_receiving(wanted=False)

    def _end_if_done(self) -> None:
        self._depart_if_quiet()
        if not self._ending or self._in_flight.count:
            return
        if self._gone:
            self.end_visit(partial(self._lane.leave, self))
        elif not self._outbox.holds_back:
            self._transport.close()  # after sending what is in its buffer


def _ignore(_: Callable[[], None]) -> None:
    """Do nothing: the connection goes on in another home."""


def _call(leave: Callable[[], None]) -> None:
    leave()


def take_socket(transport: asyncio.Transport) -> socket.socket:
    """Take the socket away from a transport, which is closed; the connection stays open."""
    taken = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
    taken.setblocking(False)
    transport.abort()  # it closes its own descriptor, and nothing is unsent
    return taken
