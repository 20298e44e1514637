"""Disks on top of a disk: slices, limits, faults, a log."""

from __future__ import annotations

import asyncio
import errno
import io
import json
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound.block import (
    DiskClosed,
    DiskError,
    DiskReadOnly,
    Extent,
    Fault,
    FaultDisk,
    LogDisk,
    MemoryDisk,
    OutOfRange,
    SliceDisk,
    ThrottleDisk,
)
from homebound.testing import settle, virtual_clock

if TYPE_CHECKING:
    from collections.abc import Callable

    from homebound.block import Disk

SIZE = 1 << 20
MAKERS: list[Callable[[Disk], Disk]] = [
    lambda disk: SliceDisk(disk, 0, disk.size),
    lambda disk: ThrottleDisk(disk, iops=1e9),
    lambda disk: FaultDisk(disk, []),
    lambda disk: LogDisk(disk, io.StringIO()),
]
NAMES = ["slice", "throttle", "fault", "log"]


@pytest.mark.parametrize("make", MAKERS, ids=NAMES)
def test_passes_on_what_the_disk_is_and_leaves_it_open(make: Any):
    class Special(MemoryDisk):
        shared_cache = False
        volatile = False
        preferred_block = 65536
        minimum_block = 512
        maximum_transfer = 1 << 20
        can_fast_zero = False
        can_flush = False
        can_fua = False
        can_trim = False
        rotational = True

    with Special(SIZE, read_only=True) as disk:
        with make(disk) as on_top:
            for name in (
                "size",
                "read_only",
                "shared_cache",
                "volatile",
                "preferred_block",
                "minimum_block",
                "maximum_transfer",
                "can_fast_zero",
                "can_flush",
                "can_fua",
                "can_trim",
                "rotational",
            ):
                assert getattr(on_top, name) == getattr(disk, name), name
            assert repr(disk) in repr(on_top)
            with pytest.raises(DiskReadOnly):
                homebound.run(on_top.write(0, b"x"))
            on_top.close()
            with pytest.raises(DiskClosed):
                homebound.run(on_top.read(0, 1))
            with pytest.raises(DiskClosed):
                homebound.run(on_top.flush())
        homebound.run(disk.read(0, 1))


class TestSlice:
    def test_sees_its_part_and_no_more(self):
        async def main() -> None:
            with MemoryDisk(SIZE) as disk:
                await disk.write(0, b"x" * SIZE)
                with SliceDisk(disk, 1000, 5000) as part:
                    await part.write(0, b"<")
                    assert part.try_write(4999, b">")
                    await part.write_zeroes(1, 4998)
                    await part.flush()
                    await part.cache(0, 5000)
                    await part.fast_zeroes(1, 4998, fua=True)
                    await part.trim(2, 100)
                    buffer = memoryview(bytearray(3))
                    assert part.try_read_into(4997, buffer)
                    assert buffer == b"\0\0>"
                    assert await disk.read(998, 4) == b"xx<\0"
                    assert await disk.read(5998, 4) == b"\0>xx"
                    for wrong in (part.read(4999, 2), part.write(5000, b"a"), part.trim(-1, 1)):
                        with pytest.raises(OutOfRange):
                            await wrong
                    with pytest.raises(OutOfRange):
                        part.try_read_into(4999, memoryview(bytearray(2)))
                    with pytest.raises(OutOfRange):
                        part.try_write(-1, b"a")

        homebound.run(main())

    def test_extents(self):
        async def main() -> None:
            with MemoryDisk(SIZE) as disk, SliceDisk(disk, 4096, 8192) as part:
                await disk.write(8192, b"x")
                assert await part.block_status(0, 8192) == [
                    Extent(4096, hole=True, zero=True),
                    Extent(4096),
                ]

        homebound.run(main())

    @pytest.mark.parametrize(("offset", "size"), [(0, 0), (-1, 5), (SIZE, 1), (1, SIZE)])
    def test_has_to_be_inside(self, offset: int, size: int):
        with MemoryDisk(SIZE) as disk, pytest.raises(DiskError, match="are not inside <MemoryDisk"):
            SliceDisk(disk, offset, size)

    @pytest.mark.parametrize(("offset", "size"), [("0", 10), (0.0, 10), (0, None)])
    def test_takes_numbers_of_bytes(self, offset: Any, size: Any):
        with MemoryDisk(SIZE) as disk, pytest.raises(TypeError, match="it must be a number of b"):
            SliceDisk(disk, offset, size)

    def test_has_to_be_of_whole_blocks(self):
        class Blocks(MemoryDisk):
            minimum_block = 512

        with Blocks(SIZE) as disk:
            SliceDisk(disk, 512, 1024).close()
            for offset, size in ((1, 512), (512, 1)):
                with pytest.raises(DiskError, match="has blocks of 512"):
                    SliceDisk(disk, offset, size)


