"""Requests of a disk with awaited operations: one task for many, and others where one waits."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import pytest

import homebound
from homebound.block import Disk as AnyDisk
from homebound.block import MemoryDisk
from homebound.nbd._protocol.requests import ALLOWANCE
from homebound.nbd._protocol.wire import Command, Error
from homebound.nbd._server.budget import Budget
from homebound.nbd._server.in_flight import MAX_REQUESTS, MAX_STARTED
from homebound.testing import settle

READ, WRITE, FLUSH = Command.READ, Command.WRITE, Command.FLUSH


class Disk(MemoryDisk):
    """Awaits `operation` for each request; `tasks` are those that do."""

    def __init__(self, operation: Any) -> None:
        super().__init__(1 << 20)
        self.operation = operation
        self.tasks: list[object] = []

    def try_read_into(self, offset: int, buffer: memoryview) -> bool:
        del offset, buffer
        return False

    async def read_into(self, offset: int, buffer: memoryview) -> None:
        self.tasks.append(asyncio.current_task())
        await self.operation(offset)
        MemoryDisk.try_read_into(self, offset, buffer)


class Untried(AnyDisk):
    """Has no attempts, only operations, which wait until the test opens the door."""

    size = 1 << 20
    read_only = False

    def __init__(self) -> None:
        self.door = homebound.Event()

    async def read_into(self, offset: int, buffer: memoryview) -> None:
        await self.door.wait()
        buffer[:] = bytes([offset]) * len(buffer)

    async def write(
        self, offset: int, data: bytes | bytearray | memoryview, *, fua: bool = False
    ) -> None:
        del offset, data, fua
        await self.door.wait()

    async def flush(self) -> None:
        await self.door.wait()

    async def trim(self, offset: int, length: int, *, fua: bool = False) -> None:
        """Do nothing."""

    async def write_zeroes(
        self, offset: int, length: int, *, fua: bool = False, no_hole: bool = False
    ) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Nothing to do."""


async def nothing(_: int) -> None:
    """Have nothing to wait for."""


def ask(peer: Any, *offsets: int) -> None:
    """Ask for a byte at each offset, which is the cookie too, together."""
    peer.send(b"".join(peer.request(READ, offset, offset, 1) for offset in offsets))


def answered(peer: Any) -> list[tuple[int, int]]:
    return [(cookie, error) for cookie, error, _ in peer.replies(dict.fromkeys(range(100), 1))]


def test_those_that_need_not_wait_share_a_task(in_memory: Any):
    async def main() -> None:
        with Disk(nothing) as disk:
            peer = in_memory.peer(disk)
            for n in range(3):
                ask(peer, *range(20))
                await settle()
                # The millisecond may be over, if this thread gets no core.
                assert len({id(task) for task in disk.tasks}) < 10 * (n + 1)
                assert answered(peer) == [(offset, 0) for offset in range(20)]

    homebound.run(main())


async def iterations() -> None:
    """Let the loop turn, as often as it may need; of asyncio's, `settle` does not see all."""
    for _ in range(50):
        await asyncio.sleep(0)


@pytest.mark.parametrize("tasks", ["plain", "eager"])
def test_those_that_wait_overlap(in_memory: Any, tasks: str):
    eager = tasks == "eager"
    if eager and sys.version_info < (3, 12):
        pytest.skip("tasks are never eager there")
    futures: dict[int, asyncio.Future[None]] = {}

    async def wait(offset: int) -> None:
        futures[offset] = asyncio.get_running_loop().create_future()
        await futures[offset]

    async def main() -> None:
        if eager:
            factory: Any = vars(asyncio)["eager_task_factory"]
            asyncio.get_running_loop().set_task_factory(factory)
        with Disk(wait) as disk:
            peer = in_memory.peer(disk)
            for begin in (0, MAX_STARTED):  # the second time it is known that they wait
                ask(peer, *range(begin, begin + MAX_STARTED))
                await iterations()
                assert sorted(futures) == [*range(begin, begin + MAX_STARTED)]
                for offset in sorted(futures, reverse=True):
                    futures.pop(offset).set_result(None)
                await iterations()
                expected = [(begin + n, 0) for n in range(MAX_STARTED)]
                assert sorted(answered(peer)) == expected

    (asyncio if eager else homebound).run(main())


def test_one_that_waits_does_not_hold_up_the_others(in_memory: Any):
    futures: list[asyncio.Future[None]] = []

    async def wait_for_odd(offset: int) -> None:
        if offset % 2:
            futures.append(asyncio.get_running_loop().create_future())
            await futures[-1]

    async def main() -> None:
        with Disk(wait_for_odd) as disk:
            peer = in_memory.peer(disk)
            ask(peer, *range(20))
            await settle()
            assert sorted(answered(peer)) == [(offset, 0) for offset in range(0, 20, 2)]
            for future in futures:
                future.set_result(None)
            await settle()
            assert sorted(answered(peer)) == [(offset, 0) for offset in range(1, 20, 2)]
            ask(peer, 0, 2, 4)
            await settle()
            assert answered(peer) == [(0, 0), (2, 0), (4, 0)]

    homebound.run(main())


