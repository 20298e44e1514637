"""Races run for a while, with threads that change places all the time, and told by their seed."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Self

from .._os.clock import monotonic
from ._fight import Fight
from ._places import Threads

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine, Iterable
    from concurrent.futures import Future
    from types import TracebackType


class Stress:
    """`with Stress(seconds=1.0) as stress:` a race, in a box of time.

    Inside, the interpreter changes threads each `switch_interval` seconds. `thread(fn, *args)` adds
    a plain thread; `go` has all begin at once, `wait` lets them race until `over()` and raises what
    went wrong. `run` has tasks in several contexts, on loops of others, and threads fight over one
    thing. `rng()` gives random choices that `seed` determines; what is raised in here has the
    seed in its notes. `patience` is how long, in seconds, a thread may need to end before it is
    taken to hang.

    >>> from homebound.testing import Stress
    >>> with Stress(seconds=0.01) as stress:
    ...     def race():
    ...         while not stress.over():
    ...             stress.count("rounds")
    ...     for _ in range(2):
    ...         _ = stress.thread(race)
    ...     stress.wait()
    >>> stress.counts["rounds"] > 0
    True

    Called from: any thread.
    """

    def __init__(
        self,
        *,
        seconds: float = 1.0,
        seed: int | None = None,
        switch_interval: float = 1e-6,
        patience: float = 30.0,
    ) -> None:
        self.seconds: float = seconds
        self.seed: int = random.SystemRandom().getrandbits(32) if seed is None else seed
        self.patience: float = patience
        # One for each thread that counts, written by it alone: counting synchronises nothing.
        self._counters: list[Counter[str]] = []
        self._mine = threading.local()
        self._switch_interval = switch_interval
        # Where `rng` takes seeds from. Used by the thread that made it.
        self._seeds = random.Random(self.seed)  # noqa: S311  (nothing is to be secret)
        self._threads = Threads(patience=patience)
        self._outcomes: list[Future[Any]] = []
        self._arrived = threading.Semaphore(0)  # of threads at the start
        self._start = threading.Event()
        self._end: float | None = None  # real time; None before the start
        # What went wrong, first come first raised; list.append is atomic.
        self._errors: list[BaseException] = []

    def rng(self) -> random.Random:
        """Random choices for one party; the next call, in the same order, gives the next's.

        Called from: any thread.
        """
        return random.Random(self._seeds.getrandbits(64))  # noqa: S311  (as above)

    def count(self, what: str, number: int = 1) -> None:
        """Add to `counts[what]`.

        Called from: any thread.
        """
        try:
            counter: Counter[str] = self._mine.counter
        except AttributeError:
            counter = self._mine.counter = Counter()
            self._counters.append(counter)
        counter[what] += number

    @property
    def counts(self) -> Counter[str]:
        """Return the counts so far, of all threads together.

        Called from: any thread.
        """
        total: Counter[str] = Counter()
        for counter in tuple(self._counters):
            total.update(dict(counter))  # a copy in one operation: its thread goes on
        return total

    def over(self) -> bool:
        """Return True once the time is over, something went wrong, or `stop` was called.

        Called from: any thread.
        """
        return self.failed() or (self._end is not None and monotonic() >= self._end)

    def stop(self) -> None:
        """End the race.

        Called from: any thread.
        """
        self._end = 0.0

    def fail(self, error: BaseException) -> None:
        """Something went wrong; `wait` raises it.

        Called from: any thread.
        """
        self._errors.append(error)

    def thread(self, fn: Callable[..., Any], /, *args: Any) -> Future[Any]:
        """Start a plain thread that calls `fn(*args)`, from the start on; return its outcome.

        Called from: any thread.
        """

        def party() -> Any:
            self._arrived.release()
            self._start.wait()
            try:
                return fn(*args)
            except BaseException as error:
                self.fail(error)
                raise

        outcome = self._threads.start(party)
        self._outcomes.append(outcome)
        return outcome

    def go(self) -> None:
        """Start: when all threads have come to the barrier, they begin, and the time runs.

        Called from: any thread.
        """
        if not self._start.is_set():
            for _ in self._outcomes:
                self._arrived.acquire()
            if self._end is None:
                self._end = monotonic() + self.seconds
            self._start.set()

    def wait(self) -> None:
        """Start if need be, wait until it is over and the threads have ended. Raises what failed.

        Called from: any thread.
        """
        self.go()
        while not self.over():
            assert self._end is not None
            time.sleep(max(0.0, min(0.05, self._end - monotonic())))
        self.join()

    def alive(self) -> list[threading.Thread]:
        """Return the threads that have not ended.

        Called from: any thread.
        """
        return self._threads.alive()

    def failed(self) -> bool:
        """Something went wrong.

        Called from: any thread.
        """
        return bool(self._errors)

    def join(self) -> None:
        """Wait until the threads have ended. Raises what failed, AssertionError for one that hangs.

        Called from: any thread.
        """
        self._threads.join()
        if self._errors:
            raise self._errors[0]

    def run(  # noqa: PLR0913  (options of one call)
        self,
        task: Callable[[random.Random], Coroutine[Any, Any, object]],
        thread: Callable[[random.Random], object] | None = None,
        *,
        contexts: int = 2,
        threads: int = 2,
        tasks: int = 4,
        loops: Iterable[Callable[[], asyncio.AbstractEventLoop]] = (),
        cancel: bool = True,
        deaths: float = 0.0,
        finish: Callable[[], object] | None = None,
    ) -> None:
        """Have many parties use one object until the time is over; raise what went wrong.

        `tasks` tasks call `await task(rng)` again and again in each of `contexts` I/O threads, and
        in each loop that the factories `loops` make; `threads` plain threads call `thread(rng)`.
        With `cancel`, tasks are cancelled now and then and replaced. `deaths` is the probability,
        each time, that an I/O thread is stopped and replaced. Each party has one turn at least,
        however late it begins. At the end `finish()` is called until the last one has ended: it
        brings what the others wait for. `counts` has the turns of each kind of party, the
        cancellations and the deaths.

        Called from: any thread.
        """
        fight = Fight(self, task, contexts, tasks, list(loops))
        fight.cancel, fight.deaths = cancel, deaths
        if thread is not None:
            for _ in range(threads):
                self.thread(self._again, thread, self.rng())
        fight.run(finish or bool)
        self.join()

    def _again(self, thread: Callable[[random.Random], object], rng: random.Random) -> None:
        """Take turns until the time is over: one at least, however late it begins."""
        while True:
            thread(rng)
            self.count("turns of threads")
            if self.over():
                return

    def __enter__(self) -> Self:
        self._before = sys.getswitchinterval()
        sys.setswitchinterval(self._switch_interval)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.stop()
            self._start.set()
            self._threads.join()
        except AssertionError as hanging:
            hanging.add_note(f"Stress(seed={self.seed})")
            raise
        finally:
            sys.setswitchinterval(self._before)
            if error is not None:
                error.add_note(f"Stress(seed={self.seed})")

    def __repr__(self) -> str:
        return f"<Stress seed={self.seed} {dict(self.counts)}>"
