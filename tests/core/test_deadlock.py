"""Deadlocks, each made by real threads and tasks: what is told of them, and what is none."""

from __future__ import annotations

import asyncio
import io as text_io
import queue
import re
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import (
    Barrier,
    IOThread,
    Lock,
    RWLock,
    Semaphore,
    big_lock,
    block_on,
    to_worker,
)
from homebound._debug import dump as _dump
from homebound._debug.deadlock import look_twice
from homebound._debug.stall import Look
from homebound._sync import holders as _holders
from homebound.testing import settle_sync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    from homebound import Stall

    InThread = Callable[..., Future[Any]]


@pytest.fixture(autouse=True)
def _watched() -> Iterator[None]:
    """Who takes a lock is known while somebody watches; this one looks once in 100 seconds."""
    with homebound.watch_stalls(200):
        yield


def until(condition: Callable[[], Any]) -> Any:
    """What other threads are about to do; pytest's time limit ends it."""
    while True:
        result = condition()
        if result:
            return result
        time.sleep(0.0002)  # they may need the core, or the interpreter


def plain(text: object) -> str:
    """Without addresses."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(text))


def deadlock() -> str:
    """The one there is, or will be in a moment."""
    [found] = until(look_twice)
    return plain(found)


def dumped() -> str:
    out = text_io.StringIO()
    homebound.dump(out)
    return plain(out.getvalue())


def waits(queue_: Any, count: int = 1) -> None:
    until(lambda: len(queue_._waiters) == count)


async def both(first: Any, second: Any, have_one: Any) -> None:
    async with first:
        await have_one.wait()
        async with second:
            pass


async def hold(lock: Any, held: threading.Event) -> None:
    async with lock:
        held.set()
        await homebound.suspend()


async def take(lock: Any) -> None:
    async with lock:
        pass


def settle(*tasks: Any) -> None:
    """Cancel them, and wait for it; one may go on because another does not."""
    for task in tasks:
        task.cancel()
    for task in tasks:
        with suppress(asyncio.CancelledError):
            block_on(task)


# Locks.


def test_two_tasks_take_two_locks_in_different_order(io: IOThread, io2: IOThread):
    one, two, have_one = Lock(), Lock(), Barrier(2)
    tasks = [
        io.spawn(both(one, two, have_one), name="a"),
        io2.spawn(both(two, one, have_one), name="b"),
    ]
    [found] = until(look_twice)
    assert plain(found) == (
        "deadlock: task 'a' waits for the Lock; the Lock is held by task 'b'; "
        "task 'b' waits for the Lock; the Lock is held by task 'a'"
    )
    stacks = "\n".join(found.stacks())
    assert stacks.count("in both") == 2
    assert "task 'a':" in stacks
    text = dumped()
    assert text.startswith("deadlock: ")
    assert "task 'a': waits for the Lock, held by task 'b'" in text
    settle(*tasks)
    assert look_twice() == []


def test_with_acquire_two_locks_in_different_order(io: IOThread, in_thread: InThread):
    """By `acquire` as well: not a gate, there are two locks."""
    one, two, have_one = Lock(), Lock(), Barrier(2)

    def in_order() -> None:
        one.acquire_sync()
        have_one.wait_sync()
        with two:
            one.release()

    async def other_order() -> None:
        await two.acquire()
        await have_one.wait()
        try:
            await one.acquire()
        finally:
            two.release()

    thread = in_thread(in_order)
    task = io.spawn(other_order(), name="other")
    told = deadlock()
    assert "thread 'plain0' waits for the Lock" in told
    assert "the Lock is held by task 'other'" in told
    assert "the Lock is held by thread 'plain0'" in told
    assert "thread 'plain0' waits for the Lock, held by task 'other'" in dumped()
    settle(task)
    thread.result(20)


def test_a_thread_takes_what_it_has(in_thread: InThread):
    lock = Lock()

    def twice() -> None:
        with pytest.raises(RuntimeError, match="not acquired"), lock, lock:
            pass

    thread = in_thread(twice)
    assert deadlock() == (
        "deadlock: the Lock is held by thread 'plain0'; thread 'plain0' waits for the Lock"
    )
    lock.release()
    thread.result(20)


def test_a_task_takes_what_it_has(io: IOThread):
    lock = Lock()

    async def twice() -> None:
        async with lock, lock:
            pass

    task = io.spawn(twice(), name="twice")
    assert deadlock() == (
        "deadlock: task 'twice' waits for the Lock; the Lock is held by task 'twice'"
    )
    settle(task)


def test_a_task_takes_what_it_has_as_a_thread_does(io: IOThread):
    lock = Lock()

    async def twice() -> None:
        async with lock:
            with lock:
                pass

    task = io.spawn(twice(), name="twice")
    told = deadlock()
    assert "the Lock is held by task 'twice'" in told
    assert "task 'twice' waits for task " in told
    settle(task)


def test_a_home_waits_for_a_task_below_the_wait(io: IOThread):
    """The loop turns, so another task of the home may have it; but not one that stands below."""
    lock = Lock()

    async def upper() -> None:
        with lock:
            pass

    async def lower() -> None:
        async with lock:
            block_on(upper())

    task = io.spawn(lower(), name="lower")
    told = deadlock()
    assert "the Lock is held by task 'lower'" in told
    settle(task)


def test_a_reader_reads_again_behind_a_writer(io: IOThread):
    lock = RWLock()
    reads, go_on = threading.Event(), homebound.Event()

    async def reader() -> None:
        async with lock.read():
            reads.set()
            await go_on.wait()
            async with lock.read():
                pass

    first = io.spawn(reader(), name="reader")
    reads.wait(20)
    second = io.spawn(take(lock.write()), name="writer")
    waits(lock)
    assert look_twice() == []
    go_on.set()
    told = deadlock()
    assert "task 'reader' waits to read the RWLock, behind the writer task 'writer'" in told
    assert "task 'writer' waits to write the RWLock" in told
    assert "the RWLock is held by task 'reader'" in told
    assert "task 'writer': waits to write the RWLock [readers:1], held by task 'reader'" in dumped()
    settle(first, second)


def test_a_writer_and_a_lock(io: IOThread, io2: IOThread):
    rw, lock, have_one = RWLock(), Lock(), Barrier(2)
    tasks = [
        io.spawn(both(rw.write(), lock, have_one), name="a"),
        io2.spawn(both(lock, rw.read(), have_one), name="b"),
    ]
    told = deadlock()
    assert "task 'b' waits to read the RWLock" in told
    assert "the RWLock is held by task 'a'" in told
    settle(*tasks)


def test_a_semaphore_whose_permits_all_wait(io: IOThread, io2: IOThread):
    semaphore, have_one = Semaphore(2), Barrier(3)
    go_on = threading.Event()

    async def patient() -> None:
        async with semaphore:
            await have_one.wait()
            await to_worker(go_on.wait, 20)
            async with semaphore:
                pass

    tasks = [
        io.spawn(both(semaphore, semaphore, have_one), name="a"),
        io2.spawn(patient(), name="b"),
    ]
    have_one.wait_sync()
    waits(semaphore)
    assert look_twice() == []  # the other one may let go of its permit
    go_on.set()
    told = deadlock()
    assert "waits for the Semaphore; the Semaphore is held, one of 2 permits, by task" in told
    assert "waits for a permit of the Semaphore, held by task" in dumped()
    settle(*tasks)


def test_a_task_of_asyncios_own(io: IOThread, in_thread: InThread):
    one, two, have_one = Lock(), Lock(), Barrier(2)

    async def main() -> None:
        task = asyncio.get_running_loop().create_task(both(one, two, have_one), name="theirs")
        await asyncio.wait([task])

    thread = in_thread(asyncio.run, main())
    ours = io.spawn(both(two, one, have_one), name="ours")
    told = deadlock()
    assert "task 'theirs' waits for the Lock" in told
    assert "the Lock is held by task 'theirs'" in told
    assert "held by task 'ours'" in dumped()
    settle(ours)
    thread.result(20)


def test_two_rings_in_one_look(io: IOThread, io2: IOThread):
    pairs = [(Lock(), Lock(), Barrier(2)) for _ in range(2)]
    tasks = []
    for one, two, have_one in pairs:
        tasks += [io.spawn(both(one, two, have_one)), io2.spawn(both(two, one, have_one))]
    look = Look(1.0)
    until(lambda: len(look_twice()) == 2)
    settle_sync()  # the homes, whose stalls it would tell as well, are asleep
    assert look(0) == []
    stalls = look(1)
    assert [stall.kind for stall in stalls] == ["deadlock", "deadlock"]
    assert len({stall.message for stall in stalls}) == 2
    assert look(2) == []  # once each
    settle(*tasks)


# Tasks.


def test_tasks_await_each_other(io: IOThread, io2: IOThread):
    tasks: dict[str, Any] = {}
    both_there = homebound.Event()

    async def awaits(name: str) -> None:
        await both_there.wait()
        await tasks[name]

    tasks["a"] = io.spawn(awaits("b"), name="a")
    tasks["b"] = io2.spawn(awaits("a"), name="b")
    both_there.set()
    assert deadlock() == "deadlock: task 'a' waits for task 'b'; task 'b' waits for task 'a'"
    assert "task 'a': waits for task 'b', at home in 'io2'" in dumped()
    # Each passes a cancellation on to the other: one has to end otherwise.
    for task in tasks.values():
        task._home.call_soon(task._resume_with, RuntimeError("enough"))
    for task in tasks.values():
        with pytest.raises(RuntimeError, match="enough"):
            block_on(task)


def test_a_task_awaits_itself_through_gather(io: IOThread):
    go_on = asyncio.Event()

    async def gathers() -> None:
        me = asyncio.current_task()
        assert me is not None
        await asyncio.gather(me, go_on.wait())

    task = io.spawn(gathers(), name="ouroboros")
    until(lambda: "waits for a gather of task 'ouroboros', task " in dumped())
    assert look_twice() == []  # the other may fail, and end it
    io.context.call_soon(go_on.set)
    assert deadlock() == (
        "deadlock: a gather waits for task 'ouroboros'; task 'ouroboros' waits for a gather"
    )
    io.context.call_soon(task._resume_with, RuntimeError("enough"))
    with pytest.raises(RuntimeError, match="enough"):
        block_on(task)


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
        await to_worker(block_on, homebound.current_task())

    task = io.spawn(waits_for_it(), name="boss")
    told = deadlock()
    assert "thread 'io-worker-0' waits in block_on for task 'boss'" in told
    settle(task)


def test_a_job_blocks_on_a_home_that_waits_for_the_job():
    """Not by `to_worker`, which lets the loop turn: the home waits for the executor's future."""
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
    """Not by `block_on`, which lets it go: the home waits for the executor's future."""
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
    lock.release()  # the job gets it; the callback finds it let go
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


