"""to_worker and run_in with tasks cancelled at random: no result lost, none given to another."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

import homebound
from homebound import IOThread, WorkerPool, run_in, to_worker

if TYPE_CHECKING:
    import random

    from homebound.testing import Stress


class Counts:
    def __init__(self) -> None:
        self.started = self.finished = 0
        self.lock = threading.Lock()

    def job(self, value: int) -> int:
        with self.lock:
            self.started += 1
        if value % 5 == 0:
            time.sleep(0.0001)
        with self.lock:
            self.finished += 1
        if value % 7 == 0:
            raise KeyError(value)
        return value


@pytest.mark.parametrize("io_threads", [2, 5])
def test_to_worker_with_cancellation(io_threads: int, stress: Stress):  # noqa: C901
    counts = Counts()
    outcomes = {"results": 0, "cancelled": 0}

    async def client(rng: random.Random, pool: WorkerPool) -> tuple[int, int]:
        results = cancelled = 0
        me = homebound.current_task()
        assert me is not None
        while not (stress.over() and results):  # a late one has its turn, too
            value = rng.randrange(1_000_000)
            try:
                if rng.random() < 0.7:
                    got = await to_worker(counts.job, value)
                else:
                    got = await run_in(pool, counts.job, value)
                assert got == value
                assert value % 7
                results += 1
            except KeyError as error:
                assert error.args == (value,)  # noqa: PT017
                results += 1
            except asyncio.CancelledError:
                cancelled += 1
            while me.cancelling():
                me.uncancel()
            if rng.random() < 0.1:
                try:
                    await asyncio.sleep(0)
                except asyncio.CancelledError:
                    pass
        return results, cancelled

    def cancel(tasks: list[homebound.Task[tuple[int, int]]], rng: random.Random) -> None:
        while not stress.over():
            rng.choice(tasks).cancel()
            time.sleep(rng.choice([0, 0.0003]))

    with ExitStack() as stack:
        ios = [stack.enter_context(IOThread()) for _ in range(io_threads)]
        pool = stack.enter_context(WorkerPool(max_threads=2, idle_timeout=0.0005))
        tasks = [io.spawn(client(stress.rng(), pool)) for _ in range(4) for io in ios]
        stress.thread(cancel, tasks, stress.rng())
        stress.wait()
        for task in tasks:
            try:
                results, cancelled = homebound.block_on(task, timeout=20)
            except asyncio.CancelledError:
                continue  # the request came in its last step
            outcomes["results"] += results
            outcomes["cancelled"] += cancelled
    print(f"{outcomes}, jobs started {counts.started}, finished {counts.finished}")  # noqa: T201
    assert counts.started == counts.finished
    assert outcomes["results"] <= counts.finished
    assert outcomes["results"] > 0


@pytest.mark.parametrize("threads", [2, 5])
def test_submitters_and_idle_exits(threads: int, stress: Stress):
    """Workers end all the time while jobs come: no job is left without a worker."""
    done = [0] * threads

    def submit(who: int, pool: WorkerPool, rng: random.Random) -> None:
        while not (stress.over() and done[who]):  # a late job has its turn, too
            futures = [pool.submit(int, number) for number in range(rng.randrange(1, 6))]
            for number, future in enumerate(futures):
                assert future.result(20) == number
            done[who] += len(futures)
            time.sleep(rng.choice([0, 0, 0.001]))

    with WorkerPool(max_threads=3, idle_timeout=0.0005) as pool:
        for who in range(threads):
            stress.thread(submit, who, pool, stress.rng())
        stress.wait()
    print(f"{sum(done)} jobs")  # noqa: T201
    assert min(done) > 0
