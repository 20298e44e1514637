"""A blocking call made in a worker thread, and the result back in the coroutine.

The threads exist before the clock starts, on every side: they are made by as many blocking calls at
once as there will be jobs in flight, which wait for each other.
"""

from __future__ import annotations

import asyncio
import time
from time import perf_counter
from typing import TYPE_CHECKING, Any

import homebound

from ._harness import Case, Target
from ._peers import on_loops, peer, with_homebound

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Offload = Callable[..., Awaitable[Any]]

AT_ONCE = 64
_WARM = 0.002  # seconds: long enough for every thread to be made


def _job() -> None:
    """Do the blocking call: only the way there and back is measured."""


async def _one(n: int, offload: Offload) -> list[float]:
    await offload(_job)
    took = []
    for _ in range(n):
        start = perf_counter()
        await offload(_job)
        took.append(perf_counter() - start)
    return took


async def _many(n: int, offload: Offload) -> float:
    await asyncio.gather(*(offload(time.sleep, _WARM) for _ in range(AT_ONCE)))
    each = max(1, n // AT_ONCE)

    async def again() -> None:
        for _ in range(each):
            await offload(_job)

    start = perf_counter()
    await asyncio.gather(*(again() for _ in range(AT_ONCE)))
    return (perf_counter() - start) / (each * AT_ONCE)


def _with_trio(run_one: bool) -> Callable[[int], Any]:  # noqa: FBT001
    trio = peer("trio")
    offload = trio.to_thread.run_sync

    async def many(n: int) -> float:
        each = max(1, n // AT_ONCE)

        async def again(count: int, fn: Any, *args: Any) -> None:
            for _ in range(count):
                await offload(fn, *args)

        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(again, 1, time.sleep, _WARM)
        start = perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(again, each, _job)
        return (perf_counter() - start) / (each * AT_ONCE)

    if run_one:
        return lambda n: trio.run(_one, n, offload)
    return lambda n: trio.run(many, n)


def _with_anyio(run: Any) -> Callable[[int], Any]:
    import anyio.to_thread  # noqa: PLC0415 - only where it is installed

    return lambda n: anyio.run(run, n, anyio.to_thread.run_sync)


def _variants(run: Any) -> dict[str, Any]:
    variants: dict[str, Any] = {
        "homebound": with_homebound(lambda n: run(n, homebound.to_worker)),
        **on_loops(lambda n: run(n, asyncio.to_thread)),
    }
    if peer("trio"):
        variants["trio"] = _with_trio(run is _one)
    if peer("anyio"):
        variants["anyio"] = _with_anyio(run)
    return variants


def cases() -> list[Case]:
    """Return the cases to run."""
    return [
        Case(
            name="to_worker, one after the other",
            what="against asyncio.to_thread; p50 of a job",
            variants=_variants(_one),
            n=3_000,
            targets=(Target("asyncio", at_most=0.45),),
            pinned=True,
        ),
        Case(
            name=f"to_worker, {AT_ONCE} in flight",
            what="against asyncio.to_thread; a job",
            variants=_variants(_many),
            n=AT_ONCE * 150,
            targets=(Target("asyncio", at_least=3),),
        ),
    ]
