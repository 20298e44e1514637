"""The big lock under contention: one owner, everybody's turn, timeouts that lose nothing."""

from __future__ import annotations

import asyncio
import random
import threading
import time

import pytest

import homebound
from homebound import big_lock


class Guarded:
    """What the lock guards: a counter that two at a time would spoil."""

    def __init__(self) -> None:
        self.total = 0
        self.inside: int | None = None
        self.wrong = 0

    def use(self) -> None:
        me = threading.get_ident()
        if self.inside is not None:
            self.wrong += 1
        self.inside = me
        value = self.total
        if value % 16 == 0:
            time.sleep(0)
        self.total = value + 1
        if self.inside != me:
            self.wrong += 1
        self.inside = None


@pytest.mark.parametrize("threads", [2, 5])
@pytest.mark.parametrize("main_loop", [False, True], ids=["no main loop", "main loop"])
def test_mutual_exclusion_and_fairness(
    threads: int,
    main_loop: bool,  # noqa: FBT001
    seed: int,
    stress_seconds: float,
):
    guarded = Guarded()
    got = [0] * threads
    gave_up = [0] * threads
    stop = threading.Event()
    barrier = threading.Barrier(threads)

    def work(who: int) -> None:
        rng = random.Random(seed + who)
        barrier.wait()
        while not stop.is_set():
            timeout = rng.choice([-1, -1, -1, 0, 0.0001, 0.01])
            if big_lock.acquire(timeout=timeout):
                guarded.use()
                big_lock.release()
                got[who] += 1
            else:
                gave_up[who] += 1

    workers = [threading.Thread(target=work, args=[who]) for who in range(threads)]

    async def main() -> None:
        end = time.monotonic() + stress_seconds
        while time.monotonic() < end:
            guarded.use()
            own[0] += 1
            await asyncio.sleep(0 if own[0] % 8 else 0.0002)
        stop.set()
        while any(worker.is_alive() for worker in workers):
            await asyncio.sleep(0.0005)

    own = [0]
    for worker in workers:
        worker.start()
    if main_loop:
        homebound.run(main())
    else:
        stop.wait(stress_seconds)
        stop.set()
    for worker in workers:
        worker.join(20)
        assert not worker.is_alive(), big_lock
    print(f"got {got}, gave up {gave_up}, main loop {own[0]}")  # noqa: T201
    assert guarded.wrong == 0
    assert guarded.total == sum(got) + own[0]
    assert min(got) > 0
    assert max(got) < 20 * min(got)
    assert repr(big_lock) == "<homebound.big_lock, free, 0 waiting>"
