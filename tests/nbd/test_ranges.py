"""Changes of one range: one after the other, in order, over all connections."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
import time
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

import homebound
from homebound.block import BlockingDisk, MemoryDisk
from homebound.nbd import NBDServer
from homebound.nbd._protocol.wire import Command
from homebound.nbd._server import turns
from homebound.nbd._server.in_flight import WORKERS, InFlight
from homebound.nbd._server.lane import Lane
from homebound.nbd._server.ranges import Claim, Ranges, ranges_of
from homebound.testing import settle

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from homebound.block._disk import Buffer

READ, WRITE, TRIM, ZERO = Command.READ, Command.WRITE, Command.TRIM, Command.WRITE_ZEROES
SIZE = 1 << 20

spans = st.tuples(st.integers(0, 40), st.integers(1, 20))


def set_event(event: threading.Event) -> bool:
    event.set()
    return True


moves = st.lists(st.tuples(spans, st.integers(0, 5)), max_size=40)


@given(moves)
def test_against_a_model(moves: list[tuple[tuple[int, int], int]]):
    """Check that a claim is granted when no earlier overlapping one is left, not before."""
    ranges = Ranges()
    order: list[tuple[int, int, Claim]] = []  # those that are not over
    granted: set[Claim] = set()

    def claim(start: int, length: int) -> None:
        def grant() -> bool:
            granted.add(made)
            return True

        made, at_once = ranges.claim(start, length, grant)
        if at_once:
            granted.add(made)
        order.append((start, start + length, made))

    def check() -> None:
        for n, (start, end, made) in enumerate(order):
            in_the_way = any(s < end and start < e for s, e, _ in order[:n])
            assert (made in granted) is not in_the_way
        assert sorted(c.start for c in ranges.claims) == sorted(start for start, *_ in order)

    for (start, length), release in moves:
        claim(start, length)
        check()
        assert ranges.overlaps(start, 1)
        if release < len(order):
            ranges.release(order.pop(release)[2])
            check()
    while order:
        ranges.release(order.pop()[2])
        check()
    assert not ranges.claims


def test_a_claim_whose_home_has_ended_is_released():
    ranges = Ranges()
    first, _ = ranges.claim(0, 10, lambda: True)
    for _ in range(2000):  # nor does it recurse
        ranges.claim(0, 10, lambda: False)
    last: list[bool] = []
    ranges.claim(0, 10, lambda: not last.append(True))
    ranges.release(first)
    assert last == [True]


def test_threads_never_hold_overlapping_ranges():
    ranges, count = Ranges(), [0] * 8
    problems: list[str] = []

    def work(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(300):
            start = rng.randrange(7)
            length = rng.randrange(1, 9 - start)
            free = threading.Event()
            claim, at_once = ranges.claim(start, length, partial(set_event, free))
            if not at_once:
                free.wait()
            for place in range(start, start + length):
                count[place] += 1
                if count[place] != 1:
                    problems.append(f"{count[place]} at {place}")
            for place in range(start, start + length):
                count[place] -= 1
            ranges.release(claim)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    assert not ranges.claims


def test_all_servers_of_a_disk_share_one():
    with MemoryDisk(512) as disk, MemoryDisk(512) as other:
        assert ranges_of(disk) is ranges_of(disk)
        assert ranges_of(disk) is not ranges_of(other)


def test_a_write_of_a_lost_client_does_not_undo_a_later_one(in_memory: Any):
    async def main() -> None:
        with in_memory.waiting_disk(SIZE) as disk:
            gone, other = in_memory.peer(disk), in_memory.peer(disk)
            gone.ask(WRITE, 1, 0, payload=b"old" * 100)
            await settle()
            gone.lose()
            other.ask(WRITE, 2, 150, payload=b"new" * 100)
            other.ask(WRITE, 3, 4096, payload=b"elsewhere")
            await settle()
            assert [asked[1] for asked in disk.asked] == [0, 4096]
            disk.go_on(1)
            await settle()
            assert other.replies() == [(3, 0, b"")]
            disk.go_on()
            await settle()
            disk.go_on()
            await settle()
            assert other.replies() == [(2, 0, b"")]
            data = bytearray(450)
            MemoryDisk.try_read_into(disk, 0, memoryview(data))
            assert data == b"old" * 50 + b"new" * 100

    homebound.run(main())


def test_an_inline_write_waits_for_it_too(in_memory: Any):
    class Eager(in_memory.waiting_disk):  # type: ignore[misc]
        try_write = MemoryDisk.try_write
        try_read_into = MemoryDisk.try_read_into

    async def main() -> None:
        with Eager(SIZE) as disk:
            gone, other = in_memory.peer(disk), in_memory.peer(disk)
            gone.ask(ZERO, 1, 0, 4096)
            await settle()
            gone.lose()
            other.ask(WRITE, 2, 4096, payload=b"beside it")
            other.ask(WRITE, 3, 4095, payload=b"x")
            other.ask(READ, 4, 4095, 1)
            await settle()
            assert other.replies({4: 1}) == [(2, 0, b""), (4, 0, b"\0")]
            disk.go_on()
            await settle()
            assert disk.waiting[0][0] == "write"
            disk.go_on()
            await settle()
            assert other.replies() == [(3, 0, b"")]
            assert not ranges_of(disk).claims
            other.ask(WRITE, 5, 4095, payload=b"y")
            assert other.replies() == [(5, 0, b"")]

    homebound.run(main())


def test_cancelled_requests_release_their_claims(in_memory: Any):
    """Give up requests that are started, held, and queued."""

    async def main() -> None:
        with in_memory.waiting_disk(SIZE) as disk:
            peer = in_memory.peer(disk)
            peer.send(b"".join(peer.request(TRIM, n, n % 32 * 512, 512) for n in range(64)))
            await settle()
            assert len(ranges_of(disk).claims) == 64
            peer.connection.abort()
            peer.lose()
            await settle()
            assert not ranges_of(disk).claims
            assert not peer.lane.members

    homebound.run(main())


class Gate:
    """Blocking operations whose writes wait for the test."""

    def __init__(self, memory: MemoryDisk) -> None:
        self.memory = memory
        self.gates: list[threading.Event] = []
        self.open = False

    def write(self, offset: int, data: Buffer, *, fua: bool = False) -> None:
        del fua
        if not self.open:
            gate = threading.Event()
            self.gates.append(gate)
            gate.wait(30)
        self.memory.try_write(offset, data)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self.memory.try_read_into(offset, buffer)

    def flush(self) -> None:
        pass

    def trim(self, offset: int, length: int, *, fua: bool = False) -> None:
        pass

    def write_zeroes(
        self, offset: int, length: int, *, fua: bool = False, no_hole: bool = False
    ) -> None:
        pass


class GatedDisk(BlockingDisk):
    read_only = False

    def __init__(self, size: int) -> None:
        self.size = size
        self.memory = MemoryDisk(size)
        self.gate = self.blocking = Gate(self.memory)

    def close(self) -> None:
        self.memory.close()


def test_a_worker_that_goes_on_after_its_server_has_ended_keeps_its_claim(
    in_memory: Any, tmp_path: Path
):
    """A second server of the same disk, in another thread, waits for the first one's write."""

    async def main(pool: Any) -> None:
        with GatedDisk(SIZE) as disk:
            async with NBDServer(disk) as server:
                await server.listen_unix(tmp_path / "first")
                client = await in_memory.client.ready(server.uris[0])
                client.send(WRITE, 1, 0, payload=b"old" * 100)
                while not disk.gate.gates:
                    await asyncio.sleep(0.001)
                await client.vanish()
                await server.stop(grace=0)
            disk.gate.open = True
            async with NBDServer(disk, io_threads=pool) as server:
                await server.listen_unix(tmp_path / "second")
                client = await in_memory.client.ready(server.uris[0])
                client.send(WRITE, 2, 0, payload=b"new" * 100)
                client.send(READ, 3, 0, 3)
                assert await client.reply(3) == (3, 0, bytes(3))
                disk.gate.gates[0].set()
                assert await client.reply() == (2, 0, b"")
                client.send(READ, 4, 0, 300)
                assert await client.reply(300) == (4, 0, b"new" * 100)
                await client.close()

    with homebound.IOThreadPool(1) as pool:
        homebound.run(main(pool))


