"""Greenlets: stacks that take turns in one thread (SQLAlchemy's, greenback's, gevent's).

A task's step may begin in one greenlet and continue in another. If a loop were run from such a
child greenlet, the tasks that it resumed would hand their results to the greenlet that had resumed
them before, and values would reach the wrong one. So a loop is nested only in the greenlet that
already runs it.

Nothing here imports greenlet, gevent or eventlet: as long as none is loaded, no greenlet exists.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

from .._errors import ContextError

if TYPE_CHECKING:
    from collections.abc import Callable

_Local = threading.local  # to see later whether a library has replaced it since our import


class _Turned(threading.local):
    """The greenlet in which this thread runs its innermost loop; None: the thread's first one."""

    greenlet: Any = None


_turned = _Turned()


def _current() -> Any:
    """Return the running greenlet; None as long as greenlet is not loaded."""
    module = sys.modules.get("greenlet")
    getcurrent = getattr(module, "getcurrent", None)
    return None if getcurrent is None else getcurrent()


def turn_here() -> Any:
    """Record that the calling greenlet runs a loop; return the value to pass to `turn_in`."""
    before, _turned.greenlet = _turned.greenlet, _current()
    return before


def turn_in(greenlet: Any) -> None:
    """Undo `turn_here`."""
    _turned.greenlet = greenlet


def in_child_greenlet() -> bool:
    """Return whether the caller, inside a loop, is in another greenlet than the loop itself."""
    current = _current()
    if current is None:
        return False
    turned = _turned.greenlet
    if turned is None:  # greenlet was loaded after the loop began: in the thread's first one
        return current.parent is not None
    return current is not turned


def awaiter_here() -> Callable[[Any], Any] | None:
    """Return the function with which the calling child greenlet's library awaits something.

    It suspends the task whose step is running. None: no library that we know made the greenlet.
    """
    greenback = sys.modules.get("greenback")
    if greenback is not None and greenback.has_portal():
        return greenback.await_  # type: ignore[no-any-return]
    if getattr(_current(), "__sqlalchemy_greenlet_provider__", False):
        return sys.modules["sqlalchemy.util"].await_only  # type: ignore[no-any-return]
    return None


def refusal_in_child(what: str) -> ContextError:
    """Return the error for a call that would run the loop in a child greenlet."""
    return ContextError(
        f"{what} was called in a greenlet ({_current()!r}) other than the one that runs the loop, "
        "and the loop cannot be nested in it; await with the greenlet's own library "
        "(sqlalchemy.util.await_only, greenback.await_), or call it in a worker thread"
    )


def patched_by() -> str | None:
    """Return the library that has replaced this process's threads by greenlets, if any."""
    for name, asked, argument in (
        ("gevent.monkey", "is_module_patched", "threading"),
        ("eventlet.patcher", "is_monkey_patched", "thread"),
    ):
        module = sys.modules.get(name)
        if module is not None and getattr(module, asked)(argument):
            return name.partition(".")[0]
    return None


def refuse_green_threads(what: str, *, only_if_late: bool = False) -> None:
    """Raise ContextError if `threading` makes greenlets, which share a thread: no homes.

    With `only_if_late`, for what works with greenlets, raise only if they were patched in after
    homebound was imported: then all of them share our thread-local fields.
    """
    library = patched_by()
    if library is None or (only_if_late and threading.local is _Local):
        return
    message = (
        f"{what}: {library} has replaced this process's threads by greenlets, which share one "
        "thread and its running loop; leave threads unpatched "
        "(gevent.monkey.patch_all(thread=False), eventlet.monkey_patch(thread=False)), or run "
        "homebound in a process of its own"
    )
    raise ContextError(message)
