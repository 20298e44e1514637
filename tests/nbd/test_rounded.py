"""Rounded-up disks against a model, and other programs' copies of odd sizes."""

from __future__ import annotations

import asyncio
import errno
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import homebound
from homebound.block import Disk, DiskError, Extent, Fault, FaultDisk, FileDisk, MemoryDisk
from homebound.nbd import Export, NBDServer
from homebound.nbd._protocol.wire import Command, Error
from homebound.nbd._server.rounded import round_up

if TYPE_CHECKING:
    from pathlib import Path

READ, WRITE, TRIM, ZERO = Command.READ, Command.WRITE, Command.TRIM, Command.WRITE_ZEROES
SIZES = [1, 511, 1000, 4097]
HOLE = Extent(505, hole=True, zero=True)

operations = st.lists(
    st.tuples(
        st.sampled_from(["read", "write", "zero", "trim", "try_read", "try_write"]),
        st.integers(0, 2048),
        st.integers(0, 2048),
        st.sampled_from([0, 0, 7]),
    ),
    max_size=12,
)


async def write(disk: Disk, what: str, offset: int, data: bytes, *, refused: object) -> bool:
    """Write or try to; return whether the data was written."""
    if refused:
        with pytest.raises(OSError, match="only zeroes may be written") as caught:
            await disk.write(offset, data) if what == "write" else disk.try_write(offset, data)
        assert caught.value.errno == errno.ENOSPC
        return False
    if what == "try_write":
        return disk.try_write(offset, data)
    await disk.write(offset, data)
    return True


async def against_model(disk: Disk, size: int, steps: list[tuple[str, int, int, int]]) -> None:
    """Do each step to the rounded disk and to a bytearray whose padding stays zero."""
    rounded = round_up(disk, 512)
    model = bytearray(rounded.size)
    for what, start, length, fill in steps:
        offset = min(start, rounded.size)
        length = min(length, rounded.size - offset)  # noqa: PLW2901
        end = offset + length
        buffer = bytearray(b"?" * length)
        if what == "read":
            await rounded.read_into(offset, memoryview(buffer))
            assert buffer == model[offset:end]
        elif what == "try_read":
            if rounded.try_read_into(offset, memoryview(buffer)):
                assert buffer == model[offset:end]
        elif what in {"write", "try_write"}:
            data = bytes([fill]) * length
            if await write(rounded, what, offset, data, refused=fill and end > size and length):
                model[offset:end] = data
        else:
            if what == "trim":  # what it leaves is undefined
                await rounded.trim(offset, length)
            await rounded.write_zeroes(offset, length)
            model[offset:end] = bytes(length)
    assert await rounded.read(0, rounded.size) == model


@given(size=st.sampled_from([1, 511, 1000, 1535]), steps=operations)
def test_a_rounded_memory_disk_against_a_model(size: int, steps: list[tuple[str, int, int, int]]):
    async def main() -> None:
        with MemoryDisk(size) as disk:
            await against_model(disk, size, steps)

    homebound.run(main())


@given(size=st.sampled_from([1, 511, 1000, 1535]), steps=operations)
def test_a_rounded_file_disk_against_a_model(
    tmp_path_factory: pytest.TempPathFactory, size: int, steps: list[tuple[str, int, int, int]]
):
    path = tmp_path_factory.mktemp("rounded") / "image"
    path.write_bytes(bytes(size))

    async def main() -> None:
        with FileDisk(path) as disk:
            await against_model(disk, size, steps)

    homebound.run(main())
    assert path.stat().st_size == size


def test_a_multiple_is_left_alone():
    with MemoryDisk(1024) as disk:
        assert round_up(disk, 512) is disk
        assert round_up(disk, 1) is disk
        assert round_up(disk, 1000).size == 2000


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_properties_and_hints_pass_through(tmp_path: Path, kind: str):
    path = tmp_path / "image"
    path.write_bytes(b"x" * 4096 + bytes(4) + b"end")

    async def main() -> None:
        with MemoryDisk(4103) if kind == "memory" else FileDisk(path) as disk:
            disk.minimum_block, disk.maximum_transfer = 2, 1 << 16
            if kind == "memory":
                await disk.write(0, path.read_bytes())
            rounded = round_up(disk, 512)
            assert (rounded.minimum_block, rounded.maximum_transfer) == (2, 1 << 16)
            assert rounded.can_fast_zero == disk.can_fast_zero
            # The padding is a hole, whatever the disk says of its own bytes.
            inside = await disk.block_status(0, 4103)
            assert await rounded.block_status(0, 4608) == [*inside, HOLE]
            assert await rounded.block_status(4103, 505) == [HOLE]
            assert await rounded.block_status(0, 4103) == inside
            await rounded.cache(0, 4608)
            if disk.can_fast_zero:
                await rounded.fast_zeroes(4096, 512)
                assert await disk.read(4090, 13) == b"x" * 6 + bytes(7)
            for beyond in (rounded.cache, rounded.block_status, rounded.fast_zeroes):
                with pytest.raises(DiskError):
                    await beyond(4608, 1)

    homebound.run(main())


