"""I/O threads started and stopped while tasks move there, wake there and wait for them."""

from __future__ import annotations

import asyncio
import random
import threading
import time

import pytest

import homebound
from homebound import ContextClosed, IOThread, block_on, current_context, move_to


class Tally:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.counts: dict[str, int] = {}

    def add(self, what: str) -> None:
        with self.lock:
            self.counts[what] = self.counts.get(what, 0) + 1


async def mover(stable: IOThread, dying: IOThread, rng: random.Random, tally: Tally) -> None:
    """Goes there and back until it finds the place gone, or is cancelled there."""
    try:
        while True:
            await move_to(dying.context)
            assert current_context() is dying.context
            if rng.random() < 0.5:
                await asyncio.sleep(0)
            await move_to(stable.context)
            tally.add("round trips")
    except ContextClosed:
        assert current_context() is stable.context
        tally.add("closed")
    except asyncio.CancelledError:
        tally.add("cancelled")
        raise


async def waiter(dying: IOThread, tally: Tally) -> None:
    """Waits for tasks and futures that are at home there."""
    try:
        while True:
            await dying.spawn(asyncio.sleep(0))
            tally.add("awaited")
    except ContextClosed:
        tally.add("waiter: closed")
    except asyncio.CancelledError:
        tally.add("waiter: cancelled")


def poster(dying: IOThread, ran: list[int], tally: Tally) -> int:
    posted = 0
    try:
        while True:
            dying.context.call_soon(ran.append, 1)
            posted += 1
            if posted % 50 == 0:
                block_on(asyncio.sleep(0), dying.context)
                time.sleep(0)
    except (ContextClosed, asyncio.CancelledError):
        tally.add("poster ended")
    return posted


@pytest.mark.parametrize("movers", [2, 10])
def test_a_storm_of_starts_and_stops(movers: int, seed: int, stress_seconds: float):
    rng = random.Random(seed)
    tally = Tally()
    with IOThread("stable") as stable:
        end = time.monotonic() + stress_seconds
        while time.monotonic() < end:
            dying = IOThread("dying")
            dying.start()
            tally.add("threads")
            tasks = [
                stable.spawn(mover(stable, dying, random.Random(rng.random()), tally))
                for _ in range(movers)
            ]
            waiters = [stable.spawn(waiter(dying, tally)) for _ in range(2)]
            ran: list[int] = []
            thread = threading.Thread(target=poster, args=[dying, ran, tally])
            thread.start()
            time.sleep(rng.random() * 0.01)
            dying.stop(20)
            thread.join(20)
            assert not thread.is_alive(), "a thread that posts hangs"
            for task in [*tasks, *waiters]:
                try:
                    block_on(task, timeout=20)
                except (asyncio.CancelledError, ContextClosed):
                    pass
                assert task.done()
            assert dying.context.stats().tasks == 0
    print(tally.counts)  # noqa: T201
    ended = tally.counts.get("closed", 0) + tally.counts.get("cancelled", 0)
    assert ended <= tally.counts["threads"] * movers
    assert tally.counts["poster ended"] == tally.counts["threads"]


@pytest.mark.parametrize("threads", [2, 5])
def test_wakes_while_the_home_ends(threads: int, seed: int, stress_seconds: float):  # noqa: C901
    """A wake either resumes the task or says that it cannot; the thread that wakes never hangs."""
    rng = random.Random(seed)
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

    end = time.monotonic() + stress_seconds
    rounds = 0
    while time.monotonic() < end:
        rounds += 1
        io = IOThread()
        io.start()
        barrier = threading.Barrier(threads + 1)
        tasks = [io.spawn(sleeper()) for _ in range(threads)]
        wakers = [threading.Thread(target=wake, args=[task, barrier]) for task in tasks]
        for waker in wakers:
            waker.start()
        barrier.wait()
        time.sleep(rng.random() * 0.003)
        io.stop(20)
        for waker in wakers:
            waker.join(20)
            assert not waker.is_alive(), "a waker hangs"
        assert all(task.done() for task in tasks)
    print(f"{rounds} rounds, {resumed[0]} resumed")  # noqa: T201
