"""The big lock under contention: one owner, a turn for each thread, timeouts that lose nothing."""

from __future__ import annotations

import asyncio
import threading
import time
from time import monotonic
from typing import TYPE_CHECKING

import pytest

import homebound
from homebound import big_lock

if TYPE_CHECKING:
    import random

    from homebound.testing import Stress


class Guarded:
    """The data that the lock guards: a counter that two threads at once would corrupt."""

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
    stress: Stress,
):
    guarded = Guarded()
    got = [0] * threads
    gave_up = [0] * threads

    def is_fair() -> bool:
        return min(got) > 0 and max(got) < 20 * min(got)

    def over() -> bool:
        """Go on for a while if a thread had no core: a fair lock makes up for that."""
        return stress.over() and (is_fair() or stress.failed() or monotonic() > hopeless)

    def work(who: int, rng: random.Random) -> None:
        while not over():
            timeout = rng.choice([-1, -1, -1, 0, 0.0001, 0.01])
            if big_lock.acquire(timeout=timeout):
                guarded.use()
                big_lock.release()
                got[who] += 1
            else:
                gave_up[who] += 1

    async def main() -> None:
        stress.go()
        while not stress.over() or stress.alive():
            guarded.use()
            own[0] += 1
            await asyncio.sleep(0 if own[0] % 8 else 0.0002)

    own = [0]
    hopeless = monotonic() + stress.seconds + 10
    for who in range(threads):
        stress.thread(work, who, stress.rng())
    if main_loop:
        homebound.run(main())
    stress.wait()
    print(f"got {got}, gave up {gave_up}, main loop {own[0]}")  # noqa: T201
    assert guarded.wrong == 0
    assert guarded.total == sum(got) + own[0]
    assert is_fair()
    assert repr(big_lock) == "<homebound.big_lock, free, 0 waiting>"
