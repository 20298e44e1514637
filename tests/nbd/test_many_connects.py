"""Thousands of connections that end in every way with I/O in flight; nothing is left of them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import struct
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound.nbd import NBDServer
from homebound.nbd._protocol.wire import Command
from homebound.nbd._server.connection import Connection
from homebound.nbd._server.greeter import Greeter
from homebound.testing import no_leaks

from .peers import disk_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Leave = Callable[[Any, int, int], Awaitable[None]]

READ, WRITE, FLUSH, DISC = Command.READ, Command.WRITE, Command.FLUSH, Command.DISC
CROWD = 40  # clients at a time
ROUND = 200  # clients between two looks at what is left
BLOCK = 4096
MIB = 1 << 20
OTHER = 16 * MIB  # where clients write that do not look at what they have written
ENOUGH_THREADS = 100  # for the workers of all homes


def ask_much(client: Any, number: int) -> None:
    for cookie in range(8):
        client.send(WRITE, cookie, OTHER + number * BLOCK, payload=bytes(BLOCK))
        client.send(READ, cookie, OTHER, 64 << 10)


async def say_goodbye(client: Any, number: int, turn: int) -> None:
    """Write and read back, all in flight together with another block's."""
    data = struct.pack(">QQ", number, turn) * (BLOCK // 16)
    client.send(WRITE, 1, number * BLOCK, payload=data)
    assert await client.reply() == (1, 0, b"")
    client.send(READ, 2, number * BLOCK, BLOCK)
    assert await client.reply(BLOCK) == (2, 0, data)
    client.send(DISC)
    assert await client.at_end()


async def vanish_in_flight(client: Any, number: int, turn: int) -> None:
    del turn
    ask_much(client, number)
    await client.vanish()


async def vanish_soon(client: Any, number: int, turn: int) -> None:
    """Vanish when some replies have come."""
    ask_much(client, number)
    client.send(READ, 99, 0, 1)
    await client.reader.readexactly(turn % 50 + 1)
    await client.vanish()


async def vanish_in_a_payload(client: Any, number: int, turn: int) -> None:
    size = (1, 100, 300 << 10)[turn % 3]  # the last is more than a client may hold for nothing
    client.send(WRITE, 1, OTHER + number * BLOCK, length=MIB, payload=bytes(size))
    await client.writer.drain()
    await client.vanish()


async def vanish_without_reading(client: Any, number: int, turn: int) -> None:
    del number, turn
    for cookie in range(3):
        client.send(READ, cookie, 0, MIB)
    await asyncio.sleep(0)
    await client.vanish()


async def end_the_stream(client: Any, number: int, turn: int) -> None:
    """Send no more, and read the replies to all that is in flight."""
    del turn
    client.send(FLUSH, 0)
    for cookie in (1, 2, 3):
        client.send(READ, cookie, OTHER + number * BLOCK, BLOCK)
    client.writer.write_eof()
    rest = await client.reader.read()
    assert len(rest) == 4 * 16 + 3 * BLOCK


WAYS: list[Leave] = [
    say_goodbye,
    vanish_in_flight,
    vanish_soon,
    vanish_in_a_payload,
    vanish_without_reading,
    end_the_stream,
]


async def visit(names: Any, uri: str, number: int, turn: int) -> None:
    """Connect and leave; every seventh client leaves in the handshake."""
    client = await names.client.connect(uri)
    with contextlib.closing(client.writer):
        await client.greeted()
        if turn % 7 == 0:
            client.writer.write(b"IHAVEOPT\0\0\0"[: turn % 11])
        else:
            await client.go()
            await WAYS[turn % len(WAYS)](client, number, turn)
    with contextlib.suppress(ConnectionError):
        await client.writer.wait_closed()


async def crowd(names: Any, uri: str, turns: range) -> None:
    left = iter(turns)

    async def visits(number: int) -> None:
        for turn in left:
            await visit(names, uri, number, turn)

    async with asyncio.TaskGroup() as group:
        for number in range(CROWD):
            group.create_task(visits(number))


async def count_tasks() -> int:
    return len(asyncio.all_tasks())


def left_objects() -> int:
    gc.collect()
    return sum(isinstance(each, Connection | Greeter) for each in gc.get_objects())


def resident() -> int:
    """Return the bytes of memory that the process has."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) << 10


async def what_is_left(server: NBDServer, pool: homebound.IOThreadPool) -> list[int]:
    """Wait until no client is left; return the numbers of sockets and of tasks."""
    async with asyncio.timeout(20):
        while server.stats().clients:
            await asyncio.sleep(0.001)
    (served,) = server._served.values()
    assert served.budget.used == 0
    assert threading.active_count() < ENOUGH_THREADS
    # Each home closes a client's socket after it has noted that it is gone, in the same callback.
    tasks = [await io.spawn(count_tasks()) for io in pool.threads]
    sockets = [name for name in no_leaks.open_files().values() if name.startswith("socket:")]
    return [len(sockets), len(asyncio.all_tasks()), *tasks]


@pytest.mark.parametrize("kind", ["memory", "file"])
@pytest.mark.parametrize(
    "clients",
    [400, pytest.param(10_000, marks=[pytest.mark.exhaustive, pytest.mark.timeout(300)])],
)
def test_nothing_is_left(in_memory: Any, tmp_path: Path, kind: str, clients: int):
    async def main() -> None:
        before = left_objects()
        with disk_of(kind) as disk, homebound.IOThreadPool(2) as pool:
            async with NBDServer(disk, io_threads=pool, max_connections=1000) as server:
                await server.listen_unix(tmp_path / "socket")
                uri = server.uris[0]
                await visit(in_memory, uri, 0, 1)
                first = await what_is_left(server, pool)
                used = []
                for start in range(0, clients, ROUND):
                    await crowd(in_memory, uri, range(start, start + ROUND))
                    assert await what_is_left(server, pool) == first
                    used.append(resident())
                assert server.stats().connections == clients + 1
                assert left_objects() <= before
                # Half of the clients more, and no more memory: 2 KiB each would be noticed.
                assert used[-1] - used[len(used) // 2] < max(8 * MIB, clients << 10)

    homebound.run(main())
