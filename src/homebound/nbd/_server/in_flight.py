"""The requests of one connection that wait for the disk."""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from ..._core.current import current_context
from ..._errors import ContextError
from ..._os.clock import perf_counter
from ..._workers.calls import Call
from ..._workers.to_worker import pool_of
from ...block._blocking_disk import BlockingDisk
from .._protocol.wire import Error
from .in_ring import InRing
from .slow import ASKS, Slice, all_failed, batches, split

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from ..._workers.pool import WorkerPool
    from ...block._disk import Disk
    from .lane import Lane
    from .served import Served
    from .slow import Replies, SlowRead, SlowRequest

MAX_REQUESTS = 64
MAX_BYTES = 64 << 20  # of data that they carry
# Slices of a disk with awaited operations that are at work at once for one client: such a disk may
# use workers, of which they are a quarter.
MAX_STARTED = 16
# A home's. A client of another disk may use a third as many as all leave free, and always one: the
# next client still finds as many, and the home does not wait behind 64 threads for the
# interpreter's lock.
WORKERS = 64
SHARE = 3


class InFlight:
    """The pending requests of one connection. Home thread only; `done` gets replies there.

    A request that changes a range claims it when it is added, so that none that comes after it,
    even one that could be carried out at once, overtakes it. If another request is changing the
    range, it is held until that has ended. Otherwise it is `waiting` for `start`; then in the ring,
    or in a slice of the queue; then at the disk.

    A slice in a worker is a call, not a task: a task would take two more iterations of the loop,
    one to begin and one to report its end.

    A disk with awaited operations often has nothing to wait for, and then a task costs more than
    the request. So a task (`_run`) carries out one request after the other, until one waits. Behind
    each step of such tasks comes `_look`, which starts others if requests are left in the queue:
    they overlap where they wait. Requests of one task share its contextvars, as those of a slice
    do.
    """

    __slots__ = (
        "_blocking",
        "_bytes",
        "_calls",
        "_context",
        "_disk",
        "_done",
        "_finished",
        "_held",
        "_in_ring",
        "_lane",
        "_looking",
        "_loop",
        "_queue",
        "_ranges",
        "_started",
        "_starting",
        "_tasks",
        "_turn_ends",
        "_turns",
        "_wait",
        "count",
        "full",
        "waiting",
    )

    def __init__(self, served: Served, lane: Lane, done: Callable[[Replies], None]) -> None:
        self._lane = lane
        self._turns = lane.turns
        self._disk = disk = served.disk
        # Asked once: a look at an abstract class takes as long as three calls.
        self._blocking = disk if isinstance(disk, BlockingDisk) else None
        self._ranges = served.ranges
        self._done = done
        self._loop = asyncio.get_running_loop()
        self.count = 0  # taken and not answered
        self._bytes = 0  # of their data
        self.full = False  # take no more for now: a function of the two above
        self.waiting: list[SlowRequest] = []  # for `start`
        self._held: list[SlowRequest] = []  # waiting for their claims to be granted
        self._queue: deque[Slice] = deque()
        # The slices at the disk: in workers, and awaited.
        self._calls: dict[Call[Replies], Slice] = {}
        # A task may have none: it has not begun, or finds none left.
        self._tasks: dict[asyncio.Task[None], Slice | None] = {}
        # Awaited, and to be answered together by `_look`.
        self._finished: list[Replies] = []
        self._looking = False  # `_look` is queued in the loop; then _turn_ends is set
        self._turn_ends = 0.0  # when tasks leave the rest of the queue to the next iteration
        self._wait = False  # there were requests that waited, at the last `_look`
        self._started = 0  # slices of both kinds that are not answered
        # _start_in_turn is in the queue of the home, at most once.
        self._starting = False
        self._context = current_context()
        self._in_ring = InRing(served.disk, served.ranges, self._ring_finished)

    def add(self, request: SlowRequest) -> None:
        """Add a request; it begins with the next `start`, unless it is held."""
        if not request.changes or self._claim(request):
            self.waiting.append(request)
        self.count += 1  # as _count does, without the call
        self._bytes += request.carries
        self.full = self.count >= MAX_REQUESTS or self._bytes >= MAX_BYTES

    @property
    def room(self) -> int:
        """How many more requests may be added before it is full."""
        return MAX_REQUESTS - self.count

    def add_reads(self, requests: list[SlowRead], size: int) -> None:
        """Add READs of `size` bytes in all, as `add` does."""
        self.waiting += requests
        self._count(len(requests), size)

    def _count(self, requests: int, size: int) -> None:
        self.count += requests
        self._bytes += size
        self.full = self.count >= MAX_REQUESTS or self._bytes >= MAX_BYTES

    def start(self) -> None:
        """Begin the waiting requests, as far as the limits allow."""
        waiting, self.waiting = self.waiting, []
        self._enqueue(waiting)

    def forget(self) -> bool:
        """Drop what nobody will hear of, as the client has gone; return whether there was any.

        That is what has not begun and changes nothing. A client that disconnects in order may rely
        on the rest.
        """
        for part in self._calls.values():
            part.unheard = True
        queue, self._queue = self._queue, deque()
        dropped: list[SlowRequest] = []
        for part in queue:
            kept = [each for each in part.requests if each.command not in ASKS]
            if len(kept) == len(part.requests):
                self._queue.append(part)
                continue
            dropped += [each for each in part.requests if each.command in ASKS]
            if kept:  # their claims go with them
                self._queue.append(Slice(kept, self._ranges))
        if dropped:
            self._finish(all_failed(dropped, error=Error.ESHUTDOWN))
        return bool(dropped)

    def cancel(self) -> None:
        """Stop waiting for the disk, and answer all requests with ESHUTDOWN."""
        given_up = [Slice([request], self._ranges) for request in (*self._held, *self.waiting)]
        given_up += self._queue
        given_up += self._calls.values()
        calls = list(self._calls)
        self._held.clear()
        self.waiting.clear()
        self._queue.clear()
        self._calls.clear()
        self._count_started(-len(calls))
        for call in calls:
            call.withdraw(self._workers)
        for part in given_up:
            self._give_up(part)
        for request in self._in_ring.give_up():
            self._answer([all_failed([request], error=Error.ESHUTDOWN)])
        for task in list(self._tasks):
            task.cancel()

    def _claim(self, request: SlowRequest) -> bool:
        """Claim the range that the request changes; False if it has to wait for it."""
        grant = partial(self._grant, request)
        request.claim, granted = self._ranges.claim(request.offset, request.length, grant)
        if not granted:
            self._held.append(request)
        return granted

    def _grant(self, request: SlowRequest) -> bool:
        """Pass the grant on to the home thread.

        Called from: any thread.
        """
        try:
            self._loop.call_soon_threadsafe(self._granted, request)
        except RuntimeError:  # that loop is closed
            return False
        return True

    def _granted(self, request: SlowRequest) -> None:
        if request in self._held:  # otherwise it was given up since
            self._held.remove(request)
            self.waiting.append(request)
            self._ask_for_turn()

    def _enqueue(self, requests: list[SlowRequest]) -> None:
        """Pass requests to the ring, if it can carry them out, and the others to the queue."""
        others = self._in_ring.take(requests)
        self._queue_for_disk(others + self._in_ring.start())

    def _queue_for_disk(self, requests: list[SlowRequest]) -> None:
        if not requests:
            return
        if self._blocking is not None:
            parts = split(requests, self._blocking.slices)
        else:
            parts = [[request] for request in requests]
        self._queue.extend(Slice(part, self._ranges) for part in parts)
        self._start_next()

    def _start_soon(self) -> None:
        """Start the next slices, as some have ended: in a turn, where others wait for theirs.

        Started at once, the slices of all clients that flood the home would come back together, and
        hold its other connections up: one may take more of the loop's time than of the disk's.
        """
        if not self._turns.wanted:
            self._start_next()
        elif self._queue:
            self._ask_for_turn()

    def _ask_for_turn(self) -> None:
        if not self._starting:
            self._starting = True
            self._turns.ask(self._loop, self._start_in_turn)

    def _start_in_turn(self) -> None:
        self._starting = False
        self.start()
        self._start_next()

    def _start_next(self) -> None:
        disk = self._blocking
        if disk is None:
            self._start_tasks()
            return
        while self._queue and self._may_start():
            part = self._queue.popleft()
            self._count_started(1)
            if part.awaited:
                self._spawn(self._carry_out(disk, part), part)
            elif disk.try_begin():
                self._call(disk, part)
            else:  # it is drained
                self._spawn(self._call_later(disk, part), part)

    def _may_start(self) -> bool:
        started = self._started
        return not started or SHARE * started < WORKERS - self._lane.started

    def _count_started(self, more: int) -> None:
        self._started += more
        if self._blocking is not None:
            self._lane.started += more

    def _ring_finished(self, replies: list[Replies]) -> None:
        self._answer(replies)
        if not self._turns.wanted:
            self._enqueue([])
        elif self._in_ring.waits:
            self._ask_for_turn()

    def _spawn(self, coro: Coroutine[Any, Any, None], part: Slice | None = None) -> None:
        task = self._loop.create_task(coro)
        self._tasks.setdefault(task, part)  # an eager one may have taken one already
        task.add_done_callback(self._ended)

    # In a worker.

    async def _call_later(self, disk: BlockingDisk, part: Slice) -> None:
        await disk.begin()
        part.handled = True
        self._call(disk, part)

    def _call(self, disk: BlockingDisk, part: Slice) -> None:
        """Have a worker carry out a slice that counts as a request of the disk until its end."""
        try:
            call = Call(partial(part.run, disk.blocking), last=disk.end, tell=self._called)
            call.begin(self._workers)
        except RuntimeError as failure:  # no worker is available
            disk.end()
            self._count_started(-1)
            self._fail(part, failure)
            return
        self._calls[call] = part

    @property
    def _workers(self) -> WorkerPool:
        if self._context is None:
            raise ContextError("an NBD connection outside of a context has no workers")
        return pool_of(self._context)

    def _called(self, call: Call[Replies]) -> None:
        """Pass the result on to the home thread.

        Called from: any thread.
        """
        assert self._context is not None
        try:
            self._context.call_soon(self._returned, call)
        except RuntimeError:
            pass  # that home has ended, after its connections were aborted

    def _returned(self, call: Call[Replies]) -> None:
        part = self._calls.pop(call, None)
        if part is None:
            return  # it was given up
        self._count_started(-1)
        if call.result is not None:
            if self._started or self._finished or self._queue:
                self._finished.append(call.result)
                if not self._looking:
                    self._look_soon()
                return
            self._finish(call.result)
        elif call.error is not None:  # its worker has died
            self._fail(part, call.error)
        else:  # dropped, with the workers of a home that is ending
            self._give_up(part)
        self._start_soon()

    # Awaited.

    def _start_tasks(self) -> None:
        """Have tasks take what is queued: one, or as many as there are requests if those wait."""
        room = min(len(self._queue), MAX_STARTED - self._started)
        if self._looking or room <= 0:
            return  # `_look` does that; or each task goes on with the queue when it has finished
        for _ in range(room if self._wait else 1):
            self._spawn(self._run())
        if not self._looking:  # else they are eager
            self._look_soon()  # after their first steps

    async def _run(self) -> None:
        """Carry out queued requests, one after the other."""
        task = asyncio.current_task()
        assert task is not None
        while self._queue and self._started < MAX_STARTED:
            if not self._looking:
                self._look_soon()
            part = self._tasks[task] = self._queue.popleft()
            self._count_started(1)
            await self._carry_out(self._disk, part)
            if task.cancelling() or perf_counter() > self._turn_ends:
                return  # `_look` starts another

    async def _carry_out(self, disk: Disk, part: Slice) -> None:
        replies = await part.run_one(disk)
        # Here and not in _ended, which the loop calls an iteration later.
        part.handled = True
        self._count_started(-1)
        if not (self._started or self._finished or self._queue):
            self._finish(replies)
            return
        self._finished.append(replies)
        if not self._looking:
            self._look_soon()

    def _look_soon(self) -> None:
        self._looking = True
        self._turn_ends = perf_counter() + self._turns.seconds()
        self._loop.call_soon(self._look)

    def _look(self) -> None:
        """Send what has been finished since together, and go on with the queue."""
        self._looking = False
        self._wait = self._started > 0
        finished, self._finished = self._finished, []
        self._answer(finished)
        self._start_soon()

    def _answer(self, finished: list[Replies]) -> None:
        for together in batches(finished):
            self._finish(together)

    def _ended(self, task: asyncio.Task[None]) -> None:
        part = self._tasks.pop(task)
        if part is None:
            if task.cancelled() and self._queue:  # with its home: it would have taken this one
                self._give_up(self._queue.popleft())
            self._start_soon()
            return
        if part.handled:
            self._start_soon()
            return
        self._count_started(-1)
        # It was cancelled, by `cancel` or with its home, perhaps before it began; or the disk has
        # raised GeneratorExit.
        failure = None if task.cancelled() else task.exception()
        if failure is None:
            self._give_up(part)
        else:
            self._fail(part, failure)
        self._start_soon()

    def _fail(self, part: Slice, failure: BaseException) -> None:
        part.drop()
        self._finish(all_failed(part.requests, failure))

    def _give_up(self, part: Slice) -> None:
        part.drop()
        self._finish(all_failed(part.requests, error=Error.ESHUTDOWN))

    def _finish(self, replies: Replies) -> None:
        self._count(-replies.requests, -(replies.room_read + replies.room_written))
        self._done(replies)
