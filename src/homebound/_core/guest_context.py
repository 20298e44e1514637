"""The context of a foreign loop: Qt's, uvloop's, asyncio's.

It needs only asyncio's public interface of the loop. What is in the mailbox runs in a callback of
the loop, a batch each; a burst of posts costs one `call_soon_threadsafe`.

It may be the main context, if the process's main thread runs the loop. A foreign loop cannot be
made to release the big lock while it sleeps. So the main thread acquires it for each batch instead,
and there are no stand-ins: see docs/design/core.md.
"""

from __future__ import annotations

import _thread
import sys
import threading
from collections import deque
from contextlib import contextmanager
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING, Any

from .._aio.generators import GuestHooks
from .._aio.tasks import running_loop, task_here
from .._errors import ContextError
from .._os.no_copy import refuse_threaded_copy
from .bell import CLOSED
from .big_lock import big_lock
from .context import AioContext, whereabouts
from .current import here, main, main_context, set_home, set_main
from .foreign_loops import context_of
from .loop import Loop
from .mailbox import put_up_bell
from .put_back import put_back
from .served import made_for, runs_threads

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

    from .foreign_loops import LoopEnd
    from .mailbox import Entry
    from .task import Task


class GuestContext(AioContext):
    """The context of a loop that is not homebound's."""

    _is_guest = True
    # Whether an I/O thread is its home, from the loop's first run to its end: then the home does
    # not change with the thread that runs a batch. Written by that thread, once.
    let = False

    __reduce__ = refuse_threaded_copy

    def __init__(
        self, loop: asyncio.AbstractEventLoop, end: LoopEnd, name: str | None = None
    ) -> None:
        super().__init__(loop, name)
        self.end = end
        self._generators = GuestHooks(loop, self)

    @classmethod
    def attach_here(cls, loop: asyncio.AbstractEventLoop, name: str) -> AioContext:
        """Attach an open loop, in the thread that is about to run it. Called from: home thread."""
        context = context_of(loop, partial(cls, name=name))
        assert isinstance(context, GuestContext)  # the loop is open
        context.let = True
        context._move_in()
        _serve_executors(loop, context)
        return context

    def _is_lived_in(self) -> bool:
        return self.let or self.loop.is_running()

    def _move_in(self) -> None:
        """Make the calling thread, which runs the loop, the home; main context if there is none."""
        if here.seat.home is self:
            return
        set_home(self)
        self._home_ident = _thread.get_ident()
        if threading.current_thread() is threading.main_thread() and main_context() is None:
            with self._holding_big_lock():
                if main_context() is None:  # the main context changes only under the lock
                    set_main(self)

    @contextmanager
    def _holding_big_lock(self) -> Iterator[None]:
        """Hold the big lock for a block; a no-op if this thread already holds it."""
        if here.seat.has_big_lock:
            yield
            return
        big_lock._make_ready()
        try:
            big_lock._reacquire()  # in the try: it raises an interrupt once it holds the lock
            yield
        finally:
            try:
                big_lock._release_if_held()
            finally:
                if here.seat.has_big_lock:  # interrupted before it had begun
                    big_lock._release_if_held()

    # Waking the home.

    def _ring(self, entry: Entry | None) -> None:
        """Wake the home, having posted `entry` and seen the bell; or refuse if it is closed."""
        bell = self._bell
        if bell is CLOSED:
            self._withdraw(entry)
            return
        if bell:
            # First: until the loop is told, a finaliser that comes in here finds the bell up, and
            # tells the loop itself. Two may tell it, which costs an empty batch.
            self._wake_home(entry)
            bell.clear()  # this bell: the home may have put up the next one by now

    def _wake_home(self, entry: Entry | None) -> None:
        if running_loop() is self.loop:
            self.loop.call_soon(self._run_batch)
            return
        try:
            self.loop.call_soon_threadsafe(self._run_batch)
        except RuntimeError:  # the loop was closed, without notice or just now
            try:
                self._withdraw(entry)  # first: the closer drops such an entry without an answer
            finally:
                self.end.tell()

    # Running.

    def _run_batch(self) -> None:
        """Run what is in the mailbox now: one iteration's batch, in a callback of the foreign loop.

        In the main context it runs under the big lock, so that the lock's holders and what is at
        home there exclude each other, as on a loop of our own. The lock does not guard what the
        loop runs by itself.
        """
        # Before the entries are counted, as when a home goes to sleep: so none is missed.
        put_up_bell(self)
        self._move_in()
        try:
            if main.context is self:
                with self._holding_big_lock():
                    self._run_entries()
            else:
                self._run_entries()
        finally:
            self._ring_for_own()
        self._tell_watchers()

    def _run_entries(self) -> None:
        """Run a batch, which may be inside a task that turns the loop itself (Qt's dialogs)."""
        ready = self._ready
        batch = len(ready)
        self._iterations += 1
        self._more += batch - 1
        self._woken_by_post(batch)
        outer = task_here(self.loop)
        if outer is not None:
            self._leave_running(outer)
        chained = self._put_aside()
        takes: Iterator[Entry] = map(
            deque.popleft, repeat(ready)
        )  # no look for signals after the pop
        hooks = sys.get_asyncgen_hooks()
        try:
            if self._generators.hooks is not None:
                sys.set_asyncgen_hooks(*self._generators.hooks)
            while True:
                if not batch or not ready:  # a batch inside this one may have taken the rest
                    break
                entry: Entry | None = None
                try:
                    for entry in takes:
                        if not entry._cancelled:
                            entry._run()
                        break
                except Exception as error:  # noqa: BLE001
                    put_back(self, entry, error)
                    self._report(entry, error)
                except BaseException as error:
                    put_back(self, entry, error)
                    raise
                batch -= 1  # last: the jump rule
        finally:
            sys.set_asyncgen_hooks(*hooks)
            if outer is not None:
                self._enter_again(outer)
            self._chained = chained

    def _run_now(self, task: Task[Any]) -> None:
        if running_loop() is not self.loop:  # it has stopped
            self._post(task)
            return
        hooks = sys.get_asyncgen_hooks()
        try:
            if self._generators.hooks is not None:
                sys.set_asyncgen_hooks(*self._generators.hooks)
            if main.context is self:
                with self._holding_big_lock():
                    task._run()
            else:
                task._run()
        finally:
            sys.set_asyncgen_hooks(*hooks)
            self._ring_for_own()

    # Possible on a loop of our own only.

    def poll(self, blocking: bool = True) -> bool:  # noqa: FBT001, FBT002
        raise self.cannot(f"poll(blocking={blocking})")

    poll.__doc__ = AioContext.poll.__doc__

    def cannot(self, what: str) -> ContextError:
        """Return the error for `what`. Called from: any thread."""
        package = type(self.loop).__module__.partition(".")[0]
        return ContextError(
            f"{what}: {self!r} is attached to a loop of {package}'s, which cannot be run from "
            "inside itself; use homebound.run, await instead, or have an IOThread do it: "
            f"block_on(x, io). Called in {whereabouts()}"
        )

    # The end.

    def _close(self) -> None:
        super()._close()
        if main.context is self:
            with self._holding_big_lock():
                if main.context is self:
                    set_main(None)
        if here.seat.home is self:
            set_home(None)
        self._generators.end()
        if self.let:
            for name in _REPLACED:  # a cycle otherwise
                getattr(self.loop, "__dict__", {}).pop(name, None)


_REPLACED = ("run_in_executor", "set_default_executor")


def _serve_executors(loop: Any, context: GuestContext) -> None:
    """Have threads that make calls for this home, asyncio.to_thread's too, work for its context.

    Two methods are replaced on the loop, as `close` is, but only on one that an I/O thread has
    made. A default executor may be one of processes, whose calls must stay as they are.
    """
    run_in_executor, set_default_executor = loop.run_in_executor, loop.set_default_executor
    default: list[Any] = [None]

    def set_default(executor: Any) -> None:
        set_default_executor(executor)
        default[0] = executor

    def run_serving(executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:
        chosen = default[0] if executor is None else executor
        if chosen is None or isinstance(chosen, Loop.thread_pools) or runs_threads(chosen):
            func = made_for(context, func)
        return run_in_executor(executor, func, *args)  # type: ignore[no-any-return]

    try:
        loop.run_in_executor, loop.set_default_executor = run_serving, set_default
    except AttributeError:
        pass  # a loop in C without a dictionary


AioContext.guest_type = GuestContext


# In messages, as AttributeError's: users know that name.
GuestContext.__name__ = GuestContext.__qualname__ = AioContext.__name__
GuestContext.__module__ = "homebound"
