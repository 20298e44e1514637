"""Stall watch: a thread that regularly looks whether homes and holders of the big lock go on.

It only reads state that is kept anyway. A home is still in the same iteration if its count of
iterations and its bell are the same objects as before; a new bell is made for each sleep. Two holds
of the big lock by one thread differ in how often the thread has queued for it.
"""

from __future__ import annotations

import _thread
import logging
import threading
from dataclasses import dataclass
from operator import is_
from typing import TYPE_CHECKING, Any, Self

from .._aio.shapes import thread_frames
from .._core.big_lock import shown_thread, thread_name
from .._core.context import every_context
from .._core.coroutines import check_callback
from .._os.clock import monotonic
from .._os.stacks import stack
from .._sync.holders import begin, end
from .deadlock import look
from .private_state import big_lock_queue, home_sleeps, is_alive, progress
from .wait_graph import WaitGraph

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from .._core.context import AioContext
    from .._core.current import Seat
    from .deadlock import Deadlock

logger = logging.getLogger("homebound")


@dataclass(frozen=True, slots=True)
class Stall:
    """A home, a holder of the big lock, or a set of tasks and threads that does not go on.

    `str()` of it is the whole report.
    """

    kind: str  # "context", "big lock" or "deadlock"
    threads: tuple[str, ...]  # the names of the threads at fault
    seconds: float  # how long it has lasted, at least
    message: str  # one line, without the time: the same for the same stall
    stacks: str  # of the threads at fault, innermost call last

    def __str__(self) -> str:
        return f"{self.message}, for {self.seconds:.1f} s now\n{self.stacks}"


def watch_stalls(
    threshold: float = 1.0, *, report: Callable[[Stall], object] | None = None
) -> StallWatch:
    """Watch for homes and holders of the big lock that block, and for deadlocks, until stopped.

    It reports, once each and with the stacks of the threads at fault: a home that has been in one
    iteration of its loop for longer than `threshold` seconds; a big lock held for longer than that
    by a thread that is no home, or while another thread waited for it; and deadlocks, that is tasks
    and threads that wait for each other, through locks acquired while it watches, tasks, workers,
    and more. `report` is called with a `Stall`, in the watching thread; by default, the logger
    "homebound" gets a warning. Cheap enough to leave on: acquiring a lock costs 0.1 to 0.4 µs more,
    nothing else costs more. asyncio's debug mode (`run(debug=True)`, PYTHONASYNCIODEBUG=1, -X dev)
    watches by itself. Raises TypeError or ValueError if `threshold` is no number above 0.

    >>> import homebound, threading
    >>> told = threading.Event()
    >>> with homebound.watch_stalls(0.05, report=lambda stall: (print(stall.message), told.set())):
    ...     with homebound.IOThread("io0") as io:
    ...         _ = io.context.call_soon(told.wait)  # blocks its home
    ...         _ = told.wait()
    context 'io0': thread 'io0' blocks in one iteration

    Called from: any thread.
    """
    return StallWatch(threshold, report)


class StallWatch:
    """The watch that `watch_stalls` starts: `stop()` it, or use it as a context manager."""

    def __init__(self, threshold: float, report: Callable[[Stall], object] | None) -> None:
        if isinstance(threshold, bool) or not isinstance(threshold, (int, float)):
            message = f"watch_stalls: threshold is a number of seconds, not {threshold!r}"
            raise TypeError(message)
        if not threshold > 0:
            message = f"watch_stalls: threshold is {threshold}; it must be above 0 seconds"
            raise ValueError(message)
        if report is not None:
            check_callback("watch_stalls: report", report)
        self._threshold = threshold
        self._report = _log if report is None else report
        self._stopped = False  # set once, by any thread, before it releases `_at_rest`
        # Held until `stop` releases it: the watch sleeps in an attempt to acquire it. An Event has
        # a lock inside that may be held at a fork, and `stop` would wait for that in the child.
        self._at_rest = _thread.allocate_lock()
        self._at_rest.acquire()
        self._thread = threading.Thread(target=self._watch, name="stall-watch", daemon=True)
        begin()
        try:
            self._thread.start()
        except BaseException:  # out of threads
            end()
            raise

    def stop(self) -> None:
        """Stop watching; nothing is reported once this has returned. No-op a second time.

        Called from: any thread.
        """
        self._stopped = True
        try:
            self._at_rest.release()
        except RuntimeError:
            pass  # it was stopped before
        if self._thread is not threading.current_thread():
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _watch(self) -> None:
        try:
            self._look_on()
        finally:
            end()

    def _look_on(self) -> None:
        looks = Look(self._threshold)
        pause = min(self._threshold / 2, threading.TIMEOUT_MAX)
        while not self._at_rest.acquire(timeout=pause):
            for stall in looks(monotonic()):
                if self._stopped:
                    return
                try:
                    self._report(stall)
                except Exception:
                    logger.exception("the report of a stall failed")


