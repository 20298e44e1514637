"""Disks used by threads: the calls that block, and what a cancelled operation waits for."""

from __future__ import annotations

import asyncio
import errno
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound.block import (
    BlockingDisk,
    Disk,
    DiskClosed,
    DiskReadOnly,
    Extent,
    FileDisk,
    MemoryDisk,
    OutOfRange,
)
from homebound.testing import settle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from pathlib import Path

SIZE = 1 << 16


class Slow(Disk):
    """A disk that makes no attempts: everything needs a wait."""

    read_only = False
    can_fast_zero = True

    def __init__(self, size: int) -> None:
        self.size = size
        self.inner = MemoryDisk(size)

    async def read_into(self, offset: int, buffer: memoryview) -> None:
        await asyncio.sleep(0)
        await self.inner.read_into(offset, buffer)

    async def write(
        self, offset: int, data: bytes | bytearray | memoryview, *, fua: bool = False
    ) -> None:
        await asyncio.sleep(0)
        await self.inner.write(offset, data, fua=fua)

    async def flush(self) -> None:
        await asyncio.sleep(0)

    async def trim(self, offset: int, length: int, *, fua: bool = False) -> None:
        await self.inner.trim(offset, length, fua=fua)

    async def write_zeroes(
        self, offset: int, length: int, *, fua: bool = False, no_hole: bool = False
    ) -> None:
        await self.inner.write_zeroes(offset, length, fua=fua, no_hole=no_hole)

    async def fast_zeroes(
        self, offset: int, length: int, *, fua: bool = False, no_hole: bool = False
    ) -> None:
        await self.inner.fast_zeroes(offset, length, fua=fua, no_hole=no_hole)

    def close(self) -> None:
        self.inner.close()


