"""A client on a socket; and a client, a transport and a waiting disk in memory."""

from __future__ import annotations

import asyncio
import importlib
import struct
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

import homebound
from homebound.block import Disk, MemoryDisk
from homebound.nbd import Export
from homebound.nbd._protocol.wire import (
    IHAVEOPT,
    SIMPLE_REPLY_MAGIC,
    Option,
    ReplyType,
    request_head,
)
from homebound.nbd._server import turns
from homebound.nbd._server.budget import Budget
from homebound.nbd._server.connection import Connection
from homebound.nbd._server.lane import Lane
from homebound.nbd._server.served import serve

if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Self


class MemoryTransport(asyncio.Transport):
    """A socket's transport whose far end the test controls.

    `room` is how many bytes the far end reads before it stops; None: no limit. The rest is unsent
    until `drain`.
    """

    def __init__(self, room: int | None = None) -> None:
        super().__init__()
        self.room = room
        self.sent = bytearray()
        self.writes = 0
        self.unsent: list[bytes | memoryview] = []
        self.receiving = True
        self.closing = False
        self.aborted = False
        self.resuming = False
        self.protocol: Any = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closing
        self.writes += 1
        took = len(data) if self.room is None else min(self.room, len(data))
        if self.room is not None:
            self.room -= took
        self.sent += data[:took]
        if took < len(data):
            # A view, as in asyncio: its memory must not change until it is sent.
            self.unsent.append(memoryview(data)[took:])
            if len(self.unsent) == 1:
                self.protocol.pause_writing()

    def drain(self, room: int | None = None) -> None:
        """Have the far end read everything, and later `room` bytes more."""
        self.room = room
        if self.unsent:
            for data in self.unsent:
                self.sent += data
            self.unsent = []
            if not self.closing:
                self.resuming = True
                self.protocol.resume_writing()
                self.resuming = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert not high
        assert not low

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        assert not self.resuming  # asyncio's would tell of the connection's end twice
        self.closing = True

    def abort(self) -> None:
        self.closing = self.aborted = True

    def pause_reading(self) -> None:
        assert self.receiving
        self.receiving = False

    def resume_reading(self) -> None:
        assert not self.receiving
        assert not self.closing
        self.receiving = True


class WaitingDisk(MemoryDisk):
    """A disk whose operations wait for `go_on`, in any order."""

    volatile = False

    def __init__(self, size: int, *, read_only: bool = False) -> None:
        super().__init__(size, read_only=read_only)
        self.waiting: list[tuple[str, asyncio.Future[None]]] = []
        self.asked: list[tuple[object, ...]] = []
        self._changed = asyncio.Event()

    def try_read_into(self, offset: int, buffer: memoryview) -> bool:
        del offset, buffer
        return False

    def try_write(self, offset: int, data: bytes | bytearray | memoryview) -> bool:
        del offset, data
        return False

    async def wait(self, name: str, *asked: object) -> None:
        self.asked.append((name, *asked))
        future = asyncio.get_running_loop().create_future()
        self.waiting.append((name, future))
        self._changed.set()
        await future

    async def until_waiting(self, count: int) -> None:
        """Wait until `count` operations wait."""
        while len(self.waiting) < count:
            self._changed.clear()
            await self._changed.wait()

    def go_on(self, index: int = 0, failure: Exception | None = None) -> None:
        """Have a waiting operation succeed, or fail."""
        _, future = self.waiting.pop(index)
        if failure is None:
            future.set_result(None)
        else:
            future.set_exception(failure)

    async def read_into(self, offset: int, buffer: memoryview) -> None:
        await self.wait("read", offset, len(buffer))
        MemoryDisk.try_read_into(self, offset, buffer)

    async def write(
        self, offset: int, data: bytes | bytearray | memoryview, *, fua: bool = False
    ) -> None:
        await self.wait("write", offset, bytes(data[:16]), fua)
        MemoryDisk.try_write(self, offset, data)

    async def flush(self) -> None:
        await self.wait("flush")

    async def trim(self, offset: int, length: int, *, fua: bool = False) -> None:
        await self.wait("trim", offset, length, fua)

    async def write_zeroes(
        self, offset: int, length: int, *, fua: bool = False, no_hole: bool = False
    ) -> None:
        await self.wait("zero", offset, length, fua, no_hole)