def _log(stall: Stall) -> None:
    logger.warning("%s", stall)


class _Seen:
    """A state that has lasted since a time. Its key keeps the objects alive that it compares."""

    __slots__ = ("key", "reported", "since")

    def __init__(self, key: tuple[Any, ...], since: float) -> None:
        self.key = key
        self.since = since
        self.reported = False

    def is_still(self, key: tuple[Any, ...]) -> bool:
        return len(key) == len(self.key) and all(map(is_, self.key, key))


class Look:
    """A series of looks, each of which returns the new stalls. Used by one thread."""

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._seen: dict[str, _Seen] = {}  # by description; only what goes on now
        self._now = 0.0

    def __call__(self, now: float) -> list[Stall]:
        """Return what has become a stall by `now`, in seconds of the caller's clock."""
        self._now = now
        before, self._seen = self._seen, {}
        graph = WaitGraph()
        deadlocks = look(graph)
        stalls = list(self._deadlocks(deadlocks, before))
        caught = {ident for each in deadlocks for ident in each.idents}
        in_one = set()  # homes in one iteration: not reported as holders of the lock too
        for context in graph.contexts:
            ident = progress(context).ident
            if ident in caught or ident in graph.big_lock_waiters:
                continue  # it waits for another thread, which is looked at
            stall, same = self._context(context, before)
            if same and ident is not None:
                in_one.add(ident)
            stalls += stall
        holder, waiters = big_lock_queue()
        if holder is not None and holder.ident not in in_one and holder.ident not in caught:
            stalls += self._big_lock(holder, waiters, before)
        return stalls

    def _stalled_for(self, what: str, key: tuple[Any, ...], before: dict[str, _Seen]) -> float:
        """Record a state; return its age if that is too long and has not been reported, else 0."""
        seen = before.get(what)
        if seen is None or not seen.is_still(key):
            seen = _Seen(key, self._now)
        self._seen[what] = seen
        seconds = self._now - seen.since
        if seen.reported or seconds < self._threshold:
            return 0.0
        seen.reported = True
        return seconds

    def _context(self, context: AioContext, before: dict[str, _Seen]) -> tuple[list[Stall], bool]:
        """Return the new stalls of a home, and whether it is where it was at the last look."""
        key = progress(context)
        ident = key.ident
        asleep = key.bell or home_sleeps(context)
        if asleep or ident is None or not is_alive(context):
            return [], False
        what = f"context {context.name!r} {id(context)}"
        seconds = self._stalled_for(what, key, before)
        message = f"context {context.name!r}: thread {shown_thread(ident)} blocks in one iteration"
        stalls = [_stall("context", [ident], seconds, message)] if seconds else []
        return stalls, self._seen[what].since < self._now

    def _big_lock(self, holder: Seat, waiters: list[Seat], before: dict[str, _Seen]) -> list[Stall]:
        owner = holder.ident
        message = f"big lock: held by thread {shown_thread(owner)}, "
        if not any(progress(each).ident == owner and is_alive(each) for each in every_context()):
            what: str = "hold"
            key: tuple[object, ...] = (holder, holder.turns)
            message += "which is no home"
        else:
            if not waiters:
                return []
            waiter = waiters[0]
            what, key = "wait", (holder, holder.turns, waiter, waiter.turns)
            message += f"thread {shown_thread(waiter.ident)} waits"
        seconds = self._stalled_for(what, key, before)
        return [_stall("big lock", [owner], seconds, message)] if seconds else []

    def _deadlocks(self, deadlocks: list[Deadlock], before: dict[str, _Seen]) -> Iterator[Stall]:
        """Return the deadlocks that have lasted too long, with the same waits in each look."""
        for deadlock in deadlocks:
            message = str(deadlock)
            what = f"{message} {[id(each) for each in deadlock.proof]}"  # names may be the same
            seconds = self._stalled_for(what, deadlock.proof, before)
            if seconds:
                names = tuple(thread_name(ident) for ident in sorted(deadlock.idents))
                yield Stall("deadlock", names, seconds, message, "\n".join(deadlock.stacks()))


def _stall(kind: str, idents: list[int], seconds: float, message: str) -> Stall:
    frames = thread_frames()
    lines = []
    for ident in idents:
        lines.append(f"thread {shown_thread(ident)}:")
        lines += stack(frames.get(ident))
    names = tuple(thread_name(ident) for ident in idents)
    return Stall(kind, names, seconds, message, "\n".join(lines))
