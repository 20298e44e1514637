"""A home's io_uring: its disks' requests that have to wait, without a worker for each.

It is made once a home has had a few such requests, and closed as the home ends. The home thread
submits; the loop watches the ring's descriptor, and takes the results when there are any.
docs/design/block.md says what happens at a cancellation, at the end, in a stand-in and at fork.
"""

from __future__ import annotations

import _thread
import asyncio
import errno
import os
from collections import deque
from contextlib import suppress
from contextvars import Context
from typing import TYPE_CHECKING, Any

from .._aio.futures import set_unless_done
from .._core.current import current_context
from .._core.loop_context import LoopContext
from .._os.uring import Ring, address_of
from .._workers.calls import Call
from .._workers.to_worker import pool_of
from ._ring_steps import make

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._core.context import AioContext
    from ._ring_steps import Step, Steps

# More bytes than this at a time go to a worker: beside the copy its hand-over is cheap.
LARGEST = 1 << 20
# Requests that go to workers before a home has a ring: a program that flushes an image at its end
# does without, and without ctypes, which takes longer to load than those few requests.
FEW = 4
_ENTRIES = 256
MOST_THREADS = 128  # of the kernel's: twice as many as a home has workers
# Results that are taken in an iteration of the loop. The ring's descriptor stays readable for the
# rest.
_AT_ONCE = 32
_SWITCH = "HOMEBOUND_IO_URING"


class Operation:
    """An operation of a disk, in steps. When it has ended, `error` says how."""

    __slots__ = ("ended", "error", "name", "passed", "pin", "step", "steps")

    def __init__(self, steps: Steps) -> None:
        self.steps: Steps = steps
        self.step: Step | None = None  # the system call under way
        self.name: int = 0  # of its last request to the ring
        self.passed: bool = False  # to a worker
        self.pin: object = None  # keeps the call's memory where it is
        self.ended: bool = False
        self.error: BaseException | None = None

    def release(self) -> None:
        """Release what it holds beside its descriptor: it has ended. Again: what is left of that.

        Called from: any thread.
        """

    def tell(self) -> None:
        """Tell its owner that it has ended, after `release`; not if its home has ended before.

        Again: no effect.

        Called from: home thread.
        """
        raise NotImplementedError

    def go_on(
        self, result: int | BaseException | None, under_way: dict[int, Operation] | None = None
    ) -> bool:
        """Run until the next step, which `step` is then; False at the end.

        Its request is taken out of the table `under_way`. An exception of a signal handler comes
        before that, so that this can be called again, or it is the operation's error.
        """
        self.pin = None
        try:
            if under_way is not None:
                del under_way[self.name]  # no call before it
            if isinstance(result, BaseException):
                self.step = self.steps.throw(result)
            else:
                self.step = self.steps.send(result)  # type: ignore[arg-type]  # None: the first
        except StopIteration:
            pass
        except BaseException as error:  # noqa: BLE001  (the caller gets it)
            self.error = error
        else:
            return True
        self.step = None
        self.ended = True
        _held.discard(self.steps)
        return False

    def close(self, error: BaseException) -> None:
        """End it with an error, whatever is left of it."""
        self.steps.close()
        self.error, self.ended = error, True
        _held.discard(self.steps)

    def block(self) -> None:
        """Make the step under way and those after it in this thread."""
        while True:
            assert self.step is not None
            result: int | BaseException
            try:
                result = make(self.step)
            except BaseException as error:  # noqa: BLE001  (thrown into the steps)
                result = error
            if not self.go_on(result):
                return


class Awaited(Operation):
    """An operation that a task awaits."""

    __slots__ = ("waiter",)

    def __init__(self, steps: Steps) -> None:
        super().__init__(steps)
        self.waiter: asyncio.Future[None] | None = None

    def tell(self) -> None:
        """Wake the task."""
        if self.waiter is not None:
            set_unless_done(self.waiter)


