"""An exception at any point of a post: no task and no job is lost."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

import homebound
from homebound import WorkerPool
from homebound.testing import until

from ..locks.attack import PATIENCE, Attack, Interrupt

if TYPE_CHECKING:
    from collections.abc import Callable


RAISED = (Interrupt, MemoryError)


def attack_each(one: Callable[[Attack], object]) -> int:
    """Call `one` with an attack at each point in turn, until it comes to none."""
    at = 0
    while True:
        attack = Attack(at)
        try:
            one(attack)
        except RAISED as error:  # pytest cannot show these
            message = f"{error!r} escapes after {attack.where}"
            raise AssertionError(message) from None
        if attack.left >= 0:
            return at
        at += 1


@pytest.mark.parametrize("workers", ["no worker", "an idle one", "a busy one"])
def test_submit(workers: str):
    def one(attack: Attack) -> bool:
        ran: list[int] = []
        go_on = threading.Event()
        with WorkerPool(max_threads=2) as pool:
            if workers != "no worker":
                first = pool.submit(go_on.wait if workers == "a busy one" else int)
                if workers == "an idle one":
                    first.result(PATIENCE)
                    until(lambda: " 1 idle" in repr(pool))
            raised = attack.run(lambda: pool.submit(ran.append, 1))
            go_on.set()  # where no other worker can be started, the busy one does it
            if raised:  # it is done now, or it was not queued
                until(lambda: ran or not pool._jobs)
            else:
                attack.result.result(PATIENCE)
            pool.submit(ran.append, 2).result(PATIENCE)  # it is served by itself
        assert ran in ([1, 2], [2]), ran
        assert raised or 1 in ran
        return raised

    assert attack_each(one) > 0


def test_spawn(io: homebound.IOThread):
    async def work(ran: list[int]) -> None:
        ran.append(1)

    def one(attack: Attack) -> bool:
        ran: list[int] = []
        coro = work(ran)
        raised = attack.run(lambda: io.spawn(coro))
        homebound.testing.settle_sync(io.context)
        assert io.context.stats().tasks == 0
        assert ran == [1] or (raised and not ran)
        coro.close()
        return raised

    assert attack_each(one) > 0


def test_create_task(io: homebound.IOThread):
    """From another thread, as `spawn` does it; asyncio's own call is for the loop's thread."""

    async def work(ran: list[int]) -> None:
        ran.append(1)

    def one(attack: Attack) -> None:
        ran: list[int] = []
        coro = work(ran)
        raised = attack.run(lambda: io.context.loop.create_task(coro))
        homebound.testing.settle_sync(io.context)
        assert io.context.stats().tasks == 0
        assert ran == [1] or (raised and not ran)
        coro.close()

    assert attack_each(one) > 0
