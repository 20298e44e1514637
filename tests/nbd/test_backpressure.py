"""Connections whose client is slower than the disk, or the reverse."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

import homebound
from homebound.block import MemoryDisk
from homebound.nbd._protocol.buffers import BUFFER_SIZE
from homebound.nbd._protocol.wire import MAX_PAYLOAD, Command
from homebound.nbd._server.in_flight import MAX_REQUESTS, MAX_STARTED
from homebound.nbd._server.outbox import INLINE_MAX, MAX_UNSENT, SEND_AT
from homebound.testing import settle

READ, WRITE, FLUSH = Command.READ, Command.WRITE, Command.FLUSH
KIB, MIB = 1 << 10, 1 << 20


def numbered(size: int) -> bytes:
    """Make bytes that differ from place to place."""
    return b"".join(n.to_bytes(8, "big") for n in range(size // 8))


DATA = numbered(8 * MIB)


async def filled() -> MemoryDisk:
    disk = MemoryDisk(len(DATA))
    await disk.write(0, DATA)
    return disk


def test_a_client_that_never_reads_is_not_served_forever(in_memory: Any):
    async def main() -> None:
        with await filled() as disk:
            peer = in_memory.peer(disk, room=0)
            for n in range(1000):
                peer.ask(READ, n, n * KIB, 64 * KIB)
            assert MAX_UNSENT <= peer.connection._outbox.unsent <= MAX_UNSENT + 64 * KIB + 16
            assert len(peer.transport.unsent) == 1  # the rest is not the transport's to move about
            assert peer.lane.requests < 30

    homebound.run(main())


def test_when_it_reads_again_nothing_is_missing_or_damaged(in_memory: Any):
    async def main() -> None:
        with await filled() as disk:
            peer = in_memory.peer(disk, room=100)
            for n in range(200):
                peer.ask(READ, n, n * KIB, 64 * KIB)
            room = 5000
            while len(peer.transport.sent) < 200 * (16 + 64 * KIB):
                peer.transport.drain(room)
                room = room * 3 % 100_000
                await asyncio.sleep(0)
            replies = peer.replies(dict.fromkeys(range(200), 64 * KIB))
            assert replies == [(n, 0, DATA[n * KIB : n * KIB + 64 * KIB]) for n in range(200)]
            assert peer.transport.receiving

    homebound.run(main())


def test_replies_packed_meanwhile_do_not_split_one_that_is_half_sent(in_memory: Any):
    """A reply in memory of its own goes in parts; the client stops reading after the first."""

    class Partly(in_memory.waiting_disk):  # type: ignore[misc]
        """Small reads are done at once, the others wait."""

        def try_read_into(self, offset: int, buffer: memoryview) -> bool:
            return len(buffer) <= KIB and MemoryDisk.try_read_into(self, offset, buffer)

    async def main() -> None:
        with Partly(len(DATA)) as disk:
            MemoryDisk.try_write(disk, 0, DATA)
            for room in (0, 100, SEND_AT, SEND_AT + 1, 2 * SEND_AT + 100):
                peer = in_memory.peer(disk, room=room)
                peer.ask(READ, 0, 0, 3 * SEND_AT)
                await disk.until_waiting(1)
                disk.go_on()
                await settle()
                for n in range(1, 9):
                    peer.ask(READ, n, n * KIB, KIB)
                while peer.transport.unsent:
                    peer.transport.drain(SEND_AT // 3)
                    await settle()
                replies = peer.replies({0: 3 * SEND_AT} | dict.fromkeys(range(1, 9), KIB))
                assert sorted(replies) == [(0, 0, DATA[: 3 * SEND_AT])] + [
                    (n, 0, DATA[n * KIB : (n + 1) * KIB]) for n in range(1, 9)
                ]

    homebound.run(main())


def test_receiving_stops_only_when_the_buffer_is_full(in_memory: Any):
    async def main() -> None:
        with await filled() as disk:
            peer = in_memory.peer(disk, room=0)
            for n in range(2):
                peer.ask(READ, n, 0, MIB)
            count = 2
            while peer.transport.receiving:
                peer.ask(WRITE, count, 0, payload=bytes(256 * KIB))
                count += 1
            assert BUFFER_SIZE - MIB < (count - 2) * 256 * KIB <= BUFFER_SIZE
            assert peer.connection._outbox.unsent < 3 * MIB  # and nothing was written meanwhile
            peer.transport.drain()
            await settle()
            assert peer.transport.receiving
            peer.send(b"")
            await settle()
            replies = peer.replies(dict.fromkeys(range(2), MIB))
            assert [reply[0] for reply in replies] == list(range(count))

    homebound.run(main())


def test_a_slow_disk_gets_a_limited_number_of_requests(in_memory: Any):
    async def main() -> None:
        with in_memory.waiting_disk(MIB) as disk:
            peer = in_memory.peer(disk)
            for n in range(MAX_REQUESTS + 10):
                peer.ask(FLUSH, n)
            await settle()
            assert peer.connection._in_flight.count == MAX_REQUESTS
            assert len(disk.waiting) == MAX_STARTED
            disk.go_on()
            await settle()
            assert peer.connection._in_flight.count == MAX_REQUESTS
            assert len(disk.waiting) == MAX_STARTED
            while disk.waiting:
                disk.go_on()
                await settle()
            assert sorted(peer.replies()) == [(n, 0, b"") for n in range(MAX_REQUESTS + 10)]

    homebound.run(main())


def test_the_data_of_slow_requests_is_limited(in_memory: Any):
    async def main() -> None:
        with in_memory.waiting_disk(MAX_PAYLOAD) as disk:
            peer = in_memory.peer(disk)
            peer.send(b"".join(peer.request(READ, n, 0, MAX_PAYLOAD) for n in range(5)))
            await settle()
            assert len(disk.waiting) == 2  # 64 MiB
            while disk.waiting:
                disk.go_on()
                await settle()
            assert len(peer.replies(dict.fromkeys(range(5), MAX_PAYLOAD))) == 5

    homebound.run(main())


def test_late_replies_count_as_unsent(in_memory: Any):
    async def main() -> None:
        with in_memory.waiting_disk(4 * MIB) as disk:
            peer = in_memory.peer(disk, room=0)
            peer.ask(READ, 1, 0, 4 * MIB)
            await settle()
            disk.go_on()
            await settle()
            peer.ask(READ, 2, 0, 4)
            await settle()
            assert not disk.waiting  # it was not even asked
            peer.transport.drain()
            await settle()
            disk.go_on()
            await settle()
            assert [reply[0] for reply in peer.replies({1: 4 * MIB, 2: 4})] == [1, 2]

    homebound.run(main())


def test_a_flooding_client_leaves_turns_to_others(in_memory: Any):
    async def main() -> None:
        with MemoryDisk(MIB) as disk:
            peer = in_memory.peer(disk)
            count = 5000
            peer.send(b"".join(peer.request(READ, n) for n in range(count)))
            turns = [peer.lane.requests]
            while peer.lane.requests < count:
                await asyncio.sleep(0)
                turns.append(peer.lane.requests)
            steps = [after - before for before, after in pairwise([0, *turns])]
            assert max(steps) < 400
            assert [reply[0] for reply in peer.replies()] == list(range(count))

    homebound.run(main())


def test_much_data_is_a_turn_too(in_memory: Any):
    async def main() -> None:
        with await filled() as disk:
            peer = in_memory.peer(disk)
            peer.send(b"".join(peer.request(READ, n, 0, 2 * MIB) for n in range(60)))
            assert 2 * MIB <= peer.lane.bytes_read <= 10 * MIB
            while peer.lane.requests < 60:
                await asyncio.sleep(0)
            assert len(peer.replies(dict.fromkeys(range(60), 2 * MIB))) == 60

    homebound.run(main())


def test_reads_of_every_size(in_memory: Any):
    async def main() -> None:
        with await filled() as disk:
            peer = in_memory.peer(disk)
            sizes = [0, 1, 4095, SEND_AT - 16, SEND_AT, INLINE_MAX, INLINE_MAX + 1, 7 * MIB]
            peer.send(b"".join(peer.request(READ, n, 3, size) for n, size in enumerate(sizes)))
            await settle()
            replies = sorted(peer.replies(dict(enumerate(sizes))))
            assert replies == [(n, 0, DATA[3 : 3 + size]) for n, size in enumerate(sizes)]

    homebound.run(main())


requests = st.lists(
    st.tuples(
        st.sampled_from([READ, READ, WRITE]),
        st.integers(0, 6 * MIB),
        st.sampled_from([0, 1, 100, 4 * KIB, 300 * KIB, MIB, INLINE_MAX]),
    ),
    min_size=1,
    max_size=15,
)
rooms = st.lists(st.integers(0, 3 * MIB), min_size=1, max_size=5)


@given(requests=requests, rooms=rooms)
def test_any_mixture_reads_what_was_written(
    in_memory: Any, requests: list[tuple[int, int, int]], rooms: list[int]
):
    """Compare with a bytearray: requests that are answered at once are answered in order."""

    async def main() -> None:
        model = bytearray(DATA)
        expected = []
        with await filled() as disk:
            peer = in_memory.peer(disk, room=rooms[0])
            reads = {}
            for cookie, (command, offset, size) in enumerate(requests):
                payload = bytes([cookie + 1]) * size if command == WRITE else b""
                if command == WRITE:
                    model[offset : offset + size] = payload
                    expected.append((cookie, 0, b""))
                else:
                    reads[cookie] = size
                    expected.append((cookie, 0, bytes(model[offset : offset + size])))
                wire = peer.request(command, cookie, offset, size, payload)
                peer.send(wire)
            while len(peer.transport.sent) < sum(16 + len(data) for *_, data in expected):
                peer.transport.drain(rooms[len(peer.transport.sent) % len(rooms)])
                peer.send(b"")
                await asyncio.sleep(0)
            assert peer.replies(reads) == expected
            assert await disk.read(0, len(DATA)) == model
            peer.transport.drain()
            await settle()
            assert peer.connection._account.held == 0

    homebound.run(main())