def test_as_many_as_are_allowed_wait_and_then_the_next(in_memory: Any):
    futures: list[asyncio.Future[None]] = []

    async def wait(_: int) -> None:
        futures.append(asyncio.get_running_loop().create_future())
        await futures[-1]

    async def main() -> None:
        with Disk(wait) as disk:
            peer = in_memory.peer(disk)
            ask(peer, *range(MAX_REQUESTS))
            done = 0
            while done < MAX_REQUESTS:
                await settle()
                assert len(futures) - done == min(MAX_STARTED, MAX_REQUESTS - done)
                for future in futures[done : done + 3]:
                    future.set_result(None)
                done = min(done + 3, MAX_REQUESTS)
            await settle()
            assert len(answered(peer)) == MAX_REQUESTS

    homebound.run(main())


def test_the_loop_goes_on_between_those_that_take_long(in_memory: Any):
    turns: list[int] = []

    async def long(offset: int) -> None:
        time.sleep(0.0015)  # noqa: ASYNC251  (more than all tasks have in an iteration)
        asyncio.get_running_loop().call_soon(turns.append, offset)

    async def main() -> None:
        with Disk(long) as disk:
            peer = in_memory.peer(disk)
            ask(peer, 0, 1, 2, 3)
            seen: list[tuple[int, int]] = []
            while len(seen) < 4:
                await asyncio.sleep(0)
                assert len(disk.tasks) <= len(turns) + 2
                seen += answered(peer)
            assert [task is disk.tasks[0] for task in disk.tasks] == [True, False, False, False]

    homebound.run(main())


@pytest.mark.parametrize("error", [0, Error.ESHUTDOWN])
def test_one_that_cancels_its_own_task_ends_alone(in_memory: Any, error: int):
    async def cancel_third(offset: int) -> None:
        if offset == 2:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                if error:
                    raise

    async def main() -> None:
        with Disk(cancel_third) as disk:
            peer = in_memory.peer(disk)
            ask(peer, *range(6))
            await settle()
            expected = [(n, error if n == 2 else 0) for n in range(6)]
            assert sorted(answered(peer)) == expected

    homebound.run(main())


def test_tasks_that_are_cancelled_before_they_begin_answer_all(in_memory: Any):
    async def main() -> None:
        with Disk(nothing) as disk:
            peer = in_memory.peer(disk)
            before = asyncio.all_tasks()
            ask(peer, 0, 1, 2)
            for _ in range(3):
                for task in asyncio.all_tasks() - before:
                    task.cancel()
                await asyncio.sleep(0)
            await settle()
            assert sorted(cookie for cookie, _ in answered(peer)) == [0, 1, 2]

    homebound.run(main())


def test_reads_that_come_together_are_taken_as_far_as_there_is_room(in_memory: Any):
    async def main() -> None:
        disk = Untried()
        peer = in_memory.peer(disk)
        ask(peer, *range(10))
        ask(peer, *range(10, MAX_REQUESTS + 10))
        assert peer.connection._in_flight.count == MAX_REQUESTS
        disk.door.set()
        await settle()
        replies = peer.replies(dict.fromkeys(range(MAX_REQUESTS + 10), 1))
        assert sorted(replies) == [(n, 0, bytes([n])) for n in range(MAX_REQUESTS + 10)]

    homebound.run(main())


def test_reads_that_come_together_take_no_more_than_the_budget(in_memory: Any):
    async def main() -> None:
        disk, length, budget = Untried(), 32 << 10, Budget(1)
        budget.force(1)
        peer = in_memory.peer(disk, budget=budget)
        peer.send(b"".join(peer.request(READ, n, n, length) for n in range(20)))
        assert peer.connection._in_flight.count == ALLOWANCE // length
        disk.door.set()
        await settle()
        replies = peer.replies(dict.fromkeys(range(20), length))
        assert sorted(replies) == [(n, 0, bytes([n]) * length) for n in range(20)]

    homebound.run(main())


def test_reads_are_answered_whatever_comes_between_them(in_memory: Any):
    async def main() -> None:
        disk = Untried()
        peer = in_memory.peer(disk)
        past_end = peer.request(READ, 2, disk.size, 1)
        write, flush = peer.request(WRITE, 3, 0, payload=b"data"), peer.request(FLUSH, 6)
        reads = [peer.request(READ, n, n, 1) for n in (0, 1, 4, 5, 7)]
        peer.send(b"".join((*reads[:2], past_end, write, *reads[2:4], flush, reads[4])))
        assert peer.connection._in_flight.count == 7
        disk.door.set()
        await settle()
        replies = peer.replies(dict.fromkeys((0, 1, 4, 5, 7), 1))
        assert sorted(n for n, error, _ in replies if not error) == [0, 1, 3, 4, 5, 6, 7]
        assert [(n, error) for n, error, _ in replies if error] == [(2, Error.EINVAL)]

    homebound.run(main())
