"""Copies of one disk to another, against bytes in memory."""

from __future__ import annotations

import asyncio
import random
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

import homebound
from homebound.block import Disk, DiskError, Extent, Fault, FaultDisk, MemoryDisk, SliceDisk
from homebound.block._copying.compare import Comparison
from homebound.block._copying.engine import PIECE, WINDOW, Copy
from homebound.block._copying.errors import CopyError, Differs
from homebound.block._copying.plan import Plan
from homebound.block._copying.streams import CopyOut
from homebound.block._copying.zeroes import runs_of
from homebound.testing import settle

if TYPE_CHECKING:
    from pathlib import Path

KIB = 1024


class Coarse(SliceDisk):
    """A disk that takes whole blocks only, and not many at once."""

    def __init__(self, disk: MemoryDisk, block: int, largest: int | None) -> None:
        super().__init__(disk, 0, disk.size)
        self.minimum_block = block
        self.maximum_transfer = largest

    def check_range(self, offset: int, length: int) -> None:
        super().check_range(offset, length)
        assert offset % self.minimum_block == 0
        assert length % self.minimum_block == 0 or offset + length == self.size

    def check_transfer(self, offset: int, length: int) -> None:
        self.check_range(offset, length)
        assert self.maximum_transfer is None or length <= self.maximum_transfer

    def try_read_into(self, offset: int, buffer: memoryview) -> bool:
        self.check_transfer(offset, len(buffer))
        return super().try_read_into(offset, buffer)

    def try_write(self, offset: int, data: bytes | bytearray | memoryview) -> bool:
        self.check_transfer(offset, len(data))
        return super().try_write(offset, data)


def content(size: int, seed: int) -> bytes:
    """Random bytes with runs of zeroes of all lengths."""
    chosen = random.Random(seed)
    parts = []
    while size > 0:
        length = min(size, chosen.choice([1, 511, 4096, 5000, 64 * KIB, 200 * KIB, 700 * KIB]))
        parts.append(bytes(length) if chosen.random() < 0.5 else chosen.randbytes(length))
        size -= length
    return b"".join(parts)


async def disk_of(data: bytes, size: int | None = None, rest: bytes = b"") -> MemoryDisk:
    disk = MemoryDisk(size or len(data))
    step = 64 * KIB
    for offset in range(0, len(data), step):  # zeroes stay holes
        part = data[offset : offset + step]
        if part.strip(b"\0"):
            await disk.write(offset, part)
    if rest:
        await disk.write(disk.size - len(rest), rest)
    return disk


