"""The home of a loop of ours and its stand-ins: which of them may run its tasks, and which sleeps.

The main context is lived in by one thread, but while that sleeps it lends the big lock, and a
thread that takes the lock stands in for it. `StandIn` is what they tell each other by, and
tests/model/standin.pml searches every interleaving of it. (On a context that is not the main one
nobody stands in; the same object then only says that its home waits.)

Why no two threads run tasks of one context at once: each of them holds the big lock as it does. The
home lets go of it in `lend` alone, and before that it says that it does (`lent`); it says that it
is back in `come_back`, when the lock is its own again. In between it runs nothing, not even in a
signal handler or a finaliser that comes in: `may_run_here` is False. A second exception may keep
`come_back` from taking the lock; then `lent` stays, and whatever would run something at home next
calls it again first.

Why nothing is slept over: who goes to sleep, or leaves the main context to a home that sleeps, puts
up a bell first and looks last (`put_up_bell`), in between all that the other might have left.

    the home sleeps      bell, look; `sleeps_until`; lend; sleep; take the lock; no bell, None
    a stand-in begins    take the lock; no bell: it looks itself, so nobody need wake the home
    a stand-in ends      if `sleeps_until`: bell, look; something: ring. Let the lock go
    a stand-in sleeps    among the watchers; bell, look; nothing: let the lock go, park, and begin

A producer that saw no bell has appended before the look of whoever put the next one up. A timer of
the stand-in's that is due before `sleeps_until`, a notification it has taken or a stop it has made
(`tell_home`), a descriptor it has begun to watch where the selector is not told of those: each
counts as something. The ring is repeated at the end of each turn until the home has come, as
another stand-in may take the notification before it wakes. The home compares `turns`: if there was
a stand-in, what it saw in its sleep may have been served, and it looks once more.

Every field is written under the big lock: by the home before it lends and after it has come back,
by a stand-in as long as it holds it. (`lent` is the home's own, which nobody else reads.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._os.clock import clock
from .._os.parking import SET, Parker, write_signal
from .big_lock import big_lock
from .current import current_context, here, main
from .mailbox import put_up_bell, take_bell_down

if TYPE_CHECKING:
    import selectors

    from .context import AioContext


class StandIn:
    """How a home and its stand-ins share a loop. Home, or with the big lock, except for `lent`."""

    __slots__ = ("_asleep_on", "_home_must_look", "_loop", "lent", "sleeps_until", "turns")

    def __init__(self, loop: Any) -> None:
        # One of ours; of others' no more is used than `lent`. It leads to the context as well.
        self._loop = loop
        # The home waits, and has let go of the big lock, or is about to. Written by its thread.
        self.lent = False
        # How often a thread has taken over.
        self.turns = 0
        # When the home, now asleep, means to wake by itself, in the loop's time; None while awake.
        self.sleeps_until: float | None = None
        # What it watches in its sleep, where it cannot sleep in the selector; else None.
        self._asleep_on: list[selectors.SelectorKey] | None = None
        # A stand-in has taken a notification, which may have been for the home, or has stopped the
        # loop: the home is to look as well. Taken back by the home as it wakes.
        self._home_must_look = False

    # The home.

    def lend(self) -> None:
        """Let go of the big lock until `come_back`; the caller has a `finally` that calls that."""
        self.lent = True
        big_lock._let_go()

    def home_sleeps(self, until: float | None, watched: list[selectors.SelectorKey] | None) -> None:
        """Lend the lock for a sleep until that time; not in the selector, if `watched` is given."""
        self.sleeps_until = float("inf") if until is None else until
        self._asleep_on = watched
        self.lend()

    def has_lent(self) -> bool:
        """The calling thread is the main home, and is about to take the big lock back."""
        return self.lent and here.home is self._loop.home and here.home is main.context

    def come_back(self) -> None:
        """The home, awake again, takes the big lock back that it has lent; raises as that does.

        A signal handler that raises may come before the lock's own care has begun. It is lent yet
        then; whatever would run something here next looks for that first, and calls this again.
        """
        try:
            big_lock._take_back()
        finally:
            if here.has_big_lock:
                self.awake()

    def awake(self) -> None:
        """Note that the home no longer sleeps."""
        self.sleeps_until = self._asleep_on = None
        self._home_must_look = False
        take_bell_down(self._loop.home)  # it put one up, or a stand-in that went to sleep
        self.lent = False

    def nested_begins(self) -> tuple[bool, bool]:
        """Take the lock back for a nested run that a signal handler begins in the home's sleep.

        Returns whether that is so, and whether the lock had been let go by then: what
        `nested_ends` needs to know.
        """
        lent = self.has_lent()
        let_go = lent and not here.has_big_lock
        if lent:
            self.come_back()
        return lent, let_go

    def nested_ends(self, *, lent: bool, let_go: bool) -> None:
        """Return to the state in which `nested_begins` found the home."""
        if lent:
            self.lent = True
            self._ring()  # it is not asleep any more, in all it says
            if let_go:
                big_lock._let_go()
        elif self.has_lent():
            self.come_back()

    # A stand-in: called by the big lock in a thread that is no home, while it holds the lock.

    def begins(self) -> None:
        """The calling thread holds the lock: it looks after the mailbox now."""
        self.turns += 1
        take_bell_down(self._loop.home)

    def ends(self) -> None:
        """Wake the home if there is something for it to do before it would look by itself."""
        loop = self._loop
        home: AioContext = loop.home
        if self.sleeps_until is None or home._closed:
            return
        # It went to sleep before we came: put up a bell for it again, and only then look, as it
        # would have done.
        idle = put_up_bell(home)
        timer = loop.next_timer()
        if not idle or self._must_ring() or (timer is not None and timer < self.sleeps_until):
            home._ring(None)

    def sleep(self, parker: Parker) -> None:
        """Sleep without the big lock: until events, a timer, a post, or unparked.

        It collects nothing: it learns that there is something, and looks for itself under the lock.
        The home may be asleep in the same selector; whoever comes first serves it.
        """
        loop = self._loop
        until = loop.next_timer()
        if not put_up_bell(loop.home):
            take_bell_down(loop.home)
            return
        also = loop.selector_fd()
        if self._must_ring() and self.sleeps_until is not None:
            loop.home._ring(None)
            also = None  # the ring is for the home, who tells us of its iteration
        try:
            big_lock._make_ready()
            big_lock._let_go()
            clock.park(parker, until, also=also)
        finally:
            try:
                big_lock._take_back()  # raises what was raised meanwhile, with the lock in our hand
            finally:
                if not here.has_big_lock:  # interrupted before it had begun
                    big_lock._take_back()
                self.begins()

    def tell_home(self) -> None:
        """What just happened here is for the home as well, if the caller is not that."""
        if here.home is not self._loop.home:
            self._home_must_look = True

    def _must_ring(self) -> bool:
        """The home has something to look at, or does not know of all that is watched."""
        asleep_on = self._asleep_on
        return self._home_must_look or (asleep_on is not None and asleep_on != self._loop.watched())

    def _ring(self) -> None:
        """End the sleep, bell or not."""
        write_signal(self._loop.signal.written_fd, SET)


def may_run_here(context: AioContext) -> bool:
    """Whether the calling thread may run tasks of `context` in its stack now.

    It must be current, and the thread must not be in the midst of a wait of its home in which
    others may stand in (in a signal handler, or a finaliser). The main context takes the big lock
    beside, which its home may have let go by hand. On a loop of others the lock guards nothing of
    the tasks': no holder is ever at home there.

    A wake at home asks the part that can fail there itself, without a call: see
    AioContext._enter_here. Called from: any thread.
    """
    # The first half of this is current_context() for a loop of ours, without the call.
    if (here.context is not context or context._is_guest) and current_context() is not context:
        return False
    if context._stand_in.lent and here.home is context:
        return False
    return context is not main.stood_in_for or here.has_big_lock
