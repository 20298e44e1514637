"""block_on: at home, under the lock, from a thread without a context, for another home."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import (
    AioContext,
    ContextClosed,
    ContextError,
    IOThread,
    WouldDeadlock,
    block_on,
    current_task,
)
from homebound.testing import here, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    InThread = Callable[..., Future[Any]]


async def where(wait: float | None = 0) -> str:
    if wait is not None:
        await asyncio.sleep(wait)
    return threading.current_thread().name


async def fail() -> None:
    await asyncio.sleep(0)
    raise ValueError("no")


class Slow:
    def __init__(self) -> None:
        self.started = threading.Event()
        self.trace: list[str] = []

    async def __call__(self) -> None:
        try:
            self.started.set()
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            await asyncio.sleep(0.001)
            self.trace.append("cleaned up")
            raise


# At home.


@pytest.mark.parametrize("wait", [None, 0, 0.001])
def test_inside_a_running_task(wait: float | None):
    async def main() -> None:
        me = current_task()
        assert block_on(where(wait)) == "MainThread"
        assert block_on(where(wait), here()) == "MainThread"
        assert current_task() is asyncio.current_task() is me
        await asyncio.sleep(0)

    homebound.run(main())


def test_in_a_callback():
    async def main() -> None:
        done = asyncio.get_running_loop().create_future()

        def callback() -> None:
            assert current_task() is None
            done.set_result(block_on(where(0.001)))
            assert current_task() is None

        here().call_soon(callback)
        assert await done == "MainThread"

    homebound.run(main())


def test_in_an_io_thread(io: IOThread):
    async def work() -> str:
        return block_on(where(0.001))

    assert block_on(io.spawn(work())) == "io"


@pytest.mark.parametrize("how", ["block_on", "wait_while", "poll"])
def test_an_io_thread_that_waits_releases_the_big_lock(how: str, io: IOThread):
    """The thread that ends the wait may need the lock."""
    ready = asyncio.Event()
    asleep = threading.Event()

    async def work() -> bool:
        with homebound.big_lock:
            here().call_soon(asleep.set)  # while it waits
            if how == "block_on":
                block_on(ready.wait())
            elif how == "wait_while":
                homebound.wait_while(lambda: not ready.is_set(), io.context)
            else:
                while not ready.is_set():
                    io.context.poll()
            return homebound.big_lock.held()

    task = io.spawn(work())
    assert asleep.wait(10)
    free = homebound.big_lock.acquire(timeout=10)
    io.context.call_soon(ready.set)
    if free:
        homebound.big_lock.release()
    assert block_on(task)
    assert free


def test_the_inner_task_is_right_and_others_go_on():
    async def main() -> None:
        seen: list[Any] = []
        other_ran: list[int] = []

        async def other() -> None:
            for number in range(3):
                other_ran.append(number)
                await asyncio.sleep(0)

        async def inner() -> None:
            seen.extend([current_task(), asyncio.current_task()])
            while len(other_ran) < 3:
                await asyncio.sleep(0)

        me = current_task()
        task = asyncio.create_task(other())
        block_on(inner())
        assert seen[0] is seen[1] is not me
        assert other_ran == [0, 1, 2]
        assert current_task() is me
        await task

    homebound.run(main())


def test_contextvars_inside_and_after():
    var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")

    async def inner() -> str:
        seen = var.get()
        var.set("inner's")
        await asyncio.sleep(0)
        return seen + ", " + var.get()

    async def main() -> None:
        var.set("outer's")
        other = asyncio.create_task(inner())
        assert block_on(inner()) == "outer's, inner's"
        assert var.get() == "outer's"
        assert await other == "outer's, inner's"

    homebound.run(main())


def test_a_task_that_shares_the_outer_ones_context():
    """A Context cannot be entered twice: the task goes on in a copy rather than fail."""
    var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")

    async def main() -> None:
        var.set("shared")
        mine = contextvars.copy_context()

        async def outer() -> None:
            async def inner() -> str:
                await asyncio.sleep(0)
                return var.get()

            shares = asyncio.create_task(inner(), context=mine)
            future = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(lambda: future.set_result(var.get()), context=mine)

            async def wait() -> str:
                return await future + await shares  # type: ignore[no-any-return]

            assert block_on(wait()) == "sharedshared"

        await asyncio.create_task(outer(), context=mine)

    homebound.run(main())


def test_nested_to_any_depth():
    async def main() -> None:
        async def deeper(depth: int) -> int:
            await asyncio.sleep(0)
            if not depth:
                return 0
            return 1 + block_on(deeper(depth - 1))

        assert block_on(deeper(20)) == 20
        assert current_task() is asyncio.current_task()

    homebound.run(main())


def test_what_the_outer_task_has_woken_runs_meanwhile():
    async def main() -> None:
        order: list[str] = []

        async def woken() -> None:
            await homebound.suspend()
            order.append("woken")

        task = here().spawn(woken())
        await asyncio.sleep(0)
        task.wake()
        block_on(task)
        assert order == ["woken"]

    homebound.run(main())


def test_all_kinds_of_awaitables(io: IOThread):
    class Custom:
        def __await__(self) -> Any:
            yield from asyncio.sleep(0).__await__()
            return "custom"

    async def main() -> None:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        loop.call_later(0.001, future.set_result, "future")
        assert block_on(future) == "future"
        assert block_on(asyncio.create_task(where())) == "MainThread"
        assert block_on(io.spawn(where())) == "io"
        assert block_on(Custom()) == "custom"
        assert block_on(asyncio.gather(where(), where())) == ["MainThread"] * 2

    homebound.run(main())


@pytest.mark.parametrize("place", ["home", "io", "thread"])
def test_its_exception_is_raised_here(place: str, io: IOThread, in_thread: InThread):
    def work(context: AioContext | None) -> None:
        with pytest.raises(ValueError, match="no"):
            block_on(fail(), context)
        with pytest.raises(asyncio.CancelledError):
            block_on(cancelled(), context)

    async def cancelled() -> None:
        asyncio.current_task().cancel()  # type: ignore[union-attr]
        await asyncio.sleep(0)

    async def main() -> None:
        if place == "thread":
            await asyncio.wrap_future(in_thread(work, io.context))
        else:
            work(io.context if place == "io" else None)

    homebound.run(main())


@pytest.mark.parametrize("place", ["home", "io", "thread"])
def test_timeout_waits_for_the_cleanup(place: str, io: IOThread, in_thread: InThread):
    def work(context: AioContext | None) -> None:
        slow = Slow()
        with pytest.raises(TimeoutError):
            block_on(slow(), context, timeout=0.005)
        assert slow.trace == (["cleaned up"] if slow.started.is_set() else [])
        assert block_on(where(), context, timeout=30)

    async def main() -> None:
        if place == "thread":
            await asyncio.wrap_future(in_thread(work, io.context))
        else:
            work(io.context if place == "io" else None)

    homebound.run(main())


def test_a_loop_that_no_thread_runs():
    """The cleanup would never come: the timeout ends the wait, and the task when the loop runs."""
    ran = []

    async def work() -> None:
        ran.append(1)

    loop = homebound.new_event_loop()
    context = AioContext.attach(loop)
    task = context.spawn(work())
    with pytest.raises(TimeoutError, match="no thread runs the loop of <AioContext"):
        block_on(task, timeout=0.001)
    with pytest.raises(TimeoutError, match="no thread runs the loop of <AioContext"):
        block_on(work(), context, timeout=0.001)
    loop.run_until_complete(asyncio.sleep(0))
    assert task.cancelled()
    assert not ran
    loop.close()


@pytest.mark.parametrize("make", [homebound.new_event_loop, asyncio.SelectorEventLoop])
def test_a_loop_that_its_thread_is_about_to_run(make: Callable[[], Any], in_thread: InThread):
    """The loop counts as run by its thread, so the task's end is waited for."""
    go_on = threading.Event()

    def factory() -> Any:
        loop = make()
        run_forever = loop.run_forever

        def run_later() -> None:
            go_on.wait(20)
            run_forever()

        loop.run_forever = run_later
        return loop

    with IOThread(loop_factory=factory) as io:
        task = io.spawn(asyncio.sleep(30))
        blocked = in_thread(lambda: block_on(task, timeout=0.001))
        until(lambda: io.context.stats().ready == 2)  # the task, and its cancellation
        go_on.set()
        with pytest.raises(TimeoutError, match="was cancelled after its timeout"):
            blocked.result(20)
        assert task.cancelled()


