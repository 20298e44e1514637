"""asyncio's records of tasks: the unfinished ones, the running one, and the loop of each.

An unfinished task of ours must be in a collection that `asyncio.all_tasks` reads, and something
must keep it alive. Each Python has one strong set that does both, for about the price of a set's
`add` and `discard`:

* 3.11 has only a WeakSet, whose `add` and `discard` cost half as much as a task. We put the task
  itself into the set inside, where the WeakSet keeps its weak references: iterated, the WeakSet
  calls each entry for its object, and a Task answers like a reference to itself (Task.__call__).
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
from types import FunctionType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

running_loop: Callable[[], asyncio.AbstractEventLoop | None] = events._get_running_loop
set_running_loop: Callable[[Any], None] = events._set_running_loop

# Since 3.14 these two raise unless `loop` is the calling thread's running loop.
enter_task: Callable[[Any, Any], None] = tasks._enter_task
leave_task: Callable[[Any, Any], None] = tasks._leave_task

# Returns the task that the calling thread's running loop runs, or None. Never called for another
# loop: since 3.14 that stops every thread of a free-threaded build.
running_task: Callable[[Any], Any]
if sys.version_info >= (3, 12):
    running_task = asyncio.current_task
else:
    running_task = tasks._current_tasks.get  # type: ignore[attr-defined]

FREE_THREADED = "t" in getattr(sys, "abiflags", "")  # a build without a GIL

# A task that ended in its first, eager step has no coroutine left; 3.11 cannot describe such a
# task.
FORGETS_EAGER = sys.version_info >= (3, 12)


def task_here(loop: Any) -> Any:
    """Return the task, of any kind, that the calling thread runs on `loop`, or None."""
    return running_task(loop) if running_loop() is loop else None


# As `task_here`, for a calling thread that is the loop's home, or stands in for a home that runs no
# task: no other thread's task can be the answer then. It saves a C call in each wake-up at home.
running_here: Callable[[Any], Any] = running_task
if sys.version_info >= (3, 14) and FREE_THREADED:
    running_here = task_here


def leave_if_entered(loop: Any, task: Any) -> None:
    """Call `leave_task` if the calling thread runs the task.

    That is not known in a forked child, which since 3.14 has entered no task of its parent, nor
    after an exception has cut a step short.
    """
    if task_here(loop) is task:
        leave_task(loop, task)


def be_lost_quietly(task: Any) -> None:
    """Have asyncio say nothing if the task is collected before it is done."""
    task._log_destroy_pending = False


def report_lost(task: Any, loop: Any) -> None:
    """Report a task that is collected with its loop before it is done, as asyncio's own does."""
    if getattr(task, "_log_destroy_pending", True):
        about = {"task": task, "message": "Task was destroyed but it is pending!"}
        if task._source_traceback:
            about["source_traceback"] = task._source_traceback
        loop.call_exception_handler(about)


describe_task: Callable[[Any], str] = base_tasks._task_repr
task_stack: Callable[[Any, int | None], list[Any]] = base_tasks._task_get_stack
print_task_stack: Callable[[Any, int | None, Any], None] = base_tasks._task_print_stack


def context_in_use(error: RuntimeError) -> bool:
    """Return whether Context.run raised because the Context is entered already, in any thread."""
    return str(error).startswith("cannot enter context")


# The unfinished tasks.

keep_alive: Callable[[Any], None]  # for a task that begins, or is put in a mailbox. Any thread
let_die: Callable[[Any], None]  # for a task that is done. Any thread
# For a task that its home keeps alive from now on; `all_tasks` finds it, by a weak reference. Any
# thread. A task that was kept alive again and is done may stay among these: it is not listed.
let_rest: Callable[[Any], None]
_copy: Callable[[], Any]  # returns all that are kept alive, asyncio's too. Any thread


class _Everywhere:
    """A stand-in for a loop for which `all_tasks` finds every task of ours, whatever its home."""


class _Asking(threading.local):
    """The purpose for which the calling thread asks tasks for their loop."""

    everywhere = False  # to find them all: see `_list_everywhere`
    to_await: Any = None  # the task that asyncio's C code is about to await


_everywhere = _Everywhere()
_asking = _Asking()


