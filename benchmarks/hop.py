"""A coroutine that goes to another loop's thread and comes back."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING, Any

import homebound

from ._harness import Case, Target
from ._peers import loop_factories, loop_thread, with_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from ._peers import LoopFactory

    Hop = Callable[[], Coroutine[Any, Any, None]]

AT_ONCE = 64


async def _nothing() -> None:
    """Do nothing; the peers run this in the other thread."""


async def _one(n: int, hop: Hop) -> list[float]:
    took = []
    for _ in range(n):
        start = perf_counter()
        await hop()
        took.append(perf_counter() - start)
    return took


async def _many(n: int, hop: Hop) -> float:
    each = max(1, n // AT_ONCE)

    async def again() -> None:
        for _ in range(each):
            await hop()

    start = perf_counter()
    await asyncio.gather(*(again() for _ in range(AT_ONCE)))
    return (perf_counter() - start) / (each * AT_ONCE)


def _ours(run: Callable[[int, Hop], Coroutine[Any, Any, Any]]) -> Callable[[int], Any]:
    def variant(n: int) -> Any:
        with homebound.IOThread("far") as io:
            far = io.context

            async def hop() -> None:
                async with homebound.on(far):
                    pass

            return homebound.run(run(n, hop))

    return variant


def _wrap_future(
    factory: LoopFactory, run: Callable[[int, Hop], Coroutine[Any, Any, Any]]
) -> Callable[[int], Any]:
    """Measure with both loops made by `factory`."""

    def variant(n: int) -> Any:
        with loop_thread(factory) as far:

            async def hop() -> None:
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_nothing(), far))

            return with_loop(factory, lambda n: run(n, hop))(n)

    return variant


def cases() -> list[Case]:
    """Return the cases to run."""
    peers = loop_factories().items()
    return [
        Case(
            name="hop, one coroutine",
            what="there and back; on(context) against wrap_future(run_coroutine_threadsafe); p50",
            variants={
                "homebound": _ours(_one),
                **{name: _wrap_future(factory, _one) for name, factory in peers},
            },
            n=5_000,
            targets=(Target("asyncio", at_most=0.5),),
            pinned=True,
        ),
        Case(
            name=f"hop, {AT_ONCE} coroutines",
            what="there and back; a hop",
            variants={
                "homebound": _ours(_many),
                **{name: _wrap_future(factory, _many) for name, factory in peers},
            },
            n=AT_ONCE * 300,
            targets=(Target("uvloop", at_least=3),),
        ),
    ]
