"""A forked process: its parent's contexts have ended there, and it can have its own."""

from __future__ import annotations

import os
import textwrap

import pytest

from .forks import printed_by_forking

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

PRELUDE = """
import asyncio, os, signal, sys, threading, homebound
from homebound import ContextClosed, big_lock, block_on

async def value(number):
    await asyncio.sleep(0)
    return number

def fresh():
    # All a process can do, in the child.
    async def main():
        assert homebound.current_context() is homebound.main_context()
        return await value(1) + await homebound.to_worker(lambda: 2)
    assert homebound.run(main()) == 3
    with homebound.IOThread("fresh") as io:
        assert block_on(io.spawn(value(4))) == 4
    with big_lock:
        assert big_lock.held()
"""


def run(program: str) -> None:
    text = PRELUDE + textwrap.dedent(program)
    assert printed_by_forking(text + "\nprint('done')") == "done\n"


def test_what_was_there_has_ended():
    run("""
    io = homebound.IOThread("io")
    io.start()
    future = io.context.loop.create_future()
    async def sleeper():
        await homebound.suspend()
    task = io.spawn(sleeper())
    block_on(io.spawn(value(0)))
    half = io.context.bottom_half(print)

    def body():
        coro = value(1)
        for act in (
            lambda: io.context.call_soon(print), lambda: io.spawn(value(1)), task.wake,
            lambda: io.context.schedule(task), half.schedule, lambda: block_on(coro, io.context),
        ):
            try:
                act()
            except ContextClosed as error:
                assert "'io'" in str(error) and "forked" in str(error), error
            else:
                raise AssertionError(act)
        coro.close()
        assert io.context.stats().closed
        io.context.notify()
        io.stop()
        io.join()
        async def far():
            try:
                await future
            except ContextClosed:
                pass
            try:
                await homebound.move_to(io.context)
            except ContextClosed:
                return 5
        assert homebound.run(far()) == 5

    child(body)
    task.wake()
    block_on(task)
    io.stop()
    """)


def test_a_fresh_start():
    run("""
    io = homebound.IOThread()
    io.start()
    block_on(io.spawn(value(0)))
    child(fresh)
    child(lambda: child(fresh))
    assert block_on(io.spawn(value(6))) == 6
    """)


@pytest.mark.parametrize("leave", ["os._exit", "sys.exit"])
def test_inside_a_running_task(leave: str):
    """The parent's loop goes on: its epoll and its descriptors are as they were."""
    run(f"""
    async def other():
        await asyncio.sleep(0)
        assert os.getpid() == parent, "the child runs the parent's tasks"

    async def main():
        loop = asyncio.get_running_loop()
        reader, writer = os.pipe()
        readable = asyncio.Event()
        loop.add_reader(reader, readable.set)
        caught = asyncio.Event()
        loop.add_signal_handler(signal.SIGUSR1, caught.set)
        tasks = [asyncio.create_task(other()) for _ in range(3)]
        with homebound.IOThread() as io:
            child(fresh, {leave})
            assert os.getpid() == parent, "the child runs on"
            await asyncio.gather(*tasks)
            os.write(writer, b"x")
            await readable.wait()
            os.kill(parent, signal.SIGUSR1)
            await caught.wait()
            posted = asyncio.Event()
            io.context.call_soon(lambda: homebound.AioContext.attach(loop).call_soon(posted.set))
            await posted.wait()
        loop.remove_reader(reader)

    parent = os.getpid()
    homebound.run(main())
    """)


def test_in_an_io_thread():
    run("""
    async def work():
        child(fresh)
        return await value(7)
    with homebound.IOThread() as io:
        assert block_on(io.spawn(work())) == 7
    """)


def test_the_child_leaves_its_parents_run():
    run("""
    async def main():
        pid = os.fork()
        if pid:
            await value(0)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return "child"
    result = homebound.run(main())
    if result == "child":
        fresh()
        os._exit(8)
    assert result == 8, result
    """)


def test_the_big_lock_was_held_by_another_thread():
    run("""
    held, let_go = threading.Event(), threading.Event()
    def hold():
        with big_lock:
            held.set()
            let_go.wait()
    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    def waiting():
        with big_lock:
            pass
    waiter = threading.Thread(target=waiting)
    waiter.start()
    while "1 waiting" not in repr(big_lock):
        pass
    def body():
        assert repr(big_lock) == "<homebound.big_lock, free, 0 waiting>"
        fresh()
    child(body)
    let_go.set()
    holder.join()
    waiter.join()
    """)


def test_the_child_exits_by_itself():
    """The child's atexit handlers run: they wait for no thread of the parent's."""
    run("""
    pool = homebound.WorkerPool()
    go_on = threading.Event()
    busy = threading.Event()
    job = pool.submit(lambda: (busy.set(), go_on.wait()))
    busy.wait()
    io = homebound.IOThread()
    io.start()
    block_on(io.spawn(value(0)))
    watch = homebound.watch_stalls(60)
    def body():
        assert pool.submit(lambda: 8).result() == 8
        watch.stop()
    child(body, sys.exit)
    watch.stop()
    go_on.set()
    """)


def test_a_fork_of_multiprocessing():
    run("""
    import multiprocessing
    async def main():
        process = multiprocessing.get_context("fork").Process(target=fresh)
        process.start()
        await homebound.to_worker(process.join)
        return process.exitcode
    assert homebound.run(main()) == 0
    """)


def test_the_tasks_of_a_stopped_loop_are_the_parents():
    """They are kept, so that their cleanup does not run in the child, and belong to no loop."""
    run("""
    import gc
    steps = []
    async def sleeper():
        try:
            await asyncio.sleep(100)
        finally:
            steps.append("cleanup")
    loop = homebound.new_event_loop()
    tasks = {loop.create_task(sleeper())}
    loop.run_until_complete(value(0))
    def body():
        global loop, tasks
        assert not asyncio.all_tasks(loop)
        loop = tasks = None
        gc.collect()
        assert not steps
        fresh()
    child(body)
    assert asyncio.all_tasks(loop) == tasks
    tasks.pop().cancel()
    loop.run_until_complete(value(0))
    assert steps == ["cleanup"]
    loop.close()
    """)
