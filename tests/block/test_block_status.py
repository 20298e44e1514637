"""Extents: of files with holes at odd places, of memory, and of disks that do not know."""

from __future__ import annotations

import errno
import mmap
import os
import time
from typing import TYPE_CHECKING

import pytest

import homebound
from homebound.block import (
    DiskClosed,
    DiskError,
    DiskReadOnly,
    Extent,
    FileDisk,
    MemoryDisk,
    OutOfRange,
)
from homebound.block._extent import merged
from homebound.testing import until

from .programs import without_fallocate

if TYPE_CHECKING:
    from pathlib import Path

PAGE = mmap.PAGESIZE
DATA, HOLE = (False, False), (True, True)


def shape(extents: list[Extent]) -> list[tuple[int, bool]]:
    """Lengths, and whether each is a hole of zeroes or data; nothing else is told here."""
    assert {(each.hole, each.zero) for each in extents} <= {DATA, HOLE}
    return [(each.length, each.hole) for each in extents]


def status(disk: FileDisk | MemoryDisk, offset: int, length: int) -> list[tuple[int, bool]]:
    async def main() -> list[tuple[int, bool]]:
        return shape(await disk.block_status(offset, length))

    found = homebound.run(main())
    if disk.try_hole(offset, length):
        assert found in ([], [(length, True)])
    return found


def test_merging():
    parts = [Extent(1), Extent(0, hole=True), Extent(2), Extent(3, zero=True), Extent(4, zero=True)]
    assert merged(parts) == [Extent(3), Extent(7, zero=True)]


class TestFile:
    def make(self, place: Path, size: int, *written: tuple[int, int]) -> FileDisk:
        image = place / "image"
        with image.open("wb") as file:
            file.truncate(size)
            for offset, length in written:
                os.pwrite(file.fileno(), b"x" * length, offset)
        return FileDisk(image)

    def test_data_between_holes(self, place: Path):
        with self.make(place, 16 * PAGE, (4 * PAGE, 2 * PAGE)) as disk:
            assert status(disk, 0, 16 * PAGE) == [
                (4 * PAGE, True),
                (2 * PAGE, False),
                (10 * PAGE, True),
            ]
            assert status(disk, 4 * PAGE - 1, 2) == [(1, True), (1, False)]
            assert status(disk, 6 * PAGE - 1, 2) == [(1, False), (1, True)]
            assert status(disk, 5 * PAGE, 7) == [(7, False)]
            assert status(disk, 0, 0) == status(disk, 16 * PAGE, 0) == []

    def test_last_sector_is_odd_and_data(self, place: Path):
        with self.make(place, 8 * PAGE + 333, (8 * PAGE, 333)) as disk:
            assert status(disk, 0, disk.size) == [(8 * PAGE, True), (333, False)]
            assert status(disk, disk.size - 1, 1) == [(1, False)]

    def test_end_is_an_odd_hole(self, place: Path):
        with self.make(place, 8 * PAGE + 333, (0, 1)) as disk:
            assert status(disk, 0, disk.size) == [(PAGE, False), (7 * PAGE + 333, True)]
            assert status(disk, disk.size - 10, 10) == [(10, True)]

    def test_all_is_a_hole(self, place: Path):
        with self.make(place, 1000) as disk:
            assert status(disk, 0, 1000) == [(1000, True)]

    def test_file_that_has_become_shorter_does_not_read_as_zeroes(self, place: Path):
        with self.make(place, 8 * PAGE) as disk:
            os.truncate(disk.path, 2 * PAGE)
            assert status(disk, 0, 8 * PAGE) == [(2 * PAGE, True), (6 * PAGE, False)]

    def test_file_system_without_holes(self, place: Path, monkeypatch: pytest.MonkeyPatch):
        real = os.lseek

        def lseek(fd: int, offset: int, whence: int) -> int:
            if whence in (os.SEEK_DATA, os.SEEK_HOLE):
                raise OSError(errno.EINVAL, "no such whence")
            return real(fd, offset, whence)

        with self.make(place, 4 * PAGE) as disk:
            monkeypatch.setattr(os, "lseek", lseek)
            assert status(disk, 1, 3 * PAGE) == [(3 * PAGE, False)]

    def test_one_hole_is_found_at_once(self, place: Path):
        with self.make(place, 16 * PAGE + 5, (4 * PAGE, PAGE)) as disk:
            if disk.blocking.nowait is None:
                pytest.skip("not a local file system")
            # Again, as a look that was slow makes the next ones wait.
            until(lambda: disk.try_hole(0, 4 * PAGE))
            until(lambda: disk.try_hole(5 * PAGE, 11 * PAGE + 5))  # up to the end
            for offset, length in ((0, 4 * PAGE + 1), (4 * PAGE, 1), (5 * PAGE - 1, 2)):
                assert not disk.try_hole(offset, length)
            os.truncate(disk.path, 8 * PAGE)
            until(lambda: disk.try_hole(5 * PAGE, 3 * PAGE))
            assert not disk.try_hole(5 * PAGE, 4 * PAGE)
        assert not disk.try_hole(5 * PAGE, PAGE)

    def test_the_home_does_not_look_for_holes_if_it_is_not_to_wait(
        self, place: Path, monkeypatch: pytest.MonkeyPatch
    ):
        real = os.lseek

        def slow(fd: int, offset: int, whence: int) -> int:
            time.sleep(0.011)  # more than it has patience for
            return real(fd, offset, whence)

        with self.make(place, 4 * PAGE) as disk:
            if not disk.blocking.nowait:
                pytest.skip("a file system that is all in memory, or not local")
            with FileDisk(disk.path, eager_writes=False, lock=False) as careful:
                assert not careful.try_hole(0, PAGE)
            monkeypatch.setattr(os, "lseek", slow)
            until(lambda: disk.try_hole(0, PAGE))
            ended = time.monotonic()
            until(lambda: disk.try_hole(0, PAGE))
            assert time.monotonic() - ended >= 0.1

    def test_trimmed_range_becomes_a_hole(self, place: Path):
        async def main() -> None:
            with self.make(place, 4 * PAGE, (0, 4 * PAGE)) as disk:
                await disk.trim(PAGE, PAGE)
                extents = await disk.block_status(0, 4 * PAGE)
                assert shape(extents) == [(PAGE, False), (PAGE, True), (2 * PAGE, False)]

        homebound.run(main())

    def test_closed_and_out_of_range(self, place: Path):
        disk = self.make(place, PAGE)
        with pytest.raises(OutOfRange):
            status(disk, 1, PAGE)
        disk.close()
        with pytest.raises(DiskClosed):
            status(disk, 0, PAGE)


