"""Greenlets: stacks that take turns in one thread (SQLAlchemy's, greenback's, gevent's).

A step of a task may begin in one greenlet and go on in another. Turned from such a child greenlet,
a loop would resume tasks that hand their results to the greenlet that resumed them before: values
would reach the wrong ones. So a loop is nested only in the greenlet that runs it already.

Nothing here imports greenlet, gevent or eventlet: where they are not loaded, none of theirs runs.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

from .._errors import ContextError

if TYPE_CHECKING:
    from collections.abc import Callable

_Local = threading.local  # as it was before anything was patched that is patched later


class _Turned(threading.local):
    """The greenlet in which the calling thread turns a loop, innermost; None: its first one."""

    greenlet: Any = None


_turned = _Turned()


def _current() -> Any:
    """The running greenlet; None as long as the module is not loaded."""
    module = sys.modules.get("greenlet")
    ask = getattr(module, "getcurrent", None)
    return None if ask is None else ask()


def turn_here() -> Any:
    """The calling thread turns a loop in this greenlet; returns what to pass to `turn_in`."""
    before, _turned.greenlet = _turned.greenlet, _current()
    return before


def turn_in(greenlet: Any) -> None:
    """Undo `turn_here`."""
    _turned.greenlet = greenlet


def in_child_greenlet() -> bool:
    """Whether the code that runs here, inside a loop, left the greenlet that turns the loop."""
    current = _current()
    if current is None:
        return False
    turned = _turned.greenlet
    if turned is None:  # the module was loaded since: no other greenlet existed then
        return current.parent is not None
    return current is not turned


def awaiter_here() -> Callable[[Any], Any] | None:
    """What awaits something for the child greenlet that runs here: its library's function.

    It suspends the task whose step this is. None: it is no greenlet of a library that we know.
    """
    greenback = sys.modules.get("greenback")
    if greenback is not None and greenback.has_portal():
        return greenback.await_  # type: ignore[no-any-return]
    if getattr(_current(), "__sqlalchemy_greenlet_provider__", False):
        return sys.modules["sqlalchemy.util"].await_only  # type: ignore[no-any-return]
    return None


def refusal_in_child(what: str) -> ContextError:
    """The error for a call that would turn the loop in a child greenlet."""
    return ContextError(
        f"{what} was called in a greenlet ({_current()!r}) other than the one that runs the loop, "
        "which cannot be turned from it; await it by the library whose greenlet that is "
        "(sqlalchemy.util.await_only, greenback.await_), or call it in a worker thread"
    )


def _patched_by() -> str | None:
    """What has replaced this process's threads by greenlets, if anything."""
    for name, asked, argument in (
        ("gevent.monkey", "is_module_patched", "threading"),
        ("eventlet.patcher", "is_monkey_patched", "thread"),
    ):
        module = sys.modules.get(name)
        if module is not None and getattr(module, asked)(argument):
            return name.partition(".")[0]
    return None


def refuse_green_threads(what: str, *, only_if_late: bool = False) -> None:
    """Raise ContextError if threading makes greenlets: they share a thread, so they are no homes.

    With `only_if_late`, what can do with greenlets: only if they came after homebound's import,
    so that our thread-local fields are one for all of them.
    """
    library = _patched_by()
    if library is None or (only_if_late and threading.local is _Local):
        return
    message = (
        f"{what}: {library} has replaced the threads of this process by greenlets, which share one "
        "thread and its running loop; patch all but them (gevent.monkey.patch_all(thread=False), "
        "eventlet.monkey_patch(thread=False)), or run homebound in a process of its own"
    )
    raise ContextError(message)
