"""Ends of homes that have much to do, or are given more all the time."""

from __future__ import annotations

import asyncio
import concurrent.futures
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import Background, ContextClosed, IOThread, block_on
from homebound._core.late_posts import refuse_tasks
from homebound._core.resumption import find_lost
from homebound.testing import until

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


def test_an_end_that_looks_for_lost_tasks_has_time_for_the_others(monkeypatch: pytest.MonkeyPatch):
    """A look at very many tasks takes longer than the time until the next would be due."""
    steps, looks = 500, 0

    def slow(home: Any) -> None:
        nonlocal looks
        looks += 1
        time.sleep(0.06)
        find_lost(home)

    monkeypatch.setattr("homebound._core.wind_down.find_lost", slow)

    async def takes_many_iterations() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            for _ in range(steps):
                await asyncio.sleep(0)

    with IOThread("io") as io:
        io.spawn(takes_many_iterations())
        block_on(asyncio.sleep(0), io.context)
    assert looks < steps / 5


def test_a_queue_that_never_stops_changing_has_no_task_run_twice(monkeypatch: pytest.MonkeyPatch):
    """On a free-threaded build a queue cannot be copied while other threads change it."""
    monkeypatch.setattr("homebound._core.resumption.snapshot", lambda _: ())

    async def main() -> None:
        task = asyncio.create_task(nothing())
        ready = homebound.AioContext.attach(asyncio.get_running_loop())._ready
        before = len(ready)
        find_lost(homebound.current_context())
        assert len(ready) == before
        await task

    homebound.run(main())


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


def test_a_home_that_was_asked_to_end_takes_no_task_of_another_thread(in_thread: InThread):
    """Nor does it wait until its end begins: until then they would hold that up."""
    busy, go_on = threading.Event(), threading.Event()

    def keep_it_busy() -> None:
        busy.set()
        go_on.wait(20)

    with IOThread() as io:
        context = io.context
        context.call_soon(keep_it_busy)
        assert busy.wait(20)
        stopping = in_thread(io.stop)
        until(lambda: context._refusing)
        try:
            with pytest.raises(ContextClosed):
                io.spawn(nothing())
            coro = nothing()
            with pytest.raises(ContextClosed):
                asyncio.run_coroutine_threadsafe(coro, context.loop)
            coro.close()
        finally:
            go_on.set()
        stopping.result(20)


def test_threads_that_post_more_than_a_home_that_ends_can_run_pause(
    in_thread: InThread, monkeypatch: pytest.MonkeyPatch
):
    pauses: list[int] = []

    def paused(seconds: float) -> None:
        assert seconds > 0
        pauses.append(threading.get_ident())

    def post_many() -> None:
        for _ in range(2000):
            loop.call_soon(int)
        refuse_tasks(context)
        loop.call_soon_threadsafe(int)
        context.call_soon(int)
        assert not pauses  # the home itself has none
        idents.append(in_thread(post).result(20))

    def post() -> int:
        loop.call_soon_threadsafe(int)
        context.call_soon(int)
        return threading.get_ident()

    monkeypatch.setattr("homebound._core.late_posts.sleep", paused)
    idents: list[int] = []
    with IOThread() as io:
        context, loop = io.context, io.context.loop
        context.call_soon(post_many)
    (ident,) = idents
    assert pauses.count(ident) == 2  # beside those of the thread that stops it


@pytest.mark.filterwarnings("ignore:coroutine 'nothing' was never awaited")
@pytest.mark.parametrize("kind", [IOThread, Background])
def test_floods_of_all_that_can_be_posted(kind: Any, in_thread: InThread):
    """Each batch would be larger than the last, so that the end would never have its turn."""
    home = kind("flooded").start()
    context, loop = home.context, home.context.loop
    posts: list[Callable[[], object]] = [
        lambda: context.call_soon(int),
        lambda: loop.call_soon_threadsafe(int),
        lambda: context.spawn(nothing()),
        *[lambda: asyncio.run_coroutine_threadsafe(nothing(), loop)] * 3,
    ]
    begun = [threading.Event() for _ in posts]

    def flood(post: Callable[[], object], event: threading.Event) -> None:
        try:
            while True:
                post()
                event.set()
        except RuntimeError:  # ContextClosed, and asyncio's if the loop is closed
            pass

    flooding = [in_thread(flood, *each) for each in zip(posts, begun, strict=True)]
    for each in begun:
        assert each.wait(20)
    home.stop()
    for future in flooding:
        future.result(20)


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
