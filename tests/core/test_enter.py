"""enter(): from elsewhere, from a running task, from a callback."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import AioContext, IOThread, Task, big_lock, current_context, current_task
from homebound.testing import here, settle_sync

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    InThread = Callable[..., Future[Any]]
    Gate = Callable[[AioContext], threading.Event]

Trace = list[tuple[str, str, object]]


async def sleeper(trace: Trace, turns: int = 1) -> str:
    """A coroutine that records the thread of each resumption."""
    for _ in range(turns):
        await homebound.suspend()
        trace.append(("ran", threading.current_thread().name, current_context()))
    return "done"


# Row 1: the context is not the current one.


@pytest.mark.parametrize("how", ["wake", "enter", "schedule"])
@pytest.mark.parametrize("who", ["plain thread", "lock holder", "other I/O thread"])
def test_from_elsewhere_it_is_queued_at_home(  # noqa: PLR0913, PLR0917
    who: str, how: str, io: IOThread, io2: IOThread, gate: Gate, in_thread: InThread
):
    trace: Trace = []
    task = io.spawn(sleeper(trace))
    settle_sync(io.context)
    go_on = gate(io.context)

    def act() -> None:
        if how == "wake":
            task.wake()
        else:
            getattr(io.context, how)(task)
        trace.append(("returned", "", None))

    def with_lock() -> None:
        with big_lock:
            act()

    async def in_task() -> None:
        act()

    if who == "other I/O thread":
        homebound.block_on(io2.spawn(in_task()))
    else:
        in_thread(with_lock if who == "lock holder" else act).result(10)
    assert trace == [("returned", "", None)]
    go_on.set()
    assert homebound.block_on(task) == "done"
    assert trace[1:] == [("ran", "io", io.context)]


def test_a_worker_without_the_lock_queues_at_the_main_loop(in_thread: InThread):
    trace: Trace = []

    async def main() -> None:
        task = here().spawn(sleeper(trace))
        await asyncio.sleep(0)
        in_thread(task.wake).result(10)  # this thread waits here: nothing can have run
        assert not trace
        await task
        assert trace == [("ran", "MainThread", here())]

    homebound.run(main())


def test_an_io_thread_with_the_lock_queues_at_the_main_loop(io: IOThread):
    trace: Trace = []

    async def main() -> None:
        task = here().spawn(sleeper(trace))
        await asyncio.sleep(0)

        async def wake() -> list[Any]:
            with big_lock:
                task.wake()
                return list(trace)

        assert await io.spawn(wake()) == []
        await task
        assert trace == [("ran", "MainThread", here())]

    homebound.run(main())


# Row 2: it is the current one, and a task is running.


def test_from_a_running_task_it_runs_when_that_one_suspends():
    async def main() -> None:
        order: list[str] = []

        async def second() -> None:
            await homebound.suspend()
            order.append("second")

        async def first() -> None:
            task.wake()
            order.append("first goes on")
            await homebound.suspend()
            order.append("first ends")

        task = here().spawn(second())
        other = here().spawn(first())
        here().call_soon(order.append, "queued before")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert order == ["first goes on", "second", "queued before"]
        other.wake()
        await other
        assert order[3:] == ["first ends"]

    homebound.run(main())


def test_from_a_running_task_it_runs_when_that_one_ends():
    async def main() -> None:
        order: list[str] = []

        async def second() -> None:
            await homebound.suspend()
            order.append("second")

        async def first() -> None:
            task.wake()
            order.append("first")

        task = here().spawn(second())
        await asyncio.sleep(0)
        here().spawn(first())
        here().call_soon(order.append, "queued before")
        await asyncio.sleep(0)
        assert order == ["first", "second", "queued before"]

    homebound.run(main())


def test_before_control_returns_to_its_enterer():
    order: list[str] = []

    async def second() -> None:
        await homebound.suspend()
        order.append("second")

    async def first(task: Task[None]) -> None:
        await homebound.suspend()
        task.wake()
        order.append("first")
        await asyncio.sleep(0)

    async def main() -> None:
        inner = here().spawn(second())
        outer = here().spawn(first(inner))
        await asyncio.sleep(0)
        returned = here().loop.create_future()

        def enter() -> None:
            outer.wake()
            order.append("returned")
            returned.set_result(None)

        here().call_soon(enter)
        await returned
        assert order == ["first", "second", "returned"]
        await outer

    homebound.run(main())


def test_while_an_asyncio_task_runs_it_is_queued():
    """No other task can run inside asyncio's own, which does not know the tasks it woke."""

    async def main() -> None:
        trace: Trace = []
        loop = asyncio.get_running_loop()
        task = here().spawn(sleeper(trace))
        await asyncio.sleep(0)

        async def stock() -> bool:
            task.wake()
            return bool(trace)

        assert not await asyncio.Task(stock(), loop=loop)
        await task

    homebound.run(main())


# Row 3: it is the current one, and no task is running.


