"""Work that several loops share, each loop in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from time import perf_counter
from typing import TYPE_CHECKING, Any

import homebound

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    Work = Callable[[], Coroutine[Any, Any, None]]


def on_homebound(works: list[Work]) -> float:
    """Run each in an I/O thread of homebound's, begun together; seconds until all are done."""
    with homebound.IOThreadPool(len(works)) as pool:
        return _begun_together(works, lambda main: pool.next().spawn(main()))


def on_asyncio(works: list[Work]) -> float:
    """Run each in a thread with a loop of asyncio's."""
    threads = []

    def start(main: Work) -> None:
        thread = threading.Thread(target=lambda: asyncio.run(main()))
        threads.append(thread)
        thread.start()

    took = _begun_together(works, start)
    for thread in threads:
        thread.join()
    return took


def on_one_loop(works: list[Work]) -> float:
    """Run all in one loop of asyncio's: the cost of the same work without threads."""

    async def main() -> float:
        start = perf_counter()
        await asyncio.gather(*(work() for work in works))
        return perf_counter() - start

    return asyncio.run(main())


def _begun_together(works: list[Work], start: Callable[[Work], object]) -> float:
    """Return the time from the first begin to the last end, by the threads' own clocks."""
    ready = threading.Barrier(len(works))
    done = threading.Semaphore(0)
    times: list[float] = []

    def guarded(work: Work) -> Work:
        async def main() -> None:
            ready.wait()
            times.append(perf_counter())
            try:
                await work()
            finally:
                times.append(perf_counter())
                done.release()

        return main

    for work in works:
        start(guarded(work))
    for _ in works:
        done.acquire()
    return max(times) - min(times)