class HomeRing:
    """The ring of one home. Home thread only."""

    def __init__(self, context: AioContext) -> None:
        self._ring = Ring(_ENTRIES, MOST_THREADS)
        self._context = context
        self._loop = context.loop
        self._thread = _thread.get_ident()  # which made it, and may submit
        # The operations under way, by the names of their requests: numbers that are not used again.
        self._under_way: dict[int, Operation] = {}
        self._name = 0
        # Taken from the ring and not told. The ring gives some of them again if a signal handler
        # has raised while they were taken; their names are not under way any more.
        self._taken: deque[tuple[int, int]] = deque()
        # While results are told: what to call once all at hand are.
        self._last: list[Callable[[], object]] | None = None
        self._empty: asyncio.Future[None] | None = None  # `end` waits for it
        # Not with the contextvars of the task that happens to be the first.
        try:
            Context().run(self._loop.add_reader, self._ring.fd, self._look)
        except BaseException:  # the selector has no room
            self._ring.close()
            raise

    def __repr__(self) -> str:
        return f"<HomeRing of {self._context.name!r}: {len(self._under_way)} requests under way>"

    @property
    def usable(self) -> bool:
        """True if this thread may submit, and there is room: not in a stand-in."""
        return len(self._under_way) < _ENTRIES and _thread.get_ident() == self._thread

    @property
    def free(self) -> int:
        """How many of the kernel's threads are left, if each request under way has one."""
        return MOST_THREADS - len(self._under_way)

    def start(self, operation: Operation) -> None:
        """Begin an operation of a `usable` ring; `submit` must follow.

        It may end at once, if it does not have to wait. If this raises, `cut_short` must follow.
        """
        self._go_on(operation, None)

    def cut_short(self, operation: Operation, error: BaseException) -> bool:
        """End an operation whose `start` has raised; False if it goes on nevertheless."""
        if operation.passed or operation.name in self._under_way:
            return False
        if not operation.ended:
            operation.close(error)
        self._end(operation)
        return True

    def submit(self) -> None:
        """Pass what was started to the kernel, in one system call."""
        if self._ring.queued:
            for _ in range(self._ring.submit()):  # none, unless the kernel has no memory
                _, operation = self._under_way.popitem()
                self._pass_to_worker(operation)

    async def carry_out(self, steps: Steps) -> None:
        """Begin an operation and wait for its end, even if this task is cancelled meanwhile."""
        operation = Awaited(steps)
        try:
            self.start(operation)
        except BaseException as error:  # out of memory, or a signal handler raised
            self.cut_short(operation, error)
            raise
        self.submit()
        cancelled: BaseException | None = None
        while not operation.ended:
            operation.waiter = self._loop.create_future()
            try:
                await operation.waiter
            except asyncio.CancelledError as error:
                cancelled = error
        try:
            if cancelled is not None:
                raise cancelled
            if operation.error is not None:
                raise operation.error
        finally:
            del operation, cancelled  # a cycle otherwise: the traceback holds them

    def call_last(self, fn: Callable[[], object]) -> bool:
        """Have `fn()` called when all results at hand are told; False if none are being told."""
        if self._last is None:
            return False
        self._last.append(fn)
        return True

    # Results.

    def _look(self) -> None:
        """Take the results at hand, and tell them. In a stand-in too: that only reads memory."""
        taken = self._taken
        self._ring.results(taken, _AT_ONCE)
        last = self._last = []
        ended = False
        try:
            while True:  # not `while taken`: the jump rule
                if not taken:
                    break
                name, result = taken[0]
                self._tell(name, result)
                del taken[0]  # not before, nor by a call: a signal handler may raise after that
            self._last = None
            self.submit()  # nothing in a stand-in, where `usable` was False
            while True:
                if not last:
                    break
                last.pop()()
            ended = True
        finally:
            if not ended:  # it was interrupted, perhaps by what the last result led to
                self._last = None
                for fn in (*last, self._look):
                    self._loop.call_soon(fn)
                self.submit()
        if self._empty is not None and not self._under_way:
            set_unless_done(self._empty)

    def _tell(self, name: int, result: int) -> None:
        operation = self._under_way.get(name)
        if operation is None:
            return  # told before
        try:
            if result in _NOT_DONE:
                del self._under_way[name]
                self._pass_to_worker(operation)
            else:
                self._go_on(operation, _outcome(result), self._under_way)
        except BaseException:  # a signal handler raised
            self._loop.call_soon(self._resume, operation)
            raise

    def _resume(self, operation: Operation) -> None:
        """Do what was left of an operation whose result was being told."""
        if operation.passed:
            return  # its worker does it
        if operation.ended:
            self._end(operation)
        elif operation.name not in self._under_way:
            self._pass_to_worker(operation)

    def _end(self, operation: Operation) -> None:
        operation.release()
        operation.tell()

    def _go_on(
        self,
        operation: Operation,
        result: int | OSError | None,
        under_way: dict[int, Operation] | None = None,
    ) -> None:
        if not operation.go_on(result, under_way):
            self._end(operation)
        elif self.usable:
            self._queue(operation)
        else:
            self._pass_to_worker(operation)

    def _queue(self, operation: Operation) -> None:
        assert operation.step is not None
        what, fd, offset, length, buffer = operation.step
        address = 0
        if buffer is not None:
            try:
                address, operation.pin = address_of(buffer)
            except (TypeError, ValueError, BufferError):  # a worker's call raises what fits
                self._pass_to_worker(operation)
                return
        _held.add(operation.steps)
        name = operation.name = self._name = self._name + 1
        self._under_way[name] = operation  # before it is queued: this keeps the memory
        try:
            self._ring.queue(what, fd, offset, address, length, name)
        except BaseException:  # of a signal handler
            del self._under_way[name]
            raise

    # What the ring cannot do now.

    def _pass_to_worker(self, operation: Operation) -> None:
        """Have a worker do the rest."""
        call = Call(operation.block, last=_nothing, tell=lambda _: self._pass_home(operation))
        try:
            pool = pool_of(self._context)
            operation.passed = True
            call.begin(pool)
        except RuntimeError as error:  # no worker is available
            operation.passed = False
            _fail(operation, error)
            self._end(operation)

    def _pass_home(self, operation: Operation) -> None:
        """Tell of an operation that a worker has carried out, in the home if it has not ended.

        Called from: any thread.
        """
        if not operation.ended:  # the workers were shut down before one began it
            _fail(operation, RuntimeError("the workers have been shut down"))
        operation.release()
        with suppress(RuntimeError):  # the home has ended
            self._context.call_soon(operation.tell)

    # The end.

    async def end(self) -> None:
        """Wait for what is under way."""
        self.submit()  # what an exception has kept from that
        if self._under_way:
            self._empty = self._loop.create_future()
            await self._empty

    def close(self) -> None:
        """Close it. What is still under way goes on, and a thread waits for that."""
        if not self._loop.is_closed():
            self._loop.remove_reader(self._ring.fd)
        self._thread = 0  # nothing is submitted from now on
        if self._under_way:
            _thread.start_new_thread(self._wait, ())
        else:
            self._ring.close()

    def _wait(self) -> None:
        """End what a home has left under way, so that descriptors and claims are released."""
        taken = self._taken
        while self._under_way:
            self._ring.results(taken)
            while taken:
                name, result = taken.popleft()
                operation = self._under_way.pop(name, None)
                if operation is None:
                    continue
                if result in _NOT_DONE or operation.go_on(_outcome(result)):
                    operation.block()
                operation.release()
            if self._under_way:
                self._ring.wait()
        self._ring.close()

    def leave_in_child(self) -> None:
        """Close the copies that a forked process has; keep what the parent's kernel works for."""
        _parents.append(self._under_way)  # its finalisers would acquire locks
        self._ring.close()