def test_hints_reach_the_disk_inside():
    async def main() -> None:
        with MemoryDisk(1000) as memory:
            commands = ("fast_zeroes", "cache", "block_status")
            faults = [Fault(command=command, error="EIO") for command in commands]
            with FaultDisk(memory, faults) as disk:
                rounded = round_up(disk, 512)
                for operation in (rounded.fast_zeroes, rounded.cache, rounded.block_status):
                    with pytest.raises(DiskError) as caught:
                        await operation(512, 512)
                    assert caught.value.errno == errno.EIO

    homebound.run(main())


def test_served(in_memory: Any, tmp_path: Path):
    async def main() -> None:
        with MemoryDisk(1000) as disk:
            exports: dict[str, Disk | Export] = {
                "rounded": disk,
                "exact": Export(disk, round_size=1),
            }
            async with NBDServer(exports, round_size=512) as server:
                await server.listen_unix(tmp_path / "socket")
                client = await in_memory.client.ready(server.uris[0], b"rounded")
                client.send(WRITE, 1, 512, payload=b"x" * 488 + bytes(24))
                assert await client.reply() == (1, 0, b"")
                client.send(WRITE, 2, 999, payload=b"yy")
                assert await client.reply() == (2, Error.ENOSPC, b"")
                client.send(READ, 3, 998, 26)
                assert await client.reply(26) == (3, 0, b"xx" + bytes(24))
                client.send(READ, 4, 1024, 1)
                assert await client.reply(1) == (4, Error.EINVAL, b"")
                await client.close()
                client = await in_memory.client.ready(server.uris[0], b"exact")
                client.send(READ, 5, 1000, 1)
                assert await client.reply(1) == (5, Error.EINVAL, b"")
                await client.close()

    homebound.run(main())


async def call(*command: str, status: int = 0) -> None:
    process = await asyncio.create_subprocess_exec(*command)
    async with asyncio.timeout(30):
        assert await process.wait() == status


def needs(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")


@pytest.mark.peers
@pytest.mark.parametrize("size", SIZES)
def test_qemu_img_does_not_hang_without_it(tmp_path: Path, size: int):
    """qemu-img can copy out; when it writes the last sector back, it gets an error."""
    needs("qemu-img")
    data = bytes(n * 7 % 251 + 1 for n in range(size))
    image, copy = tmp_path / "image", tmp_path / "copy"
    image.write_bytes(data)

    async def main() -> None:
        with FileDisk(image) as disk:
            async with NBDServer(disk) as server:
                await server.listen_unix(tmp_path / "s")
                uri = server.uris[0]
                raw = ("-f", "raw", "-O", "raw")
                await call("qemu-img", "convert", *raw, uri, str(copy))
                await call("qemu-img", "convert", "-n", *raw, str(copy), uri, status=1)

    homebound.run(main())
    assert copy.read_bytes() == data + bytes(-size % 512)


@pytest.mark.peers
@pytest.mark.parametrize("size", SIZES)
def test_qemu_img_copies_out_and_back(tmp_path: Path, size: int):
    needs("qemu-img")
    data = bytes(n * 7 % 251 + 1 for n in range(size))
    image, back, copy = tmp_path / "image", tmp_path / "back", tmp_path / "copy"
    image.write_bytes(data)
    back.write_bytes(bytes(size))

    async def main() -> None:
        with FileDisk(image, read_only=True) as source, FileDisk(back) as target:
            exports = {"out": source, "back": target}
            async with NBDServer(exports, round_size=512) as server:
                await server.listen_unix(tmp_path / "s")
                out, into = (f"nbd+unix:///{name}?socket={tmp_path}/s" for name in exports)
                raw = ("-f", "raw", "-O", "raw")
                await call("qemu-img", "convert", *raw, out, str(copy))
                await call("qemu-img", "convert", "-n", *raw, str(copy), into)

    homebound.run(main())
    assert copy.read_bytes() == data + bytes(-size % 512)
    assert back.read_bytes() == data


@pytest.mark.peers
@pytest.mark.parametrize("round_size", [1, 512])
@pytest.mark.parametrize("size", SIZES)
def test_nbdcopy_copies_out_and_back(tmp_path: Path, size: int, round_size: int):
    needs("nbdcopy")
    data = bytes(n * 7 % 251 + 1 for n in range(size))
    image, back, copy = tmp_path / "image", tmp_path / "back", tmp_path / "copy"
    image.write_bytes(data)
    back.write_bytes(bytes(size))

    async def main() -> None:
        with FileDisk(image, read_only=True) as source, FileDisk(back) as target:
            exports = {"out": source, "back": target}
            async with NBDServer(exports, round_size=round_size) as server:
                await server.listen_unix(tmp_path / "s")
                out, into = (f"nbd+unix:///{name}?socket={tmp_path}/s" for name in exports)
                await call("nbdcopy", out, str(copy))
                await call("nbdcopy", str(copy), into)

    homebound.run(main())
    assert copy.read_bytes() == data + bytes(-size % round_size)
    assert back.read_bytes() == data
