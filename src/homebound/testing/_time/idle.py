"""Is everything idle? A consistent cut through contexts, worker pools and sleeping threads.

A look goes from one to the next, and what was idle a moment ago may be busy by the time it reaches
the last: two contexts that throw a ball to each other may both be seen without it. So there are two
looks, which are compared. What a look sees of each is a *witness*: if it is the same in both looks,
its owner was idle from the first to the second without a break.

    a context   its bell, the list made for one sleep. The same list, still unrung, means the same
                sleep: a waker takes the bell's element first, and a home that wakes by itself hangs
                up another bell. Besides, its mailbox is empty and its selector has nothing to read:
                bytes that another context has written to a socket count as busy.
    a pool      no job waits, each worker is listed as idle, and so many jobs were ever taken. From
                an idle pool that count can only grow: unchanged, none was taken in between.
    a thread    in `clock.park` (with a virtual clock only): the record of one sleep, its parker not
                set. A record is made for a sleep and dropped with it.

An I/O thread that starts or ends has no context to look at, not yet or not any more, and is busy.

All were idle at the moment between the two looks, as each one's span reaches over it. Could
anything be on its way at that moment? A post is in the mailbox before the bell is rung; in the
mailbox at that moment, it is still there at the second look (a sleeping home takes nothing out), or
its producer has rung the bell. A job is queued, or its worker is not listed. A result is posted
before its worker lists itself as idle. A call through a foreign executor is noted by the context
that waits for it, which changes that only when awake. So there was nothing, and whatever begins
later comes from outside: a plain thread, another process, a foreign loop. Those are not seen.
"""

from __future__ import annotations

import select
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from ..._core.big_lock import big_lock, shown_thread
from ..._core.context import every_context
from ..._core.current import main
from ..._core.loop_context import LoopContext
from ..._os.threads import NoticedThread
from ..._threads.io_thread import IOThread
from ..._workers.pool import every_pool

if TYPE_CHECKING:
    from collections.abc import Collection

    from ..._core.context import AioContext
    from ..._os.parking import Parker
    from ..._workers.pool import WorkerPool


class Sleeper:
    """A record of one sleep of a thread under a virtual clock, made and dropped by that thread."""

    __slots__ = ("ident", "parker", "until")

    def __init__(self, ident: int, parker: Parker, until: float | None) -> None:
        self.ident = ident
        self.parker = parker
        self.until = until  # by the virtual clock; None: until it is unparked

    def __repr__(self) -> str:
        return f"thread {shown_thread(self.ident)}"


class Busy(NamedTuple):
    """A context, pool or thread is not idle."""

    who: object
    why: str

    def __str__(self) -> str:
        return f"{self.who!r} {self.why}"


class Cut(NamedTuple):
    """All were idle."""

    contexts: list[AioContext]
    sleepers: list[Sleeper]
    witnesses: list[Any]

    def same(self, other: Cut) -> bool:
        """Return whether nothing woke between the two looks."""
        mine, its = self.witnesses, other.witnesses
        return len(mine) == len(its) and all(
            one is two or (one == two and type(one) is int)
            for one, two in zip(mine, its, strict=True)
        )


def cut(contexts: Collection[AioContext] | None, sleepers: set[Sleeper]) -> Cut | Busy:
    """Two looks at `contexts` (None: all that run), their workers, and threads that sleep."""
    first = _look(contexts, sleepers)
    if isinstance(first, Busy):
        return first
    second = _look(contexts, sleepers)
    if isinstance(second, Busy):
        return second
    return second if first.same(second) else Busy("a thread", "has just been awake")


def _look(wanted: Collection[AioContext] | None, sleepers: set[Sleeper]) -> Cut | Busy:
    between = _starts_or_ends() if wanted is None else None
    if between is not None:
        return Busy(between, "is starting or ending")
    contexts = [each for each in (every_context() if wanted is None else wanted) if _lives(each)]
    pools = every_pool() if wanted is None else [each.workers for each in contexts if each.workers]
    witnesses: list[Any] = []
    for pool in pools:  # before the contexts, to which their results go
        taken = _taken_when_idle(pool)
        if taken is None:
            return Busy(pool, "has work in flight")
        witnesses.append(taken)
    poll = select.poll()
    for context in contexts:
        bell = context._bell
        busy = _busy(context, bell) or _register(poll, context)
        if busy is not None:
            return busy
        witnesses.append(bell)
    asleep = list(sleepers.copy())
    for sleeper in asleep:
        if sleeper.parker.is_set():
            return Busy(sleeper, "has just been woken")
    for fd, _ in poll.poll(0):
        return Busy(f"descriptor {fd}", "has something for the loop that sleeps at it")
    return Cut(contexts, asleep, witnesses + asleep)


def _busy(context: AioContext, bell: Any) -> Busy | None:
    if type(bell) is not list or not bell or context._ready:
        return Busy(context, "is awake")
    if context._away:
        return Busy(context, "waits for an executor")
    if context is main.context and big_lock._queue:
        return Busy(big_lock, "is held, or is being handed over")
    return None


def _register(poll: select.poll, context: AioContext) -> Busy | None:
    """Have `poll` look at its selector, unless its home has just closed that."""
    if not isinstance(context, LoopContext):
        return None
    try:
        fd = context.loop.selector_fd()
    except ValueError:
        return Busy(context, "is being closed")
    if fd is not None:
        poll.register(fd, select.POLLIN)
    return None


def _starts_or_ends() -> IOThread | None:
    """Return an I/O thread, if there is one, that is no context's home but soon is, or has been."""
    for thread in threading.enumerate():
        if isinstance(thread, NoticedThread):
            owner = getattr(thread._ended, "__self__", None)
            if isinstance(owner, IOThread):
                context = owner._context
                if context is None or context._closed:
                    return owner
    return None


def _lives(context: AioContext) -> bool:
    """Return whether its loop runs. Of a foreign loop only our own posts are known."""
    if context._closed:
        return False
    if isinstance(context, LoopContext):
        return context._home_ident is not None
    return context.loop.is_running()


def _taken_when_idle(pool: WorkerPool) -> int | None:
    """Return how many jobs its workers ever took if they have nothing to do, else None."""
    taken = pool._taken
    idle = not pool._jobs and len(pool._idle) >= len(pool._threads)
    return taken if idle and pool._taken == taken else None
