"""The mailbox of a context: a deque, and a bell that wakes its home.

The protocol, on every loop:

    producer, any thread:  append, then look at `_bell`; if it is up: take it, and wake the home
    consumer, the home:    put up a new bell, pass through the deque's lock, then look a last time

so a burst of posts to a sleeping home costs one wake, and posts to one that is awake cost none; see
`bell.py`. Model: tests/model/bell.pml.
"""

from __future__ import annotations

import _thread
from collections import deque
from typing import Any

from .._errors import ContextClosed
from .bell import AWAKE, CLOSED


class KeptQueue(deque[Any]):
    """What a loop has for its mailbox while asyncio closes it, and empties its queue.

    A post that comes at this moment is the producer's to take back.
    """

    def clear(self) -> None:
        """Keep all of it."""


class Mailbox:
    """What is to run in a context. How its home is woken is for a context to say: `_ring`."""

    _aside: deque[Any] = KeptQueue()  # see KeptQueue; none yet
    _forked = False  # it was a parent process's; set in the child, which has but one thread then

    def __init__(self) -> None:
        # Any thread appends; the home (or its stand-in) alone pops.
        self._ready: deque[Any] = deque()
        # AWAKE, or the bell of the sleep that goes on, or CLOSED. Written by the home, and by
        # who stands in for it under the big lock. Falsy means: nothing to do for a producer.
        self._bell: Any = [None]
        self._closed = False  # set once, by the home's thread

    def _post(self, entry: Any) -> None:
        """Put an entry into the mailbox: append first, then look (pairs with the home's sleep)."""
        self._ready.append(entry)
        if self._bell:
            try:
                self._ring(entry)
            except ContextClosed:
                raise
            except BaseException:  # out of stack or memory, or of a signal handler: it is posted
                _thread.start_new_thread(self._ring, (None,))
                raise

    def _post_first(self, entry: Any) -> None:
        """`_post` ahead of all that waits: a cancellation reaches a task that is about to run."""
        self._ready.appendleft(entry)
        if self._bell:
            self._ring(entry)

    def _ring(self, entry: Any) -> None:
        """Wake the home, having posted `entry` and seen the bell; or refuse if it is closed."""
        raise NotImplementedError

    def _take_back(self, entry: Any) -> None:
        """The context is closed: whoever gets the entry out of the mailbox answers for it."""
        if entry is None:
            return
        for queue in (self._ready, self._aside):
            try:
                queue.remove(entry)
            except ValueError:
                continue
            self._refuse()
        # Else the closer found it there and told whom it concerns.

    def _refuse(self) -> None:
        message = f"{self!r} has ended: nothing can be scheduled, moved or spawned there any more"
        if self._forked:
            message = (
                f"{self!r} has ended: it was forked, its home is in the parent process; "
                "make a new one here, with homebound.run or an IOThread"
            )
        raise ContextClosed(message)

    def _ring_for_own(self) -> None:
        """What the home has queued for itself has rung nothing."""
        if self._ready and self._bell:
            self._ring(None)

    def _shut(self) -> None:
        """Refuse what comes from now on, and tell whom the rest concerns. Home, once."""
        self._closed = True
        self._bell = CLOSED  # for good: who posts from now on meets it after his append
        self._ready.rotate(0)
        # All of them first. Those who are told may post, and are refused: each then looks for its
        # entry in the mailbox, which is short.
        left: deque[Any] = deque()
        while self._ready:
            try:
                left.append(self._ready.popleft())
            except IndexError:
                break  # its producer took it back
        while left:
            entry = left.popleft()
            tell = getattr(entry, "_unrun", None)
            if tell is not None:
                tell()


# Functions, as whoever goes to sleep is not the mailbox: the loop, a stand-in. A function of
# this module costs a call less than a method that makes the bell by another.


def put_up_bell(mailbox: Mailbox) -> bool:
    """Put up a bell, pass through the deque's own lock, and only then look: True if it is empty.

    A producer passes through the same lock with its append before it looks for a bell, so one of
    us sees the other (pairs with Mailbox._post). Model: tests/model/bell.pml. Called from: home,
    or its stand-in.
    """
    mailbox._bell = [None]
    ready = mailbox._ready
    ready.rotate(0)
    return not ready


def take_bell_down(mailbox: Mailbox) -> None:
    """A thread looks after the mailbox: no producer need wake one. Called from: as above."""
    if not mailbox._closed:
        mailbox._bell = AWAKE
