"""The end of a foreign loop: what waits for something there is notified."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import AioContext, ContextClosed, IOThread, block_on
from homebound.testing import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    InThread = Callable[..., Future[Any]]
    Factory = Callable[[], asyncio.AbstractEventLoop]
    StockLoop = Any  # conftest's


async def nothing() -> None:
    pass


async def outcome(of: Any) -> object:
    try:
        return await of
    except ContextClosed as error:
        assert "its loop has ended" in str(error) or "ended with it" in str(error)  # noqa: PT017
        return "told"


def waiting_for(io: IOThread, what: Any) -> homebound.Task[Any]:
    """Spawn a task in `io` that waits, and has begun to."""
    task = io.spawn(outcome(what))
    while task._fut_waiter is None:
        block_on(io.spawn(nothing()))
    return task


@pytest.mark.parametrize("attached", [True, False])
def test_waiters_for_a_future_of_a_closed_loop(
    attached: bool,  # noqa: FBT001
    stock: StockLoop,
    io: IOThread,
):
    if attached:
        AioContext.attach(stock.loop)
    future = stock.loop.create_future()
    waiters = [waiting_for(io, future) for _ in range(3)]
    stock.close()
    assert [block_on(waiter) for waiter in waiters] == ["told"] * 3
    assert block_on(io.spawn(outcome(future))) == "told"  # also waiters that come later


def test_waiters_for_a_task_of_a_closed_loop(stock: StockLoop, io: IOThread, in_thread: InThread):
    """Nothing is posted there: the end itself notifies the waiter."""
    context = AioContext.attach(stock.loop)
    task = context.spawn(homebound.suspend())
    block_on(context.spawn(nothing()))
    waiter = waiting_for(io, task)
    blocked = in_thread(block_on, task)
    until(lambda: len(task._listeners) == 2)
    stock.close()
    assert block_on(waiter) == "told"
    with pytest.raises(ContextClosed):
        blocked.result(10)
    assert context.stats().closed


def test_a_result_that_was_set_before_is_returned(stock: StockLoop, io: IOThread):
    future = stock.loop.create_future()
    waiter = waiting_for(io, future)
    stock.loop.call_soon_threadsafe(stock.loop.stop)
    stock.thread.join()
    future.set_result("there")  # its callbacks will never run
    stock.loop.close()
    assert block_on(waiter) == "there"
    assert block_on(io.spawn(outcome(future))) == "there"


def test_an_io_thread_on_such_a_loop(factory: Factory, io: IOThread):
    with IOThread("other", loop_factory=factory) as other:
        future = other.context.loop.create_future()
        waiter = waiting_for(io, future)
    assert block_on(waiter) == "told"


def test_posts_that_race_with_the_end(factory: Factory, in_thread: InThread):
    """Each post runs, or is refused, or its task is notified: also if a closed loop takes posts."""
    for _ in range(20):
        loop = factory()
        context = AioContext.attach(loop)
        begun = threading.Barrier(3)

        def post(context: AioContext = context, begun: Any = begun) -> None:
            begun.wait(10)
            try:
                while True:
                    block_on(nothing(), context)
            except ContextClosed:
                pass

        posters = [in_thread(post) for _ in range(2)]
        begun.wait(10)
        loop.run_until_complete(asyncio.sleep(0.001))
        loop.close()
        for poster in posters:
            poster.result(10)


def test_attaching_again(factory: Factory):
    loop, strange = factory(), factory()
    context = AioContext.attach(loop)
    loop.close()
    loop.close()
    assert AioContext.attach(loop) is context
    assert context.loop is loop
    strange.close()
    with pytest.raises(ContextClosed, match="is closed, and had no context"):
        AioContext.attach(strange)


def test_a_running_loop_cannot_be_closed(factory: Factory):
    async def main() -> None:
        loop = asyncio.get_running_loop()
        context = AioContext.attach(loop)
        with pytest.raises(RuntimeError, match="running"):
            loop.close()
        assert await context.spawn(asyncio.sleep(0, "alive")) == "alive"

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


def test_another_wrapper_of_close_is_called(factory: Factory):
    loop: Any = factory()
    calls = []
    real_close = loop.close

    def before() -> None:
        calls.append("before")
        real_close()

    loop.close = before
    context = AioContext.attach(loop)
    covered = loop.close

    def after() -> None:
        calls.append("after")
        covered()

    loop.close = after
    assert AioContext.attach(loop) is context
    loop.close()
    assert calls == ["after", "before"]
    assert context.stats().closed


class Bare(asyncio.SelectorEventLoop):
    """A loop whose methods cannot be replaced, as one without a `__dict__`."""

    def __setattr__(self, name: str, value: object) -> None:
        if name == "close" or "homebound" in name:
            raise AttributeError(name)
        super().__setattr__(name, value)


def test_a_loop_whose_close_cannot_be_replaced(in_thread: InThread):
    """Its end is noticed by the next post, and by a wait in a thread."""
    for notice in ("post", "wait"):
        loop = Bare()
        context = AioContext.attach(loop)
        assert AioContext.attach(loop) is context
        task = context.spawn(homebound.suspend())
        loop.run_until_complete(asyncio.sleep(0))
        blocked = in_thread(block_on, task)
        until(lambda: task._listeners)  # noqa: B023  (asked here and now)
        loop.close()
        if notice == "post":
            with pytest.raises(ContextClosed):
                context.call_soon(print)
        with pytest.raises(ContextClosed):
            blocked.result(10)
