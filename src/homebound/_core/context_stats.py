"""ContextStats: the counters of a context."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ContextStats:
    """A snapshot of what a context has done and has to do; other threads go on meanwhile."""

    name: str
    iterations: int  # of the loop
    entered: int  # mailbox entries run: task steps, callbacks, bottom halves
    wakeups: int  # sleeps ended by a post from another thread
    coalesced: int  # posts that needed no wake-up of their own
    ready: int  # entries in the mailbox now
    tasks: int  # unfinished tasks at home there
    closed: bool
