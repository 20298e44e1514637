"""Wake-ups drain depth first, and FIFO in each level, without recursion or starvation."""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import Task, big_lock
from homebound.testing import here

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    InThread = Callable[..., Future[Any]]

WAKES = {"X": "AB", "A": "C", "B": "D", "C": "", "D": ""}
DEEP = {"X": "AB", "A": "CD", "B": "E", "C": "F", "D": "G", "E": "", "F": "H", "G": "", "H": ""}


def tree(wakes: dict[str, str], order: list[str], *, end: bool) -> dict[str, Task[None]]:
    """Suspended tasks, each of which records its name and wakes others, then suspends or ends."""

    async def node(name: str) -> None:
        await homebound.suspend()
        order.append(name)
        for other in wakes[name]:
            tasks[other].wake()
        if not end:
            await homebound.suspend()

    tasks = {name: here().spawn(node(name), name=name) for name in wakes}
    return tasks


def finish(tasks: dict[str, Task[None]]) -> None:
    for task in tasks.values():
        if not task.done():
            task.wake()


@pytest.mark.parametrize("end", [True, False], ids=["ending", "suspending"])
@pytest.mark.parametrize(
    ("wakes", "expected"), [(WAKES, "XACBD"), (DEEP, "XACFHDGBE")], ids=["two levels", "three"]
)
def test_depth_first(wakes: dict[str, str], expected: str, end: bool):  # noqa: FBT001
    async def main() -> None:
        order: list[str] = []
        tasks = tree(wakes, order, end=end)
        await asyncio.sleep(0)
        done = here().loop.create_future()

        def enter() -> None:
            tasks["X"].wake()
            done.set_result("".join(order))

        here().call_soon(enter)
        assert await done == expected
        finish(tasks)
        await asyncio.gather(*tasks.values())

    homebound.run(main())


def test_depth_first_when_a_task_begins_it():
    async def main() -> None:
        order: list[str] = []
        tasks = tree(WAKES, order, end=True)
        await asyncio.sleep(0)
        tasks["X"].wake()
        here().call_soon(order.append, "next iteration")
        await asyncio.sleep(0)
        assert order == [*"XACBD", "next iteration"]

    homebound.run(main())


def test_depth_first_in_a_stand_in(in_thread: InThread):
    async def main() -> None:
        order: list[str] = []
        tasks = tree(WAKES, order, end=True)
        await asyncio.sleep(0)

        def work() -> None:
            with big_lock:
                tasks["X"].wake()
                order.append("returned")

        await asyncio.wrap_future(in_thread(work))
        assert order == [*"XACBD", "returned"]

    homebound.run(main())


def test_wakes_of_one_task_keep_their_order():
    async def main() -> None:
        order: list[str] = []
        names = [f"n{number}" for number in range(50)]
        tasks = tree(dict.fromkeys(names, ""), order, end=True)
        await asyncio.sleep(0)
        for name in names:
            tasks[name].wake()
        await asyncio.sleep(0)
        assert order == names

    homebound.run(main())


def test_25000_mutual_wake_ups():
    async def main() -> None:
        count = 0
        depths: set[int] = set()

        async def player(other: list[Task[None]]) -> None:
            nonlocal count
            await homebound.suspend()
            while count < 25_000:
                count += 1
                if count % 1000 == 0:
                    depths.add(len(list(frames())))
                other[0].wake()
                await homebound.suspend()

        left: list[Task[None]] = []
        right: list[Task[None]] = []
        left.append(here().spawn(player(right)))
        right.append(here().spawn(player(left)))
        await asyncio.sleep(0)
        left[0].wake()
        await asyncio.wait([*left, *right], return_when=asyncio.FIRST_COMPLETED)
        finish({task.get_name(): task for task in [*left, *right]})
        await asyncio.gather(*left, *right)
        assert count == 25_000
        assert max(depths) - min(depths) < 10  # the stack does not grow

    homebound.run(main())


def frames() -> Any:
    frame = sys._getframe()
    while frame is not None:
        yield frame
        frame = frame.f_back  # type: ignore[assignment]


def test_a_chain_of_25000_tasks_each_waking_the_next():
    async def main() -> None:
        count = 25_000
        tasks: list[Task[None]] = []

        async def link(number: int) -> None:
            await homebound.suspend()
            if number + 1 < count:
                tasks[number + 1].wake()

        tasks += [here().spawn(link(number)) for number in range(count)]
        await asyncio.sleep(0)
        tasks[0].wake()
        await tasks[-1]
        assert all(task.done() for task in tasks)

    homebound.run(main())


def test_tasks_that_wake_each_other_forever_starve_nothing():
    """Timers, sockets, callbacks and other tasks run while the two tasks alternate."""

    async def main() -> None:
        stop: list[int] = []

        async def player(other: list[Task[None]]) -> None:
            await homebound.suspend()
            while not stop:
                other[0].wake()
                await homebound.suspend()

        left: list[Task[None]] = []
        right: list[Task[None]] = []
        left.append(here().spawn(player(right)))
        right.append(here().spawn(player(left)))
        await asyncio.sleep(0)
        left[0].wake()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            loop = asyncio.get_running_loop()
            await asyncio.sleep(0.001)
            loop.call_later(0.001, theirs.send, b"x")
            assert await loop.sock_recv(ours, 1) == b"x"
            for _ in range(10):
                await asyncio.sleep(0)
        stop.append(1)
        while not all(task.done() for task in [*left, *right]):
            await asyncio.sleep(0)
            for task in [*left, *right]:
                try:
                    task.wake()
                except homebound.ContextError:
                    pass

    homebound.run(main())
