"""The close of a loop that a signal handler interrupts: another call does the rest."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import homebound
from homebound import AioContext, ContextClosed

from ..locks.attack import Attack, Interrupt

if TYPE_CHECKING:
    from homebound import Task


def closed_with_an_interruption(at: int) -> str:
    """A loop with suspended, waiting and queued tasks is closed twice, the first time in vain."""
    loop: Any = homebound.new_event_loop()
    context = AioContext.attach(loop)

    async def wait(number: int) -> None:
        if number % 2:
            await homebound.suspend()
        await loop.create_future()

    def spawn(number: int) -> Task[Any]:
        task = context.spawn(wait(number))
        task.add_done_callback(lambda _: None)
        return task

    async def begin() -> list[Task[Any]]:
        tasks = [spawn(number) for number in range(4)]
        await asyncio.sleep(0)
        return tasks

    tasks = loop.run_until_complete(begin())
    tasks += [spawn(number) for number in range(2)]  # these have not begun
    future = asyncio.run_coroutine_threadsafe(wait(0), loop)

    def close() -> None:
        try:
            loop.close()
        except (Interrupt, MemoryError):
            loop.close()

    attack = Attack(at)
    attack.run(close)
    assert loop.is_closed(), attack.where
    for task in tasks:
        assert task.done(), attack.where
        assert isinstance(task.exception(), ContextClosed), attack.where
    assert future.done(), attack.where
    assert isinstance(future.exception(), ContextClosed), attack.where
    return attack.where


def test_interrupted_at_any_point():
    seen: set[str] = set()
    for at in range(5000):
        where = closed_with_an_interruption(at)
        if not where:
            break
        seen.add(where)
    else:
        raise AssertionError("the close has come to five thousand points")
    assert len(seen) > 50