@pytest.mark.parametrize("how", ["wake", "enter"])
def test_from_a_callback_it_runs_in_that_stack(how: str, io: IOThread):
    trace: Trace = []
    task = io.spawn(sleeper(trace, 2))
    settle_sync(io.context)
    tasks: list[object] = []

    def callback() -> None:
        tasks.append((current_task(), asyncio.current_task()))
        task.wake() if how == "wake" else io.context.enter(task)
        trace.append(("returned", "", None))
        tasks.append((current_task(), asyncio.current_task()))

    for _ in range(2):
        io.context.call_soon(callback)
        settle_sync(io.context)
    assert trace == [("ran", "io", io.context), ("returned", "", None)] * 2
    assert tasks == [(None, None)] * 4
    assert homebound.block_on(task) == "done"


def test_a_lock_holder_runs_main_tasks_in_its_own_stack(in_thread: InThread):
    trace: Trace = []

    async def main() -> None:
        task = here().spawn(sleeper(trace, 2))
        await asyncio.sleep(0)

        def work() -> None:
            for _ in range(2):
                with big_lock:
                    task.wake()
                    trace.append(("returned", "", None))

        await asyncio.wrap_future(in_thread(work))
        assert await task == "done"
        assert trace == [("ran", "plain0", here()), ("returned", "", None)] * 2

    homebound.run(main())


def test_current_task_is_right_inside_and_after(in_thread: InThread):
    async def main() -> None:
        seen: list[object] = []

        async def look() -> None:
            await homebound.suspend()
            seen.extend([current_task(), asyncio.current_task(), asyncio.get_running_loop()])

        task = here().spawn(look())
        await asyncio.sleep(0)

        def work() -> None:
            with big_lock:
                seen.append(current_task())
                task.wake()
                seen.append(current_task())
                with pytest.raises(RuntimeError):
                    asyncio.get_running_loop()

        await asyncio.wrap_future(in_thread(work))
        assert seen == [None, task, task, here().loop, None]

    homebound.run(main())


def test_what_it_raises_is_the_tasks_and_not_the_enterers(io: IOThread):
    async def fail() -> None:
        await homebound.suspend()
        raise ValueError

    task = io.spawn(fail())
    settle_sync(io.context)
    returned: list[int] = []

    def callback() -> None:
        task.wake()
        returned.append(1)

    io.context.call_soon(callback)
    with pytest.raises(ValueError):  # noqa: PT011
        homebound.block_on(task)
    settle_sync(io.context)  # it is done before its waker's next line
    assert returned == [1]


# What entering does to the task.


def test_entering_makes_the_context_its_home(io: IOThread, io2: IOThread):
    trace: Trace = []
    task = io.spawn(sleeper(trace, 2))
    settle_sync(io.context)
    io2.context.enter(task)
    settle_sync(io2.context)
    assert task.home is io2.context

    async def main() -> None:
        done = here().loop.create_future()

        def callback() -> None:
            here().enter(task)
            done.set_result(task.home)

        here().call_soon(callback)
        assert await done is here()
        assert trace == [("ran", "io2", io2.context), ("ran", "MainThread", here())]
        assert await task == "done"

    homebound.run(main())


def test_scheduling_moves_it(io: IOThread, io2: IOThread):
    trace: Trace = []
    task = io.spawn(sleeper(trace))
    settle_sync(io.context)
    io2.context.schedule(task)
    assert task.home is io2.context
    assert homebound.block_on(task) == "done"
    assert trace == [("ran", "io2", io2.context)]


@pytest.mark.parametrize("how", ["enter", "schedule", "wake"])
def test_a_task_made_by_hand_begins_when_entered(how: str, io: IOThread):
    async def work() -> tuple[object, object]:
        return current_context(), current_task()

    task = Task(work(), home=io.context if how == "wake" else None)
    assert task.home is (io.context if how == "wake" else None)
    task.wake() if how == "wake" else getattr(io.context, how)(task)
    assert homebound.block_on(task) == (io.context, task)


def test_a_task_made_by_hand_begins_inline():
    async def main() -> None:
        order: list[str] = []

        async def work() -> None:
            order.append("began")
            await homebound.suspend()
            order.append("ended")

        task = Task(work())
        done = here().loop.create_future()

        def callback() -> None:
            here().enter(task)
            order.append("returned")
            task.wake()
            done.set_result(task.done())

        here().call_soon(callback)
        assert await done is True
        assert order == ["began", "returned", "ended"]

    homebound.run(main())


def test_it_may_schedule_itself_elsewhere_before_it_suspends(io: IOThread):
    async def work() -> list[object]:
        seen: list[object] = [current_context()]
        task = current_task()
        assert task is not None
        io.context.schedule(task)
        await homebound.suspend()
        return [*seen, current_context()]

    async def main() -> None:
        assert await here().spawn(work()) == [here(), io.context]

    homebound.run(main())
