"""The budget for the data of all clients: over it large requests wait, small ones do not."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import homebound
from homebound.block import MemoryDisk
from homebound.nbd import NBDServer
from homebound.nbd._protocol.requests import ALLOWANCE
from homebound.nbd._protocol.wire import MAX_PAYLOAD, Command
from homebound.nbd._server.budget import Account, Ask, Budget
from homebound.testing import settle

if TYPE_CHECKING:
    from pathlib import Path

READ, WRITE = Command.READ, Command.WRITE
MIB = 1 << 20


class TestBudget:
    def test_waiting_requests_are_granted_in_order(self):
        granted: list[Ask] = []
        budget = Budget(10)

        def grant(ask: Ask) -> bool:
            granted.append(ask)
            return True

        assert budget.take(8, grant) is None
        assert not budget.tight
        large, small = budget.take(10, grant), budget.take(1, grant)  # it does not overtake
        assert budget.tight
        budget.give_back(8)
        assert granted == [large]
        budget.give_back(10)
        assert granted == [large, small]
        assert budget.used == 1
        assert not budget.tight

    def test_the_part_of_an_ended_home_goes_to_the_next(self):
        granted: list[Ask] = []
        budget = Budget(10)
        budget.force(12)
        for _ in range(1000):
            budget.take(10, lambda _: False)
        last = budget.take(10, lambda ask: not granted.append(ask))
        budget.give_back(12)
        assert granted == [last]
        assert budget.used == 10

    def test_a_withdrawn_request_does_not_block_the_next(self):
        granted: list[Ask] = []
        budget = Budget(10)

        def grant(ask: Ask) -> bool:
            granted.append(ask)
            return True

        budget.force(5)
        large, small = budget.take(10, grant), budget.take(5, grant)
        assert large is not None
        budget.withdraw(large)
        assert granted == [small]
        budget.withdraw(granted[0])  # too late: nothing happens
        assert budget.used == 10


takes = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from([1, ALLOWANCE, MIB, 5 * MIB])), max_size=60
)


@given(takes)
def test_accounts_against_a_model(takes: list[tuple[int, int]]):
    """Each step takes, or gives back the account's oldest part if that step's size is odd."""

    async def main() -> None:
        budget, loop = Budget(8 * MIB), asyncio.get_running_loop()
        accounts = [Account(budget, loop, lambda: None) for _ in range(4)]
        held: list[list[int]] = [[] for _ in accounts]
        for who, size in takes:
            if accounts[who].take(size):
                held[who].append(size)
            elif held[who]:
                accounts[who].give_back(held[who].pop(0))
                await asyncio.sleep(0)
            assert [account.held for account in accounts] == [sum(parts) for parts in held]
            over = sum(max(0, account.held - ALLOWANCE) for account in accounts)
            assert over <= budget.used <= budget.limit
        for account, parts in zip(accounts, held, strict=True):
            account.close()
            account.give_back(sum(parts))
        await settle()
        assert budget.used == 0

    homebound.run(main())


def test_threads_share_a_budget():
    budget, problems = Budget(4 * MIB), []

    async def use(seed: int) -> None:
        again = asyncio.Event()
        account = Account(budget, asyncio.get_running_loop(), again.set)
        for n in range(200):
            size = (seed * 7 + n * 13) % 4 * MIB + 1
            while not account.take(size):
                await again.wait()
                again.clear()
            if budget.used > budget.limit:
                problems.append(budget.used)
            await asyncio.sleep(0)
            account.give_back(size)
        account.close()

    threads = [threading.Thread(target=asyncio.run, args=(use(seed),)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    assert budget.used == 0


def test_a_large_read_waits_for_an_unread_one_and_a_small_one_does_not(in_memory: Any):
    async def main() -> None:
        with MemoryDisk(MAX_PAYLOAD) as disk:
            budget = Budget(MAX_PAYLOAD)
            deaf = in_memory.peer(disk, room=0, budget=budget)
            other = in_memory.peer(disk, budget=budget)
            deaf.ask(READ, 1, 0, MAX_PAYLOAD)
            await settle()
            other.ask(READ, 2, 0, MAX_PAYLOAD)
            await settle()
            assert other.replies() == []
            third = in_memory.peer(disk, budget=budget)
            third.ask(READ, 3, 0, 128 << 10)
            third.ask(WRITE, 4, 0, payload=b"small")
            assert third.replies({3: 128 << 10}) == [(3, 0, bytes(128 << 10)), (4, 0, b"")]
            deaf.transport.drain()
            await settle()
            assert [reply[0] for reply in other.replies({2: MAX_PAYLOAD})] == [2]
            for peer in (deaf, other, third):
                peer.lose()
            assert budget.used == 0

    homebound.run(main())


def test_a_large_payload_is_received_when_there_is_room_for_it(in_memory: Any):
    async def main() -> None:
        with MemoryDisk(MAX_PAYLOAD) as disk:
            budget = Budget(MAX_PAYLOAD)
            deaf = in_memory.peer(disk, room=0, budget=budget)
            deaf.ask(READ, 1, 0, MAX_PAYLOAD)
            await settle()
            peers = []
            for n, size in enumerate([MAX_PAYLOAD, 5 * MIB, MIB]):
                peer = in_memory.peer(disk, budget=budget)
                wire = peer.request(WRITE, n, 0, payload=bytes([n + 1]) * size)
                peer.send(wire[:1000])  # as they come, a request is not there all at once
                peer.send(wire[1000:])
                assert not peer.transport.receiving
                peers.append(peer)
            deaf.lose()
            for peer in peers:
                while not peer.transport.receiving:
                    await asyncio.sleep(0)
                peer.send(b"")
                await settle()
            assert [peer.replies() for peer in peers] == [[(n, 0, b"")] for n in range(3)]
            assert await disk.read(MAX_PAYLOAD - 1, 1) == b"\1"
            assert await disk.read(2 * MIB, 1) == b"\2"
            assert await disk.read(0, 1) == b"\3"
            assert budget.used == 0

    homebound.run(main())


@pytest.mark.parametrize("stopped", [False, True])
def test_a_connection_lost_while_waiting_frees_its_part(in_memory: Any, *, stopped: bool):
    async def main() -> None:
        with in_memory.waiting_disk(MAX_PAYLOAD) as disk:
            budget = Budget(MAX_PAYLOAD)
            first, second, third = (in_memory.peer(disk, budget=budget) for _ in range(3))
            first.ask(WRITE, 1, 0, payload=bytes(MAX_PAYLOAD))
            second.ask(READ, 2, 0, MAX_PAYLOAD)
            third.ask(READ, 3, 0, MAX_PAYLOAD)
            await settle()
            assert len(disk.asked) == 1
            if stopped:
                second.connection.stop()
            second.lose()
            disk.go_on()
            await settle()
            assert [asked[0] for asked in disk.asked] == ["write", "read"]
            third.lose()
            disk.go_on()
            await settle()
            assert budget.used == 0
            assert first.replies() == [(1, 0, b"")]

    homebound.run(main())


def test_many_small_requests_at_the_disk_count_together(in_memory: Any):
    async def main() -> None:
        with in_memory.waiting_disk(MAX_PAYLOAD) as disk:
            budget = Budget(MAX_PAYLOAD)
            budget.force(MAX_PAYLOAD)
            peer = in_memory.peer(disk, budget=budget)
            for n in range(20):
                peer.ask(READ, n, 0, 64 << 10)
            await settle()
            assert len(disk.asked) == ALLOWANCE // (64 << 10)
            while disk.waiting:
                disk.go_on()
                await settle()
            assert len(peer.replies(dict.fromkeys(range(20), 64 << 10))) == 20

    homebound.run(main())


def test_clients_that_never_read_stay_within_the_budget(in_memory: Any, tmp_path: Path):
    async def main(pool: Any) -> None:
        with MemoryDisk(MAX_PAYLOAD) as disk:
            async with NBDServer(disk, io_threads=pool, buffer_budget=MAX_PAYLOAD) as server:
                await server.listen_unix(tmp_path / "socket")
                budget = next(iter(server._served.values())).budget
                clients = [await in_memory.client.ready(server.uris[0]) for _ in range(6)]
                for client in clients:
                    client.writer.transport.pause_reading()
                    for n in range(3):
                        client.send(READ, n, 0, 8 * MIB)
                good = await in_memory.client.ready(server.uris[0])
                for n in range(50):
                    good.send(READ, n, 0, 4096)
                    assert await good.reply(4096) == (n, 0, bytes(4096))
                assert budget.used <= budget.limit + 7 * 3 * MIB

                async def read_all(client: Any) -> None:
                    client.writer.transport.resume_reading()
                    assert {(await client.reply(8 * MIB))[0] for _ in range(3)} == {0, 1, 2}
                    await client.close()

                await asyncio.gather(*map(read_all, clients))
                await good.close()
            assert budget.used == 0

    with homebound.IOThreadPool(2) as pool:
        homebound.run(main(pool))
