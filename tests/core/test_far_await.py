"""Awaiting across loops: our tasks await anything of any loop, asyncio's tasks await ours."""

from __future__ import annotations

import asyncio
import sys
import threading
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import AioContext, ContextClosed, IOThread
from homebound.testing import here

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from homebound.testing import LoopThread

    InThread = Callable[..., Future[Any]]
    Gate = Callable[[AioContext], threading.Event]


def thread_name() -> str:
    return threading.current_thread().name


async def where() -> str:
    await asyncio.sleep(0)
    return thread_name()


async def fail() -> None:
    await asyncio.sleep(0)
    raise ValueError("far")


class Slow:
    """A coroutine that ends only after some cleanup when cancelled."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.trace: list[str] = []

    async def __call__(self) -> None:
        try:
            self.started.set()
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            self.trace.append("cleanup begins in " + thread_name())
            await asyncio.sleep(0.001)
            self.trace.append("cleanup ends")
            raise


# Our tasks await what belongs to other homes.


def test_a_task_of_another_home(io: IOThread):
    async def main() -> None:
        for _ in range(50):
            assert await io.spawn(where()) == "io"
            assert thread_name() == "MainThread"
        with pytest.raises(ValueError, match="far"):
            await io.spawn(fail())
        done = io.spawn(where())
        await homebound.to_worker(homebound.block_on, done)
        assert await done == "io"

    homebound.run(main())


def test_a_future_of_another_home(io: IOThread):
    async def main() -> None:
        loop = io.context.loop
        future = loop.create_future()
        io.context.call_soon(future.set_result, "set there")
        assert await future == "set there"
        assert await future == "set there"  # already done
        failed = loop.create_future()
        io.context.call_soon(failed.set_exception, ValueError("there"))
        with pytest.raises(ValueError, match="there"):
            await failed
        assert thread_name() == "MainThread"

    homebound.run(main())


def test_a_task_and_a_future_of_a_foreign_loop(stock: LoopThread):
    async def main() -> None:
        made: Future[asyncio.Task[str]] = stock.call(make())
        assert await (await asyncio.wrap_future(made)) == "stock"
        future = stock.loop.create_future()
        stock.loop.call_soon_threadsafe(future.set_result, 42)
        assert await future == 42
        failing = await asyncio.wrap_future(stock.call(make(fail)))
        with pytest.raises(ValueError, match="far"):
            await failing
        assert thread_name() == "MainThread"

    async def make(fn: Any = where) -> Any:
        return asyncio.create_task(fn())

    homebound.run(main())


def test_many_tasks_wait_for_one(io: IOThread, io2: IOThread):
    async def main() -> None:
        future = io.context.loop.create_future()

        async def hold() -> int:
            return await future  # type: ignore[no-any-return]

        shared = io.spawn(hold())

        async def wait() -> tuple[int, str]:
            return await shared, thread_name()

        tasks = [here().spawn(wait()) for _ in range(20)] + [io2.spawn(wait()) for _ in range(20)]
        await asyncio.sleep(0)
        io.context.call_soon(future.set_result, 7)
        results = [await task for task in tasks]
        assert results == [(7, "MainThread")] * 20 + [(7, "io2")] * 20

    homebound.run(main())


def test_threads_that_begin_to_await_one_task_at_the_same_moment(io: IOThread, io2: IOThread):
    """asyncio's flag for it is in the future, where two threads would interfere."""

    async def main() -> None:
        for _ in range(50):
            future = here().loop.create_future()

            async def hold(future: Any = future) -> int:
                return await future  # type: ignore[no-any-return]

            shared = here().spawn(hold())

            async def wait(shared: Any = shared) -> int:
                return await shared  # type: ignore[no-any-return]

            waiters = [each.spawn(wait()) for _ in range(5) for each in (io, io2)]
            waiters += [here().spawn(wait()) for _ in range(5)]
            await asyncio.sleep(0)
            future.set_result(7)
            assert await asyncio.gather(*waiters) == [7] * 15

    homebound.run(main())


