"""A watch that looks all the time while locks are contended: it reports no false deadlock."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from typing import Any

import homebound


class Crowd:
    """Users of the same locks, in order, from homes, workers and threads."""

    def __init__(self, seed: int, seconds: float) -> None:
        self.rng = random.Random(seed)
        self.deadline = time.monotonic() + seconds
        self.locks = [homebound.Lock() for _ in range(4)]
        self.rw = homebound.RWLock()
        self.permits = homebound.Semaphore(2)
        self.turns = 0  # a hint only

    def over(self) -> bool:
        return time.monotonic() > self.deadline

    async def in_task(self, seed: float) -> None:
        rng = random.Random(seed)
        while not (self.over() and self.turns):  # a late one has its turn, too
            first, second = sorted(rng.sample(range(4), 2))
            try:
                async with asyncio.timeout(rng.choice([None, 0.001])):
                    async with self.permits, self.locks[first]:
                        await homebound.to_worker(self.briefly, second)
                    async with self.rw.read() if rng.random() < 0.7 else self.rw.write():
                        await asyncio.sleep(0)
            except TimeoutError:
                pass
            self.turns += 1

    def briefly(self, number: int) -> None:
        with self.locks[number]:
            pass

    def in_thread(self, seed: float) -> None:
        rng = random.Random(seed)
        while not self.over():
            first, second = sorted(rng.sample(range(4), 2))
            with self.locks[first], self.locks[second]:
                pass
            with self.rw.read():
                pass
            if rng.random() < 0.1:
                with homebound.big_lock:
                    pass


def test_a_watch_reports_no_false_deadlock(seed: int, stress_seconds: float):
    told: list[Any] = []
    crowd = Crowd(seed, stress_seconds)
    with (
        homebound.watch_stalls(0.001, report=told.append),
        homebound.IOThreadPool(2) as pool,
    ):
        tasks = [pool.spawn(crowd.in_task(crowd.rng.random())) for _ in range(6)]
        threads = [
            threading.Thread(target=crowd.in_thread, args=(crowd.rng.random(),)) for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for task in tasks:
            homebound.block_on(task)
        for thread in threads:
            thread.join()
    assert crowd.turns
    assert [str(stall) for stall in told if stall.kind == "deadlock"] == []
