"""Synchronous waits in a thread that runs a foreign loop, for what a task of that loop holds."""

from __future__ import annotations

import asyncio
import re
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import Condition, ContextError, Lock, RWLock, WouldDeadlock
from homebound.testing import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from homebound.testing import Threads

    # Makes a lock; returns what a task enters, what then waits in the loop's thread, the lock.
    Case = Callable[[], tuple[Any, Callable[[], object], Any]]


def enter(manager: Any) -> None:
    with manager:
        pass


def lock() -> Any:
    lock = Lock()
    return lock, lambda: enter(lock), lock


def acquire_sync() -> Any:
    lock = Lock(name="accounts")
    return lock, lock.acquire_sync, lock


def condition() -> Any:
    condition = Condition()
    return condition, lambda: enter(condition), condition


def lock_of_a_condition() -> Any:
    lock = Lock()
    return Condition(lock), lambda: enter(lock), lock


def write_while_it_reads() -> Any:
    lock = RWLock()
    return lock.read(), lambda: enter(lock.write()), lock


def read_while_it_writes() -> Any:
    lock = RWLock()
    return lock.write(), lock.acquire_read_sync, lock


CASES = [
    lock,
    acquire_sync,
    condition,
    lock_of_a_condition,
    write_while_it_reads,
    read_while_it_writes,
]


async def hold(manager: Any) -> None:
    async def deeper() -> None:
        async with manager:
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    await deeper()


@pytest.mark.parametrize("case", CASES)
def test_a_lock_of_a_task_of_this_loop_is_refused(case: Case):
    manager, wait, lock = case()

    async def main() -> str:
        task = asyncio.create_task(hold(manager), name="holder")
        await asyncio.sleep(0)
        with pytest.raises(WouldDeadlock) as caught:
            wait()
        await task  # it has gone on, and released the lock
        assert not lock.locked()
        wait()
        return str(caught.value)

    said = asyncio.run(main())
    assert re.fullmatch(
        r"a synchronous wait for <.*> would never end: it stops the loop that this thread runs, "
        r"and task 'holder' of that loop holds the lock\. Use `async with` or `await` in "
        r"coroutines of that loop, or have homebound\.run\(main\(\)\) run it: that loop keeps "
        r"running meanwhile\. Called in thread 'MainThread' \(no current context\)",
        said,
    )


def test_a_lock_that_was_handed_over_to_a_task_of_this_loop_is_refused(threads: Threads):
    """The task joined the queue first, and cannot run any more."""
    lock = Lock()

    async def take() -> None:
        await lock.acquire()
        lock.release()

    def hold() -> None:
        with lock:
            until(lambda: len(lock._waiters) == 2)

    async def main() -> None:
        threads.start(hold)
        until(lock.locked)
        task = asyncio.create_task(take(), name="taker")
        await asyncio.sleep(0)
        with pytest.raises(WouldDeadlock, match="task 'taker' of that loop holds the lock"):
            lock.acquire_sync()
        await task

    asyncio.run(main())
    assert not lock.locked()


@pytest.mark.parametrize("by", ["condition", "lock"])
def test_a_lock_of_another_thread_is_waited_for(by: str, threads: Threads):
    """Also while a task of this loop waits for a notification, inside an `async with`."""
    lock = Lock()
    condition = Condition(lock)
    inside: Any = condition if by == "condition" else lock
    held = threading.Event()

    def hold() -> None:
        with condition:
            condition.notify()  # its waiter has not run when the wait below begins
            held.set()
            threading.Event().wait(0.3)  # longer than until the first look

    async def wait() -> None:
        async with inside:
            await condition.wait()

    async def main() -> bool:
        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        threads.start(hold)
        held.wait()
        with condition:
            got = True
        await task
        return got

    assert asyncio.run(main())


def test_readers_do_not_keep_a_reader_out(threads: Threads):
    """A reader queues behind a writer that may give up."""
    lock = RWLock()
    gone: list[bool] = []

    def write() -> None:
        gone.append(lock.acquire_write_sync(timeout=0.5))

    async def main() -> bool:
        async def read() -> None:
            async with lock.read():
                await asyncio.sleep(0)
                await asyncio.sleep(0)

        task = asyncio.create_task(read())
        await asyncio.sleep(0)
        threads.start(write)
        until(lambda: lock._waiters or gone)
        lock.acquire_read_sync()
        lock.release()
        await task
        return True

    assert asyncio.run(main())
    until(lambda: gone == [False])


def test_a_wait_with_a_timeout_ends_by_itself():
    lock = Lock()

    async def main() -> bool:
        task = asyncio.create_task(hold(lock))
        await asyncio.sleep(0)
        acquired = lock.acquire_sync(timeout=0.2)
        await task
        return acquired

    assert asyncio.run(main()) is False


def test_a_wait_that_cannot_have_its_lock_back_leaves_that_to_its_holder(threads: Threads):
    """The lock goes to a thread, which notifies, and then to a task of this loop."""
    condition = Condition()
    taken: list[bool] = []

    def notify() -> None:
        with condition:
            condition.notify()

    async def take() -> None:
        async with condition:
            taken.append(condition.locked())

    async def wait() -> None:
        with condition:
            threads.start(notify)
            until(lambda: len(condition._lock._waiters) == 1)
            task = asyncio.create_task(take(), name="taker")
            await asyncio.sleep(0)
            try:
                condition.wait_sync()
            finally:
                tasks.append(task)

    tasks: list[asyncio.Task[None]] = []

    async def main() -> None:
        with pytest.raises(WouldDeadlock, match="task 'taker' of that loop holds the lock"):
            await wait()
        assert condition.locked()  # by the task, which has not run since
        await tasks[0]

    asyncio.run(main())
    assert taken == [True]
    assert not condition.locked()


def test_an_upgrade_that_cannot_read_again_leaves_the_lock_to_its_holder(threads: Threads):
    lock = RWLock()
    other = threading.Event()

    def read() -> None:
        with lock.read():
            other.set()
            until(lambda: len(lock._waiters) == 2)

    async def write() -> None:
        async with lock.write():
            pass

    tasks: list[asyncio.Task[None]] = []

    async def upgrade() -> None:
        with lock.read():
            threads.start(read)
            other.wait()
            tasks.append(asyncio.create_task(write(), name="writer"))
            await asyncio.sleep(0)
            lock.upgrade_sync()

    async def main() -> None:
        with pytest.raises(WouldDeadlock, match="task 'writer' of that loop holds the lock"):
            await upgrade()
        assert lock.locked()  # by the task, which has not run since
        await tasks[0]

    asyncio.run(main())
    assert not lock.locked()


def test_an_attached_loop_says_what_was_called():
    lock = Lock()

    async def main() -> str:
        homebound.AioContext.attach(asyncio.get_running_loop())
        task = asyncio.create_task(hold(lock))
        await asyncio.sleep(0)
        with pytest.raises(ContextError) as caught:
            lock.acquire_sync()
        await task
        return str(caught.value)

    said = asyncio.run(main())
    assert re.match(r"a synchronous wait for <.*Lock.*>: <AioContext .*> is attached to", said)
