"""Tasks everywhere that use one thing, while some are cancelled and homes die."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from .._os.clock import monotonic
from .._threads.io_thread import IOThread
from ._places import LoopThread

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Coroutine

    from ._stress import Stress

_PAUSE = 0.0005  # seconds between two cancellations


class Fight:
    """The machinery of `Stress.run`. All of it but `_live` runs in the calling thread."""

    def __init__(
        self,
        stress: Stress,
        task: Callable[[random.Random], Coroutine[Any, Any, object]],
        contexts: int,
        tasks: int,
        loops: list[Callable[[], asyncio.AbstractEventLoop]],
    ) -> None:
        self.cancel = True
        self.deaths = 0.0
        self._stress = stress
        self._task = task
        self._rng = stress.rng()
        self._tasks = tasks
        self._ios = [IOThread(f"io{number}") for number in range(contexts)]
        self._loops = loops

    def run(self, finish: Callable[[], object]) -> None:
        """Start the race when all are there; until the time is over, and everyone has ended."""
        others = [LoopThread(factory) for factory in self._loops]
        for io in self._ios:
            io.start()
        try:
            tasks = self._keep_going(others)
            self._wait_for(tasks, finish)
        finally:
            self._stress.stop()
            for io in self._ios:
                io.stop(self._stress.patience)
            for other in others:
                other.end()

    def _keep_going(self, others: list[LoopThread]) -> list[Any]:
        places = len(self._ios) + len(others)
        tasks: list[list[Any]] = [[] for _ in range(places)]
        while True:
            for number, group in enumerate(tasks):
                group[:] = [task for task in group if not task.done()]
                while len(group) < self._tasks:
                    group.append(self._begin(number, others))
            # Now, not before: threads that fight already may need all the time that there is.
            self._stress.go()
            if self._stress.over():
                return [task for group in tasks for task in group]
            self._disturb(tasks)
            time.sleep(_PAUSE)

    def _disturb(self, tasks: list[list[Any]]) -> None:
        rng = self._rng
        if self.cancel:
            rng.choice(rng.choice(tasks)).cancel()
        if rng.random() < self.deaths:
            victim = rng.randrange(len(self._ios))
            self._ios[victim].stop(self._stress.patience)
            self._stress.count("I/O threads stopped")
            self._ios[victim] = IOThread(f"io{victim}")
            self._ios[victim].start()

    def _begin(self, number: int, others: list[LoopThread]) -> Any:
        rng = self._stress.rng()
        if number < len(self._ios):
            return self._ios[number].spawn(self._live(rng, "turns of homebound's tasks"))
        return others[number - len(self._ios)].call(self._live(rng, "turns of other loops' tasks"))

    async def _live(self, rng: random.Random, turns: str) -> None:
        """Take turns until the time is over: one at least, however late it begins."""
        while True:
            try:
                await self._task(rng)
                self._stress.count(turns)
            except asyncio.CancelledError:
                self._stress.count("cancelled turns")
                raise
            except BaseException as error:
                self._stress.fail(error)
                raise
            if self._stress.over():
                return
            if rng.random() < 0.2:  # noqa: PLR2004  (now and then)
                await asyncio.sleep(0)

    def _wait_for(self, tasks: list[Any], finish: Callable[[], object]) -> None:
        """Every party that is not cancelled ends by itself when it sees that the time is over."""
        stress = self._stress
        deadline = monotonic() + stress.patience
        while stress.alive() or not all(task.done() for task in tasks):
            if stress.failed():
                return
            if monotonic() > deadline:
                left = [task for task in tasks if not task.done()]
                raise AssertionError(f"these wait for ever: {left} {stress.alive()}")
            finish()
            time.sleep(0.001)
