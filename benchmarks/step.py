"""A task's step and a task's life: their cost on the loop."""

from __future__ import annotations

import asyncio
from time import perf_counter

from ._harness import Case, Target
from ._peers import on_loops

TASKS = 100


async def one(n: int) -> float:
    """Measure one task alone on its loop."""
    sleep = asyncio.sleep
    start = perf_counter()
    for _ in range(n):
        await sleep(0)
    return (perf_counter() - start) / n


async def hundred(n: int) -> float:
    """Measure many tasks in turn."""
    each = max(1, n // TASKS)

    async def again() -> None:
        sleep = asyncio.sleep
        for _ in range(each):
            await sleep(0)

    start = perf_counter()
    await asyncio.gather(*(again() for _ in range(TASKS)))
    return (perf_counter() - start) / (each * TASKS)


async def create(n: int) -> float:
    """Make, run and await tasks, one after the other."""

    async def nothing() -> int:
        return 1

    start = perf_counter()
    for _ in range(n):
        await asyncio.create_task(nothing())
    return (perf_counter() - start) / n


def cases() -> list[Case]:
    """Return the cases to run."""
    return [
        Case(
            name="step",
            what="asyncio.sleep(0) in one task; a step",
            variants=on_loops(one, ours=True),
            n=50_000,
            targets=(Target("asyncio", at_most=0.4),),
            pinned=True,
        ),
        Case(
            name=f"step, {TASKS} tasks",
            what="asyncio.sleep(0) in each; a step",
            variants=on_loops(hundred, ours=True),
            n=TASKS * 500,
            targets=(Target("uvloop", at_most=1),),
            pinned=True,
        ),
        Case(
            name="create_task and await",
            what="of a coroutine that returns at once; a task",
            variants=on_loops(create, ours=True),
            n=20_000,
            targets=(Target("asyncio", at_most=0.6),),
            pinned=True,
        ),
    ]
