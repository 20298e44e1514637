"""The work of one client, or one long operation, in an iteration of the loop, counted."""

from __future__ import annotations

import asyncio
import itertools
import struct
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound.block import MemoryDisk, _pace
from homebound.block._pace import PIECE, SLICE_BYTES
from homebound.nbd import Export, ExportTable, NBDServer
from homebound.nbd._protocol.wire import IHAVEOPT, Command, Option, ReplyType, request_head
from homebound.nbd._server import connection, turns
from homebound.nbd._server.budget import Budget
from homebound.nbd._server.connection import LITTLE
from homebound.nbd._server.dispatcher import BATCH, TURN, WAITS
from homebound.nbd._server.greeter import MAX_ANSWERS, Greeter
from homebound.nbd._server.lane import Lane
from homebound.nbd._server.outbox import SEND_AT, SEND_MAX
from homebound.nbd._server.served import serve
from homebound.nbd._server.visits import FixedVisit
from homebound.testing import settle

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from homebound.block import Extent

MIB = 1 << 20
READ, WRITE, DISC = Command.READ, Command.WRITE, Command.DISC


async def steps_of(count: Callable[[], int], until: int) -> list[int]:
    """Return by how much `count` grows in each iteration, until it is `until`."""
    counts = [count()]
    while counts[-1] < until:
        await asyncio.sleep(0)
        counts.append(count())
    return [after - before for before, after in pairwise(counts)]


CHEAP = {
    "reads of nothing": request_head(Command.READ),
    "unknown commands": request_head(99),
    "unknown flags": request_head(Command.READ, 1 << 15),
    "flushes": request_head(Command.FLUSH),
    "trims of nothing": request_head(Command.TRIM),
}


@pytest.mark.parametrize("kind", CHEAP)
def test_a_flood_gets_one_turn_an_iteration_however_it_is_split(in_memory: Any, kind: str):
    async def main() -> None:
        with MemoryDisk(MIB) as disk:
            peer = in_memory.peer(disk)
            request = struct.pack(">QQQI", CHEAP[kind], 1, 0, 0)
            for _ in range(20):  # it comes in pieces, faster than turns
                peer.send(request * 600)
            assert peer.lane.requests < TURN + BATCH
            steps = await steps_of(lambda: peer.lane.requests, 20 * 600)
            assert max(steps) < TURN + BATCH
            await settle()
            assert len(peer.replies()) == 20 * 600

    homebound.run(main())


@pytest.fixture
def slow_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each turn from a home's queue take all the time that an iteration has for them."""
    seconds = itertools.count(step=turns.TURN_SECONDS * 1.5)
    monkeypatch.setattr(turns, "perf_counter", lambda: next(seconds))


@pytest.mark.usefixtures("slow_turns")
@pytest.mark.parametrize("kind", CHEAP)
def test_the_floods_of_many_share_a_turn_an_iteration(in_memory: Any, kind: str):
    """Sixteen that flood a home hold its other connections up no longer than one does."""

    async def main() -> None:
        with MemoryDisk(MIB) as disk:
            lane = Lane()
            peers = [in_memory.peer(disk, lane=lane) for _ in range(16)]
            request = struct.pack(">QQQI", CHEAP[kind], 1, 0, 0)
            for peer in peers:
                peer.send(request * 600)
            steps = await steps_of(lambda: lane.requests, 16 * 600)
            assert max(steps) < TURN + BATCH
            await settle()
            assert [len(peer.replies()) for peer in peers] == [600] * 16

    homebound.run(main())


@pytest.mark.usefixtures("slow_turns")
def test_of_many_that_have_sent_more_than_a_little_one_is_served_at_once(in_memory: Any):
    """The others would have the loop serve all of them before it looks for other events."""

    async def main() -> None:
        with MemoryDisk(MIB) as disk:
            lane = Lane()
            peers = [in_memory.peer(disk, lane=lane) for _ in range(16)]
            for peer in peers:
                peer.send(peer.request(WRITE, 1, 0, payload=bytes(LITTLE)) * 2)
            served = [lane.requests]
            steps = await steps_of(lambda: lane.requests, 16 * 2)
            assert served == [2]
            assert max(steps) == 2
            peers[0].send(peers[0].request(WRITE, 1, 0, payload=bytes(LITTLE)))
            assert lane.requests == 33
            peers[1].send(peers[1].request(WRITE, 1, 0, payload=bytes(LITTLE)))
            assert lane.requests == 33  # it waits for a turn
            peers[2].send(peers[2].request(READ) * 18)
            assert lane.requests == 33 + 18
            for peer in peers:
                peer.lose()

    homebound.run(main())


