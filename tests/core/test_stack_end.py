"""A post where the stack ends, at whatever depth: all of it happens, or nothing.

A post that raised may be made again; if that is refused, the first one is kept, and nothing else
needs to wake the home.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import AlreadyScheduled, NotSuspended
from homebound.testing import settle_sync, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    InThread = Callable[..., Future[Any]]

LIMIT = 400  # frames of the thread that posts
DEPTHS = range(LIMIT - 30, LIMIT)


def deep(frames: int, act: Callable[[], object]) -> None:
    if frames:
        deep(frames - 1, act)
    else:
        act()


def act_at(frames: int, act: Callable[[], object]) -> bool:
    """Act so many frames down; return whether there was no room."""
    homebound.current_context()  # what each thread makes once is no part of the post
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(LIMIT)
    try:
        deep(frames, act)
    except RecursionError:
        return True
    finally:
        sys.setrecursionlimit(before)
    return False


def asleep(context: homebound.AioContext) -> None:
    """Wait until the home sleeps, and only a post that rings wakes it."""
    settle_sync(context)
    until(lambda: context._bell)


def again(act: Callable[[], object]) -> None:
    """Post once more, unless that is refused because the first one is kept."""
    try:
        act()
    except (AlreadyScheduled, NotSuspended):
        pass


async def suspends() -> None:
    await homebound.suspend()


@pytest.mark.parametrize(
    "post",
    [
        lambda task, _: task.wake(),
        lambda task, context: context.schedule(task),
        lambda task, context: context.enter(task),
    ],
    ids=["wake", "schedule", "enter"],
)
def test_a_wake(
    post: Callable[[Any, Any], object], io: homebound.IOThread, in_thread: InThread
) -> None:
    raised = 0
    context = io.context
    for frames in DEPTHS:
        task = io.spawn(suspends())
        asleep(context)

        def act(task: Any = task) -> None:
            post(task, context)

        if in_thread(act_at, frames, act).result(20):
            raised += 1
            again(act)
        until(task.done)
    assert 0 < raised < len(DEPTHS)


def test_a_bottom_half(io: homebound.IOThread, in_thread: InThread) -> None:
    raised = 0
    ran: list[int] = []
    bottom_half = io.context.bottom_half(lambda: ran.append(1))
    for frames in DEPTHS:
        ran.clear()
        asleep(io.context)
        if in_thread(act_at, frames, bottom_half.schedule).result(20):
            raised += 1
            bottom_half.schedule()  # no more than a ring, if it is queued
        until(lambda: ran)
    assert 0 < raised < len(DEPTHS)


def test_a_result(io: homebound.IOThread, in_thread: InThread) -> None:
    """A post that raises RecursionError is made again; the task that awaits the future goes on."""
    raised = 0
    loop = io.context.loop

    async def awaits(futures: list[Any]) -> None:
        futures.append(loop.create_future())
        await futures[0]

    for frames in DEPTHS:
        futures: list[Any] = []
        task = io.spawn(awaits(futures))
        asleep(io.context)

        def act(future: Any = futures[0]) -> None:
            loop.call_soon_threadsafe(lambda: future.done() or future.set_result(None))

        if in_thread(act_at, frames, act).result(20):
            raised += 1
            act()
        until(task.done)
    assert 0 < raised < len(DEPTHS)


def test_a_nested_iteration():
    """What it has taken out of the mailbox, and cannot call, runs later; its task goes on."""
    reports: list[Any] = []

    async def main() -> None:
        loop, context = asyncio.get_running_loop(), homebound.running_context()
        loop.set_exception_handler(lambda _loop, about: reports.append(about))
        raised = 0

        async def work(ran: list[int]) -> None:
            ran.append(4)

        for frames in range(LIMIT - 100, LIMIT):
            ran: list[int] = []
            for number in range(3):
                loop.call_soon(ran.append, number)
            context.call_soon(ran.append, 3)
            task = loop.create_task(work(ran))
            half = context.bottom_half(lambda: ran.append(5))  # noqa: B023  (called in this turn)
            half.schedule()
            raised += act_at(frames, lambda: context.poll(blocking=False))
            await task
            assert sorted(ran) == [0, 1, 2, 3, 4, 5], frames
        assert raised

    homebound.run(main())
    assert all(isinstance(about["exception"], RecursionError) for about in reports)
