"""Servers for the client's tests: one that does what the test says, and other programs'."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import socket
import struct
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from homebound.nbd._protocol.wire import (
    IHAVEOPT,
    OPTION_REPLY_MAGIC,
    SIMPLE_REPLY_MAGIC,
    STRUCTURED_REPLY_MAGIC,
    ChunkFlag,
    Option,
    ReplyType,
)
from homebound.testing import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

SIZE = 1 << 20
FLAGS = 0b1_1110_1101  # all but READ_ONLY, ROTATIONAL, and what is new; CAN_MULTI_CONN
GREETING = b"NBDMAGICIHAVEOPT\0\3"


def option_reply(option: int, kind: int, data: bytes = b"", *, length: int | None = None) -> bytes:
    size = len(data) if length is None else length
    return struct.pack(">QIII", OPTION_REPLY_MAGIC, option, kind, size) + data


def info_export(size: int = SIZE, flags: int = FLAGS) -> bytes:
    return struct.pack(">HQH", 0, size, flags)


def simple(cookie: int, error: int = 0, data: bytes = b"") -> bytes:
    return struct.pack(">IIQ", SIMPLE_REPLY_MAGIC, error, cookie) + data


def chunk(
    cookie: int, kind: int, data: bytes = b"", *, done: bool = True, length: int | None = None
) -> bytes:
    size = len(data) if length is None else length
    flags = ChunkFlag.DONE if done else 0
    return struct.pack(">IHHQI", STRUCTURED_REPLY_MAGIC, flags, kind, cookie, size) + data


def data_chunk(cookie: int, offset: int, data: bytes, *, done: bool = True) -> bytes:
    return chunk(cookie, 1, struct.pack(">Q", offset) + data, done=done)


class End:
    """A server's end of a connection, that says what the test has it say."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.name = b""  # of the export that was asked for

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def greet(self, greeting: bytes = GREETING) -> None:
        self.send(greeting)
        await self.reader.readexactly(4)

    async def option(self) -> tuple[int, bytes]:
        magic, number, length = struct.unpack(">QII", await self.reader.readexactly(16))
        assert magic == IHAVEOPT
        return number, await self.reader.readexactly(length)

    async def negotiate(
        self,
        answers: dict[int, bytes] | None = None,
        *,
        size: int = SIZE,
        flags: int = FLAGS,
        structured: bool = False,
        contexts: dict[int, bytes] | None = None,
    ) -> None:
        """Go through the handshake; `answers` has what is said to some of the options."""
        await self.greet()
        while True:
            number, data = await self.option()
            known = answers or {}
            if number in known:
                self.send(known[number])
            elif number == Option.STRUCTURED_REPLY:
                kind = ReplyType.ACK if structured else ReplyType.ERR_UNSUP
                self.send(option_reply(number, kind))
            elif number == Option.SET_META_CONTEXT:
                for key, name in (contexts or {}).items():
                    body = struct.pack(">I", key) + name
                    self.send(option_reply(number, ReplyType.META_CONTEXT, body))
                self.send(option_reply(number, ReplyType.ACK))
            elif number in (Option.GO, Option.INFO):
                self.name = data[4 : 4 + struct.unpack_from(">I", data)[0]]
                self.send(option_reply(number, ReplyType.INFO, info_export(size, flags)))
                self.send(option_reply(number, ReplyType.ACK))
                if number == Option.GO:
                    return
            else:
                self.send(option_reply(number, ReplyType.ERR_UNSUP))

    async def request(self) -> tuple[int, int, int, int, bytes]:
        """Receive a request: its command, cookie, offset and length, and a WRITE's payload."""
        return (await self.request_with_flags())[1:]

    async def request_with_flags(self) -> tuple[int, int, int, int, int, bytes]:
        """Do as `request`; the flags come first."""
        head = await self.reader.readexactly(28)
        _, flags, command, cookie, offset, length = struct.unpack(">IHHQQI", head)
        payload = await self.reader.readexactly(length) if command == 1 else b""
        return flags, command, cookie, offset, length, payload

    async def serve(self, memory: bytearray) -> None:
        """Serve simple replies out of `memory` until the client disconnects."""
        while True:
            command, cookie, offset, length, payload = await self.request()
            if command == 2:
                return
            if command == 1:
                memory[offset : offset + length] = payload
            data = bytes(memory[offset : offset + length]) if command == 0 else b""
            self.send(simple(cookie, 0, data))


class Rude:
    """A server on a unix socket, in the test's loop, whose connections run a function each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.uri = f"nbd+unix:///?socket={path}"
        self.accepted = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, talk: Callable[[End], Awaitable[object]]) -> None:
        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.accepted += 1
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            try:
                await talk(End(reader, writer))
                await writer.drain()
            except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                pass
            finally:
                self._tasks.discard(task)
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()

        self._server = await asyncio.start_unix_server(accepted, self.path)

    async def stop(self) -> None:
        """Stop listening, and drop all connections."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks))
        if server is not None:
            await server.wait_closed()
        self.path.unlink(missing_ok=True)

    @contextlib.asynccontextmanager
    async def talking(self, talk: Callable[[End], Awaitable[object]]) -> AsyncIterator[Rude]:
        await self.start(talk)
        try:
            yield self
        finally:
            await self.stop()


@pytest.fixture
def rude(tmp_path: Path) -> Rude:
    return Rude(tmp_path / "rude")


class Names:
    """What tests use of this file, which they cannot import."""

    end = End
    option_reply = staticmethod(option_reply)
    info_export = staticmethod(info_export)
    simple = staticmethod(simple)
    chunk = staticmethod(chunk)
    data_chunk = staticmethod(data_chunk)
    greeting = GREETING
    size = SIZE
    flags = FLAGS


@pytest.fixture(scope="session")
def say() -> Any:
    return Names


class Program:
    """Another program that serves NBD on a unix socket."""

    def __init__(self, place: Path) -> None:
        self.socket = place
        self.process: subprocess.Popen[bytes] | None = None

    def uri(self, export: str = "") -> str:
        return f"nbd+unix:///{export}?socket={self.socket}"

    def start(self, *command: object) -> None:
        if shutil.which(str(command[0])) is None:
            pytest.skip(f"{command[0]} is not installed")
        self.socket.unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [str(each) for each in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def until_listening(self) -> None:
        """Wait until a client can connect: the socket is there from its binding on."""
        until(self._listens)

    def _listens(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(self.socket)) == 0

    def freeze(self) -> None:
        """Stop it, and wait until each of its threads has stopped."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        threads = Path(f"/proc/{self.process.pid}/task")
        until(lambda: all(_state(thread) == "T" for thread in threads.iterdir()))

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def _state(thread: Path) -> str:
    """Return the letter of its state; "T" as well if it has ended."""
    try:
        stat = (thread / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return "T"
    return stat.rpartition(")")[2].split()[0]


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    made = Program(tmp_path / "server")
    yield made
    made.kill()