class TestThrottle:
    def timed(self, requests: Any, **limits: Any) -> list[float]:
        """When each of the requests, begun in this order, has ended."""
        with virtual_clock() as clock:

            async def main() -> list[float]:
                with MemoryDisk(SIZE) as disk, ThrottleDisk(disk, **limits) as slow:
                    ended: list[float] = []

                    async def one(size: int) -> None:
                        await slow.read(0, size)
                        ended.append(clock.now())

                    tasks = []
                    for size in requests:
                        tasks.append(asyncio.create_task(one(size)))
                        await asyncio.sleep(0)
                    await asyncio.gather(*tasks)
                    return ended

            return homebound.run(main())

    def test_requests_a_second(self):
        ended = self.timed([1] * 50, iops=10)
        assert ended == pytest.approx([0.0] * 10 + [0.1 * n for n in range(1, 41)])

    def test_without_a_burst(self):
        ended = self.timed([1] * 5, iops=2, burst_seconds=0)
        assert ended == pytest.approx([0.0, 0.5, 1.0, 1.5, 2.0])

    def test_bytes_a_second(self):
        ended = self.timed([1000, 1000, 500, 500], bytes_per_second=1000)
        assert ended == pytest.approx([0.0, 1.0, 1.5, 2.0])

    def test_a_request_larger_than_a_burst_is_paid_off_by_those_behind(self):
        ended = self.timed([5000, 1, 1], bytes_per_second=1000, burst_seconds=1)
        assert ended == pytest.approx([0.0, 4.001, 4.002])

    def test_the_stricter_limit_holds(self):
        ended = self.timed([100] * 4, iops=1, bytes_per_second=50, burst_seconds=0)
        assert ended == pytest.approx([0.0, 2.0, 4.0, 6.0])

    def test_small_ones_do_not_overtake_a_large_one(self):
        ended = self.timed([1000, 1000, 1, 1], bytes_per_second=1000)
        assert ended == pytest.approx([0.0, 1.0, 1.001, 1.002])

    def test_no_drift_over_an_hour(self):
        ended = self.timed([1] * 2000, iops=0.5, burst_seconds=0)
        assert ended[-1] == pytest.approx(2 * 1999, abs=1e-3)

    def test_a_cancelled_request_spends_nothing(self):
        with virtual_clock() as clock:

            async def main() -> float:
                with MemoryDisk(SIZE) as disk, ThrottleDisk(disk, 1, burst_seconds=0) as slow:
                    await slow.read(0, 1)
                    tasks = [asyncio.create_task(slow.read(0, 1)) for _ in range(3)]
                    await asyncio.sleep(0.5)
                    tasks[0].cancel()
                    tasks[1].cancel()
                    await tasks[2]
                    return clock.now()

            assert homebound.run(main()) == pytest.approx(1.0)

    def test_flush_and_status_are_free(self):
        with virtual_clock() as clock:

            async def main() -> None:
                with MemoryDisk(SIZE) as disk, ThrottleDisk(disk, 1, burst_seconds=0) as slow:
                    assert not slow.try_write(0, b"x")
                    assert not slow.try_read_into(0, memoryview(bytearray(1)))
                    await slow.trim(0, 1)
                    await slow.flush()
                    await slow.block_status(0, 1)
                    await slow.cache(0, 1)
                    assert clock.now() == 0
                    await slow.write_zeroes(0, 1)
                    assert clock.now() == pytest.approx(1.0)

            homebound.run(main())

    def test_shared_by_homes(self, io: homebound.IOThread, io2: homebound.IOThread):
        with virtual_clock() as clock, MemoryDisk(SIZE) as disk, ThrottleDisk(disk, 10) as slow:
            tasks = [home.spawn(slow.read(0, 1)) for _ in range(15) for home in (io, io2)]
            for task in tasks:
                homebound.block_on(task)
            assert clock.now() == pytest.approx(2.0)

    @pytest.mark.parametrize(
        "limits", [{"iops": 0}, {"bytes_per_second": -1}, {"burst_seconds": -1}, {"iops": "nan"}]
    )
    def test_limits_that_are_none(self, limits: dict[str, Any]):
        limits = {name: float(value) for name, value in limits.items()}
        with MemoryDisk(SIZE) as disk, pytest.raises(ValueError, match="ThrottleDisk: "):
            ThrottleDisk(disk, **limits)


