"""A connection that comes back to an export that is not what it was."""

from __future__ import annotations

import errno
import struct
from typing import Any

import pytest

import homebound
from homebound.block import DiskError
from homebound.nbd import NBDDisk

from .servers import SIZE


class TestComesBackOtherwise:
    """The export is not what it was."""

    def change(self, rude: Any, use: Any, *, after: dict[str, Any], **options: Any) -> None:
        memory = bytearray(b"x" * SIZE)

        async def talk(end: Any) -> None:
            await end.negotiate(**(after if rude.accepted > 1 else before))
            if rude.accepted == 1:
                await end.request()
                return
            await end.serve(memory)

        before = options.pop("before", {})

        async def main() -> None:
            async with rude.talking(talk):
                with await NBDDisk.connect(rude.uri, reconnect_delay=30, **options) as disk:
                    assert await disk.read(0, 1) == b"x"
                    await use(disk)
                assert rude.accepted == 2

        homebound.run(main())

    def test_smaller(self, rude: Any):
        async def use(disk: NBDDisk) -> None:
            with pytest.raises(DiskError, match="has come back smaller: 4096 bytes") as caught:
                await disk.read(4096, 1)
            assert caught.value.errno == errno.EIO
            assert await disk.read(4095, 1) == b"x"
            assert disk.size == SIZE

        self.change(rude, use, after={"size": 4096})

    def test_larger(self, rude: Any):
        async def use(disk: NBDDisk) -> None:
            assert disk.size == SIZE
            assert await disk.read(SIZE - 1, 1) == b"x"

        self.change(rude, use, after={"size": 2 * SIZE})

    def test_read_only(self, rude: Any, say: Any):
        async def use(disk: NBDDisk) -> None:
            with pytest.raises(DiskError, match="has come back read-only") as caught:
                await disk.write(0, b"y")
            assert caught.value.errno == errno.EROFS
            assert await disk.read(0, 1) == b"x"

        self.change(rude, use, after={"flags": say.flags | 2})

    def test_another_context_id_and_without(self, rude: Any, say: Any):
        name = b"base:allocation"

        async def talk(end: Any) -> None:
            ids = {1: {1: name}, 2: {9: name}}.get(rude.accepted, {})
            await end.negotiate(structured=True, contexts=ids)
            _, cookie, _, length, _ = await end.request()
            if rude.accepted > 1:
                body = struct.pack(">III", next(iter(ids)), length, 3)
                end.send(say.chunk(cookie, 5, body))
                await end.request()

        async def main() -> None:
            async with rude.talking(talk):
                with await NBDDisk.connect(rude.uri, reconnect_delay=30) as disk:
                    (extent,) = await disk.block_status(0, 4096)
                    assert extent.zero
                    with pytest.raises(DiskError, match="without its contexts"):
                        await disk.block_status(0, 4096)

        homebound.run(main())
