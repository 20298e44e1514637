"""Clients that hang, lie, flood and vanish: none stops the server or leaks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import struct
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound.block import MemoryDisk
from homebound.nbd import NBDServer
from homebound.nbd._protocol.wire import IHAVEOPT, MAX_PAYLOAD, Command, Option, request_head
from homebound.testing import settle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


SIZE = 8 << 20
READ, WRITE, DISC = Command.READ, Command.WRITE, Command.DISC
GO = struct.pack(">QIIIH", IHAVEOPT, Option.GO, 6, 0, 0)
READY = b"\0\0\0\3" + GO


def request(command: int, length: int, payload: bytes = b"") -> bytes:
    return struct.pack(">QQQI", request_head(command), 1, 0, length) + payload


RUDE = {
    "says nothing": b"",
    "half its flags": b"\0\0",
    "flags not offered": b"\xff\xff\xff\xff",
    "speaks HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 10,
    "half an option": READY[:15],
    "an option without its data": READY[:20] + b"\0",
    "an absurd option": b"\0\0\0\3" + struct.pack(">QII", IHAVEOPT, 99, 0xFFFFFFFF),
    "an unknown export": b"\0\0\0\3" + struct.pack(">QII4s", IHAVEOPT, 1, 4, b"none"),
    "garbage for requests": READY + bytes(range(256)) * 100,
    "half a request": READY + request(READ, 512)[:11],
    "half a payload": READY + request(WRITE, 1 << 20, bytes(70_000)),
    "a payload it never sends": READY + request(WRITE, MAX_PAYLOAD),
    "an endless payload": READY + request(WRITE, 0xFFFFFFFF, bytes(1 << 20)),
    "an endless read": READY + request(READ, 0xFFFFFFFF),
    "reads and never looks": READY + request(READ, 1 << 20) * 100,
    "floods": READY + request(READ, 1) * 20_000,
    "talks after the end": READY + request(DISC, 0) + request(READ, 512) * 100,
    "lists and never looks": b"\0\0\0\3" + struct.pack(">QII", IHAVEOPT, Option.LIST, 0) * 20_000,
}


@contextlib.asynccontextmanager
async def serving(tmp_path: Path, io_threads: Any = (), **options: Any) -> AsyncIterator[NBDServer]:
    exports = {"": MemoryDisk(SIZE), **{f"disk {n}": MemoryDisk(SIZE) for n in range(20)}}
    with contextlib.ExitStack() as stack:
        for disk in exports.values():
            stack.enter_context(disk)
        async with NBDServer(exports, io_threads=io_threads, **options) as server:
            await server.listen_unix(tmp_path / "socket")
            yield server


async def send(client: Any, data: bytes) -> None:
    """Send what the server receives; it may disconnect, or stop reading, at any time."""
    client.writer.write(data)
    with contextlib.suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(0.02):
            await client.writer.drain()


async def until_no_clients(server: NBDServer) -> None:
    async with asyncio.timeout(10):
        while server.stats().clients:
            await asyncio.sleep(0.001)


@pytest.mark.usefixtures("virtual_clock")
@pytest.mark.parametrize("threads", [0, 1])
def test_a_hundred_rude_clients_and_a_good_one(in_memory: Any, tmp_path: Path, threads: int):
    async def main(io_threads: Any) -> None:
        async with serving(tmp_path, io_threads) as server:
            uri = server.uris[0]
            good = await in_memory.client.ready(uri)
            crowd = []
            for n in range(108):
                client = await in_memory.client.connect(uri)
                crowd.append(client)
                await send(client, list(RUDE.values())[n % len(RUDE)])
                if n % 10 == 0:
                    await crowd.pop(0).vanish()
                good.send(WRITE, n, n * 512, payload=bytes([n]) * 512)
                assert await good.reply() == (n, 0, b"")
                good.send(READ, n, n * 512, 512)
                assert await good.reply(512) == (n, 0, bytes([n]) * 512)
            for client in crowd:
                await client.vanish()
            await good.close()
            await until_no_clients(server)

    if threads:
        with homebound.IOThreadPool(threads) as pool:
            homebound.run(main(pool))
    else:
        homebound.run(main(()))


@pytest.mark.parametrize("rude", RUDE)
def test_each_rude_client_vanishing(in_memory: Any, tmp_path: Path, rude: str):
    async def main() -> None:
        async with serving(tmp_path) as server:
            for part in (1.0, 0.7, 0.3):
                client = await in_memory.client.connect(server.uris[0])
                data = RUDE[rude]
                await send(client, data[: int(len(data) * part)])
                await client.vanish()
            await until_no_clients(server)

    homebound.run(main())


@pytest.mark.usefixtures("virtual_clock")  # no client is late because the machine is slow
@pytest.mark.parametrize(
    "rude",
    [
        "says nothing",
        "half its flags",
        "half an option",
        "an option without its data",
        "lists and never looks",
    ],
)
def test_a_handshake_has_a_time_limit(in_memory: Any, tmp_path: Path, rude: str):
    async def main() -> None:
        async with serving(tmp_path) as server:
            ready = await in_memory.client.ready(server.uris[0])
            client = await in_memory.client.connect(server.uris[0])
            client.reader._limit = 1  # it takes nothing from the socket
            await send(client, RUDE[rude])
            async with asyncio.timeout(20):
                while server.stats().clients > 1:
                    await asyncio.sleep(0.1)
            ready.send(READ, 1, 0, 1)  # the limit ends with the choice of an export
            assert await ready.reply(1) == (1, 0, b"\0")
            await client.close()
            await ready.close()

    homebound.run(main())


def test_a_client_that_does_not_read_gets_few_answers(in_memory: Any, tmp_path: Path):
    async def main() -> None:
        async with serving(tmp_path) as server:
            client = await in_memory.client.connect(server.uris[0])
            client.reader._limit = 1
            await send(client, RUDE["lists and never looks"])
            await settle()  # the server has heard all that it takes
            (greeter,) = server._lanes[0][1].members
            asked: Any = greeter
            assert asked._transport.get_write_buffer_size() < 1 << 20
            assert len(asked._handshake._inbox) < 1 << 20
            await client.vanish()

    homebound.run(main())


def test_one_byte_at_a_time(in_memory: Any, tmp_path: Path):
    async def main() -> None:
        async with serving(tmp_path) as server:
            client = await in_memory.client.connect(server.uris[0])
            await client.reader.readexactly(18)
            payload = bytes(range(100))
            for byte in READY:
                client.writer.write(bytes([byte]))
                await settle()
            while await client.option_reply() != 1:
                pass
            for byte in request(WRITE, 100, payload) + request(READ, 100):
                client.writer.write(bytes([byte]))
                await settle()
            assert await client.reply() == (1, 0, b"")
            assert await client.reply(100) == (1, 0, payload)
            await client.close()

    homebound.run(main())


def test_out_of_descriptors(in_memory: Any, tmp_path: Path):
    """The server neither stops nor spins; it accepts again when descriptors are free."""

    async def main() -> None:
        async with serving(tmp_path) as server:
            first = await in_memory.client.ready(server.uris[0])
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            taken = []
            lowest = os.dup(0)  # the lowest free one
            os.close(lowest)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 8, hard))
            try:
                with contextlib.suppress(OSError):
                    while True:
                        taken.append(os.dup(0))
                os.close(taken.pop())
                waiting = await in_memory.client.connect(server.uris[0])
                await settle()
                first.send(READ, 1, 0, 1)
                assert await first.reply(1) == (1, 0, b"\0")
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                for fd in taken:
                    os.close(fd)
            await waiting.greeted()
            await waiting.go()
            await waiting.close()
            await first.close()

    homebound.run(main())
