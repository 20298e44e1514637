"""The mailbox of a context: a deque, and a bell that wakes its home.

The protocol, on every loop:

    producer, any thread:  append, then look at `_bell`; if it is up: take it, and wake the home
    consumer, the home:    put up a new bell, pass through the deque's lock, then look a last time

so a burst of posts to a sleeping home costs one wake, and posts to one that is awake cost none. For
a foreign loop the home is woken first, and several producers may do so; see `bell.py`. Model:
tests/model/bell.pml.

`Mailbox._post` is the producer's side. It is written out again where a call would cost too much,
and where an exception between the append and the ring (from a signal handler, or for lack of stack
or memory) needs another repair. Each place appends, then looks at `_bell`, then rings:

    _core/cell.py      Enterable._wake_in         a wake from another thread
    _core/cell.py      OneSuspension.wake         a completion; abandons the task if it is refused
    _core/context.py   AioContext.call_soon       the entry is cancelled if that raises
    _core/entries.py   BottomHalf.schedule        gives its token back if the context is closed
    _core/loop.py      Loop.call_soon
    _core/loop.py      Loop.call_soon_threadsafe
    _core/loop.py      Loop.create_task
    _core/mailbox.py   Mailbox._post
    _core/mailbox.py   Mailbox._post_first
    _core/task.py      Task._future_done          _heard's replacement on Python 3.14 and later
    _core/task.py      Task._heard                a future or task that it awaits is done
    _core/task.py      Task._wait_for             a move; cut_short.py rings, if that was cut short
    _core/waiting.py   post_new                   Ctrl-C finds the task queued, and cancels it

The home is awake when it appends for itself, and rings nothing:

    _aio/timers.py     TimedLoop._collect_timers
    _aio/loop.py       InheritedLoop._run_nested
    _aio/loop.py       InheritedLoop._run_timed
    _aio/loop.py       InheritedLoop._serve
    _aio/loop.py       InheritedLoop.call_exception_handler
    _core/cell.py      Enterable._resume_with
    _core/chain.py     Chain._end_chain
    _core/chain.py     Chain._put_aside
    _core/chain.py     Chain._run_chain
    _core/cut_short.py _run_in_a_copy
    _core/loop.py      Loop._run_with_care
    _core/put_back.py  put_back
    _core/task.py      Task._run

tests/core/test_post_sites.py finds any other place, and checks the order in these.
"""

from __future__ import annotations

from _thread import start_new_thread as start_thread
from collections import deque
from itertools import repeat
from typing import Any, Protocol

from .._errors import ContextClosed
from .._os.parking import SET
from .bell import AWAKE, CLOSED


class Entry(Protocol):
    """An object in a mailbox: a task, a handle, a bottom half, a message between homes.

    An entry may also have `_unrun()`, called in place of `_run()` when its context has ended. The
    thread that takes an entry out of the mailbox calls one of the two, once.
    """

    @property
    def _cancelled(self) -> bool:
        """True if the home is to skip it. Any thread may write it."""

    def _run(self) -> object:
        """Run it. Called by the home, which reports an exception to the loop."""


class KeptQueue(deque[Any]):
    """A loop's mailbox while asyncio closes the loop and clears its queue, which keeps the entries.

    A producer that posts at this moment withdraws its entry itself.
    """

    def clear(self) -> None:
        """Keep all entries."""


