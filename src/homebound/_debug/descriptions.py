"""Descriptions of what tasks and threads do and wait for, for dump()."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._aio.shapes import gathered, sleeps
from .._core.big_lock import shown_thread
from .._core.task import Task
from .._sync.barrier import Barrier
from .._sync.condition import Condition
from .._sync.event import Event
from .._sync.holders import describe_holder, holders
from .._sync.lock import Lock
from .._sync.queue_ends import Getters, Slots, Unfinished
from .._sync.rw_lock import RWLock
from .._sync.semaphore import Semaphore
from .._sync.waiters import Waiter
from .._workers.jobs import TaskJob
from .private_state import awaited_by, is_suspended, ready_entries, state_of, wait_of

if TYPE_CHECKING:
    from asyncio import Future

    from .._core.context import AioContext
    from .._sync.wait_queue import WaitQueue


class Moment:
    """The timers and the mailbox of a context, read once for the descriptions of all its tasks."""

    def __init__(self, context: AioContext) -> None:
        self.ready = ready_entries(context)
        self._ids = {id(entry) for entry in self.ready}
        self._loop = context.loop
        self._sleeps = sleeps(context.loop)

    def is_ready(self, task: Task[Any]) -> bool:
        """Return whether the task stands in the mailbox."""
        return id(task) in self._ids

    def seconds_left(self, future: object) -> float | None:
        """Return the seconds left of the asyncio.sleep that awaits a future; None for any other."""
        found = self._sleeps.get(id(future))
        return None if found is None else max(0.0, found[1] - self._loop.time())


def describe_task(task: Task[Any], moment: Moment) -> str:
    """Describe what a task does that is not done; `moment` is of its home."""
    awaited = awaited_by(task)
    waiter = wait_of(task)
    if isinstance(waiter, Waiter):
        return describe_wait(waiter)
    if isinstance(waiter, TaskJob):
        return _describe_job(waiter)
    if awaited is not None:
        return _describe_awaited(awaited, moment)
    if moment.is_ready(task):
        return "ready"
    return "suspended" if is_suspended(task) else "running"


def describe_wait(waiter: Waiter) -> str:
    """Describe what a waiter waits for."""
    if waiter.granted:
        return f"has been granted the {shown_queue(waiter.queue)}, and is about to run"
    return _describe_want(waiter.queue, waiter.want) + _describe_holders(waiter)


def shown_queue(queue: WaitQueue) -> str:
    """Return the name of a lock, or of the Queue that has the wait queue."""
    if isinstance(queue, (Getters, Slots, Unfinished)):
        kind, where = "Queue", queue.queue_id
    else:
        kind, where = type(queue).__name__, id(queue)
    return f"{kind} at {where:#x}" if queue.name is None else f"{kind} {queue.name!r}"


def _describe_want(queue: WaitQueue, want: Any) -> str:
    named = shown_queue(queue)
    if isinstance(queue, RWLock):
        return f"waits to {want} the {named} [{state_of(queue)}]"
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


def _describe_holders(waiter: Waiter) -> str:
    queue = waiter.queue
    records = holders(queue, waiter.want)
    if records:
        return ", held by " + ", ".join(describe_holder(record[0]) for record in records)
    if isinstance(queue, Lock):
        return ", held by an unknown holder: holders are recorded while watch_stalls() watches"
    return ""


def _describe_job(job: TaskJob) -> str:
    fn = getattr(job.fn, "__qualname__", repr(job.fn))
    where = "queued" if job.worker is None else f"done by thread {shown_thread(job.worker)}"
    return f"waits for the job {fn}, {where}"


def _describe_awaited(future: Any, moment: Moment) -> str:
    if isinstance(future, Task):
        home = "no home" if future.home is None else f"at home in {future.home.name!r}"
        return f"waits for task {future.get_name()!r}, {home}"
    children = gathered(future)
    if children is not None:
        left = ", ".join(_name_child(child) for child in children if not child.done())
        return f"waits for a gather of {left}" if left else "waits for a gather that is complete"
    left_s = moment.seconds_left(future)
    return f"waits for {future!r}" if left_s is None else f"sleeps for another {left_s:.3g} s"


def _name_child(child: Future[Any]) -> str:
    get_name = getattr(child, "get_name", None)
    return repr(child) if get_name is None else f"task {get_name()!r}"