def test_requests_that_wait_make_shorter_turns_while_others_wait(
    in_memory: Any, monkeypatch: pytest.MonkeyPatch
):
    async def main() -> None:
        with in_memory.waiting_disk(MIB) as disk:
            seconds = itertools.count(step=turns.TURN_SECONDS * 1.5)  # each turn has one batch
            monkeypatch.setattr(connection, "perf_counter", lambda: next(seconds))
            peer = in_memory.peer(disk)
            ask = partial(peer.lane.turns.ask, asyncio.get_running_loop())
            ask(partial(ask, int))  # one before the peer's turn, and one behind it
            peer.send(peer.request(WRITE, 1, 0, payload=bytes(16)) * 48)
            await asyncio.sleep(0)
            assert peer.lane.requests == BATCH // WAITS
            while peer.connection._in_flight.count or peer.lane.requests < 48:
                if disk.waiting:
                    disk.go_on()
                await settle()
            await settle()
            peer.send(peer.request(WRITE, 1, 0, payload=bytes(16)) * 48)
            assert peer.lane.requests == 2 * 48
            while peer.connection._in_flight.count:
                if disk.waiting:
                    disk.go_on()
                await settle()
            peer.lose()

    homebound.run(main())


@pytest.mark.usefixtures("slow_turns")
def test_turns_are_taken_in_order_and_one_that_fails_ends_no_other():
    async def main() -> None:
        loop, queue = asyncio.get_running_loop(), turns.Turns()
        failures: list[Any] = []
        loop.set_exception_handler(lambda _, context: failures.append(context["exception"]))
        taken: list[str] = []

        def again(name: str) -> None:
            taken.append(name)
            if len(taken) < 6:
                queue.ask(loop, partial(again, name))

        def fail() -> None:
            taken.append("fails")
            raise ZeroDivisionError

        assert queue.seconds() == turns.TURN_SECONDS
        for turn in (partial(again, "one"), fail, partial(again, "two")):
            queue.ask(loop, turn)
        assert queue.seconds() == turns.TURN_SECONDS / 4
        steps = await steps_of(lambda: len(taken), 7)
        assert taken == ["one", "fails", "two", "one", "two", "one", "two"]
        assert max(steps) == 1
        assert [type(failure) for failure in failures] == [ZeroDivisionError]

    homebound.run(main())


def test_replies_of_the_disk_do_not_bring_turns_of_their_own(in_memory: Any):
    """Alternate a request that waits with many that do not."""

    class Mixed(in_memory.waiting_disk):  # type: ignore[misc]
        try_read_into = MemoryDisk.try_read_into

    async def main() -> None:
        with Mixed(MIB) as disk:
            peer = in_memory.peer(disk)
            flood = peer.request(Command.FLUSH) + peer.request(READ) * 400
            peer.send(flood * 80)
            while len(disk.waiting) < 16:
                await asyncio.sleep(0)
            before = peer.lane.requests
            for _ in range(16):
                disk.go_on()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert peer.lane.requests - before <= 2 * (TURN + BATCH)
            while disk.waiting or peer.lane.requests < 80 * 401:
                while disk.waiting:
                    disk.go_on()
                await asyncio.sleep(0)

    homebound.run(main())


@pytest.mark.parametrize("option", [Option.LIST, Option.INFO, 99])
def test_the_handshake_has_turns_too(in_memory: Any, option: int):
    async def main() -> None:
        with MemoryDisk(MIB) as disk:
            lane, transport = Lane(), in_memory.transport()
            served = serve("", Export(disk), Budget())
            visit = FixedVisit(ExportTable([served.info]), {"": served})
            greeter = Greeter(lane, lambda _: visit, 1e6)
            transport.protocol = greeter
            greeter.connection_made(transport)
            data = b"\0\0\0\0\0\0" if option == Option.INFO else b""
            flood = struct.pack(">QII", IHAVEOPT, option, len(data)) + data
            last = ReplyType.ERR_UNSUP if option == 99 else ReplyType.ACK
            answer = struct.pack(">II", option, last)
            greeter.data_received(b"\0\0\0\3" + flood * 1000)
            assert not transport.receiving
            steps = await steps_of(lambda: transport.sent.count(answer), 1000)
            assert max(steps) <= MAX_ANSWERS
            await settle()
            assert transport.receiving
            greeter.connection_lost(None)

    homebound.run(main())


class Counting(MemoryDisk):
    """A disk that counts the bytes copied into it and out of it."""

    bytes_done = 0

    def try_read_into(self, offset: int, buffer: memoryview) -> bool:
        self.bytes_done += len(buffer)
        return super().try_read_into(offset, buffer)

    def try_write(self, offset: int, data: bytes | bytearray | memoryview) -> bool:
        self.bytes_done += len(data)
        return super().try_write(offset, data)


def test_long_operations_in_memory_share_one_slice_an_iteration():
    async def main() -> None:
        with Counting(64 * MIB) as disk:
            size = 8 * MIB
            tasks = [
                asyncio.create_task(operation)
                for operation in (
                    disk.write_zeroes(0, size, no_hole=True),
                    disk.write_zeroes(size, size, no_hole=True),
                    disk.read_into(2 * size, memoryview(bytearray(size))),
                    disk.write(3 * size, bytes(size)),
                )
            ]
            steps = await steps_of(lambda: disk.bytes_done, 4 * size)
            assert max(steps) <= SLICE_BYTES + PIECE
            await asyncio.gather(*tasks)

    homebound.run(main())


