"""Arguments and behaviour of newer asyncios, which our loop has on every Python."""

from __future__ import annotations

import asyncio
import contextvars
import socket
import sys
from typing import TYPE_CHECKING, Any

import pytest

import homebound

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from homebound import IOThread

request: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="none")


def context_of(value: str) -> contextvars.Context:
    context = contextvars.copy_context()
    context.run(request.set, value)
    return context


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a connection, not blocking."""
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)
        right.setblocking(False)
        yield left, right


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop of homebound's, not running."""
    loop = homebound.new_event_loop()
    yield loop
    loop.close()


# Arguments of `run` (asyncio's from 3.14 on).


class Awaitable:
    """An awaitable that is neither a coroutine nor a future."""

    def __await__(self) -> Generator[Any, None, str]:
        yield from asyncio.sleep(0).__await__()
        return "awaited"


def test_run_takes_any_awaitable():
    assert homebound.run(Awaitable()) == "awaited"


def test_run_takes_an_awaitable_that_goes_on_elsewhere(io: IOThread):
    async def far() -> str:
        await asyncio.sleep(0)
        return "far"

    assert homebound.run(io.spawn(far())) == "far"


@pytest.mark.skipif(sys.version_info < (3, 14), reason="asyncio's Runner takes coroutines only")
def test_asyncios_runner_takes_any_awaitable():
    with asyncio.Runner(loop_factory=homebound.new_event_loop) as runner:
        assert runner.run(Awaitable()) == "awaited"  # type: ignore[arg-type]


# Timers.


def test_a_timer_at_a_time_coarser_than_the_clocks_resolution(loop: Any):
    """At 2**40 seconds floats are 0.2 ms apart: adding the clock's nanosecond is lost (3.15)."""
    now = 2.0**40
    loop.time = lambda: now
    called: list[str] = []
    loop.call_at(now, called.append, "now")
    loop.call_at(now + 1, called.append, "later")
    loop.call_at(now, loop.stop)
    loop.run_forever()
    assert called == ["now"]


# Descriptors.


def test_a_reader_and_a_writer_in_a_given_context(
    pair: tuple[socket.socket, socket.socket], loop: Any
):
    """The callback runs in the given context itself, each time: it sees what it set before."""
    left, right = pair
    context = context_of("reader")
    seen = []

    def read(what: str) -> None:
        seen.append((what, request.get(), left.recv(1)))
        request.set(request.get() + "+")
        if len(seen) == 2:
            loop.add_writer(left, write, context=context)

    def write() -> None:
        seen.append(("writer", request.get(), b""))
        loop.remove_writer(left)
        loop.remove_reader(left)
        loop.stop()

    loop.add_reader(left, read, "reader", context=context)
    right.send(b"12")
    loop.run_forever()
    assert seen == [
        ("reader", "reader", b"1"),
        ("reader", "reader+", b"2"),
        ("writer", "reader++", b""),
    ]
    assert request.get() == "none"


def test_a_reader_in_a_copy_of_its_creators_context(
    pair: tuple[socket.socket, socket.socket], loop: Any
):
    left, right = pair
    seen = []

    def read() -> None:
        seen.append(request.get())
        loop.remove_reader(left)
        loop.stop()

    context_of("maker").run(loop.add_reader, left, read)
    right.send(b"1")
    loop.run_forever()
    assert seen == ["maker"]


def test_a_reader_of_a_transports_descriptor_is_refused(pair: tuple[socket.socket, socket.socket]):
    left, _ = pair

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=left)
        with pytest.raises(RuntimeError, match="is used by transport"):
            loop.add_reader(left, print, context=contextvars.Context())
        with pytest.raises(RuntimeError, match="is used by transport"):
            loop.add_writer(left, print, context=contextvars.Context())
        transport.abort()
        await asyncio.sleep(0)

    homebound.run(main())


@pytest.mark.skipif(sys.version_info < (3, 15), reason="asyncio's transports have none before")
def test_a_servers_connections_run_in_its_context():
    """Each connection, from accept to end, runs in a copy of the context that made the server."""
    seen: list[tuple[str, str]] = []

    class Server(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport
            seen.append(("made", request.get()))

        def data_received(self, data: bytes) -> None:
            seen.append((data.decode(), request.get()))
            request.set("of this connection")
            self.transport.close()

        def connection_lost(self, _error: Exception | None) -> None:
            seen.append(("lost", request.get()))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        request.set("server")
        server = await loop.create_server(Server, "127.0.0.1", 0)
        request.set("client")
        async with server:
            for _ in range(2):
                reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
                writer.write(b"data")
                assert await reader.read() == b""
                writer.close()
                await writer.wait_closed()
        assert request.get() == "client"

    contextvars.copy_context().run(homebound.run, main())
    assert seen == [("made", "server"), ("data", "server"), ("lost", "of this connection")] * 2