def _list_everywhere() -> set[Any]:
    """Return the tasks in asyncio's set, where only `all_tasks` can read it."""
    _asking.everywhere = True
    try:
        return asyncio.all_tasks(_everywhere)  # type: ignore[arg-type]
    finally:
        _asking.everywhere = False


class _Steady(set[Any]):
    """A set that other threads may change while it is iterated."""

    def __iter__(self) -> Iterator[Any]:
        return self.copy().__iter__()

    # Without this module's globals. 3.11's `_asyncio` holds the set where no garbage collector
    # looks, and is released at the end of its interpreter only if the set does not lead back to it;
    # the next subinterpreter to import asyncio would otherwise get the ended one's set of tasks.
    __iter__ = FunctionType(__iter__.__code__, {"__builtins__": {}})


if sys.version_info < (3, 12):
    _all: Any = tasks._all_tasks  # type: ignore[attr-defined]
    _all.data = _Steady(_all.data)
    keep_alive, let_die, _copy = _all.data.add, _all.data.discard, _all.data.copy
elif sys.version_info < (3, 14):
    _eager: set[Any] = tasks._eager_tasks  # type: ignore[attr-defined]
    keep_alive, let_die, _copy = _eager.add, _eager.discard, _eager.copy
elif not FREE_THREADED:
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

if sys.version_info < (3, 14) or not FREE_THREADED:

    def let_rest(task: Any) -> None:
        tasks._register_task(task)
        let_die(task)
else:
    let_rest = _ours.discard  # it is in the WeakSet from the beginning


def unfinished(kind: type[Any]) -> list[Any]:
    """Return our tasks, instances of `kind`, that are kept alive. Called from: any thread.

    A task that is done may still be among them for a moment; those that rest are, or are not.
    """
    return [task for task in _copy() if isinstance(task, kind)]


# In a forked process, the unfinished tasks of its parent. They are kept: dropping them would close
# their coroutines, which would do the parent's cleanup in the child.
_parents: list[Any] = []


def strike_out(ours: list[Any]) -> None:
    """Remove these unfinished tasks in a forked process: they are its parent's."""
    _parents.extend(ours)
    for task in ours:
        let_die(task)
        tasks._unregister_task(task)


# The answer to a task's get_loop() depends on the caller. A task can be awaited on any loop, so
# asyncio's functions that insist on futures of one loop (gather, wait, shield, wait_for), and
# asyncio's own Task in C, get the loop that runs in the calling thread. all_tasks and any other
# caller get the home's.

_GET_LOOP = futures._get_loop.__code__  # type: ignore[attr-defined]
_IS_FUTURE = asyncio.isfuture.__code__


def _codes_of(function: Any) -> set[Any]:
    """Return the code of a function and of its comprehensions; nothing for a function in C."""
    code = getattr(function, "__code__", None)
    return set() if code is None else {code, *code.co_consts}


_LISTING = _codes_of(asyncio.all_tasks)


def _looked_at(task: Any) -> bool:
    """Return a task's `_asyncio_future_blocking`, which C code reads before each await."""
    if sys._getframe(1).f_code is not _IS_FUTURE:
        _asking.to_await = task
    return True


# asyncio marks a future as awaited by a flag in the future itself, so two threads that await one at
# the same time overwrite each other's mark. Any thread may await a task, so its flag is always up.
always_awaited = property(_looked_at, lambda _task, _value: None)


def loop_for_caller(task: Any, home_loop: Any) -> Any:
    """Return the answer to `task.get_loop()`, the only caller; `home_loop` is its home's loop."""
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


# asyncio's timeout and TaskGroup are called back for the task that entered them: the function that
# is called, and the attribute of its object that holds the task.
ON_BEHALF: dict[Any, str] = {
    asyncio.Timeout._on_timeout: "_task",  # type: ignore[attr-defined]
    asyncio.TaskGroup._on_task_done: "_parent_task",
}


class ParentsLoop:
    """The loop that an asyncio.TaskGroup uses once its parent may move: the parent's own.

    The group keeps the loop on which it was entered, and at its end waits for a future of that
    loop, completed when the last child ends. The parent may be in another thread by then.
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
