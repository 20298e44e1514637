"""Time that does not pass unless everything waits."""

from __future__ import annotations

import math
import threading
from _thread import get_ident
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ..._aio.shapes import thread_frames
from ..._core.big_lock import shown_thread
from ..._core.context import every_context
from ..._core.loop import Loop
from ..._core.loop_context import LoopContext
from ..._os.clock import clock as seam
from ..._os.clock import monotonic
from ..._sync.event import Event
from .idle import Busy, Cut, Sleeper, cut
from .watch import watch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from ..._core.context import AioContext
    from ..._os.parking import Parker

_DIGITS = 6  # of `now()`: what is left of a float's digits when the machine has run for months
_ROUNDING = 1e-6  # seconds by which two ways to the same moment may differ


class VirtualClock:
    """A clock that stands while anything runs, and jumps when all wait; see `virtual_clock`.

    Called from: any thread.
    """

    def __init__(self, *, autojump: bool = True, calm: float = 0.0, patience: float = 1.0) -> None:
        if calm < 0 or patience < 0:
            message = f"virtual_clock: calm={calm}, patience={patience}; seconds, 0 or more"
            raise ValueError(message)
        self._autojump = autojump
        self._calm = calm
        self._patience = patience
        # Whole seconds, so that short times added to it lose no digits. In the past: what loops
        # have begun to wait for may come late, not early.
        self._began = float(int(monotonic()))
        self._time = self._began  # written by the watch's thread alone
        # Sleeps that go on, any thread's; each adds and takes out its own. Copied to be looked at:
        # that is one operation, going through a set is not.
        self._sleepers: set[Sleeper] = set()
        # Threads that must wait before time passes, and how often they said so. Single operations
        # by the thread concerned.
        self._parties: dict[int, int] = {}
        self._advances: list[_Advance] = []  # any thread appends, the watch's removes
        # The watch's thread only: the last cut that was idle, since when, and at which instruction
        # a party stood that was taken to wait although we do not know for what.
        self._idle: Cut | None = None
        self._idle_since = 0.0
        self._stuck: dict[int, tuple[int, int]] = {}
        self._why: Busy | None = None  # what keeps it from jumping

    def now(self) -> float:
        """Virtual seconds since it began, in whole microseconds.

        Called from: any thread.
        """
        return round(self._time - self._began, _DIGITS)

    @property
    def autojump(self) -> bool:
        """True if the clock jumps by itself when all wait; may be changed at any time.

        Called from: any thread.
        """
        return self._autojump

    @autojump.setter
    def autojump(self, value: bool) -> None:
        self._autojump = value
        watch.hurry()

    def advance(self, seconds: float) -> None:
        """Let `seconds` of virtual time pass; when this returns, all that they bring has happened.

        Time goes from one deadline to the next, and at each everything runs until all wait again.
        The caller waits meanwhile: a task's or callback's home turns its loop, as in `block_on`.
        Raises ValueError if `seconds` is negative, RuntimeError if the clock is not in force.

        Called from: any thread.
        """
        if seconds < 0:
            message = f"VirtualClock.advance({seconds}): time does not go back"
            raise ValueError(message)
        advance = _Advance(self._time + seconds)
        self._advances.append(advance)  # shown, then looked: pairs with __exit__
        try:
            if seam.time != self._read:
                message = "VirtualClock.advance: it is not in force; use it inside its `with`"
                raise RuntimeError(message)
            watch.hurry()
            advance.over.wait_sync()
        finally:
            self._take_out(advance)

    @contextmanager
    def party(self) -> Iterator[None]:
        """Inside it, time passes only while the calling thread waits, in homebound's waits.

        As for the thread in which the clock was made. Threads that are homes need not say so.

        Called from: any thread.
        """
        ident = get_ident()
        self._parties[ident] = self._parties.get(ident, 0) + 1
        try:
            yield
        finally:
            self._parties[ident] -= 1
            if not self._parties[ident]:
                del self._parties[ident]

    def __enter__(self) -> Self:
        if not watch.follow(self._tick, self._sleepers):
            message = "virtual_clock: another virtual clock is in force; there can be one at a time"
            raise RuntimeError(message)
        self._party = self.party()
        self._party.__enter__()
        seam.install(self._read, self._park)
        _wake_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        seam.restore()
        watch.leave()
        self._party.__exit__(None, None, None)
        self._idle = self._why = None  # they hold what others would like to drop
        _wake_all()  # sleeps without a timeout now get one
        for sleeper in self._sleepers.copy():
            sleeper.parker.unpark()
        for advance in self._advances.copy():
            advance.over.set()

    def __repr__(self) -> str:
        why = self._why
        return f"<VirtualClock {self.now()} s{'' if why is None else f', kept by {why}'}>"

    # What homebound asks in place of the system.

    def _read(self) -> float:
        return self._time

    def _park(
        self,
        parker: Parker,
        until: float | None,
        *,
        at_most: float | None = None,
        also: int | None = None,
    ) -> bool:
        me = Sleeper(get_ident(), parker, until)
        self._sleepers.add(me)  # shown, then looked: pairs with _jump, and with __exit__
        try:
            if seam.time != self._read or (until is not None and until <= self._time):
                return False
            unparked = parker.sleep(at_most, also=also)
        finally:
            self._sleepers.discard(me)
        if unparked:
            parker.clear()  # only now: cleared before, it would seem to sleep on
        return unparked

    # In the watch's thread.

    def _tick(self) -> bool:
        """Jump if all wait and no `settle` is under way. Returns True if it has."""
        asked = tuple(self._advances)  # before the look: a later caller has run since
        found = cut(None, self._sleepers)
        if isinstance(found, Busy):
            self._idle, self._why = None, found
            return False
        now = monotonic()
        if self._idle is None or not found.same(self._idle):
            self._idle_since = now
        self._idle = found
        calm = now - self._idle_since
        self._why = self._party_at_work(found, calm)
        if self._why is not None or calm < self._calm:
            return False
        return self._jump(found, asked)

    def _party_at_work(self, found: Cut, calm: float) -> Busy | None:
        """Return a party that did not wait, in a way that we know of, when all were idle.

        It may wait in another: for a thread, for a `concurrent.futures.Future`. One that stands
        where it is for as long as our patience lasts is taken to, until it is seen elsewhere. One
        that waits by now is no proof: it has perhaps given others work since.
        """
        waiting = {each.ident for each in found.sleepers}
        waiting.update(each._home_ident for each in found.contexts if each._home_ident is not None)
        for ident in self._parties.copy():
            if ident in waiting:
                self._stuck.pop(ident, None)
                continue
            place = _instruction(ident)
            if place is None or (self._stuck.get(ident) == place and _asleep(ident)):
                continue
            if calm < self._patience or not _asleep(ident):
                return Busy(f"thread {shown_thread(ident)}", "is at work")
            self._stuck[ident] = place
        return None

    def _jump(self, found: Cut, asked: tuple[_Advance, ...]) -> bool:
        """All wait: go to the earliest deadline, if there is one that we may go to."""
        loops = [each.loop for each in found.contexts if isinstance(each, LoopContext)]
        timers = [each.earliest_timer() for each in loops if type(each).time is Loop.time]
        sleepers = [each.until for each in found.sleepers]
        # An endless wait given as a number (`asyncio.sleep(math.inf)`) is no time to jump to.
        deadlines = [
            each for each in (*timers, *sleepers) if each is not None and not math.isinf(each)
        ]
        advance = min(asked, key=lambda each: each.until, default=None)
        earliest = min(deadlines, default=None)
        if advance is not None and (earliest is None or earliest > advance.until + _ROUNDING):
            self._time = max(self._time, advance.until)
            self._take_out(advance)
            advance.over.set()
            return True
        if earliest is None or not (advance is not None or self._autojump):
            return False
        self._time = max(self._time, earliest)
        self._wake_due(found.contexts)
        return True

    def _take_out(self, advance: _Advance) -> None:
        with suppress(ValueError):  # the caller was interrupted, or the clock was first
            self._advances.remove(advance)

    def _wake_due(self, contexts: list[AioContext]) -> None:
        """Wake all sleepers after the clock has moved (see `Clock`)."""
        for context in contexts:
            if isinstance(context, LoopContext):
                timer = context.loop.earliest_timer()
                if timer is not None and timer <= self._time:
                    _ring(context)
        for sleeper in self._sleepers.copy():
            if sleeper.until is not None and sleeper.until <= self._time:
                sleeper.parker.unpark()


