"""Stall watch: what is reported, once, and with which stack; and what is no stall."""

from __future__ import annotations

import asyncio
import queue
import re
import subprocess
import sys
import textwrap
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import IOThread, Stall, big_lock, block_on, watch_stalls
from homebound._debug.deadlock import look_twice
from homebound._debug.stall import Look
from homebound._debug.wait_graph import WaitGraph, describe
from homebound.testing import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    InThread = Callable[..., Future[Any]]
    Gate = Callable[[homebound.AioContext], threading.Event]


async def nothing() -> None:
    pass


def queued(count: int = 1) -> bool:
    return len(big_lock._waiters) == count


# Looks at times that the test sets.


def test_a_home_that_blocks(io: IOThread, gate: Gate):
    look = Look(1.0)
    assert look(0) == []
    go_on = gate(io.context)
    assert look(10) == []  # first seen
    assert look(10.5) == []
    [stall] = look(11)
    assert (stall.kind, stall.threads, stall.seconds) == ("context", ("io",), 1.0)
    assert stall.message == "context 'io': thread 'io' blocks in one iteration"
    assert "in hold" in stall.stacks
    assert "for 1.0 s" in str(stall)
    assert look(12) == []  # reported once
    go_on.set()
    block_on(io.spawn(nothing()))
    assert look(13) == []
    gate(io.context)
    assert look(14) == []
    assert len(look(15)) == 1  # another one


def test_a_name_with_an_apostrophe(gate: Gate):
    look = Look(1.0)
    with IOThread("'io's'") as io:
        go_on = gate(io.context)
        assert look(0) == []
        [stall] = look(1)
        go_on.set()
    assert stall.threads == ("'io's'",)
    assert f"thread {stall.threads[0]!r} blocks" in stall.message


def test_a_home_that_sleeps_or_runs_callbacks_is_no_stall(io: IOThread):
    look = Look(1.0)
    for now in range(5):
        assert look(now) == []
        block_on(io.spawn(nothing()))


def test_a_busy_home_is_no_stall():
    look = Look(1.0)

    async def main() -> None:
        for now in range(5):
            assert look(now) == []
            await asyncio.sleep(0)

    homebound.run(main())


def test_a_home_that_waits_in_a_running_loop():
    look = Look(1.0)
    found: list[Stall] = []

    async def looks() -> None:
        for now in range(5):
            found.extend(look(now))
            await asyncio.sleep(0)

    async def main() -> None:
        block_on(looks())

    homebound.run(main())
    assert found == []


def test_the_big_lock_held_by_a_thread_that_is_no_home(in_thread: InThread):
    look = Look(1.0)
    held, go_on = threading.Event(), threading.Event()

    def hold_it() -> None:
        with big_lock:
            held.set()
            go_on.wait(20)

    first = in_thread(hold_it)
    held.wait(20)
    assert look(0) == []
    [stall] = look(1)
    assert (stall.kind, stall.threads) == ("big lock", ("plain0",))
    assert stall.message == "big lock: held by thread 'plain0', which is no home"
    assert "in hold_it" in stall.stacks
    waiting = in_thread(hold_it)
    until(queued)
    assert [look(now) for now in range(2, 5)] == [[], [], []]
    go_on.set()
    first.result(20)
    waiting.result(20)
    assert look(9) == []


def test_the_big_lock_acquired_again_and_again_is_no_stall(in_thread: InThread):
    look = Look(1.0)

    def take() -> None:
        for now in range(5):
            with big_lock:
                assert look(now) == []

    in_thread(take).result(20)


def test_the_main_home_waits_for_the_big_lock(in_thread: InThread):
    """The thread that holds it is the cause, and the only one reported."""
    look = Look(1.0)

    def hold(context: homebound.AioContext) -> list[Stall]:
        with big_lock:
            context._signal.set()  # type: ignore[attr-defined]  # as an event would: it wakes
            until(queued)
            return look(0) + look(1) + look(2)

    async def main() -> list[Stall]:
        context = homebound.current_context()
        assert context is not None
        outcome: list[Stall] = await asyncio.wrap_future(in_thread(hold, context))
        return outcome

    [stall] = homebound.run(main())
    assert (stall.kind, stall.threads) == ("big lock", ("plain0",))


def test_an_io_thread_that_keeps_the_big_lock(io: IOThread, in_thread: InThread):
    """Its home makes progress, so it is no stall of the home; but other threads wait."""
    look = Look(1.0)
    taken = threading.Event()
    io.context.call_soon(lambda: (big_lock.acquire(), taken.set()))
    taken.wait(20)
    for now in range(3):
        assert look(now) == []  # no other thread waits
        block_on(io.spawn(nothing()))
    waiter = in_thread(lambda: big_lock.acquire() and big_lock.release())
    until(queued)
    assert look(3) == []
    block_on(io.spawn(nothing()))
    [stall] = look(4)
    assert stall.message == "big lock: held by thread 'io', thread 'plain0' waits"
    block_on(io.spawn(nothing()))  # the last report may have come during the same iteration
    assert look(5) == []
    io.context.call_soon(big_lock.release)
    waiter.result(20)


def test_a_main_home_that_blocks_with_threads_waiting_is_one_stall(in_thread: InThread):
    look = Look(1.0)

    async def main() -> list[Stall]:
        in_thread(lambda: big_lock.acquire() and big_lock.release())
        until(queued)
        return look(0) + look(0.5) + look(1) + look(2)

    [stall] = homebound.run(main())
    assert (stall.kind, stall.threads) == ("context", ("MainThread",))


