"""The side of a task that others see: asyncio.Task's interface, and who is told when it is done.

A task can end in any thread, and anybody anywhere may wait for it. So it keeps its own list of
listeners: a listener is appended, then it is looked whether the task is done; the task becomes
done, then the list is looked at. Whoever finds the task done pops listeners and tells them;
`list.pop` gives each to one thread.
"""

from __future__ import annotations

import asyncio
from asyncio.log import logger
from contextvars import Context, copy_context
from itertools import count
from types import MethodType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .._aio.futures import FutureParts
from .._aio.handles import FastHandle
from .._aio.tasks import (
    ParentsLoop,
    describe_task,
    loop_for_caller,
    print_task_stack,
    running_loop,
    task_stack,
    unfinished,
)
from .._errors import ContextClosed, ContextError
from .entries import Errand
from .loop import Loop

if TYPE_CHECKING:
    import types
    from collections.abc import Callable, Coroutine
    from typing import TextIO

    from .context import AioContext
    from .task import Task

T = TypeVar("T")

_numbers = count(1)


class _Home:
    """What a task's C future takes for its loop: it never schedules, and reports to the home's."""

    get_debug: Any = staticmethod(bool)  # False, without a Python frame

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        home = context["future"]._home
        if home is None:
            logger.error(context["message"], exc_info=context.get("exception"))
        else:
            home.loop.call_exception_handler(context)


class _HomeInDebug(_Home):
    """For it the future remembers where it was made."""

    get_debug = staticmethod(lambda: True)


at_home: Any = _Home()
at_home_in_debug: Any = _HomeInDebug()


# In Task._throw: make a CancelledError when it is thrown. The second: it has ended a suspension, so
# it is thrown even if `uncancel` takes the request back; asyncio's would have ended a future.
CANCEL = asyncio.CancelledError()
CANCEL_SURELY = asyncio.CancelledError()
CANCELS = (CANCEL, CANCEL_SURELY)


