"""The wait-for graph: which tasks and threads need which others in order to go on, at one moment.

It is read without stopping anything, so one look may show parts that are a moment apart. Each wait
is told from the next by an object made for it, the proof: a wait that is the same in two looks has
gone on in between.

Unknown waits are assumed to end, so that no false deadlock is reported: a future that no homebound
code completes, a predicate of wait_while, an event, a condition, an item of a queue, a lock that
was acquired before a watch was on, code that runs. A wait for one of these has no edge.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .._aio.shapes import gathered, loop_kept_by, thread_that_runs, waits_for
from .._core.big_lock import shown_thread
from .._core.context import every_context
from .._core.task import Task
from .._sync.holders import holders, resolve
from .._sync.lock import Lock
from .._sync.rw_lock import READ, RWLock
from .._sync.semaphore import Semaphore
from .._sync.waiters import Waiter, drop_ended_waits, foreign_waits, parked
from .._threads.io_thread import IOThread
from .._threads.wait_while import waits
from .._vcpu.thread import VCPUThread, Work, thread_of, threads_needed
from .._workers.jobs import Outcome, TaskJob
from .._workers.pool import WorkerPool
from .cycles import NOTHING, Edge, Needs
from .descriptions import shown_queue
from .private_state import (
    awaited_by,
    big_lock_queue,
    blocked_tasks,
    busy_workers,
    end_of,
    home_thread,
    is_to_be_cancelled,
    live_workers,
    pool_with,
    wait_of,
    waiters_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._sync.wait_queue import WaitQueue
    from .._sync.waiters import ThreadWaiter
    from .._threads.wait_while import Waiting


@dataclass(frozen=True, slots=True)
class Frame:
    """A thread returns from the call that it is in."""

    ident: int

    def __str__(self) -> str:
        return f"thread {shown_thread(self.ident)}"


@dataclass(frozen=True, slots=True)
class Service:
    """A home thread runs what is in its mailbox, perhaps inside a wait of its own."""

    ident: int

    def __str__(self) -> str:
        return f"the home thread {shown_thread(self.ident)}"


@dataclass(frozen=True, slots=True)
class Held:
    """A lock is released by its holders, as far as `want` needs it."""

    queue: WaitQueue
    want: Any

    def __str__(self) -> str:
        return f"the {shown_queue(self.queue)}"


@dataclass(frozen=True, slots=True)
class Gathered:
    """A future of asyncio.gather ends: when any of its tasks fails, or all are done."""

    future: Any

    def __str__(self) -> str:
        return "a gather"


@dataclass(frozen=True, slots=True)
class Workers:
    """One of a pool's workers becomes free."""

    pool: WorkerPool

    def __str__(self) -> str:
        return f"the workers of {self.pool.name!r}"


Node = Any  # one of these, or a task


def describe(node: Node) -> str:
    """Describe a node for a report."""
    return f"task {node.get_name()!r}" if is_task(node) else str(node)


def is_task(node: Node) -> bool:
    """Return True if the node is a task, homebound or foreign."""
    return isinstance(node, asyncio.Future)