@pytest.mark.skipif(
    getattr(sys, "_is_gil_enabled", lambda: True)(),
    reason="with a GIL create_future gives asyncio's own future, for its speed",
)
def test_threads_that_begin_to_await_one_future_at_the_same_moment(io: IOThread, io2: IOThread):
    async def wait(future: Any) -> int:
        return await future  # type: ignore[no-any-return]

    async def main() -> None:
        for _ in range(200):
            future = here().loop.create_future()
            homes = (io.context, io2.context, here())
            waiters = [home.spawn(wait(future)) for _ in range(5) for home in homes]
            await asyncio.sleep(0.0005)
            future.set_result(7)
            assert await asyncio.gather(*waiters) == [7] * 15

    homebound.run(main())


def test_a_future_of_our_loop_looks_like_asyncios():
    async def main() -> None:
        future = here().loop.create_future()
        assert isinstance(future, asyncio.Future)
        assert repr(future) == "<Future pending>"
        assert future.get_loop() is asyncio.get_running_loop()
        here().loop.call_soon(future.set_exception, ValueError("set"))
        with pytest.raises(ValueError, match="set"):
            await future

        async def by_asyncio() -> object:
            other = here().loop.create_future()
            here().loop.call_soon(other.cancel, "why")
            return await other

        with pytest.raises(asyncio.CancelledError, match="why"):
            await asyncio.Task(by_asyncio())

    homebound.run(main())


@pytest.mark.parametrize("place", ["other home", "stock loop"])
def test_cancelling_the_waiter_waits_for_the_far_cleanup(
    place: str, io: IOThread, stock: LoopThread
):
    slow = Slow()

    async def make() -> Any:
        return asyncio.create_task(slow())

    async def main() -> None:
        if place == "other home":
            far: Any = io.spawn(slow())
        else:
            far = await asyncio.wrap_future(stock.call(make()))

        async def wait() -> None:
            await far

        waiter = asyncio.create_task(wait())
        await homebound.to_worker(slow.started.wait, 10)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        name = "io" if place == "other home" else "stock"
        assert slow.trace == ["cleanup begins in " + name, "cleanup ends"]
        assert far.cancelled()
        assert thread_name() == "MainThread"

    homebound.run(main())


def test_a_far_future_that_ignores_its_cancellation(io: IOThread):
    started = threading.Event()

    async def stubborn() -> str:
        try:
            started.set()
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            return "survived"
        return "not cancelled"

    async def main() -> None:
        async def wait() -> str:
            return await io.spawn(stubborn())

        waiter = asyncio.create_task(wait())
        await homebound.to_worker(started.wait, 10)
        waiter.cancel()
        assert await waiter == "survived"  # as in asyncio

    homebound.run(main())


def test_cancelling_the_waiter_cancels_a_far_future(io: IOThread):
    async def main() -> None:
        future = io.context.loop.create_future()

        async def wait() -> None:
            await future

        waiter = asyncio.create_task(wait())
        await asyncio.sleep(0)
        waiter.cancel("why")
        with pytest.raises(asyncio.CancelledError):
            await waiter
        assert future.cancelled()

    homebound.run(main())


def test_a_cancellation_that_crosses_the_result_is_not_lost(io: IOThread):
    """Too late for the awaited future, it is raised at the waiter's next wait, as in asyncio."""

    async def main() -> None:
        for _ in range(100):
            future = io.context.loop.create_future()
            outcome: list[str] = []

            async def wait(future: Any = future, outcome: list[str] = outcome) -> None:
                try:
                    await future
                    outcome.append("result")
                    await asyncio.sleep(30)
                except asyncio.CancelledError:
                    outcome.append("cancelled")
                    raise

            waiter = asyncio.create_task(wait())
            await asyncio.sleep(0)
            io.context.call_soon(lambda future=future: future.done() or future.set_result(1))
            waiter.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiter
            assert outcome in (["cancelled"], ["result", "cancelled"])

    homebound.run(main())


def test_timeout_around_a_far_wait(io: IOThread):
    slow = Slow()

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.002):
                await io.spawn(slow())
        assert slow.trace in ([], ["cleanup begins in io", "cleanup ends"])
        assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]

    homebound.run(main())


