"""Stall watch: a thread that looks now and then whether the others get on.

It only reads what is there anyway. A home is in one iteration if its count of iterations and its
bell are the very same as before; a bell is made for each sleep. A hold of the big lock is told from
the next by how often the thread has queued for it.
"""

from __future__ import annotations

import _thread
import logging
import threading
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from .._aio.shapes import thread_frames
from .._core.big_lock import big_lock, thread_name
from .._core.context import AioContext, every_context
from .._os.clock import monotonic
from .._os.snapshot import snapshot
from .._sync.holders import begin, end
from .deadlock import look
from .wait_graph import WaitGraph

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from .._core.current import Seat
    from .deadlock import Deadlock

logger = logging.getLogger("homebound")


@dataclass(frozen=True, slots=True)
class Stall:
    """Somebody does not get on. `str()` of it is the whole report."""

    kind: str  # "context", "big lock" or "deadlock"
    threads: tuple[str, ...]  # names of those at fault
    seconds: float  # for how long it has been so, at least
    message: str  # one line, without the time: the same for the same stall
    stacks: str  # of the threads at fault, innermost call last

    def __str__(self) -> str:
        return f"{self.message}, for {self.seconds:.1f} s now\n{self.stacks}"


def watch_stalls(
    threshold: float = 1.0, *, report: Callable[[Stall], object] | None = None
) -> StallWatch:
    """Watch for homes and holders of the big lock that block, and for deadlocks, until stopped.

    Reported once each, with the stacks of the threads at fault: a home that has been in one
    iteration of its loop for longer than `threshold` seconds; a big lock held for longer than that
    by a thread that is no home, or while another thread waited for it; deadlocks: tasks and threads
    that wait for each other, through locks taken while it watches, tasks, workers, and more.
    `report` gets a `Stall`, in the watching thread; by default it is a warning of the logger
    "homebound". Cheap enough to leave on: a lock costs 0.1 to 0.4 µs more to take, the rest
    nothing. Raises ValueError if `threshold` is not above 0.

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
    """What `watch_stalls` gives: `stop()` it, or use it as a context manager."""

    def __init__(self, threshold: float, report: Callable[[Stall], object] | None) -> None:
        if not threshold > 0:
            message = f"watch_stalls: threshold is {threshold}; it must be above 0 seconds"
            raise ValueError(message)
        self._threshold = threshold
        self._report = _log if report is None else report
        self._stopped = False  # set once, by any thread; then it lets the watch go on
        # Taken, until `stop` releases it: the watch sleeps in trying to take it. An Event has a
        # lock inside that a fork may find taken, and `stop` would wait for that in the child.
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
        """Watch no more; when this returns, nothing is reported any more. No-op a second time.

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
        look = Look(self._threshold)
        pause = min(self._threshold / 2, threading.TIMEOUT_MAX)
        while not self._at_rest.acquire(timeout=pause):
            for stall in look(monotonic()):
                if self._stopped:
                    return
                try:
                    self._report(stall)
                except Exception:
                    logger.exception("the report of a stall failed")


def _log(stall: Stall) -> None:
    logger.warning("%s", stall)


class _Seen:
    """Something that has not changed since. Its key holds on to the objects it compares."""

    __slots__ = ("key", "reported", "since")

    def __init__(self, key: tuple[Any, ...], since: float) -> None:
        self.key = key
        self.since = since
        self.reported = False

    def is_still(self, key: tuple[Any, ...]) -> bool:
        return len(key) == len(self.key) and all(map(_same, self.key, key))


def _same(one: object, other: object) -> bool:
    return one is other


class Look:
    """One look after the other: what stalls are new. Used by one thread."""

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._seen: dict[str, _Seen] = {}  # by what it is about; only what is going on now
        self._now = 0.0

    def __call__(self, now: float) -> list[Stall]:
        """What has become a stall by `now`, in seconds of one's own clock."""
        self._now = now
        before, self._seen = self._seen, {}
        graph = WaitGraph()
        deadlocks = look(graph)
        stalls = list(self._deadlocks(deadlocks, before))
        caught = {ident for each in deadlocks for ident in each.idents}
        in_one = set()  # homes that are in one iteration: the lock they may hold is not the point
        for context in graph.contexts:
            ident = context._home_ident
            if ident in caught or ident in graph.queue:
                continue  # it waits for somebody else, who is looked at
            stall, same = self._context(context, before)
            if same and ident is not None:
                in_one.add(ident)
            stalls += stall
        holder, *waiters = snapshot(big_lock._queue) or (None,)
        if holder is not None and holder.ident not in in_one and holder.ident not in caught:
            stalls += self._big_lock(holder, waiters, before)
        return stalls

    def _is_new_stall(self, what: str, key: tuple[Any, ...], before: dict[str, _Seen]) -> float:
        """For how long `key` has not changed, if that is too long and not reported; else 0."""
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
        """New stalls of a home, and whether it is where it was at the last look."""
        bell, ident = context._bell, context._home_ident
        asleep = bell or getattr(context.loop, "_sleeps_until", None) is not None
        if asleep or ident is None or not _lives(context):
            return [], False
        what = f"context {context.name!r} {id(context)}"
        # Iterations are compared as they were then; small ints are one object, large ones are not.
        key = (context, context._home_ident, bell, context._iterations)
        seconds = self._is_new_stall(what, key, before)
        message = f"context {context.name!r}: thread {thread_name(ident)} blocks in one iteration"
        stalls = [_stall("context", [ident], seconds, message)] if seconds else []
        return stalls, self._seen[what].since < self._now

    def _big_lock(self, holder: Seat, waiters: list[Seat], before: dict[str, _Seen]) -> list[Stall]:
        owner = holder.ident
        message = f"big lock: held by thread {thread_name(owner)}, "
        if not any(context._home_ident == owner and _lives(context) for context in every_context()):
            what: str = "hold"
            key: tuple[object, ...] = (holder, holder.turns)
            message += "which is no home"
        else:
            if not waiters:
                return []
            waiter = waiters[0]
            what, key = "wait", (holder, holder.turns, waiter, waiter.turns)
            message += f"thread {thread_name(waiter.ident)} waits"
        seconds = self._is_new_stall(what, key, before)
        return [_stall("big lock", [owner], seconds, message)] if seconds else []

    def _deadlocks(self, deadlocks: list[Deadlock], before: dict[str, _Seen]) -> Iterator[Stall]:
        """Those that have been seen for so long, with the same waits in each look."""
        for deadlock in deadlocks:
            message = str(deadlock)
            what = f"{message} {[id(each) for each in deadlock.proof]}"  # names may be the same
            seconds = self._is_new_stall(what, deadlock.proof, before)
            if seconds:
                names = tuple(thread_name(ident).strip("'") for ident in sorted(deadlock.idents))
                yield Stall("deadlock", names, seconds, message, "\n".join(deadlock.stacks()))


def _lives(context: AioContext) -> bool:
    """Its home is at work. One that has ended may leave its ident, and a new thread gets it."""
    return not context._closed and context.loop.is_running()


def _stall(kind: str, idents: list[int], seconds: float, message: str) -> Stall:
    frames = thread_frames()
    lines = []
    for ident in idents:
        lines.append(f"thread {thread_name(ident)}:")
        if ident in frames:
            lines += map(str.rstrip, traceback.format_stack(frames[ident]))
    names = tuple(thread_name(ident).strip("'") for ident in idents)
    return Stall(kind, names, seconds, message, "\n".join(lines))
