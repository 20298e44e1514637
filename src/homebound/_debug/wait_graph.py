"""Who cannot go on before whom, read off what everybody is doing at one moment.

Looked at without stopping anything, so what one look shows may be a moment old here and newer
there. Each wait is told from the next by an object made for it, the proof: what is the same in two
looks has been so in between.

What is not known is taken for what will come. A future that nobody of ours completes, a predicate
of wait_while, an event, a condition, an item of a queue, a lock taken before anybody watched, code
that runs: whoever waits for one of these waits for nobody.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .._aio.shapes import gathered, waits_for
from .._aio.tasks import unfinished
from .._core.big_lock import big_lock, thread_name
from .._core.context import every_context
from .._core.task import Task
from .._core.task_interface import CANCELS
from .._os.snapshot import snapshot
from .._sync.holders import holders, resolve
from .._sync.lock import Lock
from .._sync.rw_lock import READ, RWLock
from .._sync.semaphore import Semaphore
from .._sync.waiters import Waiter, drop_ended_waits, foreign_waits, parked
from .._threads.io_thread import IOThread
from .._threads.wait_while import waits
from .._vcpu.thread import VCPUThread, Work, thread_of, threads_needed
from .._workers.jobs import Job, Outcome
from .._workers.pool import WorkerPool
from .rings import NOTHING, Needs, Way

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._core.context import AioContext
    from .._sync.wait_queue import WaitQueue
    from .._threads.wait_while import Waiting


@dataclass(frozen=True, slots=True)
class Frame:
    """A thread returns from what it is in."""

    ident: int

    def __str__(self) -> str:
        return f"thread {thread_name(self.ident)}"


@dataclass(frozen=True, slots=True)
class Service:
    """A home runs what is in its mailbox: it may do so inside a wait of its own."""

    ident: int

    def __str__(self) -> str:
        return f"the home in thread {thread_name(self.ident)}"


@dataclass(frozen=True, slots=True)
class Held:
    """A lock is let go by those who have it, as far as `want` needs it."""

    queue: WaitQueue
    want: Any

    def __str__(self) -> str:
        return f"the {type(self.queue).__name__} at {id(self.queue):#x}"


@dataclass(frozen=True, slots=True)
class Gathered:
    """A future of asyncio.gather: any of its tasks may fail, and so end it."""

    future: Any

    def __str__(self) -> str:
        return "a gather"


@dataclass(frozen=True, slots=True)
class Workers:
    """A worker of a pool becomes free."""

    pool: WorkerPool

    def __str__(self) -> str:
        return f"the workers of {self.pool.name!r}"


Node = Any  # one of these, or a task
_NOBODY = (asyncio.Future, type(None))


def describe(node: Node) -> str:
    """A node, for a report."""
    return f"task {node.get_name()!r}" if is_task(node) else str(node)


def is_task(node: Node) -> bool:
    """It is a task, of ours or of asyncio's."""
    return isinstance(node, asyncio.Future)