class Peer:
    """The client's end of a connection in memory."""

    def __init__(  # noqa: PLR0913  (what a connection depends on)
        self,
        disk: Disk,
        *,
        room: int | None = None,
        read_only: bool = False,
        budget: Budget | None = None,
        structured: bool = False,
        contexts: Collection[str] = (),
        lane: Lane | None = None,
    ) -> None:
        self.lane = lane or Lane()
        self.transport = MemoryTransport(room)
        served = serve("", Export(disk, read_only=read_only), budget or Budget())
        self.connection = Connection(
            self.lane,
            self.transport,
            served,
            structured=structured,
            contexts=frozenset(contexts),
        )
        self.transport.protocol = self.connection
        self.lane.join(self.connection)
        self.connection.begin(b"")
        self.taken = 0
        self.on_its_way = bytearray()

    def send(self, data: bytes) -> None:
        """Deliver what the connection receives now; the rest goes with a later call."""
        self.on_its_way += data
        while self.on_its_way and self.transport.receiving:
            buffer = self.connection.get_buffer(-1)
            size = min(len(buffer), len(self.on_its_way))
            assert size
            buffer[:size] = self.on_its_way[:size]
            del self.on_its_way[:size]
            self.connection.buffer_updated(size)

    def ask(  # noqa: PLR0913, PLR0917  (the fields of a request)
        self,
        command: int,
        cookie: int = 0,
        offset: int = 0,
        length: int = 0,
        payload: bytes = b"",
        flags: int = 0,
    ) -> None:
        self.send(self.request(command, cookie, offset, length, payload, flags))

    @staticmethod
    def request(  # noqa: PLR0913, PLR0917  (the fields of a request)
        command: int,
        cookie: int = 0,
        offset: int = 0,
        length: int = 0,
        payload: bytes = b"",
        flags: int = 0,
    ) -> bytes:
        length = length or len(payload)
        head = request_head(command, flags)
        return struct.pack(">QQQI", head, cookie, offset, length) + payload

    def raw(self) -> bytes:
        """Return the bytes sent since the last call."""
        with memoryview(self.transport.sent) as sent:
            data = bytes(sent[self.taken :])
        self.taken += len(data)
        return data

    def replies(self, reads: dict[int, int] | None = None) -> list[tuple[int, int, bytes]]:
        """Return cookie, error and data of each reply; `reads` has the lengths by cookie."""
        data, at, found = self.raw(), 0, []
        while at < len(data):
            magic, error, cookie = struct.unpack_from(">IIQ", data, at)
            assert magic == SIMPLE_REPLY_MAGIC
            at += 16
            size = 0 if error else (reads or {}).get(cookie, 0)
            assert len(data) >= at + size
            found.append((cookie, error, data[at : at + size]))
            at += size
        return found

    def lose(self) -> None:
        """Lose the connection."""
        self.transport.closing = True
        self.connection.connection_lost(None)


class Client:
    """A client on a socket that sends exactly what the test says, right or wrong."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, uri: str) -> Self:
        parts = urlsplit(uri)
        if parts.scheme == "nbd":
            return cls(*await asyncio.open_connection(parts.hostname, parts.port))
        return cls(*await asyncio.open_unix_connection(parse_qs(parts.query)["socket"][0]))

    @classmethod
    async def ready(cls, uri: str, name: bytes = b"") -> Self:
        """Connect a client and bring it to the transmission phase."""
        client = await cls.connect(uri)
        await client.greeted()
        await client.go(name)
        return client

    async def greeted(self) -> None:
        assert await self.reader.readexactly(18) == b"NBDMAGICIHAVEOPT\0\3"
        self.writer.write(b"\0\0\0\3")

    def option(self, number: int, data: bytes = b"") -> None:
        self.writer.write(struct.pack(">QII", IHAVEOPT, number, len(data)) + data)

    async def go(self, name: bytes = b"") -> None:
        self.option(Option.GO, struct.pack(">I", len(name)) + name + b"\0\0")
        while await self.option_reply() != ReplyType.ACK:
            pass

    async def option_reply(self) -> int:
        head = await self.reader.readexactly(20)
        _, _, kind, length = struct.unpack(">QIII", head)
        await self.reader.readexactly(length)
        assert kind < ReplyType.ERR_UNSUP
        return int(kind)

    def send(
        self,
        command: int,
        cookie: int = 0,
        offset: int = 0,
        length: int = 0,
        payload: bytes = b"",
    ) -> None:
        self.writer.write(Peer.request(command, cookie, offset, length, payload))

    async def reply(self, length: int = 0) -> tuple[int, int, bytes]:
        """Receive a reply; return its cookie, error and data."""
        _, error, cookie = struct.unpack(">IIQ", await self.reader.readexactly(16))
        return cookie, error, b"" if error else await self.reader.readexactly(length)

    async def at_end(self) -> bool:
        """Return whether the server has disconnected and sent nothing more."""
        try:
            return await self.reader.read() == b""
        except ConnectionError:
            return True

    async def vanish(self) -> None:
        """Disconnect without DISC, dropping what is unsent."""
        self.writer.transport.abort()
        await self.close()

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            pass


@pytest.fixture(scope="session")
def in_memory() -> Any:
    """Give tests the classes above; they cannot import this file."""

    class Names:
        peer = Peer
        transport = MemoryTransport
        waiting_disk = WaitingDisk
        client = Client

    return Names


@pytest.fixture(autouse=True)
def still_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have an iteration's time for turns not end early on a busy machine."""
    monkeypatch.setattr(turns, "perf_counter", lambda: 0.0)


@pytest.fixture(scope="session")
def uvloop() -> Any:
    """Import uvloop, None if it is missing. Its first loop opens a pipe that the process keeps."""
    try:
        module = importlib.import_module("uvloop")
    except ImportError:
        return None
    module.run(asyncio.sleep(0))
    return module


@pytest.fixture(params=["homebound", "asyncio", "uvloop"])
def run(request: pytest.FixtureRequest, uvloop: Any) -> Any:
    """Run a coroutine on each kind of loop."""
    if request.param == "uvloop":
        if uvloop is None:
            pytest.skip("uvloop is not installed")
        return uvloop.run
    return {"homebound": homebound, "asyncio": asyncio}[request.param].run
