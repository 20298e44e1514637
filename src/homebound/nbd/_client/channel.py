"""One connection to a server, and the ones that replace it: docs/design/nbd-client.md."""

from __future__ import annotations

import errno
import ssl
from collections import deque
from enum import Enum
from typing import TYPE_CHECKING

from ...block import DiskClosed, DiskError
from .._protocol.errors import RemoteProtocolError
from .._protocol.reply_reader import ReplyReader
from .._protocol.wire import REQUEST, Command, Error, TransmissionFlag, request_head
from .call import Call, Place
from .errors import ConnectionLost
from .outgoing import Outgoing
from .redial import Redial
from .timer import Timer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .client import Client
    from .dial import Link

_TURN = 16  # receives in a row, before the other callbacks of the loop run
_NOT_NOW = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_DISC = REQUEST.pack(request_head(Command.DISC), 0, 0, 0)


class State(Enum):
    """The states of a channel, each of which treats a request in its own way."""

    LIVE = "live"
    LOST = "lost"
    WAITING = "waiting for a connection"
    FAILING = "failing"
    CLOSED = "closed"


_LIVE, _SENT, _ENDED = State.LIVE, Place.SENT, Place.ENDED


class Channel:
    """One connection of a disk, which decides about its requests when it breaks. Home only."""

    def __init__(self, client: Client, link: Link) -> None:
        self._client = client
        self.state = State.LIVE
        self._use(link)
        self._outgoing = Outgoing()
        self.waiting: dict[Call, None] = {}  # in order, while WAITING
        self._cookie = 0
        self._changed = False  # the export is not what it was when the disk was opened
        # Registered with the home's loop: reading; and writing, while the socket is full.
        self._reads = self._writes = False
        self._redial = Redial(client, self._begin, self._not_connected)
        self._redials = False  # connecting is to go on in the next home
        self._last_error: Exception | None = None
        self._waits_end = Timer(self._on_waits_end)  # of requests that wait for a connection
        self._reply_due = Timer(self._on_reply_due)  # for the oldest request in flight

    def _use(self, link: Link) -> None:
        """Send requests on a connection from now on, and read their replies."""
        self.link: Link = link  # the last one
        export = link.export
        self._reader = ReplyReader(export.contexts, structured=export.structured)
        self.in_flight = self._reader.pending  # by cookie, in the order of sending

    def __repr__(self) -> str:
        return (
            f"<Channel {self.state.value} to {self._client.target.label}: {self.load} in flight, "
            f"{len(self.waiting)} waiting>"
        )

    @property
    def load(self) -> int:
        """The requests in flight."""
        return len(self.in_flight)

    # The home.

    def attach(self) -> None:
        """Be served by the home's loop from now on."""
        if self.state is State.LIVE:
            self._register()
            self.push()
            self._watch_time()
        if self.state is State.WAITING and self._redial.until is not None:
            self._wait_until(self._redial.until)
        if self._redials:
            self._redials = False
            self._redial.attach()

    def detach(self) -> None:
        """Be served by no loop until `attach`."""
        self._unregister()
        self._cancel_timers()
        self._redials = self._redial.detach() or self._redials

    def _register(self) -> None:
        loop, sock = self._client.loop, self.link.sock
        loop.add_reader(sock.fileno(), self._on_readable)
        self._reads = True

    def _unregister(self) -> None:
        loop, number = self._client.loop, self.link.sock.fileno()
        if self._reads and not loop.is_closed():
            loop.remove_reader(number)
            if self._writes:
                loop.remove_writer(number)
        self._reads = self._writes = False

    def _cancel_timers(self) -> None:
        self._waits_end.cancel()
        self._reply_due.cancel()

    # Requests.

    def take_all(self, calls: deque[Call]) -> None:
        """Take all requests that are in `calls`, in order; drop those that were cancelled."""
        if self.state is _LIVE:
            self._pack(calls)
            return
        while calls:
            call = calls.popleft()
            if call.place is not _ENDED:
                self.take(call)

    def take(self, call: Call) -> None:
        """Have a request sent with the next `push`, or wait, or fail, as the state is."""
        call.channel = self
        match self.state:
            case State.LIVE:
                self._pack(deque((call,)))
            case State.WAITING:
                if self._may_repeat(call):
                    self._let_wait(call)
            case State.LOST:
                self._fall([call])
            case State.CLOSED:
                call.end(self._client.loop, DiskClosed(self._client))
            case State.FAILING:
                self._fail([call])
                self._redial.start()

    def _pack(self, calls: deque[Call]) -> None:
        """Pack requests for the next `push`. All pass here, so it makes no call that it can spare.

        They are taken out one by one: what an exception interrupts has lost no other request.
        """
        client, outgoing, in_flight = self._client, self._outgoing, self.in_flight
        now = client.loop.time() if client.request_timeout is not None else 0.0
        while calls:
            call = calls.popleft()
            if call.place is _ENDED:
                continue  # it was cancelled
            if self._changed and (failure := self._refusal(call)) is not None:
                call.end(client.loop, failure)
                continue
            self._cookie = cookie = self._cookie + 1
            call.channel, call.place, call.since = self, _SENT, now
            outgoing.packed += call.head(cookie)
            if call.data:
                outgoing.add_payload(call.data)
            in_flight[cookie] = call

    def _refusal(self, call: Call) -> OSError | None:
        """Return why the export, as it has come back, cannot take a request."""
        export, size = self.link.export, self._client.export.size
        if call.changes and export.flags & TransmissionFlag.READ_ONLY:
            return DiskError(errno.EROFS, f"{export.name!r} has come back read-only")
        if call.offset + call.length > export.size:
            text = f"{export.name!r} has come back smaller: {export.size} bytes, not {size}"
            return DiskError(errno.EIO, text)
        if call.command == Command.BLOCK_STATUS and not export.contexts:
            return DiskError(errno.ENOTSUP, f"{export.name!r} has come back without its contexts")
        return None

    def push(self) -> None:
        """Send what was taken, as far as the socket allows."""
        if self.state is not State.LIVE or not self._outgoing:
            return
        try:
            sent = self._outgoing.send(self.link.sock)
        except OSError as error:
            self.lose(error)
            return
        if sent is self._writes:
            loop, number = self._client.loop, self.link.sock.fileno()
            if sent:
                loop.remove_writer(number)
            else:
                loop.add_writer(number, self.push)
            self._writes = not sent
        if self._client.request_timeout is not None and not self._reply_due:
            self._watch_time()

    def _on_readable(self) -> None:  # noqa: C901  (each reply: no calls to spare)
        """Receive, and end the requests that are answered."""
        ended: Sequence[object] = ()
        try:
            sock, reader = self.link.sock, self._reader
            for _ in range(_TURN):
                buffer = reader.get_buffer()
                try:
                    size = sock.recv_into(buffer)
                except _NOT_NOW:
                    return
                except OSError as error:
                    self.lose(error)
                    return
                if not size:
                    self.lose(None)
                    return
                try:
                    ended = reader.received(buffer, size)
                except RemoteProtocolError as error:
                    self.lose(error)
                    return
                if (ended and not self._end(ended)) or self.state is not State.LIVE:
                    return
                # With no request in flight nothing more is to come, and after a short receive
                # nothing is there yet. But a server that answers several sends on meanwhile: most
                # often the next part of a long payload is there, and is taken without a look at the
                # selector.
                left = len(self.in_flight)
                if size < len(buffer) and not (left > 1 and reader.midway):
                    left = 0
                if not left and not self._encrypted:
                    return
                continue  # last: the jump rule
            if self._encrypted:
                # What has been decrypted makes no descriptor readable.
                self._client.loop.call_soon(self._go_on)
        except BaseException as error:
            self._stumble(error, ended)
            raise

    def _stumble(self, error: BaseException, ended: Sequence[object]) -> None:
        """Give the connection up: what was raised has interrupted the reading of a reply.

        No memory, for example, or a signal handler's exception.
        """
        for call in ended:
            assert isinstance(call, Call)
            if call.place is _SENT:
                self.in_flight[call.cookie] = call
        if self.state is State.LIVE:
            self.lose(OSError(errno.EIO, f"{type(error).__name__} interrupted the reading"))

    def _go_on(self) -> None:
        if self.state is State.LIVE and self._reads:
            self._on_readable()

    @property
    def _encrypted(self) -> bool:
        return isinstance(self.link.sock, ssl.SSLSocket)

    def _end(self, ended: Sequence[object]) -> bool:
        """End requests that were answered; False if the connection is to be given up."""
        loop, broken = self._client.loop, self._reader.broken
        used = stopping = False
        for call in ended:
            assert isinstance(call, Call)
            if call.error and call.error == Error.ESHUTDOWN and self._client.reconnect_delay:
                self.in_flight[call.cookie] = call  # to be repeated
                stopping = True
                continue
            if call.extents is not None:
                call.names = self.link.export.contexts
            if call.task is None:
                call.end(loop)
            else:  # as Call.end, without the call
                call.place = _ENDED
                call.wake()
            used = True
        if used:
            self._redial.of_use()
            self._client.count_in_flight()
            if self.in_flight or len(ended) > 1:  # else the next one does not wait for more
                self._client.look_soon()
        if broken is not None or stopping:
            self.lose(broken or OSError(errno.ESHUTDOWN, "the server is stopping"))
            return False
        return True

    def give_up(self, call: Call) -> bool:
        """Forget a request whose task is cancelled; False if its end must be waited for."""
        if call.place is Place.WAITING:
            self.waiting.pop(call, None)
            call.place = Place.ENDED
            return True
        if call.changes:
            return False
        call.target = None  # what comes is dropped
        return True

    # Losing a connection.

    def lose(self, error: Exception | None) -> None:
        """Give the connection up, because of `error`, or because the server has disconnected."""
        self._drop_link()
        self._client.interruptions += 1
        self._last_error = error
        calls = [
            call
            for call in self.in_flight.values()
            if isinstance(call, Call) and call.place is Place.SENT  # else it was given up
        ]
        self.in_flight.clear()
        self.state = State.LOST
        if calls:
            self._fall(calls)

    def _drop_link(self) -> None:
        self._unregister()
        self._reply_due.cancel()
        self._outgoing = Outgoing()
        self.link.close()

    def _fall(self, calls: list[Call]) -> None:
        """Let requests of a lost connection wait for another one, or fail."""
        client = self._client
        if not (client.reconnect_delay and client.target.can_repeat):
            self.state = State.FAILING
            self._fail(calls)
            return
        self.state = State.WAITING
        self._wait_until(client.loop.time() + client.reconnect_delay)
        self._redial.start()
        for call in calls:
            call.reset()
            if not self._may_repeat(call):
                continue
            other = client.other_than(self)
            if other is None:
                self._let_wait(call)
            else:
                other.take(call)
                client.push_later(other)

    def _may_repeat(self, call: Call) -> bool:
        """Fail a request that has lost connections for too long."""
        now = self._client.loop.time()
        if call.repeat_until is None:
            call.repeat_until = now + self._client.reconnect_delay
        if now < call.repeat_until:
            return True
        self._fail([call])
        return False

    def _let_wait(self, call: Call) -> None:
        call.channel = self
        call.place = Place.WAITING
        self.waiting[call] = None

    def _fail(self, calls: Iterable[Call]) -> None:
        last = self._last_error
        why = getattr(last, "strerror", None) or str(last or "the server has disconnected")
        for call in calls:
            text = f"no connection to {self._client.target.label}: {why}"
            number = errno.ESHUTDOWN if self._client.ending else errno.EIO
            failure = ConnectionLost(number, text)
            failure.__cause__ = self._last_error
            call.end(self._client.loop, failure)

    def _wait_until(self, when: float) -> None:
        self._redial.until = when
        self._waits_end.start(self._client.loop, when)

    def _on_waits_end(self) -> None:
        """Fail the waiting requests: reconnect_delay is over. Attempts to connect go on."""
        self._waits_end.cancel()
        self._redial.until = None
        self.state = State.FAILING
        calls, self.waiting = self.waiting, {}
        self._fail(calls)

    # Connecting again.

    def revive(self) -> None:
        """Begin to connect, although no request waits for the connection."""
        if self.state is State.LOST:
            self._fall([])
        if self.state is State.FAILING:
            self._redial.start()

    def shorten(self, seconds: float) -> None:
        """Let requests wait at most `seconds` more; with 0, give up those in flight, too."""
        if self.state is State.WAITING:
            assert self._redial.until is not None
            self._wait_until(min(self._redial.until, self._client.loop.time() + seconds))
            self._redial.hurry()
        elif self.state is State.LIVE and self.in_flight and not seconds:
            text = f"{self._client.target.label} does not answer"
            self.lose(TimeoutError(errno.ETIMEDOUT, text))
        elif self.state is State.LIVE:
            self._restart_time()

    def _not_connected(self, error: Exception | None) -> None:
        self._last_error = error
        if self._client.ending and self.state is State.WAITING:
            self._on_waits_end()  # that try was the last

    def _begin(self, link: Link) -> None:
        """Send the waiting requests on a new connection."""
        now, opened = link.export, self._client.export
        self._changed = bool(
            now.size < opened.size
            or now.flags & ~opened.flags & TransmissionFlag.READ_ONLY
            or set(now.contexts.values()) != set(opened.contexts.values())
        )
        self._use(link)
        self._outgoing = Outgoing()
        self.state = State.LIVE
        self._waits_end.cancel()
        self._redial.until = None
        calls, self.waiting = self.waiting, {}
        for call in calls:
            call.reset()
        self._pack(deque(calls))
        self._register()
        self.push()

    # Time.

    def _watch_time(self) -> None:
        """Look again when the oldest request in flight should have been answered."""
        limit = self._client.request_timeout
        if limit is None or not self.in_flight:
            return
        oldest = next(iter(self.in_flight.values()))
        assert isinstance(oldest, Call)
        self._reply_due.start(self._client.loop, oldest.since + limit)

    def _restart_time(self) -> None:
        """Give the requests in flight the whole of a time limit that has changed."""
        self._reply_due.cancel()
        now = self._client.loop.time()
        for call in self.in_flight.values():
            assert isinstance(call, Call)
            call.since = now
        self._watch_time()

    def _on_reply_due(self) -> None:
        """Give the connection up if a request has got no reply in time."""
        limit = self._client.request_timeout
        assert limit is not None
        now = self._client.loop.time()
        late = [
            call
            for call in self.in_flight.values()
            if isinstance(call, Call) and call.since + limit <= now + 0.001
        ]
        if not late:
            self._watch_time()
            return
        who = self._client.target.label
        text = (
            f"{who} has not answered for {limit:g} s; it hangs, or waits for this program in turn"
        )
        for call in late:
            del self.in_flight[call.cookie]
            call.end(self._client.loop, ConnectionLost(errno.ETIMEDOUT, text))
        self.lose(TimeoutError(errno.ETIMEDOUT, text))
        self.revive()

    # The end.

    def close(self) -> None:
        """Disconnect; requests in flight and waiting ones fail with DiskClosed."""
        live, self.state = self.state is State.LIVE, State.CLOSED
        self._cancel_timers()
        self._redial.cancel()
        if live and not self._outgoing:
            try:
                self.link.sock.send(_DISC)
            except OSError:
                pass  # it is closed all the same
        self._drop_link()
        calls = [*self.in_flight.values(), *self.waiting]
        self.in_flight.clear()
        self.waiting.clear()
        for call in calls:
            assert isinstance(call, Call)
            call.end(self._client.loop, DiskClosed(self._client))
