"""A snapshot of a program, as a dict for JSON: the big lock, homes, tasks, threads.

Nothing is stopped for it, so parts may be a moment apart, as in `dump()`.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

from .._aio.shapes import gathered, waits_for
from .._core.big_lock import thread_name
from .._core.context import every_context
from .._core.current import main_context
from .._debug.deadlock import look_twice
from .._debug.descriptions import Moment, describe_task, describe_wait
from .._debug.private_state import (
    big_lock_queue,
    home_thread,
    is_asleep,
    is_closed,
    plain_tasks_at,
    tasks_at,
)
from .._os.stacks import task_stack
from .._sync.waiters import parked
from .._threads.wait_while import waits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._core.context import AioContext

VERSION = 1  # of the layout; a reader refuses another one


def snapshot(*, with_tasks: bool = True) -> dict[str, Any]:
    """Return what the program does now. Its tasks take most of the time.

    Called from: any thread.
    """
    open_ones = [context for context in every_context() if not is_closed(context)]
    contexts = sorted(open_ones, key=lambda context: context.name)
    owner, waiters = big_lock_queue()
    return {
        "homebound": VERSION,
        "pid": os.getpid(),
        "command": sys.orig_argv,
        "python": sys.version.partition(" ")[0],
        "time": time.time(),
        "deadlocks": [str(deadlock) for deadlock in look_twice()] if with_tasks else [],
        "big_lock": {
            "holder": None if owner is None else _name(owner.ident),
            "waiters": [_name(waiter.ident) for waiter in waiters],
        },
        "homes": [_home(context) for context in contexts],
        "tasks": [task for context in contexts if with_tasks for task in _tasks(context)],
        "threads": list(_threads({home_thread(context) for context in contexts})),
    }


def _name(ident: int | None) -> str | None:
    return None if ident is None else thread_name(ident)


def _home(context: AioContext) -> dict[str, Any]:
    ident = home_thread(context)
    stats = context.stats()
    return {
        "name": context.name,
        "main": main_context() is context,
        "thread": _name(ident),
        "state": "not running" if ident is None else "asleep" if is_asleep(context) else "running",
        "tasks": stats.tasks,
        "ready": stats.ready,
        "iterations": stats.iterations,
        "entered": stats.entered,
        "wakeups": stats.wakeups,
        "coalesced": stats.coalesced,
    }


def _tasks(context: AioContext) -> Iterator[dict[str, Any]]:
    moment = Moment(context)
    for task in tasks_at(context):
        yield _task(task, context, "homebound", _brief(describe_task(task, moment)))
    for plain in plain_tasks_at(context):
        awaited = waits_for(plain)
        does = "ready or running" if awaited is None else f"waits for {_kind(awaited)}"
        yield _task(plain, context, "asyncio", does)


def _brief(text: str) -> str:
    """Return a description without its advice, which a dump has room for."""
    return text.partition(": holders are recorded")[0]


def _kind(awaited: Any) -> str:
    name = getattr(awaited, "get_name", None)
    return "a future" if name is None else f"task {name()!r}"


def _task(task: Any, context: AioContext, kind: str, does: str) -> dict[str, Any]:
    coro = task.get_coro()
    return {
        "id": id(task),
        "name": task.get_name(),
        "home": context.name,
        "kind": kind,
        "coroutine": getattr(coro, "__qualname__", type(coro).__qualname__),
        "does": does,
        "awaits": [id(each) for each in _awaited_tasks(task)],
        "stack": [line.strip() for line in task_stack(task)],
    }


def _awaited_tasks(task: Any) -> Iterator[Any]:
    """Return the tasks that a task awaits, one by itself or several in a gather."""
    awaited = waits_for(task)
    for each in gathered(awaited) or [awaited]:
        if hasattr(each, "get_coro") and not each.done():
            yield each


def _threads(homes: set[int | None]) -> Iterator[dict[str, Any]]:
    """Return the threads that wait, but for those that are homes."""
    for ident, calls in waits().items():
        if ident not in homes:
            yield {"name": _name(ident), "does": f"waits in {calls[-1]!r}"}
    for ident, waiter in parked.copy().items():
        yield {"name": _name(ident), "does": _brief(describe_wait(waiter))}
