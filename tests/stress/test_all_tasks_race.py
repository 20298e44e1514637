"""all_tasks() and the end of a home, beside tens of thousands of tasks on other homes."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import homebound
from homebound import IOThread, block_on

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    InThread = Callable[..., Future[Any]]

MANY = 10_000  # unfinished tasks in each of three homes
MINE = 50  # in the home that ends
ROUNDS = 2


async def rests(go_on: homebound.Event) -> None:
    await go_on.wait()


async def churns(over: threading.Event) -> int:
    """Make tasks that end soon, all the time."""
    count = 0
    while not (count and over.is_set()):
        await asyncio.gather(*(asyncio.create_task(asyncio.sleep(0)) for _ in range(20)))
        count += 20
        await asyncio.sleep(0.001)  # the other threads need the interpreter as well
    return count


async def fills(go_on: homebound.Event, keep: list[Any]) -> None:
    keep += [asyncio.create_task(rests(go_on)) for _ in range(MANY)]


def test_all_tasks_and_stops_beside_churn_on_other_homes(in_thread: InThread):
    over = threading.Event()
    homes = [IOThread(f"churn{n}").start() for n in range(3)]
    go_on = homebound.Event()
    kept: list[Any] = []
    try:
        for home in homes:
            block_on(home.spawn(fills(go_on, kept)))
        churning = [home.spawn(churns(over)) for home in homes]
        ended: list[Any] = []

        async def main() -> None:
            for n in range(ROUNDS):
                assert len(asyncio.all_tasks()) == 1
                for home in homes:
                    there = asyncio.all_tasks(home.context.loop)
                    assert len(there) >= MANY
                    assert all(task.get_loop() is home.context.loop for task in there)
                async with IOThread(f"ends{n}") as io:
                    mine = [io.spawn(rests(go_on)) for _ in range(MINE)]
                    await io.spawn(asyncio.sleep(0))
                    ended.extend(mine)

        looking = in_thread(look_on, homes, over)
        homebound.run(main())
        assert len(ended) == ROUNDS * MINE
        assert all(task.cancelled() for task in ended)
        over.set()
        assert looking.result(20) > 0
        assert all(block_on(each) > 0 for each in churning)
        go_on.set()
    finally:
        over.set()
        for home in homes:
            home.stop()
    assert len(kept) == 3 * MANY
    assert all(task.done() for task in kept)


def look_on(homes: list[IOThread], over: threading.Event) -> int:
    """Ask from a thread that is no home."""
    looks = 0
    while not over.is_set() or not looks:
        for home in homes:
            assert len(asyncio.all_tasks(home.context.loop)) >= MANY
            looks += 1
        over.wait(0.01)
    return looks
