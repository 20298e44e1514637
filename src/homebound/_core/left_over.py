"""A report of what has not ended, with stacks, for a wait whose time is over."""

from __future__ import annotations

from _thread import get_ident
from typing import TYPE_CHECKING, Any

from .._aio.shapes import thread_frames
from .._os.stacks import stack, task_stack
from .big_lock import thread_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from threading import Thread

    from .context import AioContext


def left_over(context: AioContext, part: Any = None) -> str:
    """Return lines for the home's thread, the tasks at home except `part`, and the workers.

    Called from: any thread.
    """
    lines: list[str] = []
    home = context._home_ident
    if home is not None and home != get_ident():
        lines += [f"  thread {thread_name(home)}:", *stack(thread_frames().get(home))]
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
