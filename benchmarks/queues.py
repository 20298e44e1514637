"""A queue between two loops, and events that two loops set for each other."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import homebound

from ._between import on_asyncio, on_homebound, on_one_loop
from ._harness import Case, Target
from ._peers import peer

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    Work = Callable[[], Coroutine[Any, Any, None]]

BOUND = 100


def _flow(put: Callable[[int], Any], get: Callable[[], Any], n: int) -> list[Work]:
    async def produce() -> None:
        for number in range(n):
            await put(number)

    async def consume() -> None:
        for number in range(n):
            assert await get() == number

    return [consume, produce]


def _timed(ends: Callable[[], tuple[Any, Any]], run: Callable[[Any], float], n: int) -> float:
    """Return the seconds an item."""
    put, get = ends()
    return run(_flow(put, get, n)) / n


def _queues(bound: int) -> dict[str, tuple[Callable[[], tuple[Any, Any]], Callable[[Any], float]]]:
    """Return, by name, how a queue is made (as its put and its get), and where the tasks run."""

    def ends(make: Callable[[], Any], put: str = "put", get: str = "get") -> Any:
        def made() -> tuple[Any, Any]:
            queue = make()
            return getattr(queue, put), getattr(queue, get)

        return made

    found: dict[str, tuple[Any, Any]] = {
        "homebound": (ends(lambda: homebound.Queue(bound)), on_homebound),
        "homebound's on asyncio's loops": (ends(lambda: homebound.Queue(bound)), on_asyncio),
    }
    aiologic, culsans = peer("aiologic"), peer("culsans")
    if aiologic:
        make = aiologic.Queue
        found["aiologic"] = (
            ends(lambda: make(bound or None), "async_put", "async_get"),
            on_asyncio,
        )
        if not bound:  # has no limit, join or shutdown, and so less to do
            simple = ends(aiologic.SimpleQueue, "async_put", "async_get")
            found["aiologic.SimpleQueue"] = (simple, on_asyncio)
    if culsans:
        found["culsans"] = (ends(lambda: culsans.Queue(bound).async_q), on_asyncio)
    found["asyncio"] = (ends(lambda: asyncio.Queue(bound)), on_one_loop)
    return found


def _janus(bound: int) -> Callable[[int], float]:
    """Make janus's queue, which is meant to have a thread at one end."""
    janus = peer("janus")

    def variant(n: int) -> float:
        made: list[Any] = []

        async def consume() -> None:
            for number in range(n):
                assert await made[0].async_q.get() == number
            await made[0].aclose()

        async def start() -> None:
            made.append(janus.Queue(bound))
            loop = asyncio.get_running_loop()
            producer = loop.run_in_executor(None, produce)
            await consume()
            await producer

        def produce() -> None:
            for number in range(n):
                made[0].sync_q.put(number)

        return on_asyncio([start]) / n

    return variant


def _ping_pong(make: Callable[[], Any], n: int) -> list[Work]:
    """Alternate with an event for each turn: set by one side, awaited by the other."""
    there, back = [make() for _ in range(n)], [make() for _ in range(n)]

    async def first() -> None:
        for one, other in zip(there, back, strict=True):
            one.set()
            await other.wait()

    async def second() -> None:
        for one, other in zip(there, back, strict=True):
            await one.wait()
            other.set()

    return [second, first]


def _event_variants() -> dict[str, Callable[[int], float]]:
    variants: dict[str, Callable[[int], float]] = {
        "homebound": lambda n: on_homebound(_ping_pong(homebound.Event, n)) / n,
        "homebound's on asyncio's loops": lambda n: on_asyncio(_ping_pong(homebound.Event, n)) / n,
    }
    aiologic = peer("aiologic")
    if aiologic:
        variants["aiologic"] = lambda n: on_asyncio(_aiologic_ping_pong(aiologic.Event, n)) / n
    variants["asyncio"] = lambda n: on_one_loop(_ping_pong(asyncio.Event, n)) / n
    return variants


def _aiologic_ping_pong(make: Callable[[], Any], n: int) -> list[Work]:
    """Alternate with aiologic's events, which are awaited themselves."""
    there, back = [make() for _ in range(n)], [make() for _ in range(n)]

    async def first() -> None:
        for one, other in zip(there, back, strict=True):
            one.set()
            await other

    async def second() -> None:
        for one, other in zip(there, back, strict=True):
            await one
            other.set()

    return [second, first]


def cases() -> list[Case]:
    """Return the cases to run."""
    found = []
    for bound, n in ((0, 50_000), (BOUND, 20_000)):
        variants: dict[str, Callable[[int], float]] = {}
        for name, (ends, run) in _queues(bound).items():
            variants[name] = partial(_timed, ends, run)
        if peer("janus"):
            variants["janus, from a thread"] = _janus(bound)
        found.append(
            Case(
                name=f"queue, bound {bound}" if bound else "queue, no bound",
                what="an item from one loop to another; asyncio: on one loop",
                variants=variants,
                n=n,
                targets=tuple(
                    Target(name, at_least=2.5)
                    for name in (
                        "aiologic",
                        "aiologic.SimpleQueue",
                        "culsans",
                        "janus, from a thread",
                    )
                ),
            )
        )
    found.append(
        Case(
            name="event ping-pong",
            what="an event set here, awaited there, and back; asyncio: on one loop",
            variants=_event_variants(),
            n=2_000,
        )
    )
    return found
