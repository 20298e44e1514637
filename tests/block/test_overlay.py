"""Overlays: what they read as, what survives a kill, and commit; see kill_overlay.py, too."""

from __future__ import annotations

import asyncio
import errno
import importlib.util
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import homebound
from homebound.block import (
    DiskClosed,
    DiskError,
    DiskReadOnly,
    Extent,
    Fault,
    FaultDisk,
    FileDisk,
    MemoryDisk,
    OverlayDisk,
    SliceDisk,
)
from homebound.block import _overlay_format as fmt
from homebound.testing import settle

from .overlays import BLOCK, SIZE, content, names, read_all, run


class TestReading:
    def test_the_base_until_it_is_written(self, overlay: OverlayDisk, image: Path):
        async def main() -> None:
            model = bytearray(content(image))
            assert await read_all(overlay) == model
            for offset, data in (
                (5000, b"hello"),
                (4095, b"ab"),
                (99_999, b"!"),
                (8192, b"x" * 8192),
            ):
                await overlay.write(offset, data)
                model[offset : offset + len(data)] = data
                assert await read_all(overlay) == model
            assert content(image) != model

        run(main)

    def test_trim_of_all_with_the_last_block_short(self, overlay: OverlayDisk):
        async def main() -> None:
            await overlay.write(90_000, b"x" * 10_000)
            await overlay.trim(0, SIZE)
            assert await read_all(overlay) == bytes(SIZE)
            assert (overlay.info.data, overlay.info.zero) == (0, SIZE)
            await overlay.trim(SIZE, 0)
            await overlay.write(SIZE - 1, b"!")
            assert await read_all(overlay) == bytes(SIZE - 1) + b"!"

        run(main)

    def test_three_blocks_in_one_request(self, place: Path):
        async def main() -> None:
            with MemoryDisk(1 << 20) as base, OverlayDisk(base, place / "overlay") as disk:
                for n in range(3):
                    await disk.write((100 + n) * BLOCK, bytes([n + 1]) * BLOCK)
                want = b"".join(bytes([n + 1]) * BLOCK for n in range(3))
                assert await disk.read(100 * BLOCK, 3 * BLOCK) == want
                assert await disk.read(99 * BLOCK, 5 * BLOCK) == bytes(BLOCK) + want + bytes(BLOCK)

        run(main)

    def test_beyond_4_gib(self, place: Path):
        async def main() -> None:
            with MemoryDisk(8 << 30) as base, OverlayDisk(base, place / "overlay") as disk:
                at = (5 << 30) + 12345
                await base.write(at + 100, b"base")
                await disk.write(at, b"data", fua=True)
                assert await disk.read(at - 2, 8) == b"\0\0data\0\0"
                assert await disk.read(at + 99, 6) == b"\0base\0"
            with MemoryDisk(8 << 30) as base, OverlayDisk(base, place / "overlay") as disk:
                assert await disk.read(at - 2, 8) == b"\0\0data\0\0"
            assert (place / "overlay").stat().st_blocks * 512 < 8 << 20

        run(main)

    def test_large_blocks(self):
        async def main() -> None:
            with MemoryDisk(1 << 40) as base, OverlayDisk(base) as disk:
                assert disk.info.block_size == 65536
                await disk.write((1 << 40) - 1, b"!")
                assert await disk.read((1 << 40) - 3, 3) == b"\0\0!"

        run(main)

    @pytest.mark.parametrize("size", [1, 4096, 50_000, SIZE + 1, 3 * SIZE])
    def test_of_another_size_than_its_base(self, base: FileDisk, image: Path, size: int):
        async def main() -> None:
            with OverlayDisk(base, size=size) as disk:
                model = bytearray(content(image)[:size].ljust(size, b"\0"))
                assert await read_all(disk) == model
                buffer = memoryview(bytearray(size))
                if disk.try_read_into(0, buffer):
                    assert buffer == model
                await disk.write(size - 1, b"!")
                model[-1:] = b"!"
                assert await read_all(disk) == model
                extents = await disk.block_status(0, size)
                assert sum(each.length for each in extents) == size

        run(main)

    def test_base_with_large_minimum_block(self):
        class Strict(MemoryDisk):
            minimum_block = 512

            async def read_into(self, offset: int, buffer: memoryview) -> None:
                assert offset % 512 == 0
                assert len(buffer) % 512 == 0
                await super().read_into(offset, buffer)

            def try_read_into(self, offset: int, buffer: memoryview) -> bool:
                assert not (offset | len(buffer)) % 512
                return super().try_read_into(offset, buffer)

        async def main() -> None:
            with Strict(1 << 16) as base, OverlayDisk(base) as disk:
                await base.write(1000, b"abc")
                assert await disk.read(1001, 1) == b"b"
                assert not disk.try_read_into(1001, memoryview(bytearray(1)))
                await disk.write(1001, b"B")
                assert await disk.read(999, 5) == b"\0aBc\0"

        run(main)

    def test_base_that_takes_whole_large_blocks_and_little_at_once(self):
        """As an export of a server may be: each request is of whole blocks, and none too large."""
        granule, most = 4 * BLOCK, 8 * BLOCK

        class Narrow(MemoryDisk):
            minimum_block = granule
            maximum_transfer = most + 1

            def try_read_into(self, offset: int, buffer: memoryview) -> bool:
                del offset, buffer
                return False

            async def read_into(self, offset: int, buffer: memoryview) -> None:
                assert not (offset | len(buffer)) % granule
                assert len(buffer) <= most
                assert super().try_read_into(offset, buffer)

            async def block_status(self, offset: int, length: int) -> list[Extent]:
                assert not (offset | length) % granule
                return await super().block_status(offset, length)

            async def cache(self, offset: int, length: int) -> None:
                assert not (offset | length) % granule
                await super().cache(offset, length)

        async def main() -> None:
            size = 8 * most
            data = random.Random(2).randbytes(size - most) + bytes(most)
            with Narrow(size) as base, OverlayDisk(base) as disk:
                await base.write(0, data)
                await base.write_zeroes(size - most, most)
                assert await disk.read(0, size) == data
                assert await disk.read(most - 1, 2 * most) == data[most - 1 : 3 * most - 1]
                await disk.cache(BLOCK, BLOCK)
                for start, stop in ((BLOCK, 2 * BLOCK), (most + 5, size - 7), (0, size)):
                    told = await disk.block_status(start, stop - start)
                    zero = max(0, stop - (size - most))
                    assert [each for each in told if each.length] == [
                        Extent(length, hole=hole, zero=hole)
                        for length, hole in ((stop - start - zero, False), (zero, True))
                        if length
                    ]

        run(main)

    def test_extents(self):
        async def main() -> None:
            with MemoryDisk(8 * BLOCK) as base, OverlayDisk(base, size=10 * BLOCK) as disk:
                await base.write(BLOCK, b"x" * BLOCK)
                await disk.write(3 * BLOCK, b"x")
                await disk.write_zeroes(BLOCK // 2, BLOCK)
                assert await disk.block_status(0, 10 * BLOCK) == [
                    Extent(2 * BLOCK),
                    Extent(BLOCK, hole=True, zero=True),
                    Extent(BLOCK),
                    Extent(6 * BLOCK, hole=True, zero=True),
                ]
                await disk.cache(0, 10 * BLOCK)

        run(main)

    def test_attempts(self, overlay: OverlayDisk):
        async def main() -> None:
            block = b"x" * BLOCK
            assert not overlay.try_write(BLOCK, block)
            await overlay.write(BLOCK, block)
            if not overlay.try_write(BLOCK, b"y" * BLOCK):
                await overlay.write(BLOCK, b"y" * BLOCK)  # a file need not be quick
            await overlay.trim(2 * BLOCK, BLOCK)
            assert not overlay.try_write(BLOCK, block * 2)
            buffer = memoryview(bytearray(2 * BLOCK))
            if not overlay.try_read_into(BLOCK, buffer):
                await overlay.read_into(BLOCK, buffer)
            assert buffer == b"y" * BLOCK + bytes(BLOCK)

        run(main)

    def test_attempts_in_memory(self):
        async def main() -> None:
            with MemoryDisk(SIZE) as base, OverlayDisk(base) as disk:
                await disk.write(BLOCK, b"x" * BLOCK)
                await disk.trim(2 * BLOCK, BLOCK)
                assert disk.try_write(BLOCK + 1, b"y")
                buffer = memoryview(bytearray(3 * BLOCK))
                assert disk.try_read_into(BLOCK, buffer)
                assert buffer == b"xy" + b"x" * (BLOCK - 2) + bytes(2 * BLOCK)

        run(main)


class TestKeeping:
    def test_closed_and_opened_again(self, base: FileDisk, place: Path):
        async def main() -> None:
            with OverlayDisk(base, place / "overlay") as disk:
                await disk.write(5000, b"hello")
                await disk.trim(8192, 4096)
                before, info = await read_all(disk), disk.info
            with OverlayDisk(base, place / "overlay") as disk:
                assert await read_all(disk) == before
                assert disk.info == info
                assert (info.data, info.zero) == (4096, 4096)
                assert info.base_path == base.path
                assert info.path == str(place / "overlay")
            assert names(place) == ["base", "overlay"]

        run(main)

    def test_opened_without_a_change_is_not_changed(self, base: FileDisk, place: Path):
        OverlayDisk(base, place / "overlay").close()
        before = (place / "overlay").stat().st_mtime_ns
        OverlayDisk(base, place / "overlay").close()
        assert (place / "overlay").stat().st_mtime_ns == before
        with OverlayDisk(base, place / "overlay", read_only=True) as lower:
            OverlayDisk(lower, place / "upper").close()  # so it can be a base
            OverlayDisk(lower, place / "upper").close()

    def test_without_a_close(self, base: FileDisk, place: Path):
        """As after kill -9: from the journal, and without what was not flushed."""

        async def main() -> None:
            path = place / "overlay"
            disk = OverlayDisk(base, path)
            await disk.write(5000, b"stable")
            await disk.flush()
            await disk.write(50_000, b"lost")
            before = await disk.read(0, 50_000)
            copy = place / "copy"
            copy.write_bytes(content(path))
            for read_only in (True, False, False):
                with OverlayDisk(base, copy, read_only=read_only) as again:
                    assert await again.read(0, 50_000) == before
                    assert await again.read(50_000, 4) != b"lost"
            disk.close()

        run(main)

    @pytest.mark.parametrize("page", [0, 2])
    def test_pages_torn_after_the_journal_was_written(self, base: FileDisk, place: Path, page: int):
        async def main() -> None:
            path = place / "overlay"
            with OverlayDisk(base, path) as disk:
                await disk.write(5000, b"stable")
                assert disk._file is not None
                if page == 0:
                    disk._file.change_header(
                        committing=True, base_mtime=disk._file.header.base_mtime
                    )
                else:
                    await disk.flush()
                torn = bytearray(content(path))
                before = await read_all(disk)
            torn[page * 4096 + 512 : page * 4096 + 1024] = random.Random(2).randbytes(512)
            copy = place / "copy"
            copy.write_bytes(torn)
            with OverlayDisk(base, copy) as again:
                assert page == 0 or await read_all(again) == before

        run(main)

    def test_torn_journal_is_none(self, base: FileDisk, place: Path):
        async def main() -> None:
            path = place / "overlay"
            with OverlayDisk(base, path) as disk:
                before = await read_all(disk)
                old = content(path)
                await disk.write(5000, b"hello")
                await disk.flush()
                new = content(path)
                assert disk._file is not None
                header = disk._file.header
            torn = bytearray(old)
            torn[4096:8192] = new[4096:8192]  # the head without its body
            (place / "copy").write_bytes(torn)
            with OverlayDisk(base, place / "copy") as again:
                assert await read_all(again) == before
            body = header.journal_offset
            torn[body : body + 5000] = new[body : body + 5000]
            (place / "copy").write_bytes(torn)
            with OverlayDisk(base, place / "copy") as again:
                assert await read_all(again) == before

        run(main)

    def test_one_flush_does_for_all_that_wait(self, base: FileDisk, place: Path):
        async def main() -> None:
            with OverlayDisk(base, place / "overlay") as disk:
                writes = [disk.write(n * BLOCK, b"x" * BLOCK, fua=True) for n in range(20)]
                await asyncio.gather(*writes)
                assert disk._begun < 20
                begun = disk._begun
                await disk.write(0, b"y" * BLOCK, fua=True)  # its block is told of already
                assert disk._begun == begun

        run(main)

    def test_close_under_load(self, base: FileDisk, place: Path):
        async def main() -> None:
            disk = OverlayDisk(base, place / "overlay")
            done: list[int] = []

            async def write(n: int) -> None:
                await disk.write(n * BLOCK, b"x" * BLOCK)
                done.append(n)

            tasks = [asyncio.create_task(write(n)) for n in range(20)]
            await asyncio.sleep(0)
            await homebound.to_worker(disk.close)
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            assert {type(each) for each in outcomes} <= {type(None), DiskClosed}
            disk.close()
            with OverlayDisk(base, place / "overlay") as again:
                for n in done:
                    assert await again.read(n * BLOCK, BLOCK) == b"x" * BLOCK

        run(main)

    def test_no_state_before_its_data(self, base: FileDisk, place: Path):
        async def main() -> None:
            with OverlayDisk(base, place / "overlay") as disk:
                store = disk._store
                disk._store = faulty = FaultDisk(store, [Fault(command="write", hang=True)])
                task = asyncio.create_task(disk.write(0, b"x" * BLOCK))
                await settle()
                assert faulty.hanging == 1
                await disk.flush()
                assert disk.info.data == 0
                (place / "copy").write_bytes(content(place / "overlay"))
                with OverlayDisk(base, place / "copy") as again:
                    assert again.info.data == 0
                faulty.release()
                await task
                disk._store = store

        run(main)


class TestCommit:
    def test_moves_all_to_the_base(self, image: Path, place: Path):
        async def main() -> None:
            with FileDisk(image) as base, OverlayDisk(base, place / "overlay") as disk:
                await disk.write(5000, b"hello")
                await disk.write(SIZE - 1, b"!")
                await disk.trim(8192, 8192)
                before = await read_all(disk)
                await disk.commit()
                assert content(image) == before == await read_all(disk)
                info = disk.info
                assert (info.data, info.zero, info.committing) == (0, 0, False)
                await disk.write(0, b"again")
            with FileDisk(image) as base, OverlayDisk(base, place / "overlay") as disk:
                assert await disk.read(0, 5) == b"again"

        run(main)

    def test_in_memory(self):
        async def main() -> None:
            with MemoryDisk(SIZE) as base, OverlayDisk(base) as disk:
                await disk.write(5000, b"hello")
                await disk.commit()
                assert await base.read(5000, 5) == b"hello"

        run(main)

    def test_interrupted_is_repeated(self, image: Path, place: Path):
        async def main() -> None:
            with FileDisk(image) as file:
                rules = [Fault(command="write", nth=2, error="EIO")]
                with FaultDisk(file, rules) as base, OverlayDisk(base, place / "overlay") as disk:
                    await disk.write(0, b"one")
                    await disk.write(50_000, b"two")
                    before = await read_all(disk)
                    with pytest.raises(DiskError, match="on purpose"):
                        await disk.commit()
                    assert disk.info.committing
                    assert await read_all(disk) == before
            with FileDisk(image) as file, OverlayDisk(file, place / "overlay") as disk:
                assert disk.info.committing
                assert await read_all(disk) == before
                await disk.commit()
                assert content(image) == before
                assert not disk.info.committing
            with FileDisk(image) as file, OverlayDisk(file, place / "overlay") as disk:
                assert await read_all(disk) == before

        run(main)

    def test_requests_wait(self, image: Path):
        async def main() -> None:
            with FileDisk(image) as base, OverlayDisk(base) as disk:
                await disk.write(0, b"x" * SIZE)
                task = asyncio.create_task(disk.commit())
                await asyncio.sleep(0)
                await disk.write(0, b"y")
                assert task.done()
                await task
                assert disk.info.data == BLOCK

        run(main)

    def test_refused(self, base: FileDisk):
        async def main() -> None:
            with OverlayDisk(base) as disk, pytest.raises(DiskReadOnly, match="FileDisk"):
                await disk.commit()
            with MemoryDisk(SIZE) as memory, OverlayDisk(memory, size=2 * SIZE) as disk:
                await disk.write(SIZE - 1, b"ab")
                with pytest.raises(DiskError, match="past the end of the base") as caught:
                    await disk.commit()
                assert caught.value.errno == errno.ENOSPC
                assert await memory.read(SIZE - 1, 1) == b"\0"

        run(main)


def test_a_slice_as_base(base: FileDisk, place: Path):
    async def main() -> None:
        with SliceDisk(base, 10_000, 50_000) as part, OverlayDisk(part, place / "overlay") as disk:
            assert disk.info.base_path == base.path
            assert await disk.read(0, 100) == await base.read(10_000, 100)

    run(main)


def test_repr(base: FileDisk, place: Path):
    with OverlayDisk(base, place / "overlay") as disk:
        assert repr(disk) == f"<OverlayDisk '{place}/overlay' (100000 bytes) on {base!r}>"
    with OverlayDisk(base, read_only=True) as disk:
        assert repr(disk) == f"<OverlayDisk in memory (100000 bytes, read-only) on {base!r}>"


@given(st.lists(st.integers(0, 2), max_size=fmt.STATES_A_PAGE), st.integers(0, 1 << 62))
def test_pages_of_states(states: list[int], number: int):
    body = fmt.pack_states(bytes(states))
    page = fmt.seal(number, b"uuid" * 4, body)
    assert len(page) == fmt.PAGE
    found = fmt.unpack_states(fmt.unseal(number, b"uuid" * 4, page))
    assert found == bytes(states).ljust(fmt.STATES_A_PAGE, b"\0")
    with pytest.raises(fmt.Damaged):
        fmt.unseal(number + 1, None, page)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_killed_at_any_moment(place: Path):
    """200 times: `python tests/block/kill_overlay.py 200`."""
    file = Path(__file__).with_name("kill_overlay.py")
    spec = importlib.util.spec_from_file_location("kill_overlay", file)
    assert spec is not None
    assert spec.loader is not None
    kill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(kill)
    assert kill.run(6, place, random.randrange(1 << 30)).last
