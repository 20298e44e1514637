"""asyncio's books about tasks: which are unfinished, which one runs, and what its loop is.

One of the files that know asyncio's private names; see loop.py.

An unfinished task of ours must be in a collection that `asyncio.all_tasks` reads, and something
must keep it alive. Each Python has one strong set that does both, for about the price of a set's
`add` and `discard`:

* 3.11 has a WeakSet alone, which costs half a task to enter and leave. The set inside it takes the
  task itself, where the WeakSet keeps its weak references: iterating, it calls each entry for the
  object, and a Task answers as a reference to itself (Task.__call__).
* 3.12 and 3.13 have a strong set for tasks in their first, eager step.
* 3.14 has that set inside its C module: `_register_eager_task` is the way in, and `all_tasks` the
  only way to read it. Without a GIL that read fails if another thread registers a task meanwhile.
  There we use the WeakSet, which is read through a copy, and keep the tasks in a set of our own.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from asyncio import base_tasks, events, futures, tasks
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

running_loop: Callable[[], asyncio.AbstractEventLoop | None] = events._get_running_loop
set_running_loop: Callable[[Any], None] = events._set_running_loop

# Since 3.14 these two raise unless `loop` is the calling thread's running loop.
enter_task: Callable[[Any, Any], None] = tasks._enter_task
leave_task: Callable[[Any, Any], None] = tasks._leave_task

# The task that the calling thread's running loop runs, or None. Never asked for another loop: since
# 3.14 that stops every thread of a free-threaded build.
running_task: Callable[[Any], Any]
if sys.version_info >= (3, 12):
    running_task = asyncio.current_task
else:
    running_task = tasks._current_tasks.get  # type: ignore[attr-defined]

# A task that ends in its first, eager step has no coroutine any more; 3.11 cannot describe such.
FORGETS_EAGER = sys.version_info >= (3, 12)


def task_here(loop: Any) -> Any:
    """The task, of any make, that the calling thread runs on `loop`; None if it runs none there."""
    return running_task(loop) if running_loop() is loop else None


# `task_here`, if the calling thread is the loop's home, or stands in for a home that runs no task:
# then no other thread's task can be the answer. One C call less for each wake-up at home.
running_here: Callable[[Any], Any] = running_task
if sys.version_info >= (3, 14) and "t" in sys.abiflags:
    running_here = task_here


def leave_if_entered(loop: Any, task: Any) -> None:
    """`leave_task`, in a forked process: since 3.14 that has entered none of its parent's tasks."""
    if task_here(loop) is task:
        leave_task(loop, task)


def be_lost_quietly(task: Any) -> None:
    """Have asyncio say nothing if the task is collected before it is done."""
    task._log_destroy_pending = False


describe_task: Callable[[Any], str] = base_tasks._task_repr
task_stack: Callable[[Any, int | None], list[Any]] = base_tasks._task_get_stack
print_task_stack: Callable[[Any, int | None, Any], None] = base_tasks._task_print_stack


def context_in_use(error: RuntimeError) -> bool:
    """Context.run says so of a Context that is entered already, here or in another thread."""
    return str(error).startswith("cannot enter context")


# The unfinished tasks.

keep_alive: Callable[[Any], None]  # a task has begun, or stands in a mailbox. Any thread
let_die: Callable[[Any], None]  # it is done. Any thread
_copy: Callable[[], Any]  # all that are kept alive, others' too. Any thread


class _Everywhere:
    """A loop for which `all_tasks` finds every task of ours, whatever its home."""


class _Asking(threading.local):
    """For what the calling thread asks tasks for their loop."""

    everywhere = False  # to find them all: see `_list_everywhere`
    to_await: Any = None  # the task that asyncio's C code is about to await


_everywhere = _Everywhere()
_asking = _Asking()


def _list_everywhere() -> set[Any]:
    """Read asyncio's set where only `all_tasks` can."""
    _asking.everywhere = True
    try:
        return asyncio.all_tasks(_everywhere)  # type: ignore[arg-type]
    finally:
        _asking.everywhere = False


