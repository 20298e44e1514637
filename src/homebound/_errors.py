"""The errors of homebound. A message says what was called, from where, and what to call instead."""

from __future__ import annotations


class ContextError(RuntimeError):
    """A call that the rules about homes forbid. It changed nothing: the task and context go on."""


class WrongThread(ContextError):
    """A call made outside the context's home thread, without the big lock."""


class AlreadyScheduled(ContextError):
    """A wake of a task that has been woken already; the message names the first waker."""


class NotSuspended(ContextError):
    """A wake of a task that has not given up control with `suspend()`."""


class WouldDeadlock(ContextError):
    """A wait that could never end, because what it waits for needs the calling thread."""


class ContextClosed(ContextError):
    """Use of a context that has ended: nothing can run there anymore."""
