"""The scenario that QEMU's commit and its unit test are about.

A worker thread wakes a task of the main loop. Without the big lock the task runs in the main
thread; with it, in the worker, before wake() returns.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import homebound
from homebound import big_lock, current_context, main_context

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    InThread = Callable[..., Future[Any]]


class Device:
    """A device request that waits for a connection which a worker makes."""

    def __init__(self) -> None:
        self.trace: list[str] = []
        self.task: homebound.Task[str] | None = None

    async def request(self) -> str:
        self.task = homebound.current_task()
        await homebound.suspend()
        assert current_context() is main_context()
        self.trace.append("task runs in " + threading.current_thread().name)
        return "connected"

    def wake(self) -> None:
        assert self.task is not None
        self.task.wake()
        self.trace.append("wake() returns in " + threading.current_thread().name)

    def wake_without_lock(self) -> None:
        assert current_context() is None
        self.wake()

    def wake_with_lock(self) -> None:
        with big_lock:
            assert current_context() is main_context()
            self.wake()


def test_without_the_lock_it_runs_in_the_main_thread(in_thread: InThread):
    async def main() -> None:
        device = Device()
        task = asyncio.create_task(device.request())
        await asyncio.sleep(0)
        in_thread(device.wake_without_lock).result(10)  # the main thread is here, and ran nothing
        assert device.trace == ["wake() returns in plain0"]
        assert await task == "connected"
        assert device.trace[1:] == ["task runs in MainThread"]

    homebound.run(main())


def test_with_the_lock_it_runs_in_the_worker(in_thread: InThread):
    async def main() -> None:
        device = Device()
        task = asyncio.create_task(device.request())
        await asyncio.sleep(0)
        await asyncio.wrap_future(in_thread(device.wake_with_lock))
        assert await task == "connected"
        assert device.trace == ["task runs in plain0", "wake() returns in plain0"]

    homebound.run(main())


def test_wakes_in_both_ways_again_and_again():
    async def main() -> None:
        for number in range(100):
            device = Device()
            task = asyncio.create_task(device.request())
            await asyncio.sleep(0)
            with_lock = number % 2 == 0
            await homebound.to_worker(
                device.wake_with_lock if with_lock else device.wake_without_lock
            )
            assert await task == "connected"
            assert ("MainThread" in "".join(device.trace[:1] + device.trace[1:])) is not with_lock

    homebound.run(main())


def test_several_workers_wake_several_tasks(in_thread: InThread):
    async def main() -> None:
        devices = [Device() for _ in range(20)]
        tasks = [asyncio.create_task(device.request()) for device in devices]
        await asyncio.sleep(0)
        barrier = threading.Barrier(4)

        def work(who: int) -> None:
            barrier.wait(10)
            for number in range(who, 20, 4):
                device = devices[number]
                device.wake_with_lock() if number % 3 else device.wake_without_lock()

        await asyncio.gather(*(asyncio.wrap_future(in_thread(work, who)) for who in range(4)))
        assert await asyncio.gather(*tasks) == ["connected"] * 20

    homebound.run(main())