class _Advance:
    """A call that waits for a time to come."""

    def __init__(self, until: float) -> None:
        self.until = until
        self.over = Event()


def _instruction(ident: int) -> tuple[int, int] | None:
    """Return the frame and the instruction at which a thread stands; None if it has ended."""
    frame = thread_frames().get(ident)
    return None if frame is None else (id(frame), frame.f_lasti)


def _asleep(ident: int) -> bool:
    """Return whether the thread sleeps, by the system's word: not merely waits for a core.

    Where it says nothing, a thread that stands still is taken to sleep.
    """
    thread = next((each for each in threading.enumerate() if each.ident == ident), None)
    if thread is None or thread.native_id is None:
        return True
    try:
        said = Path(f"/proc/self/task/{thread.native_id}/stat").read_text(encoding="ascii")
    except OSError:
        return True
    return said.rpartition(")")[2].split()[0] == "S"


def _ring(context: AioContext) -> None:
    if context._bell:
        context._ring(None)


def _wake_all() -> None:
    """Make every sleep until a time look at the clock again, as another one is in force."""
    for context in every_context():
        if isinstance(context, LoopContext) and not context._closed:
            _ring(context)


def virtual_clock(
    *, autojump: bool = True, calm: float = 0.0, patience: float = 1.0
) -> VirtualClock:
    """Return a clock for a `with`: time passes only while everything waits, and then at once.

    It is the time of homebound's loops (`asyncio.sleep`, `asyncio.timeout`, `call_later`) and of
    all timeouts of homebound, in every thread: `block_on`, `wait_while`, locks, queues. When all
    contexts are idle, as `settle` defines it, it jumps to the earliest deadline among them. A job
    in flight counts as busy, a worker's or (where a task on a homebound loop awaits it) another
    executor's. So does an I/O thread that starts or ends, and the thread that entered the `with`,
    unless it is a home or waits in one of homebound's waits; one that sleeps elsewhere for
    `patience` seconds of real time is taken to wait for something.

    With `autojump=False` only `clock.advance(seconds)` moves it. `calm` is for seconds of real time
    that all must have been idle before a jump: set it where an answer may come from outside, from a
    plain thread, a loop of others or another process, none of which is seen.

    Timers that are due at the same moment in several contexts run side by side, as ever. Loops of
    others keep their own time; `time.time()` and `time.sleep` are not changed.

    >>> import asyncio, homebound
    >>> from homebound.testing import virtual_clock
    >>> with virtual_clock() as clock:
    ...     homebound.run(asyncio.sleep(3600))
    ...     clock.now()
    3600.0

    Called from: any thread.
    """
    return VirtualClock(autojump=autojump, calm=calm, patience=patience)
