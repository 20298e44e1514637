"""An echo server in a process of its own: what a request costs it in CPU time.

The client is the same for all: one thread, plain sockets and epoll, a request in flight on each
connection. The server tells its process's CPU clock on a second port, and is otherwise asked
nothing while it is measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from ._harness import Case, Target
from ._peers import loop_factories, with_homebound, with_loop

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
    """Answers anything with the CPU time of this process, in nanoseconds."""

    def data_received(self, _data: bytes) -> None:
        self.transport.write(b"%d\n" % time.process_time_ns())


async def _serve(_n: int) -> None:
    loop = asyncio.get_running_loop()
    echo = await loop.create_server(_Echo, _HOST, 0, backlog=2 * CONNECTIONS)
    clock = await loop.create_server(_Clock, _HOST, 0)
    ports = [server.sockets[0].getsockname()[1] for server in (echo, clock)]
    sys.stdout.write(f"{ports[0]} {ports[1]}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()  # until killed


# --- the client --------------------------------------------------------------------------------


@contextlib.contextmanager
def _server(kind: str) -> Iterator[tuple[int, int]]:
    command = [sys.executable, "-m", __name__, kind]
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
    """One request in flight on each connection until each has had so many answers."""
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


def _client(kind: str) -> Callable[[int], float]:
    def variant(n: int) -> float:
        each = max(1, n // CONNECTIONS)
        with _server(kind) as (echo, clock_port), contextlib.ExitStack() as stack:
            connections = [
                stack.enter_context(socket.create_connection((_HOST, echo)))
                for _ in range(CONNECTIONS)
            ]
            for sock in connections:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            clock = stack.enter_context(socket.create_connection((_HOST, clock_port)))
            _drive(connections, min(each, _WARM_UP))
            start = _cpu_ns(clock)
            _drive(connections, each)
            return (_cpu_ns(clock) - start) / (each * CONNECTIONS) / 1e9

    return variant


def cases() -> list[Case]:
    """What to run."""
    return [
        Case(
            name=f"TCP echo, {CONNECTIONS} connections",
            what="a protocol that writes back 64 bytes; CPU time of the server a request",
            variants={name: _client(name) for name in ("homebound", *loop_factories())},
            n=CONNECTIONS * 500,
            targets=(Target("asyncio", at_most=1),),
        )
    ]


if __name__ == "__main__":
    name = sys.argv[1]
    run = (
        with_homebound(_serve) if name == "homebound" else with_loop(loop_factories()[name], _serve)
    )
    run(0)
