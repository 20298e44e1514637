"""Reads with NBDDisk: `ours.py SOCKET BYTES DEPTH REQUESTS`; a task for each read in flight."""

from __future__ import annotations

import asyncio
import sys
from time import perf_counter, process_time

import homebound
from homebound.nbd import NBDDisk


async def main(path: str, size: int, depth: int, requests: int) -> tuple[float, float]:
    """Read, and return the wall and CPU seconds of all reads."""
    async with await NBDDisk.connect(f"nbd+unix:///?socket={path}") as disk:
        blocks = disk.size // size
        numbers = iter(range(requests))

        async def work() -> None:
            buffer = memoryview(bytearray(size))
            for number in numbers:
                await disk.read_into(number * STRIDE % blocks * size, buffer)

        wall, cpu = perf_counter(), process_time()
        await asyncio.gather(*(work() for _ in range(depth)))
        return perf_counter() - wall, process_time() - cpu


path, *numbers = sys.argv[1:]
size, depth, requests = map(int, numbers)
STRIDE = 7919 if depth > 1 else 1
took = homebound.run(main(path, size, depth, requests))
sys.stdout.write(f"{took[0] / requests} {took[1] / requests}\n")
