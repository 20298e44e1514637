"""Other programs' clients: what they see of exports; test_peer_matrix.py has the rest."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

import homebound
from homebound.block import MemoryDisk
from homebound.nbd import Export

from .peers import SIZE, peer, serving

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.peers


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


def test_qemu_io_cannot_write_to_a_read_only_export(tmp_path: Path):
    async def main() -> None:
        with MemoryDisk(SIZE) as disk:
            async with serving(Export(disk, read_only=True), tmp_path) as uri:
                await peer("qemu-io", "-r", "-f", "raw", "-c", "read -P 0 0 1M", uri)
                output = await peer("qemu-io", "-f", "raw", "-c", "write 0 1M", uri, fails=True)
        assert "Permission denied" in output

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
