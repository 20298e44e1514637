"""A Background used by many threads, while another stops and starts it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from homebound import Background, ContextClosed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from random import Random

    from homebound.testing import Stress


class Uses:
    """What the threads do; each use ends right, or with ContextClosed."""

    def __init__(self, background: Background) -> None:
        self._background = background
        self._sleep = background.sync(asyncio.sleep)
        self._numbers = background.sync(numbers)

    def call(self, rng: Random) -> None:
        value = rng.random()
        assert self._background.call(asyncio.sleep, 0, value) == value

    def iterate(self, _: Random) -> None:
        assert list(self._numbers(3)) == [0, 1, 2]

    def drop(self, rng: Random) -> None:
        iterator = self._numbers(3)
        assert next(iterator) == 0
        if rng.random() < 0.5:
            iterator.close()

    def time_out(self, _: Random) -> None:
        with pytest.raises(TimeoutError):
            self._background.block_on(asyncio.sleep(60), timeout=0.0005)

    def spawn(self, rng: Random) -> None:
        task = self._background.spawn(asyncio.sleep(0, "done"))
        if rng.random() < 0.5:
            task.cancel()


async def numbers(limit: int) -> AsyncGenerator[int]:
    async with asyncio.timeout(60):  # left in the task that entered it, or it raises
        for number in range(limit):
            await asyncio.sleep(0)
            yield number


def use(uses: Uses, rng: Random, stress: Stress) -> None:
    kinds = [uses.call, uses.iterate, uses.drop, uses.time_out, uses.spawn]
    while not stress.over():
        kind = rng.choice(kinds)
        try:
            kind(rng)
            stress.count(kind.__name__)
        except ContextClosed:
            stress.count("closed")


@pytest.mark.parametrize("threads", [2, 5])
def test_stopped_and_started_while_it_is_used(threads: int, stress: Stress):
    rng = stress.rng()
    background = Background("raced")
    users = [stress.thread(use, Uses(background), stress.rng(), stress) for _ in range(threads)]
    stress.go()
    while not (stress.over() and stress.counts["starts"]):
        time.sleep(rng.random() * 0.01)
        background.stop(20)
        background.start()
        stress.count("starts")
    for user in users:
        user.result(20)
    background.stop(20)
    assert background.stopped
    print(stress.counts)  # noqa: T201
    assert stress.counts["starts"]
