"""The refusal of a synchronous wait for a lock that a task of the thread's own foreign loop holds.

A thread that runs a foreign loop sleeps in such a wait, and the loop stands still. That does no
harm while another thread holds the lock, but a task of that loop could never release it.

A lock does not know its holder (holders.py). But a suspended coroutine refers to the `__aexit__` of
each block that it is in, and the loop's tasks cannot run meanwhile, so the waiting thread looks at
them: first after a tenth of a second, so that no short wait pays for it, then ever more rarely. Not
found are holders without an `async with`, and the running task; `watch_stalls` reports that one.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from .._aio.entered import awaited_coroutines, entered
from .._core.context import whereabouts
from .._errors import WouldDeadlock
from .waiters import FutureWaiter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .wait_queue import WaitQueue


_FIRST_LOOK = 0.1  # seconds


def looks(queue: WaitQueue, want: Any, loop: asyncio.AbstractEventLoop) -> Iterator[float]:
    """Yield the seconds until each look in turn. Raises WouldDeadlock once a look finds a holder.

    Called from: the thread that waits, which runs `loop`.
    """
    pause = _FIRST_LOOK
    while True:
        yield pause
        pause *= 2
        running = asyncio.current_task(loop)
        for task in asyncio.all_tasks(loop):
            if task is not running and _holds(task, queue, want):
                raise WouldDeadlock(_refusal(queue, task))


def _holds(task: asyncio.Task[Any], queue: WaitQueue, want: Any) -> bool:
    """Return whether a suspended task keeps a waiter for `want` out."""
    managers: list[object] = []
    for coroutine in awaited_coroutines(task):
        waiter = coroutine.cr_frame.f_locals.get("waiter")  # type: ignore[union-attr]  # suspended
        if isinstance(waiter, FutureWaiter):  # it is in WaitQueue._wait_elsewhere
            if waiter.queue is queue:  # if granted, the task has not run since
                return waiter.granted and queue._keeps_out(waiter.want, want)
            if getattr(waiter.queue, "_lock", None) is queue:
                return False  # Condition.wait has released it
        managers += entered(coroutine)
    return any(queue._held_inside(each, want) for each in managers)


def _refusal(queue: WaitQueue, task: asyncio.Task[Any]) -> str:
    return (
        f"a synchronous wait for {queue!r} would never end: it stops the loop that this thread "
        f"runs, and task {task.get_name()!r} of that loop holds the lock. Use `async with` or "
        "`await` in coroutines of that loop, or have homebound.run(main()) run it: that loop "
        f"keeps running meanwhile. Called in {whereabouts()}"
    )
