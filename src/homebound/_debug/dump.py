"""dump(): what all contexts, tasks and threads do, what each waits for, and the big lock's holder.

It stops nothing, so that it works when the program hangs: other threads go on meanwhile, and parts
of the picture may be a moment apart.
"""

from __future__ import annotations

import signal
import sys
from os import PathLike
from typing import TYPE_CHECKING

from .._aio.shapes import thread_frames
from .._core.big_lock import shown_thread
from .._core.context import every_context
from .._core.current import main_context
from .._os.stacks import stack, task_stack
from .._sync.waiters import foreign_waits, parked
from .._threads.wait_while import waits
from .deadlock import look_twice
from .descriptions import Moment, describe_task, describe_wait
from .private_state import (
    big_lock_queue,
    home_thread,
    is_asleep,
    is_closed,
    tasks_at,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType
    from typing import TextIO

    from .._core.context import AioContext
    from .._threads.wait_while import Waiting


def dump(file: TextIO | None = None) -> None:
    """Print what every context, task and waiting thread is doing, with stacks.

    Deadlocks come first, each with what all tasks and threads in it wait for. The holders of a lock
    are known only while `watch_stalls` watches, and only of locks acquired meanwhile. Prints to
    `file`, by default standard error. Made for the moment when a program hangs: it acquires no lock
    that could make it hang too.

    >>> import homebound, sys
    >>> async def main():
    ...     homebound.dump(sys.stdout)
    >>> homebound.run(main())  # doctest: +ELLIPSIS
    big lock: held by thread 'MainThread', no thread waits
    ...context 'main' (main), home thread 'MainThread', running...

    Called from: any thread.
    """
    if isinstance(file, (str, PathLike)):
        message = f"dump takes an open file, not the path {file!r}: dump(open(path, 'w'))"
        raise TypeError(message)
    if file is not None and not hasattr(file, "write"):
        message = f"dump takes an open file, not {file!r}; without one it prints to standard error"
        raise TypeError(message)
    text = "\n".join(describe()) + "\n"
    (sys.stderr if file is None else file).write(text)


def dump_on(number: int) -> Callable[[], None]:
    """Call `dump()` whenever the process gets signal `number`; returns a callable to undo that.

    Raises ValueError outside the main thread of the process, as signal.signal does.

    >>> import homebound, signal
    >>> undo = homebound.dump_on(signal.SIGUSR1)
    >>> undo()

    Called from: any thread.
    """
    if not isinstance(number, int):
        message = f"dump_on takes a signal's number, as signal.SIGUSR1 is, not {number!r}"
        raise TypeError(message)
    try:
        before = signal.signal(number, lambda _number, _frame: dump())
    except (ValueError, OSError) as error:
        error.add_note(
            f"dump_on({number!r}): call it in the process's main thread, for a signal that a "
            "program can handle, as signal.SIGUSR1"
        )
        raise

    def undo() -> None:
        signal.signal(number, before)

    return undo


def describe() -> Iterator[str]:
    """Return the lines of a dump."""
    frames = thread_frames()
    for deadlock in look_twice():
        yield str(deadlock)
    yield from _describe_big_lock()
    homes = set()
    calls = waits()
    for context in sorted(every_context(), key=lambda each: each.name):
        if is_closed(context):
            continue
        homes.add(home_thread(context))
        yield from _describe_context(context, frames, calls)
    for ident, mine in calls.items():
        if ident not in homes:
            for call in mine:
                yield f"thread {shown_thread(ident)} waits in {call!r}"
            yield from stack(frames.get(ident))
    for ident, waiter in parked.copy().items():
        yield f"thread {shown_thread(ident)} {describe_wait(waiter)}"
        yield from stack(frames.get(ident))
    for task, far in foreign_waits.copy().items():
        if not far.granted and not far.left:
            yield f"task {task.get_name()!r} of {far.loop!r} {describe_wait(far)}"


def _describe_big_lock() -> Iterator[str]:
    owner, waiters = big_lock_queue()
    held = "free" if owner is None else f"held by thread {shown_thread(owner.ident)}"
    queue = [shown_thread(waiter.ident) for waiter in waiters]
    waiting = f"threads waiting in this order: {', '.join(queue)}" if queue else "no thread waits"
    yield f"big lock: {held}, {waiting}"


def _describe_context(
    context: AioContext, frames: dict[int, FrameType], calls: dict[int, list[Waiting]]
) -> Iterator[str]:
    ident = home_thread(context)
    state = "not running" if ident is None else "asleep" if is_asleep(context) else "running"
    home = "no home thread" if ident is None else f"home thread {shown_thread(ident)}"
    is_main = " (main)" if main_context() is context else ""
    moment = Moment(context)
    ready = len(moment.ready)
    yield f"context {context.name!r}{is_main}, {home}, {state}, {ready} entries ready"
    for call in calls.get(ident, ()):  # type: ignore[arg-type]
        yield f"  its home waits in {call!r}"
    if ident is not None and state == "running":
        yield from stack(frames.get(ident))
    for task in tasks_at(context):
        yield f"  task {task.get_name()!r}: {describe_task(task, moment)}"
        yield from task_stack(task)
