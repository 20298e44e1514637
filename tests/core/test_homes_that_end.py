"""What is sent to a task's home, which ends before it arrives: a task that has left it gets it."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import ContextClosed, IOThread, block_on, move_to
from homebound._core.far import Cancel
from homebound._core.pursuit import pursuing
from homebound.testing import until

if TYPE_CHECKING:
    from collections.abc import Callable

LONG = 3600  # seconds


def before_the_first_post(io: IOThread, post: str, act: Callable[[], None]) -> list[str]:
    """Have the first entry from another thread wait for `act`; what is returned says it did."""
    real = getattr(io.context, post)
    acted: list[str] = []
    home = io._thread.ident

    def posting(entry: Any) -> None:
        if threading.get_ident() != home and not acted:
            acted.append(post)
            act()
        real(entry)

    setattr(io.context, post, posting)
    return acted


def test_a_cancellation(io2: IOThread):
    async def work() -> None:
        await homebound.suspend()
        await asyncio.sleep(LONG)

    def take_away() -> None:
        io2.context.schedule(task)
        until(lambda: task.home is io2.context)
        io.stop()

    with IOThread("ends") as io:
        task = io.spawn(work())
        block_on(asyncio.sleep(0), io.context)
        acted = before_the_first_post(io, "_post_first", take_away)
        assert task.cancel()
        with pytest.raises(asyncio.CancelledError):
            block_on(task, timeout=20)
    assert acted
    assert not pursuing


def test_one_that_its_mailbox_has_kept(io2: IOThread):
    """A home that closes has the entries in its mailbox answered."""
    task = io2.spawn(asyncio.sleep(LONG))
    Cancel(task, None, None)._unrun()
    with pytest.raises(asyncio.CancelledError):
        block_on(task, timeout=20)
    assert not pursuing


def test_a_task_that_ends_with_the_home():
    with IOThread("ends") as io:
        task = io.spawn(homebound.suspend())
        block_on(asyncio.sleep(0), io.context)
        acted = before_the_first_post(io, "_post_first", io.stop)
        assert not task.cancel()
        with pytest.raises((ContextClosed, asyncio.CancelledError)):
            block_on(task)
    assert acted
    assert not pursuing


@pytest.mark.parametrize("group", [homebound.TaskGroup, asyncio.TaskGroup], ids=["ours", "asyncio"])
def test_the_end_of_a_child(group: Any, io2: IOThread):
    """Its parent has moved on, and waits for it elsewhere."""

    async def parent(ends: homebound.AioContext, home: homebound.AioContext) -> str:
        async with group() as children:
            children.create_task(begin.wait())
            await move_to(ends)
            ready.set()
            await moves.wait()
            await move_to(home)
            there.set()
        return "ended"

    begin, ready, moves = homebound.Event(), homebound.Event(), homebound.Event()
    there = threading.Event()

    async def main() -> str:
        home = homebound.running_context()
        with IOThread("ends") as io:
            task = io2.spawn(parent(io.context, home))
            await ready.wait()
            await io.spawn(asyncio.sleep(0))

            def take_away() -> None:
                moves.set()
                assert there.wait(20)
                io._ask_to_stop()
                io._thread.join()  # in a thread that may not wait for the other in `stop`

            acted = before_the_first_post(io, "_post", take_away)
            begin.set()
            async with asyncio.timeout(20):
                outcome = await task
            assert acted
        return outcome

    assert homebound.run(main()) == "ended"
