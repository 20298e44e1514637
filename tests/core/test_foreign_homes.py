"""A foreign loop as the main home: an end that can be awaited, and tasks that can be woken."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import AioContext, ContextError, IOThread, WouldDeadlock, current_task

if TYPE_CHECKING:
    from collections.abc import Callable

Factory = Any


@pytest.fixture(params=["homebound", "asyncio", "attached"])
def run(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Run a coroutine in a task of each kind of loop."""

    async def attached(main: Any) -> Any:
        AioContext.attach(asyncio.get_running_loop())
        return await main

    def run(main: Any) -> Any:
        if request.param == "homebound":
            return homebound.run(main)
        return asyncio.run(attached(main) if request.param == "attached" else main)

    return run


async def until_stopped(cleaned: list[str]) -> None:
    try:
        await homebound.suspend()
    finally:
        await asyncio.sleep(0.001)
        cleaned.append(threading.current_thread().name)


# An end that can be awaited.


def test_astop_waits_for_the_end(run: Callable[..., Any]):
    cleaned: list[str] = []
    ticks: list[int] = []

    async def tick() -> None:
        while True:
            ticks.append(1)
            await asyncio.sleep(0)

    async def main() -> None:
        io = IOThread("io0")
        await io.astop()  # it was never started
        io = IOThread("io0")
        io.start()
        task = io.spawn(until_stopped(cleaned))
        await io.spawn(asyncio.sleep(0))
        ticking = asyncio.create_task(tick())
        await io.astop()
        assert task.cancelled()
        assert cleaned == ["io0"]
        assert ticks  # other tasks go on meanwhile
        assert "ended" in repr(io)
        await io.astop()
        io.stop()
        ticking.cancel()

    run(main())


def test_astop_that_is_cancelled(run: Callable[..., Any]):
    """The thread ends all the same, and is not left behind."""
    cleaned: list[str] = []

    async def main() -> None:
        io = IOThread("io0")
        io.start()
        io.spawn(until_stopped(cleaned))
        await io.spawn(asyncio.sleep(0))
        stopping = asyncio.create_task(io.astop())
        await asyncio.sleep(0)
        stopping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopping
        assert cleaned == ["io0"]
        assert "ended" in repr(io)

    run(main())


def test_astop_in_its_own_thread_and_in_another_one(io: IOThread, io2: IOThread):
    async def ends_itself() -> None:
        with pytest.raises(WouldDeadlock, match="the thread that is to end"):
            await io.astop()

    homebound.block_on(io.spawn(ends_itself()))
    homebound.block_on(io2.spawn(io.astop()))
    assert "ended" in repr(io)


# Tasks that can be woken.


def test_a_foreign_loop_that_makes_our_tasks(factory: Factory, io: IOThread):
    async def sleeper() -> str:
        await homebound.suspend()
        return threading.current_thread().name

    async def travels() -> list[str]:
        async with homebound.on(io.context):
            there = threading.current_thread().name
        return [there, threading.current_thread().name]

    async def main() -> None:
        context = AioContext.attach(asyncio.get_running_loop())
        me = current_task()
        assert me is not None
        assert me is asyncio.current_task()
        assert me.home is context is homebound.main_context()
        task: Any = asyncio.create_task(sleeper(), name="sleeper")
        await asyncio.sleep(0)
        threading.Thread(target=task.wake).start()
        assert await task == "MainThread"
        assert (type(task), task.get_name()) == (homebound.Task, "sleeper")
        assert await asyncio.ensure_future(travels()) == ["io", "MainThread"]
        assert await asyncio.wait_for(asyncio.gather(travels()), 10) == [["io", "MainThread"]]
        async with asyncio.TaskGroup() as group:
            child = group.create_task(travels())
        assert child.result() == ["io", "MainThread"]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await homebound.suspend()

    loop = factory()
    context = AioContext.attach(loop, tasks=True)
    assert AioContext.attach(loop, tasks=True) is context
    loop.run_until_complete(main())
    loop.set_task_factory(None)

    async def stock() -> bool:
        return current_task() is None

    assert loop.run_until_complete(stock())
    loop.close()


def test_an_existing_task_factory_stays(factory: Factory):
    def make(loop: Any, coro: Any, **options: Any) -> Any:
        return asyncio.Task(coro, loop=loop, **options)

    loop = factory()
    loop.set_task_factory(make)
    with pytest.raises(ContextError, match=r"has a task factory.*homebound\.Task"):
        AioContext.attach(loop, tasks=True)
    assert loop.get_task_factory() is make
    loop.close()


def test_a_loop_of_ours_makes_them_anyway():
    loop = homebound.new_event_loop()
    assert AioContext.attach(loop, tasks=True) is AioContext.attach(loop)
    assert loop.get_task_factory() is None
    loop.close()
