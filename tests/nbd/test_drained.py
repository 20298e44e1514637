"""A served disk that is drained: requests in flight are answered, new ones wait, none is lost."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import homebound
from homebound.block import Disk, FileDisk, MemoryDisk
from homebound.nbd._protocol.wire import Command

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 1 << 20


def test_requests_wait_until_the_end_of_the_section(tmp_path: Path, in_memory: Any):
    (tmp_path / "image").write_bytes(bytes(SIZE))

    async def main() -> None:
        for disk in (FileDisk(tmp_path / "image"), MemoryDisk(SIZE)):
            with disk:
                await drain(disk, in_memory.peer(disk))

    homebound.run(main())


async def drain(disk: Disk, peer: Any) -> None:
    async with disk.drained():
        for cookie in range(20):
            peer.ask(Command.WRITE, cookie, cookie * 100, payload=bytes([cookie]) * 100)
        if not disk.volatile:
            peer.ask(Command.FLUSH, 20)
        for _ in range(20):
            await asyncio.sleep(0)
        assert not peer.replies()
    found: list[Any] = []
    while len(found) < (20 if disk.volatile else 21):
        found += peer.replies()
        await asyncio.sleep(0)
    assert all(error == 0 for _, error, _ in found)
    assert await disk.read(0, 2000) == b"".join(bytes([n]) * 100 for n in range(20))
    assert not disk._gate.inside
    peer.lose()


def test_a_client_that_is_cut_off_meanwhile_leaves_nothing_in_the_gate(
    tmp_path: Path, in_memory: Any
):
    (tmp_path / "image").write_bytes(bytes(SIZE))

    async def main() -> None:
        with FileDisk(tmp_path / "image") as disk:
            async with disk.drained():
                client = in_memory.peer(disk)
                client.ask(Command.WRITE, 1, 1, payload=b"x")
                for _ in range(5):
                    await asyncio.sleep(0)
                client.connection.abort()
                client.lose()
                for _ in range(20):
                    await asyncio.sleep(0)
            async with disk.drained():
                pass
            assert not disk._gate.inside

    homebound.run(main())