def test_who_stops_a_home_has_what_its_cleanup_needs(in_thread: InThread):
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


def test_who_joins_a_home_has_the_lock_that_it_needs():
    """A lock of ours; the big lock it lets go of as it sleeps."""
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
def test_who_waits_for_a_vcpu_has_what_it_needs(call: str, in_thread: InThread):
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


def test_who_is_to_be_exclusive_waits_for_one_in_guest_code(in_thread: InThread):
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


# What is none.


def nothing_told() -> None:
    """Now, nor later: two looks of a watch that are far apart."""
    settle_sync()  # the looks are apart by their own clock: no home has the time to go to sleep
    look = Look(1.0)
    assert [stall for now in range(4) for stall in look(now)] == []
    assert look_twice() == []


def test_a_chain_is_none(io: IOThread, io2: IOThread):
    one, two, held = Lock(), Lock(), threading.Event()
    last = io.spawn(hold(two, held), name="last")
    held.wait(20)
    middle = io2.spawn(both(one, two, Barrier(1)), name="middle")
    waits(two)
    first = io.spawn(take(one), name="first")
    waits(one)
    nothing_told()
    assert "task 'first': waits for the Lock, held by task 'middle'" in dumped()
    last.wake()
    block_on(middle)
    block_on(first)
    block_on(last)