def test_a_result_in_spite_of_the_timeout():
    async def stubborn() -> str:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            return "a result all the same"
        return "not cancelled"

    async def main() -> None:
        assert block_on(stubborn(), timeout=0.001) == "a result all the same"

    homebound.run(main())


def test_cancelling_the_outer_task_cancels_the_inner():
    async def main() -> None:
        slow = Slow()

        async def outer() -> None:
            block_on(slow())

        task = asyncio.create_task(outer())
        asyncio.get_running_loop().call_later(0.001, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert slow.trace == ["cleaned up"]

    homebound.run(main())


# For others.


def test_the_main_thread_for_an_io_thread(io: IOThread):
    async def main() -> None:
        ticked = homebound.Event()

        async def tick() -> None:
            await asyncio.sleep(0.0005)
            ticked.set()

        async def after_the_tick() -> str:
            await ticked.wait()
            return await where()

        ticker = asyncio.create_task(tick())
        assert block_on(after_the_tick(), io.context) == "io"  # the main loop runs meanwhile
        assert ticker.done()

    homebound.run(main())


def test_a_thread_without_a_context(io: IOThread, in_thread: InThread):
    assert in_thread(lambda: block_on(where(), io.context)).result(10) == "io"
    assert block_on(io.spawn(where())) == "io"

    async def main() -> None:
        future = in_thread(lambda: [block_on(where()), block_on(where(0.001))])
        assert await asyncio.wrap_future(future) == ["MainThread"] * 2

    homebound.run(main())


def test_without_any_context():
    coro = where()
    with pytest.raises(ContextError, match="there is no context to run it in"):
        block_on(coro)


def test_one_io_thread_for_another(io: IOThread, io2: IOThread):
    async def wait(awaitable: Any, context: AioContext | None) -> None:
        with pytest.raises(WouldDeadlock, match=r"block_on.*thread 'io' \(current context 'io'\)"):
            block_on(awaitable, context)

    block_on(io.spawn(wait(where(), io2.context)))

    async def main() -> None:
        await io.spawn(wait(where(), here()))

    homebound.run(main())


def test_one_io_thread_for_a_task_of_another(io: IOThread, io2: IOThread):
    """The task determines its own home: the call need not name the context."""

    async def wait() -> str:
        return block_on(io2.spawn(where(0.001)))

    with pytest.raises(WouldDeadlock):
        block_on(io.spawn(wait()))


def test_in_a_context_that_has_ended():
    with IOThread() as io:
        context = io.context
    with pytest.raises(ContextClosed):
        block_on(where(), context)

    async def main() -> None:
        with pytest.raises(ContextClosed):
            block_on(where(), context)

    homebound.run(main())


def test_the_context_ends_meanwhile(in_thread: InThread):
    io = IOThread()
    io.start()
    slow = Slow()
    future = in_thread(lambda: block_on(slow(), io.context))
    assert slow.started.wait(10)
    io.stop()
    with pytest.raises((ContextClosed, asyncio.CancelledError)):
        future.result(10)
    assert slow.trace == ["cleaned up"]


def test_a_done_task_answers_at_once(io: IOThread):
    task = io.spawn(where())
    assert block_on(task) == "io"
    assert block_on(task) == "io"


@pytest.mark.parametrize("depth", [0, 1, 5])
@pytest.mark.parametrize("first", ["at once", "later"])
def test_for_a_task_that_the_caller_runs_in(depth: int, first: str):
    async def main() -> None:
        outermost = current_task()
        assert outermost is not None

        async def nest(left: int) -> None:
            if first == "later":
                await asyncio.sleep(0)
            if left:
                block_on(nest(left - 1))
                return
            with pytest.raises(WouldDeadlock, match="would wait for itself"):
                block_on(outermost)

        block_on(nest(depth))
        with pytest.raises(WouldDeadlock, match="would wait for itself"):
            block_on(outermost)

    homebound.run(main())
