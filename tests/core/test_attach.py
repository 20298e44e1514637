"""Foreign loops: all but poll, nested waiting and inline entry work there; those raise."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import AioContext, ContextError, IOThread, block_on, current_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    InThread = Callable[..., Future[Any]]

Factory = Any


@pytest.fixture
def other(factory: Factory) -> Iterator[IOThread]:
    with IOThread("other", loop_factory=factory) as thread:
        yield thread


def thread_name() -> str:
    return threading.current_thread().name


async def where() -> str:
    await asyncio.sleep(0)
    return thread_name()


def test_attach_gives_a_loop_one_context(factory: Factory):
    loop, another = factory(), factory()
    context = AioContext.attach(loop)
    assert AioContext.attach(loop) is context
    assert context.loop is loop
    assert AioContext.attach(another) is not context
    loop.close()
    another.close()


def test_it_is_current_while_its_loop_runs(factory: Factory, in_thread: InThread):
    """A foreign loop does not announce that it stops; the thread is no longer its home then."""

    async def look() -> tuple[bool, str]:
        context = AioContext.attach(asyncio.get_running_loop())
        return current_context() is context, await context.spawn(where())

    def body() -> None:
        for _ in range(2):
            with asyncio.Runner(loop_factory=factory) as runner:
                for _ in range(2):
                    assert runner.run(look()) == (True, "plain0")
                    assert current_context() is None
        with homebound.big_lock:
            assert current_context() is None
        assert homebound.run(where()) == "plain0"

    in_thread(body).result(10)


def test_attach_from_inside(factory: Factory, in_thread: InThread):
    async def main() -> None:
        context = AioContext.attach(asyncio.get_running_loop())
        assert current_context() is context
        assert context.is_home()
        assert homebound.main_context() is None
        assert await context.spawn(where()) == "plain0"

    def body() -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())

    in_thread(body).result(10)


def test_attach_from_outside(factory: Factory, in_thread: InThread):
    ready: list[asyncio.AbstractEventLoop] = []
    started = threading.Event()

    async def main() -> None:
        ready.append(asyncio.get_running_loop())
        stop = asyncio.Event()
        ready.append(stop)  # type: ignore[arg-type]
        started.set()
        await stop.wait()

    def body() -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())

    done = in_thread(body)
    assert started.wait(10)
    loop, stop = ready
    context = AioContext.attach(loop)
    assert block_on(where(), context) == "plain0"
    assert block_on(context.spawn(where())) == "plain0"
    loop.call_soon_threadsafe(stop.set)  # type: ignore[attr-defined]
    done.result(10)


def test_spawn_schedule_wake_move(other: IOThread, io: IOThread, in_thread: InThread):
    async def sleeper() -> str:
        await homebound.suspend()
        return thread_name()

    task = other.spawn(sleeper())
    block_on(other.spawn(where()))
    in_thread(task.wake).result(10)
    assert block_on(task) == "other"

    task = io.spawn(sleeper())
    block_on(io.spawn(where()))
    other.context.schedule(task)
    assert block_on(task) == "other"

    async def mover() -> list[str]:
        names = [thread_name()]
        async with homebound.on(other.context):
            names.append(thread_name())
            await asyncio.sleep(0.001)
            names.append(await where())
        return [*names, thread_name()]

    for _ in range(10):
        assert block_on(io.spawn(mover())) == ["io", "other", "other", "io"]


def test_tasks_there_are_ours_and_asyncio_works(other: IOThread):
    async def work() -> None:
        assert homebound.current_task() is asyncio.current_task()
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            tasks = [group.create_task(where()) for _ in range(3)]
        assert [task.result() for task in tasks] == ["other"] * 3
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await asyncio.sleep(30)
        assert await homebound.to_worker(sum, [1, 2]) == 3
        assert await asyncio.to_thread(sum, [1, 2]) == 3
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        loop.call_later(0.001, future.set_result, 7)
        assert await future == 7

    block_on(other.spawn(work()))


def test_wake_order_is_the_same(other: IOThread):
    order: list[str] = []
    tasks: dict[str, homebound.Task[None]] = {}
    wakes = {"X": "AB", "A": "C", "B": "D", "C": "", "D": ""}

    async def node(name: str) -> None:
        await homebound.suspend()
        order.append(name)
        for each in wakes[name]:
            tasks[each].wake()

    for name in wakes:
        tasks[name] = other.spawn(node(name))
    block_on(other.spawn(where()))
    tasks["X"].wake()
    block_on(tasks["D"])
    assert "".join(order) == "XACBD"


def test_entered_from_its_own_callback(other: IOThread):
    order: list[str] = []

    async def sleeper() -> None:
        await homebound.suspend()
        order.append("ran")

    task = other.spawn(sleeper())
    block_on(other.spawn(where()))

    def callback() -> None:
        task.wake()
        order.append("returned")

    other.context.call_soon(callback)
    block_on(task)
    block_on(other.spawn(where()))
    assert order == ["ran", "returned"]


def test_cancel_from_anywhere(other: IOThread, in_thread: InThread):
    task = other.spawn(asyncio.sleep(30))
    block_on(other.spawn(where()))
    in_thread(task.cancel).result(10)
    with pytest.raises(asyncio.CancelledError):
        block_on(task)


def test_a_burst_is_in_order_and_complete(other: IOThread, in_thread: InThread):
    got: list[int] = []
    for _ in range(20):
        got.clear()
        in_thread(lambda: [other.context.call_soon(got.append, number) for number in range(100)])
        while len(got) < 100:
            block_on(other.spawn(where()))
        assert got == list(range(100))


def test_bottom_halves(other: IOThread):
    runs: list[int] = []
    bottom_half = other.context.bottom_half(lambda: runs.append(1))
    busy, go_on = threading.Event(), threading.Event()
    other.context.call_soon(lambda: (busy.set(), go_on.wait(10)))
    assert busy.wait(10)
    for _ in range(3):
        bottom_half.schedule()
    go_on.set()
    block_on(other.spawn(where()))
    assert runs == [1]


def test_the_big_lock_makes_no_stand_in_there(other: IOThread):
    with homebound.big_lock:
        assert not other.context.is_home()


def test_what_it_cannot_do_raises(other: IOThread):
    async def work() -> None:
        context = current_context()
        assert context is not None
        acts: list[tuple[str, Callable[[], object]]] = [
            ("poll", lambda: context.poll(blocking=False)),
            ("wait_while", lambda: homebound.wait_while(lambda: True, context)),
        ]
        for name, act in acts:
            with pytest.raises(ContextError, match=rf"{name}.*: .*'other'.*await instead"):
                act()
        coro = where()
        with pytest.raises(ContextError, match=r"block_on: .*'other'"):
            block_on(coro)
        await asyncio.sleep(0)

    block_on(other.spawn(work()))


def test_main_waits_for_it(other: IOThread):
    async def main() -> None:
        assert block_on(where(), other.context) == "other"
        assert await other.spawn(where()) == "other"
        done: list[int] = []
        other.context.call_soon(lambda: (done.append(1), homebound.kick()))
        homebound.wait_while(lambda: not done, other.context)

    homebound.run(main())


def test_closed_it_refuses(factory: Factory):
    with IOThread("gone", loop_factory=factory) as other:
        context = other.context
        task = other.spawn(asyncio.sleep(30))
        block_on(other.spawn(where()))
    assert task.cancelled()
    coro = where()
    with pytest.raises(homebound.ContextClosed):
        context.spawn(coro)
    for act in (lambda: context.call_soon(print), lambda: block_on(where(), context)):
        with pytest.raises(homebound.ContextClosed):
            act()


def test_a_loop_closed_without_telling_us(factory: Factory, in_thread: InThread):
    async def main() -> AioContext:
        return AioContext.attach(asyncio.get_running_loop())

    def body() -> AioContext:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(main())

    context = in_thread(body).result(10)
    for _ in range(2):
        with pytest.raises(homebound.ContextClosed):
            context.call_soon(print)
    with pytest.raises(homebound.ContextClosed):
        block_on(where(), context)


def test_stats(other: IOThread):
    block_on(other.spawn(where()))
    stats = other.context.stats()
    assert stats.name == "other"
    assert stats.iterations > 0
    assert stats.entered > 0
