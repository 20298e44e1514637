"""The home of a loop of ours and its stand-ins: which of them runs its tasks, and which sleeps.

The main context has one home thread. While that sleeps it lends the big lock, and a thread that
acquires the lock stands in for it. `StandIn` is the state through which they coordinate;
tests/model/standin.pml searches every interleaving of it. (A context that is not the main one has
no stand-ins: there the object only says that the home waits.)

Two threads never run tasks of the main context at once, because each of them holds the big lock
while it does. On the way to a wait the home sets `lent`, and only then releases the lock (`lend`,
`home_sleeps`, `nested_ends`). `awake` clears it, once the home holds the lock again. In between the
home runs no task, not even in a signal handler or a finaliser: `may_run_here` is False. A second
exception may keep `come_back` from reacquiring the lock. Then `lent` stays set, and the next call
that would run something at home calls `come_back` again first. (A main thread that calls
`big_lock.release()` itself gives this up until it has the lock again. `may_run_here` looks for
that; a wake at home and the loop's batch do not, as every wake would pay for it.)

No thread sleeps over work. A thread that goes to sleep, or leaves the main context to a sleeping
home, puts up a bell first and looks last (`put_up_bell`):

    the home sleeps      set `lent`; put up the bell, look; set `sleeps_until`; release the lock;
                         sleep; reacquire the lock; `awake`
    a stand-in begins    acquire the lock; take the bell down, as the stand-in looks itself
    a stand-in ends      if `sleeps_until` is set: put up the bell, look, and ring if there is
                         something; release the lock
    a stand-in sleeps    join the watchers; put up the bell, look; if there is nothing: release the
                         lock, park, begin

A producer that saw no bell has appended before the look that follows the next bell. These count as
something: an entry; a timer that is due before `sleeps_until`; a notification that a stand-in has
taken, or a stop that it has made (`tell_home`); a descriptor that it has begun to watch, where the
selector does not learn of it. The ring is repeated at the end of each turn until the home has come,
as another stand-in may take the notification before the home wakes. The home compares `turns`: if
there was a stand-in, the events that the home saw in its sleep may have been served, and it looks
once more.

In the main context every field but `lent` is written under the big lock: by the home before it
lends and after it has come back, by a stand-in while it holds the lock. In another context only its
home writes. `lent` is for the home's thread alone. (A loop that the collector takes has neither:
`lose` in resting.py writes `turns` then.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._os.clock import clock
from .._os.parking import SET, Parker, write_signal
from .bell import AWAKE
from .big_lock import big_lock
from .current import current_context, here, main
from .mailbox import put_up_bell, take_bell_down

if TYPE_CHECKING:
    import selectors

    from .context import AioContext


class StandIn:
    """The state by which a home and its stand-ins share a loop. Home, or under the big lock."""

    __slots__ = ("_asleep_on", "_home_must_look", "_loop", "lent", "sleeps_until", "turns")

    def __init__(self, loop: Any) -> None:
        # A loop of ours, which leads to its context. On a foreign loop only `lent` is used.
        self._loop = loop
        # The home waits, and has released the big lock, or is about to. Written by its thread.
        self.lent = False
        # How often a thread has taken over.
        self.turns = 0
        # When the home, now asleep, means to wake by itself, in the loop's time; None while awake.
        self.sleeps_until: float | None = None
        # What it watches in its sleep, where it cannot sleep in the selector; else None.
        self._asleep_on: list[selectors.SelectorKey] | None = None
        # A stand-in has taken a notification, which may have been for the home, or has stopped the
        # loop: the home must look as well. Cleared by the home as it wakes.
        self._home_must_look = False

    # The home.

    def lend(self) -> None:
        """Release the big lock until `come_back`, which the caller calls in a `finally`."""
        self.lent = True
        big_lock._release_if_held()

    def home_sleeps(self, until: float | None, watched: list[selectors.SelectorKey] | None) -> None:
        """Lend the lock for a sleep until that time; not in the selector, if `watched` is given."""
        self.sleeps_until = float("inf") if until is None else until
        self._asleep_on = watched
        self.lent = True  # lend, without the calls
        if here.seat.has_big_lock:
            big_lock.release()

    def has_lent(self) -> bool:
        """Return whether the calling thread is the main home, and has yet to reacquire the lock."""
        return self.lent and here.seat.home is self._loop.home and here.seat.home is main.context

    def come_back(self) -> None:
        """Reacquire the big lock in the home that has woken; raise what was raised meanwhile.

        A signal handler may raise before the lock has begun to handle exceptions. The lock is still
        lent then; the next call that would run something at home sees that, and calls this again.
        """
        try:
            big_lock._reacquire()
        finally:
            if here.seat.has_big_lock:
                self.awake()

    def awake(self) -> None:
        """Note that the home no longer sleeps."""
        self.sleeps_until = self._asleep_on = None
        self._home_must_look = False
        home = self._loop.home
        if not home._closed:  # take_bell_down, without the call
            home._bell = AWAKE  # it was put up by the home, or by a stand-in that went to sleep
        self.lent = False

    def nested_begins(self) -> tuple[bool, bool]:
        """Reacquire the lock for a nested run that a signal handler begins in the home's sleep.

        Returns whether that is so, and whether the lock had been released by then, for
        `nested_ends`.
        """
        lent = self.has_lent()
        released = lent and not here.seat.has_big_lock
        if lent:
            self.come_back()
        return lent, released

    def nested_ends(self, *, lent: bool, released: bool) -> None:
        """Return to the state in which `nested_begins` found the home."""
        if lent:
            self.lent = True
            self._ring()  # `awake` has cleared the fields of its sleep, so that must end
            if released:
                big_lock._release_if_held()
        elif self.has_lent():
            self.come_back()

    # A stand-in: called by the big lock in a thread that is no home, while it holds the lock.

    def begins(self) -> None:
        """Begin to look at the mailbox, in the thread that has acquired the lock."""
        self.turns += 1
        take_bell_down(self._loop.home)

    def ends(self) -> None:
        """Wake the home if it has something to do before it would look by itself."""
        loop = self._loop
        home: AioContext = loop.home
        if self.sleeps_until is None or home._closed:
            return
        # The home was asleep when the stand-in came: put up a bell for it again, and only then
        # look, as the home would have done.
        idle = put_up_bell(home)
        timer = loop.next_timer()
        if not idle or self._must_ring() or (timer is not None and timer < self.sleeps_until):
            home._ring(None)

    def sleep(self, parker: Parker) -> None:
        """Sleep without the big lock until an event, a timer, a post, or an unpark.

        The sleep collects no events: the stand-in looks for them once it holds the lock. The home
        may be asleep in the same selector; the first of the two to have the lock serves them.
        """
        loop = self._loop
        until = loop.next_timer()
        if not put_up_bell(loop.home):
            take_bell_down(loop.home)
            return
        also = loop.selector_fd()
        if self._must_ring() and self.sleeps_until is not None:
            loop.home._ring(None)
            also = None  # the ring is for the home, which unparks this thread after its iteration
        try:
            big_lock._make_ready()
            big_lock._release_if_held()
            clock.park(parker, until, also=also)
        finally:
            try:
                big_lock._reacquire()  # raises what was raised meanwhile, once it holds the lock
            finally:
                if not here.seat.has_big_lock:  # interrupted before it had begun
                    big_lock._reacquire()
                self.begins()

    def tell_home(self) -> None:
        """Have the home look, too, at what has just happened, unless the caller is the home."""
        if here.seat.home is not self._loop.home:
            self._home_must_look = True

    def _must_ring(self) -> bool:
        """Return whether the home must look, or does not know of all that is watched."""
        asleep_on = self._asleep_on
        return self._home_must_look or (asleep_on is not None and asleep_on != self._loop.watched())

    def _ring(self) -> None:
        """End the home's sleep, whether or not a bell is up."""
        write_signal(self._loop.signal.written_fd, SET)


def may_run_here(context: AioContext) -> bool:
    """Return whether the calling thread may run tasks of `context` in its stack now.

    The context must be current, and the thread not in a wait of its home in which others may stand
    in (as in a signal handler or a finaliser). The main context also needs the big lock, which its
    home may have released by hand. On a foreign loop the lock guards no task: its holder is never
    at home there.

    A wake at home tests the part that can fail there without a call: see
    AioContext._enter_here. Called from: any thread.
    """
    # The first half of this is current_context() for a loop of ours, without the call.
    if (here.context is not context or context._is_guest) and current_context() is not context:
        return False
    if context._stand_in.lent and here.seat.home is context:
        return False
    return context is not main.stood_in_for or here.seat.has_big_lock
