"""A main thread with a foreign loop: the main context, with I/O threads beside it."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import AioContext, ContextError, IOThread, big_lock, block_on, current_context
from homebound.testing import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    InThread = Callable[..., Future[Any]]
    Factory = Callable[[], asyncio.AbstractEventLoop]
    Run = Callable[[Any], Any]


@pytest.fixture
def run_guest(factory: Factory) -> Run:
    """Run `body(context)` in a plain asyncio task of a foreign loop, in the main thread."""

    async def main(body: Any) -> Any:
        return await body(AioContext.attach(asyncio.get_running_loop()))

    def run(body: Any) -> Any:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(main(body))

    return run


def thread_name() -> str:
    return threading.current_thread().name


async def where() -> str:
    await asyncio.sleep(0)
    return thread_name()


def held(fn: Callable[[], Any]) -> Any:
    with big_lock:
        return fn()


def test_it_is_the_main_context_while_its_loop_runs(run_guest: Run, in_thread: InThread):
    async def body(context: AioContext) -> None:
        assert homebound.main_context() is context is current_context()
        assert context.is_home()
        assert await asyncio.to_thread(homebound.main_context) is context
        assert await asyncio.to_thread(current_context) is None

    for _ in range(2):
        run_guest(body)
        assert homebound.main_context() is None is current_context()
        assert in_thread(homebound.main_context).result(10) is None
    assert homebound.run(where()) == "MainThread"


def test_attached_before_its_loop_begins(factory: Factory):
    loop = factory()
    context = AioContext.attach(loop)

    async def look() -> tuple[bool, bool]:
        return homebound.main_context() is context, current_context() is context

    assert homebound.main_context() is None
    for _ in range(3):  # the loop does not announce that it stops and starts
        assert loop.run_until_complete(look()) == (True, True)
        assert homebound.main_context() is None is current_context()
    loop.close()


def test_a_loop_that_stops_may_be_followed_by_another(factory: Factory):
    loop = factory()
    context = AioContext.attach(loop)

    async def ours() -> bool:
        return homebound.main_context() is current_context() is not context

    assert loop.run_until_complete(context.spawn(where())) == "MainThread"
    assert homebound.run(ours())
    assert loop.run_until_complete(context.spawn(where())) == "MainThread"
    loop.close()


def test_there_is_one_main_context(run_guest: Run, in_thread: InThread):
    async def body(context: AioContext) -> None:
        coro = where()
        with pytest.raises(ContextError, match="there is a main context already"):
            await asyncio.wrap_future(in_thread(homebound.run, coro))
        assert homebound.main_context() is context

    run_guest(body)


def test_a_holder_of_the_big_lock_is_no_stand_in(run_guest: Run, in_thread: InThread):
    """The loop runs on in its own thread: what the holder wakes is queued there."""

    async def sleeper() -> str:
        await homebound.suspend()
        return thread_name()

    async def body(context: AioContext) -> None:
        tasks = [context.spawn(sleeper()) for _ in range(3)]
        await context.spawn(where())

        def wake() -> None:
            assert current_context() is None
            assert not context.is_home()
            tasks[0].wake()
            context.enter(tasks[1])
            context.schedule(tasks[2])
            assert not any(task.done() for task in tasks)

        await asyncio.wrap_future(in_thread(held, wake))
        assert [await task for task in tasks] == ["MainThread"] * 3

    run_guest(body)


def test_what_a_holder_cannot_do_raises(run_guest: Run, in_thread: InThread):
    async def body(context: AioContext) -> None:
        def wait() -> None:
            kind = type(context.loop).__module__.partition(".")[0]
            for what, act in (
                ("poll", lambda: context.poll(blocking=False)),
                ("wait_while", lambda: homebound.wait_while(bool)),
                ("wait_while", lambda: homebound.wait_while(bool, context)),
            ):
                with pytest.raises(ContextError, match=rf"{what}.*loop of {kind}'s.*await instead"):
                    act()

        await asyncio.wrap_future(in_thread(held, wait))

    run_guest(body)


def test_a_holder_blocks_by_waiting_for_the_main_thread(
    run_guest: Run, in_thread: InThread, io: IOThread
):
    """The holder releases the lock as it sleeps: the main thread needs it to run the work."""

    async def body(context: AioContext) -> None:
        def block() -> list[object]:
            seen = [block_on(where()), block_on(where(), context), block_on(where(), io.context)]
            return [*seen, big_lock.held()]

        got = await asyncio.wrap_future(in_thread(held, block))
        assert got == ["MainThread", "MainThread", "io", True]

    run_guest(body)


def test_a_holder_ends_an_io_thread_that_needs_the_lock(run_guest: Run, in_thread: InThread):
    async def locks() -> None:
        try:
            await homebound.suspend()
        finally:
            held(int)

    async def body(_context: AioContext) -> None:
        def stop() -> None:
            with IOThread() as io:
                io.spawn(locks())
                block_on(where(), io.context)

        await asyncio.wrap_future(in_thread(held, stop))

    run_guest(body)


def test_what_is_at_home_there_runs_under_the_big_lock(run_guest: Run, in_thread: InThread):
    """A holder and the main context's tasks exclude each other, as on a loop of our own."""
    inside: list[str] = []

    async def work(name: str) -> None:
        for _ in range(200):
            assert big_lock.held()
            inside.append(name)
            assert inside == [name]
            inside.remove(name)
            await asyncio.sleep(0)

    def other() -> None:
        for _ in range(200):
            with big_lock:
                inside.append("holder")
                assert inside == ["holder"]
                inside.remove("holder")

    async def body(context: AioContext) -> None:
        tasks = [context.spawn(work(name)) for name in "ab"]
        await asyncio.gather(asyncio.wrap_future(in_thread(other)), *tasks)
        assert not big_lock.held()  # a plain task of the loop is not guarded
        context.call_soon(seen.append, None)
        context.call_soon(lambda: seen.append(big_lock.held()))
        await context.spawn(where())
        with big_lock:  # but may take the lock
            assert current_context() is context

    seen: list[object] = []
    run_guest(body)
    assert seen == [None, True]


