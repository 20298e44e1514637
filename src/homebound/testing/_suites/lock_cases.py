"""The requirements on any lock."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

from ..._threads.block_on import block_on
from ..._threads.io_thread import IOThread
from ..._threads.run import run as run_here
from .._places import LoopThread, Threads
from .._time.settle import settle_sync
from .cases import STEPS, Case, all_of, check_all, outcome, raises, title, turn, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    Run = Callable[[Coroutine[Any, Any, None]], object]

ROUNDS = 60  # of each user, where several contend


# Tasks of one loop.


async def excludes(lock: Any) -> None:
    inside = 0

    async def user() -> None:
        nonlocal inside
        for _ in range(5):
            async with lock:
                inside += 1
                assert inside == 1, "two are inside"
                assert lock.locked(), "it is held, and locked() says no"
                await asyncio.sleep(0)
                inside -= 1

    assert not lock.locked(), "it is new, and locked"
    await asyncio.gather(*(user() for _ in range(5)))
    assert not lock.locked(), "it is free, but locked() is True"


async def serves_in_order(lock: Any) -> None:
    order: list[int] = []

    async def user(number: int) -> None:
        async with lock:
            order.append(number)

    await lock.acquire()
    tasks = [asyncio.create_task(user(number)) for number in range(5)]
    await turn()
    assert order == [], "it was held, and was acquired all the same"
    lock.release()
    assert order == [], "a waiter ran in the stack of the release"
    await all_of(*tasks)
    assert order == list(range(5)), f"served {order}"


async def lets_nobody_overtake(lock: Any) -> None:
    """Queue the releasing task behind the waiters when it acquires the lock again."""
    order: list[str] = []

    async def waiter() -> None:
        async with lock:
            order.append("waiter")

    async def holder() -> None:
        lock.release()
        async with lock:
            order.append("again")

    await lock.acquire()
    first = asyncio.create_task(waiter())
    await turn()
    await all_of(first, asyncio.create_task(holder()))
    assert order == ["waiter", "again"], f"served {order}"


async def refuses_a_release_too_many(lock: Any) -> None:
    raises((RuntimeError, ValueError), lock.release, "a free lock was released")
    async with lock:
        assert lock.locked()


async def survives_cancelling(new: Callable[[], Any]) -> None:
    """Cancel the first of two waiters at one step, the lock released at another."""
    for cancel_at in range(STEPS):
        for release_at in range(STEPS):
            for cancel_first in (True, False):
                await _cancel_and_release(new(), cancel_at, release_at, cancel_first=cancel_first)


async def _cancel_and_release(
    lock: Any, cancel_at: int, release_at: int, *, cancel_first: bool
) -> None:
    got: list[str] = []

    async def user(name: str) -> None:
        await lock.acquire()
        got.append(name)

    await lock.acquire()
    first = asyncio.create_task(user("first"))
    second = asyncio.create_task(user("second"))
    for step in range(STEPS):
        if step == cancel_at and cancel_first:
            first.cancel()
        if step == release_at:
            lock.release()
        if step == cancel_at and not cancel_first:
            first.cancel()
        await asyncio.sleep(0)
    await outcome(first)
    if got == ["first"]:  # it had it before it was cancelled
        lock.release()
    await outcome(second)
    when = f"cancelled at step {cancel_at}, released at {release_at}"
    assert got in (["second"], ["first", "second"]), f"{got} got it; {when}"
    assert lock.locked(), f"it is held, and locked() says no; {when}"
    lock.release()
    assert not lock.locked(), f"it is free, but locked() is True; {when}"


# Homes, loops of others, threads.


class Inside:
    """A count of the parties inside. Not atomic, so that an intruder spoils it."""

    def __init__(self) -> None:
        self.now: list[None] = []
        self.total = 0

    def use(self) -> None:
        self.now.append(None)
        assert len(self.now) == 1, "two are inside"
        before = self.total
        for _ in range(3):
            pass
        self.total = before + 1
        self.now.pop()


def excludes_everywhere(lock: Any, patience: float) -> None:
    inside = Inside()

    async def user() -> None:
        for number in range(ROUNDS):
            async with lock:
                inside.use()
                if number % 4 == 0:
                    await asyncio.sleep(0)

    def user_sync() -> None:
        for _ in range(ROUNDS):
            with lock:
                inside.use()

    with Threads(patience=patience) as threads, LoopThread(asyncio.SelectorEventLoop) as other:
        there = [other.call(user()) for _ in range(2)]
        if hasattr(lock, "acquire_sync"):
            there += [threads.start(user_sync) for _ in range(2)]
        with IOThread() as io, IOThread() as io2:
            wait_for([home.spawn(user()) for home in (io, io2) for _ in range(2)], there, patience)
    total = (len(there) + 4) * ROUNDS
    assert inside.total == total, f"{total} were inside, {inside.total} counted"
    assert not lock.locked(), "it is free, but locked() is True"


def serves_homes_in_order(lock: Any, patience: float) -> None:
    order: list[int] = []

    async def user(number: int) -> None:
        async with lock:
            order.append(number)

    with IOThread() as io, IOThread() as io2:
        block_on(lock.acquire(), io.context, timeout=patience)
        tasks = []
        for number in range(6):
            tasks.append((io, io2)[number % 2].spawn(user(number)))
            settle_sync(io.context, io2.context)
        assert order == [], "it was held, and was acquired all the same"
        lock.release()
        for task in tasks:
            block_on(task, timeout=patience)
    assert order == list(range(6)), f"served {order}"


def survives_cancelling_from_elsewhere(lock: Any, patience: float) -> None:
    async def user() -> str:
        async with lock:
            return "served"

    with IOThread() as io, IOThread() as io2:
        block_on(lock.acquire(), io.context, timeout=patience)
        first, second = io.spawn(user()), io2.spawn(user())
        settle_sync(io.context, io2.context)
        first.cancel()
        lock.release()
        with contextlib.suppress(asyncio.CancelledError):
            assert block_on(first, timeout=patience) == "served"
        assert block_on(second, timeout=patience) == "served"
    assert not lock.locked(), "it is free, but locked() is True"


def survives_the_end_of_a_home(lock: Any, patience: float) -> None:
    async def user() -> str:
        async with lock:
            return "served"

    with IOThread() as io:
        block_on(lock.acquire(), io.context, timeout=patience)
        with IOThread() as dying:
            task = dying.spawn(user())
            settle_sync(dying.context)
            second = io.spawn(user())
            settle_sync(io.context)
        assert task.done(), "its home has ended, and it waits"
        lock.release()
        assert block_on(second, timeout=patience) == "served"
    assert not lock.locked(), "it is free, but locked() is True"


def lets_a_thread_give_up(lock: Any, patience: float) -> None:
    if not hasattr(lock, "acquire_sync"):
        return
    assert lock.acquire_sync(timeout=patience), "it was free, and not to be had"
    with Threads(patience=patience) as threads:
        assert threads.start(lock.acquire_sync, 0.001).result(patience) is False, "two have it"
        waiter = threads.start(lock.acquire_sync, patience)
        lock.release()
        assert waiter.result(patience), "it was released, and a thread waits for it"
        lock.release()
    assert not lock.locked(), "it is free, but locked() is True"


ON_ONE_LOOP = [excludes, serves_in_order, lets_nobody_overtake, refuses_a_release_too_many]
EVERYWHERE = [
    excludes_everywhere,
    serves_homes_in_order,
    survives_cancelling_from_elsewhere,
    survives_the_end_of_a_home,
    lets_a_thread_give_up,
]


def lock_cases(
    *, run: Run = run_here, one_loop: bool = False, patience: float = 20.0
) -> list[Case]:
    """Return the requirements on a lock as cases: pairs of a name and `check(factory)`.

    For a framework that shows each: `@pytest.mark.parametrize("case", lock_cases())`, and in the
    test `case(factory)`. See `check_lock` for the options.

    >>> import homebound
    >>> from homebound.testing import lock_cases
    >>> for name, check in lock_cases():
    ...     check(homebound.Lock)

    Called from: any thread.
    """

    def on_one_loop(case: Callable[[Any], Coroutine[Any, Any, None]], factory: Any) -> None:
        async def main() -> None:
            await case(factory())

        run(main())

    def cancelling(factory: Any) -> None:
        run(survives_cancelling(factory))

    def everywhere(case: Callable[[Any, float], None], factory: Any) -> None:
        case(factory(), patience)

    cases = [Case(title(each), partial(on_one_loop, each)) for each in ON_ONE_LOOP]
    cases.append(Case(title(survives_cancelling), cancelling))
    if not one_loop:
        cases += [Case(title(each), partial(everywhere, each)) for each in EVERYWHERE]
    return cases


def check_lock(
    factory: Callable[[], Any],
    *,
    run: Run = run_here,
    one_loop: bool = False,
    patience: float = 20.0,
    skip: Iterable[str] = (),
) -> None:
    """Check that what `factory()` makes is a lock: it excludes, is fair, and is never lost.

    It has asyncio.Lock's interface, and is used by tasks of several loops and by plain threads
    (if it has `acquire_sync(timeout)` and works in a `with`). With `one_loop` it need serve no more
    than tasks of the loop that `run(coroutine)` runs. `patience` is how long, in seconds, a thread
    may seem to hang. `skip` has names of cases, see `lock_cases`. Raises AssertionError naming the
    case that fails, an ExceptionGroup if there are more, ValueError for names that are no case's.

    >>> import asyncio, homebound
    >>> from homebound.testing import check_lock
    >>> check_lock(homebound.Lock)
    >>> check_lock(asyncio.Lock, one_loop=True)

    Called from: any thread.
    """
    cases = lock_cases(run=run, one_loop=one_loop, patience=patience)
    check_all("check_lock", cases, factory, skip)
