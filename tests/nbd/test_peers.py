"""Other programs' clients: nbdinfo, nbdcopy, qemu, fio."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound.block import FileDisk, MemoryDisk
from homebound.nbd import Export, NBDServer

from .peers import peer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.peers

SIZE = 32 << 20


@pytest.fixture(params=["memory", "tmpfs", "disk"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextlib.contextmanager
def disk_of(kind: str) -> Any:
    if kind == "memory":
        with MemoryDisk(SIZE) as disk:
            yield disk
        return
    parent = {"tmpfs": "/dev/shm", "disk": "/var/tmp"}[kind]
    with tempfile.TemporaryDirectory(dir=parent) as directory:
        image = Path(directory, "image")
        with image.open("wb") as file:
            file.truncate(SIZE)
        with FileDisk(image) as file_disk:
            yield file_disk


@contextlib.asynccontextmanager
async def serving(exports: Any, path: Path, threads: int = 0) -> AsyncIterator[str]:
    """Serve `exports`; yield the URI of the default one."""
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(homebound.IOThreadPool(threads)) if threads else ()
        async with NBDServer(exports, io_threads=pool) as server:
            await server.listen_unix(path / "socket")
            yield server.uris[0]


def noise(size: int) -> bytes:
    """Make random bytes with holes, as images have."""
    random.seed(1)
    pieces = (random.randbytes(1 << 16) if n % 3 else bytes(1 << 16) for n in range(size >> 16))
    return b"".join(pieces)


def test_nbdinfo_sees_what_is_offered(tmp_path: Path):
    async def main() -> None:
        with MemoryDisk(SIZE) as disk:
            async with serving(disk, tmp_path) as uri:
                (export,) = json.loads(await peer("nbdinfo", "--json", uri))["exports"]
        assert export["export-size"] == SIZE
        for flag in ("can_flush", "can_fua", "can_trim", "can_zero", "can_multi_conn"):
            assert export[flag], flag
        for flag in ("can_df", "can_cache", "can_fast_zero"):
            assert export[flag], flag
        for flag in ("is_read_only", "is_rotational"):
            assert not export[flag], flag
        assert "base:allocation" in export["contexts"]
        sizes = [export[f"block_size_{what}"] for what in ("minimum", "preferred", "maximum")]
        assert sizes == [1, 4096, 32 << 20]

    homebound.run(main())


def test_nbdinfo_lists(tmp_path: Path):
    async def main() -> None:
        with MemoryDisk(SIZE) as one, MemoryDisk(2 * SIZE) as two:
            exports = {"ö/1": one, "two": Export(two, "the second", read_only=True)}
            async with serving(exports, tmp_path) as uri:
                listed = json.loads(await peer("nbdinfo", "--list", "--json", uri))["exports"]
        found = [(e["export-name"], e["export-size"], e["is_read_only"]) for e in listed]
        assert found == [("ö/1", SIZE, False), ("two", 2 * SIZE, True)]
        assert listed[1]["description"] == "the second"

    homebound.run(main())


def test_qemu_io_does_everything(kind: str, tmp_path: Path):
    script = [
        "write -P 1 0 1M",
        "write -P 2 -f 512k 4k",
        "read -P 1 0 512k",
        "read -P 2 512k 4k",
        "write -z 64k 64k",
        "write -z -u 256k 64k",
        "read -P 0 64k 64k",
        "read -P 0 256k 64k",
        "aio_write -P 3 2M 3M",
        "aio_write -P 4 8M 64k",
        "aio_flush",
        "read -P 3 2M 3M",
        "discard 2M 1M",
        "flush",
        "write -P 5 32767k 1k",
        "read -P 5 32767k 1k",
        "write -P 6 1 1",
        "read -P 6 1 1",
    ]

    async def main() -> None:
        with disk_of(kind) as disk:
            async with serving(disk, tmp_path) as uri:
                options = [option for line in script for option in ("-c", line)]
                output = await peer("qemu-io", "-f", "raw", *options, uri)
        assert "failed" not in output.lower()

    homebound.run(main())


def test_qemu_io_cannot_write_to_a_read_only_export(tmp_path: Path):
    async def main() -> None:
        with MemoryDisk(SIZE) as disk:
            async with serving(Export(disk, read_only=True), tmp_path) as uri:
                await peer("qemu-io", "-r", "-f", "raw", "-c", "read -P 0 0 1M", uri)
                output = await peer("qemu-io", "-f", "raw", "-c", "write 0 1M", uri, fails=True)
        assert "Permission denied" in output

    homebound.run(main())


@pytest.mark.parametrize("threads", [0, 2])
def test_qemu_img_copies_there_and_back(kind: str, tmp_path: Path, threads: int):
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(noise(SIZE))

    async def main() -> None:
        with disk_of(kind) as disk:
            async with serving(disk, tmp_path, threads) as uri:
                raw = ("-f", "raw", "-O", "raw")
                await peer("qemu-img", "convert", "-n", "-W", "-m", "8", *raw, source, uri)
                assert "identical" in await peer(
                    "qemu-img", "compare", "-f", "raw", "-F", "raw", source, uri
                )
                await peer("qemu-img", "convert", "-m", "8", *raw, uri, back)

    homebound.run(main())
    assert back.read_bytes() == source.read_bytes()


@pytest.mark.parametrize("threads", [0, 2])
def test_nbdcopy_copies_there_and_back_on_four_connections(kind: str, tmp_path: Path, threads: int):
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(noise(SIZE))

    async def main() -> None:
        with disk_of(kind) as disk:
            async with serving(disk, tmp_path, threads) as uri:
                await peer("nbdcopy", "--flush", "-C", "4", source, uri)
                await peer("nbdcopy", "-C", "4", uri, back)

    homebound.run(main())
    assert back.read_bytes() == source.read_bytes()


@pytest.mark.parametrize("threads", [0, 2])
def test_fio_finds_what_it_wrote(kind: str, tmp_path: Path, threads: int):
    async def check(uri: str) -> str:
        return await peer(
            "fio",
            "--name=check",
            "--verify_state_save=0",  # to the current directory
            "--ioengine=nbd",
            f"--uri={uri}",
            "--rw=randwrite",
            "--bsrange=512-128k",
            "--bs_unaligned",
            "--iodepth=32",
            "--size=8M",
            "--offset_increment=8M",
            "--numjobs=4",
            "--thread",
            "--verify=crc32c",
            "--verify_fatal=1",
            "--fsync=100",
            "--group_reporting",
        )

    async def main() -> None:
        with disk_of(kind) as disk:
            async with serving(disk, tmp_path, threads) as uri:
                if "nbd" not in await peer("fio", "--enghelp"):
                    pytest.skip("this fio has no engine for NBD")
                assert "err= 0" in await check(uri)

    homebound.run(main())


class Awaited(MemoryDisk):
    """A user's disk, with awaited operations only."""

    volatile = False

    def try_read_into(self, offset: int, buffer: memoryview) -> bool:
        del offset, buffer
        return False

    def try_write(self, offset: int, data: bytes | bytearray | memoryview) -> bool:
        del offset, data
        return False

    async def read_into(self, offset: int, buffer: memoryview) -> None:
        await asyncio.sleep(0)
        super().try_read_into(offset, buffer)

    async def write(
        self, offset: int, data: bytes | bytearray | memoryview, *, fua: bool = False
    ) -> None:
        del fua
        await asyncio.sleep(0)
        super().try_write(offset, data)


def test_a_disk_of_a_user(tmp_path: Path):
    async def main() -> None:
        with Awaited(SIZE) as disk:
            async with serving(disk, tmp_path) as uri:
                script = ("-c", "write -P 7 4k 8k", "-c", "read -P 7 4k 8k", "-c", "flush")
                await peer("qemu-io", "-f", "raw", *script, uri)
            assert await disk.read(4096, 8192) == b"\x07" * 8192

    homebound.run(main())
