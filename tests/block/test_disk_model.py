"""Every disk against a bytearray: whatever is done to both, they hold the same."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

import homebound
from homebound.block import Disk, FileDisk, MemoryDisk, OverlayDisk

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE = 300_001  # no multiple of anything
PLACES = {"memory": "/dev/shm", "disk": "/var/tmp"}

ranges = st.tuples(
    st.one_of(st.integers(0, SIZE), st.sampled_from([0, 4096, 8192, 65536, SIZE])),
    st.one_of(st.integers(0, SIZE), st.sampled_from([0, 1, 4095, 4096, 4097, 65536])),
)
kinds = st.sampled_from(
    ["write", "try_write", "write_zeroes", "trim", "read", "try_read", "flush", "block_status"]
)
Step = tuple[str, tuple[int, int], bool, bool]
steps = st.lists(st.tuples(kinds, ranges, st.booleans(), st.booleans()), max_size=20)


@pytest.fixture(scope="module", params=["MemoryDisk", "OverlayDisk", *PLACES])
def disk(request: pytest.FixtureRequest) -> Iterator[Disk]:
    if request.param == "MemoryDisk":
        with MemoryDisk(SIZE) as disk:
            yield disk
        return
    if request.param == "OverlayDisk":
        with (
            tempfile.TemporaryDirectory() as directory,
            MemoryDisk(SIZE - 50_000) as base,
            OverlayDisk(base, Path(directory, "overlay"), size=SIZE) as overlay,
        ):
            base.try_write(0, b"base" * (base.size // 4))
            yield overlay
        return
    with tempfile.TemporaryDirectory(dir=PLACES[request.param]) as directory:
        image = Path(directory, "image")
        image.write_bytes(bytes(SIZE))
        with FileDisk(image) as file_disk:
            yield file_disk


async def compare_status(disk: Disk, model: bytearray, offset: int, end: int) -> None:
    for extent in await disk.block_status(offset, end - offset):
        assert not extent.zero or not any(model[offset : offset + extent.length])
        offset += extent.length
    assert offset == end


async def step(disk: Disk, model: bytearray, what: Step) -> None:
    kind, (offset, length), fua, no_hole = what
    length = min(length, SIZE - offset)
    end = offset + length
    data = bytes([len(model) % 251 ^ offset % 256]) * length
    match kind:
        case "write":
            await disk.write(offset, data, fua=fua)
            model[offset:end] = data
        case "try_write":
            if not disk.try_write(offset, data):
                await disk.write(offset, memoryview(data))
            model[offset:end] = data
        case "write_zeroes":
            await disk.write_zeroes(offset, length, fua=fua, no_hole=no_hole)
            model[offset:end] = bytes(length)
        case "trim":
            await disk.trim(offset, length, fua=fua)
            model[offset:end] = await disk.read(offset, length)  # whatever it is now
        case "read":
            assert await disk.read(offset, length) == model[offset:end]
        case "try_read":
            buffer = memoryview(bytearray(length))
            if disk.try_read_into(offset, buffer):
                assert buffer == model[offset:end]
        case "block_status":
            await compare_status(disk, model, offset, end)
        case _:
            await disk.flush()


@given(steps=steps)
def test_like_a_bytearray(disk: Disk, steps: list[Step]):
    async def main() -> None:
        await disk.write_zeroes(0, SIZE)
        model = bytearray(SIZE)
        for one in steps:
            await step(disk, model, one)
        assert await disk.read(0, SIZE) == model

    homebound.run(main())