def test_a_client_whose_requests_hang_leaves_workers_to_other_clients(
    in_memory: Any, tmp_path: Path
):
    async def main() -> None:
        with GatedDisk(SIZE) as disk:
            async with NBDServer(disk) as server:
                await server.listen_unix(tmp_path / "socket")
                stuck = await in_memory.client.ready(server.uris[0])
                for n in range(64):
                    stuck.send(WRITE, n, n * 512, payload=b"stuck")
                while not disk.gate.gates:
                    await asyncio.sleep(0.001)
                other = await in_memory.client.ready(server.uris[0])
                other.send(Command.FLUSH, 1)
                assert await other.reply() == (1, 0, b"")
                disk.gate.open = True
                other.send(WRITE, 2, SIZE - 4, payload=b"data")
                assert await other.reply() == (2, 0, b"")
                assert len(disk.gate.gates) <= 16
                while server.stats().bytes_written < 64 * 5 + 4:
                    for gate in disk.gate.gates:
                        gate.set()
                    await asyncio.sleep(0.001)
                await stuck.close()
                await other.close()

    homebound.run(main())


def test_many_clients_whose_requests_hang_leave_workers_to_the_next(in_memory: Any):
    async def main() -> None:
        with GatedDisk(SIZE) as disk:
            lane = Lane()
            peers = [in_memory.peer(disk, lane=lane) for _ in range(8)]
            for at, peer in enumerate(peers):
                before = lane.started
                for n in range(20):
                    peer.ask(WRITE, n, (at * 20 + n) * 512, payload=b"stuck")
                share = lane.started - before
                assert share == min(16, -(-(WORKERS - before) // 4))
                assert WORKERS - lane.started >= share
            disk.gate.open = True
            while any(peer.connection._in_flight.count for peer in peers):
                for gate in disk.gate.gates:
                    gate.set()
                await asyncio.sleep(0.001)
            assert lane.started == 0
            assert all(len(peer.replies()) == 20 for peer in peers)
            for peer in peers:
                peer.lose()

    homebound.run(main())


def test_replies_that_workers_have_made_meanwhile_are_sent_together(
    in_memory: Any, monkeypatch: pytest.MonkeyPatch
):
    called: list[Any] = []

    def tell(of: InFlight, call: Any) -> None:
        real(of, call)
        called.append(call)

    real = InFlight._called
    monkeypatch.setattr(InFlight, "_called", tell)

    async def main() -> None:
        with GatedDisk(SIZE) as disk:
            peer = in_memory.peer(disk)
            for n in range(16):
                peer.ask(WRITE, n, n * 512, payload=b"data")
            while len(disk.gate.gates) < 16:
                await asyncio.sleep(0.001)
            for gate in disk.gate.gates:
                gate.set()
            while len(called) < 16:
                time.sleep(0.001)  # noqa: ASYNC251  (the home is busy)
            await settle()
            assert peer.transport.writes == 1
            assert len(peer.replies()) == 16
            peer.lose()

    homebound.run(main())


def test_writes_that_wait_for_one_another_begin_in_turns(
    in_memory: Any, monkeypatch: pytest.MonkeyPatch
):
    """All clients' claims are granted at once, and an iteration begins one client's writes."""

    async def main() -> None:
        with in_memory.waiting_disk(SIZE) as disk:
            lane = Lane()
            peers = [in_memory.peer(disk, lane=lane) for _ in range(9)]
            peers[0].ask(WRITE, 0, 0, payload=bytes(8 * 512))
            for n, peer in enumerate(peers[1:]):
                peer.ask(WRITE, 0, n * 512, payload=b"data")
            await settle()
            assert len(disk.asked) == 1
            seconds = itertools.count(step=turns.TURN_SECONDS * 1.5)
            monkeypatch.setattr(turns, "perf_counter", lambda: next(seconds))
            disk.go_on()
            asked = [1]
            while asked[-1] < 9:
                await asyncio.sleep(0)
                asked.append(len(disk.asked))
            assert max(after - before for before, after in pairwise(asked)) == 1
            while disk.waiting:
                disk.go_on()
                await settle()
            for peer in peers:
                assert peer.replies() == [(0, 0, b"")]
                peer.lose()

    homebound.run(main())


def test_a_write_whose_claim_was_just_granted_is_given_up(in_memory: Any):
    async def main() -> None:
        with in_memory.waiting_disk(SIZE) as disk:
            peer, other = in_memory.peer(disk), in_memory.peer(disk)
            peer.ask(WRITE, 0, 0, payload=b"first")
            other.ask(WRITE, 1, 0, payload=b"second")
            await settle()
            disk.go_on()
            while not other.connection._in_flight.waiting:
                await asyncio.sleep(0)
            other.connection.abort()
            assert other.connection._in_flight.count == 0
            await settle()
            assert len(disk.asked) == 1
            assert not ranges_of(disk).claims
            peer.lose()
            other.lose()

    homebound.run(main())


def test_a_lost_connection_keeps_the_writes_of_a_slice_and_their_claims(in_memory: Any):
    class Asked(Gate):
        reads = 0

        def read_into(self, offset: int, buffer: memoryview) -> None:
            self.reads += 1
            super().read_into(offset, buffer)

    async def main() -> None:
        with GatedDisk(SIZE) as disk:
            gate = disk.gate = disk.blocking = Asked(disk.memory)
            peer = in_memory.peer(disk)
            read = peer.request(READ, 20, 0, 1)
            writes = [peer.request(WRITE, n, n * 512, payload=b"kept") for n in range(20)]
            # Slices of a write, which is stuck, and a read behind it: as many as may be at the
            # disk, and four in the queue.
            for at in range(0, 20, 4):
                peer.send(b"".join(write + read for write in writes[at : at + 4]))
            assert peer.connection._in_flight.count == 40
            peer.lose()
            gate.open = True
            while peer.lane.members:
                for each in gate.gates:
                    each.set()
                await asyncio.sleep(0.001)
            assert gate.reads == 0
            assert [await disk.memory.read(n * 512, 4) for n in range(20)] == [b"kept"] * 20

    homebound.run(main())


def test_an_inline_write_does_not_overtake_one_that_came_with_it(in_memory: Any):
    class Unsure(in_memory.waiting_disk):  # type: ignore[misc]
        tried = 0

        def try_write(self, offset: int, data: Buffer) -> bool:
            self.tried += 1
            return self.tried > 1 and MemoryDisk.try_write(self, offset, data)

        try_read_into = MemoryDisk.try_read_into

    async def main() -> None:
        with Unsure(SIZE) as disk:
            peer = in_memory.peer(disk)
            writes = [(1, 100, b"first"), (2, 100, b"second"), (3, 4096, b"beside it")]
            peer.send(b"".join(peer.request(WRITE, n, at, payload=data) for n, at, data in writes))
            await settle()
            assert peer.replies() == [(3, 0, b"")]
            for number in (1, 2):
                disk.go_on()
                await settle()
                assert peer.replies() == [(number, 0, b"")]
            peer.ask(READ, 4, 100, 6)
            assert peer.replies({4: 6}) == [(4, 0, b"second")]

    homebound.run(main())