def test_entered_from_a_callback_of_the_loop(run_guest: Run):
    order: list[object] = []

    async def sleeper() -> None:
        await homebound.suspend()
        order.append(big_lock.held())

    async def body(context: AioContext) -> None:
        task = context.spawn(sleeper())
        await context.spawn(where())

        def callback() -> None:
            task.wake()
            order.append("returned")

        asyncio.get_running_loop().call_soon(callback)
        await task
        assert order == [True, "returned"]

    run_guest(body)


def test_with_io_threads_beside_it(run_guest: Run, io: IOThread, in_thread: InThread):
    async def travel(context: AioContext) -> list[str]:
        names = [thread_name()]
        async with homebound.on(context):
            names.append(await where())
        return [*names, thread_name()]

    async def body(context: AioContext) -> None:
        assert await io.spawn(where()) == "io"
        assert await io.spawn(travel(context)) == ["io", "MainThread", "io"]
        assert await context.spawn(travel(io.context)) == ["MainThread", "io", "MainThread"]
        assert await context.spawn(homebound.to_worker(thread_name)) != "MainThread"
        assert await asyncio.wrap_future(in_thread(block_on, where())) == "MainThread"
        lock = homebound.Lock()
        total = 0

        async def add() -> None:
            nonlocal total
            for _ in range(50):
                async with lock:
                    total += 1

        await asyncio.gather(add(), context.spawn(add()), io.spawn(add()))
        assert total == 150
        async with homebound.TaskGroup() as group:
            tasks = [group.create_task(where(), home=home) for home in (context, io.context)]
        assert [task.result() for task in tasks] == ["MainThread", "io"]

        async def refused() -> None:
            coro, ours = where(), context.spawn(where())
            future = asyncio.get_running_loop().create_future()
            for what, whose in ((coro, context), (ours, io.context), (future, io.context)):
                with pytest.raises(ContextError, match=r"block_on.*await instead"):
                    block_on(what, whose)
            await ours
            with pytest.raises(ContextError, match=r"IOThread\.stop.*await instead"):
                io.stop()

        await context.spawn(refused())
        await refused()

    run_guest(body)


