"""Coroutines with a home: one event loop per thread, every task at home in one of them.

Names for looking at a running program (`dump`, `watch_stalls`, `ContextStats`) are loaded when they
are first used. All others are loaded at once: a first use may be in a process that is out of
descriptors, in a signal handler or in a finaliser, where an import can fail or wait.
"""

from importlib import import_module as _import_module
from os import environ as _environ
from typing import TYPE_CHECKING

from ._core.big_lock import BigLock as BigLock
from ._core.big_lock import big_lock as big_lock
from ._core.context import AioContext as AioContext
from ._core.current import current_context as current_context
from ._core.current import main_context as main_context
from ._core.entries import BottomHalf as BottomHalf
from ._core.loop import Loop as _Loop
from ._core.places import create_task as create_task
from ._core.places import running_context as running_context
from ._core.task import Task as Task
from ._core.task_group import TaskGroup as TaskGroup
from ._core.traps import current_task as current_task
from ._core.traps import move_to as move_to
from ._core.traps import on as on
from ._core.traps import suspend as suspend
from ._errors import AlreadyScheduled as AlreadyScheduled
from ._errors import ContextClosed as ContextClosed
from ._errors import ContextError as ContextError
from ._errors import NotSuspended as NotSuspended
from ._errors import WouldDeadlock as WouldDeadlock
from ._errors import WrongThread as WrongThread
from ._os.public_names import listed as _listed
from ._os.public_names import loaded_later as _loaded_later
from ._os.public_names import publish as _publish
from ._sync.barrier import Barrier as Barrier
from ._sync.condition import Condition as Condition
from ._sync.event import Event as Event
from ._sync.lock import Lock as Lock
from ._sync.ordered_queues import LifoQueue as LifoQueue
from ._sync.ordered_queues import PriorityQueue as PriorityQueue
from ._sync.queue_ends import QueueShutDown as QueueShutDown
from ._sync.queues import Queue as Queue
from ._sync.rw_lock import RWLock as RWLock
from ._sync.semaphore import BoundedSemaphore as BoundedSemaphore
from ._sync.semaphore import Semaphore as Semaphore
from ._threads.background import Background as Background
from ._threads.block_on import block_on as block_on
from ._threads.io_thread import IOThread as IOThread
from ._threads.io_thread_pool import IOThreadPool as IOThreadPool
from ._threads.run import new_event_loop as new_event_loop
from ._threads.run import run as run
from ._threads.wait_while import kick as kick
from ._threads.wait_while import wait_while as wait_while
from ._vcpu.vcpu import VCPU as VCPU
from ._workers.pool import WorkerPool as WorkerPool
from ._workers.run_in import run_in as run_in
from ._workers.to_worker import to_worker as to_worker

if TYPE_CHECKING:
    from ._core.context_stats import ContextStats as ContextStats
    from ._debug.dump import dump as dump
    from ._debug.dump import dump_on as dump_on
    from ._debug.stall import Stall as Stall
    from ._debug.stall import StallWatch as StallWatch
    from ._debug.stall import watch_stalls as watch_stalls

__version__ = "0.1.0"

# Where the other names are: the imports above are for type checkers.
_LATER = {
    "ContextStats": "_core.context_stats",
    "Stall": "_debug.stall",
    "StallWatch": "_debug.stall",
    "dump": "_debug.dump",
    "dump_on": "_debug.dump",
    "watch_stalls": "_debug.stall",
}

__all__ = (
    "VCPU",
    "AioContext",
    "AlreadyScheduled",
    "Background",
    "Barrier",
    "BigLock",
    "BottomHalf",
    "BoundedSemaphore",
    "Condition",
    "ContextClosed",
    "ContextError",
    "ContextStats",
    "Event",
    "IOThread",
    "IOThreadPool",
    "LifoQueue",
    "Lock",
    "NotSuspended",
    "PriorityQueue",
    "Queue",
    "QueueShutDown",
    "RWLock",
    "Semaphore",
    "Stall",
    "StallWatch",
    "Task",
    "TaskGroup",
    "WorkerPool",
    "WouldDeadlock",
    "WrongThread",
    "big_lock",
    "block_on",
    "create_task",
    "current_context",
    "current_task",
    "dump",
    "dump_on",
    "kick",
    "main_context",
    "move_to",
    "new_event_loop",
    "on",
    "run",
    "run_in",
    "running_context",
    "suspend",
    "to_worker",
    "wait_while",
    "watch_stalls",
)


if not TYPE_CHECKING:  # for a type checker, a module with this function has every attribute
    __getattr__ = _loaded_later(globals(), _LATER)
    __dir__ = _listed(globals())


def _watch_in_debug_mode() -> object:
    """Return what watches while a loop in debug mode runs; its module is loaded when one does."""
    return _import_module("._debug.debug_mode", __name__).watching()


_Loop.debug_watch = staticmethod(_watch_in_debug_mode)  # type: ignore[assignment]
_publish(globals(), __all__)

if _environ.get("HOMEBOUND_TOP"):
    _import_module(".debug._listener", __name__).listen_as_told(_environ["HOMEBOUND_TOP"])
