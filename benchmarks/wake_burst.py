"""Many suspended tasks, woken from one plain thread, run to their end.

The tasks count down themselves: `asyncio.wait` on 20,000 tasks would cost more than the wake-ups.
"""

from __future__ import annotations

import asyncio
import threading
from time import perf_counter
from typing import TYPE_CHECKING, Any

import homebound

from ._harness import Case, Target
from ._peers import on_loops, peer, with_homebound, with_loop

if TYPE_CHECKING:
    from collections.abc import Callable


class _Countdown:
    """A counter that the last of `n` tasks notifies."""

    def __init__(self, n: int) -> None:
        self.left = n
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def one_less(self) -> None:
        self.left -= 1
        if not self.left:
            self.done.set_result(None)


async def _timed(n: int, countdown: _Countdown, wake_all: Callable[[], None]) -> float:
    await asyncio.sleep(0)  # now all of them wait
    await asyncio.sleep(0)
    thread = threading.Thread(target=wake_all)
    start = perf_counter()
    thread.start()
    await countdown.done
    took = perf_counter() - start
    thread.join()
    return took / n


async def ours(n: int) -> float:
    """Use suspend() and wake()."""
    countdown = _Countdown(n)

    async def sleeper() -> None:
        await homebound.suspend()
        countdown.one_less()

    tasks: list[Any] = [asyncio.create_task(sleeper()) for _ in range(n)]

    def wake_all() -> None:
        for task in tasks:
            task.wake()

    return await _timed(n, countdown, wake_all)


async def futures(n: int) -> float:
    """Use a future each, and call_soon_threadsafe(future.set_result)."""
    countdown = _Countdown(n)
    loop = asyncio.get_running_loop()
    waits = [loop.create_future() for _ in range(n)]

    async def sleeper(future: asyncio.Future[None]) -> None:
        await future
        countdown.one_less()

    tasks = [asyncio.create_task(sleeper(future)) for future in waits]

    def wake_all() -> None:
        for future in waits:
            loop.call_soon_threadsafe(future.set_result, None)

    took = await _timed(n, countdown, wake_all)
    del tasks
    return took


async def aiologic_events(n: int) -> float:
    """Use an aiologic.Event each."""
    aiologic = peer("aiologic")
    countdown = _Countdown(n)
    events = [aiologic.Event() for _ in range(n)]

    async def sleeper(event: Any) -> None:
        await event
        countdown.one_less()

    tasks = [asyncio.create_task(sleeper(event)) for event in events]

    def wake_all() -> None:
        for event in events:
            event.set()

    took = await _timed(n, countdown, wake_all)
    del tasks
    return took


def cases() -> list[Case]:
    """Return the cases to run."""
    variants = {"homebound": with_homebound(ours), **on_loops(futures)}
    if peer("aiologic"):
        variants["aiologic.Event"] = with_loop(asyncio.SelectorEventLoop, aiologic_events)
    return [
        Case(
            name="wake burst",
            what="tasks woken by one plain thread, run to their end; a task",
            variants=variants,
            n=20_000,
            targets=(Target("asyncio", at_least=6), Target("uvloop", at_least=1.5)),
        )
    ]
