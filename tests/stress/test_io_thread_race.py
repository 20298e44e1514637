"""I/O threads started and stopped while tasks move there, wake there and wait for them."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING

import pytest

import homebound
from homebound import ContextClosed, IOThread, block_on, current_context, move_to

if TYPE_CHECKING:
    import random

    from homebound.testing import Stress


async def mover(stable: IOThread, dying: IOThread, rng: random.Random, stress: Stress) -> None:
    """A task that moves there and back until the home is closed, or it is cancelled there."""
    try:
        while True:
            await move_to(dying.context)
            assert current_context() is dying.context
            if rng.random() < 0.5:
                await asyncio.sleep(0)
            await move_to(stable.context)
            stress.count("round trips")
    except ContextClosed:
        assert current_context() is stable.context
        stress.count("closed")
    except asyncio.CancelledError:
        stress.count("cancelled")
        raise


async def waiter(dying: IOThread, stress: Stress) -> None:
    """A task that waits for tasks and futures at home there."""
    try:
        while True:
            await dying.spawn(asyncio.sleep(0))
            stress.count("awaited")
    except ContextClosed:
        stress.count("waiter: closed")
    except asyncio.CancelledError:
        stress.count("waiter: cancelled")


def poster(dying: IOThread, ran: list[int], stress: Stress) -> int:
    posted = 0
    try:
        while True:
            dying.context.call_soon(ran.append, 1)
            posted += 1
            if posted % 50 == 0:
                block_on(asyncio.sleep(0), dying.context)
                time.sleep(0)
    except (ContextClosed, asyncio.CancelledError):
        stress.count("poster ended")
    return posted


@pytest.mark.parametrize("movers", [2, 10])
def test_a_storm_of_starts_and_stops(movers: int, stress: Stress):
    rng = stress.rng()
    stress.go()
    with IOThread("stable") as stable:
        while not stress.over():
            dying = IOThread("dying")
            dying.start()
            stress.count("threads")
            tasks = [
                stable.spawn(mover(stable, dying, stress.rng(), stress)) for _ in range(movers)
            ]
            waiters = [stable.spawn(waiter(dying, stress)) for _ in range(2)]
            ran: list[int] = []
            posted = stress.thread(poster, dying, ran, stress)
            time.sleep(rng.random() * 0.01)
            dying.stop(20)
            assert len(ran) <= posted.result(20)
            for task in [*tasks, *waiters]:
                try:
                    block_on(task, timeout=20)
                except (asyncio.CancelledError, ContextClosed):
                    pass
                assert task.done()
            assert dying.context.stats().tasks == 0
    print(stress.counts)  # noqa: T201
    ended = stress.counts["closed"] + stress.counts["cancelled"]
    assert ended <= stress.counts["threads"] * movers
    assert stress.counts["poster ended"] == stress.counts["threads"]


@pytest.mark.parametrize("threads", [2, 5])
def test_wakes_while_the_home_ends(threads: int, stress: Stress):
    """A wake either resumes the task or raises; the thread that wakes never hangs."""
    rng = stress.rng()
    resumed = [0]

    async def sleeper() -> None:
        while True:
            await homebound.suspend()
            resumed[0] += 1

    def wake(task: homebound.Task[None], barrier: threading.Barrier) -> None:
        barrier.wait()
        while True:
            try:
                task.wake()
            except homebound.AlreadyScheduled:
                if task.done():
                    return
            except homebound.ContextError:
                return

    stress.go()
    rounds = 0
    while not stress.over():
        rounds += 1
        io = IOThread()
        io.start()
        barrier = threading.Barrier(threads + 1)
        tasks = [io.spawn(sleeper()) for _ in range(threads)]
        wakers = [stress.thread(wake, task, barrier) for task in tasks]
        barrier.wait()
        time.sleep(rng.random() * 0.003)
        io.stop(20)
        for waker in wakers:
            waker.result(20)
        assert all(task.done() for task in tasks)
    print(f"{rounds} rounds, {resumed[0]} resumed")  # noqa: T201