class WaitGraph:
    """The waits of one moment."""

    def __init__(self) -> None:
        seats = snapshot(big_lock._queue)
        self.owner = seats[0] if seats else None
        self.queue = {seat.ident: seat for seat in seats[1:]}
        self.calls = waits()
        self.parked = parked.copy()
        self.foreign_waits = foreign_waits.copy()
        self.contexts = every_context()
        # Of each node that anybody needs: what it needs in turn.
        self.needs: dict[Node, Needs] = {}
        for node in tuple(self._beginnings()):
            self._explore(node)
        drop_ended_waits()

    def _beginnings(self) -> Iterator[Node]:
        """Those who wait for something that could be somebody else's to end."""
        for ident in (*self.queue, *self.calls, *self.parked):
            yield Frame(ident)
        for task in unfinished(Task):
            # Most wait for a plain future, and so for nobody: they are passed over, fast.
            if type(task._fut_waiter) not in _NOBODY or getattr(task, "_wait", None):
                yield task
        yield from self.foreign_waits

    def _explore(self, start: Node) -> None:
        ahead = [start]
        while ahead:
            node = ahead.pop()
            if node not in self.needs:
                self.needs[node] = need = self._needs(node)
                ahead += (way.node for way in need.ways)

    def _needs(self, node: Node) -> Needs:  # noqa: PLR0911  (one for each kind of node)
        if isinstance(node, Task):
            return Needs(tuple(self._task_needs(node)))
        if isinstance(node, asyncio.Future):
            return Needs(tuple(self._foreign_task_needs(node)))
        if isinstance(node, Frame):
            return Needs(tuple(self._frame_needs(node.ident)))
        if isinstance(node, Service):
            return Needs(tuple(self._service_needs(node.ident)))
        if isinstance(node, Held):
            return self._lock_needs(node)
        if isinstance(node, Gathered):
            children = [child for child in gathered(node.future) or () if not child.done()]
            ways = (self._await("waits for", child) for child in children)
            return Needs(tuple(way for way in ways if way is not None), any=True)
        return self._workers_need(node.pool)

    # Tasks.

    def _task_needs(self, task: Task[Any]) -> Iterator[Way]:
        if task.done() or task._throw in CANCELS:
            return
        waiter = getattr(task, "_wait", None)
        if isinstance(waiter, Waiter):
            yield from self._granted_to(waiter)
        elif isinstance(waiter, Job):
            yield from self._job_done(waiter, task)
        else:
            way = self._await("waits for", task._fut_waiter)
            if way is not None:
                yield way
        ident = home_thread(task._home)
        if ident is not None:
            yield Way("is at home with", Service(ident))
            yield from self._calls_above(task, ident)

    def _await(self, how: str, future: Any) -> Way | None:
        """A task's result, or several ones', if that is what the future is."""
        if future is None or future.done():
            return None
        if isinstance(future, (Task, asyncio.Task)):
            return Way(how, future, (future,))
        if gathered(future) is not None:
            return Way(how, Gathered(future), (future,))
        return None

    def _calls_above(self, task: Task[Any], ident: int) -> Iterator[Way]:
        """The task's own step waits in a call; calls begun after that must return first."""
        calls = self.calls.get(ident, [])
        for index, call in enumerate(calls):
            if call.task is not task:
                continue
            if not isinstance(call.subject, Task) and not call.timed:
                yield from self._call_needs(call)
            inner = calls[-1]
            if index < len(calls) - 1 and not inner.timed:
                below = f"stands below a {inner.what} for"
                if not isinstance(inner.subject, Task):
                    yield Way(f"stands below a {inner.what} in", Frame(ident), (inner,))
                elif inner.subject is not call.subject and not inner.subject.done():
                    yield Way(below, inner.subject, (inner,))

    def _foreign_task_needs(self, task: Any) -> Iterator[Way]:
        """Of a task of asyncio's: its home is not ours, and taken to get on."""
        if task.done():
            return
        waiter = self.foreign_waits.get(task)
        if waiter is not None:
            yield from self._granted_to(waiter)
        way = self._await("waits for", waits_for(task))
        if way is not None:
            yield way

    # Threads.

    def _frame_needs(self, ident: int) -> Iterator[Way]:
        if ident in self.queue:
            yield from self._big_lock(ident)
        elif ident in self.parked:
            waiter = self.parked[ident]
            if not waiter.timed:
                yield from self._granted_to(waiter)
        else:
            call = self._innermost(ident)
            if call is not None and not call.timed:
                yield from self._call_needs(call)

    def _service_needs(self, ident: int) -> Iterator[Way]:
        call = self._innermost(ident)
        if ident in self.queue:
            yield from self._big_lock(ident)
        elif call is not None and call.turned is None:
            yield Way(f"is kept busy in a {call.what} by", Frame(ident), (call,))

    def _innermost(self, ident: int | None) -> Waiting | None:
        return next(reversed(self.calls.get(ident, ())), None)  # type: ignore[arg-type]

    def _big_lock(self, ident: int) -> Iterator[Way]:
        waiter, owner = self.queue[ident], self.owner
        if owner is None or waiter.timed:
            return
        # Of those who sleep only who waits for a job's outcome keeps the lock. All others let go of
        # it, but show first that they wait: seen in between, they are about to let go.
        call = self._innermost(owner.ident)
        if owner.ident in self.parked or (
            call is not None and not isinstance(call.subject, Outcome)
        ):
            return
        proof = (waiter, waiter.turns, owner, owner.turns)
        yield Way("waits for the big lock, held by", Frame(owner.ident), proof)

    def _call_needs(self, call: Waiting) -> Iterator[Way]:
        how = f"waits in {call.what} for"
        subject = call.subject
        if isinstance(subject, Task):
            if not subject.done():
                yield Way(how, subject, (call,))
        elif isinstance(subject, IOThread):
            yield from self._end_of(subject, how, call)
        elif isinstance(subject, WorkerPool):
            for thread in subject._threads.copy():
                if thread.ident is not None and thread.is_alive():
                    yield Way(how, Frame(thread.ident), (call,))
        elif isinstance(subject, Outcome):
            if subject.worker is not None and not subject.done():
                yield Way(how, Frame(subject.worker), (call,))
        elif isinstance(subject, (VCPUThread, Work)):
            yield from self._vcpu(subject, how, call)

    def _end_of(self, thread: IOThread, how: str, call: Waiting) -> Iterator[Way]:
        ident, context = thread._thread.ident, thread._context
        if ident is None or context is None or thread._ended:
            return
        yield Way(how, Service(ident), (call,))
        if ident in self.calls:  # its loop does not end before these
            yield Way(how, Frame(ident), (call,))
        if context._ending:  # each task was cancelled once
            for task in context._tasks():
                if task._num_cancels_requested and task._throw not in CANCELS:
                    yield Way(f"{how} the cleanup of", task, (call,))

    def _vcpu(self, subject: VCPUThread | Work, how: str, call: Waiting) -> Iterator[Way]:
        inner = self._innermost(thread_of(subject))
        serves = inner is not None and isinstance(inner.subject, (VCPUThread, Work))
        for ident in threads_needed(call.what, subject, serves=serves):
            yield Way(how, Frame(ident), (call,))

    # Workers.

    def _job_done(self, job: Job, task: Task[Any]) -> Iterator[Way]:
        if job.done:
            return
        name = getattr(job.fn, "__qualname__", repr(job.fn))
        if job.worker is not None:
            yield Way(f"waits for the job {name}, done by", Frame(job.worker), (job, job.worker))
            return
        pool = None if task._home is None else task._home.workers
        if pool is not None and job in snapshot(pool._jobs):
            yield Way(f"waits for the job {name}, which waits for", Workers(pool), (job,))

    def _workers_need(self, pool: WorkerPool) -> Needs:
        threads = tuple(pool._threads.copy())
        if len(threads) < pool._limits[1] or pool._idle:
            return NOTHING
        ways = (Way("are all busy, one is", Frame(each.ident)) for each in threads if each.ident)
        return Needs(tuple(ways), any=True)

    # Locks.

    def _granted_to(self, waiter: Waiter) -> Iterator[Way]:
        if waiter.granted or waiter.left:
            return
        queue = waiter.queue
        if not isinstance(queue, (Lock, RWLock, Semaphore)):
            return
        verb = f"waits to {waiter.want}" if isinstance(queue, RWLock) else "waits for"
        yield Way(verb, Held(queue, waiter.want), (waiter,))
        if isinstance(queue, RWLock) and waiter.want is READ:
            yield from self._writers_before(waiter)

    def _writers_before(self, waiter: Waiter) -> Iterator[Way]:
        """A reader stands behind the writers that came before it."""
        for each in snapshot(waiter.queue._waiters):
            if each is waiter:
                return
            node = self._node(each.who)
            if each.want is not READ and node is not None:
                lock = Held(waiter.queue, READ)
                yield Way(f"waits to read {lock}, behind the writer", node, (waiter, each))

    def _lock_needs(self, held: Held) -> Needs:
        ways = []
        records = holders(held.queue, held.want)
        is_one = len(records) == 1 or isinstance(held.queue, RWLock)
        how = "is held by" if is_one else f"is held, one of {len(records)} permits, by"
        for record in records:
            node = self._node(record[0])
            if node is None:
                return NOTHING
            ways.append(Way(how, node, (record,)))
        return Needs(tuple(ways), any=isinstance(held.queue, Semaphore))

    def _node(self, who: Any) -> Node | None:
        someone = resolve(who)
        if type(someone) is int:
            return Frame(someone)
        return None if someone is None or someone.done() else someone


def home_thread(context: AioContext | None) -> int | None:
    """Its ident. A loop of somebody else's does not tell when it stops; idents are used again."""
    if context is None or (context._is_guest and not context.loop.is_running()):
        return None
    return context._home_ident
