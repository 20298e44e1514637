"""A closed loop is freed with its last reference: no cycle refers to it."""

from __future__ import annotations

import asyncio
import gc
import selectors
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import AioContext, ContextClosed, IOThread
from homebound.testing import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

References = list[weakref.ref[Any]]


@pytest.fixture(autouse=True)
def _no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def work() -> References:
    """Use the parts of a loop and a context; return weak references to both."""
    loop = asyncio.get_running_loop()
    context = AioContext.attach(loop)
    await asyncio.sleep(0.001)
    await asyncio.to_thread(int)
    await context.spawn(homebound.to_worker(int))
    context.notify()
    context.bottom_half(int).schedule()
    await asyncio.sleep(0)
    return [weakref.ref(loop), weakref.ref(context)]


def by_runner(factory: Callable[[], Any]) -> References:
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(work())


def by_io_thread(factory: Callable[[], Any]) -> References:
    with IOThread(loop_factory=factory) as io:
        return homebound.block_on(io.spawn(work()))


def on_select() -> Any:
    return homebound.new_event_loop(selectors.SelectSelector())


@pytest.mark.parametrize(
    "run",
    [
        lambda: by_runner(homebound.new_event_loop),
        lambda: by_runner(on_select),
        lambda: homebound.run(work()),
        lambda: by_io_thread(homebound.new_event_loop),
        lambda: by_runner(asyncio.SelectorEventLoop),
        lambda: by_io_thread(asyncio.SelectorEventLoop),
    ],
    ids=["new_event_loop", "select", "run", "IOThread", "attached", "IOThread, attached"],
)
def test_gone_when_closed_and_dropped(run: Callable[[], References]):
    references = run()
    for thread in threading.enumerate():  # workers, which were told to end, may still refer to it
        if thread is not threading.current_thread():
            thread.join(10)
    # Without a GIL, a reference dropped by another thread is released when the owning thread runs.
    until(lambda: not any(reference() for reference in references))


def test_a_late_user_of_a_closed_loop_is_refused():
    loop = homebound.new_event_loop()
    context = AioContext.attach(loop)
    loop.close()
    loop.close()
    assert AioContext.attach(loop) is context
    assert context.loop is loop
    for post in (loop.call_soon, loop.call_soon_threadsafe):
        with pytest.raises(RuntimeError, match="closed"):
            post(print)
    with pytest.raises(ContextClosed):
        context.call_soon(print)
    context.notify()

    async def wait_for(future: Any) -> None:
        with pytest.raises(ContextClosed, match="will never be done"):
            await future

    homebound.run(wait_for(asyncio.Future(loop=loop)))
    del context
    with pytest.raises(ContextClosed, match="is closed, and had no context"):
        AioContext.attach(loop)


def test_a_context_outlives_its_loop_and_refuses():
    with IOThread("gone") as io:
        context = io.context
        task = io.spawn(work())
        homebound.block_on(task)
    del io
    assert context.loop.is_closed()
    assert task.home is context
    assert context.stats().closed
    with pytest.raises(ContextClosed, match="'gone' closed> has ended"):
        context.bottom_half(int).schedule()


class OopsError(Exception):
    """An exception that can be referred to weakly."""


@pytest.mark.parametrize("how", ["await", "result", "future"])
def test_an_error_that_was_raised_is_in_no_cycle(how: str):
    async def fail() -> None:
        raise OopsError

    async def main() -> Any:
        reference: Any = None
        loop = asyncio.get_running_loop()
        failing: Any = loop.create_future() if how == "future" else asyncio.create_task(fail())
        if how == "future":
            loop.call_soon(failing.set_exception, OopsError())
        try:
            if how == "result":
                await asyncio.wait([failing])
                failing.result()
            await failing
        except OopsError as error:
            reference = weakref.ref(error)
        del failing
        return reference

    reference = homebound.run(main())
    assert reference is not None
    until(lambda: reference() is None)
