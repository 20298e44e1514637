"""stats(): the counters of a context, as a frozen record."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING

import pytest

import homebound
from homebound import AioContext, IOThread, current_context

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    Gate = Callable[[AioContext], threading.Event]


async def nothing() -> None:
    pass


def test_a_frozen_record(io: IOThread):
    stats = io.context.stats()
    assert isinstance(stats, homebound.ContextStats)
    assert stats.name == "io"
    assert not stats.closed
    with pytest.raises(dataclasses.FrozenInstanceError):
        stats.ready = 1  # type: ignore[misc]


def test_ready_counts_the_mailbox(io: IOThread, gate: Gate):
    go_on = gate(io.context)
    assert io.context.stats().ready == 0
    for _ in range(3):
        io.context.call_soon(print)
    assert io.context.stats().ready == 3
    for handle in [io.context.call_soon(int) for _ in range(2)]:
        handle.cancel()
    go_on.set()
    homebound.block_on(io.spawn(nothing()))
    assert io.context.stats().ready == 0


def test_tasks_counts_the_tasks_at_home(io: IOThread):
    assert io.context.stats().tasks == 0
    tasks = [io.spawn(homebound.suspend()) for _ in range(3)]
    homebound.block_on(io.spawn(nothing()))
    assert io.context.stats().tasks == 3
    for task in tasks:
        task.wake()
        homebound.block_on(task)
    assert io.context.stats().tasks == 0


def test_tasks_counts_no_task_that_is_done(io: IOThread):
    """It is right as soon as a task is seen to be done: its home may not have removed it yet."""
    for _ in range(500):
        task = io.spawn(nothing())
        while not task.done():
            pass
        assert io.context.stats().tasks == 0


def test_tasks_follow_a_move(io: IOThread):
    async def main() -> None:
        context = current_context()
        assert context is not None
        before = context.stats().tasks
        task = asyncio.create_task(move_and_stay())
        while task.home is not io.context:  # type: ignore[attr-defined]
            await asyncio.sleep(0)
        assert context.stats().tasks == before
        assert io.context.stats().tasks == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def move_and_stay() -> None:
        await homebound.move_to(io.context)
        await homebound.suspend()

    homebound.run(main())


def test_iterations_and_entered_grow():
    async def main() -> None:
        context = current_context()
        assert context is not None
        before = context.stats()
        for _ in range(10):
            await asyncio.sleep(0)
        after = context.stats()
        assert after.iterations - before.iterations == 10
        assert after.entered - before.entered == 10

    homebound.run(main())


def test_wakeups_grow_with_sleeps_that_a_post_ended(io: IOThread):
    before = io.context.stats().wakeups
    for _ in range(5):
        homebound.block_on(io.spawn(nothing()))
    assert before <= io.context.stats().wakeups <= before + 5


def test_closed():
    with IOThread("gone") as io:
        context = io.context
    assert context.stats().closed
    assert "closed" in repr(context)
    assert "'gone'" in repr(context)
