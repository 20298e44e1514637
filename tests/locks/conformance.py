"""What every lock and every queue must do, whoever made it. Each check runs in a task of any loop.

`check_lock(factory)` and `check_queue(factory)` are coroutine functions: await them on the loop to
be checked. They use nothing but asyncio's interface of locks and queues, and raise AssertionError.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

STEPS = 6  # more iterations than it takes any wait to begin and end


async def settle() -> None:
    """Let everything happen that can."""
    for _ in range(2 * STEPS):
        await asyncio.sleep(0)


async def outcome(task: asyncio.Task[Any]) -> Any:
    """Its result, or "cancelled"."""
    try:
        return await asyncio.wait_for(task, 10)
    except asyncio.CancelledError:
        return "cancelled"


async def check_lock(factory: Callable[[], Any]) -> None:
    """It excludes, it is fair, and no cancellation loses it."""
    await _excludes(factory())
    await _serves_in_order(factory())
    await _lets_nobody_overtake(factory())
    await _refuses_a_release_too_many(factory())
    for cancel_at in range(STEPS):
        for release_at in range(STEPS):
            for cancel_first in (True, False):
                await _survives_cancelling(factory(), cancel_at, release_at, cancel_first)


async def _excludes(lock: Any) -> None:
    inside = 0

    async def user() -> None:
        nonlocal inside
        for _ in range(5):
            async with lock:
                inside += 1
                assert inside == 1
                assert lock.locked()
                await asyncio.sleep(0)
                inside -= 1

    await asyncio.gather(*(user() for _ in range(5)))
    assert not lock.locked()


async def _serves_in_order(lock: Any) -> None:
    order = []

    async def user(number: int) -> None:
        async with lock:
            order.append(number)

    await lock.acquire()
    tasks = [asyncio.create_task(user(number)) for number in range(5)]
    await settle()
    assert order == []
    lock.release()
    assert order == [], "a waiter ran in the stack of who released it"
    await asyncio.gather(*tasks)
    assert order == list(range(5))


async def _lets_nobody_overtake(lock: Any) -> None:
    """Who releases and wants it again comes behind those who wait."""
    order = []

    async def waiter() -> None:
        async with lock:
            order.append("waiter")

    await lock.acquire()
    task = asyncio.create_task(waiter())
    await settle()
    lock.release()
    async with lock:
        order.append("again")
    await task
    assert order == ["waiter", "again"]


async def _refuses_a_release_too_many(lock: Any) -> None:
    try:
        lock.release()
    except RuntimeError:
        pass
    else:
        raise AssertionError("a free lock was released")
    async with lock:
        pass


async def _survives_cancelling(
    lock: Any,
    cancel_at: int,
    release_at: int,
    cancel_first: bool,  # noqa: FBT001
) -> None:
    """The first of two waiters is cancelled at one step, the lock released at another."""
    got = []

    async def user(name: str) -> None:
        await lock.acquire()
        got.append(name)

    await lock.acquire()
    first = asyncio.create_task(user("first"))
    second = asyncio.create_task(user("second"))
    for step in range(STEPS):
        if step == cancel_at and cancel_first:
            first.cancel()
        if step == release_at:
            lock.release()
        if step == cancel_at and not cancel_first:
            first.cancel()
        await asyncio.sleep(0)
    await outcome(first)
    if got == ["first"]:  # it had it before it was cancelled
        lock.release()
    await outcome(second)
    assert got in (["second"], ["first", "second"]), got
    assert lock.locked()
    lock.release()
    assert not lock.locked()


async def check_queue(factory: Callable[..., Any]) -> None:
    """It keeps order and bound, and no cancellation loses or doubles an item."""
    await _keeps_order(factory())
    await _keeps_its_bound(factory(2))
    await _counts_what_is_done(factory())
    await _serves_getters_in_order(factory())
    for cancel_at in range(STEPS):
        for put_at in range(STEPS):
            await _loses_no_item(factory(), cancel_at, put_at)
            await _loses_no_slot(factory(1), cancel_at, put_at)


async def _keeps_order(queue: Any) -> None:
    for number in range(10):
        queue.put_nowait(number)
    assert queue.qsize() == 10
    assert [await queue.get() for _ in range(10)] == list(range(10))
    assert queue.empty()
    try:
        queue.get_nowait()
    except asyncio.QueueEmpty:
        return
    raise AssertionError("something came out of an empty queue")


async def _keeps_its_bound(queue: Any) -> None:
    await queue.put(1)
    await queue.put(2)
    assert queue.full()
    try:
        queue.put_nowait(3)
    except asyncio.QueueFull:
        pass
    else:
        raise AssertionError("a full queue took an item")
    task = asyncio.create_task(queue.put(3))
    await settle()
    assert not task.done()
    assert queue.qsize() == 2
    assert await queue.get() == 1
    await task
    assert [queue.get_nowait(), queue.get_nowait()] == [2, 3]


async def _counts_what_is_done(queue: Any) -> None:
    queue.put_nowait(1)
    queue.put_nowait(2)
    task = asyncio.create_task(queue.join())
    for _ in range(2):
        await settle()
        assert not task.done()
        await queue.get()
        queue.task_done()
    await task
    try:
        queue.task_done()
    except ValueError:
        return
    raise AssertionError("more was done than was put")


async def _serves_getters_in_order(queue: Any) -> None:
    got = []

    async def getter(number: int) -> None:
        got.append((number, await queue.get()))

    tasks = [asyncio.create_task(getter(number)) for number in range(4)]
    await settle()
    for number in range(4):
        queue.put_nowait(number)
    await asyncio.gather(*tasks)
    assert got == [(number, number) for number in range(4)]


async def _loses_no_item(queue: Any, cancel_at: int, put_at: int) -> None:
    got = []

    async def getter() -> None:
        got.append(await queue.get())

    task = asyncio.create_task(getter())
    for step in range(STEPS):
        if step == put_at:
            queue.put_nowait("item")
        if step == cancel_at:
            task.cancel()
        await asyncio.sleep(0)
    await outcome(task)
    if not got:
        got.append(queue.get_nowait())
    assert got == ["item"]
    assert queue.empty()


async def _loses_no_slot(queue: Any, cancel_at: int, get_at: int) -> None:
    queue.put_nowait("first")
    task = asyncio.create_task(queue.put("second"))
    for step in range(STEPS):
        if step == get_at:
            assert queue.get_nowait() == "first"
        if step == cancel_at:
            task.cancel()
        await asyncio.sleep(0)
    if await outcome(task) == "cancelled":
        queue.put_nowait("second")
    assert queue.full()
    assert queue.get_nowait() == "second"
    assert queue.empty()
