"""A plain thread wakes a task, the task answers; the thread sleeps in a descriptor meanwhile."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any

import homebound

from ._harness import Case, Target
from ._peers import Bell, in_thread, on_loops, peer, with_homebound, with_loop


def _rounds(n: int, wake: Any, bell: Bell) -> list[float]:
    """Go there and back `n` times, in the thread; return how long each took."""
    took = []
    wait = bell.wait
    for _ in range(n):
        start = perf_counter()
        wake()
        wait()
        took.append(perf_counter() - start)
    return took


async def ours(n: int) -> list[float]:
    """Use suspend() and wake()."""
    with Bell() as bell:

        async def answer() -> None:
            ring = bell.ring
            for _ in range(n):
                await homebound.suspend()
                ring()

        task: Any = asyncio.create_task(answer())
        await asyncio.sleep(0)
        took: list[float] = await in_thread(lambda: _rounds(n, task.wake, bell))
        await task
        return took


async def futures(n: int) -> list[float]:
    """Use a future for each round, and call_soon_threadsafe(future.set_result)."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    with Bell() as bell:

        async def answer() -> None:
            nonlocal future
            ring = bell.ring
            for _ in range(n):
                await future
                future = loop.create_future()  # before the answer: the thread reads it next
                ring()

        task = asyncio.create_task(answer())
        await asyncio.sleep(0)

        def wake() -> None:
            loop.call_soon_threadsafe(future.set_result, None)

        took: list[float] = await in_thread(lambda: _rounds(n, wake, bell))
        await task
        return took


async def aiologic_queue(n: int) -> list[float]:
    """Use an aiologic.SimpleQueue there; the same descriptor back."""
    queue = peer("aiologic").SimpleQueue()
    with Bell() as bell:

        async def answer() -> None:
            for _ in range(n):
                await queue.async_get()
                bell.ring()

        task = asyncio.create_task(answer())
        await asyncio.sleep(0)
        took: list[float] = await in_thread(lambda: _rounds(n, lambda: queue.put(None), bell))
        await task
        return took


def cases() -> list[Case]:
    """Return the cases to run."""
    variants = {"homebound": with_homebound(ours), **on_loops(futures)}
    if peer("aiologic"):
        variants["aiologic.SimpleQueue"] = with_loop(asyncio.SelectorEventLoop, aiologic_queue)
    return [
        Case(
            name="wake ping-pong",
            what="thread to task and back; p50 of a round trip",
            variants=variants,
            n=10_000,
            targets=(Target("asyncio", at_most=0.65),),
            pinned=True,
        )
    ]