class _Steady(set[Any]):
    """A set that other threads may change while it is iterated."""

    def __iter__(self) -> Iterator[Any]:
        return iter(self.copy())


if sys.version_info < (3, 12):
    _all: Any = tasks._all_tasks  # type: ignore[attr-defined]
    _all.data = _Steady(_all.data)
    keep_alive, let_die, _copy = _all.data.add, _all.data.discard, _all.data.copy
elif sys.version_info < (3, 14):
    _eager: set[Any] = tasks._eager_tasks  # type: ignore[attr-defined]
    keep_alive, let_die, _copy = _eager.add, _eager.discard, _eager.copy
elif "t" not in getattr(sys, "abiflags", ""):
    keep_alive, let_die = tasks._register_eager_task, tasks._unregister_eager_task
    _copy = _list_everywhere
else:
    _ours: set[Any] = set()

    def keep_alive(task: Any) -> None:
        _ours.add(task)
        tasks._register_task(task)

    def let_die(task: Any) -> None:
        _ours.discard(task)
        tasks._unregister_task(task)

    _copy = _ours.copy


def unfinished(kind: type[Any]) -> list[Any]:
    """The tasks of ours, instances of `kind`, that are kept alive. Called from: any thread.

    One that is done may still be among them for a moment.
    """
    return [task for task in _copy() if isinstance(task, kind)]


# Who asks for a task's loop. A task can be awaited on every loop, so to asyncio's functions that
# insist on futures of one loop (gather, wait, shield, wait_for) it has the loop that runs there;
# and so it has to asyncio's own Task, in C. To all_tasks, and to anyone else, it has its home's.

_GET_LOOP = futures._get_loop.__code__  # type: ignore[attr-defined]
_IS_FUTURE = asyncio.isfuture.__code__


def _codes_of(function: Any) -> set[Any]:
    """The code of a function and of its comprehensions; nothing for one that is written in C."""
    code = getattr(function, "__code__", None)
    return set() if code is None else {code, *code.co_consts}


_LISTING = _codes_of(asyncio.all_tasks)


def _looked_at(task: Any) -> bool:
    """The value of a task's `_asyncio_future_blocking`: a look at it precedes each await in C."""
    if sys._getframe(1).f_code is not _IS_FUTURE:
        _asking.to_await = task
    return True


# asyncio's Future says "I am being awaited" by a flag in itself, so two threads that await one at
# the same time trip over each other. A task is awaited from anywhere: the flag is always up.
always_awaited = property(_looked_at, lambda _task, _value: None)


def loop_for_caller(task: Any, home_loop: Any) -> Any:
    """The answer to `task.get_loop()`, which alone may call this; `home_loop` is its home's."""
    asking = _asking
    if asking.everywhere:
        return _everywhere
    to_await, asking.to_await = asking.to_await, None
    caller: Any = sys._getframe(2)
    if caller.f_code is _GET_LOOP:
        awaits = caller.f_back.f_code not in _LISTING
    else:
        awaits = to_await is task
    return (running_loop() if awaits else None) or home_loop


# asyncio's own block managers are called back for the task that entered them: what is called, and
# where in its object that task stands.
ON_BEHALF: dict[Any, str] = {
    asyncio.Timeout._on_timeout: "_task",  # type: ignore[attr-defined]
    asyncio.TaskGroup._on_task_done: "_parent_task",
}


class ParentsLoop:
    """What an asyncio.TaskGroup then takes for its loop: that where its parent is.

    The group keeps the loop that it was entered on, and at its end waits for a future of that,
    which it sets when the last child ends: in the thread of its parent, which may have moved.
    """

    __slots__ = ("_parent",)

    def __init__(self, parent: Any) -> None:
        self._parent = parent

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parent._loop, name)

    @classmethod
    def follow(cls, group: Any, parent: Any) -> None:
        """Have the group follow its parent from now on."""
        if type(group._loop) is not cls:
            group._loop = cls(parent)
