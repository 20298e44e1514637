"""An echo server in a process of its own: its CPU time for a request.

The client is the same for all: one thread, plain sockets and epoll, a request in flight on each
connection. The server reports its process's CPU clock on a second port, and does nothing else
while it is measured.

The first case has the server in the main thread's loop; the others on uvloop in a thread of its
own, an I/O thread of homebound's or a plain one.
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import socket
import subprocess
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import homebound

from ._harness import Case, Target
from ._peers import loop_factories, loop_thread, peer, with_homebound, with_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CONNECTIONS = 64
_REQUEST = b"x" * 64
_WARM_UP = 20  # requests on each connection before the clock starts
_HOST = "127.0.0.1"


# --- the server --------------------------------------------------------------------------------


class _Echo(asyncio.Protocol):
    transport: Any

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class _Clock(_Echo):
    """A protocol that answers anything with the CPU time of this process, in nanoseconds."""

    def data_received(self, _data: bytes) -> None:
        self.transport.write(b"%d\n" % time.process_time_ns())


async def _converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one connection, as a task."""
    while data := await reader.read(4096):
        writer.write(data)
        await writer.drain()


async def _serve(_n: int, *, streams: bool = False) -> None:
    loop = asyncio.get_running_loop()
    echo: asyncio.Server
    if streams:
        echo = await asyncio.start_server(_converse, _HOST, 0, backlog=2 * CONNECTIONS)
    else:
        echo = await loop.create_server(_Echo, _HOST, 0, backlog=2 * CONNECTIONS)
    clock = await loop.create_server(_Clock, _HOST, 0)
    ports = [server.sockets[0].getsockname()[1] for server in (echo, clock)]
    sys.stdout.write(f"{ports[0]} {ports[1]}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()  # until killed


def _run(where: str, loop: str, *, streams: bool) -> None:
    """Serve: `where` is "main", "io" (an I/O thread) or "thread" (a plain one)."""
    if where == "main":
        serve = partial(_serve, streams=streams)
        run = with_homebound if loop == "homebound" else partial(with_loop, loop_factories()[loop])
        run(serve)(0)
    elif where == "io":
        with homebound.IOThread(loop_factory=loop_factories()[loop]) as io:
            homebound.block_on(io.spawn(_serve(0, streams=streams)))
    else:
        with loop_thread(loop_factories()[loop]) as bare:
            asyncio.run_coroutine_threadsafe(_serve(0, streams=streams), bare).result()


# --- the client --------------------------------------------------------------------------------


@contextlib.contextmanager
def _server(*how: str) -> Iterator[tuple[int, int]]:
    command = [sys.executable, "-m", __name__, *how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        try:
            assert process.stdout is not None
            echo, clock = process.stdout.readline().split()
            yield int(echo), int(clock)
        finally:
            process.kill()


def _cpu_ns(clock: socket.socket) -> int:
    clock.send(b"?")
    return int(clock.recv(64))


def _drive(connections: list[socket.socket], requests: int) -> None:
    """Keep one request in flight on each connection until each has had so many answers."""
    left = dict.fromkeys((sock.fileno() for sock in connections), requests)
    by_fd = {sock.fileno(): sock for sock in connections}
    with selectors.DefaultSelector() as selector:
        for sock in connections:
            selector.register(sock, selectors.EVENT_READ)
            sock.send(_REQUEST)
        open_ones = len(connections)
        while open_ones:
            for key, _ in selector.select():
                sock = by_fd[key.fd]
                if not sock.recv(4096):
                    raise ConnectionError("the server has gone")
                left[key.fd] -= 1
                if left[key.fd]:
                    sock.send(_REQUEST)
                else:
                    open_ones -= 1


def _client(*how: str, wall: bool = False) -> Callable[[int], float]:
    """Return the server's CPU time a request; or the elapsed time, with `wall`."""

    def variant(n: int) -> float:
        each = max(1, n // CONNECTIONS)
        with _server(*how) as (echo, clock_port), contextlib.ExitStack() as stack:
            connections = [
                stack.enter_context(socket.create_connection((_HOST, echo)))
                for _ in range(CONNECTIONS)
            ]
            for sock in connections:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            clock = stack.enter_context(socket.create_connection((_HOST, clock_port)))
            _drive(connections, min(each, _WARM_UP))
            start, began = _cpu_ns(clock), time.perf_counter_ns()
            _drive(connections, each)
            passed = time.perf_counter_ns() - began if wall else _cpu_ns(clock) - start
            return passed / (each * CONNECTIONS) / 1e9

    return variant


def cases() -> list[Case]:
    """Return the cases to run."""
    main = Case(
        name=f"TCP echo, {CONNECTIONS} connections",
        what="a protocol that writes back 64 bytes; CPU time of the server a request",
        variants={
            name: _client("main", name, "protocol") for name in ("homebound", *loop_factories())
        },
        n=CONNECTIONS * 500,
        targets=(Target("asyncio", at_most=1),),
    )
    return [main, *(_in_thread() if peer("uvloop") else ())]


def _in_thread() -> Iterator[Case]:
    for style, what in (("protocol", "a protocol"), ("streams", "a task a connection, streams")):
        for wall, short, measure in (
            (False, "CPU", "CPU time of the server"),
            (True, "time", "time that passes"),
        ):
            yield Case(
                name=f"I/O thread on uvloop: echo {style}, {short}",
                what=f"{what} that writes back 64 bytes; {measure} a request",
                variants={
                    "homebound": _client("io", "uvloop", style, wall=wall),
                    "uvloop": _client("thread", "uvloop", style, wall=wall),
                },
                n=CONNECTIONS * 1500,  # a third of the main thread's time a request
                # The elapsed time is mostly the client's, and the machine's.
                targets=() if wall else (Target("uvloop", at_most=1.03),),
            )


if __name__ == "__main__":
    where, loop, style = sys.argv[1:]
    _run(where, loop, streams=style == "streams")
