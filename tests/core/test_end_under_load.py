"""Ends of homes that have much to do, or are given more all the time."""

from __future__ import annotations

import asyncio
import concurrent.futures
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import ContextClosed, IOThread, block_on

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    InThread = Callable[..., Future[Any]]


async def nothing() -> None:
    pass


@pytest.mark.filterwarnings("ignore:coroutine 'nothing' was never awaited")
@pytest.mark.parametrize("kind", ["listener", "future"])
def test_closing_visits_each_entry_once(kind: str, monkeypatch: pytest.MonkeyPatch):
    """Each queued task has a waiter to notify; the mailbox is not searched for each."""
    longest = 0
    withdraw = homebound.AioContext._withdraw

    def measured(self: Any, entry: Any) -> None:
        nonlocal longest
        longest = max(longest, len(self._ready))
        withdraw(self, entry)

    monkeypatch.setattr(homebound.AioContext, "_withdraw", measured)
    loop: Any = homebound.new_event_loop()
    futures: list[concurrent.futures.Future[None]] = []
    for _ in range(1000):
        if kind == "listener":
            loop.create_task(nothing()).add_done_callback(lambda _: None)
        else:
            futures.append(asyncio.run_coroutine_threadsafe(nothing(), loop))
    loop.close()
    assert longest <= 1
    for future in futures:
        with pytest.raises(ContextClosed, match="never started"):
            future.result(0)


def test_a_future_whose_task_has_begun():
    """The loop is closed by hand: the thread that waits for the future gets an error."""
    loop = homebound.new_event_loop()
    future = asyncio.run_coroutine_threadsafe(asyncio.sleep(3600), loop)
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    with pytest.raises(ContextClosed):
        future.result(0)


def test_a_future_that_is_done_as_the_loop_closes():
    """The result is not lost with the callback that was to carry it over."""
    loop = homebound.new_event_loop()

    async def stops() -> str:
        loop.stop()
        return "result"

    future = asyncio.run_coroutine_threadsafe(stops(), loop)
    loop.run_forever()
    assert not future.done()
    loop.close()
    assert future.result(0) == "result"


def test_other_threads_go_on_posting(in_thread: InThread):
    """Each future of the posted coroutines ends, and so does the home."""
    halt, begun = threading.Event(), threading.Event()
    futures: list[concurrent.futures.Future[None]] = []

    def flood(loop: asyncio.AbstractEventLoop) -> None:
        while not halt.is_set():
            coro = nothing()
            try:
                futures.append(asyncio.run_coroutine_threadsafe(coro, loop))
                begun.set()
            except RuntimeError:
                coro.close()
                return

    with IOThread() as io:
        posting = [in_thread(flood, io.context.loop) for _ in range(2)]
        assert begun.wait(10)
        io.stop()
    for each in posting:
        each.result(10)
    assert not halt.is_set()
    done, pending = concurrent.futures.wait(futures, timeout=10)
    assert not pending
    assert done


@pytest.mark.parametrize("way", ["callback", "task"])
def test_tasks_are_made_without_end(way: str):
    """Each callback, or each task's cleanup, makes the next task."""
    made = 0

    def make() -> None:
        nonlocal made
        made += 1
        loop = asyncio.get_running_loop()
        if way == "callback":
            keep.append(loop.create_task(nothing()))
            loop.call_soon(make)
        else:
            keep.append(loop.create_task(again()))

    async def again() -> None:
        try:
            await asyncio.sleep(0)
        finally:
            make()

    keep: list[Any] = []
    with IOThread() as io:
        io.context.call_soon(make)
        block_on(io.spawn(asyncio.sleep(0)))
    assert made
    assert all(task.done() for task in keep)


def test_a_post_at_the_moment_of_closing():
    """asyncio empties its queue as it closes a loop: what was posted at that moment is refused."""
    code = asyncio.BaseEventLoop.close.__code__
    refused: list[BaseException] = []
    loop = homebound.new_event_loop()

    def trace(frame: Any, event: str, _arg: object) -> Any:
        if frame.f_code is code and event == "call":
            thread = threading.Thread(target=late, args=(loop._ready,))  # type: ignore[attr-defined]
            thread.start()
            thread.join()
        return None

    def late(queue: Any) -> None:
        entry = object()
        queue.append(entry)
        try:
            loop.home._ring(entry)  # type: ignore[attr-defined]
        except ContextClosed as error:
            refused.append(error)

    sys.settrace(trace)
    try:
        loop.close()
    finally:
        sys.settrace(None)
    assert len(refused) == 1
