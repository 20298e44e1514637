"""Synchronous calls of asynchronous code: inline under the big lock, queued, and nested.

nest_asyncio2 patches asyncio for its whole process, so it is measured in one of its own.
"""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
from time import perf_counter
from typing import TYPE_CHECKING, Any

import homebound

from ._harness import Case, Target
from ._peers import in_thread, on_loops, peer, with_homebound

if TYPE_CHECKING:
    from collections.abc import Callable


async def _answer() -> int:
    return 42


def _each(n: int, call: Callable[[], object]) -> list[float]:
    """Return how long each of `n` calls took."""
    took = []
    for _ in range(n):
        start = perf_counter()
        call()
        took.append(perf_counter() - start)
    return took


async def inline(n: int) -> list[float]:
    """Take the big lock for each call, as a thread with other things to do does."""

    def call() -> None:
        with homebound.big_lock:
            homebound.block_on(_answer())

    return await in_thread(lambda: _each(n, call))


async def inline_held(n: int) -> list[float]:
    """Hold the big lock throughout: the call alone."""

    def work() -> list[float]:
        with homebound.big_lock:
            return _each(n, lambda: homebound.block_on(_answer()))

    return await in_thread(work)


async def queued(n: int) -> list[float]:
    """Call from a thread without a context."""
    context = homebound.current_context()
    return await in_thread(lambda: _each(n, lambda: homebound.block_on(_answer(), context)))


async def threadsafe(n: int) -> list[float]:
    """Call run_coroutine_threadsafe(...).result()."""
    loop = asyncio.get_running_loop()
    submit = asyncio.run_coroutine_threadsafe
    return await in_thread(lambda: _each(n, lambda: submit(_answer(), loop).result()))


async def nested(n: int) -> list[float]:
    """Call inside a running task."""
    return _each(n, lambda: homebound.block_on(_answer()))


def _nest_asyncio2(n: int) -> list[float]:
    """Measure in a process of its own, with the affinity of this one."""
    command = [sys.executable, "-m", __name__, str(n), str(int(gc.isenabled()))]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603
    samples: list[float] = json.loads(output)
    return samples


def _patched(n: int) -> list[float]:
    peer("nest_asyncio2").apply()

    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        _each(max(1, n // 10), lambda: loop.run_until_complete(_answer()))
        return _each(n, lambda: loop.run_until_complete(_answer()))

    return asyncio.run(main())


def _anyio(n: int) -> list[float]:
    import anyio.from_thread  # noqa: PLC0415 - only where it is installed
    import anyio.to_thread  # noqa: PLC0415

    async def main() -> list[float]:
        call = anyio.from_thread.run
        took: list[float] = await anyio.to_thread.run_sync(lambda: _each(n, lambda: call(_answer)))
        return took

    result: list[float] = anyio.run(main)
    return result


def _trio(n: int) -> list[float]:
    trio = peer("trio")

    async def main() -> list[float]:
        call = trio.from_thread.run
        took: list[float] = await trio.to_thread.run_sync(lambda: _each(n, lambda: call(_answer)))
        return took

    result: list[float] = trio.run(main)
    return result


def cases() -> list[Case]:
    """Return the cases to run."""
    inlined: dict[str, Any] = {
        "homebound": with_homebound(inline),
        "homebound, lock held throughout": with_homebound(inline_held),
        **on_loops(threadsafe),
    }
    for name, variant in (("anyio", _anyio), ("trio", _trio)):
        if peer(name):
            inlined[f"{name} from_thread.run"] = variant
    nesting: dict[str, Any] = {"homebound": with_homebound(nested)}
    if peer("nest_asyncio2"):
        nesting["nest_asyncio2"] = _nest_asyncio2
    return [
        Case(
            name="block_on under the big lock",
            what="a coroutine that returns at once, run from a worker thread; p50 of a call",
            variants=inlined,
            n=5_000,
            targets=(
                Target("asyncio", at_most=0.12),
                Target("asyncio", at_most=0.12, ours="homebound, lock held throughout"),
            ),
            pinned=True,
        ),
        Case(
            name="block_on from a thread without a context",
            what="queued at the loop, the thread sleeps; p50 of a call",
            variants={"homebound": with_homebound(queued), **on_loops(threadsafe)},
            n=5_000,
            targets=(Target("asyncio", at_most=0.6),),
            pinned=True,
        ),
        Case(
            name="block_on nested in a task",
            what="the loop run from inside a task, nest_asyncio2 in its own process; p50 of a call",
            variants=nesting,
            n=10_000,
            targets=(Target("nest_asyncio2", at_most=0.5),),
            pinned=True,
        ),
    ]


if __name__ == "__main__":
    if sys.argv[2] == "0":
        gc.disable()
    json.dump(_patched(int(sys.argv[1])), sys.stdout)
