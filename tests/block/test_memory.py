"""The disk in memory: what it takes of it."""

from __future__ import annotations

import mmap
import threading
from pathlib import Path

import pytest

import homebound
from homebound.block import DiskClosed, DiskError, DiskReadOnly, MemoryDisk, OutOfRange

GIB = 1 << 30


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def test_takes_only_what_is_written():
    async def main() -> None:
        before = resident()
        with MemoryDisk(1024 * GIB) as disk:
            for n in range(64):
                await disk.write(n * 16 * GIB, b"x")
            assert await disk.read(1024 * GIB - 1, 1) == b"\0"
            assert resident() - before < 8 << 20

    homebound.run(main())


def test_trim_and_zeroes_give_memory_back_unless_asked_not_to():
    async def main() -> None:
        size = 96 << 20
        with MemoryDisk(size) as disk:
            for drop in (disk.trim, disk.write_zeroes):
                for offset in range(0, size, 1 << 20):
                    await disk.write(offset, b"x" * (1 << 20))
                before = resident()
                await drop(1, size - 2)
                assert before - resident() > size - (4 << 20)
            before = resident()
            await disk.write_zeroes(0, size, no_hole=True)
            assert resident() - before > size - (4 << 20)

    homebound.run(main())


def test_long_work_lets_others_run():
    async def main() -> None:
        order = []

        async def other() -> None:
            order.append("other")

        with MemoryDisk(4 * GIB) as disk:
            task = homebound.current_context().spawn(other())  # type: ignore[union-attr]
            await disk.trim(0, 4 * GIB)
            order.append("trimmed")
            await task
        assert order == ["other", "trimmed"]

    homebound.run(main())


@pytest.mark.parametrize("size", [0, -1, 1 << 62, 1 << 70])
def test_sizes_that_cannot_be(size: int):
    with pytest.raises(DiskError, match=f"cannot make a disk of {size} bytes in memory"):
        MemoryDisk(size)


def test_ranges_and_changes_are_checked():
    async def main() -> None:
        with MemoryDisk(4096, read_only=True) as disk:
            with pytest.raises(OutOfRange):
                await disk.read(4096, 1)
            with pytest.raises(OutOfRange):
                disk.try_read_into(4095, memoryview(bytearray(2)))
            for change in (disk.write(0, b"x"), disk.trim(0, 1), disk.write_zeroes(0, 1)):
                with pytest.raises(DiskReadOnly):
                    await change
            assert repr(disk) == "<MemoryDisk of 4096 bytes read-only>"

    homebound.run(main())


def test_closed_is_said_by_everything():
    async def main() -> None:
        disk = MemoryDisk(4096)
        disk.close()
        disk.close()
        for late in (disk.read(0, 1), disk.write(0, b"x"), disk.flush(), disk.write_zeroes(0, 1)):
            with pytest.raises(DiskClosed):
                await late
        with pytest.raises(DiskClosed):
            disk.try_write(0, b"x")

    homebound.run(main())


def test_threads_read_and_write_at_once():
    done = []
    with MemoryDisk(1 << 20) as disk:

        def use(offset: int) -> None:
            block, data = memoryview(bytearray(512)), bytes([offset >> 12]) * 512
            for _ in range(5000):
                disk.try_write(offset, data)
                disk.try_read_into(offset, block)
            done.append(bytes(block) == data)

        threads = [threading.Thread(target=use, args=(n << 12,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert done == [True] * 4
