"""Task: a coroutine being run, and its home.

At any time a task stands in at most one queue. Its other fields are touched by its home's thread
only; the mailbox hands them over.
"""

from __future__ import annotations

import asyncio
import inspect
from contextvars import Context, copy_context
from types import CoroutineType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from .._aio.futures import RECORDS_AWAITS, CFuture, ask_in_vain, begins_wait, loop_of, new_future
from .._aio.tasks import enter_task, keep_alive, let_die, strike_out, unfinished
from .._errors import ContextClosed
from .._os.process import AtFork, at_fork
from .cell import MOVING, NEW, PROMISED, SUSPENDED, Enterable
from .context import AioContext
from .coroutines import as_coroutine, state_of
from .current import current_context
from .cut_short import LOST, mend
from .far import Cancel, FarWait, send_cancel
from .loop import Loop
from .pursuit import on_leaving, pursuing
from .put_back import carries
from .resumption import continue_surely
from .stand_in import may_run_here
from .task_interface import CANCEL, CANCEL_SURELY, CANCELS, _numbers, at_home, at_home_in_debug

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

if RECORDS_AWAITS:
    from .._aio.futures import forget_await

T = TypeVar("T")

_future_init = CFuture.__init__
_future_cancel = CFuture.cancel
_set_result = CFuture.set_result
_set_exception = CFuture.set_exception


