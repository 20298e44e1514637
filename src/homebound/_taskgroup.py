"""TaskGroup: asyncio's, whose tasks may be at home anywhere.

The group is where its parent is: what a child's end means is decided in the thread of the parent's
home, and nowhere else. A child that ends in another thread sends an entry there, which follows the
parent if that moves. Beside this, any thread may make a child; so what it looks at stands in
`_Members`, with a lock of its own.
"""

from __future__ import annotations

import _thread
import asyncio
import sys
from typing import TYPE_CHECKING, Any, Self, TypeVar

from ._asyncio_shapes import loop_kept_by
from ._asyncio_tasks import running_loop
from ._context import AioContext
from ._current import current_context
from ._task import Task

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from contextvars import Context
    from types import TracebackType

T = TypeVar("T")

CLOSES_REFUSED = sys.version_info >= (3, 13)  # asyncio's does from there on, and its tests look


class _Members:
    """The children, and whether more may come. Every method: any thread, atomically."""

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()  # guards every field; nothing is called under it
        self.tasks: set[Any] = set()  # those whose end the parent has not taken note of
        self._coming = 0  # children being made: they count, though they are no tasks yet
        self.entered = False  # set once
        self._exiting = False  # set once
        self.aborting = False  # set once

    def why_not(self) -> str | None:
        """Reserve a place for a child; or why there is none."""
        with self._lock:
            if not self.entered:
                return "has not been entered"
            if self._exiting and not self.tasks and not self._coming:
                return "is finished"
            if self.aborting:
                return "is shutting down"
            self._coming += 1
            return None

    def arrived(self, task: Any) -> bool:
        """The child exists (None: it could not be made). True if it is to be cancelled at once."""
        with self._lock:
            self._coming -= 1
            if task is not None:
                self.tasks.add(task)
            return self.aborting

    def left(self, task: Any) -> None:
        """The child's end has been taken note of."""
        with self._lock:
            self.tasks.discard(task)

    def exiting(self) -> bool:
        """The parent waits for the rest. False if there is none, nor will be."""
        with self._lock:
            self._exiting = True
            return bool(self.tasks or self._coming)

    def abort(self) -> list[Any]:
        """Nobody comes in any more; those to be cancelled."""
        with self._lock:
            self.aborting = True
            return list(self.tasks)


def _cancel(task: Any) -> None:
    """Cancel a child; one that is not ours is its loop's thread's to touch."""
    if isinstance(task, Task):
        task.cancel()
        return
    loop = task.get_loop()
    if running_loop() is loop:
        task.cancel()
        return
    try:
        loop.call_soon_threadsafe(task.cancel)
    except RuntimeError:
        pass  # its loop has ended, and it with that


class _Ended:
    """A child has ended: on its way to the parent's home, as a mailbox entry there."""

    __slots__ = ("_child", "_group")

    _cancelled = False

    def __init__(self, group: TaskGroup, child: Any) -> None:
        self._group = group
        self._child = child

    def _heard(self, _: object) -> None:
        """In the thread where the child has ended."""
        parent = self._group._parent
        try:
            if isinstance(parent, Task):
                parent._home._post(self)  # type: ignore[union-attr]
            elif parent is not None:
                parent.get_loop().call_soon_threadsafe(self._run)
        except RuntimeError:
            self._unrun()

    def _run(self) -> None:
        parent = self._group._parent
        if isinstance(parent, Task) and parent._home is not current_context() and not parent.done():
            self._heard(None)  # it has moved: follow it
        elif self._child is None:
            self._group._look()
        else:
            self._group._child_ended(self._child)

    def _unrun(self) -> None:
        """The parent's home has ended, and the parent with it."""
        if self._child is not None:
            self._group._child_ended(self._child)


