"""A signal handler raises as a loop's run ends, or in its close: another call does the rest."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import AioContext, ContextClosed

from ..locks.attack import Attack, Interrupt

if TYPE_CHECKING:
    from types import FrameType

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


@pytest.mark.skipif(sys.version_info < (3, 13), reason="asyncio cleans up without a call")
def test_interrupted_as_asyncio_cleans_up_after_a_run():
    code: Any = asyncio.BaseEventLoop._run_forever_cleanup.__code__  # type: ignore[attr-defined]
    reached: list[FrameType] = []

    def trace(frame: FrameType, _event: str, _: object) -> None:
        if frame.f_code is code and not reached:
            reached.append(frame)
            raise Interrupt

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with pytest.raises(Interrupt):
            homebound.run(asyncio.sleep(0))
    finally:
        sys.settrace(before)
    reached.clear()
    assert homebound.main_context() is None
    assert homebound.run(asyncio.sleep(0, "again")) == "again"