class Task(Enterable[T]):
    """An `async def` call being run: asyncio.Task's interface, and a home.

    `asyncio.create_task` on homebound's loops and `AioContext.spawn` make tasks that begin by
    themselves. A task made directly does not begin until it is entered, scheduled or woken; without
    `home` it has no home until then. `context` is the contextvars.Context it runs in (default: a
    copy of the caller's). With a `loop`, which asyncio's task factories pass, it is at home there
    and begins by itself. So it does with `eager_start`, at once if the caller is at home. Raises
    TypeError if `coro` is no coroutine or `context` no Context.

    >>> import homebound
    >>> async def main():
    ...     async def work():
    ...         await homebound.suspend()
    ...         return "woken"
    ...     task = homebound.Task(work())
    ...     context = homebound.current_context()
    ...     context.schedule(task)
    ...     await asyncio.sleep(0)
    ...     task.wake()
    ...     return await task
    >>> import asyncio
    >>> homebound.run(main())
    'woken'

    Called from: any thread.
    """

    __slots__ = (
        "_far",  # a FarWait while it awaits a future of another loop, else None
        "_log_destroy_pending",  # set by asyncio's loops; unset at first, which means True
        "_wait",  # what it queues for while suspended (_sync/waiters.py) or None; unset at first
    )

    _wait: Any

    def __init__(  # noqa: PLR0913  (asyncio.Task's, and the home)
        self,
        coro: Coroutine[Any, Any, T],
        *,
        home: AioContext | None = None,
        name: str | None = None,
        context: Context | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
        eager_start: bool = False,
    ) -> None:
        if loop is not None:
            home = AioContext.attach(loop)
        elif eager_start and home is None:
            home = current_context()
        inside = eager_start and home is not None and home._may_begin_inside(context)
        debug = loop is not None and loop.get_debug()
        self._set_up(coro, home, name, context, debug)
        if debug:
            self._hide_maker(2)
        if home is None or not (eager_start or loop is not None):
            self._cell = [SUSPENDED]
            self._suspended = NEW
            return
        self._begin(home, inside=inside)

    def _begin(self, home: AioContext, *, inside: bool) -> None:
        keep_alive(self)
        try:
            if inside:
                home._begin_inside(self)
            else:
                home._post(self)
        except ContextClosed:
            self._abandon("was never started")
            raise

    # Set below: `_queued`, and for debug mode `_queued_with_origin`. Not class methods: binding one
    # to its class is a look-up that no Python specialises, and an object, for each task.
    _queued: ClassVar[Callable[..., Task[Any]]]
    _queued_with_origin: ClassVar[Callable[..., Task[Any]]]

    def _set_up(
        self,
        coro: Coroutine[Any, Any, T],
        home: AioContext | None,
        name: str | None,
        context: Context | None,
        debug: bool,  # noqa: FBT001  (no default: a call that leaves arguments out costs more)
    ) -> None:
        """Set all fields, as those of a task that the caller puts into a mailbox."""
        _future_init(self, loop=at_home_in_debug if debug else at_home)
        if type(coro) is not CoroutineType:
            coro = as_coroutine(coro)
        self._body = coro
        self._send = coro.send
        self._home = home
        if context is None:
            self._vars = copy_context()
        elif type(context) is Context:
            self._vars = context
        else:
            message = f"a contextvars.Context was expected, got {type(context).__name__}"
            raise TypeError(message)
        self._name = next(_numbers) if name is None else str(name)
        self._listeners = []
        self._fut_waiter = None
        self._far: FarWait | None = None
        self._throw: BaseException | None = None
        self._num_cancels_requested = 0
        self._cancelled = False
        self._cell = PROMISED
        self._suspended = True

    # Running. Home only.

    def _run(self) -> None:  # noqa: C901, PLR0912, PLR0915  (every step of every task: no calls to spare)
        """Run one step, then the tasks that it has woken. What is raised in here: cut_short.py."""
        home: AioContext = self._home  # type: ignore[assignment]
        loop = home.loop
        yielded: Any  # unset while nothing has come back: to set it here would cost each step
        try:
            if self._suspended is True:
                self._suspended = False
                self._cell = []
            elif self._suspended:
                self._arrive()
            enter_task(loop, self)
            try:
                if self._throw is not None:
                    yielded = self._vars.run(self._body.throw, self._to_throw())
                else:
                    self._fut_waiter = None
                    yielded = self._vars.run(self._send, None)
            except StopIteration as stop:
                yielded = stop
                leave_task = home._leave_task
                leave_task(loop, self)
                if self._throw is None:
                    _set_result(self, stop.value)
                    let_die(self)
                else:
                    self._succeed(stop.value)
                if self._listeners:
                    self._announce()
                yielded = None  # it refers to this frame
            except BaseException as error:
                body = self._body
                if type(body) is CoroutineType and body.cr_frame is not None:
                    raise  # not its own exception
                yielded = error
                leave_task = home._leave_task
                leave_task(loop, self)
                if self._fail(error):
                    raise
                # A traceback refers to this frame. If that referred to the task, its exception that
                # is never retrieved would be reported only when the garbage collector runs.
                del self, yielded, body
            else:
                leave_task = home._leave_task
                leave_task(loop, self)
                # From now on another thread may run the task: each branch touches it last.
                if yielded is None:
                    home._ready.append(self)
                elif yielded is SUSPENDED:
                    if self._throw is None:
                        self._suspended = True
                        cell = yielded = self._cell
                        cell.append(SUSPENDED)
                    else:
                        cell = yielded = self._claim_own_suspension()
                    if cell[0] is not SUSPENDED:  # the wake came first
                        self._queue_early(cell[0])
                elif type(yielded) is Task and yielded is not self:  # _wait_for, without the call
                    self._fut_waiter = yielded
                    yielded._listeners.append(self)  # then look: pairs with the end, then _announce
                    if yielded.done():
                        yielded._announce()
                    if self._throw is CANCEL:
                        self._cancel_awaited()
                else:
                    self._wait_for(yielded, home)
        except BaseException as error:
            try:
                back = yielded
            except UnboundLocalError:
                back = LOST
            if not mend(self, home, back, error):
                raise
        if home._woken and not home._chained:
            home._run_chain()

    def _to_throw(self) -> BaseException:
        error: Any = self._throw
        if self._fut_waiter is not None:
            ask_in_vain(self._fut_waiter)
        if error in CANCELS:
            error = self._cancelled_error()
        self._throw = self._fut_waiter = None  # last: until then it is to be thrown
        return error  # type: ignore[no-any-return]

    def _wait_for(self, yielded: Any, home: AioContext) -> None:  # noqa: C901, PLR0912  (cases)
        """Wait for what the coroutine yielded: a future, or a context to move to.

        `_run` itself waits for another task, and suspends.
        """
        if yielded is self:
            self._resume_with(RuntimeError(f"Task cannot await on itself: {self!r}"))
            return
        blocking = begins_wait(yielded, self)
        if blocking:
            self._fut_waiter = yielded
            try:
                loop = yielded.get_loop()
            except AttributeError:
                loop = loop_of(yielded)
            if loop is home.loop:
                yielded.add_done_callback(self, context=self._vars)
            else:
                self._far = FarWait(self, yielded)
            if self._throw is CANCEL:
                self._cancel_awaited()
        elif isinstance(yielded, AioContext):
            if pursuing:
                on_leaving(self, home)
            try:
                if yielded._drained:
                    yielded._refuse()
                self._suspended = MOVING  # nothing can come between this and the next call
                self._home = yielded
                yielded._ready.append(self)
                if yielded._bell:
                    yielded._ring(self)
            except ContextClosed as closed:
                self._suspended = False
                self._home = home
                self._resume_with(closed)
        else:
            text = f"Task got bad yield: {yielded!r}"
            if blocking is not None:
                text = f"yield was used instead of yield from in task {self!r} with {yielded!r}"
            self._resume_with(RuntimeError(text))

    def _heard(self, _: object) -> None:
        """Queue it at its home, as what it awaits is done."""
        home: AioContext = self._home  # type: ignore[assignment]
        home._ready.append(self)
        if home._bell:
            try:
                home._ring(self)
            except ContextClosed:
                pass  # and so this task was abandoned

    if RECORDS_AWAITS:

        def _future_done(self, _: object) -> None:
            """Do as `_heard`, and have the future forget the task. Each await runs this."""
            forget_await(self._fut_waiter, self)
            home: AioContext = self._home  # type: ignore[assignment]
            home._ready.append(self)
            if home._bell:
                try:
                    home._ring(self)
                except ContextClosed:
                    pass
    else:
        _future_done = _heard

    # Ending. Home only.

    def _succeed(self, value: Any) -> None:
        """End the task with what its coroutine returned, unless cancelled in its last step."""
        if self._throw is None:
            _set_result(self, value)
        else:
            self._throw = None
            _future_cancel(self, msg=self._cancel_message)
        let_die(self)

    def _fail(self, error: BaseException) -> bool:
        """End the task with an exception of its coroutine; True if it must end the loop as well."""
        trace = error.__traceback__
        if trace is not None and trace.tb_next is not None:
            error.__traceback__ = trace.tb_next  # begin in the coroutine, not in what runs it
        if isinstance(error, asyncio.CancelledError):
            self._end_cancelled(error)
        else:
            _set_exception(self, error)
        let_die(self)
        if self._listeners:
            self._announce()
        return isinstance(error, (KeyboardInterrupt, SystemExit))

    def _abandon(self, why: str) -> None:
        """End it with ContextClosed, as its home has ended, and notify its waiters."""
        if not self.done():
            _set_exception(self, ContextClosed(f"task {self.get_name()!r} of {self._home!r} {why}"))
            self._mark_retrieved()
            if (waiter := getattr(self, "_wait", None)) is not None:
                waiter.abandoned()  # what it was handed, or queues for, goes to the next
        # Also if it is done, perhaps by a call that was interrupted.
        self._far = None
        if state_of(self._body) == inspect.CORO_CREATED:
            self._body.close()
        self._announce()
        let_die(self)

    def _unrun(self) -> None:
        """End it, as it was in the mailbox of a home that has ended."""
        self._abandon("ended with it")

    # asyncio.Task's interface.

    def cancel(self, msg: Any | None = None) -> bool:
        """Request that the task cancel itself; False if it is done. See asyncio.Task.cancel.

        A request from another thread wakes the task's home if it sleeps, and runs there ahead of
        what is queued: a task that has not begun never does, and a task that moves is cancelled as
        it arrives.

        Called from: any thread.
        """
        self._mark_retrieved()
        if self.done():
            return False
        home = self._home
        if home is None:
            self._home = current_context()
            if self._claim(self._home):  # type: ignore[arg-type]
                self._body.close()
                _future_cancel(self, msg=msg)
                self._announce()
            return True
        there: bool | AioContext = home
        if may_run_here(home):
            there = self._cancel_here(msg, home)
        elif home._occupy():  # before or between runs of the loop, with no home thread
            try:
                there = self._cancel_here(msg, home)
            finally:
                home._vacate()
        return there if isinstance(there, bool) else send_cancel(self, msg, there)

    def _cancel_here(self, msg: Any, home: AioContext, *, again: bool = False) -> bool | AioContext:
        """Cancel it in the thread of `home`; return where to, if it is being taken elsewhere."""
        if self.done():
            return False
        claimed = self._claim_to_cancel(home)
        if not isinstance(claimed, bool):
            return claimed
        if not again:
            self._num_cancels_requested += 1
        if self._fut_waiter is not None and self._cancel_waiter(msg):
            return True
        if self._throw is not CANCEL_SURELY:
            self._throw = CANCEL
        self._cancel_with(msg)
        if claimed:
            if self._suspended is True:
                self._throw = CANCEL_SURELY
            home._post(self)
        return True

    def _end_far_wait(self, error: BaseException | None, *, cancelled: bool) -> None:
        """Run its next step, as what it awaits on another loop is done; throw `error` if given."""
        self._far = None
        if cancelled:
            self._throw = CANCEL
        elif self._throw is None:
            self._throw = error
        self._run()

    def _resume_if_lost(self, home: AioContext) -> None:
        """Have it run once more, unless it runs or something is to wake it; it is in no queue.

        Another thread that moved it here, woke it, or ended what it awaits may be about to queue
        it, and does, whatever is raised there. Only what this thread was to queue is lost.
        """
        awaited = self._fut_waiter
        if getattr(self._body, "cr_running", False) or self._suspended == MOVING:
            return
        if self._suspended:
            self._resume_as_promised()
        elif awaited is None:
            home._post(self)
        elif self._far is None and awaited.done() and getattr(awaited, "_home", home) is home:
            continue_surely(self, awaited)

    def _cancel_awaited(self) -> None:
        """Pass a cancellation that came before the wait on to what it now awaits."""
        if self._cancel_waiter(self._cancel_message):
            self._throw = None

    def _cancel_waiter(self, msg: Any) -> bool:
        """Cancel what it awaits; False if that is already done."""
        waiter = self._fut_waiter
        if self._far is not None:
            return self._far.cancel(msg)
        elsewhere = waiter._home if type(waiter) is Task else None
        if elsewhere is not None and elsewhere is not self._home and not waiter.done():
            try:
                Cancel(waiter, msg, self).send(elsewhere)
            except ContextClosed:
                return False
            return True
        cancelled: bool = waiter.cancel(msg=msg)
        if not cancelled and waiter.done() and type(waiter) is not Task:
            continue_surely(self, waiter)  # if the future's note to it was cut short: cut_short.py
        return cancelled


