"""Connections that move to other I/O threads while their clients send requests."""

from __future__ import annotations

import asyncio
import random
import struct
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import ContextClosed, ContextError
from homebound.block import Disk, FileDisk, MemoryDisk
from homebound.nbd import ClientInfo, ExportNameError, NBDServer
from homebound.nbd._protocol.wire import Command
from homebound.nbd._server.connection import Connection

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 1 << 20
READ, WRITE, FLUSH, DISC = Command.READ, Command.WRITE, Command.FLUSH, Command.DISC


def homes(server: NBDServer) -> list[int]:
    """Return the number of clients in each lane."""
    return [len(lane.members) for _, lane in server._lanes]


async def started(tmp_path: Path, exports: Any, io_threads: Any = ()) -> NBDServer:
    server = NBDServer(exports, io_threads=io_threads)
    await server.listen_unix(tmp_path / "socket")
    return server


def test_clients_move_and_later_ones_follow(in_memory: Any, tmp_path: Path):
    async def main() -> None:
        with MemoryDisk(SIZE) as disk, homebound.IOThreadPool(3) as pool:
            first, second, third = pool.threads
            server = await started(tmp_path, {"a": disk, "b": disk}, [first])
            a = await in_memory.client.ready(server.uris[0], b"a")
            b = await in_memory.client.ready(server.uris[0], b"b")
            a.send(WRITE, 1, 0, payload=b"x" * 512)
            assert await a.reply() == (1, 0, b"")
            await server.move("a", [second, third])
            assert homes(server) in ([1, 1, 0], [1, 0, 1])
            for client in (a, b):
                client.send(READ, 2, 0, 512)
                assert await client.reply(512) == (2, 0, b"x" * 512)
            late = await in_memory.client.ready(server.uris[0], b"a")
            while homes(server) != [1, 1, 1]:
                await asyncio.sleep(0.001)
            late.send(READ, 3, 0, 512)
            assert await late.reply(512) == (3, 0, b"x" * 512)
            await server.move("a", first)
            assert homes(server) == [3, 0, 0]
            stats = server.stats()
            assert (stats.clients, stats.connections, stats.requests) == (3, 3, 4)
            for client in (a, b, late):
                client.send(DISC)
                assert await client.at_end()
                await client.close()
            await server.stop()
            assert server.stats().clients == 0
            assert sum(lane.ended for _, lane in server._lanes) == 3

    homebound.run(main())


def test_from_the_loop_that_listens(run: Any, in_memory: Any, tmp_path: Path):
    async def main() -> None:
        with MemoryDisk(SIZE) as disk, homebound.IOThread() as io:
            server = await started(tmp_path, disk)
            client = await in_memory.client.ready(server.uris[0])
            client.send(WRITE, 1, 0, payload=b"x" * 512)
            await server.move("", io)
            assert homes(server) == [0, 1]
            assert await client.reply() == (1, 0, b"")
            client.send(READ, 2, 0, 512)
            assert await client.reply(512) == (2, 0, b"x" * 512)
            await client.close()
            await server.stop()

    run(main())


def test_what_was_found_is_closed_after_a_move(in_memory: Any, tmp_path: Path):
    closed: list[Disk] = []

    class Told(MemoryDisk):
        def close(self) -> None:
            closed.append(self)
            super().close()

    class Shelf:
        async def find(self, name: str, client: ClientInfo) -> Disk:
            del name, client
            return Told(SIZE)

    async def main() -> None:
        with homebound.IOThreadPool(2) as pool:
            server = await started(tmp_path, Shelf(), pool.threads[:1])
            client = await in_memory.client.ready(server.uris[0], b"x")
            await server.move("x", pool.threads[1])
            assert not closed
            client.send(READ, 2, 0, 512)
            assert await client.reply(512) == (2, 0, bytes(512))
            await client.close()
            await server.stop()
        assert len(closed) == 1

    homebound.run(main())


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("when", ["after", "before"])
def test_disconnected_where_it_lives_now(
    in_memory: Any, tmp_path: Path, when: str, *, force: bool
) -> None:
    clients: list[ClientInfo] = []

    class Shelf:
        async def find(self, name: str, client: ClientInfo) -> Disk:
            del name
            clients.append(client)
            return MemoryDisk(SIZE)

    async def main() -> None:
        with homebound.IOThreadPool(2) as pool:
            server = await started(tmp_path, Shelf(), pool.threads[:1])
            client = await in_memory.client.ready(server.uris[0], b"x")
            if when == "before":
                clients[0].disconnect(force=force)
            await server.move("x", pool.threads[1])
            if when == "after":
                clients[0].disconnect(force=force)
            async with asyncio.timeout(20):
                assert await client.at_end()
            await client.close()
            await server.stop()

    homebound.run(main())


