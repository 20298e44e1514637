"""Cancelling: at each point where a task can be, from each kind of thread."""

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
    Run = Callable[..., Any]


def settle(io: IOThread) -> None:
    homebound.block_on(io.spawn(asyncio.sleep(0)))


async def until_cancelled(point: Any, trace: list[Any]) -> None:
    try:
        await point()
        trace.append("not cancelled")
    except asyncio.CancelledError as error:
        trace.extend([error.args, current_context()])
        await asyncio.sleep(0)  # cleanup may wait
        trace.append(current_context())
        raise


async def in_future() -> None:
    await asyncio.get_running_loop().create_future()


async def in_task() -> None:
    await asyncio.create_task(in_future())


async def in_gather() -> None:
    await asyncio.gather(in_future(), in_future())


async def in_far_task() -> None:
    with IOThread("far") as far:
        task = far.spawn(in_future())
        try:
            await task
        finally:
            assert task.cancelled()


async def in_worker() -> None:
    go_on = threading.Event()
    try:
        await homebound.to_worker(go_on.wait, 10)
    finally:
        go_on.set()


POINTS = {
    "suspend": homebound.suspend,
    "sleep": lambda: asyncio.sleep(30),
    "future": in_future,
    "task": in_task,
    "gather": in_gather,
    "worker": in_worker,
}


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize(
    "who", ["home callback", "home task", "plain thread", "lock holder", "other I/O thread"]
)
def test_at_each_point_from_each_thread(
    point: str, who: str, io: IOThread, io2: IOThread, in_thread: InThread
):
    trace: list[Any] = []
    task = io.spawn(until_cancelled(POINTS[point], trace))
    settle(io)
    settle(io)

    async def from_task() -> bool:
        return task.cancel("why")

    def with_lock() -> bool:
        with big_lock:
            return task.cancel("why")

    if who == "home callback":
        io.context.call_soon(task.cancel, "why")
    elif who == "home task":
        assert homebound.block_on(io.spawn(from_task()))
    elif who == "other I/O thread":
        assert homebound.block_on(io2.spawn(from_task()))
    else:
        assert in_thread(with_lock if who == "lock holder" else lambda: task.cancel("why")).result(
            10
        )
    with pytest.raises(asyncio.CancelledError):
        homebound.block_on(task)
    assert task.cancelled()
    assert trace == [("why",), io.context, io.context]
    assert not task.cancel()


@pytest.mark.parametrize("who", ["home", "plain thread"])
def test_in_a_main_task_that_waits_for_a_far_one(who: str, in_thread: InThread):
    async def main() -> None:
        trace: list[Any] = []
        with IOThread("far") as far:
            inner = far.spawn(in_future())

            async def wait() -> None:
                await inner

            task = here().spawn(until_cancelled(wait, trace))
            await asyncio.sleep(0)
            if who == "home":
                assert task.cancel("why")
            else:
                in_thread(task.cancel, "why").result(10)
            with pytest.raises(asyncio.CancelledError):
                await task
            assert inner.cancelled()
            assert trace == [("why",), here(), here()]

    homebound.run(main())


def test_before_it_began(run: Run):
    async def main() -> None:
        ran: list[int] = []

        async def work() -> None:
            ran.append(1)

        task = asyncio.create_task(work())
        assert task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not ran

    run(main())


def test_from_a_thread_before_it_began(io: IOThread, gate: Gate):
    ran: list[int] = []

    async def work() -> None:
        ran.append(1)

    go_on = gate(io.context)
    task = io.spawn(work())
    assert task.cancel()
    go_on.set()
    homebound.block_on(io.spawn(asyncio.sleep(0)))
    assert task.done()
    # The request was posted after the task: either may be served first, but completely.
    assert task.cancelled() or ran == [1]


def test_one_that_was_never_started():
    task = Task(in_future())
    assert task.cancel("why")
    assert task.cancelled()
    with pytest.raises(asyncio.CancelledError):
        task.result()


def test_one_that_was_never_started_but_has_a_home(io: IOThread):
    task = Task(in_future(), home=io.context)
    assert task.cancel()
    with pytest.raises(asyncio.CancelledError):
        homebound.block_on(task)