# Not a failure of the call: it was interrupted, or not made.
_NOT_DONE = {-errno.EINTR, -errno.EAGAIN, -errno.ECANCELED}
_parents: list[Any] = []
# The steps of operations under way. A loop that is dropped without a `close` is closed as it is
# collected; by then its cycle's generators would be closed, and have released their descriptors.
_held: set[Steps] = set()


def _outcome(result: int) -> int | OSError:
    return OSError(-result, os.strerror(-result)) if result < 0 else result


def _nothing() -> None:
    pass


def _fail(operation: Operation, cause: BaseException) -> None:
    error = OSError(errno.EIO, f"no thread is left for a request: {cause}")
    if operation.go_on(error):
        operation.close(error)


def ring_here() -> HomeRing | None:
    """Return the ring of the current context, if it has one and this thread may use it.

    Called from: any thread.
    """
    context = current_context()
    if not isinstance(context, LoopContext):
        return None
    ring = context.disk_ring
    if ring is None and context.is_run_here():
        context.disk_waits += 1
        if context.disk_waits > FEW:
            ring = context.disk_ring = _new_ring(context) or False
    return ring if ring and ring.usable else None


def _new_ring(context: LoopContext) -> HomeRing | None:
    """Return a ring, or None where there is none: workers do the same work."""
    if os.environ.get(_SWITCH) == "0":
        return None
    try:
        return HomeRing(context)
    except (OSError, ImportError, ValueError, AttributeError):
        return None