class Mailbox:
    """The entries that are to run in a context. Each kind of context wakes its home in `_ring`."""

    _aside: deque[Entry] = KeptQueue()  # see KeptQueue; empty until the loop is closed
    _forked = False  # it is the parent process's; set in the child, while that has one thread

    def __init__(self) -> None:
        # Any thread appends; the home (or its stand-in) alone pops.
        self._ready: deque[Entry] = deque()
        # AWAKE, or the bell of the present sleep, or CLOSED. Written by the home, and by its
        # stand-in under the big lock. Falsy means: a producer has nothing to do.
        self._bell: Any = [SET]
        self._closed = False  # set once, by the thread that closes it, of which there is one

    def _post(self, entry: Entry) -> None:
        """Put an entry into the mailbox: append first, then look (pairs with the home's sleep)."""
        try:
            self._ready.append(entry)
            if self._bell:
                self._ring(entry)
        except ContextClosed:
            raise
        except BaseException:  # out of stack or memory, or a signal handler's: it may be posted
            try:
                self._ring_for_own()
            except BaseException:  # noqa: BLE001  (surely.py)
                start_thread(self._ring_for_own, ())
            raise

    def _post_first(self, entry: Entry) -> None:
        """Put an entry ahead of all others: a cancellation reaches a task that is about to run."""
        self._ready.appendleft(entry)
        if self._bell:
            self._ring(entry)

    def _ring(self, entry: Entry | None) -> None:
        """Wake the home, having posted `entry` and seen the bell; or refuse if it is closed."""
        raise NotImplementedError

    def _withdraw(self, entry: Entry | None) -> None:
        """Remove an entry that was posted to a closed context, and refuse it, if it is still there.

        Either the producer or the closer removes it, and that one answers for it.
        """
        if entry is None:
            return
        for queue in (self._ready, self._aside):
            try:
                queue.remove(entry)
            except ValueError:
                continue
            self._refuse()
        # Else the closer found it and called its `_unrun`.

    def _refuse(self) -> None:
        message = (
            f"{self!r} has ended: nothing can be scheduled, moved or spawned there any more; "
            "end what feeds it before it ends, or make another"
        )
        if self._forked:
            message = (
                f"{self!r} has ended: it was forked, its home is in the parent process; "
                "make a new one here, with homebound.run or an IOThread"
            )
        raise ContextClosed(message)

    def _end_in_child(self) -> None:
        """Close in a forked process, without ending any task: they are the parent's."""
        self._forked = self._closed = True
        self._bell = CLOSED
        # A new one: one of the parent's threads may have been at work on the old.
        self._ready = deque()

    def _ring_for_own(self) -> None:
        """Ring for what the home has queued for itself without ringing."""
        if self._ready and self._bell:
            self._ring(None)

    def _shut(self) -> None:
        """Refuse every post from now on, and call `_unrun` of entries left. The closer.

        If a signal handler raises meanwhile, another call does the rest.
        """
        self._closed = True
        self._bell = CLOSED  # forever: a producer finds it after its append
        self._ready.rotate(0)
        # Take all of them first. `_unrun` may post, which is refused: the producer then looks for
        # its entry in the mailbox, which is short.
        # Entries whose `_unrun` is still to be called; made only now: see AioContext._close.
        left: deque[Entry] = self.__dict__.setdefault("_left", deque())
        try:
            # In C: an entry is in one of the two queues at each bytecode.
            left.extend(map(deque.popleft, repeat(self._ready, len(self._ready))))
        except IndexError:
            pass  # the producer of one withdrew it
        while left:
            tell = getattr(left[0], "_unrun", None)
            if tell is not None:
                tell()
            left.popleft()  # after the call, which may be made again
            # Last: the jump rule.
            continue


def check_open(mailbox: Mailbox) -> None:
    """Raise ContextClosed if the context has ended. Called from: any thread."""
    if mailbox._closed:
        mailbox._refuse()


# Functions and not methods: the loop and a stand-in, which call them, are other objects.


def put_up_bell(mailbox: Mailbox) -> bool:
    """Put up a bell, pass through the deque's own lock, and only then look; True if it is empty.

    A producer passes through the same lock with its append before it looks for a bell, so one of
    the two sees the other (pairs with Mailbox._post). Model: tests/model/bell.pml.

    Called from: home, or its stand-in.
    """
    mailbox._bell = [SET]
    ready = mailbox._ready
    ready.rotate(0)
    return not ready


def take_bell_down(mailbox: Mailbox) -> None:
    """Have no producer ring, as a thread looks at the mailbox. Called from: home, or stand-in."""
    if not mailbox._closed:
        mailbox._bell = AWAKE