class WaitGraph:
    """The waits of one moment."""

    def __init__(self) -> None:
        self.owner, seats = big_lock_queue()
        self.big_lock_waiters = {seat.ident: seat for seat in seats}
        self.calls = waits()
        self.parked = parked.copy()
        self.foreign_waits = foreign_waits.copy()
        self.contexts = every_context()
        # The needs of each node that waits, and of each that another one needs.
        self.needs: dict[Node, Needs] = {}
        for node in tuple(self._waiting_nodes()):
            self._explore(node)
        drop_ended_waits()

    def _waiting_nodes(self) -> Iterator[Node]:
        """Return the tasks and threads that may wait for other ones."""
        for ident in (*self.big_lock_waiters, *self.calls, *self.parked):
            yield Frame(ident)
        yield from blocked_tasks()
        yield from self.foreign_waits

    def _explore(self, start: Node) -> None:
        ahead = [start]
        while ahead:
            node = ahead.pop()
            if node not in self.needs:
                self.needs[node] = need = self._needs(node)
                ahead += (edge.node for edge in need.edges)

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
            edges = (self._await("waits for", child) for child in children)
            return Needs(tuple(edge for edge in edges if edge is not None), any=True)
        return self._workers_need(node.pool)

    # Tasks.

    def _task_needs(self, task: Task[Any]) -> Iterator[Edge]:
        if task.done() or is_to_be_cancelled(task):
            return
        waiter = wait_of(task)
        if isinstance(waiter, Waiter):
            yield from self._granted_to(waiter)
        elif isinstance(waiter, TaskJob):
            yield from self._job_done(waiter, task)
        else:
            edge = self._await("waits for", awaited_by(task))
            if edge is not None:
                yield edge
        ident = home_thread(task.home)
        if ident is not None:
            yield Edge("runs in", Service(ident))
            yield from self._calls_above(task, ident)

    def _await(self, how: str, future: Any) -> Edge | None:
        """Return the edge to a task, or to the tasks of a gather; None for other futures."""
        if future is None or future.done():
            return None
        if isinstance(future, (Task, asyncio.Task)):
            return Edge(how, future, (future,))
        if gathered(future) is not None:
            return Edge(how, Gathered(future), (future,))
        return None

    def _calls_above(self, task: Task[Any], ident: int) -> Iterator[Edge]:
        """Return the edges of the wait that the task's own step is in, and of waits nested in it.

        The nested ones are further up the thread's stack, and must return first.
        """
        calls = self.calls.get(ident, [])
        for index, call in enumerate(calls):
            if call.task is not task:
                continue
            if not isinstance(call.subject, Task) and not call.timed:
                yield from self._call_needs(call)
            inner = calls[-1]
            if index < len(calls) - 1 and not inner.timed:
                nested = f"cannot go on before a nested {inner.what}"
                if not isinstance(inner.subject, Task):
                    yield Edge(f"{nested} in", Frame(ident), (inner,))
                elif inner.subject is not call.subject and not inner.subject.done():
                    yield Edge(f"{nested} for", inner.subject, (inner,))

    def _foreign_task_needs(self, task: Any) -> Iterator[Edge]:
        """Return the edges of a foreign task. Its loop goes on, unless its thread waits."""
        if task.done():
            return
        waiter = self.foreign_waits.get(task)
        if waiter is not None:
            yield from self._granted_to(waiter)
        edge = self._await("waits for", waits_for(task))
        if edge is not None:
            yield edge
        ident = thread_that_runs(loop_kept_by(task))
        wait = None if ident is None else self._wait_without_loop(ident)
        if ident is not None and wait is not None:
            yield Edge("runs in the loop of", Frame(ident), (wait,))

    # Threads.

    def _frame_needs(self, ident: int) -> Iterator[Edge]:
        if ident in self.big_lock_waiters:
            yield from self._big_lock(ident)
        elif ident in self.parked:
            waiter = self.parked[ident]
            if not waiter.timed:
                yield from self._granted_to(waiter)
        else:
            call = self._innermost(ident)
            if call is not None and not call.timed:
                yield from self._call_needs(call)

    def _service_needs(self, ident: int) -> Iterator[Edge]:
        call = self._innermost(ident)
        if ident in self.big_lock_waiters:
            yield from self._big_lock(ident)
        elif call is not None and call.turned is None:
            yield Edge(f"is kept busy in a {call.what} by", Frame(ident), (call,))

    def _wait_without_loop(self, ident: int) -> ThreadWaiter | Waiting | None:
        """Return the wait in which a thread sleeps without turning any loop, or None."""
        call = self._innermost(ident)
        if ident in self.parked or call is None:
            return self.parked.get(ident)
        return call if call.turned is None else None

    def _innermost(self, ident: int | None) -> Waiting | None:
        return next(reversed(self.calls.get(ident, ())), None)  # type: ignore[arg-type]

    def _big_lock(self, ident: int) -> Iterator[Edge]:
        waiter, owner = self.big_lock_waiters[ident], self.owner
        if owner is None or waiter.timed:
            return
        # Of the waits, only the one for a job's outcome keeps the lock. All others release it after
        # they have become visible here: a holder seen in one is about to release it.
        call = self._innermost(owner.ident)
        if owner.ident in self.parked or (
            call is not None and not isinstance(call.subject, Outcome)
        ):
            return
        proof = (waiter, waiter.turns, owner, owner.turns)
        yield Edge("waits for the big lock, held by", Frame(owner.ident), proof)

    def _call_needs(self, call: Waiting) -> Iterator[Edge]:
        how = f"waits in {call.what} for"
        subject = call.subject
        if isinstance(subject, Task):
            if not subject.done():
                yield Edge(how, subject, (call,))
        elif isinstance(subject, IOThread):
            yield from self._end_of(subject, how, call)
        elif isinstance(subject, WorkerPool):
            for ident in live_workers(subject):
                yield Edge(how, Frame(ident), (call,))
        elif isinstance(subject, Outcome):
            if subject.worker is not None and not subject.done():
                yield Edge(how, Frame(subject.worker), (call,))
        elif isinstance(subject, (VCPUThread, Work)):
            yield from self._vcpu(subject, how, call)

    def _end_of(self, thread: IOThread, how: str, call: Waiting) -> Iterator[Edge]:
        end = end_of(thread)
        if end is None:
            return
        yield Edge(how, Service(end.ident), (call,))
        if end.ident in self.calls:  # its loop does not end before these
            yield Edge(how, Frame(end.ident), (call,))
        for task in end.tasks:
            yield Edge(f"{how} the cleanup of", task, (call,))

    def _vcpu(self, subject: VCPUThread | Work, how: str, call: Waiting) -> Iterator[Edge]:
        inner = self._innermost(thread_of(subject))
        serves = inner is not None and isinstance(inner.subject, (VCPUThread, Work))
        for ident in threads_needed(call.what, subject, serves=serves):
            yield Edge(how, Frame(ident), (call,))

    # Workers.

    def _job_done(self, job: TaskJob, task: Task[Any]) -> Iterator[Edge]:
        if job.done:
            return
        name = getattr(job.fn, "__qualname__", repr(job.fn))
        if job.worker is not None:
            yield Edge(f"waits for the job {name}, done by", Frame(job.worker), (job, job.worker))
            return
        pool = pool_with(job, task)
        if pool is not None:
            yield Edge(f"waits for the job {name}, which waits for", Workers(pool), (job,))

    def _workers_need(self, pool: WorkerPool) -> Needs:
        edges = (Edge("are all busy, one is", Frame(ident)) for ident in busy_workers(pool))
        return Needs(tuple(edges), any=True)

    # Locks.

    def _granted_to(self, waiter: Waiter) -> Iterator[Edge]:
        if waiter.granted or waiter.left:
            return
        queue = waiter.queue
        if not isinstance(queue, (Lock, RWLock, Semaphore)):
            return
        verb = f"waits to {waiter.want}" if isinstance(queue, RWLock) else "waits for"
        yield Edge(verb, Held(queue, waiter.want), (waiter,))
        if isinstance(queue, RWLock) and waiter.want is READ:
            yield from self._writers_before(waiter)

    def _writers_before(self, waiter: Waiter) -> Iterator[Edge]:
        """Return the edges of a waiting reader to the writers in front of it."""
        for each in waiters_of(waiter.queue):
            if each is waiter:
                return
            node = self._node(each.who)
            if each.want is not READ and node is not None:
                lock = Held(waiter.queue, READ)
                yield Edge(f"waits to read {lock}, behind the writer", node, (waiter, each))

    def _lock_needs(self, held: Held) -> Needs:
        edges = []
        records = holders(held.queue, held.want)
        is_one = len(records) == 1 or isinstance(held.queue, RWLock)
        how = "is held by" if is_one else f"is held, one of {len(records)} permits, by"
        for record in records:
            node = self._node(record[0])
            if node is None:
                return NOTHING
            edges.append(Edge(how, node, (record,)))
        return Needs(tuple(edges), any=isinstance(held.queue, Semaphore))

    def _node(self, name: Any) -> Node | None:
        """Return the node of the task or thread that a waiter or record names; None: it is done."""
        named = resolve(name)
        if type(named) is int:
            return Frame(named)
        return None if named is None or named.done() else named
