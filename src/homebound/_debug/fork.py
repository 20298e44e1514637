"""What a forked process does with its parent's contexts: it has their memory, not their threads.

Only the thread that forked lives on. It runs none of the parent's tasks, and touches none of the
parent's kernel objects: an epoll is shared, so taking a descriptor out of it here would take it out
there. Closing our copy of a descriptor is no matter to the parent.

The big lock, the parkers and the current context are reset where they are kept, before this.
"""

from __future__ import annotations

import _thread
import os
import threading
from collections import deque
from itertools import repeat
from typing import TYPE_CHECKING, Any

from .._aio.tasks import leave_if_entered, let_die, running_loop, set_running_loop, unfinished
from .._core import context as contexts
from .._core.bell import CLOSED
from .._core.loop_context import LoopContext
from .._core.pursuit import pursuing
from .._core.task import Task
from .._sync import waiters
from .._threads import io_thread, wait_while
from .._workers import pool as pools

if TYPE_CHECKING:
    from .._core.context import AioContext
    from .._core.loop import Loop

# The parent's unfinished tasks. Nobody sees them here any more, but they are kept: dropped, their
# coroutines would be closed, and do the parent's cleanup in the child.
_left: list[Task[Any]] = []


def _begin_as_child() -> None:
    _left.extend(unfinished(Task))
    for task in _left:
        let_die(task)
    wait_while._waiting.clear()
    wait_while._waits.clear()
    waiters.parked.clear()
    pursuing.clear()
    for thread in tuple(io_thread._running):
        thread._ended = True
    io_thread._running.clear()  # nothing to stop at exit
    for pool in tuple(pools._pools):
        _begin_pool(pool)
    for context in contexts.every_context():
        if not context._closed:
            _end(context)


def _begin_pool(pool: pools.WorkerPool) -> None:
    """It has no workers and no jobs, as at its beginning."""
    pool._lock = _thread.RLock()
    pool._threads = set()
    pool._going = []
    pool._idle = deque()
    pool._jobs = deque()
    pool._searching = pool._watched = False
    pool._when_empty = []


def _end(context: AioContext) -> None:
    context._forked = context._closed = True
    context._closing.acquire(blocking=False)  # there is nobody left to tell
    context._home_ident = None
    context._bell = CLOSED
    # New ones: a thread of the parent's may have been at work on the old.
    context._ready = deque()
    context._watchers = []
    context._far_waits = set()
    # If the fork was made by a task of this context: nothing runs after it here.
    context._leave_task = leave_if_entered
    context._woken.clear()
    context._stand_in.lent = False
    if isinstance(context, LoopContext):
        if context._key.acquire(blocking=False):  # it was free, or is ours: we were home
            context._key.release()
        else:
            context._key = threading.RLock()
        _end_loop(context.loop, context._ready)


def _end_loop(loop: Loop, mailbox: deque[Any]) -> None:
    """Close it without a word to the kernel objects that it shares with the parent's."""
    if running_loop() is loop:
        set_running_loop(None)
    for _ in loop._batch:
        pass  # if we are in it, it ends with this entry
    loop._batch = repeat((), 0)
    loop.home._signal = None  # type: ignore[assignment]
    loop.close_in_child(mailbox)
    # Asked to end its tasks and generators, as Runner does on the way out, it has none; and what
    # becomes of the parent's tasks is told there.
    loop.run_until_complete = _run_nothing  # type: ignore[assignment, method-assign]
    loop.call_exception_handler = _say_nothing  # type: ignore[assignment, method-assign]


def _run_nothing(future: Any) -> None:
    close = getattr(future, "close", None)
    if close is not None:
        close()


def _say_nothing(_context: dict[str, Any]) -> None:
    pass


os.register_at_fork(after_in_child=_begin_as_child)
