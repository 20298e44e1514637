"""settle: it returns when everything is idle, and not before."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import AioContext, IOThread, Task
from homebound.testing import Threads, settle, settle_sync

if TYPE_CHECKING:
    from homebound.testing import LoopThread


async def token(contexts: list[AioContext], passes: int, left: list[int]) -> None:
    """A token passed round; settle sees it even if it is passed on between two looks."""
    for number in range(passes):
        await homebound.move_to(contexts[number % len(contexts)])
    left.append(1)


def test_a_token_passed_between_contexts(io: IOThread, io2: IOThread):
    for passes in range(1, 60):
        arrived: list[int] = []
        io.spawn(token([io.context, io2.context], passes, arrived))
        settle_sync()
        assert arrived, f"settled in the middle of {passes} passes"


def test_a_token_passed_with_main(io: IOThread, io2: IOThread):
    async def main() -> None:
        here = homebound.current_context()
        assert here is not None
        for passes in range(1, 60):
            arrived: list[int] = []
            io.spawn(token([io.context, here, io2.context], passes, arrived))
            await settle()
            assert arrived, f"settled in the middle of {passes} passes"

    homebound.run(main())


def test_a_token_passed_to_workers(io: IOThread, io2: IOThread):
    async def juggle(arrived: list[int]) -> None:
        for _ in range(5):
            await homebound.to_worker(int)
            await homebound.move_to(io2.context)
            await asyncio.to_thread(int)
            await homebound.run_in(pool, int)
            await homebound.move_to(io.context)
        arrived.append(1)

    with homebound.WorkerPool(max_threads=1, idle_timeout=0.0001) as pool:
        for _ in range(20):
            arrived: list[int] = []
            io.spawn(juggle(arrived))
            settle_sync()
            assert arrived, "settled with a job in flight"


def test_a_token_passed_by_jobs_alone():
    """Each job submits the next one, to the other pool: no context takes part."""
    with homebound.WorkerPool() as one, homebound.WorkerPool() as two:
        for _ in range(20):
            arrived: list[int] = []

            def throw(left: int, arrived: list[int] = arrived) -> None:
                if left:
                    (one, two)[left % 2].submit(throw, left - 1)
                else:
                    arrived.append(1)

            one.submit(throw, 30)
            settle_sync()
            assert arrived, "settled with a job in flight"


def test_waiting_for_a_timer_or_an_event_is_idle(io: IOThread):
    event = homebound.Event()
    tasks: list[Task[Any]] = [io.spawn(asyncio.sleep(3600)), io.spawn(event.wait())]
    settle_sync()
    assert not any(task.done() for task in tasks)
    event.set()
    settle_sync()
    assert [task.done() for task in tasks] == [False, True]


def test_only_the_given_contexts_are_waited_for(io: IOThread, io2: IOThread):
    go_on = threading.Event()
    io2.context.call_soon(go_on.wait, 20)
    task = io.spawn(asyncio.sleep(0))
    settle_sync(io.context)
    assert task.done()
    go_on.set()


@pytest.mark.parametrize("where", ["task", "thread"])
def test_what_is_not_idle_in_time_is_named(where: str, io: IOThread):
    go_on = threading.Event()
    io.context.call_soon(go_on.wait, 20)
    settling = {
        "thread": lambda: settle_sync(timeout=0.001),
        "task": lambda: homebound.run(settle(io.context, timeout=0.001)),
    }
    with pytest.raises(TimeoutError, match=r"not idle after 0\.001 s: <AioContext 'io'> is awake"):
        settling[where]()
    go_on.set()


def test_in_a_worker_that_holds_the_big_lock():
    ran: list[int] = []

    def stand_in() -> list[int]:
        with homebound.big_lock:
            context = homebound.current_context()
            assert context is not None
            context.call_soon(ran.append, 1)
            settle_sync(context)
            return list(ran)

    async def main(threads: Threads) -> None:
        ended = homebound.Event()
        future = threads.start(stand_in)
        future.add_done_callback(lambda _: ended.set())
        await ended.wait()
        assert future.result() == [1]

    with Threads() as threads:
        homebound.run(main(threads))


def test_in_a_task_of_another_loop(stock: LoopThread, io: IOThread):
    async def work() -> bool:
        task: Task[None] = io.spawn(asyncio.sleep(0))
        await settle()
        return task.done()

    assert stock.call(work()).result(20)


def test_cancelled_it_stops_watching(io: IOThread):
    go_on = threading.Event()
    io.context.call_soon(go_on.wait, 20)

    async def main() -> None:
        with pytest.raises(TimeoutError, match=r"^$"):
            async with asyncio.timeout(0.001):
                await settle(timeout=None)
        go_on.set()
        await settle()

    homebound.run(main())


def test_several_at_once(io: IOThread, io2: IOThread):
    async def main() -> None:
        arrived: list[int] = []
        io.spawn(token([io.context, io2.context], 50, arrived))
        await asyncio.gather(settle(), io.spawn(settle()), io2.spawn(settle(io.context)))
        assert arrived

    homebound.run(main())
