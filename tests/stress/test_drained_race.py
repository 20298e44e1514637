"""Sections of a drained disk beside requests: nothing is inside a section."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from homebound.block import MemoryDisk

if TYPE_CHECKING:
    import random

    from homebound.testing import Stress

SIZE = 1 << 16


@pytest.mark.stress
def test_nothing_is_inside_a_section(stress: Stress):
    """Requests and attempts of tasks and threads, sections of both, cancelled anywhere."""
    busy: list[int] = []
    sections = [0, 0]

    class Watched(MemoryDisk):
        def try_write(self, offset: int, data: bytes | bytearray | memoryview) -> bool:
            busy.append(1)
            done = super().try_write(offset, data)
            busy.pop()
            return done

        async def write(
            self, offset: int, data: bytes | bytearray | memoryview, *, fua: bool = False
        ) -> None:
            busy.append(1)
            try:
                await asyncio.sleep(0)
                await super().write(offset, data, fua=fua)
            finally:
                busy.pop()

    disk = Watched(SIZE)

    async def task(rng: random.Random) -> None:
        if not sections[0] or rng.random() < 0.2:
            async with disk.drained():
                assert not busy
                await asyncio.sleep(0)
                assert not busy
                sections[0] += 1
        else:
            await disk.write(0, b"x")

    def thread(rng: random.Random) -> None:
        if not sections[1] or rng.random() < 0.1:
            with disk.drained():
                assert not busy
                sections[1] += 1
        else:
            disk.try_write(0, b"x")

    stress.run(task, thread, contexts=2, threads=2)
    assert min(sections)
    assert not busy
    assert not disk._gate.inside
    assert not disk._gate.closed
    disk.close()
