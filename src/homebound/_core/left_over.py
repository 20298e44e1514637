"""The tasks that have not ended, and a report with stacks for a wait whose time is over."""

from __future__ import annotations

import asyncio
from _thread import get_ident
from typing import TYPE_CHECKING, Any

from .._aio.generators import Suspects
from .._aio.shapes import thread_frames
from .._aio.tasks import unfinished
from .._os.stacks import stack, task_stack
from .big_lock import shown_thread
from .context import every_context
from .task import Task

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from threading import Thread

    from .context import AioContext


def every_task() -> set[Task[Any]]:
    """Return the unfinished tasks that have begun or are about to, at every home.

    A task that is done may still be among them for a moment. Called from: any thread.
    """
    found = set(unfinished(Task))
    for context in every_context():
        found.update(context._resting.copy())
    return found


def tasks_that_may_iterate(context: AioContext) -> Iterator[tuple[Any, AioContext]]:
    """Yield the unfinished tasks but the running one, and their homes: those of a context first.

    Tasks of attached loops count, too.

    Called from: the context's home, in a task.
    """
    me = asyncio.current_task()
    for task in asyncio.all_tasks(context.loop):
        if task is not me:
            yield task, context
    for task in every_task():
        home = task._home
        if home is not None and home is not context and not (home._closed or task.done()):
            yield task, home
    for home in every_context():
        if home._is_guest and home is not context and not (home._closed or home.loop.is_closed()):
            for each in asyncio.all_tasks(home.loop):
                if not isinstance(each, Task):
                    yield each, home


Suspects.tasks = tasks_that_may_iterate


def left_over(context: AioContext, part: Any = None) -> str:
    """Return lines for the home's thread, the tasks at home except `part`, and the workers.

    Called from: any thread.
    """
    lines: list[str] = []
    home = context._home_ident
    if home is not None and home != get_ident():
        lines += [f"  thread {shown_thread(home)}:", *stack(thread_frames().get(home))]
    for task in context._tasks():
        if task is not part:
            lines += [f"  task {task.get_name()!r}:", *task_stack(task)]
    if context.workers is not None:
        lines += _of_threads(context.workers._threads.copy())
    return "".join(f"\n{line}" for line in lines)


def threads_left_over(threads: Iterable[Thread]) -> str:
    """Return lines for threads. Called from: any thread."""
    return "".join(f"\n{line}" for line in _of_threads(threads))


def _of_threads(threads: Iterable[Thread]) -> Iterator[str]:
    frames = thread_frames()
    for thread in threads:
        yield f"  thread {thread.name!r}:"
        yield from stack(frames.get(thread.ident or 0))