class TestMemory:
    def test_pages_that_were_written_are_data(self):
        with MemoryDisk(100 * PAGE + 10) as disk:
            disk.try_write(3 * PAGE - 1, b"ab")
            disk.try_write(100 * PAGE + 9, b"c")
            assert status(disk, 0, disk.size) == [
                (2 * PAGE, True),
                (2 * PAGE, False),
                (96 * PAGE, True),
                (10, False),
            ]
            assert status(disk, 4 * PAGE - 1, 2) == [(1, False), (1, True)]

    def test_pages_that_were_only_read_are_not(self):
        with MemoryDisk(64 * PAGE) as disk:
            disk.try_write(PAGE, b"x")
            assert disk.try_read_into(0, memoryview(bytearray(64 * PAGE)))
            assert status(disk, 0, 64 * PAGE) == [(PAGE, True), (PAGE, False), (62 * PAGE, True)]

    def test_across_the_steps_of_a_large_one(self):
        with MemoryDisk(1 << 30) as disk:
            disk.try_write((64 << 20) - PAGE, b"x" * (2 * PAGE))
            assert status(disk, 0, 128 << 20) == [
                ((64 << 20) - PAGE, True),
                (2 * PAGE, False),
                ((64 << 20) - PAGE, True),
            ]

    # Of other threads, the test runner's for example, the child needs none: it looks and exits.
    @pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
    def test_forked_child_sees_what_was_written_before(self):
        """There no page is mapped exclusively."""
        with MemoryDisk(8 * PAGE) as disk:
            disk.try_write(2 * PAGE, b"x" * PAGE)
            child = os.fork()
            if not child:
                right = shape_of(disk) == [(2 * PAGE, True), (PAGE, False), (5 * PAGE, True)]
                os._exit(0 if right else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    def test_where_the_kernel_does_not_tell(self, monkeypatch: pytest.MonkeyPatch):
        with MemoryDisk(8 * PAGE) as disk, monkeypatch.context() as patched:
            patched.setattr("homebound.block._pages.os.pread", lambda *_: b"")
            assert shape_of(disk) == [(8 * PAGE, False)]

    def test_closed(self):
        disk = MemoryDisk(PAGE)
        disk.close()
        with pytest.raises(DiskClosed):
            status(disk, 0, 1)


def shape_of(disk: MemoryDisk) -> list[tuple[int, bool]]:
    return shape(disk._look(0, disk.size))


class Plain(MemoryDisk):
    """A disk that overrides none of what is optional."""

    can_fast_zero = False
    block_status = homebound.block.Disk.block_status
    fast_zeroes = homebound.block.Disk.fast_zeroes
    cache = homebound.block.Disk.cache


class TestDefaults:
    def test_all_is_data(self):
        async def main() -> None:
            with Plain(PAGE) as disk:
                assert await disk.block_status(1, 100) == [Extent(100)]
                assert await disk.block_status(1, 0) == []
                with pytest.raises(OutOfRange):
                    await disk.block_status(1, PAGE)

        homebound.run(main())

    def test_no_fast_zeroes(self):
        async def main() -> None:
            with Plain(PAGE) as disk:
                await disk.write(0, b"x")
                with pytest.raises(DiskError, match="no quick way to write zeroes") as caught:
                    await disk.fast_zeroes(0, 1)
                assert caught.value.errno == errno.ENOTSUP
                assert await disk.read(0, 1) == b"x"

        homebound.run(main())

    def test_cache_checks_the_range_and_does_no_more(self):
        async def main() -> None:
            with Plain(PAGE) as disk:
                assert (disk.minimum_block, disk.maximum_transfer) == (1, None)
                await disk.cache(0, PAGE)
                with pytest.raises(OutOfRange):
                    await disk.cache(0, PAGE + 1)

        homebound.run(main())


class TestFastZeroes:
    def test_of_memory(self):
        async def main() -> None:
            with MemoryDisk(4 * PAGE) as disk:
                await disk.write(0, b"x" * 4 * PAGE)
                await disk.fast_zeroes(1, 3 * PAGE)
                assert await disk.read(0, 4 * PAGE) == b"x" + bytes(3 * PAGE) + b"x" * (PAGE - 1)
                with pytest.raises(DiskError) as caught:
                    await disk.fast_zeroes(0, PAGE, no_hole=True)
                assert caught.value.errno == errno.ENOTSUP
                assert await disk.read(0, 1) == b"x"
            with MemoryDisk(PAGE, read_only=True) as disk, pytest.raises(DiskReadOnly):
                await disk.fast_zeroes(0, 1)

        homebound.run(main())

    @pytest.mark.parametrize("no_hole", [False, True])
    def test_of_a_file(self, place: Path, *, no_hole: bool):
        image = place / "image"
        image.write_bytes(b"x" * 4 * PAGE)

        async def main() -> None:
            with FileDisk(image) as disk:
                assert disk.can_fast_zero
                await disk.fast_zeroes(0, 4 * PAGE, fua=True, no_hole=no_hole)
                await disk.cache(0, 4 * PAGE)
                assert await disk.read(0, 4 * PAGE) == bytes(4 * PAGE)
            with FileDisk(image, read_only=True) as disk, pytest.raises(DiskReadOnly):
                await disk.fast_zeroes(0, 1)

        homebound.run(main())

    def test_where_the_file_system_does_not_help(self, place: Path):
        image = place / "image"
        image.write_bytes(b"x" * PAGE)
        without_fallocate(
            """
            import errno, sys, homebound
            from homebound.block import DiskError, FileDisk

            async def main(image, length):
                with FileDisk(image) as disk:
                    try:
                        await disk.fast_zeroes(0, length)
                    except DiskError as error:
                        assert error.errno == errno.ENOTSUP, error
                    else:
                        raise AssertionError("zeroed without the file system's help")

            homebound.run(main(sys.argv[1], int(sys.argv[2])))
            """,
            image,
            PAGE,
        )
        assert image.read_bytes() == b"x" * PAGE
