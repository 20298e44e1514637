"""Load: one process with a home per core, beside `uvicorn --workers`.

    python examples/asgi_threads/load_test.py [--cores N] [--runs N] [--seconds S]

Echo: connections send bursts of messages, and each is sent back by its server alone, which worker
processes can do too. Chat: each message goes to all members, which they cannot without a broker.
The contenders take turns, and medians are shown. The client is raw sockets, so that the servers
have the work. Needs uvicorn and websockets.
"""

from __future__ import annotations

import argparse
import os
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = Path(__file__).parent
CONNECTIONS = 16  # members of the chat, too
BURST = 16  # messages of the echo's connections under way at once
PATIENCE = 60  # seconds until a server is up
HELLO = b"\x81\x85\0\0\0\0hello"  # a text frame whose mask is zero
UPGRADE = (
    "GET /{name} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Say which process and thread this is, then send back all that comes."""
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    place = f"{os.getpid()} {threading.current_thread().name}"
    await send({"type": "websocket.send", "text": place})
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": event["text"]})


class Connection:
    """A WebSocket that counts the messages that come; all are shorter than 126 bytes."""

    def __init__(self, port: int, name: str) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.sendall(UPGRADE.format(name=name).encode())
        self.data = bytearray()
        while b"\r\n\r\n" not in self.data:
            self.receive()
        del self.data[: self.data.index(b"\r\n\r\n") + 4]
        self.due = 0

    def receive(self) -> None:
        data = self.sock.recv(1 << 16)
        if not data:
            raise ConnectionError("the server has closed the connection")
        self.data += data

    def take(self) -> list[bytes]:
        """Return the messages that have come whole."""
        messages, start = [], 0
        while len(self.data) >= start + 2 and len(self.data) >= start + 2 + self.data[start + 1]:
            end = start + 2 + self.data[start + 1]
            messages.append(bytes(self.data[start + 2 : end]))
            start = end
        del self.data[:start]
        return messages

    def first(self) -> bytes:
        while not (messages := self.take()):
            self.receive()
        return messages[0]


def spread(port: int, cores: int, stack: ExitStack) -> list[Connection]:
    """Connect until each server has the same number of connections; drop those beyond it."""
    most = CONNECTIONS // cores
    kept: list[Connection] = []
    places: Counter[bytes] = Counter()
    deadline = time.monotonic() + PATIENCE
    while len(kept) < most * cores:
        assert time.monotonic() < deadline, places
        connection = stack.enter_context(closed(Connection(port, "echo")))
        place = connection.first()
        if places[place] < most:
            places[place] += 1
            kept.append(connection)
        else:
            connection.sock.close()
    return kept


@contextmanager
def closed(connection: Connection) -> Iterator[Connection]:
    with connection.sock:
        yield connection


def messages_per_second(
    connections: list[Connection], burst: int, turn: int, seconds: float
) -> float:
    """Let each connection send a burst whenever it has heard `turn` messages more."""
    with selectors.DefaultSelector() as selector:
        for each in connections:
            selector.register(each.sock, selectors.EVENT_READ, each)
            each.sock.sendall(HELLO * burst)
        heard, expected = 0, turn * len(connections)
        begun = time.perf_counter()
        while heard < expected:  # to the last, as no server should send into the void
            for key, _ in selector.select(PATIENCE):
                each = key.data
                each.receive()
                number = len(each.take())
                heard += number
                each.due += number
                if each.due >= turn and time.perf_counter() < begun + seconds:
                    each.due -= turn
                    expected += turn
                    each.sock.sendall(HELLO * burst)
        return heard / (time.perf_counter() - begun)


def command(contender: str, cores: int, listener: socket.socket) -> list[str]:
    """Return Python's arguments. uvicorn's own socket has no TCP_NODELAY; a given one may have."""
    app = ["load_test:echo"]
    port = ["--port", str(listener.getsockname()[1])]
    if contender.startswith("workers"):
        options = ["--loop", "asyncio", "--lifespan", "off", "--log-level", "warning"]
        place = ["--fd", str(listener.fileno())] if contender == "workers, given" else port
        return ["-m", "uvicorn", *app, *options, *place, "--workers", str(cores)]
    homes = ["asgi_threads.py", *port, "--homes", str(cores)]
    return homes if contender == "chat" else [*homes, "--app", *app]


@contextmanager
def server(contender: str, cores: int) -> Iterator[int]:
    """Run a contender's server; yield its port, to which clients can connect."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        arguments = command(contender, cores, listener)
        if "--fd" not in arguments:
            listener.close()  # it has found a free port
        given = [listener.fileno()] if "--fd" in arguments else []
        process = subprocess.Popen(  # noqa: S603  (this folder's own programs)
            [sys.executable, *arguments], cwd=FOLDER, pass_fds=given, stdout=subprocess.DEVNULL
        )
    with process:
        try:
            wait_for(port, process)
            yield port
        finally:
            process.terminate()


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server has ended"
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError("the server does not come up")


def measure(contender: str, cores: int, seconds: float) -> float:
    with server(contender, cores) as port, ExitStack() as stack:
        if contender != "chat":
            return messages_per_second(spread(port, cores, stack), BURST, BURST, seconds)
        members = [
            stack.enter_context(closed(Connection(port, f"member{number}")))
            for number in range(CONNECTIONS)
        ]
        return messages_per_second(members, 1, CONNECTIONS, seconds)


def main(cores: int, runs: int, seconds: float) -> None:
    contenders = {
        f"echo, {cores} workers": ("workers", cores),
        f"echo, {cores} workers, TCP_NODELAY": ("workers, given", cores),
        f"echo, {cores} homes": ("homes", cores),
        "echo, 1 home": ("homes", 1),
        f"chat, {cores} homes": ("chat", cores),
        "chat, 1 home": ("chat", 1),
    }
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(runs):
        for name in [*contenders][:: -1 if number % 2 else 1]:  # in turns: there, and back
            rates[name].append(measure(*contenders[name], seconds))
    for name, each in rates.items():
        print(f"{name}: {median(each):.0f} messages/s ({min(each):.0f} to {max(each):.0f})")
    _, workers, homes, home, chats, chat = rates.values()
    for name, ours, theirs in (
        ("homes / workers with TCP_NODELAY", homes, workers),
        (f"{cores} homes / 1, echo", homes, home),
        (f"{cores} homes / 1, chat", chats, chat),
    ):
        ratio = median(mine / other for mine, other in zip(ours, theirs, strict=True))
        print(f"{name}, run by run: {ratio:.2f}")


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--cores", type=int, default=os.cpu_count() or 1)
    options.add_argument("--runs", type=int, default=5)
    options.add_argument("--seconds", type=float, default=2)
    chosen = options.parse_args()
    main(chosen.cores, chosen.runs, chosen.seconds)
