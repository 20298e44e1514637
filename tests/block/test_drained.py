"""Draining: requests in flight finish, new ones wait in their order, sections nest."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import WouldDeadlock
from homebound.block import Disk, FileDisk, MemoryDisk
from homebound.testing import settle

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from pathlib import Path


SIZE = 1 << 16


class Held(Disk):
    """Operations wait until the test opens the door, then are noted."""

    read_only = False
    size = SIZE

    def __init__(self, *, is_open: bool = False) -> None:
        self.door = homebound.Event()
        if is_open:
            self.door.set()
        self.begun: list[str] = []
        self.done: list[str] = []

    async def work(self, name: str) -> None:
        self.begun.append(name)
        await self.door.wait()
        self.done.append(name)

    async def read_into(self, offset: int, buffer: memoryview) -> None:
        del buffer
        await self.work(f"read {offset}")

    async def write(
        self, offset: int, data: bytes | bytearray | memoryview, *, fua: bool = False
    ) -> None:
        del data, fua
        await self.work(f"write {offset}")

    async def flush(self) -> None:
        await self.work("flush")

    async def trim(self, offset: int, length: int, *, fua: bool = False) -> None:
        """By another operation of the same disk, in a task of its own."""
        del length
        await asyncio.gather(self.write_zeroes(offset, 0, fua=fua))
        await self.work(f"trim {offset}")

    async def write_zeroes(
        self, offset: int, length: int, *, fua: bool = False, no_hole: bool = False
    ) -> None:
        del no_hole
        await self.write(offset, bytes(length), fua=fua)

    def close(self) -> None:
        """Nothing to do."""


class TestRequests:
    def test_in_flight_finish_and_new_ones_wait_in_order(self):
        async def main() -> None:
            disk = Held()
            first = asyncio.create_task(disk.read(1, 1))
            await settle()
            events: list[str] = []

            async def drain() -> None:
                async with disk.drained():
                    events.append(f"drained after {disk.done}")
                    await settle_but_me()
                events.append("ended")

            drainer = asyncio.create_task(drain())
            await turn()
            late: list[asyncio.Task[Any]] = [
                asyncio.create_task(disk.read(offset, 1)) for offset in range(2, 6)
            ]
            late.append(asyncio.create_task(disk.flush()))
            await turn()
            assert disk.begun == ["read 1"]
            assert not events
            disk.door.set()
            await drainer
            assert events == ["drained after ['read 1']", "ended"]
            await asyncio.gather(first, *late)
            assert disk.begun == ["read 1", "read 2", "read 3", "read 4", "read 5", "flush"]

        async def settle_but_me() -> None:
            await turn()

        homebound.run(main())

    def test_what_an_operation_does_within_itself_is_a_part_of_it(self):
        async def main() -> None:
            disk = Held()
            task = asyncio.create_task(disk.trim(7, 1))
            await turn()
            assert disk.begun == ["write 7"]

            async def drain() -> None:
                async with disk.drained():
                    assert disk.done == ["write 7", "trim 7"]

            drainer = asyncio.create_task(drain())
            await turn()
            disk.door.set()
            await asyncio.gather(task, drainer)

        homebound.run(main())

    def test_a_task_that_a_request_has_left_behind_is_a_request_of_its_own(self):
        class Leaves(Held):
            left: asyncio.Task[None] | None = None

            async def flush(self) -> None:
                async def later() -> None:
                    await go_on.wait()
                    await self.write(5, b"")

                self.left = asyncio.create_task(later())

        async def main() -> None:
            disk = Leaves(is_open=True)
            await disk.flush()
            assert disk.left is not None
            async with disk.drained():
                go_on.set()
                await turn()
                assert not disk.begun
            await disk.left
            assert disk.begun == ["write 5"]

        go_on = homebound.Event()
        homebound.run(main())

    def test_attempts_are_refused_meanwhile(self, tmp_path: Path):
        (tmp_path / "image").write_bytes(bytes(SIZE))

        async def main() -> None:
            for disk in (MemoryDisk(SIZE), FileDisk(tmp_path / "image")):
                with disk:
                    disk.try_write(0, b"x" * 4096)  # a file's first shows how to
                    async with disk.drained():
                        assert not disk.try_write(0, b"y" * 4096)
                        assert not disk.try_read_into(0, memoryview(bytearray(4)))
                    buffer = memoryview(bytearray(4096))
                    if not disk.try_read_into(0, buffer):
                        await disk.read_into(0, buffer)
                    assert buffer != b"y" * 4096

        homebound.run(main())

    def test_an_attempt_under_way_in_another_thread_is_waited_for(self, in_thread: Any):
        class Attempts(MemoryDisk):
            def try_write(self, offset: int, data: bytes | bytearray | memoryview) -> bool:
                begun.set()
                assert go_on.wait(20)
                left.append(super().try_write(offset, data))
                return left[-1]

        async def main() -> None:
            with Attempts(SIZE) as disk:
                future = in_thread(disk.try_write, 0, b"x")
                await homebound.to_worker(begun.wait)

                async def drain() -> None:
                    async with disk.drained():
                        assert left

                task = asyncio.create_task(drain())
                await turn()
                assert not task.done()
                go_on.set()
                await task
                await asyncio.wrap_future(future)

        left: list[bool] = []
        begun, go_on = threading.Event(), threading.Event()
        homebound.run(main())

    def test_request_counts_calls_on_blocking(self, tmp_path: Path):
        (tmp_path / "image").write_bytes(bytes(SIZE))

        async def main() -> None:
            with FileDisk(tmp_path / "image") as disk:
                order: list[str] = []

                async def drain() -> None:
                    async with disk.drained():
                        order.append("drained")

                async with disk.request():
                    task = asyncio.create_task(drain())
                    await turn()
                    await homebound.to_worker(disk.blocking.write, 0, b"x")
                    await disk.write(1, b"y")  # inside already
                    async with disk.request():
                        order.append("written")
                await task
                assert order == ["written", "drained"]
                async with disk.drained():
                    waits = asyncio.create_task(one_request(disk))
                    await turn()
                    assert not waits.done()
                await waits

        async def one_request(disk: Disk) -> None:
            async with disk.request():
                pass

        homebound.run(main())

    def test_a_request_that_begins_here_and_ends_in_a_worker(self):
        async def main() -> None:
            with MemoryDisk(SIZE) as disk:
                order: list[str] = []

                async def drain() -> None:
                    async with disk.drained():
                        order.append("drained")
                        assert not disk.try_begin()
                        waits = asyncio.create_task(disk.begin())
                        await turn()
                        assert not waits.done()
                    await waits
                    disk.end()

                assert disk.try_begin()
                task = asyncio.create_task(drain())
                await turn()
                order.append("ends")
                await homebound.to_worker(disk.end)
                await task
                assert order == ["ends", "drained"]
                assert not disk._gate.inside

        homebound.run(main())


class TestNesting:
    def test_in_one_task(self):
        async def main() -> None:
            disk = Held(is_open=True)
            async with disk.drained():
                async with disk.drained():
                    task = asyncio.create_task(disk.read(0, 1))
                    await turn()
                await turn()
                assert not disk.begun
            await task

        homebound.run(main())

    def test_of_tasks_that_end_in_any_order(self, io: homebound.IOThread, io2: Any):
        disk = Held(is_open=True)
        inside: list[str] = []

        async def section(name: str, end: homebound.Event) -> None:
            async with disk.drained():
                inside.append(name)
                await end.wait()

        async def main() -> None:
            ends = homebound.Event(), homebound.Event()
            first = io.spawn(section("first", ends[0]))
            await settle()
            read = asyncio.create_task(disk.read(0, 1))
            await settle()
            second = io2.spawn(section("second", ends[1]))  # though a request waits
            await settle()
            assert inside == ["first", "second"]
            ends[0].set()
            await first
            await settle()
            assert not read.done()
            ends[1].set()
            await second
            await read

        homebound.run(main())

    def test_of_a_disk_and_what_it_stands_on(self):
        class Over(Held):
            def __init__(self, below: Disk) -> None:
                super().__init__(is_open=True)
                self.below = below

            async def read_into(self, offset: int, buffer: memoryview) -> None:
                await self.below.read_into(offset, buffer)

        async def main() -> None:
            below = Held(is_open=True)
            disk = Over(below)
            async with below.drained():
                task = asyncio.create_task(disk.read(0, 1))
                await turn()

                async def drain() -> None:
                    async with disk.drained():
                        assert task.done() or below.done

                drainer = asyncio.create_task(drain())
                await turn()
                assert not below.begun
                assert not drainer.done()
            await asyncio.gather(task, drainer)

        homebound.run(main())


class TestCancelled:
    def test_request_that_waits(self):
        async def main() -> None:
            disk = Held(is_open=True)
            async with disk.drained():
                tasks = [asyncio.create_task(disk.read(n, 1)) for n in range(3)]
                await turn()
                tasks[1].cancel()
                await turn()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert disk.begun == ["read 0", "read 2"]
            assert not disk._gate.inside

        homebound.run(main())

    def test_request_that_was_just_let_in(self):
        async def main() -> None:
            disk = Held(is_open=True)
            async with disk.drained():
                task = asyncio.create_task(disk.read(0, 1))
                await turn()
            task.cancel()
            await turn()
            assert task.cancelled()
            async with disk.drained():
                pass

        homebound.run(main())

    def test_section_that_waits(self):
        async def main() -> None:
            disk = Held()
            read = asyncio.create_task(disk.read(0, 1))
            await turn()
            section = asyncio.create_task(drain(disk))
            await turn()
            late = asyncio.create_task(disk.read(1, 1))
            await turn()
            assert disk.begun == ["read 0"]
            section.cancel()
            await turn()
            assert disk.begun == ["read 0", "read 1"]
            disk.door.set()
            await asyncio.gather(read, late)

        async def drain(disk: Disk) -> None:
            async with disk.drained():
                raise AssertionError("a read was in flight")

        homebound.run(main())


class TestThreads:
    def test_a_plain_thread_drains(self, in_thread: Callable[..., Future[Any]]):
        async def main() -> None:
            with MemoryDisk(SIZE) as disk:

                def drain() -> None:
                    with disk.drained(), disk.drained():
                        inside.set()
                        assert go_on.wait(20)

                future = in_thread(drain)
                await homebound.to_worker(inside.wait)
                task = asyncio.create_task(disk.write(0, b"x"))
                await turn()
                assert not task.done()
                go_on.set()
                await task
                await asyncio.wrap_future(future)

        inside, go_on = threading.Event(), threading.Event()
        homebound.run(main())

    def test_a_task_of_another_loop(self):
        async def main() -> None:
            disk = Held(is_open=True)
            async with disk.drained():
                task = asyncio.create_task(disk.read(3, 1))
                await asyncio.sleep(0.01)
                assert not task.done()
            await task

        asyncio.run(main())


class TestWouldDeadlock:
    def test_request_in_ones_own_section(self):
        async def main() -> None:
            with MemoryDisk(SIZE) as disk:
                async with disk.drained():
                    with pytest.raises(WouldDeadlock, match="the drained section that it is in"):
                        await disk.read(0, 1)
                    with pytest.raises(WouldDeadlock, match="a call that blocks from thread"):
                        disk.flush_sync()
                await disk.read(0, 1)

        homebound.run(main())

    def test_not_in_a_task_that_a_request_has_begun(self):
        async def main() -> None:
            with MemoryDisk(SIZE) as disk:

                async def drain() -> None:
                    async with disk.drained():
                        pass

                async with disk.request():
                    task = asyncio.create_task(drain())
                    await turn()
                    assert not task.done()
                await task

        homebound.run(main())

    def test_section_in_ones_own_request(self):
        class Drains(Held):
            async def flush(self) -> None:
                async with self.drained():
                    pass

        async def main() -> None:
            disk = Drains()
            with pytest.raises(WouldDeadlock, match="the request that it is in"):
                await disk.flush()
            async with disk.drained():
                pass

        homebound.run(main())


async def turn() -> None:
    """Let everything happen here that can."""
    for _ in range(12):
        await asyncio.sleep(0)