def test_waiters_for_the_futures_of_a_closed_loop_are_notified():
    async def main() -> None:
        with IOThread("ends") as io:
            pending = io.context.loop.create_future()

            async def wait() -> None:
                await pending

            waiters = [asyncio.create_task(wait()) for _ in range(3)]
            await asyncio.sleep(0)
            homebound.block_on(io.spawn(asyncio.sleep(0)))
        for waiter in waiters:
            with pytest.raises(ContextClosed, match="will never be done"):
                await waiter
        with pytest.raises(ContextClosed):
            await pending  # also waiters that come later

    homebound.run(main())


def test_a_result_outlives_its_loop():
    async def main() -> None:
        with IOThread() as io:
            task = io.spawn(where(), name="early")
            await task
            future = io.context.loop.create_future()
            io.context.call_soon(future.set_result, 1)
            await future
        assert isinstance(await task, str)
        assert await future == 1

    homebound.run(main())


def test_two_tasks_that_wait_at_each_others_homes(io: IOThread):
    """A chain main -> io -> main -> io of awaits, none of which blocks a thread."""

    async def hop(depth: int, places: list[AioContext]) -> list[str]:
        if not depth:
            return [thread_name()]
        return [thread_name(), *await places[depth % 2].spawn(hop(depth - 1, places))]

    async def main() -> None:
        names = await io.spawn(hop(4, [io.context, here()]))
        assert names == ["io", "io", "MainThread", "io", "MainThread"]

    homebound.run(main())


def test_a_late_cancellation_ends_only_the_wait_it_was_for(io: IOThread, gate: Gate):
    """As on one loop, it ends no later wait of the task."""

    async def main() -> None:
        future = io.context.loop.create_future()
        log: list[object] = []

        async def work() -> None:
            try:
                log.append(await future)
            except asyncio.CancelledError:
                log.append("cancelled")
            await asyncio.sleep(0)

        task = asyncio.create_task(work())
        await asyncio.sleep(0)  # the future's home has the request by now
        go_on = gate(io.context)
        io.context.call_soon(future.set_result, "done")
        assert task.cancel()
        go_on.set()
        await task
        assert log == ["cancelled"]

    homebound.run(main())


def test_a_timeout_that_expires_as_the_far_wait_ends():
    """The request comes too late there; the block ends and withdraws it; nothing is left."""

    async def main() -> None:
        begun, ends = asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()

        async def far() -> str:
            loop.call_soon_threadsafe(begun.set)
            ends.wait(10)
            return "just in time"

        me = asyncio.current_task()
        assert me is not None
        with IOThread() as io:
            task = io.spawn(far())
            await begun.wait()
            async with asyncio.timeout(0) as timeout:
                loop.call_later(0.001, ends.set)
                assert await task == "just in time"
            assert timeout.expired()
            await io.spawn(asyncio.sleep(0))  # the late request has come back by then
            await asyncio.sleep(0)
        assert me.cancelling() == 0

    homebound.run(main())


# asyncio's own tasks, on any loop, await ours.


def test_an_asyncio_task_awaits_ours(stock: LoopThread, io: IOThread):
    async def work() -> None:
        for _ in range(20):
            assert await io.spawn(where()) == "io"
            assert thread_name() == "stock"
        with pytest.raises(ValueError, match="far"):
            await io.spawn(fail())

    stock.call(work()).result(10)


def test_cancelling_the_asyncio_task_cancels_ours(stock: LoopThread, io: IOThread):
    slow = Slow()
    far = io.spawn(slow())

    async def wait() -> None:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_later(0.001, task.cancel)
        await far

    assert slow.started.wait(10)
    with pytest.raises(CancelledError):
        stock.call(wait()).result(10)
    assert slow.trace == ["cleanup begins in io", "cleanup ends"]
    assert far.cancelled()


def test_an_asyncio_task_awaits_a_task_that_moves(stock: LoopThread, io: IOThread, io2: IOThread):
    async def work() -> str:
        for _ in range(10):
            await homebound.move_to(io2.context)
            await homebound.move_to(io.context)
        return thread_name()

    async def wait() -> str:
        return await io.spawn(work())

    assert stock.call(wait()).result(10) == "io"


def test_an_asyncio_task_on_our_loop_awaits_a_far_task(io: IOThread):
    async def wait() -> tuple[str, str]:
        return await io.spawn(where()), thread_name()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert await asyncio.Task(wait(), loop=loop) == ("io", "MainThread")

    homebound.run(main())