async def with_timeout(lock: Any) -> None:
    async with asyncio.timeout(1000), lock:
        pass


async def with_wait_for(lock: Any) -> None:
    await asyncio.wait_for(take(lock), 1000)


async def in_a_group(lock: Any) -> None:
    async with asyncio.timeout(1000), homebound.TaskGroup() as group:
        group.create_task(take(lock))


async def gathered(lock: Any) -> None:
    async with asyncio.timeout(1000):
        await asyncio.gather(take(lock))


async def cancelled_later(lock: Any) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_later(1000, task.cancel)
    async with lock:
        pass


async def released_later(lock: Any) -> None:
    asyncio.get_running_loop().call_later(1000, lock.release)
    async with lock:
        pass


async def as_a_thread(lock: Lock) -> None:
    lock.acquire_sync(timeout=1000)


async def blocked_on(lock: Lock) -> None:
    block_on(take(lock), timeout=1000)


@pytest.mark.parametrize(
    "waits_for",
    [
        with_timeout,
        with_wait_for,
        in_a_group,
        gathered,
        cancelled_later,
        released_later,
        as_a_thread,
        blocked_on,
    ],
)
def test_a_wait_with_a_timeout_is_none(waits_for: Any, io: IOThread):
    lock = Lock()

    async def twice() -> None:
        async with lock:
            await waits_for(lock)

    task = io.spawn(twice())
    waits(lock)
    nothing_told()
    settle(task)