class TestFault:
    def run(self, rules: list[Any], use: Any) -> None:
        async def main() -> None:
            with MemoryDisk(SIZE) as disk, FaultDisk(disk, rules) as faulty:
                await use(faulty)

        homebound.run(main())

    def test_error_of_one_command_in_one_range(self):
        async def use(disk: FaultDisk) -> None:
            await disk.write(0, b"x" * 4096)
            assert disk.try_write(8192, b"x")
            assert not disk.try_write(4100, b"x")
            for offset, length in ((4096, 1), (8191, 1), (0, 4097), (4000, 8192)):
                with pytest.raises(DiskError, match=r"on purpose") as caught:
                    await disk.write(offset, bytes(length))
                assert caught.value.errno == errno.ENOSPC
            await disk.read(4096, 4096)

        self.run([{"command": "write", "range": range(4096, 8192), "error": "ENOSPC"}], use)

    def test_nth_and_exceptions(self):
        async def use(disk: FaultDisk) -> None:
            await disk.read(0, 1)
            with pytest.raises(ZeroDivisionError):
                await disk.read(0, 1)
            await disk.read(0, 1)
            with pytest.raises(DiskError):
                await disk.flush()
            assert await disk.read(0, 1) == b"\0"

        rules = [
            Fault(command="read", nth=2, error=ZeroDivisionError()),
            Fault(command=("flush", "trim"), error=errno.EIO),
        ]
        self.run(rules, use)

    def test_probability_is_the_same_for_the_same_seed(self):
        def failures(seed: int) -> list[int]:
            found: list[int] = []

            async def use(disk: FaultDisk) -> None:
                for n in range(200):
                    try:
                        await disk.read(0, 1)
                    except DiskError:
                        found.append(n)

            self.run([Fault(command="read", probability=0.3, seed=seed, error="EIO")], use)
            return found

        assert 20 < len(failures(1)) < 120
        assert failures(1) == failures(1) != failures(2)

    def test_delay(self):
        with virtual_clock() as clock:

            async def use(disk: FaultDisk) -> None:
                await disk.write(0, b"x")
                assert clock.now() == 5.0
                assert await disk.read(0, 1) == b"x"

            self.run([Fault(command="write", delay=5)], use)

    def test_a_flush_is_not_skipped_though_the_disk_has_none_to_do(self):
        with MemoryDisk(SIZE) as disk:
            assert disk.try_flush()
            assert FaultDisk(disk, [Fault(command="write", error="EIO")]).try_flush()
            faulty = FaultDisk(disk, [Fault(command="flush", error="EIO")])
            assert not faulty.try_flush()
            assert not SliceDisk(faulty, 0, SIZE).try_flush()

    def test_hang_until_released(self):
        async def use(disk: FaultDisk) -> None:
            task = asyncio.create_task(disk.read(0, 1))
            await settle()
            assert disk.hanging == 1
            assert not task.done()
            disk.release()
            await task
            await disk.read(0, 1)

        self.run([Fault(hang=True)], use)

    def test_hang_until_cancelled_or_closed(self):
        async def use(disk: FaultDisk) -> None:
            tasks = [asyncio.create_task(disk.flush()) for _ in range(2)]
            await settle()
            tasks[0].cancel()
            await settle()
            assert (tasks[0].cancelled(), disk.hanging) == (True, 1)
            disk.close()
            with pytest.raises(DiskClosed):
                await tasks[1]

        self.run([Fault(hang=True)], use)

    def test_short_write(self):
        async def use(disk: FaultDisk) -> None:
            with pytest.raises(DiskError) as caught:
                await disk.write(0, b"abcdef")
            assert caught.value.errno == errno.EIO
            assert await disk.read(0, 6) == b"abc\0\0\0"

        self.run([Fault(command="write", short=3)], use)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"command": "reed"},
            {"nth": 0},
            {"probability": 2},
            {"delay": -1},
            {"short": -1},
            {"error": "EWHAT"},
        ],
    )
    def test_rules_that_can_never_be(self, wrong: dict[str, Any]):
        with pytest.raises(ValueError, match="Fault: "):
            Fault(**wrong)

    @pytest.mark.parametrize("wrong", [{"range": (0, 10)}, {"error": OSError}])
    def test_a_range_or_an_error_of_another_kind(self, wrong: dict[str, Any]):
        with pytest.raises(TypeError, match="; it takes a"):
            Fault(**wrong)


