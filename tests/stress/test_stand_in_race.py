"""Several threads stand in by turns, the main loop is now busy, now asleep, and others post."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from typing import TYPE_CHECKING

import pytest

import homebound
from homebound import AioContext, big_lock, block_on, current_context, main_context

if TYPE_CHECKING:
    from homebound.testing import Stress


class Main:
    """The main context's data: only one thread at a time may use it."""

    def __init__(self, context: AioContext) -> None:
        self.context = context
        self.stop = False
        self.inside = False
        self.wrong: list[str] = []
        self.ran = 0  # callbacks and timers
        self.woken = 0
        self.sleepers: list[homebound.Task[None]] = []

    def touch(self) -> None:
        if current_context() is not self.context or not big_lock.held():
            self.wrong.append(f"in {threading.current_thread()} with {current_context()}")
        if self.inside:
            self.wrong.append(f"two at once, {threading.current_thread()}")
        self.inside = True
        for _ in range(5):
            pass
        self.inside = False

    def callback(self) -> None:
        self.touch()
        self.ran += 1

    async def sleeper(self) -> None:
        while not self.stop:
            await homebound.suspend()
            self.touch()
            self.woken += 1

    async def job(self, rng: random.Random) -> float:
        value = rng.random()
        for _ in range(rng.randrange(4)):
            self.touch()
            choice = rng.randrange(4)
            if choice == 0:
                await asyncio.sleep(rng.random() * 0.0005)
            elif choice == 1:
                await asyncio.create_task(asyncio.sleep(0))
            elif choice == 2:
                await homebound.to_worker(int)
            else:
                await asyncio.sleep(0)
        self.touch()
        return value


def stand_in(main: Main, rng: random.Random, stress: Stress) -> None:
    while not main.stop:
        with big_lock:
            assert current_context() is main.context
            choice = rng.randrange(5)
            if choice == 0:
                again = random.Random()
                again.setstate(rng.getstate())
                assert block_on(main.job(rng)) == again.random()
                stress.count("blocked")
            elif choice == 1:
                main.context.poll(blocking=False)
            elif choice == 2:
                task = rng.choice(main.sleepers)
                before = main.woken
                try:
                    task.wake()
                except homebound.AlreadyScheduled:
                    continue  # a producer was first
                except homebound.NotSuspended:
                    assert main.stop  # and so the task has ended
                    continue
                assert main.woken == before + 1  # it ran before wake() returned
            elif choice == 3:
                main.context.loop.call_later(rng.random() * 0.001, main.callback)
                stress.count("posted")
            else:
                main.context.loop.call_soon(main.callback)
                stress.count("posted")


def produce(main: Main, rng: random.Random, stress: Stress) -> None:
    while not main.stop:
        for _ in range(rng.randrange(4)):
            main.context.call_soon(main.callback)
            stress.count("posted")
        if rng.random() < 0.3:
            try:
                rng.choice(main.sleepers).wake()
            except homebound.AlreadyScheduled:
                pass
            except homebound.NotSuspended:
                assert main.stop  # and so the task has ended
        time.sleep(rng.choice([0, 0.0003]))


@pytest.mark.parametrize("threads", [2, 5])
def test_stand_ins(threads: int, stress: Stress):
    async def run() -> Main:
        context = current_context()
        assert context is main_context() is not None
        main = Main(context)  # type: ignore[arg-type]
        main.sleepers = [context.spawn(main.sleeper()) for _ in range(5)]  # type: ignore[union-attr]
        await asyncio.sleep(0)
        rng = stress.rng()
        for target in [stand_in] * threads + [produce] * 2:
            stress.thread(target, main, stress.rng(), stress)
        stress.go()
        while not stress.over():
            for _ in range(rng.randrange(20)):  # busy
                main.touch()
                await asyncio.sleep(0)
            await asyncio.sleep(rng.random() * 0.003)  # asleep
        main.stop = True
        deadline = time.monotonic() + 20
        while stress.alive():
            await asyncio.sleep(0.001)
            assert time.monotonic() < deadline, "a stand-in hangs"
        while main.ran < stress.counts["posted"]:
            await asyncio.sleep(0.001)
            assert time.monotonic() < deadline, "posts were lost"
        for task in main.sleepers:
            while not task.done():
                try:
                    task.wake()
                except homebound.ContextError:
                    pass
                await asyncio.sleep(0)
        return main

    main = homebound.run(run())
    stress.join()
    posted = stress.counts["posted"]
    print(f"{main.woken} wakes, {stress.counts}")  # noqa: T201
    assert not main.wrong, main.wrong[:5]
    assert main.ran == posted
    assert main.woken > 0