# Deadlocks.


def test_a_deadlock_is_reported_by_name(in_thread: InThread):
    look = Look(1.0)
    lock = homebound.Lock()

    def takes_it_twice() -> None:
        with lock:
            lock.acquire_sync()

    with watch_stalls():  # so that the lock records its holder
        done = in_thread(takes_it_twice)
        until(look_twice)
        [stall] = [*look(0), *look(0.5), *look(1), *look(2)]
        lock.release()
        done.result(20)
    assert (stall.kind, stall.threads) == ("deadlock", ("plain0",))
    assert re.sub("0x[0-9a-f]+", "...", stall.message) == (
        "deadlock: the Lock at ... is held by thread 'plain0'; "
        "thread 'plain0' waits for the Lock at ..."
        " (a Lock is not recursive: its holder must not acquire it again)"
    )
    assert "in takes_it_twice" in stall.stacks
    assert look_twice() == []


def test_a_deadlock_through_the_big_lock():
    """An I/O thread holds the big lock and waits for a job that waits for the main thread."""
    program = """
    import os, homebound
    def report(stall):
        if stall.kind == "deadlock":  # not a home that waits for a core of the machine
            print(sorted(stall.threads), "in block" in stall.stacks)
            print(stall.message, flush=True)
            os._exit(5)
    async def visit():
        pass
    async def block(context, pool):
        homebound.big_lock.acquire()
        pool.submit(homebound.block_on, context.spawn(visit(), name="visitor")).result()
    async def main():
        with homebound.WorkerPool(name="pool") as pool, homebound.IOThread("io") as io:
            await io.spawn(block(homebound.current_context(), pool))
    with homebound.watch_stalls(0.02, report=report):
        homebound.run(main())
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    threads, message = done.stdout.splitlines()
    assert threads == "['MainThread', 'io', 'pool-0'] True"
    assert message == (
        "deadlock: task 'visitor' runs in the home thread 'MainThread'; "
        "the home thread 'MainThread' waits for the big lock, held by thread 'io'; "
        "thread 'io' waits in Future.result for thread 'pool-0'; "
        "thread 'pool-0' waits in block_on for task 'visitor'"
    )


def test_a_task_below_the_nested_wait_for_it():
    """Each block_on runs the loop inside the one before, which cannot return first."""
    program = """
    import asyncio, os, homebound
    def report(stall):
        if stall.kind == "deadlock":  # not a home that waits for a core of the machine
            print(stall.message, flush=True)
            os._exit(5)
    async def lower():
        homebound.block_on(asyncio.sleep(0.001))
    async def upper(other):
        homebound.block_on(other)
    async def main():
        below = asyncio.create_task(lower(), name="lower")
        asyncio.create_task(upper(below), name="upper")
        await below
    with homebound.watch_stalls(0.02, report=report):
        homebound.run(main())
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    told = "deadlock: task 'lower' cannot go on before a nested block_on for task 'lower'\n"
    assert (done.returncode, done.stdout, done.stderr) == (5, told, "")


def test_waiting_is_no_deadlock(io: IOThread, in_thread: InThread):
    async def sleeper() -> None:
        await homebound.suspend()

    task = io.spawn(sleeper(), name="sleeper")
    waiter = in_thread(block_on, task)
    until(lambda: WaitGraph().calls)
    assert look_twice() == []
    [edge] = WaitGraph().needs[task].edges
    assert (edge.how, describe(edge.node)) == ("runs in", "the home thread 'io'")
    block_on(io.spawn(nothing()))
    task.wake()
    waiter.result(20)


# The watching thread.


def test_it_watches_until_stopped(io: IOThread, gate: Gate):
    stalls: queue.Queue[Stall] = queue.Queue()
    go_on = gate(io.context)  # kept: an iteration that gets no core would be a stall
    with watch_stalls(0.01, report=stalls.put) as watch:
        assert stalls.get(timeout=20).threads == ("io",)
    go_on.set()
    watch.stop()
    assert not watch._thread.is_alive()
    assert stalls.empty()


def test_it_is_stopped_by_its_report(io: IOThread, gate: Gate):
    stopped = threading.Event()

    def report(_: Stall) -> None:
        watch.stop()
        stopped.set()

    watch = watch_stalls(0.01, report=report)
    gate(io.context)
    assert stopped.wait(20)
    watch.stop()


def test_the_default_report_and_one_that_fails(
    io: IOThread, gate: Gate, caplog: pytest.LogCaptureFixture
):
    reported = threading.Event()

    def fail(_: Stall) -> None:
        reported.set()
        raise ValueError

    go_on = gate(io.context)  # kept: an iteration that gets no core would be a stall
    with watch_stalls(0.01), watch_stalls(0.01, report=fail):
        assert reported.wait(20)
        until(lambda: len(caplog.records) == 2)
    go_on.set()
    texts = sorted(record.getMessage() for record in caplog.records)
    assert texts[0].startswith("context 'io': thread 'io' blocks in one iteration, for 0.")
    assert texts[1] == "the report of a stall failed"
    assert {record.name for record in caplog.records} == {"homebound"}


@pytest.mark.parametrize("threshold", [0, -1, float("nan")])
def test_thresholds_are_checked(threshold: float):
    with pytest.raises(ValueError, match="above 0 seconds"):
        watch_stalls(threshold)