@given(
    size=st.integers(1, 3 << 20),
    more=st.integers(0, 100_000),
    blocks=st.tuples(st.sampled_from([1, 512, 4096, 65536]), st.sampled_from([1, 512, 65536])),
    fresh=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_any_content_arrives(
    size: int, more: int, blocks: tuple[int, int], *, fresh: bool, seed: int
):
    data = content(size, seed)
    old = bytes(size + more) if fresh else content(size + more, seed + 1)

    async def main() -> None:
        with await disk_of(data) as below, await disk_of(old) as above:
            largest = 128 * KIB if seed % 2 else None
            if size % blocks[0]:  # no server has a size that is not whole blocks
                source = Coarse(below, 1, largest)
            else:
                source = Coarse(below, blocks[0], largest)
            target: Disk = above
            if above.size % blocks[1] == 0:
                target = Coarse(above, blocks[1], largest)
            copy = Copy(source, target, fresh=fresh)
            await copy.run()
            assert bytes(await above.read(0, above.size)) == data + old[size:]
            assert copy.done_until == size
            assert copy.written + copy.zeroes == size
            await Comparison(source, target).run()

    homebound.run(main())


@given(
    runs=st.lists(st.tuples(st.integers(1, 100_000), st.booleans()), min_size=1, max_size=40),
    block=st.sampled_from([1, 512, 4096]),
)
def test_only_what_has_changed_is_copied(runs: list[tuple[int, bool]], block: int):
    size = -(-sum(length for length, _ in runs) // block) * block
    new, old = b"n" * size, b"o" * size

    async def changed(offset: int, length: int) -> list[tuple[int, bool]]:
        assert (offset, length) == (0, size)
        return [*runs, (size - sum(count for count, _ in runs), False)]

    async def main() -> None:
        with await disk_of(new) as source, await disk_of(old) as below:
            target = Coarse(below, block, None)
            await Copy(source, target, changed=changed).run()
            got = bytes(await below.read(0, size))
            await Comparison(source, target, changed=changed).run()
        offset = 0
        expected = bytearray(old)
        for length, flag in runs:
            if flag:
                start = offset // block * block
                stop = min(size, -(-(offset + length) // block) * block)
                expected[start:stop] = b"n" * (stop - start)
            offset += length
        assert got == bytes(expected)

    homebound.run(main())


def test_holes_are_neither_read_nor_written():
    async def main() -> None:
        with MemoryDisk(1 << 33) as source, MemoryDisk(1 << 33) as below:
            await source.write(1 << 32, b"x" * 4096)
            target = FaultDisk(below, [Fault(command="write_zeroes", error="EIO")])
            copy = Copy(source, target, fresh=True)
            await copy.run()
            assert copy.read <= 2 * PIECE
            assert await below.read(1 << 32, 4096) == b"x" * 4096
            assert sum(e.length for e in await below.block_status(0, 1 << 33) if not e.hole) < PIECE

    homebound.run(main())


def test_many_requests_are_in_flight_but_not_more():
    async def main() -> int:
        with await disk_of(b"x" * (WINDOW + 9) * PIECE) as below, MemoryDisk(below.size) as target:
            source = FaultDisk(below, [Fault(command="read", hang=True)])
            copy = asyncio.ensure_future(Copy(source, target).run())
            await settle()
            hanging = source.hanging
            source.release()
            await copy
            assert await target.read(0, target.size) == await below.read(0, below.size)
            return hanging

    assert homebound.run(main()) == WINDOW


def test_a_read_error_names_the_block_and_the_first_of_several():
    rules = [
        Fault(command="read", range=range(5 * PIECE + 8200, 5 * PIECE + 8201), error="EIO"),
        Fault(command="read", range=range(2 * PIECE + 4096, 2 * PIECE + 9000), error="ENOMEDIUM"),
    ]

    async def main() -> None:
        with await disk_of(b"x" * 8 * PIECE) as below, MemoryDisk(below.size) as target:
            await Copy(FaultDisk(below, rules), target).run()

    with pytest.raises(CopyError) as caught:
        homebound.run(main())
    assert (caught.value.action, caught.value.target) == ("read", False)
    assert caught.value.offset == 2 * PIECE + 4096
    assert "No medium found" in str(caught.value)


@pytest.mark.parametrize("command", ["write", "write_zeroes", "flush"])
def test_an_error_of_the_target(command: str):
    async def main() -> None:
        data = b"x" * PIECE + bytes(PIECE)
        with await disk_of(data) as source, await disk_of(b"o" * len(data)) as below:
            await Copy(source, FaultDisk(below, [Fault(command=command, error="ENOSPC")])).run()

    with pytest.raises(CopyError, match="No space left") as caught:
        homebound.run(main())
    assert caught.value.target
    assert caught.value.offset == (PIECE if command == "write_zeroes" else 0)


def test_extents_that_cannot_be_told_are_read():
    async def main() -> None:
        with await disk_of(bytes(PIECE) + b"x" * PIECE) as below, MemoryDisk(below.size) as target:
            source = FaultDisk(below, [Fault(command="block_status", error="EINVAL")])
            copy = Copy(source, target)
            await copy.run()
            assert copy.read == below.size
            assert await target.read(0, target.size) == await below.read(0, below.size)

    homebound.run(main())


def test_what_has_changed_must_be_known():
    async def changed(offset: int, length: int) -> list[tuple[int, bool]]:
        raise DiskError(5, f"no bitmap at {offset}, {length}")

    async def main() -> None:
        with MemoryDisk(PIECE) as source, MemoryDisk(PIECE) as target:
            await Copy(source, target, changed=changed).run()

    with pytest.raises(CopyError, match=f"no bitmap at 0, {PIECE}"):
        homebound.run(main())


def test_done_is_what_nothing_before_is_open():
    async def main() -> list[int]:
        with await disk_of(b"x" * 4 * PIECE) as below, MemoryDisk(below.size) as target:
            where = range(PIECE, 2 * PIECE)
            source = FaultDisk(below, [Fault(command="read", range=where, hang=True)])
            copy = Copy(source, target)
            running = asyncio.ensure_future(copy.run())
            await settle()
            seen = [copy.read, copy.done_until]
            source.release()
            await running
            return [*seen, copy.done_until]

    assert homebound.run(main()) == [3 * PIECE, PIECE, 4 * PIECE]


def test_a_copy_from_an_offset_changes_nothing_before():
    async def main() -> None:
        with await disk_of(b"x" * 3 * PIECE) as source, MemoryDisk(source.size) as target:
            await Copy(source, target, start=PIECE).run()
            assert await target.read(0, source.size) == bytes(PIECE) + b"x" * 2 * PIECE

    homebound.run(main())


@pytest.mark.parametrize("where", [0, 4095, 300_000, PIECE * 3 + 17, PIECE * 4 + 998])
def test_a_comparison_finds_each_byte(where: int):
    size = PIECE * 4 + 999  # the last part of it zeroes, and a hole

    async def main() -> None:
        with await disk_of(b"x" * 2 * PIECE, size) as source, MemoryDisk(size + 3000) as target:
            await Copy(source, target).run()
            byte = (await target.read(where, 1))[0]
            await target.write(where, bytes([byte ^ 1]))
            await Comparison(source, target).run()

    with pytest.raises(Differs) as caught:
        homebound.run(main())
    assert caught.value.offset == where


def test_a_cancelled_copy_leaves_no_request():
    async def main() -> None:
        with await disk_of(b"x" * 4 * PIECE) as below, MemoryDisk(below.size) as target:
            source = FaultDisk(below, [Fault(command="read", hang=True)])
            running = asyncio.ensure_future(Copy(source, target).run())
            await settle()
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            assert source.hanging == 0

    homebound.run(main())


def test_a_stream_has_all_that_precedes_the_first_failure(tmp_path: Path):
    """The second block takes longest; those behind it have failed long before."""
    slow, *failing = (range(at * PIECE, (at + 1) * PIECE) for at in (1, 3, 2))
    rules = [Fault(command="read", range=slow, delay=0.1)]
    rules += [Fault(command="read", range=each, error="EIO") for each in failing]
    content = random.Random(0).randbytes(8 * PIECE)

    async def main(fd: int) -> None:
        with await disk_of(content) as below:
            await CopyOut(FaultDisk(below, rules), fd).run()

    with (tmp_path / "copy").open("wb") as file, pytest.raises(CopyError) as caught:
        homebound.run(main(file.fileno()))
    assert caught.value.offset == 2 * PIECE
    assert (tmp_path / "copy").read_bytes() == content[: 2 * PIECE]


def test_short_zeroes_are_read_with_their_surroundings():
    class Striped(MemoryDisk):
        async def block_status(self, offset: int, length: int) -> list[Extent]:
            assert offset == 0
            count = length // 8192
            return [Extent(4096), Extent(4096, hole=True, zero=True)] * count

    async def main() -> list[tuple[int, int, bool]]:
        found = []
        with Striped(PIECE) as source:
            plan = Plan(source, range(PIECE), piece=PIECE)
            while (piece := await plan.take()) is not None:
                found.append((piece.offset, piece.length, piece.zero))
                plan.finish(piece)
        return found

    assert homebound.run(main()) == [(0, PIECE, False)]


@given(st.lists(st.tuples(st.integers(1, 3), st.booleans()), max_size=9), st.integers(0, 4095))
def test_runs_of_zeroes(parts: list[tuple[int, bool]], rest: int):
    data = b"".join((b"\0" if zero else b"x") * 4096 * count for count, zero in parts)
    data += b"x" * rest
    runs = list(runs_of(bytearray(data), len(data)))
    assert [start for start, _, _ in runs] == [0, *[stop for _, stop, _ in runs]][: len(runs)]
    found = [(b"\0" if zero else b"x") * (stop - start) for start, stop, zero in runs]
    assert b"".join(found) == data
    assert all(one[2] != two[2] for one, two in pairwise(runs))