def test_a_sleeping_home_delivers_it_at_once(io: IOThread):
    task = io.spawn(asyncio.sleep(3600))
    settle_sync(io.context)  # asleep until the task's timer, if no post wakes it
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        homebound.block_on(task)


def test_it_may_refuse(run: Run):
    async def stubborn() -> str:
        for _ in range(2):
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                pass
        return "survived"

    async def main() -> None:
        task = asyncio.create_task(stubborn())
        await asyncio.sleep(0)
        for _ in range(2):
            assert task.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert await task == "survived"
        assert not task.cancelled()

    run(main())


def test_in_its_last_step(run: Run):
    async def main() -> None:
        async def work() -> str:
            me = asyncio.current_task()
            assert me is not None
            me.cancel()
            return "too late to tell"

        task = asyncio.create_task(work())
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    run(main())


def test_itself(run: Run):
    async def main() -> None:
        async def work(trace: list[str]) -> None:
            me = asyncio.current_task()
            assert me is not None
            me.cancel("myself")
            trace.append("goes on")
            await asyncio.sleep(0)
            trace.append("not reached")

        trace: list[str] = []
        task = asyncio.create_task(work(trace))
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert caught.value.args == ("myself",)
        assert trace == ["goes on"]

    run(main())


def test_wake_and_cancel_together_resume_it_once(io: IOThread, gate: Gate):
    for first in ("wake", "cancel"):
        resumes: list[int] = []

        async def work(resumes: list[int] = resumes) -> None:
            try:
                await homebound.suspend()
            finally:
                resumes.append(1)

        task = io.spawn(work())
        settle(io)
        go_on = gate(io.context)
        task.wake() if first == "wake" else task.cancel()
        try:
            task.cancel() if first == "wake" else task.wake()
        except homebound.AlreadyScheduled:
            pass
        go_on.set()
        settle(io)
        settle(io)
        assert task.done()
        assert resumes == [1]


def test_a_wake_after_the_cancellation_is_an_error(io: IOThread):
    task = io.spawn(homebound.suspend())
    settle(io)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        homebound.block_on(task)
    with pytest.raises(homebound.NotSuspended, match="is finished"):
        task.wake()


def test_the_cancelled_future_decides_as_in_asyncio(run: Run):
    """If the awaited future is already done, the task is cancelled at its next wait."""

    async def main() -> None:
        future = asyncio.get_running_loop().create_future()
        trace: list[Any] = []

        async def work() -> None:
            trace.append(await future)
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                trace.append("cancelled")
                raise

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        future.set_result("result")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return trace  # type: ignore[return-value]

    assert run(main()) == []


def test_timeout_and_cancel_tell_each_other_apart(run: Run):
    async def main() -> None:
        me = asyncio.current_task()
        assert me is not None
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await asyncio.sleep(30)
        assert me.cancelling() == 0
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.sleep(30), 0.001)

        async def work() -> None:
            async with asyncio.timeout(30):
                await asyncio.sleep(30)

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())


def test_cancel_a_task_from_the_task_it_waits_for(io: IOThread):
    """Both cancel each other at once: each gets its cancellation, and neither hangs."""
    ready = threading.Event()

    async def inner() -> str:
        ready.set()
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            outer.cancel()
            raise
        return "unreachable"

    async def wait() -> None:
        await io.spawn(inner())

    async def main() -> None:
        nonlocal outer  # type: ignore[misc]
        outer = here().spawn(wait())
        await homebound.to_worker(ready.wait, 10)
        outer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await outer

    outer: Task[None]
    homebound.run(main())


def test_current_task_cancelled_from_a_thread_while_it_runs(in_thread: InThread):
    async def main() -> None:
        async def work() -> str:
            me = current_task()
            assert me is not None
            in_thread(me.cancel).result(10)
            try:
                await homebound.suspend()
            except asyncio.CancelledError:
                return "cancelled at its next wait"
            return "lost"

        assert await here().spawn(work()) == "cancelled at its next wait"

    homebound.run(main())
