"""A task's interface: that of asyncio.Task, and its listeners, which are notified when it is done.

A task may end in any thread, and any thread may wait for it. So it keeps its own list of listeners.
A thread that adds a listener appends it, then looks whether the task is done; the thread that ends
the task marks it done, then looks at the list. Either of them that sees a done task and a listener
pops the listener and notifies it; `list.pop` gives each listener to one thread.
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
from .._os.snapshot import snapshot
from .entries import Errand
from .loop import Loop
from .pursuit import post_after
from .resumption import continue_surely

if TYPE_CHECKING:
    import types
    from collections.abc import Callable, Coroutine
    from typing import TextIO

    from .context import AioContext
    from .task import Task

T = TypeVar("T")

_numbers = count(1)


class _Home:
    """A C future's loop for a task: it never schedules, and reports errors to the home's loop."""

    get_debug: Any = staticmethod(bool)  # False, without a Python frame

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        home = context["future"]._home
        if home is None:
            logger.error(context["message"], exc_info=context.get("exception"))
        else:
            home.loop.call_exception_handler(context)


class _HomeInDebug(_Home):
    """The same in debug mode: the future records where it was made."""

    get_debug = staticmethod(lambda: True)


at_home: Any = _Home()
at_home_in_debug: Any = _HomeInDebug()


# Values of Task._throw: a CancelledError is made when the next step throws it. CANCEL_SURELY has
# ended a suspension, so it is thrown even if `uncancel` undoes the request, as in asyncio, where it
# would have cancelled a future.
CANCEL = asyncio.CancelledError()
CANCEL_SURELY = asyncio.CancelledError()
CANCELS = (CANCEL, CANCEL_SURELY)


class TaskFuture(FutureParts[T], Generic[T]):
    """A task's future result, its name, and its listeners."""

    __slots__ = (
        "_body",  # its coroutine
        "_home",  # the context it will next run in. Written by the thread that has claimed it
        "_listeners",  # to be notified when it is done. Any thread appends; popped once each
        "_name",  # a string, or a number for a default name
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
        """The context in which it will next run; None for a task that was never given one.

        Called from: any thread.
        """
        return self._home

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        """asyncio.Task, for isinstance: the C Task cannot change loops, so it is no base class."""
        return asyncio.Task

    def __call__(self, future: Any = None) -> TaskFuture[T] | None:
        """Serve two of asyncio's protocols, which call a task.

        With a future: the task is that future's callback on a foreign loop, and the future is done.
        Without: on Python 3.11 the task stands in a WeakSet as a weak reference to itself.
        """
        if future is None:
            return self
        self._future_done(future)
        return None

    def _future_done(self, _: object) -> None:
        """Go on, as the future that it awaits is done."""
        raise NotImplementedError

    # Listeners.

    def add_done_callback(
        self, fn: Callable[[Task[T]], object], /, *, context: Context | None = None
    ) -> None:
        """Have `fn(task)` called when it is done, in the caller's running loop, else its home's.

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
        """Have asyncio's TaskGroup, of which this task is a child, follow its parent."""
        if isinstance(parent, TaskFuture):
            ParentsLoop.follow(fn.__self__, parent)

    def remove_done_callback(self, fn: Callable[[Task[T]], object], /) -> int:
        """Remove `fn`; return how many times it was registered.

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
        """Add a listener, then look whether the task is done (pairs with the task's end)."""
        self._listeners.append(listener)
        if self.done():
            self._announce()

    def _announce(self) -> None:
        """Notify each listener once: list.pop decides between threads that do so together."""
        listeners = self._listeners
        listener: Any = None
        taken = True
        try:
            while True:
                if not listeners:
                    return
                listener = None  # the one before has been notified
                taken = False
                listener = listeners[0]
                listener = listeners.pop(0)
                taken = True
                if type(listener) is tuple:
                    self._call_listener(*listener)
                else:
                    listener._heard(None)
                # Last: the jump rule.
                continue
        except BaseException as error:
            if not taken and type(error) is IndexError:
                return  # another thread has notified the last
            self._announce_the_rest(listener, taken=taken)
            raise

    def _announce_the_rest(self, listener: Any, *, taken: bool) -> None:
        """Notify a listener again, if that may not have happened for an exception, and the rest."""
        if isinstance(listener, TaskFuture):
            continue_surely(listener, self)
        elif listener is None:
            pass
        elif not taken:
            if not any(each is listener for each in tuple(self._listeners)):
                self._listeners.append(listener)  # the exception came as it was taken out
        elif type(listener) is tuple:
            self._call_unless_queued(*listener)
        else:
            listener._heard(None)  # these may hear of it twice
        self._announce()

    def _call_listener(self, fn: Any, context: Context, loop: Any) -> None:
        parent: Any = Errand.task_of(fn) if type(fn) is MethodType else None
        try:
            if isinstance(parent, TaskFuture):  # asyncio's TaskGroup, whose parent may have moved
                errand: Any = Errand(parent, fn, (self,), context)  # type: ignore[arg-type]
                post_after(parent, errand, parent._home)  # type: ignore[arg-type]
                return
            if loop is None:
                loop = self.get_loop()
            if isinstance(loop, Loop):
                self._post_listener(FastHandle(fn, (self,), loop, context), loop)
            else:
                loop.call_soon_threadsafe(fn, self, context=context)
        except RuntimeError:
            pass  # the listener's loop has ended

    def _call_unless_queued(self, fn: Any, context: Context, loop: Any) -> None:
        """Do as `_call_listener`, as an exception may have come before the entry was queued.

        `context` tells this registration of `fn` from others. If the listener's home is in another
        thread, and has run the entry by now, `fn` is called twice; else it might never be called.
        """
        for entry in self._queued_for(fn, loop):
            ran_in = entry._vars if isinstance(entry, Errand) else entry._context
            if entry._callback == fn and entry._args == (self,) and ran_in is context:
                return
        self._call_listener(fn, context, loop)

    def _queued_for(self, fn: Any, loop: Any) -> list[Any]:
        """Return the queued entries among which a listener's would be."""
        parent: Any = Errand.task_of(fn) if type(fn) is MethodType else None
        home = parent._home if isinstance(parent, TaskFuture) else getattr(loop, "home", None)
        queued = () if home is None else snapshot(home._ready)
        return [entry for entry in queued if isinstance(entry, (FastHandle, Errand))]

    def _post_listener(self, handle: FastHandle, loop: Loop) -> None:
        try:
            loop.home._post(handle)
        except ContextClosed:
            handle._unrun()

    @property
    def _awaiter(self) -> Any:
        """The task that awaits another task, as that one's listener: itself."""
        return self

    def _awaiters(self) -> set[Any]:
        awaiters = {getattr(each, "_awaiter", None) for each in tuple(self._listeners)}
        if getattr(self._coro, "cr_running", False):
            # It runs a step, perhaps its first, for which block_on adds no listener.
            awaiters.update(
                each
                for each in unfinished(TaskFuture)
                if getattr(each, "_fut_waiter", None) is self
            )
        return awaiters - {None}

    # asyncio.Task's interface.

    def get_loop(self) -> Any:
        """Return its home's loop.

        For asyncio's gather, wait and shield, and for a task of any loop that is about to await it,
        that is the loop that runs in the calling thread, as a task can be awaited on every loop.
        Raises ContextError if it has no home, and the call is not for an await on a running loop.

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
        """Its coroutine, under asyncio's name; greenback replaces it by one that wraps it."""
        return self._body

    @_coro.setter
    def _coro(self, coro: Any) -> None:
        self._body = coro
        self._send = coro.send

    def get_coro(self) -> Any:
        """Return its coroutine.

        Called from: any thread.
        """
        return self._body

    def get_context(self) -> Context:
        """Return the contextvars.Context it runs in.

        Called from: any thread.
        """
        return self._vars

    def get_name(self) -> str:
        """Return its name.

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
        """Return its stack frames. See asyncio.Task.get_stack.

        Called from: home thread.
        """
        return task_stack(self, limit)

    def print_stack(self, *, limit: int | None = None, file: TextIO | None = None) -> None:
        """Print its stack. See asyncio.Task.print_stack.

        Called from: home thread.
        """
        print_task_stack(self, limit, file)

    def cancelling(self) -> int:
        """Return how many cancellation requests are pending. See asyncio.Task.cancelling.

        Called from: any thread.
        """
        return self._num_cancels_requested

    def uncancel(self) -> int:
        """Undo one cancellation request; return how many are left. See asyncio.Task.uncancel.

        Called from: home thread.
        """
        if self._num_cancels_requested > 0:
            self._num_cancels_requested -= 1
            if self._num_cancels_requested == 0 and self._throw is CANCEL:
                self._throw = None
        return self._num_cancels_requested

    @property
    def _must_cancel(self) -> bool:
        """True if the next step throws a CancelledError (asyncio's name; anyio reads it)."""
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
            return text  # a repr inside its own repr
        home = self._home
        where = " no home" if home is None else f" home={home.name!r}"
        return text[:-1] + where + ">"

    @property
    def _callbacks(self) -> Any:
        """The listeners in asyncio's form, which it shows when it describes a future."""
        return [
            listener[:2] if type(listener) is tuple else (listener._heard, None)
            for listener in tuple(self._listeners)
        ]
