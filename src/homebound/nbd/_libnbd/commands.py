"""The requests of a handle: calls that wait for the reply, and aio calls."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from .._protocol.wire import Command
from .buffer import Memory, view_of, writable
from .constants import (
    AIO_DIRECTION_BOTH,
    AIO_DIRECTION_READ,
    CMD_FLAG_DF,
    CMD_FLAG_FAST_ZERO,
    CMD_FLAG_FUA,
    CMD_FLAG_NO_HOLE,
    CMD_FLAG_REQ_ONE,
    SHUTDOWN_ABANDON_PENDING,
    STRICT_ALIGN,
    STRICT_BOUNDS,
    STRICT_COMMANDS,
    STRICT_FLAGS,
    STRICT_ZERO_SIZE,
)
from .described import Described
from .error import failure
from .session import Order, Session
from .states import State

if TYPE_CHECKING:
    from collections.abc import Callable

    Completion = Callable[[Any], object] | None
    Chunks = Callable[[memoryview, int, int, Any], object]
    Extents = Callable[[str, int, list[int], Any], object]

_WAS_READY = (State.READY, State.CLOSED, State.DEAD)
_MOST = 64 << 20  # bytes of data in one request
# The flags of each command, what the server must be able to do, and whether it changes the disk.
_RULES: dict[int, tuple[int, str, bool]] = {
    Command.READ: (CMD_FLAG_DF, "", False),
    Command.WRITE: (CMD_FLAG_FUA, "", True),
    Command.FLUSH: (0, "can_flush", False),
    Command.TRIM: (CMD_FLAG_FUA, "can_trim", True),
    Command.CACHE: (0, "can_cache", False),
    Command.WRITE_ZEROES: (
        CMD_FLAG_FUA | CMD_FLAG_NO_HOLE | CMD_FLAG_FAST_ZERO,
        "can_zero",
        True,
    ),
    Command.BLOCK_STATUS: (CMD_FLAG_REQ_ONE, "", False),
}


class Commands(Described):
    """A handle that makes requests."""

    # Calls that wait.

    def pread(self, count: int, offset: int, flags: int = 0) -> bytearray:
        """Return `count` bytes at `offset`.

        Called from: any thread.
        """
        data = bytearray(count)
        target = memoryview(data)
        self._wait_for("pread", Order(Command.READ, offset, count, flags=flags, target=target))
        return data

    def pread_structured(
        self,
        count: int,
        offset: int,
        chunk: Chunks,
        flags: int = 0,
    ) -> bytearray:
        """Return `count` bytes at `offset`; `chunk(data, offset, status, error)` sees them, too.

        They come as one chunk here, READ_DATA, or as none, READ_ERROR.

        Called from: any thread.
        """
        data = bytearray(count)
        order = Order(Command.READ, offset, count, flags=flags, target=memoryview(data))
        order.chunk = chunk
        self._wait_for("pread_structured", order)
        return data

    def pwrite(self, buf: bytes | bytearray | memoryview, offset: int, flags: int = 0) -> None:
        """Write `buf` at `offset`.

        Called from: any thread.
        """
        data = memoryview(buf).cast("B")
        order = Order(Command.WRITE, offset, len(data), flags=flags, data=data)
        self._wait_for("pwrite", order)

    def flush(self, flags: int = 0) -> None:
        """Have what was written put on stable storage.

        Called from: any thread.
        """
        self._wait_for("flush", Order(Command.FLUSH, flags=flags))

    def trim(self, count: int, offset: int, flags: int = 0) -> None:
        """Give a hint that a range may be dropped.

        Called from: any thread.
        """
        self._wait_for("trim", Order(Command.TRIM, offset, count, flags=flags))

    def cache(self, count: int, offset: int, flags: int = 0) -> None:
        """Give a hint that a range will be read soon.

        Called from: any thread.
        """
        self._wait_for("cache", Order(Command.CACHE, offset, count, flags=flags))

    def zero(self, count: int, offset: int, flags: int = 0) -> None:
        """Make a range read as zeroes.

        Called from: any thread.
        """
        self._wait_for("zero", Order(Command.WRITE_ZEROES, offset, count, flags=flags))

    def block_status(self, count: int, offset: int, extent: Extents, flags: int = 0) -> None:
        """Call `extent(context, offset, entries, error)` for each metadata context.

        `entries` alternates lengths and flags, as the server has sent them.

        Called from: any thread.
        """
        order = Order(Command.BLOCK_STATUS, offset, count, flags=flags)
        self._wait_for("block_status", order, extent=extent)

    def shutdown(self, flags: int = 0) -> None:
        """Disconnect, after waiting for what is in flight, or not: SHUTDOWN_ABANDON_PENDING.

        Called from: any thread.
        """
        with self._lock:
            if self._state == State.NEGOTIATING:
                self.opt_abort()
                return
            session = self._ready("shutdown")
            if not flags & SHUTDOWN_ABANDON_PENDING:
                session.finish()
            session.disconnect()
            session.close()
            self._state = State.CLOSED
            self._say("shutdown", "disconnected")

    # Calls that do not.

    def aio_pread(
        self, buf: Memory, offset: int, completion: Completion = None, flags: int = 0
    ) -> int:
        """Begin to read into `buf`; return the request's cookie.

        Called from: any thread.
        """
        target = writable(buf)
        order = Order(Command.READ, offset, len(target), flags=flags, target=target)
        return self._begin("aio_pread", order, completion)

    def aio_pread_structured(
        self,
        buf: Memory,
        offset: int,
        chunk: Chunks,
        completion: Completion = None,
        flags: int = 0,
    ) -> int:
        """Begin to read into `buf`, as `pread_structured` does; return the request's cookie.

        Called from: any thread.
        """
        target = writable(buf)
        order = Order(Command.READ, offset, len(target), flags=flags, target=target)
        order.chunk = chunk
        return self._begin("aio_pread_structured", order, completion)

    def aio_pwrite(
        self, buf: Memory, offset: int, completion: Completion = None, flags: int = 0
    ) -> int:
        """Begin to write `buf`; return the request's cookie.

        Called from: any thread.
        """
        data = view_of(buf)
        order = Order(Command.WRITE, offset, len(data), flags=flags, data=data)
        return self._begin("aio_pwrite", order, completion)

    def aio_flush(self, completion: Completion = None, flags: int = 0) -> int:
        """Begin a flush; return the request's cookie.

        Called from: any thread.
        """
        return self._begin("aio_flush", Order(Command.FLUSH, flags=flags), completion)

    def aio_trim(
        self, count: int, offset: int, completion: Completion = None, flags: int = 0
    ) -> int:
        """Begin a trim; return the request's cookie.

        Called from: any thread.
        """
        order = Order(Command.TRIM, offset, count, flags=flags)
        return self._begin("aio_trim", order, completion)

    def aio_cache(
        self, count: int, offset: int, completion: Completion = None, flags: int = 0
    ) -> int:
        """Begin to have a range cached; return the request's cookie.

        Called from: any thread.
        """
        order = Order(Command.CACHE, offset, count, flags=flags)
        return self._begin("aio_cache", order, completion)

    def aio_zero(
        self, count: int, offset: int, completion: Completion = None, flags: int = 0
    ) -> int:
        """Begin to zero a range; return the request's cookie.

        Called from: any thread.
        """
        order = Order(Command.WRITE_ZEROES, offset, count, flags=flags)
        return self._begin("aio_zero", order, completion)

    def aio_block_status(
        self,
        count: int,
        offset: int,
        extent: Extents,
        completion: Completion = None,
        flags: int = 0,
    ) -> int:
        """Begin to ask for extents; return the request's cookie.

        Called from: any thread.
        """
        order = Order(Command.BLOCK_STATUS, offset, count, flags=flags)
        return self._begin("aio_block_status", order, completion, extent=extent)

    def aio_command_completed(self, cookie: int) -> bool:
        """Return whether a request has ended, once; raise Error if it has failed.

        Called from: any thread.
        """
        with self._lock:
            session = self._session
            order = None if session is None else session.ended.pop(cookie, None)
            if order is None:
                return False
            self._check_end("aio_command_completed", order)
            return True

    def aio_peek_command_completed(self) -> int:
        """Return the cookie of a request that has ended and was not asked about, 0 if none has.

        Called from: any thread.
        """
        session = self._connected("aio_peek_command_completed")
        if not session.ended and not session.in_flight:
            text = "no commands are in flight"
            raise failure("aio_peek_command_completed", text, errno.EINVAL)
        return next(iter(session.ended), 0)

    def aio_in_flight(self) -> int:
        """Return the number of requests without a reply.

        Called from: any thread.
        """
        self._check_state("aio_in_flight", _WAS_READY, "connected with the server, or shut down")
        return self._session.in_flight if self._session is not None else 0

    def poll(self, timeout: int) -> int:
        """Wait up to `timeout` milliseconds, -1 without limit, for the socket; 0 after it.

        Called from: any thread.
        """
        with self._lock:
            session = self._ready("poll")
            return int(session.turn(None if timeout < 0 else timeout))

    def aio_get_fd(self) -> int:
        """Return the descriptor of the socket, to wait for.

        Called from: any thread.
        """
        return self._ready("aio_get_fd").sock.fileno()

    def aio_get_direction(self) -> int:
        """Return what to wait for: AIO_DIRECTION_READ, or AIO_DIRECTION_BOTH.

        Called from: any thread.
        """
        sends = self._session is not None and self._session.sends
        return AIO_DIRECTION_BOTH if sends else AIO_DIRECTION_READ

    def aio_notify_read(self) -> None:
        """Receive: the descriptor is readable.

        Called from: any thread.
        """
        with self._lock:
            self._ready("aio_notify_read").read()

    def aio_notify_write(self) -> None:
        """Send: the descriptor is writable.

        Called from: any thread.
        """
        with self._lock:
            self._ready("aio_notify_write").write()

    def aio_disconnect(self, flags: int = 0) -> None:
        """Disconnect, without waiting for what is in flight.

        Called from: any thread.
        """
        del flags
        with self._lock:
            self._ready("aio_disconnect").disconnect()
            self._state = State.CLOSED

    def aio_is_created(self) -> bool:
        """Return whether the handle has not connected yet.

        Called from: any thread.
        """
        return self._state == State.START

    def aio_is_negotiating(self) -> bool:
        """Return whether the handle is in option mode.

        Called from: any thread.
        """
        return self._state == State.NEGOTIATING

    def aio_is_ready(self) -> bool:
        """Return whether the handle takes requests.

        Called from: any thread.
        """
        session = self._session
        return self._state == State.READY and session is not None and session.broken is None

    def aio_is_closed(self) -> bool:
        """Return whether the handle has been shut down.

        Called from: any thread.
        """
        return self._state == State.CLOSED

    def aio_is_dead(self) -> bool:
        """Return whether the connection has failed.

        Called from: any thread.
        """
        return self._state == State.DEAD or (self._state == State.READY and not self.aio_is_ready())

    # Parts.

    def _ready(self, call: str) -> Session:
        self._check_state(call, (State.READY,), "connected with the server")
        assert self._session is not None
        return self._session

    def _connected(self, call: str) -> Session:
        self._check_state(call, _WAS_READY, "connected with the server, or shut down")
        if self._session is None:
            raise failure(call, "the handle was never connected", errno.EINVAL)
        return self._session

    def _wait_for(self, call: str, order: Order, *, extent: Extents | None = None) -> None:
        with self._lock:
            session = self._ready(call)
            self._check(call, order)
            order.extent = extent
            session.submit(order)
            session.wait(order)
            self._check_end(call, order)

    def _begin(
        self, call: str, order: Order, completion: Completion, *, extent: Extents | None = None
    ) -> int:
        with self._lock:
            session = self._ready(call)
            self._check(call, order)
            order.completion, order.extent = completion, extent
            return session.submit(order)

    def _check_end(self, call: str, order: Order) -> None:
        if order.number:
            name = Command(order.command).name.lower().replace("_", "-")
            text = f"{name}: command failed"
            session = self._session
            if session is not None and session.broken is not None:
                text = f"{text}: {session.broken}"
            raise failure(call, text, order.number) from order.cause

    def _check(self, call: str, order: Order) -> None:
        """Refuse what is wrong, as the strict mode says. Raises Error."""
        flags, needs, changes = _RULES[order.command]
        strict = self._strict
        if strict & STRICT_FLAGS and order.flags & ~flags:
            raise failure(call, f"invalid value for flag: {order.flags:#x}", errno.EINVAL)
        if strict & STRICT_COMMANDS:
            self._check_ability(call, order, needs)
            if changes and self.is_read_only():
                raise failure(call, "server does not support write operations", errno.EPERM)
        if order.command != Command.FLUSH:
            self._check_range(call, order, changes=changes)
        if order.command in (Command.READ, Command.WRITE) and order.length > _MOST:
            raise failure(call, f"request too large: maximum request size is {_MOST}", errno.ERANGE)
        if order.command == Command.BLOCK_STATUS and not self._known(call).contexts:
            text = "did not negotiate any metadata contexts, either you did not call "
            raise failure(call, f"{text}nbd_add_meta_context or the server refuses", errno.ENOTSUP)

    def _check_ability(self, call: str, order: Order, needs: str) -> None:
        if needs and not getattr(self, needs)():
            raise failure(call, f"server does not support {call} operations", errno.EINVAL)
        for flag, ability, name in (
            (CMD_FLAG_FUA, self.can_fua, "the FUA flag"),
            (CMD_FLAG_FAST_ZERO, self.can_fast_zero, "the fast zero flag"),
            (CMD_FLAG_DF, self.can_df, "the DF flag"),
        ):
            if order.flags & flag and not ability():
                raise failure(call, f"server does not support {name}", errno.EINVAL)

    def _check_range(self, call: str, order: Order, *, changes: bool) -> None:
        strict, size = self._strict, self.get_size()
        if strict & STRICT_BOUNDS and not 0 <= order.offset <= size - order.length:
            number = errno.ENOSPC if changes else errno.EINVAL
            raise failure(call, "request out of bounds", number)
        if strict & STRICT_ZERO_SIZE and not order.length:
            raise failure(call, "count cannot be 0", errno.EINVAL)
        minimum = self.get_block_size(0)
        if strict & STRICT_ALIGN and minimum and (order.offset | order.length) % minimum:
            raise failure(call, "request is unaligned", errno.EINVAL)
