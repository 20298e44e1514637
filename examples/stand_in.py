"""A worker under the big lock does synchronous I/O with `block_on`, as an emulated CPU does.

It stands in for the main thread: the coroutine runs in the worker, without a change of threads.
While it waits the lock is free, so the main loop and the other workers go on with their work.
"""

from __future__ import annotations

import asyncio
import threading

import homebound


async def read_sector(number: int) -> str:
    """Read a sector: the device model is asynchronous, written once, and used by all callers."""
    reader = threading.current_thread().name
    await asyncio.sleep(0.01)  # the lock is free: another thread may stand in, and finish this
    return f"sector {number} by {reader}"


def cpu(index: int, log: list[str]) -> None:
    """Run guest code, which needs no lock; a device access takes it, and waits synchronously."""
    for _ in range(3):
        with homebound.big_lock:
            log.append(homebound.block_on(read_sector(index)))


async def main() -> None:
    log: list[str] = []
    ticks = 0
    threads = [
        threading.Thread(target=cpu, args=[index, log], name=f"cpu{index}") for index in range(3)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        await asyncio.sleep(0.001)
        ticks += 1
    for line in log:
        print(line)
    print("the main loop ticked meanwhile:", ticks > 0)
    assert sorted(log) == [f"sector {index} by cpu{index}" for index in range(3) for _ in range(3)]
    assert ticks > 0


if __name__ == "__main__":
    homebound.run(main())
