"""What everybody is doing: contexts, tasks, what each waits for, who holds the big lock.

Looks without stopping anything, so that it works when the program hangs: other threads go on
meanwhile, and the picture may be a moment old in one place and not in another.
"""

from __future__ import annotations

import signal
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any

from ._biglock import big_lock, thread_name
from ._context import AioContext, every_context
from ._current import main
from ._wait import waits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType
    from typing import TextIO

    from ._task import Task


def dump(file: TextIO | None = None) -> None:
    """Print what every context, task and waiting thread is doing, with stacks.

    `file` is where to, by default standard error. For the moment when a program hangs: it takes no
    lock that could make it hang as well.

    >>> import homebound, sys
    >>> async def main():
    ...     homebound.dump(sys.stdout)
    >>> homebound.run(main())  # doctest: +ELLIPSIS
    big lock: held by thread 'MainThread', nobody waits
    ...context 'main' (main), home thread 'MainThread', running...

    Called from: any thread.
    """
    text = "\n".join(describe()) + "\n"
    (sys.stderr if file is None else file).write(text)


def dump_on(number: int) -> Callable[[], None]:
    """`dump()` to standard error whenever the process gets signal `number`; returns what undoes it.

    Raises ValueError outside the main thread of the process, as signal.signal does.

    >>> import homebound, signal
    >>> undo = homebound.dump_on(signal.SIGUSR1)
    >>> undo()

    Called from: any thread.
    """
    before = signal.signal(number, lambda _number, _frame: dump())

    def undo() -> None:
        signal.signal(number, before)

    return undo


def describe() -> Iterator[str]:
    """The lines of a dump."""
    frames = sys._current_frames()
    yield from _describe_big_lock()
    homes = set()
    for context in sorted(every_context(), key=lambda each: each.name):
        if context._closed:
            continue
        homes.add(_home_thread(context))
        yield from _describe_context(context, frames)
    for ident, what, subject in waits():
        if ident not in homes:
            yield f"thread {thread_name(ident)} waits in {what}({subject!r})"
            yield from _stack(frames.get(ident))


def _home_thread(context: AioContext) -> int | None:
    """Its ident. A loop of somebody else's does not tell when it stops; idents are used again."""
    if context._is_guest and not context.loop.is_running():
        return None
    return context._home_ident


def _describe_big_lock() -> Iterator[str]:
    owner = big_lock._owner
    held = "free" if owner is None else f"held by thread {thread_name(owner)}"
    queue = [thread_name(waiter.ident) for waiter in tuple(big_lock._waiters)]
    waiting = f"threads waiting in this order: {', '.join(queue)}" if queue else "nobody waits"
    yield f"big lock: {held}, {waiting}"


def _describe_context(context: AioContext, frames: dict[int, FrameType]) -> Iterator[str]:
    ident = _home_thread(context)
    state = "not running" if ident is None else "asleep" if context._bell else "running"
    home = "no home thread" if ident is None else f"home thread {thread_name(ident)}"
    is_main = " (main)" if main.context is context else ""
    ready = len(context._ready)
    yield f"context {context.name!r}{is_main}, {home}, {state}, {ready} entries ready"
    for waiting, what, subject in waits():
        if waiting == ident:
            yield f"  its home waits in {what}({subject!r})"
    if ident is not None and state == "running":
        yield from _stack(frames.get(ident))
    for task in context._tasks():
        yield f"  task {task.get_name()!r}: {_doing(task)}"
        yield from _task_stack(task)


def _doing(task: Task[Any]) -> str:
    waiter = task._fut_waiter
    if waiter is not None:
        return f"waits for {waiter!r}"
    if task in tuple(task._home._ready):  # type: ignore[union-attr]
        return "ready"
    return "suspended" if task._parked else "running"


def _task_stack(task: Task[Any]) -> Iterator[str]:
    """Where the coroutine stands, and those that it awaits in turn."""
    coro: Any = task.get_coro()
    for _ in range(100):
        frame = getattr(coro, "cr_frame", None) or getattr(coro, "gi_frame", None)
        if frame is None:
            return
        code = frame.f_code
        yield f'    File "{code.co_filename}", line {frame.f_lineno}, in {code.co_qualname}'
        coro = getattr(coro, "cr_await", None) or getattr(coro, "gi_yieldfrom", None)


def _stack(frame: FrameType | None) -> Iterator[str]:
    """The stack of a thread, innermost call last, without what is threading's own."""
    if frame is None:
        return
    for line in traceback.format_list(traceback.extract_stack(frame)):
        if threading.__file__ not in line:
            yield from ("    " + each for each in line.rstrip().splitlines())
