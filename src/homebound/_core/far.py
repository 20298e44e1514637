"""Awaiting and cancelling across loops: messages between homes, as mailbox entries.

A future belongs to its loop's thread. So a task that waits for one from another home sends an entry
to that loop, which adds a callback to the future, and the answer comes back as an entry. A
cancellation request goes the same way, and comes back if it was too late: none gets lost between
two threads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._aio.futures import RECORDS_AWAITS, loop_of
from .._errors import ContextClosed
from .coroutines import waited_for
from .current import current_context
from .foreign_loops import end_of
from .loop import Loop
from .pursuit import Pursuer, post_after

if TYPE_CHECKING:
    from collections.abc import Callable

    from .context import AioContext
    from .mailbox import Entry
    from .task import Task

if RECORDS_AWAITS:
    from .._aio.futures import forget_await


def _send(loop: Any, run: Callable[[], object], entry: Entry) -> None:
    """Have an entry run in `loop`'s thread. Raises RuntimeError if the loop has ended."""
    if isinstance(loop, Loop):
        loop.home._post(entry)
    else:
        loop.call_soon_threadsafe(run)


class FarWait:
    """A task's wait for a future of another loop: it runs there first, then once more at home."""

    __slots__ = ("_answered", "_asked", "_error", "_future", "_taken", "_task", "_waits")

    _cancelled = False

    def __init__(self, task: Task[Any], future: Any) -> None:
        self._task = task
        self._future = future
        self._error: BaseException | None = None
        self._answered = False  # set by the thread that answers, which then posts it
        self._asked = 0  # how often the task was cancelled meanwhile. Home only
        self._taken = 0  # how many of those cancelled the future. Far thread only, until the answer
        loop = loop_of(future)
        if isinstance(loop, Loop):
            self._waits: set[FarWait] = loop.home._far_waits
            closed = False
        else:
            # Added before it is sent, as a foreign loop may drop what comes too late.
            end = end_of(loop)
            self._waits = end.far_waits
            self._waits.add(self)  # then look: pairs with LoopEnd.tell
            closed = end.closed
        try:
            if not closed:
                _send(loop, self._run, self)
                return
        except RuntimeError:
            pass
        if isinstance(loop, Loop) or self._taken_out():
            self.abandon()

    def _run(self) -> None:
        if self._answered:
            # A request that came after the future was done ends this wait, as it does on one loop.
            self._task._end_far_wait(self._error, cancelled=self._asked > self._taken)
            return
        self._waits.add(self)
        self._future.add_done_callback(self._done)

    def _done(self, _future: Any) -> None:
        if self._taken_out():
            self._answer()

    def _taken_out(self) -> bool:
        """Remove it from the waits; True if this call did, and so has to answer."""
        try:
            self._waits.remove(self)
        except KeyError:
            return False
        return True

    def _answer(self) -> None:
        if RECORDS_AWAITS:
            forget_await(self._future, self._task)
        self._answered = True
        home: AioContext = self._task._home  # type: ignore[assignment]
        try:
            home._post(self)
        except ContextClosed:
            pass  # and so the waiting task was abandoned

    def abandon(self) -> None:
        """Answer the waiter, as the far loop has ended; it gets the result if there is one."""
        if not self._future.done():
            message = f"{waited_for(self._future)} will never be done: its loop has ended"
            self._error = ContextClosed(message)
        self._answer()

    def _unrun(self) -> None:
        """End the wait if it was on its way to the far loop, whose context has closed."""
        if not self._answered:
            self.abandon()

    def cancel(self, msg: Any) -> bool:
        """Cancel the future in its loop's thread; False if that loop has ended."""
        cancel = _CancelFuture(self, msg)
        try:
            _send(loop_of(self._future), cancel._run, cancel)
        except RuntimeError:
            return False
        self._asked += 1
        self._task._cancel_with(msg)
        return True

    def _cancel_there(self, msg: Any) -> None:
        if self._future.cancel(msg=msg):
            self._taken += 1


class _CancelFuture:
    """A cancellation request on its way to the loop of a future."""

    __slots__ = ("_msg", "_wait")

    _cancelled = False

    def __init__(self, wait: FarWait, msg: Any) -> None:
        self._wait = wait
        self._msg = msg

    def _run(self) -> None:
        self._wait._cancel_there(self._msg)


class Cancel(Pursuer):
    """A cancellation request on its way to the home of a task.

    `behalf` is a cancelled task that waits for the target: if the target is done when the request
    arrives, the request comes back to that task.
    """

    __slots__ = ("_behalf", "_msg")

    def __init__(self, target: Task[Any], msg: Any, behalf: Task[Any] | None) -> None:
        super().__init__(target)
        self._msg = msg
        self._behalf = behalf

    def _act(self) -> None:
        home: AioContext = current_context()  # type: ignore[assignment]
        if not self._task._cancel_here(self._msg, home):
            self._give_up()

    def _give_up(self) -> None:
        """Send the request back, as it came too late."""
        super()._give_up()
        behalf = self._behalf
        if behalf is None or behalf.done():
            return
        home: AioContext = behalf._home  # type: ignore[assignment]
        try:
            post_after(behalf, _CancelAgain(behalf, self._msg), home)
        except ContextClosed:
            pass  # abandoned


def send_cancel(task: Task[Any], msg: Any, home: AioContext) -> bool:
    """Send a cancellation request to the home of a task; False if the task has ended with that."""
    try:
        Cancel(task, msg, None).send(home)
    except ContextClosed:
        return False
    return True


class _CancelAgain(Pursuer):
    """A request on its way back to the waiter, which is then cancelled itself.

    It is dropped if the waiter was uncancelled meanwhile, as asyncio.timeout() does when its block
    ends in spite of the cancellation.
    """

    __slots__ = ("_msg",)

    def __init__(self, waiter: Task[Any], msg: Any) -> None:
        super().__init__(waiter)
        self._msg = msg

    def _act(self) -> None:
        if self._task._num_cancels_requested:
            home: AioContext = current_context()  # type: ignore[assignment]
            self._task._cancel_here(self._msg, home, again=True)
