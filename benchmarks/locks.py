"""A lock that several loops contend for: released at once, and held over an await.

`python -m benchmarks.locks` shows how evenly it is shared: the least served thread's share of the
most served one's, for each lock.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import homebound

from ._between import on_asyncio, on_homebound, on_one_loop
from ._harness import Case, Target
from ._peers import peer

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

TASKS = 10  # on each loop


class _Contest:
    """Tasks of some loops take a lock until it has been taken `n` times."""

    def __init__(self, lock: Any, loops: int, n: int, *, held: bool) -> None:
        self._lock = lock
        self._left = n  # under the lock
        self._held = held
        self.served = [0] * loops  # under the lock
        self.before: list[int] = []  # the same, when the last loop had begun

    def works(self) -> list[Callable[[], Coroutine[Any, Any, None]]]:
        """Return the contest's work, one function for each loop."""
        return [partial(self._loop, number) for number in range(len(self.served))]

    async def _loop(self, number: int) -> None:
        one = self._held_task if self._held else self._tight_task
        await asyncio.gather(*(one(number) for _ in range(TASKS)))

    async def _tight_task(self, number: int) -> None:
        lock, served = self._lock, self.served
        while True:
            async with lock:
                if not self._left:
                    return
                self._left -= 1
                served[number] += 1

    async def _held_task(self, number: int) -> None:
        lock, served = self._lock, self.served
        while True:
            async with lock:
                if not self._left:
                    return
                self._left -= 1
                served[number] += 1
                if not self.before and all(served):
                    self.before = served.copy()
                await asyncio.sleep(0)

    def fairness(self) -> float:
        """Return the least served loop's share of the most served one's, once all had begun."""
        since = [now - then for now, then in zip(self.served, self.before, strict=True)]
        return min(since) / max(since)


def _locks() -> dict[str, tuple[Callable[[], Any], Callable[[Any], float]]]:
    """Return, by name, how a lock is made, and where the tasks run."""
    locks: dict[str, tuple[Callable[[], Any], Callable[[Any], float]]] = {
        "homebound": (homebound.Lock, on_homebound),
        "homebound's on asyncio's loops": (homebound.Lock, on_asyncio),
    }
    aiologic = peer("aiologic")
    if aiologic:
        locks["aiologic"] = (aiologic.Lock, on_asyncio)
    locks["asyncio"] = (asyncio.Lock, on_one_loop)
    return locks


def _variants(loops: int, *, held: bool) -> dict[str, Callable[[int], float]]:
    def variant(make: Any, run: Any) -> Callable[[int], float]:
        return lambda n: run(_Contest(make(), loops, n, held=held).works()) / n

    return {name: variant(*each) for name, each in _locks().items()}


def cases() -> list[Case]:
    """Return the cases to run."""
    return [
        Case(
            name=f"lock {'held' if held else 'tight'}, {loops} loops",
            what=f"a turn with the lock, {TASKS} tasks on each loop; asyncio: all on one",
            variants=_variants(loops, held=held),
            n=n,
            targets=(Target("aiologic", at_least=2),),
        )
        for held, n in ((False, 20_000), (True, 20_000))
        for loops in (2, 4)
    ]


def main() -> None:
    """Print how evenly each lock is shared."""
    for loops in (2, 4):
        for name, (make, run) in _locks().items():
            shares = []
            for _ in range(3):
                contest = _Contest(make(), loops, 50_000, held=True)
                run(contest.works())
                shares.append(contest.fairness())
            sys.stdout.write(f"held, {loops} loops: {name:32} {statistics.median(shares):.3f}\n")


if __name__ == "__main__":
    main()