@pytest.fixture(params=["memory", "slow", "file"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    if request.param == "file":
        (tmp_path / "image").write_bytes(bytes(SIZE))
        made: Disk = FileDisk(tmp_path / "image")
    else:
        made = {"memory": MemoryDisk, "slow": Slow}[request.param](SIZE)
    with made:
        yield made


def use(disk: Disk) -> None:
    """Every call that blocks."""
    disk.write_sync(1, b"hello")
    disk.write_sync(6, b"!", fua=True)
    assert disk.read_sync(0, 8) == b"\0hello!\0"
    disk.trim_sync(8192, 4096, fua=True)
    disk.write_zeroes_sync(2, 2, no_hole=True)
    disk.fast_zeroes_sync(4096, 4096)
    disk.cache_sync(0, SIZE)
    disk.flush_sync()
    buffer = bytearray(5)
    disk.read_into_sync(1, memoryview(buffer), timeout=20)
    assert buffer == b"h\0\0lo"
    extents = disk.block_status_sync(0, SIZE)
    assert sum(each.length for each in extents) == SIZE
    assert extents[0] == Extent(extents[0].length)
    with pytest.raises(OutOfRange):
        disk.read_sync(SIZE, 1)
    with pytest.raises(OutOfRange):
        disk.write_sync(SIZE, b"x")


def test_in_a_plain_thread(disk: Disk, in_thread: Any):
    async def main() -> None:
        await homebound.to_worker(use, disk)
        await asyncio.wrap_future(in_thread(use, disk))

    homebound.run(main())


def test_inside_a_task_whose_home_turns_on(disk: Disk):
    async def main() -> None:
        turned: list[int] = []

        async def other() -> None:
            while True:
                turned.append(1)
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        use(disk)
        assert turned or not isinstance(disk, Slow)
        task.cancel()

    homebound.run(main())


@pytest.mark.parametrize("locked", [False, True])
def test_in_a_vcpu_thread(disk: Disk, *, locked: bool):
    outcome: list[BaseException | None] = []

    def execute(vcpu: homebound.VCPU) -> None:
        try:
            if locked:
                with homebound.big_lock:
                    use(disk)
            else:
                use(disk)
        except BaseException as error:  # noqa: BLE001  (the test looks at it)
            outcome.append(error)
        else:
            outcome.append(None)
        done.set()
        vcpu.stop()

    done = homebound.Event()

    async def main() -> None:
        vcpu = homebound.VCPU(0, execute)
        vcpu.start()
        vcpu.resume()
        await done.wait()
        vcpu.stop()
        await homebound.to_worker(vcpu.join)

    homebound.run(main())
    assert outcome == [None]


def test_timeout():
    class Stuck(Slow):
        async def read_into(self, offset: int, buffer: memoryview) -> None:
            del offset, buffer
            await asyncio.get_running_loop().create_future()

    async def main() -> None:
        with Stuck(SIZE) as disk, pytest.raises(TimeoutError):
            disk.read_sync(0, 1, timeout=0.01)

    homebound.run(main())


def test_closed_and_read_only(tmp_path: Path):
    (tmp_path / "image").write_bytes(bytes(SIZE))

    async def main() -> None:
        for disk in (FileDisk(tmp_path / "image", read_only=True), MemoryDisk(9, read_only=True)):
            with pytest.raises(DiskReadOnly):
                disk.write_sync(0, b"x")
            disk.close()
            with pytest.raises(DiskClosed):
                disk.read_sync(0, 1)
            with pytest.raises(DiskClosed):
                disk.flush_sync()

    homebound.run(main())


class Held(BlockingDisk):
    """A disk whose calls block until the test lets them go on."""

    size = SIZE
    read_only = False

    def __init__(self) -> None:
        self.data = bytearray(SIZE)
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Semaphore(0)
        self.blocking = HeldCalls(self)

    def close(self) -> None:
        """Nothing to do."""


class HeldCalls:
    def __init__(self, disk: Held) -> None:
        self.disk = disk

    def hold(self) -> bytearray:
        self.disk.begun.release()
        self.disk.go_on.acquire()
        return self.disk.data

    def read_into(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = self.hold()[offset : offset + len(buffer)]

    def write(
        self, offset: int, data: bytes | bytearray | memoryview, *, fua: bool = False
    ) -> None:
        del fua
        self.hold()[offset : offset + len(data)] = data

    def flush(self) -> None:
        self.hold()

    def trim(self, offset: int, length: int, *, fua: bool = False) -> None:
        self.write_zeroes(offset, length, fua=fua)

    def write_zeroes(
        self, offset: int, length: int, *, fua: bool = False, no_hole: bool = False
    ) -> None:
        del fua, no_hole
        self.hold()[offset : offset + length] = bytes(length)


async def until_begun(disk: Held) -> None:
    assert await homebound.to_worker(disk.begun.acquire, True, 20)


class TestCancelled:
    def test_lasts_as_long_as_its_call(self):
        """What a cancelled write still writes does not land after a later one."""

        async def main() -> None:
            disk = Held()
            first = asyncio.create_task(disk.write(0, b"old"))
            await until_begun(disk)
            for _ in range(3):  # asking again changes nothing
                first.cancel()
                for _ in range(5):
                    await asyncio.sleep(0)
                assert not first.done()
            disk.go_on.release()
            with pytest.raises(asyncio.CancelledError):
                await first
            disk.go_on.release()
            await disk.write(0, b"new")
            assert disk.data[:3] == b"new"

        homebound.run(main())

    def test_call_that_no_worker_has_begun_is_dropped(self):
        async def main() -> None:
            disk = Held()
            context = homebound.current_context()
            assert context is not None
            context.workers = homebound.WorkerPool(max_threads=1)
            first = asyncio.create_task(disk.write(0, b"first"))
            await asyncio.to_thread(disk.begun.acquire)
            second = asyncio.create_task(disk.write(0, b"second"))
            await asyncio.sleep(0)
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
            disk.go_on.release()
            await first
            await settle()
            assert disk.data[:6] == b"first\0"

        homebound.run(main())

    def test_timeout_of_asyncio(self):
        async def main() -> None:
            disk = Held()

            async def limited() -> None:
                async with asyncio.timeout(0):
                    await disk.flush()

            task = asyncio.create_task(limited())
            await asyncio.sleep(0)
            disk.go_on.release()
            with pytest.raises(TimeoutError):
                await task

        homebound.run(main())


def test_two_threads_write_and_read_at_once(disk: Disk, in_thread: Callable[..., Future[Any]]):
    def work(offset: int) -> None:
        for number in range(50):
            disk.write_sync(offset, bytes([number]) * 512)
            assert disk.read_sync(offset, 512) == bytes([number]) * 512

    async def main() -> None:
        futures = [asyncio.wrap_future(in_thread(work, offset)) for offset in (0, 512)]
        await asyncio.gather(*futures)

    homebound.run(main())


SCRIPT = """
import asyncio, sys
from homebound.block import DiskClosed, FileDisk, MemoryDisk


def use(disk):
    disk.write_sync(1, b"hello", fua=True)
    disk.trim_sync(8192, 4096)
    disk.flush_sync()
    assert disk.read_sync(0, 7) == b"\\0hello\\0"


async def main():
    use(MemoryDisk(65536))


with open(sys.argv[1], "wb") as image:
    image.truncate(65536)
for disk in (MemoryDisk(65536), FileDisk(sys.argv[1])):
    use(disk)
    disk.close()
    for call in (disk.flush_sync, lambda: disk.read_sync(0, 1)):
        try:
            call()
        except DiskClosed as error:
            print(error.errno)
asyncio.run(main())
"""


def test_in_a_script_without_a_context(tmp_path: Path):
    """A thread of the disks' own carries out what has to wait, and does not hold up the exit."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, tmp_path / "image"],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == [str(errno.EBADF)] * 4