class TaskGroup:
    """asyncio.TaskGroup, whose children may be at home in any context.

    At the end of the block it waits for all of them. If one fails, the others and the block are
    cancelled, wherever they are, and the failures raised as an ExceptionGroup. The block may
    itself move to another home, and back.

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
        self._members = _Members()
        # The task in the block: written by itself as it enters and leaves. Its home may change.
        self._parent: Any = None
        # Parent's home only.
        self._parent_cancelled = False  # by us, so we take it back
        self._errors: list[BaseException] = []
        self._base_error: BaseException | None = None  # a SystemExit or KeyboardInterrupt
        self._all_ended: asyncio.Future[None] | None = None  # what the parent waits for

    @property
    def _tasks(self) -> set[Any]:
        """Under asyncio's name, for those who look."""
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
        self._members.entered = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Wait for the children; raise what they raised.

        Called from: task.
        """
        del traceback
        try:
            await self._leave(error)
        finally:
            # The exceptions lead to our frames: let no cycle keep them, or us, alive.
            self._parent = self._base_error = error = None
            self._errors = []

    async def _leave(self, error: BaseException | None) -> None:
        if _ends_all(error) and self._base_error is None:
            self._base_error = error
        cancellation = error if isinstance(error, asyncio.CancelledError) else None
        try:
            if error is not None and not self._members.aborting:
                self._abort()
            cancellation = await self._wait_for_children() or cancellation
            if self._base_error is not None:
                raise self._base_error
            if self._parent_cancelled and self._parent.uncancel() == 0:
                cancellation = None  # the only one was ours
            if cancellation is not None and not self._errors:
                raise cancellation
            if error is not None and not isinstance(error, asyncio.CancelledError):
                self._errors.append(error)
            if self._errors:
                if self._parent.cancelling():
                    # Cancelled from outside as well: have it raised again at its next await.
                    self._parent.uncancel()
                    self._parent.cancel()
                message = "unhandled errors in a TaskGroup"
                raise BaseExceptionGroup(message, self._errors) from None
        finally:
            cancellation = error = None

    async def _wait_for_children(self) -> asyncio.CancelledError | None:
        """Until all have ended; the cancellation from outside that came meanwhile."""
        cancellation = None
        try:
            while self._members.exiting():
                self._all_ended = asyncio.get_running_loop().create_future()
                self._look()  # a child that could not be made may have left before it was there
                try:
                    await self._all_ended
                except asyncio.CancelledError as cancelled:
                    if not self._members.aborting:
                        cancellation = cancelled
                        self._abort()
                self._all_ended = None
            return cancellation
        finally:
            cancellation = None

    def create_task(
        self,
        coro: Coroutine[Any, Any, T],
        *,
        home: AioContext | None = None,
        name: str | None = None,
        context: Context | None = None,
    ) -> Task[T]:
        """Make a child of `coro`, at home in `home` (default: where the caller is).

        `context` is the contextvars.Context it runs in. Raises RuntimeError if the group has not
        been entered, is finished or is shutting down (since Python 3.13 `coro` is closed then, as
        asyncio does it), ContextClosed if `home` has ended.

        Called from: any thread.
        """
        why_not = self._members.why_not()
        if why_not is not None:
            if CLOSES_REFUSED:
                coro.close()
            message = f"TaskGroup {self!r} {why_not}"
            raise RuntimeError(message)
        task: Task[T] | None = None
        try:
            task = self._start(coro, home, name, context)
            return task
        finally:
            cancel = self._members.arrived(task)
            if task is None:
                _Ended(self, None)._heard(None)  # the parent may have waited for it alone
            else:
                self._listen(task)
                if cancel:
                    _cancel(task)
            del task  # its exception's traceback may lead here

    def _start(
        self,
        coro: Coroutine[Any, Any, Any],
        home: AioContext | None,
        name: str | None,
        context: Context | None,
    ) -> Any:
        if home is None:
            loop = running_loop()
            if loop is not None:
                options: dict[str, Any] = {} if context is None else {"context": context}
                return loop.create_task(coro, name=name, **options)
            home = current_context() or self._home_of_parent()
        return home.spawn(coro, name=name, context=context)

    def _home_of_parent(self) -> AioContext:
        parent = self._parent
        if isinstance(parent, Task) and parent._home is not None:
            return parent._home
        return AioContext.attach(parent.get_loop())

    def _listen(self, task: Any) -> None:
        ended = _Ended(self, task)
        if isinstance(task, Task):
            task._tell(ended)
        elif running_loop() is loop_kept_by(self._parent) and not isinstance(self._parent, Task):
            task.add_done_callback(lambda _: ended._run())  # all in one loop: as asyncio's
        else:
            task.add_done_callback(ended._heard)

    # At the parent's home.

    def _abort(self) -> None:
        for task in self._members.abort():
            if not task.done():
                _cancel(task)

    def _look(self) -> None:
        """Have the parent look again if all have ended."""
        waiting = self._all_ended
        if waiting is not None and not waiting.done() and not self._members.exiting():
            waiting.set_result(None)

    def _child_ended(self, task: Any) -> None:
        self._members.left(task)
        self._look()
        if task.cancelled():
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
            # Interrupt the block. It is not the parent that is cancelled: taken back at its end.
            self._abort()
            self._parent_cancelled = True
            parent.cancel()

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
