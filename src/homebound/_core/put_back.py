"""Entries that an exception kept from beginning go back into the mailbox.

The function that takes an entry out of a mailbox calls `put_back` when anything is raised there:
see cut_short.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import CodeType

    from .context import AioContext
    from .mailbox import Entry


def was_emptied(error: BaseException) -> bool:
    """Return whether the mailbox was emptied between the count of its entries and the taking.

    That happens if a signal handler runs a task in between that waits in a call, and so runs the
    loop. An exception of an entry has a frame below.
    """
    trace = error.__traceback__
    return type(error) is IndexError and trace is not None and trace.tb_next is None


# What stands between the loop and what an entry does: nothing has happened before it calls on.
_carriers: set[CodeType] = set()
_only_call: set[CodeType] = set()  # those that do nothing afterwards either, which could fail


def carries(*functions: Any, only_call: tuple[Any, ...] = ()) -> None:
    """Have `put_back` know functions that run entries, and do nothing before that."""
    _carriers.update(each.__code__ for each in (*functions, *only_call))
    _only_call.update(each.__code__ for each in only_call)


_NO_ROOM = (MemoryError, RecursionError)


def _has_no_room(error: BaseException) -> bool:
    """Return whether there was no memory or stack to call an entry, or what a handle calls."""
    last: Any = error.__traceback__
    while last.tb_next is not None and last.tb_next.tb_frame.f_code in _only_call:
        last = last.tb_next
    if last.tb_next is None:
        return True
    # A handle reports what its callback raises. That has failed as well, at the same depth.
    first = error.__context__
    trace = first.__traceback__ if isinstance(first, _NO_ROOM) else None
    return trace is not None and trace.tb_next is None and trace.tb_frame is last.tb_next.tb_frame


def put_back(home: AioContext, entry: Entry | None, error: BaseException) -> None:
    """Queue an entry again, ahead of all, if `error` came after it was taken out, before it began.

    Nothing is lost in between, as entries are taken out in C. Called by the function that took it
    out and has caught the error.
    """
    if entry is not None and isinstance(error, _NO_ROOM) and _has_no_room(error):
        home._ready.appendleft(entry)
        return
    step = error.__traceback__.tb_next  # type: ignore[union-attr]
    codes = {*_carriers, getattr(getattr(type(entry), "_run", None), "__code__", None)}
    while step is not None and step.tb_frame.f_code in codes:
        if step.tb_lineno == step.tb_frame.f_code.co_firstlineno:  # as that function began
            home._ready.appendleft(entry)  # type: ignore[arg-type]
            return
        step = step.tb_next