class TestLog:
    def test_one_line_for_each_request(self):
        stream = io.StringIO()
        with virtual_clock():

            async def main() -> None:
                rules = [
                    Fault(command="read", range=range(100, 101), error="EIO"),
                    Fault(command="flush", delay=2.5),
                    Fault(command="trim", hang=True),
                    Fault(command="cache", error=KeyError()),
                ]
                with MemoryDisk(SIZE) as disk, FaultDisk(disk, rules) as faulty:
                    log = LogDisk(faulty, stream)
                    assert log.try_write(0, b"abc")
                    assert not log.try_read_into(100, memoryview(bytearray(1)))
                    with pytest.raises(DiskError):
                        await log.read(100, 1)
                    await log.flush()
                    task = asyncio.create_task(log.trim(4096, 4096))
                    await settle()
                    task.cancel()
                    await settle()
                    with pytest.raises(KeyError):
                        await log.cache(0, 1)
                    await log.block_status(0, SIZE)

            homebound.run(main())
        lines = [json.loads(line) for line in stream.getvalue().splitlines()]
        told = [(e["command"], e["offset"], e["length"], e["result"]) for e in lines]
        assert told == [
            ("write", 0, 3, "ok"),
            ("read", 100, 1, "EIO"),
            ("flush", 0, 0, "ok"),
            ("trim", 4096, 4096, "cancelled"),
            ("cache", 0, 1, "KeyError"),
            ("block_status", 0, SIZE, "ok"),
        ]
        assert [each["duration"] for each in lines] == [0, 0, 2.5, 0, 0, 0]
        assert all(each["time"] > 1.7e9 for each in lines)

    def test_a_flush_with_nothing_to_do_is_noted(self):
        stream = io.StringIO()
        with MemoryDisk(SIZE) as disk, LogDisk(disk, stream) as log:
            assert log.try_flush()
        assert json.loads(stream.getvalue())["command"] == "flush"
        assert not log.try_flush()

    def test_a_stream_that_fails_does_not_fail_the_disk(self):
        class Full:
            lines = 0

            def write(self, _: str) -> None:
                self.lines += 1
                if self.lines == 2:
                    raise OSError(errno.ENOSPC, "full")

        async def main() -> None:
            stream = Full()
            with MemoryDisk(SIZE) as disk, LogDisk(disk, stream) as log:
                for _ in range(5):
                    await log.write(0, b"x")
                assert stream.lines == 2
                assert isinstance(log.failure, OSError)

        homebound.run(main())