def test_a_move_cancelled_as_a_client_arrives(in_memory: Any, tmp_path: Path):
    """The arrival was cancelled too, and the client disconnected."""
    go_on = threading.Event()

    async def main() -> None:
        with MemoryDisk(SIZE) as disk, homebound.IOThreadPool(2) as pool:
            first, second = pool.threads
            server = await started(tmp_path, disk, [first])
            client = await in_memory.client.ready(server.uris[0])
            client.send(READ, 1, 0, 512)
            assert await client.reply(512) == (1, 0, bytes(512))
            second.context.call_soon(go_on.wait, 10)
            moving = asyncio.create_task(server.move("", second))
            while not any("Lane.adopt" in repr(task) for task in server._tasks):
                await asyncio.sleep(0.001)
            moving.cancel()
            await asyncio.wait((moving,))
            assert moving.cancelled()
            go_on.set()
            client.send(READ, 2, 0, 512)
            assert await client.reply(512) == (2, 0, bytes(512))
            assert homes(server) == [0, 1]
            await client.close()
            await server.stop()

    homebound.run(main())


def test_wrong_uses(tmp_path: Path):
    async def main() -> None:
        with MemoryDisk(SIZE) as disk, homebound.IOThread() as io:
            server = await started(tmp_path, {"a": disk})
            with pytest.raises(ExportNameError, match="no export is named 'b'"):
                await server.move("b", io)
            with pytest.raises(ValueError, match="at least one I/O thread"):
                await server.move("a", [])
            await server.stop()

    homebound.run(main())


def test_a_thread_that_cannot_serve(in_memory: Any, tmp_path: Path):
    """Clients were disconnected, and later ones; or the server could not be stopped anymore."""

    async def main() -> None:
        ended = homebound.IOThread("ended").start()
        ended.stop()
        with MemoryDisk(SIZE) as disk, homebound.IOThread() as io:
            server = await started(tmp_path, disk, io)
            client = await in_memory.client.ready(server.uris[0])
            with pytest.raises(ContextClosed, match=r"'ended'.* has stopped"):
                await server.move("", [io, ended])
            with pytest.raises(ContextError, match="no context before start"):
                await server.move("", homebound.IOThread())
            client.send(READ, 1, 0, 512)
            assert await client.reply(512) == (1, 0, bytes(512))
            await client.close()
            await server.stop()
            for wrong in (ended, homebound.IOThread()):
                async with NBDServer(disk, io_threads=wrong) as other:
                    with pytest.raises(ContextError):
                        await other.listen_unix(tmp_path / "other")
                    assert not (tmp_path / "other").exists()

    homebound.run(main())


