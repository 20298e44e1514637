"""TaskGroup: asyncio's, with children that may be at home in any context.

The group's decisions are made in the thread of its parent's home. A child that ends in another
thread sends an entry there, which follows the parent if that moves; see task_group_parts.py. Any
thread may make a child.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any, Never, NoReturn, Self, TypeVar

from .._aio.futures import RECORDS_AWAITS
from .._aio.shapes import loop_kept_by
from .._aio.tasks import running_loop
from .._os.arguments import hides_more
from .context import AioContext
from .coroutines import one_coroutine
from .current import current_context
from .places import context_at
from .task import Task
from .task_group_parts import Ended, Members, cancel_child, cancel_group

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from contextvars import Context
    from types import TracebackType

    from .._threads.io_thread import IOThread

if RECORDS_AWAITS:
    from .._aio.futures import record_child

T = TypeVar("T")

CLOSES_REFUSED = sys.version_info >= (3, 13)  # asyncio's does since then, and its tests check it


class TaskGroup:
    """asyncio.TaskGroup, with children that may be at home in any context.

    At the end of the block it waits for all of them. If one fails, the others and the block are
    cancelled, wherever they are, and the failures are raised as an ExceptionGroup. The task in the
    block may itself move to another home, and back.

    >>> import homebound
    >>> async def where():
    ...     return homebound.current_context().name
    >>> async def main(io):
    ...     async with homebound.TaskGroup() as group:
    ...         here = group.create_task(where())
    ...         there = group.create_task(where(), home=io.context)
    ...     return here.result(), there.result()
    >>> with homebound.IOThread("io0") as io:
    ...     homebound.run(main(io))
    ('main', 'io0')

    Called from: task.
    """

    def __init__(self) -> None:
        self._members = Members()
        # The task in the block, which writes it as it enters and leaves. Its home may change.
        self._parent: Any = None
        # Parent's home only.
        self._parent_cancelled = False  # by the group, which uncancels it at the end
        self._errors: list[BaseException] = []
        self._base_error: BaseException | None = None  # a SystemExit or KeyboardInterrupt
        self._all_ended: asyncio.Future[None] | None = None  # what the parent waits for

    @property
    def _tasks(self) -> set[Any]:
        """The children, under asyncio's name, which debuggers and libraries read."""
        return self._members.tasks

    async def __aenter__(self) -> Self:
        """Enter the block.

        Called from: task.
        """
        if self._members.entered:
            message = f"TaskGroup {self!r} has already been entered"
            raise RuntimeError(message)
        self._parent = asyncio.current_task()
        if self._parent is None:
            message = f"TaskGroup {self!r} cannot determine the parent task"
            raise RuntimeError(message)
        if self._members.enter():
            self._cancel_here()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        """Wait for the children; raise what they raised.

        Called from: task.
        """
        del traceback
        try:
            await self._end_block(error)
            # Nothing was raised, so the error, if any, is the CancelledError of `cancel`.
            return True
        finally:
            # The exceptions refer to this frame: break the cycle.
            self._parent = self._base_error = error = None
            self._errors = []

    async def _end_block(self, error: BaseException | None) -> None:
        if _ends_all(error) and self._base_error is None:
            self._base_error = error
        cancellation = error if isinstance(error, asyncio.CancelledError) else None
        try:
            if error is not None and not self._members.aborting:
                self._abort()
            outside, last = await self._wait_for_children()
            cancellation = outside or cancellation
            if self._base_error is not None:
                raise self._base_error
            if self._parent_cancelled:
                # If the group's was the only request, there is no cancellation. Otherwise another
                # one is from outside, and must not be lost.
                ours_alone = self._parent.uncancel() == 0
                cancellation = None if ours_alone else cancellation or last
            if cancellation is not None and not self._errors:
                raise cancellation
            if error is not None and not isinstance(error, asyncio.CancelledError):
                self._errors.append(error)
            if self._errors:
                self._raise_errors(error)
        finally:
            cancellation = outside = last = error = None

    def _raise_errors(self, error: BaseException | None) -> NoReturn:
        try:
            if self._parent.cancelling():
                # Cancelled from outside as well: have it raised again at its next await.
                self._parent.uncancel()
                self._parent.cancel()
            if isinstance(error, GeneratorExit) and len(self._errors) == 1:
                raise error  # not in a group, so that the aclose() of a generator around accepts it
            message = "unhandled errors in a TaskGroup"
            raise BaseExceptionGroup(message, self._errors) from None
        finally:
            error = None

    async def _wait_for_children(
        self,
    ) -> tuple[asyncio.CancelledError | None, asyncio.CancelledError | None]:
        """Wait until all have ended; return the cancellation from outside, and the last one.

        The last may be from outside, too, if it came when the group was already being cancelled.
        """
        cancellation = last = None
        try:
            while True:  # not `while self._members.begin_exit()`: the jump rule
                if not self._members.begin_exit():
                    return cancellation, last
                self._all_ended = asyncio.get_running_loop().create_future()
                self._look()  # the last child may have left before the future was there
                try:
                    await self._all_ended
                except asyncio.CancelledError as cancelled:
                    last = cancelled
                    if not self._members.aborting:
                        cancellation = cancelled
                        self._abort()
                self._all_ended = None
        finally:
            cancellation = last = None

    @hides_more
    def create_task(
        self,
        coro: Coroutine[Any, Any, T],
        *more: Never,
        home: AioContext | IOThread | None = None,
        name: str | None = None,
        context: Context | None = None,
        **options: Any,
    ) -> Task[T]:
        """Make a child of `coro`, at home in `home` (default: the caller's current context).

        `context` is the contextvars.Context it runs in. Without `home`, further options are those
        of the running loop's create_task: `eager_start`, and what its task factory takes. Raises
        RuntimeError if the group has not been entered, is finished or is shutting down (since
        Python 3.13 `coro` is then closed, as in asyncio), ContextClosed if `home` has ended.

        Called from: any thread.
        """
        if more:
            raise one_coroutine("create_task", coro, more)
        refusal = self._members.reserve()
        if refusal is not None:
            if CLOSES_REFUSED:
                coro.close()
            message = f"TaskGroup {self!r} {refusal}"
            raise RuntimeError(message)
        task: Task[T] | None = None
        try:
            if name is not None:
                options["name"] = name
            if context is not None:
                options["context"] = context
            task = self._start(coro, home, options)
            return task
        finally:
            cancel = self._members.arrived(task)
            if task is None:
                Ended(self, None)._heard(None)  # the parent may wait for this child only
            else:
                self._listen(task)
                if cancel:
                    cancel_child(task)
            del task  # its exception's traceback may refer to this frame

    def _start(
        self,
        coro: Coroutine[Any, Any, Any],
        home: AioContext | IOThread | None,
        options: dict[str, Any],
    ) -> Any:
        if home is None:
            loop = running_loop()
            if loop is not None:
                return loop.create_task(coro, **options)
            home = current_context() or self._home_of_parent()
            options.pop("eager_start", None)  # not in this thread
        else:
            home = context_at(home, "TaskGroup.create_task: home")
        return home.spawn(coro, **options)

    def _home_of_parent(self) -> AioContext:
        parent = self._parent
        if isinstance(parent, Task) and parent._home is not None:
            return parent._home
        return AioContext.attach(parent.get_loop())

    def _listen(self, task: Any) -> None:
        ended = Ended(self, task)
        if isinstance(task, Task):
            task._tell(ended)
            return
        if RECORDS_AWAITS:
            record_child(task, self._parent)
        if running_loop() is loop_kept_by(self._parent) and not isinstance(self._parent, Task):
            task.add_done_callback(lambda _: ended._run())  # all on one loop: as in asyncio
        else:
            task.add_done_callback(ended._heard)

    def cancel(self) -> None:
        """End the block early: cancel it and the children; the block's end raises nothing for it.

        A block that has not been entered is cancelled as it begins. If it has ended, or is already
        being cancelled, this is a no-op. No child is accepted from now on. From another thread the
        request is delivered at the home of the task in the block. See asyncio.TaskGroup.cancel
        (Python 3.15).

        >>> import asyncio, homebound
        >>> async def main():
        ...     async with homebound.TaskGroup() as group:
        ...         group.create_task(asyncio.sleep(3600))
        ...         asyncio.get_running_loop().call_soon(group.cancel)
        ...         await asyncio.sleep(3600)
        ...     return "went on"
        >>> homebound.run(main())
        'went on'

        Called from: any thread.
        """
        if self._members.cancel():
            parent = self._parent  # read once: it may leave the block at any time
            if parent is not None:
                cancel_group(self, parent)

    # At the parent's home.

    def _cancel_here(self) -> None:
        if not self._members.is_over() and not self._members.aborting:
            self._interrupt()

    def _interrupt(self) -> None:
        """End the children and the block; its end undoes the parent's cancellation."""
        self._abort()
        if not self._parent_cancelled:
            self._parent_cancelled = True
            self._parent.cancel()

    def _abort(self) -> None:
        for task in self._members.abort():
            if not task.done():
                cancel_child(task)

    def _look(self) -> None:
        """Have the parent look again if all have ended."""
        waiting = self._all_ended
        if waiting is not None and not waiting.done() and not self._members.begin_exit():
            waiting.set_result(None)

    def _child_ended(self, task: Any) -> None:
        first = self._members.left(task)  # a listener cut short by an exception reports again
        self._look()
        if not first or task.cancelled():
            return
        error = task.exception()
        if error is None:
            return
        parent = self._parent
        if parent is None or parent.done():
            self._report_orphan(task, error)
            return
        self._errors.append(error)
        if _ends_all(error) and self._base_error is None:
            self._base_error = error
        if not self._members.aborting and not self._parent_cancelled:
            self._interrupt()

    def _report_orphan(self, task: Any, error: BaseException) -> None:
        message = f"Task {task!r} has errored out but its parent task is already completed"
        task.get_loop().call_exception_handler(
            {"message": message, "exception": error, "task": task}
        )

    def __repr__(self) -> str:
        members = self._members
        parts = [""]
        if members.tasks:
            parts.append(f"tasks={len(members.tasks)}")
        if self._errors:
            parts.append(f"errors={len(self._errors)}")
        if members.aborting:
            parts.append("cancelling")
        elif members.entered:
            parts.append("entered")
        return f"<TaskGroup{' '.join(parts)}>"


def _ends_all(error: BaseException | None) -> bool:
    return isinstance(error, (SystemExit, KeyboardInterrupt))