class TaskFuture(FutureParts[T], Generic[T]):
    """A task's result to be, its names, and its listeners."""

    __slots__ = (
        "_body",  # its coroutine
        "_home",  # the context it will next run in. Written by whoever has the task to himself
        "_listeners",  # who is to be told when it is done. Any thread appends; popped once each
        "_name",  # a string, or a number until somebody asks
        "_num_cancels_requested",  # home only
        "_send",  # of its coroutine
        "_throw",  # an exception to throw at the next step, CANCEL for a CancelledError, or None
        "_vars",
    )

    _body: Coroutine[Any, Any, T]
    _home: AioContext | None
    _listeners: list[Any]
    _name: str | int
    _num_cancels_requested: int
    _send: Any
    _throw: BaseException | None
    _vars: Context

    @property
    def home(self) -> AioContext | None:
        """The context it will next run in; None for a task that was never given one.

        Called from: any thread.
        """
        return self._home

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        """asyncio.Task, to isinstance: a C Task cannot change loops, so it is no base of ours."""
        return asyncio.Task

    def __call__(self, future: Any = None) -> TaskFuture[T] | None:
        """Two of asyncio's protocols call a task.

        With a future: it is a future's callback, on a loop that is not ours: the future is done.
        Without: on Python 3.11 it stands in a WeakSet as a reference to itself.
        """
        if future is None:
            return self
        self._future_done(future)
        return None

    def _future_done(self, _: object) -> None:
        """The future that it awaits is done."""
        raise NotImplementedError

    # Telling who waits for it.

    def add_done_callback(
        self, fn: Callable[[Task[T]], object], /, *, context: Context | None = None
    ) -> None:
        """Have `fn(task)` called when it is done, in the loop that runs here, else in its home's.

        Called from: any thread.
        """
        if context is None:
            context = copy_context()
        if type(fn) is MethodType and (parent := Errand.task_of(fn)) is not None:
            self._join_group(fn, parent)
        loop = running_loop()
        if loop is None and self._home is not None:
            loop = self._home.loop
        self._tell((fn, context, loop))

    def _join_group(self, fn: Any, parent: Any) -> None:
        """We are a child in a TaskGroup of asyncio's."""
        if isinstance(parent, TaskFuture):
            ParentsLoop.follow(fn.__self__, parent)

    def remove_done_callback(self, fn: Callable[[Task[T]], object], /) -> int:
        """Take `fn` out again; how many times it was in.

        Called from: any thread.
        """
        removed = 0
        for listener in tuple(self._listeners):
            if type(listener) is tuple and listener[0] == fn:
                try:
                    self._listeners.remove(listener)
                except ValueError:
                    continue  # it is being called
                removed += 1
        return removed

    def _tell(self, listener: Any) -> None:
        """Add a listener: append, then look whether it is done; the end pairs with it."""
        self._listeners.append(listener)
        if self.done():
            self._announce()

    def _announce(self) -> None:
        """Tell each listener once: list.pop decides between threads that announce at once."""
        listeners = self._listeners
        while listeners:
            try:
                listener = listeners.pop(0)
            except IndexError:
                return
            if type(listener) is tuple:
                self._call_listener(*listener)
            else:
                listener._heard(None)

    def _call_listener(self, fn: Any, context: Context, loop: Any) -> None:
        parent: Any = Errand.task_of(fn) if type(fn) is MethodType else None
        try:
            if isinstance(parent, TaskFuture):  # asyncio's TaskGroup, whose parent may have moved
                parent._home._post(Errand(parent, fn, (self,), context))  # type: ignore[union-attr, arg-type]
                return
            if loop is None:
                loop = self.get_loop()
            if isinstance(loop, Loop):
                self._post_listener(FastHandle(fn, (self,), loop, context), loop)
            else:
                loop.call_soon_threadsafe(fn, self, context=context)
        except RuntimeError:
            pass  # that loop has ended, and with it whoever wanted to know

    def _post_listener(self, handle: FastHandle, loop: Loop) -> None:
        try:
            loop.home._post(handle)
        except ContextClosed:
            handle._unrun()

    @property
    def _awaiter(self) -> Any:
        """As another task's listener it is what awaits that."""
        return self

    def _awaiters(self) -> set[Any]:
        awaiters = {getattr(each, "_awaiter", None) for each in tuple(self._listeners)}
        if getattr(self._coro, "cr_running", False):
            # In the midst of a step: perhaps its first, for which block_on adds no listener.
            awaiters.update(
                each
                for each in unfinished(TaskFuture)
                if getattr(each, "_fut_waiter", None) is self
            )
        return awaiters - {None}

    # asyncio.Task's interface.

    def get_loop(self) -> Any:
        """Its home's loop.

        Asked by asyncio's gather, wait and shield, or by a task of any loop that is about to await
        it: the loop that runs in this thread, since it can be awaited on every loop. Raises
        ContextError if it has no home, and is not to be awaited on a loop that runs here.

        Called from: any thread.
        """
        loop = loop_for_caller(self, self._loop)
        if loop is None:
            message = f"{self!r} has no home yet, and so no loop"
            raise ContextError(message)
        return loop

    @property
    def _loop(self) -> Any:
        return None if self._home is None else self._home.loop

    @property
    def _coro(self) -> Any:
        """Its coroutine (asyncio's name; greenback puts one around it in its place)."""
        return self._body

    @_coro.setter
    def _coro(self, coro: Any) -> None:
        self._body = coro
        self._send = coro.send

    def get_coro(self) -> Any:
        """Its coroutine.

        Called from: any thread.
        """
        return self._body

    def get_context(self) -> Context:
        """The contextvars.Context it runs in.

        Called from: any thread.
        """
        return self._vars

    def get_name(self) -> str:
        """Its name.

        Called from: any thread.
        """
        name = self._name
        return name if type(name) is str else f"Task-{name}"

    def set_name(self, value: object, /) -> None:
        """Name it.

        Called from: any thread.
        """
        self._name = str(value)

    def get_stack(self, *, limit: int | None = None) -> list[types.FrameType]:
        """Its stack frames. See asyncio.Task.get_stack.

        Called from: home thread.
        """
        return task_stack(self, limit)

    def print_stack(self, *, limit: int | None = None, file: TextIO | None = None) -> None:
        """Print its stack. See asyncio.Task.print_stack.

        Called from: home thread.
        """
        print_task_stack(self, limit, file)

    def cancelling(self) -> int:
        """How many cancellation requests are pending. See asyncio.Task.cancelling.

        Called from: any thread.
        """
        return self._num_cancels_requested

    def uncancel(self) -> int:
        """Take one cancellation request back; how many are left. See asyncio.Task.uncancel.

        Called from: home thread.
        """
        if self._num_cancels_requested > 0:
            self._num_cancels_requested -= 1
            if self._num_cancels_requested == 0 and self._throw is CANCEL:
                self._throw = None
        return self._num_cancels_requested

    @property
    def _must_cancel(self) -> bool:
        """A cancellation waits for the next step (asyncio's name; anyio reads it)."""
        return self._throw in CANCELS

    @_must_cancel.setter
    def _must_cancel(self, value: bool) -> None:
        self._throw = CANCEL if value else None

    def set_result(self, _result: object, /) -> None:
        """Raise RuntimeError: a task's result is its coroutine's.

        Called from: any thread.
        """
        message = "Task does not support set_result operation"
        raise RuntimeError(message)

    def set_exception(self, _exception: object, /) -> None:
        """Raise RuntimeError: a task's exception is its coroutine's.

        Called from: any thread.
        """
        message = "Task does not support set_exception operation"
        raise RuntimeError(message)

    def __repr__(self) -> str:
        text = describe_task(self)
        if not text.endswith(">"):
            return text  # it is being described already
        home = self._home
        where = " no home" if home is None else f" home={home.name!r}"
        return text[:-1] + where + ">"

    @property
    def _callbacks(self) -> Any:
        """Who is to be told, in asyncio's form: it shows them when it describes a future."""
        return [
            listener[:2] if type(listener) is tuple else (listener._heard, None)
            for listener in tuple(self._listeners)
        ]
