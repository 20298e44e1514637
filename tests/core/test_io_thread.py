"""I/O threads: started, used, stopped; what is at home there is cancelled and waited for."""

from __future__ import annotations

import asyncio
import inspect
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import ContextError, IOThread, IOThreadPool, Task, block_on

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from concurrent.futures import Future

    InThread = Callable[..., Future[Any]]


async def where() -> str:
    await asyncio.sleep(0)
    return threading.current_thread().name


async def nothing() -> None:
    pass


# Life.


def test_start_use_stop():
    io = IOThread("mine")
    assert io.name == "mine"
    assert "not started" in repr(io)
    io.start()
    assert "running" in repr(io)
    assert io.context.name == "mine"
    assert block_on(io.spawn(where())) == "mine"
    assert block_on(io.context.spawn(where())) == "mine"
    io.stop()
    assert "ended" in repr(io)
    io.stop()  # no-op
    io.join()
    assert io.context.stats().closed


def test_default_names():
    assert IOThread().name != IOThread().name


def test_before_start():
    io = IOThread("mine")
    with pytest.raises(ContextError, match=r"'mine' has no context before start\(\)"):
        io.context  # noqa: B018
    coro = nothing()
    with pytest.raises(ContextError):
        io.spawn(coro)
    assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED
    io.stop()
    io.join()


def test_started_once():
    with IOThread("mine") as io:
        with pytest.raises(ContextError, match="was started before"):
            io.start()
        assert block_on(io.spawn(where())) == "mine"
    with pytest.raises(ContextError, match="was started before"):
        io.start()


def test_with_and_async_with():
    with IOThread("a") as io:
        assert block_on(io.spawn(where())) == "a"
    assert "ended" in repr(io)

    async def main() -> None:
        async with IOThread("b") as io:
            assert await io.spawn(where()) == "b"
        assert "ended" in repr(io)
        with IOThread("c") as io:
            assert await io.spawn(where()) == "c"
        assert "ended" in repr(io)

    homebound.run(main())
    asyncio.run(main())


def test_async_with_in_another_io_thread(io: IOThread):
    async def work() -> str:
        async with IOThread("inner") as inner:
            return await inner.spawn(where())

    assert block_on(io.spawn(work())) == "inner"


@pytest.mark.parametrize("how", ["stop", "with", "async with"])
def test_stop_cancels_and_waits_for_the_cleanup(how: str):
    trace: list[str] = []

    async def work() -> None:
        try:
            trace.append("began")
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            await asyncio.sleep(0.001)
            trace.append("cleaned up in " + threading.current_thread().name)
            raise

    async def main() -> Task[None]:
        async with IOThread("io") as io:
            task = io.spawn(work())
            await io.spawn(nothing())
            return task

    if how == "async with":
        task = homebound.run(main())
    else:
        io = IOThread("io")
        io.start()
        task = io.spawn(work())
        block_on(io.spawn(nothing()))
        io.stop() if how == "stop" else io.__exit__(None, None, None)
    assert task.cancelled()
    assert trace == ["began", "cleaned up in io"]


@pytest.mark.parametrize("kind", ["thread", "pool"])
def test_a_task_that_has_moved_there_goes_back_at_the_end(kind: str):
    """The task would wait for the end of the thread it runs in, which waits for the task."""

    async def main() -> None:
        home = homebound.current_context()
        for error in (None, ZeroDivisionError):
            ios: Any = IOThread() if kind == "thread" else IOThreadPool(2)
            try:
                async with ios:
                    io = ios if kind == "thread" else ios.next()
                    await homebound.move_to(io.context)
                    assert homebound.current_context() is io.context
                    if error is not None:
                        raise error
            except ZeroDivisionError:
                assert error is not None
            assert homebound.current_context() is home

    homebound.run(main())


def test_stop_waits_for_tasks_begun_by_cleanup():
    done: list[str] = []

    async def late() -> None:
        await asyncio.sleep(0.001)
        done.append("late")

    async def work() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            try:
                await asyncio.create_task(late())
            except asyncio.CancelledError:
                done.append("late was cancelled")

    with IOThread() as io:
        io.spawn(work())
        block_on(io.spawn(nothing()))
    assert len(done) == 1


def test_stop_shuts_generators_and_workers_down():
    trace: list[str] = []
    keep: list[Any] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            trace.append("generator closed")

    async def work() -> None:
        keep.append(numbers())
        await anext(keep[0])
        await homebound.to_worker(trace.append, "worker used")
        await asyncio.to_thread(trace.append, "thread used")

    with IOThread() as io:
        block_on(io.spawn(work()))
    assert trace == ["worker used", "thread used", "generator closed"]


def test_an_exception_in_cleanup_is_reported():
    reports: list[Any] = []

    async def work() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            raise ValueError("in cleanup")

    with IOThread() as io:
        io.context.loop.set_exception_handler(lambda _, report: reports.append(report))
        io.spawn(work())
        block_on(io.spawn(nothing()))
    assert [type(report["exception"]) for report in reports] == [ValueError]


def test_what_was_posted_before_stop_runs_first():
    ran: list[int] = []
    with IOThread() as io:
        for number in range(100):
            io.context.call_soon(ran.append, number)
    assert ran == list(range(100))


def test_stop_and_join_with_a_timeout():
    leave = threading.Event()
    io = IOThread("busy")
    io.start()
    io.context.call_soon(leave.wait, 10)
    with pytest.raises(TimeoutError):
        io.join(0.001)
    with pytest.raises(TimeoutError):
        io.stop(0.001)
    leave.set()
    io.join()
    io.stop(10)
    assert "ended" in repr(io)


def test_stop_by_several_threads_at_once(in_thread: InThread):
    io = IOThread()
    io.start()
    barrier = threading.Barrier(4)

    def stop() -> None:
        barrier.wait()
        io.stop()

    for done in [in_thread(stop) for _ in range(4)]:
        done.result(10)
        assert "ended" in repr(io)


def test_not_in_its_own_thread(io: IOThread):
    async def stop(act: Callable[[], None]) -> None:
        with pytest.raises(homebound.WouldDeadlock, match="the thread that is to end"):
            act()

    for act in (io.stop, io.join):
        block_on(io.spawn(stop(act)))
    assert block_on(io.spawn(where())) == "io"


def test_not_in_another_io_thread(io: IOThread, io2: IOThread):
    async def stop() -> None:
        for act in (io2.stop, io2.join):
            with pytest.raises(homebound.WouldDeadlock):
                act()

    block_on(io.spawn(stop()))
    assert block_on(io2.spawn(where())) == "io2"


def test_the_main_loop_runs_while_it_waits_for_the_end():
    """The task that is cancelled there needs the main loop for its cleanup."""
    trace: list[str] = []

    async def main() -> None:
        home = homebound.current_context()
        assert home is not None

        async def work() -> None:
            try:
                await asyncio.sleep(30)
            finally:
                await home.spawn(ask())

        async def ask() -> None:
            trace.append("asked")

        with IOThread() as io:
            io.spawn(work())
            await io.spawn(nothing())

    homebound.run(main())
    assert trace == ["asked"]


def test_a_holder_of_the_big_lock_may_stop_one(in_thread: InThread):
    async def main() -> None:
        def work() -> None:
            with homebound.big_lock:
                io = IOThread()
                io.start()
                assert block_on(io.spawn(where()), io.context) == io.name
                io.stop()

        await asyncio.wrap_future(in_thread(work))

    homebound.run(main())