def test_a_thread_with_a_timeout_is_none(in_thread: InThread, io: IOThread):
    one, two, have_one = Lock(), Lock(), Barrier(2)

    def in_order() -> bool:
        with one:
            have_one.wait_sync()
            return two.acquire_sync(timeout=1000)

    thread = in_thread(in_order)
    task = io.spawn(both(two, one, have_one))
    waits(one)
    waits(two)
    nothing_told()
    settle(task)
    assert thread.result(20)


def test_a_waiter_that_is_cancelled_meanwhile(io: IOThread, io2: IOThread):
    one, two, have_one = Lock(), Lock(), Barrier(2)
    tasks = [io.spawn(both(one, two, have_one)), io2.spawn(both(two, one, have_one))]
    until(look_twice)
    look = Look(1.0)
    assert look(0) == []
    settle(*tasks)
    assert look(2) == []


def test_the_same_who_wait_anew_are_not_the_same_wait(io: IOThread, io2: IOThread):
    """Two looks show the same tasks and locks; in between they had come apart."""
    one, two, have_one = Lock(), Lock(), Barrier(2)

    async def again() -> None:
        async with one:
            await have_one.wait()
            try:
                await two.acquire()
            except asyncio.CancelledError:
                async with two:
                    pass

    tasks = [io.spawn(again(), name="a"), io2.spawn(both(two, one, have_one), name="b")]
    look = Look(1.0)
    [before] = until(look_twice)
    assert look(0) == []
    tasks[0].cancel()
    until(lambda: any(not each.is_that(before) for each in look_twice()))
    settle_sync()  # as in nothing_told
    assert look(1) == []
    assert len(look(2)) == 1
    settle(*tasks)


def test_a_lock_used_as_a_gate_is_none(in_thread: InThread):
    """Taken by `acquire`, and waited for: somebody else will open it."""
    gate = Lock()

    def wait_for_it() -> None:
        gate.acquire_sync()
        gate.acquire_sync()

    thread = in_thread(wait_for_it)
    waits(gate)
    nothing_told()
    gate.release()
    thread.result(20)


def test_a_lock_taken_before_anybody_watched_is_none(io: IOThread):
    lock, held = Lock(), threading.Event()
    _holders.end()  # that of the fixture
    first = io.spawn(hold(lock, held), name="first")
    held.wait(20)
    _holders.begin()
    second = io.spawn(take(lock), name="second")
    waits(lock)
    assert "'second': waits for the Lock, held by an unknown holder: holders are" in dumped()
    nothing_told()
    first.wake()
    block_on(second)
    assert "Lock" not in dumped()


def test_a_record_of_an_earlier_watch_is_not_believed(io: IOThread):
    lock, held = Lock(), threading.Event()

    async def hold_on() -> None:
        await lock.acquire()

    block_on(hold_on(), io.context)  # written down
    _holders.end()
    lock.release()
    holder = io.spawn(hold(lock, held))
    held.wait(20)
    _holders.begin()
    assert _holders.holders(lock, None) == ()
    holder.wake()
    block_on(holder)


def test_another_task_of_the_home_may_have_it(io: IOThread):
    """`with lock:` in a task lets the loop turn."""
    lock, held = Lock(), threading.Event()
    holder = io.spawn(hold(lock, held), name="holder")
    held.wait(20)

    async def as_a_thread() -> None:
        with lock:
            pass

    waiter = io.spawn(as_a_thread(), name="waiter")
    waits(lock)
    nothing_told()
    holder.wake()
    block_on(waiter)


def test_who_is_in_wait_while_is_shown(io: IOThread):
    """A predicate names nobody, so nobody can say whether it will become false."""
    done: list[None] = []

    def not_yet() -> bool:
        return not done

    async def waits_for_it() -> None:
        homebound.wait_while(not_yet, io.context)

    task = io.spawn(waits_for_it())
    until(lambda: "its home waits in wait_while(<function" in dumped())
    nothing_told()
    done.append(None)
    homebound.kick()
    block_on(task)


