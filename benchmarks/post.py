"""Callbacks posted from a plain thread: call_soon, and bottom halves."""

from __future__ import annotations

import asyncio
import threading
from time import perf_counter
from typing import TYPE_CHECKING, Any

import homebound

from ._harness import Case, Target
from ._peers import on_loops, peer, with_homebound

if TYPE_CHECKING:
    from collections.abc import Callable


def _counter(n: int, tell: Callable[[], object]) -> Callable[[], None]:
    """Make the callback of every variant: the n-th call notifies."""
    left = n

    def callback() -> None:
        nonlocal left
        left -= 1
        if not left:
            tell()

    return callback


async def _timed(n: int, produce: Callable[[], None], done: asyncio.Future[None]) -> float:
    thread = threading.Thread(target=produce)
    start = perf_counter()
    thread.start()
    await done
    took = perf_counter() - start
    thread.join()
    return took / n


def _posting(post_of: Callable[[], Callable[..., object]]) -> Callable[[int], Any]:
    async def work(n: int) -> float:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        callback = _counter(n, lambda: done.set_result(None))
        post = post_of()

        def produce() -> None:
            for _ in range(n):
                post(callback)

        return await _timed(n, produce, done)

    return work


def _context() -> homebound.AioContext:
    context = homebound.current_context()
    assert context is not None
    return context


call_soon = _posting(lambda: _context().call_soon)
threadsafe = _posting(lambda: asyncio.get_running_loop().call_soon_threadsafe)


async def bottom_halves(n: int) -> float:
    """Schedule `n` bottom halves once each."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    callback = _counter(n, lambda: done.set_result(None))
    context = _context()
    bottom_halves = [context.bottom_half(callback) for _ in range(n)]

    def produce() -> None:
        for bottom_half in bottom_halves:
            bottom_half.schedule()

    return await _timed(n, produce, done)


async def coalesced(n: int) -> float:
    """Schedule one bottom half `n` times: it runs much less often."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    context = _context()
    bottom_half = context.bottom_half(lambda: None)

    def produce() -> None:
        schedule = bottom_half.schedule
        for _ in range(n):
            schedule()
        context.call_soon(done.set_result, None)

    return await _timed(n, produce, done)


def _trio_soon(*, idempotent: bool) -> Callable[[int], float]:
    trio = peer("trio")

    async def work(n: int) -> float:
        done = trio.Event()
        callback = _counter(n, done.set)
        token = trio.lowlevel.current_trio_token()

        def produce() -> None:
            if idempotent:
                for _ in range(n):
                    token.run_sync_soon(_nothing, idempotent=True)
                token.run_sync_soon(done.set)
            else:
                for _ in range(n):
                    token.run_sync_soon(callback)

        thread = threading.Thread(target=produce)
        start = perf_counter()
        thread.start()
        await done.wait()
        took = perf_counter() - start
        thread.join()
        return took / n

    return lambda n: trio.run(work, n)


def _nothing() -> None:
    """Do nothing, an idempotent callback."""


def cases() -> list[Case]:
    """Return the cases to run."""
    peers = on_loops(threadsafe)
    posts = {
        "homebound": with_homebound(call_soon),
        "homebound loop.call_soon_threadsafe": with_homebound(threadsafe),
        **peers,
    }
    once = {"homebound": with_homebound(bottom_halves), **peers}
    many = {"homebound": with_homebound(coalesced), **peers}
    if peer("trio"):
        posts["trio"] = _trio_soon(idempotent=False)
        many["trio idempotent"] = _trio_soon(idempotent=True)
    return [
        Case(
            name="call_soon from a thread",
            what="callbacks posted by one plain thread, until the last has run; a callback",
            variants=posts,
            n=100_000,
            targets=(Target("asyncio", at_least=8), Target("uvloop", at_least=1)),
        ),
        Case(
            name="bottom half",
            what="distinct bottom halves against call_soon_threadsafe; a callback",
            variants=once,
            n=100_000,
            targets=(Target("uvloop", at_least=1.5),),
        ),
        Case(
            name="bottom half, coalesced",
            what="one bottom half scheduled again and again; a schedule",
            variants=many,
            n=100_000,
        ),
    ]
