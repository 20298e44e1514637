"""The end of a loop: its tasks, asynchronous generators and workers, then the loop itself."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from .._aio.generators import hand_on_strays
from .._aio.tasks import be_lost_quietly
from .._os.clock import Deadline, monotonic
from .late_posts import pause_posts, refuse_tasks
from .left_over import left_over
from .loop import Loop
from .resumption import find_lost

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from .context import AioContext

_RECHECK = 0.05  # seconds between two looks at the tasks of a home that ends, at least
_REST = 10  # times as long as a look took, it waits until the next: it reads every task
_MOST_TRIES = 100  # to close a context, or to end it in parts, if each is interrupted
# Of one end, at most; a loop that cannot run fails each time, and at once.
_INTERRUPTIONS = range(10_000)
_MOST_GENERATIONS = 64  # of tasks that are made while others end; see _end_tasks


def bound_end(context: AioContext, timeout: float | None) -> None:
    """Limit how long winding down this context may take (None: no limit).

    Call it at home, before winding down.
    """
    context._shutdown_timeout = timeout


def bound_end_now(context: AioContext, timeout: float) -> None:
    """Limit the time that the end of this context may take from now on. Home."""
    context._shutdown_timeout = timeout
    context._end_by = Deadline(timeout)
    context.loop.call_later(timeout, context.loop.stop)


def ask_to_end(context: AioContext) -> None:
    """Have an I/O thread end; ContextClosed if it has. Called from: any thread."""
    refuse_tasks(context)
    context.call_soon(_end_once, context)


def _end_once(context: AioContext) -> None:
    """Stop the loop, unless its end has begun, which must not be interrupted."""
    if not context._ending:
        context.loop.stop()


def wind_down(context: AioContext, failure: str) -> None:
    """End everything at home in the context, then its loop; report errors meanwhile as `failure`.

    The end goes on if the loop is told to stop again, if something raises SystemExit in an I/O
    thread, and if a signal handler raises: that is raised once everything has ended. Only
    KeyboardInterrupt and SystemExit in the main thread cut it short, as with asyncio.
    """
    end: _End | None = None
    raised: BaseException | None = None
    try:
        for _ in _INTERRUPTIONS:
            try:
                if end is None:
                    end = _End(context, failure)
                end.go_on()
                break
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                if context.loop.is_closed():
                    raise
                raised = raised or error
            continue  # last: the jump rule
        if raised is not None:
            raise raised
    finally:
        raised = None  # its traceback refers to this frame
        close_surely(context)


def close_surely(context: AioContext) -> None:
    """Close a context, though exceptions from another thread may have cut its end short. Home."""
    for _ in range(_MOST_TRIES):
        if context._over and context.loop.is_closed():
            return
        try:
            context.loop.close()
            context._close()
        except BaseException:  # noqa: BLE001, S110  (the first one is raised)
            pass


class _End:
    """The end of a context, which goes on after an exception. Home."""

    def __init__(self, context: AioContext, failure: str) -> None:
        self._context = context
        self._failure = failure
        # The parts that are left, in order; and the task of the first, once it has begun.
        self._parts = self._all_parts()
        self._task: Any = None
        self._failures = 0  # of parts
        self._look: asyncio.TimerHandle | None = None
        self._look_again = _RECHECK  # seconds after the last look
        # The tasks that were cancelled: each is, once.
        self._asked: set[Any] = set()
        # The code that raised SystemExit meanwhile: a reader's callback raises it in each
        # iteration, and is reported once.
        self._told: set[Any] = set()

    def _all_parts(self) -> list[Callable[[], Coroutine[Any, Any, None]]]:
        loop = self._context.loop
        return [
            self._end_tasks,
            loop.shutdown_asyncgens,
            loop.shutdown_default_executor,
            self._context._end_workers,
            self._end_tasks,  # those that were on their way here
            loop.shutdown_asyncgens,  # and those begun meanwhile
        ]

    def go_on(self) -> None:
        """Run what is left of it; again, if something was raised: no part is left out."""
        context = self._context
        context._ending = True
        context._end_begins()
        refuse_tasks(context)
        while self._parts:
            if self._task is None or self._has_failed():
                self._task = None
                self._task = context.loop.create_task(self._run_part())
            if not self._task.done() and not self._finish(self._task):
                return
            self._task = None
            del self._parts[0]

    async def _run_part(self) -> None:
        if self._task in (None, asyncio.current_task()):  # else lost as a signal handler raised
            await self._parts[0]()

    def _has_failed(self) -> bool:
        """Return whether the part is to be run again, as a signal handler may have raised in it."""
        task = self._task
        if not task.done() or task.cancelled() or task.exception() is None:
            return False
        self._failures += 1
        return self._failures < _MOST_TRIES

    def _finish(self, task: Any) -> bool:  # noqa: C901  (each way it may end)
        """Run one part of the end to completion; False if there is no time left for that."""
        context = self._context
        loop = context.loop
        while True:
            self._find_lost()
            alarm = None
            if context._end_by is not None:
                alarm = loop.call_later(context._end_by.timeout() or 0.0, loop.stop)
            try:
                loop.run_until_complete(task)
            except (SystemExit, KeyboardInterrupt) as error:
                if task.done() or threading.current_thread() is threading.main_thread():
                    raise
                _report_once(context, self._failure, error, self._told)
            except RuntimeError:
                if task.done() or loop.is_closed():
                    raise
                if context._end_is_over():
                    _abandon(context, task, self._parts[0].__name__)
                    return False
                # Otherwise the loop was told to stop, which it does once this is done.
            else:
                return True
            finally:
                if alarm is not None:
                    alarm.cancel()
                if self._look is not None:
                    self._look.cancel()

    def _find_lost(self) -> None:
        """Look now and then for tasks that what a signal handler raised has kept from waking."""
        context = self._context
        if isinstance(context.loop, Loop):
            self._look = context.loop.call_later(self._look_again, self._find_lost)
            begun_at = monotonic()
            pause_posts(context)
            find_lost(context)
            self._look_again = max(_RECHECK, _REST * (monotonic() - begun_at))

    async def _end_tasks(self) -> None:
        """Cancel each task at home on the loop once, and wait until there is none.

        Cleanup may make new tasks, and wait for them (gather, wait_for): they are cancelled, and
        waited for, once the tasks cancelled before have ended. Other threads could make tasks
        forever, so the number of rounds is limited: the tasks left then end with the home.
        """
        await hand_on_strays(self._context)  # while the tasks here are seen to iterate theirs
        loop = self._context.loop
        me = asyncio.current_task()
        asked = self._asked
        generation: set[Any] = set()
        generations = 0
        while tasks := asyncio.all_tasks(loop) - {me}:
            generation &= tasks
            if not generation:
                if generations == _MOST_GENERATIONS:
                    break
                generations += 1
                for task in tasks - asked:
                    task.cancel()
                    asked.add(task)
                generation = tasks
            # With a timeout: a task that moves away, cleanup and all, is not waited for.
            await asyncio.wait(generation, timeout=_RECHECK)
        while asked:
            self._report_failure(asked.pop())
        self._context._drained = True

    def _report_failure(self, task: Any) -> None:
        """Report what a task raised as it was cancelled."""
        if task.done() and not task.cancelled():
            error = task.exception()
            if error is not None and not isinstance(error, (SystemExit, KeyboardInterrupt)):
                # SystemExit was reported to the loop's exception handler when it was raised.
                about = {"message": self._failure, "exception": error, "task": task}
                self._context.loop.call_exception_handler(about)


def _report_once(context: AioContext, failure: str, error: BaseException, told: set[Any]) -> None:
    """Report an exception, unless the code that raised it is among those `told`."""
    trace: Any = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    if trace.tb_frame.f_code not in told:
        told.add(trace.tb_frame.f_code)
        context.loop.call_exception_handler({"message": failure, "exception": error})


def _abandon(context: AioContext, part: Any, name: str) -> None:
    """Report what has not ended when the time is over; its waiters are notified by the close."""
    be_lost_quietly(part)
    if context.workers is not None:
        context.workers._bound_exit(0.0)
    message = (
        f"{context.name!r} has not ended after {context._shutdown_timeout} s, "
        f"in {name}; abandoned:{left_over(context, part)}"
    )
    context.loop.call_exception_handler({"message": message})
