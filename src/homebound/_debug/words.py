"""What somebody waits for, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._aio.shapes import gathered, sleeps_until
from .._core.big_lock import thread_name
from .._core.task import Task
from .._os.snapshot import snapshot
from .._sync.barrier import Barrier
from .._sync.condition import Condition
from .._sync.event import Event
from .._sync.holders import holders, resolve
from .._sync.lock import Lock
from .._sync.queue_ends import Getters, Slots, Unfinished
from .._sync.rw_lock import RWLock
from .._sync.semaphore import Semaphore
from .._sync.waiters import Waiter
from .._workers.jobs import Job

if TYPE_CHECKING:
    from asyncio import Future

    from .._sync.wait_queue import WaitQueue


def doing(task: Task[Any]) -> str:
    """What a task that is not done does."""
    waits_for = task._fut_waiter
    waiter = getattr(task, "_wait", None)
    if isinstance(waiter, Waiter):
        return wait(waiter)
    if isinstance(waiter, Job):
        return _job(waiter)
    if waits_for is not None:
        return _awaited(waits_for, task)
    if task._home is not None and task in snapshot(task._home._ready):
        return "ready"
    return "suspended" if task._parked else "running"


def wait(waiter: Waiter) -> str:
    """What one in a wait queue waits for."""
    if waiter.granted:
        return f"has been granted the {name(waiter.queue)}, and is about to go on"
    text = _wanted(waiter.queue, waiter.want)
    return text + _held_by(waiter)


def name(queue: WaitQueue) -> str:
    """A lock, or a queue by its end."""
    if isinstance(queue, (Getters, Slots, Unfinished)):
        return f"Queue at {queue.queue_id:#x}"
    return f"{type(queue).__name__} at {id(queue):#x}"


def someone(who: Any) -> str:
    """A task or a thread."""
    each = resolve(who)
    if each is None:
        return "a task that is gone"
    if type(each) is int:
        return f"thread {thread_name(each)}"
    return f"task {each.get_name()!r}" + (", which has ended" if each.done() else "")


def _wanted(queue: WaitQueue, want: Any) -> str:
    named = name(queue)
    if isinstance(queue, RWLock):
        return f"waits to {want} the {named} [{queue._describe()}]"
    texts: tuple[tuple[type[Any], str], ...] = (
        (Getters, "an item of the {}"),
        (Slots, "room in the {}"),
        (Unfinished, "all work of the {} to be done"),
        (Semaphore, "a permit of the {}"),
        (Event, "the {} to be set"),
        (Condition, "a notification of the {}"),
        (Barrier, "the others at the {}"),
    )
    text = next((text for kind, text in texts if isinstance(queue, kind)), "the {}")
    return f"waits for {text.format(named)}"


def _held_by(waiter: Waiter) -> str:
    queue = waiter.queue
    records = holders(queue, waiter.want)
    if records:
        return ", held by " + ", ".join(someone(record[0]) for record in records)
    if isinstance(queue, Lock):
        return ", held by somebody: who takes a lock is known while watch_stalls() watches"
    return ""


def _job(job: Job) -> str:
    fn = getattr(job.fn, "__qualname__", repr(job.fn))
    where = "queued" if job.worker is None else f"done by thread {thread_name(job.worker)}"
    return f"waits for the job {fn}, {where}"


def _awaited(future: Any, task: Task[Any]) -> str:
    if isinstance(future, Task):
        home = "no home" if future._home is None else f"at home in {future._home.name!r}"
        return f"waits for task {future.get_name()!r}, {home}"
    children = gathered(future)
    if children is not None:
        left = ", ".join(_child(child) for child in children if not child.done())
        return f"waits for a gather of {left or 'what is done'}"
    left_s = _seconds_left(future, task)
    return f"waits for {future!r}" if left_s is None else f"sleeps for another {left_s:.3g} s"


def _child(child: Future[Any]) -> str:
    get_name = getattr(child, "get_name", None)
    return repr(child) if get_name is None else f"task {get_name()!r}"


def _seconds_left(future: Any, task: Task[Any]) -> float | None:
    """Until the timer that ends an asyncio.sleep; None if it is something else."""
    if task._home is None:
        return None
    loop = task._home.loop
    when = sleeps_until(loop, future)
    return None if when is None else max(0.0, when - loop.time())