def test_block_on_elsewhere_before_and_after_attach(
    factory: Factory, io: IOThread, in_thread: InThread
):
    """The thread's loop stands still meanwhile, attached or not; in any thread."""

    async def forever() -> None:
        await homebound.suspend()

    def wait() -> None:
        assert block_on(where(), io.context) == "io"
        assert block_on(io.spawn(where())) == "io"
        slow = io.spawn(forever())
        with pytest.raises(TimeoutError):
            block_on(slow, timeout=0.001)
        assert slow.cancelled()

    async def main() -> None:
        wait()
        context = AioContext.attach(asyncio.get_running_loop())
        wait()

        async def ours() -> None:
            wait()
            assert big_lock.held() is (homebound.main_context() is context)

        await context.spawn(ours())
        assert current_context() is context

    def run() -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())

    run()
    in_thread(run).result(30)


@pytest.mark.parametrize("attached", [False, True])
@pytest.mark.parametrize("waits", ["itself", "in its cleanup", "in a gather", "for a future"])
@pytest.mark.parametrize("end", ["timeout", "interrupt"])
def test_block_on_what_waits_for_the_loop_that_stands_still(  # noqa: C901  (each way to wait)
    factory: Factory,
    io: IOThread,
    end: str,
    waits: str,
    attached: bool,  # noqa: FBT001
):
    """It cannot end before the loop runs: a timeout or Ctrl-C ends the call, not its cleanup."""

    class Interrupted(Exception):  # noqa: N818
        pass

    def interrupt(*_: object) -> None:
        raise Interrupted

    async def main() -> None:
        loop = asyncio.get_running_loop()
        if attached:
            AioContext.attach(loop)
        forever = loop.create_future()

        async def here() -> None:
            await forever

        async def there() -> None:
            mine = forever if waits == "for a future" else AioContext.attach(loop).spawn(here())
            if end == "interrupt":
                os.kill(os.getpid(), signal.SIGUSR1)
            if waits == "in a gather":
                await asyncio.gather(mine, asyncio.sleep(0))
            if waits == "in its cleanup":
                try:
                    await asyncio.sleep(3600)
                finally:
                    await mine
            await mine

        task: Any = io.spawn(there()) if end == "timeout" else there()
        # Else it would be cancelled before it waits for anything.
        until(lambda: end == "interrupt" or task._fut_waiter is not None)
        told = end == "timeout" and waits != "for a future"  # which is left without the loop
        with pytest.raises(
            TimeoutError if end == "timeout" else Interrupted,
            match="waits for the loop of this thread" if told else None,
        ):
            block_on(task, io.context, timeout=0.01 if end == "timeout" else None)
        if end == "timeout":
            if waits == "in its cleanup":
                forever.set_result(None)
            with pytest.raises(asyncio.CancelledError):
                await task
            assert task.cancelling() == 1
        elif not forever.done():
            forever.set_result(None)

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_cancelled_at_once_from_its_own_thread(run_guest: Run):
    async def body(context: AioContext) -> None:
        task = context.spawn(asyncio.sleep(3600))
        await context.spawn(where())
        assert task.cancel()
        assert task.cancelling() == 1
        with pytest.raises(asyncio.CancelledError):
            await task

    run_guest(body)


def test_a_task_that_nests_the_loop_as_qt_does(factory: Factory):
    """As in Qt's modal dialogs: the inner batch runs what is ready, the outer one goes on."""
    if factory is not asyncio.SelectorEventLoop:
        pytest.skip("turned by hand: asyncio's private iteration")
    order: list[str] = []

    async def dialog(context: AioContext) -> None:
        me = asyncio.current_task()
        context.call_soon(order.append, "inside")
        asyncio.get_running_loop()._run_once()  # type: ignore[attr-defined]
        assert asyncio.current_task() is me
        order.append("dialog")

    async def other(name: str) -> None:
        order.append(name)
        await asyncio.sleep(0)
        order.append(name)

    async def body(context: AioContext) -> None:
        context.spawn(dialog(context))
        await asyncio.gather(*(context.spawn(other(name)) for name in "ab"))
        assert order[:4] == ["a", "b", "inside", "dialog"]
        assert sorted(order) == ["a", "a", "b", "b", "dialog", "inside"]

    async def main() -> None:
        await body(AioContext.attach(asyncio.get_running_loop()))

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