def test_a_stand_in_that_turns_the_main_loop_is_none(in_thread: InThread):
    """The main thread waits for the big lock, but its tasks run all the same."""
    told: list[Any] = []

    async def busy(left: int) -> None:
        for _ in range(left):
            told.extend(look_twice())
            await asyncio.sleep(0)

    def stand_in(context: Any) -> None:
        with big_lock:
            context._signal.set()
            until(lambda: big_lock._waiters)  # the main thread
            block_on(busy(50), context)

    async def main() -> None:
        context = homebound.current_context()
        await asyncio.wrap_future(in_thread(stand_in, context))

    homebound.run(main())
    assert told == []


@pytest.mark.parametrize("how", ["block_on", "join", "shutdown", "lock"])
def test_who_is_about_to_let_the_big_lock_go_is_none(how: str, io: IOThread, in_thread: InThread):
    """It shows that it waits, and then lets go: this looks in between."""
    lock, held = Lock(), threading.Event()
    told: list[Any] = []

    def locked() -> None:
        with big_lock:
            pass

    async def needs_it() -> None:
        async with lock:
            held.set()
            locked()

    def before_it_lets_go(frame: Any, event: str, _: object) -> None:
        if event == "call" and frame.f_code is type(big_lock).release.__code__:
            sys.setprofile(None)
            until(lambda: "1 waiting" in repr(big_lock))
            told.append(look_twice())

    def wait() -> None:
        with big_lock, IOThread() as other, homebound.WorkerPool() as pool:
            if how == "shutdown":
                pool.submit(locked)
            else:
                (other if how == "join" else io).spawn(needs_it())
                held.wait(20)
            sys.setprofile(before_it_lets_go)
            if how == "block_on":
                block_on(asyncio.sleep(0), io.context)
            elif how == "join":
                other.stop()
            elif how == "shutdown":
                pool.shutdown()
            else:
                lock.acquire_sync()

    in_thread(wait).result(20)
    assert told == [[]]


# What dump() says of waits.


def test_what_tasks_wait_for_in_words(io: IOThread):
    full: homebound.Queue[int] = homebound.Queue(1)
    full.put_nowait(1)
    empty: homebound.Queue[int] = homebound.Queue()
    event, condition = homebound.Event(), homebound.Condition()

    async def notified() -> None:
        async with condition:
            await condition.wait()

    tasks = [
        io.spawn(each, name=name)
        for name, each in (
            ("put", full.put(2)),
            ("get", empty.get()),
            ("join", full.join()),
            ("event", event.wait()),
            ("condition", notified()),
            ("barrier", Barrier(2).wait()),
            ("sleep", asyncio.sleep(1000)),
        )
    ]
    until(lambda: "sleeps for another" in dumped())
    text = dumped()
    assert "task 'put': waits for room in the Queue\n" in text
    assert "task 'get': waits for an item of the Queue\n" in text
    assert "task 'join': waits for all work of the Queue to be done\n" in text
    assert "task 'event': waits for the Event to be set\n" in text
    assert "task 'condition': waits for a notification of the Condition\n" in text
    assert "task 'barrier': waits for the others at the Barrier\n" in text
    assert re.search(r"task 'sleep': sleeps for another (1e\+03|99\d) s", text)
    assert f"room in the Queue at {id(full):#x}" in "".join(_dump.describe())
    settle(*tasks)


# The watch itself.


def test_the_watch_reports_it_once(io: IOThread, io2: IOThread):
    one, two, have_one = Lock(), Lock(), Barrier(2)
    stalls: queue.Queue[Stall] = queue.Queue()

    def report(stall: Stall) -> None:
        if stall.kind == "deadlock":  # a home may have to wait for a core of the machine
            stalls.put(stall)

    with homebound.watch_stalls(0.01, report=report):
        tasks = [
            io.spawn(both(one, two, have_one), name="a"),
            io2.spawn(both(two, one, have_one), name="b"),
        ]
        stall = stalls.get(timeout=20)
        assert stall.threads == ()
        assert "task 'a' waits for the Lock at 0x" in stall.message
        assert "in both" in stall.stacks
        settle(*tasks)
    assert stalls.empty()


def told_by(program: str) -> str:
    """What the watch of a process says before it ends that process: nothing else would."""
    text = "import os, threading, homebound\n" + textwrap.dedent("""
    def report(stall):
        if stall.kind == "deadlock":
            print(stall.message, flush=True)
            os._exit(5)
    homebound.watch_stalls(0.02, report=report)
    """)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", text + textwrap.dedent(program)],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (5, "")
    return done.stdout.strip()
