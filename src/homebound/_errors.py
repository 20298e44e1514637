"""The errors of homebound: each says what was called, from where, and what to call instead."""

from __future__ import annotations


class ContextError(RuntimeError):
    """A call that the rules of homes forbid. It changed nothing: task and context go on."""


class WrongThread(ContextError):
    """The call belongs in the thread that is the context's home (or holds the big lock)."""


class AlreadyScheduled(ContextError):
    """Somebody has promised to enter this task already; the message names who."""


class NotSuspended(ContextError):
    """Only a task that gave up control with `suspend()` can be entered or woken."""


class WouldDeadlock(ContextError):
    """Waiting here could never end: the one waited for needs this thread."""


class ContextClosed(ContextError):
    """The context has ended: nothing can run there any more."""