@pytest.mark.parametrize("size", [512, 8 << 20])
def test_a_write_of_which_a_part_has_come(in_memory: Any, tmp_path: Path, size: int):
    async def main() -> None:
        with MemoryDisk(16 << 20) as disk, homebound.IOThreadPool(2) as pool:
            server = await started(tmp_path, disk, [pool.threads[0]])
            client = await in_memory.client.ready(server.uris[0])
            payload = random.Random(7).randbytes(size)
            message = struct.pack(">QQQI", 0x25609513 << 32 | WRITE, 9, 4096, size) + payload
            at = 0
            for cut, io in ((10, 1), (30, 0), (size // 2, 1), (size + 20, 0), (len(message), 1)):
                client.writer.write(message[at:cut])
                await client.writer.drain()
                at = cut
                await server.move("", pool.threads[io])
            assert await client.reply() == (9, 0, b"")
            assert await disk.read(4096, size) == payload
            await client.close()
            await server.stop()

    homebound.run(main())


async def only_connection(server: NBDServer) -> Connection:
    """Wait until the only client of the first lane is in the transmission phase."""
    while True:
        for member in tuple(server._lanes[0][1].members):
            if isinstance(member, Connection):
                return member
        await asyncio.sleep(0.001)


def test_a_client_that_does_not_read_stays_until_it_does(in_memory: Any, tmp_path: Path):
    async def main() -> None:
        with MemoryDisk(SIZE) as disk, homebound.IOThreadPool(2) as pool:
            server = await started(tmp_path, disk, [pool.threads[0]])
            client = await in_memory.client.ready(server.uris[0])
            for cookie in range(64):
                client.send(READ, cookie, 0, SIZE)
            connection = await only_connection(server)
            while not connection._outbox.paused:
                await asyncio.sleep(0.001)
            given_up = asyncio.create_task(server.move("", pool.threads[1]))
            while connection._depart is None:
                await asyncio.sleep(0.001)
            given_up.cancel()
            await asyncio.gather(given_up, return_exceptions=True)
            assert given_up.cancelled()
            moving = asyncio.create_task(server.move("", pool.threads[1]))
            for cookie in range(64):
                assert (await client.reply(SIZE))[:2] == (cookie, 0)
            await moving
            assert homes(server) == [0, 1]
            await client.close()
            await server.stop()

    homebound.run(main())


def test_clients_that_vanish_while_they_move(in_memory: Any, tmp_path: Path):
    async def main() -> None:
        with MemoryDisk(SIZE) as disk, homebound.IOThreadPool(2) as pool:
            server = await started(tmp_path, disk, [pool.threads[0]])
            for turn in range(30):
                client = await in_memory.client.ready(server.uris[0])
                moving = asyncio.create_task(server.move("", pool.threads[turn % 2]))
                for _ in range(turn % 5):
                    await asyncio.sleep(0)
                await client.vanish()
                await moving
            while server.stats().clients:
                await asyncio.sleep(0.001)
            await server.stop()

    homebound.run(main())


BLOCKS = 16
DEPTH = 64


async def numbered(client: Any, number: int, stopped: asyncio.Event) -> int:
    """Write numbers into blocks of its own, and read them back."""
    model = [bytes(512)] * BLOCKS
    rng = random.Random(number)
    done = 0
    while not stopped.is_set():
        block = rng.randrange(BLOCKS)
        offset = (number * BLOCKS + block) * 512
        if done % 2:
            client.send(READ, done, offset, 512)
            assert await client.reply(512) == (done, 0, model[block])
        else:
            model[block] = struct.pack(">Q", done) * 64
            client.send(WRITE, done, offset, payload=model[block])
            assert await client.reply() == (done, 0, b"")
        done += 1
    return done


async def deep(client: Any, stopped: asyncio.Event) -> int:
    """Have 64 reads in flight of what never changes; their replies may come in any order."""
    done = 0
    while not stopped.is_set():
        for cookie in range(done, done + DEPTH):
            client.send(READ, cookie, SIZE - 512, 512)
        replies = [await client.reply(512) for _ in range(DEPTH)]
        assert sorted(reply[0] for reply in replies) == list(range(done, done + DEPTH))
        assert {reply[1:] for reply in replies} == {(0, bytes(512))}
        done += DEPTH
    return done


async def ordered(client: Any, stopped: asyncio.Event) -> int:
    """Send writes of one block without waiting: the last one must be what is read."""
    done = 0
    offset = SIZE // 2
    while not stopped.is_set():
        for cookie in range(done, done + DEPTH):
            client.send(WRITE, cookie, offset, payload=struct.pack(">Q", cookie) * 64)
        done += DEPTH
        for _ in range(DEPTH):
            assert (await client.reply())[1] == 0
        client.send(READ, done, offset, 512)
        assert await client.reply(512) == (done, 0, struct.pack(">Q", done - 1) * 64)
        done += 1
    return done


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_a_verified_load_while_it_moves(in_memory: Any, tmp_path: Path, kind: str):
    """It moves to and fro 200 times: no request is lost, repeated or reordered."""

    async def main() -> None:
        path = tmp_path / "image"
        path.write_bytes(bytes(SIZE))
        with (
            MemoryDisk(SIZE) if kind == "memory" else FileDisk(path) as disk,
            homebound.IOThreadPool(3) as pool,
        ):
            server = await started(tmp_path, disk, [pool.threads[0]])
            stopped = asyncio.Event()
            ready = [await in_memory.client.ready(server.uris[0]) for _ in range(5)]
            loads = [numbered(client, number, stopped) for number, client in enumerate(ready[:3])]
            work = [*loads, deep(ready[3], stopped), ordered(ready[4], stopped)]
            tasks = [asyncio.create_task(each) for each in work]
            for turn in range(200):
                await server.move("", pool.threads[turn % 3])
            stopped.set()
            done = await asyncio.gather(*tasks)
            assert min(done) > 0
            for client in ready:
                await client.close()
            await server.stop()  # a reply may be sent before it is counted
            assert server.stats().requests == sum(done)

    homebound.run(main())
