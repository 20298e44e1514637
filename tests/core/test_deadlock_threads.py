"""Deadlocks through workers, I/O threads and vCPUs, each made by real threads and tasks."""

from __future__ import annotations

import asyncio
import re
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import (
    IOThread,
    Lock,
    block_on,
    to_worker,
)

from .deadlocks import (
    deadlock,
    dumped,
    settle,
    told_by,
    waits,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    InThread = Callable[..., Future[Any]]

pytestmark = pytest.mark.usefixtures("watched")


# Workers.


def test_a_job_takes_a_lock_of_the_task_that_waits_for_it(io: IOThread):
    lock = Lock()

    def job() -> None:
        with lock:
            pass

    async def waits_for_it() -> None:
        async with lock:
            await to_worker(job)

    task = io.spawn(waits_for_it(), name="boss")
    told = deadlock()
    assert re.search(r"task 'boss' waits for the job .*job, done by thread 'io-worker-0'", told)
    assert "thread 'io-worker-0' waits for the Lock" in told
    assert "the Lock is held by task 'boss'" in told
    assert re.search(r"'boss': waits for the job .*job, done by thread 'io-worker-0'", dumped())
    settle(task)


def test_a_job_blocks_on_the_task_that_waits_for_it(io: IOThread):
    async def waits_for_it() -> None:
        await to_worker(block_on, homebound.current_task())  # type: ignore[arg-type]

    task = io.spawn(waits_for_it(), name="boss")
    told = deadlock()
    assert "thread 'io-worker-0' waits in block_on for task 'boss'" in told
    settle(task)


def test_a_job_blocks_on_a_home_that_waits_for_the_job():
    """The home waits for the executor's future; `to_worker` would let the loop run."""
    assert told_by("""
    pool = homebound.WorkerPool(name="pool")
    async def at_home():
        pass
    def job():
        homebound.block_on(io.spawn(at_home(), name="inner"))
    io = homebound.IOThread("io")
    io.start()
    io.context.call_soon(lambda: pool.submit(job).result())
    threading.Event().wait()
    """) == (
        "deadlock: task 'inner' runs in the home thread 'io'; "
        "the home thread 'io' is kept busy in a Future.result by thread 'io'; "
        "thread 'io' waits in Future.result for thread 'pool-0'; "
        "thread 'pool-0' waits in block_on for task 'inner'"
    )


def test_the_big_lock_is_kept_by_a_home_that_waits_for_a_job():
    """The home waits for the executor's future; `block_on` would release the lock."""
    assert told_by("""
    pool = homebound.WorkerPool(name="pool")
    io = homebound.IOThread("io")
    io.start()
    async def visitor():
        pass
    async def main():
        context = homebound.current_context()
        async def block():
            with homebound.big_lock:
                task = context.spawn(visitor(), name="visitor")
                pool.submit(homebound.block_on, task).result()
        await io.spawn(block())
    homebound.run(main())
    """) == (
        "deadlock: task 'visitor' runs in the home thread 'MainThread'; "
        "the home thread 'MainThread' waits for the big lock, held by thread 'io'; "
        "thread 'io' waits in Future.result for thread 'pool-0'; "
        "thread 'pool-0' waits in block_on for task 'visitor'"
    )


def test_a_foreign_loop_stands_still_for_a_lock_of_its_running_task():
    assert told_by("""
    import asyncio
    lock = homebound.Lock(name="accounts")
    async def main():
        asyncio.current_task().set_name("main")
        async with lock:
            with lock:
                pass
    asyncio.run(main())
    """) == (
        "deadlock: task 'main' runs in the loop of thread 'MainThread'; "
        "thread 'MainThread' waits for the Lock 'accounts'; "
        "the Lock 'accounts' is held by task 'main'"
    )


def test_a_foreign_loop_stands_still_for_a_home_that_needs_its_task():
    assert told_by("""
    import asyncio
    lock = homebound.Lock(name="accounts")
    io = homebound.IOThread("io")
    io.start()
    async def take():
        async with lock:
            pass
    async def main():
        asyncio.current_task().set_name("main")
        async with lock:
            homebound.block_on(io.spawn(take(), name="take"))
    asyncio.run(main())
    """) == (
        "deadlock: task 'main' runs in the loop of thread 'MainThread'; "
        "thread 'MainThread' waits in block_on for task 'take'; "
        "task 'take' waits for the Lock 'accounts'; the Lock 'accounts' is held by task 'main'"
    )


def test_a_home_shuts_down_workers_that_need_it(io: IOThread):
    pool = homebound.WorkerPool(name="pool")
    began, lock = threading.Event(), Lock()

    def job() -> None:
        began.set()
        with lock:
            pass

    def in_callback() -> None:
        with lock:
            pool.submit(job)
            began.wait(20)
            pool.shutdown()

    io.context.call_soon(in_callback)
    told = deadlock()
    assert "thread 'io' waits in WorkerPool.shutdown for thread 'pool-0'" in told
    assert "thread 'pool-0' waits for the Lock" in told
    lock.release()  # the job gets the lock; the callback finds it released
    pool.shutdown()


def test_a_pool_whose_workers_all_wait_for_a_worker(io: IOThread):
    io.context.workers = homebound.WorkerPool(max_threads=1, name="pool")

    async def inner() -> None:
        await to_worker(len, "")

    task = io.spawn(to_worker(lambda: block_on(inner(), io.context)), name="outer")
    told = deadlock()
    assert "waits for the job len, which waits for the workers of 'pool'" in told
    assert "the workers of 'pool' are all busy, one is thread 'pool-0'" in told
    [stuck] = [each for each in io.context._tasks() if each is not task]
    stuck.cancel()
    with pytest.raises(asyncio.CancelledError):
        block_on(task)


# I/O threads.


def test_a_thread_stops_a_home_whose_cleanup_needs_its_lock(in_thread: InThread):
    lock, asleep = Lock(), threading.Event()
    io = IOThread("io")
    io.start()

    async def cleans_up() -> None:
        try:
            asleep.set()
            await homebound.suspend()
        finally:
            async with lock:
                pass

    io.spawn(cleans_up(), name="tidy")
    asleep.wait(20)

    def stop() -> None:
        with pytest.raises(RuntimeError, match="not acquired"), lock:
            io.stop()

    thread = in_thread(stop)
    told = deadlock()
    assert "thread 'plain0' waits in IOThread.join for the cleanup of task 'tidy'" in told
    assert "the Lock is held by thread 'plain0'" in told
    lock.release()
    thread.result(20)


def test_a_thread_joins_a_home_that_needs_its_lock():
    """The lock is one of `_sync`'s; the big lock would be released during the join."""
    told = told_by("""
    io, lock = homebound.IOThread("io"), homebound.Lock()
    io.start()
    with homebound.big_lock, lock:
        io.context.call_soon(homebound.big_lock.acquire)
        io.context.call_soon(homebound.big_lock.release)
        io.context.call_soon(lock.acquire_sync)
        io.join()
    """)
    assert "is held by thread 'MainThread'" in told
    assert "thread 'MainThread' waits in IOThread.join for thread 'io'" in told
    assert "big lock" not in told


# vCPUs.


@pytest.mark.parametrize("call", ["run_on_cpu", "pause", "exclusive", "stop"])
def test_a_thread_waits_for_a_vcpu_that_needs_its_lock(call: str, in_thread: InThread):
    lock = Lock()
    vcpu = homebound.VCPU(0, lambda vcpu: (lock.acquire_sync(), lock.release(), vcpu.halt()))

    def hold_and_wait() -> None:
        with pytest.raises(RuntimeError, match="not acquired"), lock:  # noqa: PT012
            vcpu.start()
            waits(lock)
            method = getattr(vcpu, call)
            method(*([lambda: None] if call in ("run_on_cpu", "exclusive") else []))

    thread = in_thread(hold_and_wait)
    told = deadlock()
    name = "join" if call == "stop" else call
    assert f"thread 'plain0' waits in VCPU.{name} for thread 'vcpu0'" in told
    assert "thread 'vcpu0' waits for the Lock" in told
    assert "the Lock is held by thread 'plain0'" in told
    lock.release()
    thread.result(20)
    vcpu.resume()
    vcpu.stop()


def test_a_vcpu_waits_to_be_exclusive_for_one_in_guest_code(in_thread: InThread):
    lock = Lock()

    def execute(vcpu: homebound.VCPU) -> None:
        lock.acquire_sync()
        lock.release()
        vcpu.halt()

    def hold_and_wait() -> None:
        with pytest.raises(RuntimeError, match="not acquired"), lock:  # noqa: PT012
            one.start()
            waits(lock)
            two.start()
            two.exclusive(lambda: None)

    one, two = homebound.VCPU(1, execute), homebound.VCPU(2, homebound.VCPU.halt)
    thread = in_thread(hold_and_wait)
    told = deadlock()
    assert "thread 'plain0' waits in VCPU.exclusive for thread 'vcpu2'" in told
    assert "thread 'vcpu2' waits in being exclusive for thread 'vcpu1'" in told
    assert "thread 'vcpu1' waits for the Lock" in told
    lock.release()
    thread.result(20)
    one.stop()
    two.stop()