def test_looks_at_pages_share_the_slice_too(monkeypatch: pytest.MonkeyPatch):
    """A look is quick or slow by what is in the pages: a client may have them compared."""
    seconds = itertools.count(step=_pace.SLICE_SECONDS * 1.5)
    monkeypatch.setattr(_pace, "perf_counter", lambda: next(seconds))

    class Looked(MemoryDisk):
        bytes_done = 0

        def _look(self, offset: int, length: int) -> list[Extent]:
            self.bytes_done += length
            return super()._look(offset, length)

    async def main() -> None:
        with Looked(64 * MIB) as disk:
            disk.try_write(MIB, b"data")
            looks = [asyncio.create_task(disk.block_status(0, 4 * MIB)) for _ in range(2)]
            steps = await steps_of(lambda: disk.bytes_done, 2 * 4 * MIB)
            assert max(steps) == PIECE
            for found in await asyncio.gather(*looks):
                assert [each.hole for each in found] == [True, False, True]

    homebound.run(main())


def test_an_operation_that_came_later_gets_its_slice_in_turn():
    async def main() -> None:
        with Counting(64 * MIB) as disk:
            order: list[str] = []

            async def clear(name: str, offset: int, size: int) -> None:
                await disk.write_zeroes(offset, size, no_hole=True)
                order.append(name)

            async with asyncio.TaskGroup() as group:
                group.create_task(clear("long", 0, 60 * MIB))
                group.create_task(clear("short", 60 * MIB, 4096))
            assert order == ["short", "long"]

    homebound.run(main())


def test_a_cancelled_operation_leaves_its_turn_to_the_next():
    async def main() -> None:
        with Counting(32 * MIB) as disk:
            zero = [
                asyncio.create_task(disk.write_zeroes(n * 9 * MIB, 9 * MIB, no_hole=True))
                for n in range(3)
            ]
            await asyncio.sleep(0)
            zero[1].cancel()
            await asyncio.wait(zero)
            assert [task.cancelled() for task in zero] == [False, True, False]

    homebound.run(main())


def test_a_large_reply_is_sent_over_several_iterations(in_memory: Any):
    async def main() -> None:
        with MemoryDisk(32 * MIB) as disk:
            peer = in_memory.peer(disk)
            for n in range(2):
                peer.ask(READ, n, 0, 32 * MIB)
            steps = await steps_of(lambda: len(peer.transport.sent), 2 * (16 + 32 * MIB))
            assert max(steps) <= 2 * (SEND_MAX + SEND_AT)
            replies = peer.replies({0: 32 * MIB, 1: 32 * MIB})
            assert sorted(cookie for cookie, *_ in replies) == [0, 1]

    homebound.run(main())


@pytest.mark.parametrize("threads", [0, 2])
def test_a_connection_beyond_max_connections_is_closed(
    in_memory: Any, tmp_path: Path, threads: int
):
    async def main(io_threads: Any) -> None:
        with MemoryDisk(MIB) as disk:
            async with NBDServer(disk, io_threads=io_threads, max_connections=3) as server:
                await server.listen_unix(tmp_path / "socket")
                connect, uri = in_memory.client, server.uris[0]
                clients = [await connect.ready(uri) for _ in range(2)]
                clients.append(await connect.connect(uri))  # one in its handshake counts
                await clients[2].greeted()
                refused = await connect.connect(uri)
                assert await refused.at_end()
                await refused.close()
                assert server.stats().clients == 3
                for client in clients:
                    client.writer.close()
                while server.stats().clients:
                    await asyncio.sleep(0.001)
                clients += [await connect.ready(uri) for _ in range(3)]
                for client in clients:
                    await client.close()

    if threads:
        with homebound.IOThreadPool(threads) as pool:
            homebound.run(main(pool))
    else:
        homebound.run(main(()))


def test_an_unreading_client_that_disconnects_is_closed_once(run: Any, in_memory: Any):
    """Check that the transport is not closed while it calls resume_writing."""

    async def main() -> None:
        reported: list[Any] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reported.append(context))
        with MemoryDisk(8 * MIB) as disk:
            async with NBDServer(disk) as server:
                await server.listen_tcp(port=0)
                for end in (b"garbage!" * 4, in_memory.peer.request(DISC), b""):
                    client = await in_memory.client.ready(server.uris[0])
                    client.writer.transport.pause_reading()
                    for n in range(12):
                        client.send(READ, n, 0, MIB)
                    client.writer.write(end)
                    if not end:
                        client.writer.write_eof()
                    await settle()
                    client.writer.transport.resume_reading()
                    for n in range(12):
                        assert (await client.reply(MIB))[0] == n
                    assert await client.at_end()
                    await client.close()
        assert not reported

    run(main())
