"""Wakes that come twice, too early, or to a task that cannot be entered."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import (
    AioContext,
    AlreadyScheduled,
    IOThread,
    NotSuspended,
    Task,
    current_task,
)
from homebound.testing import here, settle_sync

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    InThread = Callable[..., Future[Any]]
    Gate = Callable[[AioContext], threading.Event]


async def resumed(times: list[int]) -> str:
    await homebound.suspend()
    times.append(1)
    return "done"


@pytest.mark.parametrize("again", ["wake", "schedule", "enter"])
def test_the_second_schedule_names_the_first(
    again: str, io: IOThread, gate: Gate, in_thread: InThread
):
    times: list[int] = []
    task = io.spawn(resumed(times), name="sleepy")
    settle_sync(io.context)
    go_on = gate(io.context)
    first = threading.Event()
    leave = threading.Event()

    def schedule() -> None:
        io.context.schedule(task)
        first.set()
        leave.wait(10)

    done = in_thread(schedule)
    assert first.wait(10)
    with pytest.raises(AlreadyScheduled) as caught:
        task.wake() if again == "wake" else getattr(io.context, again)(task)
    leave.set()
    done.result(10)
    go_on.set()
    assert homebound.block_on(task) == "done"
    assert times == [1]
    for part in ("'plain0'", "'MainThread'", "sleepy", "'io'", "already"):
        assert part in str(caught.value)


def test_a_spawned_task_is_scheduled_already(io: IOThread, gate: Gate):
    go_on = gate(io.context)
    times: list[int] = []
    task = io.spawn(resumed(times))
    for act in (task.wake, lambda: io.context.schedule(task)):
        with pytest.raises(AlreadyScheduled, match=r"the call that made it \(spawn, create_task\)"):
            act()
    go_on.set()
    settle_sync(io.context)
    task.wake()
    assert homebound.block_on(task) == "done"


def test_at_home_too():
    async def main() -> None:
        times: list[int] = []
        task = here().spawn(resumed(times))
        await asyncio.sleep(0)
        task.wake()
        for act in (task.wake, lambda: here().schedule(task), lambda: here().enter(task)):
            with pytest.raises(AlreadyScheduled):
                act()
        await task
        assert times == [1]

    homebound.run(main())


@pytest.mark.parametrize("how", ["wake", "schedule", "elsewhere"])
def test_of_threads_that_race_exactly_one_succeeds(
    how: str, io: IOThread, io2: IOThread, gate: Gate, in_thread: InThread
):
    threads = 4
    for _ in range(10):
        times: list[int] = []
        task = io.spawn(resumed(times))
        settle_sync(io.context)
        opened = [gate(io.context), gate(io2.context)]
        barrier = threading.Barrier(threads)

        def race(
            who: int, task: Task[str] = task, barrier: threading.Barrier = barrier
        ) -> type[Exception] | None:
            barrier.wait()
            try:
                if how == "wake":
                    task.wake()
                else:
                    (io2 if how == "elsewhere" and who % 2 else io).context.schedule(task)
            except homebound.ContextError as error:
                return type(error)
            return None

        results = [done.result(10) for done in [in_thread(race, who) for who in range(threads)]]
        for go_on in opened:
            go_on.set()
        assert homebound.block_on(task) == "done"
        assert times == [1]
        assert sorted(map(str, results)) == sorted(
            map(str, [None, *[AlreadyScheduled] * (threads - 1)])
        )


def test_a_task_that_wakes_itself():
    async def main() -> None:
        me = current_task()
        assert me is not None
        for act in (me.wake, lambda: here().enter(me)):
            with pytest.raises(NotSuspended, match="is running"):
                act()

    homebound.run(main())


def test_waking_a_task_that_waits_for_something_else():
    async def main() -> None:
        future = asyncio.get_running_loop().create_future()

        async def wait() -> str:
            result: str = await future
            return result

        task = here().spawn(wait())
        await asyncio.sleep(0)
        with pytest.raises(NotSuspended, match="waits for <Future pending"):
            task.wake()
        future.set_result("x")
        with pytest.raises(NotSuspended, match=r"about to run|waits for"):
            task.wake()
        assert await task == "x"

    homebound.run(main())


def test_waking_a_finished_task(io: IOThread):
    async def main() -> None:
        task = here().spawn(asyncio.sleep(0))
        await task
        for act in (task.wake, lambda: here().enter(task), lambda: here().schedule(task)):
            with pytest.raises(NotSuspended, match="is finished"):
                act()

    homebound.run(main())
    task = io.spawn(asyncio.sleep(0))
    homebound.block_on(task)
    for act in (task.wake, lambda: io.context.enter(task), lambda: io.context.schedule(task)):
        with pytest.raises(NotSuspended, match="is finished"):
            act()


def test_waking_a_task_without_a_home():
    task = Task(asyncio.sleep(0))
    with pytest.raises(NotSuspended, match="no home yet"):
        task.wake()
    task.cancel()
    assert task.cancelled()


def test_a_wake_that_comes_before_the_suspension_is_kept(in_thread: InThread):
    """Store the result, then wake: right in a worker however long the task takes to suspend."""

    async def main() -> None:
        for _ in range(20):
            me = current_task()
            assert me is not None
            results: list[int] = []

            def work(task: Task[Any] = me, results: list[int] = results) -> None:
                results.append(42)
                task.wake()

            in_thread(work).result(10)
            await homebound.suspend()
            assert results == [42]

    homebound.run(main())


def test_a_worker_races_with_the_suspension():
    async def main() -> None:
        for number in range(200):
            me = current_task()
            assert me is not None
            results: list[int] = []

            def work(
                task: Task[Any] = me, results: list[int] = results, number: int = number
            ) -> None:
                results.append(number)
                task.wake()

            work_done = pool.submit(work)
            await homebound.suspend()
            assert results == [number]
            work_done.result(10)

    with homebound.WorkerPool() as pool:
        homebound.run(main())


def test_only_one_early_wake(in_thread: InThread):
    async def main() -> None:
        me = current_task()
        assert me is not None
        in_thread(me.wake).result(10)
        with pytest.raises(AlreadyScheduled, match="already scheduled"):
            in_thread(me.wake).result(10)
        await homebound.suspend()

    homebound.run(main())


def test_an_early_wake_waits_for_suspend_and_ends_no_other_wait(in_thread: InThread):
    async def main() -> None:
        me = current_task()
        assert me is not None
        order: list[str] = []
        in_thread(me.wake).result(10)
        asyncio.get_running_loop().call_later(0.002, order.append, "timer")
        await asyncio.sleep(0.004)
        order.append("slept")
        await homebound.suspend()
        assert order == ["timer", "slept"]

    homebound.run(main())


def test_an_early_schedule_elsewhere_moves_it(io: IOThread, in_thread: InThread):
    async def main() -> None:
        me = current_task()
        assert me is not None
        home = here()
        in_thread(io.context.schedule, me).result(10)
        assert here() is home
        await homebound.suspend()
        assert here() is io.context
        await homebound.move_to(home)

    homebound.run(main())


def test_an_early_wake_of_a_task_that_then_ends(in_thread: InThread):
    async def main() -> None:
        async def work() -> str:
            me = current_task()
            assert me is not None
            in_thread(me.wake).result(10)
            return "ended all the same"

        task = here().spawn(work())
        assert await task == "ended all the same"
        with pytest.raises(NotSuspended, match="is finished"):
            task.wake()

    homebound.run(main())


def test_after_an_error_task_and_context_go_on(io: IOThread):
    times: list[int] = []
    task = io.spawn(resumed(times))
    settle_sync(io.context)
    go_on = threading.Event()
    io.context.call_soon(go_on.wait)  # a running task would take the second wake for its next wait
    task.wake()
    with pytest.raises(homebound.ContextError):
        task.wake()
    go_on.set()
    assert homebound.block_on(task) == "done"
    with pytest.raises(homebound.ContextError):
        task.wake()
    settle_sync(io.context)
    assert times == [1]
    assert io.context.stats().tasks == 0


def test_a_wake_for_a_task_whose_home_has_ended():
    with IOThread() as io:
        task = io.spawn(resumed([]))
        settle_sync(io.context)
        context = io.context
    assert task.cancelled()
    with pytest.raises(homebound.ContextClosed, match="has ended"):
        task.wake()
    with pytest.raises(homebound.ContextClosed):
        context.schedule(fresh := Task(asyncio.sleep(0)))
    assert fresh.home is None  # it was refused
    fresh.cancel()


@pytest.mark.parametrize("what", [None, 3, print])
def test_waking_something_that_is_no_task(what: Any, io: IOThread):
    async def main() -> None:
        for context in (here(), io.context):
            with pytest.raises(TypeError, match=r"schedule\(\) takes a homebound\.Task, got"):
                context.schedule(what)
            with pytest.raises(TypeError, match=r"takes a homebound\.Task, got"):
                context.enter(what)

    homebound.run(main())