def _queued(
    coro: Coroutine[Any, Any, Any],
    home: AioContext,
    name: str | None,
    context: Context | None,
    *,
    debug: bool = False,
) -> Task[Any]:
    """Make a task that the caller puts into its home's mailbox.

    Calling the class would cost two thirds more, as that passes a dict to __init__.
    """
    task: Task[Any] = new_future(Task)
    task._set_up(coro, home, name, context, debug)
    try:
        keep_alive(task)
    except BaseException:  # a signal handler raised: nothing is to wait for this task
        let_die(task)
        raise
    return task


def _queued_with_origin(
    coro: Coroutine[Any, Any, Any], home: AioContext, name: str | None, context: Context | None
) -> Task[Any]:
    """Make a task that knows where it was made, for debug mode."""
    task = _queued(coro, home, name, context, debug=True)
    task._hide_maker(5)  # down to the loop's caller
    return task


Task._queued = _queued
Task._queued_with_origin = _queued_with_origin
AioContext.task_type = Loop.task_type = Task


def _make_task(
    loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, T], **options: Any
) -> Any:
    """Make a task at home on `loop`: the task factory of a loop that has none of its own.

    Called from: any thread.
    """
    return Task(coro, loop=loop, **options)


carries(Task._run)
AioContext.own_factory = Loop.own_factory = staticmethod(_make_task)
at_fork(AtFork.TASKS, lambda: strike_out(unfinished(Task)))
